//! Finds what is wrong with an image: everything Linux would trip on, and what looks odd.
//!
//! The work is bounded whatever the image says: directories are entered once ([`Image::walk`]), equal data is looked at
//! once, streams are inflated within a budget that an honest image never uses up, and the list of findings ends at
//! [`MAX_FINDINGS`].

use std::collections::{HashMap, HashSet};

use super::dump::{Name, json};
use super::format::{BLOCK_DIRECT, BLOCK_FLAGS, BLOCK_UNCOMPRESSED, SIGNATURE, flags};
use super::pack::has_whole_last_block;
use super::reader::{self, MAX_STREAM_BYTES};
use super::regions::{Region, RegionKind};
use super::unused::unused;
use super::walk::Found;
use super::{Block, Image, Inode, InodeKind};
use crate::error::Result;
use crate::units::{BLOCK_BYTES, ImageOffset};

/// After so many findings the check stops.
pub const MAX_FINDINGS: usize = 1000;
/// What inflating a stream costs, besides its bytes. With this and the pointers an honest image costs at most five times
/// its length (a page of zeros is a stream of 26 bytes); eight times is the limit.
const STREAM_COST_BYTES: u64 = 64;
/// Most regions that are held against each other: an image of 256 MiB with one file a page has 131072.
const MAX_REGIONS: usize = 4 << 20;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nobody is harmed.
    Note,
    /// It works, but hardly as somebody meant it.
    Warning,
    /// Files are unreadable or read wrong.
    Error,
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Of which file, if of one.
    #[serde(flatten, serialize_with = "json::path_if_any")]
    pub path: Option<Name>,
    /// Where in the image, in bytes.
    pub at: ImageOffset,
    /// What.
    pub what: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}: ", self.severity, self.at)?;
        if let Some(path) = &self.path {
            write!(f, "{path}: ")?;
        }
        f.write_str(&self.what)
    }
}

/// What [`check`] found.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Report {
    /// In the order in which they were found.
    pub findings: Vec<Finding>,
    /// Everything was looked at; if not, there may be more.
    pub complete: bool,
    /// How many entries the image has, the root included.
    pub entries: u64,
}

impl Report {
    /// How many findings are this bad.
    pub fn count(&self, severity: Severity) -> usize {
        let alike = self.findings.iter().filter(|f| f.severity == severity);
        alike.count()
    }

    /// No errors, and everything was looked at.
    pub fn is_sound(&self) -> bool {
        self.complete && self.count(Severity::Error) == 0
    }
}

/// Checks all of an image.
pub fn check(image: &Image) -> Report {
    let mut checker = Checker {
        image,
        report: Report {
            findings: Vec::new(),
            complete: true,
            entries: 0,
        },
        budget_bytes: 8 * image.limit_bytes() + (1 << 20),
        data_blocks: 0,
        files: HashMap::new(),
        streams: HashSet::new(),
        regions: vec![Region::superblock(image)],
        levels: Vec::new(),
    };
    checker.superblock();
    checker.entries();
    checker.counts();
    checker.regions.sort_unstable();
    checker.unused();
    checker.overlaps();
    checker.report
}

/// The names of a directory that the walk is in.
#[derive(Default)]
struct Level {
    last: Vec<u8>,
    all: HashSet<Vec<u8>>,
}

struct Checker<'a> {
    image: &'a Image,
    report: Report,
    /// Bytes that may still be looked at.
    budget_bytes: u64,
    data_blocks: u64,
    /// Files and links by where their data starts.
    files: HashMap<u64, Inode>,
    /// Streams that were inflated.
    streams: HashSet<(ImageOffset, u32)>,
    regions: Vec<Region>,
    levels: Vec<Level>,
}

impl Checker<'_> {
    fn find(
        &mut self,
        severity: Severity,
        path: Option<&[u8]>,
        at: ImageOffset,
        what: impl Into<String>,
    ) {
        if self.report.findings.len() >= MAX_FINDINGS {
            self.report.complete = false;
            return;
        }
        self.report.findings.push(Finding {
            severity,
            path: path.map(Name::from),
            at,
            what: what.into(),
        });
    }

    fn is_full(&self) -> bool {
        self.report.findings.len() >= MAX_FINDINGS
    }

    fn has_flag(&self, flag: u32) -> bool {
        self.image.superblock().flags & flag != 0
    }

    fn superblock(&mut self) {
        let at = ImageOffset(self.image.super_offset());
        let found = self.image.require_runnable();
        let found = match found {
            Ok(()) if !self.has_flag(flags::FSID_V2) => {
                let what = "version 1: there is no CRC, and no length of the image";
                self.find(Severity::Note, None, at, what);
                Ok(())
            }
            Ok(()) => self.image.verify_crc(),
            err => err,
        };
        if let Err(err) = found {
            self.find(Severity::Error, None, at, err.to_string());
        }
        if self.image.superblock().signature != *SIGNATURE {
            let what =
                "the signature is not \"Compressed ROMFS\": other tools may not know the image";
            self.find(Severity::Warning, None, at, what);
        }
    }

    fn entries(&mut self) {
        for found in self.image.walk() {
            if self.is_full() {
                self.report.complete = false;
                return;
            }
            let found = match found {
                Ok(found) => found,
                Err(refused) => {
                    let what = refused.error.to_string();
                    self.find(Severity::Error, Some(&refused.path), refused.at, what);
                    continue;
                }
            };
            self.report.entries += 1;
            self.name(&found);
            self.fields(&found);
            match found.inode.kind {
                InodeKind::Directory => self.region(Region::directory(&found.inode)),
                InodeKind::File | InodeKind::Symlink => self.contents(&found),
                InodeKind::Unknown => {
                    let what = format!(
                        "mode {:#o} is of no type that Linux knows: it cannot be looked up (EINVAL)",
                        found.inode.mode
                    );
                    self.find(Severity::Error, Some(&found.path), found.inode.at, what);
                }
                _ => {}
            }
        }
    }

    fn region(&mut self, region: Option<Region>) {
        if self.regions.len() < MAX_REGIONS {
            self.regions.extend(region);
        } else {
            self.report.complete = false;
        }
    }

    /// Is the entry where Linux looks for its name?
    fn name(&mut self, found: &Found) {
        if found.depth == 0 {
            return;
        }
        self.levels.truncate(found.depth);
        if self.levels.len() < found.depth {
            self.levels.push(Level::default());
        }
        let sorted = self.has_flag(flags::SORTED_DIRS);
        let Some(level) = self.levels.last_mut() else {
            return;
        };
        let name = found.name();
        let unsorted = sorted && name < level.last.as_slice();
        let duplicate = !level.all.insert(name.to_vec());
        level.last = name.to_vec();
        if duplicate {
            let what = "the directory has this name twice: only the first is found";
            self.find(Severity::Error, Some(&found.path), found.inode.at, what);
        } else if unsorted {
            let what = "out of order in a directory that the superblock calls sorted: Linux may not find it";
            self.find(Severity::Error, Some(&found.path), found.inode.at, what);
        }
    }

    /// Fields that Linux does not look at, but that say that something is missing (fsck.cramfs refuses them all).
    fn fields(&mut self, found: &Found) {
        let Ok(raw) = self.image.raw_inode(&found.inode) else {
            return;
        };
        let (size, data) = (raw.size != 0, raw.offset_words != 0);
        let what = match found.inode.kind {
            InodeKind::Directory | InodeKind::File | InodeKind::Symlink if size && !data => {
                "has a size but no data: Linux shows it empty"
            }
            InodeKind::File | InodeKind::Symlink if data && !size => {
                "has data but no size: Linux shows it empty"
            }
            InodeKind::Fifo | InodeKind::Socket if size => "has a size, which means nothing here",
            InodeKind::CharDevice
            | InodeKind::BlockDevice
            | InodeKind::Fifo
            | InodeKind::Socket
                if data =>
            {
                "has data, which means nothing here"
            }
            _ => return,
        };
        let path = Some(found.path.as_slice());
        self.find(Severity::Warning, path, found.inode.at, what);
    }

    /// Takes `bytes` from the budget.
    fn may_look_at(&mut self, bytes: u64) -> bool {
        let left = self.budget_bytes.checked_sub(bytes);
        self.budget_bytes = left.unwrap_or(0);
        if left.is_none() && self.report.complete {
            let what = "files overlap so much that the check stops looking into them";
            self.find(Severity::Error, None, ImageOffset(0), what);
            self.report.complete = false;
        }
        left.is_some()
    }

    fn contents(&mut self, found: &Found) {
        let inode = found.inode;
        let path = Some(found.path.as_slice());
        if inode.size == 0 {
            if inode.kind == InodeKind::Symlink {
                self.find(
                    Severity::Error,
                    path,
                    inode.at,
                    "a symbolic link to nothing",
                );
            }
            return;
        }
        if let Some(first) = self.files.get(&inode.data.0).copied() {
            self.twin(found, &first);
            return;
        }
        self.files.insert(inode.data.0, inode);
        if !self.may_look_at(4 * inode.block_count()) {
            return;
        }
        self.data_blocks += inode.block_count();
        let blocks = match self.image.blocks(&inode) {
            Ok(blocks) => blocks,
            Err(err) => return self.find(Severity::Error, path, inode.data, err.to_string()),
        };
        for region in Region::of_file(&inode, &blocks) {
            self.region(Some(region));
        }
        self.pointers(found, &blocks);
        let mut bad_blocks = 0;
        for (block, number) in blocks.iter().zip(0..) {
            let want = BLOCK_BYTES.min(inode.size - number * BLOCK_BYTES);
            if let Err((severity, at, what)) = self.block(*block, want) {
                bad_blocks += 1;
                // One broken file shall not hide the others' findings.
                if bad_blocks <= 10 {
                    self.find(severity, path, at, format!("block {number}: {what}"));
                }
            }
        }
        if bad_blocks > 10 {
            let what = format!("{bad_blocks} blocks are bad; the first ten are listed");
            self.find(Severity::Error, path, inode.data, what);
        }
        if inode.kind == InodeKind::Symlink
            && bad_blocks == 0
            && let Err(err) = self.image.read_link(&inode)
        {
            self.find(Severity::Error, path, inode.at, err.to_string());
        }
    }

    /// Another entry with the data of `first`: to Linux both are one inode, whichever is looked up first.
    fn twin(&mut self, found: &Found, first: &Inode) {
        let inode = found.inode;
        let (severity, what) = if (inode.size, inode.kind) != (first.size, first.kind) {
            (Severity::Error, "type or size")
        } else if (inode.mode, inode.uid, inode.gid) != (first.mode, first.uid, first.gid) {
            (Severity::Warning, "mode or owner")
        } else {
            return;
        };
        let what = format!(
            "has the data of the inode at {}, but another {what}: Linux shows both like the one it sees first",
            first.at
        );
        self.find(severity, Some(&found.path), inode.at, what);
    }

    /// What the pointers say that [`Image::blocks`] does not.
    fn pointers(&mut self, found: &Found, blocks: &[Block]) {
        let inode = found.inode;
        let path = Some(found.path.as_slice());
        let mut table = vec![0; 4 * blocks.len()];
        if self.image.read_exact_at(&mut table, inode.data.0).is_err() {
            return;
        }
        let raw: Vec<u32> = table
            .chunks_exact(4)
            .map(|raw| self.image.endian().u32(raw.try_into().unwrap_or_default()))
            .collect();
        if !self.has_flag(flags::EXT_BLOCK_POINTERS) && raw.iter().any(|raw| raw & BLOCK_FLAGS != 0)
        {
            let what = "extended block pointers, but the superblock does not have their flag: old kernels read \
                        garbage, new ones do not map it in place";
            self.find(Severity::Error, path, inode.data, what);
        }
        let direct_stored = BLOCK_DIRECT | BLOCK_UNCOMPRESSED;
        if has_whole_last_block(inode.size)
            && raw
                .last()
                .is_some_and(|raw| raw & BLOCK_FLAGS == direct_stored)
        {
            let what = "its last block is whole, direct and uncompressed: read(2) on Linux takes its length for 0 and \
                        gives zeros; rebuild the image with xip-image";
            self.find(Severity::Error, path, inode.data, what);
        }
        if !self.has_flag(flags::HOLES) && blocks.contains(&Block::Hole) {
            let what = "a hole, but the superblock does not have the flag for holes";
            self.find(Severity::Note, path, inode.data, what);
        }
    }

    /// Does the block give the `want` bytes that it should?
    fn block(&mut self, block: Block, want: u64) -> Result<(), (Severity, ImageOffset, String)> {
        let (at, len_bytes) = match block {
            Block::Hole => return Ok(()),
            Block::Stored { at, len_bytes } if u64::from(len_bytes) < want => {
                let what = format!(
                    "stored with {len_bytes} bytes instead of {want}, the rest reads as zeros"
                );
                return Err((Severity::Warning, at, what));
            }
            Block::Stored { .. } => return Ok(()),
            Block::Compressed { at, len_bytes } => (at, len_bytes),
        };
        if !self.streams.insert((at, len_bytes))
            || !self.may_look_at(u64::from(len_bytes) + STREAM_COST_BYTES)
        {
            return Ok(());
        }
        let mut stream = [0; MAX_STREAM_BYTES];
        let stream = stream.get_mut(..len_bytes as usize).unwrap_or_default();
        let mut page = [0; BLOCK_BYTES as usize];
        self.image
            .read_exact_at(stream, at.0)
            .map_err(|err| (Severity::Error, at, err.to_string()))?;
        match reader::inflate(stream, &mut page) {
            Ok(len) if len as u64 == want => Ok(()),
            Ok(len) => {
                let what = format!("inflates to {len} bytes instead of {want}");
                Err((Severity::Error, at, what))
            }
            Err(what) => Err((Severity::Error, at, what.to_owned())),
        }
    }

    fn counts(&mut self) {
        if !self.has_flag(flags::FSID_V2) || !self.report.complete {
            return;
        }
        let superblock = self.image.superblock();
        let at = ImageOffset(self.image.super_offset());
        for (what, says, are) in [
            ("files", superblock.files, self.report.entries),
            ("blocks", superblock.blocks, self.data_blocks),
        ] {
            if u64::from(says) != are {
                let text = format!(
                    "the superblock says {says} {what}, there are {are}: statfs(2) is wrong"
                );
                // Of no files at all even fsck.cramfs sees that it is wrong.
                let severity = if says == 0 && what == "files" {
                    Severity::Warning
                } else {
                    Severity::Note
                };
                self.find(severity, None, at, text);
            }
        }
    }

    /// Looks at the bytes between the regions; where something cannot be read, its bytes are expected to be among them.
    fn unused(&mut self) {
        if self.report.is_sound() {
            for (severity, at, what) in unused(self.image, &self.regions) {
                self.find(severity, None, at, what);
            }
        }
    }

    /// Holds every region against the others. Two files may have the very same blocks; anything else that overlaps is
    /// read as something it is not by one of them.
    fn overlaps(&mut self) {
        let mut overlapping = Vec::new();
        let mut top: Option<Region> = None;
        for region in std::mem::take(&mut self.regions) {
            if let Some(top) = top
                && region.start < top.end
                && overlapping.len() < MAX_FINDINGS
            {
                let data = |kind| matches!(kind, RegionKind::Stored | RegionKind::Compressed);
                let both_data = data(region.kind) && data(top.kind);
                let same =
                    (region.start, region.end, region.kind) == (top.start, top.end, top.kind);
                if !(both_data && same) {
                    // Contents lie in the way of metadata, not the other way round.
                    let (region, other) = if region.kind < top.kind {
                        (top, region)
                    } else {
                        (region, top)
                    };
                    overlapping.push((other, region, both_data));
                }
            }
            if top.is_none_or(|top| region.end > top.end) {
                top = Some(region);
            }
        }
        if overlapping.is_empty() {
            return;
        }
        let paths = self.paths(overlapping.iter().map(|(_, region, _)| region.inode));
        for (top, region, both_data) in overlapping {
            let severity = if both_data {
                Severity::Warning
            } else {
                Severity::Error
            };
            let what = format!(
                "{} at {:#x}-{:#x} overlaps {} at {:#x}-{:#x} of the inode at {}",
                region.kind, region.start, region.end, top.kind, top.start, top.end, top.inode
            );
            let path = paths.get(&region.inode).map(Vec::as_slice);
            self.find(severity, path, ImageOffset(region.start), what);
        }
    }

    /// The paths of these inodes.
    fn paths(&self, inodes: impl Iterator<Item = ImageOffset>) -> HashMap<ImageOffset, Vec<u8>> {
        let wanted: HashSet<ImageOffset> = inodes.collect();
        let found = self.image.walk().filter_map(std::result::Result::ok);
        found
            .filter(|found| wanted.contains(&found.inode.at))
            .map(|found| (found.inode.at, found.path))
            .collect()
    }
}
