//! The only unsafe code of the library: what rustix and std have no safe call for.

#![allow(unsafe_code)]

mod alloc;
mod args;
mod attempt;
mod exec;
mod lease;
mod mount;
mod process;
mod window;
#[allow(dead_code, reason = "some of it is the stub's only")]
#[allow(unreachable_pub, reason = "the same file is a part of the stub")]
#[path = "../../loader-stub/src/wire.rs"]
pub(crate) mod wire;

pub use alloc::{Arena, retire_arena};
pub use args::{from_c, set_title};
pub use attempt::{
    Ended, TimeLimit, access_effective, execute_nothing, expect_children, has_memory_map, in_child,
    in_child_within, install_seccomp_filter, map_without_replacing, no_core_dump, seccomp_filter,
    set_exe, set_memory_map,
};
pub use exec::{close_on_exec, execveat};
pub use lease::is_open_for_writing;
pub use mount::make_mounts_read_only;
pub use process::{
    block_all_signals, block_if_ignored, inherited, is_open, is_secure_execution, page_size, peek,
    run_detached, unshare,
};
pub use window::{CANNOT_FORK, Mapping, StoreError, Window, find_return};

/// A type that is all numbers, so that its bytes are its meaning.
///
/// # Safety
/// 1. It has no padding: every byte of a value is initialized.
pub(crate) unsafe trait Plain {}

// SAFETY: (1) eight-byte fields, and two arrays of as many bytes as a multiple of eight; wire.rs asserts the sizes.
unsafe impl Plain for wire::Record {}
// SAFETY: (1) as above.
unsafe impl Plain for wire::Mapping {}
// SAFETY: (1) as above, but for four-byte fields, all of the same size.
unsafe impl Plain for wire::File {}
// SAFETY: (1) the same.
unsafe impl Plain for wire::Run {}
// SAFETY: (1) eight-byte fields, and pairs of four bytes each.
unsafe impl Plain for wire::Session {}
// SAFETY: (1) eight-byte fields.
unsafe impl Plain for wire::Start {}
// SAFETY: (1) the same.
unsafe impl Plain for wire::Boot {}

/// The bytes of a value.
pub(crate) fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: `Plain` (1): all of it is initialized; the lifetime is the value's.
    unsafe { std::slice::from_raw_parts((&raw const *value).cast(), size_of::<T>()) }
}
