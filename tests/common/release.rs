//! The launcher as it is put on a board: static, optimized.
#![allow(dead_code, unreachable_pub)]

use std::path::{Path, PathBuf};
use std::process::Command;

use super::launch::{have, skip};

/// What a board's programs are built for, and how: as the README says.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Rust's name.
    pub name: &'static str,
    pub linker: &'static str,
    pub rustflags: &'static str,
}

pub const X86_64: Target = Target {
    name: "x86_64-unknown-linux-musl",
    linker: "cc",
    rustflags: "",
};
pub const AARCH64: Target = Target {
    name: "aarch64-unknown-linux-musl",
    linker: "rust-lld",
    rustflags: "",
};
pub const RISCV64: Target = Target {
    name: "riscv64gc-unknown-linux-gnu",
    linker: "riscv64-linux-gnu-gcc",
    rustflags: "-Ctarget-feature=+crt-static",
};
/// Thumb code is a sixth smaller.
pub const ARMV7: Target = Target {
    name: "armv7-unknown-linux-gnueabihf",
    linker: "arm-linux-gnueabihf-gcc",
    rustflags: "-Ctarget-feature=+crt-static,+thumb-mode",
};

/// Builds it for this machine; `None`, which is said, if its target is not installed.
pub fn launcher() -> Option<PathBuf> {
    launcher_for(X86_64)
}

/// The same for another.
pub fn launcher_for(target: Target) -> Option<PathBuf> {
    let programs = build(target, &["--bin", "xip-run"])?;
    Some(programs.join("xip-run"))
}

/// Builds all programs for a target; the directory that they are in.
pub fn programs(target: Target) -> Option<PathBuf> {
    build(target, &["--bins"])
}

fn build(target: Target, which: &[&str]) -> Option<PathBuf> {
    let Target {
        name: target,
        linker,
        rustflags,
    } = target;
    let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
    let libraries = Command::new(rustc)
        .args(["--print=target-libdir", "--target", target])
        .output()
        .unwrap();
    if !Path::new(String::from_utf8_lossy(&libraries.stdout).trim()).is_dir() {
        skip(&format!(
            "{target} is not installed (rustup target add {target})"
        ));
        return None;
    }
    // rustc brings its own.
    if linker != "rust-lld" && !have(linker) {
        return None;
    }
    // A directory of its own: cargo holds a lock on the one that this test was built in.
    let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join("size");
    let variable = |name: &str| {
        let target = target.to_uppercase().replace('-', "_");
        format!("CARGO_TARGET_{target}_{name}")
    };
    let output = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--quiet", "--release"])
        .args(which)
        .args(["--target", target, "--target-dir"])
        .arg(&to)
        .env(variable("LINKER"), linker)
        .env(variable("RUSTFLAGS"), rustflags)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(to.join(target).join("release"))
}
