//! What the program wants done at a SIGSYS that is not the session's: its own action, which the kernel cannot keep because
//! the session's handler is there.
//!
//! It lies in a page below the stub, mapped when a program first asks for an action: most never do. The page says whose it
//! is, because a vfork child has it too: glibc's posix_spawn(3) resets every action in such a child, which must not reset
//! its parent's.

use crate::arch::Context;
use crate::arch::stub_base;
use crate::sigsys::{SIGSYS, SigInfo, set_action};
use crate::sys::{self, Errno, SIGSET_BYTES, SigAction};
use crate::{session_record, wire};

const SIGKILL_AND_SIGSTOP: u32 = 1 << 8 | 1 << 18;
const SIG_DFL: usize = 0;
const SIG_IGN: usize = 1;
const SA_RESETHAND: usize = 0x8000_0000;
const SIG_BLOCK: usize = 0;

struct Page {
    owner: usize,
    action: SigAction,
}

fn page_address() -> usize {
    stub_base() - wire::PART as usize
}

/// The page, if it is mapped.
fn page() -> Option<*mut Page> {
    let page = page_address();
    sys::is_mapped(page).then_some(page as *mut Page)
}

fn action() -> SigAction {
    // SAFETY: the page is mapped and has an action.
    page().map_or_else(SigAction::default, |page| unsafe { (*page).action })
}

/// rt_sigaction(2) of SIGSYS: sets the action, if there is one, and writes the one that was to `old`.
pub fn exchange(new: Option<SigAction>, old: usize) -> Result<usize, Errno> {
    let before = action();
    if let Some(mut new) = new {
        // do_sigaction()
        new.mask.0[0] &= !SIGKILL_AND_SIGSTOP;
        set(new)?;
    }
    if old != 0 {
        // The kernel checks the pointer: its own action is written first.
        set_action(SIGSYS, 0, old)?;
        // SAFETY: the kernel has just written there.
        unsafe { (old as *mut SigAction).write_unaligned(before) };
    }
    Ok(0)
}

fn set(new: SigAction) -> Result<(), Errno> {
    let pid = sys::getpid();
    let page = match page() {
        Some(page) => page,
        None if new.handler == SIG_DFL => return Ok(()),
        None => {
            let flags = sys::MAP_PRIVATE | sys::MAP_ANONYMOUS | sys::MAP_FIXED_NOREPLACE;
            let len = session_record().page as usize;
            // SAFETY: nothing is replaced.
            unsafe { sys::mmap(page_address(), len, 3, flags, None, 0)? as *mut Page }
        }
    };
    // SAFETY: the page is mapped and writable.
    unsafe {
        if new.handler == SIG_DFL && (*page).owner != pid {
            return Ok(());
        }
        *page = Page {
            owner: pid,
            action: new,
        };
    }
    Ok(())
}

/// A SIGSYS that is not the session's: what would have happened without the session.
pub fn deliver(signal: usize, info: &SigInfo, context: &mut Context) {
    let action = action();
    match action.handler {
        SIG_IGN => {}
        SIG_DFL => {
            let default = SigAction::default();
            let _ = set_action(signal, &raw const default as usize, 0);
            sys::kill_self(signal);
        }
        handler => {
            if action.flags & SA_RESETHAND != 0 {
                let _ = set(SigAction::default());
            }
            // sigreturn undoes it.
            let _ = sys::sigprocmask(SIG_BLOCK, &raw const action.mask as usize, 0, SIGSET_BYTES);
            // SAFETY: it is the handler that the program gave to rt_sigaction(2).
            let handler: extern "C" fn(usize, &SigInfo, &mut Context) =
                unsafe { core::mem::transmute(handler) };
            handler(signal, info, context);
        }
    }
}
