//! Interpreters, good and bad ones, and programs that ask for them: open_exec() and load_elf_interp() of binfmt_elf.c.

#![allow(unreachable_pub)]

use super::elf_cases::{BASE, Case, TASK_SIZE, fixed, pie, stack};
use super::elf_file::{
    ET_DYN, ET_EXEC, ElfFile, PAGE, PATH, PT_INTERP, PT_LOAD, Phdr, R, W, X, load, program,
};

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

/// `PT_INTERP`, and what it names.
pub fn asking_for_them(all: &mut Vec<Case>) {
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
