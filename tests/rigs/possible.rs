//! Whether a rig can run here, and what it needs for that.
#![allow(dead_code, unreachable_pub, reason = "each test is a crate of its own")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::rig::{Rig, directory};
use super::system::run;
use crate::launch::skip;
use crate::{common, release};

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

/// A rig that can run here.
pub struct Ground {
    pub rig: Rig,
    /// Where xip-run and the others are, for its architecture.
    pub programs: PathBuf,
    /// Of this run's own.
    pub dir: TempDir,
}

impl Ground {
    /// `None`, which is said, if it cannot.
    pub fn new(name: &str) -> Option<Self> {
        Self::of(Rig::read(name))
    }

    /// The same of a rig that has been read.
    pub fn of(rig: Rig) -> Option<Self> {
        if !possible(&rig) {
            return None;
        }
        let programs = release::programs(rig.arch.target)?;
        let dir = tempfile::Builder::new()
            .prefix(&rig.name)
            .tempdir_in(cache())
            .unwrap();
        Some(Self { rig, programs, dir })
    }

    /// Where its programs and libraries are, as Debian has them.
    pub fn userland(&self) -> PathBuf {
        cache().join("userland").join(self.rig.arch.debian)
    }

    /// Builds tests/rigs/NAME.rs for it.
    pub fn helper(&self, name: &str) -> PathBuf {
        let target = self.rig.arch.target;
        let to = self.dir.path().join(name);
        run(Command::new("rustc")
            .args(["--edition=2024", "-Copt-level=s", "-Cpanic=abort"])
            .args(["-Cstrip=symbols", "--target", target.name])
            .arg(format!("-Clinker={}", target.linker))
            .args(target.rustflags.split_whitespace())
            .args([Path::new("-o"), &to])
            .arg(directory().join(format!("{name}.rs"))));
        to
    }
}

/// Where what a machine says is kept.
pub fn log(name: &str) -> PathBuf {
    let logs = cache().join("logs");
    fs::create_dir_all(&logs).unwrap();
    logs.join(format!("{name}.log"))
}
