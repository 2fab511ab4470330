//! Visits every entry of an image once, however its directories are knotted.
//!
//! A hostile image can let a directory contain itself, let a thousand entries lead to the same directory, or nest
//! directories without end. Two rules bound the work by the size of the image: the bytes of a directory belong to one
//! directory only, and a path is no longer than `PATH_MAX`, beyond which no system call reaches. Of each directory on the
//! way a page is in memory, however large it is.

use std::collections::BTreeMap;

use super::dump::printable;
use super::{Cursor, Image, Inode, InodeKind};
use crate::error::Error;
use crate::units::ImageOffset;

/// Longest path in bytes, `PATH_MAX` less its NUL.
pub const MAX_PATH_BYTES: usize = 4095;

/// An entry that a [`Walk`] came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The path, from `/`.
    pub path: Vec<u8>,
    /// 0 for the root, 1 for what is in it, and so on.
    pub depth: usize,
    /// What is there.
    pub inode: Inode,
}

impl Found {
    /// The last component of the path; empty for the root.
    pub fn name(&self) -> &[u8] {
        let start = self.path.iter().rposition(|&byte| byte == b'/');
        start
            .and_then(|at| self.path.get(at + 1..))
            .unwrap_or_default()
    }
}

/// A directory that a [`Walk`] does not enter.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Its path.
    pub path: Vec<u8>,
    /// Where its inode lies.
    pub at: ImageOffset,
    /// Why.
    pub error: Error,
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        refused.error.context(printable(&refused.path))
    }
}

/// Depth first, a directory before what is in it, in the image's order. Made by [`Image::walk`].
///
/// A directory that cannot be read, or whose bytes belong to a directory already visited, is yielded like any other
/// entry and then once more as [`Refused`], after those of its entries that come before the damage; the walk goes on
/// after it.
#[derive(Debug)]
pub struct Walk<'a> {
    image: &'a Image,
    /// The directories from the root to where the walk is.
    levels: Vec<Level>,
    path: Vec<u8>,
    /// The next directory to enter.
    enter: Option<Inode>,
    /// What to begin with.
    start: Option<Inode>,
    /// Directories at this depth are not entered.
    max_depth: usize,
    /// Directory data that was visited: start and end.
    visited: BTreeMap<u64, u64>,
}

#[derive(Debug)]
struct Level {
    path_len: usize,
    entries: Cursor,
}

impl Image {
    /// Visits every entry, the root first.
    ///
    /// ```
    /// # let bytes = std::fs::read("tests/golden/plain.cramfs").unwrap();
    /// let image = xip_run::cramfs::Image::open(bytes)?;
    /// for found in image.walk() {
    ///     let found = found?;
    ///     println!("{}", String::from_utf8_lossy(&found.path));
    /// }
    /// # Ok::<(), xip_run::error::Error>(())
    /// ```
    pub fn walk(&self) -> Walk<'_> {
        self.walk_from(b"/", self.root(), usize::MAX)
    }

    /// Visits what is at `path`, which is `inode` and counts as depth 0, and everything below it to a depth of
    /// `max_depth`.
    pub fn walk_from(&self, path: &[u8], inode: Inode, max_depth: usize) -> Walk<'_> {
        Walk {
            image: self,
            levels: Vec::new(),
            path: path.strip_suffix(b"/").unwrap_or(path).to_vec(),
            enter: None,
            start: Some(inode),
            max_depth,
            visited: BTreeMap::new(),
        }
    }
}

impl Walk<'_> {
    /// Goes to the entries of `dir`, whose path is the walk's.
    fn enter(&mut self, dir: &Inode) -> Result<(), Error> {
        let (start, end) = (dir.data.0, dir.data.0 + dir.size);
        let before = self.visited.range(..end).next_back();
        if let Some((other, _)) = before.filter(|(_, other_end)| **other_end > start) {
            return Err(Error::bad_image(format!(
                "its entries at {start:#x}+{:#x} are also those of the directory at {other:#x} (a loop?)",
                dir.size
            )));
        }
        if end > self.image.limit_bytes() {
            return Err(in_directory(self.image.outside(start, dir.size), dir));
        }
        let entries = Cursor::new(self.image, dir).map_err(|err| in_directory(err, dir))?;
        if start != end {
            self.visited.insert(start, end);
        }
        self.levels.push(Level {
            path_len: self.path.len(),
            entries,
        });
        Ok(())
    }

    fn refused(&self, at: ImageOffset, error: Error) -> Option<Result<Found, Refused>> {
        let path = self.path();
        Some(Err(Refused { path, at, error }))
    }

    fn path(&self) -> Vec<u8> {
        if self.path.is_empty() {
            b"/".to_vec()
        } else {
            self.path.clone()
        }
    }

    fn found(&mut self, inode: Inode) -> Option<Result<Found, Refused>> {
        let depth = self.levels.len();
        if inode.kind == InodeKind::Directory && depth < self.max_depth {
            self.enter = Some(inode);
        }
        Some(Ok(Found {
            path: self.path(),
            depth,
            inode,
        }))
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Found, Refused>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(inode) = self.start.take() {
            return self.found(inode);
        }
        if let Some(dir) = self.enter.take()
            && let Err(error) = self.enter(&dir)
        {
            return self.refused(dir.at, error);
        }
        loop {
            let level = self.levels.last_mut()?;
            self.path.truncate(level.path_len);
            let dir = *level.entries.directory();
            let (at, error) = match level.entries.next_entry(self.image) {
                Ok(Some((name, inode))) if level.path_len + 1 + name.len() <= MAX_PATH_BYTES => {
                    self.path.push(b'/');
                    self.path.extend_from_slice(name);
                    return self.found(inode);
                }
                Ok(None) => {
                    self.levels.pop();
                    continue;
                }
                // What no path reaches is not visited, and nor are its neighbours.
                Ok(Some((_, inode))) => (
                    inode.at,
                    Error::bad_image("the paths in this directory are longer than PATH_MAX"),
                ),
                Err(err) => (dir.at, err),
            };
            self.levels.pop();
            return self.refused(at, error);
        }
    }
}

fn in_directory(err: Error, dir: &Inode) -> Error {
    err.context(format!("directory with the inode at {}", dir.at))
}
