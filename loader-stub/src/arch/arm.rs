//! 32-bit ARM, EABI.

use core::arch::{asm, naked_asm};

use crate::sys::{SigAction, SigSet};

/// Linux system call numbers: arch/arm/tools/syscall.tbl.
pub mod nr {
    pub const READ: usize = 3;
    pub const WRITE: usize = 4;
    pub const CLOSE: usize = 6;
    pub const EXECVE: usize = 11;
    pub const GETPID: usize = 20;
    pub const KILL: usize = 37;
    pub const IOCTL: usize = 54;
    pub const MUNMAP: usize = 91;
    pub const MPROTECT: usize = 125;
    pub const PERSONALITY: usize = 136;
    pub const WRITEV: usize = 146;
    pub const MREMAP: usize = 163;
    pub const PRCTL: usize = 172;
    pub const RT_SIGACTION: usize = 174;
    pub const RT_SIGPROCMASK: usize = 175;
    pub const RT_SIGSUSPEND: usize = 179;
    pub const PREAD64: usize = 180;
    pub const READLINKAT: usize = 332;
    pub const PIPE2: usize = 359;
    /// mmap2: its offset counts 4096 bytes, whatever the page size.
    pub const MMAP: usize = 192;
    pub const FCNTL: usize = 221;
    pub const GETTID: usize = 224;
    pub const EXIT_GROUP: usize = 248;
    pub const TGKILL: usize = 268;
    pub const OPENAT: usize = 322;
    pub const PSELECT6: usize = 335;
    pub const PPOLL: usize = 336;
    pub const EPOLL_PWAIT: usize = 346;
    pub const DUP3: usize = 358;
    pub const PRLIMIT64: usize = 369;
    pub const SECCOMP: usize = 383;
    pub const GETRANDOM: usize = 384;
    pub const EXECVEAT: usize = 387;
    pub const STATX: usize = 397;
    pub const PSELECT6_TIME64: usize = 413;
    pub const PPOLL_TIME64: usize = 414;
    pub const IO_PGETEVENTS: usize = 399;
    pub const IO_URING_ENTER: usize = 426;
    pub const CLOSE_RANGE: usize = 436;
    pub const FACCESSAT2: usize = 439;
    pub const EPOLL_PWAIT2: usize = 441;
}

/// What mmap's offset counts, in bytes.
pub const MMAP_OFFSET_UNIT: u64 = 4096;
/// open(2) flag: images may have more than 2 GiB around them.
pub const O_LARGEFILE: usize = 0o400_000;
/// `mmap_rnd_bits` by default.
pub const RANDOM_BITS: u32 = 8;

/// `ELF_ET_DYN_BASE`.
pub fn dyn_base(_sp: usize) -> usize {
    0x0040_0000
}

/// open(2) flag.
pub const O_NOFOLLOW: usize = 0o100_000;
/// `e_machine`: `EM_ARM`.
pub const ELF_MACHINE: u16 = 40;
/// Is the stack executable if there is no `PT_GNU_STACK`? `arm_elf_read_implies_exec()` says yes.
pub const STACK_EXEC_DEFAULT: bool = true;

/// The offset arguments of pread64.
pub fn pread_offset(at: u64) -> [usize; 3] {
    [0, at as usize, (at >> 32) as usize]
}

/// Where the kernel starts: the stack pointer is at argc.
#[unsafe(naked)]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text._start")]
unsafe extern "C" fn _start() -> ! {
    naked_asm!(
        "mov fp, #0",
        "mov lr, #0",
        "mov r4, sp",
        "mov r0, sp",
        "bl {working_stack}",
        "mov r1, r0",
        "mov sp, r0",
        "mov r0, r4",
        "bl {stub_main}",
        "udf #1",
        working_stack = sym crate::working_stack,
        stub_main = sym crate::stub_main,
    )
}

/// The address of a symbol, by its distance from here: right wherever this copy of the stub is.
macro_rules! address_of {
    ($symbol:path) => {{
        let at: usize;
        // SAFETY: computes an address; `pc` reads as the `add` plus 8 in ARM state, which is what this file is compiled to.
        unsafe {
            asm!(
                "ldr {at}, 2f",
                "1: add {at}, pc, {at}",
                "b 3f",
                ".p2align 2",
                "2: .long {symbol} - (1b + 8)",
                "3:",
                at = out(reg) at,
                symbol = sym $symbol,
                options(nomem, nostack),
            );
        }
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
    // SAFETY: the kernel changes r0 and what the arguments point to, for which the caller vouches (1). r7 may be
    // the compiler's own, so it is kept by hand.
    unsafe {
        asm!(
            "mov {kept}, r7",
            "mov r7, {number}",
            "svc #0",
            "mov r7, {kept}",
            kept = out(reg) _,
            number = in(reg) number,
            inlateout("r0") args[0] => answer,
            in("r1") args[1],
            in("r2") args[2],
            in("r3") args[3],
            in("r4") args[4],
            in("r5") args[5],
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
/// 2. `entry` and `sp` are a program's; one word below `sp` is free.
pub unsafe fn enter(entry: usize, sp: usize, unmap: usize, len: usize, moved_by: usize) -> ! {
    let leave_at = leave_address().wrapping_add(moved_by);
    // SAFETY: `leave` needs just these registers, and the caller vouches for the rest (1, 2).
    unsafe {
        asm!(
            "bx {leave}",
            leave = in(reg) leave_at,
            in("r0") unmap,
            in("r1") len,
            in("r2") sp,
            in("r3") entry,
            options(noreturn),
        )
    }
}

/// Address of this copy's `leave`; its lowest bit says whether it is Thumb code.
fn leave_address() -> usize {
    address_of!(leave)
}

/// The last of the stub. The loaded entry's lowest bit chooses Thumb, as the kernel's start_thread() has it.
#[unsafe(naked)]
unsafe extern "C" fn leave() -> ! {
    naked_asm!(
        "mov sp, r2",
        "str r3, [sp, #-4]",
        "mov r7, #{munmap}",
        "svc #0",
        ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12",
        "mov r\\n, #0",
        ".endr",
        "mov lr, #0",
        "ldr pc, [sp, #-4]",
        munmap = const nr::MUNMAP,
    )
}

/// What a signal handler gets as its third argument: arch/arm/include/asm/ucontext.h, arch/arm/include/uapi/asm/sigcontext.h.
#[repr(C)]
pub struct Context {
    /// Flags, link; the alternate stack's start, flags and size.
    head: [u32; 5],
    trap: [u32; 3],
    /// r0 to r10, fp, ip, sp, lr, pc, cpsr.
    regs: [u32; 17],
    fault_address: u32,
    /// The mask that sigreturn restores.
    pub sigmask: SigSet,
}

const _: () = assert!(core::mem::offset_of!(Context, regs) == 32);
const _: () = assert!(core::mem::offset_of!(Context, sigmask) == 104);

impl Context {
    /// The trapped call's number.
    pub fn number(&self) -> usize {
        self.regs[7] as usize
    }

    /// The trapped call's arguments.
    pub fn args(&self) -> [usize; 6] {
        [0, 1, 2, 3, 4, 5].map(|at| self.regs[at] as usize)
    }

    /// What the call shall seem to have answered.
    pub fn set_answer(&mut self, answer: usize) {
        self.regs[0] = answer as u32;
    }

    /// The stack pointer of the interrupted code.
    pub fn sp(&self) -> usize {
        self.regs[13] as usize
    }

    /// The alternate stack that there was: where it starts, and its size in bytes.
    pub fn alternate_stack(&self) -> (usize, usize) {
        (self.head[2] as usize, self.head[4] as usize)
    }

    /// How the trapped call ends; the address says by its lowest bit if that is in Thumb code. (What follows it in an IT
    /// block is lost, but nobody calls the kernel in one.)
    pub fn way_back(&self) -> WayBack {
        let [.., sp, _, pc, cpsr] = self.regs;
        let [_, r1, r2, r3, r4, r5] = self.args();
        WayBack {
            args: [r1, r2, r3, r4, r5],
            sp,
            pc: pc | u32::from(cpsr & THUMB != 0),
        }
    }

    /// Has sigreturn go to where the trapped call is made, with one argument replaced, and whence it returns by the
    /// [`WayBack`] at `sp`.
    pub fn call_outside(&mut self, arg: usize, value: usize, sp: usize) {
        self.regs[arg] = value as u32;
        self.regs[13] = sp as u32;
        self.regs[15] = address_of!(outside) as u32;
        self.regs[16] &= !(THUMB | IT_STATE);
    }

    /// It needs no trap to return.
    pub fn returns_from_outside(&mut self) -> bool {
        false
    }
}

/// Bits of cpsr.
const THUMB: u32 = 1 << 5;
const IT_STATE: u32 = 0x0600_fc00;

/// The most that is used below the stack pointer.
pub const RED_ZONE_BYTES: usize = 0;

/// What `outside` restores.
#[repr(C)]
pub struct WayBack {
    /// But for the first one, where the answer is.
    args: [usize; 5],
    sp: u32,
    pc: u32,
}

/// Makes a trapped call, all of whose registers are set, and returns by the [`WayBack`] at the stack pointer. A call that
/// the kernel takes up again begins at the same instruction.
#[unsafe(naked)]
unsafe extern "C" fn outside() -> ! {
    naked_asm!("svc #0", "ldm sp, {{r1, r2, r3, r4, r5, sp, pc}}")
}

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
        "mov r3, lr",
        "bl {on_sigsys}",
        "mov r7, #173",
        "svc #0",
        on_sigsys = sym on_sigsys,
    )
}
