//! riscv64.

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

/// `ELF_ET_DYN_BASE`: two thirds of the address space, which has 38 (sv39) or 47 bits; the stack is near its end.
pub fn dyn_base(sp: usize) -> usize {
    let bits = if sp < 1 << 38 { 38 } else { 47 };
    (1_usize << bits) / 3 * 2
}

/// open(2) flag.
pub const O_NOFOLLOW: usize = 0o400_000;
/// `e_machine`: `EM_RISCV`.
pub const ELF_MACHINE: u16 = 243;
/// Is the stack executable if there is no `PT_GNU_STACK`? Not here.
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
        "mv s0, zero",
        "mv s1, sp",
        "mv a0, sp",
        "call {working_stack}",
        "mv a1, a0",
        "mv sp, a0",
        "mv a0, s1",
        "call {stub_main}",
        "ebreak",
        working_stack = sym crate::working_stack,
        stub_main = sym crate::stub_main,
    )
}

/// The address of a symbol in this copy of the stub.
macro_rules! address_of {
    ($symbol:path) => {{
        let at: usize;
        // SAFETY: computes an address.
        unsafe { asm!("lla {at}, {symbol}", at = out(reg) at, symbol = sym $symbol, options(nomem, nostack)) };
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
    // SAFETY: the kernel changes a0 and what the arguments point to, for which the caller vouches (1).
    unsafe {
        asm!(
            "ecall",
            in("a7") number,
            inlateout("a0") args[0] => answer,
            in("a1") args[1],
            in("a2") args[2],
            in("a3") args[3],
            in("a4") args[4],
            in("a5") args[5],
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
            "jr t1",
            in("t1") code,
            in("a0") unmap,
            in("a1") len,
            in("a2") sp,
            in("t0") entry,
            options(noreturn),
        )
    }
}

/// The last of the stub. Registers are zero at execve(2), but for t0, which the jump needs.
#[unsafe(naked)]
unsafe extern "C" fn leave() -> ! {
    naked_asm!(
        "mv sp, a2",
        "li a7, {munmap}",
        "ecall",
        ".irp r,ra,gp,tp,t1,t2,s0,s1,a0,a1,a2,a3,a4,a5,a6,a7,s2,s3,s4,s5,s6,s7,s8,s9,s10,s11,t3,t4,t5,t6",
        "mv \\r, zero",
        ".endr",
        "jr t0",
        munmap = const nr::MUNMAP,
    )
}

/// What a signal handler gets as its third argument: arch/riscv/include/uapi/asm/{ucontext,sigcontext}.h.
#[repr(C)]
pub struct Context {
    /// Flags, link; the alternate stack's start, flags and size.
    pub(super) head: [u64; 5],
    /// The mask that sigreturn restores.
    pub sigmask: SigSet,
    unused: [u64; 16],
    /// pc, then x1 to x31.
    pub(super) regs: [u64; 32],
}

const _: () = assert!(core::mem::offset_of!(Context, sigmask) == 40);
const _: () = assert!(core::mem::offset_of!(Context, regs) == 176);

/// Where in `regs` they are.
pub(super) const ARGS: usize = 10;
pub(super) const NUMBER: usize = 17;
pub(super) const SP: usize = 2;
pub(super) const PC: usize = 0;

/// Address of `outside`.
pub(super) fn outside_address() -> usize {
    address_of!(outside)
}

/// Makes a trapped call, all of whose registers are set, and returns by a trap: a call that the filter knows. Should another
/// SIGSYS take that one's place, it is made again.
#[unsafe(naked)]
unsafe extern "C" fn outside() -> ! {
    naked_asm!(
        "ecall",
        "2:",
        "li a7, {execve}",
        "ecall",
        "j 2b",
        execve = const nr::EXECVE,
    )
}

/// How long that is at most.
pub(super) const OUTSIDE_BYTES: u64 = 16;

/// The highest number that the kernel can be given to keep.
pub const KEPT_MAX: usize = 63;

/// SIGSYS's action for the kernel: one of the entries of `on_signal`, which passes `kept`. (The kernel keeps no address that
/// a handler returns to, in whose place `kept` could be.)
pub fn action_with(kept: usize, flags: usize) -> SigAction {
    SigAction {
        handler: address_of!(on_signal) + 4 * kept,
        flags,
        mask: SigSet::default(),
    }
}

/// What was passed to `action_with`; 0 for an action that is not the handler.
pub fn kept_of(action: &SigAction) -> usize {
    match action.handler.wrapping_sub(address_of!(on_signal)) / 4 {
        kept @ ..=KEPT_MAX => kept,
        _ => 0,
    }
}

unsafe extern "C" {
    /// sigsys.rs: the session's handler.
    fn on_sigsys();
}

/// Where the kernel starts the handler, whose fourth argument is the entry's number. It returns to the vdso.
#[unsafe(naked)]
unsafe extern "C" fn on_signal() -> ! {
    naked_asm!(
        ".option push",
        ".option norvc",
        ".rept {entries}",
        "jal t0, 2f",
        ".endr",
        ".option pop",
        "2:",
        "lla t1, {this}",
        "sub a3, t0, t1",
        "srli a3, a3, 2",
        "addi a3, a3, -1",
        "tail {on_sigsys}",
        entries = const KEPT_MAX + 1,
        this = sym on_signal,
        on_sigsys = sym on_sigsys,
    )
}
