//! The entries by which the reference program routes.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use flowradar_p4::Bytestring;
use flowradar_p4::entity::{
    ActionCall, ActionProfileGroup, ActionProfileMember, Entity, GroupMember, Match, TableAction,
    TableEntry,
};
use flowradar_sim::{HostId, LinkDirection, Node, Routing, SwitchId, Topology};

use crate::frames::{HOST_MAC, ROUTER_MAC};

const NEXT_HOPS: &str = "SwitchIngress.ipv4_next_hops";
const NO_ARGUMENTS: [(&str, u8); 0] = [];

/// The entries with which a switch routes to all hosts, over all equally short ways (ECMP), in the order
/// in which one needs the other. Ports are numbered from 1, as the topology lists them.
pub fn routes(topology: &Topology, routing: &Routing, at: SwitchId) -> Vec<Entity> {
    let mut entities = vec![Entity::Table(
        TableEntry::new("SwitchIngress.my_station")
            .matching(
                "headers.frame.ethernet.destination",
                Match::exact(ROUTER_MAC),
            )
            .call("SwitchIngress.route", NO_ARGUMENTS),
    )];
    for (port, end) in (1_u16..).zip(topology.ports(at)) {
        let next_mac = match end.neighbour {
            Node::Switch(_) => ROUTER_MAC,
            Node::Host(_) => HOST_MAC,
        };
        entities.push(Entity::ActionProfileMember(ActionProfileMember {
            profile: NEXT_HOPS.into(),
            member: port.into(),
            call: Some(ActionCall::new(
                "SwitchIngress.to_next_hop",
                [
                    ("port", Bytestring::from(port)),
                    ("source", Bytestring::from(ROUTER_MAC)),
                    ("destination", Bytestring::from(next_mac)),
                ],
            )),
        }));
    }
    let mut groups: BTreeMap<Vec<u16>, u32> = BTreeMap::new();
    let mut table = vec![];
    for (number, host) in (0..).zip(topology.hosts()) {
        let to = HostId(number);
        let ports: Vec<u16> = match routing.delivery(at, to) {
            Some(link) => vec![port_of(topology, at, link)],
            None => {
                let next_hops = routing.next_hops(at, to).iter();
                next_hops
                    .map(|next| port_of(topology, at, next.link))
                    .collect()
            }
        };
        let action = match ports[..] {
            [port] => TableAction::Member(port.into()),
            _ => {
                let next = groups.len() as u32 + 1;
                TableAction::Group(*groups.entry(ports).or_insert(next))
            }
        };
        table.push(route(host.address, action));
    }
    for (ports, group) in groups {
        let members = ports.into_iter().map(|port| GroupMember {
            member: port.into(),
            weight: 1,
            watch_port: None,
        });
        entities.push(Entity::ActionProfileGroup(ActionProfileGroup {
            profile: NEXT_HOPS.into(),
            group,
            members: members.collect(),
            max_size: 0,
        }));
    }
    entities.extend(table);
    entities
}

/// The number of the port that a link leaves by.
pub(crate) fn port_of(topology: &Topology, switch: SwitchId, link: LinkDirection) -> u16 {
    let mut ports = topology.ports(switch).iter();
    let place = ports.position(|port| port.link == link);
    place.expect("a link ends at a port") as u16 + 1
}

fn route(to: Ipv4Addr, action: TableAction) -> Entity {
    let entry = TableEntry::new("SwitchIngress.ipv4_lpm")
        .matching("headers.frame.ipv4.destination", Match::lpm(to, 32));
    Entity::Table(entry.with_action(action))
}
