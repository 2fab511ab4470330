//! How long xip-mem takes for a machine with many processes in place, against smem, which reads as much of each.
//!
//!     cargo bench --bench memory               some seconds; as root, so that both see all processes
//!     tests/setup --bench                   installs smem
//!
//! So many sleeping processes of one program run in place. Both tools are then run in turn, in rounds, on one CPU: smem with
//! its table of processes, xip-mem without arguments (the processes), with `--files` (each page of them) and of one of the
//! processes. Printed are the medians, and the median of the rounds' ratios to smem.

#[path = "../common/launch.rs"]
mod launch;

#[allow(dead_code)]
mod shared;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use shared::{Bar, median, print_bars, program, settle_on_a_cpu, xip_run};

/// Of what smem takes.
const RATIO_BAR: f64 = 0.5;

/// How long xip-mem takes, against smem
#[derive(Parser)]
struct Args {
    /// So many processes
    #[arg(long, default_value = "100")]
    processes: usize,
    /// So many rounds
    #[arg(long, default_value = "15")]
    rounds: usize,
    /// Fail if the bar of the project is broken
    #[arg(long)]
    assert: bool,
    /// What cargo bench adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// Processes that end with this.
struct Sleepers(Vec<Child>);

impl Drop for Sleepers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(holds) => ExitCode::from(u8::from(!holds)),
        Err(err) => {
            eprintln!("memory: {err:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether it may pass.
fn run(args: &Args) -> Result<bool> {
    let (xip_run, is) = xip_run()?;
    let (xip_mem, _) = program("xip-mem", "XIP_MEM")?;
    println!("xip-mem: {}, {is}", xip_mem.display());
    if !Path::new("/bin/busybox").exists() {
        bail!("no /bin/busybox: tests/setup installs it");
    }
    let stage = launch::Stage::new();
    stage.add_at(Path::new("/bin/busybox"), Path::new("/bin/busybox"));
    stage.build::<&str>(&[]);
    settle_on_a_cpu();
    let mut sleepers = Sleepers(Vec::new());
    for _ in 0..args.processes {
        let mut command = Command::new(&xip_run);
        command.args(["--no-root", "--image"]).arg(stage.image());
        command
            .args(["/bin/busybox", "sleep", "1000"])
            .stdin(Stdio::null());
        sleepers.0.push(command.spawn().context("start a process")?);
    }
    std::thread::sleep(Duration::from_millis(300));
    let one = sleepers.0.first().map_or(0, Child::id).to_string();

    let tools: Vec<(&str, PathBuf, Vec<&str>)> = vec![
        ("smem -t", "smem".into(), vec!["-t"]),
        ("xip-mem", xip_mem.clone(), vec![]),
        ("xip-mem --files", xip_mem.clone(), vec!["--files"]),
        ("xip-mem PID", xip_mem, vec![one.as_str()]),
    ];
    // Does it see them all?
    let out = Command::new(&tools[1].1).arg("--csv").output()?;
    let seen = String::from_utf8_lossy(&out.stdout)
        .lines()
        .filter(|line| line.ends_with(",busybox"))
        .count();
    if seen < args.processes {
        bail!("xip-mem shows {seen} of {} processes", args.processes);
    }
    let mut times = vec![Vec::new(); tools.len()];
    for _ in 0..args.rounds {
        for ((name, tool, options), times) in tools.iter().zip(&mut times) {
            let begin = Instant::now();
            let status = Command::new(tool)
                .args(options)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .with_context(|| format!("run {name} (tests/setup --bench installs smem)"))?;
            times.push(begin.elapsed().as_secs_f64() * 1e3);
            if !status.success() {
                bail!("{name}: {status}");
            }
        }
    }
    println!(
        "\n{} processes in place, {} rounds",
        args.processes, args.rounds
    );
    let mut bars = Vec::new();
    for ((name, ..), of_tool) in tools.iter().zip(&times) {
        let ratios = of_tool
            .iter()
            .zip(&times[0])
            .map(|(tool, smem)| tool / smem);
        let ratio = median(ratios);
        println!(
            "{name:18} {:>8.1} ms  {ratio:.3} of smem",
            median(of_tool.iter().copied())
        );
        if *name == "xip-mem" {
            bars.push(Bar::new("xip-mem of smem's time", ratio, RATIO_BAR));
        }
    }
    print_bars(&bars);
    Ok(!args.assert || bars.iter().all(|bar| bar.holds))
}
