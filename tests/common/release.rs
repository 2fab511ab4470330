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
    is_installed(target).then(|| {
        build(&[target], &["--bin", "xip-run"]);
        directory_of(target).join("xip-run")
    })
}

/// Builds all programs for those targets that are installed; that one is not is said.
pub fn build_programs(targets: &[Target]) {
    let mut targets = targets.to_vec();
    targets.retain(|&target| is_installed(target));
    if !targets.is_empty() {
        build(&targets, &["--bins"]);
    }
}

/// Can it be built for? If not, says why.
pub fn is_installed(target: Target) -> bool {
    let Target { name, linker, .. } = target;
    let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
    let libraries = Command::new(rustc)
        .args(["--print=target-libdir", "--target", name])
        .output()
        .unwrap();
    if !Path::new(String::from_utf8_lossy(&libraries.stdout).trim()).is_dir() {
        skip(&format!(
            "{name} is not installed (rustup target add {name})"
        ));
        return false;
    }
    // rustc brings its own.
    linker == "rust-lld" || have(linker)
}

/// Where the target's programs are, once they are built.
pub fn directory_of(target: Target) -> PathBuf {
    target_dir().join(target.name).join("release")
}

/// A directory of its own: cargo holds a lock on the one that this test was built in.
fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("size")
}

fn build(targets: &[Target], which: &[&str]) {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--quiet", "--release"])
        .args(which)
        .arg("--target-dir")
        .arg(target_dir());
    for target in targets {
        let name = target.name.to_uppercase().replace('-', "_");
        cargo
            .args(["--target", target.name])
            .env(format!("CARGO_TARGET_{name}_LINKER"), target.linker)
            .env(format!("CARGO_TARGET_{name}_RUSTFLAGS"), target.rustflags);
    }
    let output = cargo.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
