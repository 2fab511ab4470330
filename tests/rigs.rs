//! Boards: kernels of Debian's in emulated machines, with the image in memory-mapped flash.
//!
//! `tests/rigs/run NAME` fetches what is needed and runs one. What the machine said is kept in target/tmp/rigs/logs. They
//! are all of one crate: its tests keep all processors busy to the end, and in the order of their names those that take
//! longest come first.

#[path = "rigs/acceptance.rs"]
mod acceptance;
#[path = "rigs/mod.rs"]
mod boards;
#[path = "rigs/calls.rs"]
mod calls;
#[path = "common/mod.rs"]
mod common;
#[path = "common/deny.rs"]
mod deny;
#[path = "rigs/init.rs"]
mod init;
#[path = "common/launch.rs"]
mod launch;
#[path = "common/release.rs"]
mod release;
#[path = "common/session_limits.rs"]
mod session_limits;
#[path = "common/session_lines.rs"]
mod session_lines;
#[path = "common/stored.rs"]
mod stored;

use boards::machine;
use common::image_bytes;

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
