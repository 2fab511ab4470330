//! What becomes of programs whose image is changed beneath them: it is said, not borne in silence.
//!
//! The pages of a file that is cut off are gone, and so is what a server that was killed has not given yet: who touches them
//! gets SIGBUS, by the default action. As long as a program has asked for no other, the session has a handler in its place.
//! It says so, restores the default and returns: the instruction is done once more, and the program ends as it would have.
//! A program's own action is never replaced, and it never sees this one.

use crate::arch;
use crate::error::{self, Args, Name};
use crate::sigsys::{SA_NODEFER, SA_ONSTACK, SA_SIGINFO, SigInfo, set_action};
use crate::sys::{self, Errno, Fd, SigAction};
use crate::wire::{IMAGE_DEVICE, Session, Str};
use crate::{program_name, session_record};

pub const SIGBUS: usize = 7;

/// A message, without the program's name before it.
fn text(session: &'static Session, text: Str) -> &'static str {
    let start = (&raw const *session)
        .wrapping_byte_add(text.at as usize)
        .cast();
    // SAFETY: wire.rs: the launcher put it there, UTF-8, in the record's own mapping, which never changes.
    unsafe { str::from_utf8_unchecked(core::slice::from_raw_parts(start, text.len as usize)) }
}

/// The size of the image, if it is a file that was changed.
#[inline(never)]
fn size_if_changed(session: &Session) -> Option<u64> {
    let stat = sys::statx(Fd(session.image_fd as usize)).ok()?;
    let map = &session.image_map;
    // Every write and every truncation sets the time; but what is cut off may be missed before it is set.
    let is_as_it_was = map.flags & IMAGE_DEVICE != 0
        || stat.mtime_s == session.image_mtime_s
            && u64::from(stat.mtime_ns) == session.image_mtime_ns
            && stat.size >= map.base + map.len;
    (!is_as_it_was).then_some(stat.size)
}

/// Has the server of the root directory ended? What the kernel still knows of it is not asked.
fn is_server_gone() -> bool {
    let root = c"/".as_ptr() as usize;
    let stat = sys::statx_at(sys::AT_FDCWD, root, sys::AT_STATX_FORCE_SYNC);
    stat.is_err_and(|errno| errno == Errno::ENOTCONN)
}

/// Programs are not started from an image that is another by now: the index is the old one's.
#[inline(never)]
pub fn require_unchanged() -> Result<(), Errno> {
    let session = session_record();
    if size_if_changed(session).is_none() {
        return Ok(());
    }
    say(text(session, session.text_changed), &[]);
    Err(Errno::ESTALE)
}

#[inline(never)]
fn say(text: &str, args: Args<'_>) {
    error::say(program_name(&mut [0; 16]), text, args, None);
}

/// Takes the place of the default action, for a program that has just begun.
pub fn install() {
    let mut old = SigAction::default();
    let _ = set_action(SIGBUS, 0, &raw mut old as usize);
    // It may be ignored.
    if old.handler == 0 {
        let new = arch::action_with(0, SA_SIGINFO | SA_ONSTACK | SA_NODEFER);
        let _ = set_action(SIGBUS, &raw const new as usize, 0);
    }
}

/// What the kernel has just told of SIGBUS's action: the session's handler is the default to the program.
pub fn hide(old: usize) {
    let old = old as *mut SigAction;
    // SAFETY: the kernel has just written there.
    unsafe {
        if (&raw const (*old).handler).read_unaligned() == arch::action_with(0, 0).handler {
            old.write_unaligned(SigAction::default());
        }
    }
}

/// The handler.
#[inline(never)]
pub fn on_bus_error(info: &SigInfo) {
    /// `BUS_ADRALN` to `BUS_MCEERR_AR`: an instruction did it.
    const BY_INSTRUCTION: core::ops::RangeInclusive<i32> = 1..=4;
    let default = SigAction::default();
    let _ = set_action(SIGBUS, &raw const default as usize, 0);
    if !BY_INSTRUCTION.contains(&info.code) {
        return sys::kill_self(SIGBUS);
    }
    let session = session_record();
    if let Some(size) = size_if_changed(session)
        && let Some(at) = offset_of(info.address())
        && at as u64 >= size
    {
        let at = (at - session.image_map.base as usize) & !(session.page as usize - 1);
        say(
            text(session, session.text_truncated),
            &[(Name::ImageOffset, at)],
        );
    } else if is_server_gone() {
        say(text(session, session.text_server), &[]);
    }
}

/// The offset in its file of what is mapped at an address. proc_pid_maps(5): `START-END PERM OFFSET ...`, in hexadecimal. The
/// descriptor stays open: the process is at its end.
fn offset_of(address: usize) -> Option<usize> {
    let fd = sys::open(b"/proc/self/maps\0").ok()?;
    let (mut field, mut value, mut start, mut is_here) = (0, 0, 0, false);
    loop {
        let mut byte = 0;
        // One by one: it is done once, and in few instructions.
        let Ok(1) = sys::read(fd, core::slice::from_mut(&mut byte)) else {
            return None;
        };
        match (byte, field) {
            (b'0'..=b'9' | b'a'..=b'f', _) => {
                value = value << 4 | usize::from((byte & 15) + 9 * (byte >> 6));
                continue;
            }
            (b'\n', _) => field = usize::MAX,
            (b'-', 0) => start = value,
            (b' ', 1) => is_here = start <= address && address < value,
            (b' ', 3) if is_here => return Some(value + (address - start)),
            (b' ', _) => {}
            _ => continue,
        }
        (field, value) = (field.wrapping_add(1), 0);
    }
}
