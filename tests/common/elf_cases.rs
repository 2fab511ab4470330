//! ELF files by hand: one for each branch of binfmt_elf.c's load_elf_binary(), elf_load(), elf_map(), load_elf_interp(),
//! load_elf_phdrs() and total_mapping_size(), and for each place where a loader could go wrong.

#![allow(unreachable_pub)]

use super::elf_file::{
    CODE, ET_DYN, ET_EXEC, ElfFile, PAGE, PATH, PHDR, PHOFF, PT_GNU_STACK, PT_INTERP, PT_LOAD,
    Phdr, R, W, X, load, program,
};

/// Where programs of fixed addresses are.
const BASE: u64 = 0x1_0000_0000;
/// `TASK_SIZE` of x86_64 with four levels of page tables.
const TASK_SIZE: u64 = 0x7fff_ffff_f000;
/// Where the stub is linked.
fn stub() -> u64 {
    xip_run::session::RESERVED.unwrap().start()
}

type Case = (String, Vec<u8>);
/// What to do to a segment of a program at a base.
type Change = fn(&mut Phdr, u64);

fn stack(flags: u32) -> Phdr {
    Phdr {
        kind: PT_GNU_STACK,
        flags,
        ..Phdr::default()
    }
}

fn fixed() -> ElfFile {
    program(ET_EXEC, BASE)
}

fn pie() -> ElfFile {
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

/// Interpreters, in /interp: some that are good, and each sort that is not. A text, an empty file, a directory and a
/// script are among them.
pub fn interpreters() -> Vec<Case> {
    let ours = |elf: ElfFile| elf.change(|elf| elf.exit = 8);
    let interp = |kind, base| ours(program(kind, base));
    let pie = || interp(ET_DYN, 0);
    let script = b"#!/interp/pie\n".to_vec();
    let mut all = vec![
        ("pie", pie().bytes()),
        ("fixed", interp(ET_EXEC, 3 * BASE).bytes()),
        (
            "bss",
            pie()
                .with(Phdr {
                    memsz: 0x5123,
                    ..load(R | W, 0x1010, 0x3010, 0x77)
                })
                .bytes(),
        ),
        ("at-an-address", interp(ET_DYN, 0x1234_5000).bytes()),
        (
            "aligned",
            pie().first(|load| load.align = 0x20_0000).bytes(),
        ),
        (
            "not-sorted",
            interp(ET_DYN, 0x10_0000)
                .with(load(R, PAGE, 0x8_0000, PAGE))
                .bytes(),
        ),
        (
            "asks-for-another",
            pie().interp_path("/interp/fixed").bytes(),
        ),
        ("asks-for-none", pie().interp(b"").bytes()),
        ("wants-stack", pie().with(stack(R | W | X)).bytes()),
        // Just where the programs of fixed addresses are.
        ("over-program", interp(ET_EXEC, BASE).bytes()),
        (
            "beside-program",
            interp(ET_EXEC, BASE - PAGE)
                .with(load(R | W, PAGE, BASE + 4 * PAGE, PAGE))
                .bytes(),
        ),
        ("type-core", pie().patch(16, &[4]).bytes()),
        ("type-relocatable", pie().patch(16, &[1]).bytes()),
        ("other-machine", pie().patch(18, &[183]).bytes()),
        ("class-32", pie().patch(4, &[1]).bytes()),
        ("no-load", pie().first(|load| load.kind = 0).bytes()),
        ("empty-load", pie().first(|load| load.memsz = 0).bytes()),
        ("phnum-0", pie().change(|elf| elf.phnum = Some(0)).bytes()),
        (
            "phnum-65535",
            pie().change(|elf| elf.phnum = Some(65535)).bytes(),
        ),
        ("phentsize", pie().patch(54, &[32]).bytes()),
        (
            "phdrs-past-the-end",
            pie().change(|elf| elf.phoff = 0x10_0000).bytes(),
        ),
        ("phdrs-negative", pie().patch(32, &[0xff; 8]).bytes()),
        ("header-alone", pie().len(64).bytes()),
        ("half-a-header", pie().len(40).bytes()),
        (
            "filesz-above-memsz",
            pie()
                .with(Phdr {
                    memsz: 1,
                    ..load(R, PAGE, 4 * PAGE, 9)
                })
                .bytes(),
        ),
        (
            "not-congruent",
            pie().with(load(R, PAGE + 1, 4 * PAGE, 9)).bytes(),
        ),
        ("beyond", pie().with(load(R, PAGE, TASK_SIZE, PAGE)).bytes()),
        (
            "entry-beyond",
            pie().change(|elf| elf.entry = TASK_SIZE).bytes(),
        ),
        (
            "entry-kernel",
            interp(ET_EXEC, 3 * BASE)
                .change(|elf| elf.entry = 1 << 63)
                .bytes(),
        ),
        (
            "entry-unmapped",
            pie().change(|elf| elf.entry = 0x9000).bytes(),
        ),
        (
            "text",
            b"no program at all, but long enough to be looked at as a header of ELF".to_vec(),
        ),
        ("short-text", b"no program\n".to_vec()),
        ("empty", Vec::new()),
        ("script", [script, vec![b'\n'; 100]].concat()),
    ];
    all.sort();
    all.into_iter()
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .collect()
}

/// The files by hand, by name.
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    headers(&mut all);
    segments(&mut all);
    bss(&mut all);
    addresses(&mut all);
    asking_for_interpreters(&mut all);
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

/// `PT_INTERP`, and what it names.
fn asking_for_interpreters(all: &mut Vec<Case>) {
    let mut add = |name: &str, elf: ElfFile| all.push((name.to_owned(), elf.bytes()));
    let mut paths: Vec<(String, String)> = interpreters()
        .into_iter()
        .map(|(name, _)| (name.clone(), format!("/interp/{name}")))
        .collect();
    for (name, path) in [
        ("missing", "/interp/missing"),
        ("missing-dir", "/missing/pie"),
        ("directory", "/interp"),
        ("below-a-file", "/interp/pie/x"),
        ("relative", "interp/pie"),
        ("dots", "/interp/../interp/./pie"),
        ("no-name", ""),
        ("not-executable", "/interp/mode-0644"),
        ("link", "/interp/link"),
        ("link-loop", "/interp/link-loop"),
        ("fifo", "/interp/fifo"),
        ("itself-fixed", "/hand/interp-itself-fixed"),
        ("device", "/dev/null"),
    ] {
        paths.push((name.to_owned(), path.to_owned()));
    }
    for (name, path) in paths {
        add(
            &format!("interp-{name}-of-fixed"),
            fixed().interp_path(&path),
        );
        add(&format!("interp-{name}-of-pie"), pie().interp_path(&path));
    }
    add(
        "interp-itself-fixed",
        fixed().interp_path("/hand/interp-itself-fixed"),
    );
    add(
        "interp-itself-pie",
        pie().interp_path("/hand/interp-itself-pie"),
    );
    for (name, path) in [
        ("0-bytes", &b""[..]),
        ("1-byte", b"\0"),
        ("2-bytes", b"\0\0"),
        ("unterminated", b"/interp/pie"),
        ("nul-inside", b"/interp/pie\0/more\0"),
        ("unterminated-nul-inside", b"/interp/pie\0/more"),
        ("many-nuls", b"/interp/pie\0\0\0\0\0\0\0\0\0\0"),
    ] {
        add(&format!("interp-of-{name}"), fixed().interp(path));
    }
    for len in [255, 256, 257, 258, 4095, 4096, 4097, 8192] {
        let mut path = vec![b'/'; len];
        path[len - 12..].copy_from_slice(b"/interp/pie\0");
        let elf = fixed().interp(&path).change(|elf| {
            // Not where the code is.
            elf.phdrs[0].offset = 5 * PAGE;
            elf.patches[0].0 = 5 * PAGE;
            elf.len = 9 * PAGE;
        });
        add(&format!("interp-path-of-{len}"), elf);
    }
    for (name, offset, len) in [
        ("past-the-end", 64 * PAGE, 10),
        ("at-the-end", 4 * PAGE - 5, 10),
        ("negative", u64::MAX - 4, 10),
        ("too-long", PATH, u64::MAX),
        ("longest", PATH, 4096),
    ] {
        let phdr = Phdr {
            kind: PT_INTERP,
            ..load(R, offset, 0, len)
        };
        add(&format!("interp-{name}"), fixed().with(phdr));
    }
    // The first counts, whatever the second is.
    let phdr = Phdr {
        kind: PT_INTERP,
        ..load(R, PATH, 0, 0)
    };
    add(
        "interp-twice",
        fixed().interp_path("/interp/pie").with(phdr),
    );
    add(
        "interp-twice-bad-first",
        fixed()
            .interp_path("/interp/pie")
            .change(|elf| elf.phdrs.insert(0, phdr)),
    );
    let elf = pie().interp_path("/interp/pie");
    let no_load = elf.change(|elf| elf.phdrs.retain(|phdr| phdr.kind != PT_LOAD));
    add("interp-and-no-load", no_load);
}
