//! The server as a program of its own: process 1 starts it from the image, in place, where that carries xip-run. What the
//! server needs it is told by its arguments.
//!
//! Its `argv[0]` begins with `@`: so systemd's and other inits know the processes that hold the root file system, and do
//! not kill them (systemd.io, "Storage Daemons for the Root File System").

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::io::FdFlags;
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::SERVER_NAME;
use super::server::Server;
use crate::backing::Backing;
use crate::cramfs::Image;
use crate::error::{Error, Result};
use crate::sys;
use crate::units::PageSize;

/// `argv[0]` of a server that the whole system rests on.
pub const SYSTEM_SERVER: &str = "@xip-view";
/// What the arguments mean; the image's xip-run may be another version.
const PROTOCOL: &str = "1";

/// The descriptors that a server of the whole system has.
#[derive(Clone, Copy, Debug)]
pub struct Descriptors<'a> {
    /// /dev/fuse.
    pub device: BorrowedFd<'a>,
    /// A byte is written to it when the server is ready.
    pub ready: BorrowedFd<'a>,
    /// A byte comes from it when the image is mounted.
    pub mounted: BorrowedFd<'a>,
}

impl Descriptors<'_> {
    /// The arguments of the program, to which these descriptors are given.
    ///
    /// # Errors
    /// [`Kind::Failed`](crate::error::Kind) if it cannot be told where the image is.
    pub fn to_program(self, backing: &Backing) -> Result<Vec<CString>> {
        let fds = [self.device, self.ready, self.mounted];
        for fd in fds {
            rustix::io::fcntl_setfd(fd, FdFlags::empty())
                .map_err(|err| Error::failed(format!("fcntl: {err}")))?;
        }
        let window = backing.window();
        let mut args: Vec<Vec<u8>> = [SYSTEM_SERVER, PROTOCOL].map(Vec::from).to_vec();
        args.extend(fds.map(|fd| fd.as_raw_fd().to_string().into_bytes()));
        args.push(backing.path().as_os_str().as_bytes().to_vec());
        let numbers = [window.at, window.len_bytes, u64::from(window.whole_only)];
        args.extend(numbers.map(|number| number.to_string().into_bytes()));
        let c_string = |arg| CString::new(arg).map_err(|err| Error::failed(err.to_string()));
        args.into_iter().map(c_string).collect()
    }
}

/// Is this program to be such a server?
pub fn is_meant(args: &[OsString]) -> bool {
    args.first().is_some_and(|name| name == SYSTEM_SERVER)
}

/// Is the server, until the file system is gone. Returns an exit status.
pub fn run(args: Vec<OsString>) -> u8 {
    match serve(args) {
        Ok(()) => 0,
        // There is nobody to tell: who has started it goes on without it.
        Err(err) => err.kind().exit_code(),
    }
}

fn serve(args: Vec<OsString>) -> Result<()> {
    let bad = || Error::failed("not the arguments of a server");
    let args: [OsString; 9] = args.try_into().map_err(|_| bad())?;
    let [_, protocol, device, ready, mounted, path, at, len, whole] = args;
    if protocol != PROTOCOL {
        return Err(bad());
    }
    let number = |text: OsString| -> Result<u64> {
        let text = String::from_utf8(text.into_vec()).map_err(|_| bad())?;
        text.parse().map_err(|_| bad())
    };
    let descriptor = |text| -> Result<OwnedFd> {
        let number = RawFd::try_from(number(text)?).map_err(|_| bad())?;
        sys::inherited(number).map_err(|err| Error::failed(format!("descriptor {number}: {err}")))
    };
    let (device, ready, mounted) = (
        descriptor(device)?,
        descriptor(ready)?,
        descriptor(mounted)?,
    );
    let path = PathBuf::from(path);
    let backing = Backing::open_again(&path, number(at)?, number(len)?, number(whole)? != 0)?;
    let image = Image::open_shared(Arc::new(backing))?;
    image.require_runnable()?;
    sys::set_title(SYSTEM_SERVER.as_bytes());
    outlive_everything();
    serve_when_mounted(image, device, ready, mounted)
}

/// Nothing but SIGKILL and SIGSTOP comes through, and they are `loader-stub/src/kill.rs`' business; and it is not chosen
/// when memory is short.
pub(super) fn outlive_everything() {
    sys::block_all_signals();
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
}

/// A server without rights: it parses what somebody else wrote, and needs none for that. There is none that could not.
pub(super) fn give_up_rights() -> rustix::io::Result<()> {
    let _ = CString::new(SERVER_NAME).map(|name| rustix::thread::set_name(&name));
    rustix::thread::set_no_new_privs(true)?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none)
}

/// Says that it is ready, waits until the image is mounted (before, read(2) of the device fails), and serves. If the mount
/// fails the other end of `mounted` is closed. It is a whole system's, whose RAM counts more than the time of a page fault.
pub(super) fn serve_when_mounted(
    image: Image,
    device: OwnedFd,
    ready: OwnedFd,
    mounted: OwnedFd,
) -> Result<()> {
    let fail = |err: std::io::Error| Error::failed(format!("the server: {err}"));
    let page = PageSize::of_running_kernel()?;
    give_up_rights().map_err(|err| fail(err.into()))?;
    File::from(ready).write_all(b"!").map_err(fail)?;
    File::from(mounted).read_exact(&mut [0]).map_err(fail)?;
    sys::retire_arena();
    Server::new(image).sparing(page).serve(device).map_err(fail)
}
