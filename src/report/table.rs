//! A table as data: printed for people in KiB, and as CSV in bytes.

use std::fmt::{self, Write as _};

/// A column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// What people read.
    pub title: &'static str,
    /// What scripts read: the name of the field in JSON.
    pub name: &'static str,
}

/// What stands in a column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cell {
    /// A length: KiB for people, bytes for scripts.
    Bytes(u64),
    /// A number.
    Number(u64),
    /// A name, safe to be printed; a column that has one is to the left, others to the right.
    Text(String),
    /// Nothing.
    Empty,
}

/// A table.
///
/// ```
/// use xip_run::report::table::{Cell, Head, Table};
/// let heads = vec![Head { title: "RSS", name: "rss_bytes" }, Head { title: "NAME", name: "name" }];
/// let rows = vec![vec![Cell::Bytes(2048), Cell::Text("a, b".to_owned())]];
/// let table = Table { heads, rows };
/// assert_eq!(table.to_string(), "RSS NAME\n  2 a, b\n");
/// assert_eq!(table.csv(), "rss_bytes,name\n2048,\"a, b\"\n");
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Table {
    /// The columns.
    pub heads: Vec<Head>,
    /// The rows, as long as the heads.
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Comma-separated values: RFC 4180, with line feeds alone.
    pub fn csv(&self) -> String {
        let mut out = String::new();
        let heads: Vec<_> = self.heads.iter().map(|head| quoted(head.name)).collect();
        _ = writeln!(out, "{}", heads.join(","));
        for row in &self.rows {
            let cells = row.iter().map(|cell| match cell {
                Cell::Bytes(value) | Cell::Number(value) => value.to_string(),
                Cell::Text(text) => quoted(text),
                Cell::Empty => String::new(),
            });
            let cells: Vec<_> = cells.collect();
            _ = writeln!(out, "{}", cells.join(","));
        }
        out
    }
}

fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| row.iter().map(shown).collect())
            .collect();
        let heads = self.heads.iter().map(|head| head.title.to_owned());
        let heads: Vec<String> = heads.collect();
        let width = |column: usize| {
            let cells = shown
                .iter()
                .chain([&heads])
                .filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let is_left = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.clone().any(|cell| matches!(cell, Cell::Text(_)))
        };
        let columns: Vec<(usize, bool)> = (0..heads.len())
            .map(|column| (width(column), is_left(column)))
            .collect();
        for row in [&heads].into_iter().chain(&shown) {
            let mut line = String::new();
            for (cell, &(width, is_left)) in row.iter().zip(&columns) {
                match is_left {
                    true => _ = write!(line, "{cell:width$} "),
                    false => _ = write!(line, "{cell:>width$} "),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn shown(cell: &Cell) -> String {
    match cell {
        Cell::Bytes(bytes) => (bytes / 1024).to_string(),
        Cell::Number(number) => number.to_string(),
        Cell::Text(text) => text.clone(),
        Cell::Empty => String::new(),
    }
}
