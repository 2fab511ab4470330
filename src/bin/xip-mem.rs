//! Measures what of a process runs in place, and what RAM the rest costs.
//!
//! It has no Rust runtime around its `main`: that would open /dev/null for a closed standard output, and what is printed
//! would get lost without an error.

#![no_main]

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;

use clap::Parser;
use serde::Serialize;
use xip_run::error::{Error, Kind, Result};
use xip_run::report::{self, Observer, Report, Session};

const EXAMPLE: &str = "\
Example: a shell started natively and one started in place, side by side

  $ /bin/busybox sleep 60 &
  [1] 100
  $ xip-run --no-root --image rootfs.cramfs /bin/busybox sleep 60 &
  [2] 101
  $ xip-mem --compare 100 101

and a whole session, by one of its processes:

  $ xip-run --image rootfs.cramfs /bin/busybox sh
  $ xip-mem --session PID

It works for your own processes; for those of others run it as root.
Exit code: 0, or 125 if a process could not be measured (the others are printed
all the same) or the output could not be written.";

/// Show which bytes of a process run in place, and what RAM the rest costs.
#[derive(Parser)]
#[command(name = "xip-mem", version, max_term_width = 80, after_help = format!("{}\n\n{}\n\n{EXAMPLE}", report::columns(), report::session_columns()))]
struct Cli {
    /// Processes to measure; with --session, one process of each session
    #[arg(value_name = "PID", required = true, value_parser = clap::value_parser!(u32).range(1..))]
    pids: Vec<u32>,
    /// Print the totals of all the processes side by side
    #[arg(short, long)]
    compare: bool,
    /// Measure all the processes that have the same view of an image as their root directory: what each of them maps, what
    /// each file costs, each page once, and what the server of the view costs
    #[arg(long, conflicts_with = "compare")]
    session: bool,
    /// With --session: the image of the session, where neither its server nor a process that runs from it tells; a
    /// file, or what `xip-run --image` takes
    #[arg(long, value_name = "SPEC", requires = "session")]
    image: Option<PathBuf>,
    /// Leave out the table with a row for every mapping; with --session, the rows of each process's files
    #[arg(short, long)]
    summary: bool,
    /// Print JSON: a list with an object for every process (every session), lengths in bytes
    #[arg(long)]
    json: bool,
}

xip_run::c_main!(run);

fn run(args: Vec<OsString>) -> u8 {
    let (text, errors) = match Cli::try_parse_from(args) {
        Ok(cli) => measure(&cli),
        // --help or --version.
        Err(err) if !err.use_stderr() => (err.to_string(), Vec::new()),
        Err(err) => {
            _ = err.print();
            return Kind::Failed.exit_code();
        }
    };
    let errors = print(&text).err().into_iter().chain(errors);
    errors.fold(0, |_, err| {
        // A standard error that takes nothing leaves the exit code.
        _ = writeln!(io::stderr(), "xip-mem: {err}");
        err.kind().exit_code()
    })
}

/// What there is to print, and why there is no more of it: one process that cannot be measured is none of the others.
fn measure(cli: &Cli) -> (String, Vec<Error>) {
    let mut errors = Vec::new();
    let text = if cli.session {
        let sessions = sessions(cli, &mut errors);
        show(cli, &sessions, &mut errors)
    } else {
        let reports = reports(cli, &mut errors);
        match cli.compare && !cli.json && !reports.is_empty() {
            true => report::compare(&reports),
            false => show(cli, &reports, &mut errors),
        }
    };
    (text, errors)
}

fn reports(cli: &Cli, errors: &mut Vec<Error>) -> Vec<Report> {
    let mut observer = Observer::default();
    let mut reports = Vec::new();
    for &pid in &cli.pids {
        match observer.observe(pid) {
            Ok(report) => reports.push(report),
            Err(err) => errors.push(err),
        }
    }
    if cli.summary {
        for report in &mut reports {
            report.rows.clear();
        }
    }
    reports
}

fn sessions(cli: &Cli, errors: &mut Vec<Error>) -> Vec<Session> {
    let mut observer = Observer::default();
    let mut sessions = Vec::new();
    for &pid in &cli.pids {
        match observer.observe_session(pid, cli.image.as_deref()) {
            Ok((session, missing)) => {
                sessions.push(session);
                errors.extend(missing);
            }
            Err(err) => errors.push(err),
        }
    }
    if cli.summary {
        let processes = sessions
            .iter_mut()
            .flat_map(|session| &mut session.processes);
        processes.for_each(|process| process.files.clear());
    }
    sessions
}

fn show<T: Serialize + ToString>(cli: &Cli, all: &[T], errors: &mut Vec<Error>) -> String {
    if cli.json {
        return serde_json::to_string_pretty(all)
            .map(|json| json + "\n")
            .unwrap_or_else(|err| {
                errors.push(Error::failed(format!("JSON: {err}")));
                String::new()
            });
    }
    let texts: Vec<String> = all.iter().map(ToString::to_string).collect();
    texts.join("\n")
}

/// Writes to standard output; a reader that has gone away, as `head` does, is no failure.
fn print(text: &str) -> Result<()> {
    let fail = |err: io::Error| Error::failed(format!("standard output: {err}"));
    // std takes writing to a closed descriptor for done.
    rustix::io::fcntl_getfd(io::stdout()).map_err(|err| fail(err.into()))?;
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(err) if err.kind() != ErrorKind::BrokenPipe => Err(fail(err)),
        _ => Ok(()),
    }
}
