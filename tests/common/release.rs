//! The launcher as it is put on a board: static, optimized.
#![allow(dead_code, unreachable_pub)]

use std::path::{Path, PathBuf};
use std::process::Command;

pub const TARGET: &str = "x86_64-unknown-linux-musl";

/// Builds it; `None`, which is said, if its target is not installed.
pub fn launcher() -> Option<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
    let libraries = Command::new(rustc)
        .args(["--print=target-libdir", "--target", TARGET])
        .output()
        .unwrap();
    if !Path::new(String::from_utf8_lossy(&libraries.stdout).trim()).is_dir() {
        super::launch::skip(&format!(
            "{TARGET} is not installed (rustup target add {TARGET})"
        ));
        return None;
    }
    // A directory of its own: cargo holds a lock on the one that this test was built in.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("size");
    let output = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--quiet", "--release", "--bin", "xip-run"])
        .args(["--target", TARGET, "--target-dir"])
        .arg(&target)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(target.join(TARGET).join("release/xip-run"))
}
