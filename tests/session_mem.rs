//! xip-mem --session: a whole session is added up, each page once, as /proc shows it by other means. Which of its
//! processes run in place is the launcher's affair: what is said here holds whether they do or not.

mod common {
    pub mod launch;
    pub mod mapped;
    pub mod mounted;
    pub mod session;
}

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use common::launch::text;
use common::mapped::Mapped;
use common::session::{
    BASH, BUSYBOX, FIVE, Map, PAGE, Waiting, bytes, kib_line, launch, maps, session_of, stage,
    xip_mem,
};
use serde_json::Value;
use xip_run::backing::FileBacking;
use xip_run::cramfs::Image;
use xip_run::report::mountinfo::RootMount;
use xip_run::report::pagemap::{PageRun, PageState};
use xip_run::report::session::{Memfd, Seen, SeenMapping, Server, Session, Surroundings};
use xip_run::report::{Report, Subject, smaps};
use xip_run::units::PageSize;

/// What of an object is in place: from flash, from the page cache, or from tmpfs, wherever the test's image lies.
fn in_place(sources: &Value, what: &str) -> u64 {
    ["flash", "image_cache", "image_tmpfs"]
        .iter()
        .map(|source| bytes(&sources[source][what]))
        .sum()
}

/// The session's processes with their mappings, and what tells image and view in these.
struct Facts {
    processes: BTreeMap<u32, Vec<Map>>,
    image: (u64, u64),
    view_device: u64,
}

impl Facts {
    fn of(session: &Waiting, image: &Path) -> Self {
        let root = fs::metadata(format!("/proc/{}/root", session.pid())).unwrap();
        Self {
            processes: session.pids.iter().map(|&pid| (pid, maps(pid))).collect(),
            image: Mapped::new(image).identity(),
            view_device: root.dev(),
        }
    }

    fn of_image(&self, pid: u32) -> impl Iterator<Item = &Map> {
        self.processes[&pid]
            .iter()
            .filter(|map| map.is_of(self.image))
    }

    fn of_view(&self, pid: u32) -> impl Iterator<Item = &Map> {
        let maps = self.processes[&pid].iter();
        maps.filter(|map| map.dev == self.view_device)
    }

    fn all(&self) -> impl Iterator<Item = &Map> {
        self.processes.values().flatten()
    }

    /// How many different page frames hold the file pages of some mappings, in bytes.
    fn frames<'a>(maps: impl Iterator<Item = &'a Map>) -> u64 {
        let frames: BTreeSet<u64> = maps
            .flat_map(|map| map.file_pages().map(|(_, frame)| frame))
            .collect();
        assert!(!frames.contains(&0), "root sees page frame numbers");
        frames.len() as u64 * PAGE
    }

    /// How many different page frames of anonymous memory the session has, in bytes: by /proc/kpageflags.
    fn anonymous_frames(&self) -> u64 {
        const KPF_ANON: u64 = 1 << 12;
        let flags = File::open("/proc/kpageflags").unwrap();
        let mut frames = BTreeSet::new();
        for entry in self.all().flat_map(|map| &map.pages) {
            let frame = entry & ((1 << 55) - 1);
            if entry >> 61 == 0b100 && !frames.contains(&frame) {
                let mut word = [0; 8];
                flags.read_exact_at(&mut word, frame * 8).unwrap();
                if u64::from_ne_bytes(word) & KPF_ANON != 0 {
                    frames.insert(frame);
                }
            }
        }
        frames.len() as u64 * PAGE
    }

    /// RAM of the session memfds that processes execute or map, each once.
    fn memfd_bytes(&self) -> u64 {
        let mut memfds = BTreeMap::new();
        for (pid, maps) in &self.processes {
            let mapped = maps
                .iter()
                .filter(|map| map.path.starts_with("/memfd:xip-run:"))
                .map(|map| PathBuf::from(format!("map_files/{:x}-{:x}", map.start, map.end)));
            for path in mapped.chain(["exe".into()]) {
                let path = Path::new(&format!("/proc/{pid}")).join(path);
                let to = fs::read_link(&path).unwrap();
                if to.to_string_lossy().starts_with("/memfd:xip-run:") {
                    let stat = fs::metadata(path).unwrap();
                    memfds.insert((stat.dev(), stat.ino()), stat.blocks() * 512);
                }
            }
        }
        assert!(!memfds.is_empty());
        memfds.values().sum()
    }
}

/// What they map is as long as maps says, less what they copied; what they touched is what smaps says.
fn assert_mapped<'a>(shown: &Value, prefix: &str, maps: impl Iterator<Item = &'a Map>) {
    let (mut mapped, mut touched) = (0, 0);
    for map in maps {
        mapped += map.end - map.start - map.anonymous;
        touched += map.rss - map.anonymous;
    }
    let shown = match prefix {
        "in place" => ["mapped_bytes", "touched_bytes"].map(|what| in_place(shown, what)),
        source => ["mapped_bytes", "touched_bytes"].map(|what| bytes(&shown[source][what])),
    };
    assert_eq!(shown, [mapped, touched], "{prefix}");
}

#[test]
fn a_session_is_what_proc_says_of_its_processes() {
    let Some(stage) = stage(&[]) else { return };
    let session = Waiting::start(&mut launch(&stage, &[]), FIVE, 5);
    let facts = Facts::of(&session, &stage.image());
    // Any process of it names it.
    let shown = session_of(session.pids[3], &[]);
    let of_first = session_of(session.pid(), &[]);
    assert_eq!(shown["files"], of_first["files"]);
    assert_eq!(shown["totals"], of_first["totals"]);

    let processes = shown["processes"].as_array().unwrap();
    let pids: Vec<u64> = processes.iter().map(|one| bytes(&one["pid"])).collect();
    let expected: Vec<u64> = session.pids.iter().map(|&pid| pid.into()).collect();
    assert_eq!(pids, expected);
    assert_eq!(shown["file_system"], "fuse.cramfs");
    let image = fs::canonicalize(stage.image()).unwrap();
    assert_eq!(shown["image"], image.to_str().unwrap());
    for (process, &pid) in processes.iter().zip(&session.pids) {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        assert_eq!(process["name"], comm.trim_end());
        let anonymous = kib_line(pid, "smaps_rollup", "Anonymous:");
        assert_eq!(process["anonymous_bytes"], anonymous);
        let tables = kib_line(pid, "status", "VmPTE:");
        assert_eq!(process["page_table_bytes"], tables);
        assert_mapped(process, "in place", facts.of_image(pid));
        assert_mapped(process, "view", facts.of_view(pid));
        // Its files are all that it has of these.
        for (what, source) in [("mapped_bytes", "view"), ("touched_bytes", "view")] {
            let files = process["files"].as_array().unwrap().iter();
            let sum: u64 = files.map(|file| bytes(&file[source][what])).sum();
            assert_eq!(process[source][what], sum);
        }
        let files = process["files"].as_array().unwrap().iter();
        let sum: u64 = files.map(|file| in_place(file, "mapped_bytes")).sum();
        assert_eq!(in_place(process, "mapped_bytes"), sum);
    }
    // The first program runs in place.
    let first = expected
        .iter()
        .position(|&pid| pid == u64::from(session.pid()));
    assert!(in_place(&processes[first.unwrap()], "mapped_bytes") > 1 << 20);
    // bash is somewhere.
    let all = |source: &str| -> u64 {
        let sources = processes
            .iter()
            .map(|one| bytes(&one[source]["mapped_bytes"]));
        sources.sum()
    };
    assert!(all("view") + all("image_cache") + all("image_tmpfs") > 6 << 20);
}

#[test]
fn each_page_of_a_session_counts_once() {
    let Some(stage) = stage(&[]) else { return };
    let session = Waiting::start(&mut launch(&stage, &[]), FIVE, 5);
    let facts = Facts::of(&session, &stage.image());
    let shown = session_of(session.pid(), &[]);
    let totals = &shown["totals"];

    let in_place_frames = Facts::frames(facts.all().filter(|map| map.is_of(facts.image)));
    assert_eq!(in_place(totals, "touched_bytes"), in_place_frames);
    let of_view = facts.all().filter(|map| map.dev == facts.view_device);
    let view_frames = Facts::frames(of_view);
    assert_eq!(totals["view"]["touched_bytes"], view_frames);
    // Both count much less than all the processes' together.
    let processes = shown["processes"].as_array().unwrap();
    let sum: u64 = processes
        .iter()
        .map(|one| in_place(one, "touched_bytes") + bytes(&one["view"]["touched_bytes"]))
        .sum();
    assert!(sum > in_place_frames + view_frames + (1 << 20), "{sum}");

    // Pages that the subshell has from its parent too; /proc rounds down to KiB for each process.
    let anonymous = bytes(&totals["anonymous_bytes"]);
    let frames = facts.anonymous_frames();
    assert!(
        (anonymous..=anonymous + 5 * 1024).contains(&frames),
        "{anonymous}, {frames} by kpageflags"
    );
    let sum: u64 = processes
        .iter()
        .map(|one| bytes(&one["anonymous_bytes"]))
        .sum();
    assert!(anonymous < sum, "{anonymous} of {sum}");

    let tables: u64 = session
        .pids
        .iter()
        .map(|&pid| kib_line(pid, "status", "VmPTE:"))
        .sum();
    assert_eq!(totals["page_table_bytes"], tables);
    assert_eq!(totals["session_memfd_bytes"], facts.memfd_bytes());

    // The server is no process of the session, but the session's cost.
    let server = &shown["server"];
    let pid = bytes(&server["pid"]) as u32;
    assert!(!session.pids.contains(&pid));
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!(comm, "xip-view\n");
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let image = fs::canonicalize(stage.image()).unwrap();
    assert!(
        fds.flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == image)),
        "{pid} serves another image"
    );
    let of_server = kib_line(pid, "smaps_rollup", "Anonymous:");
    assert_eq!(server["anonymous_bytes"], of_server);
    let of_server = of_server + kib_line(pid, "status", "VmPTE:");
    assert_eq!(totals["server_bytes"], of_server);

    let alone = anonymous + tables + facts.memfd_bytes() + of_server;
    assert_eq!(totals["ram_alone_bytes"], alone);
    let others = bytes(&totals["host"]["touched_bytes"])
        + bytes(&totals["shared_memory"]["touched_bytes"])
        + bytes(&server["page_cache_bytes"]);
    assert_eq!(
        totals["ram_with_cache_bytes"],
        alone + in_place_frames + view_frames + others
    );
}

/// The files of the image by `st_ino`, and the ranges of the image that show them, in pages.
fn files_of_image(path: &Path) -> (BTreeMap<u64, String>, BTreeMap<u64, String>) {
    let image = Image::open(FileBacking::open(path).unwrap()).unwrap();
    let (mut by_ino, mut by_page) = (BTreeMap::new(), BTreeMap::new());
    for found in image.walk().map(Result::unwrap) {
        if found.inode.size == 0 || found.inode.mode >> 12 != 0o10 {
            continue;
        }
        let name = text(&found.path);
        by_ino.insert(found.inode.number(), name.clone());
        let index = xip_run::index::FileIndex::new(&image, &found.inode, PageSize::K4).unwrap();
        for run in index.runs() {
            if let Ok(at) = run.state {
                let first = at.0 / PAGE;
                by_page.extend((first..first + run.pages).map(|page| (page, name.clone())));
            }
        }
    }
    (by_ino, by_page)
}

#[test]
fn every_file_is_named_with_who_maps_it() {
    let Some(stage) = stage(&[]) else { return };
    let session = Waiting::start(&mut launch(&stage, &[]), FIVE, 5);
    let facts = Facts::of(&session, &stage.image());
    let (by_ino, by_page) = files_of_image(&stage.image());
    let mut users: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    let mut touched: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for &pid in session.pids.iter() {
        for map in facts.of_view(pid) {
            users.entry(&by_ino[&map.ino]).or_default().insert(pid);
        }
        for map in facts.of_image(pid) {
            for page in map.offset / PAGE..(map.offset + map.end - map.start) / PAGE {
                users.entry(&by_page[&page]).or_default().insert(pid);
            }
            for (page, frame) in map.file_pages() {
                touched.entry(&by_page[&page]).or_default().insert(frame);
            }
        }
    }
    let shown = session_of(session.pid(), &[]);
    let files = shown["files"].as_array().unwrap();
    let named: BTreeSet<&str> = files
        .iter()
        .map(|file| file["file"].as_str().unwrap())
        .collect();
    assert_eq!(named.len(), files.len(), "a file has two rows");
    for file in files {
        let name = file["file"].as_str().unwrap();
        assert_eq!(file["processes"], users[name].len(), "{name}");
        let frames = touched.get(name).map_or(0, BTreeSet::len) as u64 * PAGE;
        assert_eq!(file["in_place"]["touched_bytes"], frames, "{name}");
        // Everything that is not in place has a reason.
        let reasons = file["reasons"].as_array().unwrap().iter();
        let sum: u64 = reasons.map(|why| bytes(&why["mapped_bytes"])).sum();
        assert!(
            sum >= bytes(&file["not_in_place"]["mapped_bytes"]),
            "{file}"
        );
    }
    assert!(named.contains(BUSYBOX) && named.contains(BASH), "{named:?}");
    assert!(
        named.iter().any(|name| name.ends_with("/libc.so.6")),
        "{named:?}"
    );
    assert_eq!(users.keys().copied().collect::<BTreeSet<_>>(), named);
}

#[test]
fn what_is_compressed_is_said_to_be() {
    // Nothing of bash and its libraries is stored as it is.
    let Some(stage) = stage(&["--xip=/bin/busybox"]) else {
        return;
    };
    let script = "/bin/bash -c 'read x <&3; :' & /bin/bash -c 'read x <&3; :' &";
    let session = Waiting::start(&mut launch(&stage, &[]), script, 3);
    let shown = session_of(session.pid(), &[]);
    let mut compressed = 0;
    for file in shown["files"].as_array().unwrap() {
        if file["file"] == BUSYBOX {
            continue;
        }
        assert_eq!(file["in_place"]["mapped_bytes"], 0, "{file}");
        assert_eq!(file["processes"], 2, "{file}");
        // A block that does not shrink is stored as it is, wherever it comes to lie.
        for why in file["reasons"].as_array().unwrap() {
            match why["reason"].as_str().unwrap() {
                "compressed" => compressed += bytes(&why["mapped_bytes"]),
                "misaligned" | "not-consecutive" | "shared-last-page" | "beyond-file" => {}
                _ => panic!("{file}"),
            }
        }
    }
    assert!(compressed > 2 << 20, "{shown}");
    let pid = session.pid().to_string();
    let printed = text(&xip_mem(&["--session", &pid]).stdout);
    let line = printed.lines().find(|line| line.contains(" /bin/bash: "));
    assert!(
        line.unwrap().contains("/bin/bash: compressed "),
        "{printed}"
    );
}

#[test]
fn what_is_printed_says_all_of_it() {
    let Some(stage) = stage(&[]) else { return };
    let session = Waiting::start(&mut launch(&stage, &[]), FIVE, 5);
    let pid = session.pid().to_string();
    let shown = session_of(session.pid(), &[]);
    let printed = text(&xip_mem(&["--session", &pid]).stdout);
    let title = format!(
        "session of pid {pid}: 5 processes, root {} (fuse.cramfs, device 0:",
        shown["image"].as_str().unwrap()
    );
    assert!(printed.starts_with(&title), "{printed}");
    assert!(
        printed.contains(&format!("served by pid {})", shown["server"]["pid"])),
        "{printed}"
    );
    let kib = |value: &Value| bytes(value) / 1024;
    for process in shown["processes"].as_array().unwrap() {
        let row = format!(
            "{:8} {:8} {} {}\n",
            kib(&process["anonymous_bytes"]),
            kib(&process["page_table_bytes"]),
            process["pid"],
            process["name"].as_str().unwrap()
        );
        assert!(printed.contains(&row), "{row} is not in\n{printed}");
    }
    let totals = &shown["totals"];
    for says in [
        format!(
            "{:43} {:>9} KiB",
            "anonymous",
            kib(&totals["anonymous_bytes"])
        ),
        format!(
            "{:43} {:>9} KiB",
            "session memfds (1): allocated",
            kib(&totals["session_memfd_bytes"])
        ),
        format!(
            "RAM this session costs by itself: {} KiB (anonymous + page tables + session memfds + server)",
            kib(&totals["ram_alone_bytes"])
        ),
    ] {
        let memfds = shown["session_memfds"].as_array().unwrap().len();
        let says = says.replace("(1)", &format!("({memfds})"));
        assert!(printed.contains(&says), "{says} is not in\n{printed}");
    }
    // Without the files of each process a row for each is left.
    let summary = text(&xip_mem(&["--session", "--summary", &pid]).stdout);
    assert_eq!(
        printed.matches("\n").count() - summary.matches("\n").count(),
        {
            let processes = shown["processes"].as_array().unwrap().iter();
            processes
                .map(|one| one["files"].as_array().unwrap().len())
                .sum::<usize>()
        }
    );
    // Two sessions are two.
    let json = xip_mem(&["--session", "--json", &pid, &session.pids[4].to_string()]);
    let two: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(two.as_array().unwrap().len(), 2);
}

// ---- captured texts

/// A process that runs from flash that is mapped by its physical pages, with everything touched.
fn process_in_flash(pid: u32) -> Seen {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captured/smaps-6.12-x86_64-devmem");
    let mappings = smaps::parse(&fs::read(path).unwrap()).unwrap();
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
fn flash_is_in_place_once_and_no_ram() {
    let around = Surroundings {
        pid: 7,
        view: RootMount {
            device: (0, 39),
            file_system: "fuse.cramfs".to_owned(),
            source: "xip-run".to_owned(),
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
    // As in tests/mem.rs: text and rodata whole, relro less two copied pages, data wholly copied. A page of it is mapped
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
