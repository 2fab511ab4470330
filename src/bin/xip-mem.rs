//! Measures what of a process runs in place, and what RAM the rest costs.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use xip_run::error::{Error, Kind, Result};
use xip_run::report::{self, Observer, Report};

const EXAMPLE: &str = "\
Example: a shell started natively and one started in place, side by side

  $ /bin/busybox sleep 60 &
  [1] 100
  $ xip-run --no-root --image rootfs.cramfs /bin/busybox sleep 60 &
  [2] 101
  $ xip-mem --compare 100 101

It works for your own processes; for those of others run it as root.
Exit code: 0, or 125 if a process could not be measured.";

/// Show which bytes of a process run in place, and what RAM the rest costs.
#[derive(Parser)]
#[command(version, after_help = format!("{}\n\n{EXAMPLE}", report::columns()))]
struct Cli {
    /// Processes to measure
    #[arg(value_name = "PID", required = true, value_parser = clap::value_parser!(u32).range(1..))]
    pids: Vec<u32>,
    /// Print the totals of all the processes side by side
    #[arg(short, long)]
    compare: bool,
    /// Leave out the table with a row for every mapping
    #[arg(short, long)]
    summary: bool,
    /// Print JSON: a list with an object for every process, lengths in bytes
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(err) => {
            _ = err.print();
            let code = if err.use_stderr() {
                Kind::Failed.exit_code()
            } else {
                0
            };
            return ExitCode::from(code);
        }
    };
    match measure(&cli).and_then(|text| print(&text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("xip-mem: {err}");
            ExitCode::from(err.kind().exit_code())
        }
    }
}

fn measure(cli: &Cli) -> Result<String> {
    let mut observer = Observer::default();
    let mut reports = cli
        .pids
        .iter()
        .map(|&pid| observer.observe(pid))
        .collect::<Result<Vec<Report>>>()?;
    if cli.summary {
        for report in &mut reports {
            report.rows.clear();
        }
    }
    if cli.json {
        let json = serde_json::to_string_pretty(&reports);
        return json
            .map(|json| json + "\n")
            .map_err(|err| Error::failed(format!("JSON: {err}")));
    }
    if cli.compare {
        return Ok(report::compare(&reports));
    }
    let texts: Vec<String> = reports.iter().map(Report::to_string).collect();
    Ok(texts.join("\n"))
}

/// Writes to standard output; a reader that has gone away, as `head` does, is no failure.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(err) if err.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::failed(format!("standard output: {err}")))
        }
        _ => Ok(()),
    }
}
