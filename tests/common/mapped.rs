//! A file that the test itself maps: what /proc shows of its mapping, and which pages of memory it has.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test crate uses its own part"
)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A whole file, mapped to be read.
pub struct Mapped {
    at: *mut u8,
    len: usize,
    page: usize,
}

impl Mapped {
    pub fn new(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let len = file.metadata().unwrap().len() as usize;
        // SAFETY: the kernel chooses the address, so no memory of anybody else is replaced.
        let at = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ,
                MapFlags::SHARED,
                &file,
                0,
            )
        };
        Self {
            at: at.unwrap().cast(),
            len,
            page: rustix::param::page_size(),
        }
    }

    /// Device and inode as maps shows them; on some file systems stat(2) shows another device.
    pub fn identity(&self) -> (u64, u64) {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let start = format!("{:08x}-", self.at as usize);
        let line = maps.lines().find(|line| line.starts_with(&start)).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let (major, minor) = words[3].split_once(':').unwrap();
        let hex = |text| u32::from_str_radix(text, 16).unwrap();
        let device = rustix::fs::makedev(hex(major), hex(minor));
        (device, words[4].parse().unwrap())
    }

    /// The number of the page frame that holds a page of the file, which this brings into memory; 0 unless the test is
    /// root's. `None` beyond the file.
    pub fn frame(&self, page_number: u64) -> Option<u64> {
        let at = usize::try_from(page_number).ok()?.checked_mul(self.page)?;
        if at >= self.len {
            return None;
        }
        // SAFETY: inside the mapping, which is readable and whose file does not shrink.
        unsafe { self.at.add(at).read_volatile() };
        let mut entry = [0; 8];
        let number = (self.at as usize + at) / self.page;
        File::open("/proc/self/pagemap")
            .unwrap()
            .read_exact_at(&mut entry, number as u64 * 8)
            .unwrap();
        Some(u64::from_ne_bytes(entry) & ((1 << 55) - 1))
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: it is this object's own mapping, and nothing refers to it any more.
        unsafe { munmap(self.at.cast(), self.len) }.unwrap();
    }
}
