//! Starts a program in several ways at once, waits until nothing changes any more, measures, and ends it.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::{Comparison, FlashSpent, Trial, Way};
use crate::backing::Backing;
use crate::cramfs::{Image, InodeKind, compressed_bytes, show_name};
use crate::error::{Error, Result};
use crate::extent;
use crate::report::files::File;
use crate::report::{Group, Observer, processes};
use crate::view::SERVER_NAME;

/// How long processes may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at them.
const LOOK: Duration = Duration::from_millis(50);

/// What is run, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program's path, on the host and in the image, and its arguments.
    pub command: Vec<OsString>,
    /// The image: what `xip-run --image` takes.
    pub image: PathBuf,
    /// The launcher.
    pub xip_run: PathBuf,
    /// How often it is started in each way.
    pub instances: u64,
    /// How long nothing may change before it is measured.
    pub settle: Duration,
    /// Also as a loader would that copies.
    pub copy: bool,
    /// In place with the image as root directory, each instance a session; else one program against the host's root.
    pub session: bool,
}

/// An instance; it ends with this, and all that it started in its process group.
struct Instance {
    way: Way,
    child: Child,
    /// All processes of it.
    pids: Vec<u32>,
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            _ = kill_process_group(pid, Signal::KILL);
        }
        _ = self.child.wait();
    }
}

/// Runs a program in several ways, all of them at the same time, and compares what they take.
///
/// Each instance has an empty pipe as standard input, nobody sees its standard output, and it is the leader of a process
/// group that is killed in the end.
///
/// # Errors
/// If a way cannot be started, an instance ends before it was measured, or cannot be measured.
pub fn run(options: &Options) -> Result<Comparison> {
    let backing = Backing::open(&options.image)?;
    let image = Image::open(backing).map_err(|err| err.context(options.image.display()))?;
    let mut ways = vec![Way::Native, Way::InPlace];
    if options.copy {
        ways.push(Way::Copy);
    }
    let mut notes = Vec::new();
    notes.extend(same_program(&image, options));
    let (stdin, held) = std::io::pipe().map_err(|err| Error::failed(format!("pipe: {err}")))?;
    let mut instances = Vec::new();
    for _ in 0..options.instances {
        // One of each after the other: what changes on the machine meanwhile changes for all ways.
        for &way in &ways {
            let child = command(way, options)
                .stdin(
                    stdin
                        .try_clone()
                        .map_err(|err| Error::failed(format!("dup: {err}")))?,
                )
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .process_group(0)
                .spawn()
                .map_err(|err| {
                    Error::failed(format!("{}, {}: {err}", show(options), way.title()))
                })?;
            let pids = vec![child.id()];
            instances.push(Instance { way, child, pids });
        }
    }
    if !settle(&mut instances, options)? {
        notes.push(format!(
            "it did not come to rest within {} s: the figures are of a moment",
            PATIENCE.as_secs()
        ));
    }
    let mut observer = Observer::default();
    let mut trials = Vec::new();
    let mut flash = FlashSpent::default();
    for &way in &ways {
        let of_way = instances.iter().filter(|instance| instance.way == way);
        let pids: Vec<u32> = of_way
            .flat_map(|instance| instance.pids.iter().copied())
            .collect();
        let group = observer.observe_group(&pids)?;
        if way == Way::InPlace {
            flash = flash_spent(&image, &group)?;
        }
        for note in &group.notes {
            let note = format!("{}: {note}", way.title());
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        trials.push(Trial::new(
            way,
            group.ram,
            options.instances,
            pids.len() as u64,
        ));
    }
    drop(instances);
    drop(held);
    let less = |of: fn(&Trial) -> u64| match trials.as_slice() {
        [native, in_place, ..] => of(native).cast_signed() - of(in_place).cast_signed(),
        _ => 0,
    };
    Ok(Comparison {
        command: options
            .command
            .iter()
            .map(|word| show_name(word.as_bytes()))
            .collect(),
        image: options.image.display().to_string(),
        session: options.session,
        instances: options.instances,
        flash,
        saved_bytes: less(|trial| trial.total_bytes),
        saved_if_in_flash_bytes: less(|trial| trial.if_in_flash_bytes),
        trials,
        notes,
    })
}

fn show(options: &Options) -> String {
    let program = options.command.first().map(|program| program.as_bytes());
    show_name(program.unwrap_or_default())
}

fn command(way: Way, options: &Options) -> Command {
    let mut words = options.command.iter();
    if way == Way::Native {
        let mut command = Command::new(words.next().cloned().unwrap_or_default());
        command.args(words);
        return command;
    }
    let mut command = Command::new(&options.xip_run);
    if !options.session {
        command.arg("--no-root");
    }
    if way == Way::Copy {
        command.arg("--copy-text");
    }
    command.arg("--image").arg(&options.image).args(words);
    command
}

/// A note if the host's program is not the image's.
fn same_program(image: &Image, options: &Options) -> Option<String> {
    let program = options.command.first()?;
    let inode = image.lookup(program.as_bytes()).ok()?;
    let host = std::fs::read(program).ok()?;
    if inode.kind == InodeKind::File && image.read_file(&inode).ok()? == host {
        return None;
    }
    Some(format!(
        "{}: the host's is another program than the image's; what is compared is not the same",
        show(options)
    ))
}

/// Waits until no process of the instances does anything any more, for as long as is asked. False if that never happens.
fn settle(instances: &mut [Instance], options: &Options) -> Result<bool> {
    let begin = Instant::now();
    let mut same_since = begin;
    let mut before = Vec::new();
    loop {
        sleep(LOOK);
        let groups = process_groups();
        let mut now = Vec::new();
        for instance in instances.iter_mut() {
            let ended = instance.child.try_wait();
            if let Ok(Some(status)) = ended {
                let mut said = Vec::new();
                if let Some(stderr) = &mut instance.child.stderr {
                    _ = stderr.read_to_end(&mut said);
                }
                return Err(Error::failed(format!(
                    "{}, {}: ended before it was measured ({status}); let it wait for something{}{}",
                    show(options),
                    instance.way.title(),
                    if said.is_empty() { "" } else { ": " },
                    show_name(said.trim_ascii())
                )));
            }
            let leader = instance.child.id();
            let of_group = groups.iter().filter(|process| process.group == leader);
            instance.pids = of_group.clone().map(|process| process.pid).collect();
            now.extend(of_group.map(|process| (process.pid, process.work.clone())));
        }
        // xip-run becomes the program: while it still is xip-run, nothing is to be measured.
        let arrived = instances
            .iter()
            .all(|instance| has_arrived(instance, &options.xip_run));
        let at_rest = now.iter().all(|(_, work)| work.starts_with(b"S "));
        if now != before || !arrived || !at_rest {
            before = now;
            same_since = Instant::now();
        }
        if same_since.elapsed() >= options.settle && !before.is_empty() {
            return Ok(true);
        }
        if begin.elapsed() > PATIENCE.max(2 * options.settle) {
            return Ok(false);
        }
    }
}

fn has_arrived(instance: &Instance, xip_run: &std::path::Path) -> bool {
    let exe = std::fs::metadata(format!("/proc/{}/exe", instance.child.id()));
    let launcher = std::fs::metadata(xip_run);
    let is = |stat: std::fs::Metadata| {
        use std::os::unix::fs::MetadataExt;
        (stat.dev(), stat.ino())
    };
    match (exe, launcher) {
        (Ok(exe), Ok(launcher)) => is(exe) != is(launcher),
        _ => true,
    }
}

/// A process, by /proc/PID/stat.
struct Process {
    pid: u32,
    group: u32,
    /// State, page faults and processor time: what changes while it works.
    work: Vec<u8>,
}

/// All processes with their groups.
fn process_groups() -> Vec<Process> {
    processes()
        .filter_map(|pid| process(pid, &std::fs::read(format!("/proc/{pid}/stat")).ok()?))
        .collect()
}

/// One of them; `None` for one that has ended.
fn process(pid: u32, stat: &[u8]) -> Option<Process> {
    // The name in parentheses may have any byte in it.
    let after = stat.iter().rposition(|&byte| byte == b')')?;
    let fields: Vec<&[u8]> = stat.get(after + 2..)?.split(|&byte| byte == b' ').collect();
    let state = *fields.first()?;
    let number = |at: usize| std::str::from_utf8(fields.get(at)?).ok()?.parse().ok();
    // Fields 3 state, 5 pgrp, 10 to 15 faults and times: proc_pid_stat(5).
    let work = fields.get(7..13)?.join(&b' ');
    // The server of a view is measured with the session that it serves.
    let name = stat.get(..after)?.split(|&byte| byte == b'(').nth(1);
    if matches!(state, b"Z" | b"X") || name == Some(SERVER_NAME.as_bytes()) {
        return None;
    }
    Some(Process {
        pid,
        group: number(2)?,
        work: [state, work.as_slice()].join(&b' '),
    })
}

/// What of the image the files take that are in place.
fn flash_spent(image: &Image, group: &Group) -> Result<FlashSpent> {
    let mut spent = FlashSpent::default();
    let in_place = |file: &&File| file.in_place.mapped_bytes > 0;
    for file in group.files.iter().filter(in_place) {
        // A file of another image, or what is no file.
        let Ok(inode) = image.lookup(file.file.as_bytes()) else {
            continue;
        };
        if inode.kind != InodeKind::File {
            continue;
        }
        let extents = extent::extents(image, &inode)?;
        spent.stored_bytes += extents
            .iter()
            .map(|extent| extent.stored_bytes)
            .sum::<u64>();
        spent.compressed_bytes += compressed_bytes(&image.read_file(&inode)?)?;
    }
    Ok(spent)
}
