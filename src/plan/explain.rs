//! A plan for people and for scripts: `--explain`, `--explain --json`. Both print the same facts.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::{CopyReason, LaunchPlan, Mapping, ObjectPlan, Source, Totals};
use crate::cramfs::show_path;
use crate::elf::ElfKind;
use crate::units::PageSize;

/// What starts the program: where its pages come from depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// `--no-root`: the program is planned ahead, and what cannot be direct is copied.
    Alone,
    /// A session: what cannot be direct is mapped from the file itself, as the view has it.
    Session,
}

/// All that a plan says. It displays as a table and serializes as JSON; addresses and lengths are numbers there, in
/// bytes. Addresses are before bias: `ET_DYN` programs start wherever the kernel has room.
#[derive(Serialize, Debug)]
pub struct Explanation {
    start: Start,
    page_bytes: u64,
    program: ObjectFacts,
    interpreter: Option<ObjectFacts>,
    totals: TotalFacts,
    copy_reasons: Vec<ReasonFacts>,
}

#[derive(Serialize, Debug)]
struct ObjectFacts {
    /// Bytes that are no UTF-8 are shown as U+FFFD.
    path: String,
    machine: String,
    kind: ElfKind,
    entry: u64,
    start: u64,
    end: u64,
    align_bytes: u64,
    phdr_address: u64,
    brk: u64,
    stack_exec: Option<bool>,
    mappings: Vec<MappingFacts>,
    notes: Vec<String>,
}

#[derive(Serialize, Debug)]
struct MappingFacts {
    start: u64,
    end: u64,
    prot: String,
    #[serde(flatten)]
    source: SourceFacts,
    /// RAM before the first instruction.
    upfront_ram_bytes: u64,
}

#[derive(Serialize, Debug)]
#[serde(tag = "source", rename_all = "kebab-case")]
enum SourceFacts {
    Direct {
        image_offset: u64,
    },
    CopyOnWrite {
        image_offset: u64,
        /// From here to `end`, bss is cleared.
        #[serde(skip_serializing_if = "Option::is_none")]
        cleared_from: Option<u64>,
    },
    Copied {
        file_offset: u64,
        file_bytes: u64,
        reason: String,
    },
    /// The file in the root view: page cache, which all share, and which costs nothing until it is touched.
    ThroughView {
        file_offset: u64,
        file_bytes: u64,
        reason: String,
    },
    Zero,
}

#[derive(Serialize, Debug)]
struct TotalFacts {
    #[serde(flatten)]
    all: Totals,
    /// Mapped from the view: page cache.
    through_view_bytes: u64,
}

#[derive(Serialize, Debug)]
struct ReasonFacts {
    reason: String,
    explanation: &'static str,
}

impl LaunchPlan {
    /// The plan's facts, for people and scripts, as they are when the program is started by `start`.
    pub fn explain(&self, start: Start) -> Explanation {
        let page = self.options.page;
        let copied: Vec<(&Mapping, CopyReason)> = self
            .objects()
            .flat_map(|object| &object.mappings)
            .filter_map(|mapping| match mapping.source {
                Source::Copied { why, .. } => Some((mapping, why)),
                _ => None,
            })
            .collect();
        let reasons: BTreeSet<CopyReason> = copied.iter().map(|&(_, why)| why).collect();
        let mut totals = TotalFacts {
            all: self.totals(),
            through_view_bytes: 0,
        };
        if start == Start::Session {
            for (mapping, _) in copied {
                let len_bytes = mapping.pages.len_bytes();
                totals.through_view_bytes += len_bytes;
                totals.all.worst_ram_bytes -= len_bytes;
                totals.all.upfront_ram_bytes -=
                    mapping.ram_bytes(page) - ram_in_view(mapping, page);
            }
        }
        let facts = |object: &ObjectPlan| ObjectFacts::new(object, page, start);
        Explanation {
            start,
            page_bytes: page.bytes(),
            program: facts(&self.program),
            interpreter: self.interp.as_ref().map(facts),
            totals,
            copy_reasons: reasons
                .into_iter()
                .map(|why| ReasonFacts {
                    reason: why.to_string(),
                    explanation: why.explain(),
                })
                .collect(),
        }
    }
}

/// What a mapping of the view costs before the program's first instruction: the page in which bss begins is written to.
fn ram_in_view(mapping: &Mapping, page: PageSize) -> u64 {
    match mapping.source {
        Source::Copied { file_bytes, .. } if mapping.prot.write && !page.aligned(file_bytes) => {
            page.bytes()
        }
        _ => 0,
    }
}

impl ObjectFacts {
    fn new(object: &ObjectPlan, page: PageSize, start: Start) -> Self {
        Self {
            path: String::from_utf8_lossy(&object.path).into_owned(),
            machine: object.machine.to_string(),
            kind: object.kind,
            entry: object.entry,
            start: object.span.start(),
            end: object.span.end(),
            align_bytes: object.align_bytes,
            phdr_address: object.phdr_addr,
            brk: object.brk,
            stack_exec: object.stack_exec,
            mappings: object
                .mappings
                .iter()
                .map(|mapping| MappingFacts::new(mapping, page, start))
                .collect(),
            notes: notes(object),
        }
    }
}

/// What Linux lets pass, but what somebody who looks at a plan wants to know.
fn notes(object: &ObjectPlan) -> Vec<String> {
    let mut notes = Vec::new();
    if !object
        .mapping_at(object.entry)
        .is_some_and(|mapping| mapping.prot.exec)
    {
        notes.push(format!(
            "its entry {:#x} is in no executable mapping: it will die of SIGSEGV",
            object.entry
        ));
    }
    if object.phdr_addr == 0 {
        notes.push("no segment covers its program headers: AT_PHDR will not lead to them".into());
    }
    if object
        .mappings
        .iter()
        .any(|mapping| mapping.prot.write && mapping.prot.exec)
    {
        notes.push("it has pages that are writable and executable".into());
    }
    notes
}

impl MappingFacts {
    fn new(mapping: &Mapping, page: PageSize, start: Start) -> Self {
        Self {
            start: mapping.pages.start(),
            end: mapping.pages.end(),
            prot: mapping.prot.to_string(),
            source: match mapping.source {
                Source::Direct { at } if mapping.prot.write => SourceFacts::CopyOnWrite {
                    image_offset: at.0,
                    cleared_from: mapping.clear.as_ref().map(|clear| clear.start),
                },
                Source::Direct { at } => SourceFacts::Direct { image_offset: at.0 },
                Source::Copied {
                    at,
                    file_bytes,
                    why,
                } if start == Start::Session => SourceFacts::ThroughView {
                    file_offset: at.0,
                    file_bytes,
                    reason: why.to_string(),
                },
                Source::Copied {
                    at,
                    file_bytes,
                    why,
                } => SourceFacts::Copied {
                    file_offset: at.0,
                    file_bytes,
                    reason: why.to_string(),
                },
                Source::Zero => SourceFacts::Zero,
            },
            upfront_ram_bytes: match start {
                Start::Session if matches!(mapping.source, Source::Copied { .. }) => {
                    ram_in_view(mapping, page)
                }
                _ => mapping.ram_bytes(page),
            },
        }
    }
}

fn kib(bytes: u64) -> String {
    format!("{} KiB", bytes / 1024)
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for object in [Some(&self.program), self.interpreter.as_ref()]
            .into_iter()
            .flatten()
        {
            writeln!(
                f,
                "{}: {} {}, entry {:#x}, {} pages",
                show_path(object.path.as_bytes()),
                object.kind,
                object.machine,
                object.entry,
                kib(self.page_bytes)
            )?;
            object.fmt(f)?;
        }
        let Totals {
            in_place_bytes,
            copy_on_write_bytes,
            upfront_ram_bytes,
            worst_ram_bytes,
        } = self.totals.all;
        let (start, not_direct) = match self.start {
            Start::Alone => ("with --no-root", "copied"),
            Start::Session => ("in a session", "through the view"),
        };
        writeln!(f, "totals of the program's pages, {start}")?;
        let through_view = (self.start == Start::Session)
            .then_some(("page cache, view", self.totals.through_view_bytes));
        let rows = [
            Some(("image, in place", in_place_bytes)),
            Some(("image, copy-on-write", copy_on_write_bytes)),
            through_view,
            Some(("RAM up front", upfront_ram_bytes)),
            Some(("RAM at worst", worst_ram_bytes)),
        ];
        for (name, bytes) in rows.into_iter().flatten() {
            writeln!(f, "  {name:<20} {:>12}", kib(bytes))?;
        }
        if !self.copy_reasons.is_empty() {
            writeln!(f, "{not_direct} because")?;
        }
        for reason in &self.copy_reasons {
            writeln!(f, "  {}: {}", reason.reason, reason.explanation)?;
        }
        Ok(())
    }
}

impl fmt::Display for ObjectFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mapping in &self.mappings {
            let (source, from, remark) = match &mapping.source {
                SourceFacts::Direct { image_offset } => {
                    ("direct", format!("image@{image_offset:#x}"), String::new())
                }
                SourceFacts::CopyOnWrite {
                    image_offset,
                    cleared_from,
                } => (
                    "copy-on-write",
                    format!("image@{image_offset:#x}"),
                    cleared_from
                        .map_or_else(String::new, |from| format!("  bss cleared from {from:08x}")),
                ),
                SourceFacts::Copied {
                    file_offset,
                    reason,
                    ..
                } => (
                    "copied",
                    format!("file@{file_offset:#x}"),
                    format!("  {reason}"),
                ),
                SourceFacts::ThroughView {
                    file_offset,
                    reason,
                    ..
                } => (
                    "view",
                    format!("file@{file_offset:#x}"),
                    format!("  {reason}"),
                ),
                SourceFacts::Zero => ("zero", String::new(), String::new()),
            };
            writeln!(
                f,
                "  {:08x}-{:08x} {} {source:<13} {from:<15} {:>9}{remark}",
                mapping.start,
                mapping.end,
                mapping.prot,
                kib(mapping.upfront_ram_bytes)
            )?;
        }
        write!(f, "  brk {:08x}, AT_PHDR ", self.brk)?;
        match self.phdr_address {
            0 => write!(f, "none")?,
            address => write!(f, "{address:08x}")?,
        }
        if self.kind == ElfKind::Relocatable {
            write!(f, ", aligned to {:#x}, before bias", self.align_bytes)?;
        }
        match self.stack_exec {
            Some(false) => writeln!(f, ", stack rw-")?,
            Some(true) => writeln!(f, ", stack rwx")?,
            None => writeln!(f, ", stack as the machine's default")?,
        }
        for note in &self.notes {
            writeln!(f, "  note: {note}")?;
        }
        Ok(())
    }
}
