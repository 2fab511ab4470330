//! Images that lie: each lie is an error that names the place, in bounded time and memory, and never a panic.

mod common;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use common::image_bytes::*;
use common::{golden_bytes, noise};
use xip_run::backing::ReadAt;
use xip_run::cramfs::{Endian, Image, InodeKind, check};
use xip_run::error::{Error, Kind};
use xip_run::extent::extents;
use xip_run::index::FileIndex;
use xip_run::units::PageSize;
use xip_run::view::{Server, host_directories};

fn open(root: Node) -> Image {
    Image::open(ImageBytes::new(root).build()).unwrap()
}

/// A bad image, exit code 125, the text names an inode or an offset, and what is wrong.
fn assert_bad(err: &Error, what: &str) {
    let text = err.to_string();
    assert_eq!(err.kind(), Kind::BadImage, "{text}");
    assert_eq!(err.kind().exit_code(), 125);
    assert!(text.contains("0x"), "no place in {text:?}");
    assert!(text.contains(what), "no {what:?} in {text:?}");
}

/// Does it within a second of this thread's processor time; unoptimized within five.
fn soon<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let start = common::processor_time();
    let result = run();
    let took = common::processor_time() - start;
    let limit = if cfg!(debug_assertions) { 5 } else { 1 };
    assert!(took < Duration::from_secs(limit), "{what} took {took:?}");
    result
}

#[test]
fn files_that_lie() {
    let page = noise(4096);
    let cases: Vec<(&str, Node, &str)> = vec![
        (
            "data at the largest offset",
            zlib_file(b"x").offset(0x3ff_ffff),
            "bytes 0xffffffc+0x4 lie outside",
        ),
        (
            "the largest size",
            zlib_file(b"x").size(0xff_ffff),
            "lie outside the image",
        ),
        (
            "the largest of both",
            zlib_file(b"x").size(0xff_ffff).offset(0x3ff_ffff),
            "lie outside",
        ),
        (
            "block pointers in the superblock",
            zlib_file(b"x").offset(4),
            "lies in the superblock",
        ),
        (
            "block pointers that begin before it",
            zlib_file(b"x").offset(1),
            "lies in the superblock",
        ),
        (
            "block pointers across the end",
            zlib_file(b"x").offset(1023).size(8192),
            "lie outside",
        ),
        (
            "a direct block at the end of the world",
            file([pointer(0xffff_ffff)]),
            "bytes 0xfffffffc+0x1000 lie outside",
        ),
        (
            "the same, compressed",
            file([pointer(0x7fff_ffff)]),
            "bytes 0xfffffffc+0x2 lie outside",
        ),
        (
            "a block that ends beyond the image",
            file([pointer(0x3fff_ffff)]),
            "at most 8192",
        ),
        (
            "a block that ends a little beyond it",
            file([pointer(4097)]),
            "lie outside",
        ),
        (
            "a direct block that ends beyond it",
            file([pointer(3 << 30 | 1023), zlib(b"")]),
            "lie outside",
        ),
        (
            "a block that ends before it starts",
            file([pointer(80)]),
            "before its start",
        ),
        (
            "the second of two",
            file([raw(page.clone()), pointer(200)]),
            "block 1, pointer 0x000000c8",
        ),
        (
            "not direct before direct",
            file([raw_direct(page.clone()), pointer(100)]),
            "before its start",
        ),
        (
            "a raw block over 4096 bytes",
            file([raw(noise(4097))]).size(4096),
            "4097 bytes long, at most 4096",
        ),
        (
            "a stream over 8192 bytes",
            file([stream(noise(8193))]),
            "8193 bytes long, at most 8192",
        ),
        (
            "a direct stream over 8192 bytes",
            file([pointer(1 << 30 | 100)]).then(vec![0xff; 999]),
            "65535 bytes long",
        ),
        ("no zlib", file([stream(noise(100))]), "not a zlib stream"),
        (
            "no bytes of zlib to speak of",
            file([stream(vec![0x78])]),
            "cut off",
        ),
        (
            "a bomb",
            file([stream(deflate(&vec![0; 8_000_000]))]),
            "inflates to more than 4096",
        ),
        (
            "one byte too many",
            file([stream(deflate(&noise(4097)))]),
            "inflates to more than 4096",
        ),
        (
            "a cut stream",
            file([stream(deflate(&page)[..2000].to_vec())]),
            "cut off",
        ),
        (
            "a wrong checksum",
            file([stream(with_last_byte_flipped(deflate(&page)))]),
            "not a zlib stream",
        ),
    ];
    for (what, node, text) in cases {
        for (endian, super_at) in [(Endian::Little, 0), (Endian::Big, 0)] {
            let image = ImageBytes {
                endian,
                super_at,
                ..ImageBytes::new(dir([("f", node.clone())]))
            };
            let image = Image::open(image.build()).unwrap();
            let inode = image.lookup(b"f").unwrap();
            let err = soon(what, || image.read_file(&inode)).expect_err(what);
            assert_bad(&err, text);
            assert!(
                err.to_string().starts_with("inode at image@0x4c: "),
                "{err}"
            );
            // Extents and index fail with it too, unless it takes inflating to see the lie.
            let inflated =
                text.contains("zlib") || text.contains("cut off") || text.contains("inflates");
            for page in PageSize::ALL {
                let index = FileIndex::new(&image, &inode, page);
                assert_eq!(index.is_ok(), inflated, "{what}");
            }
            match extents(&image, &inode) {
                Err(err) => assert_bad(&err, text),
                Ok(_) => assert!(inflated, "{what}"),
            }
        }
    }
}

fn with_last_byte_flipped(mut bytes: Vec<u8>) -> Vec<u8> {
    *bytes.last_mut().unwrap() ^= 0xff;
    bytes
}

#[test]
fn directories_that_lie() {
    let cases: Vec<(&str, Node, &str)> = vec![
        (
            "the largest size",
            empty_dir().offset(19).size(0xff_ffff),
            "lie outside the image",
        ),
        (
            "the largest offset",
            empty_dir().offset(0x3ff_ffff).size(16),
            "bytes 0xffffffc+0x10 lie outside",
        ),
        (
            "the superblock",
            empty_dir().offset(1).size(16),
            "lies in the superblock",
        ),
        (
            "across the superblock's end",
            empty_dir().offset(18).size(40),
            "lies in the superblock",
        ),
        (
            "half an inode",
            dir([("f", fifo())]).size(6),
            "cut off by the directory's end",
        ),
        (
            "half a name",
            dir([("abcdefg", fifo())]).size(16),
            "its name is cut off",
        ),
        (
            "a name to the end of the world",
            dir([("f", fifo().namelen(63))]),
            "its name is cut off",
        ),
        ("no name", dir([("", fifo())]), "empty name"),
        ("a name of zeros", dir([("\0\0\0\0", fifo())]), "empty name"),
        (
            "a name of length 0",
            dir([("f", fifo().namelen(0))]),
            "empty name",
        ),
        (".", dir([(".", fifo())]), "named . or .."),
        ("..", dir([("..", fifo())]), "named . or .."),
        (
            "a way out",
            dir([("../../etc/passwd", fifo())]),
            "a / in its name",
        ),
        ("a slash", dir([("/", fifo())]), "a / in its name"),
        ("a NUL", dir([("a\0b", fifo())]), "a NUL in its name"),
        ("zeros", dir_of_bytes([0; 64]), "empty name"),
        ("noise", dir_of_bytes(noise(4000)), "directory entry at 0x"),
    ];
    for (what, node, text) in cases {
        let image = open(dir([("d", node)]));
        let inode = image.lookup(b"d").unwrap();
        assert_eq!(inode.kind, InodeKind::Directory);
        let err = soon(what, || image.entries(&inode)).expect_err(what);
        assert_bad(&err, text);
        // A lookup stops at the name that it wants; of one that is not there it sees all.
        assert_bad(&image.lookup(b"d/x/y").expect_err(what), text);
    }
}

#[test]
fn links_that_lie() {
    for (what, node, text) in [
        (
            "16 MiB",
            zlib_file(b"x").size(0xff_ffff).mode(0o120777),
            "longer than PATH_MAX",
        ),
        (
            "a whole PATH_MAX",
            symlink("x".repeat(4096)),
            "longer than PATH_MAX",
        ),
        ("nothing", symlink(""), "empty target"),
        ("a NUL", symlink("a\0b"), "a NUL in its target"),
        (
            "a hole",
            file([hole()]).size(10).mode(0o120777),
            "a NUL in its target",
        ),
        ("outside", symlink("x").offset(0x3ff_ffff), "lie outside"),
    ] {
        let image = open(dir([("l", node)]));
        let inode = image.lookup_nofollow(b"l").unwrap();
        assert_bad(&image.read_link(&inode).expect_err(what), text);
        assert_bad(&image.lookup(b"l").expect_err(what), text);
    }
}

#[test]
fn directories_that_contain_themselves_can_be_walked_only_as_far_as_the_path_goes() {
    let image = open(dir([
        ("self", again(0)),
        (
            "d",
            dir([
                ("up", again(1)),
                ("here", again(0)),
                ("f", zlib_file(b"found")),
            ]),
        ),
        ("l", symlink("self/l")),
    ]));
    let path = "self/d/up/d/here/here/up/".repeat(200) + "d/f";
    let found = soon("a long way round", || image.resolve(path.as_bytes(), true)).unwrap();
    assert_eq!(image.read_file(&found.inode).unwrap(), b"found");
    assert_eq!(found.path.len(), path.len() + 1);
    let root = image.lookup(b"self/self/self").unwrap();
    assert_eq!(root.number(), image.root().number());
    let err = image.lookup(b"l").unwrap_err();
    assert_eq!(err.kind(), Kind::SymlinkLoop);
    // An error does not repeat all of a long path.
    let err = image.lookup((path + "/x").as_bytes()).unwrap_err();
    assert!(
        err.kind() == Kind::NotDirectory && err.to_string().len() < 1000,
        "{err}"
    );
    // The root as its own root's parent: all of it is the same bytes.
    let entries = image.entries(&image.root()).unwrap();
    assert_eq!(image.entries(&root).unwrap(), entries);
}

#[test]
fn errors_show_names_without_their_control_characters() {
    let image = open(dir([("\x1b[2Jgone\n\u{e4}", zlib_file(b"x"))]));
    let err = image
        .lookup("\x1b[2Jgone\n\u{e4}/x".as_bytes())
        .unwrap_err();
    let name = "\\u{1b}[2Jgone\\n\u{e4}";
    assert_eq!(
        err.to_string(),
        format!("{name}/x: /{name} is not a directory")
    );
}

/// A directory of 16 MiB, as many entries as that holds; the last, `x`, is the directory itself, at `at`.
fn huge_directory(at: u32) -> Node {
    let entries = 0xff_fff0 / 16;
    let filler = fifo().inode(Endian::Little, 0, 0, b"aaaa");
    let own = empty_dir().inode(Endian::Little, at, entries * 16, b"x");
    let mut bytes = [&filler[..], b"aaaa"].concat().repeat(entries as usize - 1);
    bytes.extend([&own[..], b"x\0\0\0"].concat());
    dir_of_bytes(bytes)
}

#[test]
fn a_lookup_has_an_end() {
    // 41 slots of 16 bytes from byte 76 on; then the first entry's data, the huge directory.
    let big_at = 76 + 41 * 16;
    let mut entries = vec![("big".to_owned(), huge_directory(big_at))];
    for link in 0..40 {
        let next = if link == 39 {
            String::new()
        } else {
            format!("../l{}", link + 1)
        };
        // PATH_MAX bytes of steps through the huge directory, and on to the next link.
        let way = "x/".repeat(2000);
        entries.push((
            format!("l{link}"),
            symlink(format!("/big/{way}{}{next}", "../".repeat(20))),
        ));
    }
    let image = open(dir(entries));
    let big = image.lookup(b"big").unwrap();
    assert_eq!(big.data.0, u64::from(big_at));
    soon("one step", || image.lookup(b"big/x")).unwrap();
    // The whole list is for whoever asks for it, and as long as the image says.
    assert_eq!(image.entries(&big).unwrap().len() as u64, big.size / 16);
    let err = soon("a hostile path", || image.lookup(b"l0")).unwrap_err();
    assert_bad(&err, "more than 32 MiB of directories");
    let err = soon("a hostile path", || image.lookup("big/x/x/x/x".as_bytes())).unwrap_err();
    assert_bad(&err, "more than 32 MiB of directories");
}

#[test]
fn forty_links_through_honest_directories_have_an_end_and_a_result() {
    let mut entries = vec![("f".to_owned(), zlib_file(b"found"))];
    entries.push(("d".to_owned(), empty_dir().size(0)));
    for link in 0..40 {
        let next = if link == 39 {
            "f".to_owned()
        } else {
            format!("l{}", link + 1)
        };
        entries.push((
            format!("l{link}"),
            symlink(format!("{}{next}", "d/../".repeat(800))),
        ));
    }
    let image = open(dir(entries));
    assert_eq!(image.resolve(b"l0", true).unwrap().path, b"/f");
}

#[test]
fn sixteen_mebibytes_of_nothing_are_lawful_and_no_more_than_that() {
    let holes = file(vec![hole(); 4096]).size(0xff_ffff);
    // Each block the same direct one: 4096 bytes of image are 16 MiB of file.
    let first = raw_direct(noise(4096)).align(4096);
    let at = 0x9000_u32;
    let same = file(
        [first]
            .into_iter()
            .chain(vec![pointer((at / 4) | (3 << 30)); 4095]),
    );
    let image = ImageBytes::new(dir([
        ("holes", holes),
        ("same", same.size(0xff_ffff).align(4096)),
        ("none", file([]).size(0xff_ffff)),
    ]));
    let image = Image::open(image.build()).unwrap();
    let find = |name: &str| image.lookup(name.as_bytes()).unwrap();
    let bytes = soon("holes", || image.read_file(&find("holes"))).unwrap();
    assert!(bytes.len() == 0xff_ffff && bytes.iter().all(|&byte| byte == 0));
    let bytes = soon("one block", || image.read_file(&find("same"))).unwrap();
    assert_eq!(
        (bytes.len(), &bytes[0xff_e000..0xff_f000]),
        (0xff_ffff, &noise(4096)[..])
    );
    for name in ["holes", "same"] {
        for page in PageSize::ALL {
            soon(name, || FileIndex::new(&image, &find(name), page)).unwrap();
        }
    }
    assert!(image.read_file(&find("none")).unwrap().is_empty());
}

/// Every way to /tmp that leads through /proc/self/root is a directory that the host has.
#[test]
fn host_directories_have_an_end() {
    let mut leaves: Vec<_> = (0..8000)
        .map(|number| (format!("{number}"), empty_dir()))
        .collect();
    leaves.extend(vec![("tmp".to_owned(), empty_dir()); 1000]);
    let mut node = dir(leaves);
    for _ in 0..270 {
        let leaf = ("tmp", empty_dir());
        node = dir([
            ("proc", dir([("self", dir([("root", node)])), leaf.clone()])),
            leaf,
        ]);
    }
    let image = open(node);
    let found = soon("host directories", || host_directories(&image));
    assert!(
        found.iter().all(|bind| bind.source == Path::new("/tmp")),
        "{found:?}"
    );
    // Each once. There is no /proc/tmp, and forty links are the most that a path may lead through, two for each step.
    assert_eq!(found.len(), 21);
}

/// An image that shrinks, or cannot be read any more, between any two reads of it.
#[test]
fn an_image_that_goes_away_is_an_error() {
    struct Going {
        bytes: Vec<u8>,
        left: AtomicUsize,
        shrinks: bool,
    }
    impl ReadAt for Going {
        fn len_bytes(&self) -> u64 {
            self.bytes.len() as u64
        }
        fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
            let left = self
                .left
                .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
            match (left, self.shrinks) {
                (Ok(_), _) => self.bytes.read_exact_at(buf, at),
                (Err(_), true) => (&self.bytes[..100]).read_exact_at(buf, at),
                (Err(_), false) => Err(io::Error::other("no medium")),
            }
        }
    }
    let bytes = golden_bytes("xip-mmu");
    for shrinks in [false, true] {
        let mut refused = 0;
        for left in 1..400 {
            let left = AtomicUsize::new(left);
            let bytes = bytes.clone();
            let image = Image::open(Going {
                bytes,
                left,
                shrinks,
            })
            .unwrap();
            let report = check(&image);
            let all_read = read_all(&image);
            refused += usize::from(!report.is_sound() || !all_read);
            let mut server = Server::new(image.clone());
            for node in [1, 77, 93] {
                // GETATTR and READ, the header alone.
                for opcode in [3_u32, 15] {
                    let mut request = [0; 80];
                    request[4..8].copy_from_slice(&opcode.to_ne_bytes());
                    request[16] = node;
                    assert!(server.answer(&request).len() >= 16);
                }
            }
        }
        assert!(refused > 100, "{refused}");
    }
}

#[test]
fn overlapping_files_are_read_as_they_are() {
    // Two files with the same block, one whose block is the other's pointers, one whose block is the superblock.
    let image = open(dir([
        ("a", direct_file(&noise(4096), 4096)),
        ("b", file([pointer(1024 | 3 << 30)])),
        ("c", file([pointer(3 << 30)])),
    ]));
    let read = |name: &str| {
        image
            .read_file(&image.lookup(name.as_bytes()).unwrap())
            .unwrap()
    };
    assert_eq!(read("a"), read("b"));
    assert_eq!(read("c")[16..32], *b"Compressed ROMFS");
}

/// Does everything that a reader can do; all that may come out is an error of the right kind. Was there none?
fn read_all(image: &Image) -> bool {
    let _ = image.require_runnable();
    let _ = image.verify_crc();
    let mut dirs = vec![image.root()];
    let mut budget = 200;
    let mut all = true;
    while let Some(dir) = dirs.pop() {
        let entries = image.entries(&dir);
        all &= entries.is_ok();
        for entry in entries.unwrap_or_default() {
            if budget == 0 {
                return all;
            }
            budget -= 1;
            match entry.inode.kind {
                InodeKind::Directory => dirs.push(entry.inode),
                InodeKind::Symlink => drop(image.read_link(&entry.inode)),
                _ => {
                    if let Err(err) = image.read_file(&entry.inode) {
                        assert!(
                            err.kind() == Kind::BadImage || err.to_string().contains("no medium")
                        );
                        assert!(err.to_string().contains("0x"), "no place in {err}");
                        all = false;
                    }
                    let _ = FileIndex::new(image, &entry.inode, PageSize::K64);
                }
            }
        }
    }
    all
}

#[test]
fn every_prefix_of_an_image_is_refused() {
    let small = |super_at| ImageBytes {
        super_at,
        pad_to: 4,
        ..ImageBytes::new(dir([
            (
                "d",
                dir([(
                    "f",
                    file([zlib(b"text"), raw_direct(b"more".repeat(10))]).size(4136),
                )]),
            ),
            ("l", symlink("d/f")),
        ]))
    };
    for bytes in [small(0).build(), small(512).build()] {
        for len in 0..bytes.len() {
            let image = match Image::open(bytes[..len].to_vec()) {
                Ok(image) => image,
                Err(err) => {
                    assert_eq!(err.kind(), Kind::BadImage);
                    continue;
                }
            };
            assert!(image.is_truncated());
            let err = image.require_runnable().unwrap_err();
            assert!(err.to_string().contains("truncated"), "{err}");
            assert!(image.verify_crc().is_err());
            read_all(&image);
            assert!(image.lookup(b"l").is_err() || image.lookup(b"d/f").is_ok());
        }
        assert!(!Image::open(bytes).unwrap().is_truncated());
    }
    let golden = golden_bytes("xip-mmu");
    for len in (76..golden.len()).step_by(509) {
        read_all(&Image::open(golden[..len].to_vec()).unwrap());
    }
}
