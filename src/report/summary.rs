//! Adds up what was seen: a row for every mapping, sums by program and segment, totals.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::classify::{Class, MappedFile, classify};
use super::image_files::Owner;
use super::session_memfd::SessionMemfd;
use super::smaps::Mapping;
use super::status::Status;

use crate::cramfs::show_name;

/// Linux 6.2 is the first whose smaps looks into PFN mappings (`mm/pagewalk.c walk_page_vma()` no longer asks
/// `walk_page_test()`): before, pages copied on write there are in `RssAnon` only.
const SMAPS_SEES_PFN_MAPPINGS: (u32, u32) = (6, 2);

/// Who is measured, and by what kernel.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// Process number.
    pub pid: u32,
    /// Its /proc/PID/status.
    pub status: Status,
    /// Major and minor version of the kernel.
    pub kernel: (u32, u32),
    /// If xip-run started it: its memfds.
    pub session_memfd: Option<SessionMemfd>,
}

/// The figures of a mapping, or of several; in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counts {
    /// Address space (procrank's Vss).
    pub size_bytes: u64,
    /// Mapped in place, from flash or from an image in the page cache: the size without the pages that were copied.
    pub in_place_bytes: u64,
    /// Pages present in RAM (Rss).
    pub rss_bytes: u64,
    /// The same, each divided by the number of processes that map it (Pss).
    pub pss_bytes: u64,
    /// Pages present in RAM that no other process maps (smem's and procrank's Uss).
    pub uss_bytes: u64,
    /// Pages that only exist in RAM: of no file, or private copies.
    pub anonymous_bytes: u64,
    /// Swapped out.
    pub swap_bytes: u64,
}

impl Counts {
    pub(super) fn add(&mut self, more: &Self) {
        self.size_bytes += more.size_bytes;
        self.in_place_bytes += more.in_place_bytes;
        self.rss_bytes += more.rss_bytes;
        self.pss_bytes += more.pss_bytes;
        self.uss_bytes += more.uss_bytes;
        self.anonymous_bytes += more.anonymous_bytes;
        self.swap_bytes += more.swap_bytes;
    }
}

/// What a mapping is to its program.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Executable.
    Text,
    /// Read-only from the start.
    Rodata,
    /// Read-only, but was writable while the program was linked (`PT_GNU_RELRO`).
    Relro,
    /// Writable.
    Data,
    /// Anonymous pages right after a program's mappings. Behind a library other anonymous memory may join them: the
    /// kernel shows both as one mapping.
    Bss,
    /// Neither readable nor writable.
    Guard,
    /// `[heap]`: brk(2).
    Heap,
    /// `[stack]`.
    Stack,
    /// Anonymous, and of no program that can be told.
    Anonymous,
    /// Pages copied by a session.
    Copied,
    /// The loader stub.
    Stub,
    /// The kernel's pages.
    Kernel,
}

impl Part {
    /// What the tables show.
    pub fn title(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Rodata => "rodata",
            Self::Relro => "relro",
            Self::Data => "data",
            Self::Bss => "bss",
            Self::Guard => "guard",
            Self::Heap => "heap",
            Self::Stack => "stack",
            Self::Anonymous => "anonymous",
            Self::Copied => "copied",
            Self::Stub => "stub",
            Self::Kernel => "kernel",
        }
    }
}

/// One mapping.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// First address.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// As in maps: `r-xp`.
    pub perms: String,
    /// Offset in the file in bytes; for /dev/mem the physical address.
    pub offset_bytes: u64,
    /// What the kernel calls it; may be empty.
    pub path: String,
    /// What stands behind it.
    pub class: Class,
    /// Whose it is: a path in the image if it maps an image, else the file's own; `None` for heap, stack and the like.
    pub program: Option<String>,
    /// What it is to that program.
    pub part: Part,
    /// The figures.
    #[serde(flatten)]
    pub counts: Counts,
}

impl Row {
    /// File pages present, and this process's share of them: what is not anonymous in Rss and Pss. Pages of flash, of a
    /// device and of the kernel are no page cache.
    ///
    /// Anonymous pages that a fork still shares have a Pss below their size; the share is then shown too small.
    fn cache(&self) -> Cache {
        if matches!(self.class, Class::FlashDax | Class::Kernel | Class::Device) {
            return Cache::default();
        }
        let counts = &self.counts;
        Cache {
            mapped_bytes: counts.size_bytes - counts.anonymous_bytes.min(counts.size_bytes),
            resident_bytes: counts.rss_bytes.saturating_sub(counts.anonymous_bytes),
            share_bytes: counts.pss_bytes.saturating_sub(counts.anonymous_bytes),
        }
    }
}

/// The mappings of one program that are the same part of it, added up.
#[derive(Clone, Debug, Serialize)]
pub struct Program {
    /// As in [`Row::program`].
    pub program: Option<String>,
    /// As in [`Row::part`].
    pub part: Part,
    /// What stands behind it.
    pub class: Class,
    /// The sums.
    #[serde(flatten)]
    pub counts: Counts,
}

/// Mapped pages of files, less those that became private copies; in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Cache {
    /// Mapped.
    pub mapped_bytes: u64,
    /// Of these, present in this process's page tables.
    pub resident_bytes: u64,
    /// The same, each page divided by the number of processes that map it.
    pub share_bytes: u64,
}

impl Cache {
    fn add(&mut self, more: Self) {
        self.mapped_bytes += more.mapped_bytes;
        self.resident_bytes += more.resident_bytes;
        self.share_bytes += more.share_bytes;
    }
}

/// The sums of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Totals {
    /// Mapped from flash, DAX included: runs in place and costs no RAM.
    pub flash_bytes: u64,
    /// Mapped from an image in the page cache.
    pub image_cache: Cache,
    /// Mapped from an image in tmpfs or ramfs: RAM for as long as the image is there.
    pub image_tmpfs: Cache,
    /// Mapped from other files.
    pub file_cache: Cache,
    /// Pages of the session memfd that xip-run copied, as they are mapped.
    pub copied: Cache,
    /// The loader stub in the session memfd, as it is mapped.
    pub stub: Cache,
    /// The session memfds, mapped or not; `None` if the process has none.
    pub session_memfd: Option<SessionMemfd>,
    /// Other shared memory.
    pub shared_memory: Cache,
    /// Anonymous pages, private copies of file pages included.
    pub anonymous_bytes: u64,
    /// Page tables of all levels.
    pub page_table_bytes: u64,
    /// Swapped out: no RAM, but it was.
    pub swap_bytes: u64,
    /// RAM that one more such process takes: anonymous, page tables, and its share of the session memfd.
    pub ram_alone_bytes: u64,
    /// The same and the process's share of all page cache that it maps.
    pub ram_with_share_bytes: u64,
}

impl Totals {
    /// Mapped in place, whatever from.
    pub fn in_place_bytes(&self) -> u64 {
        self.flash_bytes + self.image_cache.mapped_bytes + self.image_tmpfs.mapped_bytes
    }

    /// Did xip-run start it?
    pub fn started_by_xip_run(&self) -> bool {
        self.session_memfd.is_some() || self.copied.mapped_bytes + self.stub.mapped_bytes > 0
    }

    fn add_up(&mut self) {
        self.ram_alone_bytes = self.anonymous_bytes + self.page_table_bytes;
        self.ram_with_share_bytes = self.image_cache.share_bytes
            + self.image_tmpfs.share_bytes
            + self.file_cache.share_bytes
            + self.shared_memory.share_bytes;
        match self.session_memfd {
            // What is mapped of it is a part of it.
            Some(memfd) => self.ram_alone_bytes += memfd.share_bytes,
            None => self.ram_with_share_bytes += self.copied.share_bytes + self.stub.share_bytes,
        }
        self.ram_with_share_bytes += self.ram_alone_bytes;
    }
}

/// A measured process.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Process number.
    pub pid: u32,
    /// Command name.
    pub name: String,
    /// The images that it maps, by their paths.
    pub images: Vec<String>,
    /// One for every mapping, by address.
    pub rows: Vec<Row>,
    /// By program and part, in the order of their first mapping; what is no program's comes last.
    pub programs: Vec<Program>,
    /// The sums.
    pub totals: Totals,
    /// What the reader has to know about the figures.
    pub notes: Vec<String>,
}

impl Report {
    /// Adds up the mappings of a process. `file` tells what the file behind a mapping is, if that is known.
    pub fn new<'a>(
        subject: Subject,
        mappings: &[Mapping],
        file: impl Fn(&Mapping) -> Option<&'a MappedFile>,
    ) -> Self {
        let status = &subject.status;
        let mut report = Self {
            pid: subject.pid,
            name: show_name(status.name.as_bytes()),
            images: Vec::new(),
            rows: Vec::with_capacity(mappings.len()),
            programs: Vec::new(),
            totals: Totals::default(),
            notes: Vec::new(),
        };
        let mut with_text = HashSet::new();
        for mapping in mappings {
            let adjoining = report
                .rows
                .last()
                .filter(|row| row.end == mapping.start && row.perms.ends_with('p'))
                .filter(|row| {
                    matches!(row.class, Class::Flash | Class::CopiedPages)
                        || with_text.contains(&row.program)
                })
                .and_then(|row| row.program.clone());
            let row = row(mapping, file(mapping), adjoining, &status.name);
            if row.part == Part::Text {
                with_text.insert(row.program.clone());
            }
            if matches!(row.class, Class::ImageCache | Class::ImageTmpfs) {
                report.add_image(mapping, file(mapping));
            }
            report.rows.push(row);
        }
        report.programs = programs(&report.rows);
        report.totals = totals(&report.rows);
        report.totals.page_table_bytes = status.page_table_bytes.unwrap_or(0);
        report.totals.session_memfd = subject.session_memfd;
        if let Some(memfd) = subject.session_memfd.filter(|memfd| memfd.sharers > 1) {
            report.notes.push(format!(
                "{} processes share the session memfd of {} KiB; each counts its part of it",
                memfd.sharers,
                memfd.allocated_bytes / 1024
            ));
        }
        report.count_hidden_copies(&subject);
        report.totals.add_up();
        report
    }

    /// Lists an image, once, and says what of it costs RAM that no row shows.
    fn add_image(&mut self, mapping: &Mapping, file: Option<&MappedFile>) {
        let path = show_name(&mapping.path);
        let gone = if mapping.deleted { " (deleted)" } else { "" };
        let image = format!("{path}{gone}");
        if self.images.contains(&image) {
            return;
        }
        self.images.push(image);
        if mapping.deleted {
            self.notes.push(format!(
                "{path}: the image was deleted or replaced while this process runs from it; the old one stays, with the \
                 space that it takes, until nothing uses it any more"
            ));
        }
        if let Some(bytes) = file.and_then(|file| file.tmpfs_bytes) {
            self.notes.push(format!(
                "{path}: is in tmpfs or ramfs: all of it, {} KiB, is RAM that the kernel cannot drop, mapped or not",
                bytes / 1024
            ));
        }
    }

    /// Old kernels do not show in smaps what was copied of a PFN mapping; `RssAnon` does.
    fn count_hidden_copies(&mut self, subject: &Subject) {
        let private_flash = |row: &Row| row.class == Class::Flash && row.perms.ends_with('p');
        if subject.kernel >= SMAPS_SEES_PFN_MAPPINGS || !self.rows.iter().any(private_flash) {
            return;
        }
        let all = subject.status.rss_anon_bytes.unwrap_or(0);
        let hidden = all.saturating_sub(self.totals.anonymous_bytes);
        if hidden == 0 {
            return;
        }
        self.totals.anonymous_bytes += hidden;
        self.totals.flash_bytes = self.totals.flash_bytes.saturating_sub(hidden);
        self.notes.push(format!(
            "Linux {}.{} does not show in smaps which pages of flash were copied on write: {} KiB more of them are \
             in the totals, by RssAnon, than in the rows",
            subject.kernel.0,
            subject.kernel.1,
            hidden / 1024
        ));
    }
}

fn row(mapping: &Mapping, file: Option<&MappedFile>, adjoining: Option<String>, comm: &str) -> Row {
    let class = classify(mapping, file);
    let size = mapping.size_bytes();
    let copied = match class {
        // What smaps sees of it is copied, or (in a mixed mapping) page cache.
        Class::Flash => mapping.rss_bytes.max(mapping.anonymous_bytes),
        Class::FlashDax | Class::ImageCache | Class::ImageTmpfs => mapping.anonymous_bytes,
        _ => size,
    };
    let (program, part) = whose(mapping, class, file, adjoining, comm);
    Row {
        start: mapping.start,
        end: mapping.end,
        perms: format!("{}{}", mapping.prot, if mapping.shared { 's' } else { 'p' }),
        offset_bytes: mapping.offset_bytes,
        path: show_name(&mapping.path),
        class,
        program,
        part,
        counts: Counts {
            size_bytes: size,
            in_place_bytes: size.saturating_sub(copied),
            rss_bytes: mapping.rss_bytes,
            pss_bytes: mapping.pss_bytes,
            uss_bytes: mapping.private_bytes,
            anonymous_bytes: mapping.anonymous_bytes,
            swap_bytes: mapping.swap_bytes,
        },
    }
}

/// Whose a mapping is, and what it is to its program. `adjoining` is the program whose mappings end where this one
/// starts: its bss and its copied pages follow it without a gap (binfmt_elf.c `elf_load()`).
fn whose(
    mapping: &Mapping,
    class: Class,
    file: Option<&MappedFile>,
    adjoining: Option<String>,
    comm: &str,
) -> (Option<String>, Part) {
    match class {
        Class::Kernel => (None, Part::Kernel),
        Class::Stub => (None, Part::Stub),
        Class::CopiedPages => (adjoining, Part::Copied),
        Class::Anonymous if mapping.path == b"[heap]" => (None, Part::Heap),
        Class::Anonymous if mapping.path.starts_with(b"[stack") => (None, Part::Stack),
        Class::Anonymous if mapping.prot.write && mapping.path.is_empty() => match adjoining {
            Some(program) => (Some(program), Part::Bss),
            None => (None, Part::Anonymous),
        },
        Class::Anonymous => (None, Part::Anonymous),
        _ => {
            let owner = file
                .and_then(|file| file.image_at(mapping))
                .filter(|_| class.in_place())
                .map(|(image, at)| image.owner(at, mapping.size_bytes(), comm.as_bytes()));
            let path = show_name(&mapping.path);
            let program = match owner {
                Some(Owner::File(path)) => show_name(&path),
                Some(Owner::Several) => format!("{path} (several files)"),
                Some(Owner::Nobody) => format!("{path} (no file)"),
                None if class == Class::Flash && path.starts_with("/dev/") => {
                    format!("{path}@{:#x}", mapping.offset_bytes)
                }
                None => path,
            };
            (Some(program), segment(mapping))
        }
    }
}

/// The segment, by its protection. VmFlags `ac` (accounted memory) stays from the time when it was writable.
fn segment(mapping: &Mapping) -> Part {
    let prot = mapping.prot;
    if prot.exec {
        Part::Text
    } else if prot.write {
        Part::Data
    } else if !prot.read {
        Part::Guard
    } else if mapping.has_flag(b"ac") {
        Part::Relro
    } else {
        Part::Rodata
    }
}

fn programs(rows: &[Row]) -> Vec<Program> {
    // First every program at its first mapping, then its parts: the order of what is printed.
    let mut places = HashMap::new();
    for row in rows {
        let next = places.len();
        places.entry(&row.program).or_insert(next);
    }
    let mut programs: Vec<Program> = Vec::new();
    let mut known = HashMap::new();
    for row in rows {
        let at = *known
            .entry((&row.program, row.part, row.class))
            .or_insert_with(|| {
                programs.push(Program {
                    program: row.program.clone(),
                    part: row.part,
                    class: row.class,
                    counts: Counts::default(),
                });
                programs.len() - 1
            });
        if let Some(program) = programs.get_mut(at) {
            program.counts.add(&row.counts);
        }
    }
    programs.sort_by_key(|program| {
        (
            program.program.is_none(),
            places.get(&program.program).copied(),
        )
    });
    programs
}

fn totals(rows: &[Row]) -> Totals {
    let mut totals = Totals::default();
    for row in rows {
        totals.anonymous_bytes += row.counts.anonymous_bytes;
        totals.swap_bytes += row.counts.swap_bytes;
        let mut cache = row.cache();
        match row.class {
            Class::Flash | Class::FlashDax => {
                totals.flash_bytes += row.counts.in_place_bytes;
                cache.mapped_bytes = cache.resident_bytes;
                totals.file_cache.add(cache);
            }
            Class::ImageCache => totals.image_cache.add(cache),
            Class::ImageTmpfs => totals.image_tmpfs.add(cache),
            Class::FileCache => totals.file_cache.add(cache),
            Class::CopiedPages => totals.copied.add(cache),
            Class::Stub => totals.stub.add(cache),
            Class::SharedMemory => totals.shared_memory.add(cache),
            Class::Anonymous | Class::Kernel | Class::Device => {}
        }
    }
    totals
}
