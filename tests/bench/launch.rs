//! What a launch costs: time and memory of programs started in place, natively, and by loaders that copy.
//!
//!     cargo bench --bench launch                       about 20 seconds
//!     cargo bench --bench launch -- --quick --assert   about 5, and fails if a bar of the project is broken
//!
//! **What is compared.** The same program files, each started in four ways: `native` (posix_spawn(3) of the file),
//! `in place` (posix_spawn of `xip-run --no-root`, which becomes the program), `copying` (the same with `--copy-text`,
//! which loads all text into RAM, as a loader without execute-in-place must) and `userland-execve` (the crate of that
//! name, called by this benchmark as a helper process; the start of that helper is measured alone, in a row of its own,
//! because the loader cannot be had without some process around it). `xip-run` is the release build that is deployed,
//! static by musl where Rust has such a target: built by this benchmark, or `$XIP_RUN`. Program files and image lie in
//! a temporary directory and have been read: all is in the page cache. The environment is empty.
//!
//! **Time** is that of spawn and wait together, the launcher's own start included. All ways take turns (A B C A B C …)
//! on one CPU, so that what disturbs one disturbs all; if that is allowed, at the highest priority that nice(2) has. The
//! rounds come in blocks. A block gives a median for each way, and a ratio of it to the native one's. Printed are the
//! median of all blocks, the quietest block (what the machine can do when nobody else wants it), and as the ratio the
//! median of the blocks' ratios: it is little moved by what comes and goes while the benchmark runs.
//!
//! **Memory** is that of the program while it sleeps, alone of its kind on the machine: anonymous pages and page tables
//! are its own, page cache counts as this process's share of it, by `xip_run::report` from /proc/PID/smaps and status.
//! Medians of some starts, because address randomization moves page tables. The peak is `VmHWM`, all pages present.

mod measure;
mod setup;
mod shared;

use std::ffi::OsStr;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use serde::Serialize;

use measure::{MemoryRow, TimeRow};
use setup::{HELPER, Setup, Way};
use shared::Bar;

/// Cold launch of static busybox `true` in place: at most so many times the native one.
const LAUNCH_RATIO_BAR: f64 = 1.8;
/// Anonymous memory and page tables of a sleeping in-place busybox: at most so many bytes more than the native one's.
const OWN_RAM_BAR_BYTES: u64 = 16 * 1024;

/// What a launch costs: time and memory in place, native, and by loaders that copy
#[derive(Parser)]
struct Args {
    /// Measure for three seconds instead of fifteen
    #[arg(long)]
    quick: bool,

    /// Fail if a bar of the project is broken
    #[arg(long)]
    assert: bool,

    /// Write all figures to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// What cargo bench adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// All figures.
#[derive(Serialize)]
struct Figures {
    xip_run: PathBuf,
    xip_run_bytes: u64,
    cpu: Option<usize>,
    highest_priority: bool,
    rounds: usize,
    time: Vec<TimeRow>,
    memory: Vec<MemoryRow>,
    bars: Vec<Bar>,
}

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    if args.nth(1).as_deref() == Some(OsStr::new(HELPER)) {
        return setup::helper(args.collect());
    }
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(err) => {
            eprintln!("launch: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool> {
    let setup = Setup::new()?;
    let (budget, starts) = match args.quick {
        true => (Duration::from_secs(3), 3),
        false => (Duration::from_secs(15), 7),
    };
    let (cpu, highest_priority) = shared::settle_on_a_cpu();
    println!(
        "xip-run: {}, {} bytes, {}",
        setup.xip_run.display(),
        setup.xip_run_bytes,
        setup.xip_run_is
    );
    let (rounds, time) = measure::time(&setup, budget)?;
    println!(
        "{rounds} rounds on {}, {}\n",
        cpu.map_or("any CPU".to_owned(), |cpu| format!("CPU {cpu}")),
        match highest_priority {
            true => "at the highest priority",
            false => "at the usual priority (nice(2) needs a privilege)",
        }
    );
    print_times(&time);
    let memory = measure::memory(&setup, starts)?;
    print_memory(&memory, starts);
    let bars = bars(&time, &memory);
    shared::print_bars(&bars);
    let hold = bars.iter().all(|bar| bar.holds);
    let figures = Figures {
        xip_run: setup.xip_run.clone(),
        xip_run_bytes: setup.xip_run_bytes,
        cpu,
        highest_priority,
        rounds,
        time,
        memory,
        bars,
    };
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&figures)? + "\n";
        std::fs::write(path, json).with_context(|| format!("write {}", path.display()))?;
    }
    setup.close()?;
    std::io::stdout().flush()?;
    Ok(hold || !args.assert)
}

fn bars(time: &[TimeRow], memory: &[MemoryRow]) -> Vec<Bar> {
    let launch = time
        .iter()
        .find(|row| row.is_static && row.way == Way::InPlace)
        .and_then(|row| row.figures.as_ref().ok());
    let own = |way| {
        let row = memory.iter().find(|row| row.is_static && row.way == way)?;
        Some(row.figures.as_ref().ok()?.own_bytes)
    };
    let mut bars = Vec::new();
    if let Some(launch) = launch {
        bars.push(Bar::new(
            "cold launch of static busybox `true` in place, times native",
            launch.ratio,
            LAUNCH_RATIO_BAR,
        ));
    }
    if let (Some(native), Some(in_place)) = (own(Way::Native), own(Way::InPlace)) {
        let kib = |bytes: u64| bytes as f64 / 1024.0;
        bars.push(Bar::new(
            "anonymous memory, page tables and session of a sleeping in-place busybox, KiB",
            kib(in_place),
            kib(native + OWN_RAM_BAR_BYTES),
        ));
    }
    bars
}

fn print_times(rows: &[TimeRow]) {
    println!("time of spawn and wait, microseconds");
    println!("  {:26}  median  quietest    more  x native", "");
    let mut program = "";
    for row in rows {
        if row.program != program {
            program = &row.program;
            println!("  {program}");
        }
        match &row.figures {
            Ok(time) => println!(
                "    {:24}{:8.0}{:10.0}{:+8.0}{:10.2}",
                row.way.title(),
                time.median_us,
                time.quietest_us,
                time.more_us,
                time.ratio
            ),
            Err(why) => println!("    {:24}  {why}", row.way.title()),
        }
    }
    println!();
}

fn print_memory(rows: &[MemoryRow], starts: usize) {
    println!("memory while it sleeps, KiB (medians of {starts} starts)");
    println!(
        "  {:26} anonymous  page tables  session   = own  cache: image   files   = all    peak",
        ""
    );
    let mut program = "";
    for row in rows {
        if row.program != program {
            program = &row.program;
            println!("  {program}");
        }
        match &row.figures {
            Ok(memory) => {
                let [anonymous, tables, session, own, image, files, all, peak] = [
                    memory.anonymous_bytes,
                    memory.page_table_bytes,
                    memory.session_bytes,
                    memory.own_bytes,
                    memory.image_cache_bytes,
                    memory.file_cache_bytes,
                    memory.all_bytes,
                    memory.peak_bytes,
                ]
                .map(|bytes| bytes / 1024);
                println!(
                    "    {:24}{anonymous:11}{tables:13}{session:9}{own:8}{image:14}{files:8}{all:8}{peak:8}",
                    row.way.title(),
                );
            }
            Err(why) => println!("    {:24}  {why}", row.way.title()),
        }
    }
    println!();
}
