//! Tries what the kernel lets a process do. Nothing here changes the caller, unless it says so: that is for a child.

use std::ffi::CStr;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::pipe::PipeFlags;

use super::process::{exit_now, fork_silently};

/// How a child of [`in_child`] ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// What it ran has succeeded.
    Succeeded,
    /// It has failed, with this sentence.
    Failed(String),
    /// As another program, with this exit status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// Not by itself: its time was over.
    TimedOut,
}

/// How long a child may run.
#[derive(Clone, Copy, Debug)]
pub struct TimeLimit {
    /// On a processor: what loops is ended by this, however busy the machine is.
    pub processor_ms: u32,
    /// In all: for what waits, and for kernels without CPU timers.
    pub wall_ms: u32,
}

/// Runs `run` in a child, which has all that the caller has, and then ends. To be called while the process has one thread.
///
/// # Errors
/// If there can be no child, or one that was killed or executed something cannot be waited for, because SIGCHLD is ignored.
pub fn in_child<E: Display>(run: impl FnOnce() -> Result<(), E>) -> io::Result<Ended> {
    start_and_wait(None, run)
}

/// The same, for what may never return.
///
/// # Errors
/// See [`in_child`].
pub fn in_child_within<E: Display>(
    limit: TimeLimit,
    run: impl FnOnce() -> Result<(), E>,
) -> io::Result<Ended> {
    start_and_wait(Some(limit), run)
}

/// How long a child that is killed has to end.
const KILL_MS: u32 = 2000;

fn start_and_wait<E: Display>(
    limit: Option<TimeLimit>,
    run: impl FnOnce() -> Result<(), E>,
) -> io::Result<Ended> {
    const SUCCEEDED: &[u8] = b"+";
    let (from, to) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let pid = fork_silently()?;
    if pid == 0 {
        if let Some(limit) = limit {
            end_after(limit.processor_ms);
        }
        // A panic must not return into the copy of the caller.
        let answer = catch_unwind(AssertUnwindSafe(run));
        let failed = |why: String| ["-", &why].concat().into_bytes();
        let said = match answer {
            Ok(Ok(())) => SUCCEEDED.to_vec(),
            Ok(Err(err)) => failed(err.to_string()),
            Err(_) => failed("panic".to_owned()),
        };
        exit_now(i32::from(File::from(to).write_all(&said).is_err()));
    }
    drop(to);
    let in_time = limit.is_none_or(|limit| says_something(&from, limit.wall_ms));
    if !in_time {
        // SAFETY: the child was not waited for, so the number is still its own.
        unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
        // What waits in a driver, or in a kernel that has crashed in it, does not end: it cannot be waited for.
        if !says_something(&from, KILL_MS) {
            return Ok(Ended::TimedOut);
        }
    }
    let mut said = Vec::new();
    let read = File::from(from).read_to_end(&mut said);
    let mut status = 0;
    let waited = loop {
        // SAFETY: `status` is written to, nothing else.
        match unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) } {
            -1 => match io::Error::last_os_error() {
                err if err.kind() == io::ErrorKind::Interrupted => {}
                err => break Err(err),
            },
            _ => break Ok(()),
        }
    };
    read?;
    match said.as_slice() {
        SUCCEEDED => return Ok(Ended::Succeeded),
        [_, why @ ..] => return Ok(Ended::Failed(String::from_utf8_lossy(why).into_owned())),
        [] if !in_time => return Ok(Ended::TimedOut),
        // Killed: where SIGCHLD is ignored nobody learns by what.
        [] if limit.is_some() && waited.is_err() => return Ok(Ended::Killed(0)),
        [] => waited?,
    }
    Ok(match libc::WIFSIGNALED(status) {
        true if limit.is_some() && libc::WTERMSIG(status) == libc::SIGPROF => Ended::TimedOut,
        true => Ended::Killed(libc::WTERMSIG(status)),
        false => Ended::Exited(libc::WEXITSTATUS(status)),
    })
}

/// The end of this process is no crash to be kept: for a child that may come to a bad end.
pub fn no_core_dump() {
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// Has this process killed once it has had that much time on a processor: setitimer(2) `ITIMER_PROF`.
fn end_after(processor_ms: u32) {
    // As wide as these are, they differ: the value fits into all.
    let milliseconds = processor_ms.cast_signed();
    let timer = libc::itimerval {
        it_interval: libc::timeval {
            tv_sec: 0,
            tv_usec: 0,
        },
        it_value: libc::timeval {
            tv_sec: (milliseconds / 1000) as _,
            tv_usec: (milliseconds % 1000 * 1000) as _,
        },
    };
    // SAFETY: no handler is installed; both structures are read or written as what they are.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut set, libc::SIGPROF);
        libc::signal(libc::SIGPROF, libc::SIG_DFL);
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
        libc::setitimer(libc::ITIMER_PROF, &raw const timer, std::ptr::null_mut());
    }
}

/// Comes something from the pipe, or is it closed, within the time? Where that cannot be asked (a kernel for 32 bits without
/// CONFIG_COMPAT_32BIT_TIME), the limit of the processor's time must do.
fn says_something(pipe: &OwnedFd, wall_ms: u32) -> bool {
    let end = Instant::now() + Duration::from_millis(wall_ms.into());
    loop {
        let mut polled = [PollFd::new(pipe, PollFlags::IN)];
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        match rustix::event::poll(&mut polled, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) if !left.is_zero() => {}
            answer => return answer != Ok(0),
        }
    }
}

/// Makes children that can be waited for, whatever the caller of this program has said of SIGCHLD.
pub fn expect_children() {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

fn answer_of(answer: libc::c_long) -> io::Result<()> {
    match answer {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Success, if a call that cannot succeed fails with `errno`: the kernel has come as far as that.
fn fails_with(answer: libc::c_long, errno: i32) -> io::Result<()> {
    match answer_of(answer) {
        Err(err) if err.raw_os_error() == Some(errno) => Ok(()),
        Err(err) => Err(err),
        Ok(()) => Err(io::ErrorKind::Unsupported.into()),
    }
}

const SECCOMP_SET_MODE_FILTER: libc::c_long = 1;

/// Has the kernel seccomp(2) filters, and may they be installed? The way that prctl(2) `PR_SET_SECCOMP` names: a filter that
/// is nowhere is EFAULT.
///
/// # Errors
/// The kernel's, such as ENOSYS, or EINVAL without `CONFIG_SECCOMP_FILTER`.
pub fn seccomp_filter() -> io::Result<()> {
    // SAFETY: no filter is given, so none is installed.
    let answer = unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, 0) };
    fails_with(answer, libc::EFAULT)
}

/// Installs a filter (`struct sock_filter`, 8 bytes each) in the calling process, for good.
///
/// # Errors
/// The kernel's; EACCES without CAP_SYS_ADMIN and no_new_privs.
pub fn install_seccomp_filter(instructions: &[[u8; 8]]) -> io::Result<()> {
    /// `struct sock_fprog`
    #[repr(C)]
    struct Program {
        len: u16,
        instructions: *const [u8; 8],
    }
    let program = Program {
        len: u16::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: instructions.as_ptr(),
    };
    // SAFETY: the program has as many instructions as it says. The kernel copies and checks them.
    answer_of(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    })
}

/// `struct prctl_mm_map`
#[repr(C)]
struct MmMap {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: *const u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// prctl(2) `PR_SET_MM_MAP`, with addresses that the kernel accepts and that mean nothing.
fn set_mm_map(exe_fd: u32) -> libc::c_long {
    const PR_SET_MM: libc::c_int = 35;
    const PR_SET_MM_MAP: libc::c_ulong = 14;
    // In the order that kernels before 5.15 want too, above vm.mmap_min_addr.
    let map = MmMap {
        start_code: 0x10_0000,
        end_code: 0x10_1000,
        start_data: 0x10_1000,
        end_data: 0x10_2000,
        start_brk: 0x10_3000,
        brk: 0x10_3000,
        start_stack: 0x10_4000,
        arg_start: 0x10_4000,
        arg_end: 0x10_4000,
        env_start: 0x10_4000,
        env_end: 0x10_4000,
        auxv: std::ptr::null(),
        auxv_size: 0,
        exe_fd,
    };
    // SAFETY: what is set is read by /proc and by brk(2) only; the caller says whether it ever comes to that.
    let answer = unsafe {
        libc::prctl(
            PR_SET_MM,
            PR_SET_MM_MAP,
            &raw const map,
            size_of::<MmMap>(),
            0,
        )
    };
    libc::c_long::from(answer)
}

/// Has the kernel `PR_SET_MM_MAP`?
pub fn has_memory_map() -> bool {
    const PR_SET_MM: libc::c_int = 35;
    const PR_SET_MM_MAP_SIZE: libc::c_ulong = 15;
    let mut size = 0_u32;
    // SAFETY: it writes a number.
    unsafe { libc::prctl(PR_SET_MM, PR_SET_MM_MAP_SIZE, &raw mut size, 0, 0) == 0 }
}

/// May this process make another file its `/proc/self/exe`? A descriptor that is none is EBADF once that is allowed.
///
/// # Errors
/// EPERM without CAP_CHECKPOINT_RESTORE in its user namespace (before Linux 5.9 EINVAL without CAP_SYS_ADMIN), EINVAL
/// without `CONFIG_CHECKPOINT_RESTORE`.
pub fn set_exe() -> io::Result<()> {
    const NO_DESCRIPTOR: u32 = i32::MAX as u32;
    fails_with(set_mm_map(NO_DESCRIPTOR), libc::EBADF)
}

/// Sets what /proc shows of a program's memory, and its break, to what means nothing: for a child that soon ends, and that
/// has no memory to ask for.
///
/// # Errors
/// EINVAL without `CONFIG_CHECKPOINT_RESTORE`.
pub fn set_memory_map() -> io::Result<()> {
    answer_of(set_mm_map(u32::MAX))
}

/// Does mmap(2) keep what is mapped already from `MAP_FIXED_NOREPLACE`?
///
/// # Errors
/// EOPNOTSUPP if it takes the address for a hint, as before Linux 4.17.
pub fn map_without_replacing() -> io::Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: the first mapping is new; the second does not replace it, wherever it goes; nobody has either.
    unsafe {
        let map = |at, flags| libc::mmap(at, 1, libc::PROT_NONE, flags, -1, 0);
        let first = map(std::ptr::null_mut(), flags);
        if first == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let second = map(first, flags | libc::MAP_FIXED_NOREPLACE);
        let answer = match second == libc::MAP_FAILED {
            true => fails_with(-1, libc::EEXIST),
            false => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
        };
        libc::munmap(first, 1);
        if second != libc::MAP_FAILED && second != first {
            libc::munmap(second, 1);
        }
        answer
    }
}

/// faccessat2(2): may the caller, by its effective rights, go through a directory?
///
/// # Errors
/// ENOSYS before Linux 5.8.
pub fn access_effective(path: &CStr) -> io::Result<()> {
    // It is the same number everywhere.
    const SYS_FACCESSAT2: libc::c_long = 439;
    // SAFETY: the path is a string; nothing is changed.
    answer_of(unsafe {
        libc::syscall(
            SYS_FACCESSAT2,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::X_OK,
            libc::AT_EACCESS,
        )
    })
}

/// execve(2) of nothing, which fails unless a filter ends the process.
///
/// # Errors
/// Always: EFAULT from the kernel itself.
pub fn execute_nothing() -> io::Result<()> {
    let nothing = std::ptr::null::<libc::c_char>();
    // SAFETY: the kernel reads no memory at address 0.
    answer_of(unsafe { libc::syscall(libc::SYS_execve, nothing, nothing, nothing) })
}
