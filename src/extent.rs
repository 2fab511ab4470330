//! The extents of a file: consecutive blocks of one kind, as runs.

use crate::cramfs::reader::Block;
use crate::cramfs::{Image, Inode};
use crate::error::Result;
use crate::units::{BLOCK_BYTES, ImageOffset};

/// How the blocks of an extent are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Storage {
    /// As they are, one after the other from `at`.
    Stored {
        /// First byte of the first block.
        at: ImageOffset,
    },
    /// As one zlib stream a block.
    Compressed {
        /// First byte of the first stream.
        at: ImageOffset,
    },
    /// Not at all: zeros.
    Hole,
}

/// A run of blocks of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Extent {
    /// Number of the first block in the file.
    pub first_block: u64,
    /// Number of blocks, at least 1.
    pub blocks: u64,
    /// Bytes of the image that they take.
    pub stored_bytes: u64,
    /// Where and how.
    #[serde(flatten)]
    pub storage: Storage,
}

impl Extent {
    fn of_block(number: u64, block: Block) -> Self {
        let (stored_bytes, storage) = match block {
            Block::Hole => (0, Storage::Hole),
            Block::Stored { at, len_bytes } => (u64::from(len_bytes), Storage::Stored { at }),
            Block::Compressed { at, len_bytes } => {
                (u64::from(len_bytes), Storage::Compressed { at })
            }
        };
        Self {
            first_block: number,
            blocks: 1,
            stored_bytes,
            storage,
        }
    }

    /// Does `next`, the block after this extent, continue it? Stored blocks must be whole and adjacent for that.
    fn continues(&self, next: &Self) -> bool {
        match (self.storage, next.storage) {
            (Storage::Hole, Storage::Hole)
            | (Storage::Compressed { .. }, Storage::Compressed { .. }) => true,
            (Storage::Stored { at }, Storage::Stored { at: next_at }) => {
                self.stored_bytes == self.blocks * BLOCK_BYTES
                    && at.0 + self.stored_bytes == next_at.0
            }
            _ => false,
        }
    }
}

/// The extents of a file, in order, without gaps.
///
/// # Errors
/// As [`Image::blocks`].
pub fn extents(image: &Image, inode: &Inode) -> Result<Vec<Extent>> {
    Ok(of_blocks(&image.blocks(inode)?))
}

/// The extents of a file with these blocks.
pub fn of_blocks(blocks: &[Block]) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    for (number, &block) in blocks.iter().enumerate() {
        let next = Extent::of_block(number as u64, block);
        match extents.last_mut() {
            Some(last) if last.continues(&next) => {
                last.blocks += 1;
                last.stored_bytes += next.stored_bytes;
            }
            _ => extents.push(next),
        }
    }
    extents
}
