//! What a board boots with when xip-run is its first process: the recipe in samples/boards/NAME, just as it is there.
#![allow(dead_code, unreachable_pub, reason = "each test is a crate of its own")]

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::machine::dump_tree;
use super::newc;
use super::rig::{Content, Rig, directory};
use super::system::{System, copy, make_flash, make_image, plant, run};

/// Programs of busybox that only a system needs.
const APPLETS: [&str; 10] = [
    "ash",
    "cttyhack",
    "free",
    "halt",
    "hostname",
    "pidof",
    "reboot",
    "setsid",
    "switch_root",
    "tty",
];
/// What a machine's first process is told beside the recipe: a panic is an end, and warnings are shown.
pub const SHORT: &str = "panic=-1 loglevel=5";

/// A recipe.
pub struct Board {
    pub directory: PathBuf,
    /// Its command line.
    pub cmdline: String,
    pub initramfs: String,
}

impl Board {
    pub fn read(name: &str) -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("samples/boards")
            .join(name);
        let read = |file: &str| fs::read_to_string(directory.join(file)).unwrap();
        Self {
            cmdline: read("cmdline").trim().to_owned(),
            initramfs: read("initramfs.list"),
            directory,
        }
    }

    /// Its device tree, if it needs another one than QEMU's.
    pub fn tree(&self, rig: &Rig, dir: &Path) -> Option<PathBuf> {
        let source = self.directory.join("flash.dtso");
        if !source.exists() {
            return None;
        }
        let (base, overlay, tree) = (
            dump_tree(rig, dir),
            dir.join("flash.dtbo"),
            dir.join("board.dtb"),
        );
        run(Command::new("dtc")
            .args(["-q", "-@", "-o"])
            .args([&overlay, &source]));
        run(Command::new("fdtoverlay")
            .arg("-i")
            .arg(base)
            .arg("-o")
            .args([&tree, &overlay]));
        Some(tree)
    }

    /// The initramfs, with more lines than its own.
    pub fn initramfs(&self, more: &str, programs: &Path, modules: &Path, to: &Path) {
        let list = format!("{}{more}", self.initramfs);
        let mut out = BufWriter::new(File::create(to).unwrap());
        let xip_run = programs.join("xip-run");
        let variables = [
            ("XIP_RUN", xip_run.as_path()),
            ("MODULES", modules),
            ("BOARD", &self.directory),
        ];
        newc::from_list(&list, &variables, &mut out).unwrap();
        out.flush().unwrap();
    }
}

/// The tree of an image that is a whole system: the programs, what samples/boards/root has, and the checks.
pub fn plant_system(userland: &Path, programs: &Path, root: &Path) {
    plant(userland, root);
    // With it the image would not fit into the smallest flash.
    fs::remove_file(root.join("bin/bash")).unwrap();
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    for name in ["proc", "sys", "dev", "tmp", "run", "mnt", "rig", "sbin"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    symlink("../bin/busybox", root.join("sbin/init")).unwrap();
    symlink("../bin/busybox", root.join("sbin/reboot")).unwrap();
    copy(&programs.join("xip-run"), &root.join("sbin/xip-run"));
    copy(&programs.join("xip-mem"), &root.join("rig/xip-mem"));
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/boards/root/.");
    run(Command::new("cp").arg("-a").args([&samples, root]));
    for name in ["init-checks", "children.sh", "input"] {
        copy(&directory().join(name), &root.join("rig").join(name));
    }
}

/// Builds the image of a tree and the flash with it.
pub fn make_system(rig: &Rig, cache: &Path, root: &Path, dir: &Path) -> System {
    let image = dir.join("rootfs.cramfs");
    make_image(rig, root, &image);
    let kernel = cache
        .join("kernels")
        .join(format!("{}-{}", rig.arch.debian, rig.kernel_suite));
    System {
        kernel: kernel.join("vmlinuz"),
        initramfs: dir.join("initramfs"),
        flash: make_flash(rig, &image, dir),
        image,
    }
}

/// The part of the flash that the image is run from: where it begins, its bytes, and what a recipe's flash.layout says of it.
pub fn layout(rig: &Rig) -> (u64, u64, &'static str) {
    let (&(content, bytes), before) = rig.flash.split_last().unwrap();
    let start = before.iter().map(|(_, bytes)| bytes).sum();
    match content {
        Content::Cramfs => (start, bytes, "rootfs.cramfs"),
        Content::Ext4 => (start, bytes, "ext4"),
    }
}
