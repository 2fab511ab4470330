//! What holds the image, opened: a descriptor, where in it the image is, and a way to read from it.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, SeekFrom, StatxAttributes, StatxFlags};

use super::attribute::MemoryType;
use super::device::{self, Kind};
use super::mtd::Mtd;
use super::spec::{Part, Spec, show_range};
use super::system::System;
use super::{ReadAt, auto, hint, superblock};
use crate::error::{Error, Result};
use crate::sys::{self, Ended};

/// What tells whether a file is still the one that was planned with: `(st_dev, st_ino, st_size, st_mtime)`.
///
/// The mtime changes with every write; the ctime would too, but also when the image is linked or renamed, which changes
/// no byte of it. Of a device only the first two mean anything: the others are 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct FileIdentity {
    /// Device of the filesystem.
    pub dev: u64,
    /// Inode on it.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Last write, seconds.
    pub mtime_s: i64,
    /// Last write, nanoseconds within the second.
    pub mtime_ns: i64,
}

impl FileIdentity {
    fn of(stat: &Metadata, kind: Kind) -> Self {
        let of_file = |value: i64| if kind == Kind::File { value } else { 0 };
        Self {
            dev: stat.dev(),
            ino: stat.ino(),
            size: if kind == Kind::File { stat.size() } else { 0 },
            mtime_s: of_file(stat.mtime()),
            mtime_ns: of_file(stat.mtime_nsec()),
        }
    }
}

/// Where the image is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Window {
    /// The offset of its first byte in the descriptor, as mmap(2) takes it.
    pub at: u64,
    /// Its length, or of what holds it.
    pub len_bytes: u64,
    /// Has somebody given the length, or has the image been looked at for it?
    pub(super) len_known: bool,
    /// The offset of its first byte as /proc/PID/maps shows it: of a UIO or PCI device's memory that is the physical
    /// address.
    pub shown_at: u64,
    /// Mappings can begin at its start only.
    pub whole_only: bool,
    /// Mappings can be shared (`MAP_SHARED`) only.
    pub shared_only: bool,
    /// What addresses and offsets of mappings must be multiples of, where that is more than a page.
    pub align_bytes: u64,
    /// Its physical addresses, if they are known.
    pub addresses: Option<Range<u64>>,
    /// Has an MTD driver mapped them?
    pub driven: bool,
}

impl Window {
    pub(super) fn new(at: u64, len_bytes: u64) -> Self {
        Self {
            at,
            len_bytes,
            len_known: true,
            shown_at: at,
            whole_only: false,
            shared_only: false,
            align_bytes: 1,
            addresses: None,
            driven: false,
        }
    }
}

/// What holds an image, opened read-only and never `O_SYNC`.
#[derive(Debug)]
pub struct Backing {
    file: File,
    path: PathBuf,
    name: String,
    kind: Kind,
    identity: FileIdentity,
    window: Window,
    /// A device's memory, and how much of it lies before the image.
    mapped: Option<(sys::Window, u64)>,
}

/// Longest image in bytes: what 26 bits of words can reach, and the largest file behind it.
const IMAGE_LIMIT: u64 = (256 + 16) << 20;
/// How long a child may look at memory that is perhaps not there.
pub(super) const TRIAL: sys::TimeLimit = sys::TimeLimit {
    processor_ms: 1000,
    wall_ms: 10_000,
};

impl Backing {
    /// Opens what `spec` names: see [`Spec`]. A path is kept as an absolute one. Memory of a device is looked at by a
    /// child first, which dies in the place of this process if nothing is there: to be called while the process has one
    /// thread.
    ///
    /// # Errors
    /// If it cannot be opened or mapped, or is nothing that holds an image; with the way out.
    pub fn open(spec: &Path) -> Result<Self> {
        let system = System::this();
        let name = spec.display().to_string();
        match Spec::parse(spec.as_os_str(), Path::is_file)? {
            Spec::Path { path, part } => Self::open_path(&path, part, name, &system),
            Spec::Mtd(wanted) => Self::open_mtd(&wanted, &system),
            Spec::Auto => Self::open_auto(&system),
        }
    }

    /// Opens the image that another process has told of: `len_bytes` bytes from `at` of what is at `path`. If that is
    /// `whole` only to be mapped, `at` is where mappings of the region begin: [`Window::at`].
    ///
    /// # Errors
    /// See [`Backing::open`].
    pub fn open_again(path: &Path, at: u64, len_bytes: u64, whole: bool) -> Result<Self> {
        let part = Some(match whole {
            true => Part::Map((at / crate::sys::page_size()) as u32),
            false => Part::Bytes {
                at,
                len_bytes: Some(len_bytes),
            },
        });
        let name = path.display().to_string();
        Self::open_path(path, part, name, &System::this())
    }

    fn open_mtd(wanted: &str, system: &System) -> Result<Self> {
        let mtd = Mtd::find(system, wanted)?;
        let window = mtd.window(system)?;
        let name = format!("mtd:{} (/dev/mem@{})", mtd.name, show_range(&window));
        let part = Part::Bytes {
            at: window.start,
            len_bytes: Some(window.end - window.start),
        };
        let mut backing = Self::open_path(Path::new("/dev/mem"), Some(part), name, system)?;
        backing.window.driven = true;
        backing.require_same_head(&system.path(&format!("/dev/mtd{}ro", mtd.number)))?;
        Ok(backing)
    }

    fn open_auto(system: &System) -> Result<Self> {
        let (spec, why) = auto::find(system)?;
        let opened = match spec {
            Spec::Path { path, part } => {
                let name = match &part {
                    Some(Part::Bytes { at, .. }) => format!("{}@{at:#x}", path.display()),
                    _ => path.display().to_string(),
                };
                Self::open_path(&path, part, name, system)
            }
            Spec::Mtd(wanted) => Self::open_mtd(&wanted, system),
            Spec::Auto => Err(Error::failed("it names itself")),
        };
        opened.map_err(|err| err.context(format!("auto: {why}")))
    }

    fn open_path(path: &Path, part: Option<Part>, name: String, system: &System) -> Result<Self> {
        let fail = |what: &str, err: io::Error| Error::failed(format!("{name}: {what}: {err}"));
        let absolute = std::path::absolute(path).map_err(|err| fail("absolute path", err))?;
        // O_NONBLOCK: a FIFO of that name must be refused, not waited for. It means nothing to a regular file.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(path)
            .map_err(|err| {
                let hint = hint::of_open(path, &err, system);
                Error::failed(format!("{name}: open: {err}{hint}"))
            })?;
        let stat = file.metadata().map_err(|err| fail("fstat", err))?;
        let kind = Kind::of(&file, &stat, system)
            .map_err(|what| Error::failed(format!("{name}: {what}")))?;
        let window = find_window(&file, path, kind, &stat, part, system)
            .map_err(|what| Error::failed(format!("{name}: {what}")))?;
        let mut backing = Self {
            identity: FileIdentity::of(&stat, kind),
            file,
            path: absolute,
            name,
            kind,
            window,
            mapped: None,
        };
        if kind.is_device() {
            backing.map(system)?;
        }
        Ok(backing)
    }

    /// Maps the memory of a device to read from it, as much as the image has.
    fn map(&mut self, system: &System) -> Result<()> {
        let head = self.map_bytes(superblock::HEAD_BYTES as u64, system)?;
        let mut bytes = [0; superblock::HEAD_BYTES];
        let read = head.0.read(&mut bytes, head.1);
        let image = superblock::find(&bytes).filter(|_| read);
        drop(head);
        let len_bytes = match (
            image.and_then(|image| image.len_bytes),
            self.window.len_bytes,
        ) {
            (Some(len), window) => len.min(window),
            (None, window) if window <= IMAGE_LIMIT => window,
            _ => {
                return Err(Error::failed(format!(
                    "{}: no length was given, and there is no cramfs superblock that has one; is the address right? Name a \
                     length: ADDRESS+16M",
                    self.name
                )));
            }
        };
        self.window.len_bytes = len_bytes;
        self.window.len_known = true;
        if let Some(addresses) = &mut self.window.addresses {
            addresses.end = addresses.start + len_bytes;
        }
        self.mapped = Some(self.map_bytes(len_bytes, system)?);
        Ok(())
    }

    /// The image's first bytes, once a child has seen that they are there; and how much of the mapping lies before
    /// them.
    fn map_bytes(&self, len_bytes: u64, system: &System) -> Result<(sys::Window, u64)> {
        let len_bytes = len_bytes.min(self.window.len_bytes);
        let (mapping, skip) = self
            .mapping(0, len_bytes)
            .ok_or_else(|| Error::failed(format!("{}: too long to be mapped here", self.name)))?;
        let fail = |what: String| Error::failed(format!("{}: {what}", self.name));
        let page = crate::sys::page_size() as usize;
        let looked = sys::in_child_within(TRIAL, || {
            sys::no_core_dump();
            sys::Window::map(&mapping)
                .map_err(|err| {
                    let hint = hint::of_map(self.kind, &self.window, &err, false, system);
                    format!("mmap of {len_bytes:#x} bytes: {err}{hint}")
                })
                .map(|window| window.touch(page * 16))
        });
        match looked.map_err(|err| fail(format!("a child to look at it: {err}")))? {
            Ended::Succeeded => {}
            Ended::Failed(why) => return Err(fail(why)),
            other => {
                return Err(fail(format!(
                    "reading {len_bytes:#x} bytes of it {}: is there memory at this address?",
                    hint::of_end(&other)
                )));
            }
        }
        let window = sys::Window::map(&mapping).map_err(|err| fail(format!("mmap: {err}")))?;
        Ok((window, skip as u64))
    }

    /// How `len_bytes` bytes from `at` of the image are mapped, and how many bytes of the mapping lie before them;
    /// `None` if that is more than there can be.
    pub(super) fn mapping(&self, at: u64, len_bytes: u64) -> Option<(sys::Mapping<'_>, usize)> {
        let window = &self.window;
        let align = window.align_bytes.max(crate::sys::page_size());
        let start = window.at.checked_add(at)?;
        let offset = match window.whole_only {
            true => window.at,
            false => start - start % align,
        };
        let skip = start - offset;
        let len_bytes = skip
            .checked_add(len_bytes)?
            .checked_next_multiple_of(align)?;
        let mapping = sys::Mapping {
            fd: self.as_fd(),
            offset,
            len_bytes: usize::try_from(len_bytes).ok()?,
            shared: window.shared_only,
        };
        Some((mapping, usize::try_from(skip).ok()?))
    }

    /// Is it what an MTD device shows? If that cannot be read, it is not asked.
    fn require_same_head(&self, device: &Path) -> Result<()> {
        let mut there = [0; superblock::HEAD_BYTES];
        let mut here = there;
        let read = File::open(device).and_then(|device| device.read_exact_at(&mut there, 0));
        if read.is_err() {
            return Ok(());
        }
        self.read_exact_at(&mut here, 0)
            .map_err(|err| Error::failed(format!("{}: read: {err}", self.name)))?;
        match here == there {
            true => Ok(()),
            false => Err(Error::failed(format!(
                "{}: {} shows other bytes: the flash is not where the kernel's tables say, or it is not mapped plainly; \
                 name its address with /dev/mem@ADDRESS",
                self.name,
                device.display()
            ))),
        }
    }

    /// The absolute path by which it can be opened again, symbolic links kept: of physical memory that is /dev/mem.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What it was when it was opened.
    pub fn identity(&self) -> FileIdentity {
        self.identity
    }

    /// Where in it the image is.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// How the kernel maps it.
    pub fn memory_type(&self) -> MemoryType {
        MemoryType::of(self.kind, &self.window, &System::this())
    }

    /// Is it a file that is mapped from the storage itself? `STATX_ATTR_DAX`.
    pub fn is_dax_file(&self) -> bool {
        let flags = rustix::fs::AtFlags::EMPTY_PATH;
        rustix::fs::statx(&self.file, "", flags, StatxFlags::empty())
            .is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::DAX))
    }

    /// Does what is mapped of it take no RAM? A device's memory, or a DAX file.
    pub fn is_flash(&self) -> bool {
        self.kind.is_device() || self.is_dax_file()
    }
}

/// Where the image is in what was opened.
fn find_window(
    file: &File,
    path: &Path,
    kind: Kind,
    stat: &Metadata,
    part: Option<Part>,
    system: &System,
) -> Result<Window, String> {
    let whole = match kind {
        Kind::File => Window::new(0, stat.size()),
        Kind::BlockDevice => {
            let end = rustix::fs::seek(file, SeekFrom::End(0))
                .map_err(|err| format!("its length: {err}"))?;
            Window::new(0, end)
        }
        Kind::PhysicalMemory => match part {
            Some(Part::Bytes { .. }) => Window {
                addresses: Some(0..u64::MAX),
                ..Window::new(0, u64::MAX)
            },
            _ => {
                return Err("at which physical address is the flash? /dev/mem@0x04000000+16M (the length may be left \
                            away)"
                    .to_owned());
            }
        },
        Kind::Uio => {
            let map = match part {
                None => 0,
                Some(Part::Map(map)) => map,
                Some(Part::Bytes { .. }) => {
                    return Err(
                        "a UIO device has regions and no addresses: /dev/uio0@map0".to_owned()
                    );
                }
            };
            let addresses = device::uio_map(&device::directory(stat, system), map)?;
            // drivers/uio/uio.c uio_mmap(): the offset, in pages, is the region's number.
            return Ok(Window {
                shown_at: addresses.start,
                whole_only: true,
                addresses: Some(addresses.clone()),
                ..Window::new(
                    u64::from(map) * crate::sys::page_size(),
                    addresses.end - addresses.start,
                )
            });
        }
        Kind::DevDax => {
            let dax = device::devdax(stat, system).ok_or("sysfs does not tell its size")?;
            Window {
                shared_only: true,
                align_bytes: dax.align,
                addresses: dax.at.and_then(|at| Some(at..at.checked_add(dax.size)?)),
                ..Window::new(0, dax.size)
            }
        }
        Kind::PciResource => {
            let addresses = device::pci_address(path)
                .ok_or("a file of sysfs, but not `resourceN` of a PCI device")?;
            Window {
                shown_at: addresses,
                addresses: Some(addresses..addresses.saturating_add(stat.size())),
                ..Window::new(0, stat.size())
            }
        }
    };
    let (at, len_bytes) = match part {
        None => return Ok(whole),
        Some(Part::Map(_)) => return Err("only UIO devices have maps".to_owned()),
        Some(Part::Bytes { at, len_bytes }) => (at, len_bytes),
    };
    let left = whole
        .len_bytes
        .checked_sub(at)
        .filter(|&left| left > 0 && len_bytes.is_none_or(|len| len <= left));
    let Some(left) = left else {
        return Err(format!(
            "the part asked for is not in it: it has {:#x} bytes",
            whole.len_bytes
        ));
    };
    let len_known = len_bytes.is_some() || kind != Kind::PhysicalMemory;
    let len_bytes = len_bytes.unwrap_or(left);
    Ok(Window {
        at: whole.at + at,
        len_bytes,
        len_known,
        shown_at: whole.shown_at + at,
        addresses: whole
            .addresses
            .map(|range| range.start + at..range.start + at + len_bytes),
        ..whole
    })
}

impl AsFd for Backing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl ReadAt for Backing {
    fn len_bytes(&self) -> u64 {
        self.window.len_bytes
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        match &self.mapped {
            None => {
                let end = at.checked_add(buf.len() as u64);
                if end.is_none_or(|end| end > self.window.len_bytes) {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.file.read_exact_at(buf, self.window.at + at)
            }
            Some((window, skip)) => {
                let read = at.checked_add(*skip).is_some_and(|at| window.read(buf, at));
                match read {
                    true => Ok(()),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
        }
    }
}
