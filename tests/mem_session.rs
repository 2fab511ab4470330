//! xip-mem on processes that xip-run started: what the session costs, and what they are called.

mod common {
    pub mod launch;
}

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output};
use std::time::Duration;

use common::launch::{Stage, run, skip, text};

const BUSYBOX: &str = "/bin/busybox";

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
        use std::os::unix::fs::MetadataExt;
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

fn xip_mem(args: &[&str]) -> Output {
    run(Command::new(env!("CARGO_BIN_EXE_xip-mem")).args(args), b"")
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
        format!("{:42} {kib:>9} KiB", "session memfd: allocated"),
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

// ---- what it is called

#[test]
fn a_process_is_called_what_it_is() {
    let (Some(auto), Some(none)) = (busybox_image(&[]), busybox_image(&["--xip=none"])) else {
        return;
    };
    let cases = [
        (
            Running::sleep(&auto, &[]),
            "in place",
            "in place from page cache\n",
        ),
        (
            Running::sleep(&none, &[]),
            "copied",
            "started by xip-run, all of it copied to RAM\n",
        ),
        (
            Running::sleep(&auto, &["--copy-text"]),
            "partly",
            "partly in place from page cache (",
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
