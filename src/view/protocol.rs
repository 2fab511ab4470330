//! The kernel's side of FUSE as bytes: requests are taken apart, answers put together.
//!
//! Source: Linux `include/uapi/linux/fuse.h`. All numbers are in the machine's byte order. The layouts are those of
//! protocol 7.23 and later (Linux 3.15; execveat(2), without which nothing runs, is younger).

use crate::cramfs::{Inode, InodeKind};
use crate::units::BLOCK_BYTES;

/// `FUSE_KERNEL_VERSION`.
pub(super) const MAJOR: u32 = 7;
/// The minor version that this server speaks.
pub(super) const MINOR: u32 = 31;
/// The oldest minor version of a kernel that has these layouts.
pub(super) const OLDEST_MINOR: u32 = 23;

/// The root's node id.
pub(super) const ROOT_ID: u64 = 1;

/// The requests that this server knows.
pub(super) mod opcode {
    pub(in crate::view) const LOOKUP: u32 = 1;
    pub(in crate::view) const FORGET: u32 = 2;
    pub(in crate::view) const GETATTR: u32 = 3;
    pub(in crate::view) const READLINK: u32 = 5;
    pub(in crate::view) const OPEN: u32 = 14;
    pub(in crate::view) const READ: u32 = 15;
    pub(in crate::view) const STATFS: u32 = 17;
    pub(in crate::view) const RELEASE: u32 = 18;
    pub(in crate::view) const INIT: u32 = 26;
    pub(in crate::view) const OPENDIR: u32 = 27;
    pub(in crate::view) const READDIR: u32 = 28;
    pub(in crate::view) const RELEASEDIR: u32 = 29;
    pub(in crate::view) const DESTROY: u32 = 38;
    pub(in crate::view) const BATCH_FORGET: u32 = 42;
    pub(in crate::view) const READDIRPLUS: u32 = 44;
}

/// Bits of `fuse_init_in.flags`, those that a read-only medium wants.
pub(super) mod init {
    /// Several reads of a file at once: readahead.
    const ASYNC_READ: u32 = 1 << 0;
    /// readdir(3) brings the attributes along,
    const DO_READDIRPLUS: u32 = 1 << 13;
    /// where somebody looks at them.
    const READDIRPLUS_AUTO: u32 = 1 << 14;
    /// ENOSYS to an OPEN means that none is needed.
    pub(in crate::view) const NO_OPEN_SUPPORT: u32 = 1 << 17;
    /// Several lookups in a directory at once.
    const PARALLEL_DIROPS: u32 = 1 << 18;
    /// Targets of symbolic links stay in the page cache.
    const CACHE_SYMLINKS: u32 = 1 << 23;
    /// ENOSYS to an OPENDIR means that none is needed, and that directories stay in the page cache.
    pub(in crate::view) const NO_OPENDIR_SUPPORT: u32 = 1 << 24;
    /// Cached pages are good until the server says otherwise, which it never does.
    const EXPLICIT_INVAL_DATA: u32 = 1 << 25;
    /// All of them.
    pub(in crate::view) const WANTED: u32 = ASYNC_READ
        | DO_READDIRPLUS
        | READDIRPLUS_AUTO
        | NO_OPEN_SUPPORT
        | PARALLEL_DIROPS
        | CACHE_SYMLINKS
        | NO_OPENDIR_SUPPORT
        | EXPLICIT_INVAL_DATA;
}

/// `FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR`, for kernels that want an OPEN answered.
pub(super) const OPEN_FLAGS: u32 = 1 << 1 | 1 << 3;

/// `FUSE_UNKNOWN_INO`: what readdir(3) shows where the number is not known.
pub(super) const UNKNOWN_INO: u64 = 0xffff_ffff;

/// How long the kernel may keep what it was told, in seconds: a lifetime, and no overflow in any kernel's jiffies.
const FOREVER_S: u64 = 1 << 30;

/// Length of `fuse_in_header`, bytes.
const IN_HEADER_BYTES: usize = 40;
/// Length of `fuse_out_header`, bytes.
pub(super) const OUT_HEADER_BYTES: usize = 16;

/// A request, taken apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) opcode: u32,
    /// What the answer repeats.
    pub(super) unique: u64,
    /// Which inode.
    pub(super) node: u64,
    /// What follows the header.
    pub(super) body: Body<'a>,
}

/// Hands out the fields that follow a request's header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    /// The next four bytes; 0 beyond the end.
    pub(super) fn u32(&mut self) -> u32 {
        u32::from_ne_bytes(self.take())
    }

    /// The next eight bytes; 0 beyond the end.
    pub(super) fn u64(&mut self) -> u64 {
        u64::from_ne_bytes(self.take())
    }

    /// The bytes before the next NUL.
    pub(super) fn name(self) -> &'a [u8] {
        self.0.split(|&byte| byte == 0).next().unwrap_or_default()
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().unwrap_or((&[0; N], &[]));
        self.0 = rest;
        *field
    }
}

impl<'a> Request<'a> {
    /// `None` if it is shorter than a header.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (header, body) = bytes.split_first_chunk::<IN_HEADER_BYTES>()?;
        let mut fields = Body(header);
        let _len = fields.u32();
        Some(Self {
            opcode: fields.u32(),
            unique: fields.u64(),
            node: fields.u64(),
            body: Body(body),
        })
    }
}

/// An answer in the making: header and what follows it.
#[derive(Debug, Default)]
pub(super) struct Reply {
    bytes: Vec<u8>,
}

impl Reply {
    /// Begins an answer to the request `unique`.
    pub(super) fn begin(&mut self, unique: u64) {
        self.bytes.clear();
        self.u32(0); // length
        self.u32(0); // error
        self.u64(unique);
    }

    /// Makes it an error: `errno` of errno(3), nothing else.
    pub(super) fn fail(&mut self, errno: i32) {
        self.bytes.truncate(OUT_HEADER_BYTES);
        if let Some(field) = self.bytes.get_mut(4..8) {
            field.copy_from_slice(&(-errno).to_ne_bytes());
        }
    }

    /// No answer at all.
    pub(super) fn none(&mut self) {
        self.bytes.clear();
    }

    /// The answer with its length filled in; empty if there is none.
    pub(super) fn finish(&mut self) -> &[u8] {
        let len = self.bytes.len() as u32;
        if let Some(field) = self.bytes.get_mut(..4) {
            field.copy_from_slice(&len.to_ne_bytes());
        }
        &self.bytes
    }

    /// How many bytes follow the header.
    pub(super) fn body_len(&self) -> usize {
        self.bytes.len().saturating_sub(OUT_HEADER_BYTES)
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_ne_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_ne_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Adds `len` bytes of zeros and gives them to be filled.
    pub(super) fn room(&mut self, len: usize) -> &mut [u8] {
        let at = self.bytes.len();
        self.bytes.resize(at + len, 0);
        self.bytes.get_mut(at..).unwrap_or_default()
    }

    /// `struct fuse_attr`.
    fn attr(&mut self, inode: &Inode) {
        let (major, minor) = inode.device();
        self.u64(inode.number());
        self.u64(inode.size);
        self.u64(inode.stat_blocks());
        for _ in 0..3 {
            self.u64(0); // no times
        }
        for _ in 0..3 {
            self.u32(0); // their nanoseconds
        }
        self.u32(u32::from(inode.mode));
        self.u32(1); // links
        self.u32(u32::from(inode.uid));
        self.u32(u32::from(inode.gid));
        self.u32(major << 8 | minor); // new_encode_dev(), for a minor below 256
        self.u32(BLOCK_BYTES as u32);
        self.u32(0); // flags
    }

    /// `struct fuse_attr_out`.
    pub(super) fn attr_out(&mut self, inode: &Inode) {
        self.u64(FOREVER_S);
        self.u64(0); // nanoseconds, padding
        self.attr(inode);
    }

    /// `struct fuse_entry_out`. Node 0: there is no such entry, and the kernel may remember that.
    pub(super) fn entry_out(&mut self, node: u64, inode: &Inode) {
        self.u64(node);
        self.u64(0); // generation
        self.u64(FOREVER_S); // the entry's
        self.u64(FOREVER_S); // the attributes'
        self.u64(0); // nanoseconds
        self.attr(inode);
    }

    /// The answer that there is no such entry, which the kernel may keep.
    pub(super) fn no_entry(&mut self) {
        self.u64(0);
        self.u64(0);
        self.u64(FOREVER_S);
        self.room(ENTRY_OUT_BYTES - 24);
    }

    /// `struct fuse_dirent` with its name and padding.
    pub(super) fn dirent(&mut self, ino: u64, next: u64, mode: u16, name: &[u8]) {
        self.u64(ino);
        self.u64(next);
        self.u32(name.len() as u32);
        self.u32(u32::from(mode >> 12)); // d_type of readdir(3)
        self.bytes(name);
        self.room(name.len().next_multiple_of(8) - name.len());
    }
}

/// Length of `fuse_entry_out`, bytes.
pub(super) const ENTRY_OUT_BYTES: usize = 128;

/// Length of a `fuse_dirent` with a name of that many bytes.
pub(super) fn dirent_bytes(name_len: usize) -> usize {
    24 + name_len.next_multiple_of(8)
}

/// The node id of an inode that is not the root: one more than where its twelve bytes lie.
///
/// An inode's number will not do: files with the same data share it. The offset is unique, needs no table, and is
/// turned back by [`node_offset`]. It is never 1, the root's id, as no entry lies at byte 0, nor 0, which means "none".
pub(super) fn node_id(inode: &Inode) -> u64 {
    inode.at.0 + 1
}

/// Where the twelve bytes of the inode lie whose node id this is; `None` if it is none's.
pub(super) fn node_offset(node: u64) -> Option<u64> {
    node.checked_sub(1)
        .filter(|at| *at != 0 && at.is_multiple_of(4))
}

/// Does the kernel take such an inode? One of no type that it knows would make it call the whole file system broken.
pub(super) fn is_presentable(inode: &Inode) -> bool {
    inode.kind != InodeKind::Unknown
}
