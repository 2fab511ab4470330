//! The calls that wait with a signal mask of their own: never with SIGSYS in it.
//!
//! On entry: one of them is trapped. On exit: it has failed, or sigreturn goes to where it is made, outside of the handler.
//! For the program's handlers that run meanwhile are on the stack that the call was made on, and not, below this
//! handler's frame, on an alternate one that they did not ask for. What the call needs then is below that stack's
//! pointer, and gone once it returns.

use core::mem::offset_of;

use crate::arch::{Context, WayBack};
use crate::sigsys::{SigInfo, check_set, read_set_without, unblock_as};
use crate::sys::{self, Errno, SIG_BLOCK, SIGSET_BYTES, SigSet};

/// The argument which is a set in a structure with its length, of pselect6 and io_pgetevents. Otherwise the argument behind
/// the set is its length.
pub const SET_AND_SIZE: usize = 5;

/// What is in place while a call waits.
#[repr(C)]
struct Waiting {
    way_back: WayBack,
    set: SigSet,
    set_and_size: [usize; 2],
}

const _: () = assert!(size_of::<Waiting>() <= size_of::<SigInfo>());
const _: () = assert!(offset_of!(Waiting, way_back) == 0);

/// The trapped call, whose mask is argument `mask`.
#[inline(never)]
pub fn wait(info: &mut SigInfo, context: &mut Context, mask: usize) {
    if let Err(errno) = try_wait(info, context, mask) {
        context.set_answer((-(errno.0 as isize)).cast_unsigned());
    }
}

fn try_wait(info: &mut SigInfo, context: &mut Context, mask: usize) -> Result<(), Errno> {
    let mut args = context.args();
    // Sigreturn does not read the information: it is free.
    let spare = &raw mut *info as usize;
    let room = context.room_outside(size_of::<Waiting>(), spare);
    let room = room.filter(is_writable);
    let at = room.unwrap_or(spare);
    let mut waiting = Waiting {
        way_back: context.way_back(),
        set: SigSet::default(),
        set_and_size: [0; 2],
    };
    let [mut set, size] = match mask {
        SET_AND_SIZE => read_set_and_size(args[mask])?,
        _ => [args[mask], args[mask + 1]],
    };
    if size == SIGSET_BYTES && read_set_without(set, &mut waiting.set)? {
        set = at + offset_of!(Waiting, set);
    }
    args[mask] = match mask {
        SET_AND_SIZE => at + offset_of!(Waiting, set_and_size),
        _ => set,
    };
    waiting.set_and_size = [set, size];
    // SAFETY: it is the kernel's information, which is not used any more, or below the program's red zone, where the kernel
    // has just written.
    unsafe { (at as *mut Waiting).write(waiting) };
    if room.is_some() {
        context.call_outside(mask, args[mask], at);
        return Ok(());
    }
    // On a stack that cannot be written to no handler can run.
    unblock_as(context);
    // SAFETY: (1) the program asks for it.
    let answer = unsafe { sys::raw(context.number(), args) }?;
    context.set_answer(answer);
    Ok(())
}

/// pselect6's last argument; without one there is no set.
fn read_set_and_size(at: usize) -> Result<[usize; 2], Errno> {
    if at == 0 {
        return Ok([0; 2]);
    }
    // Each is at most as long as a set.
    check_set(at)?;
    check_set(at.wrapping_add(size_of::<usize>()))?;
    // SAFETY: the kernel has just read both.
    Ok(unsafe { (at as *const [usize; 2]).read_unaligned() })
}

/// Can all of a `Waiting` be written there? Its ends are in one page or in two.
fn is_writable(&at: &usize) -> bool {
    let last = at.wrapping_add(size_of::<Waiting>() - SIGSET_BYTES);
    [at, last]
        .iter()
        .all(|&at| sys::sigprocmask(SIG_BLOCK, 0, at, SIGSET_BYTES).is_ok())
}
