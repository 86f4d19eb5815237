//! Topology files: a topology that reads back from what it writes, or an error.
#![no_main]

use flowradar_sim::Topology;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Topology::from_json(text) {
        Ok(topology) => assert_eq!(Topology::from_json(&topology.to_json()), Ok(topology)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
