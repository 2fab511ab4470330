//! How large the launcher is: it lies on the flash that it saves RAM for.

mod common {
    pub mod launch;
    pub mod release;
}

use common::release::{TARGET, launcher};
use xip_run::session::{LAUNCH_STUB, SESSION_STUB};

const LAUNCHER_LIMIT: u64 = 1 << 20;
const STUB_LIMIT: usize = 16 << 10;

#[test]
fn the_stubs_are_small() {
    for (name, stub) in [("launch", LAUNCH_STUB), ("session", SESSION_STUB)] {
        let len = stub.len();
        println!("the stub of a {name}: {len} bytes, {STUB_LIMIT} allowed");
        assert!(len <= STUB_LIMIT, "{len} bytes");
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
