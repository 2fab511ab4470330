//! Frees the initramfs: deletes its files, as switch_root(8) does. What is mounted in it is not touched.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::mount::UnmountFlags;

/// Mounts of the initramfs that are bound into the view, and have no use there any more.
const MOUNTS: [&str; 3] = ["proc", "sys", "dev"];

/// Deletes all that can be deleted below an open directory, the initramfs' root. Returns how many files that were.
pub(super) fn free(root: &OwnedFd) -> usize {
    // The current directory is a way to what no path leads to.
    if rustix::process::fchdir(root).is_ok() {
        for dir in MOUNTS {
            let _ = rustix::mount::unmount(dir, UnmountFlags::DETACH);
        }
        let _ = rustix::process::chdir("/");
    }
    match rustix::fs::fstat(root) {
        Ok(stat) => delete_below(root, stat.st_dev, 0),
        Err(_) => 0,
    }
}

/// Deeper directories than this are nobody's initramfs.
const DEPTH_LIMIT: usize = 64;

fn delete_below(dir: impl AsFd, device: u64, depth: usize) -> usize {
    let open = |name: &std::ffi::CStr| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&dir, name, flags, Mode::empty())
    };
    // `dir` may be a descriptor without the right to read.
    let Ok(entries) = open(c".").and_then(Dir::new) else {
        return 0;
    };
    let mut deleted = 0;
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if entry.file_type() != FileType::Directory {
            deleted += usize::from(rustix::fs::unlinkat(&dir, name, AtFlags::empty()).is_ok());
            continue;
        }
        let Ok(below) = open(name) else { continue };
        let here = rustix::fs::fstat(&below).is_ok_and(|stat| stat.st_dev == device);
        if here && depth < DEPTH_LIMIT {
            deleted += delete_below(&below, device, depth + 1);
            let _ = rustix::fs::unlinkat(&dir, name, AtFlags::REMOVEDIR);
        }
    }
    deleted
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn all_is_deleted_but_what_links_lead_to() {
        let dir = tempfile::tempdir().unwrap();
        let (root, other) = (dir.path().join("root"), dir.path().join("other"));
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join("kept"), "").unwrap();
        for file in ["init", "a/f", "a/b/g"] {
            fs::write(root.join(file), "x").unwrap();
        }
        symlink(&other, root.join("a/link")).unwrap();
        let fd = fs::File::open(&root).unwrap();
        let device = rustix::fs::fstat(&fd).unwrap().st_dev;
        assert_eq!(delete_below(&fd, device, 0), 4);
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        assert!(other.join("kept").exists());
    }

    #[test]
    fn other_file_systems_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("mounted")).unwrap();
        fs::write(dir.path().join("mounted/f"), "x").unwrap();
        let fd = fs::File::open(dir.path()).unwrap();
        // As if the directory were on another one.
        assert_eq!(delete_below(&fd, u64::MAX, 0), 0);
        assert!(dir.path().join("mounted/f").exists());
    }
}
