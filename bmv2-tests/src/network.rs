//! Switches, the wires between them, and the truth.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use flowradar_p4::Bytestring;
use flowradar_p4::entity::{
    ActionCall, ActionProfileGroup, ActionProfileMember, Entity, GroupMember, Match, TableAction,
    TableEntry,
};
use flowradar_sim::{HostId, LinkDirection, Node, Routing, SwitchId, Topology};

use crate::controller::{Controller, Counts};
use crate::frames::{HOST_MAC, ROUTER_MAC};
use crate::switch::TestSwitch;
use crate::targets::Target;

/// When nothing has come out of any switch for so long, nothing more will.
const QUIET: Duration = Duration::from_millis(500);

/// Hosts put so many frames on their wires before those in the network are carried on: looking at all
/// interfaces takes a while.
const FRAMES_PER_ROUND: u32 = 32;

/// Says whether a wire loses a frame.
type Loses = Box<dyn FnMut(LinkDirection, &[u8]) -> bool>;

/// Switches that run the reference program, with routes between all hosts.
pub struct Network {
    topology: Topology,
    switches: Vec<TestSwitch>,
    controllers: Vec<Controller>,
    loses: Loses,
    frames_sent: u32,
    /// What every switch was given, by switch.
    pub seen: Vec<Counts>,
    /// What every wire has lost.
    pub lost: BTreeMap<LinkDirection, Counts>,
    /// What has reached hosts.
    pub delivered: Counts,
}

impl Network {
    /// Starts all switches of a topology, with the program and routes. Wires lose what `loses` says.
    ///
    /// # Panics
    /// If a switch cannot be started.
    pub async fn start(
        target: Target,
        topology: Topology,
        loses: impl FnMut(LinkDirection, &[u8]) -> bool + 'static,
    ) -> Self {
        let routing = Routing::new(&topology).expect("a small network");
        let (mut switches, mut controllers) = (vec![], vec![]);
        for id in topology.switch_ids() {
            let ports = topology.ports(id).len() as u16;
            let switch = TestSwitch::start(target, ports).await;
            let routes = routes(&topology, &routing, id);
            controllers.push(Controller::deploy(&switch, topology.name(id), &routes).await);
            switches.push(switch);
        }
        Self {
            seen: vec![Counts::default(); switches.len()],
            lost: BTreeMap::new(),
            delivered: Counts::default(),
            topology,
            switches,
            controllers,
            loses: Box::new(loses),
            frames_sent: 0,
        }
    }

    /// The network.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The controller of every switch.
    pub fn controllers(&mut self) -> &mut [Controller] {
        &mut self.controllers
    }

    /// A host puts a frame on its wire.
    pub fn send(&mut self, host: HostId, frame: &[u8]) {
        let link = self.topology.ports(host)[0].link;
        self.carry(link, frame);
        self.frames_sent += 1;
        if self.frames_sent.is_multiple_of(FRAMES_PER_ROUND) {
            self.forward();
        }
    }

    /// Carries frames until none is left.
    pub fn settle(&mut self) {
        let mut quiet_since = Instant::now();
        loop {
            if self.forward() > 0 {
                quiet_since = Instant::now();
            } else if self.switches.iter().all(TestSwitch::is_synchronous)
                || quiet_since.elapsed() > QUIET
            {
                return;
            }
        }
    }

    /// Carries what has come out of the switches to where the wires lead; how many frames that was.
    fn forward(&mut self) -> usize {
        let mut frames = 0;
        for number in 0..self.switches.len() {
            for (port, frame) in self.switches[number].receive() {
                let id = SwitchId(number as u16);
                let link = self.topology.ports(id)[usize::from(port) - 1].link;
                self.carry(link, &frame);
                frames += 1;
            }
        }
        frames
    }

    /// Carries a frame over a wire.
    fn carry(&mut self, link: LinkDirection, frame: &[u8]) {
        if (self.loses)(link, frame) {
            self.lost.entry(link).or_default().add(frame);
            return;
        }
        match self.topology.ends(link).1 {
            Node::Host(_) => self.delivered.add(frame),
            Node::Switch(id) => {
                let port = port_of(&self.topology, id, LinkDirection(link.0 ^ 1));
                self.seen[id.index()].add(frame);
                self.switches[id.index()].send(port, frame);
            }
        }
    }
}

/// The number of the port that a link leaves by.
fn port_of(topology: &Topology, switch: SwitchId, link: LinkDirection) -> u16 {
    let mut ports = topology.ports(switch).iter();
    let place = ports.position(|port| port.link == link);
    place.expect("a link ends at a port") as u16 + 1
}

/// The entries with which a switch routes to all hosts, over all equally short ways.
fn routes(topology: &Topology, routing: &Routing, at: SwitchId) -> Vec<Entity> {
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
    // In the order in which one needs the other.
    entities.extend(table);
    entities
}

const NEXT_HOPS: &str = "SwitchIngress.ipv4_next_hops";
const NO_ARGUMENTS: [(&str, u8); 0] = [];

fn route(to: Ipv4Addr, action: TableAction) -> Entity {
    let entry = TableEntry::new("SwitchIngress.ipv4_lpm")
        .matching("headers.frame.ipv4.destination", Match::lpm(to, 32));
    Entity::Table(entry.with_action(action))
}
