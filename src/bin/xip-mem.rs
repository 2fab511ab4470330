//! Measures what runs from flash.

fn main() {}
