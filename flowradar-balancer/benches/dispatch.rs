//! The way of a packet through the dispatcher: parse, look up, update, choose, with a million
//! active flows. The paper's dispatcher took 1,400 ns for it on its machine (section 3.1).
//!
//! `cargo bench -p flowradar-balancer --bench dispatch --no-default-features`

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flowradar_balancer::Timestamp;
use flowradar_balancer::dispatch::{Dispatcher, DispatcherSettings, Packet};
use flowradar_balancer::policy::{BackEndId, BackEndSettings, Policy};
use flowradar_core::packet::LinkType;

const FLOWS: u32 = 1_000_000;
const SERVERS: u16 = 4;
/// Packets of a measurement; every one of another flow than those before it.
const PACKETS: usize = 1 << 16;
const FRAME_BYTES: usize = 64;
/// Ten packets a second of each flow, as in the paper.
const PACKET_INTERVAL_NS: u64 = 100;

/// An Ethernet frame with a TCP acknowledgement of a flow.
fn frame(flow: u32) -> [u8; FRAME_BYTES] {
    let mut frame = [0; FRAME_BYTES];
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&50_u16.to_be_bytes());
    frame[22] = 64;
    frame[23] = 6;
    let client = 0x0a00_0000 | flow >> 4;
    frame[26..30].copy_from_slice(&client.to_be_bytes());
    frame[30..34].copy_from_slice(&[192, 0, 2, 1]);
    frame[34..36].copy_from_slice(&(40_000 + (flow & 15) as u16).to_be_bytes());
    frame[36..38].copy_from_slice(&443_u16.to_be_bytes());
    frame[46] = 0x50;
    frame[47] = 0x10;
    frame
}

/// A permutation of the flows without a pattern for the processor to guess.
fn scattered(number: u64) -> u32 {
    let mut word = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((word >> 24) % u64::from(FLOWS)) as u32
}

fn parse(frame: &[u8; FRAME_BYTES]) -> Packet {
    Packet::of_frame(LinkType::Ethernet, frame, FRAME_BYTES as u32)
        .expect("a well-formed frame")
        .expect("an IP packet")
}

fn dispatch(criterion: &mut Criterion) {
    let policies = [
        ("round robin", Policy::RoundRobin),
        ("least loaded", Policy::LeastLoaded),
        (
            "estimated load",
            Policy::EstimatedLoad {
                horizon: Duration::from_millis(100),
            },
        ),
        ("consistent hash", Policy::Rendezvous { load_bound: None }),
    ];
    let mut group = criterion.benchmark_group("dispatch, 1,000,000 active flows");
    group.throughput(Throughput::Elements(PACKETS as u64));
    group.sample_size(20);
    for (name, policy) in policies {
        let servers =
            (0..SERVERS).map(|id| BackEndSettings::new(BackEndId(id), format!("server {id}")));
        let mut settings = DispatcherSettings::new(policy);
        settings.flows = 1 << 20;
        let mut dispatcher = Dispatcher::new(settings, servers, Timestamp::ZERO);
        let mut clock = 0;
        let mut next = || {
            clock += 1;
            (clock, Timestamp::from_nanos(clock * PACKET_INTERVAL_NS))
        };
        for flow in 0..FLOWS {
            dispatcher.dispatch(&parse(&frame(flow)), next().1);
        }
        assert_eq!(dispatcher.flows(), FLOWS as usize);
        let mut batch = Vec::with_capacity(PACKETS);
        let mut back_ends = Vec::with_capacity(PACKETS);
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || -> Vec<([u8; FRAME_BYTES], Timestamp)> {
                    let frames = (0..PACKETS).map(|_| {
                        let (number, at) = next();
                        (frame(scattered(number)), at)
                    });
                    frames.collect()
                },
                |frames| {
                    for frames in frames.chunks(32) {
                        batch.clear();
                        back_ends.clear();
                        batch.extend(frames.iter().map(|(frame, at)| (parse(frame), *at)));
                        dispatcher.dispatch_batch(&batch, &mut back_ends);
                        black_box(&back_ends);
                    }
                },
                criterion::BatchSize::LargeInput,
            );
        });
        let counters = dispatcher.counters();
        assert_eq!(
            (counters.affinity_breaks, counters.untracked_packets),
            (0, 0)
        );
    }
    group.finish();
}

criterion_group!(benches, dispatch);
criterion_main!(benches);
