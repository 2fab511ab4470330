//! kill(2) where the view's server is one of those that would be killed.
//!
//! An init that ends the system sends SIGKILL to everything there is, and may then still want to execute something. The
//! server of its root directory is to the system what a kernel thread is: it is not stopped and not killed, and who tries
//! is not told. All other signals it blocks itself. Only in a session that is the whole system; only in the PID namespace
//! of the server: in others its number is somebody else's.

use crate::arch::nr;
use crate::session_record;
use crate::sys::{self, Errno};

const SIGKILL: usize = 9;
const SIGCONT: usize = 18;
const SIGSTOP: usize = 19;
const EVERYBODY: usize = usize::MAX;

fn send(pid: usize, signal: usize) -> Result<usize, Errno> {
    // SAFETY: (1) signals to others; to itself the caller does not send any.
    unsafe { sys::kill(pid, signal) }
}

/// Trapped for SIGKILL and SIGSTOP, to everybody (-1) and to the server.
#[inline(never)]
pub fn kill(args: &[usize; 6]) -> Result<usize, Errno> {
    let &[pid, signal, ..] = args;
    let (pid, signal) = (pid as u32 as i32 as usize, signal as u32 as usize);
    if !in_first_pid_namespace() {
        return send(pid, signal);
    }
    if pid != EVERYBODY {
        // May the caller, and is the server there?
        return send(pid, 0);
    }
    // One call stops all, so that none can start another one that would be missed.
    let answer = send(EVERYBODY, SIGSTOP);
    let session = session_record();
    let (own, server) = (sys::getpid(), session.server as usize);
    if signal == SIGKILL {
        for pid in 2..=session.pid_max as usize {
            // The number of a thread is as good as its process's.
            // SAFETY: (1) nothing is sent.
            let is_own = unsafe { sys::raw(nr::TGKILL, [own, pid, 0, 0, 0, 0]) }.is_ok();
            if pid != server && !is_own {
                let _ = send(pid, SIGKILL);
            }
        }
    }
    let _ = send(server, SIGCONT);
    answer
}

/// `PROC_PID_INIT_INO`, include/linux/proc_ns.h. Without /proc, or such namespaces, there is no other to be in.
fn in_first_pid_namespace() -> bool {
    const FIRST: u64 = 0xefff_fffc;
    let path = c"/proc/self/ns/pid".as_ptr() as usize;
    sys::statx_at(sys::AT_FDCWD, path, 0).map_or(true, |stat| stat.ino == FIRST)
}
