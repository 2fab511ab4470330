//! Path lookup inside an image, as path_resolution(7) does it in a process whose root is the image.

use super::inode::{Entry, Inode, InodeKind};
use super::reader::Image;
use crate::error::{Error, Kind, Result};

/// Most symbolic links that a path may go through: path_resolution(7), `MAXSYMLINKS`.
const MAX_SYMLINKS: usize = 40;
/// Most bytes of directories that one lookup looks through. A path may be 4 KiB long, go through 40 links of 4 KiB, and
/// enter a directory of 16 MiB at each component: more than a terabyte. Honest directories are thousands of times less.
const MAX_DIRECTORY_BYTES: u64 = 32 << 20;

/// Where a path leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resolved {
    /// What is there.
    pub inode: Inode,
    /// The same place by a path without links.
    pub path: Vec<u8>,
}

impl Image {
    /// Looks a path up as if the image were the root: relative paths and absolute links start there, `..` at the root
    /// stays there, the last component is followed if it is a link, and what a `/` follows must be a directory.
    ///
    /// # Errors
    /// [`Kind::NotFound`], [`Kind::NotDirectory`], [`Kind::SymlinkLoop`], [`Kind::BadImage`]; the path is in the text.
    pub fn lookup(&self, path: &[u8]) -> Result<Inode> {
        self.resolve(path, true).map(|found| found.inode)
    }

    /// The same, without following a link in the last component.
    ///
    /// # Errors
    /// As [`Image::lookup`].
    pub fn lookup_nofollow(&self, path: &[u8]) -> Result<Inode> {
        self.resolve(path, false).map(|found| found.inode)
    }

    /// The same, with the path that it came to: no links, no `.` or `..`.
    ///
    /// # Errors
    /// As [`Image::lookup`].
    pub fn resolve(&self, path: &[u8], follow_last: bool) -> Result<Resolved> {
        self.follow(path, follow_last)
            .map_err(|err| err.context(show_path(path)))
    }

    fn follow(&self, path: &[u8], follow_last: bool) -> Result<Resolved> {
        if path.is_empty() {
            return Err(Error::new(Kind::NotFound, "an empty path"));
        }
        // The directories from the root to where the walk is, each with the name it was found by.
        let mut stack: Vec<Entry> = Vec::new();
        let mut todo: Vec<Vec<u8>> = Vec::new();
        push_components(&mut todo, path);
        let mut links = 0;
        let mut directory_bytes = 0;
        while let Some(name) = todo.pop() {
            let here = stack.last().map_or_else(|| self.root(), |top| top.inode);
            if here.kind != InodeKind::Directory {
                return Err(Error::new(
                    Kind::NotDirectory,
                    format!("{} is not a directory", show_path(&path_of(&stack))),
                ));
            }
            match name.as_slice() {
                b"." => continue,
                b".." => {
                    stack.pop();
                    continue;
                }
                _ => {}
            }
            directory_bytes += here.size;
            if directory_bytes > MAX_DIRECTORY_BYTES {
                return Err(Error::bad_image(format!(
                    "more than {} MiB of directories to look through, the last at {}: the image is hostile or damaged",
                    MAX_DIRECTORY_BYTES >> 20,
                    here.data
                )));
            }
            let Some(inode) = self.find(&here, &name)? else {
                return Err(Error::new(Kind::NotFound, "not in the image"));
            };
            if inode.kind == InodeKind::Symlink && (follow_last || !todo.is_empty()) {
                links += 1;
                if links > MAX_SYMLINKS {
                    return Err(Error::new(
                        Kind::SymlinkLoop,
                        format!("more than {MAX_SYMLINKS} symbolic links (ELOOP)"),
                    ));
                }
                let target = self.read_link(&inode)?;
                if target.starts_with(b"/") {
                    stack.clear();
                }
                push_components(&mut todo, &target);
            } else {
                stack.push(Entry { name, inode });
            }
        }
        let inode = stack.last().map_or_else(|| self.root(), |top| top.inode);
        let path = path_of(&stack);
        Ok(Resolved { inode, path })
    }
}

/// Puts the components of a path on the stack, so that the first is popped first. A `/` at the end asks for a directory,
/// as a component `.` does.
fn push_components(todo: &mut Vec<Vec<u8>>, path: &[u8]) {
    if path.ends_with(b"/") {
        todo.push(b".".to_vec());
    }
    let names = path.rsplit(|&byte| byte == b'/');
    todo.extend(names.filter(|name| !name.is_empty()).map(<[u8]>::to_vec));
}

/// The path of the directories and the last entry in `stack`, from the root.
fn path_of(stack: &[Entry]) -> Vec<u8> {
    let mut path = Vec::new();
    for entry in stack {
        path.push(b'/');
        path.extend_from_slice(&entry.name);
    }
    if path.is_empty() {
        path.push(b'/');
    }
    path
}

/// A path for a message: it may come from a hostile image, so control characters are escaped and a long one is cut.
pub fn show_path(path: &[u8]) -> String {
    const SHOWN_BYTES: usize = 300;
    show(path, SHOWN_BYTES)
}

/// A name from outside, safe to print, at its full length: as [`show_path`] else.
pub fn show_name(name: &[u8]) -> String {
    show(name, usize::MAX)
}

fn show(bytes: &[u8], limit_bytes: usize) -> String {
    let mut shown = String::new();
    for c in String::from_utf8_lossy(bytes).chars() {
        if shown.len() > limit_bytes {
            shown.push('…');
            break;
        }
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}
