//! Looks at what no entry of an image leads to: bytes that are nobody's and yet not zero were somebody's once. Gaps that
//! no entry fits into are of no interest.

use super::Image;
use super::check::Severity;
use super::format::INODE_BYTES;
use super::regions::Region;
use crate::error::Result;
use crate::units::ImageOffset;

/// So many gaps are listed one by one.
const MAX_LISTED: usize = 10;

/// What to say about the bytes between `regions`, which are sorted.
pub(super) fn unused(image: &Image, regions: &[Region]) -> Vec<(Severity, ImageOffset, String)> {
    let mut gaps = Vec::new();
    // What is before the superblock is a boot sector.
    let mut reached = image.super_offset();
    for region in regions {
        gaps.push((reached, region.start));
        reached = reached.max(region.end);
    }
    gaps.push((reached, image.limit_bytes()));
    let mut found = Vec::new();
    let mut more = 0;
    for (start, end) in gaps {
        // An entry would reach further than its inode. The few bytes until there mkcramfs leaves from streams that were
        // longer than what they held. What cannot be read is found elsewhere.
        let entry = start + INODE_BYTES;
        if entry >= end || is_zero(image, entry, end).unwrap_or(true) {
            continue;
        }
        if found.len() < MAX_LISTED {
            let what = format!(
                "bytes {start:#x}-{end:#x} are not zero, but no entry leads to them: what they belonged to may be \
                 hidden by a directory or a file whose size or offset is wrong"
            );
            found.push((Severity::Warning, ImageOffset(start), what));
        } else {
            more += 1;
        }
    }
    if more > 0 {
        let what = format!("{more} more gaps are not zero; the first {MAX_LISTED} are listed");
        found.push((Severity::Warning, ImageOffset(reached), what));
    }
    found
}

fn is_zero(image: &Image, start: u64, end: u64) -> Result<bool> {
    let mut buf = [0; 4096];
    let mut at = start;
    while at < end {
        let len = (end - at).min(buf.len() as u64);
        let chunk = buf.get_mut(..len as usize).unwrap_or_default();
        image.read_exact_at(chunk, at)?;
        if chunk.iter().any(|&byte| byte != 0) {
            return Ok(false);
        }
        at += len;
    }
    Ok(true)
}
