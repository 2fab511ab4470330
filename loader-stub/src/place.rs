//! Where objects go: addresses as `binfmt_elf.c load_elf_binary()` chooses them.

use crate::error::{Name, OrFail};
use crate::stack::{self, Stack};
use crate::sys::{self, Errno};
use crate::{arch, wire};

/// What an object needs.
pub struct Wanted {
    /// One of wire.rs's `PLACE_` constants, not that of fixed addresses.
    pub place: u64,
    /// Lowest address before the bias, on a page boundary.
    pub start: usize,
    /// Whole pages, bytes.
    pub len: usize,
    /// How far above the start its first segment begins, perhaps within a page: that one is what has a place.
    pub first: usize,
    /// A power of two, at least a page.
    pub align: usize,
    /// At random, where the place allows.
    pub randomize: bool,
}

/// Finds a place for an object: where it starts. Nobody else maps anything before the caller does; a mapping that kept the
/// place would be split by every segment that replaces a part of it, each time for as long as a mapping takes.
pub fn find(want: &Wanted, sp: usize, page: usize) -> usize {
    let &Wanted {
        place, len, align, ..
    } = want;
    let shown = [
        (Name::Addr, want.start),
        (Name::Len, len),
        (Name::Align, align),
    ];
    let room = |at, more| {
        let flags = sys::MAP_PRIVATE | sys::MAP_ANONYMOUS | sys::MAP_NORESERVE | more;
        // SAFETY: nothing is replaced.
        let found = unsafe { sys::mmap(at, len, sys::PROT_NONE, flags, None, 0) }?;
        // SAFETY: (1) just mapped, and not used.
        let _ = unsafe { sys::munmap(found, len) };
        Ok(found)
    };
    let room_at = |at| match room(at, sys::MAP_FIXED_NOREPLACE)? {
        // Kernels before 4.17 take the flag for a hint.
        found if found != at => Err(Errno::EEXIST),
        _ => Ok(at),
    };
    // Aligned before the address is subtracted, and the bias rounded down then.
    let above = (want.first + page - 1) & !(page - 1);
    let aligned = |at: usize| (at & !(align - 1)).wrapping_sub(above);
    if place == wire::PLACE_PROGRAM {
        // ELF_ET_DYN_BASE plus arch_mmap_rnd().
        let at = arch::dyn_base(sp) + random_offset(want.randomize, sp, page);
        if let Ok(start) = room_at(aligned(at)) {
            return start;
        }
        // Something is there; anywhere else will do.
    }
    let above_in_pages = want.first & !(page - 1);
    let hint = match place {
        wire::PLACE_HINTED => want.start + above_in_pages,
        _ => 0,
    };
    let start = room(hint, 0).or_fail("mmap", &shown);
    if align <= page {
        return match above_in_pages {
            0 => start,
            _ => room_at(start.wrapping_sub(above_in_pages)).or_fail("mmap", &shown),
        };
    }
    // Where there is room, rounded down. Linux takes nothing lower, but it has no handler that may be there.
    let start = aligned(start);
    room_at(start)
        .or_else(|_| room_at(start.wrapping_sub(align)))
        .or_fail("mmap", &shown)
}

/// Where page tables exist already, and something is free nearly always: behind the stack, and behind the vdso, which has
/// one to a few pages.
pub fn beside_stack(stack: &Stack, end: usize, page: usize) -> [usize; 9] {
    let vdso = stack.aux(stack::AT_SYSINFO_EHDR).unwrap_or(end) & !(page - 1);
    core::array::from_fn(|pages| match pages {
        0 => end,
        _ => vdso + pages * page,
    })
}

/// How far from `ELF_ET_DYN_BASE`: as many random pages as mmap(2) gets by default (`arch_mmap_rnd()`).
pub fn random_offset(randomize: bool, sp: usize, page: usize) -> usize {
    if !randomize || sys::wants_fixed_addresses() {
        return 0;
    }
    // Early at boot there may be nothing better than where the kernel put the stack.
    let random =
        sys::random().unwrap_or_else(|| (sp as u64 >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32);
    (random as usize & ((1 << arch::RANDOM_BITS) - 1)) * page
}
