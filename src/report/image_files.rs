//! Finds the file of an image that a range of the image belongs to: the reverse of extents.

use std::collections::HashMap;

use crate::cramfs::{Image, Inode, InodeKind, PointerBudget};
use crate::error::{Error, Result};
use crate::extent::{self, Storage};
use crate::units::{BLOCK_BYTES, ImageOffset, PageSize};

/// Every stored (uncompressed) byte of an image's files, with the file it belongs to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ImageFiles {
    names: Vec<Name>,
    files: Vec<File>,
    /// Places of data, to the number of the file.
    by_data: HashMap<u64, usize>,
    /// Sorted, without overlaps.
    spans: Vec<Span>,
}

/// A name of the image; its path is found by going up.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Name {
    parent: Option<usize>,
    /// Empty for the root.
    name: Vec<u8>,
}

/// Files with the same data are one file.
#[derive(Clone, PartialEq, Eq, Debug)]
struct File {
    inode: Inode,
    names: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Span {
    start: u64,
    file: usize,
    end: u64,
    /// What byte of the file `start` is.
    offset: u64,
}

/// A piece of a range of an image, in whole pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Its length, bytes.
    pub len_bytes: u64,
    /// The number of the file that it shows, and from which byte of it on; `None` for what is no file's.
    pub file: Option<(usize, u64)>,
}

/// Whose a range of an image is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Owner {
    /// Bytes of one file, by its path in the image.
    File(Vec<u8>),
    /// Bytes of more than one file.
    Several,
    /// No file's uncompressed bytes.
    Nobody,
}

impl ImageFiles {
    /// Walks an image. What is damaged is left out, and the first damage returned beside the result.
    ///
    /// Time and memory are bounded by the image's length: the walk visits every directory once, a file is read once
    /// however many names it has, and block pointers that overlap each other end it.
    pub fn new(image: &Image) -> (Self, Option<Error>) {
        let mut found = Self::default();
        let mut damage = None;
        let mut pointers = PointerBudget::new(image);
        // The directories from the root to where the walk is, by their names.
        let mut levels: Vec<usize> = Vec::new();
        for entry in image.walk() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(refused) => {
                    damage.get_or_insert(refused.into());
                    continue;
                }
            };
            let inode = &entry.inode;
            let is_directory = inode.kind == InodeKind::Directory;
            if !is_directory && (inode.kind != InodeKind::File || inode.size == 0) {
                continue;
            }
            levels.truncate(entry.depth);
            let name = found.names.len();
            found.names.push(Name {
                parent: levels.last().copied(),
                name: entry.name().to_vec(),
            });
            if is_directory {
                levels.push(name);
                continue;
            }
            let file = found.files.len();
            let file = *found.by_data.entry(inode.data.0).or_insert(file);
            if let Some(known) = found.files.get_mut(file) {
                known.names.push(name);
                continue;
            }
            found.files.push(File {
                inode: *inode,
                names: vec![name],
            });
            if !pointers.take(inode) {
                damage.get_or_insert(Error::bad_image(format!(
                    "inode at {}: the block pointers of the image's files overlap each other",
                    inode.at
                )));
                break;
            }
            if let Err(err) = found.add_spans(image, inode, file) {
                damage.get_or_insert(err);
            }
        }
        found.spans.sort_unstable();
        let mut end: u64 = 0;
        for span in &mut found.spans {
            let cut = end.saturating_sub(span.start);
            span.start += cut;
            span.offset += cut;
            end = end.max(span.end);
        }
        found.spans.retain(|span| span.start < span.end);
        (found, damage)
    }

    fn add_spans(&mut self, image: &Image, inode: &Inode, file: usize) -> Result<()> {
        for extent in extent::extents(image, inode)? {
            if let Storage::Stored { at } = extent.storage {
                self.spans.push(Span {
                    start: at.0,
                    file,
                    end: at.0 + extent.stored_bytes,
                    offset: extent.first_block * BLOCK_BYTES,
                });
            }
        }
        Ok(())
    }

    /// Whose the `len_bytes` bytes from `at` are: one file's, if the first and the last file in them are the same.
    /// Of several names of a file the one is taken whose last component begins with `like` (a command name, which Linux
    /// cuts after 15 bytes), else the first.
    pub fn owner(&self, at: ImageOffset, len_bytes: u64, like: &[u8]) -> Owner {
        let inside = self.spans_in(at.0, at.0.saturating_add(len_bytes));
        match (inside.first(), inside.last()) {
            (Some(first), Some(last)) if first.file == last.file => {
                Owner::File(self.path(first.file, like))
            }
            (Some(_), Some(_)) => Owner::Several,
            _ => Owner::Nobody,
        }
    }

    fn spans_in(&self, start: u64, end: u64) -> &[Span] {
        let first = self.spans.partition_point(|span| span.end <= start);
        let after = self.spans.partition_point(|span| span.start < end);
        self.spans.get(first..after).unwrap_or_default()
    }

    /// The `len_bytes` bytes from `at`, both whole pages, cut where another file begins. A page with bytes of two files
    /// (which no index calls direct) counts as the first one's.
    pub fn pieces(&self, at: ImageOffset, len_bytes: u64, page: PageSize) -> Vec<Piece> {
        let end = at.0.saturating_add(len_bytes);
        let mut pieces = Vec::new();
        let mut piece = |len_bytes: u64, file| {
            if len_bytes > 0 {
                pieces.push(Piece { len_bytes, file });
            }
        };
        let mut reached = at.0;
        for span in self.spans_in(at.0, end) {
            let start = page.floor(span.start).max(reached);
            let stop = page.ceil(span.end).unwrap_or(end).clamp(start, end);
            let offset = (span.offset + start).saturating_sub(span.start);
            piece(start - reached, None);
            piece(stop - start, Some((span.file, offset)));
            reached = stop;
        }
        piece(end - reached, None);
        pieces
    }

    /// The number of the file that has this `st_ino` in a view of the image: a place of data, see [`Inode::number`].
    pub fn by_inode_number(&self, number: u64) -> Option<usize> {
        self.by_data.get(&number).copied()
    }

    /// The inode of a file, by its number here.
    pub fn inode(&self, file: usize) -> Option<&Inode> {
        Some(&self.files.get(file)?.inode)
    }

    /// The path of a file, by its number here. Of several names the one is taken whose last component begins with `like`,
    /// as in [`ImageFiles::owner`].
    pub fn path(&self, file: usize, like: &[u8]) -> Vec<u8> {
        let file = self.files.get(file);
        let names = file.map_or(&[][..], |file| &file.names);
        let is_like = |&&at: &&usize| {
            self.names.get(at).is_some_and(|name| {
                name.name == like || (like.len() >= 15 && name.name.starts_with(like))
            })
        };
        let mut at = names.iter().find(is_like).or(names.first()).copied();
        let mut components: Vec<&[u8]> = Vec::new();
        while let Some(name) = at.and_then(|at| self.names.get(at)) {
            components.push(&name.name);
            at = name.parent;
        }
        components.reverse();
        components.join(&b'/')
    }
}
