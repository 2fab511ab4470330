//! cramfs: the image format. [`format`](mod@format) has the bytes, [`reader`] what they mean, [`walk`] visits everything;
//! [`tree`] and [`writer`] make an image, [`check`](mod@check) finds what is wrong with one, [`extract`] unpacks it.

pub mod build;
pub mod check;
mod directory;
pub mod dump;
pub mod extract;
pub mod file;
pub mod format;
mod inode;
mod layout;
mod lookup;
mod output;
mod pack;
mod pointers;
pub mod reader;
pub mod regions;
pub mod tree;
mod unused;
pub mod walk;
pub mod writer;
pub mod xip;

pub use check::{Finding, Report, Severity, check};
pub use directory::Cursor;
pub use file::ImageFile;
pub use format::Endian;
pub use inode::{Entry, Inode, InodeKind};
pub use lookup::{Resolved, show_name, show_path};
pub use pack::compressed_bytes;
pub use pointers::PointerBudget;
pub use reader::{Block, Image};
