//! The XIP index as the stub reads it: for every file of the image that has direct pages, which.

use std::collections::BTreeSet;

use crate::cramfs::{Image, InodeKind, PointerBudget};
use crate::index::FileIndex;
use crate::sys::wire;
use crate::units::PageSize;

/// The tables of `wire.rs`.
#[derive(Default)]
pub(super) struct Index {
    /// Sorted by number and size.
    pub(super) files: Vec<wire::File>,
    /// Each file's one behind the other.
    pub(super) runs: Vec<wire::Run>,
}

impl Index {
    /// Of the whole image. What is damaged in it has no entry: it is read through the view, which says what is wrong.
    ///
    /// Time and memory are bounded by the image's length, as every file of an honest image has block pointers and pages of
    /// its own: where there are more of either than the image has room for, the files that come then have no entry.
    pub(super) fn new(image: &Image, page: PageSize) -> Self {
        let mut tables = Self::default();
        let mut pointers = PointerBudget::new(image);
        let runs_max = page.count(image.limit_bytes());
        // Files with the same data have the same number.
        let mut seen = BTreeSet::new();
        for found in image.walk().filter_map(|found| found.ok()) {
            let inode = found.inode;
            let key = u32::try_from(inode.number())
                .ok()
                .zip(u32::try_from(inode.size).ok());
            let Some((ino, size)) =
                key.filter(|key| inode.kind == InodeKind::File && seen.insert(*key))
            else {
                continue;
            };
            if !pointers.take(&inode) {
                continue;
            }
            let Ok(index) = FileIndex::new(image, &inode, page) else {
                continue;
            };
            let direct = index.runs().iter().filter(|run| run.state.is_ok());
            if (tables.runs.len() + direct.count()) as u64 > runs_max {
                continue;
            }
            let first_run = tables.runs.len();
            tables.runs.extend(index.runs().iter().filter_map(|run| {
                Some(wire::Run {
                    first_page: u32::try_from(run.first_page).ok()?,
                    pages: u32::try_from(run.pages).ok()?,
                    image_at: u32::try_from(run.state.ok()?.0).ok()?,
                })
            }));
            let runs = tables.runs.len() - first_run;
            if runs > 0 {
                tables.files.push(wire::File {
                    ino,
                    size,
                    first_run: first_run as u32,
                    runs: runs as u32,
                });
            }
        }
        tables.files.sort_unstable();
        tables
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cramfs::format::{BLOCK_DIRECT, BLOCK_UNCOMPRESSED, RawInode, RawSuper, flags};
    use crate::units::{BLOCK_BYTES, Endian};

    /// Files whose block pointers overlap, every second block direct: each file alone has 32 runs.
    #[test]
    fn what_files_share_makes_no_large_index() {
        let (files, blocks) = (2000_u32, 64);
        let entry_bytes = 16;
        let table = 76 + files * entry_bytes;
        let inode = |mode, size, at: u32, namelen_words| RawInode {
            mode,
            size,
            namelen_words,
            offset_words: at / 4,
            ..RawInode::default()
        };
        let mut bytes = vec![0; 76];
        for number in 0..files {
            let file = inode(0o100_755, blocks * 4096, table + 4 * number, 1);
            bytes.extend_from_slice(&file.encode(Endian::Little));
            bytes.extend_from_slice(&[b'a' + (number % 26) as u8, 0, 0, 0]);
        }
        let page = BLOCK_BYTES as u32 / 4;
        for number in 0..files + blocks {
            let at = page * (20 + 2 * (number % 20));
            bytes.extend_from_slice(&(at | BLOCK_DIRECT | BLOCK_UNCOMPRESSED).to_le_bytes());
        }
        bytes.resize(64 * BLOCK_BYTES as usize, 0);
        let superblock = RawSuper {
            size: bytes.len() as u32,
            flags: flags::FSID_V2 | flags::EXT_BLOCK_POINTERS,
            root: inode(0o040_755, files * entry_bytes, 76, 0),
            ..RawSuper::default()
        };
        let head = superblock.encode(Endian::Little);
        bytes[..head.len()].copy_from_slice(&head);

        let index = Index::new(&Image::open(bytes).unwrap(), PageSize::K4);
        assert!((1..=64).contains(&index.runs.len()), "{}", index.runs.len());
        assert_eq!(index.files.len(), 1);
        assert_eq!(index.files[0].runs, 64);
    }
}
