//! One HTML file with charts and tables, which needs nothing else: no network, no script.

use std::fmt::Write as _;

use super::svg::{Chart, STYLE, escape};
use crate::report::table::{Cell, Table};

/// A page in the making.
#[derive(Clone, Debug)]
pub struct Page {
    title: String,
    body: String,
}

impl Page {
    /// An empty one.
    pub fn new(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            body: String::new(),
        }
    }

    /// A paragraph.
    pub fn say(&mut self, text: &str) {
        _ = writeln!(self.body, "<p>{}</p>", escape(text));
    }

    /// A chart under its title.
    pub fn chart(&mut self, chart: &Chart) {
        _ = writeln!(
            self.body,
            "<figure><figcaption>{}</figcaption>\n{}</figure>",
            escape(chart.title()),
            chart.inline()
        );
    }

    /// A table; lengths in KiB.
    pub fn table(&mut self, table: &Table) {
        self.body.push_str("<div class=\"wide\"><table>\n<tr>");
        for (column, head) in table.heads.iter().enumerate() {
            let mut cells = table.rows.iter().filter_map(|row| row.get(column));
            let class = match cells.any(|cell| matches!(cell, Cell::Text(_))) {
                true => " class=\"name\"",
                false => "",
            };
            _ = write!(self.body, "<th{class}>{}</th>", escape(head.title.trim()));
        }
        self.body.push_str("</tr>\n");
        for row in &table.rows {
            self.body.push_str("<tr>");
            for cell in row {
                _ = match cell {
                    Cell::Bytes(bytes) => write!(self.body, "<td>{}</td>", bytes / 1024),
                    Cell::Number(number) => write!(self.body, "<td>{number}</td>"),
                    Cell::Text(text) => {
                        write!(self.body, "<td class=\"name\">{}</td>", escape(text))
                    }
                    Cell::Empty => write!(self.body, "<td></td>"),
                };
            }
            self.body.push_str("</tr>\n");
        }
        self.body.push_str("</table></div>\n");
    }

    /// All of it.
    pub fn html(&self) -> String {
        let title = escape(&self.title);
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
             <style>{STYLE}\n{LAYOUT}</style>\n<h1>{title}</h1>\n{}</html>\n",
            self.body
        )
    }
}

const LAYOUT: &str = "\
body,html{background:var(--paper);color:var(--ink)}html{font:15px/1.45 system-ui,sans-serif}\
body{max-width:62rem;margin:2rem auto;padding:0 1rem}h1{font-size:1.5rem;font-weight:600}\
figure{margin:1.6rem 0;break-inside:avoid}figcaption{font-weight:600;margin-bottom:.5rem}svg{width:100%;height:auto}\
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.85rem}\
th,td{text-align:right;padding:.15rem .6rem;border-bottom:1px solid var(--line);white-space:nowrap}\
th{color:var(--faint);font-weight:500}td.name,th.name{text-align:left}p{color:var(--faint)}\
@media print{body{max-width:none;margin:0}}";
