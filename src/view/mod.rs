//! The root view: the image as the root directory of a session. [`Server`] answers the kernel, [`raise`] makes the
//! namespace of a session, [`raise_for_system`] does the same for process 1, [`server_of`] finds who serves one, [`Bind`] says what of the host shows in it.

pub mod attempt;
mod bind;
mod namespace;
mod protocol;
mod same_tree;
pub mod serve;
mod server;
mod system;

pub use bind::{Bind, host_directories};
pub use namespace::{SERVER_NAME, ViewOptions, raise, server_of};
pub use server::{MAX_READ_BYTES, Server};
pub use system::{ServerProgram, SystemView, is_initramfs, raise_for_system};
