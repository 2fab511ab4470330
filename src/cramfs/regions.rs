//! Which bytes of an image are whose.

use super::format::SUPER_BYTES;
use super::{Block, Inode};
use super::{Image, InodeKind};
use crate::units::ImageOffset;

/// What a region holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegionKind {
    /// The superblock with the root inode.
    Superblock,
    /// Directory entries.
    Directory,
    /// A file's block pointers.
    Pointers,
    /// Blocks, each a zlib stream.
    Compressed,
    /// Blocks as they are.
    Stored,
    /// Nobody's bytes, all zero or not.
    Unused,
}

impl std::fmt::Display for RegionKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Superblock => "superblock",
            Self::Directory => "directory",
            Self::Pointers => "pointers",
            Self::Compressed => "compressed",
            Self::Stored => "stored",
            Self::Unused => "unused",
        })
    }
}

/// Some bytes of the image and the inode that they belong to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, serde::Serialize)]
pub struct Region {
    /// First byte.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// What it holds.
    pub kind: RegionKind,
    /// Where the inode lies (for the superblock and what is unused: 0).
    pub inode: ImageOffset,
}

impl Region {
    /// The superblock's region.
    pub fn superblock(image: &Image) -> Self {
        Self {
            start: image.super_offset(),
            end: image.super_offset() + SUPER_BYTES,
            kind: RegionKind::Superblock,
            inode: ImageOffset(0),
        }
    }

    /// The entries of a directory, unless it is empty.
    pub fn directory(inode: &Inode) -> Option<Self> {
        (inode.kind == InodeKind::Directory && inode.size > 0).then_some(Self {
            start: inode.data.0,
            end: inode.data.0 + inode.size,
            kind: RegionKind::Directory,
            inode: inode.at,
        })
    }

    /// The regions of a file or link with these blocks; adjacent blocks of a kind make one region.
    pub fn of_file(inode: &Inode, blocks: &[Block]) -> Vec<Self> {
        let mut regions: Vec<Self> = Vec::new();
        let pointers = (RegionKind::Pointers, inode.data.0, 4 * inode.block_count());
        let stored = blocks.iter().filter_map(|block| match *block {
            Block::Hole => None,
            Block::Stored { at, len_bytes } => Some((RegionKind::Stored, at.0, len_bytes.into())),
            Block::Compressed { at, len_bytes } => {
                Some((RegionKind::Compressed, at.0, len_bytes.into()))
            }
        });
        for (kind, start, len_bytes) in std::iter::once(pointers).chain(stored) {
            let end = start + len_bytes;
            // Direct streams have two bytes of length and up to three of alignment between them.
            let slack = if kind == RegionKind::Compressed { 5 } else { 0 };
            match regions.last_mut() {
                Some(last)
                    if last.kind == kind && (last.end..=last.end + slack).contains(&start) =>
                {
                    last.end = end;
                }
                _ if len_bytes == 0 => {}
                _ => regions.push(Self {
                    start,
                    end,
                    kind,
                    inode: inode.at,
                }),
            }
        }
        regions
    }
}
