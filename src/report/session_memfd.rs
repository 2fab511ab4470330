//! The session memfds of a process that xip-run started: RAM, all of them, however little of it is mapped.
//!
//! A single program (`--no-root`) has its memfd as executable, so it lives as long as the process and those that it
//! forked. A process of a whole session maps one and has another as a descriptor; its executable is its program. smaps
//! shows the pages that are mapped now; but the record that the stub read, and every page that the program has its own copy
//! of or has unmapped, are still there, and nothing can drop them.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{Mode, OFlags};
use serde::Serialize;

use super::proc::{Proc, processes};
use super::smaps::{self, Mapping};
use crate::cramfs::show_name;
use crate::session::MEMFD_PREFIX;
use crate::sys::wire::{self, ImageMap};

/// `PATH_MAX`: no path in the record is longer, its NUL counted.
const PATH_MAX: usize = 4096;

/// What the session memfds of a process cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct SessionMemfd {
    /// RAM that they take, in bytes: their blocks (stat(2) `st_blocks`).
    pub allocated_bytes: u64,
    /// Processes that execute or map them, this one included; those that may not be looked at are not among them.
    pub sharers: u64,
    /// What each of them pays for, in bytes.
    pub share_bytes: u64,
}

impl SessionMemfd {
    /// Of 24 KiB that 3 processes share each pays for 8.
    pub fn new(allocated_bytes: u64, sharers: u64) -> Self {
        let sharers = sharers.max(1);
        Self {
            allocated_bytes,
            sharers,
            share_bytes: allocated_bytes / sharers,
        }
    }
}

/// Device and inode: stat(2) and maps show the same for a memfd.
pub(super) type Identity = ((u32, u32), u64);

fn identity(stat: &Metadata) -> Identity {
    let device = stat.dev();
    let numbers = (rustix::fs::major(device), rustix::fs::minor(device));
    (numbers, stat.ino())
}

/// One of them.
#[derive(Debug)]
pub(super) struct Memfd {
    pub(super) name: String,
    /// Does the process execute or map it, or is it only a descriptor?
    is_used: bool,
    /// `O_PATH`; `None` if it was seen in a mapping only, and could not be looked at.
    file: Option<OwnedFd>,
    /// RAM that it takes, bytes; `None` as above.
    pub(super) allocated_bytes: Option<u64>,
}

impl Memfd {
    /// What `path` below /proc/PID leads to, if it is a session memfd.
    fn open(proc: &Proc, path: &str) -> Option<(Identity, Self)> {
        let link = proc.link(path).ok()?;
        let name = session_name(link.as_bytes())?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&proc.dir, path, flags, Mode::empty()).ok()?;
        let file = File::from(file);
        let stat = file.metadata().ok()?;
        let memfd = Self {
            name,
            is_used: true,
            file: Some(file.into()),
            allocated_bytes: Some(stat.blocks().saturating_mul(512)),
        };
        Some((identity(&stat), memfd))
    }
}

/// The session memfds of a process: executed, mapped, or by descriptors.
#[derive(Debug, Default)]
pub(super) struct Memfds(BTreeMap<Identity, Memfd>);

impl Memfds {
    /// Looks at a process. What may not be seen is not there.
    pub(super) fn of(proc: &Proc) -> Self {
        let maps = proc.read("maps").unwrap_or_default();
        Self::among(proc, &smaps::parse_maps(&maps).collect::<Vec<_>>())
    }

    /// The same, for one whose mappings are known.
    pub(super) fn among(proc: &Proc, mappings: &[Mapping]) -> Self {
        let mut all: BTreeMap<_, _> = Memfd::open(proc, "exe").into_iter().collect();
        // A single program has no other.
        let descriptors = all.is_empty().then(|| proc.descriptors());
        for (fd, stat) in descriptors.into_iter().flatten() {
            if stat.is_file()
                && stat.nlink() == 0
                && let Some((key, memfd)) = Memfd::open(proc, &format!("fd/{fd}"))
            {
                let is_used = false;
                all.entry(key).or_insert(Memfd { is_used, ..memfd });
            }
        }
        for mapping in mappings.iter().filter(|mapping| is_session_memfd(mapping)) {
            let memfd = all.entry(key(mapping)).or_insert_with(|| {
                let range = format!("map_files/{:x}-{:x}", mapping.start, mapping.end);
                Memfd::open(proc, &range).map_or_else(
                    || Memfd {
                        name: session_name(&mapping.path).unwrap_or_default(),
                        is_used: true,
                        file: None,
                        allocated_bytes: None,
                    },
                    |(_, memfd)| memfd,
                )
            });
            memfd.is_used = true;
        }
        Self(all)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Identity, &Memfd)> {
        self.0.iter()
    }

    /// Those that the process executes or maps: all processes that do are of the same launch.
    pub(super) fn used(&self) -> impl Iterator<Item = Identity> {
        let used = self.0.iter().filter(|(_, memfd)| memfd.is_used);
        used.map(|(&key, _)| key)
    }

    /// What they cost, shared by all the processes that have them; `None` if there are none. `all` is what each process of
    /// the machine uses, if that is known.
    pub(super) fn cost(&self, all: Option<&[Vec<Identity>]>) -> Option<SessionMemfd> {
        let used: Vec<Identity> = self.used().collect();
        if used.is_empty() {
            return None;
        }
        let sharers = match all {
            Some(all) => all
                .iter()
                .filter(|theirs| theirs.iter().any(|one| used.contains(one)))
                .count(),
            None => processes().filter(|&pid| uses(pid, &used)).count(),
        } as u64;
        let allocated = self.0.values().filter_map(|memfd| memfd.allocated_bytes);
        Some(SessionMemfd::new(allocated.sum(), sharers))
    }

    /// The image, by the record in the first of them that has one.
    pub(super) fn image(&self, proc: &Proc) -> Option<SessionImage> {
        self.0.values().find_map(|memfd| {
            let fd = memfd.file.as_ref()?.as_raw_fd();
            let file = File::open(format!("/proc/self/fd/{fd}")).ok()?;
            image(proc, &file).ok().flatten()
        })
    }
}

/// Does a process execute or map one of these?
pub(super) fn uses(pid: u32, memfds: &[Identity]) -> bool {
    if memfds.is_empty() {
        return false;
    }
    let exe = std::fs::metadata(format!("/proc/{pid}/exe"));
    if exe.is_ok_and(|stat| memfds.contains(&identity(&stat))) {
        return true;
    }
    let maps = std::fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
    smaps::parse_maps(&maps)
        .any(|mapping| is_session_memfd(&mapping) && memfds.contains(&key(&mapping)))
}

/// Those that a process executes or maps, as in [`Memfds::used`].
pub(super) fn used(proc: &Proc, mappings: &[Mapping]) -> Vec<Identity> {
    let exe = Memfd::open(proc, "exe").map(|(key, _)| key);
    let mapped = mappings.iter().filter(|mapping| is_session_memfd(mapping));
    exe.into_iter().chain(mapped.map(key)).collect()
}

pub(super) fn is_session_memfd(mapping: &Mapping) -> bool {
    mapping.inode != 0 && named_for(&mapping.path).is_some()
}

fn key(mapping: &Mapping) -> Identity {
    (mapping.device, mapping.inode)
}

/// What a session memfd is named for, by the path that /proc shows: the program that was launched, or what it is to a whole
/// session.
pub(super) fn named_for(path: &[u8]) -> Option<&[u8]> {
    let name = path
        .strip_prefix(b"/memfd:")?
        .strip_prefix(MEMFD_PREFIX.as_bytes())?;
    Some(name.strip_suffix(b" (deleted)").unwrap_or(name))
}

/// Its name.
fn session_name(path: &[u8]) -> Option<String> {
    named_for(path).map(|what| format!("{MEMFD_PREFIX}{}", show_name(what)))
}

/// The image that a process was started from, by its record.
pub(super) struct SessionImage {
    pub(super) path: Vec<u8>,
    pub(super) inode: u64,
    /// The session's own descriptor of it, opened again as `O_PATH`: it leads there even if the image was deleted.
    pub(super) file: Option<OwnedFd>,
    /// Where in it the image is, if it is no file.
    pub(super) device: Option<ImageMap>,
}

impl SessionImage {
    /// By path and inode. (The device is not compared: btrfs and overlayfs show another one to stat(2).)
    pub(super) fn is_mapped_by(&self, mapping: &Mapping) -> bool {
        mapping.inode == self.inode && mapping.path == self.path
    }

    /// The device, by a mapping of it; `None` if the process has none. Whoever maps it was let open it: the record alone
    /// shall have nobody's xip-mem open a device of its choice.
    pub(super) fn mapped_device(&self, proc: &Proc) -> Option<OwnedFd> {
        let maps = proc.read("maps").ok()?;
        let mapping = smaps::parse_maps(&maps).find(|mapping| self.is_mapped_by(mapping))?;
        proc.open_mapped(&mapping).ok()
    }

    /// A session's image is a descriptor of each of its processes.
    fn of_descriptor(proc: &Proc, number: u64, device: Option<ImageMap>) -> Option<Self> {
        let path = format!("fd/{number}");
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&proc.dir, path.as_str(), flags, Mode::empty()).ok()?;
        let name = proc.link(&path).ok()?;
        let name = name.as_bytes();
        Some(Self {
            path: name.strip_suffix(b" (deleted)").unwrap_or(name).to_vec(),
            inode: rustix::fs::fstat(&file).ok()?.st_ino,
            file: Some(file),
            device,
        })
    }
}

/// What the record in a memfd says of the image; `None` if it has no record of this version. Anybody can make a memfd
/// of that name, so nothing in it is believed beyond a name to compare with, and a descriptor of the process's own.
fn image(proc: &Proc, memfd: &File) -> io::Result<Option<SessionImage>> {
    let number_at = |record: u64, offset: usize| {
        let mut bytes = [0; 8];
        memfd.read_exact_at(&mut bytes, record + offset as u64)?;
        io::Result::Ok(u64::from_ne_bytes(bytes))
    };
    if number_at(wire::SESSION_RECORD, offset_of!(wire::Session, magic))? == wire::SESSION_MAGIC {
        let number = |offset| number_at(wire::SESSION_RECORD, offset);
        let fd = number(offset_of!(wire::Session, image_fd))?;
        let device = device(&number, offset_of!(wire::Session, image_map))?;
        return Ok(SessionImage::of_descriptor(proc, fd, device));
    }
    let number = |offset| number_at(wire::RECORD, offset);
    if number(offset_of!(wire::Record, magic))? != wire::MAGIC {
        return Ok(None);
    }
    let image = offset_of!(wire::Record, image);
    let path = image + offset_of!(wire::Image, path);
    let at = number(path + offset_of!(wire::Str, at))?;
    let len = number(path + offset_of!(wire::Str, len))?;
    let (Some(at), Ok(len)) = (at.checked_add(wire::RECORD), usize::try_from(len)) else {
        return Ok(None);
    };
    if len >= PATH_MAX {
        return Ok(None);
    }
    let mut path = vec![0; len];
    memfd.read_exact_at(&mut path, at)?;
    let inode = number(image + offset_of!(wire::Image, ino))?;
    Ok(Some(SessionImage {
        path,
        inode,
        file: None,
        device: device(&number, image + offset_of!(wire::Image, map))?,
    }))
}

/// What the record says of a device, at this place in it; `None` if the image is a file.
fn device(number: &impl Fn(usize) -> io::Result<u64>, at: usize) -> io::Result<Option<ImageMap>> {
    let map = ImageMap {
        base: number(at + offset_of!(ImageMap, base))?,
        len: number(at + offset_of!(ImageMap, len))?,
        shown: number(at + offset_of!(ImageMap, shown))?,
        flags: number(at + offset_of!(ImageMap, flags))?,
    };
    let is_part = map.flags & wire::IMAGE_DEVICE != 0 || map.base != 0;
    Ok(is_part.then_some(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_memfds_are_found_in_maps() {
        let maps = b"\
00400000-00401000 r--p 00139000 fe:00 101        /x/memfd:xip-run:image\n\
005e5000-005ec000 rw-p 00000000 00:00 0 \n\
7f8000000000-7f8000021000 r-xp 00000000 00:01 125193    /memfd:xip-run:session (deleted)\n\
7f8000031000-7f8000041000 r-xp 00000000 00:1f 7    /memfd:other (deleted)\n\
7f8000051000-7f8000061000 r-xp 00000000 00:01 8    /memfd:xip-run:/bin/a b (deleted)\n\
7ffeb1065000-7ffeb1086000 rw-p 00000000 00:00 0    [stack]";
        let mappings = smaps::parse_maps(maps).filter(is_session_memfd);
        let found: Vec<_> = mappings
            .map(|mapping| (key(&mapping), session_name(&mapping.path)))
            .collect();
        let name = |name: &str| Some(name.to_owned());
        assert_eq!(
            found,
            [
                (((0, 1), 125_193), name("xip-run:session")),
                (((0, 1), 8), name("xip-run:/bin/a b"))
            ]
        );
    }
}
