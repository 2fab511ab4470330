//! The entries of a directory, one after the other, out of its bytes.

use super::format::{Endian, INODE_BYTES, NAME_MAX_BYTES, RawInode};
use super::inode::{Inode, InodeKind};
use super::reader::Image;
use crate::error::{Error, Kind, Result};

/// Walks the bytes of a directory; ends after the first error.
pub(super) struct Entries<'a> {
    rest: &'a [u8],
    at: u64,
    endian: Endian,
}

impl<'a> Entries<'a> {
    /// The entries in `data`, which is what the image holds from byte `at` on.
    pub(super) fn new(data: &'a [u8], at: u64, endian: Endian) -> Self {
        Self {
            rest: data,
            at,
            endian,
        }
    }

    fn parse(&mut self) -> Result<(&'a [u8], Inode), &'static str> {
        let (head, after) = self
            .rest
            .split_first_chunk()
            .ok_or("cut off by the directory's end")?;
        let raw = RawInode::decode(head, self.endian);
        let (padded, after) = after
            .split_at_checked(usize::from(raw.namelen_words) * 4)
            .ok_or("its name is cut off by the directory's end")?;
        let len = padded
            .iter()
            .rposition(|&byte| byte != 0)
            .map_or(0, |last| last + 1);
        let name = padded.get(..len).unwrap_or_default();
        match name {
            b"" => return Err("empty name"),
            b"." | b".." => return Err("named . or .."),
            _ if name.contains(&b'/') => return Err("a / in its name"),
            _ if name.contains(&0) => return Err("a NUL in its name"),
            _ => {}
        }
        let inode = Inode::new(&raw, self.at);
        self.at += (self.rest.len() - after.len()) as u64;
        self.rest = after;
        Ok((name, inode))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<(&'a [u8], Inode)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let at = self.at;
        Some(self.parse().map_err(|what| {
            self.rest = &[];
            Error::bad_image(format!("directory entry at {at:#x}: {what}"))
        }))
    }
}

/// How much of a directory a [`Cursor`] holds, in bytes.
const WINDOW_BYTES: u64 = 4096;
/// No entry is longer, in bytes.
const ENTRY_MAX_BYTES: u64 = INODE_BYTES + NAME_MAX_BYTES as u64;

/// Walks a directory with a page of it in memory, however large it is.
#[derive(Debug)]
pub struct Cursor {
    dir: Inode,
    /// Where the next entry is, from the directory's start.
    next: u64,
    /// Where the one before it is.
    last: u64,
    /// Bytes of the directory from `window_at` on.
    window: Vec<u8>,
    window_at: u64,
}

impl Cursor {
    /// At the first entry of `dir`.
    ///
    /// # Errors
    /// [`Kind::NotDirectory`]; [`Kind::BadImage`] if the directory lies in the superblock.
    pub fn new(image: &Image, dir: &Inode) -> Result<Self> {
        if dir.kind != InodeKind::Directory {
            return Err(Error::new(Kind::NotDirectory, "not a directory"));
        }
        if dir.size != 0 {
            image.require_data(dir, dir.size)?;
        }
        Ok(Self {
            dir: *dir,
            next: 0,
            last: 0,
            window: Vec::new(),
            window_at: 0,
        })
    }

    /// The directory.
    pub fn directory(&self) -> &Inode {
        &self.dir
    }

    /// Goes back to the entry that [`Cursor::next_entry`] gave last: it is given again.
    pub fn step_back(&mut self) {
        self.next = self.last;
    }

    /// The next entry's name and inode.
    ///
    /// # Errors
    /// As [`Image::entries`]; the same error again if called again.
    pub fn next_entry(&mut self, image: &Image) -> Result<Option<(&[u8], Inode)>> {
        let left = self.dir.size - self.next;
        if left == 0 {
            return Ok(None);
        }
        let held = self.window_at + self.window.len() as u64 - self.next;
        if held < left.min(ENTRY_MAX_BYTES) {
            self.window.clear();
            self.window.resize(left.min(WINDOW_BYTES) as usize, 0);
            self.window_at = self.next;
            image
                .read_exact_at(&mut self.window, self.dir.data.0 + self.next)
                .inspect_err(|_| self.window.clear())?;
        }
        let skip = (self.next - self.window_at) as usize;
        let bytes = self.window.get(skip..).unwrap_or_default();
        let mut entries = Entries::new(bytes, self.dir.data.0 + self.next, image.endian());
        let entry = entries.next().transpose()?;
        self.last = self.next;
        self.next = entries.at - self.dir.data.0;
        Ok(entry)
    }
}

impl Image {
    /// The first entry of that name in a directory, as in Linux. Entries after it are not looked at.
    ///
    /// # Errors
    /// As [`Image::entries`].
    pub fn find(&self, dir: &Inode, name: &[u8]) -> Result<Option<Inode>> {
        let mut cursor = Cursor::new(self, dir)?;
        while let Some((found, inode)) = cursor.next_entry(self)? {
            if found == name {
                return Ok(Some(inode));
            }
        }
        Ok(None)
    }
}
