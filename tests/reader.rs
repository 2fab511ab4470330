//! The reader against images written byte by byte: the forms that no tool writes, and every refusal.

mod common;

use std::{fs, io};

use common::image_bytes::*;
use common::{golden_bytes, noise};
use xip_run::backing::{Backing, ReadAt};
use xip_run::cramfs::dump::mode_text;
use xip_run::cramfs::{Block, Endian, Image, ImageFile, InodeKind};
use xip_run::error::Kind;
use xip_run::units::ImageOffset;

#[test]
fn a_crc_is_right_or_says_both_values() {
    for name in ["ext", "pad512", "big-endian"] {
        let bytes = golden_bytes(name);
        let super_at = if name == "pad512" { 512 } else { 0 };
        // Not the magic and what decides whether there is a CRC: those are other errors.
        for at in [super_at + 20, super_at + 33, super_at + 50, bytes.len() - 1] {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            let err = Image::open(bytes).unwrap().verify_crc().unwrap_err();
            assert_eq!(err.kind(), Kind::BadImage);
            assert!(err.to_string().contains("the superblock says 0x"), "{err}");
        }
    }
    // What lies before the superblock is not part of it.
    let mut bytes = golden_bytes("pad512");
    bytes[..512].fill(0x90);
    Image::open(bytes).unwrap().verify_crc().unwrap();
    // Longer than the 64 KiB that are read at a time, in an odd place.
    let image = ImageBytes {
        super_at: 512,
        pad_to: 7,
        ..ImageBytes::new(dir([("big", direct_file(&noise(200_000), 4))]))
    };
    Image::open(image.build()).unwrap().verify_crc().unwrap();
}

/// Each block in a form that no tool writes beside the others.
fn every_form() -> (Node, Vec<u8>) {
    let page = |number: u8| -> Vec<u8> { noise(4096).iter().map(|byte| byte ^ number).collect() };
    let text = b"compressible ".repeat(316)[..4096].to_vec();
    let blocks = [
        (zlib(&text), text.clone()),
        (raw(page(1)), page(1)),
        (hole(), vec![0; 4096]),
        // A block that is stored short reads as zeros from there on.
        (raw(noise(100)), [noise(100), vec![0; 3996]].concat()),
        (raw_direct(page(2)).align(4096), page(2)),
        // Not direct after direct and uncompressed: starts 4096 bytes after that.
        (zlib(&text), text.clone()),
        (zlib_direct(page(3)).skip(9), page(3)),
        // Not direct after direct and compressed: starts after its length and bytes.
        (raw(page(4)), page(4)),
        (zlib_direct(&text), text.clone()),
        (zlib(page(5)), page(5)),
        (hole(), vec![0; 4096]),
        (hole_direct(), vec![0; 4096]),
        (raw(page(6)), page(6)),
        (raw_direct(page(7)).skip(100), page(7)),
        (raw_direct(page(8)), page(8)),
        (hole(), vec![0; 4096]),
        // Inflates to less than the block: zeros from there on.
        (zlib(b"short"), [b"short".to_vec(), vec![0; 4091]].concat()),
        (raw_direct(noise(1000)), noise(1000)),
    ];
    let (blocks, contents): (Vec<_>, Vec<_>) = blocks.into_iter().unzip();
    (file(blocks), contents.concat())
}

#[test]
fn every_form_of_block_pointer_in_both_byte_orders_and_places() {
    let (node, contents) = every_form();
    let last_whole = noise(4096);
    for (endian, super_at, root_shift) in [
        (Endian::Little, 0, 0),
        (Endian::Big, 0, 0),
        (Endian::Little, 512, 0),
        (Endian::Big, 512, 4000),
    ] {
        let image = ImageBytes {
            endian,
            super_at,
            root_shift,
            flags: if root_shift == 0 { 0x903 } else { 0xd03 },
            ..ImageBytes::new(dir([
                ("forms", node.clone().owner(1000, 100).mode(0o106755)),
                // The last block is direct, uncompressed and whole: Linux would read nothing, we read what is there.
                ("whole", direct_file(&last_whole, 4)),
            ]))
        };
        let image = Image::open(image.build()).unwrap();
        image.require_runnable().unwrap();
        image.verify_crc().unwrap();
        let forms = image.lookup(b"forms").unwrap();
        assert_eq!((forms.mode, forms.uid, forms.gid), (0o106755, 1000, 100));
        assert!(image.read_file(&forms).unwrap() == contents);
        let whole = image.lookup(b"whole").unwrap();
        assert!(image.read_file(&whole).unwrap() == last_whole);
    }
}

#[test]
fn images_of_version_1_end_with_their_file() {
    let image = ImageBytes {
        flags: 0,
        size: Some(1 << 16),
        ..ImageBytes::new(dir([("f", zlib_file(b"contents"))]))
    };
    let image = Image::open(image.build()).unwrap();
    image.require_runnable().unwrap();
    assert!(!image.is_truncated());
    assert_eq!(image.limit_bytes(), 4096);
    let err = image.verify_crc().unwrap_err();
    assert!(err.to_string().contains("no CRC"), "{err}");
    let inode = image.lookup(b"f").unwrap();
    assert_eq!(image.read_file(&inode).unwrap(), b"contents");
}

#[test]
fn numbers_sizes_and_blocks_are_what_linux_shows() {
    // cramino(), get_cramfs_inode(): the root has no entries, so its number is 1 wherever it is.
    for super_at in [0, 512] {
        let image = ImageBytes {
            super_at,
            ..ImageBytes::new(empty_dir())
        };
        let image = Image::open(image.build()).unwrap();
        image.require_runnable().unwrap();
        assert_eq!(image.root().number(), 1);
        assert!(image.entries(&image.root()).unwrap().is_empty());
        assert_eq!(image.lookup(b"/").unwrap(), image.root());
    }
    let image = ImageBytes::new(dir([
        ("file", zlib_file(&noise(4097))),
        ("none", file([])),
        // A size, but no data: Linux shows an empty file.
        ("lie", file([]).size(5000)),
        // mkcramfs has given devices and FIFOs an offset: it means nothing.
        ("null", char_device(1, 3).offset(100)),
        ("sda1", block_device(8, 1)),
        ("sock", socket().offset(100).size(100)),
        ("fifo", fifo()),
        ("mode", node_of_no_kind()),
    ]));
    let image = Image::open(image.build()).unwrap();
    let find = |name: &str| image.lookup(name.as_bytes()).unwrap();
    assert_eq!(image.root().number(), 76);
    let file = find("file");
    assert_eq!(file.at.0, 76);
    assert_eq!(file.number(), 76 + 8 * 16);
    assert_eq!(
        (file.size, file.block_count(), file.stat_blocks()),
        (4097, 2, 9)
    );
    for (slot, name, kind) in [
        (1, "none", InodeKind::File),
        (2, "lie", InodeKind::File),
        (3, "null", InodeKind::CharDevice),
        (4, "sda1", InodeKind::BlockDevice),
        (5, "sock", InodeKind::Socket),
        (6, "fifo", InodeKind::Fifo),
        (7, "mode", InodeKind::Unknown),
    ] {
        let inode = find(name);
        assert_eq!(inode.kind, kind, "{name}");
        assert_eq!(inode.number(), 76 + 16 * slot + 1, "{name}");
        assert_eq!((inode.size, inode.data.0, inode.stat_blocks()), (0, 0, 0));
        assert!(image.read_file(&inode).unwrap().is_empty(), "{name}");
    }
    assert_eq!(find("null").device(), (1, 3));
    assert_eq!((find("sda1").device(), find("sda1").rdev), ((8, 1), 0x801));
    assert_eq!(find("fifo").device(), (0, 0));
}

fn node_of_no_kind() -> Node {
    fifo().mode(0o030644).offset(100).size(100)
}

#[test]
fn what_linux_would_not_mount_is_opened_but_not_run() {
    let good = ImageBytes::new(dir([("f", zlib_file(b"contents"))]));
    let cases = [
        (
            ImageBytes {
                flags: 0x1803,
                ..good.clone()
            },
            "flags 0x1000",
        ),
        (
            ImageBytes {
                flags: 0x8000_0003,
                ..good.clone()
            },
            "flags 0x80000000",
        ),
        (
            ImageBytes {
                root: good.root.clone().mode(0o100755),
                ..good.clone()
            },
            "not a directory",
        ),
        (
            ImageBytes {
                root_shift: 4,
                ..good.clone()
            },
            "at 0x50 without the SHIFTED_ROOT",
        ),
        (
            ImageBytes {
                size: Some(1 << 20),
                ..good.clone()
            },
            "truncated: the superblock says 1048576 bytes, there are 4096",
        ),
        (
            ImageBytes {
                size: Some(0),
                ..good.clone()
            },
            "too few to hold it",
        ),
        (
            ImageBytes {
                size: Some(75),
                ..good.clone()
            },
            "too few to hold it",
        ),
    ];
    for (image, what) in cases {
        let image = Image::open(image.build()).unwrap();
        let err = image.require_runnable().unwrap_err();
        assert_eq!((err.kind(), err.kind().exit_code()), (Kind::BadImage, 125));
        assert!(err.to_string().contains(what), "{err}");
        assert!(image.verify_crc().is_err());
    }
    for (image, flags) in [
        (
            ImageBytes {
                root_shift: 4,
                ..good.clone()
            },
            0xc03,
        ),
        (
            ImageBytes {
                root_shift: 512,
                ..good.clone()
            },
            0x803,
        ),
        (good.clone(), 0xfff),
    ] {
        let image = Image::open(ImageBytes { flags, ..image }.build()).unwrap();
        image.require_runnable().unwrap();
        image.lookup(b"f").unwrap();
    }
    // What has no superblock is not opened at all.
    let magic = ImageBytes {
        magic: 0x28cd_3d46,
        ..good.clone()
    };
    for bytes in [
        magic.build(),
        Vec::new(),
        vec![0; 1000],
        good.build()[..75].to_vec(),
    ] {
        let err = Image::open(bytes).unwrap_err();
        assert_eq!(err.kind(), Kind::BadImage);
        assert!(err.to_string().contains("no cramfs superblock"), "{err}");
    }
}

#[test]
fn only_regular_files_back_an_image() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let fifo = path("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    // A FIFO without a writer must not be waited for.
    for (path, what) in [
        (fifo.as_path(), "not a regular file"),
        (dir.path(), "not a regular file"),
        (&path("missing"), "open: No such file"),
    ] {
        let err = Backing::open(path).unwrap_err();
        assert_eq!(err.kind(), Kind::Failed);
        assert!(err.to_string().contains(what), "{err}");
        assert!(err.to_string().contains(path.to_str().unwrap()), "{err}");
    }
    let file = path("image");
    fs::write(&file, golden_bytes("ext")).unwrap();
    let image = Image::open(Backing::open(&file).unwrap()).unwrap();
    let inode = image.lookup(b"data/text.txt").unwrap();
    image.read_file(&inode).unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(4096)
        .unwrap();
    let err = image.read_file(&inode).unwrap_err();
    assert_eq!(err.kind(), Kind::BadImage);
    assert!(err.to_string().contains("shrunk"), "{err}");
}

#[test]
fn a_block_stored_short_at_the_images_end_reads_as_zeros() {
    let image = ImageBytes {
        pad_to: 4,
        ..ImageBytes::new(dir([("f", file([raw(b"short".as_slice())]).size(4096))]))
    };
    let image = Image::open(image.build()).unwrap();
    let inode = image.lookup(b"f").unwrap();
    let mut piece = [0xaa; 1000];
    let opened = ImageFile::open(&image, &inode).unwrap();
    opened.read(&mut piece, 3000).unwrap();
    assert_eq!(piece, [0; 1000]);
    assert_eq!(image.read_file(&inode).unwrap()[..6], *b"short\0");
}

/// What asks the reader for the wrong thing is told so.
#[test]
fn a_file_is_no_directory_and_no_block_is_that_long() {
    let image = Image::open(golden_bytes("plain")).unwrap();
    let file = image.lookup(b"/data/text.txt").unwrap();
    let entries = image.entries(&file).unwrap_err();
    let found = image.find(&file, b"x").unwrap_err();
    assert_eq!([entries.kind(), found.kind()], [Kind::NotDirectory; 2]);
    let block = Block::Compressed {
        at: ImageOffset(0x200),
        len_bytes: 8193,
    };
    let err = image.read_block(block, &mut [0; 4096]).unwrap_err();
    assert_eq!(
        err.to_string(),
        "compressed block at image@0x200: 8193 bytes"
    );
    assert!(format!("{image:?}").ends_with(", little endian, superblock at 0)"));
}

/// A device that answers with an error.
struct Broken;

impl ReadAt for Broken {
    fn len_bytes(&self) -> u64 {
        1 << 20
    }

    fn read_exact_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
        Err(io::Error::other("medium error"))
    }
}

#[test]
fn a_read_error_is_no_bad_image() {
    let err = Image::open(Broken).unwrap_err();
    assert_eq!(err.kind(), Kind::Failed);
    assert_eq!(err.to_string(), "superblock at 0x0: read: medium error");
}

#[test]
fn modes_are_written_as_ls_writes_them() {
    for (mode, text) in [
        (0o100_644, "-rw-r--r--"),
        (0o104_755, "-rwsr-xr-x"),
        (0o102_640, "-rw-r-S---"),
        (0o041_776, "drwxrwxrwT"),
        (0o041_777, "drwxrwxrwt"),
        (0o120_777, "lrwxrwxrwx"),
        (0o030_000, "?---------"),
    ] {
        assert_eq!(mode_text(mode), text);
    }
}
