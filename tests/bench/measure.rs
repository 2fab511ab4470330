//! The measuring itself; launch.rs says how and why.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use xip_run::report;

use crate::setup::{Running, Setup, Way};
use crate::shared::{OrWhy, median};

/// Rounds of a block: enough for a median, few enough that nothing changes meanwhile.
const BLOCK_ROUNDS: usize = 15;

/// Spawn and wait, of one program in one way.
#[derive(Serialize)]
pub(crate) struct TimeRow {
    pub(crate) program: String,
    pub(crate) is_static: bool,
    pub(crate) way: Way,
    pub(crate) figures: OrWhy<Time>,
}

#[derive(Serialize)]
pub(crate) struct Time {
    /// Median of the blocks' medians.
    pub(crate) median_us: f64,
    /// The least of them.
    pub(crate) quietest_us: f64,
    /// The quietest less the native quietest.
    pub(crate) more_us: f64,
    /// Median of the blocks' ratios to native.
    pub(crate) ratio: f64,
}

/// Memory of one sleeping program, started in one way.
#[derive(Serialize)]
pub(crate) struct MemoryRow {
    pub(crate) program: String,
    pub(crate) is_static: bool,
    pub(crate) way: Way,
    pub(crate) figures: OrWhy<Memory>,
}

#[derive(Serialize)]
pub(crate) struct Memory {
    pub(crate) anonymous_bytes: u64,
    pub(crate) page_table_bytes: u64,
    /// The sum of both and of the session: what is gone when the process is.
    pub(crate) own_bytes: u64,
    /// Its share of the image's pages in the page cache. In flash they would cost nothing.
    pub(crate) image_cache_bytes: u64,
    /// Of other files' pages.
    pub(crate) file_cache_bytes: u64,
    /// Of the session's memfd: the stub, and the pages that were copied.
    pub(crate) session_bytes: u64,
    /// All of it.
    pub(crate) all_bytes: u64,
    /// `VmHWM`: the most pages that were present at once.
    pub(crate) peak_bytes: u64,
}

/// Measures spawn and wait of every program in every way, by turns, until the time is up. How many rounds there were,
/// and the figures.
pub(crate) fn time(setup: &Setup, budget: Duration) -> Result<(usize, Vec<TimeRow>)> {
    /// A way that works, and its medians, block by block.
    struct Case {
        row: usize,
        native: usize,
        blocks: Vec<f64>,
    }
    let mut rows = Vec::new();
    let mut cases: Vec<Case> = Vec::new();
    let mut commands = Vec::new();
    for program in &setup.programs {
        let native = cases.len();
        for way in Way::ALL {
            let works = setup.try_once(way, &program.ends)?;
            if works.is_ok() {
                let mut command = setup.command(way, &program.ends);
                command.stdin(std::process::Stdio::null());
                commands.push(command);
                cases.push(Case {
                    row: rows.len(),
                    native,
                    blocks: Vec::new(),
                });
            }
            rows.push(TimeRow {
                program: format!("{} ({})", program.title, program.ends.join(" ")),
                is_static: program.is_static,
                way,
                figures: works.and_then(|()| Err("not measured".to_owned())),
            });
        }
    }
    let end = Instant::now() + budget;
    let mut rounds = 0;
    while rounds == 0 || Instant::now() < end {
        let mut block: Vec<Vec<f64>> = vec![Vec::with_capacity(BLOCK_ROUNDS); commands.len()];
        for _ in 0..BLOCK_ROUNDS {
            for (command, times) in commands.iter_mut().zip(&mut block) {
                let start = Instant::now();
                let status = command.spawn()?.wait()?;
                times.push(start.elapsed().as_secs_f64() * 1e6);
                anyhow::ensure!(status.success(), "{command:?}: {status}");
            }
        }
        for (case, times) in cases.iter_mut().zip(block) {
            case.blocks.push(median(times));
        }
        rounds += BLOCK_ROUNDS;
    }
    let least = |blocks: &[f64]| blocks.iter().copied().fold(f64::INFINITY, f64::min);
    for case in &cases {
        let native = &cases[case.native].blocks;
        rows[case.row].figures = Ok(Time {
            median_us: median(case.blocks.iter().copied()),
            quietest_us: least(&case.blocks),
            more_us: least(&case.blocks) - least(native),
            ratio: median(
                case.blocks
                    .iter()
                    .zip(native)
                    .map(|(own, native)| own / native),
            ),
        });
    }
    Ok((rounds, rows))
}

/// Measures the memory of every program in every way while it sleeps, one process at a time.
pub(crate) fn memory(setup: &Setup, starts: usize) -> Result<Vec<MemoryRow>> {
    let mut rows = Vec::new();
    for program in &setup.programs {
        for way in Way::ALL.into_iter().filter(|&way| way != Way::HelperAlone) {
            let works = setup.try_once(way, &program.ends)?;
            let figures = match works {
                Ok(()) => {
                    let all: Vec<Memory> = (0..starts)
                        .map(|_| sleeping(setup, way, &program.sleeps))
                        .collect::<Result<_>>()?;
                    let of = |figure: fn(&Memory) -> u64| {
                        median(all.iter().map(|one| figure(one) as f64)) as u64
                    };
                    Ok(Memory {
                        anonymous_bytes: of(|one| one.anonymous_bytes),
                        page_table_bytes: of(|one| one.page_table_bytes),
                        own_bytes: of(|one| one.own_bytes),
                        image_cache_bytes: of(|one| one.image_cache_bytes),
                        file_cache_bytes: of(|one| one.file_cache_bytes),
                        session_bytes: of(|one| one.session_bytes),
                        all_bytes: of(|one| one.all_bytes),
                        peak_bytes: of(|one| one.peak_bytes),
                    })
                }
                Err(why) => Err(why),
            };
            rows.push(MemoryRow {
                program: format!("{} ({})", program.title, program.sleeps.join(" ")),
                is_static: program.is_static,
                way,
                figures,
            });
        }
    }
    Ok(rows)
}

fn sleeping(setup: &Setup, way: Way, argv: &[&str]) -> Result<Memory> {
    let mut running = Running::spawn(&mut setup.command(way, argv))?;
    let pid = running.pid();
    wait_until_it_sleeps(&mut running)?;
    let totals = report::observe(pid)?.totals;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak_kib: u64 = status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmHWM:")?
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        })
        .context("no VmHWM in /proc/PID/status")?;
    Ok(Memory {
        anonymous_bytes: totals.anonymous_bytes,
        page_table_bytes: totals.page_table_bytes,
        own_bytes: totals.ram_alone_bytes,
        image_cache_bytes: totals.image_cache.share_bytes,
        file_cache_bytes: totals.file_cache.share_bytes,
        session_bytes: totals.session_memfd.map_or(0, |memfd| memfd.share_bytes),
        all_bytes: totals.ram_with_share_bytes,
        peak_bytes: peak_kib * 1024,
    })
}

/// It sleeps in earnest when its times and page faults have stood still for a while.
fn wait_until_it_sleeps(running: &mut Running) -> Result<()> {
    let stat_path = format!("/proc/{}/stat", running.pid());
    let mut before = String::new();
    let mut still = 0;
    for _ in 0..500 {
        if let Some(status) = running.wait_for(Duration::from_millis(10))? {
            anyhow::bail!("what should sleep has ended: {status}");
        }
        let stat = fs::read_to_string(&stat_path)?;
        let same = stat == before && stat.contains(") S ");
        still = if same { still + 1 } else { 0 };
        if still == 3 {
            return Ok(());
        }
        before = stat;
    }
    anyhow::bail!("what should sleep does not come to rest")
}
