use super::testing::*;
use super::*;
use crate::error::Kind;

fn refused(maker: &Maker) -> String {
    let err = ElfFile::parse(&maker.build()).unwrap_err();
    assert_eq!(err.kind(), Kind::NotRunnable);
    err.to_string()
}

fn one_segment() -> Maker {
    Maker::fixed(0x2000, &[load(0, 0x40_0000, 0x1800, 0x1900, RX)])
}

#[test]
fn both_classes_and_byte_orders_say_the_same() {
    for class in [Class::Elf32, Class::Elf64] {
        for endian in [Endian::Little, Endian::Big] {
            let machine = Machine {
                number: 8,
                class,
                endian,
            };
            let maker = Maker {
                machine,
                entry: 0x40_0123,
                ..one_segment().interp(b"/lib/ld.so\0")
            };
            let elf = ElfFile::parse(&maker.build()).unwrap();
            assert_eq!(elf.machine, machine);
            assert_eq!(elf.kind, ElfKind::Fixed);
            assert_eq!(elf.entry, 0x40_0123);
            assert_eq!(elf.phnum, 2);
            assert_eq!(elf.interp.as_deref(), Some(&b"/lib/ld.so"[..]));
            assert_eq!(
                elf.segments,
                [Segment {
                    number: 1,
                    offset: 0,
                    vaddr: 0x40_0000,
                    filesz_bytes: 0x1800,
                    memsz_bytes: 0x1900,
                    align_bytes: 0x1000,
                    prot: Prot {
                        read: true,
                        write: false,
                        exec: true
                    },
                }]
            );
        }
    }
}

#[test]
fn a_library_is_relocatable() {
    let maker = Maker::relocatable(0x1000, &[load(0, 0, 0x1000, 0x1000, R)]);
    let elf = ElfFile::parse(&maker.build()).unwrap();
    assert_eq!(elf.kind, ElfKind::Relocatable);
    assert_eq!(elf.interp, None);
}

#[test]
fn what_is_no_program_is_refused_as_enoexec() {
    for bytes in [&b""[..], b"\x7fELF", b"#!/bin/sh\n", &[0; 64]] {
        let err = ElfFile::parse(&bytes).unwrap_err();
        assert_eq!(err.kind(), Kind::NotRunnable, "{err}");
    }
    let base = one_segment();
    let relocatable_object = Maker {
        kind: 1,
        ..base.clone()
    };
    assert!(refused(&relocatable_object).contains("ELF type 1"));
    let core = Maker {
        kind: 4,
        ..base.clone()
    };
    assert!(refused(&core).contains("ELF type 4"));
    let mut bad_class = base.build();
    bad_class[4] = 3;
    assert!(ElfFile::parse(&bad_class).is_err());
    let mut bad_data = base.build();
    bad_data[5] = 0;
    assert!(ElfFile::parse(&bad_data).is_err());
}

#[test]
fn program_header_tables_are_bounded_as_linux_bounds_them() {
    let base = one_segment();
    let with = |phnum, phentsize, phoff| Maker {
        phnum,
        phentsize,
        phoff,
        ..base.clone()
    };
    assert!(refused(&with(Some(0), None, None)).contains("0 program headers"));
    // 1170 * 56 = 65520 would do, if they were in the file; PN_XNUM never does.
    assert!(refused(&with(Some(1170), None, None)).contains("not in the file"));
    assert!(refused(&with(Some(1171), None, None)).contains("1 to 1170"));
    assert!(refused(&with(Some(0xffff), None, None)).contains("65535 program headers"));
    assert!(refused(&with(None, Some(55), None)).contains("e_phentsize is 55"));
    assert!(refused(&with(None, None, Some(u64::MAX - 8))).contains("not in the file"));
    assert!(refused(&with(None, None, Some(0x2000 - 8))).contains("not in the file"));
}

#[test]
fn an_interpreter_name_is_checked_as_linux_checks_it() {
    let name = |name: &[u8]| one_segment().interp(name);
    assert!(refused(&name(b"\0")).contains("PT_INTERP has 1 bytes"));
    assert!(refused(&name(&[b'a'; 4097])).contains("PT_INTERP has 4097 bytes"));
    assert!(refused(&name(b"/lib/ld.so")).contains("NUL"));
    let mut longest = vec![b'a'; 4096];
    longest[4095] = 0;
    let elf = ElfFile::parse(&name(&longest).build()).unwrap();
    assert_eq!(elf.interp.unwrap().len(), 4095);
    let elf = ElfFile::parse(&name(b"/a\0b\0").build()).unwrap();
    assert_eq!(elf.interp.unwrap(), b"/a");
}

#[test]
fn the_last_gnu_stack_counts() {
    let stack = |flags| Phdr {
        kind: PT_GNU_STACK,
        flags,
        ..load(0, 0, 0, 0, 0)
    };
    let parse = |phdrs: &[Phdr]| ElfFile::parse(&Maker::fixed(0x1000, phdrs).build()).unwrap();
    assert_eq!(parse(&[load(0, 0, 1, 1, R)]).stack_exec, None);
    assert_eq!(parse(&[stack(RW)]).stack_exec, Some(false));
    assert_eq!(parse(&[stack(RW), stack(7)]).stack_exec, Some(true));
}

#[test]
fn a_foreign_machine_is_named_in_words() {
    let elf = ElfFile::parse(
        &Maker {
            machine: ARM,
            ..one_segment()
        }
        .build(),
    )
    .unwrap();
    elf.require_machine(ARM).unwrap();
    let err = elf.require_machine(X86_64).unwrap_err();
    assert_eq!(err.kind(), Kind::NotRunnable);
    assert_eq!(
        err.to_string(),
        "a 32-bit ARM program; this xip-run is for 64-bit x86_64"
    );
    let big = Machine {
        endian: Endian::Big,
        ..ARM
    };
    assert_eq!(big.to_string(), "32-bit big-endian ARM");
    let rare = Machine {
        number: 999,
        ..X86_64
    };
    assert_eq!(rare.to_string(), "64-bit machine 999");
}

#[test]
fn the_running_test_is_a_program_of_this_machine() {
    let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let elf = ElfFile::parse(&bytes).unwrap();
    elf.require_machine(Machine::HOST).unwrap();
    assert!(!elf.segments.is_empty());
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { failure_persistence: None, ..Default::default() })]

    // Invariant: no header, however corrupted, makes the parser panic.
    #[test]
    fn corrupted_headers_never_panic(changes in proptest::collection::vec((0usize..0x100, 0u8..), 0..24)) {
        let mut bytes = one_segment().interp(b"/lib/ld.so\0").build();
        for (at, value) in changes {
            bytes[at] = value;
        }
        let _ = ElfFile::parse(&bytes);
    }
}
