//! Runs a rig: QEMU, from its start to its end, and what the machine says on its serial line meanwhile.
#![allow(dead_code, unreachable_pub, reason = "each test is a crate of its own")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::rig::Rig;
use super::system::{System, run};

/// No machine runs longer.
pub const TIME_LIMIT: Duration = Duration::from_secs(480);

/// What a kernel says that has a fault, or found one.
const COMPLAINTS: [&str; 11] = [
    "WARNING: ",
    "BUG: ",
    "Oops",
    "Call Trace",
    "Call trace",
    "Kernel panic",
    "rcu_sched self-detected",
    "rcu_preempt self-detected",
    "detected stalls on",
    "soft lockup",
    "blocked for more than",
];

/// What came of it.
pub struct Outcome {
    pub log: String,
    /// Nothing, if all is well.
    pub faults: Vec<String>,
}

/// Runs the machine until it turns itself off. The log is kept in `log`, whatever comes.
pub fn boot(rig: &Rig, system: &System, dir: &Path, log: &Path) -> Outcome {
    let flash_before = fs::read(&system.flash).unwrap();
    let tree = match &rig.tree {
        Some(tree) => Some(system.kernel.with_file_name("trees").join(tree)),
        None => (!rig.nodes.is_empty()).then(|| device_tree(rig, dir)),
    };
    // Warnings are shown (a kernel's own are of level 4), and a panic is an end.
    let console = rig.arch.console;
    let machine = Machine {
        tree: tree.as_deref(),
        append: format!(
            "console={console} panic=-1 loglevel=5 {} {}",
            rig.append, rig.beside
        ),
        memory_kib: 512 << 10,
        limit: TIME_LIMIT,
    };
    let (log, ended) = machine.run(rig, system, log, &[]);
    let mut faults = faults_of(&log);
    faults.extend(ended.err());
    if fs::read(&system.flash).unwrap() != flash_before {
        faults.push("the flash has been written to".to_owned());
    }
    Outcome { log, faults }
}

/// What a machine is, beside its rig.
pub struct Machine<'a> {
    /// Its device tree, if it is not QEMU's.
    pub tree: Option<&'a Path>,
    /// The kernel's command line.
    pub append: String,
    pub memory_kib: u64,
    /// How long it may run.
    pub limit: Duration,
}

impl Machine<'_> {
    /// Runs it until it turns itself off. Whenever the first of `answers` is found in what it has said since, the second is
    /// typed. Returns what it has said, and whether it came to an end.
    pub fn run(
        &self,
        rig: &Rig,
        system: &System,
        log: &Path,
        answers: &[(&str, &str)],
    ) -> (String, Result<(), String>) {
        let mut command = Command::new(rig.arch.qemu);
        command.args("-accel tcg -display none -nodefaults -no-reboot -serial stdio".split(' '));
        // A rig's own size comes after it, and counts.
        command.arg("-m").arg(format!("{}K", self.memory_kib));
        let files = [("{flash}", &system.flash), ("{image}", &system.image)];
        command.args(rig.qemu.iter().map(|word| {
            files.iter().fold(word.clone(), |word, (name, path)| {
                word.replace(name, path.to_str().unwrap())
            })
        }));
        if let Some(tree) = self.tree {
            command.arg("-dtb").arg(tree);
        }
        command.arg("-kernel").arg(&system.kernel);
        command.arg("-initrd").arg(&system.initramfs);
        // On a busy host an emulated timer may seem not to work to x86's kernel, which panics then.
        let timer = match rig.arch.name {
            "x86_64" => " no_timer_check",
            _ => "",
        };
        command
            .arg("-append")
            .arg(format!("{}{timer}", self.append));
        let output = File::create(log).unwrap();
        let child = command
            .stdin(Stdio::piped())
            .stderr(output.try_clone().unwrap())
            .stdout(output)
            .spawn()
            .unwrap_or_else(|err| panic!("{command:?}: {err}"));
        let ended = wait(child, log, self.limit, answers);
        (said(log), ended)
    }
}

/// What a machine has said so far.
fn said(log: &Path) -> String {
    let mut text = Vec::new();
    File::open(log).unwrap().read_to_end(&mut text).unwrap();
    String::from_utf8_lossy(&text).replace('\r', "")
}

/// What the kernel complains of.
pub fn complaints_of(log: &str) -> Vec<String> {
    log.lines()
        .filter(|line| COMPLAINTS.iter().any(|complaint| line.contains(complaint)))
        .map(|line| format!("the kernel: {line}"))
        .collect()
}

/// What is wrong with what a machine has said.
pub fn faults_of(log: &str) -> Vec<String> {
    let mut faults = complaints_of(log);
    faults.extend(
        log.lines()
            .filter(|line| line.contains("RIG: FAILED"))
            .map(str::to_owned),
    );
    match end_of(log) {
        None => faults.push("the machine has not said that it ended".to_owned()),
        Some((0, _)) => faults.push("no check has passed".to_owned()),
        Some((passed, failed)) => {
            let oks = log
                .lines()
                .filter(|line| line.starts_with("RIG: ok "))
                .count();
            if failed != 0 || oks != passed {
                faults.push(format!(
                    "{passed} checks passed, {oks} of them are in the log; {failed} failed"
                ));
            }
        }
    }
    faults
}

/// How many checks passed and failed, by the log's end.
fn end_of(log: &str) -> Option<(usize, usize)> {
    let line = log
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("RIG: end: "))?;
    let (passed, failed) = line.split_once(", ")?;
    let passed = passed.strip_suffix(" passed")?.parse().ok()?;
    Some((passed, failed.strip_suffix(" failed")?.parse().ok()?))
}

/// Waits for the machine to turn itself off, for so long as it may run.
fn wait(
    mut child: Child,
    log: &Path,
    limit: Duration,
    answers: &[(&str, &str)],
) -> Result<(), String> {
    let end = Instant::now() + limit;
    let mut answers = answers.iter();
    let mut answer = answers.next();
    let mut read = 0;
    let mut input = child.stdin.take();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return match status.success() {
                true => Ok(()),
                false => Err(format!("QEMU: {status}")),
            };
        }
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("the machine has run for {limit:?}"));
        }
        if let Some((question, line)) = answer {
            let text = said(log);
            if let Some(at) = text.get(read..).and_then(|new| new.find(question)) {
                read += at + question.len();
                let input = input.as_mut().unwrap();
                writeln!(input, "{line}")
                    .and_then(|()| input.flush())
                    .unwrap();
                answer = answers.next();
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The machine's own device tree with the rig's nodes.
fn device_tree(rig: &Rig, dir: &Path) -> PathBuf {
    let path = dump_tree(rig, dir);
    for (node, properties) in &rig.nodes {
        // It may be there.
        run(Command::new("fdtput").arg("-cp").arg(&path).arg(node));
        for property in properties {
            let (kind, rest) = property.split_first().unwrap();
            run(Command::new("fdtput")
                .arg("-t")
                .arg(kind)
                .arg(&path)
                .arg(node)
                .args(rest));
        }
    }
    path
}

/// The machine's own device tree.
pub fn dump_tree(rig: &Rig, dir: &Path) -> PathBuf {
    let path = dir.join("tree.dtb");
    let machine = rig.qemu.iter().position(|word| word == "-M").unwrap() + 1;
    let mut dump = Command::new(rig.arch.qemu);
    dump.args(["-display", "none", "-nodefaults", "-m", "512M"]);
    // The processor is in the tree too.
    for (at, word) in rig.qemu.iter().enumerate() {
        if word == "-cpu" {
            dump.args([word, &rig.qemu[at + 1]]);
        }
    }
    dump.arg("-M")
        .arg(format!("{},dumpdtb={}", rig.qemu[machine], path.display()));
    run(&mut dump);
    path
}
