//! What sort of thing a descriptor is, and what the kernel says of it.

use std::fs::Metadata;
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::system::{System, names, number, text};

/// What holds an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A regular file: mapped from the page cache, or on a DAX filesystem from the storage itself.
    File,
    /// A block device: mapped from the page cache.
    BlockDevice,
    /// /dev/mem: physical addresses.
    PhysicalMemory,
    /// A memory region of a UIO device.
    Uio,
    /// /dev/daxX.Y: persistent memory without a filesystem.
    DevDax,
    /// `resourceN` of a PCI device in sysfs: a base address register's region.
    PciResource,
}

/// `SYSFS_MAGIC`
const SYSFS_MAGIC: u64 = 0x6265_6572;
/// `MEM_MAJOR`, and /dev/mem's minor number.
const DEV_MEM: (u32, u32) = (1, 1);

/// Major and minor number of a device node.
pub(super) fn numbers(stat: &Metadata) -> (u32, u32) {
    let dev = stat.rdev();
    (rustix::fs::major(dev), rustix::fs::minor(dev))
}

impl Kind {
    /// Of an open file. Its name does not matter.
    ///
    /// # Errors
    /// What it is instead, in words that go behind its name.
    pub(super) fn of(
        file: &std::fs::File,
        stat: &Metadata,
        system: &System,
    ) -> Result<Self, String> {
        let kind = stat.file_type();
        if kind.is_file() {
            let in_sysfs =
                rustix::fs::fstatfs(file).is_ok_and(|fs| fs.f_type as u64 == SYSFS_MAGIC);
            return Ok(match in_sysfs {
                true => Self::PciResource,
                false => Self::File,
            });
        }
        if kind.is_block_device() {
            return Ok(Self::BlockDevice);
        }
        if !kind.is_char_device() {
            return Err(
                "not a regular file and no device; name an image file that `xip-image build` or mkfs.cramfs made"
                    .to_owned(),
            );
        }
        if numbers(stat) == DEV_MEM {
            return Ok(Self::PhysicalMemory);
        }
        let subsystem = std::fs::read_link(directory(stat, system).join("subsystem"));
        let subsystem = subsystem.unwrap_or_default();
        match subsystem.file_name().and_then(|name| name.to_str()) {
            Some("uio") => Ok(Self::Uio),
            Some("dax") => Ok(Self::DevDax),
            Some("mtd") => Err(
                "not a regular file: Linux cannot map an MTD device; use mtd:NAME, which finds its physical addresses"
                    .to_owned(),
            ),
            _ => Err(
                "not a regular file, nor a device whose memory can be mapped (/dev/mem, UIO, DAX)".to_owned(),
            ),
        }
    }

    /// Is it mapped by physical addresses, or without a page cache? Then the kernel cannot be asked to read from it, and what
    /// a mapping is worth must be tried.
    pub fn is_device(self) -> bool {
        !matches!(self, Self::File | Self::BlockDevice)
    }

    /// What it is called in messages.
    pub fn title(self) -> &'static str {
        match self {
            Self::File => "a file",
            Self::BlockDevice => "a block device",
            Self::PhysicalMemory => "physical memory",
            Self::Uio => "a UIO device",
            Self::DevDax => "a DAX device",
            Self::PciResource => "a PCI device's memory",
        }
    }
}

/// The directory of a device in sysfs.
pub(super) fn directory(stat: &Metadata, system: &System) -> PathBuf {
    let (major, minor) = numbers(stat);
    let kind = if stat.file_type().is_block_device() {
        "block"
    } else {
        "char"
    };
    system.path(&format!("/sys/dev/{kind}/{major}:{minor}"))
}

/// The physical addresses of region `map` of a UIO device, whose directory in sysfs is `dir`.
///
/// # Errors
/// What is missing, in words that go behind the device's name.
pub(super) fn uio_map(dir: &Path, map: u32) -> Result<Range<u64>, String> {
    let maps = dir.join("maps");
    let dir = maps.join(format!("map{map}"));
    let (Some(at), Some(size)) = (number(&dir.join("addr")), number(&dir.join("size"))) else {
        let there = names(&maps);
        let mut list = Vec::new();
        for name in &there {
            let size = number(&maps.join(name).join("size")).unwrap_or(0);
            let title = text(&maps.join(name).join("name")).unwrap_or_default();
            list.push(format!("{name} ({size:#x} bytes, {title:?})"));
        }
        return Err(match list.is_empty() {
            true => "this UIO device has no memory that can be mapped".to_owned(),
            false => format!("has no map{map}; it has {}", list.join(", ")),
        });
    };
    let end = at.checked_add(size).ok_or("says that it is too long")?;
    // Where the region does not begin on a page boundary, mmap(2) gives the page's start.
    let skip = number(&dir.join("offset")).unwrap_or(0);
    match skip {
        0 => Ok(at..end),
        _ => Err(format!(
            "map{map} begins {skip:#x} bytes behind a page boundary: nothing in it is on one"
        )),
    }
}

/// What sysfs says of a DAX device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct DevDax {
    /// Bytes.
    pub(super) size: u64,
    /// What addresses, offsets and lengths of its mappings must be multiples of: 2 MiB unless it was made otherwise.
    pub(super) align: u64,
    /// Physical address, if this user may know.
    pub(super) at: Option<u64>,
}

pub(super) fn devdax(stat: &Metadata, system: &System) -> Option<DevDax> {
    let dir = directory(stat, system);
    Some(DevDax {
        size: number(&dir.join("size"))?,
        align: number(&dir.join("align")).unwrap_or(2 << 20),
        at: number(&dir.join("resource")),
    })
}

/// The physical address of a PCI resource: the N-th line of `resource` beside `resourceN` (`start end flags`).
pub(super) fn pci_address(path: &Path) -> Option<u64> {
    // It may have been opened through /proc/self/fd.
    let path = std::fs::canonicalize(path).ok()?;
    let name = path.file_name()?.to_str()?;
    let number: usize = name
        .strip_prefix("resource")?
        .trim_end_matches("_wc")
        .parse()
        .ok()?;
    let lines = text(&path.with_file_name("resource"))?;
    let start = lines.lines().nth(number)?.split(' ').next()?;
    u64::from_str_radix(start.strip_prefix("0x")?, 16).ok()
}
