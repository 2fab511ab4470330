//! mount(2), for the small programs that are started in a board's first moments.

use std::ffi::{CStr, c_char, c_int, c_ulong, c_void};

unsafe extern "C" {
    #[link_name = "mount"]
    fn mount_2(
        source: *const c_char,
        target: *const c_char,
        kind: *const c_char,
        flags: c_ulong,
        data: *const c_void,
    ) -> c_int;
}

/// Mounts a file system that has no device. Where it is mounted already this fails, which is as good.
pub fn mount(kind: &CStr, target: &CStr, flags: c_ulong, options: &CStr) {
    let name = kind.as_ptr();
    // SAFETY: strings of C.
    unsafe { mount_2(name, target.as_ptr(), name, flags, options.as_ptr().cast()) };
}
