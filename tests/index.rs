//! Extents and the XIP index: every reason not to map a page made to happen, for pages of 4, 16 and 64 KiB.

mod common;

use common::image_bytes::*;
use common::oracle::check_file;
use common::{GOLDEN, cases, golden, golden_bytes, noise, tree};
use proptest::prelude::*;
use xip_run::cramfs::{Image, InodeKind};
use xip_run::index::{FileIndex, NotDirect, PageState};
use xip_run::units::PageSize;

/// What is expected of a page: `D` direct, else the first letter of the reason.
fn letter(state: PageState) -> char {
    match state {
        Ok(_) => 'D',
        Err(NotDirect::Compressed) => 'c',
        Err(NotDirect::Hole) => 'h',
        Err(NotDirect::NotConsecutive) => 'n',
        Err(NotDirect::Misaligned) => 'm',
        Err(NotDirect::SharedLastPage) => 's',
        Err(NotDirect::BeyondImage) => 'i',
        Err(NotDirect::BeyondFile) => 'f',
    }
}

/// The states of the file's pages and one more, for each page size.
fn states(image: &Image, bytes: &[u8], path: &str) -> [String; 3] {
    let inode = image.lookup(path.as_bytes()).unwrap();
    check_file(image, bytes, &inode);
    PageSize::ALL.map(|page| {
        let index = FileIndex::new(image, &inode, page).unwrap();
        (0..=page.count(inode.size))
            .map(|number| letter(index.page(number)))
            .collect()
    })
}

/// The same for an image whose only file is this.
fn states_of(node: Node, pad_to: usize) -> [String; 3] {
    let image = ImageBytes {
        pad_to,
        ..ImageBytes::new(dir([("f", node)]))
    };
    let bytes = image.build();
    let image = Image::open(bytes.clone()).unwrap();
    image.require_runnable().unwrap();
    states(&image, &bytes, "f")
}

const K64: usize = 65536;

#[test]
fn a_whole_aligned_file_is_direct() {
    let node = direct_file(&noise(2 * K64), K64);
    let direct = |pages: usize| "D".repeat(pages) + "f";
    assert_eq!(states_of(node, 4096), [direct(32), direct(8), direct(2)]);
}

#[test]
fn compressed_pages_and_holes_are_not() {
    assert_eq!(
        states_of(zlib_file(&noise(5000)), 4096),
        ["ccf", "cf", "cf"]
    );
    assert_eq!(
        states_of(file([hole(), hole_direct()]), 4096),
        ["hhf", "hf", "hf"]
    );
    // One block in sixteen is enough.
    let blocks = |other: Block| {
        let start = raw_direct(noise(4096)).align(K64);
        let rest = vec![raw_direct(noise(4096)); 14];
        file([start].into_iter().chain(rest).chain([other]))
    };
    let direct = "D".repeat(15);
    for (other, why) in [(zlib(noise(4096)), "c"), (hole(), "h")] {
        let want = [
            direct.clone() + why + "f",
            format!("DDD{why}f"),
            format!("{why}f"),
        ];
        assert_eq!(states_of(blocks(other), 4096), want);
    }
}

#[test]
fn a_page_must_be_one_piece() {
    // Four blocks in a row make a page of 16 KiB; with a gap after the first two they do not.
    let blocks = |gap: usize| {
        let start = raw_direct(noise(4096)).align(K64);
        let next = raw_direct(noise(4096));
        file([start, next.clone(), next.clone().skip(gap), next])
    };
    assert_eq!(states_of(blocks(0), K64), ["DDDDf", "Df", "Df"]);
    assert_eq!(states_of(blocks(4096), K64), ["DDDDf", "nf", "nf"]);
    assert_eq!(states_of(blocks(4), K64), ["DDmmf", "nf", "nf"]);
    // Backwards is not in a row either.
    let base = (K64 / 4) as u32 | 3 << 30;
    let backwards = file([pointer(base + 1024), pointer(base)]).then(noise(2 * K64));
    assert_eq!(states_of(backwards, K64), ["DDf", "nf", "nf"]);
    // A block that is stored short has zeros in the file where the image has something else.
    let short = file([
        raw_direct(noise(4096)).align(4096),
        raw(noise(100)),
        raw(noise(10)),
    ]);
    assert_eq!(states_of(short, K64)[0], "Dnmf");
}

#[test]
fn a_page_must_lie_on_a_page_boundary_of_this_kernel() {
    let at = |align: usize| direct_file(&noise(K64), align).align(K64);
    let all = |letter: &str, pages: usize| letter.repeat(pages) + "f";
    assert_eq!(
        states_of(at(K64), K64),
        [all("D", 16), all("D", 4), all("D", 1)]
    );
    assert_eq!(
        states_of(at(16384), K64),
        [all("D", 16), all("D", 4), all("m", 1)]
    );
    assert_eq!(
        states_of(at(4096), K64),
        [all("D", 16), all("m", 4), all("m", 1)]
    );
    assert_eq!(
        states_of(at(4), K64),
        [all("m", 16), all("m", 4), all("m", 1)]
    );
}

#[test]
fn blocks_that_are_not_direct_pointers_are_mapped_too_if_they_lie_well() {
    let start = raw_direct(noise(4096)).align(K64);
    let rest = vec![raw(noise(4096)); 3];
    let node = file([start].into_iter().chain(rest));
    assert_eq!(states_of(node, K64), ["DDDDf", "Df", "Df"]);
}

#[test]
fn a_run_may_begin_in_the_middle_of_a_file_and_of_a_page() {
    // Four compressed blocks, then direct ones, the first on a boundary of 64 KiB.
    let blocks = |compressed: usize, align: usize, direct: usize| {
        let head = vec![zlib(b"text"); compressed];
        let start = raw_direct(noise(4096)).align(align);
        let rest = vec![raw_direct(noise(4096)); direct - 1];
        file(head.into_iter().chain([start]).chain(rest))
    };
    let text =
        |compressed: usize, direct: usize| "c".repeat(compressed) + &"D".repeat(direct) + "f";
    let [small, middle, large] = states_of(blocks(4, K64, 16), K64);
    // Page 1 of the file is at 64 KiB in the image: fine for 16 KiB. For 64 KiB it lies wrong, and shares its page.
    assert_eq!(
        (small, middle, large),
        (text(4, 16), text(1, 4), "cmf".into())
    );
    let [small, middle, _] = states_of(blocks(3, 4096, 5), K64);
    // The first page of 16 KiB is compressed in part; the next starts in the run's second block.
    assert_eq!((small, middle), (text(3, 5), "cmf".into()));
    // Two files share a run, the second has its last blocks only.
    let base = (K64 / 4) as u32 | 3 << 30;
    let image = ImageBytes {
        pad_to: K64,
        ..ImageBytes::new(dir([
            ("all", direct_file(&noise(K64), K64)),
            (
                "end",
                file((0..4).map(|block| pointer(base + 1024 * (12 + block)))),
            ),
        ]))
    };
    let bytes = image.build();
    let image = Image::open(bytes.clone()).unwrap();
    assert_eq!(states(&image, &bytes, "end"), ["DDDDf", "Df", "mf"]);
}

#[test]
fn the_last_page_is_direct_only_if_its_tail_is_zero() {
    for size in [1, 4095, 4097, 16385, 50_000, K64 - 1] {
        let [k4, k16, k64] = PageSize::ALL.map(|page| page.count(size as u64) as usize);
        let direct = |pages: usize| "D".repeat(pages) + "f";
        let shared = |pages: usize| "D".repeat(pages - 1) + "sf";
        let node = direct_file(&noise(size), K64);
        // Zeros to the end of the page of 64 KiB.
        assert_eq!(
            states_of(node.clone(), K64),
            [direct(k4), direct(k16), direct(k64)]
        );
        // One byte that is not zero, right behind the file: no page size may show it.
        let next = states_of(node.clone().then([1]), K64);
        assert_eq!(next, [shared(k4), shared(k16), shared(k64)]);
        // One at the very end of the page of 64 KiB; the smaller ones end before it, unless they are the last in it.
        let mut tail = vec![0; K64 - size];
        *tail.last_mut().unwrap() = 0x80;
        let [small, middle, large] = states_of(node.then(tail), K64);
        assert_eq!(large, shared(1));
        assert_eq!(small, if k4 == 16 { shared(16) } else { direct(k4) });
        assert_eq!(middle, if k16 == 4 { shared(4) } else { direct(k16) });
    }
    // A whole page has no tail.
    let node = direct_file(&noise(K64), K64).then([1]);
    assert_eq!(states_of(node, K64)[2], "Df");
}

#[test]
fn a_page_that_the_image_ends_in_is_not_mapped() {
    let node = direct_file(&noise(5000), K64);
    assert_eq!(states_of(node.clone(), 4), ["Dif", "if", "if"]);
    assert_eq!(states_of(node.clone(), 4096), ["DDf", "if", "if"]);
    assert_eq!(states_of(node.clone(), 16384), ["DDf", "Df", "if"]);
    // What the backing has behind the image is not the image.
    let image = ImageBytes::new(dir([("f", node)]));
    let mut bytes = image.build();
    bytes.resize(4 * K64, 0);
    let image = Image::open(bytes.clone()).unwrap();
    assert_eq!(states(&image, &bytes, "f"), ["DDf", "if", "if"]);
}

#[test]
fn an_empty_file_has_no_pages_and_a_directory_no_index() {
    let image = Image::open(ImageBytes::new(dir([("f", file([]))])).build()).unwrap();
    let inode = image.lookup(b"f").unwrap();
    let index = FileIndex::new(&image, &inode, PageSize::K4).unwrap();
    assert!(index.runs().is_empty());
    assert_eq!(
        (index.direct_pages(), index.page(0)),
        (0, Err(NotDirect::BeyondFile))
    );
    let err = FileIndex::new(&image, &image.root(), PageSize::K4).unwrap_err();
    assert!(err.to_string().contains("EISDIR"), "{err}");
}

#[test]
fn reasons_print_as_they_are_in_reports() {
    use NotDirect::*;
    for (reason, name) in [
        (Compressed, "compressed"),
        (Hole, "hole"),
        (NotConsecutive, "not-consecutive"),
        (Misaligned, "misaligned"),
        (SharedLastPage, "shared-last-page"),
        (BeyondImage, "beyond-image"),
        (BeyondFile, "beyond-file"),
    ] {
        assert_eq!(reason.to_string(), name);
        assert_eq!(serde_json::to_string(&reason).unwrap(), format!("{name:?}"));
        assert!(!reason.explain().is_empty());
    }
}

#[test]
fn golden_images_agree_with_the_oracle() {
    for name in GOLDEN {
        let (image, bytes) = (golden(name), golden_bytes(name));
        let direct: u64 = tree(&image)
            .iter()
            .filter(|(_, inode)| inode.kind == InodeKind::File)
            .map(|(_, inode)| check_file(&image, &bytes, inode))
            .sum();
        let xip = name == "xip-mmu" || name == "pad512";
        assert_eq!(direct > 0, xip, "{name}");
    }
}

#[test]
fn golden_xip_programs() {
    // mkcramfs lays 32-bit programs out, their last page (.data) compressed; for machines without an MMU on no boundary.
    for (name, path, want) in [
        ("xip-mmu", "bin/prog32", "DDDDDcf"),
        ("xip-mmu", "bin/prog64", "ccccccf"),
        ("xip-mmu", "bin/prog-arm", "DDDcf"),
        ("xip-nommu", "bin/prog32", "mmmmmcf"),
        ("xip-nommu", "bin/prog-arm", "mmmcf"),
        ("pad512", "bin/prog32", "DDDDDcf"),
    ] {
        let [small, _, _] = states(&golden(name), &golden_bytes(name), path);
        assert_eq!(small, want, "{name} {path}");
    }
}

/// A block in any form, at any distance, and what it holds.
fn any_block() -> impl Strategy<Value = Block> {
    let content = prop_oneof![Just(4096), 0..4096_usize].prop_map(noise);
    let align = prop_oneof![8 => Just(4), 2 => Just(4096), 1 => Just(16384), 1 => Just(65536)];
    let skip = prop_oneof![12 => Just(0), 1 => Just(4096), 1 => 1..100_usize];
    (0..16_u8, content, align, skip).prop_map(|(form, content, align, skip)| {
        let block = match form {
            0 => zlib(content),
            1 => zlib_direct(content),
            2 => hole(),
            3 => hole_direct(),
            4 => raw(content),
            5 => raw(noise(4096)),
            _ => raw_direct(noise(4096)),
        };
        block.align(align).skip(skip)
    })
}

proptest! {
    #![proptest_config(cases(500))]

    // Invariant: extents and index are those that the slow oracle works out, whatever the blocks of a file are.
    #[test]
    fn the_index_agrees_with_the_oracle(
        start in any_block(),
        blocks in prop::collection::vec(any_block(), 0..40),
        last in 1..=4096_usize,
        align in prop::sample::select(vec![4, 4096, 16384, 65536]),
        tail in (0..70_000_usize, 0..2_u8),
        pad_to in prop::sample::select(vec![4, 4096, 16384, 65536]),
    ) {
        let start = start.align(align);
        let last = raw_direct(noise(last));
        let (zeros, byte) = tail;
        let mut tail = vec![0; zeros];
        tail.push(byte);
        let node = file([start].into_iter().chain(blocks).chain([last])).then(tail);
        let image = ImageBytes { pad_to, ..ImageBytes::new(dir([("f", node)])) };
        let bytes = image.build();
        let image = Image::open(bytes.clone()).unwrap();
        let inode = image.lookup(b"f").unwrap();
        image.read_file(&inode).unwrap();
        check_file(&image, &bytes, &inode);
    }
}
