//! How large the launcher is: it lies on the flash that it saves RAM for.

use std::path::Path;
use std::process::Command;

use xip_run::session::{LAUNCH_STUB, SESSION_STUB};

const TARGET: &str = "x86_64-unknown-linux-musl";
const LAUNCHER_LIMIT: u64 = 1 << 20;
/// loader-stub/build.rs has the same.
const LAUNCH_STUB_LIMIT: usize = 8 << 10;
const SESSION_STUB_LIMIT: usize = 20 << 10;

#[test]
fn the_stubs_are_small() {
    for (name, stub, limit) in [
        ("launch", LAUNCH_STUB, LAUNCH_STUB_LIMIT),
        ("session", SESSION_STUB, SESSION_STUB_LIMIT),
    ] {
        let len = stub.len();
        println!("the stub of a {name}: {len} bytes, {limit} allowed");
        assert!(len <= limit, "{len} bytes");
    }
}

#[test]
fn the_launcher_is_small() {
    let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
    let libraries = Command::new(rustc)
        .args(["--print=target-libdir", "--target", TARGET])
        .output()
        .unwrap();
    if !Path::new(String::from_utf8_lossy(&libraries.stdout).trim()).is_dir() {
        assert!(
            std::env::var_os("CI").is_none(),
            "{TARGET} is not installed"
        );
        println!("skipped: {TARGET} is not installed (rustup target add {TARGET})");
        return;
    }
    // A directory of its own: cargo holds a lock on the one that this test was built in.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("size");
    let output = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args([
            "build",
            "--quiet",
            "--release",
            "--bin",
            "xip-run",
            "--target",
            TARGET,
            "--target-dir",
        ])
        .arg(&target)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let launcher = target.join(TARGET).join("release/xip-run");
    let bytes = std::fs::read(&launcher).unwrap();
    let len = bytes.len() as u64;
    println!("xip-run, static, stripped, {TARGET}: {len} bytes, {LAUNCHER_LIMIT} allowed");
    assert!(len <= LAUNCHER_LIMIT, "{len} bytes");
    let elf = goblin::elf::Elf::parse(&bytes).unwrap();
    assert!(elf.interpreter.is_none(), "it is not static");
    assert!(elf.syms.is_empty(), "it is not stripped");
}
