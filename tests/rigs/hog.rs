//! Started in the place of /init: leaves a machine less RAM, and becomes /init. Built by tests/proof.rs, for each
//! architecture.
//!
//! A file in devtmpfs takes so many KiB as `hog=` on the kernel's command line says, from before the first process on. A
//! machine that has less to begin with would tell less: emulators' boot loaders want room for the kernel and what it is
//! unpacked from side by side, which is free again long before the prompt.

use std::ffi::{c_char, c_int, c_ulong, c_void};
use std::fs::File;
use std::io::{Read, copy, repeat};
use std::os::unix::process::CommandExt;
use std::process::Command;

unsafe extern "C" {
    fn mount(
        source: *const c_char,
        target: *const c_char,
        kind: *const c_char,
        flags: c_ulong,
        data: *const c_void,
    ) -> c_int;
}

const MS_REMOUNT: c_ulong = 32;

fn main() {
    let kib: u64 = std::env::var("hog").unwrap().parse().unwrap();
    let devtmpfs = c"devtmpfs".as_ptr();
    // By itself it is half of the RAM at most.
    let size = c"size=100%".as_ptr().cast();
    for flags in [0, MS_REMOUNT] {
        // SAFETY: strings of C; where it is mounted already the first fails, which is as good.
        unsafe { mount(devtmpfs, c"/dev".as_ptr(), devtmpfs, flags, size) };
    }
    // It is one file system, wherever it is mounted, and stays.
    let mut file = File::create("/dev/hog").unwrap();
    copy(&mut repeat(1).take(kib << 10), &mut file).unwrap();
    drop(file);
    std::fs::remove_file("/hog").unwrap();
    let failed = Command::new("/init").env_remove("hog").exec();
    panic!("/init: {failed}");
}
