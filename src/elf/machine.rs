//! Which machine a program is for, in words.

use goblin::elf::header::{
    EI_CLASS, EI_DATA, ELFCLASS32, ELFCLASS64, ELFDATA2LSB, ELFDATA2MSB, EM_386, EM_AARCH64,
    EM_ARM, EM_MIPS, EM_PPC, EM_PPC64, EM_RISCV, EM_S390, EM_SPARCV9, EM_X86_64, Header,
};

use crate::error::{Error, Result};
use crate::units::{Endian, PageSize};

/// `EI_CLASS`: the width of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub enum Class {
    /// `ELFCLASS32`
    #[serde(rename = "ELF32")]
    Elf32,
    /// `ELFCLASS64`
    #[serde(rename = "ELF64")]
    Elf64,
}

/// A machine that programs are for. It displays as "64-bit x86_64", "32-bit ARM", "32-bit big-endian ARM".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Machine {
    /// `e_machine`
    pub number: u16,
    /// `EI_CLASS`
    pub class: Class,
    /// `EI_DATA`
    pub endian: Endian,
}

impl Machine {
    /// The machine that this program was compiled for.
    pub const HOST: Self = Self {
        number: if cfg!(target_arch = "x86_64") {
            EM_X86_64
        } else if cfg!(target_arch = "aarch64") {
            EM_AARCH64
        } else if cfg!(target_arch = "arm") {
            EM_ARM
        } else if cfg!(target_arch = "riscv64") {
            EM_RISCV
        } else {
            // EM_NONE: nothing can be started, everything can be looked at.
            0
        },
        class: if cfg!(target_pointer_width = "64") {
            Class::Elf64
        } else {
            Class::Elf32
        },
        endian: Endian::HOST,
    };

    /// One past the highest address a program may use (`TASK_SIZE`) under the kernel of this machine that offers most:
    /// one with fewer address bits refuses the mapping itself.
    pub fn task_size_bytes(self, page: PageSize) -> u64 {
        match (self.class, self.number) {
            // Below the vector page of 32-bit ARM; the others have less.
            (Class::Elf32, _) => 0xffff_0000,
            (Class::Elf64, EM_AARCH64) => 1 << 48,
            (Class::Elf64, _) => (1 << 47) - page.bytes(),
        }
    }

    /// What an ELF header says.
    pub(super) fn of_header(header: &Header) -> Result<Self> {
        let byte = |at: usize| header.e_ident.get(at).copied().unwrap_or_default();
        let class = match byte(EI_CLASS) {
            ELFCLASS32 => Class::Elf32,
            ELFCLASS64 => Class::Elf64,
            other => return Err(Error::not_runnable(format!("ELF class {other}"))),
        };
        let endian = match byte(EI_DATA) {
            ELFDATA2LSB => Endian::Little,
            ELFDATA2MSB => Endian::Big,
            other => return Err(Error::not_runnable(format!("ELF data encoding {other}"))),
        };
        Ok(Self {
            number: header.e_machine,
            class,
            endian,
        })
    }

    /// The processor's name, as uname(1) and distributions use it; `None` for one that is rarely met.
    fn name(self) -> Option<&'static str> {
        Some(match self.number {
            EM_X86_64 => "x86_64",
            EM_386 => "x86",
            EM_AARCH64 => "ARM64",
            EM_ARM => "ARM",
            EM_RISCV => "RISC-V",
            EM_MIPS => "MIPS",
            EM_PPC | EM_PPC64 => "PowerPC",
            EM_S390 => "S/390",
            EM_SPARCV9 => "SPARC",
            _ => return None,
        })
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.class {
            Class::Elf32 => "32-bit ",
            Class::Elf64 => "64-bit ",
        })?;
        // These are big endian as a rule; the others are not.
        let usual = match self.number {
            EM_S390 | EM_SPARCV9 | EM_PPC => Endian::Big,
            _ => Endian::Little,
        };
        if self.endian != usual {
            write!(f, "{}-endian ", self.endian)?;
        }
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "machine {}", self.number),
        }
    }
}
