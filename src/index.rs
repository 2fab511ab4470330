//! The XIP index: for every page of a file, where flash can be mapped for it, or why not.

use crate::cramfs::{Image, Inode};
use crate::error::Result;
use crate::extent::{self, Extent, Storage};
use crate::units::{BLOCK_BYTES, ImageOffset, PageSize};

/// Why a page of a file cannot be mapped straight from flash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotDirect {
    /// Some of it is compressed in the image.
    Compressed,
    /// Some of it is a hole: the image has no bytes for it.
    Hole,
    /// Its blocks do not follow each other in the image (or one is stored short).
    NotConsecutive,
    /// Its bytes do not start on a boundary of this kernel's pages.
    Misaligned,
    /// It is the file's last page and what follows the file in it is not zero: somebody else's bytes.
    SharedLastPage,
    /// It reaches past the end of the image.
    BeyondImage,
    /// The file ends before it.
    BeyondFile,
}

impl NotDirect {
    /// The reason in a few words, and what to do about it.
    pub fn explain(self) -> &'static str {
        match self {
            Self::Compressed => {
                "compressed in the image; rebuild with xip-image build --xip=auto --xip=PATH (or without --compress-data)"
            }
            Self::Hole => "a hole in the image; rebuild with xip-image build --xip=auto --xip=PATH",
            Self::NotConsecutive => {
                "its blocks are scattered in the image; rebuild it with xip-image"
            }
            Self::Misaligned => {
                "not on a page boundary of this kernel; rebuild the image with xip-image"
            }
            Self::SharedLastPage => {
                "its last page holds another file's bytes; rebuild it with xip-image"
            }
            Self::BeyondImage => {
                "its last page is cut off by the image's end; rebuild it with xip-image"
            }
            Self::BeyondFile => "beyond the file's end",
        }
    }
}

impl std::fmt::Display for NotDirect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Compressed => "compressed",
            Self::Hole => "hole",
            Self::NotConsecutive => "not-consecutive",
            Self::Misaligned => "misaligned",
            Self::SharedLastPage => "shared-last-page",
            Self::BeyondImage => "beyond-image",
            Self::BeyondFile => "beyond-file",
        })
    }
}

/// Where the bytes of a page are, if flash can be mapped for it.
pub type PageState = std::result::Result<ImageOffset, NotDirect>;

/// Pages of a file that are alike: all direct and consecutive, or all not direct for the same reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageRun {
    /// Number of the first page in the file.
    pub first_page: u64,
    /// Number of pages, at least 1.
    pub pages: u64,
    /// State of the first page; the others of a direct run follow it in the image.
    pub state: PageState,
}

/// The index of one file, for one page size.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileIndex {
    page: PageSize,
    runs: Vec<PageRun>,
}

impl FileIndex {
    /// Makes the index of a file. `page` is the page size of the kernel that will map it.
    ///
    /// # Errors
    /// As [`Image::blocks`], and if the tail of the last page cannot be read.
    pub fn new(image: &Image, inode: &Inode, page: PageSize) -> Result<Self> {
        Self::of_extents(image, inode, &extent::extents(image, inode)?, page)
    }

    /// The same for a file whose extents are known.
    ///
    /// # Errors
    /// If the tail of the last page cannot be read.
    pub fn of_extents(
        image: &Image,
        inode: &Inode,
        extents: &[Extent],
        page: PageSize,
    ) -> Result<Self> {
        let mut index = Self {
            page,
            runs: Vec::new(),
        };
        let mut cursor = extents;
        let pages = page.count(inode.size);
        let mut number = 0;
        while number < pages {
            let start = number * page.bytes();
            let end = inode.size.min(start + page.bytes());
            while let Some((first, rest)) = cursor.split_first() {
                if (first.first_block + first.blocks) * BLOCK_BYTES > start {
                    break;
                }
                cursor = rest;
            }
            let state = match direct_start(cursor, start, end) {
                Ok(at) => page_state(image, at, end - start, page)?,
                Err(why) => Err(why),
            };
            // What is true of one page within an extent is true of all.
            let alike = cursor
                .first()
                .map_or(0, |extent| whole_pages(extent, start, page));
            let alike = alike.clamp(1, pages - number);
            index.push(number, alike, state);
            number += alike;
        }
        Ok(index)
    }

    fn push(&mut self, number: u64, pages: u64, state: PageState) {
        if let Some(last) = self.runs.last_mut() {
            let continues = match (last.state, state) {
                (Ok(at), Ok(next)) => at.0 + last.pages * self.page.bytes() == next.0,
                (Err(why), Err(next)) => why == next,
                _ => false,
            };
            if continues {
                last.pages += pages;
                return;
            }
        }
        self.runs.push(PageRun {
            first_page: number,
            pages,
            state,
        });
    }

    /// The page size it was made for.
    pub fn page_size(&self) -> PageSize {
        self.page
    }

    /// The runs, in order, without gaps; none for an empty file.
    pub fn runs(&self) -> &[PageRun] {
        &self.runs
    }

    /// The state of one page of the file.
    pub fn page(&self, number: u64) -> PageState {
        self.run_from(number)
            .map_or(Err(NotDirect::BeyondFile), |run| run.state)
    }

    /// The run that a page of the file is in, from that page on; `None` beyond the file.
    pub fn run_from(&self, number: u64) -> Option<PageRun> {
        let after = self.runs.partition_point(|run| run.first_page <= number);
        let run = self.runs.get(after.checked_sub(1)?)?;
        let skipped = number - run.first_page;
        (skipped < run.pages).then(|| PageRun {
            first_page: number,
            pages: run.pages - skipped,
            state: run
                .state
                .map(|at| ImageOffset(at.0 + skipped * self.page.bytes())),
        })
    }

    /// How many pages of the file are direct.
    pub fn direct_pages(&self) -> u64 {
        self.runs
            .iter()
            .filter(|run| run.state.is_ok())
            .map(|run| run.pages)
            .sum()
    }
}

/// How many pages from byte `start` of the file on, which is in the extent, the extent holds whole.
fn whole_pages(extent: &Extent, start: u64, page: PageSize) -> u64 {
    let len_bytes = match extent.storage {
        Storage::Stored { .. } => extent.stored_bytes,
        Storage::Compressed { .. } | Storage::Hole => extent.blocks * BLOCK_BYTES,
    };
    let end = extent.first_block * BLOCK_BYTES + len_bytes;
    end.saturating_sub(start) / page.bytes()
}

/// Where in the image the file's bytes `start..end`, at most a page, lie in one piece. `extents` starts with the one
/// that holds `start`.
fn direct_start(extents: &[Extent], start: u64, end: u64) -> PageState {
    let mut pieces = 0;
    let mut at = 0;
    let mut stored_end = 0;
    for extent in extents {
        let extent_start = extent.first_block * BLOCK_BYTES;
        if extent_start >= end {
            break;
        }
        match extent.storage {
            Storage::Compressed { .. } => return Err(NotDirect::Compressed),
            Storage::Hole => return Err(NotDirect::Hole),
            Storage::Stored { at: extent_at } if pieces == 0 => {
                at = extent_at.0 + (start - extent_start);
                stored_end = extent_start + extent.stored_bytes;
            }
            Storage::Stored { .. } => {}
        }
        pieces += 1;
    }
    match pieces {
        0 => Err(NotDirect::BeyondFile),
        1 if stored_end >= end => Ok(ImageOffset(at)),
        _ => Err(NotDirect::NotConsecutive),
    }
}

/// May the page at `at`, of which `used_bytes` are the file's, be mapped?
///
/// binfmt_elf.c `elf_map()` and mmap(2) map whole pages, so what follows the file in its last page becomes visible. It
/// must be zero, as it would be for any file of Linux; else it is another file's, and the page is not direct.
fn page_state(
    image: &Image,
    at: ImageOffset,
    used_bytes: u64,
    page: PageSize,
) -> Result<PageState> {
    if !page.aligned(at.0) {
        return Ok(Err(NotDirect::Misaligned));
    }
    if at.0 + page.bytes() > image.limit_bytes() {
        return Ok(Err(NotDirect::BeyondImage));
    }
    let mut tail = vec![0; (page.bytes() - used_bytes) as usize];
    image.read_exact_at(&mut tail, at.0 + used_bytes)?;
    Ok(if tail.iter().all(|&byte| byte == 0) {
        Ok(at)
    } else {
        Err(NotDirect::SharedLastPage)
    })
}
