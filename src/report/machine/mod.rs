//! All processes of a machine that run in place, side by side: [`Machine`] is what was seen, its tables are how it is shown.
//!
//! [`Observer::observe_machine`](crate::report::Observer) looks.

mod observe;
mod text;

use serde::Serialize;

use super::files::File;
use super::memory::Memory;
use super::session::Server;
use super::summary::{Counts, Report};
use crate::cramfs::Image;
use crate::trace::Trace;

pub use text::columns as machine_columns;

/// What a process has, or all of them together; in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Sums {
    /// Address space.
    pub vss_bytes: u64,
    /// Pages present in RAM. Flash that is mapped by its physical pages is none of it.
    pub rss_bytes: u64,
    /// The same, each page divided by the number of processes that map it.
    pub pss_bytes: u64,
    /// Pages present in RAM that no other process maps.
    pub uss_bytes: u64,
    /// Mapped in place from flash, DAX included: no RAM.
    pub flash_bytes: u64,
    /// Mapped in place from an image in the page cache or in tmpfs: RAM, as far as it was touched.
    pub cache_bytes: u64,
    /// Anonymous pages, private copies of file pages included.
    pub anonymous_bytes: u64,
    /// Page tables of all levels.
    pub page_table_bytes: u64,
    /// What xip-run itself costs: the share of the session memfds, mapped or not.
    pub stub_bytes: u64,
    /// Swapped out.
    pub swap_bytes: u64,
    /// Its share of the image's page cache, by PSS.
    pub image_share_bytes: u64,
    /// Its share of other page cache and of shared memory, by PSS.
    pub other_share_bytes: u64,
}

impl Sums {
    /// Of a report that has its rows.
    fn of(report: &Report) -> Self {
        let mut counts = Counts::default();
        for row in &report.rows {
            counts.add(&row.counts);
        }
        let totals = &report.totals;
        let copied = [totals.stub, totals.copied].map(|part| part.share_bytes);
        Self {
            vss_bytes: counts.size_bytes,
            rss_bytes: counts.rss_bytes,
            pss_bytes: counts.pss_bytes,
            uss_bytes: counts.uss_bytes,
            flash_bytes: totals.flash_bytes,
            cache_bytes: totals.image_cache.mapped_bytes + totals.image_tmpfs.mapped_bytes,
            anonymous_bytes: totals.anonymous_bytes,
            page_table_bytes: totals.page_table_bytes,
            stub_bytes: totals
                .session_memfd
                .map_or(copied.iter().sum(), |memfd| memfd.share_bytes),
            swap_bytes: totals.swap_bytes,
            image_share_bytes: totals.image_cache.share_bytes + totals.image_tmpfs.share_bytes,
            other_share_bytes: totals.file_cache.share_bytes + totals.shared_memory.share_bytes,
        }
    }

    /// Adds another one's.
    pub fn add(&mut self, more: &Self) {
        for (sum, column) in COLUMNS.iter().map(|column| (column.of)(more)).zip(&COLUMNS) {
            *(column.of_mut)(self) += sum;
        }
        self.swap_bytes += more.swap_bytes;
        self.image_share_bytes += more.image_share_bytes;
        self.other_share_bytes += more.other_share_bytes;
    }
}

/// A column of figures.
pub struct Column {
    /// What people read.
    pub title: &'static str,
    /// What people type.
    pub word: &'static str,
    /// The field's name, for scripts.
    pub name: &'static str,
    /// What stands in it.
    pub of: fn(&Sums) -> u64,
    of_mut: fn(&mut Sums) -> &mut u64,
}

macro_rules! column {
    ($title:literal, $word:literal, $field:ident) => {
        Column {
            title: $title,
            word: $word,
            name: stringify!($field),
            of: |sums| sums.$field,
            of_mut: |sums| &mut sums.$field,
        }
    };
}

/// The columns of figures, from left to right.
pub const COLUMNS: [Column; 9] = [
    column!("VSS", "vss", vss_bytes),
    column!("RSS", "rss", rss_bytes),
    column!("PSS", "pss", pss_bytes),
    column!("USS", "uss", uss_bytes),
    column!("FLASH", "flash", flash_bytes),
    column!("CACHE", "cache", cache_bytes),
    column!("ANON", "anon", anonymous_bytes),
    column!("TABLES", "tables", page_table_bytes),
    column!("STUB", "stub", stub_bytes),
];

/// A process that runs in place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Process {
    /// Process number.
    pub pid: u32,
    /// Command name.
    pub name: String,
    /// The images that it maps, by their paths.
    pub images: Vec<String>,
    /// Its figures.
    #[serde(flatten)]
    pub sums: Sums,
}

/// An image that processes run from, and how many of them have touched each page of its files.
#[derive(Clone, Debug)]
pub struct Heat {
    /// Its path.
    pub path: String,
    /// The image.
    pub image: Image,
    /// What was touched; a run is a process.
    pub touched: Trace,
}

/// The processes of a machine that run in place.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Those with the largest PSS first, unless they were [sorted](Machine::sort).
    pub processes: Vec<Process>,
    /// Servers of views, which are no processes in place themselves.
    pub servers: Vec<Server>,
    /// All processes added up. What several share is in VSS, RSS and in what is in place once for each of them; it is once
    /// in PSS.
    pub totals: Sums,
    /// The files that they map, if these were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<File>>,
    /// The images that they map, if the files were asked for.
    #[serde(skip)]
    pub heat: Vec<Heat>,
    /// The machine's RAM before it was looked at.
    pub memory_before: Memory,
    /// And after.
    pub memory_after: Memory,
    /// What the reader has to know about the figures.
    pub notes: Vec<String>,
}

impl Machine {
    /// Adds processes up.
    fn new(reports: &[Report], servers: Vec<Server>, [before, after]: [Memory; 2]) -> Self {
        let mut totals = Sums::default();
        let mut notes: Vec<String> = Vec::new();
        let mut processes = Vec::new();
        for report in reports {
            let sums = Sums::of(report);
            totals.add(&sums);
            for note in &report.notes {
                // What several processes have in common is said once.
                if !notes.contains(note) {
                    notes.push(note.clone());
                }
            }
            processes.push(Process {
                pid: report.pid,
                name: report.name.clone(),
                images: report.images.clone(),
                sums,
            });
        }
        let mut machine = Self {
            processes,
            servers,
            totals,
            files: None,
            heat: Vec::new(),
            memory_before: before,
            memory_after: after,
            notes,
        };
        machine.sort("pss");
        machine
    }

    /// Sorts the processes by `pid`, by `name`, or by a column of figures, largest first.
    /// Any other word leaves them as they are: [`sort_words`] has all.
    pub fn sort(&mut self, by: &str) {
        let column = COLUMNS.iter().find(|column| column.word == by);
        match (by, column) {
            ("pid", _) => self.processes.sort_by_key(|process| process.pid),
            ("name", _) => self
                .processes
                .sort_by(|one, other| (&one.name, one.pid).cmp(&(&other.name, other.pid))),
            (_, Some(column)) => self.processes.sort_by_key(|process| {
                (std::cmp::Reverse((column.of)(&process.sums)), process.pid)
            }),
            _ => {}
        }
    }
}

/// What processes can be sorted by.
pub fn sort_words() -> Vec<&'static str> {
    let columns = COLUMNS.iter().map(|column| column.word);
    ["pid", "name"].into_iter().chain(columns).collect()
}
