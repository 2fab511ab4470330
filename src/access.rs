//! May this process execute a program? Of the image, by the rules of the kernel as if it were mounted; of the root directory
//! that it has by now, with the reason why not.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, FileType, StatVfsMountFlags, accessat};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid, getgid, getgroups, getuid};
use rustix::thread::{CapabilitySet, capabilities};

use crate::cramfs::{Image, Inode, InodeKind, show_path};
use crate::error::{Error, Result};
use crate::plan::LaunchPlan;
use crate::sys;

/// Nobody gets rights by xip-run: it executes whatever an image of the caller's has.
///
/// # Errors
/// [`Kind::Failed`](crate::error::Kind) if it was installed so that it has rights that its caller has not.
pub fn require_no_more_rights() -> Result<()> {
    // A security module's transition to another domain is a secure execution too, and no more than that.
    if !sys::is_secure_execution() {
        return Ok(());
    }
    let has_another_user = getuid() != geteuid() || getgid() != getegid();
    let has_file_capabilities =
        !getuid().is_root() && capabilities(None).is_ok_and(|sets| !sets.permitted.is_empty());
    if !has_another_user && !has_file_capabilities {
        return Ok(());
    }
    Err(Error::failed(
        "installed set-user-ID, set-group-ID or with capabilities, by which everybody could run anything with these rights: \
         take them away (chmod ug-s, setcap -r); users need none for a session of their own (--probe)",
    ))
}

/// Who asks.
struct Caller {
    uid: u32,
    gids: Vec<u32>,
    /// CAP_DAC_OVERRIDE: every directory may be searched, and every file executed that somebody may execute.
    overrides: bool,
}

impl Caller {
    fn this_process() -> Self {
        let mut gids = vec![getegid().as_raw()];
        gids.extend(
            getgroups()
                .unwrap_or_default()
                .iter()
                .map(|gid| gid.as_raw()),
        );
        let overrides = capabilities(None)
            .is_ok_and(|sets| sets.effective.contains(CapabilitySet::DAC_OVERRIDE));
        Self {
            uid: geteuid().as_raw(),
            gids,
            overrides,
        }
    }

    /// `fs/namei.c acl_permission_check()`: the owner's bit, else the group's, else everybody's.
    fn may_execute(&self, inode: &Inode) -> bool {
        let bits = match () {
            () if self.overrides && inode.kind == InodeKind::Directory => return true,
            () if self.overrides => 0o111,
            () if self.uid == u32::from(inode.uid) => 0o100,
            () if self.gids.contains(&u32::from(inode.gid)) => 0o010,
            () => 0o001,
        };
        inode.mode & bits != 0
    }

    /// The file at a path without links, and every directory on the way to it.
    fn require(&self, image: &Image, path: &[u8]) -> Result<()> {
        let ends = path
            .iter()
            .enumerate()
            .skip(1)
            .filter(|(_, byte)| **byte == b'/')
            .map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            let part = path.get(..end).unwrap_or_default();
            let inode = image.lookup_nofollow(part)?;
            if !self.may_execute(&inode) {
                return Err(Error::not_runnable(format!(
                    "{}: permission denied (EACCES): mode {:04o}, owner {}, group {} in the image",
                    show_path(part),
                    inode.mode & 0o7777,
                    inode.uid,
                    inode.gid
                )));
            }
        }
        Ok(())
    }
}

/// May this process execute the plan's program and its interpreter? Set-user-ID bits have no effect: nothing here could
/// honour them.
///
/// # Errors
/// [`Kind::NotRunnable`](crate::error::Kind) (EACCES) with what stands in the way.
pub fn require_executable(image: &Image, plan: &LaunchPlan) -> Result<()> {
    let caller = Caller::this_process();
    for object in plan.objects() {
        // Who may everything needs no look at the directories; the plan has found some x bit already.
        if caller.overrides {
            continue;
        }
        caller.require(image, &object.path)?;
    }
    Ok(())
}

/// May this process execute what is at a path of the root directory that it has by now? The kernel judges; what it only calls
/// EACCES is explained here. What is not there at all is not this function's to refuse.
///
/// # Errors
/// [`Kind::NotRunnable`](crate::error::Kind) with what stands in the way.
pub fn require_executable_here(path: &[u8]) -> Result<()> {
    let refusals = [Access::EXEC_OK, Access::READ_OK].map(|mode| refusal(path, mode));
    // A directory may be searched.
    let is_directory = || {
        rustix::fs::stat(path)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    };
    let why = match refusals {
        [Some(Errno::ACCESS), _] => denial(Path::new(OsStr::from_bytes(path))),
        [None, _] if is_directory() => "it is a directory".to_owned(),
        [None, Some(Errno::ACCESS)] => {
            "it may be executed, but not read, which a session must".to_owned()
        }
        _ => return Ok(()),
    };
    Err(Error::not_runnable(format!(
        "{}: permission denied (EACCES): {why}",
        show_path(path)
    )))
}

/// What the kernel says of the effective user's access, if that is no. Before Linux 5.8 it may not know (ENOSYS).
fn refusal(path: impl rustix::path::Arg, mode: Access) -> Option<Errno> {
    accessat(CWD, path, mode, AtFlags::EACCESS).err()
}

/// Why a path cannot be executed.
fn denial(path: &Path) -> String {
    let uid = geteuid().as_raw();
    let owned = |stat: &rustix::fs::Stat| {
        format!(
            "mode {:04o}, owner {}, group {}",
            stat.st_mode & 0o7777,
            stat.st_uid,
            stat.st_gid
        )
    };
    let Ok(stat) = rustix::fs::stat(path) else {
        // Root first.
        let ancestors: Vec<_> = path.ancestors().skip(1).collect();
        let closed = ancestors.iter().rev().find_map(|directory| {
            let stat = rustix::fs::stat(*directory).ok()?;
            refusal(*directory, Access::EXEC_OK)?;
            Some((directory.display(), owned(&stat)))
        });
        return match closed {
            Some((directory, owned)) => {
                format!("user {uid} may not search the directory {directory}: {owned}")
            }
            None => {
                format!("user {uid} may not search a directory that a link on the way leads to")
            }
        };
    };
    let is_noexec = || {
        rustix::fs::statvfs(path)
            .is_ok_and(|filesystem| filesystem.f_flag.contains(StatVfsMountFlags::NOEXEC))
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if stat.st_mode & 0o111 == 0 => {
            format!("nobody may execute it: {}", owned(&stat))
        }
        FileType::RegularFile if is_noexec() => {
            "it is on a filesystem that is mounted noexec".to_owned()
        }
        FileType::RegularFile => format!("user {uid} may not execute it: {}", owned(&stat)),
        _ => "it is not a regular file".to_owned(),
    }
}
