//! Processes as stacked bars of where their bytes are.

use super::svg::{Chart, WIDTH, size};
use crate::report::Machine;
use crate::report::machine::Sums;

/// A part of a bar: colour, name, and how long it is.
type Part = (&'static str, &'static str, fn(&Sums) -> u64);

/// From left to right: what is RAM first.
const PARTS: [Part; 6] = [
    ("anonymous", "anonymous", |sums| sums.anonymous_bytes),
    ("tables", "page tables", |sums| sums.page_table_bytes),
    ("stub", "stub", |sums| sums.stub_bytes),
    ("other", "share of other page cache", |sums| {
        sums.other_share_bytes
    }),
    ("cache", "share of the image's page cache", |sums| {
        sums.image_share_bytes
    }),
    ("in-place", "in place from flash: no RAM", |sums| {
        sums.flash_bytes
    }),
];
/// More processes are not shown one by one.
const MAX_BARS: usize = 60;

/// A bar for each process, and where a machine has many one for the rest of them.
pub fn chart(machine: &Machine) -> Chart {
    let mut chart = Chart::new("Where the bytes of each process are");
    let mut bars: Vec<(String, Sums)> = machine
        .processes
        .iter()
        .take(MAX_BARS)
        .map(|process| (format!("{} {}", process.pid, process.name), process.sums))
        .collect();
    let rest = machine.processes.get(MAX_BARS..).unwrap_or_default();
    if !rest.is_empty() {
        let mut sums = Sums::default();
        rest.iter().for_each(|process| sums.add(&process.sums));
        bars.push((format!("{} more", rest.len()), sums));
    }
    let len = |sums: &Sums| PARTS.iter().map(|(_, _, of)| of(sums)).sum::<u64>();
    let longest = bars
        .iter()
        .map(|(_, sums)| len(sums))
        .max()
        .unwrap_or(0)
        .max(1);
    let (left, right) = (150.0, 90.0);
    let scale = (f64::from(WIDTH) - left - right) / longest as f64;
    let mut y = 0.0;
    for (name, sums) in &bars {
        chart.text((left - 8.0, y + 14.0), "end", name);
        let mut x = left;
        for (colour, title, of) in PARTS {
            let bytes = of(sums);
            if bytes > 0 {
                let wide = bytes as f64 * scale;
                chart.rect(
                    (x, y),
                    (wide, 19.0),
                    colour,
                    &format!("{title}: {}", size(bytes)),
                );
                x += wide;
            }
        }
        chart.text(
            (x + 6.0, y + 14.0),
            "faint",
            &size(len(sums) - sums.flash_bytes),
        );
        y += 25.0;
    }
    let shown = PARTS
        .iter()
        .filter(|(_, _, of)| bars.iter().any(|(_, sums)| of(sums) > 0));
    let legend: Vec<(&str, String)> = shown
        .map(|(colour, title, _)| (*colour, (*title).to_owned()))
        .collect();
    chart.legend(y + 10.0, &legend);
    chart
}
