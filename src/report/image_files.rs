//! Finds the file of an image that a range of the image belongs to: the reverse of extents.

use std::collections::HashMap;

use crate::cramfs::{Image, Inode, InodeKind};
use crate::error::{Error, Result};
use crate::extent::{self, Storage};
use crate::units::ImageOffset;

/// Every stored (uncompressed) byte of an image's files, with the file it belongs to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ImageFiles {
    names: Vec<Name>,
    /// By file: its names. Files with the same data are one file.
    files: Vec<Vec<usize>>,
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

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Span {
    start: u64,
    file: usize,
    end: u64,
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
        // Where a file's data is, to its number.
        let mut by_data = HashMap::new();
        let mut pointer_bytes_left = image.limit_bytes();
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
            let file = *by_data.entry(inode.data.0).or_insert(found.files.len());
            if let Some(names) = found.files.get_mut(file) {
                names.push(name);
                continue;
            }
            found.files.push(vec![name]);
            match pointer_bytes_left.checked_sub(inode.block_count() * 4) {
                Some(left) => pointer_bytes_left = left,
                None => {
                    damage.get_or_insert(Error::bad_image(format!(
                        "inode at {}: the block pointers of the image's files overlap each other",
                        inode.at
                    )));
                    break;
                }
            }
            if let Err(err) = found.add_spans(image, inode, file) {
                damage.get_or_insert(err);
            }
        }
        found.spans.sort_unstable();
        let mut end = 0;
        for span in &mut found.spans {
            span.start = span.start.max(end);
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
                });
            }
        }
        Ok(())
    }

    /// Whose the `len_bytes` bytes from `at` are: one file's, if the first and the last file in them are the same.
    /// Of several names of a file the one is taken whose last component begins with `like` (a command name, which Linux
    /// cuts after 15 bytes), else the first.
    pub fn owner(&self, at: ImageOffset, len_bytes: u64, like: &[u8]) -> Owner {
        let end = at.0.saturating_add(len_bytes);
        let first = self.spans.partition_point(|span| span.end <= at.0);
        let after = self.spans.partition_point(|span| span.start < end);
        let inside = self.spans.get(first..after).unwrap_or_default();
        match (inside.first(), inside.last()) {
            (Some(first), Some(last)) if first.file == last.file => {
                Owner::File(self.path_of(first.file, like))
            }
            (Some(_), Some(_)) => Owner::Several,
            _ => Owner::Nobody,
        }
    }

    fn path_of(&self, file: usize, like: &[u8]) -> Vec<u8> {
        let names = self.files.get(file).map(Vec::as_slice).unwrap_or_default();
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
