//! Finds the process that serves a view. It is in no namespace of the session: it has a descriptor of /dev/fuse.

use std::fs::Metadata;
use std::os::fd::RawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use crate::report::proc::{Proc, processes};
use crate::sys;

/// What the server calls itself (prctl(2) `PR_SET_NAME`).
pub const SERVER_NAME: &str = "xip-view";

/// /dev/fuse: Linux `Documentation/admin-guide/devices.txt`.
const FUSE_DEVICE: (u32, u32) = (10, 229);

/// A process that may be the server of a view.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Process number.
    pub pid: u32,
    /// The FUSE connection that it serves, if the kernel tells: `fuse_connection` of fdinfo, Linux 6.16.
    pub connection: Option<u32>,
    /// Is it in the session's user namespace, as a server is?
    pub same_user_namespace: bool,
    /// Descriptors of regular files: its image.
    pub files: Vec<RawFd>,
}

/// The server of `connection`: who says that it serves it; where the kernel does not tell, who alone can be it, in the
/// same user namespace, and of several who has its image from the launcher of this session, as `is_relative` finds out.
///
/// # Errors
/// A sentence that says why it cannot be told.
pub fn choose(
    candidates: &[Candidate],
    connection: u32,
    mut is_relative: impl FnMut(&Candidate) -> bool,
) -> Result<&Candidate, String> {
    let mut sure = candidates.iter();
    if let Some(server) = sure.find(|one| one.connection == Some(connection)) {
        return Ok(server);
    }
    let possible: Vec<&Candidate> = candidates
        .iter()
        .filter(|one| one.connection.is_none() && one.same_user_namespace)
        .collect();
    match possible.as_slice() {
        [] => Err(format!(
            "there is no process {SERVER_NAME} that may be looked at and serves it"
        )),
        [server] => Ok(server),
        several => {
            let relatives: Vec<_> = several.iter().filter(|one| is_relative(one)).collect();
            if let [server] = relatives.as_slice() {
                return Ok(server);
            }
            let pids: Vec<_> = several.iter().map(|one| one.pid.to_string()).collect();
            Err(format!(
                "Linux before 6.16 does not tell which of the processes {} it is",
                pids.join(", ")
            ))
        }
    }
}

/// The FUSE connection of a descriptor of /dev/fuse, by its fdinfo: Linux `fs/fuse/dev.c`. `None` before 6.16, and where
/// nothing is mounted yet.
///
/// ```
/// use xip_run::report::session::server::connection;
/// assert_eq!(connection(b"pos:\t0\nino:\t90\nfuse_connection:\t39\n"), Some(39));
/// ```
pub fn connection(fdinfo: &[u8]) -> Option<u32> {
    let mut lines = fdinfo.split(|&byte| byte == b'\n');
    let value = lines.find_map(|line| line.strip_prefix(b"fuse_connection:"))?;
    std::str::from_utf8(value.trim_ascii()).ok()?.parse().ok()
}

/// All processes that may be servers of views, seen from a session's process.
pub(super) fn candidates(session: &Proc) -> Vec<Candidate> {
    let namespace = session.namespace("user").ok();
    processes()
        .filter_map(|pid| Proc::open(pid).ok())
        .filter(|proc| {
            let name = proc.read("comm");
            name.is_ok_and(|name| name.trim_ascii_end() == SERVER_NAME.as_bytes())
        })
        .filter_map(|proc| {
            let mut candidate = Candidate {
                pid: proc.pid,
                connection: None,
                same_user_namespace: proc.namespace("user").ok() == namespace,
                files: Vec::new(),
            };
            let mut has_device = false;
            for (fd, stat) in descriptors(proc.pid) {
                if stat.is_file() {
                    candidate.files.push(fd);
                } else if is_fuse(&stat) {
                    has_device = true;
                    let fdinfo = proc.read(&format!("fdinfo/{fd}")).unwrap_or_default();
                    candidate.connection = connection(&fdinfo).or(candidate.connection);
                }
            }
            has_device.then_some(candidate)
        })
        .collect()
}

/// Has a process of the session the same open file as the candidate? Only launcher and server can have had it both.
pub(super) fn is_relative(candidate: &Candidate, session: &[u32]) -> bool {
    let identity = |stat: &Metadata| (stat.dev(), stat.ino());
    let of_server: Vec<_> = descriptors(candidate.pid)
        .filter(|(fd, _)| candidate.files.contains(fd))
        .map(|(fd, stat)| (fd, identity(&stat)))
        .collect();
    session.iter().any(|&pid| {
        descriptors(pid).any(|(fd, stat)| {
            of_server.iter().any(|&(server_fd, file)| {
                file == identity(&stat)
                    && sys::is_same_open_file((pid, fd), (candidate.pid, server_fd))
                        .unwrap_or(false)
            })
        })
    })
}

/// Where a descriptor of a process can be opened anew.
pub(super) fn descriptor_path(pid: u32, fd: RawFd) -> PathBuf {
    format!("/proc/{pid}/fd/{fd}").into()
}

/// The descriptors of a process; none if they may not be seen.
pub(super) fn descriptors(pid: u32) -> impl Iterator<Item = (RawFd, Metadata)> {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .filter_map(move |entry| {
            let fd = entry.ok()?.file_name().to_str()?.parse().ok()?;
            // Follows the link to the open file, without opening it.
            Some((fd, std::fs::metadata(descriptor_path(pid, fd)).ok()?))
        })
}

fn is_fuse(stat: &Metadata) -> bool {
    let device = stat.rdev();
    let numbers = (rustix::fs::major(device), rustix::fs::minor(device));
    stat.file_type().is_char_device() && numbers == FUSE_DEVICE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(pid: u32, connection: Option<u32>, same_user_namespace: bool) -> Candidate {
        Candidate {
            pid,
            connection,
            same_user_namespace,
            files: vec![3],
        }
    }

    #[test]
    fn who_says_so_is_the_server() {
        let both = [candidate(10, Some(38), true), candidate(20, Some(39), true)];
        let asked = |_: &Candidate| -> bool { unreachable!("the kernel has told") };
        assert_eq!(choose(&both, 39, asked).unwrap().pid, 20);
        let err = choose(&both, 40, asked).unwrap_err();
        assert!(err.contains("no process xip-view"), "{err}");
    }

    #[test]
    fn an_old_kernel_leaves_the_only_one_or_the_relative_or_nobody() {
        let others = [candidate(10, None, false), candidate(20, None, true)];
        assert_eq!(choose(&others, 39, |_| false).unwrap().pid, 20);
        let two = [candidate(20, None, true), candidate(30, None, true)];
        assert_eq!(choose(&two, 39, |one| one.pid == 30).unwrap().pid, 30);
        for relatives in [false, true] {
            let err = choose(&two, 39, |_| relatives).unwrap_err();
            assert!(err.contains("of the processes 20, 30 it is"), "{err}");
        }
        // Of a kernel that tells, one that says nothing serves nothing.
        assert!(choose(&[], 39, |_| true).is_err());
    }

    #[test]
    fn a_descriptor_that_was_inherited_shows_kinship() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let copy = file.try_clone().unwrap();
        let again = std::fs::File::open("/proc/self/exe").unwrap();
        let fd = |file: &std::fs::File| std::os::fd::AsRawFd::as_raw_fd(file);
        let own = std::process::id();
        let server = |file| Candidate {
            files: vec![fd(file)],
            ..candidate(own, None, true)
        };
        match sys::is_same_open_file((own, fd(&file)), (own, fd(&again))) {
            Err(err) => {
                assert!(std::env::var_os("CI").is_none(), "kcmp(2): {err}");
                println!("skipped: kcmp(2): {err}");
            }
            Ok(same) => {
                assert!(!same);
                assert!(sys::is_same_open_file((own, fd(&file)), (own, fd(&copy))).unwrap());
                assert!(is_relative(&server(&copy), &[own]));
            }
        }
        assert!(!is_relative(&server(&file), &[]));
    }
}
