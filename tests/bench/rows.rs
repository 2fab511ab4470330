//! What is timed, and the timing: session.rs says how and why.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use super::places::{Place, Shell, Tree};
use super::shared::{OrWhy, median};

/// Something that samples/session/bench.c does.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) title: String,
    /// What the other places are held against.
    pub(crate) base: Place,
    /// bench.c's row, and its arguments.
    work: (&'static str, String),
    /// How many things that are measured it does at once.
    things: u32,
}

/// The rows that the tree has the programs for. `execs` is how many a shell's loop makes.
pub(crate) fn rows(tree: &Tree, execs: u32) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |name, title: &str, base, row, args: &str| {
        rows.push(Row {
            name,
            title: title.to_owned(),
            base,
            work: (row, args.to_owned()),
            things: if args.contains("/etc/loop") { execs } else { 1 },
        });
    };
    let native = Place::Native;
    row(
        "spawn-static",
        "spawn and wait, static busybox true",
        native,
        "spawn",
        "/bin/busybox true",
    );
    row(
        "spawn-dynamic",
        "spawn and wait, dynamic true",
        native,
        "spawn",
        "/bin/true",
    );
    row(
        "posix-spawn",
        "posix_spawn and wait, dynamic true",
        native,
        "posix-spawn",
        "/bin/true",
    );
    for (has, name, shell) in [
        (true, "loop-busybox", "busybox sh"),
        (tree.has_dash, "loop-dash", "dash"),
    ] {
        if has {
            let title = format!("{shell}: loop of {execs} dynamic true, each");
            row(
                name,
                &title,
                native,
                "spawn",
                &format!("/bin/{shell} /etc/loop {execs}"),
            );
        }
    }
    if tree.has_python {
        row(
            "python",
            "spawn and wait, python3 -c pass",
            native,
            "spawn",
            "/usr/bin/python3 -c pass",
        );
    }
    for (name, title, work, path) in [
        ("stat-1", "stat, depth 1", "stat", "/f"),
        ("stat-2", "stat, depth 2", "stat", "/d/f"),
        ("stat-4", "stat, depth 4", "stat", "/d/d/d/f"),
        (
            "stat-4-user",
            "stat, depth 4, by user 65534",
            "stat-as-user",
            "/d/d/d/f",
        ),
        ("stat-missing", "stat, no such file", "stat", "/nope"),
        ("open", "open and close, depth 1", "open", "/f"),
        ("read", "read 4 KiB", "read", "/f"),
        ("readdir", "read a directory of 100", "readdir", "/many"),
    ] {
        row(name, title, Place::Tmpfs, work, path);
    }
    let host_file = tree.host_file.path().display().to_string();
    let library = tree.library.display().to_string();
    row(
        "mmap-image",
        "mmap and munmap of libc.so",
        native,
        "mmap",
        &library,
    );
    row(
        "mmap-host",
        "mmap and munmap of a host's file",
        native,
        "mmap",
        &host_file,
    );
    row("getppid", "getppid (untrapped)", native, "getppid", "");
    row("sigprocmask", "sigprocmask", native, "sigprocmask", "");
    row("sigaction", "sigaction", native, "sigaction", "");
    row("trap", "a trap by seccomp, by itself", native, "trap", "");
    row(
        "passed",
        "getppid past a filter, by itself",
        native,
        "passed",
        "",
    );
    rows
}

/// A median and the quartiles.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) quartiles: [f64; 2],
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |part: usize| values.get(values.len() * part / 4).copied();
        Self {
            median: median(values.iter().copied()),
            quartiles: [at(1), at(3)].map(|value| value.unwrap_or(f64::NAN)),
        }
    }
}

/// Figures of one row in one place.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Time {
    pub(crate) ns: Spread,
    /// Times the base of the same round.
    pub(crate) ratio: Spread,
    /// More than the base of the same round.
    pub(crate) more_ns: Spread,
}

#[derive(Debug, Serialize)]
pub(crate) struct TimeRow {
    pub(crate) name: &'static str,
    pub(crate) title: String,
    pub(crate) base: Place,
    pub(crate) rounds: usize,
    pub(crate) places: BTreeMap<Place, OrWhy<Time>>,
}

impl TimeRow {
    pub(crate) fn time(&self, place: Place) -> Option<Time> {
        self.places.get(&place)?.as_ref().ok().copied()
    }
}

/// A shell in each place; one that has failed is started again.
pub(crate) struct Shells<'a> {
    pub(crate) tree: &'a Tree,
    shells: BTreeMap<Place, Shell>,
}

impl<'a> Shells<'a> {
    pub(crate) fn new(tree: &'a Tree) -> Self {
        Self {
            tree,
            shells: BTreeMap::new(),
        }
    }

    /// Has `work` done in a place.
    pub(crate) fn with<T>(
        &mut self,
        place: Place,
        work: impl FnOnce(&mut Shell) -> Result<T>,
    ) -> Result<T> {
        let mut shell = match self.shells.remove(&place) {
            Some(shell) => shell,
            None => self.tree.shell(place)?,
        };
        let done = work(&mut shell);
        if done.is_ok() {
            self.shells.insert(place, shell);
        }
        done
    }

    /// Nanoseconds of one of the things that a row measures.
    fn time(&mut self, place: Place, row: &Row, count: u64) -> Result<f64> {
        let (work, args) = &row.work;
        let answer = self.with(place, |shell| {
            shell.ask(&format!("/bin/bench {work} {count} {args}"))
        })?;
        let ns: f64 = answer.parse()?;
        ensure!(ns > 0.0, "no time went by");
        Ok(ns / f64::from(row.things))
    }
}

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// At least so many rounds,
    pub(crate) rounds: usize,
    /// and three times as many if they do not take longer.
    pub(crate) row: Duration,
    /// What one place takes of a round, about.
    pub(crate) round_ns: f64,
    /// Of a shell's loop.
    pub(crate) execs: u32,
}

/// Times a row in all places by turns.
pub(crate) fn time(shells: &mut Shells<'_>, row: &Row, effort: Effort) -> TimeRow {
    let mut places = BTreeMap::new();
    let mut works: Vec<(Place, u64, Vec<f64>)> = Vec::new();
    for place in Place::ALL {
        let is_wanted = match place {
            Place::Native | Place::Tmpfs => place == row.base,
            Place::Session => true,
            Place::Proot => shells.tree.has_proot,
        };
        if !is_wanted {
            continue;
        }
        // The first brings everything into the kernel's caches, the second shows how many make a round.
        let tried = shells
            .time(place, row, 1)
            .and_then(|_| shells.time(place, row, 1));
        match tried {
            Ok(ns) => {
                let count = effort.round_ns / (ns * f64::from(row.things));
                works.push((place, count.clamp(1.0, 100_000.0) as u64, Vec::new()));
            }
            Err(err) => drop(places.insert(place, Err(format!("{err:#}")))),
        }
    }
    let end = Instant::now() + effort.row;
    let mut rounds = 0;
    while rounds < effort.rounds || rounds < 3 * effort.rounds && Instant::now() < end {
        rounds += 1;
        works.retain_mut(
            |(place, count, times)| match shells.time(*place, row, *count) {
                Ok(ns) => {
                    times.push(ns);
                    true
                }
                Err(err) => {
                    places.insert(*place, Err(format!("{err:#}")));
                    false
                }
            },
        );
    }
    let base = works.iter().find(|(place, ..)| *place == row.base);
    let base = base.map(|(_, _, times)| times.clone()).unwrap_or_default();
    for (place, _, times) in works {
        let pairs = || times.iter().zip(&base);
        let time = Time {
            ratio: Spread::of(pairs().map(|(own, base)| own / base).collect()),
            more_ns: Spread::of(pairs().map(|(own, base)| own - base).collect()),
            ns: Spread::of(times.clone()),
        };
        places.insert(place, Ok(time));
    }
    TimeRow {
        name: row.name,
        title: row.title.clone(),
        base: row.base,
        rounds,
        places,
    }
}
