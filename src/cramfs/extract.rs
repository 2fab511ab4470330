//! Unpacks an image into a directory, and nowhere else.
//!
//! An image is hostile: its names and links may aim outside. Names with `/`, `.` and `..` are refused by the reader; here
//! every entry is made by name in a directory descriptor, which was opened from the destination down one component at a
//! time without following a link, and nothing that exists is ever opened or replaced. So a link that the image made leads
//! nowhere, and a name that appears twice is an error.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};

use super::check::MAX_FINDINGS;
use super::dump::printable;
use super::walk::Found;
use super::{Block, Image, Inode, InodeKind};
use crate::error::{Error, Result};
use crate::units::BLOCK_BYTES;

/// How to unpack.
#[derive(Clone, Copy, Debug)]
pub struct ExtractOptions {
    /// Make devices, set owners and keep the set-user-ID and set-group-ID bits, for which one must be root.
    pub special: bool,
    /// Fail rather than write more than this. Every entry counts as 4 KiB besides its contents, for its inode.
    pub max_bytes: u64,
}

impl Default for ExtractOptions {
    fn default() -> Self {
        Self {
            special: false,
            max_bytes: 4 << 30,
        }
    }
}

/// What was unpacked.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Extracted {
    /// Entries made, the root not counted.
    pub entries: u64,
    /// Bytes of files and links.
    pub bytes: u64,
    /// What was left out, a sentence each.
    pub skipped: Vec<String>,
    /// What could not be unpacked, a sentence each; there is nothing of it.
    pub failed: Vec<String>,
}

/// Unpacks `image` into `dest`, which must not exist or be an empty directory.
///
/// # Errors
/// If `dest` is neither new nor empty, and if the image unpacks to more than the limit; what was made until then stays.
/// An entry that cannot be made is no error but one of [`Extracted::failed`], and the next ones are unpacked.
pub fn extract(image: &Image, dest: &Path, options: ExtractOptions) -> Result<Extracted> {
    let mut extract = Extract {
        image,
        options,
        root: open_dest(dest)?,
        levels: Vec::new(),
        path: Vec::new(),
        done: Extracted::default(),
        left_bytes: options.max_bytes,
    };
    // A directory that could not be made: what is in it follows it in the walk.
    let mut lost: Option<Vec<u8>> = None;
    for found in image.walk() {
        let found = match found {
            Ok(found) => found,
            Err(refused) => {
                extract.fail(&Error::from(refused));
                continue;
            }
        };
        if lost
            .as_ref()
            .is_some_and(|lost| found.path.starts_with(lost))
        {
            continue;
        }
        extract
            .reserve(&found)
            .map_err(|err| err.context(printable(&found.path)))?;
        extract.leave(found.depth);
        if let Err(err) = extract.entry(&found) {
            let err = err.context(printable(&found.path));
            if found.inode.kind == InodeKind::Directory {
                lost = Some([&found.path[..], b"/"].concat());
                extract.fail(&format!("{err} (nor was anything that is in it unpacked)"));
            } else {
                extract.fail(&err);
            }
        }
    }
    extract.leave(0);
    Ok(extract.done)
}

fn open_dest(dest: &Path) -> Result<OwnedFd> {
    let failed =
        |what: &str, err: io::Error| Error::failed(format!("{}: {what}: {err}", dest.display()));
    match fs::DirBuilder::new().mode(0o700).create(dest) {
        Ok(()) => {}
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
            let mut entries = fs::read_dir(dest).map_err(|err| failed("list", err))?;
            if entries.next().is_some() {
                return Err(Error::failed(format!(
                    "{}: not empty; name a new directory or an empty one",
                    dest.display()
                )));
            }
        }
        Err(err) => return Err(failed("mkdir", err)),
    }
    rustix::fs::open(dest, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|err| failed("open", err.into()))
}

struct Extract<'a> {
    image: &'a Image,
    options: ExtractOptions,
    root: OwnedFd,
    /// The directories from the root to where the walk is, as far as they were made.
    levels: Vec<Level>,
    /// The path of the last of them.
    path: Vec<u8>,
    done: Extracted,
    left_bytes: u64,
}

/// A directory that entries are made in.
struct Level {
    path_len: usize,
    inode: Inode,
    /// Of the deepest [`MAX_OPEN`] only.
    fd: Option<OwnedFd>,
}

/// How many directories are open at a time: 4095 bytes of path are 2047 directories.
const MAX_OPEN: usize = 64;

fn open_dir(parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
        .map_err(sys("openat(O_DIRECTORY|O_NOFOLLOW)"))
}

/// Adds to a list that ends at [`MAX_FINDINGS`].
fn note(list: &mut Vec<String>, what: &dyn std::fmt::Display, more: &str) {
    if list.len() < MAX_FINDINGS {
        list.push(what.to_string());
    } else if list.len() == MAX_FINDINGS {
        list.push(format!("more {more} than is listed"));
    }
}

fn sys(call: &'static str) -> impl Fn(rustix::io::Errno) -> Error {
    move |err| Error::failed(format!("{call}: {err}"))
}

impl Extract<'_> {
    /// The last directory of the levels.
    fn parent(&mut self) -> Result<OwnedFd> {
        if self.levels.last().is_none_or(|level| level.fd.is_none()) {
            self.open_levels()?;
        }
        let fd = self.levels.last().and_then(|level| level.fd.as_ref());
        fd.unwrap_or(&self.root)
            .try_clone()
            .map_err(|err| Error::failed(format!("fcntl(F_DUPFD_CLOEXEC): {err}")))
    }

    /// Opens the deepest levels again, from the destination down, one component at a time, following no link.
    fn open_levels(&mut self) -> Result<()> {
        let closed = self.levels.len().saturating_sub(MAX_OPEN);
        let mut names = self.path.split(|&byte| byte == b'/').skip(1);
        let mut dir = open_dir(&self.root, b".")?;
        for (number, level) in self.levels.iter_mut().enumerate() {
            if number > 0 {
                dir = open_dir(&dir, names.next().unwrap_or_default())?;
            }
            if number >= closed {
                let kept = dir.try_clone();
                level.fd = Some(kept.map_err(|err| Error::failed(format!("dup: {err}")))?);
            }
        }
        Ok(())
    }

    /// Goes into a directory that was made just now.
    fn enter(&mut self, found: &Found, fd: OwnedFd) {
        self.path = found.path.clone();
        self.levels.push(Level {
            path_len: self.path.len(),
            inode: found.inode,
            fd: Some(fd),
        });
        let far = self.levels.len().checked_sub(MAX_OPEN + 1);
        if let Some(level) = far.and_then(|far| self.levels.get_mut(far)) {
            level.fd = None;
        }
    }

    /// Goes up until so many directories are left. Now that nothing is put into them any more, they get their permissions.
    fn leave(&mut self, depth: usize) {
        while self.levels.len() > depth {
            let dir = self.parent();
            let Some(level) = self.levels.pop() else {
                return;
            };
            let done = dir.and_then(|dir| self.attributes(dir, &level.inode));
            if let Err(err) = done {
                self.fail(&err.context(printable(&self.path)));
            }
            let above = self.levels.last().map_or(0, |level| level.path_len);
            self.path.truncate(above);
        }
    }

    fn fail(&mut self, why: &dyn std::fmt::Display) {
        note(&mut self.done.failed, why, "could not be unpacked");
    }

    /// Takes what the entry needs from the limit.
    fn reserve(&mut self, found: &Found) -> Result<()> {
        if found.depth == 0 {
            return Ok(());
        }
        let left_bytes = self.left_bytes.checked_sub(found.inode.size + BLOCK_BYTES);
        self.left_bytes = left_bytes.ok_or_else(|| {
            Error::failed(format!(
                "the image unpacks to more than {} bytes; --max-bytes sets another limit",
                self.options.max_bytes
            ))
        })?;
        Ok(())
    }

    fn entry(&mut self, found: &Found) -> Result<()> {
        if found.depth == 0 {
            let root = open_dir(&self.root, b".")?;
            self.enter(found, root);
            return Ok(());
        }
        let parent = self.parent()?;
        if self.make(&parent, found.name(), found)? {
            self.done.entries += 1;
        }
        Ok(())
    }

    /// Makes the entry; `false` if it was left out.
    fn make(&mut self, parent: &OwnedFd, name: &[u8], found: &Found) -> Result<bool> {
        let inode = found.inode;
        match inode.kind {
            InodeKind::Directory => {
                rustix::fs::mkdirat(parent, name, Mode::RWXU).map_err(sys("mkdirat"))?;
                self.enter(found, open_dir(parent, name)?);
            }
            InodeKind::File => self.file(parent, name, &inode)?,
            InodeKind::Symlink => {
                let target = self.image.read_link(&inode)?;
                rustix::fs::symlinkat(target.as_slice(), parent, name).map_err(sys("symlinkat"))?;
                self.done.bytes += inode.size;
                self.owner(parent, name, &inode)?;
            }
            InodeKind::Fifo => self.node(parent, name, &inode, FileType::Fifo)?,
            InodeKind::Socket => self.node(parent, name, &inode, FileType::Socket)?,
            InodeKind::CharDevice if self.options.special => {
                self.node(parent, name, &inode, FileType::CharacterDevice)?;
            }
            InodeKind::BlockDevice if self.options.special => {
                self.node(parent, name, &inode, FileType::BlockDevice)?;
            }
            InodeKind::CharDevice | InodeKind::BlockDevice => {
                self.skip(found, "a device; --special makes it");
                return Ok(false);
            }
            InodeKind::Unknown => {
                self.skip(found, "of an unknown type");
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn skip(&mut self, found: &Found, why: &str) {
        let path = printable(&found.path);
        let what = format!("{path}: left out: {why}");
        note(&mut self.done.skipped, &what, "was left out");
    }

    /// The permissions that an entry gets.
    fn mode(&self, inode: &Inode) -> Mode {
        let mask = if self.options.special { 0o7777 } else { 0o1777 };
        Mode::from_raw_mode(u32::from(inode.mode) & mask)
    }

    fn owner(&self, parent: &OwnedFd, name: &[u8], inode: &Inode) -> Result<()> {
        if !self.options.special {
            return Ok(());
        }
        let (uid, gid) = owner_of(inode);
        rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(sys("fchownat (--special needs root)"))
    }

    /// Owner, then permissions: a change of owner clears set-user-ID.
    fn attributes(&self, fd: impl AsFd, inode: &Inode) -> Result<()> {
        if self.options.special {
            let (uid, gid) = owner_of(inode);
            rustix::fs::fchown(&fd, uid, gid).map_err(sys("fchown (--special needs root)"))?;
        }
        rustix::fs::fchmod(&fd, self.mode(inode)).map_err(sys("fchmod"))
    }

    fn node(&self, parent: &OwnedFd, name: &[u8], inode: &Inode, kind: FileType) -> Result<()> {
        let [major, minor] = inode.rdev.to_be_bytes();
        let device = rustix::fs::makedev(major.into(), minor.into());
        rustix::fs::mknodat(parent, name, kind, Mode::RUSR, device)
            .map_err(sys("mknodat (devices need root)"))?;
        self.owner(parent, name, inode)?;
        // It was made just now and is no link, so there is nothing to follow.
        rustix::fs::chmodat(parent, name, self.mode(inode), AtFlags::empty())
            .map_err(sys("fchmodat"))
    }

    /// A file, sparse where the image has holes.
    fn file(&mut self, parent: &OwnedFd, name: &[u8], inode: &Inode) -> Result<()> {
        let blocks = self.image.blocks(inode)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(sys("openat(O_CREAT|O_EXCL)"))?;
        let file = File::from(file);
        let filled = self.fill(&file, inode, blocks);
        if filled.is_err() {
            // It was made just now; half of it under its name would pass for it.
            let _ = rustix::fs::unlinkat(parent, name, AtFlags::empty());
        }
        filled
    }

    fn fill(&mut self, file: &File, inode: &Inode, blocks: Vec<Block>) -> Result<()> {
        let failed = |err: io::Error| Error::failed(format!("write: {err}"));
        file.set_len(inode.size).map_err(failed)?;
        let mut buf = [0; BLOCK_BYTES as usize];
        for (block, number) in blocks.into_iter().zip(0_u64..) {
            let at = number * BLOCK_BYTES;
            let want = BLOCK_BYTES.min(inode.size - at) as usize;
            let bytes = buf.get_mut(..want).unwrap_or_default();
            if block != Block::Hole {
                self.image
                    .read_block(block, bytes)
                    .map_err(|err| err.context(format!("block {number}")))?;
                file.write_all_at(bytes, at).map_err(failed)?;
            }
        }
        self.done.bytes += inode.size;
        self.attributes(file, inode)
    }
}

fn owner_of(inode: &Inode) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(inode.uid.into())),
        Some(Gid::from_raw(inode.gid.into())),
    )
}
