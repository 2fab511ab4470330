//! Invariant: whatever bytes an image has, its CRC made right, check, info, map, list and picture end with a result; and of an image that check
//! calls sound every file can be read, every name is found, and info and map see no damage.

use xip_run::cramfs::check::MAX_FINDINGS;
use xip_run::cramfs::format::SUPER_CRC_OFFSET;
use xip_run::cramfs::{Endian, Image, InodeKind, check, dump};
use xip_run::inspect;
use xip_run::picture::Strip;
use xip_run::units::PageSize;

use super::{entries, image_of, max_content_bytes, open};

/// The target.
pub fn run(input: &[u8]) {
    let bytes = image_of(input);
    let Some(image) = open(&bytes) else { return };
    // No damage would get past it otherwise.
    let Ok(crc) = image.compute_crc() else {
        return look(&image);
    };
    let crc = match image.endian() {
        Endian::Little => crc.to_le_bytes(),
        Endian::Big => crc.to_be_bytes(),
    };
    let mut bytes = bytes;
    let crc_at = image.super_offset() + SUPER_CRC_OFFSET;
    bytes[crc_at as usize..][..crc.len()].copy_from_slice(&crc);
    look(&open(&bytes).unwrap());
}

fn look(image: &Image) {
    let report = check(image);
    assert!(report.findings.len() <= MAX_FINDINGS);
    for finding in &report.findings {
        assert!(finding.to_string().len() < 32768, "an endless finding");
    }
    let info = inspect::info(image);
    assert!(!info.to_string().is_empty());
    let map = inspect::map(image);
    if let Ok(map) = &map {
        assert!(!map.to_string().is_empty());
    }
    if let Ok(list) = dump::list(image, b"/", true) {
        let _ = list.count();
    }
    let _ = Strip::new("image", image, PageSize::K4, None);
    if !report.is_sound() {
        return;
    }
    assert_eq!(info.errors, []);
    assert_eq!(map.unwrap().errors, []);
    let mut left_bytes = max_content_bytes(image);
    for found in entries(image) {
        assert_eq!(
            image.lookup_nofollow(&found.path).unwrap().at,
            found.inode.at
        );
        match (found.inode.kind, left_bytes.checked_sub(found.inode.size)) {
            (InodeKind::File, Some(left)) => {
                left_bytes = left;
                image.read_file(&found.inode).unwrap();
            }
            (InodeKind::Symlink, _) => drop(image.read_link(&found.inode).unwrap()),
            _ => {}
        }
    }
}
