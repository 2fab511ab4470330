//! aarch64.

use core::arch::{asm, naked_asm};

use crate::sys::{SigAction, SigSet};

/// Linux system call numbers: include/uapi/asm-generic/unistd.h.
pub mod nr {
    pub const EPOLL_PWAIT: usize = 22;
    pub const DUP3: usize = 24;
    pub const FCNTL: usize = 25;
    pub const IOCTL: usize = 29;
    pub const OPENAT: usize = 56;
    pub const CLOSE: usize = 57;
    pub const PIPE2: usize = 59;
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const WRITEV: usize = 66;
    pub const PREAD64: usize = 67;
    pub const PSELECT6: usize = 72;
    pub const PPOLL: usize = 73;
    pub const READLINKAT: usize = 78;
    pub const PERSONALITY: usize = 92;
    pub const EXIT_GROUP: usize = 94;
    pub const KILL: usize = 129;
    pub const TGKILL: usize = 131;
    pub const RT_SIGSUSPEND: usize = 133;
    pub const RT_SIGACTION: usize = 134;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const PRCTL: usize = 167;
    pub const GETPID: usize = 172;
    pub const GETTID: usize = 178;
    pub const MUNMAP: usize = 215;
    pub const MREMAP: usize = 216;
    pub const EXECVE: usize = 221;
    pub const MMAP: usize = 222;
    pub const MPROTECT: usize = 226;
    pub const PRLIMIT64: usize = 261;
    pub const SECCOMP: usize = 277;
    pub const GETRANDOM: usize = 278;
    pub const EXECVEAT: usize = 281;
    pub const STATX: usize = 291;
    pub const IO_PGETEVENTS: usize = 292;
    pub const IO_URING_ENTER: usize = 426;
    pub const CLOSE_RANGE: usize = 436;
    pub const FACCESSAT2: usize = 439;
    pub const EPOLL_PWAIT2: usize = 441;
    /// 32-bit machines have these; no number is that of a call here.
    pub const PSELECT6_TIME64: usize = usize::MAX;
    /// The same.
    pub const PPOLL_TIME64: usize = usize::MAX - 1;
}

/// What mmap's offset counts, in bytes.
pub const MMAP_OFFSET_UNIT: u64 = 1;
/// open(2) flag: every 64-bit system call has it.
pub const O_LARGEFILE: usize = 0;
/// `mmap_rnd_bits` by default.
pub const RANDOM_BITS: u32 = 18;

/// `ELF_ET_DYN_BASE`: two thirds of the address space, which has 39, 42 or 48 bits; the stack is near its end.
pub fn dyn_base(sp: usize) -> usize {
    let bits = if sp < 1 << 39 {
        39
    } else if sp < 1 << 42 {
        42
    } else {
        48
    };
    (1_usize << bits) / 3 * 2
}

/// open(2) flag.
pub const O_NOFOLLOW: usize = 0o100_000;
/// `e_machine`: `EM_AARCH64`.
pub const ELF_MACHINE: u16 = 183;
/// Is the stack executable if there is no `PT_GNU_STACK`? `elf_read_implies_exec()` says no.
pub const STACK_EXEC_DEFAULT: bool = false;

/// The offset arguments of pread64.
pub fn pread_offset(at: u64) -> [usize; 3] {
    [at as usize, 0, 0]
}

/// Where the kernel starts: the stack pointer is at argc.
#[unsafe(naked)]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text._start")]
unsafe extern "C" fn _start() -> ! {
    naked_asm!(
        "mov x29, #0",
        "mov x30, #0",
        "mov x0, sp",
        "bl {working_stack}",
        "mov x1, x0",
        "mov x0, sp",
        "mov sp, x1",
        "bl {stub_main}",
        "brk #1",
        working_stack = sym crate::working_stack,
        stub_main = sym crate::stub_main,
    )
}

/// The address of a symbol in this copy of the stub.
macro_rules! address_of {
    ($symbol:path) => {{
        let at: usize;
        // SAFETY: computes an address.
        unsafe { asm!("adr {at}, {symbol}", at = out(reg) at, symbol = sym $symbol, options(nomem, nostack)) };
        at
    }};
}

unsafe extern "C" {
    /// stub.ld: where the stub ends.
    static xip_stub_end: u8;
}

/// Address of `_start`.
pub fn start_address() -> usize {
    address_of!(_start)
}

/// How many bytes the stub has, from its base.
pub fn stub_len() -> usize {
    address_of!(xip_stub_end) - super::stub_base()
}

/// A system call.
///
/// # Safety
/// 1. As the call itself.
pub unsafe fn syscall(number: usize, args: [usize; 6]) -> usize {
    let answer;
    // SAFETY: the kernel changes x0 and what the arguments point to, for which the caller vouches (1).
    unsafe {
        asm!(
            "svc #0",
            in("x8") number,
            inlateout("x0") args[0] => answer,
            in("x1") args[1],
            in("x2") args[2],
            in("x3") args[3],
            in("x4") args[4],
            in("x5") args[5],
            options(nostack),
        );
    }
    answer
}

/// Unmaps `len` bytes at `unmap`, zeroes every register and starts at `entry` with the stack at `sp`. It runs from
/// `moved_by` bytes above where this copy of the stub is, and must not unmap itself.
///
/// # Safety
/// 1. Nothing in the range is used any more, and this code's other copy lies outside it.
/// 2. `entry` and `sp` are a program's.
pub unsafe fn enter(entry: usize, sp: usize, unmap: usize, len: usize, moved_by: usize) -> ! {
    let code = address_of!(leave).wrapping_add(moved_by);
    // SAFETY: `leave` needs just these registers, and the caller vouches for the rest (1, 2).
    unsafe {
        asm!(
            "br x17",
            in("x17") code,
            in("x0") unmap,
            in("x1") len,
            in("x15") sp,
            in("x16") entry,
            options(noreturn),
        )
    }
}

/// The last of the stub. Registers are zero at execve(2), but for x16, which the jump needs.
#[unsafe(naked)]
unsafe extern "C" fn leave() -> ! {
    naked_asm!(
        "mov sp, x15",
        "mov x8, #{munmap}",
        "svc #0",
        ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,17,18,19,20,21,22,23,24,25,26,27,28,29,30",
        "mov x\\n, #0",
        ".endr",
        ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
        "movi v\\n\\().2d, #0",
        ".endr",
        "br x16",
        munmap = const nr::MUNMAP,
    )
}

/// What a signal handler gets as its third argument: arch/arm64/include/uapi/asm/{ucontext,sigcontext}.h.
#[repr(C)]
pub struct Context {
    /// Flags, link; the alternate stack's start, flags and size.
    pub(super) head: [u64; 5],
    /// The mask that sigreturn restores.
    pub sigmask: SigSet,
    unused: [u64; 16],
    fault_address: u64,
    /// x0 to x30, sp, pc.
    pub(super) regs: [u64; 33],
}

const _: () = assert!(core::mem::offset_of!(Context, sigmask) == 40);
const _: () = assert!(core::mem::offset_of!(Context, fault_address) == 176);

/// Where in `regs` they are.
pub(super) const ARGS: usize = 0;
pub(super) const NUMBER: usize = 8;
pub(super) const SP: usize = 31;
pub(super) const PC: usize = 32;

/// Address of `outside`.
pub(super) fn outside_address() -> usize {
    address_of!(outside)
}

/// Makes a trapped call, all of whose registers are set, and returns by a trap: a call that the filter knows. Should another
/// SIGSYS take that one's place, it is made again.
#[unsafe(naked)]
unsafe extern "C" fn outside() -> ! {
    naked_asm!(
        "svc #0",
        "2:",
        "mov x8, #{execve}",
        "svc #0",
        "b 2b",
        execve = const nr::EXECVE,
    )
}

/// How long that is.
pub(super) const OUTSIDE_BYTES: u64 = 16;

/// The highest number that the kernel can be given to keep.
pub const KEPT_MAX: usize = 63;

/// SIGSYS's action for the kernel: `on_signal`, which passes `kept`. The kernel keeps that where the address of the code that
/// a handler returns to belongs, which `on_signal` does not return to.
pub fn action_with(kept: usize, flags: usize) -> SigAction {
    const SA_RESTORER: usize = 0x0400_0000;
    SigAction {
        handler: address_of!(on_signal),
        flags: flags | SA_RESTORER,
        restorer: kept,
        mask: SigSet::default(),
    }
}

/// What was passed to `action_with`.
pub fn kept_of(action: &SigAction) -> usize {
    action.restorer
}

unsafe extern "C" {
    /// sigsys.rs: the session's handler.
    fn on_sigsys();
}

/// Where the kernel starts the handler, whose fourth argument is where the return address would be, and rt_sigreturn(2).
#[unsafe(naked)]
unsafe extern "C" fn on_signal() -> ! {
    naked_asm!(
        "mov x3, x30",
        "bl {on_sigsys}",
        "mov x8, #139",
        "svc #0",
        on_sigsys = sym on_sigsys,
    )
}
