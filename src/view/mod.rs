//! The root view: the image as the root directory of a session. [`Server`] answers the kernel, [`raise`] makes the
//! namespace, [`server_of`] finds who serves one, [`Bind`] says what of the host shows in it.

pub mod attempt;
mod bind;
mod namespace;
mod protocol;
mod same_tree;
mod server;

pub use bind::{Bind, host_directories};
pub use namespace::{SERVER_NAME, ViewOptions, raise, server_of};
pub use server::{MAX_READ_BYTES, Server};
