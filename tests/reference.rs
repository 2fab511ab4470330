//! The reader against images by others: the golden ones by cramfs-tools, and new ones by Debian's mkfs.cramfs.

mod common;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use common::{GOLDEN, golden, golden_bytes, golden_path, have_tool, noise, tool, tree};
use xip_run::backing::Backing;
use xip_run::cramfs::{Endian, Image, Inode, InodeKind};

fn letter(kind: InodeKind) -> &'static str {
    match kind {
        InodeKind::File => "f",
        InodeKind::Directory => "d",
        InodeKind::Symlink => "l",
        InodeKind::CharDevice => "c",
        InodeKind::BlockDevice => "b",
        InodeKind::Fifo => "p",
        InodeKind::Socket => "s",
        InodeKind::Unknown => "?",
    }
}

/// A line of TREE: path, type, mode, uid, gid, size (0 unless a file or link), link target.
fn line(image: &Image, path: &[u8], inode: &Inode) -> Vec<u8> {
    let has_size = matches!(inode.kind, InodeKind::File | InodeKind::Symlink);
    let mut line = path.to_vec();
    let facts = format!(
        "\t{}\t{:o}\t{}\t{}\t{}\t",
        letter(inode.kind),
        inode.mode & 0o7777,
        inode.uid,
        inode.gid,
        if has_size { inode.size } else { 0 },
    );
    line.extend(facts.bytes());
    if inode.kind == InodeKind::Symlink {
        line.extend(image.read_link(inode).unwrap());
    }
    line
}

#[test]
fn golden_images_have_every_entry_of_the_tree() {
    let want = fs::read(golden_path("TREE")).unwrap();
    for name in GOLDEN {
        let mut want: Vec<Vec<u8>> = want
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| {
                let mut fields: Vec<&[u8]> = line.split(|&byte| byte == b'\t').collect();
                if fields[1] == b"d" {
                    fields[5] = b"0";
                }
                if name == "squashed-owner" {
                    (fields[3], fields[4]) = (b"0", b"0");
                }
                fields.join(&b'\t')
            })
            .collect();
        let image = golden(name);
        let mut have: Vec<Vec<u8>> = tree(&image)
            .iter()
            .map(|(path, inode)| line(&image, path, inode))
            .collect();
        want.sort();
        have.sort();
        for (want, have) in want.iter().zip(&have) {
            assert_eq!(
                String::from_utf8_lossy(have),
                String::from_utf8_lossy(want),
                "{name}"
            );
        }
        assert_eq!(have.len(), want.len(), "{name}");
    }
}

#[test]
fn golden_contents_have_the_right_hashes() {
    if !have_tool("sha256sum") {
        return;
    }
    for name in GOLDEN {
        let dir = tempfile::tempdir().unwrap();
        let image = golden(name);
        for (path, inode) in tree(&image) {
            let path = dir.path().join(OsStr::from_bytes(&path));
            match inode.kind {
                InodeKind::Directory => fs::create_dir_all(path).unwrap(),
                InodeKind::File => fs::write(path, image.read_file(&inode).unwrap()).unwrap(),
                _ => {}
            }
        }
        let status = tool("sha256sum")
            .args(["--check", "--strict", "--quiet"])
            .arg(golden_path("SHA256SUMS"))
            .current_dir(dir.path())
            .status()
            .unwrap();
        assert!(status.success(), "{name}");
    }
}

#[test]
fn golden_superblocks_say_what_they_were_made_with() {
    for name in GOLDEN {
        let image = golden(name);
        image.require_runnable().unwrap();
        image.verify_crc().unwrap();
        let big = name.starts_with("big-endian");
        assert_eq!(image.endian() == Endian::Big, big, "{name}");
        assert_eq!(image.super_offset() == 512, name == "pad512", "{name}");
        assert_eq!(image.limit_bytes(), golden_bytes(name).len() as u64);
    }
    let squashed = golden("squashed-owner");
    assert_eq!(squashed.superblock().edition, 7);
    assert!(squashed.superblock().name.starts_with(b"golden\0"));
}

#[test]
fn golden_devices_have_their_numbers() {
    for name in GOLDEN {
        let image = golden(name);
        let null = image.lookup(b"/dev/null").unwrap();
        assert_eq!((null.kind, null.device()), (InodeKind::CharDevice, (1, 3)));
        let mtd = image.lookup(b"/dev/mtdblock2").unwrap();
        assert_eq!((mtd.kind, mtd.device()), (InodeKind::BlockDevice, (31, 2)));
        assert_eq!((mtd.size, mtd.stat_blocks(), mtd.data.0), (0, 0, 0));
    }
}

/// What mkfs.cramfs is given: a tree with everything that it can store.
fn make_host_tree(root: &Path) {
    fs::create_dir_all(root.join("etc/deep/er")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::write(root.join("etc/none"), b"").unwrap();
    fs::write(root.join("etc/one"), b"1").unwrap();
    fs::write(root.join("etc/block"), noise(4096)).unwrap();
    fs::write(root.join("etc/more"), noise(4097)).unwrap();
    fs::write(
        root.join("etc/text"),
        b"some text, and again\n".repeat(3000),
    )
    .unwrap();
    let mut holes = vec![0; 5 * 4096];
    holes[4096..8192].copy_from_slice(&noise(4096));
    fs::write(root.join("holes"), &holes).unwrap();
    fs::write(root.join("n".repeat(252)), b"a long name").unwrap();
    let odd = std::ffi::OsString::from_vec(b"\xff\xfe not UTF-8 \x01".to_vec());
    fs::write(root.join(odd), b"odd").unwrap();
    symlink("../etc/one", root.join("empty-link")).unwrap();
    symlink("x".repeat(4095), root.join("long-link")).unwrap();
    fs::set_permissions(root.join("etc/one"), fs::Permissions::from_mode(0o4711)).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("fifo"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
}

/// `path -> (mode, uid, gid, contents or target)` of a host directory, as cramfs can keep it.
type Facts = BTreeMap<Vec<u8>, (u16, u16, u8, Vec<u8>)>;

fn host_facts(root: &Path, path: &Path, out: &mut Facts) {
    let stat = fs::symlink_metadata(path).unwrap();
    let kind = stat.file_type();
    let contents = if kind.is_symlink() {
        fs::read_link(path).unwrap().into_os_string().into_vec()
    } else if kind.is_file() {
        fs::read(path).unwrap()
    } else {
        Vec::new()
    };
    let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
    let mut mode = stat.mode() as u16;
    if name.is_empty() {
        mode |= 0o555;
    }
    let facts = (mode, stat.uid() as u16, stat.gid() as u8, contents);
    out.insert(name.to_vec(), facts);
    if kind.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            host_facts(root, &entry.unwrap().path(), out);
        }
    }
}

fn image_facts(image: &Image) -> Facts {
    tree(image)
        .into_iter()
        .map(|(path, inode)| {
            let contents = match inode.kind {
                InodeKind::File | InodeKind::Symlink => image.read_file(&inode).unwrap(),
                _ => Vec::new(),
            };
            (path, (inode.mode, inode.uid, inode.gid, contents))
        })
        .collect()
}

#[test]
fn images_by_mkfs_cramfs_read_as_the_tree_they_were_made_from() {
    if !have_tool("mkfs.cramfs") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (root, out) = (dir.path().join("root"), dir.path().join("image"));
    let extra = dir.path().join("extra");
    fs::create_dir(&root).unwrap();
    make_host_tree(&root);
    fs::write(&extra, noise(5000)).unwrap();
    let mut want = Facts::new();
    host_facts(&root, &root, &mut want);
    let extra = extra.to_str().unwrap();
    for options in [
        &[][..],
        &["-N", "little"],
        &["-N", "big"],
        &["-z"],
        &["-z", "-N", "big"],
        &["-p"],
        &["-p", "-z", "-N", "big"],
        &["-e", "77", "-n", "a name"],
        &["-i", extra],
        &["-i", extra, "-p"],
    ] {
        let made = tool("mkfs.cramfs")
            .args(options)
            .args([&root, &out])
            .output()
            .unwrap();
        assert!(made.status.success(), "{options:?}: {made:?}");
        let image = Image::open(Backing::open(&out).unwrap()).unwrap();
        image.require_runnable().unwrap();
        image.verify_crc().unwrap();
        let has = |option| options.contains(&option);
        assert_eq!(image.super_offset() == 512, has("-p"), "{options:?}");
        assert_eq!(image.endian() == Endian::Big, has("big"), "{options:?}");
        assert_eq!(image.superblock().edition == 77, has("-e"));
        assert_eq!(image.superblock().flags & 0x400 != 0, has("-i"));
        let mut have = image_facts(&image);
        if has("-i") {
            // mkfs.cramfs puts the file's bytes behind the superblock and gives them no name.
            let mut bytes = vec![0; 5000];
            let at = image.super_offset() + 76;
            image.read_exact_at(&mut bytes, at).unwrap();
            assert_eq!(bytes, noise(5000));
        }
        for (path, facts) in &want {
            let name = String::from_utf8_lossy(path);
            assert!(
                have.remove(path).as_ref() == Some(facts),
                "{options:?}: {name}"
            );
        }
        assert!(have.is_empty(), "{options:?}: {:?}", have.keys());
    }
}
