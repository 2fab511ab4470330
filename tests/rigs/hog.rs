//! Started in the place of /init: leaves a machine less RAM, and becomes /init. Built by tests/proof.rs, for each
//! architecture.
//!
//! A file in devtmpfs takes so many KiB as `hog=` on the kernel's command line says, from before the first process on. A
//! machine that has less to begin with would tell less: emulators' boot loaders want room for the kernel and what it is
//! unpacked from side by side, which is free again long before the prompt.

#[path = "mount.rs"]
mod mount;

use std::ffi::c_ulong;
use std::fs::File;
use std::io::{Read, copy, repeat};
use std::os::unix::process::CommandExt;
use std::process::Command;

use mount::mount;

const MS_REMOUNT: c_ulong = 32;

fn main() {
    let kib: u64 = std::env::var("hog").unwrap().parse().unwrap();
    for flags in [0, MS_REMOUNT] {
        // By itself it is half of the RAM at most.
        mount(c"devtmpfs", c"/dev", flags, c"size=100%");
    }
    // It is one file system, wherever it is mounted, and stays.
    let mut file = File::create("/dev/hog").unwrap();
    copy(&mut repeat(1).take(kib << 10), &mut file).unwrap();
    drop(file);
    std::fs::remove_file("/hog").unwrap();
    let failed = Command::new("/init").env_remove("hog").exec();
    panic!("/init: {failed}");
}
