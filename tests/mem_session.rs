//! xip-mem --session: a session, its image and the server of its view are found, or it is said why not; all of it is added
//! up, each page once, as /proc shows it by other means.

mod common {
    pub mod launch;
    pub mod mapped;
    pub mod mounted;
    pub mod session;
    pub mod session_facts;
}

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::launch::{Stage, XIP_RUN, copy_program, skip, text};
use common::mounted::Mounted;
use common::session::{
    BASH, BUSYBOX, FIVE, Map, PAGE, Waiting, bytes, kib_line, launch, session_of, stage, xip_mem,
};
use common::session_facts::{Facts, in_place};
use serde_json::Value;
use xip_run::backing::Backing;
use xip_run::cramfs::Image;
use xip_run::report::mountinfo;
use xip_run::units::PageSize;
use xip_run::view::server_of;

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
    let image = Image::open(Backing::open(path).unwrap()).unwrap();
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

// ---- the session, its image and its server

#[test]
fn sessions_of_one_image_have_servers_of_their_own() {
    let Some(stage) = stage(&[]) else { return };
    let start = || Waiting::start(&mut launch(&stage, &[]), "cat <&3 &", 2);
    let (one, other) = (start(), start());
    let (of_one, of_other) = (session_of(one.pid(), &[]), session_of(other.pid(), &[]));
    assert_eq!(of_one["processes"].as_array().unwrap().len(), 2);
    assert_ne!(of_one["device"], of_other["device"]);
    let servers = [&of_one, &of_other].map(|shown| bytes(&shown["server"]["pid"]));
    // The kernel's word and the mount's name agree; before Linux 6.16 there is only the name.
    for (session, server) in [&one, &other].iter().zip(servers) {
        let text = fs::read(format!("/proc/{}/mountinfo", session.pid())).unwrap();
        let source = mountinfo::root(&text).unwrap().source;
        assert_eq!(server_of(&source).map(u64::from), Some(server), "{source}");
    }
    assert_ne!(servers[0], servers[1]);
    drop(one);
    // It ended with its session: it was the right one.
    let end = Instant::now() + Duration::from_secs(5);
    while Path::new(&format!("/proc/{}", servers[0])).exists() {
        assert!(Instant::now() < end, "{servers:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(Path::new(&format!("/proc/{}", servers[1])).exists());
    assert_eq!(session_of(other.pid(), &[])["server"], of_other["server"]);
}

/// A user's own session is measured by the user as root measures it: image, server and memfd are found without privileges.
#[test]
fn a_users_session_is_measured_by_its_user() {
    let Some(stage) = stage(&[]) else { return };
    let user = "--reuid=65534 --regid=65534 --clear-groups";
    let can = Command::new("sh")
        .args(["-c", &format!("setpriv {user} unshare -U true")])
        .output()
        .unwrap();
    if !can.status.success() {
        return skip("no user namespaces for an unprivileged user");
    }
    // Programs and image where all may read them, and in a namespace of its own a /dev/fuse that all may open.
    let dir = stage.path();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(stage.image(), fs::Permissions::from_mode(0o644)).unwrap();
    let [xip_run, xip_mem] = [XIP_RUN, env!("CARGO_BIN_EXE_xip-mem")].map(|program| {
        let copy = dir.join(Path::new(program).file_name().unwrap());
        copy_program(Path::new(program), &copy);
        copy
    });
    let image = stage.image();
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-ec"])
        .arg(format!(
            "mknod -m 666 fuse c 10 229; mount --bind fuse /dev/fuse; rm fuse; cd /
             exec setpriv {user} {} --image {} /bin/busybox sh \"$@\"",
            xip_run.display(),
            image.display()
        ))
        .arg("sh")
        .current_dir(dir);
    let session = Waiting::start(&mut command, FIVE, 5);
    let pid = session.pid();
    let by_user = |options: &str| -> Value {
        let script = format!("setpriv {user} {} --json {options}", xip_mem.display());
        let shown = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(shown.status.success(), "{}", text(&shown.stderr));
        serde_json::from_slice(&shown.stdout).unwrap()
    };
    let mut shown = by_user(&format!("--session {pid}"))[0].take();
    let mut by_root = session_of(pid, &[]);
    assert_ne!(shown["server"], Value::Null, "{}", shown["notes"]);
    assert_ne!(shown["image"], Value::Null, "{}", shown["notes"]);
    assert_eq!(shown["processes"].as_array().unwrap().len(), 5);
    for one in [&mut shown, &mut by_root] {
        let notes = one["notes"].take().to_string();
        assert!(!notes.contains("cannot be opened"), "{notes}");
    }
    assert_eq!(shown, by_root);

    // Each process by itself too, and even if the image has been deleted.
    let pids: Vec<String> = session.pids.iter().map(u32::to_string).collect();
    let args: Vec<&str> = pids.iter().map(String::as_str).collect();
    let by_root = common::session::xip_mem(&[&["--json"], args.as_slice()].concat());
    let by_root: Value = serde_json::from_slice(&by_root.stdout).unwrap();
    assert_eq!(by_user(&pids.join(" ")), by_root);
    fs::remove_file(stage.image()).unwrap();
    for report in by_user(&pids.join(" ")).as_array().unwrap() {
        let programs = report["programs"].as_array().unwrap().iter();
        let in_place: u64 = programs
            .filter(|program| program["program"] == BUSYBOX || program["program"] == BASH)
            .map(|program| bytes(&program["in_place_bytes"]))
            .sum();
        assert!(in_place > 1 << 20, "{report}");
        let notes = report["notes"].to_string();
        assert!(notes.contains("was deleted or replaced"), "{notes}");
    }
}

#[test]
fn a_view_that_nobody_known_serves_is_said_to_have_no_server() {
    let Some(stage) = stage(&[]) else { return };
    let image = Image::open(Backing::open(&stage.image()).unwrap()).unwrap();
    let mounted = Mounted::new(image);
    let view = mounted.dir.path().to_str().unwrap();
    let mut command = launch(&stage, &["--view", view]);
    let session = Waiting::start(&mut command, "cat <&3 &", 2);
    let image = fs::canonicalize(stage.image()).unwrap();
    let image = image.to_str().unwrap();
    // The image is found by what the first program maps of it, and may be named.
    for options in [&[][..], &["--image", image]] {
        let shown = session_of(session.pid(), options);
        assert_eq!(shown["server"], Value::Null);
        assert_eq!(shown["image"], image);
        assert_eq!(shown["totals"]["server_bytes"], 0);
        let notes = shown["notes"].to_string();
        assert!(
            notes.contains("the server of the view (FUSE connection "),
            "{notes}"
        );
        assert!(notes.contains("is not in the sums"), "{notes}");
        let files = shown["files"].as_array().unwrap();
        assert!(
            files.iter().all(|file| file["file"] == BUSYBOX),
            "{files:?}"
        );
    }
    let printed = text(&xip_mem(&["--session", &session.pid().to_string()]).stdout);
    assert!(printed.contains("server not found)"), "{printed}");
    assert!(!printed.contains("memfds + server)"), "{printed}");
}

#[test]
fn what_is_no_session_is_refused_with_the_way_out() {
    let Some(stage) = stage(&[]) else { return };
    let session = Waiting::start(&mut launch(&stage, &[]), "cat <&3 &", 2);
    let server = session_of(session.pid(), &[])["server"]["pid"].to_string();
    let (own, pid) = (std::process::id().to_string(), session.pid().to_string());
    let other = stage.path().join("other.cramfs");
    let other_stage = Stage::new();
    other_stage.add_at(Path::new(BUSYBOX), Path::new("/bin/other"));
    other_stage.build::<&str>(&[]);
    fs::copy(other_stage.image(), &other).unwrap();
    let other = other.to_str().unwrap();
    let cases: [(&[&str], &str); 8] = [
        (
            &["--session", &own],
            "is in no session: its root directory is not an image",
        ),
        (
            &["--session", &own],
            &format!("`xip-mem {own}` measures the process"),
        ),
        (&["--session", &server], "name a process that runs in it"),
        (
            &["--session", "--image", other, &pid],
            "is not the image of this session, which is ",
        ),
        (
            &["--session", "--image", "/etc/passwd", &pid],
            "/etc/passwd: no cramfs superblock",
        ),
        (
            &["--session", "--image", "/no/such", &pid],
            "/no/such: open: No such file",
        ),
        (&["--image", other, &pid], "--session"),
        (&["--session", "--compare", &pid], "cannot be used with"),
    ];
    for (args, says) in cases {
        let out = xip_mem(args);
        let err = text(&out.stderr);
        assert_eq!(out.status.code(), Some(125), "{args:?}: {err}");
        assert!(err.contains(says), "{says} is not in {err}");
        assert_eq!(text(&out.stdout), "", "{args:?}");
    }
    // One that cannot be measured hides no other.
    let out = xip_mem(&["--session", &own, &pid]);
    assert_eq!(out.status.code(), Some(125));
    assert!(text(&out.stdout).starts_with(&format!("session of pid {pid}: 2 processes")));
}

#[test]
fn a_chroot_into_an_image_is_no_session() {
    let Some(stage) = stage(&[]) else { return };
    let image = Image::open(Backing::open(&stage.image()).unwrap()).unwrap();
    let mounted = Mounted::new(image);
    let mut command = Command::new("chroot");
    command.arg(mounted.dir.path()).args([BUSYBOX, "sh"]);
    let native = Waiting::start(&mut command, "", 1);
    let out = xip_mem(&["--session", &native.pid().to_string()]);
    assert_eq!(out.status.code(), Some(125));
    assert!(
        text(&out.stderr).contains("by chroot(2)"),
        "{}",
        text(&out.stderr)
    );
}
