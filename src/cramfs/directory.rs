//! The entries of a directory, one after the other, out of its bytes.

use super::format::{Endian, RawInode};
use super::inode::Inode;
use crate::error::{Error, Result};

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
