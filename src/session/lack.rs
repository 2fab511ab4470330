//! What a session needs of the kernel beside its root view. What a launcher asks here costs it a system call each.

use crate::error::{Error, Result};
use crate::sys;

/// Can the session have a filter, by which all of it stays in place?
///
/// # Errors
/// [`Kind::Lacking`](crate::error::Kind), with the way out.
pub fn require_filter() -> Result<()> {
    sys::seccomp_filter().map_err(|err| {
        Error::lacking(format!(
            "no seccomp filter: seccomp(2): {err}; use a kernel with CONFIG_SECCOMP_FILTER, or let this call through the \
             container's own filter"
        ))
    })
}

/// Can the session's programs be their own `/proc/self/exe`? To be asked in the user namespace that they will be in.
///
/// # Errors
/// [`Kind::Lacking`](crate::error::Kind), with the way out.
pub fn require_exe() -> Result<()> {
    sys::set_exe().map_err(|err| {
        Error::lacking(format!(
            "/proc/self/exe cannot be set: prctl(2) PR_SET_MM_MAP: {err}; use a kernel with CONFIG_CHECKPOINT_RESTORE (for \
             users who are not root Linux 5.9), or let this call through the container's own filter"
        ))
    })
}
