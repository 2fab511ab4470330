//! Paths: links, `.` and `..`, slashes, loops; and how often a launch reads the image.

mod common;

use common::image_bytes::*;
use common::{Counted, golden, noise};
use xip_run::cramfs::{Image, InodeKind};
use xip_run::error::Kind;
use xip_run::index::FileIndex;
use xip_run::units::PageSize;

#[test]
fn names_of_every_kind() {
    let long = "n".repeat(252);
    let names: [&[u8]; 8] = [
        b"z",
        b"a",
        b"\xff\xfe\x80",
        b"abc",
        b"abcd",
        b"a b\n",
        b"...",
        long.as_bytes(),
    ];
    let entries = names.map(|name| (name, zlib_file(name)));
    // In no order, and with the flag that says they are sorted.
    let image = Image::open(ImageBytes::new(dir(entries)).build()).unwrap();
    for name in names {
        let inode = image.lookup(name).unwrap();
        assert_eq!(image.read_file(&inode).unwrap(), name);
    }
    let listed = image.entries(&image.root()).unwrap();
    assert!(listed.iter().map(|entry| &entry.name[..]).eq(names));
    assert_eq!(image.lookup(b"abcde").unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn lookup_resolves_as_if_the_image_were_the_root() {
    let image = ImageBytes::new(dir([
        (
            "bin",
            dir([("sh", zlib_file(b"sh")), ("up", symlink("../etc/passwd"))]),
        ),
        (
            "etc",
            dir([
                ("passwd", zlib_file(b"root")),
                ("out", symlink("../../../../bin/sh")),
            ]),
        ),
        ("abs", symlink("/bin/../bin/./sh")),
        ("slash", symlink("/")),
        ("dir", symlink("bin")),
        ("dir-slash", symlink("bin/")),
        ("file-slash", symlink("bin/sh/")),
        ("dangling", symlink("nowhere")),
        ("self", symlink("self")),
        ("a", symlink("b")),
        ("b", symlink("a")),
        ("through", symlink("bin/sh/x")),
    ]));
    let image = Image::open(image.build()).unwrap();
    for (path, want) in [
        ("/", "/"),
        ("//", "/"),
        (".", "/"),
        ("..", "/"),
        ("/../../..", "/"),
        ("bin/sh", "/bin/sh"),
        ("//bin///./sh", "/bin/sh"),
        ("bin/..", "/"),
        ("bin/../../etc/passwd", "/etc/passwd"),
        ("bin/up", "/etc/passwd"),
        ("etc/out", "/bin/sh"),
        ("abs", "/bin/sh"),
        ("slash", "/"),
        ("slash/slash/etc", "/etc"),
        ("dir/sh", "/bin/sh"),
        ("dir/..", "/"),
        ("dir/", "/bin"),
        ("dir/.", "/bin"),
        ("dir-slash", "/bin"),
        ("bin/", "/bin"),
    ] {
        let found = image.resolve(path.as_bytes(), true).unwrap();
        assert_eq!(String::from_utf8_lossy(&found.path), want, "{path}");
        assert_eq!(
            found.inode,
            image.lookup(want.as_bytes()).unwrap(),
            "{path}"
        );
    }
    for (path, kind) in [
        ("", Kind::NotFound),
        ("nothing", Kind::NotFound),
        ("nothing/at/all", Kind::NotFound),
        ("bin/sh2", Kind::NotFound),
        ("dangling", Kind::NotFound),
        ("dangling/..", Kind::NotFound),
        ("bin/sh/", Kind::NotDirectory),
        ("bin/sh/.", Kind::NotDirectory),
        ("bin/sh/..", Kind::NotDirectory),
        ("bin/sh/x", Kind::NotDirectory),
        ("abs/", Kind::NotDirectory),
        ("through", Kind::NotDirectory),
        ("file-slash", Kind::NotDirectory),
        ("self", Kind::SymlinkLoop),
        ("a", Kind::SymlinkLoop),
        ("self/", Kind::SymlinkLoop),
        ("a/x", Kind::SymlinkLoop),
    ] {
        let err = image.lookup(path.as_bytes()).unwrap_err();
        assert_eq!(err.kind(), kind, "{path}: {err}");
        assert!(err.to_string().starts_with(&format!("{path}: ")), "{err}");
    }
    for (path, kind) in [
        ("self", InodeKind::Symlink),
        ("dir", InodeKind::Symlink),
        ("dir/up", InodeKind::Symlink),
        ("dir/", InodeKind::Directory),
        ("dir/.", InodeKind::Directory),
        ("bin", InodeKind::Directory),
    ] {
        let inode = image.lookup_nofollow(path.as_bytes()).unwrap();
        assert_eq!(inode.kind, kind, "{path}");
    }
}

#[test]
fn forty_links_are_followed_and_no_more() {
    let link = |number: usize| (format!("{number}"), symlink(format!("{}", number - 1)));
    let entries = [("0".to_owned(), zlib_file(b"end"))];
    let image = ImageBytes::new(dir(entries.into_iter().chain((1..=41).map(link))));
    let image = Image::open(image.build()).unwrap();
    assert_eq!(image.resolve(b"40", true).unwrap().path, b"/0");
    let err = image.lookup(b"41").unwrap_err();
    assert_eq!(
        (err.kind(), err.kind().exit_code()),
        (Kind::SymlinkLoop, 126)
    );
}

#[test]
fn golden_links_resolve() {
    let image = golden("xip-mmu");
    for (path, want) in [
        ("/bin/p", "/bin/prog32"),
        ("/etc/absolute", "/etc/passwd"),
        ("etc/dots", "/etc/passwd"),
    ] {
        let found = image.resolve(path.as_bytes(), true).unwrap();
        assert_eq!(found.path, want.as_bytes());
    }
    let err = image.lookup(b"/etc/loop1").unwrap_err();
    assert_eq!(err.kind(), Kind::SymlinkLoop);
}

#[test]
fn a_launch_reads_the_image_a_handful_of_times() {
    let program = noise(2_000_000);
    let image = ImageBytes::new(dir([
        ("etc", dir([("passwd", zlib_file(b"root"))])),
        ("bin", dir([("busybox", direct_file(&program, 4096))])),
    ]));
    let bytes = Counted::new(image.build());
    let image = Image::open(bytes.clone()).unwrap();
    image.require_runnable().unwrap();
    let inode = image.lookup(b"/bin/busybox").unwrap();
    let index = FileIndex::new(&image, &inode, PageSize::K4).unwrap();
    assert_eq!(index.direct_pages(), 489);
    // The superblock, two directories, the block pointers, the last page's tail.
    assert_eq!(bytes.reads(), 5);
}
