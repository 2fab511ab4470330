//! Invariant: that of ../targets/extract.rs.
#![no_main]

#[path = "../../common/mod.rs"]
mod common;
mod limit;
#[path = "../targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::extract::run(bytes));
