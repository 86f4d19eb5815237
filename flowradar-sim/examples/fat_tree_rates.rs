//! How fast a fat tree is simulated, encoded and its truth collected on this machine.
//!
//! ```text
//! cargo run --release -p flowradar-sim --example fat_tree_rates -- 8 100000
//! ```

use std::time::Instant;

use flowradar_core::plan::PlanRequest;
use flowradar_sim::encode::encode;
use flowradar_sim::{Faults, Simulation, Topology, Truth};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let k = arguments.next().map_or(Ok(8), |text| text.parse())?;
    let flows_per_switch = arguments.next().map_or(Ok(10_000), |text| text.parse())?;

    let began = Instant::now();
    let simulation = Simulation::builder(Topology::fat_tree(k)?)
        .flows_per_switch(flows_per_switch)
        .faults(Faults {
            lossy_flows: 0.02,
            ..Faults::default()
        })
        .build()?;
    println!("{:?} to build", began.elapsed());

    let began = Instant::now();
    let summary = simulation.summary();
    println!(
        "{:?} to forward {} packets of {} flows",
        began.elapsed(),
        summary.packets_sent,
        summary.flow_epochs
    );

    let began = Instant::now();
    let layout = PlanRequest::flows(u64::from(flows_per_switch))
        .plan()?
        .layout;
    let mut bytes = 0;
    encode(&simulation, &layout, |_, reports| {
        bytes += reports
            .iter()
            .map(|report| report.flowset.len())
            .sum::<usize>();
    });
    println!("{:?} to encode {bytes} bytes of flowsets", began.elapsed());

    let began = Instant::now();
    let truth = Truth::of(&simulation);
    println!(
        "{:?} to collect {} records of the truth",
        began.elapsed(),
        truth.records().len()
    );
    Ok(())
}
