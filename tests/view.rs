//! The root view: what the server answers, and what a mount of it shows. tests/view_session.rs has programs in it.

mod common;
#[path = "common/mounted.rs"]
mod mounted;
#[path = "common/tree.rs"]
mod tree;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use common::{GOLDEN, cases, golden, golden_bytes};
use mounted::{Mounted, can_mount};
use proptest::prelude::*;
use rustix::fs::{Mode, OFlags, RawDir};
use xip_run::backing::Backing;
use xip_run::cramfs::build::BuildOptions;
use xip_run::cramfs::{Image, InodeKind};
use xip_run::view::{MAX_READ_BYTES, Server};

/// Names and inode numbers as getdents64(2) gives them, with a buffer of that many bytes.
fn listing(dir: &Path, buffer: usize) -> Vec<(Vec<u8>, u64)> {
    let fd = rustix::fs::open(dir, OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut buf = Vec::with_capacity(buffer);
    let mut iter = RawDir::new(fd, buf.spare_capacity_mut());
    let mut out = Vec::new();
    while let Some(entry) = iter.next() {
        let entry = entry.unwrap();
        out.push((entry.file_name().to_bytes().to_vec(), entry.ino()));
    }
    out
}

/// Everything that stat(2), readlink(2), read(2) and readdir(3) show is what the image says.
fn assert_shows(mounted: &Mounted, image: &Image) {
    for found in image.walk() {
        let found = found.unwrap();
        let (inode, path) = (found.inode, mounted.path(OsStr::from_bytes(&found.path)));
        let stat = path.symlink_metadata().unwrap();
        let name = path.display();
        assert_eq!(stat.mode(), u32::from(inode.mode), "{name}");
        assert_eq!(
            (stat.uid(), stat.gid()),
            (u32::from(inode.uid), u32::from(inode.gid)),
            "{name}"
        );
        assert_eq!(
            (stat.size(), stat.ino(), stat.blocks(), stat.nlink()),
            (inode.size, inode.number(), inode.stat_blocks(), 1),
            "{name}"
        );
        let (major, minor) = inode.device();
        assert_eq!(stat.rdev(), rustix::fs::makedev(major, minor), "{name}");
        assert_eq!((stat.mtime(), stat.ctime()), (0, 0), "{name}");
        match inode.kind {
            InodeKind::File => {
                let content = image.read_file(&inode).unwrap();
                assert!(fs::read(&path).unwrap() == content, "{name}");
                // Beside the page cache, at odd places.
                let file = File::open(&path).unwrap();
                for at in [1, 4095, 4097, content.len().saturating_sub(3)] {
                    let mut part = vec![0; 5000];
                    let len = file.read_at(&mut part, at as u64).unwrap();
                    let end = content.len().min(at + 5000);
                    assert!(part[..len] == *content.get(at..end).unwrap_or_default());
                }
            }
            InodeKind::Symlink => {
                let target = fs::read_link(&path).unwrap();
                assert_eq!(
                    target.as_os_str().as_bytes(),
                    image.read_link(&inode).unwrap()
                );
            }
            InodeKind::Directory => {
                let mut expected = vec![(b".".to_vec(), inode.number()), (b"..".to_vec(), 0)];
                for entry in image.entries(&inode).unwrap() {
                    expected.push((entry.name, entry.inode.number()));
                }
                for buffer in [32768, 700, 32768] {
                    let mut seen = listing(&path, buffer);
                    seen[1].1 = 0;
                    assert_eq!(seen, expected, "{name} by {buffer}");
                }
            }
            _ => {}
        }
    }
    let stat = rustix::fs::statvfs(mounted.dir.path()).unwrap();
    let raw = image.superblock();
    let counts = match raw.flags & 1 {
        0 => (0, 0),
        _ => (u64::from(raw.blocks), u64::from(raw.files)),
    };
    assert_eq!((stat.f_blocks, stat.f_files), counts);
    assert_eq!((stat.f_bsize, stat.f_namemax, stat.f_bfree), (4096, 252, 0));
}

#[test]
fn a_view_of_each_golden_image_shows_what_is_in_it() {
    if !can_mount() {
        return;
    }
    for name in GOLDEN {
        println!("{name}");
        assert_shows(&Mounted::new(golden(name)), &golden(name));
    }
}

#[test]
fn a_view_of_a_built_image_is_the_tree_that_it_was_built_from() {
    if !can_mount() {
        return;
    }
    let dir = tree::sample_tree();
    tree::build_in(dir.path(), &BuildOptions::default()).unwrap();
    let image = tree::open(&dir.path().join("image"));
    let mounted = Mounted::new(image.clone());
    assert_shows(&mounted, &image);
    tree::assert_same(&image, mounted.dir.path());

    let error = |path: &str| fs::metadata(mounted.path(path)).unwrap_err().raw_os_error();
    for _ in 0..2 {
        assert_eq!(error("no"), Some(libc::ENOENT));
        assert_eq!(error("data/page/no"), Some(libc::ENOTDIR));
    }
    assert_eq!(error(&"x".repeat(253)), Some(libc::ENAMETOOLONG));
    let write = File::create(mounted.path("new")).unwrap_err();
    assert_eq!(write.raw_os_error(), Some(libc::EROFS));
}

#[test]
fn an_image_damaged_under_way_gives_eio() {
    if !can_mount() {
        return;
    }
    let dir = tree::sample_tree();
    tree::build_in(dir.path(), &BuildOptions::default()).unwrap();
    let path = dir.path().join("image");
    let mounted = Mounted::new(Image::open(Backing::open(&path).unwrap()).unwrap());
    fs::metadata(mounted.path("data/noise")).unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(200)
        .unwrap();
    for _ in 0..2 {
        let read = fs::read(mounted.path("data/noise")).unwrap_err();
        assert_eq!(read.raw_os_error(), Some(libc::EIO));
    }
    let list = fs::read_dir(mounted.path("many")).map(|list| list.collect::<Vec<_>>());
    assert!(list.is_err() || list.unwrap().iter().any(Result::is_err));
}

/// A request as the kernel writes it.
fn request(opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = (40 + body.len() as u32).to_ne_bytes().to_vec();
    bytes.extend_from_slice(&opcode.to_ne_bytes());
    for word in [7_u64, node, 0, 0] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.extend_from_slice(body);
    bytes
}

/// fh, offset, size.
fn range(at: u64, len: u32) -> Vec<u8> {
    let mut body = vec![0; 8];
    body.extend_from_slice(&at.to_ne_bytes());
    body.extend_from_slice(&len.to_ne_bytes());
    body
}

proptest! {
    #![proptest_config(cases(400))]

    // Invariant: whatever the image holds and whatever is asked, the server answers with one well-formed message of
    // bounded length, an error of errno(3) or no more than was asked for.
    #[test]
    fn the_server_answers_hostile_images(
        which in 0..GOLDEN.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
        requests in prop::collection::vec(
            (0_u32..55, any::<prop::sample::Index>(), any::<u64>(), 0_u32..200_000, any::<u8>()),
            1..40,
        ),
    ) {
        let mut bytes = golden_bytes(GOLDEN[which]);
        let metadata = bytes.len().min(4096);
        for (at, byte) in damage {
            let at = at.index(metadata);
            bytes[at] = byte;
        }
        let Ok(image) = Image::open(bytes) else { return Ok(()) };
        let mut nodes = vec![1];
        nodes.extend(image.walk().filter_map(Result::ok).take(200).map(|found| found.inode.at.0 + 1));
        let mut server = Server::new(image);
        for (opcode, node, at, len, style) in requests {
            let node = match style % 8 {
                0 => at,
                1 => at % 4096,
                _ => nodes[node.index(nodes.len())],
            };
            let at = if style < 200 { at % 100_000 } else { at };
            let body = if opcode == 1 { b"bin\0".to_vec() } else { range(at, len) };
            let answer = server.answer(&request(opcode, node, &body));
            prop_assert!(answer.len() <= 16 + MAX_READ_BYTES as usize);
            if !answer.is_empty() {
                let word = |at: usize| i32::from_ne_bytes(answer[at..at + 4].try_into().unwrap());
                prop_assert_eq!(word(0) as usize, answer.len());
                prop_assert!((-133..=0).contains(&word(4)));
                prop_assert_eq!(word(8), 7);
                if matches!(opcode, 15 | 28 | 44) {
                    prop_assert!(answer.len() <= 16 + len as usize);
                }
            }
        }
    }
}

#[test]
fn a_request_that_is_cut_off_is_no_panic() {
    let mut server = Server::new(golden("ext"));
    for opcode in 0..60 {
        let whole = request(opcode, 1, &range(0, 4096));
        for len in 0..whole.len() {
            server.answer(&whole[..len]);
        }
    }
}
