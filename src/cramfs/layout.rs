//! The frame of an image, around the contents of its files: directories, superblock, CRC.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::format::{
    DATA_OFFSET_LIMIT, Endian, FILE_SIZE_LIMIT, INODE_BYTES, RawInode, RawSuper, SIGNATURE,
};
use super::tree::{Node, NodeKind, Tree};
use crate::error::{Error, Result};
use crate::units::PageSize;

/// How to write an image.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Byte order of the machine that will mount it.
    pub endian: Endian,
    /// What in-place pages are aligned to: the largest page size of a kernel that shall run from it.
    pub page: PageSize,
    /// At most 16 bytes, for people.
    pub name: Vec<u8>,
    /// A number, for people.
    pub edition: u32,
    /// Leave 512 bytes before the superblock, for a boot sector.
    pub pad: bool,
    /// Keep blocks of zeros as holes. Off by default, for it gains 26 bytes a block, and fsck.cramfs (util-linux) refuses
    /// every image with the flag for holes, even those of its own mkfs.cramfs -z.
    pub holes: bool,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            endian: Endian::HOST,
            page: PageSize::K4,
            name: b"Compressed".to_vec(),
            edition: 0,
            pad: false,
            holes: false,
        }
    }
}

/// Where a file's pointers went.
#[derive(Clone, Copy, Default)]
pub(super) struct Placed {
    pub(super) data: u64,
    pub(super) size: u64,
}

fn name_words(name: &[u8]) -> u64 {
    (name.len() as u64).div_ceil(4)
}

/// Gives every directory its place from `start` on; also where they end.
pub(super) fn place_directories(tree: &Tree, start: u64) -> Result<(Vec<Placed>, u64)> {
    let mut placed = vec![Placed::default(); tree.nodes().len()];
    let mut cursor = start;
    for (node, place) in tree.nodes().iter().zip(&mut placed) {
        let NodeKind::Directory { children } = &node.kind else {
            continue;
        };
        let entries = tree.nodes().get(children.clone()).unwrap_or_default();
        let size = entries
            .iter()
            .map(|entry| INODE_BYTES + 4 * name_words(entry.name()))
            .sum();
        if size >= FILE_SIZE_LIMIT {
            return Err(Error::failed(format!(
                "{}: too many entries, a directory in a cramfs is smaller than 16 MiB",
                node.display()
            )));
        }
        if size > 0 {
            *place = Placed { data: cursor, size };
            check_data_offset(node, cursor)?;
        }
        cursor += size;
    }
    Ok((placed, cursor))
}

/// File data has to start where an inode's offset can reach.
pub(super) fn check_data_offset(node: &Node, at: u64) -> Result<()> {
    if at < DATA_OFFSET_LIMIT {
        return Ok(());
    }
    Err(Error::failed(format!(
        "{}: the image is too large: the data of a cramfs starts below 256 MiB; split the tree into two images",
        node.display()
    )))
}

/// All that directories and superblock are made of.
pub(super) struct Frame<'a> {
    pub(super) tree: &'a Tree,
    pub(super) layout: &'a Layout,
    pub(super) placed: &'a [Placed],
    pub(super) super_at: u64,
    pub(super) image_bytes: u64,
    pub(super) set_flags: u32,
    pub(super) blocks: u64,
}

impl Frame<'_> {
    /// Writes them around the contents, which must all be there.
    pub(super) fn write(&self, out: &File) -> Result<()> {
        let failed = |what: &str, err: io::Error| Error::failed(format!("{what}: {err}"));
        let Ok(size) = u32::try_from(self.image_bytes) else {
            return Err(Error::failed(format!(
                "the image would have {} bytes; a cramfs is smaller than 4 GiB: split the tree",
                self.image_bytes
            )));
        };
        out.set_len(self.image_bytes)
            .map_err(|err| failed("set the image's length", err))?;
        for (node, place) in self.tree.nodes().iter().zip(self.placed) {
            if let NodeKind::Directory { children } = &node.kind {
                let bytes = self.directory(children.clone());
                out.write_all_at(&bytes, place.data)
                    .map_err(|err| failed("write a directory", err))?;
            }
        }
        let mut name = [0; 16];
        for (to, from) in name.iter_mut().zip(&self.layout.name) {
            *to = *from;
        }
        let mut superblock = RawSuper {
            size,
            flags: self.set_flags,
            signature: *SIGNATURE,
            edition: self.layout.edition,
            blocks: self.blocks as u32,
            files: self.tree.nodes().len() as u32,
            name,
            root: self.inode(0, 0),
            ..RawSuper::default()
        };
        let write_super = |superblock: &RawSuper| {
            out.write_all_at(&superblock.encode(self.layout.endian), self.super_at)
                .map_err(|err| failed("write the superblock", err))
        };
        write_super(&superblock)?;
        superblock.crc = crc(out, self.super_at).map_err(|err| failed("read back", err))?;
        write_super(&superblock)
    }

    fn inode(&self, number: usize, namelen_words: u64) -> RawInode {
        let (Some(node), Some(place)) = (self.tree.nodes().get(number), self.placed.get(number))
        else {
            return RawInode::default();
        };
        let size = match node.kind {
            NodeKind::Device { rdev } => u32::from(rdev),
            _ => place.size as u32,
        };
        RawInode {
            mode: node.mode,
            uid: node.uid,
            size,
            gid: node.gid,
            namelen_words: namelen_words as u8,
            offset_words: (place.data / 4) as u32,
        }
    }

    fn directory(&self, children: Range<usize>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in children {
            let name = self.tree.nodes().get(number).map_or(&[][..], Node::name);
            let inode = self.inode(number, name_words(name));
            bytes.extend_from_slice(&inode.encode(self.layout.endian));
            bytes.extend_from_slice(name);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }
}

/// CRC-32 of everything from the superblock on, whose crc field is still zero.
fn crc(out: &File, super_at: u64) -> io::Result<u32> {
    let mut hasher = crc32fast::Hasher::new();
    let mut buf = vec![0; 256 * 1024];
    let mut at = super_at;
    loop {
        match out.read_at(&mut buf, at)? {
            0 => return Ok(hasher.finalize()),
            len => {
                hasher.update(buf.get(..len).unwrap_or_default());
                at += len as u64;
            }
        }
    }
}
