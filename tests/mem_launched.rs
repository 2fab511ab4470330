//! xip-mem on a process that xip-run started: what its session costs it, and what it is called.

mod common {
    pub mod launch;
    pub mod mounted;
    pub mod session;
}

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use common::launch::{Stage, run, skip, text};
use common::session::{self, BUSYBOX, FIVE, Waiting, bytes, xip_mem};

/// An image of busybox; `None`, which is said, if there is no busybox.
fn busybox_image(options: &[&str]) -> Option<Stage> {
    if !Path::new(BUSYBOX).exists() {
        skip("no /bin/busybox: apt-get install busybox-static");
        return None;
    }
    let stage = Stage::new();
    stage.add_at(Path::new(BUSYBOX), Path::new(BUSYBOX));
    stage.build(options);
    Some(stage)
}

/// A process that is ended with the test.
struct Running(Child);

impl Running {
    fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// busybox sleep, from the image; it has not arrived yet.
    fn sleep(stage: &Stage, options: &[&str]) -> Self {
        Self::spawn(
            stage
                .xip_run()
                .args(options)
                .args([BUSYBOX, "sleep", "1000"]),
        )
    }

    /// Waits until it sleeps for good: no more page faults.
    fn settled(self) -> Self {
        let mut before = String::new();
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
            if stat == before && stat.contains("(busybox) S") {
                return self;
            }
            before = stat;
        }
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }

    /// Bytes of its executable that are in RAM.
    fn exe_bytes(&self) -> u64 {
        let exe = fs::metadata(format!("/proc/{}/exe", self.pid())).unwrap();
        exe.blocks() * 512
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What holds the pages of a file: temporary directories are on disks or in RAM.
fn memory_of(path: &Path) -> &'static str {
    match rustix::fs::statfs(path).unwrap().f_type {
        0x0102_1994 => "tmpfs (RAM)",
        _ => "page cache",
    }
}

fn report_text(args: &[&str]) -> String {
    let out = xip_mem(args);
    assert!(out.status.success(), "{}", text(&out.stderr));
    text(&out.stdout)
}

fn reports(pids: &[String]) -> Vec<serde_json::Value> {
    let mut args = vec!["--json"];
    args.extend(pids.iter().map(String::as_str));
    serde_json::from_str(&report_text(&args)).unwrap()
}

fn report(process: &Running) -> serde_json::Value {
    reports(&[process.pid()]).remove(0)
}

fn shmem_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find(|line| line.starts_with("Shmem:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

// ---- the session memfd

#[test]
fn what_a_fully_copied_program_costs_is_what_the_kernels_shmem_grows_by() {
    const PROCESSES: u64 = 20;
    let Some(stage) = busybox_image(&["--xip=none"]) else {
        return;
    };
    // Other tests take and give shared memory too: the measurement that agrees best counts.
    let mut seen = Vec::new();
    for _ in 0..5 {
        let before = shmem_bytes();
        let started: Vec<_> = (0..PROCESSES)
            .map(|_| Running::sleep(&stage, &[]))
            .collect();
        let running: Vec<_> = started.into_iter().map(Running::settled).collect();
        let grown = shmem_bytes().saturating_sub(before);
        let pids: Vec<_> = running.iter().map(Running::pid).collect();
        let mut memfds = 0;
        for (process, report) in running.iter().zip(reports(&pids)) {
            let totals = &report["totals"];
            let memfd = &totals["session_memfd"];
            assert_eq!(memfd["allocated_bytes"], process.exe_bytes());
            assert_eq!(memfd["sharers"], 1);
            assert_eq!(memfd["share_bytes"], memfd["allocated_bytes"]);
            let sum = ["anonymous_bytes", "page_table_bytes"].map(|name| totals[name].as_u64());
            let sum = sum.into_iter().flatten().sum::<u64>() + process.exe_bytes();
            assert_eq!(totals["ram_alone_bytes"], sum);
            // The copied pages are in it, whole: not counted again as page cache.
            assert!(process.exe_bytes() > 1 << 20);
            let cache = ["file_cache", "image_cache", "shared_memory"]
                .map(|name| totals[name]["share_bytes"].as_u64());
            let cache = cache.into_iter().flatten().sum::<u64>();
            assert_eq!(totals["ram_with_share_bytes"], sum + cache);
            memfds += process.exe_bytes();
        }
        if grown.abs_diff(memfds) * 20 <= memfds {
            return;
        }
        seen.push((grown, memfds));
    }
    panic!("Shmem grew by, the memfds have: {seen:?}");
}

#[test]
fn the_memfd_of_a_program_in_place_counts_in_the_bottom_line() {
    let Some(stage) = busybox_image(&[]) else {
        return;
    };
    let process = Running::sleep(&stage, &[]).settled();
    let totals = &report(&process)["totals"];
    let kib = process.exe_bytes() / 1024;
    assert!((8..=32).contains(&kib), "{kib} KiB");
    let alone = totals["ram_alone_bytes"].as_u64().unwrap() / 1024;
    let shown = report_text(&[&process.pid()]);
    for says in [
        format!("{:43} {kib:>9} KiB", "session memfd: allocated"),
        format!(
            "RAM this process costs by itself: {alone} KiB (anonymous + page tables + session memfd)"
        ),
    ] {
        assert!(shown.contains(&says), "{says} is not in\n{shown}");
    }
    assert!(!shown.contains("stub: this process's share"), "{shown}");
}

#[test]
fn processes_that_share_a_memfd_share_its_cost() {
    let Some(stage) = busybox_image(&["--xip=none"]) else {
        return;
    };
    // A shell that forks two of itself, which wait for the end of its standard input.
    let script = "( read x; : ) <&3 & ( read x; : ) <&3 & wait";
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "exec 3<&0 \"$@\"", "sh"]);
    let xip_run = stage.xip_run();
    shell.arg(xip_run.get_program()).args(xip_run.get_args());
    shell.args([BUSYBOX, "sh", "-c", script]);
    let mut shell = Running::spawn(shell.stdin(std::process::Stdio::piped()));
    let children = format!("/proc/{0}/task/{0}/children", shell.pid());
    let mut family = Vec::new();
    while family.len() < 2 {
        std::thread::sleep(Duration::from_millis(20));
        let children = fs::read_to_string(&children).unwrap();
        family = children.split_whitespace().map(str::to_owned).collect();
    }
    family.push(shell.pid());
    for report in reports(&family) {
        let memfd = &report["totals"]["session_memfd"];
        assert_eq!(memfd["sharers"], 3);
        assert_eq!(memfd["allocated_bytes"], shell.exe_bytes());
        assert_eq!(memfd["share_bytes"], shell.exe_bytes() / 3);
        let notes = report["notes"].to_string();
        assert!(notes.contains("3 processes"), "{notes}");
    }
    // End of input: all of them go.
    drop(shell.0.stdin.take());
}

#[test]
fn every_process_of_a_session_pays_its_part_of_the_memfds() {
    let Some(stage) = session::stage(&[]) else {
        return;
    };
    let session = Waiting::start(&mut session::launch(&stage, &[]), FIVE, 5);
    let image = stage.image().canonicalize().unwrap();
    let in_place = format!(", in place from {}\n", memory_of(&image));
    let mut memfds = BTreeMap::new();
    for pid in &session.pids {
        for fd in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let fd = fd.unwrap().path();
            let to = fs::read_link(&fd).unwrap();
            if to.to_string_lossy().starts_with("/memfd:xip-run:") {
                let stat = fs::metadata(fd).unwrap();
                memfds.insert(stat.ino(), stat.blocks() * 512);
            }
        }
    }
    let allocated: u64 = memfds.values().sum();
    assert!((16 << 10..=64 << 10).contains(&allocated), "{memfds:?}");
    let pids: Vec<String> = session.pids.iter().map(u32::to_string).collect();
    for (pid, report) in pids.iter().zip(reports(&pids)) {
        let totals = &report["totals"];
        let memfd = &totals["session_memfd"];
        assert_eq!(memfd["allocated_bytes"], allocated);
        assert_eq!(memfd["sharers"], 5);
        assert_eq!(memfd["share_bytes"], allocated / 5);
        let sum =
            bytes(&totals["anonymous_bytes"]) + bytes(&totals["page_table_bytes"]) + allocated / 5;
        assert_eq!(totals["ram_alone_bytes"], sum);
        assert_eq!(report["images"], serde_json::json!([image]));
        // Nothing is left to the view.
        assert_eq!(totals["file_cache"]["mapped_bytes"], 0, "{report}");
        let shown = report_text(&[pid]);
        assert!(shown.contains(&in_place), "{shown}");
    }
}

#[test]
fn a_session_without_anything_in_place_is_not_called_copied() {
    let Some(stage) = session::stage(&[]) else {
        return;
    };
    let mut command = session::launch(&stage, &["--copy-text"]);
    let session = Waiting::start(&mut command, "", 1);
    let shown = report_text(&[&session.pid().to_string()]);
    let title = shown.lines().next().unwrap();
    assert!(
        title.ends_with(", started by xip-run, nothing of it in place"),
        "{shown}"
    );
}

// ---- what it is called

#[test]
fn a_process_is_called_what_it_is() {
    let (Some(auto), Some(none)) = (busybox_image(&[]), busybox_image(&["--xip=none"])) else {
        return;
    };
    let in_place = format!("in place from {}\n", memory_of(&auto.image()));
    let partly = format!("partly in place from {} (", memory_of(&auto.image()));
    let cases = [
        (Running::sleep(&auto, &[]), "in place", in_place.as_str()),
        (
            Running::sleep(&none, &[]),
            "copied",
            "started by xip-run, all of it copied to RAM\n",
        ),
        (
            Running::sleep(&auto, &["--copy-text"]),
            "partly",
            partly.as_str(),
        ),
        (
            Running::spawn(Command::new(BUSYBOX).args(["sleep", "1000"])),
            "native",
            "native\n",
        ),
    ];
    let mut args = vec!["--compare".to_owned()];
    let mut titles = Vec::new();
    for (number, (process, short, mode)) in (1..).zip(cases) {
        let process = process.settled();
        let shown = report_text(&["--summary", &process.pid()]);
        let title = format!("busybox (pid {}), {mode}", process.pid());
        assert!(shown.starts_with(&title), "{title} is not in\n{shown}");
        if short == "partly" {
            let copied = shown.lines().next().unwrap();
            assert!(copied.contains("KiB), partly copied to RAM ("), "{copied}");
        }
        args.push(process.pid());
        titles.push((format!("[{number}] {short}"), process));
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let shown = report_text(&args);
    let heading = shown.lines().find(|line| line.starts_with("KiB")).unwrap();
    for (title, _) in &titles {
        assert!(heading.contains(title), "{heading}");
    }
}

// ---- what its image is

#[test]
fn an_image_that_was_deleted_or_replaced_is_said_to_be() {
    let Some(stage) = busybox_image(&[]) else {
        return;
    };
    let process = Running::sleep(&stage, &[]).settled();
    let image = stage.image().canonicalize().unwrap();
    let image = image.to_str().unwrap();
    assert_eq!(report(&process)["images"][0], image);
    let replacement = stage.path().join("replacement");
    fs::copy(image, &replacement).unwrap();
    fs::rename(&replacement, image).unwrap();

    let gone = format!("{image} (deleted)");
    let note = "the image was deleted or replaced while this process runs from it";
    let report = report(&process);
    assert_eq!(report["images"], serde_json::json!([gone]));
    assert!(report["notes"].to_string().contains(note), "{report}");
    let shown = report_text(&[&process.pid()]);
    assert!(shown.contains(&format!("\nimage {gone}\n")), "{shown}");
    assert!(shown.contains(note), "{shown}");
    assert!(shown.contains(", in place from "), "{shown}");
}

/// Without privileges a deleted file cannot be opened: the session's record tells that it is the image.
#[test]
fn a_deleted_image_is_an_image_for_its_user_too() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let Some(stage) = busybox_image(&[]) else {
        return;
    };
    if !rustix::process::geteuid().is_root() {
        // The test above had no privileges then.
        return;
    }
    // Both programs where nobody can reach them.
    let bin = tempfile::tempdir().unwrap();
    for dir in [bin.path(), stage.path()] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(stage.image(), fs::Permissions::from_mode(0o644)).unwrap();
    let as_nobody = |program: &str| {
        let path = bin.path().join(Path::new(program).file_name().unwrap());
        common::launch::copy_program(Path::new(program), &path);
        let mut command = Command::new(path);
        command.uid(65534).gid(65534);
        command
    };
    let mut xip_run = as_nobody(common::launch::XIP_RUN);
    xip_run.args(stage.xip_run().get_args());
    let process = Running::spawn(xip_run.args([BUSYBOX, "sleep", "1000"])).settled();
    fs::remove_file(stage.image()).unwrap();
    let mut xip_mem = as_nobody(env!("CARGO_BIN_EXE_xip-mem"));
    let out = run(xip_mem.args(["--summary", &process.pid()]), b"");
    let shown = text(&out.stdout);
    assert!(out.status.success(), "{}", text(&out.stderr));
    for says in [
        "in place from page cache",
        "image.cramfs (deleted)",
        "was deleted or replaced",
        "cannot be opened any more",
        "session memfd: allocated",
    ] {
        assert!(shown.contains(says), "{says} is not in\n{shown}");
    }
}

#[test]
fn an_image_in_tmpfs_is_ram_and_not_page_cache() {
    let Some(stage) = busybox_image(&[]) else {
        return;
    };
    let Ok(tmpfs) = tempfile::tempdir_in("/dev/shm") else {
        return skip("/dev/shm cannot be written to");
    };
    if memory_of(tmpfs.path()) != "tmpfs (RAM)" {
        return skip("/dev/shm is no tmpfs");
    }
    let image = tmpfs.path().join("rootfs.cramfs");
    fs::copy(stage.image(), &image).unwrap();
    let mut command = Command::new(common::launch::XIP_RUN);
    command.args(["--no-root", "--image"]).arg(&image);
    let process = Running::spawn(command.args([BUSYBOX, "sleep", "1000"])).settled();
    let report = report(&process);
    let totals = &report["totals"];
    assert_eq!(totals["image_cache"]["mapped_bytes"], 0);
    assert_eq!(totals["shared_memory"]["mapped_bytes"], 0);
    assert!(totals["image_tmpfs"]["mapped_bytes"].as_u64().unwrap() > 1 << 20);
    let rows = report["rows"].as_array().unwrap();
    let text_row = rows.iter().find(|row| row["part"] == "text").unwrap();
    assert_eq!(
        (text_row["class"].as_str(), text_row["program"].as_str()),
        (Some("image-tmpfs"), Some(BUSYBOX))
    );
    let shown = report_text(&[&process.pid()]);
    for says in [
        "), in place from tmpfs (RAM)\n",
        "image in tmpfs (RAM) /bin/busybox text",
        "in place, tmpfs (RAM): this process's share",
        "RAM that the kernel cannot drop",
    ] {
        assert!(shown.contains(says), "{says} is not in\n{shown}");
    }
}
