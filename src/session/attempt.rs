//! Which steps of a session this kernel can do: each is done, most of them by a child that ends then.

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, OFlags, SealFlags};

use super::filter::{self, filter};
use super::{memfd, whole};
use crate::error::{Error, Result};
use crate::sys::{self, Ended};

/// What a stub says that is started without a session: `fail_launcher()` in loader-stub/src/error.rs.
const STUB_WITHOUT_SESSION: i32 = 125;

fn lacking(what: &str) -> impl Fn(std::io::Error) -> Error {
    move |err| Error::lacking(format!("{what}: {err}"))
}

/// Makes a memfd that cannot be executed, writes to it and seals it.
///
/// # Errors
/// [`Kind::Lacking`](crate::error::Kind), with what was refused; so for the others.
pub fn seal_memfd() -> Result<()> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Where vm.memfd_noexec is 2, and on older kernels.
    let memfd = rustix::fs::memfd_create("xip-run:probe", flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| rustix::fs::memfd_create("xip-run:probe", flags))
        .map_err(|err| lacking("memfd_create")(err.into()))?;
    let memfd = std::fs::File::from(memfd);
    memfd.write_all_at(b"x", 0).map_err(lacking("write"))?;
    rustix::fs::fcntl_add_seals(&memfd, SealFlags::WRITE | SealFlags::SHRINK)
        .map_err(|err| lacking("fcntl(F_ADD_SEALS)")(err.into()))
}

/// Makes a memfd as those of a session are.
///
/// # Errors
/// See [`seal_memfd`].
pub fn make_executable_memfd() -> Result<()> {
    memfd::sealed(b"probe", &[], 0).map(drop)
}

/// Executes the boot memfd of a session.
///
/// # Errors
/// See [`seal_memfd`].
pub fn execute_memfd() -> Result<()> {
    let boot = sys::wire::Boot {
        resident_len: sys::wire::PART,
        ..Default::default()
    };
    let boot = whole::boot_memfd(&boot, None)?;
    let ended = sys::in_child(|| {
        // It complains that there is no session.
        if let Ok(null) = rustix::fs::open("/dev/null", OFlags::WRONLY, rustix::fs::Mode::empty()) {
            let _ = rustix::stdio::dup2_stderr(null);
        }
        // From there it would read its start, and what is there may be the caller's.
        sys::close_on_exec(boot.as_raw_fd() - 1);
        Err(sys::execveat(boot.as_fd(), &[c"xip-run".to_owned()]))
    });
    match ended.map_err(lacking("a child"))? {
        Ended::Exited(STUB_WITHOUT_SESSION) => Ok(()),
        Ended::Failed(why) => Err(Error::lacking(format!("execveat of a memfd: {why}"))),
        other => Err(Error::lacking(format!("the loader stub: {other:?}"))),
    }
}

/// Installs the filter of a session in a child, and lets it trap. Returns whether it needed no_new_privs, so that set-user-ID
/// programs mean nothing in a session.
///
/// # Errors
/// See [`seal_memfd`].
pub fn trap() -> Result<bool> {
    // Nothing of this program is there.
    let session = filter::Session {
        kept: 1000..=1003,
        server: None,
    };
    let filter: Vec<_> = filter(&session).iter().map(|insn| insn.bytes()).collect();
    let trapped = |no_new_privs: bool| {
        sys::in_child(|| {
            sys::no_core_dump();
            if no_new_privs {
                rustix::thread::set_no_new_privs(true)?;
            }
            sys::install_seccomp_filter(&filter)?;
            sys::execute_nothing()
        })
        .map_err(lacking("a child"))
    };
    const KILLED: Ended = Ended::Killed(libc::SIGSYS);
    match (trapped(false)?, trapped(true)?) {
        (KILLED, _) => Ok(false),
        (_, KILLED) => Ok(true),
        (_, Ended::Failed(why)) => Err(Error::lacking(format!("seccomp(2): {why}"))),
        (_, other) => Err(Error::lacking(format!("a trap: {other:?}"))),
    }
}
