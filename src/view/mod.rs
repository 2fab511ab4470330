//! The root view: the image as the root directory of a session. [`Server`] answers the kernel, [`raise`] makes the
//! namespace, [`Bind`] says what of the host shows in it.

pub mod attempt;
mod bind;
mod namespace;
mod protocol;
mod same_tree;
mod server;

pub use bind::{Bind, host_directories};
pub use namespace::{ViewOptions, raise};
pub use server::{MAX_READ_BYTES, Server};
