//! A network: traffic between all hosts, a lossy wire, NetDecode over what was drained.

use std::collections::BTreeMap;

use bmv2_tests::switch::TestSwitch;
use bmv2_tests::targets::on_all_targets;
use flowradar_collector::{NetDecodeOptions, net_decode};
use flowradar_core::{FlowKeyV4, KeyKind};
use flowradar_sim::{HostId, LinkDirection, Node, SwitchId, Topology};
use flowradar_testbed::counts::flowset;
use flowradar_testbed::frames::{Tuple4, udp4};
use flowradar_testbed::{Network, Wires};

/// Flows from every host to every other.
const FLOWS: u16 = 4;

#[test]
fn losses_are_found_on_the_right_link() {
    on_all_targets(async |target| {
        let topology = Topology::fat_tree(4).expect("an even k");
        let lossy = lossy_link(&topology);
        let mut crossed: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        let mut repeated = 0_u32;
        let wires = Wires::new(move |link, frame| {
            if link != lossy {
                return false;
            }
            // Addresses and ports. Not a flow's first packet: behind a link that loses all of them
            // there would be no counter to compare with.
            let packets = crossed.entry(frame[26..38].to_vec()).or_default();
            *packets += 1;
            repeated += u32::from(*packets > 1);
            *packets > 1 && repeated.is_multiple_of(7)
        });
        let start = async |ports| TestSwitch::start(target, ports).await;
        let mut network = Network::start(topology.clone(), wires, start).await?;

        let hosts = topology.hosts();
        for round in 0..6_u16 {
            for (from, source) in (0..).zip(hosts) {
                for destination in hosts.iter().filter(|host| host.address != source.address) {
                    for flow in 0..FLOWS {
                        let tuple = Tuple4 {
                            src: source.address,
                            dst: destination.address,
                            src_port: 5000 + flow,
                            dst_port: 443,
                        };
                        // Flows of different sizes.
                        if round <= flow % 6 {
                            network.send(HostId(from), &udp4(tuple, &[0; 100]));
                        }
                    }
                }
            }
        }
        network.settle();

        let mut flowsets = vec![];
        for controller in network.controllers() {
            flowsets.push(flowset(&controller.drain().await?, KeyKind::V4)?);
        }
        let decoded = net_decode::<FlowKeyV4, _>(&flowsets, &NetDecodeOptions::default());
        let decoded = decoded.expect("flowsets of one epoch");
        assert!(decoded.is_complete(), "{:?}", decoded.summary);

        // Hop by hop.
        let mut by_switch: Vec<BTreeMap<FlowKeyV4, u64>> = vec![];
        for id in topology.switch_ids() {
            let name = topology.name(id);
            let switch = decoded
                .switches
                .iter()
                .find(|switch| switch.switch.as_str() == name);
            let flows = &switch.expect("every switch has reported").flows;
            let counts: BTreeMap<_, _> = flows
                .iter()
                .map(|flow| (flow.key, flow.packets.value))
                .collect();
            let seen = &network.seen[id.index()].v4;
            let truth: BTreeMap<_, _> = seen.iter().map(|(key, counts)| (*key, counts.0)).collect();
            assert_eq!(counts, truth, "{name}");
            by_switch.push(counts);
        }

        // Losses by link, from the counters alone.
        let mut found: BTreeMap<LinkDirection, BTreeMap<FlowKeyV4, u64>> = BTreeMap::new();
        for (from, source) in (0..).zip(hosts) {
            let Node::Switch(first) = topology.ports(HostId(from))[0].neighbour else {
                panic!("hosts are joined to switches");
            };
            let of_host = by_switch[first.index()].keys();
            for key in of_host.filter(|key| key.src_v4() == source.address) {
                for (link, packets) in losses(&topology, &by_switch, first, key) {
                    found.entry(link).or_default().insert(*key, packets);
                }
            }
        }
        let truth: BTreeMap<_, BTreeMap<_, _>> = network
            .lost
            .iter()
            .map(|(link, lost)| {
                let flows = lost.v4.iter().map(|(key, counts)| (*key, counts.0));
                (*link, flows.collect())
            })
            .collect();
        assert_eq!(
            truth.keys().collect::<Vec<_>>(),
            [&lossy],
            "the wire did lose packets"
        );
        assert_eq!(found, truth);
        Ok(())
    });
}

/// A link down from a switch of the second layer, which much traffic crosses.
fn lossy_link(topology: &Topology) -> LinkDirection {
    let link = topology.switch_ids().find_map(|id| {
        let name = topology.name(id);
        let ports = topology.ports(id).iter();
        name.starts_with("agg")
            .then(|| {
                ports.filter_map(|port| match port.neighbour {
                    Node::Switch(next) if topology.name(next).starts_with("edge") => {
                        Some(port.link)
                    }
                    _ => None,
                })
            })?
            .next()
    });
    link.expect("a fat tree has such links")
}

/// Where a flow's counter falls along its way, which is found from the counters too.
fn losses(
    topology: &Topology,
    by_switch: &[BTreeMap<FlowKeyV4, u64>],
    first: SwitchId,
    key: &FlowKeyV4,
) -> Vec<(LinkDirection, u64)> {
    let (mut at, mut before, mut losses) = (first, None, vec![]);
    loop {
        let next = topology
            .ports(at)
            .iter()
            .find_map(|port| match port.neighbour {
                Node::Switch(next) if Some(next) != before => {
                    let packets = by_switch[next.index()].get(key)?;
                    Some((next, port.link, *packets))
                }
                _ => None,
            });
        let Some((next, link, packets)) = next else {
            return losses;
        };
        let lost = by_switch[at.index()][key] - packets;
        if lost > 0 {
            losses.push((link, lost));
        }
        (at, before) = (next, Some(at));
    }
}
