//! Datagrams of many exporters while collectors fail, plans change and time passes: memory stays
//! within its limits, and what is sent is good.
#![no_main]

#[path = "balancer/mod.rs"]
mod balancer;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use arbitrary::Arbitrary;
use flowradar_balancer::Timestamp;
use flowradar_balancer::engine::{AssignmentUnit, CopyPlan, Engine};
use flowradar_balancer::policy::{Availability, BackEndId, Policy};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Datagram {
        exporter: u8,
        port: bool,
        format: u8,
        bytes: &'a [u8],
    },
    Time {
        millis: u16,
    },
    Availability {
        collector: u8,
        state: u8,
    },
    Forget {
        collector: u8,
    },
    Load {
        collector: u8,
        load: Option<f64>,
    },
    Plan {
        unit: u8,
        policy: u8,
        members: u8,
        replay: bool,
        thin: u8,
    },
}

fn unit(number: u8) -> AssignmentUnit {
    [
        AssignmentUnit::Exporter,
        AssignmentUnit::Stream,
        AssignmentUnit::Message,
        AssignmentUnit::Record,
    ][usize::from(number % 4)]
}

fuzz_target!(|steps: Vec<Step<'_>>| {
    let mut engine = Engine::new(balancer::plan(AssignmentUnit::Message), Timestamp::ZERO);
    let mut sent = balancer::Checked::default();
    let mut now = Timestamp::ZERO;
    for step in steps {
        match step {
            Step::Datagram {
                exporter,
                port,
                format,
                bytes,
            } => {
                let mut bytes = bytes.to_vec();
                let starts: [&[u8]; 5] = [&[0, 5], &[0, 9], &[0, 10], &[0, 0, 0, 5], &[]];
                for (place, start) in bytes.iter_mut().zip(starts[usize::from(format % 5)]) {
                    *place = *start;
                }
                if format % 5 == 2 && bytes.len() >= 4 {
                    let length = (bytes.len() as u16).to_be_bytes();
                    bytes[2..4].copy_from_slice(&length);
                }
                let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, exporter));
                engine.handle(
                    &bytes,
                    SocketAddr::new(address, 1000 + u16::from(port)),
                    now,
                    &mut sent,
                );
            }
            Step::Time { millis } => {
                now = now + Duration::from_millis(u64::from(millis));
                engine.tick(now, &mut sent);
            }
            Step::Availability { collector, state } => {
                let state = [Availability::Up, Availability::Draining, Availability::Down]
                    [usize::from(state % 3)];
                engine.set_availability(BackEndId(u16::from(collector % 3)), state, now, &mut sent);
            }
            Step::Forget { collector } => engine.forget_memory(BackEndId(u16::from(collector % 3))),
            Step::Load { collector, load } => {
                engine.set_reported_load(BackEndId(u16::from(collector % 3)), load)
            }
            Step::Plan {
                unit: number,
                policy,
                members,
                replay,
                thin,
            } => {
                let mut plan = balancer::plan(unit(number));
                plan.stream_key.source_port = policy & 0x80 != 0;
                plan.groups[0].balancer.policy = match policy % 4 {
                    0 => Policy::RoundRobin,
                    1 => Policy::Rendezvous {
                        load_bound: Some(0.25),
                    },
                    2 => Policy::LeastLoaded,
                    _ => Policy::EstimatedLoad {
                        horizon: Duration::from_secs(1),
                    },
                };
                plan.groups[0].members.truncate(usize::from(members % 4));
                plan.replay = Duration::from_millis(if replay { 500 } else { 0 });
                if thin > 0 {
                    plan.copies.push(CopyPlan {
                        name: "copy".to_owned(),
                        destination: BackEndId(2),
                        prefixes: Vec::new(),
                        protocols: Vec::new(),
                        one_in: u32::from(thin % 4),
                    });
                }
                engine.set_plan(plan, now);
            }
        }
        let (exporters, streams) = engine.known();
        assert!(exporters <= 8 && streams <= 16);
        assert!(engine.memory_bytes() <= (16 << 10) + (64 << 10) + (64 << 10) + (16 << 10));
    }
    engine.snapshot(100, now);
});
