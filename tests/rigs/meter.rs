//! The first process of a machine on which nothing else runs: measures what shells cost in RAM, and turns the machine off.
//! It shares no page with them. It says the KiB of the first one, those of each further one, and how many other threads have
//! come meanwhile: the kernel starts some of its own now and then, and each has a stack. Built by tests/proof.rs, for each architecture.

#[path = "mount.rs"]
mod mount;

use std::ffi::c_int;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use mount::mount;

unsafe extern "C" {
    fn reboot(command: c_int) -> c_int;
}

const FURTHER: i64 = 8;

/// Pages that are free, those of the processors' own lists too, which MemFree misses.
fn free_kib() -> i64 {
    let text = std::fs::read_to_string("/proc/zoneinfo").unwrap();
    let mut pages = 0;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        pages += match words.as_slice() {
            ["pages", "free", number] | ["count:", number] => number.parse::<i64>().unwrap(),
            _ => 0,
        };
    }
    pages * 4
}

/// Once nothing changes any more.
fn settled_kib() -> i64 {
    sleep(Duration::from_millis(600));
    let mut values: Vec<i64> = (0..5)
        .map(|_| {
            sleep(Duration::from_millis(60));
            free_kib()
        })
        .collect();
    values.sort_unstable();
    values[2]
}

/// How many threads there are, the kernel's too: proc_loadavg(5).
fn threads() -> i64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap();
    let (_, after) = text.split_once('/').unwrap();
    after.split(' ').next().unwrap().parse().unwrap()
}

/// A shell that waits for its first command. The environment is everywhere the same, however this process came to be: one
/// without PWD has to find out where it is, which takes a page.
fn shell() -> Child {
    Command::new("/bin/sh")
        .env_clear()
        .envs([("HOME", "/"), ("PATH", "/bin"), ("PWD", "/"), ("SHLVL", "1")])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap()
}

fn main() {
    mount(c"proc", c"/proc", 0, c"");
    // What the first of a measurement takes for itself.
    settled_kib();
    let before = settled_kib();
    let threads_before = threads();
    let mut shells = vec![shell()];
    let with_one = settled_kib();
    for _ in 0..FURTHER {
        shells.push(shell());
        sleep(Duration::from_millis(100));
    }
    let with_all = settled_kib();
    let further = (with_one - with_all) as f64 / FURTHER as f64;
    let others = threads() - threads_before - shells.len() as i64;
    println!("METER: {} {further:.1} {others}", before - with_one);
    sleep(Duration::from_millis(200));
    // SAFETY: RB_POWER_OFF.
    unsafe { reboot(0x4321_fedc) };
    sleep(Duration::from_secs(1000));
}
