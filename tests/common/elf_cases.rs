//! ELF files by hand: one for each branch of binfmt_elf.c's load_elf_binary(), elf_load(), elf_map(), load_elf_interp(),
//! load_elf_phdrs() and total_mapping_size(), and for each place where a loader could go wrong.

#![allow(unreachable_pub)]

use super::elf_file::{
    CODE, ET_DYN, ET_EXEC, ElfFile, PAGE, PHDR, PHOFF, PT_GNU_STACK, Phdr, R, W, X, load, program,
};
use super::elf_interpreters;

/// Where programs of fixed addresses are.
pub const BASE: u64 = 0x1_0000_0000;
/// `TASK_SIZE` of x86_64 with four levels of page tables.
pub const TASK_SIZE: u64 = 0x7fff_ffff_f000;
/// Where the stub is linked.
fn stub() -> u64 {
    xip_run::session::RESERVED.unwrap().start()
}

pub type Case = (String, Vec<u8>);
/// What to do to a segment of a program at a base.
type Change = fn(&mut Phdr, u64);

pub fn stack(flags: u32) -> Phdr {
    Phdr {
        kind: PT_GNU_STACK,
        flags,
        ..Phdr::default()
    }
}

pub fn fixed() -> ElfFile {
    program(ET_EXEC, BASE)
}

pub fn pie() -> ElfFile {
    program(ET_DYN, 0)
}

/// Both sorts of a program: what is added to the addresses of a segment is the base.
fn both(name: &str, make: impl Fn(ElfFile, u64) -> ElfFile, all: &mut Vec<Case>) {
    all.push((format!("{name}-fixed"), make(fixed(), BASE).bytes()));
    all.push((format!("{name}-pie"), make(pie(), 0).bytes()));
    // Placed as programs are, not as mmap(2) does it.
    let dynamic = make(pie(), 0).interp_path("/interp/pie");
    all.push((format!("{name}-dynamic"), dynamic.bytes()));
}

/// The files by hand, by name.
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    headers(&mut all);
    segments(&mut all);
    bss(&mut all);
    addresses(&mut all);
    elf_interpreters::asking_for_them(&mut all);
    all
}

/// load_elf_binary() up to its interpreter, and load_elf_phdrs().
fn headers(all: &mut Vec<Case>) {
    let mut add = |name: &str, elf: ElfFile| all.push((name.to_owned(), elf.bytes()));
    add("right-fixed", fixed());
    add("right-pie", pie());
    for (name, at, byte) in [
        ("magic", 0, 0x7e),
        ("class-0", 4, 0),
        ("class-32", 4, 1),
        ("big-endian", 5, 2),
        ("ident-version-9", 6, 9),
        ("abi-9", 7, 9),
        ("type-none", 16, 0),
        ("type-relocatable", 16, 1),
        ("type-core", 16, 4),
        ("type-255", 16, 255),
        ("machine-386", 18, 3),
        ("machine-aarch64", 18, 183),
        ("machine-arm", 18, 40),
        ("version-9", 20, 9),
        ("ehsize-0", 52, 0),
        ("phentsize-0", 54, 0),
        ("phentsize-32", 54, 32),
        ("phentsize-57", 54, 57),
        ("shentsize-9", 58, 9),
    ] {
        add(name, fixed().patch(at, &[byte]));
    }
    for phnum in [0, 2, 3, 71, 72, 73, 1170, 1171, 65534, 65535] {
        add(
            &format!("phnum-{phnum}"),
            fixed().change(|elf| elf.phnum = Some(phnum)),
        );
        // Zeros behind the first: they are all PT_NULL.
        let nulls = fixed()
            .patch(PHOFF + PHDR, &vec![0; (1200 * PHDR) as usize])
            .change(|elf| {
                (elf.phnum, elf.len) = (Some(phnum), 20 * PAGE);
                elf.code = 18 * PAGE;
                elf.phdrs[0] = load(R | X, 18 * PAGE, BASE, PAGE);
                elf.entry = BASE;
            });
        add(&format!("phnum-{phnum}-nulls"), nulls);
    }
    for (name, len) in [
        ("empty", 0),
        ("one-byte", 1),
        ("magic-only", 4),
        ("half-a-header", 40),
        ("header-less-1", 63),
        ("header-alone", 64),
        ("half-a-phdr", 90),
        ("phdr-less-1", 119),
        ("phdr-alone", 120),
        ("no-code", CODE),
        ("page-less-1", PAGE - 1),
        ("page", PAGE),
        ("page-and-1", PAGE + 1),
    ] {
        add(&format!("len-{name}"), fixed().len(len));
        add(&format!("len-{name}-pie"), pie().len(len));
    }
    for (name, phoff) in [
        ("0", 0),
        ("1", 1),
        ("at-the-end", 4 * PAGE - PHDR),
        ("past-the-end", 4 * PAGE - PHDR + 1),
        ("far", 0x10_0000),
        ("4-gib", 1 << 32),
        ("last", i64::MAX as u64),
        ("negative", u64::MAX),
        ("negative-page", u64::MAX - 4095),
    ] {
        add(
            &format!("phoff-{name}"),
            fixed().change(|elf| elf.phoff = phoff),
        );
    }
    // AT_PHDR.
    let elsewhere = |offset| {
        move |elf: ElfFile, base| {
            elf.with(load(R, PAGE, base + 8 * PAGE, 2 * PAGE))
                .change(|elf| elf.phoff = offset)
        }
    };
    both("phdrs-in-second-load", elsewhere(2 * PAGE), all);
    both("phdrs-in-no-load", elsewhere(3 * PAGE), all);
    both(
        "phdrs-in-two-loads",
        |elf, base| elf.with(load(R, 0, base + 8 * PAGE, PAGE)),
        all,
    );
    both(
        "pt-phdr-is-not-asked",
        |elf, base| {
            elf.with(Phdr {
                kind: 6,
                ..load(R, 0x123, base + 0x123, 9)
            })
        },
        all,
    );
    for flags in 0..8 {
        both(
            &format!("stack-{flags}"),
            |elf, _| elf.with(stack(flags)),
            all,
        );
    }
    both(
        "stack-twice",
        |elf, _| elf.with(stack(R | W | X)).with(stack(R | W)),
        all,
    );
    for kind in [2, 4, 7, 0x6474_e550, 0x6474_e552, 0x6474_e553, 0x7000_0001] {
        both(
            &format!("pt-{kind:x}"),
            |elf, base| {
                elf.with(Phdr {
                    kind,
                    ..load(R, PAGE, base + PAGE, 1 << 50)
                })
            },
            all,
        );
    }
}

/// Where segments are, in what order, and over what.
fn segments(all: &mut Vec<Case>) {
    for flags in 0..8 {
        both(
            &format!("flags-{flags}"),
            |elf, base| {
                elf.with(Phdr {
                    memsz: 2 * PAGE + 50,
                    ..load(flags, PAGE, base + PAGE, PAGE + 100)
                })
            },
            all,
        );
        both(
            &format!("code-flags-{flags}"),
            |elf, _| elf.first(|load| load.flags = flags),
            all,
        );
    }
    let data = |base: u64| load(R | W, PAGE, base + PAGE, PAGE);
    let changes: &[(&str, Change)] = &[
        ("ascending", |_, _| {}),
        ("same-page", |one, base| one.vaddr = base),
        ("below", |one, base| one.vaddr = base.wrapping_sub(PAGE)),
        ("far-below", |one, base| {
            one.vaddr = base.wrapping_sub(0x10_0000);
        }),
        ("far-above", |one, base| one.vaddr = base + 0x1000_0000),
        ("filesz-0", |one, _| one.filesz = 0),
        ("all-0", |one, _| (one.filesz, one.memsz) = (0, 0)),
        ("all-0-within", |one, base| {
            (one.vaddr, one.offset, one.filesz, one.memsz) = (base + 0x345, 0x345, 0, 0);
        }),
        ("filesz-above-memsz", |one, _| one.memsz = PAGE - 1),
        ("filesz-1-memsz-0", |one, _| {
            (one.filesz, one.memsz) = (1, 0);
        }),
        ("not-congruent", |one, _| one.offset += 1),
        ("not-congruent-filesz-0", |one, _| {
            (one.offset, one.filesz) = (one.offset + 1, 0);
        }),
        ("offset-past-the-end", |one, _| one.offset = 64 * PAGE),
        ("offset-past-16-mib", |one, _| one.offset = 1 << 30),
        ("offset-negative", |one, _| one.offset = PAGE.wrapping_neg()),
        ("offset-wraps", |one, _| {
            (one.offset, one.filesz, one.memsz) = (PAGE.wrapping_neg(), 3 * PAGE, 3 * PAGE);
        }),
        ("beyond-the-file", |one, _| {
            (one.filesz, one.memsz) = (8 * PAGE, 8 * PAGE);
        }),
        ("beyond-the-file-with-bss", |one, _| {
            (one.filesz, one.memsz) = (8 * PAGE + 9, 12 * PAGE);
        }),
        ("beyond-the-file-within", |one, _| {
            (one.filesz, one.memsz) = (8 * PAGE + 9, 8 * PAGE + 19);
        }),
        ("filesz-huge", |one, _| {
            (one.filesz, one.memsz) = (1 << 40, 1 << 40);
        }),
        ("filesz-more-than-all", |one, _| {
            (one.filesz, one.memsz) = (u64::MAX - PAGE, u64::MAX - PAGE);
        }),
        ("memsz-1-gib", |one, _| one.memsz = 1 << 30),
        ("memsz-64-gib", |one, _| one.memsz = 1 << 36),
        ("memsz-to-the-end", |one, _| {
            one.memsz = TASK_SIZE - one.vaddr;
        }),
        ("memsz-past-the-end", |one, _| {
            one.memsz = TASK_SIZE - one.vaddr + 1;
        }),
        ("memsz-task-size", |one, _| one.memsz = TASK_SIZE),
        ("memsz-all-but-a-page", |one, _| one.memsz = u64::MAX - PAGE),
        ("memsz-all", |one, _| one.memsz = u64::MAX),
        ("memsz-wraps-to-0", |one, _| {
            one.memsz = one.vaddr.wrapping_neg();
        }),
        ("memsz-wraps", |one, _| {
            one.memsz = one.vaddr.wrapping_neg() + 100;
        }),
    ];
    for (name, change) in changes {
        both(
            &format!("data-{name}"),
            |elf, base| {
                let mut one = data(base);
                change(&mut one, base);
                elf.with(one)
            },
            all,
        );
        // It is first.
        both(
            &format!("data-first-{name}"),
            |elf, base| {
                let mut one = data(base);
                change(&mut one, base);
                elf.change(|elf| elf.phdrs.insert(0, one))
            },
            all,
        );
    }
    for (name, align) in [
        ("0", 0),
        ("1", 1),
        ("3", 3),
        ("16", 16),
        ("half-a-page", 2048),
        ("64-kib", 0x1_0000),
        ("2-mib", 0x20_0000),
        ("1-gib", 1 << 30),
        ("not-a-power", 0x20_1000),
        ("16-tib", 1 << 44),
        ("32-tib", 1 << 45),
        ("64-tib", 1 << 46),
        ("128-tib", 1 << 47),
        ("largest", 1 << 63),
        ("nonsense", u64::MAX),
    ] {
        both(
            &format!("align-{name}"),
            |elf, base| {
                elf.first(|load| load.align = align)
                    .with(load(R | W, PAGE, base + 3 * PAGE, PAGE))
            },
            all,
        );
    }
    both(
        "hole",
        |elf, base| elf.with(load(R, PAGE, base + 0x10_0000, PAGE)),
        all,
    );
    both(
        "three-in-a-page",
        |elf, base| {
            elf.with(load(R | W, 0x1100, base + 0x1100, 0x100))
                .with(load(R, 0x2200, base + 0x1200, 0x100))
                .with(load(R | X, 0x3300, base + 0x1300, 0x100))
        },
        all,
    );
    both(
        "many-loads",
        |elf, base| {
            elf.change(|elf| {
                let one = |i: u64| {
                    load(
                        (i % 4 + 4) as u32,
                        i % 4 * PAGE,
                        base + (2 * i + 1) * PAGE,
                        100,
                    )
                };
                // As many as there is room for before the path.
                elf.phdrs.extend((0..30).map(one));
            })
        },
        all,
    );
    both(
        "same-twice",
        |elf, _| elf.change(|elf| elf.phdrs.push(elf.phdrs[0])),
        all,
    );
    both("no-load", |elf, _| elf.first(|load| load.kind = 4), all);
    both(
        "empty-load",
        |elf, _| elf.first(|load| (load.filesz, load.memsz) = (0, 0)),
        all,
    );
}

/// elf_load(): what is zeroed.
fn bss(all: &mut Vec<Case>) {
    for (flags, of) in [
        (R, "r"),
        (R | W, "rw"),
        (R | X, "rx"),
        (R | W | X, "rwx"),
        (W, "w"),
        (0, "none"),
    ] {
        for (name, in_page, filesz, memsz) in [
            ("one-byte", 0, 100, 101),
            ("rest-of-page", 0, 100, PAGE),
            ("rest-less-1", 0, 100, PAGE - 1),
            ("rest-and-1", 0, 100, PAGE + 1),
            ("whole-page", 0, PAGE, 2 * PAGE),
            ("within-page", 0x100, 0x200, 0x300),
            ("last-byte", 0, PAGE - 1, PAGE),
            ("misaligned-end", 0xff0, 0x10, 0x11),
            ("only", 0, 0, PAGE),
            ("only-misaligned", 0x123, 0, 0x200),
            ("only-misaligned-pages", 0xffe, 0, PAGE + 4),
            ("pages", 0x321, 0x1432, 0x9000),
        ] {
            both(
                &format!("bss-{of}-{name}"),
                |elf, base| {
                    elf.with(Phdr {
                        memsz,
                        ..load(flags, PAGE + in_page, base + 5 * PAGE + in_page, filesz)
                    })
                },
                all,
            );
        }
    }
    // Of the code itself, of one that is not the last, and over what follows.
    both(
        "bss-of-code",
        |elf, _| elf.first(|load| load.memsz = 0x3456),
        all,
    );
    both(
        "bss-of-code-rest",
        |elf, _| elf.first(|load| load.filesz = CODE + 0x80),
        all,
    );
    both(
        "bss-before-data",
        |elf, base| {
            elf.with(Phdr {
                memsz: 0x2345,
                ..load(R | W, PAGE, base + PAGE, 0x111)
            })
            .with(load(R, 0x2400, base + 0x3400, 0x100))
        },
        all,
    );
    both(
        "bss-over-data",
        |elf, base| {
            elf.with(load(R, 2 * PAGE, base + 3 * PAGE, PAGE))
                .with(Phdr {
                    memsz: 4 * PAGE,
                    ..load(R | W, PAGE, base + PAGE, 0x111)
                })
        },
        all,
    );
    both(
        "bss-over-code",
        |elf, base| {
            elf.with(Phdr {
                memsz: 3 * PAGE,
                ..load(R | W | X, PAGE, base.wrapping_sub(PAGE), 0x111)
            })
        },
        all,
    );
}

/// Addresses that Linux has its rules for.
fn addresses(all: &mut Vec<Case>) {
    let at = |base: u64| program(ET_EXEC, base);
    let mut add = |name: &str, elf: ElfFile| all.push((name.to_owned(), elf.bytes()));
    for (name, base) in [
        ("0", 0),
        ("page-1", PAGE),
        ("page-15", 0xf000),
        ("64-kib", 0x1_0000),
        ("4-mib", 0x40_0000),
        ("2-gib", 0x8000_0000),
        ("pie-base", 0x5555_5555_4000),
        ("stub", stub()),
        ("before-stub", stub() - PAGE),
        ("before-stub-far", stub() - 0x2_0000),
        ("behind-stub", stub() + 0x1_0000),
        ("behind-stub-far", stub() + 0x1000_0000),
        ("last-page", TASK_SIZE - PAGE),
        ("task-size", TASK_SIZE),
        ("not-canonical", 1 << 47),
        ("half", 1 << 63),
        ("last", PAGE.wrapping_neg()),
        ("odd", 0x1_2345_6000),
    ] {
        add(&format!("at-{name}"), at(base));
        add(&format!("pie-at-{name}"), program(ET_DYN, base));
        add(
            &format!("dynamic-at-{name}"),
            program(ET_DYN, base).interp_path("/interp/pie"),
        );
    }
    // A second segment there.
    for (name, vaddr) in [
        ("0", 0),
        ("stub", stub()),
        ("last-page", TASK_SIZE - PAGE),
        ("task-size", TASK_SIZE),
        ("last", PAGE.wrapping_neg()),
    ] {
        add(
            &format!("data-at-{name}"),
            fixed().with(load(R | W, PAGE, vaddr, PAGE)),
        );
        add(
            &format!("pie-data-at-{name}"),
            pie().with(load(R | W, PAGE, vaddr, PAGE)),
        );
    }
    // From before the stub to behind it.
    add(
        "around-stub",
        at(stub() - 0x10_0000).with(Phdr {
            memsz: 0x2000_0000,
            ..load(R | W, PAGE, stub() - 0x8_0000, 9)
        }),
    );
    for (name, entry) in [
        ("0", 0),
        ("unmapped", 0x9000),
        ("end", PAGE),
        ("header", 0),
        ("task-size", TASK_SIZE),
        ("below-task-size", TASK_SIZE - 1),
        ("not-canonical", 1 << 47),
        ("last", u64::MAX),
    ] {
        add(
            &format!("entry-{name}-fixed"),
            fixed().change(|elf| elf.entry = entry),
        );
        add(
            &format!("entry-{name}-pie"),
            pie().change(|elf| elf.entry = entry),
        );
    }
    // Its bss, and a page that is not in the file.
    add(
        "entry-in-bss",
        fixed()
            .first(|load| (load.memsz, load.flags) = (3 * PAGE, R | W | X))
            .change(|elf| elf.entry = BASE + 2 * PAGE),
    );
    add(
        "entry-past-the-end",
        fixed()
            .first(|load| (load.memsz, load.filesz) = (8 * PAGE, 8 * PAGE))
            .change(|elf| elf.entry = BASE + 6 * PAGE),
    );
}
