//! Raises the view for the whole system, as its root directory: what switch_root(8) does, with the image as the new root.
//!
//! On entry: process 1, with /proc, /sys and /dev. On exit: the same process, with the image as its root directory, in the
//! mount namespace that all of the system has. Kernel threads share process 1's root directory, so what the kernel starts
//! itself (modprobe) is the image's too. [`SystemView::undo`] leads back, for as long as the old root is not freed.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::mount::UnmountFlags;
use rustix::pipe::PipeFlags;

use super::SERVER_NAME;
use super::bind::{Bind, host_directories};
use super::namespace::{
    apply, canonical_binds, change_root, failed, mount_fuse, open_directory, open_fuse,
};
use super::serve::{Descriptors, SYSTEM_SERVER, outlive_everything, serve_when_mounted};
use crate::cramfs::Image;
use crate::error::{Error, Result};
use crate::sys;

/// How long a server may take until it is ready.
const READY_LIMIT: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};
/// Directories without which no program can stay in place, or have a terminal.
const NEEDED: [&str; 2] = ["/proc", "/dev"];

/// Executes a server elsewhere; returns if it cannot.
pub type ServerProgram<'a> = &'a dyn Fn(Descriptors<'_>) -> Error;

/// The view, with the way back.
#[derive(Debug)]
pub struct SystemView {
    /// The server's process number.
    pub server: u32,
    /// Why the server is a copy of process 1, and not the program that it should be.
    pub not_elsewhere: Option<String>,
    /// What was the root directory.
    pub old_root: OwnedFd,
    new_root: OwnedFd,
    /// The old root is mounted over the new one.
    pivoted: bool,
}

/// Is the root directory the kernel's first one, which the initramfs was unpacked to? mountinfo says "rootfs".
pub fn is_initramfs() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut root = mounts
        .lines()
        .filter(|line| line.split(' ').nth(4) == Some("/"));
    root.next_back()
        .is_some_and(|line| line.contains(" - rootfs "))
}

/// Makes the image's tree the root directory of process 1. `program` is tried for the server first.
///
/// # Errors
/// [`Kind::Failed`](crate::error::Kind) or [`Kind::Lacking`](crate::error::Kind), with the call; the root directory is the
/// old one then.
pub fn raise_for_system(
    image: &Image,
    image_fd: BorrowedFd<'_>,
    wanted_binds: &[Bind],
    program: Option<ServerProgram<'_>>,
) -> Result<SystemView> {
    let mut binds = host_directories(image);
    for needed in NEEDED {
        if !binds.iter().any(|bind| bind.target == Path::new(needed)) {
            return Err(Error::failed(format!(
                "the image has no empty directory {needed}, which the system needs: add one to its tree"
            )));
        }
    }
    if is_initramfs() {
        // All else of it is freed.
        binds.retain(|bind| is_mount_point(&bind.source));
    }
    binds.extend(canonical_binds(wanted_binds)?);

    let device = open_fuse()?;
    let mut not_elsewhere = None;
    let started = match program {
        None => start(image, image_fd, &device, None),
        Some(_) => start(image, image_fd, &device, program).or_else(|err| {
            not_elsewhere = Some(err.to_string());
            start(image, image_fd, &device, None)
        }),
    };
    let (server, mounted) = started?;
    mount_fuse(
        &format!("{SERVER_NAME}:{server}"),
        &device,
        image.root().mode,
    )?;
    rustix::io::write(&mounted, b"!").map_err(|err| failed("tell the server", err))?;
    drop(device);

    let old_root = open_directory("/").map_err(|err| failed("open /", err))?;
    let new_root = open_directory("/..").map_err(|err| failed("open /..", err))?;
    let mut view = SystemView {
        server,
        not_elsewhere,
        old_root,
        new_root,
        pivoted: false,
    };
    match view.enter(&binds) {
        Ok(()) => Ok(view),
        Err(err) => {
            view.undo();
            Err(err)
        }
    }
}

fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    device(path) != path.parent().and_then(device)
}

impl SystemView {
    fn enter(&mut self, binds: &[Bind]) -> Result<()> {
        self.pivoted = change_root(&self.new_root).map_err(|err| failed("pivot_root", err))?;
        rustix::process::fchdir(&self.old_root)
            .map_err(|err| failed("fchdir to the old root", err))?;
        binds.iter().try_for_each(apply)?;
        rustix::process::chdir("/").map_err(|err| failed("chdir to /", err))
    }

    /// Lets go of an old root that is no initramfs. What is bound from it stays.
    ///
    /// # Errors
    /// If it cannot be unmounted.
    pub fn leave_old_root(&self) -> Result<()> {
        if self.pivoted {
            rustix::process::fchdir(&self.old_root)
                .and_then(|()| rustix::mount::unmount(".", UnmountFlags::DETACH))
                .and_then(|()| rustix::process::chdir("/"))
                .map_err(|err| failed("unmount the old root", err))?;
        }
        Ok(())
    }

    /// Makes the old root this process's root directory again, as far as that is possible, and ends the view.
    pub fn undo(&self) {
        let _ = rustix::process::fchdir(&self.new_root)
            .and_then(|()| rustix::mount::unmount(".", UnmountFlags::DETACH));
        let _ = rustix::process::fchdir(&self.old_root).and_then(|()| rustix::process::chroot("."));
    }
}

/// Starts a server, and returns its number and where it waits for the mount, once it is ready.
fn start(
    image: &Image,
    image_fd: BorrowedFd<'_>,
    device: &OwnedFd,
    program: Option<ServerProgram<'_>>,
) -> Result<(u32, OwnedFd)> {
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|err| failed("a pipe", err));
    let (is_ready, ready) = pipe()?;
    let (wait, mounted) = pipe()?;
    let keep = [image_fd, device.as_fd(), ready.as_fd(), wait.as_fd()];
    let server = sys::run_detached(&keep, || match program {
        // If it cannot, the other end of `ready` is closed.
        Some(program) => drop(program(Descriptors {
            device: device.as_fd(),
            ready: ready.as_fd(),
            mounted: wait.as_fd(),
        })),
        None => {
            sys::set_title(SYSTEM_SERVER.as_bytes());
            outlive_everything();
            let own = |fd: &OwnedFd| fd.try_clone();
            if let (Ok(device), Ok(ready), Ok(wait)) = (own(device), own(&ready), own(&wait)) {
                let _ = serve_when_mounted(image.clone(), device, ready, wait);
            }
        }
    })
    .map_err(|err| failed("start the server", err))?;
    drop(ready);
    let mut byte = [0];
    let mut fds = [PollFd::new(&is_ready, PollFlags::IN)];
    match rustix::event::poll(&mut fds, Some(&READY_LIMIT)) {
        Ok(1) if rustix::io::read(&is_ready, &mut byte) == Ok(1) => Ok((server, mounted)),
        Ok(0) => Err(Error::failed("the view's server does not get ready")),
        _ => Err(Error::failed("the view's server has ended")),
    }
}
