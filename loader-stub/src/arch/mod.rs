//! What differs between architectures. Every file has the same names.

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
#[cfg_attr(target_arch = "arm", path = "arm.rs")]
#[cfg_attr(target_arch = "riscv64", path = "riscv64.rs")]
mod this;

#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
mod registers;

#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
#[allow(unused_imports, reason = "they are the session's only")]
pub use registers::{RED_ZONE_BYTES, WayBack};
pub use this::*;

/// Where this copy of the stub is mapped: at the linker's base, if it was executed as what is linked.
pub fn stub_base() -> usize {
    start_address() - crate::wire::CODE as usize
}
