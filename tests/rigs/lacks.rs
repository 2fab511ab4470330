//! Started in the place of /init: takes from the system what the seccomp filter in /filter says, as if the kernel did
//! not have it, and becomes /init. Built by tests/rigs/init.rs.

use std::ffi::{c_int, c_ulong};
use std::os::unix::process::CommandExt;
use std::process::Command;

unsafe extern "C" {
    fn prctl(option: c_int, ...) -> c_int;
}

const PR_SET_SECCOMP: c_int = 22;
const SECCOMP_MODE_FILTER: c_ulong = 2;

/// `struct sock_fprog`
#[repr(C)]
struct Program {
    len: u16,
    filter: *const u8,
}

fn main() {
    let filter = std::fs::read("/filter").unwrap();
    let program = Program {
        len: (filter.len() / 8) as u16,
        filter: filter.as_ptr(),
    };
    // SAFETY: the kernel reads so many instructions, wherever they are.
    let installed = unsafe { prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(installed, 0, "{}", std::io::Error::last_os_error());
    let failed = Command::new("/init").exec();
    panic!("/init: {failed}");
}
