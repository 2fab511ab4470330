//! Execute in place (XIP) from a cramfs image, in user space.
//!
//! The modules stand in the order in which data flows through them; each uses only what stands before it.

#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

pub mod sys;

pub mod config;
pub mod error;
pub mod feature;
pub mod units;

pub mod backing;

pub mod elf;

pub mod cramfs;
pub mod extent;
pub mod index;
pub mod plan;
pub mod trace;
pub mod view;

pub mod access;
pub mod search;
pub mod session;

pub mod init;

pub mod probe;

pub mod inspect;
pub mod report;

pub mod trial;

pub mod picture;
