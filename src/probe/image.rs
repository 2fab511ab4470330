//! What an image can be run from: what holds it is tried, as every feature is.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::backing::{Attribute, Backing, Kind, MemoryType};
use crate::cramfs::Image;
use crate::error::{Error, Result};

/// What an image gives.
#[derive(Clone, Debug, Serialize)]
pub struct ImageFinding {
    /// What it was called by.
    pub name: String,
    /// What is opened: an absolute path.
    pub path: String,
    /// What that is.
    pub kind: Kind,
    /// Where in it the image begins, in bytes: of /dev/mem the physical address.
    pub offset: u64,
    /// Size in bytes.
    pub size_bytes: u64,
    /// What its pages are mapped from: `dax` and `device` are flash itself, `page-cache` a copy in RAM that all share.
    pub mapped_from: &'static str,
    /// Can its pages be executed? Of a device that was proven.
    pub executable: bool,
    /// Why not, and the way out.
    pub detail: Option<String>,
    /// What was tried.
    pub abilities: Vec<Ability>,
    /// How the kernel maps it, and by which rule.
    #[serde(flatten)]
    pub memory: MemoryType,
    /// Where a program's data comes from: `copy-on-write` is the image, `descriptor` a private copy in the page cache.
    pub data_from: &'static str,
    /// Why not from the image.
    pub data_detail: Option<&'static str>,
    /// What to do about what it cannot do.
    pub advice: Option<&'static str>,
}

/// Something that was tried with it.
#[derive(Clone, Debug, Serialize)]
pub struct Ability {
    /// For scripts: it stays.
    pub name: &'static str,
    /// For people.
    #[serde(skip)]
    title: &'static str,
    /// Has it succeeded?
    pub available: bool,
    /// Why not.
    pub detail: Option<String>,
}

impl ImageFinding {
    /// Tries everything with what holds an image.
    ///
    /// # Errors
    /// If it holds none that can be run.
    pub(super) fn new(backing: &Arc<Backing>) -> Result<Self> {
        let in_image = |err: Error| err.context(backing.name());
        let image = Image::open_shared(backing.clone()).map_err(in_image)?;
        image.require_runnable().map_err(in_image)?;
        let found = backing.abilities();
        let aligned = backing.require_aligned().map_err(|err| err.to_string());
        let execute = aligned.clone().and(found.execute.clone());
        let ability = |name, title, answer: Result<(), String>| Ability {
            name,
            title,
            available: answer.is_ok(),
            detail: answer.err(),
        };
        Ok(Self {
            name: backing.name().to_owned(),
            path: backing.path().display().to_string(),
            kind: backing.kind(),
            offset: backing.window().at,
            size_bytes: backing.window().len_bytes,
            mapped_from: match backing.kind().is_device() {
                true => "device",
                false if backing.is_dax_file() => "dax",
                false => "page-cache",
            },
            executable: execute.is_ok(),
            detail: execute.err(),
            abilities: vec![
                ability("private", "private mapping, read", found.private),
                ability("execute", "code executed", found.execute),
                ability(
                    "copy-on-write",
                    "private mapping, written to",
                    found.copy_on_write,
                ),
                ability("any-offset", "mappings begin anywhere", found.any_offset),
                ability("aligned", "pages are on page boundaries", aligned),
                ability(
                    "pinned",
                    "nobody can change it (--pinned)",
                    backing.require_pinned().map_err(|err| err.to_string()),
                ),
            ],
            data_from: match found.data {
                Ok(()) => "copy-on-write",
                Err(_) => "descriptor",
            },
            data_detail: found.data.err().map(|why| why.explain()),
            advice: advice(backing.kind(), found.memory),
            memory: found.memory,
        })
    }
}

/// What to do about how the kernel maps it.
fn advice(kind: Kind, memory: MemoryType) -> Option<&'static str> {
    match (memory.attribute, kind) {
        (Attribute::Cached, _) => None,
        (_, Kind::Uio) => Some(
            "code runs slowly, if it runs; a file on a DAX filesystem (a pmem-region node in the device tree) is cached",
        ),
        (Attribute::Uncached, _) if cfg!(target_arch = "arm") => Some(
            "code runs slowly, and on real ARMv7 processors unaligned reads of constants fault: make it a no-map region of \
             reserved-memory inside of a memory node, or use a filesystem with DAX",
        ),
        (Attribute::Uncached, _) => Some(
            "code runs slowly, if it runs; a file on a DAX filesystem (a pmem-region node in the device tree, memmap=SIZE!ADDRESS \
             on x86) is cached",
        ),
        (Attribute::Unknown, _) => Some("as root more can be told"),
    }
}

impl fmt::Display for ImageFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = match self.mapped_from {
            "dax" => "flash (DAX): no RAM",
            "device" => "flash: no RAM",
            _ => "the page cache: RAM that all share",
        };
        writeln!(f, "\nThe image {}, {} bytes:", self.name, self.size_bytes)?;
        match &self.detail {
            None => writeln!(f, "yes  runs from {from}")?,
            Some(why) => writeln!(f, "NO   {why}")?,
        }
        writeln!(
            f,
            "     {}, from {:#x} of {}",
            self.kind.title(),
            self.offset,
            self.path
        )?;
        for ability in &self.abilities {
            let here = if ability.available { "yes" } else { "NO" };
            write!(f, "{here:<5}{}", ability.title)?;
            match &ability.detail {
                Some(why) if self.detail.as_ref() != Some(why) => writeln!(f, ": {why}")?,
                _ => writeln!(f)?,
            }
        }
        let attribute = match self.memory.attribute {
            Attribute::Cached => "cached",
            Attribute::Uncached => "uncached",
            Attribute::Unknown => "unknown",
        };
        writeln!(f, "     mapped {attribute}: {}", self.memory.rule)?;
        match self.data_detail {
            None => writeln!(f, "     data: copied on write from the image")?,
            Some(why) => writeln!(f, "     data: from the page cache: {why}")?,
        }
        match self.advice {
            Some(advice) => writeln!(f, "     {advice}"),
            None => Ok(()),
        }
    }
}
