//! Units of length, address, protection and byte order, validated when they are made.
//!
//! Everything after this module may rely on them: a [`PageRange`] is page aligned and not empty, a [`PageSize`] is a
//! page size that Linux uses. Nothing later checks that again.

use std::fmt;

use crate::error::{Error, Result};

/// A block of cramfs, in bytes. Fixed by the format, whatever the kernel's page size.
pub const BLOCK_BYTES: u64 = 4096;

/// A page size of the running (or the planned-for) kernel: 4, 16 or 64 KiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
pub struct PageSize(u32);

impl PageSize {
    /// 4096 bytes.
    pub const K4: Self = Self(4096);
    /// 16384 bytes (arm64).
    pub const K16: Self = Self(16384);
    /// 65536 bytes (arm64, ppc64).
    pub const K64: Self = Self(65536);
    /// All that are supported, smallest first.
    pub const ALL: [Self; 3] = [Self::K4, Self::K16, Self::K64];

    /// The page size of `bytes` bytes, if it is a supported one.
    pub fn new(bytes: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|page| page.bytes() == bytes)
    }

    /// The running kernel's page size (`AT_PAGESZ`).
    ///
    /// # Errors
    /// [`Kind::Lacking`](crate::error::Kind) if it is not a supported one.
    pub fn of_running_kernel() -> Result<Self> {
        Self::new(crate::sys::page_size())
            .ok_or_else(|| Error::lacking("this kernel's page size is not 4, 16 or 64 KiB"))
    }

    /// Length in bytes.
    pub const fn bytes(self) -> u64 {
        self.0 as u64
    }

    /// `value` rounded down to a page boundary: `floor(0x1fff) == 0x1000` for 4 KiB.
    pub const fn floor(self, value: u64) -> u64 {
        value & !(self.bytes() - 1)
    }

    /// `value` rounded up to a page boundary, `None` if that does not fit.
    pub const fn ceil(self, value: u64) -> Option<u64> {
        match value.checked_add(self.bytes() - 1) {
            Some(sum) => Some(self.floor(sum)),
            None => None,
        }
    }

    /// The distance of `value` from its page's start: `offset(0x1234) == 0x234` for 4 KiB.
    pub const fn offset(self, value: u64) -> u64 {
        value & (self.bytes() - 1)
    }

    /// Is `value` on a page boundary?
    pub const fn aligned(self, value: u64) -> bool {
        self.offset(value) == 0
    }

    /// How many pages `len_bytes` bytes from a page boundary touch.
    pub const fn count(self, len_bytes: u64) -> u64 {
        len_bytes.div_ceil(self.bytes())
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB", self.0 / 1024)
    }
}

/// A byte offset from the start of the image's backing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash, Default, serde::Serialize)]
pub struct ImageOffset(pub u64);

impl fmt::Display for ImageOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "image@{:#x}", self.0)
    }
}

/// A byte offset from the start of a file in the image.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash, Default, serde::Serialize)]
pub struct FileOffset(pub u64);

impl fmt::Display for FileOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file@{:#x}", self.0)
    }
}

/// A page-aligned, non-empty range of addresses (or of file offsets).
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
pub struct PageRange {
    start: u64,
    end: u64,
}

impl PageRange {
    /// The range of `len_bytes` from `start`; `None` unless both are page aligned, it is not empty and does not wrap.
    pub const fn new(page: PageSize, start: u64, len_bytes: u64) -> Option<Self> {
        match start.checked_add(len_bytes) {
            Some(end) if len_bytes > 0 && page.aligned(start) && page.aligned(end) => {
                Some(Self { start, end })
            }
            _ => None,
        }
    }

    /// First byte.
    pub fn start(self) -> u64 {
        self.start
    }

    /// One past the last byte.
    pub fn end(self) -> u64 {
        self.end
    }

    /// Length in bytes, never 0.
    pub fn len_bytes(self) -> u64 {
        self.end - self.start
    }

    /// Do the two share a byte?
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

impl fmt::Display for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:08x}", self.start, self.end)
    }
}

/// Memory protection, as a segment's flags ask for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub struct Prot {
    /// `PROT_READ`
    pub read: bool,
    /// `PROT_WRITE`
    pub write: bool,
    /// `PROT_EXEC`
    pub exec: bool,
}

impl Prot {
    /// `rw-`, what anonymous bss pages get.
    pub const RW: Self = Self {
        read: true,
        write: true,
        exec: false,
    };

    /// The `PROT_*` bits of mmap(2): 1 read, 2 write, 4 exec on every architecture.
    pub const fn bits(self) -> u32 {
        self.read as u32 | (self.write as u32) << 1 | (self.exec as u32) << 2
    }
}

impl fmt::Display for Prot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (set, letter) in [(self.read, 'r'), (self.write, 'w'), (self.exec, 'x')] {
            write!(f, "{}", if set { letter } else { '-' })?;
        }
        Ok(())
    }
}

/// Byte order of an image or of a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Endian {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

impl Endian {
    /// The byte order of the machine this was compiled for.
    pub const HOST: Self = if cfg!(target_endian = "big") {
        Self::Big
    } else {
        Self::Little
    };

    /// Four bytes as a number.
    pub fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }

    /// Two bytes as a number.
    pub fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        }
    }

    /// A number as four bytes.
    pub fn bytes32(self, value: u32) -> [u8; 4] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }

    /// A number as two bytes.
    pub fn bytes16(self, value: u16) -> [u8; 2] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }
}

impl std::fmt::Display for Endian {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Little => "little",
            Self::Big => "big",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_arithmetic_does_not_wrap() {
        let page = PageSize::K16;
        assert_eq!(page.ceil(u64::MAX), None);
        assert_eq!(page.ceil(0), Some(0));
        assert_eq!(page.ceil(1), Some(16384));
        assert_eq!(page.floor(u64::MAX), 0xffff_ffff_ffff_c000);
        assert_eq!(PageSize::new(8192), None);
    }

    #[test]
    fn a_page_range_is_aligned_and_not_empty() {
        let page = PageSize::K4;
        assert!(PageRange::new(page, 0x1000, 0).is_none());
        assert!(PageRange::new(page, 0x1001, 0x1000).is_none());
        assert!(PageRange::new(page, 0x1000, 0x10).is_none());
        assert!(PageRange::new(page, u64::MAX - 0xfff, 0x1000).is_none());
        let range = PageRange::new(page, 0x1000, 0x2000).unwrap();
        assert_eq!(
            (range.start(), range.end(), range.len_bytes()),
            (0x1000, 0x3000, 0x2000)
        );
        assert!(range.overlaps(PageRange::new(page, 0x2000, 0x1000).unwrap()));
        assert!(!range.overlaps(PageRange::new(page, 0x3000, 0x1000).unwrap()));
    }

    #[test]
    fn protections_print_as_in_proc_maps() {
        let prot = Prot {
            read: true,
            write: false,
            exec: true,
        };
        assert_eq!(prot.to_string(), "r-x");
        assert_eq!(prot.bits(), 5);
        assert_eq!(Prot::RW.bits(), 3);
    }
}
