//! The engine alone: a datagram of 30 records in, what the collectors get out.

use std::hint::black_box;
use std::net::SocketAddr;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use flowradar_balancer::Timestamp;
use flowradar_balancer::config::{Config, DestinationIds, PolicyName};
use flowradar_balancer::engine::{AssignmentUnit, Engine, Outgoing, Output};
use flowradar_balancer::io::bench::{Exports, RECORDS};
use flowradar_balancer::policy::BackEndId;
use flowradar_balancer::wire::Protocol;

/// Copies what it is given, as a sender's queue does.
#[derive(Default)]
struct Copies(Vec<u8>);

impl Output for Copies {
    fn send(&mut self, _: BackEndId, message: Outgoing<'_>) {
        self.0.clear();
        message.append_to(&mut self.0);
    }
}

fn engine(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine");
    group.throughput(Throughput::Elements(u64::from(RECORDS)));
    let source = SocketAddr::from(([192, 0, 2, 1], 4242));
    let collectors: Vec<SocketAddr> = (0..4)
        .map(|port| SocketAddr::from(([127, 0, 0, 1], 9000 + port)))
        .collect();
    for protocol in [Protocol::NetflowV5, Protocol::NetflowV9, Protocol::Ipfix] {
        for unit in [
            AssignmentUnit::Stream,
            AssignmentUnit::Message,
            AssignmentUnit::Record,
        ] {
            let listen = vec![SocketAddr::from(([127, 0, 0, 1], 2055))];
            let config = Config::simple(listen, &collectors, &[], unit, PolicyName::Rendezvous);
            let compiled = config
                .compile(&mut DestinationIds::default())
                .expect("a good configuration");
            let mut engine = Engine::new(compiled.plan, Timestamp::ZERO);
            let mut output = Copies::default();
            let mut exports = Exports::new(protocol);
            if let Some(template) = exports.template() {
                engine.handle(&template, source, Timestamp::ZERO, &mut output);
            }
            let mut now = 0;
            group.bench_function(format!("{protocol} by {unit:?}"), |bencher| {
                bencher.iter_batched(
                    || exports.next_datagram().to_vec(),
                    |datagram| {
                        now += 30_000;
                        engine.handle(&datagram, source, Timestamp::from_nanos(now), &mut output);
                        black_box(output.0.len());
                    },
                    BatchSize::SmallInput,
                );
            });
        }
    }
    group.finish();
}

criterion_group!(benches, engine);
criterion_main!(benches);
