//! The files that processes map: how much of each is in place, how much is not and why, each page once however many
//! processes map it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::iter::Sum;
use std::ops::AddAssign;
use std::sync::Arc;

use serde::Serialize;

use super::classify::{Class, MappedFile};
use super::image_files::ImageFiles;
use super::pagemap::PageRun;
use super::pages::{FilePages, Files, Finder, Key, PageSets, Place, View, Why};
use super::smaps::Mapping;
use super::summary::Report;
use super::table::{Cell, Head, Table};
use crate::units::PageSize;

/// Pages of files that are mapped; in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Pages {
    /// Mapped, without private copies.
    pub mapped_bytes: u64,
    /// Of these, in the page tables of a process: touched.
    pub touched_bytes: u64,
}

impl AddAssign for Pages {
    fn add_assign(&mut self, more: Self) {
        self.mapped_bytes += more.mapped_bytes;
        self.touched_bytes += more.touched_bytes;
    }
}

impl Sum for Pages {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, pages| {
            sum += pages;
            sum
        })
    }
}

impl From<&PageSets> for Pages {
    fn from(sets: &PageSets) -> Self {
        Self {
            mapped_bytes: sets.mapped.len_bytes(),
            touched_bytes: sets.touched.len_bytes(),
        }
    }
}

/// Pages of files by where they come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Sources {
    /// Flash, DAX included: no RAM.
    pub flash: Pages,
    /// An image in the page cache.
    pub image_cache: Pages,
    /// An image in tmpfs or ramfs.
    pub image_tmpfs: Pages,
    /// The view: page cache.
    pub view: Pages,
    /// Other files: page cache.
    pub host: Pages,
    /// Shared memory.
    pub shared_memory: Pages,
    /// Pages that the launcher copied into a session memfd.
    pub copied: Pages,
}

impl Sources {
    /// All that is in place.
    pub fn in_place(&self) -> Pages {
        [self.flash, self.image_cache, self.image_tmpfs]
            .into_iter()
            .sum()
    }

    /// All that is not.
    pub fn not_in_place(&self) -> Pages {
        [self.view, self.host, self.shared_memory, self.copied]
            .into_iter()
            .sum()
    }

    pub(super) fn of(&mut self, place: Place) -> &mut Pages {
        match place {
            Place::InPlace(Class::ImageCache) => &mut self.image_cache,
            Place::InPlace(Class::ImageTmpfs) => &mut self.image_tmpfs,
            Place::InPlace(_) => &mut self.flash,
            Place::Not(Why::Host) => &mut self.host,
            Place::Not(Why::SharedMemory) => &mut self.shared_memory,
            Place::Not(Why::Copied) => &mut self.copied,
            Place::Not(_) => &mut self.view,
        }
    }

    /// RAM of it that is in no session memfd, bytes.
    pub(super) fn cache_bytes(&self) -> u64 {
        let all = [
            self.image_cache,
            self.image_tmpfs,
            self.view,
            self.host,
            self.shared_memory,
        ];
        all.into_iter().sum::<Pages>().touched_bytes
    }
}

impl From<&FilePages> for Sources {
    /// Each page of the file once; one that is mapped from the view for several reasons is one page.
    fn from(file: &FilePages) -> Self {
        let mut sources = Self::default();
        let mut of_view = PageSets::default();
        for (&place, sets) in &file.places {
            match place {
                Place::Not(Why::Index(_) | Why::Writable | Why::ThroughView | Why::Unknown) => {
                    of_view.extend(sets);
                }
                _ => *sources.of(place) += sets.into(),
            }
        }
        sources.view = (&of_view).into();
        sources
    }
}

impl AddAssign for Sources {
    fn add_assign(&mut self, more: Self) {
        self.flash += more.flash;
        self.image_cache += more.image_cache;
        self.image_tmpfs += more.image_tmpfs;
        self.view += more.view;
        self.host += more.host;
        self.shared_memory += more.shared_memory;
        self.copied += more.copied;
    }
}

/// A mapping of a process, the file behind it if it could be opened, and its pages; no pages stand for untouched ones.
#[derive(Clone, Debug)]
pub struct SeenMapping {
    /// What smaps says.
    pub mapping: Mapping,
    /// What its file is.
    pub file: Option<MappedFile>,
    /// What pagemap says.
    pub runs: Vec<PageRun>,
}

/// A process of a session, as it was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its report.
    pub report: Report,
    /// One for every row of the report.
    pub mappings: Vec<SeenMapping>,
    /// Its anonymous memory, each page divided by the number of processes that share it since a fork (`Pss_Anon` of
    /// smaps_rollup, Linux 5.3), bytes; `None` if the kernel does not tell.
    pub anonymous_share_bytes: Option<u64>,
}

impl Seen {
    /// A process of whose pages nothing is known.
    pub(super) fn unseen(report: Report) -> Self {
        Self {
            report,
            mappings: Vec::new(),
            anonymous_share_bytes: None,
        }
    }
}

/// A file that a process maps; a page that it maps twice counts twice, as in smaps.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FileUse {
    /// Its path: in the image, if it is there.
    pub file: String,
    /// Its pages, by where they come from.
    #[serde(flatten)]
    pub sources: Sources,
    /// Private copies of its pages, bytes: part of the anonymous memory.
    pub copied_bytes: u64,
}

/// Pages that are not in place for the same reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct NotInPlace {
    /// The reason.
    pub reason: Why,
    /// How many, each once.
    #[serde(flatten)]
    pub pages: Pages,
}

/// A file that a session maps; each page counts once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct File {
    /// Its path: in the image, if it is there.
    pub file: String,
    /// The image's path; `None` for a file of none.
    pub image: Option<String>,
    /// Processes that map it.
    pub processes: u64,
    /// In place.
    pub in_place: Pages,
    /// Not in place.
    pub not_in_place: Pages,
    /// The same by reason; a page that is mapped in two ways may have two.
    pub reasons: Vec<NotInPlace>,
    /// Private copies of its pages in all processes, bytes: part of their anonymous memory.
    pub copied_bytes: u64,
}

/// The files of several processes, while these are looked at one after the other.
pub(super) struct FileSums<'a> {
    page: PageSize,
    finder: Finder<'a>,
    all: Files,
    users: HashMap<Key, u64>,
    /// How many processes have touched the image's own page, by file and number.
    touched: HashMap<Key, BTreeMap<u64, u64>>,
}

impl<'a> FileSums<'a> {
    pub(super) fn new(page: PageSize) -> Self {
        Self {
            page,
            finder: Finder::new(page),
            all: Files::new(),
            users: HashMap::new(),
            touched: HashMap::new(),
        }
    }

    /// How many processes have touched each page in place of an image's files, by their paths.
    pub(super) fn touched(&self, files: &Arc<ImageFiles>) -> BTreeMap<Vec<u8>, BTreeMap<u64, u64>> {
        let Some(number) = self.finder.known_number(files) else {
            return BTreeMap::new();
        };
        let of_image = self.touched.iter().filter_map(|(key, pages)| match *key {
            Key::InImage(image, file) if image == number => {
                Some((files.path(file, b""), pages.clone()))
            }
            _ => None,
        });
        of_image.collect()
    }

    /// Adds those of a process that has `view` as its root directory; they are returned as well.
    pub(super) fn add(&mut self, process: &Seen, view: Option<View<'a>>) -> Files {
        let report = &process.report;
        let mut files = Files::new();
        self.finder.enter(view);
        for (seen, row) in process.mappings.iter().zip(&report.rows) {
            self.finder.add(&mut files, seen, row, &report.name);
        }
        for (&key, file) in &files {
            *self.users.entry(key).or_default() += 1;
            let pages = self.all.entry(key).or_insert_with(|| FilePages {
                path: file.path.clone(),
                ..FilePages::default()
            });
            pages.copied_bytes += file.copied_bytes;
            for (place, sets) in &file.places {
                pages.places.entry(*place).or_default().extend(sets);
                if let Place::InPlace(_) = place {
                    let heat = self.touched.entry(key).or_default();
                    for range in sets.touched.iter() {
                        let numbers = range.start / self.page.bytes()..self.page.count(range.end);
                        numbers.for_each(|number| *heat.entry(number).or_default() += 1);
                    }
                }
            }
        }
        files
    }

    /// The sums of all of them, each page once.
    pub(super) fn sources(&self) -> Sources {
        let mut sources = Sources::default();
        for file in self.all.values() {
            sources += Sources::from(file);
        }
        sources
    }

    /// All of them, by image and path. `name` is what images are called.
    pub(super) fn rows(&self, name: impl Fn(&Arc<ImageFiles>) -> Option<String>) -> Vec<File> {
        let rows = self.all.iter().map(|(key, file)| {
            let image = match *key {
                Key::InImage(number, _) => self.finder.image_files(number).and_then(&name),
                _ => None,
            };
            file_row(file, image, self.users.get(key).copied().unwrap_or(0))
        });
        let mut rows: Vec<File> = rows.collect();
        rows.sort_by(|one, other| (&one.image, &one.file).cmp(&(&other.image, &other.file)));
        rows
    }
}

/// The table of files. For scripts the reasons and the images have columns of their own; else images are named where there
/// are several.
pub fn table(files: &[File], for_scripts: bool) -> Table {
    let head = |title, name| Head { title, name };
    let mut table = Table {
        heads: vec![
            head("   PROCS", "processes"),
            head("IN PLACE", "in_place_mapped_bytes"),
            head(" TOUCHED", "in_place_touched_bytes"),
            head("     NOT", "not_in_place_mapped_bytes"),
            head(" TOUCHED", "not_in_place_touched_bytes"),
            head("    ANON", "copied_bytes"),
            head("FILE: WHY NOT IN PLACE", "file"),
        ],
        rows: Vec::new(),
    };
    if for_scripts {
        table.heads.push(head("", "not_in_place_reasons"));
        table.heads.push(head("", "image"));
    }
    let images = files.iter().filter_map(|file| file.image.as_ref());
    let several = images.collect::<BTreeSet<_>>().len() > 1;
    let rows = files.iter().map(|file| cells(file, for_scripts, several));
    table.rows.extend(rows);
    table
}

fn cells(file: &File, for_scripts: bool, several_images: bool) -> Vec<Cell> {
    let reasons = file.reasons.iter();
    let unit = if for_scripts { 1 } else { 1024 };
    let reasons = reasons.map(|why| format!("{} {}", why.reason, why.pages.mapped_bytes / unit));
    let reasons: Vec<String> = reasons.collect();
    let colon = if reasons.is_empty() { "" } else { ": " };
    let image = file.image.as_deref().unwrap_or_default();
    let mut cells = vec![
        Cell::Number(file.processes),
        Cell::Bytes(file.in_place.mapped_bytes),
        Cell::Bytes(file.in_place.touched_bytes),
        Cell::Bytes(file.not_in_place.mapped_bytes),
        Cell::Bytes(file.not_in_place.touched_bytes),
        Cell::Bytes(file.copied_bytes),
    ];
    match for_scripts {
        true => {
            cells.extend([file.file.clone(), reasons.join("; "), image.to_owned()].map(Cell::Text));
        }
        false => {
            let of_image = match several_images && !image.is_empty() {
                true => format!(" ({image})"),
                false => String::new(),
            };
            let reasons = reasons.join(", ");
            let text = format!("{}{of_image}{colon}{reasons}", file.file);
            cells.push(Cell::Text(text));
        }
    }
    cells
}

fn file_row(file: &FilePages, image: Option<String>, processes: u64) -> File {
    let sources = Sources::from(file);
    let reasons = file.places.iter().filter_map(|(place, sets)| match *place {
        Place::Not(reason) => Some(NotInPlace {
            reason,
            pages: sets.into(),
        }),
        Place::InPlace(_) => None,
    });
    File {
        file: file.path.clone(),
        image,
        processes,
        in_place: sources.in_place(),
        not_in_place: sources.not_in_place(),
        reasons: reasons.filter(|why| why.pages.mapped_bytes > 0).collect(),
        copied_bytes: file.copied_bytes,
    }
}
