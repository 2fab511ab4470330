//! xip-mem on live processes, and whose what lies in an image is.

#[path = "common/launch.rs"]
mod launch;

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use xip_run::cramfs::{Image, InodeKind};
use xip_run::extent::{Storage, extents};
use xip_run::report::image_files::{ImageFiles, Owner};
use xip_run::units::ImageOffset;

const PAGE: u64 = 4096;

fn in_tests(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(path)
}

fn xip_mem(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xip-mem"))
        .args(args)
        .output()
        .unwrap()
}

// ---- images

#[test]
fn every_stored_byte_of_the_golden_images_leads_back_to_its_file() {
    let mut stored = 0;
    for entry in std::fs::read_dir(in_tests("golden")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_none_or(|extension| extension != "cramfs")
        {
            continue;
        }
        let image = Image::open(std::fs::read(&path).unwrap()).unwrap();
        let (files, damage) = ImageFiles::new(&image);
        assert!(damage.is_none(), "{}: {damage:?}", path.display());
        let tree = std::fs::read(in_tests("golden/TREE")).unwrap();
        for line in tree.split(|&byte| byte == b'\n') {
            let name = line.split(|&byte| byte == b'\t').next().unwrap();
            let Ok(inode) = image.lookup_nofollow(name) else {
                continue;
            };
            if inode.kind != InodeKind::File {
                continue;
            }
            for extent in extents(&image, &inode).unwrap() {
                let Storage::Stored { at } = extent.storage else {
                    continue;
                };
                let last = name.rsplit(|&byte| byte == b'/').next().unwrap();
                let owner = files.owner(at, extent.stored_bytes, last);
                assert_eq!(
                    owner,
                    Owner::File([b"/", name].concat()),
                    "{}",
                    path.display()
                );
                stored += 1;
            }
        }
        assert_eq!(
            files.owner(ImageOffset(u64::MAX), u64::MAX, b""),
            Owner::Nobody
        );
        assert_eq!(
            files.owner(ImageOffset(0), 76, b""),
            Owner::Nobody,
            "the superblock is no file's"
        );
    }
    assert!(stored > 3, "only {stored} stored extents");
}

/// A little endian image by hand: superblock, then `directory` (entries of inode and 4-byte name).
fn image_of(entries: &[(u32, u32, u32)]) -> Image {
    let inode = |mode: u32, size: u32, words: u32, name_words: u32| {
        [mode, size, words << 6 | name_words]
            .map(u32::to_le_bytes)
            .concat()
    };
    let directory: Vec<u8> = entries
        .iter()
        .enumerate()
        .flat_map(|(number, &(mode, size, at))| {
            let mut entry = inode(mode, size, at / 4, 1);
            entry.extend(format!("{number:03}\0").bytes());
            entry
        })
        .collect();
    let len = 76 + directory.len() as u32 + 64;
    let mut bytes = [0x28cd_3d45, len, 1, 0].map(u32::to_le_bytes).concat();
    bytes.extend(b"Compressed ROMFS");
    bytes.extend([0, 0, 0, 0].map(u32::to_le_bytes).concat());
    bytes.extend([0; 16]);
    bytes.extend(inode(0o40755, directory.len() as u32, 76 / 4, 0));
    bytes.extend(directory);
    bytes.resize(len as usize, 0);
    Image::open(bytes).unwrap()
}

#[test]
fn hostile_images_end_the_walk() {
    // A directory that contains itself under many names, and directories that overlap each other.
    let many: Vec<_> = (0..1000).map(|_| (0o40755, 1000 * 16, 76)).collect();
    let shifted: Vec<_> = (0..1000)
        .map(|at| (0o40755, (1000 - at) * 16, 76 + at * 16))
        .collect();
    for entries in [many, shifted] {
        let (files, damage) = ImageFiles::new(&image_of(&entries));
        assert_eq!(files.owner(ImageOffset(0), 1 << 20, b""), Owner::Nobody);
        let damage = damage.unwrap().to_string();
        assert!(damage.contains("/000: its entries at 0x4c"), "{damage}");
    }
    // Files whose block pointers overlap.
    let files: Vec<_> = (0..1000)
        .map(|at| (0o100644, 0xff_ffff, 76 + at * 4))
        .collect();
    let damage = ImageFiles::new(&image_of(&files)).1.unwrap();
    assert!(
        damage.to_string().contains("inode at image@0x4c"),
        "{damage}"
    );
}

// ---- live processes

/// A process that is ended with the test.
struct Running(Child);

impl Running {
    fn busybox_sleep() -> Option<Self> {
        let child = Command::new("/bin/busybox")
            .args(["sleep", "60"])
            .spawn()
            .ok()?;
        let running = Self(child);
        // It has arrived when its page faults have come to an end.
        let mut before = String::new();
        loop {
            std::thread::sleep(std::time::Duration::from_millis(50));
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", running.pid())).unwrap();
            if stat == before && stat.contains("(busybox) S") {
                return Some(running);
            }
            before = stat;
        }
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn json(pid: &str) -> serde_json::Value {
    let out = xip_mem(&["--json", pid]);
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap()[0].take()
}

/// The sums of a live process by header kind, found with other means than the library's.
fn sums(pid: &str) -> HashMap<&'static str, u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut sums = HashMap::new();
    let mut file = false;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words[0].contains('-') {
            file = words.get(5).is_some_and(|path| path.starts_with('/'));
        }
        let kib = words
            .get(1)
            .and_then(|word| word.parse::<u64>().ok())
            .unwrap_or(0);
        match words[0] {
            "Anonymous:" => *sums.entry("anonymous").or_default() += kib << 10,
            "Rss:" if file => *sums.entry("file rss").or_default() += kib << 10,
            "Size:" if file => *sums.entry("file size").or_default() += kib << 10,
            _ => {}
        }
        if words[0] == "Anonymous:" && file {
            *sums.entry("file anonymous").or_default() += kib << 10;
        }
    }
    sums
}

#[test]
fn a_native_process_is_measured_as_smaps_has_it() {
    let Some(running) = Running::busybox_sleep() else {
        return launch::skip("no /bin/busybox: apt-get install busybox-static");
    };
    let pid = running.pid();
    let totals = &json(&pid)["totals"];
    let sums = sums(&pid);
    assert_eq!(totals["flash_bytes"], 0);
    assert_eq!(totals["image_cache"]["mapped_bytes"], 0);
    assert_eq!(totals["anonymous_bytes"], sums["anonymous"]);
    let cache = &totals["file_cache"];
    assert_eq!(
        cache["mapped_bytes"],
        sums["file size"] - sums["file anonymous"]
    );
    assert_eq!(
        cache["resident_bytes"],
        sums["file rss"] - sums["file anonymous"]
    );
    assert!(cache["share_bytes"].as_u64() <= cache["resident_bytes"].as_u64());
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let page_tables = totals["page_table_bytes"].as_u64().unwrap();
    assert!(
        status.contains(&format!("VmPTE:\t{:>8} kB", page_tables >> 10)),
        "{status}"
    );
    assert_eq!(totals["ram_alone_bytes"], sums["anonymous"] + page_tables);

    let text = String::from_utf8(xip_mem(&[&pid]).stdout).unwrap();
    for says in [
        "busybox text",
        "busybox rodata",
        "busybox data",
        "busybox bss",
        "[stack]",
        "native",
    ] {
        assert!(text.contains(says), "{says} is not in\n{text}");
    }
    let own = std::process::id().to_string();
    let text = String::from_utf8(xip_mem(&["--compare", &pid, &own]).stdout).unwrap();
    assert!(text.contains("[1] native"), "{text}");
    assert!(text.contains("RAM it costs by itself"), "{text}");
}

/// A mapping of a golden image in this process.
struct Mapped {
    at: *mut u8,
    len_bytes: usize,
}

impl Mapped {
    /// Maps pages of /bin/prog32 in the golden image `xip-mmu`, which are stored as they are.
    fn prog32(prot: ProtFlags) -> Self {
        let path = in_tests("golden/xip-mmu.cramfs");
        let image = Image::open(std::fs::read(&path).unwrap()).unwrap();
        let inode = image.lookup(b"/bin/prog32").unwrap();
        let (at, pages) = extents(&image, &inode)
            .unwrap()
            .iter()
            .filter_map(|extent| match extent.storage {
                Storage::Stored { at } => Some((at.0, extent.blocks)),
                _ => None,
            })
            .max_by_key(|(_, pages)| *pages)
            .unwrap();
        assert_eq!(at % PAGE, 0);
        assert!(pages >= 3);
        let file = File::open(path).unwrap();
        let len_bytes = (pages * PAGE) as usize;
        // SAFETY: the kernel chooses the address, so no memory of anybody else is replaced.
        let at = unsafe {
            mmap(
                std::ptr::null_mut(),
                len_bytes,
                prot,
                MapFlags::PRIVATE,
                &file,
                at,
            )
        };
        Self {
            at: at.unwrap().cast(),
            len_bytes,
        }
    }

    fn read(&self, page: usize) -> u8 {
        assert!(page * 4096 < self.len_bytes);
        // SAFETY: inside the mapping, which is readable and whose file does not shrink.
        unsafe { self.at.add(page * 4096).read_volatile() }
    }

    fn write(&self, page: usize) {
        assert!(page * 4096 < self.len_bytes);
        // SAFETY: inside the mapping, which is private, writable and only this test's.
        unsafe { self.at.add(page * 4096).write_volatile(1) };
    }

    /// How many pages the page tables have, and how many of them are of the file: by pagemap, not smaps.
    fn present(&self) -> (u64, u64) {
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let mut entries = vec![0; self.len_bytes / 4096 * 8];
        pagemap
            .read_exact_at(&mut entries, self.at as u64 / PAGE * 8)
            .unwrap();
        let entries = entries
            .chunks_exact(8)
            .map(|entry| u64::from_le_bytes(entry.try_into().unwrap()));
        let present = entries.filter(|entry| entry >> 63 == 1);
        present.fold((0, 0), |(all, file), entry| {
            (all + 1, file + (entry >> 61 & 1))
        })
    }

    /// Its row, by xip-mem.
    fn row(&self) -> serde_json::Value {
        let mut report = json(&std::process::id().to_string());
        let rows = report["rows"].as_array_mut().unwrap();
        let row = rows.iter_mut().find(|row| row["start"] == self.at as u64);
        row.expect("xip-mem shows the mapping").take()
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: it is this object's own mapping, and nothing refers to it any more.
        unsafe { munmap(self.at.cast(), self.len_bytes) }.unwrap();
    }
}

#[test]
fn a_mapped_image_is_in_place_from_page_cache_to_the_page() {
    let mapped = Mapped::prog32(ProtFlags::READ | ProtFlags::EXEC);
    let check = || {
        let row = mapped.row();
        let (present, of_file) = mapped.present();
        assert_eq!(present, of_file);
        assert_eq!(row["class"], "image-cache");
        assert_eq!(row["program"], "/bin/prog32");
        assert_eq!(row["part"], "text");
        assert_eq!(row["size_bytes"], mapped.len_bytes);
        assert_eq!(row["in_place_bytes"], mapped.len_bytes);
        assert_eq!(row["rss_bytes"], present * PAGE);
        assert_eq!(row["anonymous_bytes"], 0);
        present
    };
    assert_eq!(check(), 0);
    mapped.read(1);
    assert!(check() >= 1);
    // SAFETY: MADV_POPULATE_READ changes no contents, and the range is the mapping's.
    unsafe {
        madvise(
            mapped.at.cast(),
            mapped.len_bytes,
            Advice::LinuxPopulateRead,
        )
    }
    .unwrap();
    assert_eq!(check(), mapped.len_bytes as u64 / PAGE);

    let own = std::process::id().to_string();
    let text = String::from_utf8(xip_mem(&[&own]).stdout).unwrap();
    for says in [
        "/bin/prog32 text",
        "in place from page cache",
        "xip-mmu.cramfs",
    ] {
        assert!(text.contains(says), "{says} is not in\n{text}");
    }
    assert!(!text.contains("from flash"), "{text}");
}

#[test]
fn a_page_copied_on_write_is_anonymous_and_the_rest_in_place() {
    let mapped = Mapped::prog32(ProtFlags::READ | ProtFlags::WRITE);
    mapped.write(1);
    let row = mapped.row();
    assert_eq!(
        (row["part"].as_str(), row["program"].as_str()),
        (Some("data"), Some("/bin/prog32"))
    );
    assert_eq!(row["class"], "image-cache");
    assert_eq!(row["anonymous_bytes"], PAGE);
    assert_eq!(row["in_place_bytes"], mapped.len_bytes as u64 - PAGE);
    assert_eq!(row["rss_bytes"], PAGE);
    mapped.read(0);
    let (present, of_file) = mapped.present();
    let row = mapped.row();
    assert_eq!(present - of_file, 1);
    assert_eq!(row["anonymous_bytes"], PAGE);
    assert_eq!(row["rss_bytes"], present * PAGE);
}

#[test]
fn what_cannot_be_measured_ends_with_125_and_a_reason() {
    let gone = {
        let mut child = Command::new(env!("CARGO_BIN_EXE_xip-mem"))
            .arg("--version")
            .spawn()
            .unwrap();
        child.wait().unwrap();
        child.id().to_string()
    };
    let gone = [gone.as_str()];
    let cases: [(&[&str], &str); 4] = [
        (&gone, "no such process"),
        (&["0"], "invalid value"),
        (&["self"], "invalid value"),
        (&["--session"], "required"),
    ];
    for (args, says) in cases {
        let out = xip_mem(args);
        let err = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(125), "{args:?}");
        assert!(err.contains(says), "{err}");
    }
    // A zombie has no memory to measure.
    let zombie = Running(
        Command::new(env!("CARGO_BIN_EXE_xip-mem"))
            .arg("--version")
            .spawn()
            .unwrap(),
    );
    let stat = format!("/proc/{}/stat", zombie.pid());
    while !std::fs::read_to_string(&stat).unwrap().contains(") Z ") {
        std::thread::yield_now();
    }
    let out = xip_mem(&[&zombie.pid()]);
    assert_eq!(out.status.code(), Some(125));
    assert!(String::from_utf8(out.stderr).unwrap().contains("has ended"));
}

#[test]
fn one_process_that_cannot_be_measured_hides_no_other() {
    let zombie = Running(
        Command::new(env!("CARGO_BIN_EXE_xip-mem"))
            .arg("--version")
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap(),
    );
    let stat = format!("/proc/{}/stat", zombie.pid());
    while !std::fs::read_to_string(&stat).unwrap().contains(") Z ") {
        std::thread::yield_now();
    }
    let (zombie, own) = (zombie.pid(), std::process::id().to_string());
    let title = format!("(pid {own})");
    for options in [&[][..], &["--compare"], &["--json"], &["--summary"]] {
        let out = xip_mem(&[options, &[&zombie, &own, &zombie]].concat());
        let (shown, err) = (
            String::from_utf8(out.stdout).unwrap(),
            String::from_utf8(out.stderr).unwrap(),
        );
        assert_eq!(out.status.code(), Some(125), "{options:?}");
        assert_eq!(err.matches("has ended").count(), 2, "{err}");
        if options == ["--json"] {
            let reports: serde_json::Value = serde_json::from_str(&shown).unwrap();
            assert_eq!(reports.as_array().unwrap().len(), 1);
            assert_eq!(reports[0]["pid"].to_string(), own);
        } else {
            assert!(shown.contains(&title), "{shown}");
        }
        let nothing = xip_mem(&[options, &[&zombie]].concat());
        assert_eq!(nothing.status.code(), Some(125), "{options:?}");
        let empty: &[u8] = if options == ["--json"] { b"[]\n" } else { b"" };
        assert_eq!(nothing.stdout, empty, "{options:?}");
    }
}

#[test]
fn it_says_its_own_name() {
    let version = format!("xip-mem {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(xip_mem(&["--version"]).stdout, version.as_bytes());
}

#[test]
fn output_that_cannot_be_written_is_a_failure_unless_the_reader_is_gone() {
    let sh = |script: &str| {
        Command::new("sh")
            .args(["-c", script, "sh", env!("CARGO_BIN_EXE_xip-mem")])
            .output()
            .unwrap()
    };
    for (to, says) in [(">&-", "Bad file descriptor"), (">/dev/full", "No space")] {
        for what in ["$$", "--json $$", "--help", "--version"] {
            let out = sh(&format!("\"$1\" {what} {to}"));
            let err = String::from_utf8(out.stderr).unwrap();
            assert_eq!(out.status.code(), Some(125), "{what} {to}");
            assert!(err.contains("xip-mem: standard output: "), "{err}");
            assert!(err.contains(says), "{err}");
        }
    }
    // Not even a standard error: the exit code remains.
    assert_eq!(sh("\"$1\" $$ >&- 2>&-").status.code(), Some(125));
    assert_eq!(
        sh("\"$1\" $$ >/dev/full 2>/dev/full").status.code(),
        Some(125)
    );
    // A pipe whose reader has ended, where SIGPIPE is ignored and where it is not.
    for trap in ["trap '' PIPE;", ""] {
        let out = sh(&format!(
            "{trap} {{ sleep 0.2; \"$1\" $$; echo $? >&2; }} | true"
        ));
        let err = String::from_utf8(out.stderr).unwrap();
        assert!(["0\n", "141\n"].contains(&err.as_str()), "{err}");
    }
}

#[test]
fn help_teaches_the_columns() {
    let out = xip_mem(&["--help"]);
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success());
    for says in [
        "IN PLACE",
        "RSS",
        "PSS",
        "ANON",
        "Example",
        "page tables",
        "session memfd",
        "125",
    ] {
        assert!(text.contains(says), "{says} is not in\n{text}");
    }
}
