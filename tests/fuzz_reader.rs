//! Invariant: whatever bytes an image has, reader, extents and index end soon, without a panic, with an error that names
//! the place or with pages that show the file's bytes and nothing else.
//!
//! Valid images (golden, and byte by byte with every form of block) are damaged with bits flipped, numbers of the kind
//! that break parsers, and pieces of themselves; the CRC is not looked at, as at a launch. `XIP_FUZZ_CASES` sets the
//! number of cases.

mod common;

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use common::image_bytes::*;
use common::oracle::check_file;
use common::{GOLDEN, cases, golden_bytes, noise};
use proptest::prelude::*;
use xip_run::cramfs::{Endian, Image, InodeKind};
use xip_run::error::{Error, Kind};

/// An image with everything in it, small, so that damage hits.
fn everything(endian: Endian, super_at: usize) -> Vec<u8> {
    let text = b"compressible ".repeat(316)[..4096].to_vec();
    let forms = file([
        zlib(&text),
        raw(noise(4096)),
        hole(),
        raw_direct(noise(4096)).align(4096),
        raw_direct(noise(4096)),
        zlib(&text),
        zlib_direct(&text),
        raw(noise(100)),
        hole_direct(),
        raw_direct(noise(1000)).align(4096),
    ]);
    let image = ImageBytes {
        endian,
        super_at,
        ..ImageBytes::new(dir([
            (
                "bin",
                dir([("forms", forms), ("link", symlink("../bin/./forms"))]),
            ),
            (
                "direct",
                direct_file(&noise(20_000), 16384).then(vec![0; 12_768]),
            ),
            ("null", char_device(1, 3)),
            ("fifo", fifo()),
            ("again", again(0)),
            ("loop", symlink("loop")),
            ("abs", symlink("/bin/link")),
        ]))
    };
    image.build()
}

static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let places = [0, 512];
    let own = [Endian::Little, Endian::Big].map(|endian| places.map(|at| everything(endian, at)));
    let golden = GOLDEN.iter().map(|name| golden_bytes(name));
    own.into_iter().flatten().chain(golden).collect()
});

/// One piece of damage. Places are shares of the image's length, and mostly near its front, where the inodes are.
#[derive(Clone, Debug)]
enum Damage {
    Flip { at: f64, bit: u8 },
    Word { at: f64, value: u32 },
    Splice { from: f64, to: f64, len: usize },
    Cut { at: f64 },
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let len = bytes.len();
        let place = |share: f64| ((len as f64 * share) as usize).min(len.saturating_sub(1));
        if len == 0 {
            return;
        }
        match *self {
            Self::Flip { at, bit } => bytes[place(at)] ^= 1 << bit,
            Self::Word { at, value } => {
                let at = place(at) & !3;
                if let Some(word) = bytes.get_mut(at..at + 4) {
                    word.copy_from_slice(&value.to_ne_bytes());
                }
            }
            Self::Splice {
                from,
                to,
                len: count,
            } => {
                let (from, to) = (place(from) & !3, place(to) & !3);
                let count = count.min(len - from.max(to));
                bytes.copy_within(from..from + count, to);
            }
            Self::Cut { at } => bytes.truncate(place(at)),
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    // The cube of a share: half of them fall on the first eighth.
    let place = || (0.0..1.0_f64).prop_map(|share| share * share * share);
    let values = vec![
        0,
        1,
        4,
        19,
        0xff,
        0x1000,
        0x7fff_ffff,
        0xffff_ffff,
        0xffff_ff00,
        0x00ff_ffff,
        0xffff_ffc0,
        0x3fff_ffff,
        0x8000_0000,
        0xc000_0000,
        0xc000_0400,
        0x4000_0013,
        0x2000,
        0x0010_0000,
    ];
    let word = prop_oneof![prop::sample::select(values), any::<u32>()];
    prop_oneof![
        8 => (place(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip { at, bit }),
        4 => (place(), word).prop_map(|(at, value)| Damage::Word { at, value }),
        2 => (place(), place(), 4..600_usize).prop_map(|(from, to, len)| Damage::Splice { from, to, len }),
        1 => (0.0..1.0_f64).prop_map(|at| Damage::Cut { at }),
    ]
}

fn assert_honest(err: &Error) {
    let text = err.to_string();
    assert!(
        matches!(err.kind(), Kind::BadImage | Kind::NotDirectory),
        "{text}"
    );
    assert!(
        err.kind() != Kind::BadImage || text.contains("0x"),
        "no place in {text:?}"
    );
}

/// Does all that the library does with an image. Directories may be many and cyclic: each place once, and not too many.
fn exercise(bytes: &[u8]) {
    let Ok(image) = Image::open(bytes.to_vec()) else {
        return;
    };
    let _ = image.require_runnable();
    let _ = image.verify_crc();
    let mut seen = HashSet::new();
    let mut dirs = vec![image.root()];
    let mut left = 100;
    while let Some(dir) = dirs.pop() {
        let entries = match image.entries(&dir) {
            Ok(entries) => entries,
            Err(err) => {
                assert_honest(&err);
                continue;
            }
        };
        for entry in entries {
            let inode = entry.inode;
            if left == 0 || !seen.insert((inode.kind as u8, inode.data, inode.size)) {
                continue;
            }
            left -= 1;
            assert!(!entry.name.is_empty() && entry.name.len() <= 252);
            match inode.kind {
                InodeKind::Directory => dirs.push(inode),
                InodeKind::Symlink => {
                    if let Err(err) = image.read_link(&inode) {
                        assert_honest(&err);
                    }
                }
                _ => match image.blocks(&inode) {
                    Ok(_) => drop(check_file(&image, bytes, &inode)),
                    Err(err) => assert_honest(&err),
                },
            }
        }
    }
    for path in [
        "bin/link",
        "/abs",
        "loop",
        "again/again/bin/forms/",
        "etc/dots",
        "bin/../bin/p",
    ] {
        let _ = image.lookup(path.as_bytes());
    }
}

#[test]
fn the_seeds_are_sound() {
    for seed in &*SEEDS {
        let image = Image::open(seed.clone()).unwrap();
        image.verify_crc().unwrap();
        exercise(seed);
    }
}

proptest! {
    #![proptest_config(cases(2000))]

    // Invariant: a damaged image is read, or refused with a place, within five seconds.
    #[test]
    fn damaged_images(
        seed in 0..SEEDS.len(),
        damages in prop::collection::vec(damage(), 1..8),
    ) {
        let mut bytes = SEEDS[seed].clone();
        for damage in &damages {
            damage.apply(&mut bytes);
        }
        let start = Instant::now();
        exercise(&bytes);
        prop_assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }

    // Invariant: bytes that were never an image behind a superblock that is right are read, or refused with a place.
    #[test]
    fn random_bodies(body in prop::collection::vec(any::<u8>(), 0..3000), size in 0..2000_u32, big in any::<bool>()) {
        let image = ImageBytes {
            endian: if big { Endian::Big } else { Endian::Little },
            ..ImageBytes::new(dir_of_bytes(body).size(size))
        };
        exercise(&image.build());
    }
}
