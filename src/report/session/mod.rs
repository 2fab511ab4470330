//! Adds up a session: processes and files, what is in place, and what RAM all of it costs, each page once.
//!
//! [`Session::new`] is a pure function of what was seen; [`Observer::observe_session`](crate::report::Observer) looks.

mod memfds;
mod observe;
mod pages;
pub mod server;
mod text;

use std::collections::HashMap;
use std::iter::Sum;
use std::ops::AddAssign;

use serde::Serialize;

use super::classify::{Class, MappedFile};
use super::mountinfo::RootMount;
use super::pagemap::PageRun;
use super::process::OpenImage;
use super::smaps::Mapping;
use super::summary::Report;
use crate::units::PageSize;
use pages::{FilePages, Files, Finder, PageSets, Place};

pub use pages::Why;
pub use text::columns as session_columns;

/// Pages of files that are mapped; in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Pages {
    /// Mapped, without private copies.
    pub mapped_bytes: u64,
    /// Of these, in the page tables of a process: touched.
    pub touched_bytes: u64,
}

impl AddAssign for Pages {
    fn add_assign(&mut self, more: Self) {
        self.mapped_bytes += more.mapped_bytes;
        self.touched_bytes += more.touched_bytes;
    }
}

impl Sum for Pages {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, pages| {
            sum += pages;
            sum
        })
    }
}

impl From<&PageSets> for Pages {
    fn from(sets: &PageSets) -> Self {
        Self {
            mapped_bytes: sets.mapped.len_bytes(),
            touched_bytes: sets.touched.len_bytes(),
        }
    }
}

/// Pages of files by where they come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Sources {
    /// Flash, DAX included: no RAM.
    pub flash: Pages,
    /// An image in the page cache.
    pub image_cache: Pages,
    /// An image in tmpfs or ramfs.
    pub image_tmpfs: Pages,
    /// The view: page cache.
    pub view: Pages,
    /// Other files: page cache.
    pub host: Pages,
    /// Shared memory.
    pub shared_memory: Pages,
    /// Pages that the launcher copied into a session memfd.
    pub copied: Pages,
}

impl Sources {
    /// All that is in place.
    pub fn in_place(&self) -> Pages {
        [self.flash, self.image_cache, self.image_tmpfs]
            .into_iter()
            .sum()
    }

    /// All that is not.
    pub fn not_in_place(&self) -> Pages {
        [self.view, self.host, self.shared_memory, self.copied]
            .into_iter()
            .sum()
    }

    fn of(&mut self, place: Place) -> &mut Pages {
        match place {
            Place::InPlace(Class::ImageCache) => &mut self.image_cache,
            Place::InPlace(Class::ImageTmpfs) => &mut self.image_tmpfs,
            Place::InPlace(_) => &mut self.flash,
            Place::Not(Why::Host) => &mut self.host,
            Place::Not(Why::SharedMemory) => &mut self.shared_memory,
            Place::Not(Why::Copied) => &mut self.copied,
            Place::Not(_) => &mut self.view,
        }
    }

    /// RAM of it that is in no session memfd, bytes.
    fn cache_bytes(&self) -> u64 {
        let all = [
            self.image_cache,
            self.image_tmpfs,
            self.view,
            self.host,
            self.shared_memory,
        ];
        all.into_iter().sum::<Pages>().touched_bytes
    }
}

impl From<&FilePages> for Sources {
    /// Each page of the file once; one that is mapped from the view for several reasons is one page.
    fn from(file: &FilePages) -> Self {
        let mut sources = Self::default();
        let mut of_view = PageSets::default();
        for (&place, sets) in &file.places {
            match place {
                Place::Not(Why::Index(_) | Why::Writable | Why::ThroughView | Why::Unknown) => {
                    of_view.extend(sets);
                }
                _ => *sources.of(place) += sets.into(),
            }
        }
        sources.view = (&of_view).into();
        sources
    }
}

impl AddAssign for Sources {
    fn add_assign(&mut self, more: Self) {
        self.flash += more.flash;
        self.image_cache += more.image_cache;
        self.image_tmpfs += more.image_tmpfs;
        self.view += more.view;
        self.host += more.host;
        self.shared_memory += more.shared_memory;
        self.copied += more.copied;
    }
}

/// A mapping of a process, the file behind it if it could be opened, and its pages; no pages stand for untouched ones.
#[derive(Clone, Debug)]
pub struct SeenMapping {
    /// What smaps says.
    pub mapping: Mapping,
    /// What its file is.
    pub file: Option<MappedFile>,
    /// What pagemap says.
    pub runs: Vec<PageRun>,
}

/// A process of a session, as it was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its report.
    pub report: Report,
    /// One for every row of the report.
    pub mappings: Vec<SeenMapping>,
    /// Its anonymous memory, each page divided by the number of processes that share it since a fork (`Pss_Anon` of
    /// smaps_rollup, Linux 5.3), bytes; `None` if the kernel does not tell.
    pub anonymous_share_bytes: Option<u64>,
}

/// What serves a view, and what that costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Server {
    /// Process number.
    pub pid: u32,
    /// Anonymous memory, bytes.
    pub anonymous_bytes: u64,
    /// Page tables, bytes.
    pub page_table_bytes: u64,
    /// Pages of its program, bytes: page cache that all servers share.
    pub page_cache_bytes: u64,
}

/// A session memfd: the loader stub and what the launcher copied. All of it is RAM, mapped or not.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Memfd {
    /// Its name.
    pub name: String,
    /// RAM that it takes, bytes.
    pub allocated_bytes: u64,
    /// Processes of the session that execute or map it.
    pub processes: u64,
}

/// What was found out about a session beside its processes.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The process by which it was named.
    pub pid: u32,
    /// Its root directory.
    pub view: RootMount,
    /// The path of its image.
    pub image_path: Option<String>,
    /// Its image.
    pub image: Option<OpenImage>,
    /// Its server.
    pub server: Option<Server>,
    /// Its memfds.
    pub memfds: Vec<Memfd>,
    /// What the reader has to know.
    pub notes: Vec<String>,
}

/// A file that a process maps; a page that it maps twice counts twice, as in smaps.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FileUse {
    /// Its path: in the image, if it is there.
    pub file: String,
    /// Its pages, by where they come from.
    #[serde(flatten)]
    pub sources: Sources,
    /// Private copies of its pages, bytes: part of the anonymous memory.
    pub copied_bytes: u64,
}

/// A process of a session; a page of a file that it maps twice counts twice, as in smaps.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Process {
    /// Process number.
    pub pid: u32,
    /// Command name.
    pub name: String,
    /// Pages of files, by where they come from.
    #[serde(flatten)]
    pub sources: Sources,
    /// Anonymous memory, bytes; pages that it shares with others since a fork counted whole.
    pub anonymous_bytes: u64,
    /// Page tables of all levels, bytes.
    pub page_table_bytes: u64,
    /// Swapped out, bytes.
    pub swap_bytes: u64,
    /// The files that it maps, by path.
    pub files: Vec<FileUse>,
}

/// Pages that are not in place for the same reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct NotInPlace {
    /// The reason.
    pub reason: Why,
    /// How many, each once.
    #[serde(flatten)]
    pub pages: Pages,
}

/// A file that a session maps; each page counts once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct File {
    /// Its path: in the image, if it is there.
    pub file: String,
    /// Processes that map it.
    pub processes: u64,
    /// In place.
    pub in_place: Pages,
    /// Not in place.
    pub not_in_place: Pages,
    /// The same by reason; a page that is mapped in two ways may have two.
    pub reasons: Vec<NotInPlace>,
    /// Private copies of its pages in all processes, bytes: part of their anonymous memory.
    pub copied_bytes: u64,
}

/// The sums of a session, each page once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct SessionTotals {
    /// Pages of files, by where they come from.
    #[serde(flatten)]
    pub sources: Sources,
    /// Anonymous memory, bytes; see [`Seen::anonymous_share_bytes`].
    pub anonymous_bytes: u64,
    /// Page tables of all levels, bytes.
    pub page_table_bytes: u64,
    /// Session memfds, bytes.
    pub session_memfd_bytes: u64,
    /// The server's anonymous memory and page tables, bytes.
    pub server_bytes: u64,
    /// Swapped out, bytes.
    pub swap_bytes: u64,
    /// RAM that the session takes by itself, bytes: anonymous, page tables, session memfds, server.
    pub ram_alone_bytes: u64,
    /// The same and all page cache and shared memory that its processes and its server have touched, bytes.
    pub ram_with_cache_bytes: u64,
}

/// A measured session.
#[derive(Clone, Debug, Serialize)]
pub struct Session {
    /// The process by which it was named.
    pub pid: u32,
    /// The image that is its root directory, if that could be found out.
    pub image: Option<String>,
    /// The file system that is its root directory.
    pub file_system: String,
    /// Major and minor number of that file system's device.
    pub device: (u32, u32),
    /// By number.
    pub processes: Vec<Process>,
    /// By path.
    pub files: Vec<File>,
    /// Each once.
    pub session_memfds: Vec<Memfd>,
    /// What serves the view; `None` if nothing does, or if a note says that it could not be found.
    pub server: Option<Server>,
    /// The sums.
    pub totals: SessionTotals,
    /// What the reader has to know about the figures.
    pub notes: Vec<String>,
}

impl Session {
    /// Adds up what was seen of a session's processes. `page` is the page size of their kernel.
    pub fn new(around: Surroundings, seen: &[Seen], page: PageSize) -> Self {
        let mut finder = Finder::new(page, around.view.device, around.image.as_ref());
        let mut all = Files::new();
        let mut users: HashMap<_, u64> = HashMap::new();
        let mut notes = around.notes;
        let mut totals = SessionTotals::default();
        let mut processes = Vec::new();
        for process in seen {
            let report = &process.report;
            let mut files = Files::new();
            for (seen, row) in process.mappings.iter().zip(&report.rows) {
                finder.add(&mut files, seen, row, &report.name);
            }
            totals.anonymous_bytes += process
                .anonymous_share_bytes
                .unwrap_or(report.totals.anonymous_bytes);
            totals.page_table_bytes += report.totals.page_table_bytes;
            totals.swap_bytes += report.totals.swap_bytes;
            // What several processes have in common is said once.
            for note in &report.notes {
                if !notes.contains(note) {
                    notes.push(note.clone());
                }
            }
            processes.push(process_row(report, &files));
            for (key, file) in files {
                *users.entry(key).or_default() += 1;
                let pages = all.entry(key).or_insert_with(|| FilePages {
                    path: file.path.clone(),
                    ..FilePages::default()
                });
                pages.copied_bytes += file.copied_bytes;
                for (place, sets) in &file.places {
                    pages.places.entry(*place).or_default().extend(sets);
                }
            }
        }
        if seen.len() > 1 && seen.iter().any(|seen| seen.anonymous_share_bytes.is_none()) {
            notes.push(
                "this kernel does not tell which anonymous pages processes share since a fork (Pss_Anon, Linux 5.3), so \
                 these count once for each of them"
                    .to_owned(),
            );
        }
        for file in all.values() {
            totals.sources += Sources::from(file);
        }
        totals.session_memfd_bytes = around.memfds.iter().map(|fd| fd.allocated_bytes).sum();
        totals.server_bytes = around
            .server
            .map_or(0, |server| server.anonymous_bytes + server.page_table_bytes);
        totals.ram_alone_bytes = totals.anonymous_bytes
            + totals.page_table_bytes
            + totals.session_memfd_bytes
            + totals.server_bytes;
        totals.ram_with_cache_bytes = totals.ram_alone_bytes
            + totals.sources.cache_bytes()
            + around.server.map_or(0, |server| server.page_cache_bytes);
        let mut files: Vec<File> = all
            .iter()
            .map(|(key, file)| file_row(file, users.get(key).copied().unwrap_or(0)))
            .collect();
        files.sort_by(|one, other| one.file.cmp(&other.file));
        processes.sort_by_key(|process| process.pid);
        Self {
            pid: around.pid,
            image: around.image_path,
            file_system: around.view.file_system,
            device: around.view.device,
            processes,
            files,
            session_memfds: around.memfds,
            server: around.server,
            totals,
            notes,
        }
    }
}

fn process_row(report: &Report, files: &Files) -> Process {
    let mut sources = Sources::default();
    let mut uses = Vec::new();
    for file in files.values() {
        sources += file.mappings;
        uses.push(FileUse {
            file: file.path.clone(),
            sources: file.mappings,
            copied_bytes: file.copied_bytes,
        });
    }
    uses.sort_by(|one, other| one.file.cmp(&other.file));
    // Of old kernels only the report knows what was copied there.
    sources.flash.mapped_bytes = report.totals.flash_bytes;
    Process {
        pid: report.pid,
        name: report.name.clone(),
        sources,
        anonymous_bytes: report.totals.anonymous_bytes,
        page_table_bytes: report.totals.page_table_bytes,
        swap_bytes: report.totals.swap_bytes,
        files: uses,
    }
}

fn file_row(file: &FilePages, processes: u64) -> File {
    let sources = Sources::from(file);
    let reasons = file.places.iter().filter_map(|(place, sets)| match *place {
        Place::Not(reason) => Some(NotInPlace {
            reason,
            pages: sets.into(),
        }),
        Place::InPlace(_) => None,
    });
    File {
        file: file.path.clone(),
        processes,
        in_place: sources.in_place(),
        not_in_place: sources.not_in_place(),
        reasons: reasons.filter(|why| why.pages.mapped_bytes > 0).collect(),
        copied_bytes: file.copied_bytes,
    }
}
