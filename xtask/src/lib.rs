//! What `cargo xtask` does, as a library for its tests.

pub mod p4;
