//! What the kernel says of the machine, below a directory that is `/` but for tests.

use std::ffi::OsString;
use std::ops::Range;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Where /proc, /sys and /dev are.
#[derive(Clone, Debug)]
pub(super) struct System {
    root: PathBuf,
}

impl System {
    /// This machine.
    pub(super) fn this() -> Self {
        Self { root: "/".into() }
    }

    #[cfg(test)]
    pub(super) fn at(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// An absolute path, below the root.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A small text; `None` if it cannot be read.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        text(&self.path(path))
    }

    /// What /proc/iomem says, if it says anything: addresses are shown to root only.
    pub(super) fn iomem(&self) -> IoMem {
        IoMem::parse(&self.text("/proc/iomem").unwrap_or_default())
    }
}

/// The names in a directory, sorted, numbers by their value: `mtd2` before `mtd10`. None if it cannot be read.
pub(super) fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort_by_key(|name| {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let number: Option<u64> = name.get(stem.len()..).and_then(|n| n.parse().ok());
        (stem.to_owned(), number, name.clone())
    });
    names
}

/// A small text without the white space around it.
pub(super) fn text(path: &Path) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

/// A number as sysfs writes them: decimal, or hexadecimal after `0x`.
pub(super) fn number(path: &Path) -> Option<u64> {
    let text = text(path)?;
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Who has which physical addresses: /proc/iomem.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct IoMem(Vec<Claim>);

/// A line of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Claim {
    pub(super) range: Range<u64>,
    pub(super) name: String,
    /// 0 for what the machine has; what lies inside of another has one more.
    pub(super) depth: usize,
}

impl IoMem {
    /// `  04000000-07ffffff : 4000000.flash`: two spaces for each level. Where only root may know, all addresses are 0.
    fn parse(text: &str) -> Self {
        let claim = |line: &str| {
            let (range, name) = line.split_once(" : ")?;
            let (start, last) = range.trim_start().split_once('-')?;
            let hex = |digits| u64::from_str_radix(digits, 16).ok();
            let (start, end) = (hex(start)?, hex(last)?.checked_add(1)?);
            let depth = (range.len() - range.trim_start().len()) / 2;
            (end > 1).then(|| Claim {
                range: start..end,
                name: name.trim().to_owned(),
                depth,
            })
        };
        Self(text.lines().filter_map(claim).collect())
    }

    /// Those that have some of these addresses.
    pub(super) fn overlapping(&self, range: &Range<u64>) -> impl Iterator<Item = &Claim> {
        let range = range.clone();
        self.0
            .iter()
            .filter(move |claim| claim.range.start < range.end && range.start < claim.range.end)
    }

    /// Is all of it ordinary memory?
    pub(super) fn is_ram(&self, range: &Range<u64>) -> bool {
        self.overlapping(range).any(|claim| {
            claim.name == "System RAM"
                && claim.range.start <= range.start
                && range.end <= claim.range.end
        })
    }

    /// Where the one is of which `name` is a word; the outermost.
    pub(super) fn of(&self, name: &str) -> Option<Range<u64>> {
        let named = |claim: &&Claim| claim.name.split(' ').any(|word| word == name);
        let found = self.0.iter().filter(named).min_by_key(|claim| claim.depth);
        found.map(|claim| claim.range.clone())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The device tree, as the kernel shows it.
#[derive(Clone, Debug)]
pub(super) struct DeviceTree {
    base: PathBuf,
}

impl DeviceTree {
    /// That of a machine, if it has one.
    pub(super) fn of(system: &System) -> Option<Self> {
        let base = ["/sys/firmware/devicetree/base", "/proc/device-tree"]
            .iter()
            .find_map(|path| std::fs::canonicalize(system.path(path)).ok())?;
        Some(Self { base })
    }

    /// The image that the board's tree names: the property `xip,image` of /chosen.
    pub(super) fn chosen_image(&self) -> Option<OsString> {
        let mut bytes = std::fs::read(self.base.join("chosen/xip,image")).ok()?;
        let len = bytes.iter().position(|&byte| byte == 0);
        bytes.truncate(len.unwrap_or(bytes.len()));
        (!bytes.is_empty()).then(|| OsString::from_vec(bytes))
    }

    /// The machine's memory: the nodes `memory` and `memory@…` of the root.
    pub(super) fn memory(&self) -> Vec<Range<u64>> {
        let nodes = std::fs::read_dir(&self.base).into_iter().flatten();
        let is_memory = |name: &str| name == "memory" || name.starts_with("memory@");
        nodes
            .filter_map(|node| node.ok())
            .filter(|node| node.file_name().to_str().is_some_and(is_memory))
            .filter_map(|node| self.physical(&node.path()).ok())
            .flatten()
            .collect()
    }

    /// The physical addresses of a node: its `reg`, through the `ranges` of every bus above it (Devicetree Specification
    /// 2.3.6, 2.3.8).
    ///
    /// # Errors
    /// Why there are none, in words that go behind "its device tree node".
    pub(super) fn physical(&self, node: &Path) -> Result<Vec<Range<u64>>, String> {
        let node = std::fs::canonicalize(node).map_err(|err| format!("cannot be read: {err}"))?;
        let mut bus = self.parent(&node).ok_or("is not in the device tree")?;
        let reg = std::fs::read(node.join("reg")).map_err(|_| "has no reg property".to_owned())?;
        let (address_cells, size_cells) = (self.address_cells(bus), self.size_cells(bus));
        if size_cells == 0 {
            return Err(format!(
                "is on a bus ({}) where devices have numbers and no addresses",
                self.name(bus)
            ));
        }
        let cells = cells(&reg);
        let mut windows: Vec<Range<u64>> = cells
            .chunks_exact(address_cells + size_cells)
            .filter_map(|entry| {
                let (at, len) = entry.split_at_checked(address_cells)?;
                let (at, len) = (value(at), value(len));
                Some(at..at.checked_add(len)?)
            })
            .filter(|window| !window.is_empty())
            .collect();
        if windows.is_empty() {
            return Err("has a reg property without an address".to_owned());
        }
        while let Some(above) = self.parent(bus) {
            windows = windows
                .into_iter()
                .map(|window| self.translate(window, bus, above))
                .collect::<Result<_, _>>()?;
            bus = above;
        }
        Ok(windows)
    }

    /// What addresses of a bus are on the bus above it.
    fn translate(
        &self,
        window: Range<u64>,
        bus: &Path,
        above: &Path,
    ) -> Result<Range<u64>, String> {
        let none = || {
            format!(
                "is on a bus ({}) whose devices are not memory mapped",
                self.name(bus)
            )
        };
        let ranges = std::fs::read(bus.join("ranges")).map_err(|_| none())?;
        if ranges.is_empty() {
            return Ok(window);
        }
        let (child, parent) = (self.address_cells(bus), self.address_cells(above));
        let entry_cells = child + parent + self.size_cells(bus);
        let cells = cells(&ranges);
        let moved = cells.chunks_exact(entry_cells).find_map(|entry| {
            let (from, rest) = entry.split_at_checked(child)?;
            let (to, len) = rest.split_at_checked(parent)?;
            let (from, to, len) = (value(from), value(to), value(len));
            let inside = from <= window.start && window.end <= from.checked_add(len)?;
            let at = to.checked_add(window.start.checked_sub(from)?)?;
            inside.then_some(at..at.checked_add(window.end - window.start)?)
        });
        moved.ok_or_else(none)
    }

    /// The node above; the root has none.
    fn parent<'a>(&self, node: &'a Path) -> Option<&'a Path> {
        node.parent()
            .filter(|parent| node != self.base && parent.starts_with(&self.base))
    }

    fn name(&self, node: &Path) -> String {
        let below = node.strip_prefix(&self.base).unwrap_or(node);
        format!("/{}", below.display())
    }

    fn address_cells(&self, bus: &Path) -> usize {
        self.cells_of(bus, "#address-cells")
    }

    fn size_cells(&self, bus: &Path) -> usize {
        self.cells_of(bus, "#size-cells")
    }

    /// As `drivers/of/base.c of_bus_n_addr_cells()`: the node's, else that of the next one above which has it, else 1.
    fn cells_of(&self, bus: &Path, property: &str) -> usize {
        let own = |bus: &Path| {
            let bytes = std::fs::read(bus.join(property)).ok()?;
            // Nobody has more; nothing huge may come of a strange tree.
            cells(&bytes).first().map(|&cells| cells.min(4) as usize)
        };
        std::iter::successors(Some(bus), |bus| self.parent(bus))
            .find_map(own)
            .unwrap_or(1)
    }
}

/// The cells of a property: big-endian, 32 bits.
fn cells(bytes: &[u8]) -> Vec<u32> {
    let (cells, _) = bytes.as_chunks::<4>();
    cells.iter().map(|&cell| u32::from_be_bytes(cell)).collect()
}

/// The number in the last two of some cells: those before them are flags (PCI) or zero.
fn value(cells: &[u32]) -> u64 {
    cells
        .iter()
        .fold(0, |value, &cell| value << 32 | u64::from(cell))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iomem_is_parsed() {
        let text = "\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
04000000-07ffffff : 4000000.flash
  04000000-07ffffff : 4000000.flash 4000000.flash
10000000-10ffffff : Reserved
40000000-5fffffff : System RAM
  40210000-41c7ffff : Kernel code
";
        let iomem = IoMem::parse(text);
        assert_eq!(iomem.of("4000000.flash"), Some(0x400_0000..0x800_0000));
        assert_eq!(iomem.of("flash"), None);
        assert!(iomem.is_ram(&(0x4000_0000..0x4000_1000)));
        assert!(!iomem.is_ram(&(0x5fff_f000..0x6000_1000)));
        assert!(!iomem.is_ram(&(0x1000_0000..0x1000_1000)));
        let names: Vec<_> = iomem
            .overlapping(&(0x410_0000..0x420_0000))
            .map(|claim| (claim.name.as_str(), claim.depth))
            .collect();
        assert_eq!(
            names,
            [("4000000.flash", 0), ("4000000.flash 4000000.flash", 1)]
        );
        // As users see it.
        let hidden = IoMem::parse("00000000-00000000 : System RAM\n  00000000-00000000 : flash\n");
        assert!(hidden.is_empty());
        assert!(
            IoMem::parse("junk\n12 : \n-1-2 : x\nffffffffffffffff-ffffffffffffffff : y\n")
                .is_empty()
        );
    }
}
