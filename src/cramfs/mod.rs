//! cramfs: the image format. [`format`](mod@format) has the bytes, [`reader`] what they mean.

pub mod format;
pub mod reader;

pub use format::Endian;
pub use reader::{Entry, Image, Inode, InodeKind};
