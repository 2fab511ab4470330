//! How large the launcher is: it lies on the flash that it saves RAM for.

mod common {
    pub mod launch;
    pub mod release;
}

use common::release::{TARGET, launcher};
use xip_run::session::{LAUNCH_STUB, SESSION_STUB};

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
    let Some(launcher) = launcher() else { return };
    let bytes = std::fs::read(&launcher).unwrap();
    let len = bytes.len() as u64;
    println!("xip-run, static, stripped, {TARGET}: {len} bytes, {LAUNCHER_LIMIT} allowed");
    assert!(len <= LAUNCHER_LIMIT, "{len} bytes");
    let elf = goblin::elf::Elf::parse(&bytes).unwrap();
    assert!(elf.interpreter.is_none(), "it is not static");
    assert!(elf.syms.is_empty(), "it is not stripped");
}
