//! Images written byte by byte: what no builder makes.
#![allow(dead_code, unreachable_pub)]

use xip_run::cramfs::format::{RawInode, RawSuper, SIGNATURE, SUPER_BYTES, flags};
use xip_run::cramfs::{Endian, Image};

pub const FILE: u16 = 0o100_644;
pub const DIR: u16 = 0o040_755;
pub const LINK: u16 = 0o120_777;

/// An image in the making: the root directory after the superblock, then whatever is put.
pub struct Craft {
    pub bytes: Vec<u8>,
    pub flags: u32,
    pub endian: Endian,
    root: (u64, u64),
    files: u32,
}

/// One entry's bytes.
pub fn entry(name: &[u8], mode: u16, size: u64, data: u64) -> Vec<u8> {
    let words = name.len().div_ceil(4);
    let inode = RawInode {
        mode,
        size: size as u32,
        namelen_words: words as u8,
        offset_words: (data / 4) as u32,
        ..RawInode::default()
    };
    let mut bytes = inode.encode(Endian::Little).to_vec();
    bytes.extend_from_slice(name);
    bytes.resize(12 + 4 * words, 0);
    bytes
}

impl Craft {
    pub fn new() -> Self {
        Self {
            bytes: vec![0; SUPER_BYTES as usize],
            flags: flags::FSID_V2 | flags::SORTED_DIRS | flags::EXT_BLOCK_POINTERS | flags::HOLES,
            endian: Endian::Little,
            root: (0, 0),
            files: 1,
        }
    }

    /// Where the next bytes go.
    pub fn here(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Puts bytes, filled up to a multiple of four; where they are.
    pub fn put(&mut self, bytes: &[u8]) -> u64 {
        let at = self.here();
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        at
    }

    /// Puts block pointers.
    pub fn pointers(&mut self, pointers: &[u32]) -> u64 {
        let bytes: Vec<u8> = pointers.iter().flat_map(|p| p.to_le_bytes()).collect();
        self.put(&bytes)
    }

    /// The root directory's entries; they can refer to what was put before.
    pub fn root(&mut self, entries: &[Vec<u8>]) {
        let bytes = entries.concat();
        let at = self.put(&bytes);
        self.root_at(at, bytes.len() as u64);
        self.files = 1 + entries.len() as u32;
    }

    pub fn root_at(&mut self, at: u64, len: u64) {
        self.root = (at, len);
        if at != SUPER_BYTES {
            self.flags |= flags::SHIFTED_ROOT;
        }
    }

    /// Writes the superblock. The counts are right only by chance.
    pub fn bytes(mut self) -> Vec<u8> {
        let mut superblock = RawSuper {
            size: self.bytes.len() as u32,
            flags: self.flags,
            signature: *SIGNATURE,
            files: self.files,
            root: RawInode {
                mode: DIR,
                size: self.root.1 as u32,
                offset_words: (self.root.0 / 4) as u32,
                ..RawInode::default()
            },
            ..RawSuper::default()
        };
        let len = SUPER_BYTES as usize;
        self.bytes[..len].copy_from_slice(&superblock.encode(self.endian));
        superblock.crc = crc32fast::hash(&self.bytes);
        self.bytes[..len].copy_from_slice(&superblock.encode(self.endian));
        self.bytes
    }

    pub fn image(self) -> Image {
        Image::open(self.bytes()).unwrap()
    }
}
