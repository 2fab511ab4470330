//! Why is this page in RAM? For every page of a process that is not in place the reason, and the way out.
//!
//! [`Observer::observe_reasons`](crate::report::Observer) looks; [`elf`] knows what the loader itself writes to.

pub mod elf;
mod observe;
mod text;

use serde::{Serialize, Serializer};

use super::pages::Why;
use crate::index::NotDirect;

/// Why a page is in RAM, or would be if it were touched.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Reason {
    /// A file's page that does not come from the image.
    File(Why),
    /// A private copy: ld.so, or the program's own start-up code, has relocated something in it.
    Relocated,
    /// A private copy: the loader cleared where bss begins in it.
    BssTail,
    /// A private copy: written to before it was sealed (RELRO), but no relocation is in it.
    Relro,
    /// A private copy: the program wrote to it.
    Written,
    /// Of bss, written to.
    Bss,
    /// Of the heap.
    Heap,
    /// Of the stack.
    Stack,
    /// Other memory of no file.
    Anonymous,
    /// Copied at the launch although it could be in place.
    Asked,
    /// The loader stub and its tables.
    Stub,
}

impl Reason {
    /// The reason in a few words, and what to do about it.
    pub fn explain(self) -> &'static str {
        match self {
            Self::File(Why::Index(NotDirect::BeyondFile)) => "beyond the file's end; nothing to do",
            Self::File(Why::Index(why)) => why.explain(),
            Self::File(Why::Writable) => {
                "data that was not written to yet, from the view: where the image can be mapped copy-on-write (a file, DAX, \
                 x86) it is in place"
            }
            Self::File(Why::ThroughView) => {
                "could be in place, but the process mapped the view's page: it has no right to open the image, or no filter"
            }
            Self::File(Why::Unknown) => {
                "from the view, and which image that is could not be found out; run this as root"
            }
            Self::File(Why::Copied) => "copied at the launch; xip-run --explain says why",
            Self::File(Why::Host) => "a file of the host; put it into the image",
            Self::File(Why::SharedMemory) => "shared memory; the program's own",
            Self::Relocated => {
                "relocated at the start; link programs with -no-pie, libraries with -Wl,-Bsymbolic or -fvisibility=hidden, \
                 and let tables have offsets instead of pointers"
            }
            Self::BssTail => {
                "bss begins in it, and was cleared; link with .bss on a page of its own (a linker script with . = \
                 ALIGN(CONSTANT(MAXPAGESIZE)) before it)"
            }
            Self::Relro => {
                "written to at the start, then made read-only (RELRO); as for what is relocated, or link with -Wl,-z,norelro \
                 if nothing there needs it"
            }
            Self::Written => {
                "the program writes to it; make const what never changes, and let what does lie together (-fdata-sections, \
                 -Wl,--sort-section=alignment)"
            }
            Self::Bss => "variables without a value, written to; the program's own",
            Self::Heap => {
                "malloc(3) and brk(2); the program's own (M_TRIM_THRESHOLD, fewer arenas)"
            }
            Self::Stack => "the stack; the program's own (ulimit -s, smaller frames)",
            Self::Anonymous => {
                "mmap(2) without a file: malloc(3), thread stacks, TLS; the program's own"
            }
            Self::Asked => {
                "copied at the launch although the image has it page by page: by --copy-text, or because this backing cannot \
                 be mapped copy-on-write"
            }
            Self::Stub => "xip-run's loader stub: shared by all processes of a session",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::File(why) => return why.fmt(f),
            Self::Relocated => "relocated",
            Self::BssTail => "bss-tail",
            Self::Relro => "relro",
            Self::Written => "written",
            Self::Bss => "bss",
            Self::Heap => "heap",
            Self::Stack => "stack",
            Self::Anonymous => "anonymous",
            Self::Asked => "asked",
            Self::Stub => "stub",
        })
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Consecutive pages that are not in place for the same reason.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Run {
    /// First address.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// Of these in RAM: all, but of files only what was touched.
    pub ram_bytes: u64,
    /// The file, or what the mapping is.
    pub what: String,
    /// Its first page's place in the file; `None` for memory of no file.
    pub offset_bytes: Option<u64>,
    /// Why.
    pub reason: Reason,
}

/// Pages of a reason, added up.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Sum {
    /// Why.
    pub reason: Reason,
    /// All of them, bytes.
    pub bytes: u64,
    /// Of these in RAM, bytes.
    pub ram_bytes: u64,
    /// The reason in a few words, and the way out.
    pub explain: &'static str,
}

/// Why what of a process is not in place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Reasons {
    /// Process number.
    pub pid: u32,
    /// Command name.
    pub name: String,
    /// By address.
    pub runs: Vec<Run>,
    /// What costs most RAM first.
    pub sums: Vec<Sum>,
    /// What the reader has to know.
    pub notes: Vec<String>,
}

impl Reasons {
    fn new(pid: u32, name: String, found: Vec<Run>, notes: Vec<String>) -> Self {
        let mut runs: Vec<Run> = Vec::new();
        let mut sums: Vec<Sum> = Vec::new();
        for run in found {
            let bytes = run.end - run.start;
            match sums.iter_mut().find(|sum| sum.reason == run.reason) {
                Some(sum) => {
                    sum.bytes += bytes;
                    sum.ram_bytes += run.ram_bytes;
                }
                None => sums.push(Sum {
                    reason: run.reason,
                    bytes,
                    ram_bytes: run.ram_bytes,
                    explain: run.reason.explain(),
                }),
            }
            match runs.last_mut() {
                Some(last)
                    if last.end == run.start
                        && (last.reason, &last.what) == (run.reason, &run.what) =>
                {
                    last.end = run.end;
                    last.ram_bytes += run.ram_bytes;
                }
                _ => runs.push(run),
            }
        }
        sums.sort_by_key(|sum| std::cmp::Reverse((sum.ram_bytes, sum.bytes)));
        Self {
            pid,
            name,
            runs,
            sums,
            notes,
        }
    }
}
