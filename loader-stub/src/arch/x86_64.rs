//! x86_64.

use core::arch::{asm, naked_asm};

use crate::sys::{SigAction, SigSet};

/// Linux system call numbers: arch/x86/entry/syscalls/syscall_64.tbl.
pub mod nr {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const CLOSE: usize = 3;
    pub const MMAP: usize = 9;
    pub const MPROTECT: usize = 10;
    pub const MUNMAP: usize = 11;
    pub const RT_SIGACTION: usize = 13;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const IOCTL: usize = 16;
    pub const PREAD64: usize = 17;
    pub const WRITEV: usize = 20;
    pub const MREMAP: usize = 25;
    pub const GETPID: usize = 39;
    pub const EXECVE: usize = 59;
    pub const KILL: usize = 62;
    pub const FCNTL: usize = 72;
    pub const RT_SIGSUSPEND: usize = 130;
    pub const PERSONALITY: usize = 135;
    pub const PRCTL: usize = 157;
    pub const GETTID: usize = 186;
    pub const EXIT_GROUP: usize = 231;
    pub const TGKILL: usize = 234;
    pub const OPENAT: usize = 257;
    pub const READLINKAT: usize = 267;
    pub const PSELECT6: usize = 270;
    pub const PPOLL: usize = 271;
    pub const EPOLL_PWAIT: usize = 281;
    pub const DUP3: usize = 292;
    pub const PIPE2: usize = 293;
    pub const PRLIMIT64: usize = 302;
    pub const SECCOMP: usize = 317;
    pub const GETRANDOM: usize = 318;
    pub const EXECVEAT: usize = 322;
    pub const STATX: usize = 332;
    pub const IO_PGETEVENTS: usize = 333;
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
pub const RANDOM_BITS: u32 = 28;

/// `ELF_ET_DYN_BASE`: two thirds of the 47-bit address space.
pub fn dyn_base(_sp: usize) -> usize {
    0x5555_5555_4aaa
}

/// open(2) flag.
pub const O_NOFOLLOW: usize = 0o400_000;
/// `e_machine`: `EM_X86_64`.
pub const ELF_MACHINE: u16 = 62;
/// Is the stack executable if there is no `PT_GNU_STACK`? `elf_read_implies_exec()`'s table says no.
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
        "xor ebp, ebp",
        "mov rdi, rsp",
        "call {working_stack}",
        "mov rdi, rsp",
        "mov rsi, rax",
        "mov rsp, rax",
        "call {stub_main}",
        "ud2",
        working_stack = sym crate::working_stack,
        stub_main = sym crate::stub_main,
    )
}

/// The address of a symbol in this copy of the stub.
macro_rules! address_of {
    ($symbol:path) => {{
        let at: usize;
        // SAFETY: computes an address.
        unsafe { asm!("lea {at}, [rip + {symbol}]", at = out(reg) at, symbol = sym $symbol, options(nomem, nostack)) };
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

/// A system call.
///
/// # Safety
/// 1. As the call itself.
#[inline(always)]
pub unsafe fn syscall(number: usize, args: [usize; 6]) -> usize {
    let answer;
    // SAFETY: the kernel changes rax, rcx, r11 and what the arguments point to, for which the caller vouches (1).
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => answer,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    answer
}

/// How many bytes the stub has, from its base.
pub fn stub_len() -> usize {
    address_of!(xip_stub_end) - super::stub_base()
}

/// Unmaps `len` bytes at `unmap`, zeroes every register and starts at `entry` with the stack at `sp`. It runs from
/// `moved_by` bytes above where this copy of the stub is, and must not unmap itself.
///
/// # Safety
/// 1. Nothing in the range is used any more, and this code's other copy lies outside it.
/// 2. `entry` and `sp` are a program's; two words below `sp` are free.
pub unsafe fn enter(entry: usize, sp: usize, unmap: usize, len: usize, moved_by: usize) -> ! {
    let code = address_of!(leave).wrapping_add(moved_by);
    // SAFETY: `leave` needs just these registers, and the caller vouches for the rest (1, 2).
    unsafe {
        asm!(
            "jmp rax",
            in("rax") code,
            in("rdi") unmap,
            in("rsi") len,
            in("r8") sp,
            in("r9") entry,
            options(noreturn),
        )
    }
}

/// The last of the stub. `ELF_PLAT_INIT` zeroes the registers at execve(2); rdx above all, which is a destructor to
/// the C library. `flush_thread()` zeroes the vector registers, in which copies have left addresses, and the flags are
/// those of `start_thread()`: interrupts enabled, nothing else.
#[unsafe(naked)]
unsafe extern "C" fn leave() -> ! {
    naked_asm!(
        "mov rsp, r8",
        "push r9",
        "mov eax, {munmap}",
        "syscall",
        "xor eax, eax",
        "xor ebx, ebx",
        "xor ecx, ecx",
        "xor edx, edx",
        "xor esi, esi",
        "xor edi, edi",
        "xor ebp, ebp",
        "xor r8d, r8d",
        "xor r9d, r9d",
        "xor r10d, r10d",
        "xor r11d, r11d",
        "xor r12d, r12d",
        "xor r13d, r13d",
        "xor r14d, r14d",
        "xor r15d, r15d",
        "xorps xmm0, xmm0",
        "xorps xmm1, xmm1",
        "xorps xmm2, xmm2",
        "xorps xmm3, xmm3",
        "xorps xmm4, xmm4",
        "xorps xmm5, xmm5",
        "xorps xmm6, xmm6",
        "xorps xmm7, xmm7",
        "xorps xmm8, xmm8",
        "xorps xmm9, xmm9",
        "xorps xmm10, xmm10",
        "xorps xmm11, xmm11",
        "xorps xmm12, xmm12",
        "xorps xmm13, xmm13",
        "xorps xmm14, xmm14",
        "xorps xmm15, xmm15",
        "push 0x202",
        "popfq",
        "ret",
        munmap = const nr::MUNMAP,
    )
}

/// What a signal handler gets as its third argument: arch/x86/include/uapi/asm/{ucontext,sigcontext}.h.
#[repr(C)]
pub struct Context {
    /// Flags, link; the alternate stack's start, flags and size.
    head: [u64; 5],
    /// r8 to r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip and others.
    gregs: [u64; 23],
    fpstate: u64,
    reserved: [u64; 8],
    /// The mask that sigreturn restores.
    pub sigmask: SigSet,
}

const _: () = assert!(core::mem::offset_of!(Context, gregs) == 40);
const _: () = assert!(core::mem::offset_of!(Context, sigmask) == 296);

/// Where in `gregs` the arguments are: rdi, rsi, rdx, r10, r8, r9.
const ARGS: [usize; 6] = [8, 9, 12, 2, 0, 1];

impl Context {
    /// The trapped call's number.
    pub fn number(&self) -> usize {
        self.gregs[13] as u32 as usize
    }

    /// The trapped call's arguments.
    pub fn args(&self) -> [usize; 6] {
        ARGS.map(|at| self.gregs[at] as usize)
    }

    /// What the call shall seem to have answered.
    pub fn set_answer(&mut self, answer: usize) {
        self.gregs[13] = answer as u64;
    }

    /// The stack pointer of the interrupted code.
    pub fn sp(&self) -> usize {
        self.gregs[15] as usize
    }

    /// The alternate stack that there was: where it starts, and its size in bytes.
    pub fn alternate_stack(&self) -> (usize, usize) {
        (self.head[2] as usize, self.head[4] as usize)
    }

    /// How the trapped call ends.
    pub fn way_back(&self) -> WayBack {
        WayBack {
            args: self.args(),
            sp: self.gregs[15] as usize,
            pc: self.gregs[16] as usize,
        }
    }

    /// Has sigreturn go to where the trapped call is made, with one argument replaced, and whence it returns by the
    /// [`WayBack`] at `sp`.
    pub fn call_outside(&mut self, arg: usize, value: usize, sp: usize) {
        self.gregs[ARGS[arg]] = value as u64;
        self.gregs[15] = sp as u64;
        self.gregs[16] = address_of!(outside) as u64;
    }

    /// It needs no trap to return.
    pub fn returns_from_outside(&mut self) -> bool {
        false
    }
}

/// The most that is used below the stack pointer.
pub const RED_ZONE_BYTES: usize = 128;

/// What `outside` restores.
#[repr(C)]
pub struct WayBack {
    args: [usize; 6],
    sp: usize,
    pc: usize,
}

/// Makes a trapped call, all of whose registers are set, and returns by the [`WayBack`] at the stack pointer. A call that
/// the kernel takes up again begins at the same instruction. The caller finds in rcx and r11 what the call leaves there:
/// the address and the flags.
#[unsafe(naked)]
unsafe extern "C" fn outside() -> ! {
    naked_asm!(
        "syscall",
        "mov rdi, [rsp]",
        "mov rsi, [rsp + 8]",
        "mov rdx, [rsp + 16]",
        "mov r10, [rsp + 24]",
        "mov r8, [rsp + 32]",
        "mov r9, [rsp + 40]",
        "mov rcx, [rsp + 56]",
        "mov rsp, [rsp + 48]",
        "jmp rcx",
    )
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

/// Where the kernel starts the handler, whose fourth argument lies where the return address would, and rt_sigreturn(2). On a
/// shadow stack too it would have been popped.
#[unsafe(naked)]
unsafe extern "C" fn on_signal() -> ! {
    naked_asm!(
        "pop rcx",
        "call {on_sigsys}",
        "xor eax, eax",
        "rdsspq rax",
        "test eax, eax",
        "jz 2f",
        "mov eax, 1",
        "incsspq rax",
        "2:",
        "mov eax, 15",
        "syscall",
        on_sigsys = sym on_sigsys,
    )
}
