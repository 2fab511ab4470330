//! Unpacking: everything arrives, and nothing lands outside the destination whatever the image says.

#[path = "common/craft.rs"]
mod craft;
#[path = "common/tree.rs"]
mod tree;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use craft::{Craft, DIR, FILE, LINK, entry};
use tree::{
    assert_same, build_in, golden, golden_path, have, is_root, open, sample_tree, xip, xip_image,
};
use xip_run::cramfs::Image;
use xip_run::cramfs::check::MAX_FINDINGS;
use xip_run::cramfs::extract::{ExtractOptions, extract};
use xip_run::cramfs::format::BLOCK_UNCOMPRESSED;

fn special() -> ExtractOptions {
    ExtractOptions {
        special: true,
        ..ExtractOptions::default()
    }
}

/// One line of tests/golden/TREE for what lies at `path`.
fn tree_line(root: &Path, line: &str) -> String {
    let fields: Vec<&str> = line.split('\t').collect();
    let path = root.join(fields[0]);
    let meta = fs::symlink_metadata(&path).unwrap();
    let kind = meta.file_type();
    let kind = match () {
        () if kind.is_dir() => "d",
        () if kind.is_symlink() => "l",
        () if kind.is_char_device() => "c",
        () if kind.is_block_device() => "b",
        () if kind.is_fifo() => "p",
        () => "f",
    };
    // A directory's size is its filesystem's business.
    let size = if kind == "d" { 4096 } else { meta.len() };
    let target = fs::read_link(&path).map_or(String::new(), |t| t.to_str().unwrap().to_owned());
    let (uid, gid) = (meta.uid(), meta.gid());
    format!(
        "{}\t{kind}\t{:o}\t{uid}\t{gid}\t{size}\t{target}",
        fields[0],
        meta.mode() & 0o7777
    )
}

#[test]
fn golden_images_unpack_to_their_tree() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let tree = fs::read_to_string(tests.join("TREE")).unwrap();
    for entry in fs::read_dir(&tests).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ext| ext != "cramfs") {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let options = if is_root() {
            special()
        } else {
            ExtractOptions::default()
        };
        let done = extract(&open(&path), &out, options).unwrap();
        let skipped = if is_root() { 0 } else { 2 };
        assert_eq!(
            (done.entries, done.skipped.len()),
            (70 - skipped, skipped as usize)
        );
        let sums = Command::new("sha256sum")
            .args(["--check", "--quiet"])
            .arg(tests.join("SHA256SUMS"))
            .current_dir(&out)
            .output()
            .unwrap();
        assert!(sums.status.success(), "{}: {sums:?}", path.display());
        if is_root() && !path.ends_with("squashed-owner.cramfs") {
            for line in tree.lines() {
                assert_eq!(tree_line(&out, line), line, "{}", path.display());
            }
        }
    }
}

#[test]
fn what_was_built_unpacks_to_the_same_tree() {
    let dir = sample_tree();
    for words in [&["auto"][..], &["none"], &["all"]] {
        build_in(dir.path(), &xip(words)).unwrap();
        let image = open(&dir.path().join("image"));
        let out = tempfile::tempdir().unwrap();
        if is_root() {
            extract(&image, out.path(), special()).unwrap();
            assert_same(&image, out.path());
        } else {
            extract(&image, out.path(), ExtractOptions::default()).unwrap();
        }
    }
}

#[test]
fn privileges_are_not_unpacked_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let image = golden_path("xip-mmu");
    let output = xip_image(&["extract", image.to_str().unwrap(), out.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("/dev/null: left out: a device"), "{stderr}");
    let mode = |path| fs::symlink_metadata(out.join(path)).map(|meta| meta.mode() & 0o7777);
    assert_eq!(mode("bin/prog32").unwrap(), 0o755);
    assert_eq!(mode("etc/passwd").unwrap(), 0o600);
    assert!(mode("dev/null").is_err());
    assert!(mode("tmp-fifo").is_ok());
    let owner = fs::metadata(out.join("data/one")).unwrap().uid();
    assert_eq!(owner, rustix::process::geteuid().as_raw());
    // Once more: it is not empty now.
    let output = xip_image(&["extract", image.to_str().unwrap(), out.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(125));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("not empty")
    );
}

/// Unpacks beside a directory that must stay as it is, and returns the error.
fn attack(craft: impl FnOnce(&Path) -> Image) -> String {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "untouched").unwrap();
    let image = craft(&outside);
    let done = extract(&image, &dir.path().join("out"), ExtractOptions::default());
    let names: Vec<_> = fs::read_dir(&outside)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["victim"], "something was written outside");
    assert_eq!(fs::read(outside.join("victim")).unwrap(), b"untouched");
    let mut names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["out", "outside"]);
    done.unwrap().failed.join("\n")
}

/// Puts a file's pointers and contents.
fn content(craft: &mut Craft, bytes: &[u8]) -> u64 {
    let at = craft.here();
    craft.pointers(&[BLOCK_UNCOMPRESSED | (at as u32 + 4 + bytes.len() as u32)]);
    craft.put(bytes);
    at
}

#[test]
fn a_link_of_the_image_leads_nowhere() {
    // A link, then a directory of the same name with a file in it.
    for absolute in [true, false] {
        let error = attack(|outside| {
            let mut craft = Craft::new();
            let to = if absolute {
                outside.to_str().unwrap()
            } else {
                "../outside"
            };
            let link = content(&mut craft, to.as_bytes());
            let file = content(&mut craft, b"overwritten");
            let inside = entry(b"victim", FILE, 11, file);
            let dir = craft.put(&inside);
            craft.root(&[
                entry(b"evil", LINK, to.len() as u64, link),
                entry(b"evil", DIR, inside.len() as u64, dir),
            ]);
            craft.image()
        });
        assert!(error.starts_with("/evil: mkdirat"), "{error}");
    }
    // A link, then a file of the same name.
    let error = attack(|outside| {
        let mut craft = Craft::new();
        let to = outside.join("victim");
        let to = to.to_str().unwrap().as_bytes();
        let link = content(&mut craft, to);
        let file = content(&mut craft, b"overwritten");
        craft.root(&[
            entry(b"evil", LINK, to.len() as u64, link),
            entry(b"evil", FILE, 11, file),
        ]);
        craft.image()
    });
    assert!(error.starts_with("/evil: openat"), "{error}");
}

#[test]
fn names_do_not_climb() {
    for name in [&b"../outside/new"[..], b"/tmp/new", b"..", b"."] {
        let error = attack(|_| {
            let mut craft = Craft::new();
            let file = content(&mut craft, b"overwritten");
            craft.root(&[entry(name, FILE, 11, file)]);
            craft.image()
        });
        assert!(error.contains("directory entry at"), "{error}");
    }
}

#[test]
fn loops_end() {
    let error = attack(|_| {
        let mut craft = Craft::new();
        let here = craft.here();
        craft.root(&[entry(b"loop", DIR, 16, here)]);
        craft.image()
    });
    assert!(error.contains("a loop?"), "{error}");
}

#[test]
fn a_small_image_cannot_fill_the_disk() {
    let holes = || {
        let mut craft = Craft::new();
        let table = craft.here();
        let end = table as u32 + 4 * 4095;
        craft.pointers(&[end; 4095]);
        let entries: Vec<Vec<u8>> = (0..100)
            .map(|number| entry(format!("{number:02}").as_bytes(), FILE, 4095 * 4096, table))
            .collect();
        craft.root(&entries);
        craft.image()
    };
    let dir = tempfile::tempdir().unwrap();
    let options = ExtractOptions {
        max_bytes: 40 << 20,
        ..ExtractOptions::default()
    };
    let error = extract(&holes(), &dir.path().join("out"), options)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("/02: the image unpacks to more than"),
        "{error}"
    );
    // Holes stay holes.
    extract(&holes(), &dir.path().join("all"), ExtractOptions::default()).unwrap();
    let meta = fs::metadata(dir.path().join("all/99")).unwrap();
    assert_eq!((meta.len(), meta.blocks()), (4095 * 4096, 0));
}

/// More directories deep than are held open: those near the root are opened again for what comes after.
#[test]
fn deep_directories_are_gone_back_to() {
    const DEPTH: usize = 200;
    let mut craft = Craft::new();
    let file = content(&mut craft, b"here");
    let after = entry(b"z", FILE, 4, file);
    let mut inside = after.clone();
    for _ in 0..DEPTH {
        let at = craft.put(&inside);
        let below = entry(b"d", DIR, inside.len() as u64, at);
        inside = [&below[..], &after].concat();
    }
    let at = craft.put(&inside);
    craft.root_at(at, inside.len() as u64);
    let dir = tempfile::tempdir().unwrap();
    let mut at = dir.path().join("out");
    let done = extract(&craft.image(), &at, ExtractOptions::default()).unwrap();
    assert_eq!(done.failed, [""; 0]);
    assert_eq!(done.entries, 2 * DEPTH as u64 + 1);
    for _ in 0..=DEPTH {
        assert_eq!(fs::read(at.join("z")).unwrap(), b"here");
        assert_eq!(fs::metadata(&at).unwrap().mode() & 0o7777, 0o755);
        at.push("d");
    }
}

#[test]
fn what_fails_without_end_is_listed_to_an_end() {
    let mut craft = Craft::new();
    let entries: Vec<Vec<u8>> = (0..MAX_FINDINGS + 100)
        .map(|number| entry(format!("{number:04}").as_bytes(), FILE, 5, 0x0fff_fffc))
        .collect();
    craft.root(&entries);
    let dir = tempfile::tempdir().unwrap();
    let image = craft.image();
    let done = extract(&image, &dir.path().join("out"), ExtractOptions::default()).unwrap();
    assert_eq!((done.entries, done.failed.len()), (0, MAX_FINDINGS + 1));
    let last = done.failed.last().unwrap();
    assert_eq!(last, "more could not be unpacked than is listed");
    let nowhere = dir.path().join("no/out");
    let err = extract(&image, &nowhere, ExtractOptions::default()).unwrap_err();
    assert!(err.to_string().contains("no/out: mkdir: "), "{err}");
}

#[test]
fn the_same_as_fsck_cramfs() {
    if !have("fsck.cramfs") || !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let fsck = Command::new("/usr/sbin/fsck.cramfs")
        .args(["-b4096", &format!("--extract={}", out.display())])
        .arg(golden_path("plain"))
        .status()
        .unwrap();
    assert!(fsck.success());
    assert_same(&golden("plain"), &out);
}
