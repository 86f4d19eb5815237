//! Packets through the test programs: which program, then frames, each after its port and length.

#![no_main]

use std::path::Path;
use std::sync::{Arc, OnceLock};

use flowradar_switch::{Outputs, Pipeline, PipelineConfig, Program, Timestamp};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    static PROGRAMS: OnceLock<Vec<Arc<Program>>> = OnceLock::new();
    let programs = PROGRAMS.get_or_init(programs);
    let mut rest = bytes;
    let Some(choice) = rest.split_off_first() else {
        return;
    };
    let Some(program) = programs.get(usize::from(*choice) % programs.len()) else {
        return;
    };
    let mut pipeline = Pipeline::new(Arc::clone(program), PipelineConfig::default());
    let mut outputs = Outputs::new();
    let mut count = 0;
    while let Some([port, length]) = rest.split_off(..2) {
        let length = usize::from(*length).min(rest.len());
        let frame = rest.split_off(..length).unwrap_or_default();
        count += 1;
        let now = Timestamp::from_microseconds(count);
        pipeline.process((*port).into(), frame, now, &mut outputs);
        pipeline.tick(now, &mut outputs);
        outputs.clear();
    }
    assert_eq!(pipeline.counters().frames_in, count);
});

fn programs() -> Vec<Arc<Program>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let small = root.join("flowradar-switch/tests/programs/compiled");
    let files = std::fs::read_dir(small).expect("the programs are there");
    let mut paths: Vec<_> = files
        .map(|file| file.expect("it is a file").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    paths.sort();
    paths.push(root.join("p4src/v1model/compiled/switch.json"));
    let load = |path: &std::path::PathBuf| {
        let json = std::fs::read(path).expect("the program is there");
        Arc::new(Program::from_json(&json).expect("the program is supported"))
    };
    paths.iter().map(load).collect()
}
