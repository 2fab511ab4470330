//! Prints a comparison.

use std::fmt;

use super::Comparison;
use super::figures::FIGURES;
use crate::report::table::{Cell, Head, Table};

impl Comparison {
    /// The ways side by side.
    pub fn table(&self) -> Table {
        let head = |title, name| Head { title, name };
        let mut heads = vec![head("KiB", "")];
        heads.extend(self.trials.iter().map(|trial| head(trial.way.head(), "")));
        let rows = FIGURES.iter().filter_map(|figure| {
            let trials = self.trials.iter();
            let bytes: Vec<u64> = trials
                .map(|trial| figure.bytes(trial, self.instances))
                .collect();
            if figure.rare && bytes.iter().all(|&bytes| bytes == 0) {
                return None;
            }
            let mut row = vec![Cell::Text(figure.name())];
            row.extend(bytes.into_iter().map(Cell::Bytes));
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
