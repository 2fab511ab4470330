//! A live process: everything is opened below one descriptor of /proc/PID, so that it is one process throughout, even if
//! its number is used again.

use std::ffi::CString;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::pagemap::{self, PageRun};
use super::smaps::Mapping;
use super::status::{self, Status};
use crate::error::{Error, Result};

/// The numbers of the processes that there are; those that end or begin while it is read may be among them or not.
pub fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A process, by a descriptor of /proc/PID.
#[derive(Debug)]
pub(super) struct Proc {
    pub(super) pid: u32,
    pub(super) dir: OwnedFd,
}

impl Proc {
    pub(super) fn open(pid: u32) -> Result<Self> {
        Self::open_at(&format!("/proc/{pid}"), pid)
    }

    fn open_at(path: &str, pid: u32) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(dir) => Ok(Self { pid, dir }),
            Err(Errno::NOENT) if Path::new("/proc/self").exists() => Err(Error::failed(format!(
                "/proc/{pid}: no such process (or /proc is mounted with hidepid and it is another user's)"
            ))),
            Err(Errno::NOENT) => Err(Error::failed(
                "/proc is not mounted: mount -t proc proc /proc",
            )),
            Err(err) => Err(Error::failed(format!("open {path}: {err}"))),
        }
    }

    /// Its status.
    ///
    /// # Errors
    /// If it cannot be read, or the process has no memory to measure.
    pub(super) fn status(&self) -> Result<Status> {
        let status = status::parse(&self.read("status")?);
        if status.page_table_bytes.is_none() {
            return Err(Error::failed(format!(
                "process {} ({}) has no memory of its own: it has ended, or is a kernel thread",
                self.pid, status.name
            )));
        }
        Ok(status)
    }

    /// This process.
    pub(super) fn own() -> Result<Self> {
        Self::open_at("/proc/self", std::process::id())
    }

    /// Where a symbolic link of its directory leads.
    pub(super) fn link(&self, name: &str) -> rustix::io::Result<CString> {
        rustix::fs::readlinkat(&self.dir, name, Vec::new())
    }

    /// One of its namespaces, as a name that no other one has: `mnt:[4026531841]`.
    pub(super) fn namespace(&self, name: &str) -> Result<CString> {
        let name = format!("ns/{name}");
        self.link(&name).map_err(|err| self.fail(&name, err.into()))
    }

    /// The pages of a mapping.
    pub(super) fn page_runs(&self, mapping: &Mapping) -> Result<Vec<PageRun>> {
        let page_bytes = crate::sys::page_size();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fail = |err: io::Error| self.fail("pagemap", err);
        let fd = rustix::fs::openat(&self.dir, "pagemap", flags, Mode::empty())
            .map_err(|err| fail(err.into()))?;
        let len = mapping.size_bytes() / page_bytes * pagemap::ENTRY_BYTES;
        let mut entries = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        File::from(fd)
            .read_exact_at(
                &mut entries,
                mapping.start / page_bytes * pagemap::ENTRY_BYTES,
            )
            .map_err(|err| match err.kind() {
                // What has no memory any more reads as empty.
                io::ErrorKind::UnexpectedEof => fail(Errno::SRCH.into()),
                _ => fail(err),
            })?;
        let pfn = mapping.has_flag(b"pf") || mapping.has_flag(b"mm");
        Ok(pagemap::runs(&entries, pfn))
    }

    /// Its descriptors, with what is behind each; none if they may not be seen.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = (RawFd, Metadata)> {
        // Follows the links to the open files, without opening them.
        let fds = format!("/proc/self/fd/{}/fd", self.dir.as_raw_fd());
        let entries = std::fs::read_dir(fds).into_iter().flatten().flatten();
        entries.filter_map(|entry| {
            let fd = entry.file_name().to_str()?.parse().ok()?;
            Some((fd, std::fs::metadata(entry.path()).ok()?))
        })
    }

    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>> {
        self.read_raw(name).map_err(|err| self.fail(name, err))
    }

    /// The same, with the bare error.
    pub(super) fn read_raw(&self, name: &str) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.dir, name, flags, Mode::empty())?;
        // Room for most of them. (`File::read_to_end` would ask for the size and the place first, which tell nothing here.)
        let mut text = Vec::with_capacity(16 << 10);
        loop {
            text.reserve(4 << 10);
            let room = rustix::buffer::spare_capacity(&mut text);
            match rustix::io::read(&fd, room) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(err) => return Err(err.into()),
            }
        }
        Ok(text)
    }

    pub(super) fn fail(&self, name: &str, err: io::Error) -> Error {
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
    pub(super) fn open_mapped(&self, mapping: &Mapping) -> io::Result<OwnedFd> {
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
