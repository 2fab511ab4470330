//! Which pages of a program or library are written to before its first instruction, and by whom: found in the file.

use std::collections::BTreeSet;

use goblin::elf::Elf;
use goblin::elf::program_header::{PT_GNU_RELRO, PT_LOAD};

use super::Reason;
use crate::units::PageSize;

/// `DT_RELR`, `DT_RELRSZ`: generic ABI.
const DT_RELR: u64 = 36;
const DT_RELRSZ: u64 = 35;

/// Each of them may be looked at for every relocation. Linkers make a dozen.
const SEGMENTS_LIMIT: usize = 64;

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
        if elf.program_headers.len() > SEGMENTS_LIMIT {
            return found;
        }
        let offset_of = |address: u64| {
            elf.program_headers.iter().find_map(|segment| {
                let into = address.checked_sub(segment.p_vaddr)?;
                (segment.p_type == PT_LOAD && into < segment.p_filesz)
                    .then_some(segment.p_offset.checked_add(into)?)
            })
        };
        let word = if elf.is_64 { 8 } else { 4 };
        let relocate = |address: u64| {
            // A word that is not aligned can lie in two pages.
            let last = address.saturating_add(word - 1);
            let pages = [address, last].map(|at| offset_of(at).map(|at| at / page.bytes()));
            found.relocated.extend(pages.into_iter().flatten());
        };
        let dynamic = elf.dynrelas.iter().chain(elf.dynrels.iter());
        // Of static programs: IRELATIVE, found by symbols of the linker's, in a section of its own.
        let sections = elf.shdr_relocs.iter().flat_map(|(_, section)| section);
        let relocations = dynamic.chain(elf.pltrelocs.iter()).chain(sections);
        relocations
            .map(|relocation| relocation.r_offset)
            .chain(relative(&elf, file, word, &offset_of))
            // No more than there are words, whatever it says.
            .take(file.len() / word as usize)
            .for_each(relocate);

        for segment in &elf.program_headers {
            let end = segment.p_vaddr.saturating_add(segment.p_memsz);
            if segment.p_type == PT_GNU_RELRO {
                let start = page.floor(segment.p_vaddr);
                // No longer than the file, whatever it says.
                let end = end.min(start.saturating_add(file.len() as u64));
                let pages = (start..end).step_by(page.bytes() as usize);
                let offsets = pages.filter_map(|at| offset_of(at.max(segment.p_vaddr)));
                found.relro.extend(offsets.map(|at| at / page.bytes()));
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
fn relative<'file>(
    elf: &Elf<'_>,
    file: &'file [u8],
    word: u64,
    offset_of: &dyn Fn(u64) -> Option<u64>,
) -> impl Iterator<Item = u64> + use<'file> {
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
    let is_little_endian = elf.little_endian;
    let values = table()
        .unwrap_or_default()
        .chunks_exact(word as usize)
        .map(move |bytes| {
            let add = |value, byte: &u8| value << 8 | u64::from(*byte);
            match is_little_endian {
                true => bytes.iter().rev().fold(0, add),
                false => bytes.iter().fold(0, add),
            }
        });
    let mut next: u64 = 0;
    values.flat_map(move |value| {
        // An address is a set of one.
        let (start, set, words) = match value & 1 {
            0 => (value, 1, 1),
            _ => (next, value >> 1, 8 * word - 1),
        };
        next = start.saturating_add(words * word);
        let bits = (0..words).filter(move |bit| set >> bit & 1 == 1);
        bits.map(move |bit| start.saturating_add(bit * word))
    })
}
