//! Hand-made images for unit tests: every file's blocks stored the way a test wants them.

use std::io::Write;

use crate::cramfs::Image;
use crate::cramfs::format::{
    BLOCK_DIRECT, BLOCK_UNCOMPRESSED, Endian, INODE_BYTES, RawInode, RawSuper, SIGNATURE,
    SUPER_BYTES, flags,
};

/// How one block is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Store {
    /// As it is, right after the block before it.
    Plain,
    /// As it is, on the next boundary of 64 KiB but one: not consecutive, yet page aligned.
    Apart,
    /// As a zlib stream.
    Compressed,
    /// Not at all; its bytes become zero.
    Hole,
}

/// A file of the image's root directory.
#[derive(Clone, Debug)]
pub(crate) struct TestFile {
    pub(crate) name: &'static str,
    pub(crate) mode: u16,
    pub(crate) bytes: Vec<u8>,
    /// One for each block; `Plain` for those that are missing.
    pub(crate) store: Vec<Store>,
    /// Where the data starts in its 64 KiB: 0 is aligned for every page size.
    pub(crate) skew: usize,
    /// What follows the last byte, to the next 64 KiB boundary.
    pub(crate) filler: u8,
}

impl TestFile {
    /// An executable, stored so that all of it can be mapped.
    pub(crate) fn program(name: &'static str, bytes: Vec<u8>) -> Self {
        Self {
            name,
            mode: 0o100_755,
            bytes,
            store: Vec::new(),
            skew: 0,
            filler: 0,
        }
    }
}

const ALIGN: usize = 0x10000;
const BLOCK: usize = 4096;

/// The bytes of an image with these files.
pub(crate) fn image_bytes(files: &[TestFile]) -> Vec<u8> {
    let endian = Endian::HOST;
    let names: Vec<Vec<u8>> = files.iter().map(|file| padded(file.name)).collect();
    let dir_at = SUPER_BYTES as usize;
    let dir_len: usize = names
        .iter()
        .map(|name| INODE_BYTES as usize + name.len())
        .sum();
    let mut image = vec![0; dir_at + dir_len];
    let mut dir = Vec::new();
    for (file, name) in files.iter().zip(&names) {
        let table_at = image.len().next_multiple_of(4);
        dir.extend_from_slice(
            &RawInode {
                mode: file.mode,
                size: file.bytes.len() as u32,
                namelen_words: (name.len() / 4) as u8,
                offset_words: (table_at / 4) as u32,
                ..RawInode::default()
            }
            .encode(endian),
        );
        dir.extend_from_slice(name);
        put_file(&mut image, table_at, file, endian);
    }
    image[dir_at..dir_at + dir_len].copy_from_slice(&dir);
    image.resize(image.len().next_multiple_of(ALIGN), 0);
    let root = RawInode {
        mode: 0o040_755,
        size: dir_len as u32,
        offset_words: (dir_at / 4) as u32,
        ..RawInode::default()
    };
    let superblock = RawSuper {
        size: image.len() as u32,
        flags: flags::FSID_V2 | flags::HOLES | flags::EXT_BLOCK_POINTERS,
        signature: *SIGNATURE,
        root,
        ..RawSuper::default()
    };
    image[..SUPER_BYTES as usize].copy_from_slice(&superblock.encode(endian));
    image
}

/// The image with these files, opened.
pub(crate) fn image(files: &[TestFile]) -> Image {
    Image::open(image_bytes(files)).unwrap()
}

fn padded(name: &str) -> Vec<u8> {
    let mut name = name.as_bytes().to_vec();
    name.resize(name.len().next_multiple_of(4), 0);
    name
}

fn put_file(image: &mut Vec<u8>, table_at: usize, file: &TestFile, endian: Endian) {
    let blocks: Vec<&[u8]> = file.bytes.chunks(BLOCK).collect();
    let data_at = (table_at + blocks.len() * 4).next_multiple_of(ALIGN) + file.skew;
    image.resize(data_at, 0);
    let mut previous_end = table_at + blocks.len() * 4;
    for (number, block) in blocks.iter().enumerate() {
        let store = file.store.get(number).copied().unwrap_or(Store::Plain);
        if store == Store::Apart {
            image.resize(image.len().next_multiple_of(ALIGN) + ALIGN, file.filler);
        }
        image.resize(image.len().next_multiple_of(4), 0);
        let at = image.len();
        let start = BLOCK_DIRECT | (at / 4) as u32;
        let pointer = match store {
            Store::Hole => previous_end as u32,
            Store::Plain | Store::Apart => {
                image.extend_from_slice(block);
                previous_end = at + BLOCK;
                BLOCK_UNCOMPRESSED | start
            }
            Store::Compressed => {
                let mut zlib =
                    flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
                zlib.write_all(block).unwrap();
                let stream = zlib.finish().unwrap();
                image.extend_from_slice(&endian.bytes16(stream.len() as u16));
                image.extend_from_slice(&stream);
                previous_end = image.len();
                start
            }
        };
        image[table_at + number * 4..][..4].copy_from_slice(&endian.bytes32(pointer));
    }
    image.resize(image.len().next_multiple_of(ALIGN), file.filler);
}
