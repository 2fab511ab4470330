//! Prints a session as text, in KiB.

use std::fmt;

use super::{Process, Session};
use crate::report::files::{self, Sources};

/// What the columns mean, for `--help`.
pub fn columns() -> &'static str {
    "\
Columns of a session (--session), all in KiB. What is touched is in the page
tables of a process:
  IN PLACE  mapped in place, from flash or from the image in RAM
  TOUCHED   touched of that: RAM, unless it is flash
  VIEW      touched of what is mapped from the view of the image instead: page
            cache, beside the image's own
  OTHER     touched of the host's files, of shared memory, and of pages that the
            launcher copied
  ANON      anonymous memory; of a file, private copies of its pages
  TABLES    page tables
and in its table of files, where each page counts once:
  PROCS     processes that map the file
  NOT       mapped, but not in place, for the reasons that follow the file's name:
            compressed, hole, not-consecutive, misaligned, shared-last-page,
            beyond-image, beyond-file (xip-run --explain explains them);
            writable: private, and meant to be written to;
            through-view: could be in place, but is mapped from the view;
            copied by the launcher; host: a file of the host; shared-memory;
            unknown: the image was not found
  TOUCHED   touched of that

The RAM that a session costs by itself is its anonymous memory (pages that are
shared since a fork once), page tables, session memfds, and the server of its
view. Page cache and shared memory that it has touched come on top, each page
once. Memory that the kernel keeps for inodes, descriptors and the like is not
counted."
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title())?;
        writeln!(f, "\n{PROCESS_HEAD}")?;
        for process in &self.processes {
            let numbers = numbers(
                &process.sources,
                process.anonymous_bytes,
                Some(process.page_table_bytes),
            );
            writeln!(f, "{numbers} {} {}", process.pid, process.name)?;
            for file in &process.files {
                let numbers = self::numbers(&file.sources, file.copied_bytes, None);
                writeln!(f, "{numbers}   {}", file.file)?;
            }
        }
        if self.processes.len() > 1 {
            writeln!(f, "{} all", sum(&self.processes))?;
        }
        writeln!(f, "\n{}", files::table(&self.files, false))?;
        for (name, bytes, is_rare) in self.lines() {
            if bytes > 0 || !is_rare {
                writeln!(f, "{name:WIDTH$} {:>9} KiB", bytes / 1024)?;
            }
        }
        let server = self.server.map_or("", |_| " + server");
        writeln!(
            f,
            "RAM this session costs by itself: {} KiB (anonymous + page tables + session memfds{server})",
            self.totals.ram_alone_bytes / 1024
        )?;
        writeln!(
            f,
            "RAM with the page cache that it has touched: {} KiB",
            self.totals.ram_with_cache_bytes / 1024
        )?;
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

impl Session {
    /// Its files, for scripts.
    pub fn csv(&self) -> String {
        files::table(&self.files, true).csv()
    }

    fn title(&self) -> String {
        let count = self.processes.len();
        let processes = if count == 1 { "process" } else { "processes" };
        let image = self.image.as_deref().unwrap_or("an unknown image");
        let (major, minor) = self.device;
        let server = match self.server {
            Some(server) => format!("served by pid {}", server.pid),
            None if self.file_system.starts_with("fuse") => "server not found".to_owned(),
            None => "no server".to_owned(),
        };
        format!(
            "session of pid {}: {count} {processes}, root {image} ({}, device {major}:{minor}, {server})",
            self.pid, self.file_system
        )
    }

    /// The totals, line by line, and whether a line is left out where it is 0.
    fn lines(&self) -> Vec<(String, u64, bool)> {
        let totals = &self.totals;
        let sources = &totals.sources;
        let line = |name: &str, bytes, is_rare| (name.to_owned(), bytes, is_rare);
        let mut lines = vec![
            line("in place, flash: mapped", sources.flash.mapped_bytes, false),
            line(
                "in place, page cache: touched",
                sources.image_cache.touched_bytes,
                false,
            ),
            line(
                "in place, tmpfs (RAM): touched",
                sources.image_tmpfs.touched_bytes,
                true,
            ),
            line(
                "page cache of the view: touched",
                sources.view.touched_bytes,
                false,
            ),
            line(
                "page cache of the host's files: touched",
                sources.host.touched_bytes,
                false,
            ),
            line(
                "shared memory: touched",
                sources.shared_memory.touched_bytes,
                true,
            ),
            line("swapped out", totals.swap_bytes, true),
            line("anonymous", totals.anonymous_bytes, false),
            line("page tables", totals.page_table_bytes, false),
            line(
                &format!("session memfds ({}): allocated", self.session_memfds.len()),
                totals.session_memfd_bytes,
                true,
            ),
        ];
        if let Some(server) = &self.server {
            lines.push(line(
                "server: anonymous and page tables",
                totals.server_bytes,
                false,
            ));
            lines.push(line(
                "server: page cache of its program",
                server.page_cache_bytes,
                false,
            ));
        }
        lines
    }
}

const WIDTH: usize = 43;
const PROCESS_HEAD: &str =
    "IN PLACE  TOUCHED     VIEW    OTHER     ANON   TABLES PROCESS, ITS FILES";

fn numbers(sources: &Sources, anonymous: u64, tables: Option<u64>) -> String {
    let in_place = sources.in_place();
    let view = sources.view.touched_bytes;
    let other = sources.not_in_place().touched_bytes - view;
    let mut shown: Vec<String> = [
        in_place.mapped_bytes,
        in_place.touched_bytes,
        view,
        other,
        anonymous,
    ]
    .iter()
    .map(|&bytes| kib(bytes))
    .collect();
    shown.push(tables.map_or(format!("{:8}", ""), kib));
    shown.join(" ")
}

fn sum(processes: &[Process]) -> String {
    let mut sources = Sources::default();
    let (mut anonymous, mut tables) = (0, 0);
    for process in processes {
        sources += process.sources;
        anonymous += process.anonymous_bytes;
        tables += process.page_table_bytes;
    }
    numbers(&sources, anonymous, Some(tables))
}

fn kib(bytes: u64) -> String {
    format!("{:8}", bytes / 1024)
}
