//! What must be known of a cramfs image before anybody can look into it: that it is one, and its length.
//!
//! Source: Linux `include/uapi/linux/cramfs_fs.h struct cramfs_super`. Its meaning is `cramfs::Image`'s.

/// Where a superblock may be.
const PLACES: [usize; 2] = [0, 512];
/// How much must be read to see either.
pub(super) const HEAD_BYTES: usize = 1024;

const MAGIC: u32 = 0x28cd_3d45;
/// `CRAMFS_FLAG_FSID_VERSION_2`: the size is one.
const FSID_V2: u32 = 1;

/// A superblock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Found {
    /// Length of the image in bytes, as it says itself; images of the first version do not say.
    pub(super) len_bytes: Option<u64>,
}

/// Finds the superblock in the first bytes of an image, in either byte order.
pub(super) fn find(head: &[u8]) -> Option<Found> {
    PLACES.iter().find_map(|&place| {
        let words = head.get(place..)?.as_chunks::<4>().0;
        let [magic, size, flags] = *words.first_chunk::<3>()?;
        let decode: fn([u8; 4]) -> u32 = match magic {
            magic if u32::from_le_bytes(magic) == MAGIC => u32::from_le_bytes,
            magic if u32::from_be_bytes(magic) == MAGIC => u32::from_be_bytes,
            _ => return None,
        };
        let has_size = decode(flags) & FSID_V2 != 0;
        Some(Found {
            len_bytes: has_size.then(|| decode(size).into()),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn superblocks_are_found_at_both_places_and_in_both_byte_orders() {
        for (place, to_bytes) in [
            (0, u32::to_le_bytes as fn(u32) -> [u8; 4]),
            (512, u32::to_be_bytes),
        ] {
            let mut head = [0xff; HEAD_BYTES];
            assert_eq!(find(&head), None);
            for (at, word) in [(0, MAGIC), (4, 0x12_3000), (8, FSID_V2 | 2)] {
                head[place + at..][..4].copy_from_slice(&to_bytes(word));
            }
            let len_bytes = Some(0x12_3000);
            assert_eq!(find(&head), Some(Found { len_bytes }));
            head[place + 8..][..4].copy_from_slice(&to_bytes(0));
            assert_eq!(find(&head), Some(Found { len_bytes: None }));
            assert_eq!(find(&head[..place + 8]), None);
        }
    }
}
