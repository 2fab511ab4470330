//! Adds up a session: processes and files, what is in place, and what RAM all of it costs, each page once.
//!
//! [`Session::new`] is a pure function of what was seen; [`Observer::observe_session`](crate::report::Observer) looks.

mod memfds;
mod observe;
pub mod server;
mod text;

use serde::Serialize;

use super::files::{File, FileSums, FileUse, Sources};
use super::mountinfo::RootMount;
use super::pages::{Files, View};
use super::process::OpenImage;
use super::summary::Report;
use crate::units::PageSize;

pub use super::files::{Seen, SeenMapping};
pub(super) use memfds::AllMemfds;
pub(super) use observe::{cost, find_server, root_view, see};
pub use text::columns as session_columns;

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
        let view = View {
            device: around.view.device,
            image: around.image.as_ref(),
        };
        let mut sums = FileSums::new(page);
        let mut notes = around.notes;
        let mut totals = SessionTotals::default();
        let mut processes = Vec::new();
        for process in seen {
            let report = &process.report;
            let files = sums.add(process, Some(view));
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
        }
        if seen.len() > 1 && seen.iter().any(|seen| seen.anonymous_share_bytes.is_none()) {
            notes.push(
                "this kernel does not tell which anonymous pages processes share since a fork (Pss_Anon, Linux 5.3), so \
                 these count once for each of them"
                    .to_owned(),
            );
        }
        totals.sources = sums.sources();
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
        processes.sort_by_key(|process| process.pid);
        Self {
            pid: around.pid,
            image: around.image_path.clone(),
            file_system: around.view.file_system,
            device: around.view.device,
            processes,
            files: sums.rows(|_| around.image_path.clone()),
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
