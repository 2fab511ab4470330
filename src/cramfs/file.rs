//! A file of an image as bytes that can be read at any offset, compressed or not.

use std::io;
use std::sync::{Mutex, PoisonError};

use super::reader::Block;
use super::{Image, Inode, InodeKind};
use crate::backing::ReadAt;
use crate::error::{Error, Result};
use crate::units::BLOCK_BYTES;

/// A regular file of an image, read block by block. The last block that had to be inflated is kept, so that small
/// reads one after the other inflate it once.
#[derive(Debug)]
pub struct ImageFile {
    image: Image,
    inode: Inode,
    blocks: Vec<Block>,
    inflated: Mutex<Inflated>,
}

/// A block that was inflated.
#[derive(Debug, Default)]
struct Inflated {
    number: Option<u64>,
    bytes: Vec<u8>,
}

impl ImageFile {
    /// Reads the file's block pointers.
    ///
    /// # Errors
    /// [`Kind::Failed`](crate::error::Kind) if it is no regular file; as [`Image::blocks`].
    pub fn open(image: &Image, inode: &Inode) -> Result<Self> {
        if inode.kind != InodeKind::File {
            return Err(Error::failed(format!(
                "inode at {}: not a regular file",
                inode.at
            )));
        }
        Ok(Self {
            image: image.clone(),
            inode: *inode,
            blocks: image.blocks(inode)?,
            inflated: Mutex::default(),
        })
    }

    /// Which file it is.
    pub fn inode(&self) -> &Inode {
        &self.inode
    }

    /// Where its blocks are.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Copies bytes of the file out, all of `buf` or nothing.
    ///
    /// # Errors
    /// [`Kind::Failed`](crate::error::Kind) if they are not all in the file; as [`Image::read_block`], with the inode
    /// and the block's number.
    pub fn read(&self, buf: &mut [u8], at: u64) -> Result<()> {
        let len_bytes = buf.len() as u64;
        if at
            .checked_add(len_bytes)
            .is_none_or(|end| end > self.inode.size)
        {
            return Err(Error::failed(format!(
                "inode at {}: bytes {at:#x}+{len_bytes:#x} lie beyond its {:#x}",
                self.inode.at, self.inode.size
            )));
        }
        let mut at = at;
        let mut rest = buf;
        while !rest.is_empty() {
            let (number, skip) = (at / BLOCK_BYTES, (at % BLOCK_BYTES) as usize);
            let len = rest.len().min(BLOCK_BYTES as usize - skip);
            let (part, after) = rest.split_at_mut(len);
            self.read_part(number, skip, part).map_err(|err| {
                err.context(format!("inode at {}: block {number}", self.inode.at))
            })?;
            at += len as u64;
            rest = after;
        }
        Ok(())
    }

    /// Fills `part` with the bytes from `skip` on of one block.
    fn read_part(&self, number: u64, skip: usize, part: &mut [u8]) -> Result<()> {
        let block = self.blocks.get(number as usize).copied();
        match block.unwrap_or(Block::Hole) {
            Block::Hole => {
                part.fill(0);
                Ok(())
            }
            // Read where it is, without the bytes before them. What is stored short ends in zeros.
            Block::Stored { at, len_bytes } => {
                let stored = (len_bytes as usize).saturating_sub(skip).min(part.len());
                let (stored, missing) = part.split_at_mut(stored);
                missing.fill(0);
                if stored.is_empty() {
                    // Where it would be may lie beyond the image.
                    return Ok(());
                }
                self.image.read_exact_at(stored, at.0 + skip as u64)
            }
            block @ Block::Compressed { .. } if part.len() as u64 == BLOCK_BYTES => {
                self.image.read_block(block, part)
            }
            block @ Block::Compressed { .. } => {
                let mut kept = self.inflated.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.number != Some(number) {
                    kept.number = None;
                    kept.bytes.resize(BLOCK_BYTES as usize, 0);
                    self.image.read_block(block, &mut kept.bytes)?;
                    kept.number = Some(number);
                }
                for (to, from) in part.iter_mut().zip(kept.bytes.iter().skip(skip)) {
                    *to = *from;
                }
                Ok(())
            }
        }
    }
}

impl ReadAt for ImageFile {
    fn len_bytes(&self) -> u64 {
        self.inode.size
    }

    /// The library's own error is inside the [`io::Error`].
    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        self.read(buf, at).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_golden_file_reads_the_same_in_pieces() {
        for name in [
            "plain",
            "ext",
            "xip-mmu",
            "holes-ext",
            "big-endian",
            "pad512",
        ] {
            let path = format!("{}/tests/golden/{name}.cramfs", env!("CARGO_MANIFEST_DIR"));
            let image = Image::open(std::fs::read(path).unwrap()).unwrap();
            for file in [
                "/bin/prog32",
                "/bin/prog64",
                "/data/holes.bin",
                "/data/odd.bin",
                "/data/text.txt",
                "/data/empty",
            ] {
                let inode = image.lookup(file.as_bytes()).unwrap();
                let whole = image.read_file(&inode).unwrap();
                let opened = ImageFile::open(&image, &inode).unwrap();
                assert_eq!(opened.len_bytes(), whole.len() as u64);
                for step in [1000, 4096, 5000] {
                    let mut pieces = vec![0xaa; whole.len()];
                    for (number, piece) in pieces.chunks_mut(step).enumerate() {
                        opened.read_exact_at(piece, (number * step) as u64).unwrap();
                    }
                    assert!(pieces == whole, "{name}{file} by {step}");
                }
                let end = whole.len() as u64;
                assert!(opened.read_exact_at(&mut [0], end).is_err());
                assert!(opened.read_exact_at(&mut [0; 2], u64::MAX).is_err());
            }
        }
    }

    #[test]
    fn only_regular_files_have_bytes() {
        let path = format!("{}/tests/golden/plain.cramfs", env!("CARGO_MANIFEST_DIR"));
        let image = Image::open(std::fs::read(path).unwrap()).unwrap();
        for other in ["/bin", "/dev/null", "/tmp-fifo"] {
            let inode = image.lookup(other.as_bytes()).unwrap();
            assert!(ImageFile::open(&image, &inode).is_err());
        }
    }
}
