//! The XIP index as the stub reads it: for every file of the image that has direct pages, which.

use std::collections::BTreeSet;

use crate::cramfs::{Image, InodeKind};
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
        let mut pointer_bytes_left = image.limit_bytes();
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
            let Some(left) = pointer_bytes_left.checked_sub(4 * inode.block_count()) else {
                continue;
            };
            pointer_bytes_left = left;
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
