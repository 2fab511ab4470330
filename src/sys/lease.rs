//! Leases of files: fcntl(2) `F_SETLEASE`.

use std::os::fd::{AsRawFd, BorrowedFd};

/// Has somebody the file open for writing, or mapped so? Asked by a lease, which the kernel gives on a file that nobody writes to,
/// and which is given back at once. `None` if the file is another user's, or on a filesystem without leases.
///
/// To be asked of files only that nobody can open for writing any more: who did so meanwhile would have this process
/// signalled (SIGIO).
pub fn is_open_for_writing(file: BorrowedFd<'_>) -> Option<bool> {
    let lease = |kind: libc::c_int| {
        // SAFETY: it takes a number, and changes no memory.
        match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) } {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    match lease(libc::F_RDLCK) {
        Ok(()) => {
            let _ = lease(libc::F_UNLCK);
            Some(false)
        }
        Err(err) if err.raw_os_error() == Some(libc::EAGAIN) => Some(true),
        Err(_) => None,
    }
}
