//! MTD devices: which there are, and at which physical addresses the bytes of one are.
//!
//! mmap(2) of /dev/mtdN has never worked with an MMU (ENODEV), so the bytes are mapped through /dev/mem. Where they are is
//! found by the flash chip: its node of the device tree says it (`reg`), else /proc/iomem, where the chip's driver has
//! claimed its addresses. A partition lies at its offset in the chip. Of plain memory (phram), whose device says nothing of it,
//! the kernel's command line does.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::system::{DeviceTree, System, names, number, text};
use crate::config::words;
use crate::error::{Error, Result};

/// include/uapi/mtd/mtd-abi.h
const MTD_WRITEABLE: u64 = 0x400;

/// An MTD device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Mtd {
    pub(super) number: u32,
    pub(super) name: String,
    /// Bytes.
    pub(super) size: u64,
    /// Can it be written to? `MTD_WRITEABLE`
    pub(super) is_writable: bool,
    /// `nor`, `nand`, `ram`, `rom` …
    kind: String,
    /// Its directory in sysfs, without links.
    dir: PathBuf,
}

impl Mtd {
    /// All that there are, by number.
    pub(super) fn all(system: &System) -> Vec<Self> {
        let found = names(&system.path("/sys/class/mtd"));
        found
            .iter()
            .filter_map(|name| {
                // mtd0ro is the same again.
                let number_of = name.strip_prefix("mtd")?.parse().ok()?;
                let dir =
                    std::fs::canonicalize(system.path(&format!("/sys/class/mtd/{name}"))).ok()?;
                Some(Self {
                    number: number_of,
                    name: text(&dir.join("name"))?,
                    size: number(&dir.join("size"))?,
                    is_writable: number(&dir.join("flags"))
                        .is_none_or(|flags| flags & MTD_WRITEABLE != 0),
                    kind: text(&dir.join("type"))?,
                    dir,
                })
            })
            .collect()
    }

    /// The one of a name, or of a number.
    ///
    /// # Errors
    /// [`Kind::Failed`](crate::error::Kind), with those that there are.
    pub(super) fn find(system: &System, wanted: &str) -> Result<Self> {
        let all = Self::all(system);
        let list = || match all.is_empty() {
            true => "this kernel has none (see /proc/mtd; is its flash driver there?)".to_owned(),
            false => {
                let list = all
                    .iter()
                    .map(|mtd| format!("{} {:?}", mtd.number, mtd.name));
                format!("there are {}", list.collect::<Vec<_>>().join(", "))
            }
        };
        let mut named = all.iter().filter(|mtd| mtd.name == wanted);
        match (named.next(), named.next()) {
            (Some(mtd), None) => return Ok(mtd.clone()),
            (Some(_), Some(_)) => {
                return Err(Error::failed(format!(
                    "mtd:{wanted}: several have this name, use the number: {}",
                    list()
                )));
            }
            _ => {}
        }
        let by_number = all.iter().find(|mtd| mtd.number.to_string() == wanted);
        by_number
            .cloned()
            .ok_or_else(|| Error::failed(format!("mtd:{wanted}: no such MTD device; {}", list())))
    }

    /// Is it one that a processor could read like memory?
    pub(super) fn may_be_mapped(&self) -> bool {
        matches!(self.kind.as_str(), "nor" | "rom" | "ram")
    }

    /// Its physical addresses.
    ///
    /// # Errors
    /// [`Kind::Failed`](crate::error::Kind), with what could not be found, and the way out.
    pub(super) fn window(&self, system: &System) -> Result<Range<u64>> {
        let fail = |why: String| {
            Error::failed(format!(
                "mtd:{}: its physical addresses are not found: {why}; if the flash is memory mapped, name them: \
                 --image /dev/mem@ADDRESS+{:#x}",
                self.name, self.size
            ))
        };
        if !self.may_be_mapped() {
            return Err(fail(format!(
                "it is {}, which no processor reads like memory",
                self.kind
            )));
        }
        let (chip, offset) = self.chip();
        let windows = self.chip_windows(&chip, system).map_err(fail)?;
        part(&windows, offset, self.size).ok_or_else(|| {
            let list = windows.iter().map(super::spec::show_range);
            fail(format!(
                "its bytes {:#x}+{:#x} are not in one piece in the chip's {}",
                offset,
                self.size,
                list.collect::<Vec<_>>().join(" and ")
            ))
        })
    }

    /// The addresses of its flash chip, whose device is `chip`, in the order in which the MTD device has them: with several, it
    /// is made of chips one behind the other (`drivers/mtd/maps/physmap-core.c`), and may have no device.
    pub(super) fn chip_windows(
        &self,
        chip: &Path,
        system: &System,
    ) -> Result<Vec<Range<u64>>, String> {
        let node = [self.dir.join("of_node"), chip.join("of_node")]
            .iter()
            .find_map(|node| chip_node(node));
        let of_tree = DeviceTree::of(system)
            .zip(node)
            .map(|(tree, node)| tree.physical(&node));
        if let Some(Ok(windows)) = of_tree {
            return Ok(windows);
        }
        let tree = match of_tree {
            Some(Err(why)) => format!("its chip's device tree node {why}"),
            _ => "it has no device tree node".to_owned(),
        };
        let name = chip.file_name().unwrap_or_default().to_string_lossy();
        if name == "virtual" {
            let window = self.phram_window(chip, system);
            return window.map(|window| vec![window]).ok_or_else(|| {
                format!("{tree}, no device, and no phram.phram= on the kernel command line")
            });
        }
        let iomem = system.iomem();
        let hidden = match iomem.is_empty() {
            true => " (which shows addresses to root only)",
            false => "",
        };
        iomem.of(&name).map(|window| vec![window]).ok_or_else(|| {
            format!("{tree}, and /proc/iomem{hidden} has nothing of the name of its device, {name}")
        })
    }

    /// What `phram.phram=` of the kernel's command line says of the memory that it is (a part of): by its name and its size.
    fn phram_window(&self, chip: &Path, system: &System) -> Option<Range<u64>> {
        let class = chip.join("mtd");
        let is_whole = |dir: &&Path| dir.parent() == Some(&class);
        let whole = self.dir.ancestors().find(is_whole)?;
        let (name, size) = (text(&whole.join("name"))?, number(&whole.join("size"))?);
        let cmdline = system.text("/proc/cmdline")?;
        let mut said = words(&cmdline).take_while(|word| word != "--");
        said.find_map(|word| {
            let mut fields = word.strip_prefix("phram.phram=")?.split(',');
            let is_it = fields.next()? == name;
            let (start, len) = (phram_number(fields.next()?)?, phram_number(fields.next()?)?);
            (is_it && len == size).then_some(start..start.checked_add(len)?)
        })
    }

    /// The directory in sysfs of the device that it is a part of, and where in that it begins. Partitions of partitions are
    /// below each other, each with its offset in the one above (`drivers/mtd/mtdpart.c mtd_partition_offset_show()`).
    pub(super) fn chip(&self) -> (PathBuf, u64) {
        let is_mtd = |dir: &Path| {
            let name = dir.file_name().and_then(|name| name.to_str());
            name.and_then(|name| name.strip_prefix("mtd"))
                .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let mut dir = self.dir.as_path();
        let mut offset: u64 = 0;
        // The last one is the class's own directory, `mtd`.
        while let Some(above) = dir.parent().filter(|_| is_mtd(dir)) {
            offset = offset.saturating_add(number(&dir.join("offset")).unwrap_or(0));
            dir = above;
        }
        (dir.to_owned(), offset)
    }
}

/// A number as `drivers/mtd/devices/phram.c ustrtoul()` reads it: as in C, and `ki`, `Mi` or `Gi` behind it.
fn phram_number(text: &str) -> Option<u64> {
    let units = [("ki", 10), ("Mi", 20), ("Gi", 30)];
    let unit = units
        .iter()
        .find_map(|&(unit, shift)| Some((text.strip_suffix(unit)?, shift)));
    let (digits, shift) = unit.unwrap_or((text, 0));
    let number = match (digits.strip_prefix("0x"), digits.strip_prefix('0')) {
        (Some(hex), _) => u64::from_str_radix(hex, 16).ok()?,
        (None, Some(octal)) if !octal.is_empty() => u64::from_str_radix(octal, 8).ok()?,
        _ => digits.parse().ok()?,
    };
    number.checked_mul(1 << shift)
}

/// The node of the flash chip, by that of an MTD device: its own, or if it is a partition the one above (with bindings that are
/// newer than 2015, there is a node `partitions` between them; Documentation/devicetree/bindings/mtd/partitions).
fn chip_node(of_mtd: &Path) -> Option<PathBuf> {
    let mut node = std::fs::canonicalize(of_mtd).ok()?;
    while let Some(above) = node.parent().filter(|above| above.ends_with("partitions")) {
        node = above.parent()?.to_owned();
    }
    let is_device = |node: &Path| node.join("compatible").exists();
    match node.parent() {
        Some(above) if !is_device(&node) && is_device(above) => Some(above.to_owned()),
        _ => Some(node),
    }
}

/// `len` bytes from `at` of windows that are one behind the other, if they are in one piece.
fn part(windows: &[Range<u64>], at: u64, len: u64) -> Option<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for window in windows {
        match joined.last_mut() {
            Some(last) if last.end == window.start => last.end = window.end,
            _ => joined.push(window.clone()),
        }
    }
    let mut skipped: u64 = 0;
    for window in joined {
        let window_len = window.end - window.start;
        if at < skipped + window_len {
            let start = window.start + (at - skipped);
            let end = start.checked_add(len)?;
            return (end <= window.end).then_some(start..end);
        }
        skipped = skipped.checked_add(window_len)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_phram_are_read() {
        assert_eq!(phram_number("0x11000000"), Some(0x1100_0000));
        assert_eq!(phram_number("16Mi"), Some(16 << 20));
        assert_eq!(phram_number("0x10ki"), Some(16 << 10));
        assert_eq!(phram_number("017"), Some(15));
        assert_eq!(phram_number("0"), Some(0));
        for bad in ["", "16M", "Mi", "0x", "-1", "99999999999Gi"] {
            assert_eq!(phram_number(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_part_is_found_in_chips_that_follow_each_other() {
        let chips = [0x100..0x200, 0x200..0x300, 0x1000..0x1100];
        assert_eq!(part(&chips, 0, 0x200), Some(0x100..0x300));
        assert_eq!(part(&chips, 0x180, 0x10), Some(0x280..0x290));
        assert_eq!(part(&chips, 0x210, 0x10), Some(0x1010..0x1020));
        assert_eq!(part(&chips, 0x1f0, 0x20), None);
        assert_eq!(part(&chips, 0x300, 1), None);
        assert_eq!(part(&chips, 0, u64::MAX), None);
        assert_eq!(part(&[], 0, 1), None);
    }
}
