//! NetDecode of a k = 8 fat tree (80 switches): `cargo bench -p flowradar-collector --bench net_decode`.
//!
//! `FLOWRADAR_FLOWS_PER_SWITCH` sets the flows at each switch (10,000), `RAYON_NUM_THREADS` the threads.

use criterion::{Criterion, criterion_group, criterion_main};
use flowradar_collector::{NetDecodeOptions, net_decode};
use flowradar_core::plan::PlanRequest;
use flowradar_core::{FlowKeyV4, Flowset};
use flowradar_sim::encode::encode;
use flowradar_sim::{Faults, Simulation, Topology};

/// Flowsets of all switches, in which some flows lost packets.
fn flowsets(
    flows: u32,
    hashes: u8,
    cells_per_flow: f64,
    lossy_flows: f64,
) -> Vec<Flowset<Vec<u8>>> {
    let faults = Faults {
        lossy_flows,
        ..Faults::default()
    };
    let simulation = Simulation::builder(Topology::fat_tree(8).expect("even and small"))
        .flows_per_switch(flows)
        .faults(faults)
        .seed(3)
        .build()
        .expect("a network as in the paper");
    let request = PlanRequest::flows(flows.into())
        .hashes(hashes)
        .cells_per_flow(cells_per_flow);
    let layout = request.plan().expect("a table of its size").layout;
    let mut flowsets = Vec::new();
    encode(&simulation, &layout, |_, reports| {
        let reports = reports.into_iter();
        flowsets.extend(
            reports.map(|report| Flowset::new_checked(report.flowset).expect("an encoder made it")),
        );
    });
    flowsets
}

fn net_decode_fat_tree(criterion: &mut Criterion) {
    let flows = match std::env::var("FLOWRADAR_FLOWS_PER_SWITCH") {
        Ok(flows) => flows
            .parse()
            .unwrap_or_else(|_| panic!("FLOWRADAR_FLOWS_PER_SWITCH={flows} is not a number")),
        Err(_) => 10_000,
    };
    let mut group = criterion.benchmark_group(format!("NetDecode, 80 switches x {flows} flows"));
    group.sample_size(10);
    for (name, hashes, cells_per_flow, lossy_flows) in [
        ("per switch: k = 4, 1.025 cells a flow", 4, 1.025, 0.0),
        ("joint: k = 3, 0.68 cells a flow, 2 % lossy", 3, 0.68, 0.02),
    ] {
        let flowsets = flowsets(flows, hashes, cells_per_flow, lossy_flows);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let decoded = net_decode::<FlowKeyV4, _>(&flowsets, &NetDecodeOptions::default())
                    .expect("flowsets of one epoch");
                assert_eq!(decoded.summary.unresolved, 0);
                decoded
            });
        });
    }
    group.finish();
}

criterion_group!(benches, net_decode_fat_tree);
criterion_main!(benches);
