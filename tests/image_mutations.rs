//! Single bytes of an image's metadata are changed, with the CRC made right again: where fsck.cramfs refuses the result,
//! `check` has an error or at least a warning.

#[path = "common/tree.rs"]
mod tree;

use std::fs;
use std::process::Command;

use tree::{build_in, have, noise, text, xip};
use xip_run::cramfs::check::Severity;
use xip_run::cramfs::format::SUPER_CRC_OFFSET;
use xip_run::cramfs::{Image, InodeKind, check};

/// A small tree with everything in it.
fn small_tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    for sub in ["etc/init.d", "lib", "proc"] {
        fs::create_dir_all(root.join(sub)).unwrap();
    }
    for (path, bytes) in [
        ("etc/passwd", text(700)),
        ("etc/init.d/rcS", text(50)),
        ("lib/noise", noise(9000, 1)),
        ("lib/text", text(20000)),
        ("empty", Vec::new()),
        ("page", text(4096)),
    ] {
        fs::write(root.join(path), bytes).unwrap();
    }
    std::os::unix::fs::symlink("lib/text", root.join("link")).unwrap();
    let nodes = [
        ("fifo", rustix::fs::FileType::Fifo, 0),
        ("socket", rustix::fs::FileType::Socket, 0),
        ("null", rustix::fs::FileType::CharacterDevice, 3),
    ];
    for (name, kind, minor) in nodes {
        let device = rustix::fs::makedev(u32::from(minor > 0), minor);
        let mode = rustix::fs::Mode::RUSR;
        if kind != rustix::fs::FileType::CharacterDevice || tree::is_root() {
            rustix::fs::mknodat(rustix::fs::CWD, root.join(name), kind, mode, device).unwrap();
        }
    }
    dir
}

/// Where superblock, directories and block pointers are.
fn metadata(image: &Image) -> Vec<usize> {
    let mut bytes: Vec<usize> = (0..76).collect();
    for found in image.walk().map(|found| found.unwrap()) {
        let inode = found.inode;
        let len_bytes = match inode.kind {
            InodeKind::Directory => inode.size,
            _ => 4 * inode.block_count(),
        };
        bytes.extend(inode.data.0 as usize..(inode.data.0 + len_bytes) as usize);
    }
    bytes
}

/// Makes the CRC right for the length that the superblock says, if there is that much.
fn fix_crc(bytes: &mut [u8]) {
    let crc_at = SUPER_CRC_OFFSET as usize;
    let size = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
    bytes[crc_at..crc_at + 4].fill(0);
    let Some(claimed) = bytes.get(..size) else {
        return;
    };
    let crc = crc32fast::hash(claimed);
    bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn what_fsck_cramfs_refuses_is_at_least_a_warning() {
    if !have("fsck.cramfs") || cfg!(target_endian = "big") {
        return;
    }
    let dir = small_tree();
    build_in(dir.path(), &xip(&["none"])).unwrap();
    let good = fs::read(dir.path().join("image")).unwrap();
    let image = Image::open(good.clone()).unwrap();
    assert_eq!(check(&image).findings, []);
    let (mut refused, mut missed, mut tried) = (0, Vec::new(), 0);
    let path = dir.path().join("mutated");
    let flips = [0x01, 0x80, 0x04, 0xff, 0x10];
    let places = metadata(&image).into_iter();
    for (at, flip) in places.flat_map(|at| flips.map(|flip| (at, flip))) {
        let mut bytes = good.clone();
        bytes[at] ^= flip;
        fix_crc(&mut bytes);
        tried += 1;
        let serious = match Image::open(bytes.clone()) {
            Ok(image) => {
                let report = check(&image);
                report.findings.iter().any(|f| f.severity > Severity::Note)
            }
            Err(_) => true,
        };
        if serious {
            continue;
        }
        fs::write(&path, &bytes).unwrap();
        let fsck = Command::new("fsck.cramfs")
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .args(["-b", "4096"])
            .arg(&path)
            .output()
            .unwrap();
        if !fsck.status.success() {
            refused += 1;
            // Flags that Linux knows and fsck.cramfs does not (HOLES, SHIFTED_ROOT): without a hole, harmless.
            if at == 9 && [0x01, 0x04].contains(&flip) {
                continue;
            }
            let said = String::from_utf8_lossy(&fsck.stderr).into_owned();
            missed.push(format!("byte {at:#x} ^ {flip:#x}: {said}"));
        }
    }
    println!("{tried} mutations, of which fsck.cramfs alone refuses {refused}");
    assert!(tried > 1000, "{tried}");
    assert!(missed.is_empty(), "{missed:#?}");
}

/// A root directory that is cut after an entry hides the files behind it.
#[test]
fn a_shortened_directory_is_a_warning() {
    let dir = small_tree();
    build_in(dir.path(), &xip(&["none"])).unwrap();
    let mut bytes = fs::read(dir.path().join("image")).unwrap();
    let image = Image::open(bytes.clone()).unwrap();
    let last = image.entries(&image.root()).unwrap().pop().unwrap();
    let shorter = last.inode.at.0 - image.root().data.0;
    bytes[68..71].copy_from_slice(&(shorter as u32).to_le_bytes()[..3]);
    fix_crc(&mut bytes);
    let report = check(&Image::open(bytes).unwrap());
    assert!(report.is_sound(), "{report:#?}");
    let hidden = report.findings.iter().find(|f| f.what.contains("hidden"));
    assert_eq!(hidden.unwrap().severity, Severity::Warning);
}
