//! ELF headers, as far as execve(2) reads them: the file header, the program headers, the interpreter's name.
//!
//! Nothing else of the file is read, so a file in flash of any size costs two small reads. [`ElfFile::parse`] takes
//! programs of every machine in either byte order, because the image builder lays them all out; what may really be
//! started is [`ElfFile::require_machine`]'s and the planner's to say. Source of the rules: Linux 6.x
//! `fs/binfmt_elf.c load_elf_phdrs()` and `load_elf_binary()`, elf(5).

mod machine;

use goblin::container::{Container, Ctx, Endian as GoblinEndian};
use goblin::elf::header::{ELFMAG, ET_DYN, ET_EXEC, Header};
use goblin::elf::program_header::{PF_R, PF_W, PF_X, PT_GNU_STACK, PT_INTERP, PT_LOAD};
use goblin::elf::{Elf, ProgramHeader};

use crate::backing::ReadAt;
use crate::error::{Error, Result};
use crate::units::{Endian, Prot};

pub use machine::{Class, Machine};

/// Length of a 64-bit ELF header; a 32-bit one has 52 bytes.
const EHDR_MAX_BYTES: u64 = 64;
/// Longest program header table: `load_elf_phdrs()` reads no longer one. It also rules `PN_XNUM` out, as Linux does.
const PHDRS_MAX_BYTES: u64 = 65536;
/// Longest interpreter name, its NUL included: `PATH_MAX`.
const INTERP_MAX_BYTES: u64 = 4096;

/// What an ELF file is to execve(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub enum ElfKind {
    /// `ET_EXEC`: its addresses are final.
    #[serde(rename = "ET_EXEC")]
    Fixed,
    /// `ET_DYN`: a PIE, a static PIE, a shared library or an interpreter; a bias is added to its addresses.
    #[serde(rename = "ET_DYN")]
    Relocatable,
}

impl std::fmt::Display for ElfKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fixed => "ET_EXEC",
            Self::Relocatable => "ET_DYN",
        })
    }
}

/// A `PT_LOAD` program header, as it is in the file: nothing about its numbers is checked yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Its number in the program header table, from 0: the name it has in messages, as `readelf -l` counts.
    pub number: usize,
    /// `p_offset`: its first byte in the file.
    pub offset: u64,
    /// `p_vaddr`: its first address, before bias.
    pub vaddr: u64,
    /// `p_filesz`: how many bytes come from the file.
    pub filesz_bytes: u64,
    /// `p_memsz`: how many bytes it has in memory; those after `filesz_bytes` are zero (bss).
    pub memsz_bytes: u64,
    /// `p_align`, which need not be a power of two.
    pub align_bytes: u64,
    /// `p_flags`.
    pub prot: Prot,
}

/// The headers of an ELF program or library.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ElfFile {
    /// Processor, class and byte order.
    pub machine: Machine,
    /// Fixed or relocatable.
    pub kind: ElfKind,
    /// `e_entry`, before bias.
    pub entry: u64,
    /// `e_phoff`: where the program headers lie in the file.
    pub phoff: u64,
    /// `e_phnum`: how many there are, at least 1.
    pub phnum: u16,
    /// `e_phentsize`: bytes of each, 32 or 56.
    pub phent_bytes: u16,
    /// The `PT_LOAD`s in the table's order; there may be none.
    pub segments: Vec<Segment>,
    /// What `PT_INTERP` names, up to its first NUL: a path, never resolved here.
    pub interp: Option<Vec<u8>>,
    /// `PT_GNU_STACK`: may the stack be executable? `None` if the file does not say.
    pub stack_exec: Option<bool>,
}

impl ElfFile {
    /// Reads the headers of `file`.
    ///
    /// # Errors
    /// [`Kind::NotRunnable`](crate::error::Kind) for whatever is no ELF program or library (execve(2) answers
    /// `ENOEXEC`): a wrong magic, another type than `ET_EXEC` and `ET_DYN`, a program header table that is empty, too
    /// long, of another entry size or not in the file, an interpreter name that is too short, too long or has no NUL.
    /// [`Kind::Failed`](crate::error::Kind) or the file's own kind if reading fails.
    pub fn parse(file: &(impl ReadAt + ?Sized)) -> Result<Self> {
        let file_len = file.len_bytes();
        let head = read(file, 0, file_len.min(EHDR_MAX_BYTES), "ELF header")?;
        if !head.starts_with(ELFMAG) {
            return Err(Error::not_runnable(
                "neither an ELF program nor a script (ENOEXEC)",
            ));
        }
        let header = Elf::parse_header(&head)
            .map_err(|err| Error::not_runnable(format!("ELF header: {err}")))?;
        let machine = Machine::of_header(&header)?;
        let kind = match header.e_type {
            ET_EXEC => ElfKind::Fixed,
            ET_DYN => ElfKind::Relocatable,
            other => {
                return Err(Error::not_runnable(format!(
                    "ELF type {other}: neither a program (ET_EXEC, ET_DYN) nor a library"
                )));
            }
        };
        let mut elf = Self {
            machine,
            kind,
            entry: header.e_entry,
            phoff: header.e_phoff,
            phnum: header.e_phnum,
            phent_bytes: header.e_phentsize,
            segments: Vec::new(),
            interp: None,
            stack_exec: None,
        };
        let phdrs = program_headers(file, &header, machine)?;
        let mut interp = None;
        for (number, phdr) in phdrs.iter().enumerate() {
            match phdr.p_type {
                PT_LOAD => elf.segments.push(Segment {
                    number,
                    offset: phdr.p_offset,
                    vaddr: phdr.p_vaddr,
                    filesz_bytes: phdr.p_filesz,
                    memsz_bytes: phdr.p_memsz,
                    align_bytes: phdr.p_align,
                    prot: prot(phdr.p_flags),
                }),
                // The first PT_INTERP and the last PT_GNU_STACK count: load_elf_binary().
                PT_INTERP if interp.is_none() => interp = Some(phdr),
                PT_GNU_STACK => elf.stack_exec = Some(phdr.p_flags & PF_X != 0),
                _ => {}
            }
        }
        elf.interp = interp.map(|phdr| interp_path(file, phdr)).transpose()?;
        Ok(elf)
    }

    /// Is it a program that `host` can run?
    ///
    /// # Errors
    /// [`Kind::NotRunnable`](crate::error::Kind) naming both machines: "a 32-bit ARM program; this xip-run is for
    /// 64-bit x86_64". 32-bit programs of a 64-bit machine are refused as well: there is no stub for them.
    pub fn require_machine(&self, host: Machine) -> Result<()> {
        if self.machine == host {
            return Ok(());
        }
        Err(Error::not_runnable(format!(
            "a {} program; this xip-run is for {host}",
            self.machine
        )))
    }
}

/// Reads a part of the file that must be there. `len_bytes` is bounded by the caller.
fn read(file: &(impl ReadAt + ?Sized), at: u64, len_bytes: u64, what: &str) -> Result<Vec<u8>> {
    if at
        .checked_add(len_bytes)
        .is_none_or(|end| end > file.len_bytes())
    {
        return Err(Error::not_runnable(format!(
            "{what}: bytes {at:#x}+{len_bytes:#x} are not in the file, which has {:#x}",
            file.len_bytes()
        )));
    }
    let mut bytes = vec![0; len_bytes as usize];
    file.read_exact_at(&mut bytes, at)
        .map_err(|err| match err.downcast::<Error>() {
            Ok(own) => own.context(what),
            Err(err) => Error::failed(format!("{what}: read {len_bytes:#x} at {at:#x}: {err}")),
        })?;
    Ok(bytes)
}

/// The program header table: `load_elf_phdrs()`.
fn program_headers(
    file: &(impl ReadAt + ?Sized),
    header: &Header,
    machine: Machine,
) -> Result<Vec<ProgramHeader>> {
    let container = match machine.class {
        Class::Elf32 => Container::Little,
        Class::Elf64 => Container::Big,
    };
    let endian = match machine.endian {
        Endian::Little => GoblinEndian::Little,
        Endian::Big => GoblinEndian::Big,
    };
    let ctx = Ctx::new(container, endian);
    let entry_bytes = ProgramHeader::size(ctx) as u64;
    if u64::from(header.e_phentsize) != entry_bytes {
        return Err(Error::not_runnable(format!(
            "e_phentsize is {}, program headers of a {machine} program have {entry_bytes} bytes",
            header.e_phentsize
        )));
    }
    let table_bytes = u64::from(header.e_phnum) * entry_bytes;
    if table_bytes == 0 || table_bytes > PHDRS_MAX_BYTES {
        return Err(Error::not_runnable(format!(
            "{} program headers; Linux takes 1 to {}",
            header.e_phnum,
            PHDRS_MAX_BYTES / entry_bytes
        )));
    }
    let table = read(file, header.e_phoff, table_bytes, "program headers")?;
    ProgramHeader::parse(&table, 0, usize::from(header.e_phnum), ctx)
        .map_err(|err| Error::not_runnable(format!("program headers: {err}")))
}

/// The name in a `PT_INTERP` segment, which must end with a NUL and is over at the first one.
fn interp_path(file: &(impl ReadAt + ?Sized), phdr: &ProgramHeader) -> Result<Vec<u8>> {
    if !(2..=INTERP_MAX_BYTES).contains(&phdr.p_filesz) {
        return Err(Error::not_runnable(format!(
            "PT_INTERP has {} bytes; an interpreter's path has 2 to {INTERP_MAX_BYTES}",
            phdr.p_filesz
        )));
    }
    let bytes = read(file, phdr.p_offset, phdr.p_filesz, "PT_INTERP")?;
    if bytes.last() != Some(&0) {
        return Err(Error::not_runnable("PT_INTERP does not end with a NUL"));
    }
    Ok(bytes.into_iter().take_while(|&byte| byte != 0).collect())
}

fn prot(flags: u32) -> Prot {
    Prot {
        read: flags & PF_R != 0,
        write: flags & PF_W != 0,
        exec: flags & PF_X != 0,
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
