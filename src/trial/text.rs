//! Prints a comparison.

use std::fmt;

use super::{Comparison, Trial};
use crate::report::table::{Cell, Head, Table};

/// A line of the table: what it is called, and what stands in it.
type Line = (&'static str, fn(&Trial, u64) -> u64);

const LINES: [Line; 12] = [
    ("each instance: anonymous", |trial, n| {
        trial.ram.anonymous_bytes / n
    }),
    ("each instance: page tables", |trial, n| {
        trial.ram.page_table_bytes / n
    }),
    ("each instance: session memfd (stub, copies)", |trial, n| {
        trial.ram.stub_bytes / n
    }),
    ("each instance: server of the view", |trial, n| {
        trial.ram.server_bytes / n
    }),
    ("each instance: RAM of its own", |trial, _| {
        trial.instance_bytes
    }),
    ("all: RAM of their own", |trial, _| trial.own_bytes),
    ("all: in place, flash: mapped", |trial, _| {
        trial.ram.flash_bytes
    }),
    ("all: in place, page cache: mapped", |trial, _| {
        trial.ram.image_cache_mapped_bytes
    }),
    ("all: in place, page cache: touched", |trial, _| {
        trial.ram.image_cache_bytes
    }),
    ("all: other page cache: touched", |trial, _| {
        trial.ram.other_cache_bytes
    }),
    ("all: RAM", |trial, _| trial.total_bytes),
    ("all: RAM if the image is in flash", |trial, _| {
        trial.if_in_flash_bytes
    }),
];

impl Comparison {
    /// The ways side by side.
    pub fn table(&self) -> Table {
        let head = |title, name| Head { title, name };
        let mut heads = vec![head("KiB", "")];
        heads.extend(self.trials.iter().map(|trial| head(trial.way.head(), "")));
        let rows = LINES.iter().filter_map(|(name, of)| {
            let figures: Vec<u64> = self
                .trials
                .iter()
                .map(|trial| of(trial, self.instances.max(1)))
                .collect();
            let is_rare = name.contains("server") || name.contains("flash: mapped");
            if is_rare && figures.iter().all(|&bytes| bytes == 0) {
                return None;
            }
            let mut row = vec![Cell::Text((*name).to_owned())];
            row.extend(figures.into_iter().map(Cell::Bytes));
            Some(row)
        });
        Table {
            rows: rows.collect(),
            heads,
        }
    }
}

impl Comparison {
    /// What is compared.
    pub fn title(&self) -> String {
        let instances = match self.instances {
            1 => "1 instance".to_owned(),
            many => format!("{many} instances"),
        };
        let root = if self.session {
            ", the image as root directory"
        } else {
            ""
        };
        format!(
            "{}: {instances} each, image {}{root}",
            self.command.join(" "),
            self.image
        )
    }

    /// What is saved, and for what; a line each.
    pub fn summary(&self) -> String {
        let mut lines = format!(
            "saved: {} KiB; {} KiB if the image is in flash\nflash: {} KiB for the files that run in place, {} KiB if they were \
             compressed\n",
            self.saved_bytes / 1024,
            self.saved_if_in_flash_bytes / 1024,
            self.flash.stored_bytes / 1024,
            self.flash.compressed_bytes / 1024
        );
        if let (Some(saved), per_more) = self.saved_per_flash_byte() {
            let more = per_more.map(|saved| format!("; per byte more than compressed: {saved:.2}"));
            lines += &format!(
                "saved per byte of flash: {saved:.2}{}\n",
                more.unwrap_or_default()
            );
        }
        for note in &self.notes {
            lines += &format!("note: {note}\n");
        }
        lines
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\n\n{}\n{}",
            self.title(),
            self.table(),
            self.summary()
        )
    }
}
