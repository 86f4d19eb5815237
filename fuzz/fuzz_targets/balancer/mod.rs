//! What the targets of the balancer share.

// Each target uses its part of this.
#![allow(dead_code)]

use std::net::SocketAddr;

use flowradar_balancer::Timestamp;
use flowradar_balancer::engine::{
    AssignmentUnit, Engine, EnginePlan, GroupPlan, Outgoing, Output, RoutePlan,
};
use flowradar_balancer::policy::{BackEndId, BackEndSettings, BalancerSettings};
use flowradar_balancer::wire::Header;

/// One exporter of all.
pub const SOURCE: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
    4242,
);

/// Holds that whatever is sent is an export of the kind that came in, to a collector that there is.
#[derive(Default)]
pub struct Checked {
    pub messages: u64,
    pub bytes: u64,
    pub records: u64,
}

impl Output for Checked {
    fn send(&mut self, destination: BackEndId, message: Outgoing<'_>) {
        assert!(destination.0 < 3);
        let bytes = message.to_vec();
        assert_eq!(bytes.len(), message.bytes.len());
        Header::read(&bytes).expect("what is sent has a good header");
        self.messages += 1;
        self.bytes += bytes.len() as u64;
        self.records += u64::from(message.records);
    }
}

/// Three collectors and everything assigned by this unit.
pub fn plan(unit: AssignmentUnit) -> EnginePlan {
    let members = (0..3).map(|id| BackEndSettings::new(BackEndId(id), format!("collector {id}")));
    let mut plan = EnginePlan {
        groups: vec![GroupPlan {
            name: "group".to_owned(),
            balancer: BalancerSettings::default(),
            unit,
            members: members.collect(),
        }],
        routes: vec![RoutePlan {
            name: "all".to_owned(),
            prefixes: vec![
                "0.0.0.0/0".parse().expect("a prefix"),
                "::/0".parse().expect("a prefix"),
            ],
            group: Some(0),
        }],
        ..EnginePlan::default()
    };
    // Small, so that they are reached.
    plan.limits.exporters = 8;
    plan.limits.streams = 16;
    plan.limits.streams_per_exporter = 4;
    plan.limits.state_bytes = 16 << 10;
    plan.limits.state.templates = 16;
    plan.limits.state.options_records = 16;
    plan.waiting.bytes = 64 << 10;
    plan.waiting.bytes_per_stream = 16 << 10;
    plan.replay_bytes = 16 << 10;
    plan
}

/// Datagrams, each behind its length, through engines of all units. Every flow record goes to exactly
/// one collector.
pub fn run(bytes: &[u8], protocol_starts: &[u8]) {
    for unit in [
        AssignmentUnit::Stream,
        AssignmentUnit::Message,
        AssignmentUnit::Record,
    ] {
        let mut engine = Engine::new(plan(unit), Timestamp::ZERO);
        let mut sent = Checked::default();
        let mut rest = bytes;
        let mut now = 0;
        while let [high, low, after @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]) % 2048).min(after.len());
            let (datagram, next) = after.split_at(length);
            rest = next;
            let mut datagram = datagram.to_vec();
            for (place, start) in datagram.iter_mut().zip(protocol_starts) {
                *place = *start;
            }
            // IPFIX has its own length: put it right half of the time.
            if protocol_starts == [0, 10] && low & 1 == 0 && datagram.len() >= 4 {
                let length = (datagram.len() as u16).to_be_bytes();
                datagram[2..4].copy_from_slice(&length);
            }
            now += 1;
            engine.handle(&datagram, SOURCE, Timestamp::from_millis(now), &mut sent);
        }
        engine.tick(Timestamp::from_millis(now + 1_000_000), &mut sent);
        let counters = engine.counters();
        assert!(engine.memory_bytes() <= (16 << 10) + (64 << 10));
        assert_eq!(
            counters.waited,
            counters.waited_released + counters.sent_without_template.min(counters.waited)
        );
        assert!(
            sent.records >= counters.records || counters.bad_bodies > 0,
            "records vanished"
        );
        if unit != AssignmentUnit::Stream {
            assert!(sent.records <= counters.records, "records appeared");
        }
    }
}
