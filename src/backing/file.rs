//! An image in an ordinary file: works everywhere, unprivileged, and runs from the page cache.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, StatVfsMountFlags, fstatvfs};

use super::ReadAt;
use crate::error::{Error, Result};

/// What tells whether a file is still the one that was planned with: `(st_dev, st_ino, st_size, st_mtime)`.
///
/// The mtime changes with every write; the ctime would too, but also when the image is linked or renamed, which changes
/// no byte of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileIdentity {
    /// Device of the filesystem.
    pub dev: u64,
    /// Inode on it.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Last write, seconds.
    pub mtime_s: i64,
    /// Last write, nanoseconds within the second.
    pub mtime_ns: i64,
}

/// An image file, opened read-only.
#[derive(Debug)]
pub struct FileBacking {
    file: File,
    path: PathBuf,
    identity: FileIdentity,
}

impl FileBacking {
    /// Opens the image file at `path`, which is kept as an absolute path.
    ///
    /// # Errors
    /// If it cannot be opened or is not a regular file.
    pub fn open(path: &Path) -> Result<Self> {
        super::spec::require_file_spec(path)?;
        let fail = |what: &str, err: io::Error| {
            Error::failed(format!("{}: {what}: {err}", path.display()))
        };
        let absolute = std::path::absolute(path).map_err(|err| fail("absolute path", err))?;
        // O_NONBLOCK: a FIFO of that name must be refused, not waited for. It means nothing to a regular file.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(path)
            .map_err(|err| fail("open", err))?;
        let stat = file.metadata().map_err(|err| fail("fstat", err))?;
        if !stat.is_file() {
            return Err(Error::failed(format!(
                "{}: not a regular file; name an image file that `xip-image build` or mkfs.cramfs made",
                path.display()
            )));
        }
        let identity = FileIdentity {
            dev: stat.dev(),
            ino: stat.ino(),
            size: stat.size(),
            mtime_s: stat.mtime(),
            mtime_ns: stat.mtime_nsec(),
        };
        Ok(Self {
            file,
            path: absolute,
            identity,
        })
    }

    /// Can its pages be executed?
    ///
    /// # Errors
    /// [`Kind::NotRunnable`](crate::error::Kind) if it lies on a filesystem that is mounted `noexec`, where mmap(2)
    /// answers EPERM to `PROT_EXEC`; with the ways out.
    pub fn require_executable(&self) -> Result<()> {
        let noexec =
            fstatvfs(&self.file).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::NOEXEC));
        if !noexec {
            return Ok(());
        }
        Err(Error::not_runnable(format!(
            "{}: its filesystem is mounted noexec, so nothing can run in place from it; remount it with exec, move the \
             image, or run from RAM with --copy-text",
            self.path.display()
        )))
    }

    /// The absolute path it was opened by, symbolic links kept.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it was when it was opened.
    pub fn identity(&self) -> FileIdentity {
        self.identity
    }
}

impl AsFd for FileBacking {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl ReadAt for FileBacking {
    fn len_bytes(&self) -> u64 {
        self.identity.size
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, at)
    }
}
