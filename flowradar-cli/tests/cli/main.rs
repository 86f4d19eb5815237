//! Tests of the `flowradar` command as a user runs it: the real binary, files, exit codes.

mod support;

mod analyze;
#[cfg(unix)]
mod collect;
mod decode;
mod encode;
mod help;
mod net_decode;
mod plan;
mod real_traces;
mod simulate;
