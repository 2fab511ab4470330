//! Invariant: whatever bytes an image has, whatever reads one ends soon, without a panic, with an error that names the place
//! or with what is right. The targets say it one by one: tests/fuzz/targets.
//!
//! Valid images (golden, and byte by byte with every form of block) are damaged with bits flipped, numbers of the kind
//! that break parsers, and pieces of themselves. `XIP_FUZZ_CASES` sets the number of cases. The same targets, guided by
//! coverage, from the same seeds: `tests/fuzz/run`.

mod common;
#[allow(dead_code, unused_imports, reason = "it is the unit tests' too")]
#[path = "../src/elf/testing.rs"]
mod making;
#[path = "fuzz/targets/mod.rs"]
mod targets;

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use common::image_bytes::*;
use common::{GOLDEN, cases, golden_bytes, noise, processor_time};
use making::{Maker, load};
use proptest::prelude::*;
use targets::view::REQUESTS_BYTES;
use targets::{MAX_ZEROS_BYTES, TARGETS};
use xip_run::cramfs::{Image, check};
use xip_run::elf::{Class, Machine};
use xip_run::units::{self, Endian};

/// Most bytes of a fuzzer's input: for many runs, and for deep ones.
const SMALL_MAX_BYTES: usize = 1 << 10;
const LARGE_MAX_BYTES: usize = 28 << 10;

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

/// The same in three pages, for a fuzzer that should hit what matters.
fn little(endian: Endian, super_at: usize) -> Vec<u8> {
    let text = b"compressible ".repeat(316)[..4096].to_vec();
    let forms = file([
        zlib(&text),
        hole(),
        zlib_direct(&text),
        hole_direct(),
        raw(b"the end".as_slice()),
    ]);
    let image = ImageBytes {
        endian,
        super_at,
        pad_to: 4,
        ..ImageBytes::new(dir([
            (
                "d",
                dir([("forms", forms), ("link", symlink("../d/forms"))]),
            ),
            (
                "direct",
                direct_file(&noise(5000), 4096).then(vec![0; 3192]),
            ),
            ("null", char_device(1, 3)),
            ("su", zlib_file(b"#!/d/forms\n").mode(0o104_755)),
            ("up", again(0)),
        ]))
    };
    image.build()
}

/// What one page holds: short streams, a block at the image's start, which can be mapped, and an entry of each kind.
fn tiny(endian: Endian, super_at: usize) -> Vec<u8> {
    let text = b"some text, some text";
    let mapped = file([pointer(DIRECT | UNCOMPRESSED)])
        .size(4000)
        .mode(0o100_755);
    let image = ImageBytes {
        endian,
        super_at,
        ..ImageBytes::new(dir([
            ("a", dir([("l", symlink("../z")), ("p", fifo())])),
            ("m", mapped),
            ("n", char_device(1, 3)),
            ("r", file([raw(b"as it is".as_slice())]).mode(0o104_755)),
            ("z", file([hole(), zlib_direct(text)])),
        ]))
    };
    image.build()
}

/// One file, zlib, a script.
fn least(endian: Endian) -> Vec<u8> {
    let image = ImageBytes {
        endian,
        ..ImageBytes::new(dir([("s", zlib_file(b"#!/s\n").mode(0o100_755))]))
    };
    image.build()
}

/// A program in the 512 bytes before the superblock, its second segment in zeros behind the image; and its interpreter,
/// compressed.
fn tiny_program(class: Class, endian: Endian) -> Vec<u8> {
    let machine = machine(class, endian);
    let phdrs = [
        load(0, 0x1_0000, 0x1000, 0x1000, making::RX),
        load(0x1000, 0x2_1000, 0x234, 0x1800, making::RW),
    ];
    let program = Maker {
        machine,
        ..Maker::fixed(512, &phdrs).interp(b"/ld\0")
    };
    let interp = Maker {
        machine,
        ..Maker::relocatable(0x180, &[load(0, 0, 0x180, 0x180, making::RX)])
    };
    let pages = [0, 4096 / 4].map(|at| pointer(at | DIRECT | UNCOMPRESSED));
    let image = ImageBytes {
        endian,
        super_at: 512,
        pad_to: 8192,
        ..ImageBytes::new(dir([
            ("ld", zlib_file(&interp.build()).mode(0o100_755)),
            ("p", file(pages).size(0x1234).mode(0o100_755)),
        ]))
    };
    let mut bytes = image.build();
    bytes[..512].copy_from_slice(&program.build());
    bytes
}

fn machine(class: Class, endian: Endian) -> Machine {
    Machine {
        number: if class == Class::Elf64 { 62 } else { 40 },
        class,
        endian,
    }
}

/// Programs and their interpreter, of this class and byte order.
fn programs(class: Class, endian: Endian) -> Vec<u8> {
    let machine = machine(class, endian);
    let phdrs = [
        load(0, 0x1_0000, 0x1000, 0x1000, making::RX),
        load(0x1000, 0x2_1000, 0x234, 0x1800, making::RW),
    ];
    let fixed = Maker {
        machine,
        ..Maker::fixed(0x1234, &phdrs)
    };
    let interp = Maker {
        kind: 3,
        ..fixed.clone()
    };
    let direct = |bytes: &[u8]| direct_file(bytes, 4096).mode(0o100_755);
    let image = ImageBytes {
        endian,
        pad_to: 4096,
        ..ImageBytes::new(dir([
            ("ld", direct(&interp.build())),
            ("p", direct(&fixed.interp(b"/ld\0").build())),
        ]))
    };
    image.build()
}

static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let places = [0, 512];
    let endians = [Endian::Little, Endian::Big];
    let made = [everything, little, tiny]
        .map(|make| endians.map(|endian| places.map(|at| make(endian, at))))
        .into_iter()
        .flatten()
        .flatten();
    let least = endians.map(least);
    let programs = [programs, tiny_program]
        .map(|make| {
            [Class::Elf32, Class::Elf64].map(|class| endians.map(|endian| make(class, endian)))
        })
        .into_iter()
        .flatten()
        .flatten();
    let golden = GOLDEN.iter().map(|name| golden_bytes(name));
    made.chain(least).chain(programs).chain(golden).collect()
});

/// What a target is fed with: the view's server gets requests too.
fn input(target: &str, image: &[u8], requests: &[u8]) -> Vec<u8> {
    match target {
        "view" => [&requests[..REQUESTS_BYTES], image].concat(),
        _ => image.to_vec(),
    }
}

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

/// Feeds every target.
fn feed(image: &[u8], requests: &[u8]) {
    for (name, target) in TARGETS {
        let start = processor_time();
        target(&input(name, image, requests));
        let took = processor_time() - start;
        assert!(took < Duration::from_secs(5), "{name}: {took:?}");
    }
}

#[test]
fn the_seeds_are_sound() {
    for seed in &*SEEDS {
        let image = Image::open(seed.clone()).unwrap();
        image.verify_crc().unwrap();
        feed(seed, &noise(REQUESTS_BYTES));
    }
    let sound = SEEDS.iter().map(|seed| Image::open(seed.clone()).unwrap());
    assert!(sound.filter(|image| check(image).is_sound()).count() > GOLDEN.len() / 2);
}

/// Writes what a coverage-guided fuzzer begins with, for `tests/fuzz/run`: `small/TARGET`, `large/TARGET`.
#[test]
#[ignore = "writes files"]
fn write_corpora() {
    let to = PathBuf::from(std::env::var_os("XIP_FUZZ_CORPORA").expect("XIP_FUZZ_CORPORA: where"));
    for (name, _) in TARGETS {
        for (size, max_bytes) in [("small", SMALL_MAX_BYTES), ("large", LARGE_MAX_BYTES)] {
            let dir = to.join(size).join(name);
            std::fs::create_dir_all(&dir).unwrap();
            for (number, image) in SEEDS.iter().enumerate() {
                let zeros = image.iter().rev().take_while(|&&byte| byte == 0);
                // Those that the targets add again.
                let zeros = zeros.count().min(MAX_ZEROS_BYTES);
                let seed = input(name, &image[..image.len() - zeros], &noise(REQUESTS_BYTES));
                if seed.len() <= max_bytes {
                    std::fs::write(dir.join(format!("seed{number}")), seed).unwrap();
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(500))]

    // Invariant: a damaged image is read, or refused with a place, within five seconds a target.
    #[test]
    fn damaged_images(
        seed in 0..SEEDS.len(),
        damages in prop::collection::vec(damage(), 1..8),
        requests in prop::collection::vec(any::<u8>(), REQUESTS_BYTES),
    ) {
        let mut bytes = SEEDS[seed].clone();
        for damage in &damages {
            damage.apply(&mut bytes);
        }
        feed(&bytes, &requests);
    }

    // Invariant: bytes that were never an image behind a superblock that is right are read, or refused with a place.
    #[test]
    fn random_bodies(body in prop::collection::vec(any::<u8>(), 0..3000), size in 0..2000_u32, big in any::<bool>()) {
        let image = ImageBytes {
            endian: if big { Endian::Big } else { Endian::Little },
            ..ImageBytes::new(dir_of_bytes(body).size(size))
        };
        feed(&image.build(), &noise(REQUESTS_BYTES));
    }
}
