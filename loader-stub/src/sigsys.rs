//! The handler of SIGSYS: what the filter traps, done here.
//!
//! On entry: any thread of a program, on its alternate stack or its own, which may be small; all signals are blocked but
//! SIGSYS. (The kernel looks for signals of the process whenever a handler begins or ends: a thread that traps because it
//! is about to block a signal must not take it from the one that waits for it.) What takes long, or does not come back, is
//! done with the interrupted code's mask, so another handler may run, and trap, on top. On exit: the trapped call seems to
//! have answered, or is made once the handler is left (waits.rs). Nothing is kept: a vfork child shares its parent's memory.

use core::mem::offset_of;

use crate::arch::{self, Context, nr};
use crate::direct::{self, Request};
use crate::error::fail_launcher;
use crate::sys::{self, Errno, Fd, PROT_EXEC, SIG_BLOCK, SIGSET_BYTES, SigAction, SigSet};
use crate::waits::{Mask, wait};
use crate::{changed, exec, kill, session_record, virtual_action, wire};

pub const SIGSYS: usize = 31;
pub const SA_SIGINFO: usize = 4;
pub const SA_ONSTACK: usize = 0x0800_0000;
pub const SA_NODEFER: usize = 0x4000_0000;
const SIG_UNBLOCK: usize = 1;
const SIG_SETMASK: usize = 2;
/// io_uring_enter(2): the mask is in a structure.
const IORING_ENTER_EXT_ARG: usize = 1 << 3;
/// `si_code` of a trap by a filter.
pub const SYS_SECCOMP: i32 = 1;

/// `siginfo_t`.
#[repr(C, align(8))]
pub struct SigInfo {
    signo: i32,
    errno: i32,
    pub code: i32,
    rest: [i32; 29],
}

impl SigInfo {
    /// `si_addr` of a fault.
    pub fn address(&self) -> usize {
        const AT: usize = offset_of!(SigInfo, rest).next_multiple_of(align_of::<usize>());
        let at = (&raw const *self).wrapping_byte_add(AT).cast::<usize>();
        // SAFETY: it is inside of the structure, which the kernel has filled, and aligned.
        unsafe { at.read() }
    }
}

/// Makes the handler SIGSYS's, and lets SIGSYS through: a trap while it is blocked kills the process. The program before
/// has it blocked just to say that it is ignored.
pub fn install() {
    let mut mask = SigSet::default();
    let at = &raw mut mask as usize;
    let _ = sys::sigprocmask(SIG_UNBLOCK, 0, at, SIGSET_BYTES);
    let is_ignored = mask.has(SIGSYS);
    virtual_action::begin(is_ignored)
        .unwrap_or_else(|errno| fail_launcher("rt_sigaction for the handler", Some(errno)));
    if is_ignored {
        let set = SigSet::of(SIGSYS);
        let _ = sys::sigprocmask(SIG_UNBLOCK, &raw const set as usize, 0, SIGSET_BYTES);
    }
}

/// rt_sigaction(2).
pub fn set_action(signal: usize, new: usize, old: usize) -> Result<usize, Errno> {
    // SAFETY: (1) what the program asks for, or the stub's own.
    unsafe { sys::sigaction(signal, new, old) }
}

/// Installs the filter, which the launcher wrote, for this process and all that come from it.
pub fn install_filter() {
    /// `struct sock_fprog`
    #[repr(C)]
    struct Program {
        len: u16,
        instructions: *const u64,
    }
    const SET_MODE_FILTER: usize = 1;
    /// Linux 4.17: without it kernels before 5.16 slow the process down against speculative store bypass.
    const SPEC_ALLOW: usize = 4;
    let filter = direct::filter(session_record());
    if filter.is_empty() {
        return;
    }
    let program = Program {
        len: filter.len() as u16,
        instructions: filter.as_ptr(),
    };
    let install = |flags| {
        let args = [SET_MODE_FILTER, flags, &raw const program as usize, 0, 0, 0];
        // SAFETY: (1) the launcher put that many instructions there.
        unsafe { sys::raw(nr::SECCOMP, args) }
    };
    let mut answer = install(SPEC_ALLOW);
    if answer == Err(Errno::EACCES) {
        // Without CAP_SYS_ADMIN: seccomp(2).
        sys::set_no_new_privs();
        answer = install(SPEC_ALLOW);
    }
    if answer == Err(Errno::EINVAL) {
        answer = install(0);
    }
    answer.unwrap_or_else(|errno| fail_launcher("seccomp", Some(errno)));
}

/// Called by `arch::on_signal`. `kept` is what the kernel keeps for virtual_action.rs. What it calls is not inlined: the stack
/// may be small, and each takes its own only.
#[unsafe(no_mangle)]
extern "C" fn on_sigsys(signal: usize, info: &mut SigInfo, context: &mut Context, kept: usize) {
    if signal == changed::SIGBUS {
        return changed::on_bus_error(info);
    }
    if info.code != SYS_SECCOMP || info.errno != i32::from(wire::TRAP_DATA) {
        unblock_as(context);
        return virtual_action::deliver(signal, info, context, kept);
    }
    let args = &context.args();
    let answer = match context.number() {
        nr::MMAP => mmap(args),
        nr::EXECVE if context.returns_from_outside() => return,
        nr::EXECVE => {
            prepare_exec(context, kept);
            Err(exec::exec(sys::AT_FDCWD, args[0], args[1], args[2], 0))
        }
        nr::EXECVEAT => {
            prepare_exec(context, kept);
            Err(exec::exec(args[0], args[1], args[2], args[3], args[4]))
        }
        nr::RT_SIGACTION => sigaction(args),
        nr::RT_SIGPROCMASK => sigprocmask(args, context),
        nr::RT_SIGSUSPEND => return wait(info, context, Mask::At(0)),
        nr::PPOLL | nr::PPOLL_TIME64 => return wait(info, context, Mask::At(3)),
        nr::EPOLL_PWAIT | nr::EPOLL_PWAIT2 => return wait(info, context, Mask::At(4)),
        nr::PSELECT6 | nr::PSELECT6_TIME64 | nr::IO_PGETEVENTS => {
            return wait(info, context, Mask::InPair);
        }
        nr::IO_URING_ENTER if args[3] & IORING_ENTER_EXT_ARG == 0 => {
            return wait(info, context, Mask::At(4));
        }
        nr::IO_URING_ENTER => return wait(info, context, Mask::InExtended),
        nr::CLOSE_RANGE => close_range(args),
        nr::KILL => kill::kill(args),
        _ => Err(Errno::ENOSYS),
    };
    context.set_result(answer);
}

impl Context {
    /// What the call shall seem to have answered.
    pub fn set_result(&mut self, answer: Result<usize, Errno>) {
        self.set_answer(match answer {
            Ok(value) => value,
            Err(errno) => (-(errno.0 as isize)).cast_unsigned(),
        });
    }
}

/// Blocks no more than the interrupted code does.
pub fn unblock_as(context: &Context) {
    let mask = &raw const context.sigmask as usize;
    let _ = sys::sigprocmask(SIG_SETMASK, mask, 0, SIGSET_BYTES);
}

/// What the next program needs of this one.
#[inline(never)]
fn prepare_exec(context: &Context, kept: usize) {
    unblock_as(context);
    let session = session_record();
    // A program may have made them close-on-exec, with all that it has.
    for fd in session.first_fd..=session.last_fd {
        sys::keep_open_on_exec(Fd(fd as usize));
    }
    virtual_action::hand_down(kept);
}

#[inline(never)]
fn mmap(args: &[usize; 6]) -> Result<usize, Errno> {
    let &[addr, len, prot, flags, fd, offset] = args;
    let fd = Fd(fd as u32 as usize);
    let ask = Request {
        addr,
        len,
        prot,
        flags,
        fd,
        offset: (offset as u64).wrapping_mul(arch::MMAP_OFFSET_UNIT),
    };
    // A descriptor that is no more than a place (O_PATH) has an inode too, but nothing of it can be mapped; nor be executed
    // what is bound somewhere noexec.
    let file = direct::find(fd).filter(|_| match prot & PROT_EXEC {
        0 => !sys::is_path_only(fd),
        _ => sys::can_map_executable(fd),
    });
    let image = direct::open(file);
    // SAFETY: (1) the program asks for it.
    let answer = unsafe { ask.map_in_place(image) };
    direct::close(image);
    answer
}

/// SIGSYS is never in another handler's mask, and its own handler stays.
#[inline(never)]
fn sigaction(args: &[usize; 6]) -> Result<usize, Errno> {
    let &[signal, new, old, size, ..] = args;
    if size != SIGSET_BYTES {
        return Err(Errno::EINVAL);
    }
    if new == 0 && signal as u32 as usize != SIGSYS {
        return set_action_of_program(signal, 0, old);
    }
    // The kernel looks at the pointer before it looks at the number: is there an action to be read?
    let mut action = SigAction::default();
    if new != 0 {
        if set_action(0, new, 0) == Err(Errno::EFAULT) {
            return Err(Errno::EFAULT);
        }
        // SAFETY: the kernel has just read it.
        action = unsafe { (new as *const SigAction).read_unaligned() };
    }
    action.mask.remove(SIGSYS);
    match signal as u32 as usize {
        SIGSYS => virtual_action::exchange((new != 0).then_some(action), old),
        _ => set_action_of_program(signal, &raw const action as usize, old),
    }
}

/// The same as `set_action`, of a signal that is not the session's: of SIGBUS's default the program is told as of any.
fn set_action_of_program(signal: usize, new: usize, old: usize) -> Result<usize, Errno> {
    let answer = set_action(signal, new, old)?;
    if signal as u32 as usize == changed::SIGBUS && old != 0 {
        changed::hide(old);
    }
    Ok(answer)
}

/// rt_sigprocmask(2) of the mask that sigreturn restores, but that SIGSYS is never blocked.
#[inline(never)]
fn sigprocmask(args: &[usize; 6], context: &mut Context) -> Result<usize, Errno> {
    let &[how, set, old, size, ..] = args;
    if size != SIGSET_BYTES {
        return Err(Errno::EINVAL);
    }
    let before = context.sigmask;
    let mut wanted = SigSet::default();
    if read_set_without(set, &mut wanted)? {
        let now = context.sigmask.0.iter_mut().zip(wanted.0);
        match how as u32 as usize {
            SIG_BLOCK => now.for_each(|(now, wanted)| *now |= wanted),
            SIG_UNBLOCK => now.for_each(|(now, wanted)| *now &= !wanted),
            SIG_SETMASK => now.for_each(|(now, wanted)| *now = wanted),
            _ => return Err(Errno::EINVAL),
        }
    }
    if old != 0 {
        // The kernel checks the pointer: the handler's own mask is written first.
        sys::sigprocmask(SIG_BLOCK, 0, old, SIGSET_BYTES)?;
        // SAFETY: the kernel has just written there.
        unsafe { (old as *mut SigSet).write_unaligned(before) };
    }
    Ok(0)
}

/// Copies a signal set of the program's, but for SIGSYS; false for a null pointer.
pub fn read_set_without(set: usize, to: &mut SigSet) -> Result<bool, Errno> {
    if set == 0 {
        return Ok(false);
    }
    check_set(set)?;
    // SAFETY: the kernel has just read it.
    *to = unsafe { (set as *const SigSet).read_unaligned() };
    to.remove(SIGSYS);
    Ok(true)
}

/// Can a signal set be read there? Asked by an operation that there is not: EINVAL, unless the kernel could not read it.
pub fn check_set(set: usize) -> Result<(), Errno> {
    const NO_SUCH_HOW: usize = 99;
    match sys::sigprocmask(NO_SUCH_HOW, set, 0, SIGSET_BYTES) {
        Err(Errno::EFAULT) => Err(Errno::EFAULT),
        _ => Ok(()),
    }
}

#[inline(never)]
fn close_range(args: &[usize; 6]) -> Result<usize, Errno> {
    let session = session_record();
    let &[first, last, flags, ..] = args;
    let (first, last) = (first as u32 as usize, last as u32 as usize);
    let close = |first: usize, last: usize| {
        // SAFETY: (1) the program's own descriptors.
        unsafe { sys::close_range(first, last, flags) }
    };
    let (kept_first, kept_last) = (session.first_fd as usize, session.last_fd as usize);
    if last < first || last < kept_first || first > kept_last {
        return close(first, last);
    }
    // The parts on both sides of the session's; behind the last number there is nothing, but the kernel looks at the flags.
    if first < kept_first {
        close(first, kept_first - 1)?;
    }
    match last > kept_last {
        true => close(kept_last + 1, last),
        false => close(u32::MAX as usize, u32::MAX as usize),
    }
}
