//! What the `flowradar` command is made of.

pub mod trace;
