//! Invariant: whatever bytes an image has, unpacking it makes nothing outside its directory, no device, no set-user-ID and
//! no set-group-ID bit, not more than it may, and files that are what the image says.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::LazyLock;

use tempfile::TempDir;
use xip_run::cramfs::extract::{ExtractOptions, extract};
use xip_run::error::Kind;

use super::open;

const MAX_BYTES: u64 = 1 << 20;

/// In memory, where there is such a directory.
static BESIDE: LazyLock<TempDir> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
});

/// The target.
pub fn run(bytes: &[u8]) {
    let Some(image) = open(bytes) else { return };
    let dir = tempfile::tempdir_in(BESIDE.path()).unwrap();
    fs::write(dir.path().join("victim"), "untouched").unwrap();
    let out = dir.path().join("out");
    let options = ExtractOptions {
        max_bytes: MAX_BYTES,
        ..ExtractOptions::default()
    };
    match extract(&image, &out, options) {
        Ok(done) => {
            let lines = done.failed.iter().chain(&done.skipped);
            assert!(lines.map(String::len).sum::<usize>() <= 64 << 20);
        }
        Err(err) => assert_eq!(err.kind(), Kind::Failed, "{err}"),
    }
    let mut total = 0;
    below(&out, &mut |path| {
        let meta = path.symlink_metadata().unwrap();
        let kind = meta.file_type();
        assert!(!kind.is_block_device() && !kind.is_char_device());
        assert_eq!(meta.mode() & 0o6000, 0, "{}", path.display());
        if !kind.is_dir() {
            total += meta.len();
        }
    });
    assert!(total <= MAX_BYTES, "{total} bytes");
    assert_eq!(fs::read(dir.path().join("victim")).unwrap(), b"untouched");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

fn below(dir: &Path, visit: &mut impl FnMut(&Path)) {
    // Whoever is not root may not enter what the image says that nobody may: then there is nothing to see.
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        visit(&path);
        if path.symlink_metadata().unwrap().is_dir() {
            below(&path, visit);
        }
    }
}
