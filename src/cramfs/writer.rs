//! Writes an image: which byte of which file goes where.
//!
//! ```text
//! superblock
//! directories      breadth first; their end is where the first file's data starts (fsck.cramfs insists)
//! packed part      for each file and link: block pointers, then the blocks that do not run in place
//! in-place part    page-aligned runs of blocks, as they are; the last page of a file filled with zeros
//! ```
//!
//! The in-place part comes last because a file's block pointers must lie below 256 MiB, but its direct blocks need not.
//! Its place depends on the length of everything else, so the packed part is written first, and the files with pages in
//! place are read a second time (and held against what they were). At most two files are in memory at a time.
//!
//! Linux takes files whose data has the same offset for the same inode, mode and owner included (`cramino()`). So equal
//! contents are stored once, but share their pointers only when mode and owner are equal as well.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::format::{BlockPointer, PointerTarget, SUPER_BYTES, SUPER_OFFSETS, flags};
pub use super::layout::Layout;
use super::layout::{self, Placed, check_data_offset};
use super::pack::{self, Packed, Packer};
use super::tree::{self, Node, NodeKind, Tree};
use crate::error::{Error, Result};
use crate::units::{BLOCK_BYTES, PageSize};

/// Decides what runs in place.
pub trait Choose {
    /// The byte ranges of the file that shall run in place; the writer widens them to pages. They may overlap, be in any
    /// order and reach past the end of the file.
    ///
    /// # Errors
    /// Whatever stands in the way of deciding.
    fn in_place(&mut self, node: &Node, size: u64, file: &File) -> Result<Vec<Range<u64>>>;
}

/// What became of a tree.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Summary {
    /// Regular files, links included.
    pub files: u64,
    /// Directories, the root included.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Devices, fifos and sockets.
    pub special_files: u64,
    /// Files whose contents another file has too (hard links as well): stored once.
    pub shared_files: u64,
    /// Bytes of all regular files.
    pub content_bytes: u64,
    /// Length of the image.
    pub image_bytes: u64,
    /// Files that have pages in place.
    pub in_place_files: u64,
    /// Bytes of the image that can be mapped as they are; never counted twice.
    pub in_place_bytes: u64,
    /// Bytes of the image that hold nothing: alignment, the zeros after a file's end, the room before the superblock.
    pub padding_bytes: u64,
    /// What was changed or left out.
    pub warnings: Vec<String>,
}

/// A file whose in-place blocks are still to come.
struct Pending {
    node: usize,
    crc: u32,
    runs: Vec<Range<u64>>,
    /// Where its pointers go, and those of files with the same contents but another owner or mode.
    tables: Vec<u64>,
    /// The pointers, 0 where the block runs in place.
    pointers: Vec<u32>,
}

/// `(st_dev, st_ino)` and what runs in place.
type LinkKey = ((u64, u64), Vec<Range<u64>>);

/// Contents already written, to be found again.
struct Stored {
    node: usize,
    runs: Vec<Range<u64>>,
    pending: Option<usize>,
}

/// Writes the image of `tree` into `out`, a new, empty file that can be read and written. Nothing but the tree's contents
/// and the arguments goes into it. `progress` is called with the bytes of file contents that are done.
///
/// # Errors
/// For what does not fit the format, for files that changed since the scan, and if reading or writing fails.
pub fn write(
    tree: &Tree,
    layout: &Layout,
    choose: &mut dyn Choose,
    out: &File,
    progress: &mut dyn FnMut(u64),
) -> Result<Summary> {
    let runs = in_place_runs(tree, layout.page, choose)?;
    let extended = runs.iter().any(|runs| !runs.is_empty());
    let [unpadded, padded] = SUPER_OFFSETS;
    let super_at = if layout.pad { padded } else { unpadded };
    let (dirs, dirs_end) = layout::place_directories(tree, super_at + SUPER_BYTES)?;
    let mut writer = Writer {
        tree,
        layout,
        out,
        cursor: dirs_end,
        used_bytes: dirs_end - super_at,
        placed: dirs,
        pending: Vec::new(),
        stored: HashMap::new(),
        links: HashMap::new(),
        packer: Packer::new(),
        extended,
        holes: false,
        blocks: 0,
        summary: Summary {
            warnings: tree.warnings.clone(),
            ..Summary::default()
        },
    };
    // A file of one whole block goes into the packed part, its block on a page boundary (see there): after the others,
    // so that theirs starts where the directories end.
    let (single, others): (Vec<usize>, Vec<usize>) = (0..tree.nodes().len())
        .partition(|&node| runs.get(node).is_some_and(|r| is_single(tree, node, r)));
    let mut done = 0;
    for number in others.into_iter().chain(single) {
        let (Some(node), Some(runs)) = (tree.nodes().get(number), runs.get(number)) else {
            continue;
        };
        writer.node(number, node, runs)?;
        if let NodeKind::File { size } = node.kind {
            done += size;
            progress(done);
        }
    }
    writer.in_place()?;
    writer.finish(super_at)
}

/// Is it a file of exactly one block that runs in place?
fn is_single(tree: &Tree, node: usize, runs: &[Range<u64>]) -> bool {
    let kind = tree.nodes().get(node).map(|node| &node.kind);
    !runs.is_empty() && kind == Some(&NodeKind::File { size: BLOCK_BYTES })
}

/// For every node, the blocks that run in place.
fn in_place_runs(
    tree: &Tree,
    page: PageSize,
    choose: &mut dyn Choose,
) -> Result<Vec<Vec<Range<u64>>>> {
    let of_node = |node: &Node| match node.kind {
        NodeKind::File { size } if size > 0 => {
            let ranges = choose.in_place(node, size, &tree.open(node)?)?;
            Ok(pack::block_runs(&ranges, size, page))
        }
        _ => Ok(Vec::new()),
    };
    tree.nodes().iter().map(of_node).collect()
}

fn pointer(node: &Node, uncompressed: bool, target: PointerTarget) -> Result<u32> {
    let pointer = BlockPointer {
        uncompressed,
        target,
    };
    pointer.encode().ok_or_else(|| {
        Error::failed(format!(
            "{}: the image is too large: a block would lie where no pointer reaches ({target:x?}); split the tree",
            node.display()
        ))
    })
}

struct Writer<'a> {
    tree: &'a Tree,
    layout: &'a Layout,
    out: &'a File,
    cursor: u64,
    /// Bytes that are not padding.
    used_bytes: u64,
    placed: Vec<Placed>,
    pending: Vec<Pending>,
    /// Contents by length and CRC.
    stored: HashMap<(u64, u32), Vec<Stored>>,
    /// The first of a file's hard links, told apart by what runs in place of it (a glob may match one name only).
    links: HashMap<LinkKey, usize>,
    packer: Packer,
    extended: bool,
    holes: bool,
    blocks: u64,
    summary: Summary,
}

impl Writer<'_> {
    fn write_at(&mut self, bytes: &[u8], at: u64) -> Result<()> {
        self.used_bytes += bytes.len() as u64;
        self.out
            .write_all_at(bytes, at)
            .map_err(|err| Error::failed(format!("write {} bytes at {at:#x}: {err}", bytes.len())))
    }

    fn place(&mut self, number: usize, place: Placed) {
        if let Some(slot) = self.placed.get_mut(number) {
            *slot = place;
        }
    }

    fn node(&mut self, number: usize, node: &Node, runs: &[Range<u64>]) -> Result<()> {
        match &node.kind {
            NodeKind::File { size } => {
                self.summary.files += 1;
                self.summary.content_bytes += size;
            }
            NodeKind::Symlink { .. } => self.summary.symlinks += 1,
            NodeKind::Directory { .. } => {
                self.summary.directories += 1;
                return Ok(());
            }
            NodeKind::Device { .. } | NodeKind::Other => {
                self.summary.special_files += 1;
                return Ok(());
            }
        }
        if !runs.is_empty() {
            self.summary.in_place_files += 1;
        }
        if let Some(link) = node.hard_link {
            let first = *self.links.entry((link, runs.to_vec())).or_insert(number);
            let place = self.placed.get(first).copied().unwrap_or_default();
            if place.data != 0 {
                self.summary.shared_files += 1;
                self.place(number, place);
                return Ok(());
            }
        }
        let content = self.tree.content(node)?;
        if content.is_empty() {
            return Ok(());
        }
        let key = (content.len() as u64, crc32fast::hash(&content));
        let mut pages = None;
        for twin in self.twins(key, &content, runs)? {
            let Some(other) = self.tree.nodes().get(twin.0) else {
                continue;
            };
            if (other.mode, other.uid, other.gid) == (node.mode, node.uid, node.gid) {
                let place = self.placed.get(twin.0).copied().unwrap_or_default();
                self.place(number, place);
                self.summary.shared_files += u64::from(matches!(node.kind, NodeKind::File { .. }));
                return Ok(());
            }
            pages = pages.or(twin.1);
        }
        self.cursor = self.cursor.next_multiple_of(4);
        let mut pending = None;
        let data = if let Some(pages) = pages {
            self.summary.shared_files += 1;
            pending = Some(pages);
            self.share_pages(pages, node)?
        } else if runs.is_empty() {
            self.packed_file(node, &content)?
        } else if content.len() as u64 == BLOCK_BYTES {
            self.single_block(node, &content)?
        } else {
            pending = Some(self.pending.len());
            self.mixed_file(number, &content, key.1, runs)?
        };
        self.place(number, Placed { data, size: key.0 });
        self.blocks += key.0.div_ceil(BLOCK_BYTES);
        self.stored.entry(key).or_default().push(Stored {
            node: number,
            runs: runs.to_vec(),
            pending,
        });
        Ok(())
    }

    /// What was stored already with these contents and these blocks in place: the node, and its pending pages.
    fn twins(
        &self,
        key: (u64, u32),
        content: &[u8],
        runs: &[Range<u64>],
    ) -> Result<Vec<(usize, Option<usize>)>> {
        let mut twins = Vec::new();
        for stored in self.stored.get(&key).into_iter().flatten() {
            let node = self.tree.nodes().get(stored.node);
            if stored.runs == runs
                && let Some(node) = node
                && self.tree.content(node)? == content
            {
                twins.push((stored.node, stored.pending));
            }
        }
        Ok(twins)
    }

    /// Takes the next `count` pointers' place.
    fn table(&mut self, node: &Node, count: u64) -> Result<u64> {
        let at = self.cursor;
        check_data_offset(node, at)?;
        self.cursor += 4 * count;
        Ok(at)
    }

    fn write_table(&mut self, pointers: &[u32], at: u64) -> Result<()> {
        let endian = self.layout.endian;
        let bytes: Vec<u8> = pointers
            .iter()
            .flat_map(|&pointer| endian.bytes32(pointer))
            .collect();
        self.write_at(&bytes, at)
    }

    /// A file of which nothing runs in place. Its pointers say where blocks end, as every cramfs reader knows them.
    fn packed_file(&mut self, node: &Node, content: &[u8]) -> Result<u64> {
        let blocks = self
            .packer
            .pack_all(content, self.extended, self.layout.holes)?;
        let table_at = self.table(node, blocks.len() as u64)?;
        let mut pointers = Vec::with_capacity(blocks.len());
        let mut data = Vec::new();
        for block in &blocks {
            data.extend_from_slice(block.bytes());
            self.holes |= *block == Packed::Hole;
            pointers.push(pointer(
                node,
                matches!(block, Packed::Stored(_)),
                PointerTarget::End(self.cursor + data.len() as u64),
            )?);
        }
        self.write_table(&pointers, table_at)?;
        self.write_at(&data, self.cursor)?;
        self.cursor += data.len() as u64;
        Ok(table_at)
    }

    /// A file of one whole block, in place. Its pointer may not be direct (see [`pack::block_runs`]), so the block must
    /// follow the pointer: that one goes right before a page boundary.
    fn single_block(&mut self, node: &Node, content: &[u8]) -> Result<u64> {
        let page = self.layout.page;
        let too_large = || Error::failed(format!("{}: the image is too large", node.display()));
        let block_at = page.ceil(self.cursor + 4).ok_or_else(too_large)?;
        self.cursor = block_at - 4;
        let table_at = self.table(node, 1)?;
        let end = PointerTarget::End(block_at + BLOCK_BYTES);
        self.write_table(&[pointer(node, true, end)?], table_at)?;
        self.write_at(content, block_at)?;
        self.cursor = block_at + page.bytes();
        self.summary.in_place_bytes += BLOCK_BYTES;
        Ok(table_at)
    }

    /// A file with some blocks in place: those come later, the others now, each with a direct pointer. There are no
    /// holes: a page of zeros is 26 bytes.
    fn mixed_file(
        &mut self,
        number: usize,
        content: &[u8],
        crc: u32,
        runs: &[Range<u64>],
    ) -> Result<u64> {
        let Some(node) = self.tree.nodes().get(number) else {
            return Err(Error::failed("no such node"));
        };
        let count = (content.len() as u64).div_ceil(BLOCK_BYTES);
        let table_at = self.table(node, count)?;
        let mut pointers = Vec::with_capacity(count as usize);
        for (block, number) in content.chunks(BLOCK_BYTES as usize).zip(0_u64..) {
            if runs.iter().any(|run| run.contains(&number)) {
                pointers.push(0);
                continue;
            }
            // The last block, if whole, is compressed even where that grows it: Linux takes the length of one that is
            // direct and uncompressed for 0.
            let whole_last = number + 1 == count && block.len() as u64 == BLOCK_BYTES;
            let packed = self.packer.pack(block, !whole_last)?;
            self.cursor = self.cursor.next_multiple_of(4);
            let stored = matches!(packed, Packed::Stored(_));
            pointers.push(pointer(node, stored, PointerTarget::Start(self.cursor))?);
            if !stored {
                let len_bytes = self.layout.endian.bytes16(packed.bytes().len() as u16);
                self.write_at(&len_bytes, self.cursor)?;
                self.cursor += 2;
            }
            self.write_at(packed.bytes(), self.cursor)?;
            self.cursor += packed.bytes().len() as u64;
        }
        self.pending.push(Pending {
            node: number,
            crc,
            runs: runs.to_vec(),
            tables: vec![table_at],
            pointers,
        });
        Ok(table_at)
    }

    /// A file with the contents of one that has pages in place, but another owner or mode: pointers of its own.
    fn share_pages(&mut self, pages: usize, node: &Node) -> Result<u64> {
        let count = self.pending.get(pages).map_or(0, |p| p.pointers.len());
        let table_at = self.table(node, count as u64)?;
        if let Some(pending) = self.pending.get_mut(pages) {
            pending.tables.push(table_at);
        }
        Ok(table_at)
    }

    /// Writes the in-place part and the pointers into it.
    fn in_place(&mut self) -> Result<()> {
        let page = self.layout.page;
        let mut at = self.cursor;
        for mut pending in std::mem::take(&mut self.pending) {
            let Some(node) = self.tree.nodes().get(pending.node) else {
                continue;
            };
            let content = self.tree.content(node)?;
            if crc32fast::hash(&content) != pending.crc {
                return Err(tree::changed(node));
            }
            let size = content.len() as u64;
            for run in &pending.runs {
                at = at.next_multiple_of(page.bytes());
                let (start, end) = (run.start * BLOCK_BYTES, (run.end * BLOCK_BYTES).min(size));
                let bytes = content
                    .get(start as usize..end as usize)
                    .unwrap_or_default();
                self.write_at(bytes, at)?;
                self.summary.in_place_bytes += end - start;
                for number in run.clone() {
                    let block_at = at + (number - run.start) * BLOCK_BYTES;
                    let whole_last = size == (number + 1) * BLOCK_BYTES;
                    let target = if whole_last {
                        PointerTarget::End(block_at + BLOCK_BYTES)
                    } else {
                        PointerTarget::Start(block_at)
                    };
                    if let Some(slot) = pending.pointers.get_mut(number as usize) {
                        *slot = pointer(node, true, target)?;
                    }
                }
                at += (end - start).next_multiple_of(page.bytes());
            }
            for &table_at in &pending.tables {
                self.write_table(&pending.pointers, table_at)?;
            }
        }
        self.cursor = at;
        Ok(())
    }

    /// Writes directories and superblock, and makes the length and the CRC right.
    fn finish(mut self, super_at: u64) -> Result<Summary> {
        let mut set_flags = flags::FSID_V2 | flags::SORTED_DIRS;
        if self.holes {
            set_flags |= flags::HOLES;
        }
        if self.extended {
            set_flags |= flags::EXT_BLOCK_POINTERS;
        }
        let image_bytes = self.cursor.next_multiple_of(BLOCK_BYTES);
        let frame = layout::Frame {
            tree: self.tree,
            layout: self.layout,
            placed: &self.placed,
            super_at,
            image_bytes,
            set_flags,
            blocks: self.blocks,
        };
        frame.write(self.out)?;
        self.summary.image_bytes = image_bytes;
        self.summary.padding_bytes = image_bytes - self.used_bytes;
        Ok(self.summary)
    }
}
