//! NetFlow v5 datagrams, each behind its length, through the engine in every unit.
#![no_main]

#[path = "balancer/mod.rs"]
mod balancer;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| balancer::run(bytes, &[0, 5]));
