//! The `flowradar` command.
fn main() {}
