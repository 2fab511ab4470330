//! Reads an image: superblock, directories, block pointers, file contents.
//!
//! Everything in an image is hostile. Nothing here indexes or wraps; every allocation is bounded by the bytes that
//! really are in the image, not by what a header claims; every error names the inode and the offset. [`Image::open`]
//! accepts whatever can be looked at; [`Image::require_runnable`] is the narrow gate for what Linux would mount.

use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;

use miniz_oxide::inflate::{TINFLStatus, decompress_slice_iter_to_slice};

use super::directory::Entries;
use super::format::{
    self, BlockPointer, Endian, INODE_BYTES, PointerTarget, RawInode, RawSuper, SUPER_BYTES,
    SUPER_CRC_OFFSET, SUPER_OFFSETS, flags,
};
use super::inode::{Entry, Inode, InodeKind};
use crate::backing::ReadAt;
use crate::error::{Error, Kind, Result};
use crate::units::{BLOCK_BYTES, ImageOffset};

/// Longest symbolic link target in bytes: `PATH_MAX` less its NUL.
const MAX_LINK_BYTES: u64 = 4095;
/// Longest zlib stream of a block in bytes (`fs/cramfs/inode.c cramfs_read_folio()`: `2*PAGE_SIZE`).
pub(super) const MAX_STREAM_BYTES: usize = 2 * BLOCK_BYTES as usize;

/// Where one block of a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Block {
    /// Nowhere: it reads as zeros.
    Hole,
    /// As it is, `len_bytes` bytes from `at`; what is missing to the block's length reads as zeros.
    Stored {
        /// First byte.
        at: ImageOffset,
        /// 1 to 4096.
        len_bytes: u32,
    },
    /// A zlib stream of `len_bytes` bytes from `at`.
    Compressed {
        /// First byte of the stream (after the length, if the pointer is direct).
        at: ImageOffset,
        /// 1 to 8192.
        len_bytes: u32,
    },
}

/// An image, opened for reading.
#[derive(Clone)]
pub struct Image {
    bytes: Arc<dyn ReadAt>,
    raw: RawSuper,
    endian: Endian,
    super_at: u64,
    limit: u64,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Image({:?}, {} endian, superblock at {})",
            self.raw, self.endian, self.super_at
        )
    }
}

impl Image {
    /// Finds the superblock at byte 0 or 512, in either byte order.
    ///
    /// # Errors
    /// [`Kind::BadImage`] if there is none.
    pub fn open(bytes: impl ReadAt + 'static) -> Result<Self> {
        Self::open_shared(Arc::new(bytes))
    }

    /// The same for bytes that somebody else holds too.
    ///
    /// # Errors
    /// As [`Image::open`].
    pub fn open_shared(bytes: Arc<dyn ReadAt>) -> Result<Self> {
        let backing_bytes = bytes.len_bytes();
        for super_at in SUPER_OFFSETS {
            let mut buf = [0; SUPER_BYTES as usize];
            match bytes.read_exact_at(&mut buf, super_at) {
                Ok(()) => {}
                Err(err) if err.kind() == ErrorKind::UnexpectedEof => continue,
                Err(err) => {
                    return Err(Error::failed(format!(
                        "superblock at {super_at:#x}: read: {err}"
                    )));
                }
            }
            let Some((raw, endian)) = RawSuper::decode(&buf) else {
                continue;
            };
            let claimed = if raw.flags & flags::FSID_V2 != 0 {
                u64::from(raw.size)
            } else {
                format::DATA_OFFSET_LIMIT
            };
            let limit = claimed.min(backing_bytes);
            return Ok(Self {
                bytes,
                raw,
                endian,
                super_at,
                limit,
            });
        }
        Err(Error::bad_image(format!(
            "no cramfs superblock at byte 0 or 512 of {backing_bytes} bytes; is it a cramfs image?"
        )))
    }

    /// The superblock as stored.
    pub fn superblock(&self) -> &RawSuper {
        &self.raw
    }

    /// The image's byte order.
    pub fn endian(&self) -> Endian {
        self.endian
    }

    /// Where the superblock lies: 0 or 512.
    pub fn super_offset(&self) -> u64 {
        self.super_at
    }

    /// One past the last byte that may be read: the claimed size, or the backing's where that is less.
    pub fn limit_bytes(&self) -> u64 {
        self.limit
    }

    /// Is there more in the image than in its backing?
    pub fn is_truncated(&self) -> bool {
        self.raw.flags & flags::FSID_V2 != 0 && u64::from(self.raw.size) > self.bytes.len_bytes()
    }

    /// What Linux checks before it mounts an image (`fs/cramfs/inode.c cramfs_read_super()`), the host's byte order
    /// excepted: the launcher reads either.
    ///
    /// # Errors
    /// [`Kind::BadImage`], with what is wrong.
    pub fn require_runnable(&self) -> Result<()> {
        let v2 = self.raw.flags & flags::FSID_V2 != 0;
        if v2 && u64::from(self.raw.size) < self.super_at + SUPER_BYTES {
            return Err(Error::bad_image(format!(
                "the superblock at {:#x} says that the image is {:#x} bytes long: too few to hold it",
                self.super_at, self.raw.size
            )));
        }
        let unknown = self.raw.flags & !flags::SUPPORTED;
        if unknown != 0 {
            return Err(Error::bad_image(format!(
                "superblock flags {unknown:#x} are of no cramfs this program or Linux knows"
            )));
        }
        if InodeKind::of_mode(self.raw.root.mode) != InodeKind::Directory {
            return Err(Error::bad_image(format!(
                "the root inode has mode {:#o}: not a directory",
                self.raw.root.mode
            )));
        }
        let root_at = u64::from(self.raw.root.offset_words) << 2;
        let shifted = self.raw.flags & flags::SHIFTED_ROOT != 0;
        if root_at != 0 && !shifted && !SUPER_OFFSETS.map(|at| at + SUPER_BYTES).contains(&root_at)
        {
            return Err(Error::bad_image(format!(
                "the root directory is at {root_at:#x} without the SHIFTED_ROOT flag"
            )));
        }
        if self.is_truncated() {
            return Err(Error::bad_image(format!(
                "truncated: the superblock says {} bytes, there are {}",
                self.raw.size,
                self.bytes.len_bytes()
            )));
        }
        Ok(())
    }

    /// The root directory, with the mode and the number that Linux gives it.
    pub fn root(&self) -> Inode {
        let at = self.super_at + SUPER_BYTES - INODE_BYTES;
        Inode::root(&self.raw.root, at)
    }

    /// An inode as it is stored.
    pub(super) fn raw_inode(&self, inode: &Inode) -> Result<RawInode> {
        let mut bytes = [0; INODE_BYTES as usize];
        self.read_exact_at(&mut bytes, inode.at.0)?;
        Ok(RawInode::decode(&bytes, self.endian))
    }

    /// Copies bytes out of the image.
    ///
    /// # Errors
    /// [`Kind::BadImage`] if they are not all inside it, [`Kind::Failed`] if reading fails.
    pub fn read_exact_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
        let inside = at
            .checked_add(buf.len() as u64)
            .is_some_and(|end| end <= self.limit);
        if !inside {
            return Err(self.outside(at, buf.len() as u64));
        }
        let len = buf.len();
        self.bytes.read_exact_at(buf, at).map_err(|err| {
            if err.kind() == ErrorKind::UnexpectedEof {
                return Error::bad_image(format!(
                    "bytes {at:#x}+{len:#x} are gone: the image has shrunk since it was opened"
                ));
            }
            Error::failed(format!("read {len:#x} bytes at {at:#x}: {err}"))
        })
    }

    pub(super) fn outside(&self, at: u64, len_bytes: u64) -> Error {
        Error::bad_image(format!(
            "bytes {at:#x}+{len_bytes:#x} lie outside the image, which ends at {:#x}",
            self.limit
        ))
    }

    /// The same, into a vector. Allocates only after the range was found to lie inside the image.
    fn read_vec(&self, at: u64, len_bytes: u64) -> Result<Vec<u8>> {
        if at.checked_add(len_bytes).is_none_or(|end| end > self.limit) {
            return Err(self.outside(at, len_bytes));
        }
        let mut bytes = vec![0; len_bytes as usize];
        self.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }

    /// Computes the image's CRC: from the superblock to the end, the crc field taken as zero.
    ///
    /// # Errors
    /// If the image is truncated, is too old to have one (no FSID_V2), or cannot be read.
    pub fn compute_crc(&self) -> Result<u32> {
        self.require_runnable()?;
        if self.raw.flags & flags::FSID_V2 == 0 {
            return Err(Error::bad_image("an image of version 1 has no CRC"));
        }
        let mut hasher = crc32fast::Hasher::new();
        let mut buf = vec![0; self.limit.min(64 * 1024) as usize];
        let crc_at = self.super_at + SUPER_CRC_OFFSET;
        let mut at = self.super_at;
        while at < self.limit {
            let len = (self.limit - at).min(buf.len() as u64) as usize;
            let chunk = buf.get_mut(..len).unwrap_or_default();
            self.read_exact_at(chunk, at)?;
            if at <= crc_at {
                let field = (crc_at - at) as usize;
                chunk.get_mut(field..field + 4).unwrap_or_default().fill(0);
            }
            hasher.update(chunk);
            at += len as u64;
        }
        Ok(hasher.finalize())
    }

    /// Is the CRC right?
    ///
    /// # Errors
    /// [`Kind::BadImage`] with both values if not; else as [`Image::compute_crc`].
    pub fn verify_crc(&self) -> Result<()> {
        let computed = self.compute_crc()?;
        if computed == self.raw.crc {
            return Ok(());
        }
        Err(Error::bad_image(format!(
            "CRC is {computed:#010x}, the superblock says {:#010x}: the image is damaged; write it again",
            self.raw.crc
        )))
    }

    /// Why the image as a whole cannot be trusted: a wrong CRC, or a superblock that Linux would not take. An image too
    /// old to have a CRC has no such problem.
    pub fn damage(&self) -> Option<Error> {
        let checked = if self.raw.flags & flags::FSID_V2 == 0 {
            self.require_runnable()
        } else {
            self.verify_crc()
        };
        checked.err()
    }

    /// The first `len_bytes` bytes of an inode's data: its entries or block pointers.
    fn read_data(&self, inode: &Inode, len_bytes: u64) -> Result<Vec<u8>> {
        self.require_data(inode, len_bytes)?;
        self.read_vec(inode.data.0, len_bytes)
    }

    /// Refuses an inode whose first `len_bytes` bytes of data lie in the superblock.
    pub(super) fn require_data(&self, inode: &Inode, len_bytes: u64) -> Result<()> {
        let start = inode.data.0;
        if start < self.super_at + SUPER_BYTES && self.super_at < start + len_bytes {
            return Err(Error::bad_image(format!(
                "its data at {start:#x} lies in the superblock"
            )));
        }
        Ok(())
    }

    /// The inode whose twelve bytes lie at `at`, as an entry there would have it. That there is one is the caller's
    /// knowledge: any twelve bytes are some inode.
    ///
    /// # Errors
    /// [`Kind::BadImage`] if they lie outside the image, [`Kind::Failed`] if reading fails.
    pub fn inode_at(&self, at: ImageOffset) -> Result<Inode> {
        let mut bytes = [0; INODE_BYTES as usize];
        self.read_exact_at(&mut bytes, at.0)?;
        Ok(Inode::new(&RawInode::decode(&bytes, self.endian), at.0))
    }

    /// The bytes of a directory.
    pub(super) fn read_directory(&self, dir: &Inode) -> Result<Vec<u8>> {
        if dir.kind != InodeKind::Directory {
            return Err(Error::new(Kind::NotDirectory, "not a directory"));
        }
        if dir.size == 0 {
            return Ok(Vec::new());
        }
        self.read_data(dir, dir.size)
            .map_err(|err| err.context(format!("directory with the inode at {}", dir.at)))
    }

    /// The entries of a directory, in the image's order, without `.` and `..`. They take about ten times the memory of
    /// the directory's bytes, which are all in the image and at most 16 MiB.
    ///
    /// # Errors
    /// [`Kind::NotDirectory`]; [`Kind::BadImage`] for data outside the image, an entry that does not fit, an empty
    /// name or one that no path can hold.
    pub fn entries(&self, dir: &Inode) -> Result<Vec<Entry>> {
        let data = self.read_directory(dir)?;
        Entries::new(&data, dir.data.0, self.endian)
            .map(|entry| {
                let (name, inode) = entry?;
                let name = name.to_vec();
                Ok(Entry { name, inode })
            })
            .collect()
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// [`Kind::BadImage`] if it is longer than `PATH_MAX`, empty, holds a NUL or cannot be read.
    pub fn read_link(&self, link: &Inode) -> Result<Vec<u8>> {
        let bad = |what: &str| Error::bad_image(format!("symbolic link at {}: {what}", link.at));
        if link.size > MAX_LINK_BYTES {
            return Err(bad("longer than PATH_MAX"));
        }
        let target = self.read_file(link)?;
        match target.as_slice() {
            b"" => Err(bad("empty target")),
            target if target.contains(&0) => Err(bad("a NUL in its target")),
            _ => Ok(target),
        }
    }

    /// Where every block of a file or link is.
    ///
    /// # Errors
    /// [`Kind::NotRunnable`] for a directory; [`Kind::BadImage`] for pointers or blocks outside the image, backwards or
    /// over-long; the block is named.
    pub fn blocks(&self, inode: &Inode) -> Result<Vec<Block>> {
        self.blocks_in(inode, 0..inode.block_count())
    }

    /// Where those of a file's blocks are whose numbers lie in `range`, and in the file. Only their pointers are read,
    /// and the one before them.
    ///
    /// # Errors
    /// As [`Image::blocks`], for these blocks.
    pub fn blocks_in(&self, inode: &Inode, range: Range<u64>) -> Result<Vec<Block>> {
        let fail = |err: Error| err.context(format!("inode at {}", inode.at));
        if inode.kind == InodeKind::Directory {
            return Err(fail(Error::not_runnable("a directory (EISDIR)")));
        }
        let count = inode.block_count();
        let range = range.start..range.end.min(count);
        if range.is_empty() {
            return Ok(Vec::new());
        }
        self.require_data(inode, count * 4).map_err(fail)?;
        let first = range.start.saturating_sub(1);
        let table = self
            .read_vec(inode.data.0 + first * 4, (range.end - first) * 4)
            .map_err(fail)?;
        let mut blocks = Vec::with_capacity((range.end - range.start) as usize);
        // Where a block starts that is not direct: where the one before it ends.
        let mut previous_end = inode.data.0 + count * 4;
        for (number, raw) in (first..).zip(table.chunks_exact(4)) {
            let raw = self.endian.u32(raw.try_into().unwrap_or_default());
            let pointer = BlockPointer::decode(raw);
            let fail =
                |err: Error| fail(err.context(format!("block {number}, pointer {raw:#010x}")));
            if number < range.start {
                previous_end = self.block_end(pointer).map_err(fail)?;
                continue;
            }
            let left = inode.size - number * BLOCK_BYTES;
            let (block, end) = self
                .block(pointer, previous_end, left.min(BLOCK_BYTES))
                .map_err(fail)?;
            previous_end = end;
            blocks.push(block);
        }
        Ok(blocks)
    }

    /// Where a block ends: its pointer alone tells.
    fn block_end(&self, pointer: BlockPointer) -> Result<u64> {
        match pointer.target {
            PointerTarget::End(end) => Ok(end),
            PointerTarget::Start(at) if pointer.uncompressed => Ok(at + BLOCK_BYTES),
            PointerTarget::Start(at) => Ok(at + 2 + self.direct_stream_len(at)?),
        }
    }

    /// The length that lies before a compressed direct block.
    fn direct_stream_len(&self, at: u64) -> Result<u64> {
        let mut len = [0; 2];
        self.read_exact_at(&mut len, at)?;
        Ok(u64::from(self.endian.u16(len)))
    }

    /// One block, and where it ends. The rules: Linux `fs/cramfs/inode.c cramfs_read_folio()`, which heeds the two flag
    /// bits whether the superblock has EXT_BLOCK_POINTERS or not; except that a whole last block that is direct and
    /// uncompressed is 4096 bytes, not 0.
    fn block(&self, pointer: BlockPointer, previous_end: u64, want: u64) -> Result<(Block, u64)> {
        let (at, len_bytes, end) = match pointer.target {
            PointerTarget::Start(at) if pointer.uncompressed => (at, want, at + BLOCK_BYTES),
            PointerTarget::Start(at) => {
                let len = self.direct_stream_len(at)?;
                (at + 2, len, at + 2 + len)
            }
            PointerTarget::End(end) => {
                let len = end.checked_sub(previous_end).ok_or_else(|| {
                    Error::bad_image(format!(
                        "ends at {end:#x}, before its start {previous_end:#x}"
                    ))
                })?;
                (previous_end, len, end)
            }
        };
        let too_long = if pointer.uncompressed {
            BLOCK_BYTES
        } else {
            MAX_STREAM_BYTES as u64
        };
        if len_bytes > too_long {
            return Err(Error::bad_image(format!(
                "{len_bytes} bytes long, at most {too_long} are possible"
            )));
        }
        if len_bytes == 0 {
            return Ok((Block::Hole, end));
        }
        if at + len_bytes > self.limit {
            return Err(self.outside(at, len_bytes));
        }
        let (at, len_bytes) = (ImageOffset(at), len_bytes as u32);
        let block = if pointer.uncompressed {
            Block::Stored { at, len_bytes }
        } else {
            Block::Compressed { at, len_bytes }
        };
        Ok((block, end))
    }

    /// The contents of one block: fills `buf`, at most 4096 bytes, with zeros where there is nothing.
    ///
    /// # Errors
    /// [`Kind::BadImage`] if the block does not decompress within 4096 bytes.
    pub fn read_block(&self, block: Block, buf: &mut [u8]) -> Result<()> {
        match block {
            Block::Hole => {
                buf.fill(0);
                Ok(())
            }
            Block::Stored { at, len_bytes } => {
                let len = buf.len().min(len_bytes as usize);
                let (stored, missing) = buf.split_at_mut(len);
                missing.fill(0);
                self.read_exact_at(stored, at.0)
            }
            Block::Compressed { at, len_bytes } => self.read_compressed(at, len_bytes, buf),
        }
    }

    /// Apart from the others, which need no such room on the stack. It is there because a program has hundreds of blocks, and
    /// every start of it may inflate them all.
    #[inline(never)]
    fn read_compressed(&self, at: ImageOffset, len_bytes: u32, buf: &mut [u8]) -> Result<()> {
        let fail = |what: &str| Error::bad_image(format!("compressed block at {at}: {what}"));
        let mut stream = [0; MAX_STREAM_BYTES];
        let stream = stream
            .get_mut(..len_bytes as usize)
            .ok_or_else(|| fail(&format!("{len_bytes} bytes")))?;
        self.read_exact_at(stream, at.0)?;
        if buf.len() == BLOCK_BYTES as usize {
            let len = inflate(stream, buf).map_err(fail)?;
            buf.get_mut(len..).unwrap_or_default().fill(0);
            return Ok(());
        }
        let mut page = [0; BLOCK_BYTES as usize];
        inflate(stream, &mut page).map_err(fail)?;
        for (to, from) in buf.iter_mut().zip(page) {
            *to = from;
        }
        Ok(())
    }

    /// The whole contents of a file or link.
    ///
    /// # Errors
    /// As [`Image::blocks`] and [`Image::read_block`]. Memory is bounded by the file size limit of the format, 16 MiB.
    pub fn read_file(&self, inode: &Inode) -> Result<Vec<u8>> {
        let blocks = self.blocks(inode)?;
        let mut bytes = vec![0; inode.size as usize];
        for (number, (buf, block)) in bytes
            .chunks_mut(BLOCK_BYTES as usize)
            .zip(&blocks)
            .enumerate()
        {
            self.read_block(*block, buf)
                .map_err(|err| err.context(format!("inode at {}: block {number}", inode.at)))?;
        }
        Ok(bytes)
    }
}

/// Inflates a zlib stream that must end within `out`. Allocates nothing.
pub(super) fn inflate(stream: &[u8], out: &mut [u8]) -> Result<usize, &'static str> {
    let streams = std::iter::once(stream);
    decompress_slice_iter_to_slice(out, streams, true, false).map_err(|status| match status {
        TINFLStatus::HasMoreOutput => "inflates to more than 4096 bytes",
        TINFLStatus::FailedCannotMakeProgress => "the zlib stream is cut off",
        _ => "not a zlib stream",
    })
}
