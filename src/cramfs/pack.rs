//! Turns the contents of one file into blocks: what to compress, what to store, and which pages run in place.

use std::ops::Range;

use flate2::{Compress, Compression, FlushCompress, Status};

use crate::error::{Error, Result};
use crate::units::{BLOCK_BYTES, PageSize};

/// A block as it goes into the packed part of the image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Packed {
    /// Only zeros.
    Hole,
    /// A zlib stream.
    Compressed(Vec<u8>),
    /// As it is, because compression would grow it.
    Stored(Vec<u8>),
}

impl Packed {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Hole => &[],
            Self::Compressed(bytes) | Self::Stored(bytes) => bytes,
        }
    }
}

/// How many bytes the blocks of a file take if none of them is to run in place.
///
/// # Errors
/// Whatever zlib says.
pub fn compressed_bytes(content: &[u8]) -> Result<u64> {
    let blocks = Packer::new().pack_all(content, true, false)?;
    Ok(blocks.iter().map(|block| block.bytes().len() as u64).sum())
}

/// Compresses blocks, one after the other, each a zlib stream of its own.
pub(super) struct Packer {
    zlib: Compress,
}

impl Packer {
    pub(super) fn new() -> Self {
        Self {
            zlib: Compress::new(Compression::best(), true),
        }
    }

    /// Packs a block. `may_store` says that the image has extended pointers, without which every block is compressed.
    pub(super) fn pack(&mut self, block: &[u8], may_store: bool) -> Result<Packed> {
        // A stream of incompressible bytes is longer than they are: by 11 bytes, but nothing promises that.
        let mut stream = Vec::with_capacity(2 * BLOCK_BYTES as usize);
        self.zlib.reset();
        let status = self
            .zlib
            .compress_vec(block, &mut stream, FlushCompress::Finish)
            .map_err(|err| Error::failed(format!("zlib: {err}")))?;
        if status != Status::StreamEnd {
            return Err(Error::failed("zlib: a block grew to more than 8192 bytes"));
        }
        Ok(if may_store && stream.len() >= block.len() {
            Packed::Stored(block.to_vec())
        } else {
            Packed::Compressed(stream)
        })
    }

    /// Packs a whole file. With `may_leave_out`, zero blocks become holes, but never the last: the reference cramfsck
    /// takes a final hole for a block of the wrong length.
    pub(super) fn pack_all(
        &mut self,
        content: &[u8],
        may_store: bool,
        may_leave_out: bool,
    ) -> Result<Vec<Packed>> {
        let count = content.len().div_ceil(BLOCK_BYTES as usize);
        content
            .chunks(BLOCK_BYTES as usize)
            .enumerate()
            .map(|(number, block)| {
                if may_leave_out && number + 1 < count && is_zero(block) {
                    Ok(Packed::Hole)
                } else {
                    self.pack(block, may_store)
                }
            })
            .collect()
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// The block ranges that run in place, from byte ranges of a file of `size` bytes: each made of whole pages (the last
/// may be cut by the file's end), not adjacent, in order.
///
/// A whole last block is stored with a pointer that says only where it ends, because Linux takes the length of a direct
/// one for 0 (`cramfs_read_folio()`: `offset_in_page(inode->i_size)`); so the block before it must be in place too.
pub(super) fn block_runs(ranges: &[Range<u64>], size: u64, page: PageSize) -> Vec<Range<u64>> {
    let pages = page.count(size);
    let page_blocks = page.bytes() / BLOCK_BYTES;
    let mut wanted: Vec<Range<u64>> = ranges
        .iter()
        .filter(|range| range.start < range.end.min(size))
        .map(|range| range.start / page.bytes()..page.count(range.end.min(size)))
        .collect();
    wanted.sort_unstable_by_key(|range| (range.start, range.end));
    let last_block = size.div_ceil(BLOCK_BYTES).saturating_sub(1);
    if has_whole_last_block(size)
        && let Some(run) = wanted.iter_mut().max_by_key(|run| run.end)
        && run.end == pages
        && run.start > 0
        && run.start * page_blocks == last_block
    {
        run.start -= 1;
        wanted.sort_unstable_by_key(|range| (range.start, range.end));
    }
    let mut runs: Vec<Range<u64>> = Vec::new();
    for range in wanted {
        match runs.last_mut() {
            Some(run) if range.start <= run.end => run.end = run.end.max(range.end),
            _ => runs.push(range),
        }
    }
    for run in &mut runs {
        *run = run.start * page_blocks..(run.end * page_blocks).min(last_block + 1);
    }
    runs
}

/// Does a file of `size` bytes end with a block of 4096 bytes?
pub(super) fn has_whole_last_block(size: u64) -> bool {
    size > 0 && size.is_multiple_of(BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The runs of a file of `size` bytes for one range or two.
    fn runs(ranges: &[(u64, u64)], size: u64, page: PageSize) -> Vec<(u64, u64)> {
        let ranges: Vec<Range<u64>> = ranges.iter().map(|&(start, end)| start..end).collect();
        let runs = block_runs(&ranges, size, page).into_iter();
        runs.map(|run| (run.start, run.end)).collect()
    }

    #[test]
    fn runs_are_whole_pages() {
        let k4 = |ranges: &[_], size| runs(ranges, size, PageSize::K4);
        assert_eq!(k4(&[(0, 10), (0x1fff, 0x2001)], 0x9001), [(0, 3)]);
        assert_eq!(k4(&[(0x3000, 0x3001), (0, 1)], 0x9001), [(0, 1), (3, 4)]);
        assert_eq!(k4(&[(0x8000, 0x20000), (0x9000, 0xa000)], 0x8801), [(8, 9)]);
        assert_eq!(k4(&[(0, 0), (7, 3)], 0x9001), []);
        assert_eq!(k4(&[(0x9001, u64::MAX)], 0x9001), []);
        let k64 = runs(&[(0x12000, 0x12001)], 0x1a001, PageSize::K64);
        assert_eq!(k64, [(16, 27)]);
    }

    #[test]
    fn a_whole_last_block_brings_the_page_before_it() {
        let last = &[(0x8000, 0x9000)];
        assert_eq!(runs(last, 0x9000, PageSize::K4), [(7, 9)]);
        assert_eq!(runs(last, 0x8800, PageSize::K4), [(8, 9)]);
        assert_eq!(runs(last, 0x9000, PageSize::K16), [(4, 9)]);
        let two = &[(0, 1), (0x10000, 0x10001)];
        assert_eq!(runs(two, 0x11000, PageSize::K64), [(0, 17)]);
        assert_eq!(runs(&[(0, 1)], 0x1000, PageSize::K4), [(0, 1)]);
    }

    #[test]
    fn what_grows_is_stored_only_with_extended_pointers() {
        let mut packer = Packer::new();
        let tiny = b"prog32";
        assert_eq!(
            packer.pack(tiny, true).unwrap(),
            Packed::Stored(tiny.to_vec())
        );
        assert!(matches!(
            packer.pack(tiny, false).unwrap(),
            Packed::Compressed(_)
        ));
        let zeros = packer.pack_all(&[0; 8192], true, true).unwrap();
        assert_eq!(zeros.first(), Some(&Packed::Hole));
        assert!(matches!(zeros.last(), Some(Packed::Compressed(_))));
        let zeros = packer.pack_all(&[0; 8192], true, false).unwrap();
        assert!(matches!(zeros.first(), Some(Packed::Compressed(_))));
    }
}
