//! The library's unit tests on an architecture for which there is one emulated board only, under qemu-user.

mod common {
    pub mod launch;
    pub mod release;
}

use std::process::Command;

use common::launch::{have, text};
use common::release::{RISCV64, unit_tests};

/// What asks Linux itself, and gets another answer under qemu-user: it does not refuse each program that Linux refuses, and a
/// trial's child cannot be made (EINVAL).
const LINUXS: [&str; 2] = [
    "plan::tests::native::linux_shows_what_the_plan_shows",
    "sys::window::tests::what_is_stored_privately_does_not_reach_the_file",
];

#[test]
fn the_units_pass_on_riscv64() {
    if !have("qemu-riscv64") {
        return;
    }
    let Some(tests) = unit_tests(RISCV64) else {
        return;
    };
    let mut command = Command::new("qemu-riscv64");
    command.arg(tests).env("PROPTEST_CASES", "32");
    command.args(LINUXS.iter().flat_map(|name| ["--skip", name]));
    let output = command.output().unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", text(&output.stderr));
    let result = said
        .lines()
        .find_map(|line| line.strip_prefix("test result: ok. "))
        .unwrap_or_else(|| panic!("{said}"));
    println!("{result}");
    let passed: u32 = result.split(' ').next().unwrap().parse().unwrap();
    assert!(passed > 80, "{result}");
}
