//! cramfs: the image format. [`format`](mod@format) has the bytes, [`reader`] what they mean.

mod directory;
pub mod file;
pub mod format;
mod inode;
mod lookup;
pub mod reader;

pub use file::ImageFile;
pub use format::Endian;
pub use inode::{Entry, Inode, InodeKind};
pub use lookup::{Resolved, show_path};
pub use reader::{Block, Image};
