//! Invariant: whatever headers a program has and however an image stores it, the planner ends soon, without a panic and
//! without much memory, with a refusal that is not its own fault or with a plan that passes its proof.
//!
//! `src/plan/tests/proof.rs` has the same for x86_64 programs in images that the planner's unit tests make. Here are the
//! programs of every class and byte order with header fields that lie, images with every form of block in either byte
//! order and place, interpreters, images by the real writer, and busybox with its headers damaged. `XIP_FUZZ_CASES` sets
//! the number of cases of each test.

mod common;
#[allow(dead_code, reason = "it is the unit tests' too")]
#[path = "../src/elf/testing.rs"]
mod making;
#[path = "fuzz/targets/mod.rs"]
mod targets;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use common::cases;
use common::storing::storing;
use making::{Maker, PT_GNU_STACK, PT_INTERP, PT_LOAD, Phdr, load};
use proptest::collection::vec;
use proptest::prelude::*;
use targets::plan::prove;
use xip_run::backing::NoCow;
use xip_run::cramfs::build::{BuildOptions, build};
use xip_run::cramfs::xip::XipPolicy;
use xip_run::cramfs::{Image, Inode};
use xip_run::elf::{Class, Machine};
use xip_run::error::Kind;
use xip_run::plan::{LaunchPlan, PlanOptions};
use xip_run::units;
use xip_run::units::{Endian, PageRange, PageSize};

/// A plan and its proof take no longer.
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// Nor more address space than this, all tests of this file together. The largest file has 16 MiB.
const MEMORY_LIMIT_KIB: u64 = 512 << 10;

/// `VmPeak`: touched or not, what was asked for counts.
fn address_space_peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
    let words = line.unwrap().trim().strip_suffix(" kB").unwrap();
    words.parse().unwrap()
}

static PEAK_BEFORE_KIB: LazyLock<u64> = LazyLock::new(address_space_peak_kib);

/// Plans `path` of an image. A plan is proved and used as its users do. `sound`: the blocks can all be read.
/// True if there is a plan.
fn check(image: &Image, path: &[u8], options: &PlanOptions, sound: bool) -> bool {
    LazyLock::force(&PEAK_BEFORE_KIB);
    let start = Instant::now();
    let planned = match LaunchPlan::new(image, path, options) {
        Ok(plan) => {
            prove(image, &plan, sound);
            true
        }
        Err(err) => {
            // Failed is a plan that its own checks refuse, or bytes that memory could not give.
            assert_ne!(err.kind(), Kind::Failed, "{err}");
            assert!(err.to_string().len() < 8192, "an endless message");
            false
        }
    };
    let took = start.elapsed();
    assert!(took < TIME_LIMIT, "{took:?}");
    let grown = address_space_peak_kib() - *PEAK_BEFORE_KIB;
    assert!(grown < MEMORY_LIMIT_KIB, "{grown} KiB more memory");
    planned
}

fn machine() -> impl Strategy<Value = Machine> {
    let numbers = prop::sample::select(vec![62_u16, 40, 183, 243, 3, 8, 0, 0xffff]);
    (numbers, any::<bool>(), any::<bool>()).prop_map(|(number, wide, big)| Machine {
        number,
        class: if wide { Class::Elf64 } else { Class::Elf32 },
        endian: if big { Endian::Big } else { Endian::Little },
    })
}

/// Numbers that lie near what the headers of a small program say, or near the ends of everything.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => (0u64..20, -2i64..3).prop_map(|(page, off)| (page * 0x1000).wrapping_add_signed(off)),
        3 => (0u64..4, 0u64..0x1000).prop_map(|(page, off)| page * 0x10000 + off),
        2 => 0u64..0x12000,
        1 => any::<u64>(),
        1 => (12u32..64, -1i64..2).prop_map(|(bit, off)| (1_u64 << bit).wrapping_add_signed(off)),
        1 => Just(u64::MAX),
    ]
}

fn wild_phdr() -> impl Strategy<Value = Phdr> {
    let kind = prop_oneof![8 => Just(PT_LOAD), 1 => Just(PT_INTERP), 1 => Just(PT_GNU_STACK)];
    let numbers = (number(), number(), number(), number(), number());
    (kind, numbers, any::<u32>()).prop_map(
        |(kind, (offset, vaddr, filesz, memsz, align), flags)| Phdr {
            kind,
            offset,
            vaddr,
            filesz,
            memsz,
            flags,
            align,
        },
    )
}

/// Segments that ascend and fit a file of 12 blocks, congruent within pages of 4 KiB or of 64: most of them have a plan.
fn tame_phdrs() -> impl Strategy<Value = Vec<Phdr>> {
    let one = (
        0u64..0x9000,
        0u64..0xc000,
        0u64..0x6000,
        prop_oneof![Just(0u64), 0u64..0x14000],
        0u32..8,
    );
    let unit = prop::sample::select(vec![0x1000u64, 0x10000]);
    (unit, vec(one, 1..6)).prop_map(|(unit, all)| {
        let mut next = 0x40_0000;
        let mut phdrs: Vec<Phdr> = Vec::new();
        for (gap, offset, filesz, extra, flags) in all {
            let vaddr = ((next + gap) & !(unit - 1)) + offset % unit;
            if phdrs.last().is_some_and(|last| vaddr < last.vaddr) {
                continue;
            }
            let filesz = filesz.min(0xc000 - offset);
            phdrs.push(load(offset, vaddr, filesz, filesz + extra, flags));
            next = vaddr + filesz + extra;
        }
        phdrs
    })
}

/// What of a program lies besides its segments.
fn lies() -> impl Strategy<Value = (u16, u64, Option<u64>, Option<u16>, Option<u16>)> {
    let rarely = |strategy: BoxedStrategy<u64>| prop::option::weighted(0.1, strategy);
    let half = |values: Vec<u64>| {
        prop_oneof![
            any::<u16>().prop_map(u64::from),
            prop::sample::select(values)
        ]
        .boxed()
    };
    (
        prop_oneof![8 => 2u16..4, 1 => any::<u16>()],
        number(),
        rarely(number().boxed()),
        rarely(half(vec![0, 1, 1170, 2048, 2049, 0xffff])),
        rarely(half(vec![0, 32, 52, 56, 64])),
    )
        .prop_map(|(kind, entry, phoff, phnum, phentsize)| {
            let small = |value: Option<u64>| value.map(|value| value as u16);
            (kind, entry, phoff, small(phnum), small(phentsize))
        })
}

fn options() -> impl Strategy<Value = PlanOptions> {
    let reserved = prop::option::of((0x3f_0000u64..0x44_0000, 0x1000u64..0x20000));
    let page = prop::sample::select(PageSize::ALL.to_vec());
    (page, any::<bool>(), any::<bool>(), 0..8, reserved).prop_map(
        |(page, copy_text, cow, host, reserved)| PlanOptions {
            copy_text,
            cow: if cow { Ok(()) } else { Err(NoCow::SharedOnly) },
            machine: (host == 0).then_some(Machine::HOST),
            reserved: reserved
                .and_then(|(at, len)| PageRange::new(page, page.floor(at), page.ceil(len)?)),
            ..PlanOptions::new(page)
        },
    )
}

proptest! {
    #![proptest_config(cases(400))]

    // Invariant: headers whose every field may lie are refused or have a plan that is right.
    #[test]
    fn wild_headers(
        machine in machine(),
        phdrs in vec(wild_phdr(), 0..6),
        (kind, entry, phoff, phnum, phentsize) in lies(),
        len in 0usize..0xc001,
        interp in prop::option::of(vec(any::<u8>(), 0..12)),
        storing in storing(),
        options in options(),
    ) {
        let mut maker = Maker { machine, kind, entry, phoff, phnum, phentsize, ..Maker::fixed(len, &phdrs) };
        if let Some(name) = interp {
            maker = maker.interp(&name);
        }
        let image = Image::open(storing.image(&maker.build(), b"")).unwrap();
        check(&image, b"/p", &options, true);
    }

    // Invariant: programs that Linux would load, with an interpreter now and then, have plans that are right; with 4 KiB
    // pages they all have one.
    #[test]
    fn tame_headers(
        machine in machine(),
        kinds in (2u16..4, 2u16..4),
        phdrs in tame_phdrs(),
        len in 0xb001_usize..0xc001,
        interp_phdrs in prop::option::weighted(0.3, tame_phdrs()),
        storing in storing(),
        options in options(),
    ) {
        let make = |kind, phdrs: &[Phdr]| Maker { machine, kind, ..Maker::fixed(len, phdrs) };
        let mut program = make(kinds.0, &phdrs);
        if interp_phdrs.is_some() {
            program = program.interp(b"/ld.so\0");
        }
        // As if the interpreter were linked where it is in no program's way.
        let interp: Vec<Phdr> = interp_phdrs
            .iter()
            .flatten()
            .map(|phdr| Phdr { vaddr: phdr.vaddr + 0x100_0000, ..*phdr })
            .collect();
        let image = Image::open(storing.image(&program.build(), &make(kinds.1, &interp).build())).unwrap();
        let planned = check(&image, b"/p", &options, true);
        let any = |phdrs: &[Phdr]| phdrs.iter().any(|phdr| phdr.memsz > 0);
        let must = options.page == PageSize::K4
            && options.machine.is_none()
            && options.reserved.is_none()
            && any(&phdrs)
            && (interp_phdrs.is_none() || any(&interp));
        prop_assert!(planned || !must);
    }

    // Invariant: in an image by the real writer, a program with damaged headers is refused or has a plan that is right.
    #[test]
    fn damaged_headers_in_written_images(
        seed in 0..WRITTEN.seeds.len(),
        damages in vec(damage(), 1..6),
        options in options(),
    ) {
        let seed = &WRITTEN.seeds[seed];
        let mut bytes = WRITTEN.bytes.clone();
        for damage in &damages {
            damage.apply(&mut bytes, seed);
        }
        let Ok(image) = Image::open(bytes) else { return Ok(()) };
        check(&image, &seed.path, &options, false);
    }
}

proptest! {
    // Most of its time goes into the proof of two megabytes; the others have small programs.
    #![proptest_config(cases(24))]

    // Invariant: the same for Debian's busybox.
    #[test]
    fn busybox_with_damaged_headers(damages in vec(damage(), 1..4), options in options()) {
        let Some((bytes, seed)) = &*BUSYBOX else { return Ok(()) };
        let mut bytes = bytes.clone();
        for damage in &damages {
            damage.apply(&mut bytes, seed);
        }
        let Ok(image) = Image::open(bytes) else { return Ok(()) };
        check(&image, &seed.path, &options, false);
    }
}

/// A program of an image by the real writer.
#[derive(Debug)]
struct Seed {
    path: Vec<u8>,
    inode: Inode,
    /// Where in the image its ELF header is.
    header_at: usize,
    /// Length of its headers.
    header_len: usize,
}

struct Written {
    bytes: Vec<u8>,
    seeds: Vec<Seed>,
}

fn write_image(programs: &[(String, Vec<u8>)]) -> Written {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    for (name, bytes) in programs {
        fs::write(root.join(name), bytes).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let options = BuildOptions {
        xip: XipPolicy::new(&[], false).unwrap(),
        ..BuildOptions::default()
    };
    let to = dir.path().join("image");
    build(&root, &to, &options, &mut |_, _| {}).unwrap();
    let bytes = fs::read(to).unwrap();
    let image = Image::open(bytes.clone()).unwrap();
    let seeds = programs.iter().map(|(name, program)| {
        let path = format!("/{name}").into_bytes();
        let inode = image.lookup(&path).unwrap();
        // Its headers are stored as they are, so that they can be damaged where they lie.
        let head = &program[..64];
        let header_at = bytes.windows(64).position(|window| window == head).unwrap();
        Seed {
            path,
            inode,
            header_at,
            header_len: 0x200,
        }
    });
    let seeds = seeds.collect();
    Written { bytes, seeds }
}

/// Programs of both classes and byte orders, fixed and relocatable, in one image by the real writer.
static WRITTEN: LazyLock<Written> = LazyLock::new(|| {
    let mut programs = Vec::new();
    for (number, class) in [(62, Class::Elf64), (40, Class::Elf32)] {
        for endian in [Endian::Little, Endian::Big] {
            for kind in [2, 3] {
                let phdrs = [
                    load(0, 0x1_0000, 0x3000, 0x3000, making::RX),
                    load(0x3000, 0x2_3000, 0x4000, 0x4000, making::R),
                    load(0x7800, 0x4_7800, 0x2345, 0x7000, making::RW),
                ];
                let machine = Machine {
                    number,
                    class,
                    endian,
                };
                // The lengths differ, and so the last pages: some are shared with what follows, or end in zeros.
                let len = 0x9b45 + 0x333 * programs.len();
                let maker = Maker {
                    machine,
                    kind,
                    ..Maker::fixed(len, &phdrs)
                };
                let maker = if kind == 3 {
                    maker.interp(b"/prog0\0")
                } else {
                    maker
                };
                programs.push((format!("prog{}", programs.len()), maker.build()));
            }
        }
    }
    write_image(&programs)
});

/// Debian's busybox in an image by the real writer, if there is one.
static BUSYBOX: LazyLock<Option<(Vec<u8>, Seed)>> = LazyLock::new(|| {
    let path = Path::new("/bin/busybox");
    assert!(
        path.exists() || std::env::var_os("CI").is_none(),
        "no /bin/busybox"
    );
    if !path.exists() {
        println!("skipped: there is no /bin/busybox");
        return None;
    }
    let mut written = write_image(&[("busybox".to_owned(), fs::read(path).unwrap())]);
    written.seeds.pop().map(|seed| (written.bytes, seed))
});

/// One piece of damage. Places are taken modulo the length of what they are in.
#[derive(Clone, Debug)]
enum Damage {
    /// A bit of the headers.
    Flip { at: usize, bit: u8 },
    /// An aligned field of the headers, of 2, 4 or 8 bytes.
    Field {
        at: usize,
        log2: u32,
        value: u64,
        big: bool,
    },
    /// A block pointer.
    Pointer { number: usize, value: u32 },
    /// A byte of the superblock, the directory or the block pointers.
    Front { at: usize, value: u8 },
}

fn damage() -> impl Strategy<Value = Damage> {
    let pointer = prop_oneof![
        any::<u32>(),
        (0u32..0x10_0000).prop_map(|at| 0xc000_0000 | (at << 10))
    ];
    prop_oneof![
        4 => (any::<usize>(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip { at, bit }),
        8 => (any::<usize>(), 1..4_u32, number(), any::<bool>())
            .prop_map(|(at, log2, value, big)| Damage::Field { at, log2, value, big }),
        1 => (any::<usize>(), pointer).prop_map(|(number, value)| Damage::Pointer { number, value }),
        1 => (any::<usize>(), any::<u8>()).prop_map(|(at, value)| Damage::Front { at, value }),
    ]
}

impl Damage {
    fn apply(&self, bytes: &mut [u8], seed: &Seed) {
        let headers = &mut bytes[seed.header_at..][..seed.header_len];
        match *self {
            Self::Flip { at, bit } => headers[at % seed.header_len] ^= 1 << bit,
            Self::Field {
                at,
                log2,
                value,
                big,
            } => {
                let len = 1 << log2;
                let at = (at % seed.header_len) & !(len - 1);
                let value = if big {
                    value.to_be_bytes()
                } else {
                    value.to_le_bytes()
                };
                let part = if big {
                    &value[8 - len..]
                } else {
                    &value[..len]
                };
                headers[at..at + len].copy_from_slice(part);
            }
            Self::Pointer { number, value } => {
                let number = number % seed.inode.block_count() as usize;
                let at = seed.inode.data.0 as usize + 4 * number;
                bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
            }
            Self::Front { at, value } => bytes[at % 0x400] = value,
        }
    }
}
