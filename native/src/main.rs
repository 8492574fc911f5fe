//! The globe command line.
fn main() {}
