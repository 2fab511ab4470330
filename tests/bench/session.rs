//! What a session costs: programs that have the image as their root directory, against the same programs natively and
//! under proot, which is the usual way to have another root without a privilege.
//!
//!     cargo bench --bench session                        about two minutes; as root
//!     cargo bench --bench session -- --quick stat open   some rows, and few rounds
//!     tests/setup --bench                                installs proot
//!
//! **What is compared.** The same tree in three places: `native` is a chroot in a mount namespace of its own, its files in
//! the page cache; `in place` is `xip-run --image` of an image of the tree; `proot` is `proot -r` of the tree. What asks
//! for files by name is held against the tree in a tmpfs instead, in a chroot as well. In each place runs one shell, which
//! is told what to start. The launchers' own start is in no figure: the bench `launch` measures it. Tree and image lie in
//! `$TMPDIR`, and its filesystem matters: one with large folios in the page cache (ext4, xfs) maps a program with fewer
//! page faults than a tmpfs or FUSE does, a tenth of a start. Linux may split them some minutes later, in the tree or in the
//! image: then the ratio is another.
//!
//! **Time.** samples/session/bench.c does a thing so often that it takes some milliseconds, and prints what one took. The
//! places take turns, in many short rounds, on one CPU; each time bench.c is a new process. Printed are the medians, and
//! as the ratio the median of the rounds' ratios with its quartiles: what disturbs one place disturbs the next one too.
//! All is warm: everything has been done before the first round.
//!
//! **Programs** are started by vfork(2) and execve(2), as shells do it. glibc's posix_spawn(3) is a row of its own: it sets
//! the action of every signal before it executes (62 system calls, or one if clone3(2) has `CLONE_CLEAR_SIGHAND`), and a
//! session traps each.
//!
//! **Memory.** So many processes of one dynamic program sleep. Anonymous pages, page tables and session memfds are their
//! own; what they have mapped of files and present is counted once, however many map it; the server of the view and proot
//! are counted in. Figures are by `xip_run::report`. What the kernel keeps of an image that no process has mapped (the
//! pages behind the view's copies of them) is page cache that it can drop, and is not counted.

#[path = "../common/launch.rs"]
pub(crate) mod launch;

mod instances;
mod places;
mod rows;
mod shared;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use serde::Serialize;

use instances::{MemoryRow, Server};
use places::{Place, Tree};
use rows::{Effort, Shells, Time, TimeRow};
use shared::{Bar, OrWhy};

/// Spawn and wait of a dynamic program: at most so many times the native one.
const SPAWN_RATIO_BAR: f64 = 1.10;
/// System calls that are not trapped. The row `passed` says how much of it is seccomp's own: natively it has a filter of four
/// instructions, in place that and the session's.
const UNTRAPPED_RATIO_BAR: f64 = 1.15;
/// mmap(2) and munmap(2) of a file: so much more than natively. The row `trap` says how much of it is seccomp's own.
const MMAP_MORE_US_BAR: f64 = 1.5;
/// stat(2) of a file of the image: so many times that on a tmpfs.
const STAT_RATIO_BAR: f64 = 1.2;
/// What each process has to itself, page tables included: so much more than natively. What its session has is shared by
/// all of the session.
const OWN_RAM_BAR_KIB: f64 = 24.0;
/// The view's server.
const SERVER_RESIDENT_BAR_KIB: f64 = 1536.0;
const SERVER_ANONYMOUS_BAR_KIB: f64 = 512.0;

/// What a session costs: time and memory in place, native, and under proot
#[derive(Parser, Debug, Default)]
pub(crate) struct Args {
    /// Measure few rounds
    #[arg(long)]
    pub(crate) quick: bool,

    /// Fail if a bar of the project is broken
    #[arg(long)]
    pub(crate) assert: bool,

    /// Write all figures to this file as well
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Only rows with this in their names (`memory` is one)
    #[arg(value_name = "ROW")]
    pub(crate) only: Vec<String>,

    /// What cargo bench adds
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

/// All figures.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) xip_run: PathBuf,
    pub(crate) cpu: Option<usize>,
    pub(crate) highest_priority: bool,
    pub(crate) time: Vec<TimeRow>,
    pub(crate) memory: Vec<MemoryRow>,
    pub(crate) server: Option<Server>,
    pub(crate) bars: Vec<Bar>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let figures = shared::xip_run().and_then(|(xip_run, is)| {
        println!("xip-run: {}, {is}", xip_run.display());
        run(&args, &xip_run)
    });
    match figures {
        Ok(figures) if args.assert && figures.bars.iter().any(|bar| !bar.holds) => {
            ExitCode::FAILURE
        }
        Ok(_) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("session: {err:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures and prints.
pub(crate) fn run(args: &Args, xip_run: &Path) -> Result<Figures> {
    let effort = match args.quick {
        true => Effort {
            rounds: 3,
            row: Duration::ZERO,
            round_ns: 5e5,
            execs: 10,
        },
        false => Effort {
            rounds: 15,
            row: Duration::from_secs(4),
            round_ns: 4e6,
            execs: 100,
        },
    };
    let starts: &[(u64, usize)] = match args.quick {
        true => &[(1, 1), (10, 1)],
        false => &[(1, 7), (10, 3), (100, 1)],
    };
    let is_wanted =
        |name: &str| args.only.is_empty() || args.only.iter().any(|part| name.contains(part));

    let begin = Instant::now();
    let tree = Tree::new(xip_run)?;
    for (has, what) in [
        (
            tree.has_proot,
            "proot is not installed (tests/setup --bench): NOTHING IS COMPARED WITH IT",
        ),
        (tree.has_dash, "no dash: its row is left out"),
        (tree.has_python, "no /usr/bin/python3: its row is left out"),
    ] {
        if !has {
            println!("{what}");
        }
    }
    let (cpu, highest_priority) = shared::settle_on_a_cpu();
    println!(
        "{} rounds or more on {}, {}\n",
        effort.rounds,
        cpu.map_or("any CPU".to_owned(), |cpu| format!("CPU {cpu}")),
        match highest_priority {
            true => "at the highest priority",
            false => "at the usual priority (nice(2) needs a privilege)",
        }
    );

    let mut shells = Shells::new(&tree);
    println!(
        "{:46}{:>10}{:>10}  {:20}{:>10}{:>8}",
        "time (quartiles of the ratio)", "native", "in place", "ratio", "proot", "ratio"
    );
    let mut time = Vec::new();
    for row in rows::rows(&tree, effort.execs) {
        if is_wanted(row.name) {
            let row = rows::time(&mut shells, &row, effort);
            print_time(&row);
            time.push(row);
        }
    }
    println!("  * native is a tmpfs\n");

    let mut memory = Vec::new();
    if is_wanted("memory") {
        println!(
            "RAM, KiB{:>30}{:>13}{:>9}{:>8}{:>10}{:>12}{:>8}{:>8}",
            "anonymous",
            "page tables",
            "session",
            "= own",
            "own each",
            "page cache",
            "helper",
            "= all"
        );
        for &(instances, starts) in starts {
            let rows = instances::memory(&mut shells, instances, starts);
            rows.iter().for_each(print_memory);
            memory.extend(rows);
        }
        println!();
    }
    let server = instances::server(&shells);
    if let Some(server) = &server {
        println!(
            "the view's server: {} KiB resident, {} KiB of it anonymous\n",
            server.resident_bytes / 1024,
            server.anonymous_bytes / 1024
        );
    }
    let bars = bars(&time, &memory, server);
    shared::print_bars(&bars);
    println!("\n{} seconds in all", begin.elapsed().as_secs());

    let figures = Figures {
        xip_run: xip_run.to_owned(),
        cpu,
        highest_priority,
        time,
        memory,
        server,
        bars,
    };
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&figures)? + "\n";
        std::fs::write(path, json).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(figures)
}

/// The bars of what was measured. What could not be measured holds none.
fn bars(time: &[TimeRow], memory: &[MemoryRow], server: Option<Server>) -> Vec<Bar> {
    let mut bars = Vec::new();
    let nothing = f64::NAN;
    for row in time {
        let (what, of, at_most): (_, fn(Time) -> f64, _) = match row.name {
            "spawn-dynamic" => ("times native", |time| time.ratio.median, SPAWN_RATIO_BAR),
            "getppid" => (
                "times native",
                |time| time.ratio.median,
                UNTRAPPED_RATIO_BAR,
            ),
            "stat-1" | "stat-2" | "stat-4" | "stat-4-user" => {
                ("times tmpfs", |time| time.ratio.median, STAT_RATIO_BAR)
            }
            "mmap-image" | "mmap-host" => (
                "us more than native",
                |time| time.more_ns.median / 1e3,
                MMAP_MORE_US_BAR,
            ),
            _ => continue,
        };
        let measured = row.time(Place::Session).map_or(nothing, of);
        bars.push(Bar::new(
            format!("{}, {what}", row.title),
            measured,
            at_most,
        ));
    }
    for row in memory.iter().filter(|row| row.place == Place::Session) {
        let native = memory
            .iter()
            .find(|native| native.place == Place::Native && native.instances == row.instances);
        let each = |row: &MemoryRow| row.process_bytes_each();
        let more = each(row).zip(native.and_then(each));
        bars.push(Bar::new(
            format!(
                "anonymous memory and page tables of each of {}, KiB more than native",
                row.instances
            ),
            more.map_or(nothing, |(own, native)| (own - native) / 1024.0),
            OWN_RAM_BAR_KIB,
        ));
    }
    let kib = |bytes: fn(&Server) -> u64| {
        server
            .as_ref()
            .map_or(nothing, |server| bytes(server) as f64 / 1024.0)
    };
    bars.push(Bar::new(
        "the view's server, KiB resident",
        kib(|server| server.resident_bytes),
        SERVER_RESIDENT_BAR_KIB,
    ));
    bars.push(Bar::new(
        "the view's server, KiB anonymous",
        kib(|server| server.anonymous_bytes),
        SERVER_ANONYMOUS_BAR_KIB,
    ));
    bars
}

fn show_ns(ns: f64) -> String {
    match ns {
        ..1e4 => format!("{ns:.0} ns"),
        ..1e7 => format!("{:.0} us", ns / 1e3),
        _ => format!("{:.0} ms", ns / 1e6),
    }
}

fn print_time(row: &TimeRow) {
    let mark = if row.base == Place::Tmpfs { " *" } else { "" };
    let ns = |place| {
        row.time(place)
            .map_or("-".to_owned(), |time| show_ns(time.ns.median))
    };
    let ratio = row.time(Place::Session).map_or(String::new(), |time| {
        let [low, high] = time.ratio.quartiles;
        format!("{:.2}x ({low:.2}-{high:.2})", time.ratio.median)
    });
    let proot_ratio = row
        .time(Place::Proot)
        .map_or(String::new(), |time| format!("{:.1}x", time.ratio.median));
    println!(
        "  {:44}{:>10}{:>10}  {ratio:20}{:>10}{proot_ratio:>8}",
        format!("{}{mark}", row.title),
        ns(row.base),
        ns(Place::Session),
        ns(Place::Proot),
    );
    print_failures(row.places.iter().map(|(place, time)| (*place, time)));
}

fn print_memory(row: &MemoryRow) {
    print_failures(std::iter::once((row.place, &row.figures)));
    let Ok(memory) = &row.figures else { return };
    let [anonymous, tables, session, own, cache, helper, all] = [
        memory.anonymous_bytes,
        memory.page_table_bytes,
        memory.session_bytes,
        memory.own_bytes,
        memory.cache_bytes,
        memory.helper_bytes,
        memory.all_bytes,
    ]
    .map(|bytes| bytes / 1024);
    println!(
        "  {:28}{anonymous:8}{tables:13}{session:9}{own:8}{:10.1}{cache:12}{helper:8}{all:8}",
        format!("{:3} sleeping, {}", row.instances, row.place.title()),
        row.own_bytes_each().unwrap_or(f64::NAN) / 1024.0,
    );
}

fn print_failures<'a, T: 'a>(places: impl Iterator<Item = (Place, &'a OrWhy<T>)>) {
    for (place, figures) in places {
        if let Err(why) = figures {
            println!("    {}: {why}", place.title());
        }
    }
}
