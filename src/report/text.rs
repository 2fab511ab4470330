//! Prints reports as text, in KiB.

use std::fmt::{self, Write as _};

use serde::Serialize;

use super::session_memfd::SessionMemfd;
use super::summary::{Counts, Report, Totals};
use super::table::{Cell, Head, Table};

/// What the columns mean, for `--help`.
pub fn columns() -> &'static str {
    "\
Columns of a process (PID), all in KiB:
  SIZE      address space (procrank: Vss)
  IN PLACE  of that, run in place: mapped from flash, or from an image in the
            page cache or in tmpfs, and not copied
  RSS       pages present in RAM (smem, procrank: RSS); flash mapped by its
            physical pages shows 0
  PSS       the same, each page divided by the number of processes that map it
  ANON      pages that exist in RAM only: heap, stack, bss, and private copies
            of file pages (copy on write)
  FROM      what stands behind it: flash, page cache of image (which the kernel
            may drop), image in tmpfs (RAM for good), page cache, anonymous, ...

The RAM that a process costs by itself is ANON, its page tables and, if xip-run
started it, its session memfd: the stub, its record and every page that was
copied, all of it RAM whether it is mapped or not, divided by the processes that
share it: those of its session (other users' are seen by root only). So the rows
of stub and copied pages are parts of the session memfd, not added to it. (With
the image as root directory there are two memfds, and no page is copied.)

The page cache is shared: PSS less ANON is this process's share of it. USS is not
shown here: it calls page cache the process's own that it merely maps alone."
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title())?;
        for image in &self.images {
            writeln!(f, "image {image}")?;
        }
        if !self.rows.is_empty() {
            let width = self
                .rows
                .iter()
                .map(|row| format!("{:08x}-{:08x}", row.start, row.end).len())
                .fold(7, usize::max);
            writeln!(f, "\n{:width$} PERM {HEAD} FROM / WHAT", "ADDRESS")?;
            for row in &self.rows {
                writeln!(
                    f,
                    "{:width$} {} {} {:20} {}",
                    format!("{:08x}-{:08x}", row.start, row.end),
                    row.perms,
                    numbers(&row.counts),
                    row.class.title(),
                    match row.path.as_str() {
                        name if row.program.is_none() && !name.is_empty() => name.to_owned(),
                        _ => label(row.program.as_deref(), row.part.title()),
                    },
                )?;
            }
        }
        writeln!(f, "\n{HEAD} FROM / PROGRAM, SEGMENT")?;
        for program in &self.programs {
            writeln!(
                f,
                "{} {:20} {}",
                numbers(&program.counts),
                program.class.title(),
                label(program.program.as_deref(), program.part.title()),
            )?;
        }
        writeln!(f)?;
        for (name, bytes) in lines(&self.totals) {
            if bytes > 0 || !is_rare(name) {
                writeln!(f, "{name:WIDTH$} {:>9} KiB", bytes / 1024)?;
            }
        }
        writeln!(
            f,
            "RAM this process costs by itself: {} KiB (anonymous + page tables{})",
            self.totals.ram_alone_bytes / 1024,
            match self.totals.session_memfd {
                Some(SessionMemfd { sharers: 2.., .. }) => " + its share of the session memfd",
                Some(_) => " + session memfd",
                None => "",
            }
        )?;
        writeln!(
            f,
            "RAM with its share of the page cache: {} KiB",
            self.totals.ram_with_share_bytes / 1024
        )?;
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

impl Report {
    fn title(&self) -> String {
        format!("{} (pid {}), {}", self.name, self.pid, self.mode())
    }

    /// How it runs, in one or two words: a column's title.
    fn short_mode(&self) -> &'static str {
        let totals = &self.totals;
        match (totals.in_place_bytes() > 0, totals.started_by_xip_run()) {
            (true, _) if totals.copied.mapped_bytes > 0 => "partly",
            (true, _) => "in place",
            (false, true) if totals.copied.mapped_bytes > 0 => "copied",
            (false, true) => "from view",
            (false, false) => "native",
        }
    }

    /// How it runs, and from what.
    fn mode(&self) -> String {
        let totals = &self.totals;
        let from: Vec<&str> = [
            (totals.flash_bytes, "flash"),
            (totals.image_cache.mapped_bytes, "page cache"),
            (totals.image_tmpfs.mapped_bytes, "tmpfs (RAM)"),
        ]
        .iter()
        .filter(|(bytes, _)| *bytes > 0)
        .map(|&(_, name)| name)
        .collect();
        let from = from.join(" and ");
        match self.short_mode() {
            "partly" => format!(
                "partly in place from {from} ({} KiB), partly copied to RAM ({} KiB)",
                totals.in_place_bytes() / 1024,
                totals.copied.mapped_bytes / 1024
            ),
            "in place" => format!("in place from {from}"),
            "copied" => "started by xip-run, all of it copied to RAM".to_owned(),
            "from view" => "started by xip-run, nothing of it in place".to_owned(),
            native => native.to_owned(),
        }
    }
}

const WIDTH: usize = 43;

const HEAD: &str = "    SIZE IN PLACE      RSS      PSS     ANON";

fn numbers(counts: &Counts) -> String {
    [
        counts.size_bytes,
        counts.in_place_bytes,
        counts.rss_bytes,
        counts.pss_bytes,
        counts.anonymous_bytes,
    ]
    .map(|bytes| format!("{:8}", bytes / 1024))
    .join(" ")
}

fn label(program: Option<&str>, part: &str) -> String {
    match program {
        Some(program) => format!("{program} {part}"),
        None => part.to_owned(),
    }
}

/// The totals, line by line.
fn lines(totals: &Totals) -> [(&'static str, u64); 20] {
    let memfd = totals.session_memfd;
    // A share of what the session memfd's own share has in it is shown only where that is not known.
    let unless_in_memfd = |share: u64| if memfd.is_some() { 0 } else { share };
    [
        ("in place, flash: mapped", totals.flash_bytes),
        (
            "in place, page cache: mapped",
            totals.image_cache.mapped_bytes,
        ),
        (
            "in place, page cache: resident",
            totals.image_cache.resident_bytes,
        ),
        (
            "in place, page cache: this process's share",
            totals.image_cache.share_bytes,
        ),
        (
            "in place, tmpfs (RAM): mapped",
            totals.image_tmpfs.mapped_bytes,
        ),
        (
            "in place, tmpfs (RAM): resident",
            totals.image_tmpfs.resident_bytes,
        ),
        (
            "in place, tmpfs (RAM): this process's share",
            totals.image_tmpfs.share_bytes,
        ),
        ("other page cache: mapped", totals.file_cache.mapped_bytes),
        (
            "other page cache: resident",
            totals.file_cache.resident_bytes,
        ),
        (
            "other page cache: this process's share",
            totals.file_cache.share_bytes,
        ),
        ("copied pages: resident", totals.copied.resident_bytes),
        (
            "copied pages: this process's share",
            unless_in_memfd(totals.copied.share_bytes),
        ),
        ("stub: resident", totals.stub.resident_bytes),
        (
            "stub: this process's share",
            unless_in_memfd(totals.stub.share_bytes),
        ),
        (
            "session memfd: allocated",
            memfd.map_or(0, |memfd| memfd.allocated_bytes),
        ),
        (
            "session memfd: this process's share",
            memfd.map_or(0, |memfd| memfd.share_bytes),
        ),
        (
            "shared memory: this process's share",
            totals.shared_memory.share_bytes,
        ),
        ("swapped out", totals.swap_bytes),
        ("anonymous", totals.anonymous_bytes),
        ("page tables", totals.page_table_bytes),
    ]
}

/// Lines that are left out where they are 0.
fn is_rare(name: &str) -> bool {
    [
        "in place, tmpfs",
        "copied",
        "stub",
        "session",
        "shared",
        "swapped",
    ]
    .iter()
    .any(|start| name.starts_with(start))
}

/// What a name of a list is in JSON.
fn json_name(value: impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

/// The mappings of processes, for scripts.
pub fn csv(reports: &[Report]) -> String {
    let head = |name| Head { title: "", name };
    let heads = [
        "pid",
        "start",
        "end",
        "perms",
        "class",
        "program",
        "part",
        "size_bytes",
        "in_place_bytes",
        "rss_bytes",
        "pss_bytes",
        "uss_bytes",
        "anonymous_bytes",
        "swap_bytes",
        "path",
    ];
    let mut table = Table {
        heads: heads.map(head).to_vec(),
        rows: Vec::new(),
    };
    for report in reports {
        for row in &report.rows {
            let counts = &row.counts;
            let names = [
                format!("{:#x}", row.start),
                format!("{:#x}", row.end),
                row.perms.clone(),
                json_name(row.class),
                row.program.clone().unwrap_or_default(),
                json_name(row.part),
            ];
            let figures = [
                counts.size_bytes,
                counts.in_place_bytes,
                counts.rss_bytes,
                counts.pss_bytes,
                counts.uss_bytes,
                counts.anonymous_bytes,
                counts.swap_bytes,
            ];
            let mut cells = vec![Cell::Number(report.pid.into())];
            cells.extend(names.map(Cell::Text));
            cells.extend(figures.map(Cell::Bytes));
            cells.push(Cell::Text(row.path.clone()));
            table.rows.push(cells);
        }
    }
    table.csv()
}

/// The totals of several processes side by side, one column each; of two also what the second has more.
pub fn compare(reports: &[Report]) -> String {
    let titles: Vec<String> = (1..)
        .zip(reports)
        .map(|(number, report)| format!("[{number}] {}", report.short_mode()))
        .collect();
    let mut out = String::new();
    for (number, report) in (1..).zip(reports) {
        _ = writeln!(out, "[{number}] {}", report.title());
    }
    _ = write!(out, "\n{:WIDTH$}", "KiB");
    for title in &titles {
        _ = write!(out, " {title:>12}");
    }
    let two = reports.len() == 2;
    out.push_str(if two { "   difference\n" } else { "\n" });
    let columns: Vec<Vec<(&str, u64)>> = reports
        .iter()
        .map(|report| {
            let mut column = lines(&report.totals).to_vec();
            column.push(("RAM it costs by itself", report.totals.ram_alone_bytes));
            column.push((
                "RAM with its share of the page cache",
                report.totals.ram_with_share_bytes,
            ));
            column
        })
        .collect();
    let names = columns.first().map(Vec::as_slice).unwrap_or_default();
    for (at, (name, _)) in names.iter().enumerate() {
        let values: Vec<u64> = columns
            .iter()
            .filter_map(|column| column.get(at))
            .map(|(_, bytes)| bytes / 1024)
            .collect();
        if is_rare(name) && values.iter().all(|&kib| kib == 0) {
            continue;
        }
        _ = write!(out, "{name:WIDTH$}");
        for kib in &values {
            _ = write!(out, " {kib:>12}");
        }
        if let ([first, second], true) = (values.as_slice(), two) {
            let difference = i128::from(*second) - i128::from(*first);
            _ = write!(out, " {difference:>+12}");
        }
        out.push('\n');
    }
    for (title, report) in titles.iter().zip(reports) {
        for note in &report.notes {
            _ = writeln!(out, "note on {title}: {note}");
        }
    }
    out
}
