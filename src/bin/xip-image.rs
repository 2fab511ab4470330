//! Builds and inspects cramfs images.

fn main() {}
