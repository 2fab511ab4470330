//! Maps parts of the image, however what holds it lets itself be mapped.

use crate::sys::{self, Errno, Fd};
use crate::wire::{IMAGE_SHARED, IMAGE_WHOLE, ImageMap};

const MAP_TYPE: usize = 0xf;
const MAP_SHARED: usize = 1;

/// mmap(2) of the image's descriptor: `len` bytes, whole pages, from `at` of the image. If this fails, what it was to
/// replace may be there or not.
///
/// # Safety
/// 1. As mmap(2) with these flags.
pub unsafe fn map(
    image: Fd,
    how: &ImageMap,
    [addr, len, prot, flags]: [usize; 4],
    at: u64,
) -> Result<usize, Errno> {
    let flags = match how.flags & IMAGE_SHARED {
        0 => flags,
        _ => flags & !MAP_TYPE | MAP_SHARED,
    };
    if how.flags & IMAGE_WHOLE == 0 {
        // SAFETY: (1) the caller's promise.
        return unsafe { sys::mmap(addr, len, prot, flags, Some(image), how.base + at) };
    }
    // SAFETY: (1) the caller's promise.
    unsafe { map_by_moving(image, how, [addr, len, prot, flags], at as usize) }
}

/// The same where mappings can begin at the image's start only.
///
/// # Safety
/// 1. As mmap(2) with these flags.
#[inline(never)]
unsafe fn map_by_moving(
    image: Fd,
    how: &ImageMap,
    [addr, len, prot, flags]: [usize; 4],
    before: usize,
) -> Result<usize, Errno> {
    let sharing = flags & MAP_TYPE;
    let keep = flags & !MAP_TYPE | sys::MAP_PRIVATE | sys::MAP_ANONYMOUS;
    // The whole must not lie where its part goes.
    // SAFETY: (1) the caller's promise.
    let place = unsafe { sys::mmap(addr, len, sys::PROT_NONE, keep, None, 0) }?;
    // SAFETY: (1) nothing is replaced.
    let whole = unsafe { sys::mmap(0, before + len, prot, sharing, Some(image), how.base) };
    let moved = whole.and_then(|whole| {
        // SAFETY: (1) nobody uses the part that moves, and what it replaces was just mapped.
        let moved = unsafe { sys::move_mapping(whole + before, len, place) };
        let rest = match moved {
            Ok(()) => before,
            Err(_) => before + len,
        };
        if rest > 0 {
            // SAFETY: (1) nobody uses it.
            let _ = unsafe { sys::munmap(whole, rest) };
        }
        moved
    });
    // What the caller chose stays taken, lest another thread maps something there.
    if moved.is_err() && flags & sys::MAP_FIXED == 0 {
        // SAFETY: (1) just mapped, and not used.
        let _ = unsafe { sys::munmap(place, len) };
    }
    moved.map(|()| place)
}
