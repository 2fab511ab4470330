//! Where objects go: addresses as `binfmt_elf.c load_elf_binary()` chooses them.

use crate::error::{OrFail, fail};
use crate::sys::{self, Errno};
use crate::{arch, wire};

/// What an object needs.
pub struct Reservation {
    /// One of wire.rs's `PLACE_` constants.
    pub place: u64,
    /// Lowest address before the bias, on a page boundary.
    pub start: usize,
    /// Whole pages, bytes.
    pub len: usize,
    /// The bias is a multiple of this.
    pub align: usize,
    /// At random, where the place allows.
    pub randomize: bool,
}

/// Finds a place for an object and keeps it with a mapping that nothing can use. Returns where it starts.
pub fn reserve(want: &Reservation, sp: usize, page: usize) -> usize {
    let &Reservation {
        place,
        start,
        len,
        align,
        randomize,
    } = want;
    let flags = sys::MAP_PRIVATE | sys::MAP_ANONYMOUS | sys::MAP_NORESERVE;
    let shown = [("addr", start), ("len", len), ("align", align)];
    let just_at = match place {
        wire::PLACE_FIXED => Some(start),
        // ELF_ET_DYN_BASE plus arch_mmap_rnd(), aligned.
        wire::PLACE_PROGRAM => {
            Some((arch::dyn_base(sp) + random_offset(randomize, sp, page)) & !(align - 1))
        }
        _ => None,
    };
    if let Some(base) = just_at {
        // SAFETY: nothing is replaced.
        let answer = unsafe {
            sys::mmap(
                base,
                len,
                sys::PROT_NONE,
                flags | sys::MAP_FIXED_NOREPLACE,
                None,
                0,
            )
        };
        match answer {
            Ok(at) if at == base => return base,
            // SAFETY: (1) just mapped, by a kernel that takes the flag for a hint (before 4.17).
            Ok(at) => drop(unsafe { sys::munmap(at, len) }),
            Err(errno) if place == wire::PLACE_FIXED => fail("mmap", &shown, Some(errno)),
            Err(_) => {}
        }
        if place == wire::PLACE_FIXED {
            fail("mmap", &shown, Some(Errno::EEXIST));
        }
        // Something is there; anywhere else will do.
    }
    let slack = align - page;
    // SAFETY: nothing is replaced.
    let at = unsafe { sys::mmap(0, len + slack, sys::PROT_NONE, flags, None, 0) }
        .or_fail("mmap", &shown);
    let base = (at + slack) & !(align - 1);
    for (start, end) in [(at, base), (base + len, at + len + slack)] {
        if end > start {
            // SAFETY: (1) a part of the reservation, unused.
            let _ = unsafe { sys::munmap(start, end - start) };
        }
    }
    base
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
