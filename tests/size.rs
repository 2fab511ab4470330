//! How large the launcher is: it lies on the flash that it saves RAM for.

mod common {
    pub mod launch;
    pub mod release;
}

use common::release::{AARCH64, ARMV7, RISCV64, Target, X86_64, launcher_for};
use xip_run::session::{LAUNCH_STUB, SESSION_STUB};

const LAUNCHER_LIMIT: u64 = (1 << 20) + (64 << 10);
/// There is no musl to link with, and of glibc 0.4 MiB are in every static program.
const RISCV64_LIMIT: u64 = LAUNCHER_LIMIT + (120 << 10);
/// loader-stub/build.rs has the same.
const LAUNCH_STUB_LIMIT: usize = 8 << 10;
const SESSION_STUB_LIMIT: usize = 26 << 10;

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

/// Each target is a test of its own, for a build takes a minute; tests/rigs.rs uses the same ones.
fn is_small(target: Target, limit: u64) {
    let Some(launcher) = launcher_for(target) else {
        return;
    };
    let bytes = std::fs::read(&launcher).unwrap();
    let (name, len) = (target.name, bytes.len() as u64);
    println!("xip-run, static, stripped, {name}: {len} bytes, {limit} allowed");
    assert!(len <= limit, "{name}: {len} bytes");
    let elf = goblin::elf::Elf::parse(&bytes).unwrap();
    assert!(elf.interpreter.is_none(), "it is not static");
    assert!(elf.syms.is_empty(), "it is not stripped");
}

#[test]
fn the_launcher_is_small() {
    is_small(X86_64, LAUNCHER_LIMIT);
}

#[test]
fn the_launcher_for_aarch64_is_small() {
    is_small(AARCH64, LAUNCHER_LIMIT);
}

#[test]
fn the_launcher_for_armv7_is_small() {
    is_small(ARMV7, LAUNCHER_LIMIT);
}

#[test]
fn the_launcher_for_riscv64_is_small() {
    is_small(RISCV64, RISCV64_LIMIT);
}
