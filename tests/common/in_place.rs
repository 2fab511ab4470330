//! Is a process in place? Every page that it shows of a file of the image must be the image's own page, and only a page
//! that it has written to, or that the index calls not direct, may come from elsewhere: from the view, or copied.
//!
//! By maps, smaps and pagemap, and for root by the very frames of memory; of the library only the index is used, which
//! tests/index.rs holds against an oracle.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test crate uses its own part"
)]

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use xip_run::backing::Backing;
use xip_run::cramfs::{Image, InodeKind};
use xip_run::index::{FileIndex, PageState};
use xip_run::report::mountinfo;
use xip_run::session::SESSION_STUB;
use xip_run::units::PageSize;

use super::mapped::Mapped;
use super::session::{Map, maps};

/// The stub of a single program may have this many pages in it: more are no stub.
const STUB_PAGES: usize = 16;
/// Where a session's stub is in its memfd, bytes: wire.rs `CODE`.
const STUB_AT: usize = 0x200;
/// The stub and the index of a session have no more pages; a file takes 28 bytes of the index, and 12 for each further run.
const INDEX_PAGES: usize = 64;
/// What a session's handler and index are called.
const RESIDENT: &str = "/memfd:xip-run:session (deleted)";

/// Why a page is not in place: [`xip_run::index::NotDirect`] by its name, or that it was written to.
pub type Reason = String;
pub const WRITTEN: &str = "written";

/// Which pages of which files are mapped, and how (`r-x`). Of files with the same data, which are one in the image, the
/// path is that of the first.
pub type Shown = BTreeMap<String, BTreeSet<(u64, String)>>;

/// What was found, in pages.
#[derive(Default)]
pub struct InPlace {
    pid: u32,
    name: String,
    /// By path in the image: pages that are the image's own.
    pub in_place: BTreeMap<String, u64>,
    /// By path and reason: pages that are not.
    pub excused: BTreeMap<(String, Reason), u64>,
    /// All of these.
    pub shown: Shown,
    /// Files that are neither the image's nor the view's.
    pub host: BTreeSet<String>,
    /// What must not be.
    pub violations: Vec<Violation>,
}

/// Consecutive pages with the same fault.
pub struct Violation {
    pub start: u64,
    pub end: u64,
    pub perms: String,
    /// What the kernel calls the mapping.
    pub mapping: String,
    pub fault: String,
}

impl fmt::Display for InPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pid, name) = (self.pid, &self.name);
        writeln!(f, "process {pid} ({name}):")?;
        for violation in &self.violations {
            writeln!(
                f,
                "  {:08x}-{:08x} {} {:4} pages of {}: {}",
                violation.start,
                violation.end,
                violation.perms,
                (violation.end - violation.start) / rustix::param::page_size() as u64,
                violation.mapping,
                violation.fault
            )?;
        }
        for (path, pages) in &self.in_place {
            writeln!(f, "  {pages:4} pages in place: {path}")?;
        }
        for ((path, why), pages) in &self.excused {
            writeln!(f, "  {pages:4} pages not in place: {path}: {why}")?;
        }
        for path in &self.host {
            writeln!(f, "  a file of the host: {path}")?;
        }
        Ok(())
    }
}

/// Fails, with a table, if a page of the process is not in place without a reason.
#[track_caller]
pub fn assert_in_place(pid: u32, image: &Path) -> InPlace {
    let found = in_place(pid, image);
    assert!(found.violations.is_empty(), "{found}");
    found
}

/// Looks at the pages of a process that runs from `image`.
pub fn in_place(pid: u32, image: &Path) -> InPlace {
    look(pid, &ImagePages::new(image))
}

/// The same, for several processes of the same image.
#[track_caller]
pub fn assert_all_in_place(pid: u32, pages: &ImagePages) -> InPlace {
    let found = look(pid, pages);
    assert!(found.violations.is_empty(), "{found}");
    found
}

fn look(pid: u32, pages: &ImagePages) -> InPlace {
    let mapped = &pages.mapped;
    let identity = mapped.identity();
    let root = mountinfo::root(&fs::read(format!("/proc/{pid}/mountinfo")).unwrap());
    let view = root.filter(|root| root.is_image()).map(|_| {
        let root = fs::metadata(format!("/proc/{pid}/root")).unwrap();
        root.dev()
    });
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    let mut found = InPlace {
        pid,
        name: name.trim_end().to_owned(),
        ..InPlace::default()
    };
    let mut stub_pages = 0;
    for map in maps(pid) {
        let executable = map.perms.contains('x');
        if !map.perms.starts_with('r') && !executable {
            continue;
        }
        if map.is_of(identity) {
            found.image_pages(&map, pages, mapped);
        } else if view == Some(map.dev) {
            found.view_pages(&map, pages);
        } else if map.path == RESIDENT && (map.offset, &*map.perms) == (0, "r-xp") {
            found.resident_pages(&map, pages.page);
        } else if map.path.starts_with("/memfd:xip-run:") {
            stub_pages += found.memfd_pages(&map, pages);
            if stub_pages > STUB_PAGES {
                found.fault(&map, map.start, map.end, "too many pages for a stub");
            }
        } else if map.path.starts_with('/') && map.perms.ends_with('p') {
            found.host.insert(map.path.clone());
        } else if executable && !map.path.starts_with("[v") {
            found.fault(&map, map.start, map.end, "executable anonymous memory");
        }
    }
    if found.in_place.is_empty() && found.excused.is_empty() && found.violations.is_empty() {
        let map = &maps(pid)[0];
        found.fault(map, 0, 0, "the process maps nothing of the image");
    }
    found
}

impl InPlace {
    fn fault(&mut self, map: &Map, start: u64, end: u64, fault: &str) {
        match self.violations.last_mut() {
            // Of the same mapping.
            Some(last) if last.end == start && start > map.start && last.fault == fault => {
                last.end = end;
            }
            _ => self.violations.push(Violation {
                start,
                end,
                perms: map.perms.clone(),
                mapping: map.path.clone(),
                fault: fault.to_owned(),
            }),
        }
    }

    /// Pages of a mapping of the image.
    fn image_pages(&mut self, map: &Map, pages: &ImagePages, mapped: &Mapped) {
        for (page, at) in numbered(map, pages.page) {
            let end = at + pages.page.bytes();
            let Some(&(ino, number)) = pages.direct.get(&page) else {
                let fault = "no index calls this page of the image direct";
                self.fault(map, at, end, fault);
                continue;
            };
            let entry = map.pages[((at - map.start) / pages.page.bytes()) as usize];
            let (present, of_file) = (entry >> 63 == 1, entry >> 61 & 1 == 1);
            let copied = !of_file && entry >> 62 != 0;
            self.show(ino, number, map, pages);
            // What could be written to once may have been: relocations.
            let was_writable = map.flags.split(' ').any(|flag| flag == "ac");
            if copied && !was_writable {
                let fault = "a private copy in a mapping that never could be written to";
                self.fault(map, at, end, fault);
                continue;
            }
            let frame = entry & ((1 << 55) - 1);
            if present && of_file && frame != 0 && !self.is_frame(map, at, page, mapped) {
                self.fault(
                    map,
                    at,
                    end,
                    "another frame of memory than the image's page",
                );
                continue;
            }
            let (path, _) = &pages.by_number[&ino];
            if copied {
                self.excuse(path, WRITTEN);
            } else {
                *self.in_place.entry(path.clone()).or_default() += 1;
            }
        }
    }

    fn excuse(&mut self, path: &str, why: &str) {
        let reason = (path.to_owned(), why.to_owned());
        *self.excused.entry(reason).or_default() += 1;
    }

    fn show(&mut self, ino: u64, number: u64, map: &Map, pages: &ImagePages) {
        let (path, _) = &pages.by_number[&ino];
        let shown = self.shown.entry(path.clone()).or_default();
        shown.insert((number, map.perms.clone()));
    }

    /// Is it the image's page? The kernel may move pages at any time, so twice the same answer is needed to say no.
    fn is_frame(&self, map: &Map, at: u64, page: u64, mapped: &Mapped) -> bool {
        let pagemap = File::open(format!("/proc/{}/pagemap", self.pid)).unwrap();
        (0..3).any(|_| {
            let mut entry = [0; 8];
            let number = at / rustix::param::page_size() as u64;
            pagemap.read_exact_at(&mut entry, number * 8).unwrap();
            let entry = u64::from_ne_bytes(entry);
            // It may have been taken away meanwhile.
            let frame = mapped.frame(page);
            assert!(frame.is_some(), "{map:?} reaches beyond the image");
            entry >> 63 == 0 || frame == Some(entry & ((1 << 55) - 1))
        })
    }

    /// Pages of a mapping of a file of the view.
    fn view_pages(&mut self, map: &Map, pages: &ImagePages) {
        let Some((path, index)) = pages.by_number.get(&map.ino) else {
            self.fault(map, map.start, map.end, "no file of the image");
            return;
        };
        for (page, at) in numbered(map, pages.page) {
            self.show(map.ino, page, map, pages);
            match index.page(page) {
                Err(why) => self.excuse(path, &why.to_string()),
                Ok(_) => {
                    let fault = "direct in the image, but mapped from the view";
                    self.fault(map, at, at + pages.page.bytes(), fault);
                }
            }
        }
    }

    /// The memfd of a whole session: the stub, then the index.
    fn resident_pages(&mut self, map: &Map, page: PageSize) {
        let memory = File::open(format!("/proc/{}/mem", self.pid)).unwrap();
        let mut content = vec![0; (map.end - map.start) as usize];
        memory.read_exact_at(&mut content, map.start).unwrap();
        let stub = content.get(STUB_AT..STUB_AT + SESSION_STUB.len());
        let pages = content.chunks(page.bytes() as usize);
        let filled = pages.filter(|page| page.iter().any(|&byte| byte != 0));
        if stub != Some(SESSION_STUB) || filled.count() > INDEX_PAGES {
            let fault = "neither the session's stub nor its index";
            self.fault(map, map.start, map.end, fault);
        }
    }

    /// Pages of the memfd of a single program; returns how many are no file's, so the stub's.
    fn memfd_pages(&mut self, map: &Map, pages: &ImagePages) -> usize {
        let memory = File::open(format!("/proc/{}/mem", self.pid)).unwrap();
        let mut stub_pages = 0;
        for (_, at) in numbered(map, pages.page) {
            let mut content = vec![0; pages.page.bytes() as usize];
            memory.read_exact_at(&mut content, at).unwrap();
            let same = pages.with_content(&content);
            let excused = same.iter().find_map(|(path, state)| {
                let why = state.err()?;
                Some((path.clone(), why))
            });
            match (excused, same.first()) {
                (Some((path, why)), _) => self.excuse(&path, &why.to_string()),
                (None, Some((path, _))) => {
                    let fault = format!("direct in the image, but copied: {path}");
                    self.fault(map, at, at + pages.page.bytes(), &fault);
                }
                (None, None) => stub_pages += 1,
            }
        }
        stub_pages
    }
}

/// The files below a directory by device and inode, as stat(2) has them.
pub fn files_below(root: &Path) -> HashMap<(u64, u64), PathBuf> {
    let mut files = HashMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            todo.extend(entries.map(|entry| entry.unwrap().path()));
        } else if meta.is_file() {
            let inside = Path::new("/").join(path.strip_prefix(root).unwrap());
            files.insert((meta.dev(), meta.ino()), inside);
        }
    }
    files
}

/// What a process shows of these files, which the image was made of.
pub fn shown_natively(pid: u32, files: &HashMap<(u64, u64), PathBuf>, pages: &ImagePages) -> Shown {
    let mut shown = Shown::new();
    for map in maps(pid) {
        let Some(path) = files.get(&(map.dev, map.ino)) else {
            continue;
        };
        if map.perms.starts_with("---") {
            continue;
        }
        let inode = pages.image.lookup(path.as_os_str().as_bytes()).unwrap();
        let (path, _) = &pages.by_number[&inode.number()];
        let numbers = numbered(&map, pages.page).map(|(page, _)| (page, map.perms.clone()));
        shown.entry(path.clone()).or_default().extend(numbers);
    }
    shown
}

/// The pages of a mapping: number in the file, and address.
fn numbered(map: &Map, page: PageSize) -> impl Iterator<Item = (u64, u64)> {
    let first = map.offset / page.bytes();
    (first..).zip((map.start..map.end).step_by(page.bytes() as usize))
}

/// The contents of pages, and whose they are.
type Contents = HashMap<Vec<u8>, Vec<(String, PageState)>>;

/// What the image has in its files, page by page.
pub struct ImagePages {
    mapped: Mapped,
    page: PageSize,
    /// Pages of the image that are direct: of which file, by `st_ino`, and its number there.
    direct: HashMap<u64, (u64, u64)>,
    /// Files by `st_ino`.
    by_number: HashMap<u64, (String, FileIndex)>,
    image: Image,
    /// Pages by their contents; made when they are needed.
    contents: OnceCell<Contents>,
}

impl ImagePages {
    pub fn new(path: &Path) -> Self {
        let image = Image::open(Backing::open(path).unwrap()).unwrap();
        let page = PageSize::of_running_kernel().unwrap();
        let mut direct = HashMap::new();
        let mut by_number = HashMap::new();
        for found in image.walk().map(Result::unwrap) {
            if found.inode.kind != InodeKind::File || found.inode.size == 0 {
                continue;
            }
            let number = found.inode.number();
            if by_number.contains_key(&number) {
                continue;
            }
            let path = String::from_utf8_lossy(&found.path).into_owned();
            let index = FileIndex::new(&image, &found.inode, page).unwrap();
            for run in index.runs() {
                if let Ok(at) = run.state {
                    let first = at.0 / page.bytes();
                    let of_file = (0..run.pages).map(|page| (number, run.first_page + page));
                    direct.extend((first..).zip(of_file));
                }
            }
            by_number.insert(number, (path, index));
        }
        Self {
            mapped: Mapped::new(path),
            page,
            direct,
            by_number,
            image,
            contents: OnceCell::new(),
        }
    }

    /// The pages of all files that have these contents: which file's, and its state.
    fn with_content(&self, content: &[u8]) -> &[(String, PageState)] {
        let contents = self.contents.get_or_init(|| self.all_contents());
        contents.get(content).map_or(&[], Vec::as_slice)
    }

    fn all_contents(&self) -> Contents {
        let mut contents = Contents::new();
        for (path, index) in self.by_number.values() {
            let inode = self.image.lookup(path.as_bytes()).unwrap();
            let file = self.image.read_file(&inode).unwrap();
            let page_bytes = self.page.bytes() as usize;
            for (number, page) in (0..).zip(file.chunks(page_bytes)) {
                let mut page = page.to_vec();
                page.resize(page_bytes, 0);
                let of_page = contents.entry(page).or_default();
                of_page.push((path.clone(), index.page(number)));
            }
        }
        contents
    }
}
