//! Which pages of a program or library are written to before its first instruction, and by whom: found in the file.

use std::collections::BTreeSet;

use goblin::elf::Elf;
use goblin::elf::program_header::{PT_GNU_RELRO, PT_LOAD};

use super::Reason;
use crate::units::PageSize;

/// `DT_RELR`, `DT_RELRSZ`: generic ABI.
const DT_RELR: u64 = 36;
const DT_RELRSZ: u64 = 35;

/// Pages of a file, by their numbers in it, that something other than the program's own code writes to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StartWrites {
    relocated: BTreeSet<u64>,
    relro: BTreeSet<u64>,
    bss_tails: BTreeSet<u64>,
}

impl StartWrites {
    /// Looks into an ELF file. What cannot be read has none of it.
    pub fn new(file: &[u8], page: PageSize) -> Self {
        let mut found = Self::default();
        let Ok(elf) = Elf::parse(file) else {
            return found;
        };
        let offset_of = |address: u64| {
            elf.program_headers.iter().find_map(|segment| {
                let into = address.checked_sub(segment.p_vaddr)?;
                (segment.p_type == PT_LOAD && into < segment.p_filesz)
                    .then_some(segment.p_offset.checked_add(into)?)
            })
        };
        let word = if elf.is_64 { 8 } else { 4 };
        let mut relocate = |address: u64| {
            // A word that is not aligned can lie in two pages.
            let last = address.saturating_add(word - 1);
            let pages = [address, last].map(|at| offset_of(at).map(|at| at / page.bytes()));
            found.relocated.extend(pages.into_iter().flatten());
        };
        let dynamic = elf.dynrelas.iter().chain(elf.dynrels.iter());
        dynamic
            .chain(elf.pltrelocs.iter())
            .for_each(|relocation| relocate(relocation.r_offset));
        // Of static programs: IRELATIVE, found by symbols of the linker's, in a section of its own.
        for (_, section) in &elf.shdr_relocs {
            section
                .iter()
                .for_each(|relocation| relocate(relocation.r_offset));
        }
        relative(&elf, file, word, offset_of)
            .into_iter()
            .for_each(relocate);

        for segment in &elf.program_headers {
            let end = segment.p_vaddr.saturating_add(segment.p_memsz);
            if segment.p_type == PT_GNU_RELRO {
                let mut at = page.floor(segment.p_vaddr);
                // No longer than the file, whatever it says.
                while at < end && (at - segment.p_vaddr.min(at)) < file.len() as u64 {
                    found
                        .relro
                        .extend(offset_of(at.max(segment.p_vaddr)).map(|at| at / page.bytes()));
                    at += page.bytes();
                }
            }
            let file_end = segment.p_vaddr.saturating_add(segment.p_filesz);
            let has_tail = segment.p_type == PT_LOAD
                && segment.is_write()
                && segment.p_memsz > segment.p_filesz
                && segment.p_filesz > 0
                && !page.aligned(file_end);
            if has_tail {
                found
                    .bss_tails
                    .extend(offset_of(file_end - 1).map(|at| at / page.bytes()));
            }
        }
        found
    }

    /// Why the page of the file that begins at `offset` has a private copy.
    pub fn reason(&self, offset: u64, page: PageSize) -> Reason {
        let number = offset / page.bytes();
        if self.relocated.contains(&number) {
            Reason::Relocated
        } else if self.bss_tails.contains(&number) {
            Reason::BssTail
        } else if self.relro.contains(&number) {
            Reason::Relro
        } else {
            Reason::Written
        }
    }
}

/// The addresses in `DT_RELR`: an even word is an address, an odd one has a bit for each of the words that follow it
/// (generic ABI, "Relative relocation table").
fn relative(
    elf: &Elf<'_>,
    file: &[u8],
    word: u64,
    offset_of: impl Fn(u64) -> Option<u64>,
) -> Vec<u64> {
    let entry = |tag| {
        let dynamic = elf.dynamic.as_ref()?;
        let found = dynamic.dyns.iter().find(|entry| entry.d_tag == tag)?;
        Some(found.d_val)
    };
    let table = || {
        let start = usize::try_from(offset_of(entry(DT_RELR)?)?).ok()?;
        let len = usize::try_from(entry(DT_RELRSZ)?).ok()?;
        file.get(start..start.checked_add(len)?)
    };
    let mut addresses = Vec::new();
    let mut next: u64 = 0;
    for bytes in table().unwrap_or_default().chunks_exact(word as usize) {
        let mut wide = [0; 8];
        let value = if elf.little_endian {
            wide.iter_mut()
                .zip(bytes)
                .for_each(|(to, from)| *to = *from);
            u64::from_le_bytes(wide)
        } else {
            wide.iter_mut()
                .rev()
                .zip(bytes.iter().rev())
                .for_each(|(to, from)| *to = *from);
            u64::from_be_bytes(wide)
        };
        if value & 1 == 0 {
            addresses.push(value);
            next = value.saturating_add(word);
        } else {
            let bits = 8 * word - 1;
            let set = (0..bits).filter(|bit| value >> (bit + 1) & 1 == 1);
            addresses.extend(set.map(|bit| next.saturating_add(bit * word)));
            next = next.saturating_add(bits * word);
        }
    }
    addresses
}
