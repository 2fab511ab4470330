//! Is what is mounted somewhere the tree of the image?

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::cramfs::{Image, InodeKind, show_path};
use crate::error::{Error, Result};

/// How many entries are compared.
const COMPARED: usize = 64;

/// Compares type, size and number of the first entries. The numbers are what tells the copy of a tree from the tree:
/// they are places in the image.
///
/// # Errors
/// [`Kind::Failed`](crate::error::Kind), with the first entry that differs.
pub(super) fn require_same_tree(image: &Image, mounted: &Path) -> Result<()> {
    let fail = |path: &[u8], what: String| {
        Error::failed(format!(
            "--view {}: not the tree of this image: {}: {what}; mount the same image there, or leave --view away",
            mounted.display(),
            show_path(path)
        ))
    };
    for found in image.walk().filter_map(|found| found.ok()).take(COMPARED) {
        let relative = found.path.strip_prefix(b"/").unwrap_or(&found.path);
        let inode = found.inode;
        let path = mounted.join(OsStr::from_bytes(relative));
        let stat = path
            .symlink_metadata()
            .map_err(|err| fail(&found.path, err.to_string()))?;
        // Something may be mounted on an empty directory.
        let empty = inode.kind == InodeKind::Directory && inode.size == 0;
        let same = (stat.mode() ^ u32::from(inode.mode)) >> 12 == 0
            && (empty || (stat.size(), stat.ino()) == (inode.size, inode.number()));
        if !same {
            let shown = format!(
                "mode {:o}, size {}, inode {} there, mode {:o}, size {}, inode {} in the image",
                stat.mode(),
                stat.size(),
                stat.ino(),
                inode.mode,
                inode.size,
                inode.number()
            );
            return Err(fail(&found.path, shown));
        }
    }
    Ok(())
}
