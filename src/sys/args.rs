//! A `main` without Rust's runtime.
//!
//! The runtime sets SIGPIPE to be ignored and opens closed standard descriptors before `main`, and both would be
//! inherited by the program that is started. execve(2) changes neither, so the launcher must not either.

use std::ffi::{CStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;
use std::sync::OnceLock;

/// The strings of `argv`, which the kernel shows in /proc/PID/cmdline: where they start and how many bytes there are.
static STRINGS: OnceLock<(usize, usize)> = OnceLock::new();

/// The arguments of a C `main`.
///
/// # Safety
/// 1. `argv` must point to `argc` strings, as the C library passes them.
pub unsafe fn from_c(argc: c_int, argv: *const *const c_char) -> Vec<OsString> {
    let args: Vec<OsString> = (0..usize::try_from(argc).unwrap_or(0))
        .map(|i| {
            // SAFETY: (1) there are `argc` strings.
            let arg = unsafe { CStr::from_ptr(*argv.add(i)) };
            OsString::from_vec(arg.to_bytes().to_vec())
        })
        .collect();
    if !args.is_empty() {
        // SAFETY: (1) there is a first one.
        let start = unsafe { *argv } as usize;
        // They follow each other, binfmt_elf.c create_elf_tables().
        let len_bytes = args.iter().map(|arg| arg.len() + 1).sum();
        let _ = STRINGS.set((start, len_bytes));
    }
    args
}

/// Changes what /proc/PID/cmdline shows of this process: a child that does something else is not to be taken for its parent.
/// What there is no room for is cut off.
pub fn set_title(title: &[u8]) {
    if let Some(&(start, len)) = STRINGS.get() {
        // SAFETY: the strings of `argv` are this process's to write (the C standard, 5.1.2.2.1), and `from_c` has copied them.
        let strings = unsafe { std::slice::from_raw_parts_mut(start as *mut u8, len) };
        strings.fill(0);
        for (to, from) in strings.iter_mut().take(len - 1).zip(title) {
            *to = *from;
        }
    }
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
