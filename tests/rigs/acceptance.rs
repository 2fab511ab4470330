//! Each of tests/rigs/*.rig boots with an initramfs that holds the image against tests/rigs/acceptance.sh, and turns itself
//! off.

use super::boards::possible::{Ground, cache, log};
use super::boards::{machine, rig, system};

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

#[track_caller]
fn boots(name: &str) {
    let Some(ground) = Ground::new(name) else {
        return;
    };
    let cached = ground.helper("cached");
    let Ground { rig, programs, dir } = ground;
    let system = system::make(&rig, &cache(), &programs, &cached, dir.path());
    let outcome = machine::boot(&rig, &system, dir.path(), &log(name));
    if !outcome.faults.is_empty() {
        panic!("{}\n{name}: {}\n", outcome.log, outcome.faults.join("\n"));
    }
    let ours = outcome.log.lines().filter(|line| line.starts_with("RIG: "));
    for line in ours {
        println!("{name}: {}", &line["RIG: ".len()..]);
    }
}
