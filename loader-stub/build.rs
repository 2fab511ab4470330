//! Builds the loader stub.

fn main() {}
