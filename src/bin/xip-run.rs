//! Starts a program in place from a cramfs image: parses the command line, calls the library, maps errors to exit
//! codes. It has no Rust runtime around its `main`, so that the program inherits just what xip-run inherited.

#![no_main]

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Parser, ValueEnum};
use serde::Serialize;
use xip_run::access;
use xip_run::backing::{Backing, spec};
use xip_run::cramfs::Image;
use xip_run::elf::Machine;
use xip_run::error::{Error, Kind, Result};
use xip_run::feature::{self, Feature};
use xip_run::init;
use xip_run::plan::{LaunchPlan, PlanOptions, Start};
use xip_run::probe::Probe;
use xip_run::search::Search;
use xip_run::session;
use xip_run::trace::Trace;
use xip_run::units::PageSize;
use xip_run::view::{self, Bind, ViewOptions, serve};

/// Run a program in place from a cramfs image: its text and constants are mapped straight from the image instead of being
/// copied to RAM, its data is private. The image is its root directory.
///
/// Every empty directory of the image (/proc, /dev, /tmp ...) shows the host's directory of that name; all else is
/// read-only. Every program that is started and every library that is loaded runs in place too; what is not stored so that it
/// can (`xip-image map`) runs from the page cache.
#[derive(Parser, Debug)]
#[command(
    name = "xip-run",
    version,
    override_usage = "xip-run [OPTIONS] PROGRAM [ARG]...
       xip-run --explain [--json] [OPTIONS] PROGRAM
       xip-run --probe [--json] [--image SPEC]
       xip-run --init [ARG]...",
    max_term_width = 80,
    after_help = "Examples:
  xip-run --image rootfs.cramfs /bin/busybox sh
      a shell whose root directory is the image
  xip-run --image rootfs.cramfs --bind /srv/data:/mnt:ro --workdir /mnt ls
  xip-run --no-root --image rootfs.cramfs /bin/busybox sh -c 'echo hello'
  xip-run --image rootfs.cramfs --explain /bin/busybox
      what would be mapped from where, and why
  xip-run --image /dev/mem@0x04000000 /bin/busybox sh
      from flash that is mapped at this physical address
  xip-run --probe
      what this kernel and this user have for it
  xip-run --trace boot.trace --image rootfs.cramfs /bin/busybox sh -c true
      which pages it touches
  xip-run --require in-place --image rootfs.cramfs /bin/busybox sh

The image is named by --image, else $XIP_IMAGE, else xip.image= on the kernel
command line, else image= in /etc/xip-run.conf. Make one with
`xip-image build ROOTDIR rootfs.cramfs`, look at it with `xip-image map`;
measure a running program with `xip-mem PID`.

A PROGRAM without a slash is looked for in the directories of PATH, in the
image. An image for sessions has empty directories /proc, /dev and /tmp.

Where the kernel lacks a feature the session goes on with what is possible, and
one line on standard error says what is lost: `--require in-place` makes that
an error, `--quiet` keeps it silent, `--probe` lists the features.

As process 1 (--init) it reads words xip.KEY=VALUE of the kernel command line,
then lines KEY=VALUE of /etc/xip-run.conf:
  image=SPEC            the image; if nothing names one: auto
  init=PATH             what becomes process 1, instead of /sbin/init
  module=FILE [P=V]...  load a kernel module of the initramfs (fuse.ko); as many
                        as needed, in order
  mount=DEVICE:DIR:TYPE[:OPTIONS]
                        mount what the image lies on, such as ext4 with DAX
  bind=SRC[:DST][:ro]   put a directory of the old root over one of the image
  verify                compute the image's CRC first
  log=quiet|info|debug[,FILE]
                        what is said on the console, and written to FILE
                        (/dev/kmsg)
  rescue[=SHELL]        if something fails, a shell of the initramfs (/bin/sh)
                        on the console; when it ends, the start is tried again.
                        Without it the machine does what panic=SECONDS says

Exit status: the program's own; 123 if a feature is missing that cannot be done
without (with --probe: for a session in place), 125 if xip-run itself failed or
the image is damaged, 126 if PROGRAM was found but cannot be run, 127 if it was
not found."
)]
struct Args {
    /// The image: a cramfs file, memory-mapped flash (/dev/mem@ADDRESS[+SIZE], /dev/uioN[@mapM], a PCI device's resourceN),
    /// mtd:NAME, or auto
    #[arg(long, value_name = "SPEC")]
    image: Option<PathBuf>,

    /// Run the one program against the host's root directory: paths that it opens, programs that it starts and shared
    /// libraries that it loads are the host's
    #[arg(long)]
    no_root: bool,

    /// Put the host's directory or file SRC over DST of the view, where the image must have one of the same sort; without
    /// DST at the same path; `:ro` forbids writing. May be given several times, later over earlier
    #[arg(long, value_name = "SRC[:DST][:ro]", conflicts_with = "no_root", value_parser = parse_bind())]
    bind: Vec<Bind>,

    /// Start the program in this directory of the view, instead of in the current one if the view has it and else in /
    #[arg(long, value_name = "DIR", conflicts_with = "no_root")]
    workdir: Option<PathBuf>,

    /// Take the image's tree from where it is mounted already, such as the kernel's own cramfs mount of the same image,
    /// instead of serving it
    #[arg(long, value_name = "PATH", conflicts_with = "no_root")]
    view: Option<PathBuf>,

    /// As the first process (PID 1) of a system: mount /proc, /sys and /dev, make the image the root directory, free the
    /// initramfs and become the image's /sbin/init, in place. Called `init` (as /init of an initramfs, as /sbin/init)
    /// xip-run does so without the option. Arguments are the init's
    #[arg(long, conflicts_with_all = ["explain", "probe", "image", "no_root", "bind", "workdir", "view", "verify",
        "copy_text", "argv0", "require", "quiet"])]
    init: bool,

    /// Record which pages of the image's files the session touches, and add them to FILE when its last process has ended. For
    /// this everything runs from the view, not in place
    #[arg(long, value_name = "FILE", conflicts_with_all = ["no_root", "view", "copy_text", "require", "explain"])]
    trace: Option<PathBuf>,

    /// Do not run: print every page run of the program and its interpreter with its source and what RAM it costs
    #[arg(long)]
    explain: bool,

    /// Do not run: try every feature of the kernel that a session needs, and print what each gives, what happens without it,
    /// and whether it is there for this user; with --image also what can be done with that
    #[arg(long, conflicts_with_all = ["explain", "command", "no_root", "bind", "workdir", "view", "verify", "copy_text",
        "argv0", "require", "pinned", "quiet", "trace"])]
    probe: bool,

    /// With --explain and --probe: as JSON
    #[arg(long)]
    json: bool,

    /// Fail, with exit status 123, where a feature is missing: `in-place` is a session with the image as its root directory,
    /// everything of it in place
    #[arg(long, value_name = "WHAT", conflicts_with_all = ["no_root", "copy_text"])]
    require: Option<Required>,

    /// Start only if nobody can change the image beneath a running program: flash that no driver writes to, a sealed memfd,
    /// an immutable file; else fail, with exit status 123 and the reason
    #[arg(long, conflicts_with = "view")]
    pinned: bool,

    /// Do not say what is lost where a feature is missing, unless it is the root directory
    #[arg(long, short)]
    quiet: bool,

    /// With --explain: plan for a kernel with pages of this many bytes (4096, 16384, 65536) instead of this one's
    #[arg(long, value_name = "BYTES", requires = "explain", value_parser = parse_page_size)]
    page_size: Option<PageSize>,

    /// Prove first that the image is undamaged: compute its CRC, and compare every page that would be mapped with the
    /// file's contents, byte by byte
    #[arg(long)]
    verify: bool,

    /// Run from RAM: copy the program instead of mapping it (debuggers cannot set breakpoints in flash)
    #[arg(long)]
    copy_text: bool,

    /// Start the program with this argv[0] instead of PROGRAM (-sh makes a login shell)
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    argv0: Option<OsString>,

    /// Path of the program in the image, or its name, to be found in PATH; and its arguments: all that follows PROGRAM is
    /// the program's
    // One list, because clap would look for its own options between two.
    #[arg(
        value_name = "PROGRAM [ARG]",
        required_unless_present_any = ["probe", "init"],
        trailing_var_arg = true
    )]
    command: Vec<OsString>,
}

/// What `--require` knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Required {
    /// A session with the image as its root directory, all of it in place.
    InPlace,
}

fn parse_page_size(text: &str) -> Result<PageSize, String> {
    let bytes = text.parse().map_err(|_| "not a number".to_owned())?;
    PageSize::new(bytes).ok_or_else(|| "must be 4096, 16384 or 65536".to_owned())
}

/// Longest path, its NUL included: limits.h.
const PATH_MAX: usize = 4096;

/// What a launch allocates is gone with the launch.
#[global_allocator]
static MEMORY: xip_run::sys::Arena = xip_run::sys::Arena::new();

fn parse_bind() -> impl TypedValueParser<Value = Bind> {
    OsStringValueParser::new().try_map(|text| Bind::parse(&text))
}

xip_run::c_main!(run);

fn run(args: Vec<OsString>) -> u8 {
    if let Err(err) = access::require_no_more_rights() {
        return fail(&err);
    }
    if serve::is_meant(&args) {
        return serve::run(args);
    }
    if init::is_meant(&args) {
        return init::run(&args, 1);
    }
    let all = args.clone();
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(err) => {
            let _ = err.print();
            return if err.use_stderr() { 125 } else { 0 };
        }
    };
    if args.init {
        return init::run(&all, all.len() - args.command.len());
    }
    let done = match args.probe {
        true => probe(&args),
        false => launch(args).map(|()| 0),
    };
    match done {
        Ok(code) => code,
        Err(err) => fail(&err),
    }
}

/// Says what went wrong; the exit code.
fn fail(err: &Error) -> u8 {
    // eprintln!() would panic where standard error cannot be written to.
    let _ = writeln!(std::io::stderr(), "xip-run: {err}");
    err.kind().exit_code()
}

/// The program's text, or at least something in the image, can be mapped from it.
fn require_direct(image: &Image, plan: Option<&LaunchPlan>, page: PageSize) -> Result<()> {
    let copied = match plan {
        Some(plan) => plan.copied_text(),
        None if session::has_direct_pages(image, page) => None,
        None => {
            Some("no page of it is direct; rebuild it with xip-image build --xip=auto".to_owned())
        }
    };
    copied.map_or(Ok(()), |why| Err(Error::lacking(why)))
}

/// Prints what there is for a session; the exit code says whether it is all.
fn probe(args: &Args) -> Result<u8> {
    session::require_no_session()?;
    let mut probe = Probe::new(args.image.as_deref())?;
    print(args.json, &probe)?;
    match probe.image_failure.take() {
        Some(err) => Err(err),
        None if probe.session_in_place => Ok(0),
        None => Ok(Kind::Lacking.exit_code()),
    }
}

/// Prints for people, or for scripts.
fn print(json: bool, what: &(impl Serialize + ToString)) -> Result<()> {
    let text = match json {
        true => {
            serde_json::to_string_pretty(what)
                .map_err(|err| Error::failed(format!("JSON: {err}")))?
                + "\n"
        }
        false => what.to_string(),
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // A pager that was closed early is no failure.
        Err(err) if err.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::failed(format!("standard output: {err}")))
        }
        _ => Ok(()),
    }
}

/// What the session has to do without.
#[derive(Default)]
struct Lost(Vec<String>);

impl Lost {
    /// Whether to go on, although there is `err`: without `feature`.
    fn go_on(&mut self, args: &Args, err: Error, feature: &Feature) -> Result<()> {
        if args.require == Some(Required::InPlace) {
            return Err(err.context("--require in-place"));
        }
        let without = feature.without.replace('`', "");
        self.0.push(format!("{err}; going on: {without}"));
        Ok(())
    }

    /// The host's directories that the image has no place for, and that little works without.
    fn directories(&mut self, image: &Image) {
        let missing: Vec<_> = ["/proc", "/dev"]
            .into_iter()
            .filter(|path| {
                let found = image.resolve(path.as_bytes(), true);
                found.is_err_and(|err| err.kind() == Kind::NotFound)
            })
            .collect();
        if !missing.is_empty() {
            self.0.push(format!(
                "the image has no {}, so its programs do not have the host's: build it with empty directories of these names",
                missing.join(" and no ")
            ));
        }
    }

    /// In one line.
    fn say(&self, quiet: bool) {
        if !self.0.is_empty() && !quiet {
            let _ = writeln!(std::io::stderr(), "xip-run: {}", self.0.join("; and "));
        }
    }
}

/// Opens the file that a trace is added to; what is in it must be one.
fn open_trace(path: &Path, page: PageSize) -> Result<File> {
    let fail = |err: String| Error::failed(format!("--trace {}: {err}", path.display()));
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|err| fail(err.to_string()))?;
    Trace::read(&mut file, page).map_err(|err| fail(err.to_string()))?;
    Ok(file)
}

fn launch(args: Args) -> Result<()> {
    if args.json && !args.explain {
        return Err(Error::failed("--json is for --explain and --probe"));
    }
    let backing = Arc::new(Backing::open(&spec::select(args.image.clone())?)?);
    let in_image = |err: Error| err.context(backing.name());
    let image = Image::open_shared(backing.clone()).map_err(in_image)?;
    image.require_runnable().map_err(in_image)?;
    if args.verify {
        image.verify_crc().map_err(in_image)?;
    }

    let page = match args.page_size {
        Some(page) => page,
        None => PageSize::of_running_kernel()?,
    };
    let options = PlanOptions {
        page,
        machine: Some(Machine::HOST),
        copy_text: args.copy_text,
        // A session takes nothing from the image then.
        copy_data: args.copy_text && args.explain && !args.no_root,
        cow: backing.data(),
        reserved: session::RESERVED,
    };
    let (program, arguments) = args
        .command
        .split_first()
        .ok_or_else(|| Error::failed("no program named"))?;
    let search = Search::new(program.as_bytes(), std::env::var_os("PATH").as_deref());
    let found = search.as_ref().map(|search| search.in_image(&image));
    let mut execfn = found.flatten().unwrap_or(program.as_bytes());
    if execfn.len() >= PATH_MAX {
        return Err(Error::not_runnable(
            "the program's path is longer than PATH_MAX, 4095 bytes (ENAMETOOLONG)",
        ));
    }
    let plan = match (&search, found) {
        (Some(search), Some(None)) => Err(search.not_found("the image")),
        _ => LaunchPlan::new(&image, execfn, &options),
    };
    let plan = plan
        .and_then(|plan| {
            if args.verify {
                plan.verify(&image)?;
            }
            if !args.explain {
                access::require_executable(&image, &plan)?;
            }
            Ok(plan)
        })
        .map_err(in_image);
    if args.explain {
        let start = match args.no_root {
            true => Start::Alone,
            false => Start::Session,
        };
        print(args.json, &plan?.explain(start))?;
        return Ok(());
    }

    session::require_no_session()?;
    match args.copy_text {
        false => backing.require_executable()?,
        true => backing.require_aligned()?,
    }
    if args.pinned {
        backing
            .require_pinned()
            .map_err(|err| err.context("--pinned"))?;
    }
    if args.require == Some(Required::InPlace) {
        require_direct(&image, plan.as_ref().ok(), page)
            .map_err(|err| in_image(err).context("--require in-place"))?;
    }
    let argv0 = args.argv0.as_ref().unwrap_or(program);
    let argv = std::iter::once(argv0)
        .chain(arguments)
        .map(|arg| {
            CString::new(arg.as_bytes()).map_err(|_| Error::failed("an argument has a NUL in it"))
        })
        .collect::<Result<_>>()?;
    let one_program = |plan: &LaunchPlan, argv| {
        let image_path = backing.path().as_os_str().as_bytes().to_vec();
        let launch = session::Launch {
            execfn,
            argv,
            image_path,
        };
        Err(session::launch(&image, &backing, plan, &launch))
    };
    if args.no_root {
        return one_program(&plan?, argv);
    }
    let descriptor = session::ImageDescriptor::new(&backing, options.cow)?;
    let view_options = ViewOptions {
        binds: args.bind.clone(),
        workdir: args.workdir.clone(),
        existing: args.view.clone(),
        trace: args
            .trace
            .as_deref()
            .map(|path| open_trace(path, page).map(Arc::new))
            .transpose()?,
        sparing: backing.is_flash() && !args.copy_text,
    };
    let mut lost = Lost::default();
    match view::raise(&image, backing.as_fd(), &view_options) {
        // What these ask for can only be had in a view.
        Err(err)
            if err.kind() == Kind::Lacking
                && view_options.existing.is_none()
                && view_options.binds.is_empty()
                && view_options.workdir.is_none()
                && view_options.trace.is_none() =>
        {
            lost.go_on(&args, err, &feature::MOUNT_NAMESPACE)?;
            if plan.as_ref().is_err_and(|err| err.kind() == Kind::NotFound) {
                return plan.map(drop);
            }
            // Another root directory is nothing to be quiet about.
            lost.say(false);
            return one_program(&plan?, argv);
        }
        raised => raised?,
    }
    lost.directories(&image);
    // In the view there may be others, of the host's directories.
    if let Some(search) = &search {
        execfn = search
            .in_root()
            .ok_or_else(|| search.not_found("the view"))?;
    }
    session::require_program(execfn, plan)?;
    let stay = match session::require_filter() {
        Ok(()) => true,
        Err(err) => lost.go_on(&args, err, &feature::SECCOMP).map(|()| false)?,
    };
    if let Err(err) = session::require_exe() {
        lost.go_on(&args, err, &feature::SET_EXE)?;
    }
    lost.say(args.quiet);
    Err(session::begin(
        &image,
        descriptor,
        &session::Begin {
            path: execfn,
            argv,
            page,
            in_place: !args.copy_text && args.trace.is_none(),
            stay,
            server: None,
        },
    ))
}
