//! How the kernel maps a device's memory: cached or not. It cannot be asked; these are its rules.
//!
//! It matters for two reasons. Code in uncached memory is slow, or cannot run at all. And a page that is copied on write
//! inherits how the mapping was made: a program's data would be uncached RAM for good.

use std::ops::Range;

use serde::Serialize;

use super::device::Kind;
use super::open::Window;
use super::system::{DeviceTree, System};

/// How memory is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attribute {
    /// As RAM is: through the processor's caches.
    Cached,
    /// Every access goes to the device.
    Uncached,
    /// What the rules need to be told is not there.
    Unknown,
}

/// How memory is mapped, and by which rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct MemoryType {
    /// How.
    pub attribute: Attribute,
    /// The kernel's source that says so, and what it was applied to.
    pub rule: &'static str,
}

impl MemoryType {
    /// Of a device's window.
    pub(super) fn of(kind: Kind, window: &Window, system: &System) -> Self {
        let of = |attribute, rule| Self { attribute, rule };
        match (kind, &window.addresses) {
            (Kind::File | Kind::BlockDevice, _) => of(
                Attribute::Cached,
                "mm/filemap.c: the page cache; on DAX fs/dax.c: the storage as memory",
            ),
            (Kind::DevDax, _) => of(
                Attribute::Cached,
                "drivers/dax/device.c: the storage as memory",
            ),
            (Kind::Uio, _) => of(
                Attribute::Uncached,
                "drivers/uio/uio.c uio_mmap_physical(): pgprot_noncached",
            ),
            (Kind::PciResource, _) => of(
                Attribute::Uncached,
                "drivers/pci/mmap.c pci_mmap_resource_range(): pgprot_device, or write-combining",
            ),
            (Kind::PhysicalMemory, None) => of(Attribute::Unknown, "no addresses"),
            (Kind::PhysicalMemory, Some(addresses)) => match () {
                () if cfg!(target_arch = "x86_64") && window.driven => of(
                    Attribute::Uncached,
                    "arch/x86/mm/pat/memtype.c memtype_check_conflict(): as the MTD driver has it, by ioremap()",
                ),
                () if cfg!(target_arch = "x86_64") => x86(addresses, system),
                () if cfg!(target_arch = "aarch64") => arm64(addresses, system),
                () if cfg!(target_arch = "arm") => arm(addresses, system),
                () => riscv(addresses, system),
            },
        }
    }
}

/// `phys_mem_access_prot_allowed()` asks for write-back; `pat_x_mtrr_type()` gives it where the firmware's MTRRs do.
pub(super) fn x86(addresses: &Range<u64>, system: &System) -> MemoryType {
    const RULE: &str =
        "arch/x86/mm/pat/memtype.c pat_x_mtrr_type(): as the MTRRs in /proc/mtrr say";
    let text = system.text("/proc/mtrr").unwrap_or_default();
    MemoryType {
        attribute: of_mtrrs(&text, addresses),
        rule: RULE,
    }
}

/// `reg00: base=0x0c0000000 ( 3072MB), size= 1024MB, count=1: uncachable`. What no entry has is of the default type, which is
/// not shown: firmware lists what is not of it.
fn of_mtrrs(text: &str, addresses: &Range<u64>) -> Attribute {
    let mut types = Vec::new();
    let mut known = Vec::new();
    for line in text.lines() {
        let Some((range, kind)) = mtrr(line) else {
            return Attribute::Unknown;
        };
        known.push(kind);
        if range.start < addresses.end && addresses.start < range.end {
            let all = range.start <= addresses.start && addresses.end <= range.end;
            types.push((kind, all));
        }
    }
    let is_cached = |kind| kind == "write-back";
    match types.as_slice() {
        // Uncached wins wherever it overlaps another (Intel SDM 3A, 12.11.4.1).
        [_, ..] if types.iter().any(|&(kind, _)| !is_cached(kind)) => Attribute::Uncached,
        [_, ..] if types.iter().any(|&(_, all)| all) => Attribute::Cached,
        [_, ..] => Attribute::Unknown,
        [] if known.is_empty() => Attribute::Unknown,
        [] if known.iter().all(|&kind| kind == "uncachable") => Attribute::Cached,
        [] if known.contains(&"write-back") => Attribute::Uncached,
        [] => Attribute::Unknown,
    }
}

fn mtrr(line: &str) -> Option<(Range<u64>, &str)> {
    let (numbers, kind) = line.rsplit_once(": ")?;
    let (_, base) = numbers.split_once("base=0x")?;
    let base = base.split([' ', '(', ',']).next()?;
    let (_, size) = numbers.split_once("size=")?;
    let size = size.trim_start().split(',').next()?;
    let (size, unit) = size.split_at_checked(size.len().checked_sub(2)?)?;
    let shift = match unit {
        "KB" => 10,
        "MB" => 20,
        _ => return None,
    };
    let start = u64::from_str_radix(base, 16).ok()?;
    let size = size.trim().parse::<u64>().ok()?.checked_mul(1 << shift)?;
    Some((start..start.checked_add(size)?, kind.trim()))
}

pub(super) fn arm64(addresses: &Range<u64>, system: &System) -> MemoryType {
    const RULE: &str = "arch/arm64/mm/mmu.c phys_mem_access_prot(): what is no RAM of the kernel is device memory, never \
        executable";
    let iomem = system.iomem();
    MemoryType {
        attribute: match () {
            () if iomem.is_empty() => Attribute::Unknown,
            () if iomem.is_ram(addresses) => Attribute::Cached,
            () => Attribute::Uncached,
        },
        rule: RULE,
    }
}

pub(super) fn arm(addresses: &Range<u64>, system: &System) -> MemoryType {
    const RULE: &str = "arch/arm/mm/mmu.c phys_mem_access_prot(): cached where pfn_valid(), that is in the machine's memory, \
        also where it is reserved (no-map)";
    MemoryType {
        attribute: match in_memory_nodes(addresses, system) {
            Some(true) => Attribute::Cached,
            Some(false) => Attribute::Uncached,
            None if system.iomem().is_ram(addresses) => Attribute::Cached,
            None => Attribute::Unknown,
        },
        rule: RULE,
    }
}

pub(super) fn riscv(addresses: &Range<u64>, system: &System) -> MemoryType {
    const RULE: &str = "RISC-V Privileged Architecture, 3.6: as the machine's physical memory attributes say; its memory is \
        cached, also where it is reserved (no-map)";
    let is_memory =
        in_memory_nodes(addresses, system) == Some(true) || system.iomem().is_ram(addresses);
    MemoryType {
        attribute: match is_memory {
            true => Attribute::Cached,
            false => Attribute::Unknown,
        },
        rule: RULE,
    }
}

/// Are addresses in the machine's memory, as the device tree has it? `None` if there is no such tree, or some of them are.
fn in_memory_nodes(addresses: &Range<u64>, system: &System) -> Option<bool> {
    let memory = DeviceTree::of(system)?.memory();
    let inside = |range: &Range<u64>| range.start <= addresses.start && addresses.end <= range.end;
    let overlaps = |range: &Range<u64>| range.start < addresses.end && addresses.start < range.end;
    match () {
        () if memory.iter().any(inside) => Some(true),
        () if !memory.is_empty() && !memory.iter().any(overlaps) => Some(false),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mtrrs_are_read() {
        // QEMU with SeaBIOS: the default is write-back.
        let holes = "reg00: base=0x0c0000000 ( 3072MB), size= 1024MB, count=1: uncachable";
        let of = |text: &str, start: u64| of_mtrrs(text, &(start..start + 0x10_0000));
        assert_eq!(of(holes, 0x1000_0000), Attribute::Cached);
        assert_eq!(of(holes, 0xffbc_0000), Attribute::Uncached);
        assert_eq!(of(holes, 0xbff8_0000), Attribute::Uncached);
        // Firmware that lists the memory.
        let memory = "\
reg00: base=0x000000000 (    0MB), size= 2048MB, count=1: write-back
reg01: base=0x07f000000 ( 2032MB), size=   16MB, count=1: uncachable
reg02: base=0x0fff80000 ( 4095MB), size=  512KB, count=1: write-protect";
        assert_eq!(of(memory, 0x1000_0000), Attribute::Cached);
        assert_eq!(of(memory, 0x7f00_0000), Attribute::Uncached);
        assert_eq!(of(memory, 0x9000_0000), Attribute::Uncached);
        assert_eq!(of(memory, 0xfff8_0000), Attribute::Uncached);
        // Half of it is in none.
        assert_eq!(
            of(
                "reg00: base=0x0 ( 0MB), size= 1024KB, count=1: write-back",
                0x8_0000
            ),
            Attribute::Unknown
        );
        assert_eq!(of("", 0), Attribute::Unknown);
        assert_eq!(of("junk", 0), Attribute::Unknown);
        assert_eq!(of("reg00: base=0x (", 0), Attribute::Unknown);
        let huge = "reg00: base=0xffffffffffffffff (1MB), size=1MB, count=1: write-back";
        assert_eq!(of(huge, 0), Attribute::Unknown);
    }
}
