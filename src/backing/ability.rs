//! What can be done with a backing, found by doing it.

use std::os::fd::AsFd;

use rustix::fs::{StatVfsMountFlags, fstatvfs};
use serde::Serialize;

use super::attribute::{Attribute, MemoryType};
use super::device::Kind;
use super::open::{Backing, TRIAL};
use super::system::System;
use super::{ReadAt, hint, page_struct};
use crate::error::{Error, Result};
use crate::sys::{self, Ended};

/// Why what is writable cannot be mapped copy-on-write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoCow {
    /// The window is not mapped as memory, and a copy would not be either.
    Uncached,
    /// It can be mapped `MAP_SHARED` only.
    SharedOnly,
    /// A private mapping of it cannot be written to.
    Refused,
    /// Who has written to a private mapping of it cannot fork any more.
    CannotFork,
}

impl NoCow {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Uncached,
        Self::SharedOnly,
        Self::Refused,
        Self::CannotFork,
    ];

    /// The reason in a few words.
    pub fn explain(self) -> &'static str {
        match self {
            Self::Uncached => {
                "writable, and the image's memory is not known to be mapped through the caches here: a page that is copied on \
                 write would be mapped like it; `xip-run --probe` says more"
            }
            Self::SharedOnly => "writable, and the image can be mapped MAP_SHARED only",
            Self::Refused => "writable, and the image cannot be mapped copy-on-write",
            Self::CannotFork => {
                "writable, and on this kernel (x86, Linux 6.9 to 6.15, older ones with their fixes) a process that has written to \
                 a copy-on-write page of physical memory cannot fork; a file on a DAX filesystem can be mapped so"
            }
        }
    }
}

impl std::fmt::Display for NoCow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Uncached => "uncached",
            Self::SharedOnly => "shared-only",
            Self::Refused => "cannot-cow",
            Self::CannotFork => "cannot-fork",
        })
    }
}

/// What was found out about a backing.
#[derive(Clone, Debug)]
pub struct Abilities {
    /// Can it be mapped privately, to be read?
    pub private: Result<(), String>,
    /// Can its code be executed?
    pub execute: Result<(), String>,
    /// Can a private mapping be written to, with the image unchanged?
    pub copy_on_write: Result<(), String>,
    /// Can a mapping begin anywhere in it?
    pub any_offset: Result<(), String>,
    /// How the kernel maps it.
    pub memory: MemoryType,
    /// Where data comes from: the image itself, copied on write, or why not.
    pub data: Result<(), NoCow>,
}

/// How much is searched for an instruction at a time.
const CHUNK_BYTES: u64 = 64 * 1024;

impl Backing {
    /// Tries everything. To be called while the process has one thread.
    pub fn abilities(&self) -> Abilities {
        let (copy_on_write, data) = self.try_data();
        Abilities {
            private: self.try_private(),
            execute: self.try_execute(),
            copy_on_write,
            any_offset: self.try_any_offset(),
            memory: self.memory_type(),
            data,
        }
    }

    /// Where data is to come from: the image itself, copied on write, or why not.
    ///
    /// # Errors
    /// Why not.
    pub fn data(&self) -> Result<(), NoCow> {
        match self.memory_type().attribute {
            _ if !self.kind().is_device() => Ok(()),
            _ if self.window().shared_only => Err(NoCow::SharedOnly),
            Attribute::Uncached => Err(NoCow::Uncached),
            _ => self.try_data().1,
        }
    }

    /// Can its pages be executed? Of a device that is proven, by a child that executes an instruction of the image.
    ///
    /// # Errors
    /// [`Kind::NotRunnable`](crate::error::Kind) with the reason and the ways out: the filesystem is mounted `noexec`, the
    /// kernel maps the device so that it cannot be executed, no page of it would be on a page boundary.
    pub fn require_executable(&self) -> Result<()> {
        self.require_aligned()?;
        self.try_execute()
            .map_err(|why| Error::not_runnable(format!("{}: {why}", self.name())))
    }

    /// Is every page of the image on a page boundary of what holds it?
    ///
    /// # Errors
    /// [`Kind::NotRunnable`](crate::error::Kind) if not.
    pub fn require_aligned(&self) -> Result<()> {
        let align = self.window().align_bytes.max(page_bytes());
        let at = self.window().at;
        if align > page_bytes() {
            return Err(Error::not_runnable(format!(
                "{}: its mappings have pages of {align:#x} bytes, so nothing of the image can be put where it belongs; make \
                 the device with pages of {:#x} (ndctl create-namespace -m devdax --align 4k), or use a filesystem with DAX",
                self.name(),
                page_bytes()
            )));
        }
        match at.is_multiple_of(align) {
            true => Ok(()),
            false => Err(Error::not_runnable(format!(
                "{}: the image begins at {at:#x}, which is no multiple of the page size, {align:#x}: nothing of it can be \
                 mapped; write it to another address",
                self.name()
            ))),
        }
    }

    fn try_private(&self) -> Result<(), String> {
        if self.window().shared_only {
            return Err("it can be mapped MAP_SHARED only".to_owned());
        }
        self.first_page()?
            .try_read()
            .map_err(|err| format!("mmap: {err}"))
    }

    fn try_any_offset(&self) -> Result<(), String> {
        match self.window().whole_only {
            true => Err("from its start only; parts are moved into place".to_owned()),
            false => Ok(()),
        }
    }

    fn first_page(&self) -> Result<sys::Mapping<'_>, String> {
        let mapping = self.mapping(0, 1).ok_or("too long to be mapped here")?;
        Ok(mapping.0)
    }

    fn try_execute(&self) -> Result<(), String> {
        if cfg!(target_arch = "riscv64") && self.kind().is_device() && self.kind() != Kind::DevDax {
            let addresses = self.window().addresses.as_ref();
            page_struct::require(addresses, page_bytes(), &System::this())?;
        }
        self.first_page()?.try_execute().map_err(|err| {
            if is_mounted_noexec(self) {
                return "its filesystem is mounted noexec, so nothing can run in place from it; remount it with exec, move the \
                    image, or run from RAM with --copy-text"
                    .to_owned();
            }
            let hint = hint::of_map(self.kind(), self.window(), &err, true, &System::this());
            format!("mmap with PROT_EXEC: {err}{hint}")
        })?;
        if !self.kind().is_device() {
            return Ok(());
        }
        let Some(at) = self.find_return() else {
            return Err(
                "whether its code can be executed cannot be tried: there is no code of this machine in it".to_owned(),
            );
        };
        let page_at = at - at % page_bytes();
        let (mapping, skip) = self
            .mapping(page_at, page_bytes())
            .ok_or("too long to be mapped here")?;
        let ended = sys::in_child_within(TRIAL, || {
            sys::no_core_dump();
            mapping.execute_return(skip + (at - page_at) as usize)
        });
        match ended.map_err(|err| format!("a child to execute it: {err}"))? {
            Ended::Succeeded => Ok(()),
            Ended::Failed(why) => Err(format!("mmap with PROT_EXEC: {why}")),
            Ended::TimedOut => Err(format!(
                "its code cannot be executed: the kernel maps {} so that the first instruction faults for ever ({}); put the \
                 image into a file on a DAX filesystem (on flash: a pmem-region node in the device tree), or run from RAM \
                 with --copy-text",
                self.kind().title(),
                self.memory_type().rule
            )),
            other => Err(format!(
                "its code cannot be executed: an instruction at {at:#x} {}; run from RAM with --copy-text",
                hint::of_end(&other)
            )),
        }
    }

    /// Where the image has an instruction that can be executed by itself.
    fn find_return(&self) -> Option<u64> {
        let mut buf = vec![0; CHUNK_BYTES as usize];
        let mut at = 0;
        while at < self.len_bytes() {
            let len = CHUNK_BYTES.min(self.len_bytes() - at) as usize;
            let chunk = buf.get_mut(..len)?;
            self.read_exact_at(chunk, at).ok()?;
            if let Some(found) = sys::find_return(chunk) {
                return Some(at + found as u64);
            }
            at += CHUNK_BYTES;
        }
        None
    }

    fn try_data(&self) -> (Result<(), String>, Result<(), NoCow>) {
        if self.window().shared_only {
            let why = "it can be mapped MAP_SHARED only".to_owned();
            return (Err(why), Err(NoCow::SharedOnly));
        }
        let tried = self.try_store();
        let data = match (&tried, self.memory_type().attribute) {
            (_, Attribute::Uncached) => Err(NoCow::Uncached),
            (Err(why), _) if why.starts_with(sys::CANNOT_FORK) => Err(NoCow::CannotFork),
            (Err(_), _) => Err(NoCow::Refused),
            (Ok(()), Attribute::Cached) => Ok(()),
            (Ok(()), Attribute::Unknown) => Err(NoCow::Uncached),
        };
        (tried, data)
    }

    fn try_store(&self) -> Result<(), String> {
        let mapping = self.first_page()?;
        let ended = sys::in_child_within(TRIAL, || {
            sys::no_core_dump();
            mapping.store()
        });
        match ended.map_err(|err| format!("a child to write to it: {err}"))? {
            Ended::Succeeded => Ok(()),
            Ended::Failed(why) => Err(why),
            other => Err(format!(
                "writing to a private mapping {}",
                hint::of_end(&other)
            )),
        }
    }
}

fn is_mounted_noexec(backing: &Backing) -> bool {
    backing.kind() != Kind::PciResource
        && fstatvfs(backing.as_fd())
            .is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::NOEXEC))
}

fn page_bytes() -> u64 {
    crate::sys::page_size()
}
