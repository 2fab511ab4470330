//! Trees to make images of, and what to hold the images against.
#![allow(dead_code, unreachable_pub)]

use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use xip_run::backing::Backing;
use xip_run::cramfs::build::{BuildOptions, build};
use xip_run::cramfs::writer::Summary;
use xip_run::cramfs::xip::XipPolicy;
use xip_run::cramfs::{Image, InodeKind};
use xip_run::error::Result;

/// A static program of the distribution.
pub const BUSYBOX: &str = "/usr/bin/busybox";

/// Is there such a program? If not the test is skipped, except under CI, where everything has to be there.
pub fn have(tool: &str) -> bool {
    let dirs = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    let found =
        Path::new(tool).is_file() || dirs.iter().any(|dir| Path::new(dir).join(tool).is_file());
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{tool} is missing");
        println!("skipped: there is no {tool}");
    }
    found
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Bytes that do not compress, the same every time.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(step).take(len).collect()
}

/// Bytes that compress.
pub fn text(len: usize) -> Vec<u8> {
    b"All work and no play makes Jack a dull boy.\n"
        .iter()
        .copied()
        .cycle()
        .take(len)
        .collect()
}

/// Makes entries, in the order given; `true` reverses it.
pub fn make_tree(root: &Path, reversed: bool) {
    let mut files: Vec<(PathBuf, Vec<u8>, u32)> = Vec::new();
    let mut file = |path: &str, content: Vec<u8>, mode| files.push((path.into(), content, mode));
    file("data/empty", Vec::new(), 0o644);
    file("data/one", b"x".to_vec(), 0o600);
    file("data/page", text(4096), 0o644);
    file("data/page-of-noise", noise(4096, 1), 0o644);
    file("data/two-pages", text(8192), 0o644);
    file("data/two-pages-of-noise", noise(8192, 2), 0o644);
    file("data/text", text(25501), 0o444);
    file("data/noise", noise(70001, 3), 0o644);
    file("data/zero-page", vec![0; 4096], 0o644);
    file("data/zeros", vec![0; 3 * 4096 + 5], 0o644);
    let mut holes = noise(5 * 4096, 4);
    holes[4096..3 * 4096].fill(0);
    holes[4 * 4096..].fill(0);
    file("data/holes", holes, 0o644);
    file("data/same-1", noise(9000, 5), 0o644);
    file("data/same-2", noise(9000, 5), 0o644);
    file("data/same-other-mode", noise(9000, 5), 0o755);
    file("data/sticky-suid", b"s".to_vec(), 0o6755);
    files.push((
        Path::new("data").join("n".repeat(252)),
        b"long".to_vec(),
        0o644,
    ));
    let odd = std::ffi::OsString::from_vec(b"data/\xff\xfe back\\slash\nnewline".to_vec());
    files.push((odd.into(), b"odd".to_vec(), 0o644));
    for number in 0..40 {
        files.push((
            format!("many/f{number:02}").into(),
            text(number * 300),
            0o640,
        ));
    }
    // Sorted as unsigned bytes: 'Z' < 'a' < 'ü'.
    for name in ["Z", "a", "ü", "a b", "a-b"] {
        files.push((
            Path::new("many").join(name),
            name.as_bytes().to_vec(),
            0o644,
        ));
    }
    if Path::new(BUSYBOX).exists() {
        files.push(("bin/busybox".into(), fs::read(BUSYBOX).unwrap(), 0o755));
    }
    let golden = golden("plain");
    for name in ["prog32", "prog64", "prog-arm"] {
        let inode = golden.lookup(format!("/bin/{name}").as_bytes()).unwrap();
        files.push((
            format!("bin/{name}").into(),
            golden.read_file(&inode).unwrap(),
            0o755,
        ));
    }
    let mut links = vec![
        ("bin/sh", "busybox"),
        ("absolute", "/data/text"),
        ("up", "../../../../etc/passwd"),
        ("loop", "loop"),
    ];
    let long = "x/".repeat(2000);
    links.push(("long-link", &long));
    if reversed {
        files.reverse();
        links.reverse();
    }
    for dir in ["bin", "data", "many", "proc", "tmp"] {
        fs::create_dir(root.join(dir)).unwrap();
    }
    for (path, content, mode) in files {
        fs::write(root.join(&path), content).unwrap();
        fs::set_permissions(root.join(&path), fs::Permissions::from_mode(mode)).unwrap();
    }
    for (path, target) in links {
        symlink(target, root.join(path)).unwrap();
    }
    fs::hard_link(root.join("data/text"), root.join("data/hard-link")).unwrap();
    let node = |name: &str, kind, major, minor| {
        let mode = rustix::fs::Mode::from_raw_mode(0o640);
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(rustix::fs::CWD, root.join(name), kind, mode, device).unwrap();
    };
    node("fifo", rustix::fs::FileType::Fifo, 0, 0);
    node("socket", rustix::fs::FileType::Socket, 0, 0);
    if is_root() {
        node("null", rustix::fs::FileType::CharacterDevice, 1, 3);
        node("disk", rustix::fs::FileType::BlockDevice, 31, 255);
        std::os::unix::fs::chown(root.join("data/one"), Some(1000), Some(100)).unwrap();
    }
    for (dir, mode) in [("tmp", 0o1777), ("many", 0o700)] {
        fs::set_permissions(root.join(dir), fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// A tree in a directory of its own, `root` in it.
pub fn sample_tree() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("root")).unwrap();
    make_tree(&dir.path().join("root"), false);
    dir
}

pub fn golden_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.cramfs"))
}

pub fn golden(name: &str) -> Image {
    open(&golden_path(name))
}

pub fn open(path: &Path) -> Image {
    Image::open(Backing::open(path).unwrap()).unwrap()
}

/// Options with these words of `--xip`.
pub fn xip(words: &[&str]) -> BuildOptions {
    let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    BuildOptions {
        xip: XipPolicy::new(&words, false).unwrap(),
        ..BuildOptions::default()
    }
}

/// Builds `dir/root` into `dir/image`.
pub fn build_in(dir: &Path, options: &BuildOptions) -> Result<Summary> {
    build(
        &dir.join("root"),
        &dir.join("image"),
        options,
        &mut |_, _| {},
    )
}

/// The command under test.
pub fn xip_image(args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_xip-image"))
        .args(args)
        .output()
        .unwrap()
}

/// Holds every entry of the image against the directory that it was made from, and the other way round.
pub fn assert_same(image: &Image, root: &Path) {
    let mut expected = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                todo.push(path.clone());
            }
            expected.push(path);
        }
    }
    let mut seen = 0;
    for found in image.walk() {
        let found = found.unwrap();
        let name = String::from_utf8_lossy(&found.path).into_owned();
        let relative = found.path.strip_prefix(b"/").unwrap();
        let host = root.join(std::ffi::OsStr::from_bytes(relative));
        let meta = fs::symlink_metadata(&host).unwrap();
        let inode = found.inode;
        if found.depth > 0 {
            assert_eq!(inode, image.lookup_nofollow(&found.path).unwrap(), "{name}");
            assert_eq!(u32::from(inode.mode), meta.mode(), "{name}");
            assert_eq!(u32::from(inode.uid), meta.uid() & 0xffff, "{name}");
            assert_eq!(u32::from(inode.gid), meta.gid() & 0xff, "{name}");
            seen += 1;
        }
        let kind = meta.file_type();
        match inode.kind {
            InodeKind::File => {
                let content = image.read_file(&inode).unwrap();
                assert!(
                    content == fs::read(&host).unwrap(),
                    "{name}: other contents"
                );
            }
            InodeKind::Symlink => {
                let target = fs::read_link(&host).unwrap().into_os_string().into_vec();
                assert_eq!(image.read_link(&inode).unwrap(), target, "{name}");
            }
            InodeKind::CharDevice | InodeKind::BlockDevice => {
                let [major, minor] = inode.rdev.to_be_bytes();
                let rdev = rustix::fs::makedev(major.into(), minor.into());
                assert_eq!(rdev, meta.rdev(), "{name}");
            }
            InodeKind::Directory => assert!(kind.is_dir(), "{name}"),
            InodeKind::Fifo => assert!(kind.is_fifo(), "{name}"),
            InodeKind::Socket => assert!(kind.is_socket(), "{name}"),
            InodeKind::Unknown => panic!("{name}: unknown type"),
        }
    }
    assert_eq!(seen, expected.len(), "entries are missing");
}
