//! The launcher's memory: handed out once, never taken back.
//!
//! A launch lives for half a millisecond and then is another program. What it allocates on the way is some tens of KiB,
//! and giving that back costs more than keeping it: musl maps and unmaps a page or two for every size of object, 23
//! system calls in a launch, each with its page fault.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// What there is, in bytes, in pages that cost nothing until they are touched. More comes from the C library.
const ARENA_BYTES: usize = 256 * 1024;

/// Set in a process that goes on: from then on, memory is the C library's.
static RETIRED: AtomicBool = AtomicBool::new(false);

/// Ends the use of the arena in this process: it will live for long, and what it frees must be had again.
pub fn retire_arena() {
    RETIRED.store(true, Relaxed);
}

/// A global allocator for programs that soon end.
#[derive(Debug)]
pub struct Arena {
    bytes: UnsafeCell<[u8; ARENA_BYTES]>,
    used: AtomicUsize,
}

// SAFETY: `used` gives every caller bytes of its own.
unsafe impl Sync for Arena {}

impl Arena {
    /// An arena of which nothing is used.
    pub const fn new() -> Self {
        Self {
            bytes: UnsafeCell::new([0; ARENA_BYTES]),
            used: AtomicUsize::new(0),
        }
    }

    fn start(&self) -> usize {
        self.bytes.get() as usize
    }

    fn owns(&self, at: *mut u8) -> bool {
        (at as usize).wrapping_sub(self.start()) < ARENA_BYTES
    }
}

impl Default for Arena {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: blocks of the arena are aligned, inside it and disjoint; others are the C library's, which gets them back.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if RETIRED.load(Relaxed) {
            // SAFETY: the caller's layout, as it is.
            return unsafe { System.alloc(layout) };
        }
        let fits = |used: usize| {
            let at = (self.start() + used).checked_next_multiple_of(layout.align())? - self.start();
            let end = at.checked_add(layout.size())?;
            (end <= ARENA_BYTES).then_some((at, end))
        };
        match self
            .used
            .fetch_update(Relaxed, Relaxed, |used| Some(fits(used)?.1))
        {
            Ok(before) => match fits(before) {
                Some((at, _)) => self.bytes.get().cast::<u8>().wrapping_add(at),
                None => std::ptr::null_mut(),
            },
            // SAFETY: the caller's layout, as it is.
            Err(_) => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if self.owns(at) {
            // The last block can be had again: what is built up piece by piece stays in its place.
            let start = at as usize - self.start();
            let _ = self
                .used
                .compare_exchange(start + layout.size(), start, Relaxed, Relaxed);
        } else {
            // SAFETY: it came from there, with this layout.
            unsafe { System.dealloc(at, layout) }
        }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if !self.owns(at) {
            // SAFETY: it came from there, with this layout.
            return unsafe { System.realloc(at, layout, new_size) };
        }
        let start = at as usize - self.start();
        let end = start + layout.size();
        let in_place = start
            .checked_add(new_size)
            .filter(|&new_end| new_end <= ARENA_BYTES)
            .is_some_and(|new_end| {
                self.used
                    .compare_exchange(end, new_end, Relaxed, Relaxed)
                    .is_ok()
            });
        if in_place || new_size <= layout.size() {
            return at;
        }
        // SAFETY: the alignment was valid, and the caller owes that the size is (GlobalAlloc::realloc).
        let new =
            unsafe { self.alloc(Layout::from_size_align_unchecked(new_size, layout.align())) };
        if !new.is_null() {
            // SAFETY: both have that many bytes, and the new block is nobody else's.
            unsafe { std::ptr::copy_nonoverlapping(at, new, layout.size()) };
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_and_disjoint_and_keep_their_bytes() {
        let arena = Box::new(Arena::new());
        let mut blocks: Vec<(*mut u8, Layout, u8)> = Vec::new();
        // More than there is: the rest is the C library's.
        for number in 0..3000_usize {
            let layout = Layout::from_size_align(1 + number * 37 % 500, 1 << (number % 8)).unwrap();
            // SAFETY: the layout has a size, and is the block's whenever the block is used.
            unsafe {
                let at = arena.alloc(layout);
                assert!(!at.is_null() && (at as usize).is_multiple_of(layout.align()));
                at.write_bytes(number as u8, layout.size());
                blocks.push((at, layout, number as u8));
                if number % 3 == 0 {
                    let (at, layout, value) = blocks.remove(number / 3);
                    let new_size = 1 + number * 53 % 900;
                    let at = arena.realloc(at, layout, new_size);
                    let kept = std::slice::from_raw_parts(at, layout.size().min(new_size));
                    assert!(kept == vec![value; kept.len()]);
                    at.write_bytes(value, new_size);
                    let layout = Layout::from_size_align(new_size, layout.align()).unwrap();
                    blocks.push((at, layout, value));
                }
                if number % 4 == 0 {
                    let (at, layout, _) = blocks.pop().unwrap();
                    arena.dealloc(at, layout);
                }
            }
        }
        assert!(blocks.iter().any(|(at, ..)| arena.owns(*at)));
        assert!(blocks.iter().any(|(at, ..)| !arena.owns(*at)));
        for (at, layout, value) in blocks {
            // SAFETY: as above.
            unsafe {
                let bytes = std::slice::from_raw_parts(at, layout.size());
                assert!(bytes == vec![value; bytes.len()]);
                arena.dealloc(at, layout);
            }
        }
    }

    #[test]
    fn the_last_block_grows_in_its_place_and_is_used_again() {
        let arena = Box::new(Arena::new());
        let layout = |size| Layout::from_size_align(size, 8).unwrap();
        // SAFETY: each layout has a size and is the block's.
        unsafe {
            let at = arena.alloc(layout(10));
            assert_eq!(arena.realloc(at, layout(10), 1000), at);
            arena.dealloc(at, layout(1000));
            assert_eq!(arena.alloc(layout(20)), at);
            let next = arena.alloc(layout(20));
            assert_ne!(arena.realloc(at, layout(20), 30), at);
            // Miri has no memory that is refused.
            if !cfg!(miri) {
                let more = arena.realloc(next, layout(20), usize::MAX / 4);
                assert_eq!(more, std::ptr::null_mut());
            }
        }
    }
}
