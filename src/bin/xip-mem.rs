//! Measures what of a process runs in place, and what RAM the rest costs.
//!
//! It has no Rust runtime around its `main`: that would open /dev/null for a closed standard output, and what is printed
//! would get lost without an error.

#![no_main]

use std::ffi::OsString;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, ValueEnum};
use serde::Serialize;
use xip_run::backing::spec;
use xip_run::error::{Error, Kind, Result};
use xip_run::picture::{self, Page, Strip};
use xip_run::report::{self, Observer, Reasons, Report, Session, machine};
use xip_run::trial::{self, Comparison, Difference};

#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

const EXAMPLE: &str = "\
Examples: everything that runs in place on this machine, every two seconds

  $ xip-mem --watch

a shell started natively and one started in place, side by side

  $ /bin/busybox sleep 60 &
  [1] 100
  $ xip-run --no-root --image rootfs.cramfs /bin/busybox sleep 60 &
  [2] 101
  $ xip-mem --compare 100 101

and a whole session, by one of its processes:

  $ xip-run --image rootfs.cramfs /bin/busybox sh
  $ xip-mem --session PID

What a program takes natively and in place, and what a change does to that:

  $ xip-mem compare --image rootfs.cramfs --instances 5 -- /bin/busybox sleep 9
  $ xip-mem compare --image rootfs.cramfs --save base.json -- /bin/busybox sh
  $ xip-mem compare --image new.cramfs --against base.json -- /bin/busybox sh

It works for your own processes; for those of others run it as root.
Exit code: 0, or 125 if a process could not be measured (the others are printed
all the same) or the output could not be written. `compare --against`: 1 if it
takes more than before, beyond the tolerance.";

/// Show which bytes of processes run in place, and what RAM the rest costs: of all processes that do, or of those that are
/// named.
#[derive(Parser)]
#[command(name = "xip-mem", version, max_term_width = 80, after_help = format!("{}\n\n{}\n\n{}\n\n{EXAMPLE}", report::machine_columns(), report::columns(), report::session_columns()))]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Subcommand>,
    /// Processes to measure, with a row for every mapping; with --session, one process of each session; without any, all
    /// processes of the machine that run in place
    #[arg(value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pids: Vec<u32>,
    /// Print the totals of all the processes side by side
    #[arg(short, long, requires = "pids")]
    compare: bool,
    /// Measure all the processes that have the same view of an image as their root directory: what each of them maps, what
    /// each file costs, each page once, and what the server of the view costs
    #[arg(long, conflicts_with = "compare", requires = "pids")]
    session: bool,
    /// With --session: the image of the session, where neither its server nor a process that runs from it tells; a
    /// file, or what `xip-run --image` takes
    #[arg(long, value_name = "SPEC", requires = "session")]
    image: Option<PathBuf>,
    /// Of all processes in place, print the files that they map instead: each file once, with the number of processes that
    /// share it
    #[arg(long, conflicts_with = "pids")]
    files: bool,
    /// Write a picture to this file instead, a page of HTML that needs nothing else: where the bytes of each process are, what
    /// is in the images, and which pages of them are touched
    #[arg(long, value_name = "FILE", conflicts_with_all = ["pids", "files", "json", "csv", "watch"])]
    html: Option<PathBuf>,
    /// The same with only the chart of the processes, as SVG
    #[arg(long, value_name = "FILE", conflicts_with_all = ["pids", "files", "json", "csv", "watch"])]
    svg: Option<PathBuf>,
    /// Sort the processes by this column, largest first
    #[arg(long, value_name = "COLUMN", default_value = "pss", conflicts_with = "pids", value_parser = PossibleValuesParser::new(machine::sort_words()))]
    sort: String,
    /// Print again every so many seconds, until interrupted
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = seconds)]
    watch: Option<Duration>,
    /// Name for every page that is not in place the reason why it is in RAM, and the way out
    #[arg(long, requires = "pids", conflicts_with_all = ["compare", "session"])]
    why: bool,
    /// Leave out the table with a row for every mapping; with --session, the rows of each process's files; with --why, those
    /// of the pages
    #[arg(short, long, requires = "pids")]
    summary: bool,
    /// Print JSON, lengths in bytes: a list with an object for every process (every session); without PID, one object
    #[arg(long)]
    json: bool,
    /// Print comma-separated values, lengths in bytes: a line for every process, with PID for every mapping, with --files
    /// or --session for every file
    #[arg(long, conflicts_with_all = ["json", "compare", "summary"])]
    csv: bool,
}

#[derive(clap::Subcommand)]
enum Subcommand {
    Compare(Compare),
}

/// Run the same program natively and in place, several instances of each at the same time, and print what RAM they take.
///
/// The instances have an empty pipe as standard input, and nobody sees their output. They are measured when nothing about
/// them changes any more, and then killed. PROGRAM is its path on the host as well as in the image.
#[derive(Args)]
#[command(after_help = "\
Rows, all in KiB. `each instance` is the average: what one more takes.
  session memfd   xip-run's stub, its record and the pages that were copied
  RAM of its own  anonymous memory, page tables, session memfd, server
  touched         page cache in a process's page tables; each page once for all
                  instances of a way
  all: RAM        their own and the page cache that they have touched
  ... if the image is in flash
                  the same without the image's page cache, which flash does not
                  need; the one that counts for an image that is a file here
Flash is counted for the files of which something is in place, whole, as they
are in the image; and what they would take if they were compressed.

Exit code: 0; 1 if with --against a figure has grown beyond --tolerance; 125 if
it could not be measured.")]
struct Compare {
    /// The image: what `xip-run --image` takes; without it, what xip-run would choose
    #[arg(long, value_name = "SPEC")]
    image: Option<PathBuf>,
    /// How many instances to start in each way
    #[arg(short = 'n', long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u64).range(1..=10000))]
    instances: u64,
    /// Measure when nothing has changed for so long
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = seconds)]
    settle: Duration,
    /// One more way: `copy` is what a loader takes that copies the program to RAM (xip-run --copy-text)
    #[arg(long, value_name = "WAY")]
    also: Option<Also>,
    /// In place, make the image the root directory: each instance is a session, and its server counts. Without it one program
    /// runs in place, its libraries are the host's
    #[arg(long)]
    session: bool,
    /// Print JSON, lengths in bytes
    #[arg(long)]
    json: bool,
    /// Write a picture to this file as well, a page of HTML that needs nothing else: RAM over the number of instances
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the chart of it to this file as well, as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Keep the figures in this file
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Show what has changed since figures were kept in this file, and fail (1) if it takes more
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// With --against: how much more each instance may take
    #[arg(long, value_name = "KIB", default_value = "8", requires = "against")]
    tolerance: u64,
    /// The launcher; without it the xip-run beside this xip-mem
    #[arg(long, value_name = "FILE")]
    xip_run: Option<PathBuf>,
    /// The program and its arguments
    #[arg(value_name = "PROGRAM [ARG]", required = true, last = true)]
    program: Vec<OsString>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Also {
    Copy,
}

/// What has changed since a baseline, for JSON.
#[derive(Serialize)]
struct Compared<'a> {
    #[serde(flatten)]
    comparison: &'a Comparison,
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<Vec<Difference>>,
}

impl Compare {
    /// The exit code.
    fn run(self) -> Result<u8> {
        let xip_run = self.xip_run.or_else(|| {
            let beside = std::env::current_exe().ok()?.with_file_name("xip-run");
            beside.exists().then_some(beside)
        });
        let comparison = trial::run(&trial::Options {
            command: self.program,
            image: spec::select(self.image)?,
            xip_run: xip_run.unwrap_or_else(|| "xip-run".into()),
            instances: self.instances,
            settle: self.settle,
            copy: self.also == Some(Also::Copy),
            session: self.session,
        })?;
        let differences = match &self.against {
            Some(path) => {
                let before: Comparison = std::fs::read(path)
                    .map_err(|err| err.to_string())
                    .and_then(|text| serde_json::from_slice(&text).map_err(|err| err.to_string()))
                    .map_err(|err| Error::failed(format!("{}: {err}", path.display())))?;
                Some(trial::against(&before, &comparison, self.tolerance << 10)?)
            }
            None => None,
        };
        if let Some(path) = &self.save {
            write_file(path, &to_json(&comparison, false)?)?;
        }
        let lines = picture::lines::chart(&comparison);
        if let Some(path) = &self.svg {
            write_file(path, &lines.svg())?;
        }
        if let Some(path) = &self.html {
            let mut page = Page::new(&comparison.title());
            page.chart(&lines);
            page.table(&comparison.table());
            comparison.summary().lines().for_each(|line| page.say(line));
            write_file(path, &page.html())?;
        }
        let beyond = differences
            .iter()
            .flatten()
            .any(|difference| difference.beyond);
        let mut text = comparison.to_string();
        if self.json {
            let compared = Compared {
                comparison: &comparison,
                against: differences,
            };
            text = to_json(&compared, false)?;
        } else if let Some(differences) = differences {
            text += &format!(
                "\n{:43} {:>9} {:>9} {:>9}\n",
                "KiB", "before", "now", "more"
            );
            for difference in differences {
                text += &format!("{difference}\n");
            }
        }
        print(&text)?;
        Ok(u8::from(beyond))
    }
}

fn to_json(what: &impl Serialize, in_one_line: bool) -> Result<String> {
    let json = match in_one_line {
        true => serde_json::to_string(what),
        false => serde_json::to_string_pretty(what),
    };
    let json = json.map_err(|err| Error::failed(format!("JSON: {err}")))?;
    Ok(json + "\n")
}

fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match seconds {
        0.01..=1e6 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("from 0.01 to a million".to_owned()),
    }
}

xip_run::c_main!(run);

fn run(args: Vec<OsString>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        // --help or --version.
        Err(err) if !err.use_stderr() => return exit_code(print(&err.to_string()).err()),
        Err(err) => {
            _ = err.print();
            return Kind::Failed.exit_code();
        }
    };
    if cli.html.is_some() || cli.svg.is_some() {
        return exit_code(picture(&cli).err());
    }
    if let Some(Subcommand::Compare(compare)) = cli.command {
        return compare.run().unwrap_or_else(|err| exit_code([err]));
    }
    let Some(pause) = cli.watch else {
        let (text, errors) = measure(&cli);
        return exit_code(print(&text).err().into_iter().chain(errors));
    };
    loop {
        let (mut text, errors) = measure(&cli);
        if !cli.json && !cli.csv {
            // From the top of the terminal, over what stood there.
            match io::stdout().is_terminal() {
                true => text = format!("\x1b[H\x1b[J{text}"),
                false => text.push('\n'),
            }
        }
        match write(&text) {
            // Nobody watches any more.
            Err(err) if err.kind() == ErrorKind::BrokenPipe => return 0,
            Err(err) => return exit_code([failed(err)]),
            Ok(()) if cli.pids.is_empty() || errors.is_empty() => std::thread::sleep(pause),
            // What was watched has ended.
            Ok(()) => return exit_code(errors),
        }
    }
}

fn write_file(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|err| Error::failed(format!("{}: {err}", path.display())))
}

fn picture(cli: &Cli) -> Result<()> {
    let mut machine = Observer::default().observe_machine(true);
    machine.sort(&cli.sort);
    let bars = picture::bars::chart(&machine);
    if let Some(path) = &cli.svg {
        write_file(path, &bars.svg())?;
    }
    let Some(path) = &cli.html else { return Ok(()) };
    let mut page = Page::new("What runs in place");
    if machine.processes.is_empty() {
        page.say("No process runs in place.");
    }
    page.chart(&bars);
    page.table(&machine.table(true));
    for heat in &machine.heat {
        let touched = (&heat.touched, "processes");
        page.chart(&Strip::new(&heat.path, &heat.image, heat.touched.page, Some(touched))?.chart());
    }
    page.table(&report::files::table(
        machine.files.as_deref().unwrap_or_default(),
        false,
    ));
    machine.notes.iter().for_each(|note| page.say(note));
    write_file(path, &page.html())
}

/// Says what went wrong, and with what exit code that ends.
fn exit_code(errors: impl IntoIterator<Item = Error>) -> u8 {
    errors.into_iter().fold(0, |_, err| {
        // A standard error that takes nothing leaves the exit code.
        _ = writeln!(io::stderr(), "xip-mem: {err}");
        err.kind().exit_code()
    })
}

/// What there is to print, and why there is no more of it: one process that cannot be measured is none of the others.
fn measure(cli: &Cli) -> (String, Vec<Error>) {
    let mut errors = Vec::new();
    let text = if cli.pids.is_empty() {
        let mut machine = Observer::default().observe_machine(cli.files);
        machine.sort(&cli.sort);
        match cli.csv {
            true => machine.csv(),
            false => show(cli, &machine, &mut errors, |machine| machine.to_string()),
        }
    } else if cli.why {
        let reasons = reasons(cli, &mut errors);
        match cli.csv {
            true => reasons
                .iter()
                .map(|reasons| reasons.table().csv())
                .collect(),
            false => show(cli, &reasons, &mut errors, |all| texts(all)),
        }
    } else if cli.session {
        let sessions = sessions(cli, &mut errors);
        match cli.csv {
            true => sessions.iter().map(Session::csv).collect(),
            false => show(cli, &sessions, &mut errors, |all| texts(all)),
        }
    } else {
        let reports = reports(cli, &mut errors);
        match cli.compare && !cli.json && !reports.is_empty() {
            true => report::compare(&reports),
            false if cli.csv => report::csv(&reports),
            false => show(cli, &reports, &mut errors, |all| texts(all)),
        }
    };
    (text, errors)
}

fn reports(cli: &Cli, errors: &mut Vec<Error>) -> Vec<Report> {
    let mut reports = of_each(cli, errors, |observer, pid, _| observer.observe(pid));
    if cli.summary {
        reports.iter_mut().for_each(|report| report.rows.clear());
    }
    reports
}

fn reasons(cli: &Cli, errors: &mut Vec<Error>) -> Vec<Reasons> {
    let mut all = of_each(cli, errors, |observer, pid, _| {
        observer.observe_reasons(pid)
    });
    if cli.summary {
        all.iter_mut().for_each(|reasons| reasons.runs.clear());
    }
    all
}

fn sessions(cli: &Cli, errors: &mut Vec<Error>) -> Vec<Session> {
    let mut sessions = of_each(cli, errors, |observer, pid, errors| {
        let (session, missing) = observer.observe_session(pid, cli.image.as_deref())?;
        errors.extend(missing);
        Ok(session)
    });
    if cli.summary {
        let processes = sessions
            .iter_mut()
            .flat_map(|session| &mut session.processes);
        processes.for_each(|process| process.files.clear());
    }
    sessions
}

/// Looks at each process that is named, and goes on after those that cannot be looked at.
fn of_each<T>(
    cli: &Cli,
    errors: &mut Vec<Error>,
    mut look: impl FnMut(&mut Observer, u32, &mut Vec<Error>) -> Result<T>,
) -> Vec<T> {
    let mut observer = Observer::default();
    let mut all = Vec::new();
    for &pid in &cli.pids {
        match look(&mut observer, pid, errors) {
            Ok(one) => all.push(one),
            Err(err) => errors.push(err),
        }
    }
    all
}

fn texts<T: ToString>(all: &[T]) -> String {
    let texts: Vec<String> = all.iter().map(ToString::to_string).collect();
    texts.join("\n")
}

/// JSON if that is wanted, of something that is watched in one line.
fn show<T: Serialize>(
    cli: &Cli,
    all: &T,
    errors: &mut Vec<Error>,
    text: impl Fn(&T) -> String,
) -> String {
    if !cli.json {
        return text(all);
    }
    to_json(all, cli.watch.is_some()).unwrap_or_else(|err| {
        errors.push(err);
        String::new()
    })
}

/// Writes to standard output; a reader that has gone away, as `head` does, is no failure.
fn print(text: &str) -> Result<()> {
    match write(text) {
        Err(err) if err.kind() != ErrorKind::BrokenPipe => Err(failed(err)),
        _ => Ok(()),
    }
}

fn failed(err: io::Error) -> Error {
    Error::failed(format!("standard output: {err}"))
}

fn write(text: &str) -> io::Result<()> {
    // std takes writing to a closed descriptor for done.
    rustix::io::fcntl_getfd(io::stdout())?;
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
