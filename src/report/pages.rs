//! Which page of which file a mapping shows, and whether it is in place.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::classify::Class;
use super::files::{SeenMapping, Sources};
use super::image_files::ImageFiles;
use super::pagemap::{PageRun, PageState};
use super::process::OpenImage;
use super::ranges::Ranges;
use super::session_memfd::named_for;
use super::smaps::Mapping;
use super::summary::Row;
use crate::cramfs::show_name;
use crate::index::{FileIndex, NotDirect};
use crate::units::{ImageOffset, PageSize};

/// Why a page that is mapped is not run in place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Why {
    /// The index says that it cannot be.
    Index(NotDirect),
    /// It can be written to: a private page of the view, copied on the first store.
    Writable,
    /// It could be, but the process mapped the view's page.
    ThroughView,
    /// It is the view's, and which image that is could not be found out.
    Unknown,
    /// The launcher copied it; `xip-run --explain` gives the reason.
    Copied,
    /// It is a file of the host.
    Host,
    /// It is shared memory.
    SharedMemory,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Index(why) => return why.fmt(f),
            Self::Writable => "writable",
            Self::ThroughView => "through-view",
            Self::Unknown => "unknown",
            Self::Copied => "copied",
            Self::Host => "host",
            Self::SharedMemory => "shared-memory",
        })
    }
}

impl Serialize for Why {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Where a page of a file comes from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Place {
    InPlace(Class),
    Not(Why),
}

/// What tells one file from another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) enum Key {
    /// A file of an image, by their numbers.
    InImage(usize, usize),
    /// What is no file's in an image.
    NoFile(usize),
    /// A file by its device and inode.
    Other((u32, u32), u64),
}

/// A part of a mapping: pages of one file in one place, one behind the other.
struct Piece {
    key: Key,
    /// The first one's place in the file, bytes.
    offset: u64,
    len_bytes: u64,
    place: Place,
}

/// Pages of a mapping that are alike: of one file, in one place, in one state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    /// The first one's address.
    pub(super) address: u64,
    pub(super) key: Key,
    /// The first one's place in the file, bytes.
    pub(super) offset: u64,
    pub(super) len_bytes: u64,
    pub(super) place: Place,
    pub(super) state: PageState,
}

/// Pages of a file that are mapped, each once.
#[derive(Clone, Debug, Default)]
pub(super) struct PageSets {
    pub(super) mapped: Ranges,
    pub(super) touched: Ranges,
}

impl PageSets {
    pub(super) fn extend(&mut self, other: &Self) {
        self.mapped.extend(&other.mapped);
        self.touched.extend(&other.touched);
    }
}

/// The pages of a file that a process, or a session, maps.
#[derive(Clone, Debug, Default)]
pub(super) struct FilePages {
    pub(super) path: String,
    /// What is mapped, without private copies; a page that is mapped twice counts twice.
    pub(super) mappings: Sources,
    pub(super) places: BTreeMap<Place, PageSets>,
    /// Private copies, bytes.
    pub(super) copied_bytes: u64,
}

/// The pages of all files.
pub(super) type Files = HashMap<Key, FilePages>;

/// The view that a process has as its root directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) device: (u32, u32),
    /// Its image, if that is known.
    pub(super) image: Option<&'a OpenImage>,
}

impl<'a> View<'a> {
    /// That of a process which has a view of this device, if it has one.
    pub(super) fn new(device: Option<(u32, u32)>, image: Option<&'a OpenImage>) -> Option<Self> {
        device.map(|device| Self { device, image })
    }
}

/// Finds the files behind mappings.
pub(super) struct Finder<'a> {
    page: PageSize,
    /// The view of the process that is looked at.
    view: Option<View<'a>>,
    /// The number of its image.
    number: usize,
    /// All images that are mapped.
    images: Vec<Arc<ImageFiles>>,
    /// By the numbers of image and file.
    indexes: HashMap<(usize, usize), Option<FileIndex>>,
}

impl<'a> Finder<'a> {
    pub(super) fn new(page: PageSize) -> Self {
        Self {
            page,
            view: None,
            number: 0,
            images: Vec::new(),
            indexes: HashMap::new(),
        }
    }

    /// The mappings that are added next are of a process with this view.
    pub(super) fn enter(&mut self, view: Option<View<'a>>) {
        self.view = view;
        if let Some(image) = self.image() {
            self.number = self.number_of(&image.files);
        }
    }

    fn image(&self) -> Option<&'a OpenImage> {
        self.view?.image
    }

    /// The number of an image that was met.
    pub(super) fn known_number(&self, files: &Arc<ImageFiles>) -> Option<usize> {
        self.images
            .iter()
            .position(|known| Arc::ptr_eq(known, files))
    }

    /// The files of the image with a number.
    pub(super) fn image_files(&self, number: usize) -> Option<&Arc<ImageFiles>> {
        self.images.get(number)
    }

    /// The number of an image.
    fn number_of(&mut self, files: &Arc<ImageFiles>) -> usize {
        self.known_number(files).unwrap_or_else(|| {
            self.images.push(files.clone());
            self.images.len() - 1
        })
    }

    /// Adds the pages of a mapping, whose row in the report of a process `comm` is `row`, to `files`.
    pub(super) fn add(&mut self, files: &mut Files, seen: &SeenMapping, row: &Row, comm: &str) {
        for stretch in self.stretches(seen, row) {
            let pages = files.entry(stretch.key).or_insert_with(|| FilePages {
                path: self.name(stretch.key, &seen.mapping, comm),
                ..FilePages::default()
            });
            let sets = pages.places.entry(stretch.place).or_default();
            let len = stretch.len_bytes;
            let range = stretch.offset..stretch.offset.saturating_add(len);
            let sum = pages.mappings.of(stretch.place);
            if stretch.state == PageState::Copied {
                pages.copied_bytes += len;
            } else {
                sum.mapped_bytes += len;
                sets.mapped.insert(range.clone());
            }
            if stretch.state == PageState::Touched {
                sum.touched_bytes += len;
                sets.touched.insert(range);
            }
        }
    }

    /// The pages of a mapping, as long as they are alike; none if no file is behind it.
    pub(super) fn stretches(&mut self, seen: &SeenMapping, row: &Row) -> Vec<Stretch> {
        let SeenMapping { mapping, runs, .. } = seen;
        let page_bytes = self.page.bytes();
        let unknown = [PageRun {
            pages: mapping.size_bytes() / page_bytes,
            state: PageState::Absent,
        }];
        let runs: &[PageRun] = if runs.is_empty() { &unknown } else { runs };
        let mut runs = runs.iter();
        let (mut left, mut state) = (0, PageState::Absent);
        let mut address = mapping.start;
        let mut stretches = Vec::new();
        for piece in self.pieces(seen, row) {
            let mut at = piece.offset;
            let end = piece.offset.saturating_add(piece.len_bytes);
            while at < end {
                if left == 0 {
                    let Some(run) = runs.next() else { break };
                    (left, state) = (run.pages * page_bytes, run.state);
                }
                let len_bytes = left.min(end - at);
                stretches.push(Stretch {
                    address,
                    key: piece.key,
                    offset: at,
                    len_bytes,
                    place: piece.place,
                    state,
                });
                at += len_bytes;
                address += len_bytes;
                left -= len_bytes;
            }
        }
        stretches
    }

    /// What a mapping consists of; nothing if no file is behind it.
    fn pieces(&mut self, seen: &SeenMapping, row: &Row) -> Vec<Piece> {
        let SeenMapping { mapping, file, .. } = seen;
        let class = row.class;
        let itself = Key::Other(mapping.device, mapping.inode);
        let whole = |key, place| {
            vec![Piece {
                key,
                offset: mapping.offset_bytes,
                len_bytes: mapping.size_bytes(),
                place,
            }]
        };
        let of_view = self.view.is_some_and(|view| view.device == mapping.device);
        match class {
            Class::Anonymous | Class::Kernel | Class::Device | Class::Stub => Vec::new(),
            Class::CopiedPages => {
                let key = self.copied_of(mapping, row).unwrap_or(itself);
                whole(key, Place::Not(Why::Copied))
            }
            Class::SharedMemory => whole(itself, Place::Not(Why::SharedMemory)),
            // The kernel's own cramfs runs its files in place.
            _ if of_view => self.pieces_of_view(mapping, class),
            Class::FileCache => whole(itself, Place::Not(Why::Host)),
            Class::Flash | Class::FlashDax | Class::ImageCache | Class::ImageTmpfs => {
                match file.as_ref().and_then(|file| file.image_at(mapping)) {
                    Some((files, at)) => self.pieces_of_image(mapping, class, files, at),
                    None => whole(itself, Place::InPlace(class)),
                }
            }
        }
    }

    /// The file whose pages the launcher copied: that of the mappings before them, else the program that it launched,
    /// for which the memfd is named.
    fn copied_of(&self, mapping: &Mapping, row: &Row) -> Option<Key> {
        let open = self.image()?;
        let launched = named_for(&mapping.path)?;
        let path = row
            .program
            .as_ref()
            .map_or(launched, |path| path.as_bytes());
        let inode = open.image.lookup(path).ok()?;
        Some(Key::InImage(
            self.number,
            open.files.by_inode_number(inode.number())?,
        ))
    }

    fn pieces_of_image(
        &mut self,
        mapping: &Mapping,
        class: Class,
        files: &Arc<ImageFiles>,
        at: ImageOffset,
    ) -> Vec<Piece> {
        let number = self.number_of(files);
        let pieces = files.pieces(at, mapping.size_bytes(), self.page);
        let mut at = at.0;
        pieces
            .into_iter()
            .map(|piece| {
                let (key, offset) = match piece.file {
                    Some((file, offset)) => (Key::InImage(number, file), offset),
                    None => (Key::NoFile(number), at),
                };
                at += piece.len_bytes;
                Piece {
                    key,
                    offset,
                    len_bytes: piece.len_bytes,
                    place: Place::InPlace(class),
                }
            })
            .collect()
    }

    fn pieces_of_view(&mut self, mapping: &Mapping, class: Class) -> Vec<Piece> {
        let file = self
            .image()
            .and_then(|image| image.files.by_inode_number(mapping.inode));
        let key = match file {
            Some(file) => Key::InImage(self.number, file),
            None => Key::Other(mapping.device, mapping.inode),
        };
        let end = mapping.offset_bytes.saturating_add(mapping.size_bytes());
        let mut at = mapping.offset_bytes;
        let mut pieces = Vec::new();
        while at < end {
            let (len_bytes, place) = if class.in_place() {
                (end - at, Place::InPlace(class))
            } else {
                let (len_bytes, why) = self.why(file, at, mapping);
                (len_bytes.min(end - at), Place::Not(why))
            };
            pieces.push(Piece {
                key,
                offset: at,
                len_bytes,
                place,
            });
            at += len_bytes;
        }
        pieces
    }

    /// Why the page at byte `at` of a file of the view is not in place, and for how many bytes this is so.
    fn why(&mut self, file: Option<usize>, at: u64, mapping: &Mapping) -> (u64, Why) {
        // VmFlags `ac` (accounted memory) stays from the time when it could be written to.
        let writable = mapping.prot.write || mapping.has_flag(b"ac");
        let could_be = |known: bool| match (writable, known) {
            (true, _) => Why::Writable,
            (false, true) => Why::ThroughView,
            (false, false) => Why::Unknown,
        };
        let (Some(file), Some(open)) = (file, self.image()) else {
            return (u64::MAX, could_be(false));
        };
        let index = self.indexes.entry((self.number, file)).or_insert_with(|| {
            let inode = open.files.inode(file)?;
            FileIndex::new(&open.image, inode, self.page).ok()
        });
        let Some(index) = index else {
            return (u64::MAX, could_be(false));
        };
        match index.run_from(at / self.page.bytes()) {
            Some(run) => {
                let why = run.state.err().map_or(could_be(true), Why::Index);
                (run.pages * self.page.bytes(), why)
            }
            None => (u64::MAX, Why::Index(NotDirect::BeyondFile)),
        }
    }

    pub(super) fn name(&self, key: Key, mapping: &Mapping, comm: &str) -> String {
        let in_image = |image: usize, file| {
            let path = self.images.get(image)?.path(file, comm.as_bytes());
            Some(show_name(&path))
        };
        let path = show_name(&mapping.path);
        match key {
            Key::InImage(image, file) => in_image(image, file).unwrap_or(path),
            Key::NoFile(_) => format!("{path} (no file)"),
            Key::Other(..) => path,
        }
    }
}
