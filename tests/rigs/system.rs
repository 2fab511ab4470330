//! What a rig boots with: the tree that its image is made of, its initramfs, its flash.
#![allow(dead_code, unreachable_pub, reason = "each test is a crate of its own")]

use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::newc;
use super::rig::{Content, Rig, directory};

/// Programs that are busybox.
const APPLETS: [&str; 60] = [
    "[", "awk", "base64", "basename", "cat", "chmod", "chroot", "cmp", "cp", "cut", "date", "dd",
    "devmem", "diff", "dirname", "dmesg", "du", "echo", "env", "expr", "false", "find", "grep",
    "gzip", "head", "hexdump", "id", "insmod", "ip", "kill", "ln", "ls", "md5sum", "mkdir",
    "mknod", "mktemp", "mount", "mv", "poweroff", "printf", "ps", "pwd", "readlink", "rm", "sed",
    "seq", "setpriv", "sh", "sleep", "sort", "stat", "su", "tail", "test", "timeout", "tr", "true",
    "umount", "uname", "wc",
];
/// Programs that are linked dynamically, and where they are in their packages.
const DYNAMIC: [&str; 13] = [
    "bin/bash",
    "bin/dash",
    "bin/ls",
    "bin/sleep",
    "bin/true",
    "usr/bin/env",
    "usr/bin/paste",
    "usr/bin/seq",
    "usr/bin/sort",
    "usr/bin/tail",
    "usr/bin/tr",
    "usr/bin/uniq",
    "usr/bin/wc",
];
/// The host's directories, in the view.
const EMPTY: [&str; 6] = ["dev", "proc", "rig", "run", "sys", "tmp"];

/// Files of a rig, in a directory of its own.
pub struct System {
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
    pub flash: PathBuf,
    pub image: PathBuf,
}

/// Makes them. `cache` has what tests/rigs/fetch has fetched, `programs` xip-run and the others for this architecture, and
/// `cached` is tests/rigs/cached.rs for it.
pub fn make(rig: &Rig, cache: &Path, programs: &Path, cached: &Path, dir: &Path) -> System {
    let image_root = dir.join("image");
    plant(&cache.join("userland").join(rig.arch.debian), &image_root);
    for name in EMPTY {
        fs::create_dir(image_root.join(name)).unwrap();
    }
    let image = dir.join("rootfs.cramfs");
    make_image(rig, &image_root, &image);

    let kernel = format!("{}-{}", rig.arch.debian, rig.kernel_suite);
    let kernel = cache.join("kernels").join(kernel);
    let root = dir.join("root");
    run(Command::new("cp").arg("-al").args([&image_root, &root]));
    fs::create_dir(root.join("etc")).unwrap();
    fs::write(root.join("etc/passwd"), "user:x:1000:1000::/:/bin/sh\n").unwrap();
    for name in ["flash", "modules"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    for name in ["xip-run", "xip-mem", "xip-image"] {
        copy(&programs.join(name), &root.join("rig").join(name));
    }
    copy(cached, &root.join("rig/cached"));
    for name in [
        "acceptance.sh",
        "children.sh",
        "exec",
        "pipes.sh",
        "pipes.bash",
        "input",
    ] {
        copy(&directory().join(name), &root.join("rig").join(name));
    }
    copy(&directory().join("init"), &root.join("init"));
    for entry in fs::read_dir(kernel.join("modules")).unwrap() {
        let entry = entry.unwrap();
        copy(&entry.path(), &root.join("modules").join(entry.file_name()));
    }
    for (name, lines) in [
        ("images", &rig.images),
        ("also", &rig.also),
        ("refused", &rig.refused),
        ("failing", &rig.failing),
        ("setup", &rig.setup),
    ] {
        let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(root.join("rig").join(name), lines).unwrap();
    }
    // Text and constants of the smallest of them; whatever the architecture, they are most of the program.
    let kib = |name: &str| fs::metadata(image_root.join(name)).unwrap().len() / 1024 * 9 / 10;
    let (loaded, loaded_at, loaded_bytes) = loaded(rig).unwrap_or_default();
    let conf = format!(
        "modules='{}'\ndevice='{}'\nwindow='{}'\nloaded='{}'\nloaded_at_mib={}\nloaded_mib={}\nbusybox_kib={}\nsleep_kib={}\n",
        rig.modules,
        rig.mount.as_deref().unwrap_or_default(),
        rig.window.as_deref().unwrap_or_default(),
        loaded,
        loaded_at >> 20,
        loaded_bytes >> 20,
        kib("bin/busybox"),
        kib("usr/bin/sleep"),
    );
    fs::write(root.join("rig/conf"), conf).unwrap();

    let initramfs = dir.join("initramfs");
    let mut out = BufWriter::new(File::create(&initramfs).unwrap());
    newc::archive(&root, &mut out).unwrap();
    out.flush().unwrap();
    System {
        kernel: kernel.join("vmlinuz"),
        initramfs,
        flash: make_flash(rig, &image, dir),
        image,
    }
}

/// Where the machine finds its own copy of the flash, in RAM: a device, the place of the first byte, and how many bytes.
/// Other flash is the host's file.
fn loaded(rig: &Rig) -> Option<(&str, u64, u64)> {
    if !rig.qemu.iter().any(|word| word.starts_with("loader,")) {
        return None;
    }
    if let Some(device) = &rig.mount {
        return Some((device, 0, rig.flash.last()?.1));
    }
    // Elsewhere read(2) of /dev/mem has only what the kernel has mapped.
    if rig.arch.name != "x86_64" {
        return None;
    }
    let window = rig.window.as_deref()?.strip_prefix("0x")?;
    let window = u64::from_str_radix(window, 16).unwrap();
    Some(("/dev/mem", window, rig.flash[0].1))
}

/// Builds the image of a tree, for the rig's kernel.
pub fn make_image(rig: &Rig, root: &Path, image: &Path) {
    run(Command::new(env!("CARGO_BIN_EXE_xip-image"))
        .args(["build", "--endian=little", "--squash-owner"])
        .arg(format!("--page-size={}", rig.page))
        .args([root, image]));
}

/// The programs of the image, with their libraries.
pub fn plant(userland: &Path, root: &Path) {
    for name in ["bin", "usr/bin"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    copy(&userland.join("bin/busybox"), &root.join("bin/busybox"));
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    for path in DYNAMIC {
        let name = Path::new(path).file_name().unwrap();
        // Shells are looked for in /bin; the names of the others are busybox's there.
        let to = match path {
            "bin/bash" | "bin/dash" => "bin",
            _ => "usr/bin",
        };
        copy(&userland.join(path), &root.join(to).join(name));
        add_libraries(userland, &userland.join(path), root);
    }
}

/// What `PT_INTERP` and `DT_NEEDED` of a program or library name, and what that needs.
fn add_libraries(userland: &Path, object: &Path, root: &Path) {
    let bytes = fs::read(object).unwrap();
    let elf = goblin::elf::Elf::parse(&bytes).unwrap();
    let mut found: Vec<PathBuf> = Vec::new();
    found.extend(
        elf.interpreter
            .map(|path| PathBuf::from(path.trim_start_matches('/'))),
    );
    let directories = ["lib", "usr/lib"].map(|dir| userland.join(dir));
    for library in &elf.libraries {
        let path = directories.iter().find_map(|dir| {
            let below = fs::read_dir(dir)
                .unwrap()
                .map(|entry| entry.unwrap().path());
            let mut places = below.chain([dir.clone()]);
            places.find(|place| place.is_dir() && place.join(library).exists())
        });
        let path = path.unwrap_or_else(|| panic!("{}: no {library}", object.display()));
        found.push(path.strip_prefix(userland).unwrap().join(library));
    }
    for path in found {
        let to = root.join(&path);
        if to.exists() {
            continue;
        }
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        // Links are followed: the library has one name here.
        let from = resolve(userland, &path);
        copy(&from, &to);
        add_libraries(userland, &from, root);
    }
}

/// What a path of the userland leads to, with that as the root directory.
fn resolve(userland: &Path, path: &Path) -> PathBuf {
    let full = userland.join(path);
    match fs::read_link(&full) {
        Err(_) => full,
        Ok(target) => match target.strip_prefix("/") {
            Ok(absolute) => resolve(userland, absolute),
            Err(_) => resolve(userland, &path.parent().unwrap().join(target)),
        },
    }
}

/// The bank: the image itself, a filesystem with it, or one behind the other.
pub fn make_flash(rig: &Rig, image: &Path, dir: &Path) -> PathBuf {
    let flash = dir.join("flash");
    let mut bank = File::create(&flash).unwrap();
    let mut at = 0;
    for &(content, bytes) in &rig.flash {
        let image_bytes = fs::metadata(image).unwrap().len();
        assert!(
            image_bytes <= bytes,
            "{}: the image has {image_bytes} bytes",
            rig.name
        );
        let part = match content {
            Content::Cramfs => image.to_owned(),
            Content::Ext4 => make_filesystem(image, bytes, rig.page, dir),
        };
        bank.seek(SeekFrom::Start(at)).unwrap();
        std::io::copy(&mut File::open(part).unwrap(), &mut bank).unwrap();
        at += bytes;
    }
    bank.set_len(at).unwrap();
    flash
}

/// An ext4 with the image in it. Its blocks are pages: without that there is no DAX.
fn make_filesystem(image: &Path, bytes: u64, page: u64, dir: &Path) -> PathBuf {
    let path = dir.join("filesystem");
    File::create(&path).unwrap().set_len(bytes).unwrap();
    let files = dir.join("flash-files");
    fs::create_dir(&files).unwrap();
    copy(image, &files.join("rootfs.cramfs"));
    run(crate::common::tool("mkfs.ext4")
        // Blocks larger than the host's own pages are to be forced.
        .args(["-q", "-F", "-b", &page.to_string(), "-O", "^has_journal"])
        .arg("-d")
        .args([&files, &path]));
    path
}

pub fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap_or_else(|err| panic!("{}: {err}", from.display()));
}

/// Runs a tool to success.
pub fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|err| panic!("{command:?}: {err}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
