//! Frames, times and failures into the dispatcher: it never panics, its counters add up, and its table
//! stays within its bounds.
#![no_main]

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use flowradar_balancer::Timestamp;
use flowradar_balancer::dispatch::{Dispatcher, DispatcherSettings, EthernetFrame, Packet};
use flowradar_balancer::policy::{Availability, BackEndId, BackEndSettings, Policy};
use flowradar_core::packet::LinkType;
use libfuzzer_sys::fuzz_target;

const SERVERS: u16 = 3;

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Frame {
        link_type: u16,
        bytes: &'a [u8],
        wire_bytes: u32,
        pause_ms: u16,
    },
    Availability {
        server: u8,
        availability: u8,
    },
    Report {
        server: u8,
        load: f64,
        residual: Option<f64>,
    },
    Leap {
        seconds: u32,
    },
}

fn run(mut input: Unstructured<'_>) -> arbitrary::Result<()> {
    let policy = match input.int_in_range(0..=5)? {
        0 => Policy::RoundRobin,
        1 => Policy::LeastLoaded,
        2 => Policy::EstimatedLoad {
            horizon: Duration::from_millis(100),
        },
        3 => Policy::Rendezvous { load_bound: None },
        4 => Policy::Rendezvous {
            load_bound: Some(0.25),
        },
        _ => Policy::Fixed {
            routes: vec![("10.0.0.0/8".parse().expect("a prefix"), vec![BackEndId(1)])],
        },
    };
    let room = usize::from(input.arbitrary::<u8>()?) % 20;
    let settings = DispatcherSettings {
        flows: room,
        datagrams: 4,
        ..DispatcherSettings::new(policy)
    };
    let servers =
        (0..SERVERS).map(|id| BackEndSettings::new(BackEndId(id), format!("server {id}")));
    let mut dispatcher = Dispatcher::new(settings, servers, Timestamp::ZERO);
    let mut now = Timestamp::ZERO;
    let mut offered = 0;
    for step in input.arbitrary_iter()? {
        match step? {
            Step::Frame {
                link_type,
                bytes,
                wire_bytes,
                pause_ms,
            } => {
                now = now + Duration::from_millis(pause_ms.into());
                let Some(link_type) = LinkType::from_pcap(link_type.into()) else {
                    continue;
                };
                if let Some(frame) = EthernetFrame::of(link_type, bytes) {
                    let mut copy = vec![];
                    frame.append_to(&mut copy);
                    assert_eq!(copy.len(), frame.len());
                }
                if let Ok(Some(packet)) = Packet::of_frame(link_type, bytes, wire_bytes) {
                    dispatcher.dispatch(&packet, now);
                    offered += 1;
                }
            }
            Step::Availability {
                server,
                availability,
            } => {
                let availability = match availability % 3 {
                    0 => Availability::Up,
                    1 => Availability::Draining,
                    _ => Availability::Down,
                };
                let id = BackEndId(u16::from(server) % SERVERS);
                dispatcher.set_availability(id, availability, now);
            }
            Step::Report {
                server,
                load,
                residual,
            } => {
                let id = BackEndId(u16::from(server) % SERVERS);
                dispatcher.set_reported_load(id, Some(load));
                dispatcher.set_residual(id, residual);
            }
            Step::Leap { seconds } => {
                now = now + Duration::from_secs(seconds.into());
                dispatcher.tick(now, 100);
            }
        }
        assert!(dispatcher.flows() <= room);
    }
    let counters = dispatcher.counters();
    assert_eq!(counters.packets, offered);
    assert_eq!(
        counters.packets,
        counters.tracked_packets + counters.untracked_packets + counters.packets_without_back_end
    );
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    // Input that ends early is no fault.
    let _ = run(Unstructured::new(data));
});
