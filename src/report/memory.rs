//! Parses /proc/meminfo and /proc/zoneinfo: how much RAM the machine has and how much of it is free.

use serde::Serialize;

use super::status::kib;

/// The machine's RAM, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Memory {
    /// All of it that the kernel has (`MemTotal`).
    pub total_bytes: u64,
    /// Free pages: `MemFree`, and those in the lists of the processors, which it leaves out (`count` in zoneinfo).
    pub free_bytes: u64,
    /// What could be had without swapping (`MemAvailable`, Linux 3.14).
    pub available_bytes: u64,
}

/// Adds up the two texts. `page_bytes` is the kernel's page size; what is missing is 0.
///
/// ```
/// use xip_run::report::memory::parse;
/// let meminfo = b"MemTotal:  1024 kB\nMemFree:   100 kB\nMemAvailable:  512 kB\n";
/// let zoneinfo = b"Node 0, zone   Normal\n  pages free     25\n  pagesets\n    cpu: 0\n              count: 3\n";
/// let memory = parse(meminfo, zoneinfo, 4096);
/// assert_eq!((memory.total_bytes, memory.free_bytes), (1 << 20, (100 << 10) + (3 << 12)));
/// ```
pub fn parse(meminfo: &[u8], zoneinfo: &[u8], page_bytes: u64) -> Memory {
    let line = |name: &[u8]| {
        let mut lines = meminfo.split(|&byte| byte == b'\n');
        lines
            .find_map(|line| kib(line.strip_prefix(name)?))
            .unwrap_or(0)
    };
    let mut listed_pages: u64 = 0;
    for line in zoneinfo.split(|&byte| byte == b'\n') {
        let count = line.trim_ascii().strip_prefix(b"count:");
        let count = count.and_then(|value| std::str::from_utf8(value).ok());
        let pages = count.and_then(|value| value.trim().parse().ok());
        listed_pages = listed_pages.saturating_add(pages.unwrap_or(0));
    }
    // Not everybody may read zoneinfo.
    let listed_bytes = listed_pages.saturating_mul(page_bytes);
    Memory {
        total_bytes: line(b"MemTotal:"),
        free_bytes: line(b"MemFree:").saturating_add(listed_bytes),
        available_bytes: line(b"MemAvailable:"),
    }
}

/// The machine's RAM now.
pub(super) fn now() -> Memory {
    let read = |path| std::fs::read(path).unwrap_or_default();
    let page_bytes = crate::sys::page_size();
    parse(&read("/proc/meminfo"), &read("/proc/zoneinfo"), page_bytes)
}
