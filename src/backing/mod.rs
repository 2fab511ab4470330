//! What holds the image: something that can be read at an offset, and a descriptor that can be mapped.
//!
//! [`Spec`](spec::Spec) is how it is named, [`Backing`] is it opened. What a device's memory can be used for is never
//! assumed: [`Backing::abilities`] tries it.

mod ability;
mod attribute;
mod auto;
mod device;
mod hint;
mod mtd;
mod open;
mod page_struct;
mod pinned;
pub mod spec;
mod superblock;
mod system;
#[cfg(test)]
mod tests;

use std::io;

pub use ability::{Abilities, NoCow};
pub use attribute::{Attribute, MemoryType};
pub use device::Kind;
pub use open::{Backing, FileIdentity, Window};

/// Bytes that can be read at any offset. Everything that parses an image reads it through this, by copying, so that a
/// file that shrinks underneath is an error and not a SIGBUS.
pub trait ReadAt: Send + Sync {
    /// Length in bytes.
    fn len_bytes(&self) -> u64;

    /// Fills `buf` with the bytes from offset `at`.
    ///
    /// # Errors
    /// `UnexpectedEof` if they are not all there; whatever read(2) answers.
    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()>;
}

impl<T: AsRef<[u8]> + Send + Sync> ReadAt for T {
    fn len_bytes(&self) -> u64 {
        self.as_ref().len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        let bytes = usize::try_from(at)
            .ok()
            .and_then(|at| self.as_ref().get(at..at.checked_add(buf.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}
