//! Finds the process that serves a view. It is in no namespace of the session: it has a descriptor of /dev/fuse.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use crate::report::proc::{Proc, processes};
use crate::report::status;
use crate::view::SERVER_NAME;

/// /dev/fuse: Linux `Documentation/admin-guide/devices.txt`.
const FUSE_DEVICE: (u32, u32) = (10, 229);

/// A process that may be the server of a view.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Process number, as it is seen from here.
    pub pid: u32,
    /// Its number as it knows it itself: in its own PID namespace.
    pub own_pid: u32,
    /// Is that namespace the session's?
    pub same_pid_namespace: bool,
    /// The FUSE connection that it serves, if the kernel tells: `fuse_connection` of fdinfo, Linux 6.16.
    pub connection: Option<u32>,
}

/// The server of `connection`: who serves it by the kernel's word; where it does not tell, who has the number that the
/// mount's source `named` ([`crate::view::server_of`]), of several (in containers) the one in the session's PID namespace.
///
/// # Errors
/// A sentence that says why it cannot be told.
pub fn choose(
    candidates: &[Candidate],
    connection: u32,
    named: Option<u32>,
) -> Result<&Candidate, String> {
    let mut sure = candidates.iter();
    if let Some(server) = sure.find(|one| one.connection == Some(connection)) {
        return Ok(server);
    }
    let possible: Vec<&Candidate> = candidates
        .iter()
        .filter(|one| one.connection.is_none() && Some(one.own_pid) == named)
        .collect();
    let here = possible.iter().find(|one| one.same_pid_namespace);
    match possible.as_slice() {
        [] => Err(format!(
            "there is no process {SERVER_NAME} that may be looked at and serves it"
        )),
        [server] => Ok(server),
        several => here.copied().ok_or_else(|| {
            let pids: Vec<_> = several.iter().map(|one| one.pid.to_string()).collect();
            format!(
                "Linux before 6.16 does not tell which of the processes {} it is",
                pids.join(", ")
            )
        }),
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
    let namespace = session.namespace("pid").ok();
    processes()
        .filter_map(|pid| Proc::open(pid).ok())
        .filter_map(|proc| {
            let status = status::parse(&proc.read("status").ok()?);
            if status.name != SERVER_NAME {
                return None;
            }
            let devices = proc.descriptors().filter(|(_, stat)| is_fuse(stat));
            let connections: Vec<Option<u32>> = devices
                .map(|(fd, _)| connection(&proc.read(&format!("fdinfo/{fd}")).unwrap_or_default()))
                .collect();
            (!connections.is_empty()).then(|| Candidate {
                pid: proc.pid,
                own_pid: status.own_pid.unwrap_or(proc.pid),
                same_pid_namespace: proc.namespace("pid").ok() == namespace,
                connection: connections.into_iter().flatten().next(),
            })
        })
        .collect()
}

fn is_fuse(stat: &Metadata) -> bool {
    let device = stat.rdev();
    let numbers = (rustix::fs::major(device), rustix::fs::minor(device));
    stat.file_type().is_char_device() && numbers == FUSE_DEVICE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(pid: u32, own_pid: u32, connection: Option<u32>) -> Candidate {
        Candidate {
            pid,
            own_pid,
            same_pid_namespace: pid == own_pid,
            connection,
        }
    }

    #[test]
    fn who_serves_it_by_the_kernels_word_is_the_server() {
        let both = [candidate(10, 10, Some(38)), candidate(20, 20, Some(39))];
        assert_eq!(choose(&both, 39, Some(10)).unwrap().pid, 20);
        // Of a kernel that tells, one that serves another serves no other.
        let err = choose(&both, 40, Some(10)).unwrap_err();
        assert!(err.contains("no process xip-view"), "{err}");
    }

    #[test]
    fn an_old_kernel_leaves_the_number_that_the_mount_has() {
        let all = [
            candidate(10, 10, None),
            candidate(20, 20, None),
            candidate(30, 20, None),
            candidate(40, 5, None),
            candidate(50, 5, None),
        ];
        assert_eq!(choose(&all, 39, Some(10)).unwrap().pid, 10);
        assert_eq!(choose(&all, 39, Some(20)).unwrap().pid, 20);
        let err = choose(&all, 39, Some(5)).unwrap_err();
        assert!(err.contains("of the processes 40, 50 it is"), "{err}");
        for named in [None, Some(30)] {
            let err = choose(&all, 39, named).unwrap_err();
            assert!(err.contains("no process xip-view"), "{err}");
        }
    }
}
