//! Intended forwarding: where each switch is meant to send each flow.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use ipnet::IpNet;
use serde::Deserialize;

use super::network::{HostIndex, Network, Node, SwitchIndex};
use super::record::FiveTuple;

/// Most routes of a switch in a file of intended forwarding.
pub const ROUTES_PER_SWITCH_MAX: usize = 1 << 20;
/// Most entries of the tables of shortest paths: switches × places where hosts are.
pub const SHORTEST_PATHS_MAX: usize = 32 << 20;

/// An ECMP group: a switch and the next hops that it chooses from. Groups of one are groups too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The switch that chooses.
    pub switch: SwitchIndex,
    /// Its next hops, ascending.
    pub members: Vec<SwitchIndex>,
    /// How much each is meant to get; all 1 if nothing is said.
    pub weights: Vec<u32>,
}

/// A group's number, the same for all destinations that use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupIndex(pub u32);

/// What a switch is meant to do with a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intended {
    /// Hand it to its destination.
    Deliver,
    /// Drop it.
    Drop,
    /// Send it to one of a group.
    Forward(GroupIndex),
    /// Nobody said.
    Unknown,
}

/// Where each switch is meant to send each flow: from shortest paths, or from a file.
///
/// # Files
/// TOML, or JSON with the same members; unknown members are refused.
///
/// ```toml
/// version = 1
///
/// [[switch]]
/// name = "left"
/// ports = { 1 = "a", 2 = "right" }   # if routes name ports: what is behind each
/// default = "drop"                    # flows without a route: "drop" (default) or "unknown"
///
/// [[switch.route]]
/// dst = "10.0.1.0/24"
/// next = ["right", "other"]           # switches: an ECMP group; or the host it delivers to
/// weights = [2, 1]                    # if they are not equal
///
/// [[switch.route]]
/// dst = "10.0.0.1/32"
/// port = 1                            # instead of next
///
/// [[switch.route]]
/// dst = "10.0.1.0/24"
/// protocol = 6                        # also src (a prefix), src_port, dst_port
/// dst_port = 23
/// priority = 10                       # higher is first; 0 if not given
/// action = "drop"
/// ```
///
/// Of the routes that match a flow, the one with the highest priority counts, then the one with the
/// longest `dst`, then the one with most further fields, then the first. Of switches that are not
/// named nothing is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarding {
    groups: Vec<Group>,
    tables: Tables,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Tables {
    Shortest(ShortestPaths),
    /// By switch; none for those not named.
    Routes(Vec<Option<RouteTable>>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ShortestPaths {
    /// By host: hosts at the same switches are one class.
    class_of_host: Vec<u32>,
    switches: usize,
    /// By class, then switch.
    entries: Vec<Entry>,
}

/// [`Intended`] in four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry(u32);

#[derive(Clone, Debug, PartialEq, Eq)]
struct RouteTable {
    /// Routes with more than a destination, or a priority: the first that matches counts, before
    /// those of `by_dst` unless these have a longer prefix and the same priority.
    special: Vec<Route>,
    /// Routes by destination alone, by prefix length (IPv4 counts from 96), the longest first.
    by_dst: Vec<(u8, HashMap<IpNet, Intended>)>,
    default: Intended,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Route {
    dst: IpNet,
    src: Option<IpNet>,
    protocol: Option<u8>,
    src_port: Option<u16>,
    dst_port: Option<u16>,
    priority: i32,
    intended: Intended,
}

/// Why intended forwarding cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardingError {
    /// A switch is named twice.
    #[error("switch {switch:?} is there twice")]
    DuplicateSwitch {
        /// The switch.
        switch: String,
    },
    /// A route of a switch makes no sense.
    #[error("switch {switch:?}, route {route}: {reason}")]
    Route {
        /// The switch.
        switch: String,
        /// The route's place, from 0.
        route: usize,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// Neither JSON nor TOML, or not what a file of intended forwarding holds.
    #[error("intended forwarding: {reason}")]
    Syntax {
        /// The reader's words, with line and column.
        reason: String,
    },
    /// The network is too large for tables of shortest paths.
    #[error(
        "{entries} entries of shortest paths, at most {SHORTEST_PATHS_MAX} are kept: describe the \
         forwarding in a file"
    )]
    TooLarge {
        /// Entries there would be.
        entries: usize,
    },
    /// A switch is not in the network.
    #[error("switch {switch:?} is not in the network's description")]
    UnknownSwitch {
        /// The switch.
        switch: String,
    },
    /// Another version of the format.
    #[error("intended forwarding: version {found} is not supported, only version 1 is")]
    Version {
        /// The version named.
        found: u32,
    },
}

impl Forwarding {
    /// All shortest paths, equal ones as ECMP groups. O(places where hosts are × links).
    ///
    /// # Errors
    /// If there would be more than [`SHORTEST_PATHS_MAX`] entries.
    pub fn shortest_paths(network: &Network) -> Result<Self, ForwardingError> {
        let switches = network.switches().len();
        let mut classes: BTreeMap<&[SwitchIndex], u32> = BTreeMap::new();
        for host in network.hosts() {
            let next = classes.len() as u32;
            classes.entry(&host.switches).or_insert(next);
        }
        let entries = classes.len().saturating_mul(switches);
        if entries > SHORTEST_PATHS_MAX {
            return Err(ForwardingError::TooLarge { entries });
        }
        let class_of_host = network
            .hosts()
            .iter()
            .map(|host| classes[&host.switches[..]])
            .collect();
        let mut groups = Groups::default();
        let mut table = vec![Entry::UNKNOWN; entries];
        for (joined, &class) in &classes {
            let rows = &mut table[class as usize * switches..][..switches];
            fill_class(network, joined, &mut groups, rows);
        }
        Ok(Self {
            groups: groups.list,
            tables: Tables::Shortest(ShortestPaths {
                class_of_host,
                switches,
                entries: table,
            }),
        })
    }

    /// Reads a file: JSON if the text begins with a brace, else TOML.
    ///
    /// # Errors
    /// [`ForwardingError`], with the place.
    pub fn parse(text: &str, network: &Network) -> Result<Self, ForwardingError> {
        let file: ForwardingFile =
            super::parse_json_or_toml(text).map_err(|reason| ForwardingError::Syntax { reason })?;
        if file.version != 1 {
            return Err(ForwardingError::Version {
                found: file.version,
            });
        }
        let mut groups = Groups::default();
        let mut tables = vec![None; network.switches().len()];
        for entry in file.switch {
            let switch = network.switch(&entry.name);
            let switch = switch.ok_or_else(|| ForwardingError::UnknownSwitch {
                switch: entry.name.clone(),
            })?;
            let table = route_table(&entry, switch, network, &mut groups)?;
            if tables[switch.index()].replace(table).is_some() {
                return Err(ForwardingError::DuplicateSwitch { switch: entry.name });
            }
        }
        Ok(Self {
            groups: groups.list,
            tables: Tables::Routes(tables),
        })
    }

    /// What a switch is meant to do with a flow. `dst` is where [`Network::host_of`] places the
    /// flow's destination.
    ///
    /// # Panics
    /// If switch or host are not of the network that this was made for.
    pub fn intended(
        &self,
        switch: SwitchIndex,
        flow: &FiveTuple,
        dst: Option<HostIndex>,
    ) -> Intended {
        match &self.tables {
            Tables::Shortest(paths) => dst.map_or(Intended::Unknown, |dst| {
                let class = paths.class_of_host[dst.index()] as usize;
                paths.entries[class * paths.switches + switch.index()].intended()
            }),
            Tables::Routes(tables) => match &tables[switch.index()] {
                Some(table) => table.intended(flow),
                None => Intended::Unknown,
            },
        }
    }

    /// A group.
    ///
    /// # Panics
    /// If it is not of these tables.
    pub fn group(&self, group: GroupIndex) -> &Group {
        &self.groups[group.0 as usize]
    }

    /// All groups.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }
}

impl Entry {
    const UNKNOWN: Self = Self(u32::MAX);
    const DELIVER: Self = Self(u32::MAX - 1);

    fn intended(self) -> Intended {
        match self {
            Self::UNKNOWN => Intended::Unknown,
            Self::DELIVER => Intended::Deliver,
            Self(group) => Intended::Forward(GroupIndex(group)),
        }
    }
}

impl RouteTable {
    fn intended(&self, flow: &FiveTuple) -> Intended {
        let special = self.special.iter().find(|route| route.matches(flow));
        let by_dst = || {
            let bits = if flow.dst.is_ipv4() { 32 } else { 128 };
            let offset = 128 - bits;
            self.by_dst.iter().find_map(|(length, routes)| {
                let length = length.checked_sub(offset)?;
                let prefix = IpNet::new(flow.dst, length).ok()?.trunc();
                Some((length, *routes.get(&prefix)?))
            })
        };
        match special {
            Some(special) if special.priority > 0 => special.intended,
            Some(special) => match by_dst() {
                Some((length, intended))
                    if special.priority < 0 || length > special.dst.prefix_len() =>
                {
                    intended
                }
                _ => special.intended,
            },
            None => by_dst().map_or(self.default, |(_, intended)| intended),
        }
    }
}

impl Route {
    fn matches(&self, flow: &FiveTuple) -> bool {
        self.dst.contains(&flow.dst)
            && self.src.is_none_or(|src| src.contains(&flow.src))
            && self
                .protocol
                .is_none_or(|protocol| protocol == flow.protocol)
            && self.src_port.is_none_or(|port| port == flow.src_port)
            && self.dst_port.is_none_or(|port| port == flow.dst_port)
    }

    fn further_fields(&self) -> usize {
        usize::from(self.src.is_some())
            + usize::from(self.protocol.is_some())
            + usize::from(self.src_port.is_some())
            + usize::from(self.dst_port.is_some())
    }
}

/// Groups by switch and members.
#[derive(Default)]
struct Groups {
    list: Vec<Group>,
    numbers: HashMap<(SwitchIndex, Vec<(SwitchIndex, u32)>), GroupIndex>,
}

impl Groups {
    fn number(&mut self, switch: SwitchIndex, mut members: Vec<(SwitchIndex, u32)>) -> GroupIndex {
        members.sort_unstable();
        let next = GroupIndex(self.list.len() as u32);
        let key = (switch, members);
        if let Some(&known) = self.numbers.get(&key) {
            return known;
        }
        self.list.push(Group {
            switch,
            members: key.1.iter().map(|&(member, _)| member).collect(),
            weights: key.1.iter().map(|&(_, weight)| weight).collect(),
        });
        self.numbers.insert(key, next);
        next
    }
}

/// Breadth-first search back from the switches that deliver.
fn fill_class(network: &Network, joined: &[SwitchIndex], groups: &mut Groups, rows: &mut [Entry]) {
    const UNREACHED: u32 = u32::MAX;
    let mut distances = vec![UNREACHED; rows.len()];
    let mut queue: std::collections::VecDeque<SwitchIndex> = joined.iter().copied().collect();
    for switch in joined {
        distances[switch.index()] = 0;
    }
    while let Some(switch) = queue.pop_front() {
        for neighbour in network.neighbours(switch) {
            if distances[neighbour.index()] == UNREACHED {
                distances[neighbour.index()] = distances[switch.index()] + 1;
                queue.push_back(*neighbour);
            }
        }
    }
    for (switch, row) in rows.iter_mut().enumerate() {
        let distance = distances[switch];
        let switch = SwitchIndex(switch as u16);
        *row = match distance {
            UNREACHED => Entry::UNKNOWN,
            0 => Entry::DELIVER,
            _ => {
                let closer = network.neighbours(switch).iter();
                let closer = closer.filter(|next| distances[next.index()] == distance - 1);
                Entry(
                    groups
                        .number(switch, closer.map(|&next| (next, 1)).collect())
                        .0,
                )
            }
        };
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ForwardingFile {
    version: u32,
    #[serde(default)]
    switch: Vec<SwitchEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SwitchEntry {
    name: String,
    #[serde(default)]
    ports: BTreeMap<String, String>,
    #[serde(default)]
    default: DefaultEntry,
    #[serde(default)]
    route: Vec<RouteEntry>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum DefaultEntry {
    #[default]
    Drop,
    Unknown,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteEntry {
    dst: IpNet,
    src: Option<IpNet>,
    protocol: Option<u8>,
    src_port: Option<u16>,
    dst_port: Option<u16>,
    #[serde(default)]
    priority: i32,
    #[serde(default)]
    next: Vec<String>,
    #[serde(default)]
    weights: Vec<u32>,
    port: Option<u32>,
    action: Option<ActionEntry>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ActionEntry {
    Drop,
}

fn route_table(
    entry: &SwitchEntry,
    switch: SwitchIndex,
    network: &Network,
    groups: &mut Groups,
) -> Result<RouteTable, ForwardingError> {
    let refused = |route: usize, reason: String| ForwardingError::Route {
        switch: entry.name.clone(),
        route,
        reason,
    };
    if entry.route.len() > ROUTES_PER_SWITCH_MAX {
        let reason = format!("at most {ROUTES_PER_SWITCH_MAX} routes of a switch are taken");
        return Err(refused(ROUTES_PER_SWITCH_MAX, reason));
    }
    let mut special = Vec::new();
    let mut by_dst: BTreeMap<u8, HashMap<IpNet, Intended>> = BTreeMap::new();
    for (number, route) in entry.route.iter().enumerate() {
        let intended = intended_of(route, entry, switch, network, groups)
            .map_err(|reason| refused(number, reason))?;
        let route = Route {
            dst: route.dst.trunc(),
            src: route.src,
            protocol: route.protocol,
            src_port: route.src_port,
            dst_port: route.dst_port,
            priority: route.priority,
            intended,
        };
        if route.priority != 0 || route.further_fields() > 0 {
            special.push(route);
            continue;
        }
        let length = match route.dst {
            IpNet::V4(prefix) => prefix.prefix_len() + 96,
            IpNet::V6(prefix) => prefix.prefix_len(),
        };
        // The first route of a prefix counts.
        let routes = by_dst.entry(length).or_default();
        routes.entry(route.dst).or_insert(intended);
    }
    // Stable: the first of equals stays first.
    special.sort_by_key(|route| {
        std::cmp::Reverse((
            route.priority,
            route.dst.prefix_len(),
            route.further_fields(),
        ))
    });
    Ok(RouteTable {
        special,
        by_dst: by_dst.into_iter().rev().collect(),
        default: match entry.default {
            DefaultEntry::Drop => Intended::Drop,
            DefaultEntry::Unknown => Intended::Unknown,
        },
    })
}

fn intended_of(
    route: &RouteEntry,
    entry: &SwitchEntry,
    switch: SwitchIndex,
    network: &Network,
    groups: &mut Groups,
) -> Result<Intended, String> {
    let by_port;
    let next = match (route.action, route.port, &route.next[..]) {
        (Some(ActionEntry::Drop), None, []) => return Ok(Intended::Drop),
        (None, Some(port), []) => {
            let name = entry.ports.get(&port.to_string());
            by_port = [name
                .ok_or_else(|| format!("port {port} is not in the switch's ports: name it there"))?
                .clone()];
            &by_port[..]
        }
        (None, None, [_, ..]) => &route.next[..],
        _ => return Err("needs one of next, port and action".into()),
    };
    if !route.weights.is_empty() && route.weights.len() != next.len() {
        return Err(format!(
            "{} weights for {} next hops: give one for each",
            route.weights.len(),
            next.len()
        ));
    }
    let mut members = Vec::with_capacity(next.len());
    let mut hosts = 0;
    for (place, name) in next.iter().enumerate() {
        match network.node(name) {
            None => return Err(format!("{name:?} is not in the network's description")),
            Some(Node::Host(host)) if network.host(host).switches.contains(&switch) => hosts += 1,
            Some(Node::Switch(to)) if network.joined(switch, to) => {
                let weight = route.weights.get(place).copied().unwrap_or(1);
                if members.iter().any(|&(member, _)| member == to) {
                    return Err(format!("{name:?} is there twice"));
                }
                members.push((to, weight));
            }
            Some(_) => return Err(format!("{name:?} is not joined to the switch")),
        }
    }
    match (members.is_empty(), hosts) {
        (true, _) => Ok(Intended::Deliver),
        (false, 0) => Ok(Intended::Forward(groups.number(switch, members))),
        (false, _) => Err("next hops are hosts or switches, not both".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        let name = |name: &str| name.to_owned();
        let prefix = |text: &str| vec![text.parse().expect("a prefix")];
        Network::new(
            ["s1", "s2", "s3", "s4"].map(name).into(),
            vec![
                (name("a"), prefix("10.0.0.0/24")),
                (name("b"), prefix("10.0.1.0/24")),
            ],
            &[
                [name("a"), name("s1")],
                [name("s1"), name("s2")],
                [name("s1"), name("s3")],
                [name("s2"), name("s4")],
                [name("s3"), name("s4")],
                [name("b"), name("s4")],
            ],
        )
        .expect("a good network")
    }

    fn flow(dst: &str, dst_port: u16) -> FiveTuple {
        FiveTuple {
            src: [10, 0, 0, 1].into(),
            dst: dst.parse().expect("an address"),
            src_port: 50_000,
            dst_port,
            protocol: 6,
        }
    }

    #[test]
    fn shortest_paths_are_those_of_the_simulator() {
        let topology = flowradar_sim::Topology::fat_tree(4).expect("4 is even");
        let routing = flowradar_sim::Routing::new(&topology).expect("small");
        let network = Network::parse(&topology.to_json()).expect("the same format");
        let forwarding = Forwarding::shortest_paths(&network).expect("small");
        for (number, host) in (0..).zip(topology.hosts()) {
            let host_index = network.host_of(host.address.into());
            for switch in topology.switch_ids() {
                let intended = forwarding.intended(
                    SwitchIndex(switch.0),
                    &flow(&host.address.to_string(), 80),
                    host_index,
                );
                let hops = routing.next_hops(switch, flowradar_sim::HostId(number));
                let hops: Vec<_> = hops.iter().map(|hop| SwitchIndex(hop.switch.0)).collect();
                match intended {
                    Intended::Deliver => assert!(hops.is_empty()),
                    Intended::Forward(group) => {
                        assert_eq!(forwarding.group(group).members, hops);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    const FILE: &str = r#"
version = 1
[[switch]]
name = "s1"
ports = { 1 = "a", 2 = "s2" }
[[switch.route]]
dst = "10.0.1.0/24"
next = ["s3", "s2"]
weights = [1, 3]
[[switch.route]]
dst = "10.0.1.128/25"
port = 2
[[switch.route]]
dst = "10.0.0.0/24"
port = 1
[[switch.route]]
dst = "10.0.1.0/24"
dst_port = 23
action = "drop"
[[switch.route]]
dst = "10.0.0.0/16"
src = "10.0.0.7/32"
priority = 5
next = ["s3"]
"#;

    #[test]
    fn routes_match_by_priority_then_length_then_fields() {
        let network = network();
        let forwarding = Forwarding::parse(FILE, &network).expect("is well-formed");
        let s1 = SwitchIndex(0);
        let members = |flow: &FiveTuple| match forwarding.intended(s1, flow, None) {
            Intended::Forward(group) => {
                let group = forwarding.group(group);
                group
                    .members
                    .iter()
                    .map(|m| m.0)
                    .zip(group.weights.clone())
                    .collect()
            }
            _ => vec![],
        };
        assert_eq!(members(&flow("10.0.1.1", 80)), [(1, 3), (2, 1)]);
        assert_eq!(members(&flow("10.0.1.129", 80)), [(1, 1)]);
        // The longer prefix counts before further fields.
        assert_eq!(members(&flow("10.0.1.129", 23)), [(1, 1)]);
        let intended = |flow: &FiveTuple| forwarding.intended(s1, flow, None);
        assert_eq!(intended(&flow("10.0.1.1", 23)), Intended::Drop);
        assert_eq!(intended(&flow("10.0.0.9", 80)), Intended::Deliver);
        assert_eq!(intended(&flow("192.0.2.1", 80)), Intended::Drop);
        let from_seven = FiveTuple {
            src: [10, 0, 0, 7].into(),
            ..flow("10.0.1.129", 23)
        };
        assert_eq!(members(&from_seven), [(2, 1)]);
        let s2 = SwitchIndex(1);
        assert_eq!(
            forwarding.intended(s2, &flow("10.0.1.1", 80), None),
            Intended::Unknown
        );
    }

    #[test]
    fn errors_say_where_and_what_to_do() {
        let network = network();
        let refusal = |old: &str, new: &str| {
            let text = FILE.replacen(old, new, 1);
            assert_ne!(text, FILE, "nothing replaced");
            Forwarding::parse(&text, &network)
                .expect_err("must be refused")
                .to_string()
        };
        assert_eq!(
            refusal("\"s3\", \"s2\"", "\"s4\", \"s2\""),
            "switch \"s1\", route 0: \"s4\" is not joined to the switch"
        );
        assert_eq!(
            refusal("port = 2", "port = 3"),
            "switch \"s1\", route 1: port 3 is not in the switch's ports: name it there"
        );
        assert_eq!(
            refusal("[1, 3]", "[1]"),
            "switch \"s1\", route 0: 1 weights for 2 next hops: give one for each"
        );
        assert_eq!(
            refusal("name = \"s1\"", "name = \"s9\""),
            "switch \"s9\" is not in the network's description"
        );
        assert_eq!(
            refusal("action = \"drop\"", ""),
            "switch \"s1\", route 3: needs one of next, port and action"
        );
    }
}
