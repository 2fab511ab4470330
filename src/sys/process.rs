//! Processes and namespaces: what takes a process apart has no safe call.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::thread::UnshareFlags;

/// Is there a descriptor of that number? fcntl(2) `F_GETFD`.
pub fn is_open(number: RawFd) -> bool {
    // SAFETY: it changes nothing, and what is no descriptor is an error.
    unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
}

/// unshare(2) for the namespaces that a root view needs.
///
/// # Errors
/// Its errno.
pub fn unshare(namespaces: UnshareFlags) -> io::Result<()> {
    let namespaces = namespaces & (UnshareFlags::NEWUSER | UnshareFlags::NEWNS);
    // SAFETY: neither flag touches the descriptor table, which is what other code's descriptors rest on.
    unsafe { rustix::thread::unshare_unsafe(namespaces)? };
    Ok(())
}

/// clone(2) as fork(2), but without a signal to the parent when the child ends.
pub(super) fn fork_silently() -> io::Result<libc::c_long> {
    // SAFETY: with every argument 0 it copies the process, as fork(2) does; xip-run has one thread, so that no lock of
    // the C library is held by a thread that the child does not have.
    match unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(pid),
    }
}

/// Do two descriptors, each of a process by its number, refer to the same open file: one that was inherited or duplicated,
/// not opened twice? kcmp(2) `KCMP_FILE`.
///
/// # Errors
/// EPERM if the processes may not be looked at, ENOSYS if the kernel has no kcmp(2), else its errno.
pub fn is_same_open_file(one: (u32, RawFd), other: (u32, RawFd)) -> io::Result<bool> {
    const KCMP_FILE: libc::c_long = 0;
    // SAFETY: it takes numbers only, and changes nothing.
    let order = unsafe {
        libc::syscall(
            libc::SYS_kcmp,
            libc::c_long::from(one.0.cast_signed()),
            libc::c_long::from(other.0.cast_signed()),
            KCMP_FILE,
            libc::c_long::from(one.1),
            libc::c_long::from(other.1),
        )
    };
    match order {
        -1 => Err(io::Error::last_os_error()),
        order => Ok(order == 0),
    }
}

pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: it does not return, and runs nothing of the process that this one was copied from.
    unsafe { libc::_exit(code) }
}

/// Runs `run` in a process that nobody waits for: not a child of this one, no signal when it ends, in a session of its
/// own, with `keep` and /dev/null as its only descriptors, deaf to the signals that a terminal or a shutdown sends.
/// To be called while the process has one thread.
///
/// # Errors
/// If it cannot be made; `run` has not run then.
pub fn run_detached(keep: &[BorrowedFd<'_>], run: impl FnOnce()) -> io::Result<()> {
    let pid = fork_silently()?;
    if pid == 0 {
        match fork_silently() {
            Ok(0) => {}
            Ok(_) => exit_now(0),
            Err(err) => exit_now(err.raw_os_error().unwrap_or(libc::EAGAIN)),
        }
        // A panic must not return into the copy of the caller.
        let done = catch_unwind(AssertUnwindSafe(|| {
            let keep: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
            if detach(&keep).is_ok() {
                run();
            }
        }));
        exit_now(i32::from(done.is_err()));
    }
    let mut status = 0;
    loop {
        // SAFETY: `status` is written to, nothing else.
        let answer = unsafe { libc::waitpid(pid as libc::pid_t, &raw mut status, libc::__WALL) };
        match io::Error::last_os_error() {
            _ if answer != -1 => break,
            err if err.raw_os_error() == Some(libc::EINTR) => {}
            // SIGCHLD is ignored, so the kernel kept no status.
            _ => return Ok(()),
        }
    }
    match libc::WEXITSTATUS(status) {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn detach(keep: &[RawFd]) -> io::Result<()> {
    rustix::process::setsid()?;
    rustix::process::chdir("/")?;
    for signal in [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGTERM,
        libc::SIGPIPE,
    ] {
        // SAFETY: no handler is installed.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    close_all_but(keep);
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null");
    if let Ok(null) = null {
        for fd in (0..3).filter(|fd| !keep.contains(fd) && *fd != null.as_raw_fd()) {
            // SAFETY: nobody owns it: what had it was closed.
            unsafe { libc::dup2(null.as_raw_fd(), fd) };
        }
        // It stays open, as one of the three or beside them.
        std::mem::forget(null);
    }
    Ok(())
}

/// Closes every descriptor but these. What owned them must not be used, or dropped, any more.
fn close_all_but(keep: &[RawFd]) {
    let mut keep = keep.to_vec();
    keep.sort_unstable();
    let mut first = 0;
    for fd in keep.into_iter().chain([RawFd::MAX]) {
        if fd > first {
            close_range(first, fd - 1);
        }
        first = fd.saturating_add(1);
    }
}

fn close_range(first: RawFd, last: RawFd) {
    // SAFETY: `close_all_but`'s caller uses none of them.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        return;
    }
    // Before Linux 5.9.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.map_or(RawFd::MAX, |limit| {
        RawFd::try_from(limit).unwrap_or(RawFd::MAX)
    });
    for fd in first..=last.min(limit.min(1 << 20)) {
        // SAFETY: as above.
        unsafe { libc::close(fd) };
    }
}
