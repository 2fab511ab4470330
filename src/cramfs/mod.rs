//! cramfs: the image format. [`format`](mod@format) has the bytes, [`reader`] what they mean.

pub mod file;
pub mod format;
pub mod reader;

pub use file::ImageFile;
pub use format::Endian;
pub use reader::{Entry, Image, Inode, InodeKind};
