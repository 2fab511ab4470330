//! Raises the view: the calling process gets the image as its root directory.
//!
//! On entry: a process of one thread, in its caller's namespaces. On exit: the same process in a mount namespace of
//! its own (and a user namespace, if it may not mount otherwise), whose root is the image's tree, served by a process
//! that stays outside. That process alone has the /dev/fuse descriptor: when the last process of the namespace is gone
//! the mount goes, read(2) says ENODEV, and the server ends. Were it inside, it would keep alive what it waits for.
//!
//! The image is mounted over `/`, which hides nothing: a process's absolute paths begin at the directory that it has as
//! root, not at what is mounted there. Only `/..` leads to the new mount. So all of the host is there to be bound from.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::{CapabilitySet, UnshareFlags};

use super::bind::{Bind, host_directories};
use super::same_tree::require_same_tree;
use super::serve::give_up_rights;
use super::server::{MAX_READ_BYTES, Server};
use crate::cramfs::Image;
use crate::error::{Error, Result};
use crate::sys::{self, Ended};
use crate::units::PageSize;

/// What the view is made of, beside the image.
#[derive(Clone, Debug, Default)]
pub struct ViewOptions {
    /// Put over the tree after the host's directories, in this order.
    pub binds: Vec<Bind>,
    /// Where the program starts; else the caller's directory, if the view has it, else `/`.
    pub workdir: Option<PathBuf>,
    /// A directory where the same tree is mounted already; no server is started then.
    pub existing: Option<PathBuf>,
    /// Where to add which pages the session touches: everything must come from the view for that.
    pub trace: Option<Arc<File>>,
    /// Programs run from flash, so what they touch of the view is little: no more than that is brought into RAM.
    pub sparing: bool,
}

/// What the server calls itself (prctl(2) `PR_SET_NAME`).
pub const SERVER_NAME: &str = "xip-view";

/// The server's process number, as the server knows it itself, by the source of a view's mount in mountinfo.
///
/// ```
/// assert_eq!(xip_run::view::server_of("xip-view:1234"), Some(1234));
/// assert_eq!(xip_run::view::server_of("/dev/mtdblock3"), None);
/// ```
pub fn server_of(source: &str) -> Option<u32> {
    let number = source.strip_prefix(SERVER_NAME)?.strip_prefix(':')?;
    number.parse().ok()
}

/// An error of a system call that was needed for the view.
pub(super) fn failed(what: impl std::fmt::Display, err: impl Into<io::Error>) -> Error {
    let err = err.into();
    let hint = match err.raw_os_error() {
        Some(libc::ENOTCONN | libc::ECONNABORTED) => "; its server has ended",
        _ => "",
    };
    Error::failed(format!("the root view: {what}: {err}{hint}"))
}

/// An error by which the kernel says that it has not enough of something just now, not that it has no such feature.
fn is_shortage(err: &io::Error) -> bool {
    matches!(
        err.raw_os_error(),
        Some(libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::EAGAIN)
    )
}

/// What may help where users may not have namespaces, or mount in them.
const NAMESPACES_HINT: &str = "run it as root, or let users have namespaces (CONFIG_USER_NS, Linux 4.18, sysctl \
    user.max_user_namespaces, kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0), or run \
    one program against the host's root with --no-root";

/// The same for a call that is refused then, and that has changed nothing.
fn refused(what: impl std::fmt::Display, err: impl Into<io::Error>) -> Error {
    let err = err.into();
    if is_shortage(&err) {
        return failed(what, err);
    }
    Error::lacking(format!("the root view: {what}: {err}; {NAMESPACES_HINT}"))
}

/// Makes the image's tree the root directory of this process. `image_fd` is the descriptor that `image` reads from.
///
/// Must be called while the process has one thread. If it fails for lack of a feature the process still has the host's root
/// directory and its rights in it, though perhaps namespaces of its own, and can go on there; else it is not fit for
/// anything but an exit. The server ends with the failure.
///
/// # Errors
/// [`Kind::Lacking`](crate::error::Kind) if this kernel, or this user, can have no root view, else
/// [`Kind::Failed`](crate::error::Kind); with the system call and the way out.
pub fn raise(image: &Image, image_fd: BorrowedFd<'_>, options: &ViewOptions) -> Result<()> {
    let wanted_binds = canonical_binds(&options.binds, "--bind ")?;
    let cwd = std::env::current_dir().ok();
    if !may_mount() {
        // There is no way back from a namespace: first what can be known outside.
        if options.existing.is_none() {
            open_fuse()?;
        }
        if !Path::new("/proc/self/uid_map").exists() {
            return Err(Error::lacking(
                "the root view: a user namespace needs /proc: mount it, or run it as root",
            ));
        }
        try_user_namespace()?;
        enter_user_namespace()?;
    }
    match &options.existing {
        Some(path) => {
            require_same_tree(image, path)?;
            let path = fs::canonicalize(path).map_err(|err| failed(path.display(), err))?;
            enter_mount_namespace()?;
            rustix::mount::mount_bind_recursive(&path, "/")
                .map_err(|err| refused(format!("bind {} over /", path.display()), err))?;
        }
        None => mount_image(image, image_fd, options)?,
    }
    // After the server has gone its way: what this leaves in memory is not the server's.
    let mut binds = host_directories(image);
    binds.extend(wanted_binds);
    let old_root = open_directory("/").map_err(|err| failed("open /", err))?;
    let new_root = open_directory("/..").map_err(|err| failed("open /..", err))?;
    let pivoted = change_root(&new_root).map_err(|err| failed("pivot_root", err))?;
    rustix::process::fchdir(&old_root).map_err(|err| failed("fchdir to the old root", err))?;
    for bind in &binds {
        apply(bind)?;
    }
    if pivoted {
        rustix::mount::unmount(".", UnmountFlags::DETACH)
            .map_err(|err| failed("unmount the old root", err))?;
    }
    enter_workdir(options.workdir.as_deref(), cwd.as_deref())
}

/// The caller's binds, which `option` asked for, their sources canonical: without links, which would lead elsewhere once the root is another.
pub(super) fn canonical_binds(binds: &[Bind], option: &str) -> Result<Vec<Bind>> {
    let canonical = |bind: &Bind| {
        let source = bind.source.canonicalize().map_err(|err| {
            Error::failed(format!(
                "{option}{}: on the host: {err}",
                bind.source.display()
            ))
        })?;
        Ok(Bind {
            source,
            ..bind.clone()
        })
    };
    binds.iter().map(canonical).collect()
}

/// May this process mount, without a user namespace of its own?
pub(super) fn may_mount() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// AppArmor lets users have namespaces in which they may do nothing, not even be somebody. Where it may do so, a child tries.
fn try_user_namespace() -> Result<()> {
    let restricted = fs::read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
    if !restricted.is_ok_and(|value| value.starts_with(b"1")) {
        return Ok(());
    }
    match sys::in_child(enter_user_namespace) {
        Ok(Ended::Failed(why)) => Err(Error::lacking(why)),
        _ => Ok(()),
    }
}

/// A user namespace in which the caller's user and group are what they are outside, and nobody else is anything.
pub(super) fn enter_user_namespace() -> Result<()> {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    sys::unshare(UnshareFlags::NEWUSER).map_err(|err| refused("unshare(CLONE_NEWUSER)", err))?;
    let write = |path: &str, text: String| {
        fs::write(path, &text).map_err(|err| {
            Error::failed(format!(
                "the root view: write {text:?} to {path}: {err}; {NAMESPACES_HINT}"
            ))
        })
    };
    // Before gid_map; Linux before 3.19 does not have it.
    match write("/proc/self/setgroups", "deny".to_owned()) {
        Err(_) if !Path::new("/proc/self/setgroups").exists() => {}
        answer => answer?,
    }
    write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    // Where the kernel has no such capability, or no ambient ones (Linux 4.3), the programs do without.
    let _ = keep_right_to_set_exe();
    Ok(())
}

/// Lets the session's programs keep CAP_CHECKPOINT_RESTORE of their user namespace when they are executed, so that the stub
/// can make them their own `/proc/self/exe`: prctl(2) `PR_SET_MM_MAP`. Of the namespace's other powers nothing is left.
///
/// An ambient capability is neither AT_SECURE's nor no_new_privs' business: capabilities(7). Outside it is worth nothing.
fn keep_right_to_set_exe() -> rustix::io::Result<()> {
    let mut sets = rustix::thread::capabilities(None)?;
    sets.inheritable |= CapabilitySet::CHECKPOINT_RESTORE;
    rustix::thread::set_capabilities(None, sets)?;
    rustix::thread::configure_capability_in_ambient_set(CapabilitySet::CHECKPOINT_RESTORE, true)
}

/// A mount namespace of which nothing is seen outside. What the host mounts later is seen inside.
pub(super) fn enter_mount_namespace() -> Result<()> {
    sys::unshare(UnshareFlags::NEWNS).map_err(|err| refused("unshare(CLONE_NEWNS)", err))?;
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags).map_err(|err| failed("make / a slave mount", err))
}

/// A FUSE connection, good for a mount in the user namespace that it is opened in.
pub(super) fn open_fuse() -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open("/dev/fuse", flags, Mode::empty()).map_err(|err| {
        let err = io::Error::from(err);
        if is_shortage(&err) {
            return failed("open /dev/fuse", err);
        }
        Error::lacking(format!(
            "the root view: open /dev/fuse: {err}; load the kernel's fuse module, let this user open it, name a mount of \
             the same tree with --view, or run one program against the host's root with --no-root"
        ))
    })
}

/// Starts the server, enters the mount namespace and mounts the image over `/`.
fn mount_image(image: &Image, image_fd: BorrowedFd<'_>, options: &ViewOptions) -> Result<()> {
    let device = open_fuse()?;
    // Both ends stay open here until the byte is written, so that no SIGPIPE can come.
    let (wait, go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|err| failed("pipe", err))?;
    let server = start_server(image, image_fd, &device, &wait, options)?;

    enter_mount_namespace()?;
    let source = format!("{SERVER_NAME}:{server}");
    mount_fuse(&source, &device, image.root().mode)?;
    File::from(go)
        .write_all(b"!")
        .map_err(|err| failed("tell the server", err))
}

/// Mounts what the other end of a FUSE connection serves over `/`.
pub(super) fn mount_fuse(source: &str, device: &OwnedFd, root_mode: u16) -> Result<()> {
    let data = format!(
        "fd={},rootmode={:o},user_id={},group_id={},default_permissions,allow_other,max_read={MAX_READ_BYTES}",
        std::os::fd::AsRawFd::as_raw_fd(device),
        root_mode,
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    let c_data =
        CString::new(data.as_str()).map_err(|err| failed("mount", io::Error::other(err)))?;
    rustix::mount::mount(source, "/", "fuse.cramfs", flags, c_data.as_c_str())
        .map_err(|err| refused(format!("mount fuse.cramfs over / with {data}"), err))
}

/// The server is started before the mount namespace is entered, and waits until the image is mounted: before, read(2)
/// on the descriptor fails. If the launch fails instead, the other end of the pipe is closed, and it ends. Returns its
/// process number.
fn start_server(
    image: &Image,
    image_fd: BorrowedFd<'_>,
    device: &OwnedFd,
    wait: &OwnedFd,
    options: &ViewOptions,
) -> Result<u32> {
    let trace = options.trace.as_deref();
    let mut keep = vec![image_fd, device.as_fd(), wait.as_fd()];
    keep.extend(trace.map(File::as_fd));
    sys::run_detached(&keep, || {
        // pkill -f of the program must not find its server.
        sys::set_title(SERVER_NAME.as_bytes());
        if give_up_rights().is_err() {
            return;
        }
        let mounted = wait
            .try_clone()
            .and_then(|wait| File::from(wait).read_exact(&mut [0]));
        if mounted.is_ok() {
            // Whatever it is, there is nobody to tell, and the kernel tells the session: ENOTCONN.
            sys::retire_arena();
            let mut server = Server::new(image.clone());
            if let Ok(page) = PageSize::of_running_kernel() {
                server = match trace {
                    Some(_) => server.recording(page),
                    None if options.sparing => server.sparing(page),
                    None => server,
                };
            }
            let _ = server.serve(device);
            if let (Some(touched), Some(Ok(mut file))) =
                (server.trace(), trace.map(File::try_clone))
            {
                let _ = touched.add_to(&mut file);
            }
        }
    })
    .map_err(|err| failed("start the server", err))
}

pub(super) fn open_directory(path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Makes `new` the root directory. False where the old root cannot be moved away: it is the kernel's first one (an
/// initramfs) or no mount point (in a chroot). It stays mounted then, where no path leads.
pub(super) fn change_root(new: &OwnedFd) -> rustix::io::Result<bool> {
    rustix::process::fchdir(new)?;
    match rustix::process::pivot_root(".", ".") {
        Ok(()) => Ok(true),
        Err(Errno::INVAL) => {
            rustix::process::chroot(".")?;
            Ok(false)
        }
        Err(err) => Err(err),
    }
}

/// Binds; the current directory is the host's root, `/` is the view's.
pub(super) fn apply(bind: &Bind) -> Result<()> {
    let source = match bind.source.strip_prefix("/") {
        Ok(path) if !path.as_os_str().is_empty() => path,
        _ => Path::new("."),
    };
    let target = bind.target.as_path();
    let fail = |what: &str, err: io::Error| {
        let hint = match err.raw_os_error() {
            Some(libc::ENOENT) => {
                "; nothing can be bound where the image has nothing: add it to the image"
            }
            Some(libc::ENOTDIR) => "; a directory goes over a directory, a file over a file",
            _ => "",
        };
        Error::failed(format!(
            "the root view: {what} {} to {}: {err}{hint}",
            bind.source.display(),
            target.display()
        ))
    };
    let bind_it = |recursive: bool| {
        match recursive {
            true => rustix::mount::mount_bind_recursive(source, target),
            false => rustix::mount::mount_bind(source, target),
        }
        .map_err(|err| fail("bind", err.into()))
    };
    bind_it(true)?;
    if !bind.read_only {
        return Ok(());
    }
    let path = CString::new(target.as_os_str().as_bytes())
        .map_err(|err| fail("bind", io::Error::other(err)))?;
    match sys::make_mounts_read_only(&path) {
        // Before Linux 5.12 only one mount can be made read-only, so only one is bound.
        Err(err) if err.raw_os_error() == Some(libc::ENOSYS) => {
            let again = |err: Errno| fail("bind read-only", err.into());
            rustix::mount::unmount(target, UnmountFlags::DETACH).map_err(again)?;
            bind_it(false)?;
            let there = rustix::fs::statvfs(target).map_err(again)?.f_flag;
            let mut kept = MountFlags::empty();
            for (flag, same) in [
                (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
                (StatVfsMountFlags::NODEV, MountFlags::NODEV),
                (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
            ] {
                kept.set(same, there.contains(flag));
            }
            rustix::mount::mount_remount(target, MountFlags::BIND | MountFlags::RDONLY | kept, "")
                .map_err(again)
        }
        answer => answer.map_err(|err| fail("bind read-only", err)),
    }
}

fn enter_workdir(wanted: Option<&Path>, cwd: Option<&Path>) -> Result<()> {
    // From here on no path may begin on the old root.
    rustix::process::chdir("/").map_err(|err| failed("chdir to /", err))?;
    match wanted {
        Some(dir) => rustix::process::chdir(dir).map_err(|err| {
            Error::failed(format!(
                "--workdir {}: in the view: {}",
                dir.display(),
                io::Error::from(err)
            ))
        }),
        None => {
            let _ = cwd.map(rustix::process::chdir);
            Ok(())
        }
    }
}
