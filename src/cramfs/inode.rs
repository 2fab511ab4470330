//! An inode: what its twelve bytes mean to Linux.

use super::format::RawInode;
use crate::units::{BLOCK_BYTES, ImageOffset};

/// What an inode is, from its `st_mode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InodeKind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
    /// None that Linux knows.
    Unknown,
}

impl InodeKind {
    /// The type in `mode`, an `st_mode`.
    pub fn of_mode(mode: u16) -> Self {
        match mode >> 12 {
            0o10 => Self::File,
            0o04 => Self::Directory,
            0o12 => Self::Symlink,
            0o02 => Self::CharDevice,
            0o06 => Self::BlockDevice,
            0o01 => Self::Fifo,
            0o14 => Self::Socket,
            _ => Self::Unknown,
        }
    }

    /// Does its offset lead to data? (`fs/cramfs/inode.c cramino()`: for the others it is meaningless.)
    pub fn has_data(self) -> bool {
        matches!(self, Self::File | Self::Directory | Self::Symlink)
    }
}

/// An inode and where it was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inode {
    /// Where the 12 bytes of the inode lie.
    pub at: ImageOffset,
    /// Type.
    pub kind: InodeKind,
    /// `st_mode`, type included.
    pub mode: u16,
    /// Owner.
    pub uid: u16,
    /// Group.
    pub gid: u8,
    /// Bytes of a file, directory or link; 0 for the rest.
    pub size: u64,
    /// `major << 8 | minor` of a device; 0 for the rest.
    pub rdev: u16,
    /// Where the data (block pointers, entries) starts; 0 if there is none.
    pub data: ImageOffset,
    number: u64,
}

impl Inode {
    /// The inode stored as `raw` at byte `at`. As in Linux, one without a data offset is empty, whatever its size says
    /// (`fs/cramfs/inode.c get_cramfs_inode()`).
    pub(super) fn new(raw: &RawInode, at: u64) -> Self {
        let kind = InodeKind::of_mode(raw.mode);
        let has_data = kind.has_data() && raw.size != 0 && raw.offset_words != 0;
        let (size, data) = if has_data {
            (u64::from(raw.size), u64::from(raw.offset_words) << 2)
        } else {
            (0, 0)
        };
        let device = matches!(kind, InodeKind::CharDevice | InodeKind::BlockDevice);
        Self {
            at: ImageOffset(at),
            kind,
            mode: raw.mode,
            uid: raw.uid,
            gid: raw.gid,
            size,
            rdev: if device { raw.size as u16 } else { 0 },
            data: ImageOffset(data),
            number: if has_data { data } else { at + 1 },
        }
    }

    /// The root, stored as `raw` in the superblock at byte `at`. Linux widens its mode, because mkcramfs writes odd ones
    /// (`cramfs_read_super()`), and numbers an empty one 1, wherever the superblock is (`cramfs_finalize_super()`).
    pub(super) fn root(raw: &RawInode, at: u64) -> Self {
        let mut root = Self::new(raw, at);
        root.mode |= 0o555;
        if root.data.0 == 0 {
            root.number = 1;
        }
        root
    }

    /// The inode number that Linux shows, `st_ino`: the data's offset where there is data, else one more than the
    /// inode's own (`cramino()`). Files with the same data have the same number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// `major` and `minor` of a device (`old_decode_dev()`): `(1, 3)` for /dev/null.
    pub fn device(&self) -> (u32, u32) {
        (u32::from(self.rdev >> 8), u32::from(self.rdev & 0xff))
    }

    /// `st_blocks` as Linux shows it: how many units of 512 bytes the contents would fill, stored small or not.
    pub fn stat_blocks(&self) -> u64 {
        self.size.div_ceil(512)
    }

    /// How many 4 KiB blocks, and so block pointers, a file or link has.
    pub fn block_count(&self) -> u64 {
        self.size.div_ceil(BLOCK_BYTES)
    }
}

/// A directory entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The name, without its padding.
    pub name: Vec<u8>,
    /// What it names.
    pub inode: Inode,
}
