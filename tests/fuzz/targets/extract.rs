//! Invariant: whatever bytes an image has, unpacking it makes nothing outside its directory, no device, no set-user-ID and
//! no set-group-ID bit, not more than it may, and files that are what the image says.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use tempfile::TempDir;
use xip_run::cramfs::Image;
use xip_run::cramfs::extract::{ExtractOptions, extract};
use xip_run::error::Kind;

use super::{image_of, open};

const MAX_BYTES: u64 = 1 << 20;

thread_local! {
    /// Beside a file that nothing may touch. In memory, where there is such a directory.
    static BESIDE: TempDir = {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() {
            tempfile::tempdir_in(memory).unwrap()
        } else {
            tempfile::tempdir().unwrap()
        };
        fs::write(dir.path().join("victim"), "untouched").unwrap();
        dir
    };
}

/// The target.
pub fn run(input: &[u8]) {
    let bytes = image_of(input);
    let Some(image) = open(&bytes) else { return };
    BESIDE.with(|dir| look(&image, dir.path()));
}

fn look(image: &Image, dir: &Path) {
    let out = dir.join("out");
    // What a run that failed has left.
    let _ = fs::remove_dir_all(&out);
    let options = ExtractOptions {
        max_bytes: MAX_BYTES,
        ..ExtractOptions::default()
    };
    match extract(image, &out, options) {
        Ok(done) => {
            let lines = done.failed.iter().chain(&done.skipped);
            assert!(lines.map(String::len).sum::<usize>() <= 64 << 20);
        }
        Err(err) => assert_eq!(err.kind(), Kind::Failed, "{err}"),
    }
    let mut total = 0;
    take_away(&out, &mut total);
    assert!(total <= MAX_BYTES, "{total} bytes");
    assert_eq!(fs::read(dir.join("victim")).unwrap(), b"untouched");
    assert_eq!(fs::read_dir(dir).unwrap().count(), 1);
}

/// Looks at what was made, and removes it.
fn take_away(dir: &Path, total: &mut u64) {
    // The image may say that nobody may enter.
    fs::set_permissions(dir, Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        let (path, kind) = (entry.path(), meta.file_type());
        assert!(!kind.is_block_device() && !kind.is_char_device());
        assert_eq!(meta.mode() & 0o6000, 0, "{}", path.display());
        if kind.is_dir() {
            take_away(&path, total);
        } else {
            *total += meta.len();
            fs::remove_file(&path).unwrap();
        }
    }
    fs::remove_dir(dir).unwrap();
}
