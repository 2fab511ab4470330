//! The file that an image is written into: without a name until it is whole, so that an interrupted build leaves nothing.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, OFlags};
use tempfile::NamedTempFile;

use crate::backing::ReadAt;

/// What a file is made with, less the umask, as any program makes files; tempfile's own is 0600.
const MODE: u32 = 0o666;
/// What a temporary name begins with.
const PREFIX: &str = ".xip-image-";

/// A file in the making.
pub(super) enum Output {
    /// `O_TMPFILE`: the kernel forgets it with the process.
    Unnamed { file: File, link: PathBuf },
    /// For filesystems without that, and where /proc is not mounted: removed unless the process is killed.
    Named(NamedTempFile),
}

impl Output {
    /// Makes it in the directory where it will be.
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        let unnamed = OpenOptions::new()
            .read(true)
            .write(true)
            .mode(MODE)
            .custom_flags(OFlags::TMPFILE.bits().cast_signed())
            .open(dir);
        if let Ok(file) = unnamed {
            let link = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
            if link.exists() {
                return Ok(Self::Unnamed { file, link });
            }
        }
        let named = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(MODE))
            .tempfile_in(dir);
        named.map(Self::Named)
    }

    pub(super) fn file(&self) -> &File {
        match self {
            Self::Unnamed { file, .. } => file,
            Self::Named(named) => named.as_file(),
        }
    }

    /// Gives it its name; a file that has it is replaced. `dir` is the directory it was made in.
    pub(super) fn persist(self, dir: &Path, path: &Path) -> io::Result<()> {
        let link = match self {
            Self::Named(named) => return named.persist(path).map(drop).map_err(|err| err.error),
            // The file is open until its last name is there.
            Self::Unnamed { ref link, .. } => link,
        };
        // linkat(2) replaces nothing, so a file that is there takes a second step.
        let name = |path: &Path| {
            let named = rustix::fs::linkat(CWD, link, CWD, path, AtFlags::SYMLINK_FOLLOW);
            named.map_err(io::Error::from)
        };
        match name(path) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
            done => return done,
        }
        let named = tempfile::Builder::new().prefix(PREFIX).make_in(dir, name)?;
        named.persist(path).map(drop).map_err(|err| err.error)
    }
}

/// What was written, to be read again.
pub(super) struct Written {
    file: File,
    len_bytes: u64,
}

impl Written {
    pub(super) fn new(file: &File) -> io::Result<Self> {
        Ok(Self {
            file: file.try_clone()?,
            len_bytes: file.metadata()?.len(),
        })
    }
}

impl ReadAt for Written {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, at)
    }
}
