//! That all programs are built for every board, and how large they are: they lie on the flash that they save RAM for.

mod common {
    pub mod launch;
    pub mod release;
}

use common::release::{AARCH64, ARMV7, RISCV64, Target, X86_64, programs};
use xip_run::session::{LAUNCH_STUB, SESSION_STUB};

/// The most that each may have, bytes. Who measures needs not lie on the board.
const LIMITS: [(&str, u64); 3] = [
    ("xip-run", (1 << 20) + (64 << 10)),
    ("xip-image", (1 << 20) + (128 << 10)),
    ("xip-mem", (1 << 20) + (384 << 10)),
];
/// There is no musl to link with, and of glibc 0.4 MiB are in every static program.
const RISCV64_MORE: u64 = 120 << 10;
/// loader-stub/build.rs has the same.
const LAUNCH_STUB_LIMIT: usize = 8 << 10;
const SESSION_STUB_LIMIT: usize = 27 << 10;

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

fn are_small(target: Target, more: u64) {
    let Some(programs) = programs(target) else {
        return;
    };
    for (program, limit) in LIMITS {
        let bytes = std::fs::read(programs.join(program)).unwrap();
        let (len, limit) = (bytes.len() as u64, limit + more);
        let name = format!("{program}, static, stripped, {}", target.name);
        println!("{name}: {len} bytes, {limit} allowed");
        assert!(len <= limit, "{name}: {len} bytes");
        let elf = goblin::elf::Elf::parse(&bytes).unwrap();
        assert!(elf.interpreter.is_none(), "{name}: it is not static");
        assert!(elf.syms.is_empty(), "{name}: it is not stripped");
    }
}

#[test]
fn the_programs_are_small() {
    are_small(X86_64, 0);
}

#[test]
fn the_programs_for_aarch64_are_small() {
    are_small(AARCH64, 0);
}

#[test]
fn the_programs_for_armv7_are_small() {
    are_small(ARMV7, 0);
}

#[test]
fn the_programs_for_riscv64_are_small() {
    are_small(RISCV64, RISCV64_MORE);
}
