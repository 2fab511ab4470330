//! Names what stands behind a mapping, honestly: the page cache is never called flash.

use std::ops::Range;
use std::sync::Arc;

use super::image_files::ImageFiles;
use super::smaps::Mapping;
use crate::sys::wire;
use crate::units::ImageOffset;

use super::session_memfd::named_for;

/// What stands behind a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Memory-mapped flash (or ROM, or a reserved window) by its physical pages: /dev/mem, UIO, a PCI resource, the
    /// kernel's own cramfs XIP. Costs no RAM; the kernel counts none of it in Rss.
    Flash,
    /// A file or device that is mapped by DAX. Costs no RAM; Linux before 6.15 counts none of it in Rss, later ones do.
    FlashDax,
    /// A cramfs image in a file: run in place, from the page cache.
    ImageCache,
    /// A cramfs image in a file of a tmpfs or ramfs: run in place, from RAM that the kernel cannot drop.
    ImageTmpfs,
    /// Any other file, through the page cache.
    FileCache,
    /// A memfd, System V, POSIX or anonymous shared memory: page cache without a file.
    SharedMemory,
    /// xip-run's loader stub.
    Stub,
    /// Pages that a session copied because flash cannot be mapped for them, shared by its processes.
    CopiedPages,
    /// No file: heap, stack, bss.
    Anonymous,
    /// The kernel's own pages: vdso, vvar, vsyscall.
    Kernel,
    /// Any other device's memory.
    Device,
}

impl Class {
    /// What the tables show.
    pub fn title(self) -> &'static str {
        match self {
            Self::Flash => "flash",
            Self::FlashDax => "flash (DAX)",
            Self::ImageCache => "page cache of image",
            Self::ImageTmpfs => "image in tmpfs (RAM)",
            Self::FileCache => "page cache",
            Self::SharedMemory => "shared memory",
            Self::Stub => "stub",
            Self::CopiedPages => "copied pages",
            Self::Anonymous => "anonymous",
            Self::Kernel => "kernel",
            Self::Device => "device",
        }
    }

    /// Is it run in place, from flash or from an image in RAM?
    pub fn in_place(self) -> bool {
        matches!(
            self,
            Self::Flash | Self::FlashDax | Self::ImageCache | Self::ImageTmpfs
        )
    }
}

/// What the file behind a mapping turned out to be when it was opened.
#[derive(Clone, Debug, Default)]
pub struct MappedFile {
    /// `STATX_ATTR_DAX`: its pages are the storage's own memory.
    pub dax: bool,
    /// If it is on a tmpfs or ramfs: the RAM that all of it takes, in bytes. (On an overlay of one it cannot be told.)
    pub tmpfs_bytes: Option<u64>,
    /// Is it a cramfs image?
    pub is_image: bool,
    /// The files in it, if it is an image that could be read.
    pub image: Option<Arc<ImageFiles>>,
    /// Where in it the image is, as the offsets of mappings show it; `None` if it is all of it.
    pub window: Option<Range<u64>>,
}

impl MappedFile {
    /// The files of the image that a mapping shows, and where in the image it begins.
    pub fn image_at(&self, mapping: &Mapping) -> Option<(&Arc<ImageFiles>, ImageOffset)> {
        let start = match &self.window {
            Some(window) if !window.contains(&mapping.offset_bytes) => return None,
            Some(window) => window.start,
            None => 0,
        };
        let at = ImageOffset(mapping.offset_bytes - start);
        Some((self.image.as_ref()?, at))
    }
}

/// Names what stands behind a mapping; `file` if its file could be opened.
///
/// A PFN or mixed mapping (VmFlags `pf`, `mm`) counts as flash unless it is shared and writable: flash is mapped
/// read-only or private, and what a driver gives a program to write to is the device's.
pub fn classify(mapping: &Mapping, file: Option<&MappedFile>) -> Class {
    let path = mapping.path.as_slice();
    if path.starts_with(b"[anon_shmem:") {
        return Class::SharedMemory;
    }
    if [
        &b"[vdso"[..],
        b"[vvar",
        b"[vsyscall",
        b"[vectors",
        b"[sigpage",
        b"[uprobes",
    ]
    .iter()
    .any(|name| path.starts_with(name))
    {
        return Class::Kernel;
    }
    if path.is_empty() || path.starts_with(b"[") {
        return Class::Anonymous;
    }
    let ordinary = if is_shared_memory(path) {
        Class::SharedMemory
    } else if is_device(mapping) {
        Class::Device
    } else {
        Class::FileCache
    };
    if mapping.shared && mapping.prot.write {
        return ordinary;
    }
    if path.starts_with(b"/dev/dax") || file.is_some_and(|file| file.dax) {
        return Class::FlashDax;
    }
    if mapping.has_flag(b"pf") || mapping.has_flag(b"mm") {
        return Class::Flash;
    }
    match file {
        Some(file) if file.is_image && file.tmpfs_bytes.is_some() => return Class::ImageTmpfs,
        Some(file) if file.is_image => return Class::ImageCache,
        _ => {}
    }
    match named_for(path) {
        // The stub and its record lie before the pages that were copied.
        Some(_) if mapping.offset_bytes <= wire::RECORD => Class::Stub,
        Some(_) => Class::CopiedPages,
        None => ordinary,
    }
}

fn is_shared_memory(path: &[u8]) -> bool {
    [&b"/memfd:"[..], b"/SYSV", b"/dev/zero", b"/dev/shm/"]
        .iter()
        .any(|prefix| path.starts_with(prefix))
}

fn is_device(mapping: &Mapping) -> bool {
    mapping.has_flag(b"pf")
        || mapping.has_flag(b"mm")
        || mapping.path.starts_with(b"/dev/")
        || !mapping.path.starts_with(b"/")
}
