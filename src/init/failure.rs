//! The end of a system that cannot be started: never a kernel's panic without a reason.
//!
//! What went wrong is said on the console. With `xip.rescue` a shell of the initramfs is started there, and when it ends
//! everything is tried again. Without it (or without a shell) the machine does what its administrator wants it to do after a
//! panic: `panic=SECONDS` of the kernel's command line restarts it after so many seconds, at once if that is negative; 0,
//! which is the kernel's default, leaves it as it is, with the message on the console.

use std::ffi::{CString, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::system::RebootCommand;

use super::console;
use super::log::{Level, Log};
use crate::config::Config;
use crate::error::Error;
use crate::sys;

/// The shell, if `xip.rescue` names none.
const SHELL: &str = "/bin/sh";

/// Says it, and does not return. `args` is what this program was started with.
pub(super) fn end(err: &Error, args: &[OsString], config: &Config, log: &mut Log) -> ! {
    log.say(
        Level::Failure,
        &format!("the system cannot be started: {err}"),
    );
    if let Some(shell) = &config.rescue {
        rescue(shell, args, log);
    }
    let panic = std::fs::read_to_string("/proc/sys/kernel/panic").unwrap_or_default();
    match panic.trim().parse::<i64>().unwrap_or(0) {
        0 => log.say(
            Level::Failure,
            "nothing more is done; panic=SECONDS on the kernel's command line restarts the machine then, xip.rescue \
             starts a shell",
        ),
        seconds => {
            let wait = u64::try_from(seconds).unwrap_or(0);
            let said = format!("restarting in {wait} seconds (panic={seconds})");
            log.say(Level::Failure, &said);
            std::thread::sleep(Duration::from_secs(wait));
            rustix::fs::sync();
            if let Err(err) = rustix::system::reboot(RebootCommand::Restart) {
                log.say(Level::Failure, &format!("reboot: {err}"));
            }
        }
    }
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Runs a shell until it ends, and then this program from its beginning. Returns if there is no shell.
fn rescue(shell: &str, args: &[OsString], log: &mut Log) {
    let mut words = shell.split_whitespace();
    let program = words.next().unwrap_or(SHELL);
    if !Path::new(program).exists() {
        let said = format!("xip.rescue: there is no {program} in the initramfs");
        return log.say(Level::Failure, &said);
    }
    log.say(
        Level::Failure,
        &format!("{program}: when it ends, the start is tried again"),
    );
    let ended = sys::in_child(|| {
        console::control();
        let args = std::iter::once(program).chain(words).map(OsString::from);
        Err::<(), _>(execute(program, &args.collect::<Vec<_>>()))
    });
    match ended {
        Ok(sys::Ended::Failed(why)) => {
            return log.say(Level::Failure, &format!("xip.rescue: {program}: {why}"));
        }
        Ok(_) => {}
        Err(err) => return log.say(Level::Failure, &format!("xip.rescue: {program}: {err}")),
    }
    let err = start_over(args);
    log.say(Level::Failure, &format!("/proc/self/exe: {err}"));
}

/// This program once more, as the kernel started it.
fn start_over(args: &[OsString]) -> std::io::Error {
    execute("/proc/self/exe", args)
}

/// Becomes a program; returns if that fails.
fn execute(path: &str, args: &[OsString]) -> std::io::Error {
    let args: Vec<CString> = args
        .iter()
        .filter_map(|arg| CString::new(arg.as_bytes()).ok())
        .collect();
    match rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(exe) => sys::execveat(exe.as_fd(), &args),
        Err(err) => err.into(),
    }
}
