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
        parent: None,
        directories: Vec::new(),
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
    // Now that nothing is put into them any more; those inside first.
    for (path, inode) in std::mem::take(&mut extract.directories).iter().rev() {
        if let Err(err) = extract.directory_mode(path, inode) {
            extract.fail(&err.context(printable(path)));
        }
    }
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
    /// The directory that the last entry was made in.
    parent: Option<(Vec<u8>, OwnedFd)>,
    directories: Vec<(Vec<u8>, Inode)>,
    done: Extracted,
    left_bytes: u64,
}

fn sys(call: &'static str) -> impl Fn(rustix::io::Errno) -> Error {
    move |err| Error::failed(format!("{call}: {err}"))
}

impl Extract<'_> {
    /// Opens a directory of the destination, one component at a time, following no link.
    fn open_dir(&self, path: &[u8]) -> Result<OwnedFd> {
        let mut dir = self
            .root
            .try_clone()
            .map_err(|err| Error::failed(format!("fcntl(F_DUPFD_CLOEXEC): {err}")))?;
        for name in path
            .split(|&byte| byte == b'/')
            .filter(|name| !name.is_empty())
        {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            dir = rustix::fs::openat(&dir, name, flags, Mode::empty())
                .map_err(sys("openat(O_DIRECTORY|O_NOFOLLOW)"))?;
        }
        Ok(dir)
    }

    /// The directory that an entry goes into.
    fn parent(&mut self, path: &[u8]) -> Result<OwnedFd> {
        match self.parent.take() {
            Some((known, dir)) if known == path => Ok(dir),
            _ => self.open_dir(path),
        }
    }

    fn fail(&mut self, why: &dyn std::fmt::Display) {
        if self.done.failed.len() < MAX_FINDINGS {
            self.done.failed.push(why.to_string());
        } else if self.done.failed.len() == MAX_FINDINGS {
            let more = "more could not be unpacked than is listed";
            self.done.failed.push(more.to_owned());
        }
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
            self.directories.push((found.path.clone(), found.inode));
            return Ok(());
        }
        let name = found.name();
        let parent_len = found.path.len() - name.len();
        let parent_path = found.path.get(..parent_len).unwrap_or_default();
        let parent = self.parent(parent_path)?;
        let made = self.make(&parent, name, found)?;
        self.parent = Some((parent_path.to_vec(), parent));
        if made {
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
                self.directories.push((found.path.clone(), inode));
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
        self.done.skipped.push(format!("{path}: left out: {why}"));
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

    fn directory_mode(&self, path: &[u8], inode: &Inode) -> Result<()> {
        self.attributes(self.open_dir(path)?, inode)
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
