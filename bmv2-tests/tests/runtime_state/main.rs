//! What a controller changes while a program runs: the same P4Runtime writes and packets to the embedded
//! switch and to bmv2.
//!
//! `expected` has what the P4Runtime specification says, by hand, and holds both targets to it; what bmv2
//! does otherwise is listed beside it, and in docs/switch.md. `random` lets both do the same at random.

mod expected;
mod packet;
mod random;
mod subject;
