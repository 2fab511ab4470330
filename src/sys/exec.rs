//! execveat(2), with the environment as it is.

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

unsafe extern "C" {
    /// environ(7).
    static environ: *const *const c_char;
}

/// Executes the file of a descriptor (`AT_EMPTY_PATH`); returns only if that fails. The environment is passed on as
/// it is, not copied.
pub fn execveat(fd: BorrowedFd<'_>, argv: &[CString]) -> io::Error {
    let mut pointers: Vec<*const c_char> = argv.iter().map(|arg| arg.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let empty: &CStr = c"";
    // SAFETY: argv is terminated and its strings outlive the call; `environ` is the C library's, and nothing of this
    // program changes it or runs beside this thread.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            empty.as_ptr(),
            pointers.as_ptr(),
            environ,
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}

/// Closes a descriptor when this process executes something; of one that is not open, nothing.
pub fn close_on_exec(number: i32) {
    // SAFETY: the flag is the descriptor table's: nothing that the descriptor is of changes.
    unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
}
