//! What the program wants done at a SIGSYS that is not the session's: its own action, in whose place the kernel has the
//! session's handler.
//!
//! The kernel keeps a number for the program (`arch::action_with`), which is the process's as the action itself is: a
//! thread shares it, a forked or vforked child has its own. Number n is the n-th action of a table that only grows, the
//! last page of the resident memfd, which becomes the process's own when the program first asks for an action: most never
//! do. Number 0 is the default.

use core::sync::atomic::{AtomicUsize, Ordering};

use crate::arch::{self, Context, stub_base};
use crate::session_record;
use crate::sigsys::{SA_NODEFER, SA_ONSTACK, SA_SIGINFO, SIGSYS, SYS_SECCOMP, SigInfo, set_action};
use crate::sys::{self, Errno, SIG_BLOCK, SIGSET_BYTES, SigAction, SigSet};
use crate::wire;

const SIGKILL_AND_SIGSTOP: u32 = 1 << 8 | 1 << 18;
const SIG_DFL: usize = 0;
const SIG_IGN: usize = 1;
const SA_RESTORER: usize = 0x0400_0000;
const SA_RESTART: usize = 0x1000_0000;
const SA_RESETHAND: usize = 0x8000_0000;
/// `UAPI_SA_FLAGS`: the kernel drops the others.
const SA_KNOWN: usize = 0xdc00_0807;

/// How many different actions a program can have had: more than any program has.
const ENTRIES: usize = arch::KEPT_MAX;
const FREE: usize = 0;
const CLAIMED: usize = 1;
const READY: usize = 2;

struct Entry {
    state: AtomicUsize,
    /// Written once, between `CLAIMED` and `READY`.
    action: SigAction,
}

const _: () = assert!(ENTRIES * size_of::<Entry>() <= wire::ACTIONS as usize);

fn table() -> *mut Entry {
    (stub_base() + session_record().actions as usize) as *mut Entry
}

/// The action of a number that `keep` gave.
fn action(kept: usize) -> SigAction {
    match kept {
        0 => SigAction::default(),
        // SAFETY: the number says that the table has it.
        kept => unsafe { (*table().add(kept - 1)).action },
    }
}

/// A number for an action.
fn keep(action: &SigAction) -> Result<usize, Errno> {
    if action.handler == SIG_DFL && action.flags & !SA_RESTORER == 0 && action.mask.is_empty() {
        return Ok(0);
    }
    const READ_WRITE: usize = 3;
    // SAFETY: (1) nothing of it is executed; that it is writable already, another thread may see at the same time.
    unsafe { sys::mprotect(table() as usize, session_record().page as usize, READ_WRITE) }?;
    for number in 1..=ENTRIES {
        // SAFETY: the table is writable, and zeroed at first; an entry's action is the claimant's alone until it is ready,
        // and nobody's to change then.
        unsafe {
            let entry = table().add(number - 1);
            let state = &(*entry).state;
            let claimed =
                state.compare_exchange(FREE, CLAIMED, Ordering::Relaxed, Ordering::Acquire);
            match claimed {
                Ok(_) => {
                    (&raw mut (*entry).action).write(*action);
                    state.store(READY, Ordering::Release);
                    return Ok(number);
                }
                Err(READY) if (*entry).action == *action => return Ok(number),
                Err(_) => {}
            }
        }
    }
    Err(Errno::ENOMEM)
}

/// Makes the session's handler the kernel's action, with the program's own; the one that the program had.
pub fn set(own: &SigAction) -> Result<SigAction, Errno> {
    // What is ignored interrupts nothing: here at least what can be restarted.
    let restart = match own.handler {
        SIG_IGN => SA_RESTART,
        _ => own.flags & SA_RESTART,
    };
    let mut new = arch::action_with(keep(own)?, SA_SIGINFO | SA_ONSTACK | SA_NODEFER | restart);
    new.mask = SigSet([!0; 2]);
    new.mask.remove(SIGSYS);
    exchange_in_kernel(&raw const new as usize)
}

fn exchange_in_kernel(new: usize) -> Result<SigAction, Errno> {
    let mut old = SigAction::default();
    set_action(SIGSYS, new, &raw mut old as usize)?;
    Ok(action(arch::kept_of(&old)))
}

/// rt_sigaction(2) of SIGSYS: sets the action, if there is one, and writes the one that was to `old`.
pub fn exchange(new: Option<SigAction>, old: usize) -> Result<usize, Errno> {
    let before = match new {
        Some(mut new) => {
            // do_sigaction()
            new.mask.0[0] &= !SIGKILL_AND_SIGSTOP;
            new.flags &= SA_KNOWN;
            set(&new)?
        }
        None => exchange_in_kernel(0)?,
    };
    if old != 0 {
        // The kernel checks the pointer: its own action is written first.
        set_action(SIGSYS, 0, old)?;
        // SAFETY: the kernel has just written there.
        unsafe { (old as *mut SigAction).write_unaligned(before) };
    }
    Ok(0)
}

/// What is ignored stays so in the next program: it begins with SIGSYS blocked then, which no program of a session can
/// bring about. An exec that fails ends with the caller's mask.
pub fn hand_down(kept: usize) {
    if action(kept).handler == SIG_IGN {
        let set = SigSet::of(SIGSYS);
        let _ = sys::sigprocmask(SIG_BLOCK, &raw const set as usize, 0, SIGSET_BYTES);
    }
}

/// The handler's first action, and the program's: `ignored` or the default.
pub fn begin(ignored: bool) -> Result<(), Errno> {
    let own = SigAction {
        handler: if ignored { SIG_IGN } else { SIG_DFL },
        ..SigAction::default()
    };
    set(&own).map(drop)
}

/// A SIGSYS that is not the session's: what would have happened without the session.
pub fn deliver(signal: usize, info: &SigInfo, context: &mut Context, kept: usize) {
    let mut action = action(kept);
    match action.handler {
        // What a filter traps cannot be ignored: force_sig_info().
        SIG_IGN if info.code != SYS_SECCOMP => {}
        SIG_DFL | SIG_IGN => {
            let default = SigAction::default();
            let _ = set_action(signal, &raw const default as usize, 0);
            sys::kill_self(signal);
        }
        handler => {
            // sigreturn undoes it.
            let _ = sys::sigprocmask(SIG_BLOCK, &raw const action.mask as usize, 0, SIGSET_BYTES);
            if action.flags & SA_RESETHAND != 0 {
                action.handler = SIG_DFL;
                let _ = set(&action);
            }
            // SAFETY: it is the handler that the program gave to rt_sigaction(2).
            let handler: extern "C" fn(usize, &SigInfo, &mut Context) =
                unsafe { core::mem::transmute(handler) };
            handler(signal, info, context);
        }
    }
}
