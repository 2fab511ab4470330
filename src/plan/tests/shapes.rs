//! The shapes that a program's segments can have.

use super::*;

#[test]
fn text_data_and_bss_of_an_ordinary_program() {
    let plan = plan(&Maker::fixed(
        0x3000,
        &[
            load(0, 0x40_0000, 0x1800, 0x1800, RX),
            load(0x1800, 0x40_2800, 0x400, 0x2000, RW),
        ],
    ));
    let program = &plan.program;
    assert_eq!(
        rows(program),
        [
            "400000-402000 r-x direct +0x0",
            "402000-403000 rw- direct +0x1000 clear 402c00-403000",
            "403000-405000 rw- zero",
        ]
    );
    assert_eq!(
        (program.span.start(), program.span.end()),
        (0x40_0000, 0x40_5000)
    );
    assert_eq!(
        (program.start_code, program.end_code),
        (0x40_0000, 0x40_1800)
    );
    assert_eq!(
        (program.start_data, program.end_data),
        (0x40_2800, 0x40_2c00)
    );
    assert_eq!(program.brk, 0x40_5000);
    assert_eq!(program.phdr_addr, 0x40_0040);
    assert_eq!(
        plan.totals(),
        Totals {
            in_place_bytes: 0x2000,
            copy_on_write_bytes: 0x1000,
            upfront_ram_bytes: 0x1000,
            worst_ram_bytes: 0x3000,
        }
    );
}

#[test]
fn an_overlapping_page_tail_belongs_to_the_later_segment() {
    let plan = plan(&Maker::fixed(
        0x4000,
        &[
            load(0, 0x40_0000, 0x1800, 0x1800, R),
            load(0x1800, 0x40_1800, 0x1000, 0x1000, RX),
            load(0x2800, 0x40_2800, 0x800, 0x800, RW),
        ],
    ));
    assert_eq!(
        rows(&plan.program),
        [
            "400000-401000 r-- direct +0x0",
            "401000-402000 r-x direct +0x1000",
            "402000-403000 rw- direct +0x2000",
        ]
    );
}

#[test]
fn a_segment_within_another_splits_it() {
    let plan = plan(&Maker::fixed(
        0x6000,
        &[
            load(0, 0x40_0000, 0x5000, 0x5000, R),
            load(0x5000, 0x40_2000, 0x1000, 0x1000, RX),
        ],
    ));
    assert_eq!(
        rows(&plan.program),
        [
            "400000-402000 r-- direct +0x0",
            "402000-403000 r-x direct +0x5000",
            "403000-405000 r-- direct +0x3000",
        ]
    );
}

#[test]
fn segments_that_continue_each_other_merge() {
    let plan = plan(&Maker::fixed(
        0x3000,
        &[
            load(0, 0x40_0000, 0x1000, 0x1000, R),
            load(0x1000, 0x40_1000, 0x1000, 0x1000, R),
            load(0x2000, 0x40_2000, 0x1000, 0x1000, RX),
        ],
    ));
    assert_eq!(
        rows(&plan.program),
        [
            "400000-402000 r-- direct +0x0",
            "402000-403000 r-x direct +0x2000"
        ]
    );
}

#[test]
fn a_segment_without_file_bytes_is_anonymous() {
    let text = load(0, 0x40_0000, 0x1000, 0x1000, RX);
    // Its offset need not fit its address: nothing of the file is mapped.
    let bss = |vaddr, memsz, flags| {
        plan(&Maker::fixed(
            0x1000,
            &[text, load(3, vaddr, 0, memsz, flags)],
        ))
    };
    let plan = bss(0x40_2000, 0x1800, RW);
    assert_eq!(rows(&plan.program)[1..], ["402000-404000 rw- zero"]);
    assert_eq!(
        (plan.program.end_data, plan.program.brk),
        (0x40_2000, 0x40_4000)
    );
    assert_eq!(plan.totals().upfront_ram_bytes, 0);
    // elf_load() takes the whole page in which it begins, even if another segment is there.
    assert_eq!(
        rows(&bss(0x40_0800, 0x900, RW).program),
        ["400000-402000 rw- zero"]
    );
    assert_eq!(
        rows(&bss(0x40_2000, 1, RX).program)[1..],
        ["402000-403000 rwx zero"]
    );
    // Nothing at all: only the numbers know of it.
    let plan = bss(0x40_2800, 0, RW);
    assert_eq!(rows(&plan.program).len(), 1);
    assert_eq!(
        (plan.program.start_data, plan.program.brk),
        (0x40_2800, 0x40_3000)
    );
}

#[test]
fn bss_in_a_read_only_segment_leaves_the_file_visible() {
    let plan = plan(&Maker::fixed(
        0x2000,
        &[load(0, 0x40_0000, 0x800, 0x2800, R)],
    ));
    assert_eq!(
        rows(&plan.program),
        ["400000-401000 r-- direct +0x0", "401000-403000 rw- zero"]
    );
}

#[test]
fn page_sizes_decide_what_overlaps() {
    let maker = Maker {
        phdrs: [
            load(0, 0x40_0000, 0x9000, 0x9000, R),
            load(0x9000, 0x41_9000, 0x3000, 0x3000, RX),
            load(0xc000, 0x42_c000, 0x1800, 0x9000, RW),
        ]
        .map(|phdr| Phdr {
            align: 0x10000,
            ..phdr
        })
        .to_vec(),
        ..Maker::fixed(0xe000, &[])
    };
    let file = TestFile::program("p", maker.build());
    let show = |page| {
        let plan = plan_with(std::slice::from_ref(&file), &PlanOptions::new(page)).unwrap();
        rows(&plan.program)
    };
    assert_eq!(
        show(PageSize::K4),
        [
            "400000-409000 r-- direct +0x0",
            "419000-41c000 r-x direct +0x9000",
            "42c000-42e000 rw- direct +0xc000 clear 42d800-42e000",
            "42e000-435000 rw- zero",
        ]
    );
    assert_eq!(
        show(PageSize::K16),
        [
            "400000-40c000 r-- direct +0x0",
            "418000-41c000 r-x direct +0x8000",
            "42c000-430000 rw- direct +0xc000 clear 42d800-430000",
            "430000-438000 rw- zero",
        ]
    );
    assert_eq!(
        show(PageSize::K64),
        [
            "400000-410000 r-- direct +0x0",
            "410000-420000 r-x direct +0x0",
            "420000-430000 rw- direct +0x0 clear 42d800-430000",
            "430000-440000 rw- zero",
        ]
    );
    let small = Maker::fixed(
        0x3000,
        &[
            load(0, 0x40_0000, 0x1000, 0x1000, R),
            load(0x1000, 0x40_2000, 1, 1, R),
        ],
    );
    let small = [TestFile::program("p", small.build())];
    assert!(plan_with(&small, &PlanOptions::new(PageSize::K4)).is_ok());
    let (_, text) = refused(&small, &PlanOptions::new(PageSize::K64));
    assert!(
        text.contains(
            "PT_LOAD 1: file offset 0x1000 and address 0x402000 differ within the 64 KiB"
        ),
        "{text}"
    );
}

#[test]
fn relocatable_programs_ask_for_their_alignment() {
    let aligned = |align| Phdr {
        align,
        ..load(0, 0x3000, 0x1000, 0x1000, RX)
    };
    let align = |kind, aligns: &[u64]| {
        let phdrs: Vec<Phdr> = aligns.iter().copied().map(aligned).collect();
        let maker = Maker {
            kind,
            ..Maker::fixed(0x1000, &phdrs)
        };
        let plan = plan(&maker);
        assert_eq!(
            (plan.program.span.start(), plan.program.span.end()),
            (0x3000, 0x4000)
        );
        plan.program.align_bytes
    };
    assert_eq!(align(3, &[0x1000, 0x20_0000, 0x4000]), 0x20_0000);
    assert_eq!(align(3, &[0, 1, 0x30_0000]), 0x1000);
    assert_eq!(align(2, &[0x20_0000]), 0x1000);
}

#[test]
fn the_header_table_is_where_a_segment_shows_it() {
    let text = |offset| load(offset, 0x40_0000, 0x1000, 0x1000, RX);
    let outside = plan(&Maker::fixed(0x2000, &[text(0x1000)]));
    assert_eq!(outside.program.phdr_addr, 0);
    assert!(
        outside
            .explain(Start::Alone)
            .to_string()
            .contains("AT_PHDR none")
    );
    let elsewhere = Maker {
        phoff: Some(0x1800),
        ..Maker::fixed(0x2000, &[text(0x1000)])
    };
    assert_eq!(plan(&elsewhere).program.phdr_addr, 0x40_0800);
    // Two cover it: the later one counts.
    let twice = Maker::fixed(0x2000, &[text(0), load(0, 0x40_1000, 0x1000, 0x1000, R)]);
    assert_eq!(plan(&twice).program.phdr_addr, 0x40_1040);
}
