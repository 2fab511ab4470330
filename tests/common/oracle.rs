//! What the index and the extents of a file must be, worked out the slow way from its blocks.

use xip_run::cramfs::{Block, Image, Inode};
use xip_run::extent::{Storage, extents};
use xip_run::index::{FileIndex, NotDirect, PageState};
use xip_run::units::{ImageOffset, PageSize};

const BLOCK: u64 = 4096;

/// The state of one page, from the blocks and the bytes of the image.
fn page_state(
    bytes: &[u8],
    limit: u64,
    size: u64,
    blocks: &[Block],
    start: u64,
    page: u64,
) -> PageState {
    let end = size.min(start + page);
    if start >= end {
        return Err(NotDirect::BeyondFile);
    }
    let mine: Vec<(u64, Block)> = (start / BLOCK..end.div_ceil(BLOCK))
        .map(|number| (number, blocks[number as usize]))
        .collect();
    for (_, block) in &mine {
        match block {
            Block::Compressed { .. } => return Err(NotDirect::Compressed),
            Block::Hole => return Err(NotDirect::Hole),
            Block::Stored { .. } => {}
        }
    }
    let mut first = None;
    for (number, block) in mine {
        let Block::Stored { at, len_bytes } = block else {
            unreachable!()
        };
        let offset = number * BLOCK - start;
        let needed = BLOCK.min(size - number * BLOCK);
        let first = *first.get_or_insert(at.0);
        if at.0 != first + offset || u64::from(len_bytes) < needed {
            return Err(NotDirect::NotConsecutive);
        }
    }
    let at = first.unwrap();
    if at % page != 0 {
        return Err(NotDirect::Misaligned);
    }
    if at + page > limit {
        return Err(NotDirect::BeyondImage);
    }
    if bytes[(at + end - start) as usize..(at + page) as usize]
        .iter()
        .any(|&byte| byte != 0)
    {
        return Err(NotDirect::SharedLastPage);
    }
    Ok(ImageOffset(at))
}

/// Holds extents and index of a file against its blocks, and every direct page against its contents.
///
/// Returns how many pages were direct, over all page sizes.
pub fn check_file(image: &Image, bytes: &[u8], inode: &Inode) -> u64 {
    let blocks = image.blocks(inode).unwrap();
    check_extents(image, inode, &blocks);
    let contents = image.read_file(inode).ok();
    let mut direct = 0;
    for page in PageSize::ALL {
        let index = FileIndex::new(image, inode, page).unwrap();
        assert_eq!(index.page_size(), page);
        let count = inode.size.div_ceil(page.bytes());
        for number in 0..count + 2 {
            let start = number * page.bytes();
            let want = page_state(
                bytes,
                image.limit_bytes(),
                inode.size,
                &blocks,
                start,
                page.bytes(),
            );
            assert_eq!(index.page(number), want, "page {number} of {page}");
            let (Ok(at), Some(contents)) = (want, &contents) else {
                continue;
            };
            direct += 1;
            let mapped = &bytes[at.0 as usize..][..page.bytes() as usize];
            let rest = &contents[start as usize..];
            let (used, tail) = mapped.split_at(rest.len().min(mapped.len()));
            assert!(used == &rest[..used.len()] && tail.iter().all(|&byte| byte == 0));
        }
        let mut next = 0;
        for run in index.runs() {
            assert_eq!(run.first_page, next);
            assert!(run.pages > 0);
            next += run.pages;
        }
        assert_eq!(next, count);
        assert_eq!(index.page(u64::MAX), Err(NotDirect::BeyondFile));
    }
    direct
}

fn check_extents(image: &Image, inode: &Inode, blocks: &[Block]) {
    let extents = extents(image, inode).unwrap();
    for block in blocks {
        if let Block::Stored { at, len_bytes } | Block::Compressed { at, len_bytes } = *block {
            assert!(len_bytes > 0 && at.0 + u64::from(len_bytes) <= image.limit_bytes());
        }
    }
    let mut next = 0;
    for extent in &extents {
        assert_eq!(extent.first_block, next);
        assert!(extent.blocks > 0);
        let mine = &blocks[next as usize..(next + extent.blocks) as usize];
        let mut stored_bytes = 0;
        for (number, block) in mine.iter().enumerate() {
            match (*block, extent.storage) {
                (Block::Hole, Storage::Hole) => {}
                (Block::Compressed { at, len_bytes }, Storage::Compressed { at: first }) => {
                    assert!(number > 0 || at == first);
                    stored_bytes += u64::from(len_bytes);
                }
                (Block::Stored { at, len_bytes }, Storage::Stored { at: first }) => {
                    assert_eq!(at.0, first.0 + number as u64 * BLOCK);
                    assert!(u64::from(len_bytes) == BLOCK || number + 1 == mine.len());
                    stored_bytes += u64::from(len_bytes);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(extent.stored_bytes, stored_bytes);
        next += extent.blocks;
    }
    assert_eq!(next, blocks.len() as u64);
}
