//! xip-run as the first process of the system: brings up what is needed to see the image, makes it the root directory, and
//! becomes its `/sbin/init`.
//!
//! On entry: process 1 as the kernel starts it, of an initramfs ([`System::prepare`](system::prepare) needs nothing but this
//! program in it), or of any other root file system. On exit the process *is* the image's init, in place, and the initramfs
//! is gone. What goes wrong before that is said on the console, and ends as [`failure`] says.

mod console;
mod failure;
mod initramfs;
mod log;
mod modules;
mod server;
mod system;

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

use crate::access;
use crate::backing::Backing;
use crate::config::Config;
use crate::cramfs::{Image, show_path};
use crate::elf::Machine;
use crate::error::{Error, Result};
use crate::feature;
use crate::plan::{LaunchPlan, PlanOptions};
use crate::session;
use crate::units::PageSize;
use crate::view::{self, Bind, SystemView};
use log::{Level, Log};

/// What the image's init is called, if `xip.init=` says nothing.
const INIT: &str = "/sbin/init";

/// Is this how the kernel starts the first process, `/init` of an initramfs or `/sbin/init`?
pub fn is_meant(args: &[OsString]) -> bool {
    let name = args.first().map(|arg| arg.as_bytes()).unwrap_or_default();
    name.rsplit(|&byte| byte == b'/').next() == Some(b"init")
}

/// Becomes the image's init. `args` is what this program was started with; those from the number `first` on are the init's,
/// behind its `argv[0]`. Returns, with an exit status, only if this is not process 1.
pub fn run(args: &[OsString], first: usize) -> u8 {
    let pid = std::process::id();
    if pid != 1 {
        let mut log = Log::default();
        log.say(
            Level::Failure,
            &format!(
                "called as init by process {pid}: only the first process of a system becomes the image's init; see \
                 xip-run --help"
            ),
        );
        return 125;
    }
    let mut log = Log::default();
    let mut config = Config::default();
    let arguments = args.get(first..).unwrap_or_default().to_vec();
    match boot(arguments, &mut config, &mut log) {
        Ok(never) => match never {},
        Err(err) => failure::end(&err, args, &config, &mut log),
    }
}

fn boot(arguments: Vec<OsString>, config: &mut Config, log: &mut Log) -> Result<Infallible> {
    let prepared = system::prepare();
    // Whatever failed, it can perhaps be said.
    let console = console::take();
    // Without /proc nothing is known of the command line.
    *config = Config::of_kernel();
    prepared?;
    console?;
    *config = Config::read()?;
    log.configure(config.log.as_deref())?;
    for word in &config.unknown {
        log.say(
            Level::Loss,
            &format!("{word} on the kernel's command line: unknown"),
        );
    }
    for module in &config.modules {
        log.say(Level::Step, &format!("module {module}"));
        modules::load(module)?;
    }
    for mount in &config.mounts {
        log.say(Level::Step, &format!("mount {mount}"));
        system::mount(mount)?;
    }

    let spec = config.image.as_deref().unwrap_or("auto");
    let backing = Arc::new(system::open_image(spec)?);
    log.say(
        Level::Step,
        &format!("image {spec}: {}", backing.kind().title()),
    );
    let in_image = |err: Error| err.context(backing.name());
    let image = Image::open_shared(backing.clone()).map_err(in_image)?;
    image.require_runnable().map_err(in_image)?;
    if config.verify {
        log.say(Level::Step, "verifying the image's CRC");
        image.verify_crc().map_err(in_image)?;
    }
    backing.require_executable()?;
    become_init(&image, &backing, config, arguments, log)
}

fn become_init(
    image: &Image,
    backing: &Backing,
    config: &Config,
    arguments: Vec<OsString>,
    log: &mut Log,
) -> Result<Infallible> {
    let page = PageSize::of_running_kernel()?;
    let options = PlanOptions {
        page,
        machine: Some(Machine::HOST),
        copy_text: false,
        copy_data: false,
        cow: backing.data(),
        reserved: session::RESERVED,
    };
    let init = config.init.as_deref().unwrap_or(INIT);
    let in_image = |err: Error| err.context(backing.name());
    let plan = LaunchPlan::new(image, init.as_bytes(), &options)
        .and_then(|plan| access::require_executable(image, &plan).map(|()| plan))
        .map_err(in_image);
    if let Ok(plan) = &plan
        && let Some(why) = plan.copied_text()
    {
        log.say(Level::Loss, &format!("{init} is not in place: {why}"));
    }
    if let Some(Err(damage)) = image.walk().find(Result::is_err) {
        let said = format!("{}: {}", show_path(&damage.path), damage.error);
        log.say(Level::Loss, &format!("the image is damaged: {said}"));
    }
    let binds = config.binds.iter().map(|text| {
        Bind::parse(text.as_ref()).map_err(|what| Error::failed(format!("bind={text}: {what}")))
    });
    let binds: Vec<Bind> = binds.collect::<Result<_>>()?;
    let argv = std::iter::once(OsString::from(init)).chain(arguments);
    let argv: Vec<CString> = argv
        .map(|arg| CString::new(arg.into_vec()))
        .collect::<Result<_, _>>()
        .map_err(|_| Error::failed("an argument has a NUL in it"))?;

    let descriptor = session::ImageDescriptor::new(backing, options.cow)?;
    let frees = view::is_initramfs();
    let program = server::in_image(image, backing, &options);
    if let Err(why) = &program {
        log.say(
            Level::Step,
            &format!("the view's server stays in RAM: {why}"),
        );
    }
    let view = {
        let run = program.as_ref().ok().map(|program| program.runner());
        view::raise_for_system(image, backing.as_fd(), &binds, run.as_deref())?
    };
    log.say(
        Level::Step,
        &format!("root view, served by process {}", view.server),
    );
    if let Some(why) = &view.not_elsewhere {
        let said = format!("the view's server does not run from the image, but from RAM: {why}");
        log.say(Level::Loss, &said);
    }
    let stay = match last_checks(init, plan, log) {
        Ok(stay) => stay,
        Err(err) => {
            view.undo();
            return Err(err);
        }
    };
    leave(&view, frees, log)?;
    console::control_for(init);
    log.say(Level::Step, &format!("becoming {init}"));
    Err(session::begin(
        image,
        descriptor,
        &session::Begin {
            path: init.as_bytes(),
            argv,
            page,
            in_place: true,
            stay,
            server: Some(view.server),
        },
    ))
}

/// What can be known of the init in its own root directory. Returns whether all that it starts can be in place too.
fn last_checks(init: &str, plan: Result<LaunchPlan>, log: &mut Log) -> Result<bool> {
    session::require_program(init.as_bytes(), plan)?;
    if let Err(err) = session::require_exe() {
        let what = feature::SET_EXE.without;
        log.say(Level::Loss, &format!("{err}; going on: {what}"));
    }
    match session::require_filter() {
        Ok(()) => Ok(true),
        Err(err) => {
            let what = "only the init itself is in place, and it can end the view's server";
            log.say(Level::Loss, &format!("{err}; going on: {what}"));
            Ok(false)
        }
    }
}

/// Gives back what the old root held.
fn leave(view: &SystemView, frees: bool, log: &mut Log) -> Result<()> {
    if frees {
        let freed = initramfs::free(&view.old_root);
        log.say(
            Level::Step,
            &format!("{freed} files of the initramfs deleted"),
        );
        return Ok(());
    }
    view.leave_old_root()
}
