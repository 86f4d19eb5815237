//! Frames of a switch that is being drained: answers with bytes changed, and any bytes.

#![no_main]

use std::time::Duration;

use flowradar_core::hash::HashFamilyId;
use flowradar_core::layout::{CellWidths, Coupling, FilterLayout, Layout, TableLayout};
use flowradar_p4::config::ProgramConfig;
use flowradar_p4::drain::{Control, DrainTiming, Reply, Step, Task};
use libfuzzer_sys::fuzz_target;

const FRAMES_MAX: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    let program = program();
    let mut task = Control::query(&program, DrainTiming::default());
    let mut rest = bytes;
    for number in 0..FRAMES_MAX {
        let now = Duration::from_millis(number as u64);
        let request = match task.poll(now) {
            Ok(Step::Send(request)) => Some(request),
            Ok(Step::Wait(_)) => None,
            Ok(Step::Done) | Err(_) => return,
        };
        let Some(length) = rest.split_off_first() else {
            return;
        };
        let length = usize::from(*length).min(rest.len());
        let change = rest.split_off(..length).unwrap_or_default();
        // The request itself, turned into an answer by what is XORed to it.
        let mut frame = request.unwrap_or_default();
        frame.resize(frame.len().max(change.len()), 0);
        for (byte, change) in frame.iter_mut().zip(change) {
            *byte ^= change;
        }
        if let Ok(reply) = Reply::parse(&frame) {
            let _ = reply.state();
        }
        if task.handle(&frame).is_err() {
            return;
        }
    }
});

fn program() -> ProgramConfig {
    let widths = CellWidths::new(8, 24, 40).expect("widths");
    let table = TableLayout::new(3, 101, Coupling::Plain, widths).expect("a table");
    let filter = FilterLayout::partitioned(11, 333).expect("a filter");
    let layout = Layout::new(HashFamilyId::Mix64, 77, table, filter).expect("a layout");
    ProgramConfig::new(Some(layout), None).expect("a program")
}
