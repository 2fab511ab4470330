//! An image as a strip of pages: what is in each, and how often it was touched.

use std::collections::HashSet;
use std::fmt::Write as _;

use super::svg::{Chart, WIDTH, size};
use crate::cramfs::regions::RegionKind;
use crate::cramfs::{Block, Image, InodeKind, PointerBudget, show_name};
use crate::error::Result;
use crate::index::FileIndex;
use crate::inspect;
use crate::trace::Trace;
use crate::units::{BLOCK_BYTES, PageSize};

/// What most of a page of the image is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// Can be mapped: runs in place.
    InPlace,
    /// Stored as it is, but not so that it can be mapped.
    Stored,
    /// Compressed.
    Compressed,
    /// Superblock, directories, block pointers.
    Metadata,
    /// Nobody's.
    Padding,
}

impl Content {
    /// All of them, in the order of the legend.
    pub const ALL: [Self; 5] = [
        Self::InPlace,
        Self::Stored,
        Self::Compressed,
        Self::Metadata,
        Self::Padding,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::InPlace => "in place",
            Self::Stored => "stored, not mappable",
            Self::Compressed => "compressed",
            Self::Metadata => "metadata",
            Self::Padding => "padding",
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Self::InPlace => "in-place",
            Self::Stored => "stored",
            Self::Compressed => "compressed",
            Self::Metadata => "metadata",
            Self::Padding => "padding",
        }
    }

    fn letter(self) -> char {
        match self {
            Self::InPlace => '#',
            Self::Stored => 's',
            Self::Compressed => 'c',
            Self::Metadata => 'm',
            Self::Padding => '.',
        }
    }
}

/// A page of the image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StripPage {
    /// What most of it is.
    pub content: Content,
    /// The first file in it.
    pub path: Option<usize>,
    /// How often it was touched.
    pub heat: u64,
}

/// An image, page by page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Strip {
    /// The image's name.
    pub name: String,
    /// The page size of the kernel that it is for.
    pub page: PageSize,
    /// Its pages.
    pub pages: Vec<StripPage>,
    /// What touching was counted by: runs, or processes; `None` if it was not.
    pub heat: Option<(u64, &'static str)>,
    paths: Vec<String>,
}

impl Strip {
    /// Looks at an image, for a kernel with pages of this size. `touched` and what its runs are: `("runs")`.
    ///
    /// # Errors
    /// As [`inspect::map`].
    pub fn new(
        name: &str,
        image: &Image,
        page: PageSize,
        touched: Option<(&Trace, &'static str)>,
    ) -> Result<Self> {
        let map = inspect::map(image)?;
        let count = page.count(image.limit_bytes()) as usize;
        let empty = StripPage {
            content: Content::Padding,
            path: None,
            heat: 0,
        };
        let mut strip = Self {
            name: name.to_owned(),
            page,
            pages: vec![empty; count],
            heat: touched.map(|(trace, what)| (trace.runs, what)),
            paths: Vec::new(),
        };
        // Bytes of each page by what they are; the larger part gives its name.
        let mut most = vec![0_u64; count];
        // An honest image's regions do not overlap: together they touch each page once, and once more for each region that
        // begins within one. What a hostile image claims beyond that is not looked at.
        let mut left_pages = (count + map.regions.len()) as u64;
        for region in &map.regions {
            let content = match region.kind {
                RegionKind::Stored => Content::Stored,
                RegionKind::Compressed => Content::Compressed,
                RegionKind::Unused => Content::Padding,
                _ => Content::Metadata,
            };
            let path = region.path.as_ref().map(|path| {
                strip.paths.push(path.to_string());
                strip.paths.len() - 1
            });
            let first = region.start / page.bytes();
            let end = page.count(region.end).min(count as u64);
            let touches = end.saturating_sub(first);
            let Some(left) = left_pages.checked_sub(touches) else {
                continue;
            };
            left_pages = left;
            for number in first..end {
                let start = region.start.max(number * page.bytes());
                let end = region.end.min((number + 1) * page.bytes());
                if let (Some(most), Some(shown)) = (
                    most.get_mut(number as usize),
                    strip.pages.get_mut(number as usize),
                ) && end - start > *most
                {
                    *most = end - start;
                    (shown.content, shown.path) = (content, path);
                }
            }
        }
        strip.files(image, touched.map(|(trace, _)| trace));
        Ok(strip)
    }

    /// Marks what can be mapped, and what was touched. What is damaged is left as it is.
    fn files(&mut self, image: &Image, touched: Option<&Trace>) {
        let mut pointers = PointerBudget::new(image);
        let mut seen = HashSet::new();
        for found in image.walk().flatten() {
            let inode = found.inode;
            if inode.kind != InodeKind::File || inode.size == 0 {
                continue;
            }
            // Different files have different pointers; those of one file are looked at again only where it was touched.
            let is_touched = touched.is_some_and(|trace| trace.files.contains_key(&found.path));
            if !seen.insert(inode.data) && !is_touched {
                continue;
            }
            let may_look = match is_touched {
                true => pointers.covers(&inode),
                false => pointers.take(&inode),
            };
            if !may_look {
                continue;
            }
            let page_bytes = self.page.bytes();
            let index = FileIndex::new(image, &inode, self.page);
            for run in index.iter().flat_map(FileIndex::runs) {
                let Ok(at) = run.state else { continue };
                let first = (at.0 / page_bytes) as usize;
                let pages = self.pages.iter_mut().skip(first).take(run.pages as usize);
                pages.for_each(|page| page.content = Content::InPlace);
            }
            let Some((trace, pages)) =
                touched.and_then(|trace| Some((trace, trace.files.get(&found.path)?)))
            else {
                continue;
            };
            let Ok(blocks) = image.blocks(&inode) else {
                continue;
            };
            let per_page = trace.page.bytes() / BLOCK_BYTES;
            for (&number, &runs) in pages {
                let blocks = blocks
                    .iter()
                    .skip((number * per_page) as usize)
                    .take(per_page as usize);
                for block in blocks {
                    let (Block::Stored { at, .. } | Block::Compressed { at, .. }) = block else {
                        continue;
                    };
                    if let Some(page) = self.pages.get_mut((at.0 / page_bytes) as usize) {
                        page.heat = page.heat.max(runs);
                    }
                }
            }
        }
    }

    /// How many pages are of each content.
    pub fn count(&self, content: Content) -> usize {
        self.pages
            .iter()
            .filter(|page| page.content == content)
            .count()
    }

    /// The strip in characters, so many in a line at most.
    pub fn text(&self, columns: usize) -> String {
        let cells = self.cells(columns.max(8) * 32);
        let mut out = String::new();
        let scale = self.pages.len().div_ceil(cells.len().max(1)) as u64;
        let of = match scale {
            0 | 1 => String::new(),
            pages => format!(", {pages} pages a character"),
        };
        _ = writeln!(
            out,
            "{}: {} pages of {}{of}",
            self.name,
            self.pages.len(),
            self.page
        );
        for line in cells.chunks(columns.max(8)) {
            let letters = line.iter().map(|cell| match cell.heat {
                0 => cell.content.letter(),
                _ => cell.content.letter().to_ascii_uppercase(),
            });
            _ = writeln!(out, "{}", letters.collect::<String>());
            if self.heat.is_some() {
                let heat = line.iter().map(|cell| match cell.heat {
                    0 => ' ',
                    1..=9 => char::from(b'0' + cell.heat as u8),
                    _ => '+',
                });
                _ = writeln!(out, "{}", heat.collect::<String>().trim_end());
            }
        }
        let legend = Content::ALL.map(|content| {
            format!(
                "{} {} ({})",
                content.letter(),
                content.title(),
                self.count(content)
            )
        });
        _ = writeln!(out, "{}", legend.join(", "));
        if let Some((runs, what)) = self.heat {
            _ = writeln!(out, "below each line: how many of {runs} {what} touched it");
        }
        out
    }

    /// Pages in groups, `limit` groups at most: each is what most of its pages are, and as hot as its hottest.
    fn cells(&self, limit: usize) -> Vec<StripPage> {
        let scale = self.pages.len().div_ceil(limit.max(1)).max(1);
        let groups = self.pages.chunks(scale).map(|group| {
            let count = |content| group.iter().filter(|page| page.content == content).count();
            let content = Content::ALL
                .into_iter()
                .rev()
                .max_by_key(|&content| count(content));
            let first = group.iter().find(|page| Some(page.content) == content);
            StripPage {
                content: content.unwrap_or(Content::Padding),
                path: first.and_then(|page| page.path),
                heat: group.iter().map(|page| page.heat).max().unwrap_or(0),
            }
        });
        groups.collect()
    }

    /// The strip as a chart.
    pub fn chart(&self) -> Chart {
        let mut chart = Chart::new(&format!(
            "What is in {}: {}",
            self.name,
            size(self.pages.len() as u64 * self.page.bytes())
        ));
        // Small images have large pages.
        let across = match self.pages.len() {
            0..3072 => 48,
            _ => 96,
        };
        let cells = self.cells(across * 160);
        let side = f64::from(WIDTH) / across as f64;
        let scale = self.pages.len().div_ceil(cells.len().max(1)).max(1) as u64;
        let mut y = 0.0;
        for (row, line) in cells.chunks(across).enumerate() {
            let mut at = 0;
            for alike in
                line.chunk_by(|one, other| (one.content, one.path) == (other.content, other.path))
            {
                let Some(first) = alike.first() else { continue };
                let offset = ((row * across + at) as u64) * scale * self.page.bytes();
                let path = first.path.and_then(|path| self.paths.get(path));
                let path = path.map_or(String::new(), |path| {
                    format!(", {}", show_name(path.as_bytes()))
                });
                let bytes = alike.len() as u64 * scale * self.page.bytes();
                let tip = format!(
                    "{offset:#x}: {}, {}{path}",
                    first.content.title(),
                    size(bytes)
                );
                let place = (at as f64 * side, y);
                chart.rect(
                    place,
                    (alike.len() as f64 * side - 0.8, side - 3.0),
                    first.content.colour(),
                    &tip,
                );
                at += alike.len();
            }
            if let Some((runs, what)) = self.heat {
                for (at, cell) in line.iter().enumerate().filter(|(_, cell)| cell.heat > 0) {
                    let part = (cell.heat as f64 / runs.max(1) as f64).clamp(0.2, 1.0);
                    let high = (side - 5.0) * part;
                    let place = (at as f64 * side + side * 0.28, y + side - 4.0 - high);
                    chart.rect(
                        place,
                        (side * 0.4, high),
                        "hot",
                        &format!("touched by {} of {runs} {what}", cell.heat),
                    );
                }
            }
            y += side;
        }
        let mut legend: Vec<(&str, String)> = Content::ALL
            .into_iter()
            .filter(|&content| self.count(content) > 0)
            .map(|content| {
                let bytes = self.count(content) as u64 * self.page.bytes();
                (
                    content.colour(),
                    format!("{} ({})", content.title(), size(bytes)),
                )
            })
            .collect();
        if let Some((runs, what)) = self.heat {
            let touched = self.pages.iter().filter(|page| page.heat > 0).count() as u64;
            let bytes = size(touched * self.page.bytes());
            legend.push((
                "hot",
                format!("touched by {runs} {what} ({bytes}); higher: by more of them"),
            ));
        }
        chart.legend(y + 10.0, &legend);
        chart
    }
}
