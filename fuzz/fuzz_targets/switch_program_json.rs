//! Programs: any bytes are loaded or refused, and what is loaded takes any packet.

#![no_main]

use std::sync::Arc;

use flowradar_switch::{Outputs, Pipeline, PipelineConfig, Program, Timestamp};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let program = match Program::from_json(bytes) {
        Ok(program) => Arc::new(program),
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let mut pipeline = Pipeline::new(program, PipelineConfig::default());
    let mut outputs = Outputs::new();
    for (port, frame) in [(0, &[][..]), (1, &[0; 64]), (2, &[0xff; 200])] {
        pipeline.process(
            port,
            frame,
            Timestamp::from_microseconds(port.into()),
            &mut outputs,
        );
        outputs.clear();
    }
});
