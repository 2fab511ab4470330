//! The calls that wait with a signal mask of their own: never with SIGSYS in it.
//!
//! On entry: one of them is trapped. On exit: sigreturn goes to where it is made, outside of the handler.
//! For the program's handlers that run meanwhile are on the stack that the call was made on, and not, below this
//! handler's frame, on an alternate one that they did not ask for. What the call needs then is below that stack's
//! pointer, and gone once it returns. A pointer that leads nowhere is passed on: the kernel says what is wrong, in its order.

use core::mem::offset_of;

use crate::arch::{Context, RED_ZONE_BYTES, WayBack};
use crate::sigsys::{SigInfo, check_set, read_set_without, unblock_as};
use crate::sys::{self, SIG_BLOCK, SIGSET_BYTES, SigSet};
use crate::wire;

/// Where a call has its mask.
#[derive(Clone, Copy)]
pub enum Mask {
    /// This argument; the next one is its length.
    At(usize),
    /// In a [`Pair`] that argument 5 points to: pselect6, io_pgetevents.
    InPair,
    /// In an [`Extended`] that argument 4 points to, if argument 5 is its length: io_uring_enter.
    InExtended,
}

/// A set and its length in bytes.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Pair {
    set: usize,
    size: usize,
}

/// `struct io_uring_getevents_arg`
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Extended {
    set: u64,
    size: u32,
    min_wait_us: u32,
    timeout: u64,
}

/// What is in place while a call waits.
#[repr(C)]
struct Waiting {
    way_back: WayBack,
    aligned: [u64; 0],
    own: Own,
}

/// What the call's argument points to, none of it where a program would have it: by that the filter knows the call for the
/// handler's (`wire::OWN_POINTER`).
#[repr(C, packed)]
struct Own {
    odd: [u8; wire::OWN_POINTER as usize],
    set: SigSet,
    pair: Pair,
    extended: Extended,
}

const _: () = assert!(size_of::<Waiting>() <= size_of::<SigInfo>());
const _: () = assert!(offset_of!(Waiting, way_back) == 0);
const _: () = assert!(is_own(offset_of!(Waiting, own) + offset_of!(Own, set)));
const _: () = assert!(is_own(offset_of!(Waiting, own) + offset_of!(Own, pair)));
const _: () = assert!(is_own(offset_of!(Waiting, own) + offset_of!(Own, extended)));

const fn is_own(at: usize) -> bool {
    at as u32 & wire::OWN_POINTER_MASK == wire::OWN_POINTER
}

/// The trapped call.
#[inline(never)]
pub fn wait(info: &mut SigInfo, context: &mut Context, mask: Mask) {
    let mut args = context.args();
    // Sigreturn does not read the information: it is free.
    let spare = &raw mut *info as usize;
    let outside = room_outside(context, spare);
    let is_outside = is_writable(outside);
    let at = if is_outside { outside } else { spare };
    let (mut set, mut pair, mut extended) =
        (SigSet::default(), Pair::default(), Extended::default());
    let (arg, in_place) = match mask {
        Mask::At(arg) => (arg, offset_of!(Own, set)),
        Mask::InPair => (5, offset_of!(Own, pair)),
        Mask::InExtended => (4, offset_of!(Own, extended)),
    };
    // What cannot be read is beside that, too, and is not looked at if its length is wrong.
    let given = args[arg];
    args[arg] = given & !(wire::OWN_POINTER_MASK as usize) | wire::OWN_POINTER as usize;
    let is_there = match mask {
        Mask::At(arg) => {
            pair = Pair {
                set: given,
                size: args[arg + 1],
            };
            false
        }
        Mask::InPair => read(given, &mut pair),
        Mask::InExtended => {
            let is_there = args[5] == size_of::<Extended>() && read(given, &mut extended);
            pair = Pair {
                set: extended.set as usize,
                size: extended.size as usize,
            };
            is_there
        }
    };
    let has_set =
        pair.size == SIGSET_BYTES && matches!(read_set_without(pair.set, &mut set), Ok(true));
    let own = at + offset_of!(Waiting, own);
    if has_set {
        pair.set = own + offset_of!(Own, set);
        extended.set = pair.set as u64;
    }
    if is_there || has_set {
        args[arg] = own + in_place;
    }
    let waiting = Waiting {
        way_back: context.way_back(),
        aligned: [],
        own: Own {
            odd: Default::default(),
            set,
            pair,
            extended,
        },
    };
    // SAFETY: it is the kernel's information, which is not used any more, or below the program's red zone, where the kernel
    // has just written.
    unsafe { (at as *mut Waiting).write(waiting) };
    if is_outside {
        return context.call_outside(arg, args[arg], at);
    }
    // On a stack that cannot be written to no handler can run.
    unblock_as(context);
    // SAFETY: (1) the program asks for it.
    let answer = unsafe { sys::raw(context.number(), args) };
    context.set_result(answer);
}

/// Copies a structure of the program's, if it can be read: its ends are in one page or in two, and each is as long as a set.
fn read<T: Copy>(from: usize, to: &mut T) -> bool {
    let is_there = [0, size_of::<T>() - SIGSET_BYTES]
        .iter()
        .all(|&end| check_set(from.wrapping_add(end)).is_ok());
    if is_there {
        // SAFETY: the kernel has just read it, and it is made of integers.
        *to = unsafe { (from as *const T).read_unaligned() };
    }
    is_there
}

/// Where there is room for a `Waiting` once the handler is left: below the red zone of the stack that the trapped call was
/// made on. Should this handler's own frame be there, because it runs on that stack, `spare`, which lies in that frame.
fn room_outside(context: &Context, spare: usize) -> usize {
    let (start, size) = context.alternate_stack();
    // include/linux/sched/signal.h __on_sig_stack()
    let is_alternate = |sp: usize| sp.wrapping_sub(start).wrapping_sub(1) < size;
    let apart = is_alternate(&raw const *context as usize) && !is_alternate(context.sp());
    match apart {
        true => {
            context
                .sp()
                .wrapping_sub(RED_ZONE_BYTES + size_of::<Waiting>())
                & !15
        }
        false => spare,
    }
}

/// Can all of a `Waiting` be written there? Its ends are in one page or in two.
fn is_writable(at: usize) -> bool {
    let last = at.wrapping_add(size_of::<Waiting>() - SIGSET_BYTES);
    [at, last]
        .iter()
        .all(|&at| sys::sigprocmask(SIG_BLOCK, 0, at, SIGSET_BYTES).is_ok())
}
