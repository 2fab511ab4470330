//! What is refused, and with which words; interpreters.

use super::*;

#[test]
fn what_linux_refuses_is_refused_with_the_segment_named() {
    let one = |phdr| refused_program(&Maker::fixed(0x2000, &[phdr]));
    for (phdr, why) in [
        (
            load(0, 0x40_0000, 0x1001, 0x1000, R),
            "p_filesz 0x1001 is more than p_memsz 0x1000",
        ),
        (
            load(1, 0x40_0000, 0x1000, 0x1000, R),
            "file offset 0x1 and address 0x400000 differ",
        ),
        (
            load(0x1000, 0x40_0000, 0x1001, 0x2000, R),
            "beyond the file's end at 0x2000",
        ),
        (
            load(!0xfff, 0x40_0000, 0x1001, 0x2000, R),
            "beyond the file's end",
        ),
        (
            load(0, 0x40_0000, 0x1000, u64::MAX, R),
            "outside the address space",
        ),
        (
            load(0, 0x7fff_ffff_f000, 0, 1, R),
            "outside the address space",
        ),
        (
            load(0, u64::MAX - 0xfff, 0x1000, 0x1000, R),
            "outside the address space",
        ),
        (load(0, u64::MAX, 0, 0, R), "outside the address space"),
        (load(0, 0x40_0000, 0, 0, R), "its PT_LOADs are all empty"),
    ] {
        let text = refused_program(&Maker {
            entry: 0,
            ..Maker::fixed(0x2000, &[phdr])
        });
        assert!(text.starts_with("/p: ") && text.contains(why), "{text}");
    }
    assert!(one(load(0, 1 << 47, 0, 1, R)).contains("its entry 0x800000000000 is outside"));
    let stack = Phdr {
        kind: PT_GNU_STACK,
        ..load(0, 0, 0, 0, RW)
    };
    assert!(one(stack).contains("it has no PT_LOAD"));
    let unsorted = [
        load(0, 0x40_2000, 0x1000, 0x1000, R),
        load(0, 0x40_0000, 0x1000, 0x1000, R),
    ];
    let text = refused_program(&Maker::fixed(0x2000, &unsorted));
    assert!(
        text.contains("PT_LOAD 1: its address 0x400000 is below"),
        "{text}"
    );
    // The file's last page may be mapped whole, whatever p_filesz says of it.
    plan(&Maker::fixed(
        0x1800,
        &[load(0, 0x40_0000, 0x2000, 0x2000, R)],
    ));
}

#[test]
fn mapping_the_same_bytes_over_and_over_is_refused() {
    let all = |number: u64| load(0, 0x4000_0000 + number * 0x10_0000, 0x10_0000, 0x10_0000, R);
    let maker = Maker::fixed(0x10_0000, &(0..65).map(all).collect::<Vec<_>>());
    assert!(refused_program(&maker).contains("PT_LOAD 64: the segments up to it map"));
}

#[test]
fn a_program_where_the_stub_is_cannot_run() {
    let options = PlanOptions {
        reserved: PageRange::new(K4, 0x40_1000, 0x1000),
        ..PlanOptions::new(K4)
    };
    let phdrs = [
        load(0, 0x10_0000, 1, 1, R),
        load(0, 0x40_0000, 1, 0x1001, RW),
    ];
    let fixed = TestFile::program("p", Maker::fixed(0x1000, &phdrs).build());
    let (kind, text) = refused(&[fixed], &options);
    assert_eq!(kind, Kind::NotRunnable);
    assert!(
        text.contains(
            "PT_LOAD 1: its pages 00400000-00402000 are where the loader stub is, 00401000-00402000"
        ),
        "{text}"
    );
    let free = TestFile::program("p", Maker::fixed(0x1000, &phdrs[..1]).build());
    plan_with(&[free], &options).unwrap();
    let relocatable = TestFile::program("p", Maker::relocatable(0x1000, &phdrs).build());
    plan_with(&[relocatable], &options).unwrap();
}

#[test]
fn the_interpreter_comes_from_the_image() {
    let text = [load(0, 0x40_0000, 0x1000, 0x1000, RX)];
    let dynamic = TestFile::program("p", Maker::fixed(0x2000, &text).interp(b"/ld.so\0").build());
    let options = PlanOptions::new(K4);
    let (kind, why) = refused(std::slice::from_ref(&dynamic), &options);
    assert_eq!((kind, kind.exit_code()), (Kind::NotFound, 127));
    assert!(
        why.starts_with("/p: its interpreter /ld.so is not in the image"),
        "{why}"
    );

    let library = Maker::relocatable(0x2000, &[load(0, 0, 0x1000, 0x1000, RX)]).interp(b"/none\0");
    let ld = TestFile::program("ld.so", library.build());
    let plan = plan_with(&[dynamic.clone(), ld.clone()], &options).unwrap();
    let interp = plan.interp.as_ref().unwrap();
    assert_eq!(
        (interp.path.as_slice(), &interp.interp),
        (&b"/ld.so"[..], &None)
    );
    assert_eq!(plan.program.interp.as_deref(), Some(&b"/ld.so"[..]));
    assert_eq!(plan.totals().in_place_bytes, 0x2000);

    let forbidden = TestFile {
        mode: 0o100_644,
        ..ld.clone()
    };
    let (kind, why) = refused(&[dynamic.clone(), forbidden], &options);
    assert_eq!(kind, Kind::NotRunnable);
    assert!(
        why.starts_with("/p: its interpreter: /ld.so: permission denied"),
        "{why}"
    );
    let over = TestFile::program("ld.so", Maker::fixed(0x1000, &text).build());
    let (_, why) = refused(&[dynamic.clone(), over], &options);
    assert!(
        why.contains("over the program at 00400000-00401000"),
        "{why}"
    );
    let foreign = Maker {
        machine: ARM,
        ..library
    };
    let host = PlanOptions {
        machine: Some(X86_64),
        ..options
    };
    let (_, why) = refused(
        &[dynamic, TestFile::program("ld.so", foreign.build())],
        &host,
    );
    assert!(why.contains("/ld.so: a 32-bit ARM program"), "{why}");
}

#[test]
fn what_may_not_be_executed_is_refused_as_execve_does() {
    let options = PlanOptions::new(K4);
    let file = |mode, bytes: &[u8]| TestFile {
        mode,
        ..TestFile::program("p", bytes.to_vec())
    };
    for (file, kind, why) in [
        (
            file(0o100_755, b"#! /bin/sh -e\necho"),
            Kind::NotRunnable,
            "run `/bin/sh -e /p`",
        ),
        (
            file(0o100_755, b"#!\n"),
            Kind::NotRunnable,
            "names no interpreter",
        ),
        (
            file(0o100_755, b""),
            Kind::NotRunnable,
            "neither an ELF program nor a script",
        ),
        (file(0o100_755, b"\x7fELF"), Kind::NotRunnable, "ELF header"),
        (
            file(0o100_644, b"x"),
            Kind::NotRunnable,
            "(EACCES): nobody may execute it, its mode is 0644",
        ),
        (file(0o040_755, b""), Kind::NotRunnable, "it is a directory"),
        (
            file(0o010_755, b""),
            Kind::NotRunnable,
            "it is not a regular file",
        ),
        (
            TestFile::program("q", vec![]),
            Kind::NotFound,
            "/p: not in the image",
        ),
    ] {
        let (got, text) = refused(&[file], &options);
        assert_eq!(got, kind, "{text}");
        assert!(text.starts_with("/p: ") && text.contains(why), "{text}");
    }
}
