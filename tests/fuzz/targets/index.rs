//! Invariant: whatever bytes an image has, extents and index of a file are those that follow from its blocks (worked out in
//! ../../common/oracle.rs), a direct page shows the file's bytes and then zeros; and the session's index has what the
//! files' have.

use xip_run::cramfs::InodeKind;
use xip_run::index::FileIndex;
use xip_run::session::has_direct_pages;
use xip_run::units::PageSize;

use super::{assert_honest, entries, image_of, max_content_bytes, open};
use crate::common::oracle::check_file;

/// The target.
pub fn run(input: &[u8]) {
    let bytes = image_of(input);
    let Some(image) = open(&bytes) else { return };
    let mut left_bytes = max_content_bytes(&image);
    let mut direct = [false; PageSize::ALL.len()];
    for found in entries(&image) {
        let inode = found.inode;
        match image.blocks(&inode) {
            Err(_) if inode.kind == InodeKind::Directory => {}
            Err(err) => assert_honest(&err),
            Ok(_) => {
                if let Some(left) = left_bytes.checked_sub(inode.size) {
                    left_bytes = left;
                    check_file(&image, &bytes, &inode);
                }
                if inode.kind == InodeKind::File {
                    for (direct, page) in direct.iter_mut().zip(PageSize::ALL) {
                        let index = FileIndex::new(&image, &inode, page).unwrap();
                        *direct |= index.direct_pages() > 0;
                    }
                }
            }
        }
    }
    // Of an image with more entries there may be more; one whose pointers overlap may be given up.
    for (direct, page) in direct.into_iter().zip(PageSize::ALL) {
        if !has_direct_pages(&image, page) && direct {
            let report = xip_run::cramfs::check(&image);
            assert!(!report.is_sound(), "{page}: nothing is direct");
        }
    }
}
