//! Prints why pages are in RAM.

use std::fmt;

use super::Reasons;
use crate::report::table::{Cell, Head, Table};

impl Reasons {
    /// The runs of pages.
    pub fn table(&self) -> Table {
        let head = |title, name| Head { title, name };
        let rows = self.runs.iter().map(|run| {
            vec![
                Cell::Text(format!("{:08x}-{:08x}", run.start, run.end)),
                Cell::Bytes(run.end - run.start),
                Cell::Bytes(run.ram_bytes),
                Cell::Text(run.reason.to_string()),
                Cell::Text(match run.offset_bytes {
                    Some(offset) => format!("{}@{offset:#x}", run.what),
                    None => run.what.clone(),
                }),
            ]
        });
        Table {
            heads: vec![
                head("ADDRESS", "address"),
                head("    SIZE", "bytes"),
                head("  IN RAM", "ram_bytes"),
                head("REASON", "reason"),
                head("WHAT", "what"),
            ],
            rows: rows.collect(),
        }
    }
}

impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} (pid {}): what is not in place, in KiB",
            self.name, self.pid
        )?;
        if !self.runs.is_empty() {
            writeln!(f, "\n{}", self.table())?;
        }
        writeln!(f, "    SIZE   IN RAM REASON: WAY OUT")?;
        for sum in &self.sums {
            let [bytes, ram] = [sum.bytes, sum.ram_bytes].map(|bytes| bytes / 1024);
            writeln!(f, "{bytes:8} {ram:8} {}: {}", sum.reason, sum.explain)?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}
