//! What was fetched for the rigs, and whether they can run.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "the tests of rigs are crates of their own"
)]

use std::path::{Path, PathBuf};

use super::launch::skip;
use super::rig::{Content, Rig};

/// Where tests/rigs/fetch puts what it fetches.
pub fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("rigs")
}

/// Can it run here? If not, says why.
pub fn possible(rig: &Rig) -> bool {
    let kernel = format!("{}-{}", rig.arch.debian, rig.kernel_suite);
    let kernel = cache().join("kernels").join(kernel).join("vmlinuz");
    let userland = cache().join("userland").join(rig.arch.debian);
    if !kernel.is_file() || !userland.is_dir() {
        skip("there is no kernel or userland of Debian's: tests/setup --rigs");
        return false;
    }
    let mut tools = vec![rig.arch.qemu];
    if rig.content == Content::Ext4 {
        tools.push("mkfs.ext4");
    }
    if rig.node.is_some() {
        tools.push("fdtput");
    }
    tools.iter().all(|tool| super::common::have_tool(tool))
}
