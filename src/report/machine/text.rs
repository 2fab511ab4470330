//! Prints the processes in place as a table.

use std::fmt;

use super::{COLUMNS, Machine};
use crate::report::files;
use crate::report::table::{Cell, Head, Table};

/// What the columns mean, for `--help`.
pub fn columns() -> &'static str {
    "\
Columns of all processes in place (without PID), all in KiB:
  VSS       address space
  RSS       pages present in RAM; flash mapped by its physical pages is none
  PSS       the same, each page divided by the number of processes that map it
  USS       pages present in RAM that no other process maps
  FLASH     mapped in place from flash: no RAM
  CACHE     mapped in place from an image in the page cache or in tmpfs
  ANON      anonymous pages: what the process wrote to, bss, heap, stack
  TABLES    page tables
  STUB      its share of the session memfds: xip-run's own cost
What one more such process costs is ANON + TABLES + STUB. The page cache of an
image counts in RSS and PSS, as far as it was touched, and in USS where nobody
else maps it, though the kernel may drop it. Free RAM is MemFree and the pages in
the processors' lists (/proc/zoneinfo), before and after the processes were
looked at."
}

impl Machine {
    /// The processes, and if `with_totals` a last row with the sums.
    pub fn table(&self, with_totals: bool) -> Table {
        let head = |title, name| Head { title, name };
        let mut heads = vec![head("  PID", "pid")];
        heads.extend(COLUMNS.iter().map(|column| head(column.title, column.name)));
        heads.push(head("NAME", "name"));
        let figures = |sums| {
            COLUMNS
                .iter()
                .map(move |column| Cell::Bytes((column.of)(sums)))
        };
        let mut rows = Vec::new();
        for process in &self.processes {
            let mut row = vec![Cell::Number(process.pid.into())];
            row.extend(figures(&process.sums));
            row.push(Cell::Text(process.name.clone()));
            rows.push(row);
        }
        if with_totals {
            let mut row = vec![Cell::Empty];
            row.extend(figures(&self.totals));
            row.push(Cell::Text("all".to_owned()));
            rows.push(row);
        }
        Table { heads, rows }
    }

    /// For scripts: the files if these were asked for, else the processes.
    pub fn csv(&self) -> String {
        match &self.files {
            Some(files) => files::table(files, true).csv(),
            None => self.table(false).csv(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.files {
            _ if self.processes.is_empty() => writeln!(f, "no process runs in place")?,
            Some(files) => write!(f, "{}", files::table(files, false))?,
            None => write!(f, "{}", self.table(true))?,
        }
        writeln!(f)?;
        let sums = &self.totals;
        let own = sums.anonymous_bytes + sums.page_table_bytes + sums.stub_bytes;
        let line = |f: &mut fmt::Formatter<'_>, name: &str, bytes: u64| {
            writeln!(f, "{name:WIDTH$} {:>9} KiB", bytes / 1024)
        };
        if !self.processes.is_empty() {
            line(f, "their own: anonymous + page tables + stub", own)?;
        }
        if !self.servers.is_empty() {
            let servers = self.servers.iter();
            let bytes = servers.map(|server| server.anonymous_bytes + server.page_table_bytes);
            let name = format!("servers of views ({}): the same", self.servers.len());
            line(f, &name, bytes.sum())?;
        }
        line(
            f,
            "free RAM of the machine, before",
            self.memory_before.free_bytes,
        )?;
        line(
            f,
            "free RAM of the machine, after",
            self.memory_after.free_bytes,
        )?;
        line(f, "available RAM", self.memory_after.available_bytes)?;
        line(f, "all RAM", self.memory_after.total_bytes)?;
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

const WIDTH: usize = 43;
