//! CounterDecode on a k = 8 fat tree (80 switches), over all switches and switch by switch.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flowradar_collector::counter::{CounterOptions, SwitchSystem, solve_counters};

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../src/counter/fixture.rs"]
mod fixture;

use fixture::NetworkSpec;

fn counter_decode(criterion: &mut Criterion) {
    let joint = NetworkSpec {
        flows_per_switch: 2000,
        ..NetworkSpec::default()
    };
    let single = NetworkSpec {
        hashes: 4,
        cells_per_flow: 1.025,
        flows_per_switch: 10_000,
        ..joint
    };
    // No flow has only one packet: the equations have to be eliminated.
    let elephants = NetworkSpec {
        fewest_packets: 50,
        cells_per_flow: 1.05,
        arity: 4,
        ..single
    };
    let mut group = criterion.benchmark_group("counter_decode");
    group.sample_size(10);
    for (name, spec) in [
        ("joint, k=3, 0.68 cells a flow, 80 x 2,000 flows", joint),
        (
            "switch by switch, k=4, 1.025 cells a flow, 80 x 10,000 flows",
            single,
        ),
        (
            "switch by switch, eliminated, k=4, 1.05 cells a flow, 20 x 10,000 flows",
            elephants,
        ),
    ] {
        let network = spec.make();
        let counters: usize = network
            .systems
            .iter()
            .map(|system| system.flows.len())
            .sum();
        group.throughput(Throughput::Elements(counters as u64));
        group.bench_function(name, |bencher| {
            let options = CounterOptions::default();
            bencher
                .iter(|| solve_counters(black_box(network.flow_count), &network.systems, &options));
        });
    }
    group.finish();
}

criterion_group!(benches, counter_decode);
criterion_main!(benches);
