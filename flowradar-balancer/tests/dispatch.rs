//! What the dispatcher promises, as properties.

use std::collections::HashMap;
use std::time::Duration;

use flowradar_balancer::Timestamp;
use flowradar_balancer::dispatch::{
    Direction, Dispatcher, DispatcherSettings, Fragment, Packet, TcpFlags, Timeouts,
};
use flowradar_balancer::policy::{Availability, BackEndId, BackEndSettings, Policy};
use flowradar_core::FlowKeyV4;
use proptest::prelude::*;

const SYN: TcpFlags = TcpFlags::from_bits(0x02);
const ACK: TcpFlags = TcpFlags::from_bits(0x10);
const FIN_ACK: TcpFlags = TcpFlags::from_bits(0x11);
const RST: TcpFlags = TcpFlags::from_bits(0x04);

fn dispatcher(settings: DispatcherSettings, servers: u16) -> Dispatcher {
    let servers =
        (0..servers).map(|id| BackEndSettings::new(BackEndId(id), format!("server {id}")));
    Dispatcher::new(settings, servers, Timestamp::ZERO)
}

/// A packet of a flow, one way or the other.
fn packet(flow: u16, back: bool, protocol: u8) -> Packet {
    let (client, server) = ([10, 0, (flow >> 8) as u8, flow as u8], [192, 0, 2, 1]);
    let key = if back {
        FlowKeyV4::new(server.into(), client.into(), 80, 40_000 + flow, protocol)
    } else {
        FlowKeyV4::new(client.into(), server.into(), 40_000 + flow, 80, protocol)
    };
    Packet::of_key_v4(&key, 100)
}

fn policies() -> impl Strategy<Value = Policy> {
    prop_oneof![
        Just(Policy::RoundRobin),
        Just(Policy::Rendezvous { load_bound: None }),
        Just(Policy::Rendezvous {
            load_bound: Some(0.25)
        }),
        Just(Policy::LeastLoaded),
        Just(Policy::EstimatedLoad {
            horizon: Duration::from_millis(100)
        }),
        Just(fixed()),
    ]
}

fn fixed() -> Policy {
    let route = |prefix: &str, id| (prefix.parse().expect("a prefix"), vec![BackEndId(id)]);
    Policy::Fixed {
        routes: vec![route("10.0.0.0/28", 0), route("10.0.0.16/28", 1)],
    }
}

/// Flow, direction, milliseconds since the packet before.
fn traffic() -> impl Strategy<Value = Vec<(u16, bool, u64)>> {
    prop::collection::vec((0_u16..40, any::<bool>(), 0_u64..400), 1..400)
}

proptest! {
    /// A flow stays where it is as long as it is not silent for longer than its timeout, however
    /// small the table is.
    #[test]
    fn flows_stay_together(policy in policies(), packets in traffic(), room in 0_usize..50) {
        let timeout = Duration::from_secs(2);
        let settings = DispatcherSettings {
            flows: room,
            timeouts: Timeouts { udp: timeout, tcp_opening: timeout, tcp_established: timeout,
                tcp_closing: timeout, tcp_closed: timeout, icmp: timeout, other: timeout },
            ..DispatcherSettings::new(policy)
        };
        let mut dispatcher = dispatcher(settings, 3);
        let mut seen: HashMap<u16, (Option<BackEndId>, Timestamp)> = HashMap::new();
        let mut now = Timestamp::ZERO;
        for &(flow, back, pause_ms) in &packets {
            now = now + Duration::from_millis(pause_ms);
            let chosen = dispatcher.dispatch(&packet(flow, back, 17), now);
            prop_assert!(chosen.is_some());
            if let Some((before, at)) = seen.insert(flow, (chosen, now))
                && now.since(at) <= timeout
            {
                prop_assert_eq!(chosen, before, "flow {} at {:?}", flow, now);
            }
            prop_assert!(dispatcher.flows() <= room);
        }
        let counters = dispatcher.counters();
        prop_assert_eq!(counters.affinity_breaks, 0);
        prop_assert_eq!(counters.packets, packets.len() as u64);
        prop_assert_eq!(counters.packets, counters.tracked_packets + counters.untracked_packets);
    }

    /// A failure moves the flows of the failed server, and no others, and counts them.
    #[test]
    fn failure_moves_its_flows_only(policy in policies(), packets in traffic(), failed in 0_u16..4) {
        let failed = BackEndId(failed);
        let mut dispatcher = dispatcher(DispatcherSettings::new(policy), 4);
        let mut before = HashMap::new();
        for &(flow, back, _) in &packets {
            before.insert(flow, dispatcher.dispatch(&packet(flow, back, 17), Timestamp::ZERO));
        }
        let later = Timestamp::from_millis(10);
        dispatcher.set_availability(failed, Availability::Down, later);
        let mut moved = 0;
        for (&flow, &server) in &before {
            let after = dispatcher.dispatch(&packet(flow, false, 17), later);
            if server == Some(failed) {
                prop_assert!(after.is_some() && after != server);
                moved += 1;
            } else {
                prop_assert_eq!(after, server);
            }
        }
        prop_assert_eq!(dispatcher.counters().flows_moved_by_failure, moved);
        prop_assert_eq!(dispatcher.counters().affinity_breaks, 0);
        // Nothing goes back when it comes back.
        dispatcher.set_availability(failed, Availability::Up, later);
        for &flow in before.keys() {
            prop_assert!(dispatcher.dispatch(&packet(flow, false, 17), later) != Some(failed));
        }
    }

    /// Batches give what packets one by one give.
    #[test]
    fn batches_change_nothing(policy in policies(), packets in traffic(), room in 0_usize..50, fragmented in any::<u64>()) {
        let settings = DispatcherSettings { flows: room, ..DispatcherSettings::new(policy) };
        let (mut one, mut many) = (dispatcher(settings.clone(), 3), dispatcher(settings, 3));
        let mut now = Timestamp::ZERO;
        let packets: Vec<(Packet, Timestamp)> = packets.iter().enumerate().map(|(number, &(flow, back, pause_ms))| {
            now = now + Duration::from_millis(pause_ms);
            let mut packet = packet(flow, back, 17);
            if fragmented >> (number % 64) & 1 == 1 {
                let identification = u32::from(flow);
                packet.fragment = match number % 3 {
                    0 => Fragment::First { identification },
                    _ => {
                        packet.flow = packet.flow.without_ports();
                        Fragment::Later { identification }
                    }
                };
            }
            (packet, now)
        }).collect();
        let expected: Vec<_> = packets.iter().map(|(packet, now)| one.dispatch(packet, *now)).collect();
        let mut found = vec![];
        many.dispatch_batch(&packets, &mut found);
        prop_assert_eq!(found, expected);
        prop_assert_eq!(many.counters(), one.counters());
    }
}

#[test]
fn a_connection_has_a_beginning_a_round_trip_and_an_end() {
    let at = Timestamp::from_millis;
    let mut dispatcher = dispatcher(DispatcherSettings::new(Policy::RoundRobin), 3);
    let mut offer =
        |back, flags, ms| dispatcher.dispatch(&packet(1, back, 6).with_tcp(flags), at(ms));
    let first = offer(false, SYN, 0);
    // The SYN is sent again: the round trip begins with the last (Figure 3 of the paper).
    assert_eq!(offer(false, SYN, 1000), first);
    assert_eq!(offer(true, TcpFlags::from_bits(0x12), 1020), first);
    assert_eq!(offer(false, ACK, 1030), first);
    assert_eq!(offer(true, FIN_ACK, 2000), first);
    assert_eq!(offer(false, FIN_ACK, 2010), first);
    assert_eq!(offer(true, ACK, 2020), first);
    // The next connection between the same ports is another flow.
    let second = offer(false, SYN, 3000);
    assert_ne!(second, first);
    assert_eq!(offer(true, RST, 3001), second);
    let counters = dispatcher.counters();
    assert_eq!(dispatcher.round_trip(), Duration::from_millis(30));
    assert_eq!((counters.flows, counters.flows_from_their_middle), (2, 0));
    assert_eq!((counters.connections_closed, counters.round_trips), (2, 1));
    assert_eq!(dispatcher.flows(), 1);
    // Ten seconds after a RST nothing is left.
    dispatcher.tick(at(14_000), 10);
    assert_eq!(dispatcher.flows(), 0);
    assert_eq!(dispatcher.counters().flows_expired, 1);
}

#[test]
fn flows_are_forgotten_by_protocol_and_state() {
    let timeouts = Timeouts::default();
    let flow = |number, protocol, flags: &[TcpFlags]| {
        let mut settings = DispatcherSettings::new(Policy::RoundRobin);
        settings.timeouts = timeouts;
        let mut dispatcher = dispatcher(settings, 2);
        let packet = packet(number, false, protocol);
        if flags.is_empty() {
            dispatcher.dispatch(&packet, Timestamp::ZERO);
        }
        for &flags in flags {
            dispatcher.dispatch(&packet.with_tcp(flags), Timestamp::ZERO);
        }
        dispatcher
    };
    for (mut dispatcher, timeout) in [
        (flow(1, 17, &[]), timeouts.udp),
        (flow(2, 1, &[]), timeouts.icmp),
        (flow(3, 47, &[]), timeouts.other),
        (flow(4, 6, &[SYN]), timeouts.tcp_opening),
        (flow(5, 6, &[SYN, ACK]), timeouts.tcp_established),
        (flow(6, 6, &[ACK]), timeouts.tcp_established),
        (flow(7, 6, &[SYN, ACK, FIN_ACK]), timeouts.tcp_closing),
        (flow(8, 6, &[SYN, RST]), timeouts.tcp_closed),
    ] {
        dispatcher.tick(Timestamp::ZERO + timeout, 10);
        assert_eq!(dispatcher.flows(), 1, "{timeout:?}: too early");
        dispatcher.tick(Timestamp::ZERO + timeout + Duration::from_millis(140), 10);
        assert_eq!(dispatcher.flows(), 0, "{timeout:?}: too late");
    }
}

#[test]
fn fragments_follow_their_first() {
    let mut dispatcher = dispatcher(DispatcherSettings::new(Policy::RoundRobin), 3);
    let identification = 77;
    let now = Timestamp::ZERO;
    let first = |flow, identification| Packet {
        fragment: Fragment::First { identification },
        ..packet(flow, false, 17)
    };
    let later = |flow, identification| {
        let packet = packet(flow, false, 17);
        Packet {
            flow: packet.flow.without_ports(),
            fragment: Fragment::Later { identification },
            ..packet
        }
    };
    // Other flows have come before, so that the next in turn would be another server.
    let server = dispatcher.dispatch(&first(1, identification), now);
    dispatcher.dispatch(&packet(2, false, 17), now);
    for _ in 0..3 {
        assert_eq!(dispatcher.dispatch(&later(1, identification), now), server);
    }
    assert_eq!(dispatcher.dispatch(&packet(1, true, 17), now), server);
    assert_eq!(dispatcher.counters().fragments_before_their_first, 0);

    // The first comes last, and is the first of its flow: the flow goes where the others went.
    let early = dispatcher.dispatch(&later(3, 5), now);
    dispatcher.dispatch(&packet(4, false, 17), now);
    assert_eq!(dispatcher.dispatch(&later(3, 5), now), early);
    assert_eq!(dispatcher.dispatch(&first(3, 5), now), early);
    assert_eq!(dispatcher.dispatch(&packet(3, true, 17), now), early);
    let counters = dispatcher.counters();
    assert_eq!(counters.fragments_before_their_first, 2);
    assert_eq!((counters.datagrams_split, counters.later_fragments), (0, 5));

    // The flow is elsewhere already: the datagram is split, and that is counted.
    let mut split = 0;
    for flow in 10..20 {
        let server = dispatcher.dispatch(&packet(flow, false, 17), now);
        let early = dispatcher.dispatch(&later(flow, 6), now);
        assert_eq!(dispatcher.dispatch(&first(flow, 6), now), server);
        split += u64::from(server != early);
    }
    assert!(split > 0);
    assert_eq!(dispatcher.counters().datagrams_split, split);
    assert_eq!(dispatcher.counters().affinity_breaks, 0);
}

#[test]
fn the_fixed_policy_goes_by_the_address_it_knows() {
    let mut dispatcher = dispatcher(DispatcherSettings::new(fixed()), 3);
    for (flow, expected) in [(3, 0), (14, 0), (17, 1), (30, 1)] {
        for back in [true, false] {
            let mut other = packet(flow, back, 17);
            let (src, dst) = (
                other.flow.source(Direction::Ascending),
                other.flow.source(Direction::Descending),
            );
            // Another flow of the same hosts, seen first the other way round.
            let ports = if back { (1, 2) } else { (2, 1) };
            (other.flow, other.direction) =
                flowradar_balancer::dispatch::FlowId::new((src.0, ports.0), (dst.0, ports.1), 17);
            let chosen = dispatcher.dispatch(&other, Timestamp::ZERO);
            assert_eq!(chosen, Some(BackEndId(expected)), "flow {flow}");
        }
    }
}

/// What has fallen silent is expected no more, what has ended at once.
#[test]
fn expected_load_fades() {
    let at = Timestamp::from_millis;
    let policy = Policy::EstimatedLoad {
        horizon: Duration::from_millis(100),
    };
    let mut dispatcher = dispatcher(DispatcherSettings::new(policy), 1);
    let expected = |dispatcher: &Dispatcher| dispatcher.status()[0].assigned_per_second;
    for ms in 0..1000 {
        dispatcher.dispatch(&packet(1, false, 17), at(ms));
        dispatcher.dispatch(&packet(2, false, 6).with_tcp(ACK), at(ms));
    }
    assert!(
        (expected(&dispatcher) - 2000.0).abs() < 40.0,
        "1000 packets a second each"
    );
    dispatcher.dispatch(&packet(2, false, 6).with_tcp(RST), at(1000));
    assert!((expected(&dispatcher) - 1000.0).abs() < 20.0, "one is over");
    dispatcher.tick(at(1500), 100);
    assert!(
        (expected(&dispatcher) - 1000.0).abs() < 20.0,
        "not idle yet"
    );
    dispatcher.tick(at(20_000), 100);
    assert!(expected(&dispatcher) < 60.0, "{}", expected(&dispatcher));
    dispatcher.tick(at(70_000), 100);
    assert_eq!((dispatcher.flows(), expected(&dispatcher)), (0, 0.0));
}

#[test]
fn without_a_server_packets_are_counted_and_flows_find_one_later() {
    let mut dispatcher = dispatcher(DispatcherSettings::new(Policy::RoundRobin), 1);
    let now = Timestamp::ZERO;
    let packet = packet(1, false, 17);
    assert_eq!(dispatcher.dispatch(&packet, now), Some(BackEndId(0)));
    dispatcher.set_availability(BackEndId(0), Availability::Down, now);
    assert_eq!(dispatcher.dispatch(&packet, now), None);
    assert_eq!(dispatcher.counters().packets_without_back_end, 1);
    dispatcher.set_availability(BackEndId(0), Availability::Draining, now);
    assert_eq!(dispatcher.dispatch(&packet, now), Some(BackEndId(0)));
    dispatcher.set_availability(BackEndId(0), Availability::Up, now);
    assert_eq!(dispatcher.dispatch(&packet, now), Some(BackEndId(0)));
    let counters = dispatcher.counters();
    assert_eq!((counters.packets, counters.tracked_packets), (4, 3));
}
