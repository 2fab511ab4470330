//! Parses /proc/PID/smaps: proc_pid_smaps(5), Linux `fs/proc/task_mmu.c show_smap()`.

use super::status::kib;
use crate::error::{Error, Result};
use crate::units::Prot;

/// One mapping of a process, as smaps describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// One past the last address; more than `start`.
    pub end: u64,
    /// What the process may do with it.
    pub prot: Prot,
    /// `MAP_SHARED`; else private, that is copied on write.
    pub shared: bool,
    /// Offset into the file in bytes; for /dev/mem the physical address.
    pub offset_bytes: u64,
    /// Major and minor number of the file's device; 0, 0 without a file.
    pub device: (u32, u32),
    /// Inode number of the file; 0 without one.
    pub inode: u64,
    /// Path of the file, `[name]` or empty. A newline in it stands as it is, not as the kernel's `\012`.
    pub path: Vec<u8>,
    /// Does the file have no name any more? The kernel's ` (deleted)` is not part of `path`.
    pub deleted: bool,
    /// Bytes present in the page tables and known to the kernel as memory. 0 for a PFN mapping such as /dev/mem.
    pub rss_bytes: u64,
    /// The same, each page divided by the number of processes that map it.
    pub pss_bytes: u64,
    /// Bytes that no other process maps (`Private_Clean`, `Private_Dirty`, `Private_Hugetlb`): its part of the USS.
    pub private_bytes: u64,
    /// Bytes of anonymous memory: pages of no file, or private copies of a file's pages.
    pub anonymous_bytes: u64,
    /// Bytes swapped out.
    pub swap_bytes: u64,
    /// The two-letter names of `VmFlags:`.
    pub flags: Vec<[u8; 2]>,
}

impl Mapping {
    /// Length in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.end - self.start
    }

    /// Is `name` (as `pf`, a PFN mapping, or `mm`, a mixed one) among the `VmFlags`?
    pub fn has_flag(&self, name: &[u8; 2]) -> bool {
        self.flags.contains(name)
    }
}

/// The fields of a mapping while they come in.
struct Pending {
    mapping: Mapping,
    rss: bool,
    pss: bool,
    anonymous: bool,
}

impl Pending {
    fn finish(self) -> Result<Mapping> {
        let missing = match (self.rss, self.pss, self.anonymous) {
            (true, true, true) => return Ok(self.mapping),
            (false, ..) => "Rss",
            (_, false, _) => "Pss",
            _ => "Anonymous",
        };
        Err(Error::failed(format!(
            "mapping {:x}-{:x} has no {missing}: line; the text is cut off or of an unknown form",
            self.mapping.start, self.mapping.end
        )))
    }
}

/// Parses the whole text. Fields that this program does not use may be there or not, in any order.
///
/// # Errors
/// A line that is neither a mapping nor a field, a field that is used and has no value in kB, a mapping without `Rss`,
/// `Pss` or `Anonymous`: the text is cut off, or not smaps.
pub fn parse(text: &[u8]) -> Result<Vec<Mapping>> {
    let mut mappings = Vec::new();
    let mut pending: Option<Pending> = None;
    for (number, line) in text.split(|&byte| byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let bad = || {
            Error::failed(format!(
                "line {}: neither a mapping nor one of its fields: {}",
                number + 1,
                line.escape_ascii()
            ))
        };
        if let Some(mapping) = header(line) {
            if let Some(before) = pending.take() {
                mappings.push(before.finish()?);
            }
            pending = Some(Pending {
                mapping,
                rss: false,
                pss: false,
                anonymous: false,
            });
        } else {
            field(pending.as_mut().ok_or_else(bad)?, line).ok_or_else(bad)?;
        }
    }
    if let Some(last) = pending {
        mappings.push(last.finish()?);
    }
    Ok(mappings)
}

/// The mappings of /proc/PID/maps: as in smaps, without the fields. Lines that are none are passed over.
pub fn parse_maps(text: &[u8]) -> impl Iterator<Item = Mapping> {
    text.split(|&byte| byte == b'\n').filter_map(header)
}

/// `00401000-00585000 r-xp 00001000 fe:00 10199043      /usr/bin/busybox`
fn header(line: &[u8]) -> Option<Mapping> {
    let (range, rest) = word(line)?;
    let (perms, rest) = word(rest)?;
    let (offset, rest) = word(rest)?;
    let (device, rest) = word(rest)?;
    let (inode, rest) = word(rest)?;
    let (start, end) = range.split_once('-')?;
    let (major, minor) = device.split_once(':')?;
    let &[read, write, exec, sharing] = perms.as_bytes() else {
        return None;
    };
    let path = rest.trim_ascii_start();
    let (path, deleted) = match path.strip_suffix(b" (deleted)") {
        Some(path) => (path, true),
        None => (path, false),
    };
    let (start, end) = (hex(start)?, hex(end)?);
    let mapping = Mapping {
        start,
        end,
        prot: Prot {
            read: read == b'r',
            write: write == b'w',
            exec: exec == b'x',
        },
        shared: sharing == b's',
        offset_bytes: hex(offset)?,
        device: (
            u32::from_str_radix(major, 16).ok()?,
            u32::from_str_radix(minor, 16).ok()?,
        ),
        inode: inode.parse().ok()?,
        path: unescape(path),
        deleted,
        rss_bytes: 0,
        pss_bytes: 0,
        private_bytes: 0,
        anonymous_bytes: 0,
        swap_bytes: 0,
        flags: Vec::new(),
    };
    (start < end).then_some(mapping)
}

/// `Rss:                1020 kB`. `None` if it is no field, or one that is used and has no value.
fn field(pending: &mut Pending, line: &[u8]) -> Option<()> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let (key, value) = line.split_at_checked(colon)?;
    let value = value.get(1..)?;
    let mapping = &mut pending.mapping;
    match key {
        b"Rss" => (mapping.rss_bytes, pending.rss) = (kib(value)?, true),
        b"Pss" => (mapping.pss_bytes, pending.pss) = (kib(value)?, true),
        b"Anonymous" => (mapping.anonymous_bytes, pending.anonymous) = (kib(value)?, true),
        b"Private_Clean" | b"Private_Dirty" | b"Private_Hugetlb" => {
            mapping.private_bytes = mapping.private_bytes.saturating_add(kib(value)?);
        }
        b"Swap" => mapping.swap_bytes = kib(value)?,
        b"VmFlags" => {
            mapping.flags = value
                .split(u8::is_ascii_whitespace)
                .filter_map(|flag| flag.try_into().ok())
                .collect();
        }
        _ if key
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') => {}
        _ => return None,
    }
    Some(())
}

/// The first word of `text` and what follows it.
fn word(text: &[u8]) -> Option<(&str, &[u8])> {
    let text = text.trim_ascii_start();
    let end = text.iter().position(|&byte| byte == b' ');
    let (word, rest) = text.split_at_checked(end.unwrap_or(text.len()))?;
    Some((std::str::from_utf8(word).ok()?, rest))
}

fn hex(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits, 16).ok()
}

/// Undoes the one escape of `seq_file_path(m, file, "\n")`.
fn unescape(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        (rest, _) = match after.strip_prefix(b"012") {
            Some(after) if byte == b'\\' => (after, out.push(b'\n')),
            _ => (after, out.push(byte)),
        };
    }
    out
}
