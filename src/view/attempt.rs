//! Which of the steps to a root view this kernel and this user can do: each is done, by a child that ends then.

use rustix::thread::UnshareFlags;

use super::namespace::{
    enter_mount_namespace, enter_user_namespace, may_mount, mount_fuse, open_fuse,
};
use crate::error::{Error, Result};
use crate::sys;

/// Mode of a directory.
const ROOT_MODE: u16 = 0o40755;

/// Has this process the right to mount, so that it needs no user namespace?
pub fn needs_no_user_namespace() -> bool {
    may_mount()
}

/// Enters a user namespace, if it is needed for a view, and there a mount namespace.
///
/// # Errors
/// [`Kind::Lacking`](crate::error::Kind), with the system call that was refused.
pub fn enter_namespaces() -> Result<()> {
    enter_needed_user_namespace()?;
    enter_mount_namespace()
}

/// Enters the user namespace that a session of this user has, if it has one.
///
/// # Errors
/// See [`enter_namespaces`].
pub fn enter_needed_user_namespace() -> Result<()> {
    match may_mount() {
        true => Ok(()),
        false => enter_user_namespace(),
    }
}

/// Enters a user namespace, whether it is needed or not.
///
/// # Errors
/// See [`enter_namespaces`].
pub fn enter_any_user_namespace() -> Result<()> {
    match may_mount() {
        false => enter_user_namespace(),
        // Who has other groups and users must not lose them; the mapping is for others.
        true => sys::unshare(UnshareFlags::NEWUSER)
            .map_err(|err| Error::lacking(format!("unshare(CLONE_NEWUSER): {err}"))),
    }
}

/// Opens a FUSE connection and closes it again.
///
/// # Errors
/// See [`enter_namespaces`].
pub fn open_fuse_device() -> Result<()> {
    open_fuse().map(drop)
}

/// Enters the namespaces, and mounts a FUSE file system that nobody serves over `/`.
///
/// # Errors
/// See [`enter_namespaces`].
pub fn mount_view() -> Result<()> {
    enter_needed_user_namespace()?;
    let device = open_fuse()?;
    enter_mount_namespace()?;
    mount_fuse("xip-run", &device, ROOT_MODE)
}
