//! Sessions of several processes that wait, what xip-mem says of them, and what /proc says of them by other means than the library's.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test crate uses its own part"
)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::launch::{Stage, XIP_RUN, first_line, have, run, text};
use super::mounted::can_mount;

pub const PAGE: u64 = 4096;

pub const BUSYBOX: &str = "/bin/busybox";
pub const BASH: &str = "/bin/bash";

/// A session of five: a shell, which started an applet of its own, a subshell, busybox by its path, and bash.
pub const FIVE: &str =
    "cat <&3 & ( read x <&3; : ) & /bin/busybox cat <&3 & /bin/bash -c 'read x <&3; :' &";

/// An image with busybox and, of glibc's, bash with its libraries.
pub fn stage(options: &[&str]) -> Option<Stage> {
    if !can_mount() || !have("busybox") || !have("bash") || !have("ldd") {
        return None;
    }
    let stage = Stage::new();
    stage.add_at(Path::new(BUSYBOX), Path::new(BUSYBOX));
    stage.add_dynamic(Path::new(BASH));
    for dir in ["proc", "dev", "tmp"] {
        fs::create_dir(stage.in_root(Path::new(dir))).unwrap();
    }
    stage.build(options);
    Some(stage)
}

/// `xip-run --image IMAGE OPTIONS /bin/busybox sh`
pub fn launch(stage: &Stage, options: &[&str]) -> Command {
    let mut command = Command::new(XIP_RUN);
    command.env_remove("XIP_IMAGE").current_dir("/");
    command.arg("--image").arg(stage.image()).args(options);
    command.args([BUSYBOX, "sh"]);
    command
}

pub fn xip_mem(args: &[&str]) -> Output {
    run(Command::new(env!("CARGO_BIN_EXE_xip-mem")).args(args), b"")
}

pub fn session_of(pid: u32, options: &[&str]) -> Value {
    let pid = pid.to_string();
    let out = xip_mem(&[&["--session", "--json"], options, &[&pid]].concat());
    assert!(out.status.success(), "{}", text(&out.stderr));
    let mut all: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 1);
    all[0].take()
}

pub fn bytes(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

/// A session whose processes all sleep, until it is dropped.
pub struct Waiting {
    child: Child,
    /// The first process and all that it started, sorted.
    pub pids: Vec<u32>,
}

impl Waiting {
    /// Starts `command`, a shell, with a script that starts processes in the background and then is one of `processes` in
    /// all. Descriptor 3 is a pipe on which they can wait for the session's end.
    pub fn start(command: &mut Command, script: &str, processes: usize) -> Self {
        let script = format!("exec 3<&0; {script} echo ready; read x");
        let mut child = command
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        assert_eq!(first_line(&mut child), "ready\n");
        let mut session = Self {
            child,
            pids: Vec::new(),
        };
        session.settle(processes);
        session
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until all of them sleep for good: no more page faults.
    fn settle(&mut self, processes: usize) {
        let end = Instant::now() + Duration::from_secs(30);
        let mut before = Vec::new();
        loop {
            assert!(
                Instant::now() < end,
                "not {processes} that sleep: {before:?}"
            );
            sleep(Duration::from_millis(100));
            self.pids = descendants(self.pid());
            let stats: Vec<_> = self
                .pids
                .iter()
                .map(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default())
                .collect();
            let asleep = stats.iter().all(|stat| stat.contains(") S "));
            if asleep && stats.len() == processes && stats == before {
                return;
            }
            before = stats;
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let end = Instant::now() + Duration::from_secs(10);
        let is_there = |pid: &u32| Path::new(&format!("/proc/{pid}")).exists();
        let mut status = None;
        while status.is_none() || self.pids.iter().any(is_there) {
            status = status.or(self.child.try_wait().unwrap());
            if Instant::now() > end {
                for &pid in &self.pids {
                    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
                let _ = self.child.wait();
                assert!(std::thread::panicking(), "{:?} did not end", self.pids);
                return;
            }
            sleep(Duration::from_millis(5));
        }
    }
}

fn descendants(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let mut all = vec![pid];
    for child in children.unwrap_or_default().split_whitespace() {
        all.extend(descendants(child.parse().unwrap()));
    }
    all.sort_unstable();
    all
}

/// A line `NAME:   123 kB` of a file of /proc/PID, in bytes.
pub fn kib_line(pid: u32, file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let line = text.lines().find(|line| line.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("{name} is not in {text}"));
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}

/// A mapping, by maps, smaps and pagemap.
#[derive(Clone, Debug)]
pub struct Map {
    pub start: u64,
    pub end: u64,
    pub perms: String,
    pub offset: u64,
    /// As stat(2) has it.
    pub dev: u64,
    pub ino: u64,
    pub path: String,
    pub rss: u64,
    pub anonymous: u64,
    pub flags: String,
    /// Entries of pagemap.
    pub pages: Vec<u64>,
}

impl Map {
    pub fn is_of(&self, (dev, ino): (u64, u64)) -> bool {
        (self.dev, self.ino) == (dev, ino)
    }

    /// Its pages that are the file's own: number in the file, and page frame number (0 but for root).
    pub fn file_pages(&self) -> impl Iterator<Item = (u64, u64)> {
        (self.offset / PAGE..)
            .zip(&self.pages)
            .filter(|(_, entry)| *entry >> 63 == 1 && *entry >> 61 & 1 == 1)
            .map(|(number, entry)| (number, entry & ((1 << 55) - 1)))
    }
}

/// The mappings of a process.
pub fn maps(pid: u32) -> Vec<Map> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let pagemap = File::open(format!("/proc/{pid}/pagemap")).unwrap();
    let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let mut maps: Vec<Map> = Vec::new();
    for line in smaps.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words[0].ends_with(':') {
            let map = maps.last_mut().unwrap();
            let kib = || words[1].parse::<u64>().unwrap() * 1024;
            match words[0] {
                "Rss:" => map.rss = kib(),
                "Anonymous:" => map.anonymous = kib(),
                "VmFlags:" => map.flags = words[1..].join(" "),
                _ => {}
            }
            continue;
        }
        let (start, end) = words[0].split_once('-').unwrap();
        let (start, end) = (hex(start), hex(end));
        let (major, minor) = words[3].split_once(':').unwrap();
        let mut bytes = vec![0; ((end - start) / PAGE * 8) as usize];
        // Above what processes can map themselves there are no entries.
        if pagemap.read_exact_at(&mut bytes, start / PAGE * 8).is_err() {
            bytes.clear();
        }
        let entries = bytes.chunks_exact(8);
        maps.push(Map {
            start,
            end,
            perms: words[1].to_owned(),
            offset: hex(words[2]),
            dev: rustix::fs::makedev(hex(major) as u32, hex(minor) as u32),
            ino: words[4].parse().unwrap(),
            path: words[5..].join(" "),
            rss: 0,
            anonymous: 0,
            flags: String::new(),
            pages: entries
                .map(|entry| u64::from_ne_bytes(entry.try_into().unwrap()))
                .collect(),
        });
    }
    maps
}
