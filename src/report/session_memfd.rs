//! The session memfd of a process that xip-run started: RAM, all of it, however little of it is mapped.
//!
//! It is the process's executable, so it lives as long as the process and those that it forked. smaps shows the pages
//! that are mapped now; but the record that the stub read, and every page that the program has its own copy of or has
//! unmapped, are still in it, and nothing can drop them.

use std::fs::{File, Metadata};
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{Mode, OFlags};
use serde::Serialize;

use super::classify::SESSION_MEMFD;
use super::proc::processes;
use super::smaps::Mapping;
use crate::sys::wire;

/// `PATH_MAX`: no path in the record is longer, its NUL counted.
const PATH_MAX: usize = 4096;

/// What the session memfd of a process costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct SessionMemfd {
    /// RAM that it takes, in bytes: its blocks (stat(2) `st_blocks`).
    pub allocated_bytes: u64,
    /// Processes whose executable it is, this one included; those that may not be looked at are not among them.
    pub sharers: u64,
    /// What each of them pays for, in bytes.
    pub share_bytes: u64,
}

impl SessionMemfd {
    /// Of 24 KiB that 3 processes share each pays for 8.
    pub fn new(allocated_bytes: u64, sharers: u64) -> Self {
        let sharers = sharers.max(1);
        Self {
            allocated_bytes,
            sharers,
            share_bytes: allocated_bytes / sharers,
        }
    }
}

/// The image that a session was started from, by its record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SessionImage {
    pub(super) path: Vec<u8>,
    pub(super) inode: u64,
}

impl SessionImage {
    /// By path and inode. (The device is not compared: btrfs and overlayfs show another one to stat(2).)
    pub(super) fn is_mapped_by(&self, mapping: &Mapping) -> bool {
        mapping.inode == self.inode && mapping.path == self.path
    }
}

/// Looks at the executable of the process whose /proc/PID is `proc`. `None` if it is no session memfd.
pub(super) fn find(proc: &OwnedFd) -> Option<(SessionMemfd, Option<SessionImage>)> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let exe = rustix::fs::openat(proc, "exe", flags, Mode::empty()).ok()?;
    let reopen = format!("/proc/self/fd/{}", exe.as_raw_fd());
    let name = rustix::fs::readlink(reopen.as_str(), Vec::new()).ok()?;
    let name = name.as_bytes().strip_prefix(b"/memfd:")?;
    if !name.starts_with(SESSION_MEMFD.as_bytes()) {
        return None;
    }
    let exe = File::from(exe);
    let stat = exe.metadata().ok()?;
    let memfd = SessionMemfd::new(stat.blocks().saturating_mul(512), sharers(&stat));
    let image = File::open(reopen).and_then(|file| image(&file)).ok();
    Some((memfd, image.flatten()))
}

/// How many processes have this executable.
fn sharers(memfd: &Metadata) -> u64 {
    let same = processes().filter(|pid| {
        std::fs::metadata(format!("/proc/{pid}/exe"))
            .is_ok_and(|stat| (stat.dev(), stat.ino()) == (memfd.dev(), memfd.ino()))
    });
    same.count() as u64
}

/// What the record in the memfd says of the image; `None` if it has no record of this version. Anybody can make a memfd
/// of that name, so nothing in it is believed beyond a name to compare with.
fn image(memfd: &File) -> io::Result<Option<SessionImage>> {
    let number = |offset: usize| {
        let mut bytes = [0; 8];
        memfd.read_exact_at(&mut bytes, wire::RECORD + offset as u64)?;
        io::Result::Ok(u64::from_ne_bytes(bytes))
    };
    if number(offset_of!(wire::Record, magic))? != wire::MAGIC {
        return Ok(None);
    }
    let image = offset_of!(wire::Record, image);
    let path = image + offset_of!(wire::Image, path);
    let at = number(path + offset_of!(wire::Str, at))?;
    let len = number(path + offset_of!(wire::Str, len))?;
    let (Some(at), Ok(len)) = (at.checked_add(wire::RECORD), usize::try_from(len)) else {
        return Ok(None);
    };
    if len >= PATH_MAX {
        return Ok(None);
    }
    let mut path = vec![0; len];
    memfd.read_exact_at(&mut path, at)?;
    let inode = number(image + offset_of!(wire::Image, ino))?;
    Ok(Some(SessionImage { path, inode }))
}
