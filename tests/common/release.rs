//! The programs as they are put on a board: static, optimized.
#![allow(dead_code, unreachable_pub)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

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

const ALL: [Target; 4] = [X86_64, AARCH64, RISCV64, ARMV7];

/// Builds the launcher for this machine; `None`, which is said, if its target is not installed.
pub fn launcher() -> Option<PathBuf> {
    is_installed(X86_64).then(|| {
        build(&[X86_64], &["--bin", "xip-run"]);
        directory_of(X86_64).join("xip-run")
    })
}

/// Builds all programs, once; the directory that they are in, or `None`, which is said, if that cannot be.
///
/// With those of all other targets: the end of a build, the optimization of one whole program, has one processor only, but
/// those of several builds can be done at the same time. Who names the tests to run, as `tests/rigs/run NAME` does, need
/// not wait for what they do not use.
pub fn programs(target: Target) -> Option<PathBuf> {
    static BUILT: Mutex<Vec<&str>> = Mutex::new(Vec::new());
    if !is_installed(target) {
        return None;
    }
    let mut built = BUILT.lock().expect("a build has failed");
    if !built.contains(&target.name) {
        let mut targets = ALL.to_vec();
        if std::env::args().any(|word| word == "--exact") {
            targets = vec![target];
        }
        targets.retain(|&target| is_installed(target));
        build(&targets, &["--bins"]);
        built.extend(targets.iter().map(|target| target.name));
    }
    Some(directory_of(target))
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
fn directory_of(target: Target) -> PathBuf {
    target_dir().join(target.name).join("release")
}

/// A directory of its own: cargo holds a lock on the one that this test was built in.
fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("size")
}

fn build(targets: &[Target], which: &[&str]) {
    let mut args = vec!["build", "--quiet", "--release"];
    args.extend(which);
    cargo(targets, &args);
}

/// Builds the library's unit tests, as fast as can be; `None`, which is said, if that cannot be.
pub fn unit_tests(target: Target) -> Option<PathBuf> {
    if !is_installed(target) {
        return None;
    }
    let said = cargo(
        &[target],
        &[
            "test",
            "--quiet",
            "--lib",
            "--no-run",
            "--message-format=json",
            "--config=profile.dev.debug=0",
            "--config=profile.dev.package.'*'.opt-level=0",
        ],
    );
    let tests = said.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message["executable"].as_str()?))
    });
    Some(tests.expect("cargo names what it has built"))
}

/// Runs cargo for those targets; what it said on standard output.
fn cargo(targets: &[Target], args: &[&str]) -> String {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(args)
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
    String::from_utf8(output.stdout).unwrap()
}
