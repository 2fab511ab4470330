//! Emulated boards: what they are, whether they can be had here, how they are made and run.
//!
//! A test that has this has `common`, `launch` and `release` beside it.

pub(crate) mod board;
pub(crate) mod machine;
pub(crate) mod newc;
pub(crate) mod possible;
pub(crate) mod rig;
pub(crate) mod system;
