//! Looks at a live process: everything is opened below one descriptor of /proc/PID, so that it is one process throughout,
//! even if its number is used again.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::classify::{Class, MappedFile, classify};
use super::image_files::ImageFiles;
use super::session_memfd::{self, SessionImage};
use super::smaps::{self, Mapping};
use super::status;
use super::summary::{Report, Subject};
use crate::backing::FileBacking;
use crate::cramfs::{Image, show_name};
use crate::error::{Error, Result};

/// What tells one image from another: device, inode, length and time of the last change.
type ImageKey = (u64, u64, u64, i64, i64);

/// `f_type` of the filesystems whose files are RAM and nothing else: statfs(2).
const TMPFS_MAGIC: u32 = 0x0102_1994;
const RAMFS_MAGIC: u32 = 0x8584_58f6;

/// Measures processes; it remembers the images that it has walked.
#[derive(Debug, Default)]
pub struct Observer {
    images: HashMap<ImageKey, Arc<ImageFiles>>,
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
        let proc = Proc::open(pid)?;
        let status = status::parse(&proc.read("status")?);
        if status.page_table_bytes.is_none() {
            return Err(Error::failed(format!(
                "process {pid} ({}) has no memory of its own: it has ended, or is a kernel thread",
                status.name
            )));
        }
        let mappings = smaps::parse(&proc.read("smaps")?)
            .map_err(|err| err.context(format!("/proc/{pid}/smaps")))?;
        if mappings.is_empty() {
            return Err(proc.fail("smaps", Errno::SRCH.into()));
        }
        let session = session_memfd::find(&proc.dir);
        let session_image = session.as_ref().and_then(|(_, image)| image.as_ref());
        let mut files = HashMap::new();
        let mut notes = Vec::new();
        for mapping in mappings.iter().filter(|mapping| mapping.inode != 0) {
            files
                .entry((mapping.device, mapping.inode))
                .or_insert_with(|| self.look_at(&proc, mapping, session_image, &mut notes));
        }
        let subject = Subject {
            pid,
            status,
            kernel: kernel_version(),
            session_memfd: session.map(|(memfd, _)| memfd),
        };
        let mut report = Report::new(subject, &mappings, |mapping| {
            files.get(&(mapping.device, mapping.inode))?.as_ref()
        });
        report.notes.extend(notes);
        Ok(report)
    }

    /// Opens the file behind a mapping. `None`, with a note where it matters, if that cannot be done.
    fn look_at(
        &mut self,
        proc: &Proc,
        mapping: &Mapping,
        session_image: Option<&SessionImage>,
        notes: &mut Vec<String>,
    ) -> Option<MappedFile> {
        let path = show_name(&mapping.path);
        let file = match proc.open_mapped(mapping) {
            Ok(file) => file,
            // A deleted image is out of reach, but the session has kept its name.
            Err(_) if session_image.is_some_and(|image| image.is_mapped_by(mapping)) => {
                notes.push(format!(
                    "{path}: cannot be opened any more, so its files are not named, and it is taken for page cache; \
                     root can tell"
                ));
                return Some(MappedFile {
                    is_image: true,
                    ..MappedFile::default()
                });
            }
            Err(err) => {
                if classify(mapping, None) == Class::FileCache {
                    notes.push(format!(
                        "{path}: cannot be opened ({err}), so it is not known whether it is an image; root can tell"
                    ));
                }
                return None;
            }
        };
        let stat = rustix::fs::statx(&file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).ok();
        let dax = stat
            .as_ref()
            .is_some_and(|stat| stat.stx_attributes.contains(StatxAttributes::DAX));
        let regular = rustix::fs::fstat(&file)
            .ok()
            .filter(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        let image = regular.and_then(|_| self.image(&file, &path, notes));
        let on_tmpfs = rustix::fs::fstatfs(&file)
            .is_ok_and(|fs| [TMPFS_MAGIC, RAMFS_MAGIC].contains(&(fs.f_type as u32)));
        Some(MappedFile {
            dax,
            tmpfs_bytes: regular
                .filter(|_| on_tmpfs)
                .and(stat)
                .map(|stat| stat.stx_blocks * 512),
            is_image: image.is_some(),
            image,
        })
    }

    /// The files of the image, if `file`, an `O_PATH` descriptor of a regular file, is one.
    fn image(
        &mut self,
        file: &OwnedFd,
        path: &str,
        notes: &mut Vec<String>,
    ) -> Option<Arc<ImageFiles>> {
        let reopened = format!("/proc/self/fd/{}", file.as_raw_fd());
        let backing = FileBacking::open(Path::new(&reopened)).ok()?;
        let id = backing.identity();
        let image = Image::open(backing).ok()?;
        let key = (id.dev, id.ino, id.size, id.mtime_s, id.mtime_ns);
        let files = self.images.entry(key).or_insert_with(|| {
            let (files, damage) = ImageFiles::new(&image);
            notes.extend(damage.map(|damage| damage.context(path).to_string()));
            Arc::new(files)
        });
        Some(Arc::clone(files))
    }
}

/// A descriptor of /proc/PID.
struct Proc {
    pid: u32,
    dir: OwnedFd,
}

impl Proc {
    fn open(pid: u32) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(format!("/proc/{pid}"), flags, Mode::empty()) {
            Ok(dir) => Ok(Self { pid, dir }),
            Err(Errno::NOENT) if Path::new("/proc/self").exists() => Err(Error::failed(format!(
                "/proc/{pid}: no such process (or /proc is mounted with hidepid and it is another user's)"
            ))),
            Err(Errno::NOENT) => Err(Error::failed(
                "/proc is not mounted: mount -t proc proc /proc",
            )),
            Err(err) => Err(Error::failed(format!("open /proc/{pid}: {err}"))),
        }
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.dir, name, flags, Mode::empty())
            .map_err(|err| self.fail(name, err.into()))?;
        let mut text = Vec::new();
        File::from(fd)
            .read_to_end(&mut text)
            .map_err(|err| self.fail(name, err))?;
        Ok(text)
    }

    fn fail(&self, name: &str, err: io::Error) -> Error {
        let pid = self.pid;
        let way_out = match Errno::from_io_error(&err) {
            Some(Errno::ACCESS | Errno::PERM) => {
                "; it is another user's process, or a privileged one: run this as that user or as root"
            }
            Some(Errno::SRCH) => "; the process has ended",
            Some(Errno::NOENT) if Path::new("/proc/self").join(name).exists() => {
                "; the process has ended"
            }
            Some(Errno::NOENT) => "; this kernel is built without CONFIG_PROC_PAGE_MONITOR",
            _ => "",
        };
        Error::failed(format!("/proc/{pid}/{name}: {err}{way_out}"))
    }

    /// An `O_PATH` descriptor of the file behind a mapping: it opens no device and waits for no FIFO.
    ///
    /// map_files needs CAP_CHECKPOINT_RESTORE but knows the file even if it was deleted. Else the path is looked up below
    /// the process's root, and it must lead to the inode that smaps names. (The device is not compared: btrfs and
    /// overlayfs show another one to stat(2).)
    fn open_mapped(&self, mapping: &Mapping) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let by_address = format!("map_files/{:x}-{:x}", mapping.start, mapping.end);
        let denied = match rustix::fs::openat(&self.dir, by_address, flags, Mode::empty()) {
            Ok(file) => return Ok(file),
            Err(err) => err,
        };
        if mapping.deleted || !mapping.path.starts_with(b"/") {
            return Err(denied.into());
        }
        let by_path = [b"root".as_slice(), &mapping.path].concat();
        let file = rustix::fs::openat(&self.dir, by_path, flags, Mode::empty())?;
        if rustix::fs::fstat(file.as_fd())?.st_ino != mapping.inode {
            return Err(io::Error::other("another file has its name now"));
        }
        Ok(file)
    }
}

/// Major and minor version of the running kernel; 0, 0 if it is not told.
fn kernel_version() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
