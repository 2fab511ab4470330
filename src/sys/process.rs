//! Processes and namespaces: what takes a process apart has no safe call.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::fs::FileType;
use rustix::pipe::PipeFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::UnshareFlags;

/// Is there a descriptor of that number? fcntl(2) `F_GETFD`.
pub fn is_open(number: RawFd) -> bool {
    // SAFETY: it changes nothing, and what is no descriptor is an error.
    unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
}

/// Bytes at an offset of what is open with that number, if it is a regular file: of others reading might take something
/// away. No duplicate is made, for to close that would end locks of fcntl(2).
pub fn peek<const N: usize>(number: RawFd, at: u64) -> Option<[u8; N]> {
    // SAFETY: it is not closed meanwhile: nobody else has it here.
    let fd = is_open(number).then(|| unsafe { BorrowedFd::borrow_raw(number) })?;
    let stat = rustix::fs::fstat(fd).ok()?;
    let mut bytes = [0; N];
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    let read = is_file.then(|| rustix::io::pread(fd, &mut bytes, at))?;
    (read == Ok(N)).then_some(bytes)
}

/// A descriptor that this program was started with, as one of its own: a duplicate of it.
///
/// # Errors
/// EBADF if there is none of that number.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: it makes a new descriptor, or fails.
    match unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: it is nobody else's.
        own => Ok(unsafe { OwnedFd::from_raw_fd(own) }),
    }
}

/// Blocks every signal that can be blocked, in this thread.
pub fn block_all_signals() {
    // SAFETY: the set is written before it is read, and nothing else changes.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
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
pub(super) fn fork_silently() -> io::Result<libc::pid_t> {
    // SAFETY: with every argument 0 it copies the process, as fork(2) does; xip-run has one thread, so that no lock of
    // the C library is held by a thread that the child does not have.
    match unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(pid as libc::pid_t),
    }
}

/// Forks a child that ends at once, and waits for it.
pub(super) fn fork_and_wait() -> io::Result<()> {
    let child = fork_silently()?;
    if child == 0 {
        exit_now(0);
    }
    reap(child);
    Ok(())
}

pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: it does not return, and runs nothing of the process that this one was copied from.
    unsafe { libc::_exit(code) }
}

/// Runs `run` in a process that nobody waits for: not a child of this one, no signal when it ends, in a session of its
/// own, with `keep` and /dev/null as its only descriptors, deaf to the signals that a terminal or a shutdown sends.
/// Returns its number, as it knows it itself. To be called while the process has one thread.
///
/// # Errors
/// If it cannot be made; `run` has not run then.
pub fn run_detached(keep: &[BorrowedFd<'_>], run: impl FnOnce()) -> io::Result<u32> {
    let (from, to) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let between = fork_silently()?;
    if between == 0 {
        let made = fork_silently();
        if !matches!(made, Ok(0)) {
            // As a system call would answer.
            let answer = made.unwrap_or_else(|err| -err.raw_os_error().unwrap_or(libc::EAGAIN));
            let told = rustix::io::write(&to, &answer.to_ne_bytes());
            exit_now(i32::from(told.is_err()));
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
    drop(to);
    let mut answer = [0; size_of::<libc::pid_t>()];
    let told = File::from(from).read_exact(&mut answer);
    reap(between);
    told?;
    let answer = libc::pid_t::from_ne_bytes(answer);
    u32::try_from(answer).map_err(|_| io::Error::from_raw_os_error(-answer))
}

/// Waits for a child's end, which has told all that there is to tell before.
fn reap(child: libc::pid_t) {
    // SAFETY: no status is written. Where SIGCHLD is ignored the kernel has no child to wait for.
    while unsafe { libc::waitpid(child, std::ptr::null_mut(), libc::__WALL) } == -1
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
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
        libc::SIGXCPU,
    ] {
        // SAFETY: no handler is installed.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    // It works for many processes, each of which has the limit for itself.
    for resource in [Resource::Cpu, Resource::As, Resource::Data] {
        let limit = getrlimit(resource);
        let none = Rlimit {
            current: None,
            maximum: None,
        };
        let highest = Rlimit {
            current: limit.maximum,
            ..limit
        };
        let _ = setrlimit(resource, none).or_else(|_| setrlimit(resource, highest));
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

/// Blocks a signal if it is ignored, else lets it through, in this thread.
pub fn block_if_ignored(signal: i32) {
    // SAFETY: both are numbers and pointers, for which zero is a value; the kernel reads and writes what is here.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut action);
        libc::sigaddset(&raw mut set, signal);
        let how = match action.sa_sigaction {
            libc::SIG_IGN => libc::SIG_BLOCK,
            _ => libc::SIG_UNBLOCK,
        };
        libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut());
    }
}

/// The page size of the running kernel, bytes. The C library has it of its start (`AT_PAGESZ`); rustix would ask the kernel, or
/// /proc before Linux 6.4, and panic where there is none.
pub fn page_size() -> u64 {
    // SAFETY: it reads a number.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(0)
}

/// Did execve(2) give this process rights that its caller has not? `AT_SECURE`: getauxval(3).
pub fn is_secure_execution() -> bool {
    // SAFETY: it reads what the kernel has put there.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}
