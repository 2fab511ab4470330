//! What the benchmarks share: one CPU for all that is measured, medians, bars, the xip-run that is deployed.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

/// `RLIMIT_NICE` and CAP_SYS_NICE permitting, the highest that nice(2) has.
const HIGHEST_PRIORITY: i32 = -20;

/// Why there are no figures.
pub(crate) type OrWhy<T> = std::result::Result<T, String>;

/// Stays on one CPU, at a high priority if that is allowed, and so do all processes started from here on. The CPU, and
/// whether the priority is high.
pub(crate) fn settle_on_a_cpu() -> (Option<usize>, bool) {
    let on_one = || {
        let allowed = sched_getaffinity(None).ok()?;
        // The last: the first has more of the machine's interrupts.
        let cpu = (0..CpuSet::MAX_CPU).rfind(|&cpu| allowed.is_set(cpu))?;
        let mut one = CpuSet::new();
        one.set(cpu);
        sched_setaffinity(None, &one).ok()?;
        Some(cpu)
    };
    (
        on_one(),
        setpriority_process(None, HIGHEST_PRIORITY).is_ok(),
    )
}

/// The one in the middle; of an even number, the upper of the two.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A limit that the project has set itself.
#[derive(Debug, Serialize)]
pub(crate) struct Bar {
    pub(crate) what: String,
    pub(crate) measured: f64,
    pub(crate) at_most: f64,
    pub(crate) holds: bool,
}

impl Bar {
    pub(crate) fn new(what: impl Into<String>, measured: f64, at_most: f64) -> Self {
        Self {
            what: what.into(),
            measured,
            at_most,
            holds: measured <= at_most,
        }
    }
}

pub(crate) fn print_bars(bars: &[Bar]) {
    for bar in bars {
        let verdict = if bar.holds { "PASS" } else { "over" };
        println!(
            "{verdict}: {}: {:.2}, at most {:.2}",
            bar.what, bar.measured, bar.at_most
        );
    }
}

/// The xip-run to measure: `$XIP_RUN`, else the release build for the static target of this processor.
pub(crate) fn xip_run() -> Result<(PathBuf, &'static str)> {
    program("xip-run", "XIP_RUN")
}

/// A program of the package to measure: named by an environment variable, else as it is deployed.
pub(crate) fn program(name: &str, variable: &str) -> Result<(PathBuf, &'static str)> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok((path.into(), "named by the environment"));
    }
    let target = match std::env::consts::ARCH {
        "x86_64" => "x86_64-unknown-linux-musl",
        "aarch64" => "aarch64-unknown-linux-musl",
        _ => {
            let own: PathBuf = env!("CARGO_BIN_EXE_xip-run").into();
            let own = own.with_file_name(name);
            return Ok((own, "for this host (there is no static target)"));
        }
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--release", "--quiet", "--bin", name])
        .args(["--message-format", "json", "--target", target])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit());
    let out = command
        .output()
        .with_context(|| format!("run {command:?}"))?;
    if !out.status.success() {
        bail!("{command:?} failed; `rustup target add {target}`, or name a binary with {variable}");
    }
    let built = String::from_utf8_lossy(&out.stdout)
        .lines()
        .find_map(|line| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(PathBuf::from(message["executable"].as_str()?))
        });
    Ok((
        built.context("cargo did not say what it built")?,
        "static by musl, release",
    ))
}
