//! How much of an image is read to find its files' blocks.

use super::{Image, Inode};

/// The block pointers that may still be read, for those who look at each file's once. Different files of an honest image
/// have different pointers, so all of them together fit into it; those of a hostile one overlap, and would make more work
/// than the image has bytes.
#[derive(Debug)]
pub struct PointerBudget {
    left_bytes: u64,
}

impl PointerBudget {
    /// As many as there is room for.
    pub fn new(image: &Image) -> Self {
        Self {
            left_bytes: image.limit_bytes(),
        }
    }

    /// Is there enough left for a file's?
    pub fn covers(&self, inode: &Inode) -> bool {
        pointer_bytes(inode) <= self.left_bytes
    }

    /// Takes a file's from it; `false` if there is not enough left, which stays.
    pub fn take(&mut self, inode: &Inode) -> bool {
        let covers = self.covers(inode);
        if covers {
            self.left_bytes -= pointer_bytes(inode);
        }
        covers
    }
}

fn pointer_bytes(inode: &Inode) -> u64 {
    4 * inode.block_count()
}
