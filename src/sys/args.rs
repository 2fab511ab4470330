//! A `main` without Rust's runtime.
//!
//! The runtime sets SIGPIPE to be ignored and opens closed standard descriptors before `main`, and both would be
//! inherited by the program that is started. execve(2) changes neither, so the launcher must not either.

use std::ffi::{CStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;

/// The arguments of a C `main`.
///
/// # Safety
/// 1. `argv` must point to `argc` strings, as the C library passes them.
pub unsafe fn from_c(argc: c_int, argv: *const *const c_char) -> Vec<OsString> {
    (0..usize::try_from(argc).unwrap_or(0))
        .map(|i| {
            // SAFETY: (1) there are `argc` strings.
            let arg = unsafe { CStr::from_ptr(*argv.add(i)) };
            OsString::from_vec(arg.to_bytes().to_vec())
        })
        .collect()
}

/// Defines `main` as the C library calls it: collects the arguments, calls `$run(args) -> u8`, and returns its value.
#[macro_export]
macro_rules! c_main {
    ($run:path) => {
        #[unsafe(no_mangle)]
        extern "C" fn main(
            argc: std::ffi::c_int,
            argv: *const *const std::ffi::c_char,
        ) -> std::ffi::c_int {
            // SAFETY: (1) the C library calls this with its own arguments.
            let args = unsafe { $crate::sys::from_c(argc, argv) };
            std::ffi::c_int::from($run(args))
        }
    };
}
