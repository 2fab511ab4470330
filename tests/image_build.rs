//! The builder: what comes out of an image is what went in, what shall run in place can, nothing trips Linux or tools.

#[path = "common/launch.rs"]
mod launch;
#[path = "common/linux.rs"]
mod linux;
#[path = "common/tree.rs"]
mod tree;

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use tree::{BUSYBOX, assert_same, build_in, have, noise, open, sample_tree, xip};
use xip_run::cramfs::build::BuildOptions;
use xip_run::cramfs::format::flags;
use xip_run::cramfs::tree::{Node, ScanOptions, Tree};
use xip_run::cramfs::writer::{self, Choose, Layout};
use xip_run::cramfs::xip::XipPolicy;
use xip_run::cramfs::{Endian, Image, InodeKind, check};
use xip_run::elf::ElfFile;
use xip_run::error::Result;
use xip_run::index::FileIndex;
use xip_run::units::PageSize;

/// Everything that must hold for any image built from `root`.
fn assert_good(image_path: &Path, root: &Path) -> Image {
    let image = open(image_path);
    assert_same(&image, root);
    let report = check(&image);
    assert_eq!(report.findings, [], "{}", image_path.display());
    assert!(report.complete);
    let bytes = fs::read(image_path).unwrap();
    assert_eq!(bytes.len() % 4096, 0);
    for found in image.walk() {
        let found = found.unwrap();
        if matches!(found.inode.kind, InodeKind::File | InodeKind::Symlink) {
            let linux = linux::read_file(&bytes, &found.inode, image.endian());
            let ours = image.read_file(&found.inode).unwrap();
            assert!(linux == ours, "{:?}: Linux reads it otherwise", found.path);
        }
    }
    image
}

#[test]
fn images_give_back_what_went_in() {
    let dir = sample_tree();
    let dir = dir.path();
    for endian in [Endian::Little, Endian::Big] {
        for (page, pad) in [(PageSize::K4, false), (PageSize::K64, true)] {
            for words in [
                &["auto"][..],
                &["none"],
                &["all"],
                &["auto", "/data/*page*"],
            ] {
                let options = BuildOptions {
                    layout: Layout {
                        endian,
                        page,
                        pad,
                        name: b"a name of 16 b..".to_vec(),
                        edition: 7,
                        holes: pad,
                    },
                    ..xip(words)
                };
                let summary = build_in(dir, &options).unwrap();
                let image = assert_good(&dir.join("image"), &dir.join("root"));
                assert_eq!(image.endian(), endian);
                assert_eq!(image.super_offset(), if pad { 512 } else { 0 });
                let superblock = image.superblock();
                assert_eq!(
                    (&superblock.name, superblock.edition),
                    (b"a name of 16 b..", 7)
                );
                let extended = superblock.flags & flags::EXT_BLOCK_POINTERS != 0;
                assert_eq!(extended, words != ["none"]);
                assert_eq!(extended, summary.in_place_bytes > 0);
                assert_eq!(
                    summary.image_bytes,
                    fs::metadata(dir.join("image")).unwrap().len()
                );
                assert_eq!(summary.warnings, [""; 0]);
                assert!(!pad || fs::read(dir.join("image")).unwrap()[..512] == [0; 512]);
            }
        }
    }
}

#[test]
fn fsck_cramfs_accepts_and_unpacks_plain_images() {
    if !have("fsck.cramfs") {
        return;
    }
    // It knows neither extended pointers nor the flag for holes; either byte order is fine.
    for endian in [Endian::Little, Endian::Big] {
        let dir = sample_tree();
        let dir = dir.path();
        let layout = Layout {
            endian,
            ..Layout::default()
        };
        build_in(
            dir,
            &BuildOptions {
                layout,
                ..xip(&["none"])
            },
        )
        .unwrap();
        let out = dir.join("out");
        let fsck = Command::new("/usr/sbin/fsck.cramfs")
            .arg("-b4096")
            .arg(format!("--extract={}", out.display()))
            .arg(dir.join("image"))
            .output()
            .unwrap();
        // Only root may give files away, or make devices.
        if tree::is_root() {
            assert!(fsck.status.success(), "{fsck:?}");
            assert_same(&open(&dir.join("image")), &out);
        }
        let fsck = Command::new("/usr/sbin/fsck.cramfs")
            .args(["-v", "-b4096"])
            .arg(dir.join("image"))
            .output()
            .unwrap();
        assert!(fsck.status.success(), "{fsck:?}");
    }
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let (one, two) = (sample_tree(), tempfile::tempdir().unwrap());
    fs::create_dir(two.path().join("root")).unwrap();
    tree::make_tree(&two.path().join("root"), true);
    for words in [&["auto"][..], &["all"], &["none"]] {
        let first = build_in(one.path(), &xip(words)).unwrap();
        let second = build_in(two.path(), &xip(words)).unwrap();
        assert_eq!(first, second);
        let [first, second] =
            [one.path(), two.path()].map(|dir| fs::read(dir.join("image")).unwrap());
        assert!(first == second, "{words:?}");
    }
}

/// Every page of every segment is direct, for every page size up to the one built for.
#[test]
fn busybox_runs_in_place_on_every_page_size() {
    if !have(BUSYBOX) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("root")).unwrap();
    fs::copy(BUSYBOX, dir.join("root/busybox")).unwrap();
    fs::write(dir.join("root/notes"), tree::text(5000)).unwrap();
    for built_for in PageSize::ALL {
        let layout = Layout {
            page: built_for,
            ..Layout::default()
        };
        build_in(dir, &BuildOptions { layout, ..xip(&[]) }).unwrap();
        let image = assert_good(&dir.join("image"), &dir.join("root"));
        let inode = image.lookup(b"/busybox").unwrap();
        let elf = ElfFile::parse(&fs::read(BUSYBOX).unwrap()).unwrap();
        assert!(elf.segments.iter().any(|segment| segment.prot.write));
        for page in PageSize::ALL.into_iter().filter(|page| *page <= built_for) {
            let index = FileIndex::new(&image, &inode, page).unwrap();
            for segment in elf.segments.iter().filter(|s| s.filesz_bytes > 0) {
                let end = segment.offset + segment.filesz_bytes;
                for number in segment.offset / page.bytes()..page.count(end) {
                    let state = index.page(number);
                    assert!(state.is_ok(), "page {number} of {page}: {state:?}");
                }
            }
        }
        // Linux maps it as well: all blocks of the text in one go.
        let bytes = fs::read(dir.join("image")).unwrap();
        let text = elf
            .segments
            .iter()
            .find(|segment| segment.prot.exec)
            .unwrap();
        let blocks: Range<u64> =
            text.offset / 4096..(text.offset + text.filesz_bytes).div_ceil(4096);
        let mappable =
            linux::mappable_blocks(&bytes, &inode, image.endian(), blocks.start as usize);
        assert!(mappable as u64 >= blocks.end - blocks.start);
    }
}

/// 32 bits and 64 bits, ARM and x86; libraries without x permission; but no object files.
#[test]
fn every_elf_program_is_in_place_and_object_files_are_not() {
    let dir = sample_tree();
    let root = dir.path().join("root");
    let program = fs::read(root.join("bin/prog64")).unwrap();
    fs::write(root.join("data/lib.so"), &program).unwrap();
    let mut object = program.clone();
    object[16] = 1; // e_type = ET_REL
    fs::write(root.join("data/object.o"), &object).unwrap();
    fs::write(root.join("data/cut.so"), &program[..40]).unwrap();
    let text = |image: &Image, path: &str| {
        let inode = image.lookup(path.as_bytes()).unwrap();
        let index = FileIndex::new(image, &inode, PageSize::K4).unwrap();
        let Ok(elf) = ElfFile::parse(&image.read_file(&inode).unwrap()) else {
            return vec![index.direct_pages() > 0];
        };
        let segments = elf.segments.iter().filter(|s| s.filesz_bytes > 0);
        segments
            .map(|s| {
                let mut pages = s.offset / 4096..(s.offset + s.filesz_bytes).div_ceil(4096);
                pages.all(|page| index.page(page).is_ok())
            })
            .collect()
    };
    build_in(dir.path(), &xip(&["auto"])).unwrap();
    let image = assert_good(&dir.path().join("image"), &root);
    for name in ["bin/prog32", "bin/prog64", "bin/prog-arm", "data/lib.so"] {
        let direct = text(&image, name);
        assert!(
            !direct.is_empty() && direct.iter().all(|&direct| direct),
            "{name}: {direct:?}"
        );
    }
    for name in ["data/object.o", "data/cut.so", "data/text"] {
        assert!(!text(&image, name).contains(&true), "{name}");
    }
    // With --compress-data what is writable is compressed, and no longer in place.
    let options = BuildOptions {
        xip: XipPolicy::new(&[], true).unwrap(),
        ..BuildOptions::default()
    };
    build_in(dir.path(), &options).unwrap();
    let image = assert_good(&dir.path().join("image"), &root);
    let direct = text(&image, "bin/prog64");
    assert!(
        direct.contains(&true) && direct.contains(&false),
        "{direct:?}"
    );
}

/// Pages of whole files with a whole last block: all direct, though Linux would read a direct last block as zeros.
#[test]
fn whole_pages_are_in_place_to_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("root")).unwrap();
    for blocks in [1, 2, 3, 16, 17] {
        let content = noise(blocks * 4096, blocks as u64);
        fs::write(dir.join(format!("root/f{blocks:02}")), content).unwrap();
        let content = noise(blocks * 4096 - 5, blocks as u64);
        fs::write(dir.join(format!("root/g{blocks:02}")), content).unwrap();
    }
    for page in PageSize::ALL {
        let layout = Layout {
            page,
            ..Layout::default()
        };
        build_in(
            dir,
            &BuildOptions {
                layout,
                ..xip(&["all"])
            },
        )
        .unwrap();
        let image = assert_good(&dir.join("image"), &dir.join("root"));
        for found in image
            .walk()
            .map(|found| found.unwrap())
            .filter(|f| f.depth > 0)
        {
            for smaller in PageSize::ALL.into_iter().filter(|smaller| *smaller <= page) {
                let index = FileIndex::new(&image, &found.inode, smaller).unwrap();
                let pages = smaller.count(found.inode.size);
                assert_eq!(index.direct_pages(), pages, "{:?} {smaller}", found.path);
            }
        }
    }
}

#[test]
fn equal_files_are_stored_once_and_keep_their_modes() {
    let dir = sample_tree();
    let summary = build_in(dir.path(), &xip(&["all"])).unwrap();
    let image = open(&dir.path().join("image"));
    let inode = |path: &str| image.lookup(path.as_bytes()).unwrap();
    let start = |path: &str| {
        let index = FileIndex::new(&image, &inode(path), PageSize::K4).unwrap();
        index.page(0).unwrap()
    };
    assert_eq!(inode("data/same-1").number(), inode("data/same-2").number());
    assert_eq!(
        inode("data/text").number(),
        inode("data/hard-link").number()
    );
    // The pages are shared, the inode is not: Linux would give both the same mode.
    assert_ne!(
        inode("data/same-1").number(),
        inode("data/same-other-mode").number()
    );
    assert_eq!(start("data/same-1"), start("data/same-other-mode"));
    assert!(summary.shared_files >= 3, "{summary:?}");
}

/// Runs the builder where it must fail, and returns what it says. The output must be as it was before.
fn refused(dir: &Path, options: &BuildOptions) -> String {
    fs::write(dir.join("image"), "what was there before").unwrap();
    let error = build_in(dir, options).unwrap_err().to_string();
    assert_eq!(
        fs::read(dir.join("image")).unwrap(),
        b"what was there before"
    );
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["image", "root"]);
    error
}

#[test]
fn what_does_not_fit_is_an_error_that_names_it_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let root = dir.join("root");
    fs::create_dir(&root).unwrap();
    let big = root.join("big");
    File::create(&big).unwrap().set_len((16 << 20) - 1).unwrap();
    build_in(dir, &xip(&["none"])).unwrap();
    let image = assert_good(&dir.join("image"), &root);
    assert_eq!(image.superblock().flags & flags::HOLES, 0);
    let layout = Layout {
        holes: true,
        ..Layout::default()
    };
    build_in(
        dir,
        &BuildOptions {
            layout,
            ..xip(&["none"])
        },
    )
    .unwrap();
    let image = assert_good(&dir.join("image"), &root);
    assert_ne!(image.superblock().flags & flags::HOLES, 0);
    assert_eq!(image.limit_bytes(), 5 * 4096);
    build_in(dir, &xip(&["all"])).unwrap();
    assert_good(&dir.join("image"), &root);

    File::create(&big).unwrap().set_len(16 << 20).unwrap();
    let error = refused(dir, &xip(&["none"]));
    assert!(error.contains("/big: 16777216 bytes"), "{error}");
    fs::remove_file(big).unwrap();

    let long = root.join("n".repeat(253));
    fs::write(&long, "").unwrap();
    let error = refused(dir, &xip(&[]));
    assert!(error.contains("253 bytes"), "{error}");
    fs::remove_file(long).unwrap();

    if tree::is_root() {
        let device = rustix::fs::makedev(256, 0);
        let (kind, mode) = (
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::RUSR,
        );
        let path = root.join("dev");
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, device).unwrap();
        let error = refused(dir, &xip(&[]));
        assert!(error.contains("/dev: device 256:0"), "{error}");
        assert!(error.contains("--skip-devices"), "{error}");
        let scan = ScanOptions {
            skip_devices: true,
            ..ScanOptions::default()
        };
        let summary = build_in(dir, &BuildOptions { scan, ..xip(&[]) }).unwrap();
        assert_eq!(summary.warnings, ["1 devices are left out"]);
        fs::remove_file(path).unwrap();
    }
    // An image inside its own tree, a directory and a device as output.
    let mut nothing = |_, _| {};
    let options = xip(&[]);
    let mut build = |output: &Path| {
        let built = xip_run::cramfs::build::build(&root, output, &options, &mut nothing);
        built.unwrap_err().to_string()
    };
    assert!(build(&root.join("image")).contains("lies in the directory"));
    assert!(build(dir).contains("not a regular file"));
    assert!(build(Path::new("/dev/null")).contains("not a regular file"));
    assert!(build(&dir.join("missing/image")).contains("its directory"));
}

#[test]
fn unreadable_files_are_an_error_or_left_out_with_a_warning() {
    if !tree::is_root() {
        return launch::skip("needs root, to become somebody else");
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mode =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(dir, 0o777);
    let root = dir.join("root");
    fs::create_dir_all(root.join("private")).unwrap();
    fs::write(root.join("public"), "yes").unwrap();
    fs::write(root.join("secret"), "no").unwrap();
    fs::write(root.join("private/inside"), "no").unwrap();
    mode(&root.join("private"), 0o700);
    mode(&root.join("secret"), 0o600);
    mode(&root, 0o755);
    let program = dir.join("xip-image");
    launch::copy_program(Path::new(env!("CARGO_BIN_EXE_xip-image")), &program);
    let run = |args: &[&str]| {
        let mut command = Command::new(&program);
        command
            .arg("build")
            .args(args)
            .args([&root, &dir.join("image")]);
        command.uid(65534).gid(65534).output().unwrap()
    };
    let output = run(&[]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(
        stderr.contains("/secret") || stderr.contains("/private"),
        "{stderr}"
    );
    assert!(stderr.contains("--skip-unreadable"), "{stderr}");
    assert!(!dir.join("image").exists());
    let output = run(&["--skip-unreadable"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("/secret: open"), "{stderr}");
    assert!(stderr.contains("it is an empty directory"), "{stderr}");
    let image = open(&dir.join("image"));
    assert!(image.lookup(b"/public").is_ok());
    assert!(image.lookup(b"/secret").is_err());
    assert!(image.lookup(b"/private/inside").is_err());
}

#[test]
fn owners_that_do_not_fit_are_cut_with_a_warning_or_squashed() {
    if !tree::is_root() {
        return launch::skip("needs root, to give files away");
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("root")).unwrap();
    fs::write(dir.join("root/a"), "a").unwrap();
    std::os::unix::fs::chown(dir.join("root/a"), Some(65537), Some(1000)).unwrap();
    let summary = build_in(dir, &xip(&[])).unwrap();
    assert_eq!(summary.warnings.len(), 2, "{summary:?}");
    let inode = open(&dir.join("image")).lookup(b"/a").unwrap();
    assert_eq!((inode.uid, inode.gid), (1, 232));
    let scan = ScanOptions {
        squash_owner: true,
        ..ScanOptions::default()
    };
    let summary = build_in(dir, &BuildOptions { scan, ..xip(&[]) }).unwrap();
    assert!(summary.warnings.is_empty());
    let inode = open(&dir.join("image")).lookup(b"/a").unwrap();
    assert_eq!((inode.uid, inode.gid), (0, 0));
}

#[test]
fn an_empty_tree_is_an_image_too() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("root")).unwrap();
    for words in ["auto", "none", "all"] {
        build_in(dir.path(), &xip(&[words])).unwrap();
        let image = assert_good(&dir.path().join("image"), &dir.path().join("root"));
        assert_eq!(image.walk().count(), 1);
        assert!(image.require_runnable().is_ok());
    }
}

/// Ranges that a test chose.
struct Chosen(Vec<Vec<(u64, u64)>>);

impl Choose for Chosen {
    fn in_place(&mut self, node: &Node, _: u64, _: &File) -> Result<Vec<Range<u64>>> {
        let number: usize = std::str::from_utf8(node.name()).unwrap().parse().unwrap();
        Ok(self.0[number]
            .iter()
            .map(|&(start, end)| start..end)
            .collect())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever runs in place of whatever sizes: everything reads back, by us and by Linux, every chosen page is direct,
    /// and the checker has nothing to say.
    #[test]
    fn any_choice_of_pages_makes_a_good_image(
        files in prop::collection::vec(
            (
                prop_oneof![0..40_000_usize, (0..9_usize).prop_map(|blocks| blocks * 4096)],
                0..4_u64,
                prop::collection::vec((0..50_000_u64, 0..60_000_u64), 0..3),
            ),
            0..8,
        ),
        page in prop::sample::select(PageSize::ALL.to_vec()),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        for (number, (len, seed, _)) in files.iter().enumerate() {
            let mut content = noise(*len, *seed);
            // Some blocks compress, some are zeros.
            for (block, bytes) in content.chunks_mut(4096).enumerate() {
                match (block as u64 + seed) % 4 {
                    0 => bytes.fill(0),
                    1 => bytes.fill(b'x'),
                    _ => {}
                }
            }
            fs::write(root.join(number.to_string()), content).unwrap();
        }
        let path = dir.path().join("image");
        let out = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let tree = Tree::scan(&root, ScanOptions::default()).unwrap();
        let layout = Layout { page, ..Layout::default() };
        let mut chosen = Chosen(files.iter().map(|(_, _, ranges)| ranges.clone()).collect());
        writer::write(&tree, &layout, &mut chosen, &out, &mut |_| {}).unwrap();
        let image = assert_good(&path, &root);
        for (number, (len, _, ranges)) in files.iter().enumerate() {
            let inode = image.lookup(number.to_string().as_bytes()).unwrap();
            for smaller in PageSize::ALL.into_iter().filter(|smaller| *smaller <= page) {
                let index = FileIndex::new(&image, &inode, smaller).unwrap();
                for &(start, end) in ranges.iter().filter(|(start, end)| start < end) {
                    let end = end.min(*len as u64);
                    for page in (start / smaller.bytes()..smaller.count(end)).filter(|_| start < end) {
                        prop_assert!(index.page(page).is_ok(), "file {number} page {page}");
                    }
                }
            }
        }
    }
}

/// Nothing compresses better than this; the checker's limits must not take it for an attack.
#[test]
fn nearly_empty_files_are_no_attack() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("root")).unwrap();
    for number in 0..4 {
        let mut content = vec![0; 10 << 20];
        content.push(number);
        fs::write(dir.path().join(format!("root/{number}")), content).unwrap();
    }
    let summary = build_in(dir.path(), &xip(&["none"])).unwrap();
    assert!(summary.image_bytes < 400_000, "{summary:?}");
    assert_good(&dir.path().join("image"), &dir.path().join("root"));
}

#[test]
fn names_sort_as_unsigned_bytes() {
    let dir = sample_tree();
    build_in(dir.path(), &xip(&["none"])).unwrap();
    let image = open(&dir.path().join("image"));
    let names = image.entries(&image.lookup(b"/many").unwrap()).unwrap();
    let names: Vec<Vec<u8>> = names.into_iter().map(|entry| entry.name).collect();
    assert!(names.is_sorted());
    assert_eq!(names.first().unwrap(), b"Z");
    assert_eq!(names.last().unwrap(), "ü".as_bytes());
    let tree = Tree::scan(&dir.path().join("root"), ScanOptions::default()).unwrap();
    let raw = std::ffi::OsStr::from_bytes(b"\xff\xfe back\\slash\nnewline");
    assert!(
        tree.nodes()
            .iter()
            .any(|node| node.name() == raw.as_bytes())
    );
}
