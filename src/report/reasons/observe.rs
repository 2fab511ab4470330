//! Looks at a live process, page by page.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::elf::StartWrites;
use super::{Reason, Reasons, Run};
use crate::cramfs::format::FILE_SIZE_LIMIT;
use crate::cramfs::show_name;
use crate::elf::ElfFile;
use crate::error::Result;
use crate::index::FileIndex;
use crate::report::classify::Class;
use crate::report::files::SeenMapping;
use crate::report::pagemap::{PageRun, PageState};
use crate::report::pages::{Finder, Key, Place, Stretch, View, Why};
use crate::report::process::{Known, LOOKED_AT_BYTES, Observed, Observer, OpenImage, is_regular};
use crate::report::session_memfd::named_for;
use crate::report::smaps::Mapping;
use crate::report::summary::{Part, Row};
use crate::units::PageSize;

/// What a program's file is read of, to see what relocations write to. Chromium has 250 MB.
const PROGRAM_LIMIT: u64 = 256 << 20;

impl Observer {
    /// Finds out for each page of the process `pid` that is not in place why.
    ///
    /// # Errors
    /// As [`Observer::observe`].
    pub fn observe_reasons(&mut self, pid: u32) -> Result<Reasons> {
        let page = PageSize::of_running_kernel()?;
        let observed = self.look_in_view(pid, Known::default())?;
        let image = self.image_of_view(&observed);
        self.launched_from(&observed);
        let images: Vec<OpenImage> = self.images().cloned().collect();
        let mut finder = Finder::new(page);
        finder.enter(View::new(observed.view, image.as_ref()));
        let mut looker = Looker {
            page,
            observed: &observed,
            images: &images,
            writes: HashMap::new(),
            starts: HashMap::new(),
        };
        let mut found = Vec::new();
        let mut notes = observed.report.notes.clone();
        for (mapping, row) in observed.mappings.iter().zip(&observed.report.rows) {
            if matches!(row.class, Class::Kernel | Class::Device) {
                continue;
            }
            let runs = match row.class {
                // All of it has the same reason.
                Class::Anonymous if mapping.size_bytes() > LOOKED_AT_BYTES => vec![PageRun {
                    pages: page.count(mapping.size_bytes()),
                    state: PageState::Copied,
                }],
                Class::Anonymous => observed.proc.page_runs(mapping)?,
                _ => observed.file_runs(mapping, row, &mut notes)?,
            };
            let seen = SeenMapping {
                mapping: mapping.clone(),
                file: observed.file(mapping).cloned(),
                runs,
            };
            if let Some(program) = program_of(row) {
                looker.starts.entry(program).or_insert(row.start);
            }
            looker.mapping(&mut found, &mut finder, &seen, row);
        }
        let report = &observed.report;
        Ok(Reasons::new(pid, report.name.clone(), found, notes))
    }
}

impl Observer {
    /// Opens the image that a process was launched from, for it may map nothing of it.
    fn launched_from(&mut self, observed: &Observed) {
        let Some(image) = observed.memfds.image(&observed.proc) else {
            return;
        };
        let shown = show_name(&image.path);
        let notes = &mut Vec::new();
        let fd = match &image.device {
            None => {
                rustix::fs::open(&*image.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()
            }
            Some(_) => image.mapped_device(&observed.proc),
        };
        _ = fd.and_then(|fd| match &image.device {
            None => self.image(&fd, &shown, notes),
            Some(map) => self.image_on_device(&fd, map, &shown, notes),
        });
    }
}

struct Looker<'a> {
    page: PageSize,
    observed: &'a Observed,
    images: &'a [OpenImage],
    /// What is written to at the start of each file that was met, by the path that it has in the report.
    writes: HashMap<Key, StartWrites>,
    /// Where the first mapping of each program is, by its path.
    starts: HashMap<String, u64>,
}

impl Looker<'_> {
    fn mapping(
        &mut self,
        found: &mut Vec<Run>,
        finder: &mut Finder<'_>,
        seen: &SeenMapping,
        row: &Row,
    ) {
        let reason = match (row.class, row.part) {
            (Class::Anonymous, Part::Bss) => Some(Reason::Bss),
            (Class::Anonymous, Part::Heap) => Some(Reason::Heap),
            (Class::Anonymous, Part::Stack) => Some(Reason::Stack),
            (Class::Anonymous, _) => Some(Reason::Anonymous),
            (Class::Stub, _) => Some(Reason::Stub),
            _ => None,
        };
        let what = || match (&row.program, row.path.as_str()) {
            (Some(program), _) => format!("{program} {}", row.part.title()),
            (None, "") => row.part.title().to_owned(),
            (None, path) => path.to_owned(),
        };
        if let Some(reason) = reason {
            let mut address = row.start;
            // What was only read is the kernel's page of zeros: no RAM. pagemap does not tell which it is.
            let mut left = row.counts.anonymous_bytes + row.counts.swap_bytes;
            if row.class == Class::Stub {
                left = u64::MAX;
            }
            for &PageRun { pages, state } in &seen.runs {
                let len = pages * self.page.bytes();
                if state != PageState::Absent {
                    found.push(Run {
                        start: address,
                        end: address + len,
                        ram_bytes: len.min(left),
                        what: what(),
                        offset_bytes: None,
                        reason,
                    });
                    left -= len.min(left);
                }
                address += len;
            }
            return;
        }
        if row.class == Class::CopiedPages {
            self.copied(found, row, &what());
            return;
        }
        for stretch in finder.stretches(seen, row) {
            let name = finder.name(stretch.key, &seen.mapping, &self.observed.report.name);
            match (stretch.state, stretch.place) {
                (PageState::Copied, _) => self.private(found, &stretch, &seen.mapping, &name),
                (_, Place::InPlace(_)) => {}
                (state, Place::Not(why)) => found.push(Run {
                    start: stretch.address,
                    end: stretch.address + stretch.len_bytes,
                    ram_bytes: match state {
                        PageState::Touched => stretch.len_bytes,
                        _ => 0,
                    },
                    what: name,
                    offset_bytes: Some(stretch.offset),
                    reason: Reason::File(why),
                }),
            }
        }
    }

    /// Private copies of a file's pages, page by page: neighbours have different reasons.
    fn private(&mut self, found: &mut Vec<Run>, stretch: &Stretch, mapping: &Mapping, name: &str) {
        let page = self.page;
        let (images, proc) = (self.images, &self.observed.proc);
        let writes = self.writes.entry(stretch.key).or_insert_with(|| {
            let content = contents(images, name).or_else(|| {
                let fd = proc.open_mapped(mapping).ok()?;
                whole_file(&fd)
            });
            StartWrites::new(&content.unwrap_or_default(), page)
        });
        for at in (0..stretch.len_bytes).step_by(page.bytes() as usize) {
            found.push(Run {
                start: stretch.address + at,
                end: stretch.address + at + page.bytes(),
                ram_bytes: page.bytes(),
                what: name.to_owned(),
                offset_bytes: Some(stretch.offset + at),
                reason: writes.reason(stretch.offset + at, page),
            });
        }
    }

    /// Pages that the launcher copied: what the index says of them.
    fn copied(&self, found: &mut Vec<Run>, row: &Row, what: &str) {
        let page = self.page;
        let program = program_of(row);
        let index = program.as_deref().and_then(|path| {
            let (image, inode) = self
                .images
                .iter()
                .find_map(|open| Some((&open.image, open.image.lookup(path.as_bytes()).ok()?)))?;
            let elf = ElfFile::parse(&image.read_file(&inode).ok()?).ok()?;
            let first = elf
                .segments
                .iter()
                .map(|segment| page.floor(segment.vaddr))
                .min()?;
            let start = self.starts.get(path).copied().unwrap_or(row.start);
            let bias = start.wrapping_sub(first);
            Some((FileIndex::new(image, &inode, page).ok()?, elf, bias))
        });
        // No program is longer, whatever somebody calls his memfd.
        let end = row.end.min(row.start.saturating_add(FILE_SIZE_LIMIT));
        for address in (row.start..end).step_by(page.bytes() as usize) {
            let offset = index.as_ref().and_then(|(_, elf, bias)| {
                elf.segments.iter().find_map(|segment| {
                    let first = page.floor(segment.vaddr);
                    let into = address.wrapping_sub(*bias).checked_sub(first)?;
                    let end = page.ceil(segment.vaddr.checked_add(segment.filesz_bytes)?)?;
                    (first + into < end).then_some(page.floor(segment.offset) + into)
                })
            });
            let state = index.as_ref().zip(offset);
            let reason = match state.map(|((index, ..), at)| index.page(at / page.bytes())) {
                Some(Ok(_)) => Reason::Asked,
                Some(Err(why)) => Reason::File(Why::Index(why)),
                None => Reason::File(Why::Copied),
            };
            found.push(Run {
                start: address,
                end: address + page.bytes(),
                ram_bytes: page.bytes(),
                what: what.to_owned(),
                offset_bytes: offset,
                reason,
            });
        }
    }
}

/// The program that a row is of; copied pages are in a memfd that is named for the one that was launched.
fn program_of(row: &Row) -> Option<String> {
    row.program.clone().or_else(|| {
        let path = Some(row.path.as_str()).filter(|_| row.class == Class::CopiedPages)?;
        let launched = std::str::from_utf8(named_for(path.as_bytes())?).ok()?;
        Some(launched.to_owned())
    })
}

/// The contents of a file, by an `O_PATH` descriptor. A device has no end, and a file's length need not be worth its storage.
fn whole_file(fd: &OwnedFd) -> Option<Vec<u8>> {
    let is_bounded = rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_size as u64 <= PROGRAM_LIMIT);
    if !is_bounded || !is_regular(fd) {
        return None;
    }
    let file = File::open(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
    let mut content = Vec::new();
    file.take(PROGRAM_LIMIT).read_to_end(&mut content).ok()?;
    Some(content)
}

/// The contents of a file of one of the images.
fn contents(images: &[OpenImage], path: &str) -> Option<Vec<u8>> {
    images.iter().find_map(|open| {
        let inode = open.image.lookup(path.as_bytes()).ok()?;
        open.image.read_file(&inode).ok()
    })
}
