//! One suite, two targets: the embedded switch always, bmv2's `simple_switch_grpc` where it is on PATH.
//!
//! | `FLOWRADAR_TARGET` | runs on |
//! | --- | --- |
//! | `embedded` | the embedded switch |
//! | `bmv2` | bmv2; fails where it cannot |
//! | `both`, or not set | the embedded switch, and bmv2 where it can; says loudly where it cannot |
//!
//! bmv2 needs `simple_switch_grpc` and `ip` on PATH, and the right to make network interfaces (root). The
//! test process holds the other end of every port, so it is the wire: it carries frames between
//! switches, loses those that it is told to, and so knows what every switch saw.
//!
//! - [`targets`]: which targets to run on.
//! - [`switch`]: a switch of either kind, with its ports, for the networks of `flowradar-testbed`.

pub mod switch;
pub mod targets;
