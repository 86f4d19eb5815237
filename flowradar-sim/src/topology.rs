//! Networks: switches, hosts and the links between them.

mod fat_tree;
mod file;

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};
use std::net::Ipv4Addr;

use flowradar_core::flowset::{SwitchName, SwitchNameError};
use thiserror::Error;

pub(crate) use fat_tree::FatTree;

/// Most switches of a topology.
pub const SWITCHES_MAX: usize = 4_096;
/// Most hosts of a topology.
pub const HOSTS_MAX: usize = 65_536;
/// Most links of a topology.
pub const LINKS_MAX: usize = 262_144;
/// Longest name of a switch or host, in bytes.
pub const NAME_BYTES_MAX: usize = SwitchName::BYTES_MAX;

/// A switch, numbered from 0 in the order of the topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SwitchId(pub u16);

impl SwitchId {
    /// The switch's place in [`Topology::switches`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The id of the switch at this place; places are below [`SWITCHES_MAX`].
    pub(crate) fn from_index(index: usize) -> Self {
        Self(u16::try_from(index).expect("a topology has at most 4,096 switches"))
    }
}

/// A host, numbered from 0 in the order of the topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(pub u32);

impl HostId {
    /// The host's place in [`Topology::hosts`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    pub(crate) fn from_index(index: usize) -> Self {
        Self(u32::try_from(index).expect("a topology has at most 65,536 hosts"))
    }
}

/// One end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Node {
    /// A switch.
    Switch(SwitchId),
    /// A host.
    Host(HostId),
}

impl From<SwitchId> for Node {
    fn from(switch: SwitchId) -> Self {
        Self::Switch(switch)
    }
}

impl From<HostId> for Node {
    fn from(host: HostId) -> Self {
        Self::Host(host)
    }
}

/// One direction of a link: packets may be lost one way only.
///
/// Link `i` of [`Topology::links`] has the directions `2 i` (from its first end to its second) and
/// `2 i + 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkDirection(pub u32);

impl LinkDirection {
    /// The direction's place among all directions, below `2 × links`.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A host: where flows begin and end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Unique among switches and hosts.
    pub name: String,
    /// Unique among hosts.
    pub address: Ipv4Addr,
}

/// A way out of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// What is at the other end.
    pub neighbour: Node,
    /// The direction of the link that leads there.
    pub link: LinkDirection,
}

/// A network of switches and hosts: connected, without duplicate names, addresses or links.
///
/// ```
/// use flowradar_sim::Topology;
/// let network = Topology::fat_tree(8)?;
/// assert_eq!(network.switches().len(), 80);
/// assert_eq!(network.hosts().len(), 128);
/// assert_eq!(network.switch("core-15").map(|switch| switch.index()), Some(79));
/// assert_eq!(Topology::from_json(&network.to_json())?, network);
/// # Ok::<(), flowradar_sim::TopologyError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Topology {
    switches: Vec<SwitchName>,
    hosts: Vec<Host>,
    links: Vec<[Node; 2]>,
    fat_tree_k: Option<u32>,
    switch_ports: Vec<Vec<Port>>,
    host_ports: Vec<Vec<Port>>,
    by_name: HashMap<String, Node>,
}

/// Why a topology was refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TopologyError {
    /// The text is not the JSON described at [`Topology::from_json`].
    #[error("topology, line {line}, column {column}: {reason}")]
    Json {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What the JSON reader expected.
        reason: String,
    },
    /// The format's version is not known.
    #[error("topology: version {found} is not supported, only version 1 is")]
    Version {
        /// The version named in the text.
        found: u32,
    },
    /// More of something than the simulator takes.
    #[error("topology: {found} {what}, at most {limit} are supported")]
    TooMany {
        /// `switches`, `hosts` or `links`.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
    /// There is nothing to simulate.
    #[error("topology: needs at least one switch and two hosts, has {switches} and {hosts}")]
    TooSmall {
        /// Switches found.
        switches: usize,
        /// Hosts found.
        hosts: usize,
    },
    /// A switch's name cannot stand in a flowset.
    #[error("{place}: {reason}")]
    SwitchName {
        /// Such as `switches[3]`.
        place: String,
        /// What is wrong.
        reason: SwitchNameError,
    },
    /// A host's name is empty, too long or holds control characters.
    #[error("{place}: a host name has 1 to 128 bytes and no control characters, found {name:?}")]
    HostName {
        /// Such as `hosts[3]`.
        place: String,
        /// The name.
        name: String,
    },
    /// Two nodes share a name.
    #[error("{place}: the name {name:?} is taken already")]
    DuplicateName {
        /// Such as `hosts[3]`.
        place: String,
        /// The name.
        name: String,
    },
    /// Two hosts share an address.
    #[error("{place}: the address {address} is taken already")]
    DuplicateAddress {
        /// Such as `hosts[3]`.
        place: String,
        /// The address.
        address: Ipv4Addr,
    },
    /// A link names a node that does not exist.
    #[error("links[{link}]: there is no switch or host named {name:?}")]
    UnknownNode {
        /// The link's place.
        link: usize,
        /// The name.
        name: String,
    },
    /// A link from a node to itself, or from a host to a host.
    #[error("links[{link}]: {from:?} to {to:?}: a link joins two switches, or a host and a switch")]
    BadLink {
        /// The link's place.
        link: usize,
        /// One end.
        from: String,
        /// The other end.
        to: String,
    },
    /// Two links join the same nodes.
    #[error("links[{link}]: joins the same nodes as links[{first}]")]
    DuplicateLink {
        /// The second link's place.
        link: usize,
        /// The first link's place.
        first: usize,
    },
    /// Not every node can reach every other.
    #[error("topology: {name:?} has no path of switches to {root:?}; add a link")]
    Disconnected {
        /// The node.
        name: String,
        /// The switch that was searched from.
        root: String,
    },
    /// A fat tree of this arity cannot be built.
    #[error("a fat tree needs an even k from 4 to 16, not {k}")]
    FatTreeArity {
        /// The arity asked for.
        k: u32,
    },
    /// `fat_tree_k` is given but the topology is another one.
    #[error("topology: says fat_tree_k = {k} but is not that fat tree; remove fat_tree_k")]
    NotThatFatTree {
        /// The arity named in the text.
        k: u32,
    },
}

impl Topology {
    /// A topology from its parts. Switches and hosts are numbered in the given order.
    ///
    /// # Errors
    /// What is wrong with the parts: see [`TopologyError`].
    pub fn new(
        switches: Vec<String>,
        hosts: Vec<Host>,
        links: Vec<[Node; 2]>,
    ) -> Result<Self, TopologyError> {
        check_count("switches", switches.len(), SWITCHES_MAX)?;
        check_count("hosts", hosts.len(), HOSTS_MAX)?;
        check_count("links", links.len(), LINKS_MAX)?;
        if switches.is_empty() || hosts.len() < 2 {
            return Err(TopologyError::TooSmall {
                switches: switches.len(),
                hosts: hosts.len(),
            });
        }
        let switches = switch_names(&switches)?;
        let by_name = index_names(&switches, &hosts)?;
        check_addresses(&hosts)?;
        let mut topology = Self {
            switch_ports: vec![Vec::new(); switches.len()],
            host_ports: vec![Vec::new(); hosts.len()],
            switches,
            hosts,
            links,
            fat_tree_k: None,
            by_name,
        };
        topology.connect()?;
        topology.check_connected()?;
        Ok(topology)
    }

    /// Names of the switches, by [`SwitchId`].
    pub fn switches(&self) -> &[SwitchName] {
        &self.switches
    }

    /// The ids of all switches, ascending.
    pub fn switch_ids(&self) -> impl ExactSizeIterator<Item = SwitchId> + use<> {
        (0..self.switches.len() as u16).map(SwitchId)
    }

    /// The hosts, by [`HostId`].
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The links, each with its two ends.
    pub fn links(&self) -> &[[Node; 2]] {
        &self.links
    }

    /// The arity, if the topology is a k-ary fat tree numbered as [`Topology::fat_tree`] does.
    pub fn fat_tree_k(&self) -> Option<u32> {
        self.fat_tree_k
    }

    /// The switch of this name.
    pub fn switch(&self, name: &str) -> Option<SwitchId> {
        match self.by_name.get(name) {
            Some(&Node::Switch(switch)) => Some(switch),
            _ => None,
        }
    }

    /// The host of this name.
    pub fn host(&self, name: &str) -> Option<HostId> {
        match self.by_name.get(name) {
            Some(&Node::Host(host)) => Some(host),
            _ => None,
        }
    }

    /// A node's name.
    ///
    /// # Panics
    /// If the node is of another topology.
    pub fn name(&self, node: impl Into<Node>) -> &str {
        match node.into() {
            Node::Switch(switch) => self.switches[switch.index()].as_str(),
            Node::Host(host) => &self.hosts[host.index()].name,
        }
    }

    /// The ways out of a node, in the order of its neighbours: switches first.
    ///
    /// # Panics
    /// If the node is of another topology.
    pub fn ports(&self, node: impl Into<Node>) -> &[Port] {
        match node.into() {
            Node::Switch(switch) => &self.switch_ports[switch.index()],
            Node::Host(host) => &self.host_ports[host.index()],
        }
    }

    /// The direction of the link that leads from one node to another, if they are joined.
    pub fn link_between(
        &self,
        from: impl Into<Node>,
        to: impl Into<Node>,
    ) -> Option<LinkDirection> {
        let (from, to) = (from.into(), to.into());
        let ports = match from {
            Node::Switch(switch) => self.switch_ports.get(switch.index())?,
            Node::Host(host) => self.host_ports.get(host.index())?,
        };
        let place = ports
            .binary_search_by_key(&to, |port| port.neighbour)
            .ok()?;
        Some(ports[place].link)
    }

    /// Where a link's direction begins and ends.
    ///
    /// # Panics
    /// If the link is of another topology.
    pub fn ends(&self, link: LinkDirection) -> (Node, Node) {
        let [a, b] = self.links[link.index() / 2];
        if link.0.is_multiple_of(2) {
            (a, b)
        } else {
            (b, a)
        }
    }

    fn connect(&mut self) -> Result<(), TopologyError> {
        let mut first_place: HashMap<[Node; 2], usize> = HashMap::new();
        for (place, &[a, b]) in self.links.iter().enumerate() {
            for node in [a, b] {
                let known = match node {
                    Node::Switch(switch) => switch.index() < self.switches.len(),
                    Node::Host(host) => host.index() < self.hosts.len(),
                };
                if !known {
                    return Err(TopologyError::UnknownNode {
                        link: place,
                        name: node.to_string(),
                    });
                }
            }
            if a == b || matches!((a, b), (Node::Host(_), Node::Host(_))) {
                return Err(TopologyError::BadLink {
                    link: place,
                    from: self.name(a).to_owned(),
                    to: self.name(b).to_owned(),
                });
            }
            if let Some(first) = first_place.insert([a.min(b), a.max(b)], place) {
                return Err(TopologyError::DuplicateLink { link: place, first });
            }
            let forth = LinkDirection(2 * place as u32);
            let back = LinkDirection(2 * place as u32 + 1);
            for (from, to, link) in [(a, b, forth), (b, a, back)] {
                let port = Port {
                    neighbour: to,
                    link,
                };
                match from {
                    Node::Switch(switch) => self.switch_ports[switch.index()].push(port),
                    Node::Host(host) => self.host_ports[host.index()].push(port),
                }
            }
        }
        for ports in self.switch_ports.iter_mut().chain(&mut self.host_ports) {
            ports.sort_unstable_by_key(|port| port.neighbour);
        }
        Ok(())
    }

    /// Hosts do not forward, so every switch must be reached through switches.
    fn check_connected(&self) -> Result<(), TopologyError> {
        let mut reached = vec![false; self.switches.len()];
        reached[0] = true;
        let mut queue = vec![SwitchId(0)];
        while let Some(switch) = queue.pop() {
            for port in self.ports(switch) {
                if let Node::Switch(next) = port.neighbour
                    && !std::mem::replace(&mut reached[next.index()], true)
                {
                    queue.push(next);
                }
            }
        }
        let lonely_switch = reached.iter().position(|&reached| !reached);
        let lonely_host = self.host_ports.iter().position(Vec::is_empty);
        let name = match (lonely_switch, lonely_host) {
            (Some(switch), _) => self.switches[switch].as_str(),
            (None, Some(host)) => self.hosts[host].name.as_str(),
            (None, None) => return Ok(()),
        };
        Err(TopologyError::Disconnected {
            name: name.to_owned(),
            root: self.switches[0].to_string(),
        })
    }
}

impl PartialEq for Topology {
    fn eq(&self, other: &Self) -> bool {
        // The rest follows from these.
        self.switches == other.switches
            && self.hosts == other.hosts
            && self.links == other.links
            && self.fat_tree_k == other.fat_tree_k
    }
}

impl Eq for Topology {}

impl Display for Node {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch(switch) => write!(f, "switch {}", switch.0),
            Self::Host(host) => write!(f, "host {}", host.0),
        }
    }
}

fn check_count(what: &'static str, found: usize, limit: usize) -> Result<(), TopologyError> {
    if found > limit {
        return Err(TopologyError::TooMany { what, found, limit });
    }
    Ok(())
}

fn switch_names(names: &[String]) -> Result<Vec<SwitchName>, TopologyError> {
    let parse = |(i, name): (usize, &String)| {
        name.parse().map_err(|reason| TopologyError::SwitchName {
            place: format!("switches[{i}]"),
            reason,
        })
    };
    names.iter().enumerate().map(parse).collect()
}

fn index_names(
    switches: &[SwitchName],
    hosts: &[Host],
) -> Result<HashMap<String, Node>, TopologyError> {
    let switch_names = switches.iter().enumerate().map(|(i, name)| {
        let node = Node::Switch(SwitchId::from_index(i));
        (format!("switches[{i}]"), name.as_str(), node)
    });
    let host_names = hosts.iter().enumerate().map(|(i, host)| {
        let node = Node::Host(HostId::from_index(i));
        (format!("hosts[{i}]"), host.name.as_str(), node)
    });
    let mut by_name = HashMap::with_capacity(switches.len() + hosts.len());
    for (place, name, node) in switch_names.chain(host_names) {
        let name = name.to_owned();
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
            return Err(TopologyError::HostName { place, name });
        }
        if by_name.contains_key(&name) {
            return Err(TopologyError::DuplicateName { place, name });
        }
        by_name.insert(name, node);
    }
    Ok(by_name)
}

fn check_addresses(hosts: &[Host]) -> Result<(), TopologyError> {
    let mut taken = std::collections::HashSet::with_capacity(hosts.len());
    for (i, host) in hosts.iter().enumerate() {
        if !taken.insert(host.address) {
            return Err(TopologyError::DuplicateAddress {
                place: format!("hosts[{i}]"),
                address: host.address,
            });
        }
    }
    Ok(())
}
