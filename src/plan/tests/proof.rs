//! The proof catches wrong plans, and no plan that is made is wrong.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::backing::NoCow;
use crate::plan::testing::image_bytes;

#[test]
fn a_wrong_plan_does_not_pass() {
    let maker = Maker::fixed(
        0x5000,
        &[
            load(0, 0x40_0000, 0x2000, 0x2000, RX),
            load(0x2000, 0x40_3000, 0x2800, 0x4000, RW),
        ],
    );
    let image = image(&[TestFile::program("p", maker.build())]);
    let right = LaunchPlan::new(&image, b"/p", &PlanOptions::new(K4)).unwrap();
    right.verify(&image).unwrap();
    let spoil = |what: &str, change: &dyn Fn(&mut LaunchPlan)| {
        let mut plan = right.clone();
        change(&mut plan);
        let err = plan.verify(&image).expect_err(what);
        assert_eq!(err.kind(), Kind::Failed, "{err}");
    };
    let page = |start, len| PageRange::new(K4, start, len).unwrap();
    type Change<'a> = (&'a str, &'a dyn Fn(&mut LaunchPlan));
    let changes: &[Change] = &[
        ("another page", &|plan| {
            plan.program.mappings[0].source = Source::Direct {
                at: ImageOffset(0x11000),
            }
        }),
        ("unaligned", &|plan| {
            plan.program.mappings[0].source = Source::Direct {
                at: ImageOffset(0x10800),
            }
        }),
        ("beyond the image", &|plan| {
            plan.program.mappings[0].source = Source::Direct {
                at: ImageOffset(!0xfff),
            };
        }),
        ("bss not cleared", &|plan| {
            plan.program.mappings[1].clear = None;
        }),
        ("too much cleared", &|plan| {
            plan.program.mappings[1].clear = Some(0x40_5700..0x40_6000);
        }),
        ("cleared elsewhere", &|plan| {
            plan.program.mappings[1].clear = Some(0x40_3800..0x40_4000);
        }),
        ("wrong protection", &|plan| {
            plan.program.mappings[0].prot = Prot::RW;
        }),
        ("missing", &|plan| plan.program.mappings.truncate(2)),
        ("short", &|plan| {
            plan.program.mappings[0].pages = page(0x40_0000, 0x1000);
        }),
        ("overlapping", &|plan| {
            plan.program.mappings[0].pages = page(0x40_0000, 0x4000);
        }),
        ("outside the span", &|plan| {
            plan.program.mappings[2].pages = page(0x40_6000, 0x2000);
        }),
        ("anonymous text", &|plan| {
            plan.program.mappings[0].source = Source::Zero;
        }),
        ("copied too little", &|plan| {
            plan.program.mappings[0].source = Source::Copied {
                at: FileOffset(0),
                file_bytes: 0x1fff,
                why: CopyReason::NotDirect(NotDirect::Compressed),
            };
        }),
        ("copied bss", &|plan| {
            plan.program.mappings[1].clear = None;
            plan.program.mappings[1].source = Source::Copied {
                at: FileOffset(0x2000),
                file_bytes: 0x3000,
                why: CopyReason::CannotCow(NoCow::Refused),
            };
        }),
        ("writable without copy-on-write", &|plan| {
            plan.options.cow = Err(NoCow::Refused);
        }),
        ("text to be copied", &|plan| plan.options.copy_text = true),
        ("aligned to no page", &|plan| {
            plan.program.align_bytes = 0x800;
        }),
        ("not on the kernel's pages", &|plan| {
            plan.options.page = PageSize::K16;
            plan.program.align_bytes = PageSize::K16.bytes();
        }),
        ("nothing where something is", &|plan| {
            plan.program.mappings[0].pages = page(0x40_1000, 0x2000);
        }),
        ("cleared and copied", &|plan| {
            plan.program.mappings[1].source = Source::Copied {
                at: FileOffset(0x2000),
                file_bytes: 0x2800,
                why: CopyReason::CannotCow(NoCow::Refused),
            };
        }),
        ("copied from beyond the file", &|plan| {
            plan.program.mappings[0].source = Source::Copied {
                at: FileOffset(0x4000),
                file_bytes: 0x2000,
                why: CopyReason::NotDirect(NotDirect::Compressed),
            };
        }),
        ("the stub's place", &|plan| {
            plan.options.reserved = Some(page(0x40_0000, 0x1000));
        }),
    ];
    for (what, change) in changes {
        spoil(what, *change);
    }
}

/// Numbers around which things go wrong: small, near page boundaries, near the ends of everything.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (0u64..12, -3i64..4).prop_map(|(page, off)| (page * 0x1000).wrapping_add_signed(off)),
        4 => (0u64..12).prop_map(|page| page * 0x800),
        1 => any::<u64>(),
        1 => Just(u64::MAX),
        1 => (46u32..64).prop_map(|bit| 1 << bit),
    ]
}

fn wild_phdr() -> impl Strategy<Value = Phdr> {
    let kind = prop_oneof![8 => Just(PT_LOAD), 1 => Just(PT_INTERP), 1 => Just(PT_GNU_STACK)];
    (
        kind,
        number(),
        number(),
        number(),
        number(),
        0u32..8,
        number(),
    )
        .prop_map(|(kind, offset, vaddr, filesz, memsz, flags, align)| Phdr {
            kind,
            offset,
            vaddr,
            filesz,
            memsz,
            flags,
            align,
        })
}

/// Segments that Linux would load, mostly: ascending, congruent, within a file of 12 pages.
fn tame_phdrs() -> impl Strategy<Value = Vec<Phdr>> {
    let one = (
        0u64..0x3000,
        0u64..9,
        0u64..0x1000,
        0u64..0x4000,
        0u64..0x2800,
        0u32..8,
    );
    vec(one, 1..6).prop_map(|all| {
        let mut vaddr = 0x40_0000;
        all.into_iter()
            .map(|(gap, page, skew, filesz, extra, flags)| {
                let offset = page * 0x1000 + skew % 0x1000;
                vaddr += gap;
                vaddr = (vaddr & !0xfff) + (offset & 0xfff);
                let filesz = filesz.min(0xc000 - offset);
                let phdr = load(offset, vaddr, filesz, filesz + extra, flags);
                // The next one may begin on this one's last page, or before it.
                vaddr += filesz + extra;
                phdr
            })
            .scan(0, |floor, phdr| {
                let fits = phdr.vaddr >= *floor;
                *floor = (*floor).max(phdr.vaddr);
                Some(fits.then_some(phdr))
            })
            .flatten()
            .collect()
    })
}

fn stores() -> impl Strategy<Value = Vec<Store>> {
    vec(
        prop_oneof![
            8 => Just(Store::Plain),
            1 => Just(Store::Apart),
            1 => Just(Store::Compressed),
            1 => Just(Store::Hole),
        ],
        0..12,
    )
}

fn options() -> impl Strategy<Value = PlanOptions> {
    let page = prop::sample::select(PageSize::ALL.to_vec());
    (page, any::<bool>(), any::<bool>()).prop_map(|(page, copy_text, cow)| PlanOptions {
        copy_text,
        cow: if cow { Ok(()) } else { Err(NoCow::Uncached) },
        ..PlanOptions::new(page)
    })
}

fn check(maker: &Maker, store: Vec<Store>, skew: usize, filler: u8, options: &PlanOptions) -> bool {
    let file = TestFile {
        store,
        skew,
        filler,
        ..TestFile::program("p", maker.build())
    };
    // plan_with() proves the plan.
    match plan_with(&[file], options) {
        Ok(plan) => {
            let _ = plan.explain(Start::Alone).to_string();
            true
        }
        Err(_) => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    // Invariant: whatever the headers say, the planner does not panic and every plan it makes passes verify().
    #[test]
    fn wild_headers(
        phdrs in vec(wild_phdr(), 0..6),
        kind in 0u16..5,
        len in 0usize..0xc123,
        store in stores(),
        filler in any::<u8>(),
        options in options(),
    ) {
        let maker = Maker { kind, ..Maker::fixed(len, &phdrs) };
        check(&maker, store, 0, filler, &options);
    }

    // Invariant: the same, for programs that Linux would load; with 4 KiB pages they all have a plan.
    #[test]
    fn tame_headers(
        phdrs in tame_phdrs(),
        kind in 2u16..4,
        store in stores(),
        skew in prop::sample::select(vec![0usize, 0, 0, 4, 0x1000, 0x4000]),
        filler in prop::sample::select(vec![0u8, 0xee]),
        options in options(),
    ) {
        let maker = Maker { kind, ..Maker::fixed(0xc000, &phdrs) };
        // A hole has no ELF header.
        let store = if store.first() == Some(&Store::Hole) { vec![] } else { store };
        let any = phdrs.iter().any(|phdr| phdr.memsz > 0);
        let planned = check(&maker, store, skew, filler, &options);
        prop_assert!(planned || options.page > K4 || !any);
    }

    // Invariant: an image with any bytes changed gives an error or a plan that passes verify(), never a panic.
    #[test]
    fn corrupted_images(
        phdrs in tame_phdrs(),
        store in stores(),
        changes in vec((0usize..0x400, any::<u8>()), 1..12),
        options in options(),
    ) {
        let program = TestFile::program("p", Maker::fixed(0xc000, &phdrs).build());
        let mut bytes = image_bytes(&[TestFile { store, ..program }]);
        for (at, value) in changes {
            // The superblock, the directory and the block pointers, and the program's headers.
            let at = if at < 0x200 { at } else { 0x10000 + at - 0x200 };
            bytes[at] = value;
        }
        let Ok(image) = Image::open(bytes) else { return Ok(()) };
        if let Ok(plan) = LaunchPlan::new(&image, b"/p", &options) {
            // A block that does not inflate is found only by reading it.
            if let Err(err) = plan.verify(&image) {
                prop_assert_eq!(err.kind(), Kind::BadImage, "{}", err);
            }
        }
    }
}
