//! May this process execute a program of the image? The rules of the kernel, as if the image were mounted.

use rustix::process::{getegid, geteuid, getgroups};
use rustix::thread::{CapabilitySet, capabilities};

use crate::cramfs::{Image, Inode, InodeKind, show_path};
use crate::error::{Error, Result};
use crate::plan::LaunchPlan;

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
