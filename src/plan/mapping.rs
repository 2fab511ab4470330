//! One mapping of a plan: pages, protection, and where the bytes come from, with the reason wherever that is RAM.

use std::ops::Range;

use crate::backing::NoCow;
use crate::cramfs::ImageFile;
use crate::error::Result;
use crate::index::NotDirect;
use crate::units::{FileOffset, ImageOffset, PageRange, PageSize, Prot};

/// Why pages are copied into RAM instead of being mapped from flash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum CopyReason {
    /// The image does not have them in a form that can be mapped.
    NotDirect(NotDirect),
    /// `--copy-text` was given.
    Asked,
    /// They are writable and the backing cannot be mapped copy-on-write.
    CannotCow(NoCow),
}

impl CopyReason {
    /// The reason in a few words, and what to do about it.
    pub fn explain(self) -> &'static str {
        match self {
            Self::NotDirect(why) => why.explain(),
            Self::Asked => "--copy-text asks for it; leave the option out",
            Self::CannotCow(why) => why.explain(),
        }
    }
}

impl std::fmt::Display for CopyReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotDirect(why) => why.fmt(f),
            Self::Asked => f.write_str("asked"),
            Self::CannotCow(why) => why.fmt(f),
        }
    }
}

/// Where the bytes of a mapping come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The image, mapped `MAP_PRIVATE` from this page boundary on: no RAM, unless it is writable and written to
    /// (copy-on-write).
    Direct {
        /// Where in the image.
        at: ImageOffset,
    },
    /// RAM, filled before the program starts with the file's bytes and zeros after them: [`Mapping::copied_bytes`].
    Copied {
        /// Where in the file, a page boundary.
        at: FileOffset,
        /// How many bytes of the file there are, at least 1. What is missing to the mapping's end is zero, because the
        /// file is over or because bss follows.
        file_bytes: u64,
        /// Why.
        why: CopyReason,
    },
    /// Nowhere: anonymous memory, which costs RAM when it is touched.
    Zero,
}

/// Consecutive pages with one protection and one source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// Addresses, before bias.
    pub pages: PageRange,
    /// Protection, as the segment's flags ask for it.
    pub prot: Prot,
    /// Where its bytes come from.
    pub source: Source,
    /// The addresses, before bias, that must be cleared once it is mapped: where bss begins within the last page of a
    /// writable direct mapping. It reaches to the mapping's end and is shorter than a page. `None` as well if flash
    /// already has zeros there: the page then stays clean and costs no RAM until the program writes to it.
    pub clear: Option<Range<u64>>,
}

impl Mapping {
    /// The bytes that a [`Source::Copied`] mapping must show, as long as it is: the file's, with bss and all that lies
    /// beyond the file's end zero, so that no other file's bytes are ever seen. `None` for the other sources.
    ///
    /// At most as long as the file's pages: 16 MiB and a page.
    ///
    /// # Errors
    /// As [`ImageFile::read`].
    pub fn copied_bytes(&self, file: &ImageFile) -> Result<Option<Vec<u8>>> {
        let Source::Copied { at, file_bytes, .. } = self.source else {
            return Ok(None);
        };
        let mut bytes = vec![0; self.pages.len_bytes() as usize];
        let part = bytes.get_mut(..file_bytes as usize).unwrap_or_default();
        file.read(part, at.0)?;
        Ok(Some(bytes))
    }

    /// RAM that it costs before the program has run its first instruction, in bytes.
    pub fn ram_bytes(&self, page: PageSize) -> u64 {
        match self.source {
            Source::Copied { .. } => self.pages.len_bytes(),
            Source::Direct { .. } if self.clear.is_some() => page.bytes(),
            Source::Direct { .. } | Source::Zero => 0,
        }
    }

    /// Appends `next`, the pages right after this mapping, if they are more of the same.
    pub(super) fn absorb(&mut self, next: &Self, page: PageSize) -> bool {
        let len_bytes = self.pages.len_bytes();
        let continues = match (self.source, next.source) {
            (Source::Zero, Source::Zero) => true,
            (Source::Direct { at }, Source::Direct { at: next_at }) => {
                at.0 + len_bytes == next_at.0 && self.clear.is_none()
            }
            (
                Source::Copied {
                    at,
                    file_bytes,
                    why,
                },
                Source::Copied {
                    at: next_at,
                    why: next_why,
                    ..
                },
            ) => why == next_why && at.0 + len_bytes == next_at.0 && file_bytes == len_bytes,
            _ => false,
        };
        if !continues || self.prot != next.prot || self.pages.end() != next.pages.start() {
            return false;
        }
        let Some(pages) =
            PageRange::new(page, self.pages.start(), len_bytes + next.pages.len_bytes())
        else {
            return false;
        };
        self.pages = pages;
        self.clear.clone_from(&next.clear);
        if let (
            Source::Copied { file_bytes, .. },
            Source::Copied {
                file_bytes: next_bytes,
                ..
            },
        ) = (&mut self.source, next.source)
        {
            *file_bytes += next_bytes;
        }
        true
    }
}
