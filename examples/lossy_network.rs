//! A network: simulate a fat tree in which some flows lose packets, decode all switches together, and
//! find the flows that lost and where. Run with
//! `cargo run --release -p flowradar-examples --bin lossy_network`.

use std::collections::BTreeMap;
use std::error::Error;

use flowradar_collector::{NetDecodeOptions, net_decode};
use flowradar_core::plan::PlanRequest;
use flowradar_core::{FlowKeyV4, Flowset};
use flowradar_sim::encode::encode;
use flowradar_sim::{Faults, Simulation, Topology};

fn main() -> Result<(), Box<dyn Error>> {
    let faults = Faults {
        lossy_flows: 0.01,
        ..Faults::default()
    };
    let simulation = Simulation::builder(Topology::fat_tree(4)?)
        .flows_per_switch(2_000)
        .faults(faults)
        .seed(7)
        .build()?;
    // Half the memory that a switch alone would need.
    let layout = PlanRequest::flows(2_000)
        .cells_per_flow(0.75)
        .plan()?
        .layout;

    let mut outcome = Ok(());
    encode(&simulation, &layout, |_epoch, reports| {
        outcome = decode(reports.into_iter().map(|report| report.flowset));
    });
    outcome
}

fn decode(reports: impl Iterator<Item = Vec<u8>>) -> Result<(), Box<dyn Error>> {
    let flowsets = reports
        .map(Flowset::new_checked)
        .collect::<Result<Vec<_>, _>>()?;
    let decoded = net_decode::<FlowKeyV4, _>(&flowsets, &NetDecodeOptions::default())?;
    println!("{:?}", decoded.summary);

    // The counters of each flow along its path. Those that differ lost packets on the way.
    let mut hops: BTreeMap<FlowKeyV4, Vec<(&str, u64)>> = BTreeMap::new();
    for switch in &decoded.switches {
        for flow in &switch.flows {
            if flow.packets.status.is_resolved() {
                let hop = (switch.switch.as_str(), flow.packets.value);
                hops.entry(flow.key).or_default().push(hop);
            }
        }
    }
    let lossy: Vec<_> = hops
        .iter()
        .filter(|(_, hops)| hops.iter().any(|hop| hop.1 != hops[0].1))
        .collect();
    println!(
        "{} of {} flows lost packets, for example",
        lossy.len(),
        hops.len()
    );
    for (key, hops) in lossy.iter().take(5) {
        println!("  {key}: {hops:?}");
    }
    Ok(())
}
