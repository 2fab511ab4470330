//! Hand-made ELF files for unit tests, field by field: goblin is not asked, so it is tested too.

pub(crate) use goblin::elf::program_header::{PT_GNU_STACK, PT_INTERP, PT_LOAD};

use super::{Class, Machine};
use crate::units::Endian;

pub(crate) const X86_64: Machine = Machine {
    number: 62,
    class: Class::Elf64,
    endian: Endian::Little,
};
pub(crate) const ARM: Machine = Machine {
    number: 40,
    class: Class::Elf32,
    endian: Endian::Little,
};

pub(crate) const R: u32 = 4;
pub(crate) const RW: u32 = 6;
pub(crate) const RX: u32 = 5;

/// A program header, its fields in the order in which `readelf -l` prints them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Phdr {
    pub(crate) kind: u32,
    pub(crate) offset: u64,
    pub(crate) vaddr: u64,
    pub(crate) filesz: u64,
    pub(crate) memsz: u64,
    pub(crate) flags: u32,
    pub(crate) align: u64,
}

/// A `PT_LOAD` with page alignment.
pub(crate) fn load(offset: u64, vaddr: u64, filesz: u64, memsz: u64, flags: u32) -> Phdr {
    Phdr {
        kind: PT_LOAD,
        offset,
        vaddr,
        filesz,
        memsz,
        flags,
        align: 0x1000,
    }
}

/// An ELF file to be. Bytes that no header takes are `0x11 + page number % 0xe0`: near pages differ, none is zero.
#[derive(Clone, Debug)]
pub(crate) struct Maker {
    pub(crate) machine: Machine,
    pub(crate) kind: u16,
    pub(crate) entry: u64,
    pub(crate) phoff: Option<u64>,
    pub(crate) phnum: Option<u16>,
    pub(crate) phentsize: Option<u16>,
    pub(crate) phdrs: Vec<Phdr>,
    pub(crate) len: usize,
    pub(crate) interp: Option<Vec<u8>>,
}

impl Maker {
    /// An x86_64 `ET_EXEC` of `len` bytes.
    pub(crate) fn fixed(len: usize, phdrs: &[Phdr]) -> Self {
        Self {
            machine: X86_64,
            kind: 2,
            entry: phdrs.first().map_or(0, |phdr| phdr.vaddr),
            phoff: None,
            phnum: None,
            phentsize: None,
            phdrs: phdrs.to_vec(),
            len,
            interp: None,
        }
    }

    /// The same as `ET_DYN`.
    pub(crate) fn relocatable(len: usize, phdrs: &[Phdr]) -> Self {
        Self {
            kind: 3,
            ..Self::fixed(len, phdrs)
        }
    }

    /// Adds a `PT_INTERP` whose bytes, NUL and all, are `name`; they are put after the program headers.
    pub(crate) fn interp(mut self, name: &[u8]) -> Self {
        self.phdrs.insert(
            0,
            Phdr {
                kind: PT_INTERP,
                offset: 0,
                vaddr: 0,
                filesz: name.len() as u64,
                memsz: name.len() as u64,
                flags: R,
                align: 1,
            },
        );
        self.interp = Some(name.to_vec());
        self
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let wide = self.machine.class == Class::Elf64;
        let (ehdr_len, phdr_len) = if wide { (64, 56) } else { (52, 32) };
        let phoff = self.phoff.unwrap_or(ehdr_len);
        let mut out = Out {
            bytes: Vec::new(),
            endian: self.machine.endian,
            wide,
        };
        out.bytes.extend_from_slice(b"\x7fELF");
        out.bytes.extend_from_slice(&[
            1 + u8::from(wide),
            1 + u8::from(self.machine.endian == Endian::Big),
            1,
        ]);
        out.bytes.resize(16, 0);
        out.half(self.kind);
        out.half(self.machine.number);
        out.word(1);
        out.addr(self.entry);
        out.addr(phoff);
        out.addr(0);
        out.word(0);
        out.half(ehdr_len as u16);
        out.half(self.phentsize.unwrap_or(phdr_len));
        out.half(self.phnum.unwrap_or(self.phdrs.len() as u16));
        out.half(0);
        out.half(0);
        out.half(0);
        let ehdr = std::mem::take(&mut out.bytes);
        let interp_at = phoff.saturating_add(u64::from(phdr_len) * self.phdrs.len() as u64);
        for phdr in &self.phdrs {
            let offset = match (&self.interp, phdr.kind) {
                (Some(_), PT_INTERP) => interp_at,
                _ => phdr.offset,
            };
            out.word(phdr.kind);
            if wide {
                out.word(phdr.flags);
            }
            out.addr(offset);
            out.addr(phdr.vaddr);
            out.addr(phdr.vaddr);
            out.addr(phdr.filesz);
            out.addr(phdr.memsz);
            if !wide {
                out.word(phdr.flags);
            }
            out.addr(phdr.align);
        }
        let mut file: Vec<u8> = (0..self.len)
            .map(|at| 0x11 + ((at >> 12) % 0xe0) as u8)
            .collect();
        let interp = self.interp.as_deref().unwrap_or_default();
        for (at, bytes) in [(0, &ehdr[..]), (phoff, &out.bytes), (interp_at, interp)] {
            for (number, byte) in bytes.iter().enumerate() {
                let at = usize::try_from(at).unwrap().saturating_add(number);
                if let Some(to) = file.get_mut(at) {
                    *to = *byte;
                }
            }
        }
        file
    }
}

struct Out {
    bytes: Vec<u8>,
    endian: Endian,
    wide: bool,
}

impl Out {
    fn half(&mut self, value: u16) {
        self.bytes.extend_from_slice(&self.endian.bytes16(value));
    }

    fn word(&mut self, value: u32) {
        self.bytes.extend_from_slice(&self.endian.bytes32(value));
    }

    fn addr(&mut self, value: u64) {
        let (high, low) = ((value >> 32) as u32, value as u32);
        match (self.wide, self.endian) {
            (false, _) => self.word(low),
            (true, Endian::Little) => {
                self.word(low);
                self.word(high);
            }
            (true, Endian::Big) => {
                self.word(high);
                self.word(low);
            }
        }
    }
}
