//! Memory in proportion to what an image is: an allocation that is larger than any file of an image, and some, is a
//! finding. (libFuzzer's own limit needs a sanitizer.)

use std::alloc::{GlobalAlloc, Layout, System};

/// The largest file has 16 MiB, and two readings of it are compared.
const MAX_BYTES: usize = 40 << 20;

struct Limited;

#[global_allocator]
static LIMITED: Limited = Limited;

fn check(len_bytes: usize) {
    if len_bytes > MAX_BYTES {
        eprintln!("an allocation of {len_bytes} bytes");
        std::process::abort();
    }
}

// SAFETY: It is the system's allocator: everything is passed on as it comes, and what it answers too.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: As the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: As the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, len_bytes: usize) -> *mut u8 {
        check(len_bytes);
        // SAFETY: As the caller promises.
        unsafe { System.realloc(at, layout, len_bytes) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: As the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}
