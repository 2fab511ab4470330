//! xip-mem: what the kernel says of a process is parsed whatever it is, named honestly and added up to the page.
//!
//! tests/captured has texts of the kernels that their names tell: 6.18 was captured as it is; the others were written
//! after what those kernels showed for the same mappings (lines by `fs/proc/task_mmu.c` of each version).

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use xip_run::cramfs::{Image, InodeKind};
use xip_run::extent::{Storage, extents};
use xip_run::report::image_files::{ImageFiles, Owner};
use xip_run::report::mountinfo::RootMount;
use xip_run::report::pagemap::{PageRun, PageState};
use xip_run::report::session::{Memfd, Seen, SeenMapping, Server, Session, Surroundings};
use xip_run::report::{Class, MappedFile, Part, Report, Subject, classify, smaps, status};
use xip_run::units::{ImageOffset, PageSize};

const PAGE: u64 = 4096;

fn in_tests(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(path)
}

fn captured(name: &str) -> Vec<u8> {
    std::fs::read(in_tests("captured").join(name)).unwrap()
}

fn report_of(name: &str, kernel: (u32, u32), file: Option<&MappedFile>) -> Report {
    let status = in_tests("captured").join(format!("status-{name}"));
    let subject = Subject {
        pid: 101,
        status: status::parse(&std::fs::read(status).unwrap_or_default()),
        kernel,
        session_memfd: None,
    };
    let mappings = smaps::parse(&captured(&format!("smaps-{name}"))).unwrap();
    Report::new(subject, &mappings, |_| file)
}

fn xip_mem(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xip-mem"))
        .args(args)
        .output()
        .unwrap()
}

fn skipped(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    println!("skipped: {why}");
}

// ---- captured texts

#[test]
fn smaps_of_6_18_is_read_field_by_field() {
    let mappings = smaps::parse(&captured("smaps-6.18-x86_64-busybox")).unwrap();
    let status = status::parse(&captured("status-6.18-x86_64-busybox"));
    assert_eq!(mappings.len(), 12);
    let text = &mappings[1];
    assert_eq!((text.start, text.end), (0x401000, 0x585000));
    assert_eq!(
        (text.prot.to_string().as_str(), text.shared),
        ("r-x", false)
    );
    assert_eq!((text.offset_bytes, text.device.0), (0x1000, 0xfe));
    assert_eq!(text.path, b"/usr/bin/busybox");
    assert!(text.has_flag(b"ex") && !text.has_flag(b"pf") && !text.deleted);
    assert_eq!(text.size_bytes(), 1552 * 1024);
    assert_eq!(mappings[11].start, 0xffff_ffff_ff60_0000);
    let anonymous: u64 = mappings.iter().map(|mapping| mapping.anonymous_bytes).sum();
    assert_eq!(Some(anonymous), status.rss_anon_bytes);
    assert_eq!(status.name, "busybox");
    assert_eq!(status.rss_shmem_bytes, Some(0));
}

#[test]
fn a_cut_or_odd_smaps_is_an_error_or_a_result_but_never_a_panic() {
    for entry in std::fs::read_dir(in_tests("captured")).unwrap() {
        let mut text = std::fs::read(entry.unwrap().path()).unwrap();
        for end in (0..text.len()).step_by(5) {
            let _ = smaps::parse(&text[..end]);
            let _ = status::parse(&text[..end]);
        }
        for at in (0..text.len()).step_by(17) {
            let kept = text[at];
            for odd in [b'\n', b' ', b'-', b':', b'9', b'f', 0, 0xff] {
                text[at] = odd;
                let _ = smaps::parse(&text);
            }
            text[at] = kept;
        }
    }
    assert_eq!(smaps::parse(b"").unwrap(), []);
    for (odd, says) in [
        (
            &b"00400000-00401000 r--p 00000000 fe:00 1 /x\nSize: 4 kB\n"[..],
            "has no Rss",
        ),
        (b"Rss: 4 kB\n", "line 1"),
        (b"00401000-00400000 r--p 00000000 fe:00 1 /x\n", "line 1"),
        (
            b"00400000-00401000 r--p 00000000 fe:00 1 /x\nRss:   99999999999999999999 kB\n",
            "line 2",
        ),
        (
            b"00400000-00401000 r--p 00000000 fe:00 1 /x\nRss:     18446744073709551615 kB\n",
            "line 2",
        ),
        (
            b"00400000-00401000 r--p 00000000 fe:00 1 /x\nRss:                10",
            "line 2",
        ),
    ] {
        let err = smaps::parse(odd).unwrap_err().to_string();
        assert!(err.contains(says), "{err}");
    }
}

#[test]
fn names_and_fields_of_every_kind_are_read_and_classified() {
    let report = report_of("4.4-x86_64-names", (4, 4), None);
    let seen: Vec<(&str, Class, Part)> = report
        .rows
        .iter()
        .map(|row| (row.path.as_str(), row.class, row.part))
        .collect();
    assert_eq!(
        seen,
        [
            (
                "/opt/a program (deleted) of mine",
                Class::FileCache,
                Part::Text
            ),
            ("/SYSV00000000", Class::SharedMemory, Part::Data),
            ("/dev/zero", Class::SharedMemory, Part::Data),
            ("/opt/new\\nline", Class::FileCache, Part::Rodata),
            ("/lib/libc-2.23.so", Class::FileCache, Part::Guard),
            ("/memfd:jit cache", Class::SharedMemory, Part::Text),
            ("anon_inode:[io_uring]", Class::Device, Part::Data),
            ("[stack:1234]", Class::Anonymous, Part::Stack),
            ("[anon:malloc of it]", Class::Anonymous, Part::Anonymous),
        ]
    );
}

#[test]
fn flash_with_rss_0_counts_as_mapped_in_place() {
    let report = report_of("6.12-x86_64-devmem", (6, 12), None);
    let totals = report.totals;
    // text and rodata whole; relro less two copied pages; data wholly copied
    assert_eq!(totals.flash_bytes, (4 + 1552 + 344 + 28 - 8) << 10);
    assert_eq!(
        totals.image_cache.mapped_bytes, 0,
        "flash is not page cache"
    );
    assert_eq!(totals.anonymous_bytes, 52 << 10);
    assert_eq!(totals.page_table_bytes, 40 << 10);
    assert_eq!(totals.ram_alone_bytes, 92 << 10);
    assert_eq!(
        (totals.stub.resident_bytes, totals.stub.share_bytes),
        (8 << 10, 4 << 10)
    );
    assert_eq!(totals.ram_with_share_bytes, 96 << 10);
    let relro = &report.rows[3];
    assert_eq!((relro.class, relro.part), (Class::Flash, Part::Relro));
    assert_eq!(
        (relro.counts.in_place_bytes, relro.counts.anonymous_bytes),
        (20 << 10, 8 << 10)
    );
    assert_eq!(relro.program.as_deref(), Some("/dev/mem@0x103da000"));
    assert_eq!(report.rows[5].class, Class::CopiedPages);
    let text = String::from_utf8(captured("smaps-6.12-x86_64-devmem")).unwrap();
    let executable = text.replace("rw-p 00030000", "r-xp 00030000");
    let mapping = &smaps::parse(executable.as_bytes()).unwrap()[5];
    assert_eq!(
        classify(mapping, None),
        Class::CopiedPages,
        "text too can be copied"
    );
    assert_eq!(
        (report.rows[6].part, report.rows[6].program.is_some()),
        (Part::Bss, true)
    );
    let device = report.rows.iter().find(|row| row.perms == "rw-s").unwrap();
    assert_eq!(
        (device.class, device.counts.in_place_bytes),
        (Class::Device, 0)
    );
    let text = report.to_string();
    assert!(
        text.contains("RAM this process costs by itself: 92 KiB (anonymous + page tables)"),
        "{text}"
    );
}

#[test]
fn copies_that_old_kernels_hide_are_counted_by_rss_anon() {
    let old = report_of("6.1-armv7-devmem", (6, 1), None);
    assert_eq!(old.totals.anonymous_bytes, 44 << 10);
    assert_eq!(
        old.totals.flash_bytes,
        (0x10f << 12) + (7 << 12) - (20 << 10)
    );
    assert_eq!(old.totals.ram_alone_bytes, 56 << 10);
    assert!(old.notes[0].contains("20 KiB more"), "{:?}", old.notes);
    let new = report_of("6.1-armv7-devmem", (6, 2), None);
    assert_eq!(
        new.totals.anonymous_bytes,
        24 << 10,
        "RssAnon is approximate: not used where smaps knows"
    );
    assert!(new.notes.is_empty());
}

#[test]
fn dax_is_flash_and_costs_nothing_even_where_rss_counts_it() {
    let dax = MappedFile {
        dax: true,
        ..MappedFile::default()
    };
    let report = report_of("6.12-arm64-dax", (6, 12), Some(&dax));
    assert_eq!(report.totals.flash_bytes, 0x15f << 12);
    assert_eq!(report.totals.anonymous_bytes, 24 << 10);
    // Linux 6.15 and later
    let counted = String::from_utf8(captured("smaps-6.12-arm64-dax")).unwrap();
    let counted = counted.replacen(
        "Rss:                   0 kB",
        "Rss:                 900 kB",
        1,
    );
    let mappings = smaps::parse(counted.as_bytes()).unwrap();
    assert_eq!(mappings[0].rss_bytes, 900 << 10);
    let report = Report::new(Subject::default(), &mappings, |_| Some(&dax));
    assert_eq!(report.totals.flash_bytes, 0x15f << 12);
    assert_eq!(report.totals.ram_with_share_bytes, 24 << 10);
}

/// A process that runs from flash that is mapped by its physical pages, with everything touched.
fn process_in_flash(pid: u32) -> Seen {
    let mappings = smaps::parse(&captured("smaps-6.12-x86_64-devmem")).unwrap();
    let mut subject = Subject {
        pid,
        kernel: (6, 12),
        ..Subject::default()
    };
    subject.status.page_table_bytes = Some(40 << 10);
    let report = Report::new(subject, &mappings, |_| None);
    let seen = |mapping: smaps::Mapping| {
        let copied = mapping.anonymous_bytes / PAGE;
        let pages = mapping.size_bytes() / PAGE;
        let run = |pages, state| PageRun { pages, state };
        let runs = [
            run(pages - copied, PageState::Touched),
            run(copied, PageState::Copied),
        ];
        SeenMapping {
            file: None,
            runs: runs.into_iter().filter(|run| run.pages > 0).collect(),
            mapping,
        }
    };
    Seen {
        report,
        mappings: mappings.into_iter().map(seen).collect(),
        anonymous_share_bytes: Some(50 << 10),
    }
}

#[test]
fn a_session_in_flash_has_it_once_and_it_is_no_ram() {
    let around = Surroundings {
        pid: 7,
        view: RootMount {
            device: (0, 39),
            file_system: "fuse.cramfs".to_owned(),
            source: "xip-view:9".to_owned(),
        },
        image_path: None,
        image: None,
        server: Some(Server {
            pid: 9,
            anonymous_bytes: 256 << 10,
            page_table_bytes: 64 << 10,
            page_cache_bytes: 500 << 10,
        }),
        memfds: vec![Memfd {
            name: "xip-run:/bin/busybox".to_owned(),
            allocated_bytes: 16 << 10,
            processes: 2,
        }],
        notes: Vec::new(),
    };
    let seen = [process_in_flash(8), process_in_flash(7)];
    let session = Session::new(around, &seen, PageSize::K4);
    let pids: Vec<u32> = session.processes.iter().map(|one| one.pid).collect();
    assert_eq!(pids, [7, 8]);
    // Text and rodata whole, relro less two copied pages, data wholly copied. A page of it is mapped
    // twice, as the last one of rodata and the first one of relro.
    let flash = (4 + 1552 + 344 + 28 - 8) << 10;
    for process in &session.processes {
        assert_eq!(process.sources.flash.mapped_bytes, flash);
        assert_eq!(process.sources.flash.touched_bytes, flash);
        assert_eq!(process.anonymous_bytes, 52 << 10);
    }
    let totals = session.totals;
    assert_eq!(totals.sources.flash.mapped_bytes, flash - PAGE);
    assert_eq!(totals.anonymous_bytes, 100 << 10);
    assert_eq!(totals.page_table_bytes, 80 << 10);
    assert_eq!(totals.server_bytes, 320 << 10);
    assert_eq!(totals.ram_alone_bytes, (100 + 80 + 16 + 320) << 10);
    // Flash is no RAM, and copied pages are in the memfd.
    assert_eq!(
        totals.ram_with_cache_bytes,
        totals.ram_alone_bytes + (500 << 10)
    );
    let flash_row = session
        .files
        .iter()
        .find(|file| file.file == "/dev/mem")
        .unwrap();
    assert_eq!(
        (flash_row.processes, flash_row.in_place.mapped_bytes),
        (2, flash - PAGE)
    );
    let rows = seen.iter().flat_map(|one| &one.report.rows);
    let copied = rows.filter(|row| row.path == "/dev/mem");
    let copied: u64 = copied.map(|row| row.counts.anonymous_bytes).sum();
    assert_eq!((flash_row.copied_bytes, copied > 0), (copied, true));
    let printed = session.to_string();
    let line = format!(
        "{:43} {:>9} KiB",
        "in place, flash: mapped",
        (flash - PAGE) >> 10
    );
    assert!(printed.contains(&line), "{printed}");
    assert!(printed.contains("root an unknown image"), "{printed}");
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
        return skipped("no /bin/busybox: apt-get install busybox-static");
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

#[test]
fn names_are_safe_to_print() {
    let text = String::from_utf8(captured("smaps-4.4-x86_64-names")).unwrap();
    let text = text.replace("jit cache", "\u{1b}[31mred\u{7}");
    let mappings = smaps::parse(text.as_bytes()).unwrap();
    let report = Report::new(Subject::default(), &mappings, |_| None);
    let text = report.to_string();
    assert!(
        text.chars().all(|c| c == '\n' || !c.is_control()),
        "{text:?}"
    );
}
