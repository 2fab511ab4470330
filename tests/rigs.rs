//! Boards: kernels of Debian's in emulated machines, with the image in memory-mapped flash. Each of tests/rigs/*.rig boots
//! with an initramfs that holds the image against tests/rigs/acceptance.sh, and turns itself off.
//!
//! `tests/rigs/run NAME` fetches what is needed and runs one. What the machine said is kept in target/tmp/rigs/logs.

#[path = "rigs/mod.rs"]
mod boards;
#[path = "common/mod.rs"]
mod common;
#[path = "common/launch.rs"]
mod launch;
#[path = "common/release.rs"]
mod release;

use boards::possible::{Ground, cache, log};
use boards::{machine, rig, system};

/// A test for each.
macro_rules! rigs {
    ($($(#[$attribute:meta])? $test:ident: $name:literal,)*) => {
        const RIGS: &[&str] = &[$($name),*];
        $(
            #[test]
            $(#[$attribute])?
            fn $test() {
                boots($name);
            }
        )*
    };
}

rigs! {
    aarch64_16k_dax: "aarch64-16k-dax",
    #[ignore = "Debian has no such kernel: bring one, see tests/rigs/rig.rs"]
    aarch64_64k: "aarch64-64k",
    aarch64_dax_nor: "aarch64-dax-nor",
    armv7_a9_nor: "armv7-a9-nor",
    armv7_nor: "armv7-nor",
    riscv64_ram: "riscv64-ram",
    x86_64_dax: "x86_64-dax",
    x86_64_devices: "x86_64-devices",
    x86_64_nor: "x86_64-nor",
    x86_64_ram: "x86_64-ram",
    x86_64_virtio_pmem: "x86_64-virtio-pmem",
}

#[test]
fn every_rig_is_a_test() {
    assert_eq!(rig::names(), RIGS);
}

#[test]
fn a_machines_faults_are_seen() {
    let good = "[ 1.0] hrtimer: interrupt took 1 ns\nRIG: ok flash: a\nRIG: ok flash: b\nRIG: end: 2 passed, 0 failed\n";
    assert_eq!(machine::faults_of(good), [""; 0]);
    let said = |line: &str| machine::faults_of(&format!("[ 1.0] {line}\n{good}"));
    for line in [
        "WARNING: CPU: 0 PID: 1 at fs/fuse/dev.c:1 fuse_dev_read+0x1/0x2 [fuse]",
        "BUG: unable to handle page fault for address: 0",
        "Internal error: Oops: 17 [#1] SMP ARM",
        "Call trace:",
        "rcu: INFO: rcu_sched self-detected stall on CPU",
        "watchdog: BUG: soft lockup - CPU#0 stuck for 22s!",
        "INFO: task xip-run:160 blocked for more than 120 seconds.",
        "RIG: FAILED flash: c: status 1",
    ] {
        assert_eq!(said(line).len(), 1, "{line}");
    }
    for log in [
        // It has not come to its end, a check's line is missing, one has failed, there was none.
        "RIG: ok flash: a\n",
        "RIG: ok flash: a\nRIG: end: 2 passed, 0 failed\n",
        "RIG: ok flash: a\nRIG: end: 1 passed, 1 failed\n",
        "RIG: end: 0 passed, 0 failed\n",
    ] {
        assert_eq!(machine::faults_of(log).len(), 1, "{log}");
    }
}

#[track_caller]
fn boots(name: &str) {
    let Some(Ground { rig, programs, dir }) = Ground::new(name) else {
        return;
    };
    let system = system::make(&rig, &cache(), &programs, dir.path());
    let outcome = machine::boot(&rig, &system, dir.path(), &log(name));
    if !outcome.faults.is_empty() {
        panic!("{}\n{name}: {}\n", outcome.log, outcome.faults.join("\n"));
    }
    let ours = outcome.log.lines().filter(|line| line.starts_with("RIG: "));
    for line in ours {
        println!("{name}: {}", &line["RIG: ".len()..]);
    }
}
