//! The bytes of cramfs, without their meaning: superblock, inode, block pointer.
//!
//! Source: Linux `Documentation/filesystems/cramfs.rst`, `include/uapi/linux/cramfs_fs.h` and cramfs-tools' `NOTES`.
//! An image is in the byte order of the machine that it was made for. The other order is no plain swap: the inode is
//! three words of C bitfields, and bitfields start at the other end of a word there, so they repack.

pub use crate::units::Endian;

/// `magic` of the superblock, read in the image's own byte order.
pub const MAGIC: u32 = 0x28cd_3d45;
/// `signature` of the superblock.
pub const SIGNATURE: &[u8; 16] = b"Compressed ROMFS";
/// Length of the superblock, its root inode included, in bytes.
pub const SUPER_BYTES: u64 = 76;
/// The two places where Linux looks for a superblock (the second leaves room for a boot sector).
pub const SUPER_OFFSETS: [u64; 2] = [0, 512];
/// Length of an inode, without the name that follows it, in bytes.
pub const INODE_BYTES: u64 = 12;
/// Longest name: 6 bits of 4-byte words.
pub const NAME_MAX_BYTES: usize = 63 * 4;
/// One past the largest file size: 24 bits.
pub const FILE_SIZE_LIMIT: u64 = 1 << 24;
/// One past the largest data offset: 26 bits of 4-byte words.
pub const DATA_OFFSET_LIMIT: u64 = 1 << 28;

/// Superblock flags.
pub mod flags {
    /// `fsid` holds crc, edition, blocks and files; `size` is valid.
    pub const FSID_V2: u32 = 0x1;
    /// Directory entries are sorted by name, as unsigned bytes.
    pub const SORTED_DIRS: u32 = 0x2;
    /// Files may have holes.
    pub const HOLES: u32 = 0x100;
    /// Reserved by the format.
    pub const WRONG_SIGNATURE: u32 = 0x200;
    /// The root directory's data may lie anywhere.
    pub const SHIFTED_ROOT: u32 = 0x400;
    /// Block pointers carry the two flag bits.
    pub const EXT_BLOCK_POINTERS: u32 = 0x800;
    /// All that Linux accepts: any bit of the low byte, and these of the rest.
    pub const SUPPORTED: u32 = 0xff | HOLES | WRONG_SIGNATURE | SHIFTED_ROOT | EXT_BLOCK_POINTERS;
}

/// Block pointer bit: the block is stored as it is.
pub const BLOCK_UNCOMPRESSED: u32 = 1 << 31;
/// Block pointer bit: the pointer is the block's start, shifted right by two.
pub const BLOCK_DIRECT: u32 = 1 << 30;
/// Both.
pub const BLOCK_FLAGS: u32 = BLOCK_UNCOMPRESSED | BLOCK_DIRECT;

/// Hands out consecutive fields of a fixed array.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            // The callers' arrays are as long as the sum of their fields; a slip shows as zeros in every test.
            None => [0; N],
        }
    }
}

/// An inode as stored: `mode:16 uid:16 | size:24 gid:8 | namelen:6 offset:26`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RawInode {
    /// `st_mode`: type and permissions.
    pub mode: u16,
    /// Owner.
    pub uid: u16,
    /// Size in bytes, 24 bits; for a device its number.
    pub size: u32,
    /// Group, 8 bits.
    pub gid: u8,
    /// Length of the padded name in 4-byte words, 6 bits.
    pub namelen_words: u8,
    /// Where the data starts, in 4-byte words, 26 bits.
    pub offset_words: u32,
}

impl RawInode {
    /// Reads the three words.
    pub fn decode(bytes: &[u8; INODE_BYTES as usize], endian: Endian) -> Self {
        let mut fields = Fields(bytes);
        let [a, b, c] = std::array::from_fn(|_| endian.u32(fields.take()));
        match endian {
            Endian::Little => Self {
                mode: a as u16,
                uid: (a >> 16) as u16,
                size: b & 0x00ff_ffff,
                gid: (b >> 24) as u8,
                namelen_words: (c & 0x3f) as u8,
                offset_words: c >> 6,
            },
            Endian::Big => Self {
                mode: (a >> 16) as u16,
                uid: a as u16,
                size: b >> 8,
                gid: b as u8,
                namelen_words: (c >> 26) as u8,
                offset_words: c & 0x03ff_ffff,
            },
        }
    }

    /// Writes the three words; what does not fit a field is cut (the writer checks first).
    pub fn encode(&self, endian: Endian) -> [u8; INODE_BYTES as usize] {
        let (mode, uid) = (u32::from(self.mode), u32::from(self.uid));
        let (size, gid) = (self.size & 0x00ff_ffff, u32::from(self.gid));
        let (namelen, offset) = (
            u32::from(self.namelen_words & 0x3f),
            self.offset_words & 0x03ff_ffff,
        );
        let words = match endian {
            Endian::Little => [mode | uid << 16, size | gid << 24, namelen | offset << 6],
            Endian::Big => [mode << 16 | uid, size << 8 | gid, namelen << 26 | offset],
        };
        let mut bytes = [0; INODE_BYTES as usize];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&endian.bytes32(word));
        }
        bytes
    }
}

/// The superblock as stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RawSuper {
    /// Length of the image in bytes, valid with [`flags::FSID_V2`].
    pub size: u32,
    /// See [`flags`].
    pub flags: u32,
    /// Reserved, 0.
    pub future: u32,
    /// [`SIGNATURE`].
    pub signature: [u8; 16],
    /// CRC-32 from the superblock to the end of the image, this field taken as 0.
    pub crc: u32,
    /// A number for the image's maker.
    pub edition: u32,
    /// Number of 4 KiB blocks of data.
    pub blocks: u32,
    /// Number of files.
    pub files: u32,
    /// A name for the image's maker, padded with NUL.
    pub name: [u8; 16],
    /// The root directory.
    pub root: RawInode,
}

/// Where the crc field lies in the superblock, in bytes.
pub const SUPER_CRC_OFFSET: u64 = 32;

impl RawSuper {
    /// The superblock in `bytes`, in whichever byte order its magic is; `None` if there is no magic.
    pub fn decode(bytes: &[u8; SUPER_BYTES as usize]) -> Option<(Self, Endian)> {
        let mut fields = Fields(bytes);
        let magic = fields.take();
        let endian = [Endian::Little, Endian::Big]
            .into_iter()
            .find(|e| e.u32(magic) == MAGIC)?;
        let word = |fields: &mut Fields<'_>| endian.u32(fields.take());
        let raw = Self {
            size: word(&mut fields),
            flags: word(&mut fields),
            future: word(&mut fields),
            signature: fields.take(),
            crc: word(&mut fields),
            edition: word(&mut fields),
            blocks: word(&mut fields),
            files: word(&mut fields),
            name: fields.take(),
            root: RawInode::decode(&fields.take(), endian),
        };
        Some((raw, endian))
    }

    /// The bytes of the superblock.
    pub fn encode(&self, endian: Endian) -> [u8; SUPER_BYTES as usize] {
        let mut bytes = Vec::with_capacity(SUPER_BYTES as usize);
        for word in [MAGIC, self.size, self.flags, self.future] {
            bytes.extend_from_slice(&endian.bytes32(word));
        }
        bytes.extend_from_slice(&self.signature);
        for word in [self.crc, self.edition, self.blocks, self.files] {
            bytes.extend_from_slice(&endian.bytes32(word));
        }
        bytes.extend_from_slice(&self.name);
        bytes.extend_from_slice(&self.root.encode(endian));
        let mut array = [0; SUPER_BYTES as usize];
        array.copy_from_slice(&bytes);
        array
    }
}

/// A block pointer, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockPointer {
    /// [`BLOCK_UNCOMPRESSED`] is set.
    pub uncompressed: bool,
    /// Where the pointer points.
    pub target: PointerTarget,
}

/// The two meanings of a block pointer's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PointerTarget {
    /// [`BLOCK_DIRECT`] is set: the block starts at this byte of the image.
    Start(u64),
    /// It is not: the block ends before this byte and starts where the block before it ends.
    End(u64),
}

impl BlockPointer {
    /// Takes a stored pointer apart.
    pub fn decode(raw: u32) -> Self {
        let value = u64::from(raw & !BLOCK_FLAGS);
        let target = if raw & BLOCK_DIRECT != 0 {
            PointerTarget::Start(value << 2)
        } else {
            PointerTarget::End(value)
        };
        Self {
            uncompressed: raw & BLOCK_UNCOMPRESSED != 0,
            target,
        }
    }

    /// The stored pointer; `None` if its value does not fit or a start is not a multiple of four.
    pub fn encode(self) -> Option<u32> {
        let (value, direct) = match self.target {
            PointerTarget::Start(at) if at % 4 == 0 => (at >> 2, BLOCK_DIRECT),
            PointerTarget::Start(_) => return None,
            PointerTarget::End(at) => (at, 0),
        };
        let value = u32::try_from(value)
            .ok()
            .filter(|value| value & BLOCK_FLAGS == 0)?;
        Some(
            value
                | direct
                | if self.uncompressed {
                    BLOCK_UNCOMPRESSED
                } else {
                    0
                },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_survives_both_byte_orders_and_they_repack() {
        let inode = RawInode {
            mode: 0o104755,
            uid: 1000,
            size: 0x123456,
            gid: 7,
            namelen_words: 0x2a,
            offset_words: 0x3ab_cdef,
        };
        let little = inode.encode(Endian::Little);
        let big = inode.encode(Endian::Big);
        assert_eq!(RawInode::decode(&little, Endian::Little), inode);
        assert_eq!(RawInode::decode(&big, Endian::Big), inode);
        assert_eq!(
            little,
            [
                0xed, 0x89, 0xe8, 0x03, 0x56, 0x34, 0x12, 0x07, 0xea, 0x7b, 0xf3, 0xea
            ]
        );
        assert_eq!(
            big,
            [
                0x89, 0xed, 0x03, 0xe8, 0x12, 0x34, 0x56, 0x07, 0xab, 0xab, 0xcd, 0xef
            ]
        );
    }

    #[test]
    fn block_pointers_survive() {
        for raw in [
            0,
            0x1234,
            BLOCK_UNCOMPRESSED | 0x1000,
            BLOCK_FLAGS | 0x3fff_ffff,
            BLOCK_DIRECT,
        ] {
            assert_eq!(BlockPointer::decode(raw).encode(), Some(raw));
        }
        assert_eq!(
            BlockPointer {
                uncompressed: true,
                target: PointerTarget::Start(2)
            }
            .encode(),
            None
        );
        assert_eq!(
            BlockPointer {
                uncompressed: false,
                target: PointerTarget::End(1 << 30)
            }
            .encode(),
            None
        );
    }
}
