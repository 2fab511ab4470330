//! The launcher as it is put on a board: static, optimized.
#![allow(dead_code, unreachable_pub)]

use std::path::{Path, PathBuf};
use std::process::Command;

use super::launch::{have, skip};

pub const TARGET: &str = "x86_64-unknown-linux-musl";

/// Builds it; `None`, which is said, if its target is not installed.
pub fn launcher() -> Option<PathBuf> {
    let programs = build(TARGET, "cc", "", &["--bin", "xip-run"])?;
    Some(programs.join("xip-run"))
}

/// Builds all programs for a target; the directory that they are in.
pub fn programs(target: &str, linker: &str, rustflags: &str) -> Option<PathBuf> {
    build(target, linker, rustflags, &["--bins"])
}

fn build(target: &str, linker: &str, rustflags: &str, which: &[&str]) -> Option<PathBuf> {
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
