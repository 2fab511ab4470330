//! Looks at a live process, and at the files behind its mappings.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::classify::{Class, MappedFile, classify};
use super::image_files::ImageFiles;
use super::mountinfo;
use super::pagemap::PageRun;
use super::proc::Proc;
use super::session_memfd::{Identity, Memfds, SessionImage, is_session_memfd};
use super::smaps::{self, Mapping};
use super::summary::{Report, Row, Subject};
use crate::backing::{Backing, FileIdentity};
use crate::cramfs::{Image, show_name};
use crate::error::Result;
use crate::sys::wire::{self, ImageMap};

/// What tells one image from another: what holds it, and where in that it is.
type ImageKey = (FileIdentity, u64);

/// `f_type` of the filesystems whose files are RAM and nothing else: statfs(2).
const TMPFS_MAGIC: u32 = 0x0102_1994;
const RAMFS_MAGIC: u32 = 0x8584_58f6;

/// The pages of longer mappings are not looked at one by one: 8 MiB of /proc/PID/pagemap.
pub(super) const LOOKED_AT_BYTES: u64 = 4 << 30;

/// Measures processes; it remembers the images that it has walked.
#[derive(Debug, Default)]
pub struct Observer {
    images: HashMap<ImageKey, OpenImage>,
    /// The device of the view, by the root directories of processes.
    views: HashMap<(u64, u64), Option<(u32, u32)>>,
}

/// An image, and the files in it.
#[derive(Clone, Debug)]
pub struct OpenImage {
    /// The path by which it was met first.
    pub path: String,
    /// The image.
    pub image: Image,
    /// Its files.
    pub files: Arc<ImageFiles>,
}

/// What is known of a process before it is looked at.
#[derive(Default)]
pub(super) struct Known<'a> {
    /// The device of the view that it has as its root: the files there are no images, and opening them costs the server
    /// that is to be measured.
    pub(super) view: Option<(u32, u32)>,
    /// It is measured with its session, whose memfds are counted once for all of its processes.
    pub(super) in_session: bool,
    /// The image of its session, for where it cannot be opened by what the process maps of it.
    pub(super) image: Option<(SessionImage, MappedFile)>,
    /// The session memfds that each process of the machine uses.
    pub(super) memfds: Option<&'a [Vec<Identity>]>,
    /// Files that were opened for other processes.
    pub(super) files: Option<&'a HashMap<FileKey, MappedFile>>,
}

/// A process that was looked at.
#[derive(Debug)]
pub(super) struct Observed {
    pub(super) proc: Proc,
    /// One for every row of the report.
    pub(super) mappings: Vec<Mapping>,
    pub(super) memfds: Memfds,
    files: HashMap<FileKey, MappedFile>,
    pub(super) report: Report,
    /// The device of the view that it has as its root.
    pub(super) view: Option<(u32, u32)>,
}

/// Device and inode, as smaps shows them.
pub(super) type FileKey = ((u32, u32), u64);

impl Observed {
    /// The file behind a mapping, if it could be opened.
    pub(super) fn file(&self, mapping: &Mapping) -> Option<&MappedFile> {
        self.files.get(&(mapping.device, mapping.inode))
    }

    /// The pages of a mapping of a file; none, with a note, if it is too long to be looked at.
    pub(super) fn file_runs(
        &self,
        mapping: &Mapping,
        row: &Row,
        notes: &mut Vec<String>,
    ) -> Result<Vec<PageRun>> {
        if mapping.size_bytes() <= LOOKED_AT_BYTES {
            return self.proc.page_runs(mapping);
        }
        notes.push(format!(
            "process {}: {} is mapped for more than {} GiB; {} KiB of it that are touched are not counted",
            self.report.pid,
            row.path,
            LOOKED_AT_BYTES >> 30,
            mapping.rss_bytes / 1024
        ));
        Ok(Vec::new())
    }
}

/// Measures one process.
///
/// # Errors
/// As [`Observer::observe`].
pub fn observe(pid: u32) -> Result<Report> {
    Observer::default().observe(pid)
}

impl Observer {
    /// Measures the process `pid` as it is now. The kernel prints smaps piece by piece: of a process that is busy mapping
    /// and unmapping the figures are of slightly different times.
    ///
    /// # Errors
    /// If there is no such process, it has no memory (a zombie, a kernel thread), it belongs to somebody else, or the
    /// kernel has no smaps.
    pub fn observe(&mut self, pid: u32) -> Result<Report> {
        Ok(self.look_in_view(pid, Known::default())?.report)
    }

    /// The same, with what the report is made of.
    pub(super) fn look_in_view(&mut self, pid: u32, known: Known<'_>) -> Result<Observed> {
        let view = self.served_view(&Proc::open(pid)?);
        self.look(pid, &Known { view, ..known })
    }

    /// The same, of a process whose view is known.
    pub(super) fn look(&mut self, pid: u32, known: &Known<'_>) -> Result<Observed> {
        let proc = Proc::open(pid)?;
        let status = proc.status()?;
        let mappings = smaps::parse(&proc.read("smaps")?)
            .map_err(|err| err.context(format!("/proc/{pid}/smaps")))?;
        if mappings.is_empty() {
            return Err(proc.fail("smaps", Errno::SRCH.into()));
        }
        let memfds = Memfds::among(&proc, &mappings);
        let session_image = match &known.image {
            None => memfds.image(&proc),
            Some(_) => None,
        };
        let mut files = HashMap::new();
        let mut notes = Vec::new();
        for mapping in &mappings {
            let key = (mapping.device, mapping.inode);
            let skip = mapping.inode == 0 || known.view == Some(mapping.device);
            if skip || files.contains_key(&key) {
                continue;
            }
            let file = self.look_at(&proc, mapping, known, session_image.as_ref(), &mut notes);
            files.insert(key, file);
        }
        let files: HashMap<FileKey, MappedFile> = files
            .into_iter()
            .filter_map(|(key, file)| Some((key, file?)))
            .collect();
        let subject = Subject {
            pid,
            status,
            kernel: kernel_version(),
            session_memfd: match known.in_session {
                true => None,
                false => memfds.cost(known.memfds),
            },
        };
        let mut report = Report::new(subject, &mappings, |mapping| {
            files.get(&(mapping.device, mapping.inode))
        });
        report.notes.extend(notes);
        Ok(Observed {
            proc,
            mappings,
            memfds,
            files,
            report,
            view: known.view,
        })
    }

    /// Opens the file behind a mapping. `None`, with a note where it matters, if that cannot be done.
    fn look_at(
        &mut self,
        proc: &Proc,
        mapping: &Mapping,
        known: &Known<'_>,
        session_image: Option<&SessionImage>,
        notes: &mut Vec<String>,
    ) -> Option<MappedFile> {
        let path = show_name(&mapping.path);
        let of_session = known
            .image
            .as_ref()
            .map(|(image, _)| image)
            .or(session_image);
        if let Some(image) = of_session.filter(|image| image.is_mapped_by(mapping))
            && let Some(map) = &image.device
        {
            return match &known.image {
                Some((_, file)) => Some(file.clone()),
                None => {
                    let opened = proc.open_mapped(mapping).ok();
                    let fd = opened.as_ref().or(image.file.as_ref())?;
                    Some(self.describe_device(fd, map, &path, notes))
                }
            };
        }
        let opened = known
            .files
            .and_then(|files| files.get(&(mapping.device, mapping.inode)));
        if let Some(file) = opened {
            return Some(file.clone());
        }
        let err = match proc.open_mapped(mapping) {
            Ok(file) if is_session_memfd(mapping) => return Some(storage(&file)),
            Ok(file) => return Some(self.describe(&file, &path, notes)),
            Err(err) => err,
        };
        if let Some((image, file)) = &known.image
            && image.is_mapped_by(mapping)
        {
            return Some(file.clone());
        }
        // A deleted image is out of reach, but the session has kept its name, or a descriptor.
        if let Some(image) = session_image.filter(|image| image.is_mapped_by(mapping)) {
            if let Some(file) = &image.file {
                return Some(self.describe(file, &path, notes));
            }
            notes.push(format!(
                "{path}: cannot be opened any more, so its files are not named, and it is taken for page cache; root can \
                 tell"
            ));
            return Some(MappedFile {
                is_image: true,
                ..MappedFile::default()
            });
        }
        if classify(mapping, None) == Class::FileCache {
            notes.push(format!(
                "{path}: cannot be opened ({err}), so it is not known whether it is an image; root can tell"
            ));
        }
        None
    }

    /// What `file`, an `O_PATH` descriptor, is.
    pub(super) fn describe(
        &mut self,
        file: &OwnedFd,
        path: &str,
        notes: &mut Vec<String>,
    ) -> MappedFile {
        let image = self.image(file, path, notes);
        MappedFile {
            is_image: image.is_some(),
            image: image.map(|image| image.files),
            ..storage(file)
        }
    }

    /// What a device is that holds an image, or a file of which the image is a part.
    pub(super) fn describe_device(
        &mut self,
        fd: &OwnedFd,
        map: &ImageMap,
        path: &str,
        notes: &mut Vec<String>,
    ) -> MappedFile {
        let image = self.image_on_device(fd, map, path, notes);
        if image.is_none() {
            notes.push(format!(
                "{path}: cannot be opened, so the image's files are not named; root can"
            ));
        }
        MappedFile {
            is_image: true,
            image: image.map(|image| image.files),
            window: Some(map.shown..map.shown.saturating_add(map.len)),
            ..storage(fd)
        }
    }

    /// That image, and its files. `fd` is an `O_PATH` descriptor.
    pub(super) fn image_on_device(
        &mut self,
        fd: &OwnedFd,
        map: &ImageMap,
        path: &str,
        notes: &mut Vec<String>,
    ) -> Option<OpenImage> {
        let reopened = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let whole = map.flags & wire::IMAGE_WHOLE != 0;
        let backing = Backing::open_again(Path::new(&reopened), map.base, map.len, whole).ok()?;
        self.walk(backing, path, notes)
    }

    /// The image and its files, if `file`, an `O_PATH` descriptor, is one. Only a regular file is opened: to open a device
    /// can mean something, and it is not the caller who has named it.
    pub(super) fn image(
        &mut self,
        file: &OwnedFd,
        path: &str,
        notes: &mut Vec<String>,
    ) -> Option<OpenImage> {
        if !is_regular(file) {
            return None;
        }
        let reopened = format!("/proc/self/fd/{}", file.as_raw_fd());
        let backing = Backing::open(Path::new(&reopened)).ok()?;
        self.walk(backing, path, notes)
    }

    /// Walks an image that was not seen before.
    pub(super) fn walk(
        &mut self,
        backing: Backing,
        path: &str,
        notes: &mut Vec<String>,
    ) -> Option<OpenImage> {
        let key = (backing.identity(), backing.window().at);
        let image = Image::open(backing).ok()?;
        let known = self.images.entry(key).or_insert_with(|| {
            let (files, damage) = ImageFiles::new(&image);
            notes.extend(damage.map(|damage| damage.context(path).to_string()));
            let files = Arc::new(files);
            let path = path.to_owned();
            OpenImage { path, image, files }
        });
        Some(known.clone())
    }

    /// The device of the view that a process has as its root directory. The kernel takes long to print mountinfo: once
    /// for all processes that have the same root.
    pub(super) fn served_view(&mut self, proc: &Proc) -> Option<(u32, u32)> {
        let view = || {
            let mountinfo = proc.read("mountinfo").unwrap_or_default();
            let root = mountinfo::root(&mountinfo)?;
            (root.is_image() && root.is_served()).then_some(root.device)
        };
        match rustix::fs::statat(&proc.dir, "root", AtFlags::empty()) {
            Ok(root) => *self
                .views
                .entry((root.st_dev, root.st_ino))
                .or_insert_with(view),
            Err(_) => view(),
        }
    }

    /// All images that were seen.
    pub(super) fn images(&self) -> impl Iterator<Item = &OpenImage> {
        self.images.values()
    }

    /// What the image of these files is called.
    pub(super) fn name_of(&self, files: &Arc<ImageFiles>) -> Option<String> {
        self.image_of(files).map(|open| open.path.clone())
    }

    /// The image of these files, if it was opened.
    pub(super) fn image_of(&self, files: &Arc<ImageFiles>) -> Option<&OpenImage> {
        let mut images = self.images.values();
        images.find(|image| Arc::ptr_eq(&image.files, files))
    }
}

pub(in crate::report) fn is_regular(file: &OwnedFd) -> bool {
    rustix::fs::fstat(file)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

/// What a file's pages are, whatever is in them.
fn storage(file: &OwnedFd) -> MappedFile {
    let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).ok();
    let on_tmpfs = rustix::fs::fstatfs(file)
        .is_ok_and(|fs| [TMPFS_MAGIC, RAMFS_MAGIC].contains(&(fs.f_type as u32)));
    MappedFile {
        dax: stat
            .as_ref()
            .is_some_and(|stat| stat.stx_attributes.contains(StatxAttributes::DAX)),
        tmpfs_bytes: stat
            .filter(|_| on_tmpfs && is_regular(file))
            .map(|stat| stat.stx_blocks * 512),
        ..MappedFile::default()
    }
}

/// Major and minor version of the running kernel; 0, 0 if it is not told.
fn kernel_version() -> (u32, u32) {
    let system = rustix::system::uname();
    let mut numbers = system
        .release()
        .to_str()
        .unwrap_or_default()
        .split(|c: char| !c.is_ascii_digit())
        .map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
