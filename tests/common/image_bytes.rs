//! Writes cramfs images byte by byte: every form the format has, and every lie somebody could put into it.
//!
//! It shares no code with the library, so that the one can prove the other. An image is a tree of [`Node`]s; all that is
//! not said is right:
//!
//! ```ignore
//! let image = ImageBytes {
//!     endian: Endian::Big,
//!     super_at: 512,
//!     ..ImageBytes::new(dir([
//!         ("bin", dir([("sh", file([raw_direct(noise(4096)).align(4096), zlib(noise(10))]))])),
//!         ("self", again(0)),
//!         ("link", symlink("bin/sh")),
//!         ("lie", file([hole()]).size(0xff_ffff).offset(0x3ff_ffff)),
//!     ]))
//! };
//! let bytes = image.build();
//! ```

use std::io::Write;

use xip_run::cramfs::Endian;

const BLOCK: usize = 4096;
/// In a block pointer: the block is not compressed.
pub const UNCOMPRESSED: u32 = 1 << 31;
/// In a block pointer: it is the block's start in words of 4 bytes, not its end in bytes.
pub const DIRECT: u32 = 1 << 30;

/// A whole image; every field of its superblock may lie.
#[derive(Clone, Debug)]
pub struct ImageBytes {
    pub endian: Endian,
    /// Where the superblock is put: 0 or 512.
    pub super_at: usize,
    pub magic: u32,
    /// The true length if `None`.
    pub size: Option<u32>,
    pub flags: u32,
    pub future: u32,
    pub signature: [u8; 16],
    /// The true one if `None`.
    pub crc: Option<u32>,
    pub edition: u32,
    pub blocks: u32,
    pub files: u32,
    pub name: [u8; 16],
    pub root: Node,
    /// Bytes between the superblock and what the root has; a lawful image then has the flag 0x400.
    pub root_shift: usize,
    /// The image's length is made a multiple of this with zeros.
    pub pad_to: usize,
}

/// An inode and what it leads to.
#[derive(Clone, Debug)]
pub struct Node {
    mode: u16,
    uid: u16,
    gid: u8,
    body: Body,
    size: Option<u32>,
    offset: Option<u32>,
    namelen: Option<u32>,
    align: usize,
    after: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Body {
    None,
    Entries(Vec<(Vec<u8>, Node)>),
    Blocks(Vec<Block>),
    Bytes(Vec<u8>),
    Again(usize),
}

/// A block of a file, in one of the forms that a block pointer can have.
#[derive(Clone, Debug)]
pub struct Block {
    stored: Vec<u8>,
    /// How many bytes of the file it stands for, if it is the last.
    content_len: usize,
    form: Form,
    align: usize,
    skip: usize,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Form {
    /// The pointer is the end; true: uncompressed.
    End(bool),
    /// The pointer is the start; true: uncompressed.
    Start(bool),
    /// The pointer is this number, and no bytes are stored.
    Pointer(u32),
}

fn block(stored: Vec<u8>, content_len: usize, form: Form) -> Block {
    Block {
        stored,
        content_len,
        form,
        align: 4,
        skip: 0,
    }
}

/// Compressed; the pointer is its end.
pub fn zlib(content: impl AsRef<[u8]>) -> Block {
    let content = content.as_ref();
    block(deflate(content), content.len(), Form::End(false))
}

/// Compressed, a u16 length before it; the pointer is its start.
pub fn zlib_direct(content: impl AsRef<[u8]>) -> Block {
    let content = content.as_ref();
    block(deflate(content), content.len(), Form::Start(false))
}

/// Uncompressed; the pointer is its end.
pub fn raw(content: impl Into<Vec<u8>>) -> Block {
    let content = content.into();
    let len = content.len();
    block(content, len, Form::End(true))
}

/// Uncompressed; the pointer is its start.
pub fn raw_direct(content: impl Into<Vec<u8>>) -> Block {
    let content = content.into();
    let len = content.len();
    block(content, len, Form::Start(true))
}

/// A hole: the pointer is the end of the block before it.
pub fn hole() -> Block {
    block(Vec::new(), BLOCK, Form::End(false))
}

/// A hole: the pointer is the start of a compressed block of length 0.
pub fn hole_direct() -> Block {
    block(Vec::new(), BLOCK, Form::Start(false))
}

/// Bytes given out as a compressed block of 4096 bytes; the pointer is their end.
pub fn stream(stored: impl Into<Vec<u8>>) -> Block {
    block(stored.into(), BLOCK, Form::End(false))
}

/// Any pointer, and no bytes.
pub fn pointer(raw: u32) -> Block {
    block(Vec::new(), BLOCK, Form::Pointer(raw))
}

impl Block {
    /// A direct block's start is put on a multiple of this (at least 4).
    pub fn align(mut self, bytes: usize) -> Self {
        self.align = bytes;
        self
    }

    /// Leaves that many bytes (0xee) out before a direct block.
    pub fn skip(mut self, bytes: usize) -> Self {
        self.skip = bytes;
        self
    }
}

/// A zlib stream.
pub fn deflate(content: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    out.write_all(content).unwrap();
    out.finish().unwrap()
}

fn node(mode: u16, body: Body) -> Node {
    Node {
        mode,
        uid: 0,
        gid: 0,
        body,
        size: None,
        offset: None,
        namelen: None,
        align: 4,
        after: Vec::new(),
    }
}

/// A directory with its entries in this order.
pub fn dir<N: Into<Vec<u8>>>(entries: impl IntoIterator<Item = (N, Node)>) -> Node {
    let entries = entries.into_iter().map(|(name, node)| (name.into(), node));
    node(0o40755, Body::Entries(entries.collect()))
}

/// A directory without entries.
pub fn empty_dir() -> Node {
    dir::<&str>([])
}

/// A directory whose bytes are these.
pub fn dir_of_bytes(bytes: impl Into<Vec<u8>>) -> Node {
    node(0o40755, Body::Bytes(bytes.into()))
}

/// A directory that is one of those it lies in: 0 the nearest, 1 the next. Only after them in the image.
pub fn again(up: usize) -> Node {
    node(0o40755, Body::Again(up))
}

/// A regular file of these blocks. Its size: 4096 for each but the last.
pub fn file(blocks: impl IntoIterator<Item = Block>) -> Node {
    node(0o100644, Body::Blocks(blocks.into_iter().collect()))
}

/// A file with all its blocks compressed.
pub fn zlib_file(content: &[u8]) -> Node {
    file(content.chunks(BLOCK).map(zlib))
}

/// A file with all its blocks direct and uncompressed, one after the other from a multiple of `align`.
pub fn direct_file(content: &[u8], align: usize) -> Node {
    let chunks = content.chunks(BLOCK).enumerate();
    file(chunks.map(|(number, chunk)| raw_direct(chunk).align(if number == 0 { align } else { 4 })))
}

/// A symbolic link.
pub fn symlink(target: impl AsRef<[u8]>) -> Node {
    let mut link = zlib_file(target.as_ref());
    link.mode = 0o120777;
    link
}

/// A character device.
pub fn char_device(major: u32, minor: u32) -> Node {
    node(0o20644, Body::None).size(major << 8 | minor)
}

/// A block device.
pub fn block_device(major: u32, minor: u32) -> Node {
    node(0o60644, Body::None).size(major << 8 | minor)
}

/// A named pipe.
pub fn fifo() -> Node {
    node(0o10644, Body::None)
}

/// A socket.
pub fn socket() -> Node {
    node(0o140644, Body::None)
}

impl Node {
    /// `st_mode`, type included.
    pub fn mode(mut self, mode: u16) -> Self {
        self.mode = mode;
        self
    }

    /// uid and gid.
    pub fn owner(mut self, uid: u16, gid: u8) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    /// Says that the size is this.
    pub fn size(mut self, bytes: u32) -> Self {
        self.size = Some(bytes);
        self
    }

    /// Says that the data is here, in words of 4 bytes.
    pub fn offset(mut self, words: u32) -> Self {
        self.offset = Some(words);
        self
    }

    /// Says that the name is so long, in words of 4 bytes.
    pub fn namelen(mut self, words: u32) -> Self {
        self.namelen = Some(words);
        self
    }

    /// Puts its data (entries, block pointers) on a multiple of this.
    pub fn align(mut self, bytes: usize) -> Self {
        self.align = bytes;
        self
    }

    /// Puts these bytes right behind its data.
    pub fn then(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.after = bytes.into();
        self
    }

    /// The 12 bytes of the inode with these contents.
    pub fn inode(&self, endian: Endian, at: u32, size: u32, name: &[u8]) -> [u8; 12] {
        let (mode, uid, gid) = (
            u32::from(self.mode),
            u32::from(self.uid),
            u32::from(self.gid),
        );
        let size = self.size.unwrap_or(size) & 0xff_ffff;
        let namelen = self.namelen.unwrap_or(name.len().div_ceil(4) as u32) & 0x3f;
        let offset = self.offset.unwrap_or(at / 4) & 0x3ff_ffff;
        // Bitfields begin at the low end of a word on a little-endian machine, at the high end on a big-endian one.
        let words = match endian {
            Endian::Little => [uid << 16 | mode, gid << 24 | size, offset << 6 | namelen],
            Endian::Big => [mode << 16 | uid, size << 8 | gid, namelen << 26 | offset],
        };
        let mut bytes = [0; 12];
        for (to, word) in bytes.chunks_mut(4).zip(words) {
            to.copy_from_slice(&u32_bytes(endian, word));
        }
        bytes
    }
}

fn u32_bytes(endian: Endian, value: u32) -> [u8; 4] {
    match endian {
        Endian::Little => value.to_le_bytes(),
        Endian::Big => value.to_be_bytes(),
    }
}

impl ImageBytes {
    /// A little-endian image, its superblock at 0, flags FSID_V2, SORTED_DIRS, EXT_BLOCK_POINTERS.
    pub fn new(root: Node) -> Self {
        Self {
            endian: Endian::Little,
            super_at: 0,
            magic: 0x28cd_3d45,
            size: None,
            flags: 0x803,
            future: 0,
            signature: *b"Compressed ROMFS",
            crc: None,
            edition: 0,
            blocks: 0,
            files: 0,
            name: *b"Compressed\0\0\0\0\0\0",
            root,
            root_shift: 0,
            pad_to: BLOCK,
        }
    }

    /// The bytes.
    pub fn build(&self) -> Vec<u8> {
        let root_at = self.super_at + 76 + self.root_shift;
        let mut out = Out {
            bytes: vec![0; root_at],
            endian: self.endian,
            above: Vec::new(),
        };
        let (at, size) = out.place(&self.root);
        out.pad(self.pad_to, 0);
        let mut bytes = out.bytes;
        let len = bytes.len() as u32;
        let mut head = Vec::new();
        let words = |head: &mut Vec<u8>, words: &[u32]| {
            for &word in words {
                head.extend(u32_bytes(self.endian, word));
            }
        };
        let size_claimed = self.size.unwrap_or(len);
        words(
            &mut head,
            &[self.magic, size_claimed, self.flags, self.future],
        );
        head.extend(self.signature);
        let crc = self.crc.unwrap_or(0);
        words(&mut head, &[crc, self.edition, self.blocks, self.files]);
        head.extend(self.name);
        head.extend(self.root.inode(self.endian, at, size, b""));
        bytes[self.super_at..][..76].copy_from_slice(&head);
        if self.crc.is_none() {
            let crc = u32_bytes(self.endian, crc32fast::hash(&bytes[self.super_at..]));
            bytes[self.super_at + 32..][..4].copy_from_slice(&crc);
        }
        bytes
    }
}

struct Out {
    bytes: Vec<u8>,
    endian: Endian,
    /// Offset and size of the directories that the node lies in, the nearest last.
    above: Vec<(u32, u32)>,
}

impl Out {
    fn pad(&mut self, align: usize, with: u8) {
        let len = self.bytes.len().next_multiple_of(align);
        self.bytes.resize(len, with);
    }

    fn put_u32(&mut self, at: usize, value: u32) {
        self.bytes[at..][..4].copy_from_slice(&u32_bytes(self.endian, value));
    }

    /// Writes the node's data and all below it; its offset and size, 0 and 0 for an empty one.
    fn place(&mut self, node: &Node) -> (u32, u32) {
        self.pad(node.align, 0);
        let at = self.bytes.len() as u32;
        let size = match &node.body {
            Body::None => 0,
            Body::Bytes(bytes) => {
                self.bytes.extend(bytes);
                bytes.len() as u32
            }
            Body::Entries(entries) => self.entries(entries),
            Body::Blocks(blocks) => self.blocks(blocks),
            Body::Again(up) => return self.above[self.above.len() - 1 - up],
        };
        self.bytes.extend(&node.after);
        if size == 0 { (0, 0) } else { (at, size) }
    }

    fn entries(&mut self, entries: &[(Vec<u8>, Node)]) -> u32 {
        let start = self.bytes.len();
        let slot = |name: &[u8]| 12 + name.len().next_multiple_of(4);
        let size: usize = entries.iter().map(|(name, _)| slot(name)).sum();
        self.bytes.resize(start + size, 0);
        self.above.push((start as u32, size as u32));
        let mut at = start;
        for (name, node) in entries {
            let (data, data_size) = self.place(node);
            let inode = node.inode(self.endian, data, data_size, name);
            self.bytes[at..][..12].copy_from_slice(&inode);
            self.bytes[at + 12..][..name.len()].copy_from_slice(name);
            at += slot(name);
        }
        self.above.pop();
        size as u32
    }

    fn blocks(&mut self, blocks: &[Block]) -> u32 {
        let Some((last, whole)) = blocks.split_last() else {
            return 0;
        };
        let table = self.bytes.len();
        self.bytes.resize(table + 4 * blocks.len(), 0);
        for (number, block) in blocks.iter().enumerate() {
            if let Form::Start(uncompressed) = block.form {
                self.bytes.resize(self.bytes.len() + block.skip, 0xee);
                self.pad(block.align.max(4), 0);
                if !uncompressed {
                    let len = u32_bytes(self.endian, block.stored.len() as u32);
                    self.bytes.extend(match self.endian {
                        Endian::Little => &len[..2],
                        Endian::Big => &len[2..],
                    });
                }
            }
            let start = match block.form {
                Form::Start(false) => self.bytes.len() - 2,
                _ => self.bytes.len(),
            };
            self.bytes.extend(&block.stored);
            let end = self.bytes.len();
            let raw = match block.form {
                Form::Pointer(raw) => raw,
                Form::End(true) => end as u32 | UNCOMPRESSED,
                Form::End(false) => end as u32,
                Form::Start(true) => (start / 4) as u32 | DIRECT | UNCOMPRESSED,
                Form::Start(false) => (start / 4) as u32 | DIRECT,
            };
            self.put_u32(table + 4 * number, raw);
        }
        (whole.len() * BLOCK + last.content_len) as u32
    }
}
