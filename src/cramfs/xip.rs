//! Decides which files, and which parts of them, an image holds ready to run in place.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use glob::{MatchOptions, Pattern};

use super::tree::Node;
use super::writer::Choose;
use crate::backing::ReadAt;
use crate::elf::ElfFile;
use crate::error::{Error, Result};

/// `*` stays within a directory, `**` does not, as in a shell; a leading dot is nothing special.
const MATCH: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// What runs in place: programs and libraries, everything, or the files that globs name.
#[derive(Clone, Debug, Default)]
pub struct XipPolicy {
    /// The loadable segments of every ELF program and library.
    auto: bool,
    /// Every regular file.
    all: bool,
    /// Whole files by path; whether one was found.
    globs: Vec<(Pattern, bool)>,
    /// Leave writable segments out: smaller in flash, but their pages are copied when a program starts.
    compress_data: bool,
}

impl XipPolicy {
    /// Reads the words of `--xip`: `auto`, `none`, `all` or globs; no word means `auto`.
    ///
    /// ```
    /// use xip_run::cramfs::xip::XipPolicy;
    /// XipPolicy::new(&["auto".into(), "/usr/share/fonts/**".into()], false)?;
    /// assert!(XipPolicy::new(&["none".into(), "all".into()], false).is_err());
    /// # Ok::<(), xip_run::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// For `none` together with another, and for a word that is no glob.
    pub fn new(words: &[String], compress_data: bool) -> Result<Self> {
        let mut policy = Self {
            auto: words.is_empty(),
            compress_data,
            ..Self::default()
        };
        for word in words {
            match word.as_str() {
                "auto" => policy.auto = true,
                "all" => policy.all = true,
                "none" if words.len() > 1 => {
                    return Err(Error::failed("--xip=none goes with no other --xip"));
                }
                "none" => {}
                glob => {
                    let relative = glob.strip_prefix('/').unwrap_or(glob);
                    let pattern = Pattern::new(relative)
                        .map_err(|err| Error::failed(format!("--xip={glob}: {err}")))?;
                    policy.globs.push((pattern, false));
                }
            }
        }
        Ok(policy)
    }

    /// The first glob, if there are some and no file matched any so far.
    pub fn useless(&self) -> Option<&str> {
        let matched = self.globs.iter().any(|(_, matched)| *matched);
        self.unmatched().next().filter(|_| !matched)
    }

    /// The globs that no file matched so far.
    pub fn unmatched(&self) -> impl Iterator<Item = &str> {
        let unmatched = self.globs.iter().filter(|(_, matched)| !matched);
        unmatched.map(|(pattern, _)| pattern.as_str())
    }
}

impl Choose for XipPolicy {
    fn in_place(&mut self, node: &Node, size: u64, file: &File) -> Result<Vec<Range<u64>>> {
        let path = String::from_utf8_lossy(&node.path);
        let path = path.strip_prefix('/').unwrap_or(&path);
        let mut whole = self.all;
        for (pattern, matched) in &mut self.globs {
            if pattern.matches_with(path, MATCH) {
                *matched = true;
                whole = true;
            }
        }
        if whole {
            return Ok(std::iter::once(0..size).collect());
        }
        if !self.auto {
            return Ok(Vec::new());
        }
        // What execve(2) would not take either is data: object files, core dumps, what only looks like an ELF file.
        let Ok(elf) = ElfFile::parse(&Bytes { file, size }) else {
            return Ok(Vec::new());
        };
        let segments = elf.segments.iter();
        Ok(segments
            .filter(|segment| !(segment.prot.write && self.compress_data))
            .map(|segment| segment.offset..segment.offset.saturating_add(segment.filesz_bytes))
            .collect())
    }
}

/// A file of the tree, to be parsed without reading all of it.
struct Bytes<'a> {
    file: &'a File,
    size: u64,
}

impl ReadAt for Bytes<'_> {
    fn len_bytes(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, at)
    }
}
