//! Finds the file of an image that a range of the image belongs to: the reverse of extents.

use std::collections::{HashMap, HashSet};

use crate::cramfs::{Image, Inode, InodeKind};
use crate::error::{Error, Result};
use crate::extent::{self, Storage};
use crate::units::ImageOffset;

/// Longest path that is spelt out, in bytes: `PATH_MAX`. A hostile image can nest directories far deeper.
const MAX_PATH_BYTES: usize = 4096;

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
    /// Time and memory are bounded by the image's length: every directory and every file is visited once however many
    /// names it has, and directories or block pointers that overlap each other stop the walk.
    pub fn new(image: &Image) -> (Self, Option<Error>) {
        let mut walk = Walk {
            image,
            found: Self::default(),
            by_data: HashMap::new(),
            seen_directories: HashSet::new(),
            directory_bytes_left: image.limit_bytes(),
            pointer_bytes_left: image.limit_bytes(),
            damage: None,
        };
        if let Err(overlap) = walk.run() {
            walk.damage.get_or_insert(overlap);
        }
        let (mut found, damage) = (walk.found, walk.damage);
        found.spans.sort_unstable();
        let mut end = 0;
        for span in &mut found.spans {
            span.start = span.start.max(end);
            end = end.max(span.end);
        }
        found.spans.retain(|span| span.start < span.end);
        (found, damage)
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
        let mut components = Vec::new();
        let mut len_bytes = 0;
        while let Some(name) = at.and_then(|at| self.names.get(at)) {
            len_bytes += name.name.len() + 1;
            if len_bytes > MAX_PATH_BYTES {
                components.push(b"...".as_slice());
                break;
            }
            components.push(&name.name);
            at = name.parent;
        }
        let mut path = Vec::new();
        for component in components.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(component);
        }
        path
    }
}

/// The walk, breadth first and without recursion.
struct Walk<'a> {
    image: &'a Image,
    found: ImageFiles,
    /// Where a file's data is, to its number.
    by_data: HashMap<u64, usize>,
    seen_directories: HashSet<u64>,
    directory_bytes_left: u64,
    pointer_bytes_left: u64,
    damage: Option<Error>,
}

impl Walk<'_> {
    fn run(&mut self) -> Result<()> {
        let mut directories = vec![(self.image.root(), None)];
        let mut next = 0;
        while let Some(&(directory, parent)) = directories.get(next) {
            next += 1;
            if !self.seen_directories.insert(directory.data.0) {
                continue;
            }
            spend(
                &mut self.directory_bytes_left,
                directory.size,
                "directories",
                &directory,
            )?;
            let entries = match self.image.entries(&directory) {
                Ok(entries) => entries,
                Err(err) => {
                    let at = directory.at;
                    self.damage
                        .get_or_insert(err.context(format!("directory inode at {at}")));
                    continue;
                }
            };
            for entry in entries {
                match entry.inode.kind {
                    InodeKind::Directory if entry.inode.size > 0 => {
                        directories.push((entry.inode, Some(self.name(parent, entry.name))));
                    }
                    InodeKind::File if entry.inode.size > 0 => {
                        let name = self.name(parent, entry.name);
                        self.file(&entry.inode, name)?;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn name(&mut self, parent: Option<usize>, name: Vec<u8>) -> usize {
        self.found.names.push(Name { parent, name });
        self.found.names.len() - 1
    }

    fn file(&mut self, inode: &Inode, name: usize) -> Result<()> {
        let file = self.found.files.len();
        let known = *self.by_data.entry(inode.data.0).or_insert(file);
        if let Some(names) = self.found.files.get_mut(known) {
            names.push(name);
            return Ok(());
        }
        self.found.files.push(vec![name]);
        spend(
            &mut self.pointer_bytes_left,
            inode.block_count() * 4,
            "block pointers",
            inode,
        )?;
        match extent::extents(self.image, inode) {
            Ok(extents) => {
                let stored = extents
                    .into_iter()
                    .filter_map(|extent| match extent.storage {
                        Storage::Stored { at } => Some(Span {
                            start: at.0,
                            file,
                            end: at.0 + extent.stored_bytes,
                        }),
                        Storage::Compressed { .. } | Storage::Hole => None,
                    });
                self.found.spans.extend(stored);
            }
            Err(err) => {
                self.damage.get_or_insert(err);
            }
        }
        Ok(())
    }
}

/// Takes `bytes` from what is left of the image for things that do not overlap.
fn spend(left: &mut u64, bytes: u64, what: &str, inode: &Inode) -> Result<()> {
    *left = left.checked_sub(bytes).ok_or_else(|| {
        Error::bad_image(format!(
            "inode at {}: the {what} of the image overlap each other",
            inode.at
        ))
    })?;
    Ok(())
}
