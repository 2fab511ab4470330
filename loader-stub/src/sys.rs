//! The system calls of the stub. Numbers and the calling sequence are in arch/.

use crate::arch::{self, nr};

/// An errno value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// A sandbox does not allow the call.
    pub const EPERM: Self = Self(1);
    /// The call is not in this kernel.
    pub const ENOSYS: Self = Self(38);

    /// Its name, for those that a launch can meet.
    pub fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            1 => "EPERM",
            2 => "ENOENT",
            5 => "EIO",
            11 => "EAGAIN",
            12 => "ENOMEM",
            13 => "EACCES",
            14 => "EFAULT",
            17 => "EEXIST",
            19 => "ENODEV",
            20 => "ENOTDIR",
            22 => "EINVAL",
            23 => "ENFILE",
            24 => "EMFILE",
            40 => "ELOOP",
            75 => "EOVERFLOW",
            95 => "EOPNOTSUPP",
            _ => return None,
        })
    }
}

/// A descriptor.
#[derive(Clone, Copy)]
pub struct Fd(pub usize);

pub const PROT_NONE: usize = 0;
pub const PROT_READ: usize = 1;
pub const MAP_PRIVATE: usize = 2;
pub const MAP_FIXED: usize = 0x10;
pub const MAP_ANONYMOUS: usize = 0x20;
pub const MAP_NORESERVE: usize = 0x4000;
pub const MAP_FIXED_NOREPLACE: usize = 0x10_0000;

const AT_FDCWD: usize = -100_isize as usize;
const O_CLOEXEC: usize = 0o2_000_000;
const O_NONBLOCK: usize = 0o4000;
const O_NOCTTY: usize = 0o400;
const AT_EMPTY_PATH: usize = 0x1000;
const STATX_BASIC_STATS: usize = 0x7ff;
const PR_SET_NAME: usize = 15;
const PR_SET_MM: usize = 35;
const PR_SET_MM_MAP: usize = 14;
const ADDR_NO_RANDOMIZE: usize = 0x004_0000;

fn call(number: usize, args: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: the wrappers below are the only callers; each says why its call is sound.
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
    let fd = fd.map_or(usize::MAX, |fd| fd.0);
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
    let flags = arch::O_LARGEFILE | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    call(
        nr::OPENAT,
        [AT_FDCWD, path_nul.as_ptr() as usize, flags, 0, 0, 0],
    )
    .map(Fd)
}

/// close(2).
pub fn close(fd: Fd) {
    // Nothing can be done about an error, and a read-only descriptor has none that matters.
    let _ = call(nr::CLOSE, [fd.0, 0, 0, 0, 0, 0]);
}

/// The part of `struct statx` (include/uapi/linux/stat.h) that identifies a file.
#[repr(C)]
#[derive(Default)]
pub struct Statx {
    head: [u32; 8],
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

/// statx(2) of a descriptor.
pub fn statx(fd: Fd) -> Result<Statx, Errno> {
    let mut stat = Statx::default();
    let to = &raw mut stat as usize;
    call(
        nr::STATX,
        [
            fd.0,
            c"".as_ptr() as usize,
            AT_EMPTY_PATH,
            STATX_BASIC_STATS,
            to,
            0,
        ],
    )?;
    Ok(stat)
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

/// prctl(2) `PR_SET_NAME`.
pub fn set_name(comm: &[u8; 16]) {
    let _ = call(nr::PRCTL, [PR_SET_NAME, comm.as_ptr() as usize, 0, 0, 0, 0]);
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
