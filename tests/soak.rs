//! A long run: a session that starts programs, again and again, costs at the end what it cost at the beginning.
//!
//! samples/session/soak.c starts static and dynamic programs in every way, in lanes that run at once, and checks all that
//! they say. After each round, when nothing runs but the driver and its lanes, these are measured: memory that is no file's
//! (anonymous, page tables), descriptors, mappings and threads of the session's processes and of its server; its memfds and what
//! they hold; its mounts; the processes in it. Every count must be the first round's, and the server's memory within 64 KiB.
//!
//! By default 10^4 execs; the long run, which takes twenty minutes on two cores, prints a line for each 10^4:
//!
//! ```sh
//! XIP_SOAK=1000000 cargo test --test soak -- --nocapture
//! ```

#[path = "common/chroot.rs"]
mod chroot;
#[allow(dead_code, unreachable_pub)]
#[path = "common/image_bytes.rs"]
mod image_bytes;
#[path = "common/launch.rs"]
mod launch;
#[path = "common/leftovers.rs"]
mod leftovers;
#[path = "common/mounted.rs"]
mod mounted;
#[path = "common/session_system.rs"]
mod session_system;
#[path = "common/stored.rs"]
mod stored;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use launch::have_cc;
use leftovers::{Traces, servers};
use session_system::{System, compiled};

const EXECS: u64 = 10_000;
const LANES: u64 = 2;
/// What the server's memory may grow by, and a lane's.
const DRIFT_BYTES: u64 = 64 << 10;
/// A round takes seconds; what hangs is killed.
const ROUND_LIMIT: Duration = Duration::from_secs(300);

/// The driver, which waits after each round.
struct Soak {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

/// What the driver says of a round.
#[derive(Debug)]
struct Round {
    execs: u64,
    wrong: u64,
}

impl Soak {
    fn start(command: &mut Command, rounds: u64, execs_of_round: u64) -> Self {
        let args = [LANES, rounds, execs_of_round, 1].map(|number| number.to_string());
        let mut child = command
            .args(["/bin/static", "drive"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines() {
                if sender.send(line.unwrap()).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            stdin,
            lines,
        }
    }

    /// The next round's end.
    fn round(&self) -> Round {
        let mut wrong = Vec::new();
        loop {
            let line = self.lines.recv_timeout(ROUND_LIMIT);
            let line = line.unwrap_or_else(|error| panic!("{error}; before: {wrong:#?}"));
            let Some(numbers) = line.strip_prefix("round ") else {
                wrong.push(line);
                continue;
            };
            let numbers: Vec<u64> = numbers
                .split(' ')
                .map(|number| number.parse().unwrap())
                .collect();
            assert!(wrong.is_empty(), "after {numbers:?}: {wrong:#?}");
            return Round {
                execs: numbers[1],
                wrong: numbers[2],
            };
        }
    }

    fn go_on(&mut self) {
        self.stdin.write_all(b"\n").unwrap();
    }

    fn end(mut self) {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Soak {
    fn drop(&mut self) {
        // Its lanes die with it. It has ended already, unless the test fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process has.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Process {
    descriptors: usize,
    mappings: usize,
    threads: usize,
    anonymous: u64,
    page_tables: u64,
}

impl Process {
    fn of(process: &Path) -> Self {
        let read = |file: &str| fs::read_to_string(process.join(file)).unwrap();
        let kib = |file: &str, name: &str| {
            let text = read(file);
            let line = text.lines().find(|line| line.starts_with(name));
            let words = line.unwrap_or_else(|| panic!("no {name} in {text}"));
            let number = words.split_whitespace().nth(1).unwrap();
            number.parse::<u64>().unwrap() << 10
        };
        let count = |dir: &str| fs::read_dir(process.join(dir)).unwrap().count();
        Self {
            descriptors: count("fd"),
            mappings: read("maps").lines().count(),
            threads: count("task"),
            anonymous: kib("smaps_rollup", "Anonymous:"),
            page_tables: kib("status", "VmPTE:"),
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} KiB anonymous, {} of page tables, {} descriptors, {} mappings, {} threads",
            self.anonymous >> 10,
            self.page_tables >> 10,
            self.descriptors,
            self.mappings,
            self.threads
        )
    }
}

/// What a session costs while nothing happens in it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Sample {
    server: Process,
    /// By process ID: the driver and its lanes.
    processes: BTreeMap<u32, Process>,
    mounts: usize,
    memfds: BTreeSet<u64>,
    memfd_bytes: u64,
}

impl Sample {
    fn of(driver: u32, server: &Path) -> Self {
        let namespace = |process: &Path| fs::read_link(process.join("ns/mnt")).ok();
        let driver = PathBuf::from(format!("/proc/{driver}"));
        let own = namespace(&driver).unwrap();
        let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let pid = entry.unwrap().file_name().into_string().ok()?;
            pid.parse::<u32>().ok()
        });
        let here: Vec<u32> = pids
            .filter(|pid| namespace(Path::new(&format!("/proc/{pid}"))).as_ref() == Some(&own))
            .collect();
        let paths = here.iter().map(|pid| PathBuf::from(format!("/proc/{pid}")));
        let all: Vec<PathBuf> = paths.chain([server.to_owned()]).collect();
        let memfds: BTreeSet<u64> = all
            .iter()
            .flat_map(|path| leftovers::memfds(path))
            .collect();
        // Those that are open in the driver; the others are only mapped.
        let open = fs::read_dir(driver.join("fd")).unwrap();
        let held = open
            .filter_map(|fd| fs::metadata(fd.unwrap().path()).ok())
            .filter(|file| memfds.contains(&file.ino()));
        Self {
            server: Process::of(server),
            processes: here
                .iter()
                .map(|pid| (*pid, Process::of(Path::new(&format!("/proc/{pid}")))))
                .collect(),
            mounts: fs::read_to_string(driver.join("mountinfo"))
                .unwrap()
                .lines()
                .count(),
            memfd_bytes: held.map(|file| file.blocks() * 512).sum(),
            memfds,
        }
    }

    /// What is more, or else, than it was.
    fn drift_from(&self, before: &Self) -> Vec<String> {
        let mut wrong = Vec::new();
        let server = ("the server".to_owned(), Some(&before.server), &self.server);
        let processes = self.processes.iter().map(|(pid, now)| {
            let before = before.processes.get(pid);
            (format!("process {pid}"), before, now)
        });
        for (name, before, now) in processes.chain([server]) {
            let Some(before) = before else {
                wrong.push(format!("{name} is new: {now}"));
                continue;
            };
            let memory = |process: &Process| process.anonymous + process.page_tables;
            let counts =
                |process: &Process| [process.descriptors, process.mappings, process.threads];
            if counts(before) != counts(now) || memory(now) > memory(before) + DRIFT_BYTES {
                wrong.push(format!("{name}: {now}; before: {before}"));
            }
        }
        let counts = |sample: &Self| {
            (
                sample.processes.len(),
                sample.mounts,
                sample.memfds.clone(),
                sample.memfd_bytes,
            )
        };
        if counts(self) != counts(before) {
            wrong.push(format!("{:?}; before: {:?}", counts(self), counts(before)));
        }
        wrong
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |get: fn(&Process) -> u64| self.processes.values().map(get).sum::<u64>();
        write!(
            f,
            "server {}; {} processes: {} KiB anonymous, {} of page tables, {} descriptors, {} mappings; {} memfds with {} KiB; {} mounts",
            self.server,
            self.processes.len(),
            of(|process| process.anonymous) >> 10,
            of(|process| process.page_tables) >> 10,
            of(|process| process.descriptors as u64),
            of(|process| process.mappings as u64),
            self.memfds.len(),
            self.memfd_bytes >> 10,
            self.mounts
        )
    }
}

#[test]
fn many_programs_cost_nothing_in_the_end() {
    if !have_cc() || !mounted::can_mount() {
        return;
    }
    let execs = std::env::var("XIP_SOAK").map_or(EXECS, |set| set.parse().expect("XIP_SOAK"));
    let system = System::new(&compiled("soak"));

    // Natively, too, the programs do what they are to do.
    let mut native = Soak::start(&mut chroot::native(&system.root(), &system.tmp()), 1, 200);
    assert_eq!(native.round().wrong, 0);
    native.go_on();
    native.end();

    let rounds = (execs / 10_000).max(10);
    let mut command = chroot::session(&system.image(), &system.tmp());
    let mut soak = Soak::start(&mut command, rounds, execs.div_ceil(rounds));
    let mut first = None;
    let mut failures = Vec::new();
    let mut traces = Traces {
        image: system.image(),
        mounts: Some(system.tmp().to_str().unwrap().to_owned()),
        memfds: BTreeSet::new(),
    };
    for _ in 0..rounds {
        let round = soak.round();
        assert_eq!(round.wrong, 0, "{round:?}");
        let servers = servers(&system.image());
        assert_eq!(servers.len(), 1, "{servers:?}");
        let sample = Sample::of(soak.child.id(), &servers[0]);
        println!("{:8} execs: {sample}", round.execs);
        assert_eq!(sample.processes.len() as u64, 1 + LANES, "{sample:?}");
        assert!(!sample.memfds.is_empty() && sample.memfd_bytes > 0);
        traces.memfds.extend(&sample.memfds);
        let first = first.get_or_insert_with(|| sample.clone());
        let drift = sample.drift_from(first);
        failures.extend(
            drift
                .into_iter()
                .map(|what| format!("{} execs: {what}", round.execs)),
        );
        soak.go_on();
    }
    soak.end();
    traces.assert_gone();
    failures.truncate(10);
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// What would be seen of a leak.
#[test]
fn every_drift_is_seen() {
    let process = Process {
        descriptors: 4,
        mappings: 10,
        threads: 1,
        anonymous: 100 << 10,
        page_tables: 40 << 10,
    };
    let sample = Sample {
        server: process.clone(),
        processes: BTreeMap::from([(7, process)]),
        mounts: 20,
        memfds: BTreeSet::from([3]),
        memfd_bytes: 4096,
    };
    let changed = |change: fn(&mut Sample)| {
        let mut changed = sample.clone();
        change(&mut changed);
        changed.drift_from(&sample).len()
    };
    assert_eq!(changed(|_| {}), 0);
    assert_eq!(changed(|now| now.server.anonymous += DRIFT_BYTES), 0);
    assert_eq!(changed(|now| now.server.anonymous += DRIFT_BYTES + 1), 1);
    assert_eq!(changed(|now| now.server.page_tables += DRIFT_BYTES + 1), 1);
    assert_eq!(changed(|now| now.server.descriptors += 1), 1);
    let lane: fn(&mut Sample) -> &mut Process = |now| now.processes.get_mut(&7).unwrap();
    let lane_changed = |change: fn(&mut Process)| {
        let mut changed = sample.clone();
        change(lane(&mut changed));
        changed.drift_from(&sample).len()
    };
    assert_eq!(lane_changed(|now| now.descriptors += 1), 1);
    assert_eq!(lane_changed(|now| now.mappings += 1), 1);
    assert_eq!(lane_changed(|now| now.threads += 1), 1);
    assert_eq!(lane_changed(|now| now.anonymous += DRIFT_BYTES + 1), 1);
    assert_eq!(changed(|now| now.mounts += 1), 1);
    assert_eq!(changed(|now| now.memfd_bytes += 4096), 1);
    assert_eq!(changed(|now| now.memfds = BTreeSet::from([4])), 1);
    // A process that is new is counted, too.
    let two = |now: &mut Sample| {
        now.processes.insert(8, now.server.clone());
    };
    assert_eq!(changed(two), 2);
}
