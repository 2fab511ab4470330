//! The system calls of the stub. Numbers and the calling sequence are in arch/.

use core::mem::MaybeUninit;

use crate::arch::{self, nr};
use crate::wire;

/// An errno value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// A sandbox does not allow the call.
    pub const EPERM: Self = Self(1);
    pub const ENOENT: Self = Self(2);
    pub const EINTR: Self = Self(4);
    pub const EIO: Self = Self(5);
    pub const E2BIG: Self = Self(7);
    pub const ENOEXEC: Self = Self(8);
    pub const ENOMEM: Self = Self(12);
    pub const EACCES: Self = Self(13);
    pub const EFAULT: Self = Self(14);
    pub const EEXIST: Self = Self(17);
    pub const EINVAL: Self = Self(22);
    pub const ETXTBSY: Self = Self(26);
    /// The call is not in this kernel.
    pub const ENOSYS: Self = Self(38);
    pub const ELOOP: Self = Self(40);
    pub const ELIBBAD: Self = Self(80);
    pub const ENOTCONN: Self = Self(107);
    pub const ESTALE: Self = Self(116);

    /// Its name, for those that a launch can meet; empty for the others.
    pub fn name(self) -> &'static [u8] {
        /// Number and name of each: smaller than a `match`.
        const NAMES: &[u8] =
            b"\x01EPERM\0\x02ENOENT\0\x05EIO\0\x07E2BIG\0\x08ENOEXEC\0\x09EBADF\0\x0bEAGAIN\0\
            \x0cENOMEM\0\x0dEACCES\0\x0eEFAULT\0\x11EEXIST\0\x13ENODEV\0\x14ENOTDIR\0\x16EINVAL\0\
            \x17ENFILE\0\x18EMFILE\0\x28ELOOP\0\x4bEOVERFLOW\0\x50ELIBBAD\0\x5fEOPNOTSUPP\0\x67ECONNABORTED\0\x6bENOTCONN\0\x74ESTALE\0";
        NAMES
            .split(|&byte| byte == 0)
            .find(|entry| {
                entry
                    .first()
                    .is_some_and(|&number| i32::from(number) == self.0)
            })
            .map_or(b"", |entry| &entry[1..])
    }
}

/// A descriptor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fd(pub usize);

pub const PROT_NONE: usize = 0;
pub const PROT_READ: usize = 1;
pub const PROT_EXEC: usize = 4;
pub const MAP_PRIVATE: usize = 2;
pub const MAP_FIXED: usize = 0x10;
pub const MAP_ANONYMOUS: usize = 0x20;
const MAP_GROWSDOWN: usize = 0x100;
pub const MAP_NORESERVE: usize = 0x4000;
pub const MAP_FIXED_NOREPLACE: usize = 0x10_0000;

pub const PROT_GROWSDOWN: usize = 0x0100_0000;
pub const AT_FDCWD: usize = -100_isize as usize;
pub const AT_EMPTY_PATH: usize = 0x1000;
pub const O_NOFOLLOW: usize = arch::O_NOFOLLOW;
const O_CLOEXEC: usize = 0o2_000_000;
const O_NONBLOCK: usize = 0o4000;
const O_NOCTTY: usize = 0o400;
pub const AT_STATX_FORCE_SYNC: usize = 0x2000;
const AT_STATX_DONT_SYNC: usize = 0x4000;
const STATX_BASIC_STATS: usize = 0x7ff;
const PR_SET_NAME: usize = 15;
const PR_GET_NAME: usize = 16;
const PR_SET_NO_NEW_PRIVS: usize = 38;
const PR_SET_MM: usize = 35;
const PR_SET_MM_MAP: usize = 14;
const ADDR_NO_RANDOMIZE: usize = 0x004_0000;

/// The last argument of the calls that the session's filter lets pass because the handler makes them: wire.rs.
const OWN: usize = wire::OWN_CALL as usize;

#[inline(always)]
fn call(number: usize, args: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: the wrappers below are the only callers; each says why its call is sound.
    unsafe { raw(number, args) }
}

/// Any system call.
///
/// # Safety
/// 1. As the call itself.
#[inline(always)]
pub unsafe fn raw(number: usize, args: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: (1) the caller's promise.
    let answer = unsafe { arch::syscall(number, args) };
    match answer.cast_signed() {
        -4095..=-1 => Err(Errno(-(answer.cast_signed()) as i32)),
        _ => Ok(answer),
    }
}

/// mmap(2). `offset` is in bytes, also where the kernel wants pages.
///
/// # Safety
/// 1. With `MAP_FIXED`, nothing that is still used may lie in the range.
pub unsafe fn mmap(
    addr: usize,
    len: usize,
    prot: usize,
    flags: usize,
    fd: Option<Fd>,
    offset: u64,
) -> Result<usize, Errno> {
    let (prot, fd) = match fd {
        Some(fd) => wire::own_mapping(prot, fd.0),
        None => (prot, usize::MAX),
    };
    let offset = offset / arch::MMAP_OFFSET_UNIT;
    let Ok(offset) = usize::try_from(offset) else {
        return Err(Errno(75));
    };
    call(nr::MMAP, [addr, len, prot, flags, fd, offset])
}

/// munmap(2).
///
/// # Safety
/// 1. Nothing in the range may be used any more.
pub unsafe fn munmap(addr: usize, len: usize) -> Result<(), Errno> {
    call(nr::MUNMAP, [addr, len, 0, 0, 0, 0]).map(drop)
}

/// mremap(2) of `len` bytes to just `to`.
///
/// # Safety
/// 1. Nothing in the old range may be used any more, and nothing that is still used may lie in the new one.
pub unsafe fn move_mapping(from: usize, len: usize, to: usize) -> Result<(), Errno> {
    const MREMAP_MAYMOVE_FIXED: usize = 3;
    call(nr::MREMAP, [from, len, len, MREMAP_MAYMOVE_FIXED, to, 0]).map(drop)
}

/// mprotect(2).
///
/// # Safety
/// 1. What uses the range must get by with the new protection.
pub unsafe fn mprotect(addr: usize, len: usize, prot: usize) -> Result<(), Errno> {
    call(nr::MPROTECT, [addr, len, prot, 0, 0, 0]).map(drop)
}

/// openat(2), read-only and close-on-exec, of a path that ends with NUL. Should it be a FIFO or a terminal by now, that is
/// not waited for and not taken.
pub fn open(path_nul: &[u8]) -> Result<Fd, Errno> {
    debug_assert!(path_nul.last() == Some(&0));
    open_at(AT_FDCWD, path_nul.as_ptr() as usize, 0)
}

/// The same of a path that somebody else gave, with more flags.
pub fn open_at(dir: usize, path: usize, flags: usize) -> Result<Fd, Errno> {
    let flags = flags | arch::O_LARGEFILE | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    call(nr::OPENAT, [dir, path, flags, 0, 0, 0]).map(Fd)
}

/// Where /proc shows a descriptor.
fn fd_path(fd: Fd) -> [u8; 26] {
    let mut path = *b"/proc/self/fd/\0\0\0\0\0\0\0\0\0\0\0\0";
    decimal(fd.0, &mut path[14..]);
    path
}

/// Opens the file of a descriptor again, read-only, with the caller's own rights.
pub fn reopen(fd: Fd) -> Result<Fd, Errno> {
    open(&fd_path(fd))
}

/// The path of a descriptor's file, or as much of it as there is room for; nothing without /proc. readlinkat(2).
pub fn path_of<const N: usize>(fd: Fd, room: &mut MaybeUninit<[u8; N]>) -> &[u8] {
    let path = fd_path(fd);
    let to = room.as_mut_ptr().cast::<u8>();
    let args = [AT_FDCWD, path.as_ptr() as usize, to as usize, N, 0, 0];
    let len = call(nr::READLINKAT, args).unwrap_or(0);
    // SAFETY: the kernel has written as many.
    unsafe { core::slice::from_raw_parts(to, len) }
}

/// Writes a number in decimal digits, and returns how many.
pub fn decimal(mut value: usize, to: &mut [u8]) -> usize {
    let mut len = 1;
    let mut power = 10;
    while value >= power {
        len += 1;
        power *= 10;
    }
    for digit in to[..len].iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
    len
}

/// read(2), once: as many bytes of a pipe as are in it.
///
/// # Safety
/// 1. `len` bytes at `to` must be nobody else's.
pub unsafe fn read_pipe(fd: Fd, to: usize, len: usize) -> Result<usize, Errno> {
    call(nr::READ, [fd.0, to, len, 0, 0, 0])
}

/// read(2): the same as pread, of what comes next.
pub fn read(fd: Fd, to: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: (1) the buffer is the caller's.
    unsafe { read_on(fd, to.as_mut_ptr(), to.len()) }
}

/// # Safety
/// 1. `len` bytes at `to` must be nobody else's.
unsafe fn read_on(fd: Fd, to: *mut u8, len: usize) -> Result<usize, Errno> {
    let mut done = 0;
    while done < len {
        match call(nr::READ, [fd.0, to as usize + done, len - done, 0, 0, 0]) {
            Ok(0) => break,
            Ok(more) => done += more,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// How many bytes are in a pipe: ioctl(2) `FIONREAD`; none if it is no pipe.
pub fn readable_bytes(fd: Fd) -> usize {
    const FIONREAD: usize = 0x541b;
    let mut bytes = 0_i32;
    let to = &raw mut bytes as usize;
    let answer = call(nr::IOCTL, [fd.0, FIONREAD, to, 0, 0, 0]);
    answer.map_or(0, |_| bytes as usize)
}

/// pread(2): how many bytes there were, up to the buffer's length.
pub fn pread(fd: Fd, to: &mut [u8], at: u64) -> Result<usize, Errno> {
    // SAFETY: (1) the buffer is the caller's.
    unsafe { pread_at(fd, to.as_mut_ptr(), to.len(), at) }
}

/// The same, of at most `len` bytes, into a buffer that is not initialized. Returns what was read.
pub fn pread_into<const N: usize>(
    fd: Fd,
    to: &mut MaybeUninit<[u8; N]>,
    len: usize,
    at: u64,
) -> Result<&[u8], Errno> {
    let start = to.as_mut_ptr().cast::<u8>();
    // SAFETY: (1) the buffer is the caller's; what was read is initialized.
    unsafe {
        let read = pread_at(fd, start, len.min(N), at)?;
        Ok(core::slice::from_raw_parts(start, read))
    }
}

/// # Safety
/// 1. `len` bytes at `to` must be nobody else's.
unsafe fn pread_at(fd: Fd, to: *mut u8, len: usize, at: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while done < len {
        let [a, b, c] = arch::pread_offset(at + done as u64);
        match call(nr::PREAD64, [fd.0, to as usize + done, len - done, a, b, c]) {
            Ok(0) => break,
            Ok(more) => done += more,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// `struct iovec`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct IoVec {
    pub at: usize,
    pub len: usize,
}

/// writev(2).
pub fn write_vector(fd: Fd, parts: &[IoVec]) -> Result<usize, Errno> {
    call(
        nr::WRITEV,
        [fd.0, parts.as_ptr() as usize, parts.len(), 0, 0, 0],
    )
}

/// pipe2(2), close-on-exec, that never waits: the end to read from and the end to write to.
pub fn pipe() -> Result<(Fd, Fd), Errno> {
    let mut ends = [0_u32; 2];
    let to = ends.as_mut_ptr() as usize;
    call(nr::PIPE2, [to, O_CLOEXEC | O_NONBLOCK, 0, 0, 0, 0])?;
    Ok((Fd(ends[0] as usize), Fd(ends[1] as usize)))
}

fn fcntl(fd: Fd, operation: usize, arg: usize) -> Result<usize, Errno> {
    call(nr::FCNTL, [fd.0, operation, arg, 0, 0, 0])
}

/// fcntl(2) `F_DUPFD_CLOEXEC`: a copy at the lowest free number from `least` on.
pub fn dup_from(fd: Fd, least: usize) -> Result<Fd, Errno> {
    const F_DUPFD_CLOEXEC: usize = 1030;
    fcntl(fd, F_DUPFD_CLOEXEC, least).map(Fd)
}

/// dup3(2). Where that cannot be (RLIMIT_NOFILE), nothing is at the number any more.
pub fn keep_as(fd: Fd, number: Fd) {
    if call(nr::DUP3, [fd.0, number.0, 0, 0, 0, OWN]).is_err() {
        close(number);
    }
}

/// Is the descriptor close-on-exec? fcntl(2) `F_GETFD`.
pub fn is_close_on_exec(fd: Fd) -> bool {
    fcntl(fd, 1, 0).is_ok_and(|flags| flags & 1 != 0)
}

/// fcntl(2) `F_SETFD`.
pub fn keep_open_on_exec(fd: Fd) {
    let _ = fcntl(fd, 2, 0);
}

/// Was it opened with `O_PATH`? fcntl(2) `F_GETFL`.
pub fn is_path_only(fd: Fd) -> bool {
    const O_PATH: usize = 0o10_000_000;
    fcntl(fd, 3, 0).is_ok_and(|flags| flags & O_PATH != 0)
}

/// Does the kernel map it executable? It is asked for a mapping that grows, as only a stack may: what must not be executed is
/// refused before that is (do_mmap()), and nothing is mapped.
pub fn can_map_executable(fd: Fd) -> bool {
    const GROWS: usize = MAP_PRIVATE | MAP_GROWSDOWN;
    // SAFETY: nothing is replaced, and nobody knows of the new mapping, should there be one.
    unsafe {
        match mmap(0, 1, PROT_READ | PROT_EXEC, GROWS, Some(fd), 0) {
            Ok(at) => munmap(at, 1).is_ok(),
            Err(errno) => errno == Errno::EINVAL,
        }
    }
}

/// May the file of a descriptor be executed by its caller, with its effective rights? EACCES if not, or if it lies on a
/// filesystem that is mounted noexec.
pub fn check_executable(fd: Fd, mode: u16) -> Result<(), Errno> {
    const X_OK: usize = 1;
    const AT_EACCESS: usize = 0x200;
    let empty = c"".as_ptr() as usize;
    match call(
        nr::FACCESSAT2,
        [fd.0, empty, X_OK, AT_EACCESS | AT_EMPTY_PATH, 0, 0],
    ) {
        // Before Linux 5.8: the superuser's rule is near enough.
        Err(Errno::ENOSYS) if mode & 0o111 == 0 => Err(Errno::EACCES),
        Err(Errno::ENOSYS) => Ok(()),
        answer => answer.map(drop),
    }
}

/// execveat(2); returns if it fails.
pub fn exec_at(dir: usize, path: usize, argv: usize, envp: usize, flags: usize) -> Errno {
    match call(nr::EXECVEAT, [dir, path, argv, envp, flags, OWN]) {
        Ok(value) => Errno(-(value as i32)),
        Err(errno) => errno,
    }
}

/// Linux 6.14: judge, do not execute.
const AT_EXECVE_CHECK: usize = 0x10000;

/// The kernel's verdict on executing an open file with these vectors, as far as it goes without reading the file; EINVAL
/// from kernels that give none.
pub fn check_exec(fd: Fd, argv: usize, envp: usize) -> Errno {
    let empty = c"".as_ptr() as usize;
    exec_at(fd.0, empty, argv, envp, AT_EMPTY_PATH | AT_EXECVE_CHECK)
}

/// The same for flags that are not those of an execution: the kernel judges them too.
pub fn check_exec_at(dir: usize, path: usize, argv: usize, envp: usize, flags: usize) -> Errno {
    exec_at(dir, path, argv, envp, flags | AT_EXECVE_CHECK)
}

/// Bytes of a signal set, as the kernel counts them.
pub const SIGSET_BYTES: usize = 8;

/// rt_sigprocmask(2)'s way to block more.
pub const SIG_BLOCK: usize = 0;

/// `sigset_t`, the kernel's: a bit for each signal.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq)]
pub struct SigSet(pub [u32; 2]);

impl SigSet {
    /// One signal.
    pub fn of(signal: usize) -> Self {
        let mut set = Self::default();
        set.0[(signal - 1) / 32] = 1 << ((signal - 1) % 32);
        set
    }

    /// Is a signal in it?
    pub fn has(self, signal: usize) -> bool {
        self.0[(signal - 1) / 32] & 1 << ((signal - 1) % 32) != 0
    }

    /// Is there no signal in it?
    pub fn is_empty(self) -> bool {
        self.0 == [0, 0]
    }

    /// Without a signal.
    pub fn remove(&mut self, signal: usize) {
        self.0[(signal - 1) / 32] &= !(1 << ((signal - 1) % 32));
    }
}

/// `struct sigaction`, the kernel's.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq)]
pub struct SigAction {
    pub handler: usize,
    pub flags: usize,
    #[cfg(not(target_arch = "riscv64"))]
    pub restorer: usize,
    pub mask: SigSet,
}

/// rt_sigprocmask(2).
pub fn sigprocmask(how: usize, set: usize, old: usize, size: usize) -> Result<usize, Errno> {
    call(nr::RT_SIGPROCMASK, [how, set, old, size, 0, OWN])
}

/// rt_sigaction(2).
///
/// # Safety
/// 1. As the call itself: what is to be done from now on.
pub unsafe fn sigaction(signal: usize, new: usize, old: usize) -> Result<usize, Errno> {
    call(nr::RT_SIGACTION, [signal, new, old, SIGSET_BYTES, 0, OWN])
}

/// kill(2).
///
/// # Safety
/// 1. As the call itself: it may be the caller's end.
pub unsafe fn kill(pid: usize, signal: usize) -> Result<usize, Errno> {
    call(nr::KILL, [pid, signal, 0, 0, 0, OWN])
}

/// close_range(2).
///
/// # Safety
/// 1. Nobody uses those descriptors any more.
pub unsafe fn close_range(first: usize, last: usize, flags: usize) -> Result<usize, Errno> {
    call(nr::CLOSE_RANGE, [first, last, flags, 0, 0, OWN])
}

/// getpid(2).
pub fn getpid() -> usize {
    call(nr::GETPID, [0; 6]).unwrap_or(0)
}

/// tgkill(2) of the calling thread.
pub fn kill_self(signal: usize) {
    let tid = call(nr::GETTID, [0; 6]).unwrap_or(0);
    let _ = call(nr::TGKILL, [getpid(), tid, signal, 0, 0, 0]);
}

/// close(2).
pub fn close(fd: Fd) {
    // Nothing can be done about an error, and a read-only descriptor has none that matters.
    let _ = call(nr::CLOSE, [fd.0, 0, 0, 0, 0, OWN]);
}

/// The part of `struct statx` (include/uapi/linux/stat.h) that identifies a file.
#[repr(C)]
pub struct Statx {
    head: [u32; 7],
    pub mode: u16,
    spare: u16,
    pub ino: u64,
    pub size: u64,
    middle: [u64; 2],
    times_before: [u64; 6],
    pub mtime_s: i64,
    pub mtime_ns: u32,
    pad: u32,
    rdev: [u32; 2],
    pub dev: [u32; 2],
    tail: [u64; 14],
}

const _: () = assert!(size_of::<Statx>() == 256);
const _: () = assert!(core::mem::offset_of!(Statx, ino) == 0x20);
const _: () = assert!(core::mem::offset_of!(Statx, mtime_s) == 0x70);
const _: () = assert!(core::mem::offset_of!(Statx, dev) == 0x88);

/// statx(2) of a descriptor. Nothing is asked of a server that has answered before.
pub fn statx(fd: Fd) -> Result<Statx, Errno> {
    let empty = c"".as_ptr() as usize;
    statx_at(fd.0, empty, AT_EMPTY_PATH | AT_STATX_DONT_SYNC)
}

/// statx(2) of a path that somebody else gave.
pub fn statx_at(dir: usize, path: usize, flags: usize) -> Result<Statx, Errno> {
    let mut stat = MaybeUninit::<Statx>::uninit();
    let to = stat.as_mut_ptr() as usize;
    call(nr::STATX, [dir, path, flags, STATX_BASIC_STATS, to, 0])?;
    // SAFETY: the kernel has filled it, to the last byte.
    Ok(unsafe { stat.assume_init() })
}

/// 64 random bits, without waiting for a kernel that has just booted to collect some; `None` where there are none.
pub fn random() -> Option<u64> {
    /// Linux 5.6: whatever there is.
    const GRND_INSECURE: usize = 4;
    const GRND_NONBLOCK: usize = 1;
    let mut bits = 0_u64;
    let mut get = |flags| call(nr::GETRANDOM, [&raw mut bits as usize, 8, flags, 0, 0, 0]);
    get(GRND_INSECURE)
        .or_else(|_| get(GRND_NONBLOCK))
        .ok()
        .map(|_| bits)
}

/// Did somebody ask for addresses that are always the same (setarch -R, a debugger)? personality(2).
pub fn wants_fixed_addresses() -> bool {
    call(nr::PERSONALITY, [0xffff_ffff, 0, 0, 0, 0, 0])
        .is_ok_and(|flags| flags & ADDR_NO_RANDOMIZE != 0)
}

/// getrlimit(2) of `RLIMIT_STACK`, the soft one, in bytes.
pub fn stack_limit() -> u64 {
    const RLIMIT_STACK: usize = 3;
    let mut limit = [u64::MAX; 2];
    let _ = call(
        nr::PRLIMIT64,
        [0, RLIMIT_STACK, 0, &raw mut limit as usize, 0, 0],
    );
    limit[0]
}

/// prctl(2) `PR_SET_NAME`.
pub fn set_name(comm: &[u8; 16]) {
    let _ = call(nr::PRCTL, [PR_SET_NAME, comm.as_ptr() as usize, 0, 0, 0, 0]);
}

/// prctl(2) `PR_GET_NAME`.
pub fn name(comm: &mut [u8; 16]) {
    let _ = call(
        nr::PRCTL,
        [PR_GET_NAME, comm.as_mut_ptr() as usize, 0, 0, 0, 0],
    );
}

/// prctl(2) `PR_SET_NO_NEW_PRIVS`.
pub fn set_no_new_privs() {
    let _ = call(nr::PRCTL, [PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0]);
}

/// `struct prctl_mm_map` (include/uapi/linux/prctl.h).
#[repr(C)]
pub struct MmMap {
    pub start_code: u64,
    pub end_code: u64,
    pub start_data: u64,
    pub end_data: u64,
    pub start_brk: u64,
    pub brk: u64,
    pub start_stack: u64,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
    /// A pointer in the kernel's struct.
    pub auxv: usize,
    pub auxv_size: u32,
    pub exe_fd: u32,
    #[cfg(target_pointer_width = "32")]
    pub pad: u32,
}

const _: () = assert!(size_of::<MmMap>() == 104);
const _: () = assert!(core::mem::offset_of!(MmMap, auxv_size) == 88 + size_of::<usize>());

/// prctl(2) `PR_SET_MM`, `PR_SET_MM_MAP`.
pub fn set_mm_map(map: &MmMap) -> Result<(), Errno> {
    call(
        nr::PRCTL,
        [
            PR_SET_MM,
            PR_SET_MM_MAP,
            &raw const *map as usize,
            size_of::<MmMap>(),
            0,
            0,
        ],
    )
    .map(drop)
}

/// write(2) to standard error, as far as it goes.
pub fn write_stderr(text: &[u8]) {
    let _ = call(nr::WRITE, [2, text.as_ptr() as usize, text.len(), 0, 0, 0]);
}

/// exit_group(2).
pub fn exit(code: u8) -> ! {
    loop {
        let _ = call(nr::EXIT_GROUP, [usize::from(code), 0, 0, 0, 0, 0]);
    }
}
