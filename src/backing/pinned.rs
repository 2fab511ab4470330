//! `MAP_DIRECT`'s promise: can nobody change the bytes beneath a running program?
//!
//! Asked once, before the start, of what stays as it is unless somebody with the right to it lifts it: the superuser can, with
//! chattr(1), blockdev(8) or a driver. What can be seen only at one moment, such as who has a device open, is not asked, but
//! for files that are immutable: they could have been opened before they were.

use std::fs::{Metadata, canonicalize};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, IFlags, SealFlags, StatxAttributes, StatxFlags};

use super::device::{self, Kind};
use super::mtd::Mtd;
use super::open::Backing;
use super::system::{System, text};
use crate::error::{Error, Result};
use crate::sys;

impl Backing {
    /// Can nobody change the image?
    ///
    /// # Errors
    /// [`Kind::Lacking`](crate::error::Kind) (`EOPNOTSUPP`): how it could be changed, and the way out.
    pub fn require_pinned(&self) -> Result<()> {
        self.pinned(&System::this()).map_err(|why| {
            Error::lacking(format!("{}: not pinned (EOPNOTSUPP): {why}", self.name()))
        })
    }

    fn pinned(&self, system: &System) -> Result<(), String> {
        let stat = || {
            let file = self.as_fd().try_clone_to_owned().map(std::fs::File::from);
            let stat = file.and_then(|file| file.metadata());
            stat.map_err(|err| format!("fstat: {err}"))
        };
        match self.kind() {
            Kind::File => self.file_is_pinned(&stat()?, system),
            Kind::BlockDevice => block_device(&device::directory(&stat()?, system), system)
                .map_err(|why| format!("{why}; make it read-only: blockdev --setro")),
            Kind::PhysicalMemory | Kind::Uio => match &self.window().addresses {
                Some(addresses) => window(addresses, system),
                None => Err("its physical addresses are not known".to_owned()),
            },
            Kind::DevDax => Err(
                "whoever may open the device may write to it; use a file on a filesystem with DAX, and chattr +i"
                    .to_owned(),
            ),
            Kind::PciResource => Err(
                "the device may change its memory; use flash, or a file that is immutable".to_owned(),
            ),
        }
    }

    fn file_is_pinned(&self, stat: &Metadata, system: &System) -> Result<(), String> {
        if is_sealed(self) || is_on_read_only_device(stat, system) {
            return Ok(());
        }
        if !is_immutable(self) {
            return Err(
                "the file can be written to; make it immutable (chattr +i), or use fs-verity, a sealed memfd, or a \
                 filesystem on a read-only block device"
                    .to_owned(),
            );
        }
        match sys::is_open_for_writing(self.as_fd()) {
            Some(true) => Err(
                "the file is immutable, but somebody has it open for writing; end that process"
                    .to_owned(),
            ),
            // Whose files it is not for this user to ask of: the kernel's own filesystems refuse to write to such a file.
            Some(false) | None => Ok(()),
        }
    }
}

/// memfd_create(2): nobody can change what has these seals.
fn is_sealed(file: &Backing) -> bool {
    let needed = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW;
    rustix::fs::fcntl_get_seals(file).is_ok_and(|seals| seals.contains(needed))
}

/// `chattr +i`, fs-verity. Old filesystems tell of the first by ioctl(2) only.
fn is_immutable(file: &Backing) -> bool {
    let wanted = StatxAttributes::IMMUTABLE | StatxAttributes::VERITY;
    let by_statx = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::empty())
        .is_ok_and(|stat| stat.stx_attributes.intersects(wanted));
    by_statx
        || rustix::fs::ioctl_getflags(file).is_ok_and(|flags| flags.contains(IFlags::IMMUTABLE))
}

/// Is the filesystem that a file is on on a block device that nobody can write to? How it is mounted does not matter: that
/// can be changed.
fn is_on_read_only_device(stat: &Metadata, system: &System) -> bool {
    let (major, minor) = (rustix::fs::major(stat.dev()), rustix::fs::minor(stat.dev()));
    let dir = system.path(&format!("/sys/dev/block/{major}:{minor}"));
    block_device(&dir, system).is_ok()
}

/// Can nobody write to a block device, whose directory in sysfs is `dir`, nor to what it is a part of?
///
/// # Errors
/// How it can be written to.
pub(super) fn block_device(dir: &Path, system: &System) -> Result<(), String> {
    let unknown = |err: std::io::Error| format!("sysfs does not tell of the device: {err}");
    let mut dir = canonicalize(dir).map_err(unknown)?;
    loop {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let name = name.as_ref();
        if text(&dir.join("ro")).as_deref() != Some("1") {
            return Err(format!("the block device {name} can be written to"));
        }
        if ["loop/backing_file", "dm", "md"]
            .iter()
            .any(|what| dir.join(what).exists())
        {
            return Err(format!(
                "the block device {name} is read-only, but lies on something else, which can perhaps be written to"
            ));
        }
        if let Some(number) = name.strip_prefix("mtdblock") {
            let mtd = Mtd::find(system, number).map_err(|err| err.to_string())?;
            let chip = mtd.chip().0;
            return no_writer(system, |other| Ok(other.chip().0 == chip));
        }
        match dir.parent() {
            Some(whole) if dir.join("partition").exists() => dir = whole.to_owned(),
            _ => return Ok(()),
        }
    }
}

/// Can nobody change memory at physical addresses, by a driver?
///
/// # Errors
/// Who can.
pub(super) fn window(addresses: &Range<u64>, system: &System) -> Result<(), String> {
    let iomem = system.iomem();
    if iomem.is_empty() {
        return Err("/proc/iomem tells root only who has these addresses".to_owned());
    }
    let is_storage = |name: &str| {
        ["System RAM", "Persistent Memory", "namespace", "dax"]
            .iter()
            .any(|storage| name.starts_with(storage))
    };
    if let Some(claim) = iomem
        .overlapping(addresses)
        .find(|claim| is_storage(&claim.name))
    {
        return Err(format!(
            "its addresses are {:?} (/proc/iomem), which the kernel lets be written to; use flash or reserved memory, or a \
             file that is immutable (chattr +i) on a filesystem with DAX there",
            claim.name
        ));
    }
    no_writer(system, |mtd| {
        let windows = mtd.chip_windows(&mtd.chip().0, system)?;
        let overlaps =
            |window: &Range<u64>| window.start < addresses.end && addresses.start < window.end;
        Ok(windows.iter().any(overlaps))
    })
}

/// Can no MTD device be written to that is on the same chip? Be it another partition: while a NOR chip is written or erased,
/// no part of it shows its bytes.
fn no_writer(
    system: &System,
    is_same_chip: impl Fn(&Mtd) -> Result<bool, String>,
) -> Result<(), String> {
    const WAY_OUT: &str = "make it read-only (`read-only` in its partition's node of the device tree, `ro` in mtdparts=), or \
                           do without its driver";
    for mtd in Mtd::all(system) {
        if !mtd.may_be_mapped() || !mtd.is_writable {
            continue;
        }
        let title = format!("the MTD device {} ({:?})", mtd.number, mtd.name);
        match is_same_chip(&mtd) {
            Ok(false) => {}
            Ok(true) => {
                return Err(format!(
                    "{title}, of the same chip, can be written to; {WAY_OUT}"
                ));
            }
            Err(why) => {
                return Err(format!(
                    "{title} can be written to, and where it is is not known: {why}; {WAY_OUT}"
                ));
            }
        }
    }
    Ok(())
}
