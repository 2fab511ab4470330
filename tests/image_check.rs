//! The checker: silent about good images, a finding for everything Linux would trip on, and never out of hand.

#[path = "common/craft.rs"]
mod craft;
#[path = "common/tree.rs"]
mod tree;

use std::time::{Duration, Instant};

use craft::{Craft, DIR, FILE, LINK, entry};
use proptest::prelude::*;
use tree::{build_in, golden, golden_path, open, sample_tree, xip, xip_image};
use xip_run::cramfs::check::{Finding, MAX_FINDINGS, Severity};
use xip_run::cramfs::format::{BLOCK_DIRECT, BLOCK_UNCOMPRESSED, flags};
use xip_run::cramfs::{Image, check};
use xip_run::picture::{Content, Strip};
use xip_run::units::PageSize;

const STORED: u32 = BLOCK_DIRECT | BLOCK_UNCOMPRESSED;

/// Checks an image that is bad in one way: some finding has this severity, path and text.
#[track_caller]
fn assert_finds(image: &Image, severity: Severity, path: &str, what: &str) {
    let report = check(image);
    let found = report.findings.iter().any(|finding| {
        finding.severity == severity
            && finding
                .path
                .as_ref()
                .map_or(String::new(), |p| p.to_string())
                == path
            && finding.what.contains(what)
    });
    assert!(
        found,
        "{severity} {path:?} {what:?} is not in {:#?}",
        report.findings
    );
    assert_eq!(
        report.is_sound(),
        severity != Severity::Error,
        "{:#?}",
        report.findings
    );
}

const GOLDEN: [&str; 10] = [
    "plain",
    "ext",
    "xip-nommu",
    "xip-mmu",
    "holes",
    "holes-ext",
    "pad512",
    "big-endian",
    "big-endian-ext",
    "squashed-owner",
];

#[test]
fn the_reference_tools_images_are_sound() {
    for name in GOLDEN {
        let report = check(&golden(name));
        assert_eq!(report.findings, [], "{name}");
        assert!(report.is_sound());
        assert_eq!(report.entries, 71);
    }
}

#[test]
fn the_command_fails_for_a_damaged_image_and_says_where() {
    let dir = sample_tree();
    build_in(dir.path(), &xip(&[])).unwrap();
    let path = dir.path().join("image");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last / 2] ^= 0x20;
    std::fs::write(&path, &bytes).unwrap();
    let output = xip_image(&["check", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(125));
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.contains("error: image@0x0: CRC is"), "{stdout}");
    let output = xip_image(&["check", golden_path("plain").to_str().unwrap()]);
    assert!(output.status.success());
}

/// Of a damaged image everything is shown and unpacked that can be.
#[test]
fn damage_does_not_hide_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let mut craft = Craft::new();
    let good = craft.here();
    craft.pointers(&[BLOCK_UNCOMPRESSED | (good as u32 + 8)]);
    craft.put(b"good");
    let bad = craft.pointers(&[0x3fff_ffff]);
    let inside = craft.put(&entry(b"..", FILE, 0, 0));
    craft.root(&[
        entry(b"bad", FILE, 9, bad),
        entry(b"dir", DIR, 16, inside),
        entry(b"good", FILE, 4, good),
        entry(b"odd\x1b\xff", FILE, 4, good),
    ]);
    let bytes = craft.bytes();
    let path = dir.path().join("image");
    std::fs::write(&path, &bytes).unwrap();
    let image = path.to_str().unwrap();
    for command in ["info", "map"] {
        let output = xip_image(&[command, image]);
        assert_eq!(output.status.code(), Some(125));
        let stdout = String::from_utf8(output.stdout).unwrap();
        for error in ["/bad: ", "/dir: directory entry at"] {
            assert!(stdout.contains(error), "{command}: {stdout}");
        }
        assert!(!stdout.contains("CRC is"), "{command}: {stdout}");
        assert!(
            command == "info" || stdout.contains("/odd\\u{1b}\\xff  4 bytes"),
            "{stdout}"
        );
        let json = xip_image(&[command, "--json", image]).stdout;
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["errors"].as_array().unwrap().len(), 2, "{json}");
        assert_eq!(json["errors"][0]["path"], "/bad");
    }
    let out = dir.path().join("out");
    let output = xip_image(&["extract", image, out.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(125));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("xip-image: /bad: "), "{stderr}");
    assert!(stderr.contains("xip-image: /dir: "), "{stderr}");
    assert_eq!(std::fs::read(out.join("good")).unwrap(), b"good");
    assert!(!out.join("bad").exists());

    // A wrong CRC alone: everything is there, but nobody is told that all is well.
    let mut bytes = std::fs::read(golden_path("plain")).unwrap();
    bytes[48] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    for args in [
        &["info"][..],
        &["map"],
        &["ls", "-l"],
        &["cat"],
        &["extract"],
    ] {
        let more = match args {
            ["cat"] => vec!["/etc/passwd"],
            ["extract"] => vec![dir.path().join("all").to_str().unwrap().to_owned().leak() as &str],
            _ => vec![],
        };
        let output = xip_image(&[args, &[image], &more].concat());
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        if args != ["cat"] && args != ["ls", "-l"] {
            assert_eq!(output.status.code(), Some(125), "{args:?}: {text}");
        } else {
            assert!(output.status.success(), "{args:?}: {text}");
        }
        assert!(text.contains("the image is damaged"), "{args:?}: {text}");
    }
    assert!(dir.path().join("all/etc/passwd").exists());
}

#[test]
fn superblocks() {
    let mut craft = Craft::new();
    craft.root(&[]);
    let good = craft.bytes();
    let with = |at: usize, bytes: &[u8]| {
        let mut image = good.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        Image::open(image).unwrap()
    };
    assert_eq!(check(&with(0, &[])).findings, []);
    let error = |image: &Image, what| assert_finds(image, Severity::Error, "", what);
    error(&with(8, &0x8003_u32.to_le_bytes()), "flags 0x8000");
    error(&with(4, &9000_u32.to_le_bytes()), "truncated");
    error(&with(32, &[1, 2, 3, 4]), "CRC");
    error(&with(64, &FILE.to_le_bytes()), "not a directory");
    let mut shifted = Craft::new();
    shifted.put(&[0; 8]);
    shifted.root(&[entry(b"a", FILE, 0, 0)]);
    shifted.flags &= !flags::SHIFTED_ROOT;
    error(&shifted.image(), "SHIFTED_ROOT");
    let old = with(8, &0_u32.to_le_bytes());
    assert_finds(&old, Severity::Note, "", "version 1");
    let unsigned = check(&with(16, b"x"));
    let signature = unsigned
        .findings
        .iter()
        .find(|f| f.what.contains("signature"));
    assert_eq!(signature.unwrap().severity, Severity::Warning);
}

#[test]
fn names() {
    let image = |entries: &[&[u8]]| {
        let mut craft = Craft::new();
        let entries: Vec<Vec<u8>> = entries.iter().map(|name| entry(name, FILE, 0, 0)).collect();
        craft.root(&entries);
        craft.image()
    };
    let error = |entries, path, what| assert_finds(&image(entries), Severity::Error, path, what);
    error(&[b"a", b"b", b"a"], "/a", "twice");
    error(&[b"a", b"a"], "/a", "twice");
    error(&[b"b", b"a"], "/a", "out of order");
    error(&[b"\xc3", b"a"], "/a", "out of order");
    error(&[b"a/b"], "/", "a / in its name");
    error(&[b".."], "/", "named . or ..");
    error(&[b""], "/", "empty name");
    error(&[b"a\0b"], "/", "NUL");
    assert_eq!(check(&image(&[b"A", b"a", b"ab"])).findings, []);
}

#[test]
fn inodes() {
    let mut craft = Craft::new();
    craft.root(&[entry(b"weird", 0o070_644, 0, 0)]);
    assert_finds(&craft.image(), Severity::Error, "/weird", "no type");

    let mut craft = Craft::new();
    craft.root(&[entry(b"link", LINK, 0, 0)]);
    assert_finds(&craft.image(), Severity::Error, "/link", "to nothing");

    let mut craft = Craft::new();
    let target = craft.here() + 4;
    craft.pointers(&[BLOCK_UNCOMPRESSED | (target as u32 + 3)]);
    craft.put(b"a\0b");
    craft.root(&[entry(b"link", LINK, 3, target - 4)]);
    assert_finds(&craft.image(), Severity::Error, "/link", "NUL");

    // Two inodes with the same data are one to Linux.
    let mut craft = Craft::new();
    let data = craft.pointers(&[STORED | 0x13]);
    craft.put(&[7; 8]);
    craft.root(&[entry(b"a", FILE, 1, data), entry(b"b", FILE, 2, data)]);
    assert_finds(
        &craft.image(),
        Severity::Error,
        "/b",
        "another type or size",
    );

    let mut craft = Craft::new();
    let data = craft.pointers(&[STORED | 0x14]);
    craft.put(&[7; 8]);
    craft.root(&[
        entry(b"a", FILE, 1, data),
        entry(b"b", FILE | 0o111, 1, data),
    ]);
    assert_finds(
        &craft.image(),
        Severity::Warning,
        "/b",
        "another mode or owner",
    );
}

/// An image with one file of `size` bytes, whose pointers come from where its data ends.
fn one_file(size: u64, data: &[u8], pointers: impl Fn(u64) -> Vec<u32>) -> Craft {
    let mut craft = Craft::new();
    let count = size.div_ceil(4096);
    let table = craft.here();
    craft.pointers(&pointers(table + 4 * count));
    craft.put(data);
    craft.root(&[entry(b"f", FILE, size, table)]);
    craft
}

#[test]
fn blocks() {
    let zlib = |bytes: &[u8]| {
        use std::io::Write;
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        zlib.write_all(bytes).unwrap();
        zlib.finish().unwrap()
    };
    let error = |craft: Craft, what| assert_finds(&craft.image(), Severity::Error, "/f", what);
    let garbage = [0x55; 100];
    error(
        one_file(100, &garbage, |at| vec![at as u32 + 100]),
        "not a zlib stream",
    );
    let short = zlib(&[1; 99]);
    error(
        one_file(100, &short, |at| vec![(at + short.len() as u64) as u32]),
        "inflates to 99 bytes",
    );
    let long = zlib(&[1; 5000]);
    error(
        one_file(100, &long, |at| vec![(at + long.len() as u64) as u32]),
        "more than 4096",
    );
    let cut = zlib(&tree::noise(100, 1));
    error(
        one_file(100, &cut, |at| vec![(at + cut.len() as u64 - 9) as u32]),
        "cut off",
    );
    error(
        one_file(100, &garbage, |at| vec![at as u32 - 1]),
        "before its start",
    );
    error(one_file(100, &garbage, |_| vec![0x3fff_ffff]), "bytes long");
    error(
        one_file(100, &garbage, |_| vec![STORED | 0x3fff_ffff]),
        "outside the image",
    );
    error(
        one_file(100, &garbage, |_| vec![BLOCK_DIRECT | 0x3fff_ffff]),
        "outside the image",
    );
    error(one_file(0x00ff_f000, &[], |_| vec![]), "outside the image");

    let page = vec![7; 4096];
    let mut trap = one_file(4096, &page, |at| vec![STORED | (at / 4) as u32]);
    error(trap, "takes its length for 0");
    trap = one_file(4096, &page, |at| {
        vec![BLOCK_UNCOMPRESSED | (at + 4096) as u32]
    });
    assert!(check(&trap.image()).is_sound());

    let mut unflagged = one_file(5, b"hello", |at| vec![STORED | (at / 4) as u32]);
    unflagged.flags &= !flags::EXT_BLOCK_POINTERS;
    error(unflagged, "do");

    let hole = |flag: u32| {
        let mut craft = one_file(100, &[], |at| vec![at as u32]);
        craft.flags &= !flag;
        craft.image()
    };
    assert_finds(&hole(flags::HOLES), Severity::Note, "/f", "a hole");
    assert_finds(&hole(0), Severity::Note, "", "blocks");
    let stub = one_file(100, b"hello", |at| {
        vec![BLOCK_UNCOMPRESSED | (at + 5) as u32]
    });
    assert_finds(
        &stub.image(),
        Severity::Warning,
        "/f",
        "5 bytes instead of 100",
    );
}

#[test]
fn one_broken_file_does_not_fill_the_list() {
    let ends = |at: u64| (1..=12).map(|number| (at + 8 * number) as u32).collect();
    let image = one_file(12 * 4096, &[0x55; 96], ends).image();
    let report = check(&image);
    let blocks = |finding: &&Finding| finding.what.starts_with("block ");
    assert_eq!(report.findings.iter().filter(blocks).count(), 10);
    let what = "12 blocks are bad; the first ten are listed";
    assert_finds(&image, Severity::Error, "/f", what);

    // Nobody's bytes between files.
    let mut craft = Craft::new();
    let entries: Vec<Vec<u8>> = (b'a'..b'p')
        .map(|name| {
            let table = craft.here();
            craft.pointers(&[BLOCK_UNCOMPRESSED | (table + 8) as u32]);
            craft.put(b"mine");
            craft.put(&[0x55; 64]);
            entry(&[name], FILE, 4, table)
        })
        .collect();
    craft.root(&entries);
    let what = "5 more gaps are not zero; the first 10 are listed";
    assert_finds(&craft.image(), Severity::Warning, "", what);
}

#[test]
fn overlaps() {
    // A block over the superblock, over its own pointers, and over another file's.
    let direct = |at: u64| STORED | (at / 4) as u32;
    assert_finds(
        &one_file(50, &[], |_| vec![direct(0)]).image(),
        Severity::Error,
        "/f",
        "overlaps",
    );
    assert_finds(
        &one_file(50, &[0; 50], |at| vec![direct(at - 4)]).image(),
        Severity::Error,
        "/f",
        "overlaps",
    );
    let mut craft = Craft::new();
    let one = craft.pointers(&[direct(88)]);
    let two = craft.pointers(&[direct(92)]);
    craft.put(&[1; 4]);
    craft.put(&[2; 100]);
    let entries = [entry(b"a", FILE, 50, one), entry(b"b", FILE, 50, two)];
    craft.root(&entries);
    assert_finds(&craft.image(), Severity::Warning, "/b", "overlaps");
    // The very same block twice is how equal files are stored.
    let mut craft = Craft::new();
    let one = craft.pointers(&[direct(84)]);
    let two = craft.pointers(&[direct(84)]);
    craft.put(&[1; 52]);
    let entries = [entry(b"a", FILE, 50, one), entry(b"b", FILE, 50, two)];
    craft.root(&entries);
    let report = check(&craft.image());
    assert!(
        report.is_sound() && report.count(Severity::Warning) == 0,
        "{report:#?}"
    );
}

#[test]
fn directories_that_contain_themselves() {
    let mut craft = Craft::new();
    let here = craft.here();
    craft.root(&[entry(b"loop", DIR, 16, here)]);
    let image = craft.image();
    assert_finds(&image, Severity::Error, "/loop", "a loop?");
    let paths: Vec<_> = image
        .walk()
        .filter_map(|found| found.ok())
        .map(|f| f.path)
        .collect();
    assert_eq!(paths, [&b"/"[..], b"/loop"]);
    // Not the whole directory, but its second half.
    let mut craft = Craft::new();
    let here = craft.here();
    craft.root(&[
        entry(b"a", DIR, 16, here + 16),
        entry(b"b", DIR, 16, here + 16),
    ]);
    assert_finds(&craft.image(), Severity::Error, "/a", "a loop?");
}

/// Images that are small but claim enormous trees: all are done within seconds.
/// Each of very many directories says that it is 16 MiB long.
#[test]
fn a_picture_takes_time_by_the_image() {
    let entries: Vec<Vec<u8>> = (0..100_000)
        .map(|number| {
            let name = format!("{:04x}", number % 0x1_0000);
            entry(name.as_bytes(), DIR, 0xff_ffff, 4 * (19 + number))
        })
        .collect();
    let mut craft = Craft::new();
    craft.root(&entries);
    let image = craft.image();
    let used = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).tv_sec;
    let start = used();
    let strip = Strip::new("image", &image, PageSize::K4, None).unwrap();
    assert!(used() - start <= 5);
    let pages = PageSize::K4.count(image.limit_bytes()) as usize;
    assert_eq!(strip.count(Content::Metadata), pages);
}

#[test]
fn hostile_images_do_not_blow_up() {
    let bounded = |image: &Image| {
        let start = Instant::now();
        let report = check(image);
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{:?}",
            start.elapsed()
        );
        assert!(report.findings.len() <= MAX_FINDINGS);
        assert!(!report.is_sound());
        report
    };
    // Each directory twice in the one before it: 2^60 paths.
    let mut craft = Craft::new();
    let mut dir = (0, 0);
    for _ in 0..60 {
        let twice = [
            entry(b"a", DIR, dir.1, dir.0),
            entry(b"b", DIR, dir.1, dir.0),
        ]
        .concat();
        dir = (craft.put(&twice), twice.len() as u64);
    }
    craft.root_at(dir.0, dir.1);
    let report = bounded(&craft.image());
    assert_eq!(report.entries, 60 * 2 + 1);
    // 20000 directories deep.
    let mut craft = Craft::new();
    let mut dir = (0, 0);
    for _ in 0..20000 {
        let down = entry(&[b'd'; 252], DIR, dir.1, dir.0);
        dir = (craft.put(&down), down.len() as u64);
    }
    craft.root_at(dir.0, dir.1);
    let report = bounded(&craft.image());
    assert!(
        report
            .findings
            .iter()
            .any(|finding| finding.what.contains("PATH_MAX"))
    );
    // 50000 files with 16 MiB each, of overlapping pointers to the same blocks.
    let mut craft = Craft::new();
    let table = craft.pointers(&vec![BLOCK_DIRECT | 100; 60000]);
    let entries: Vec<Vec<u8>> = (0..50000_u64)
        .map(|number| {
            entry(
                format!("{number:05}").as_bytes(),
                FILE,
                0x00ff_f000,
                table + 4 * number,
            )
        })
        .collect();
    craft.root(&entries);
    bounded(&craft.image());
    // More findings than anybody reads.
    let mut craft = Craft::new();
    craft.root(&vec![entry(b"same", FILE, 0, 0); 5000]);
    let report = bounded(&craft.image());
    assert_eq!(report.findings.len(), MAX_FINDINGS);
    assert!(!report.complete);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// However an image is damaged, check ends, and walk, map and list do; nothing panics.
    #[test]
    fn damage_is_survived(
        golden in prop::sample::select(GOLDEN.to_vec()),
        damage in prop::collection::vec((0..8000_usize, any::<u8>()), 1..8),
        cut in 80..70000_usize,
    ) {
        let mut bytes = std::fs::read(golden_path(golden)).unwrap();
        let start = if golden == "pad512" { 512 } else { 0 };
        for (at, byte) in damage {
            bytes[start + 4 + at] = byte;
        }
        bytes.truncate(cut.max(start + 80));
        let image = Image::open(bytes).unwrap();
        let report = check(&image);
        prop_assert!(report.findings.len() <= MAX_FINDINGS);
        let _ = image.walk().count();
        let _ = xip_run::inspect::info(&image);
        if let Ok(map) = xip_run::inspect::map(&image) {
            let _ = map.to_string();
        }
        if let Ok(list) = xip_run::cramfs::dump::list(&image, b"/", true) {
            let _ = list.count();
        }
    }
}

#[test]
fn a_built_image_walks_in_its_own_order() {
    let dir = sample_tree();
    build_in(dir.path(), &xip(&[])).unwrap();
    let image = open(&dir.path().join("image"));
    let paths: Vec<Vec<u8>> = image.walk().map(|found| found.unwrap().path).collect();
    let mut sorted = paths.clone();
    // Depth first: a directory, what is in it, then its neighbours.
    sorted.sort_by_key(|path| {
        path.split(|&b| b == b'/')
            .map(<[u8]>::to_vec)
            .collect::<Vec<_>>()
    });
    assert_eq!(paths, sorted);
}
