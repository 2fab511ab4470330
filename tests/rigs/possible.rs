//! Whether a rig can run here.
#![allow(unreachable_pub, reason = "each test is a crate of its own")]

use std::path::{Path, PathBuf};

use super::rig::Rig;
use crate::common;
use crate::launch::skip;

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
        skip("there is no kernel or userland: tests/setup --rigs; tests/rigs/rig.rs");
        return false;
    }
    let mut tools = vec![rig.arch.qemu];
    if rig.has_ext4() {
        tools.push("mkfs.ext4");
    }
    if !rig.nodes.is_empty() {
        tools.push("fdtput");
    }
    tools.iter().all(|tool| common::have_tool(tool))
}
