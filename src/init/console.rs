//! The console: where process 1 reads and writes, and whether it is its controlling terminal.

use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result};

/// Opens the console as standard input, output and error: the kernel could not, if the initramfs has no such node, and a
/// node of the initramfs is not to be kept open.
///
/// # Errors
/// If there is none.
pub(super) fn take() -> Result<()> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fail = |err| Error::failed(format!("/dev/console: {err}"));
    let console = rustix::fs::open("/dev/console", flags, Mode::empty()).map_err(fail)?;
    rustix::stdio::dup2_stdin(&console)
        .and_then(|()| rustix::stdio::dup2_stdout(&console))
        .and_then(|()| rustix::stdio::dup2_stderr(&console))
        .map_err(fail)
}

/// Makes the console the controlling terminal of a shell, or whatever runs in the place of an init. An init itself hands the
/// terminal to those that it starts, and could not if it were its own: it gets none, as from the kernel.
pub(super) fn control_for(program: &str) {
    if program.rsplit('/').next() != Some("init") {
        control();
    }
}

/// Begins a session (setsid(2)) with the console as its controlling terminal, if that can be.
pub(super) fn control() {
    let _ = rustix::process::setsid();
    let _ = rustix::process::ioctl_tiocsctty(std::io::stdin().as_fd());
}
