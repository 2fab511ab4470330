//! Says which pages of a file are in the page cache: where each begins, in KiB. Built by tests/rigs/acceptance.rs, for each
//! architecture.

use std::ffi::{c_int, c_long, c_uchar, c_void};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::null_mut;

unsafe extern "C" {
    fn mmap(
        at: *mut c_void,
        len: usize,
        prot: c_int,
        flags: c_int,
        fd: c_int,
        offset: c_long,
    ) -> *mut c_void;
    fn mincore(at: *mut c_void, len: usize, there: *mut c_uchar) -> c_int;
    fn getpagesize() -> c_int;
}

const PROT_READ: c_int = 1;
const MAP_SHARED: c_int = 1;

fn main() {
    let path = std::env::args_os().nth(1).unwrap();
    let file = File::open(path).unwrap();
    let len = file.metadata().unwrap().len() as usize;
    // SAFETY: it has no conditions.
    let page = unsafe { getpagesize() } as usize;
    let mut there = vec![0; len.div_ceil(page)];
    // SAFETY: nothing is replaced; as many bytes as there are pages. No page of the mapping is touched.
    let answer = unsafe {
        let at = mmap(null_mut(), len, PROT_READ, MAP_SHARED, file.as_raw_fd(), 0);
        mincore(at, len, there.as_mut_ptr())
    };
    assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
    for (number, _) in there
        .iter()
        .enumerate()
        .filter(|(_, there)| **there & 1 != 0)
    {
        println!("{}", number * page / 1024);
    }
}
