//! Launches a program in place from a cramfs image.

fn main() {}
