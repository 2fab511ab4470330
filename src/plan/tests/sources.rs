//! Where pages come from, and how that is shown.

use super::*;
use crate::backing::NoCow;

#[test]
fn zeros_that_flash_has_anyway_are_not_stored() {
    let maker = Maker::fixed(0x1800, &[load(0, 0x40_0000, 0x1800, 0x1900, RW)]);
    let plan = plan(&maker);
    assert_eq!(rows(&plan.program), ["400000-402000 rw- direct +0x0"]);
    assert_eq!(plan.totals().upfront_ram_bytes, 0);
    assert_eq!(plan.totals().worst_ram_bytes, 0x2000);
}

#[test]
fn what_cannot_be_mapped_is_copied_with_its_reason() {
    let maker = Maker::fixed(
        0x5123,
        &[
            load(0, 0x40_0000, 0x2000, 0x2000, RX),
            load(0x2000, 0x40_3000, 0x3000, 0x3000, RW),
            load(0x5000, 0x40_6000, 0x100, 0x200, RW),
        ],
    );
    let base = TestFile::program("p", maker.build());
    let options = PlanOptions::new(K4);
    let show =
        |file: TestFile, options: &PlanOptions| rows(&plan_with(&[file], options).unwrap().program);
    let shared = TestFile {
        filler: 0xee,
        ..base.clone()
    };
    assert_eq!(
        show(shared, &options),
        [
            "400000-402000 r-x direct +0x0",
            "403000-406000 rw- direct +0x2000",
            "406000-407000 rw- copied file@0x5000+0x100 shared-last-page",
        ]
    );
    let compressed = TestFile {
        store: vec![Store::Plain, Store::Compressed, Store::Hole, Store::Apart],
        ..base.clone()
    };
    assert_eq!(
        show(compressed, &options),
        [
            "400000-401000 r-x direct +0x0",
            "401000-402000 r-x copied file@0x1000+0x1000 compressed",
            "403000-404000 rw- copied file@0x2000+0x1000 hole",
            "404000-407000 rw- direct +0x0 clear 406100-407000",
        ]
    );
    let misaligned = TestFile {
        skew: 4,
        ..base.clone()
    };
    assert_eq!(
        show(misaligned, &options),
        [
            "400000-402000 r-x copied file@0x0+0x2000 misaligned",
            "403000-407000 rw- copied file@0x2000+0x3100 misaligned",
        ]
    );
    let copy_text = PlanOptions {
        copy_text: true,
        ..options
    };
    assert_eq!(
        show(base.clone(), &copy_text)[..2],
        [
            "400000-402000 r-x copied file@0x0+0x2000 asked",
            "403000-407000 rw- direct +0x2000 clear 406100-407000"
        ]
    );
    let no_cow = PlanOptions {
        cow: Err(NoCow::Refused),
        ..options
    };
    let plan = plan_with(&[base], &no_cow).unwrap();
    assert_eq!(
        rows(&plan.program),
        [
            "400000-402000 r-x direct +0x0",
            "403000-407000 rw- copied file@0x2000+0x3100 cannot-cow",
        ]
    );
    assert_eq!(plan.totals().upfront_ram_bytes, 0x4000);
    assert_eq!(plan.totals().worst_ram_bytes, 0x8000);
}

#[test]
fn an_explanation_is_a_table_and_json_with_the_same_facts() {
    let maker = Maker::fixed(
        0x4123,
        &[
            load(0, 0x40_0000, 0x2000, 0x2000, RX),
            load(0x2000, 0x40_3000, 0x1800, 0x1900, RW),
            load(0x4000, 0x40_6000, 0x123, 0x2000, RW),
        ],
    );
    let file = TestFile {
        filler: 0xee,
        ..TestFile::program("p", maker.build())
    };
    let plan = plan_with(&[file], &PlanOptions::new(K4)).unwrap();
    let explanation = plan.explain(Start::Alone);
    assert_eq!(
        explanation.to_string(),
        "\
/p: ET_EXEC 64-bit x86_64, entry 0x400000, 4 KiB pages
  00400000-00402000 r-x direct        image@0x10000       0 KiB
  00403000-00405000 rw- copy-on-write image@0x12000       4 KiB  bss cleared from 00404800
  00406000-00407000 rw- copied        file@0x4000         4 KiB  shared-last-page
  00407000-00408000 rw- zero                              0 KiB
  brk 00408000, AT_PHDR 00400040, stack as the machine's default
totals of the program's pages, with --no-root
  image, in place             8 KiB
  image, copy-on-write        8 KiB
  RAM up front                8 KiB
  RAM at worst               20 KiB
copied because
  shared-last-page: its last page holds another file's bytes; rebuild it with xip-image
"
    );
    let in_session = plan.explain(Start::Session).to_string();
    for line in [
        "  00406000-00407000 rw- view          file@0x4000         4 KiB  shared-last-page\n",
        "totals of the program's pages, in a session\n",
        "  page cache, view            4 KiB\n  RAM up front                8 KiB\n  RAM at worst               16 KiB\n",
        "through the view because\n  shared-last-page: ",
    ] {
        assert!(in_session.contains(line), "{line}{in_session}");
    }
    let json = serde_json::to_value(plan.explain(Start::Session)).unwrap();
    assert_eq!(json["start"], "session");
    assert_eq!(json["totals"]["through_view_bytes"], 4096);
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["start"], "alone");
    assert_eq!(json["page_bytes"], 4096);
    assert_eq!(json["program"]["entry"], 0x40_0000);
    assert_eq!(json["program"]["kind"], "ET_EXEC");
    assert_eq!(json["interpreter"], serde_json::Value::Null);
    assert_eq!(
        json["program"]["mappings"][1],
        serde_json::json!({
            "start": 0x40_3000, "end": 0x40_5000, "prot": "rw-", "source": "copy-on-write",
            "image_offset": 0x12000, "cleared_from": 0x40_4800, "upfront_ram_bytes": 0x1000
        })
    );
    assert_eq!(
        json["program"]["mappings"][2],
        serde_json::json!({
            "start": 0x40_6000, "end": 0x40_7000, "prot": "rw-", "source": "copied", "file_offset": 0x4000,
            "file_bytes": 0x123, "reason": "shared-last-page", "upfront_ram_bytes": 0x1000
        })
    );
    assert_eq!(json["totals"]["worst_ram_bytes"], 0x5000);
    assert_eq!(json["copy_reasons"][0]["reason"], "shared-last-page");
}

#[test]
fn every_program_of_the_golden_images_plans_at_every_page_size() {
    let mut direct = 0;
    for name in [
        "plain",
        "ext",
        "xip-nommu",
        "xip-mmu",
        "holes-ext",
        "big-endian",
        "pad512",
    ] {
        let path = format!("{}/tests/golden/{name}.cramfs", env!("CARGO_MANIFEST_DIR"));
        let image = Image::open(std::fs::read(path).unwrap()).unwrap();
        for program in ["/bin/prog32", "/bin/prog64", "/bin/prog-arm", "/bin/p"] {
            for page in PageSize::ALL {
                let options = PlanOptions::new(page);
                match LaunchPlan::new(&image, program.as_bytes(), &options) {
                    Ok(plan) => {
                        plan.verify(&image).unwrap();
                        direct += plan.totals().in_place_bytes;
                    }
                    // Linked for 4 KiB pages.
                    Err(err) => assert!(
                        page > K4 && err.to_string().contains("max-page-size"),
                        "{err}"
                    ),
                }
            }
        }
    }
    assert!(direct > 0);
}

#[test]
fn text_of_which_nothing_is_in_place_is_said_to_be_copied() {
    let stack = Phdr {
        kind: PT_GNU_STACK,
        ..load(0, 0, 0, 0, RW | RX)
    };
    let segments = [
        load(0, 0x40_0000, 0x2000, 0x2000, RX),
        load(0x2000, 0x40_3000, 0x100, 0x100, RW),
        stack,
    ];
    let base = TestFile::program("p", Maker::fixed(0x2100, &segments).build());
    let options = PlanOptions::new(K4);
    let stored = |store: &[Store]| {
        let store = store.to_vec();
        let file = TestFile {
            store,
            ..base.clone()
        };
        plan_with(&[file], &options).unwrap()
    };
    assert_eq!(stored(&[]).copied_text(), None);
    // Of a part the plan tells.
    assert_eq!(
        stored(&[Store::Plain, Store::Compressed]).copied_text(),
        None
    );
    let compressed = stored(&[Store::Compressed, Store::Compressed]);
    let why = compressed.copied_text().unwrap();
    assert!(why.starts_with("/p: its text: compressed in"), "{why}");
    // In a session the view has the pages, and they are its page cache's.
    let shown = compressed.explain(Start::Session);
    let json = serde_json::to_value(&shown).unwrap();
    assert_eq!(json["program"]["mappings"][0]["upfront_ram_bytes"], 0);
    assert!(shown.to_string().contains("stack rwx"), "{shown}");
}
