//! Shortest paths, and the choice among equal ones.

use std::collections::{HashMap, VecDeque};

use flowradar_core::{FlowKey, FlowKeyV4};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::random::scale;
use crate::topology::{HostId, LinkDirection, Node, Port, SwitchId, Topology};

/// Most entries of a routing table, over all switches and destinations.
pub const NEXT_HOPS_MAX: usize = 32 << 20;

/// A switch to go on to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The switch.
    pub switch: SwitchId,
    /// The link that leads there.
    pub link: LinkDirection,
}

/// Equal-cost shortest paths from every switch to every host.
///
/// Hosts joined to the same switches share their routes, so that the table has an entry for each
/// set of such switches, not for each host.
#[derive(Clone, Debug)]
pub struct Routing {
    class_of_host: Vec<u32>,
    /// Links to each host from the switches it is joined to.
    last_hops: Vec<Vec<NextHop>>,
    /// Links from each host.
    first_hops: Vec<Vec<NextHop>>,
    /// Links still to cross from a switch to the nearest switch of a class.
    distances: Vec<u16>,
    /// Where in `next_hops` the group of a switch towards a class begins.
    group_starts: Vec<u32>,
    next_hops: Vec<NextHop>,
    switches: usize,
    classes: usize,
}

/// The routing table would be too large.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "routing: {switches} switches with {destinations} distinct destinations need up to \
     {next_hops} next hops, at most {NEXT_HOPS_MAX} are supported; use a smaller topology"
)]
pub struct RoutingTooLarge {
    /// Switches of the topology.
    pub switches: usize,
    /// Distinct sets of switches that hosts are joined to.
    pub destinations: usize,
    /// An upper bound of the table's size.
    pub next_hops: usize,
}

impl Routing {
    /// Works out all shortest paths. O(destinations × links).
    ///
    /// # Errors
    /// If the table might have more than [`NEXT_HOPS_MAX`] entries.
    pub fn new(topology: &Topology) -> Result<Self, RoutingTooLarge> {
        let switches = topology.switches().len();
        let hops_of_host = |host: usize, towards_host: bool| -> Vec<NextHop> {
            let ports = topology.ports(HostId::from_index(host)).iter();
            ports
                .filter_map(|port| match port.neighbour {
                    Node::Switch(switch) => Some(NextHop {
                        switch,
                        // The two directions of a link differ in the last bit.
                        link: LinkDirection(port.link.0 ^ u32::from(towards_host)),
                    }),
                    Node::Host(_) => None,
                })
                .collect()
        };
        let hosts = 0..topology.hosts().len();
        let first_hops: Vec<_> = hosts.clone().map(|h| hops_of_host(h, false)).collect();
        let last_hops: Vec<_> = hosts.map(|h| hops_of_host(h, true)).collect();

        let mut class_by_switches: HashMap<Vec<SwitchId>, u32> = HashMap::new();
        let mut classes: Vec<Vec<SwitchId>> = Vec::new();
        let mut class_of_host = Vec::with_capacity(last_hops.len());
        for hops in &last_hops {
            let joined: Vec<SwitchId> = hops.iter().map(|hop| hop.switch).collect();
            let class = *class_by_switches
                .entry(joined)
                .or_insert_with_key(|joined| {
                    classes.push(joined.clone());
                    classes.len() as u32 - 1
                });
            class_of_host.push(class);
        }

        let neighbours: usize = topology
            .switch_ids()
            .map(|switch| switch_ports(topology, switch).count())
            .sum();
        let next_hops_bound = neighbours.max(switches) * classes.len();
        if next_hops_bound > NEXT_HOPS_MAX {
            return Err(RoutingTooLarge {
                switches,
                destinations: classes.len(),
                next_hops: next_hops_bound,
            });
        }

        let mut routing = Self {
            class_of_host,
            last_hops,
            first_hops,
            distances: Vec::with_capacity(classes.len() * switches),
            group_starts: Vec::with_capacity(classes.len() * switches + 1),
            next_hops: Vec::new(),
            switches,
            classes: classes.len(),
        };
        for joined in &classes {
            routing.add_class(topology, joined);
        }
        routing.group_starts.push(routing.next_hops.len() as u32);
        Ok(routing)
    }

    /// The switches that a packet at `at` may be sent to next on a shortest path to `to`; empty
    /// where `at` delivers to the host itself.
    pub fn next_hops(&self, at: SwitchId, to: HostId) -> &[NextHop] {
        let group = self.entry(at, to);
        &self.next_hops[self.group_starts[group] as usize..self.group_starts[group + 1] as usize]
    }

    /// Links between switches from `at` to the switch that delivers to `to`; 0 if it does itself.
    pub fn distance(&self, at: SwitchId, to: HostId) -> u16 {
        self.distances[self.entry(at, to)]
    }

    /// The link over which a switch delivers to a host, if they are joined.
    pub fn delivery(&self, at: SwitchId, to: HostId) -> Option<LinkDirection> {
        let hops = &self.last_hops[to.index()];
        hops.iter().find(|hop| hop.switch == at).map(|hop| hop.link)
    }

    /// The switches that a host may hand its packets to, in order of number. Those on a shortest
    /// path to `to` are the ones with the least [`Routing::distance`].
    pub fn first_hops(&self, from: HostId) -> &[NextHop] {
        &self.first_hops[from.index()]
    }

    /// Switches on a shortest path between two hosts.
    pub fn path_switches(&self, from: HostId, to: HostId) -> u16 {
        let distances = self.first_hops[from.index()]
            .iter()
            .map(|hop| self.distance(hop.switch, to));
        1 + distances.min().expect("every host is joined to a switch")
    }

    /// Mean number of switches on a path between two different hosts, all pairs alike.
    pub(crate) fn mean_path_switches(&self) -> f64 {
        let mut hosts_of_class = vec![Vec::new(); self.classes];
        for (host, &class) in self.class_of_host.iter().enumerate() {
            hosts_of_class[class as usize].push(HostId::from_index(host));
        }
        let mut total = 0_u64;
        for from in &hosts_of_class {
            for to in &hosts_of_class {
                let pairs = from.len() as u64 * to.len() as u64;
                total += pairs * u64::from(self.path_switches(from[0], to[0]));
            }
        }
        // A host and itself would have met at one switch.
        let hosts = self.class_of_host.len() as u64;
        (total - hosts) as f64 / (hosts * (hosts - 1)) as f64
    }

    fn entry(&self, at: SwitchId, to: HostId) -> usize {
        self.class_of_host[to.index()] as usize * self.switches + at.index()
    }

    /// Breadth-first search back from the switches that deliver.
    fn add_class(&mut self, topology: &Topology, joined: &[SwitchId]) {
        const UNREACHED: u16 = u16::MAX;
        let mut distances = vec![UNREACHED; self.switches];
        let mut queue: VecDeque<SwitchId> = joined.iter().copied().collect();
        for switch in joined {
            distances[switch.index()] = 0;
        }
        while let Some(switch) = queue.pop_front() {
            for (neighbour, _) in switch_ports(topology, switch) {
                if distances[neighbour.index()] == UNREACHED {
                    distances[neighbour.index()] = distances[switch.index()] + 1;
                    queue.push_back(neighbour);
                }
            }
        }
        for switch in topology.switch_ids() {
            self.group_starts.push(self.next_hops.len() as u32);
            let distance = distances[switch.index()];
            let closer = switch_ports(topology, switch)
                .filter(|(neighbour, _)| distances[neighbour.index()] + 1 == distance)
                .map(|(switch, link)| NextHop { switch, link });
            self.next_hops.extend(closer);
        }
        self.distances.append(&mut distances);
    }
}

/// How switches choose among equal next hops: a hash of the flow key, with a salt and weights.
#[derive(Clone, Debug)]
pub(crate) struct Ecmp {
    /// By switch.
    pub(crate) salts: Vec<u64>,
    /// By switch; `None` weighs all alike. Otherwise repeated over the group.
    pub(crate) weights: Vec<Option<Vec<u32>>>,
}

impl Ecmp {
    /// The place in a group of `choices`.
    pub(crate) fn choose(&self, at: SwitchId, key: &FlowKeyV4, choices: usize) -> usize {
        let bits = hash_key(key, self.salts[at.index()]);
        match &self.weights[at.index()] {
            None => scale(bits, choices as u64) as usize,
            Some(weights) => {
                let weights = weights.iter().copied().cycle().take(choices);
                let total: u64 = weights.clone().map(u64::from).sum();
                let mut left = scale(bits, total);
                weights
                    .map(u64::from)
                    .position(|weight| {
                        let here = left < weight;
                        left = left.wrapping_sub(weight);
                        here
                    })
                    // A group in which only entries of weight 0 fall has but its first.
                    .unwrap_or(0)
            }
        }
    }
}

/// The hash that stands for a switch's ECMP hash unit.
pub(crate) fn hash_key(key: &FlowKeyV4, salt: u64) -> u64 {
    let mut bytes = [0; 13];
    key.write_bytes(&mut bytes);
    xxh3_64_with_seed(&bytes, salt)
}

fn switch_ports(
    topology: &Topology,
    switch: SwitchId,
) -> impl Iterator<Item = (SwitchId, LinkDirection)> {
    topology.ports(switch).iter().filter_map(|port| {
        let &Port { neighbour, link } = port;
        match neighbour {
            Node::Switch(neighbour) => Some((neighbour, link)),
            Node::Host(_) => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each next hop is joined and one closer; groups have the sizes that the fat tree's paper
    /// gives: (k/2)² paths between pods.
    #[test]
    fn fat_tree_groups_are_shortest_paths() {
        let tree = Topology::fat_tree(6).expect("6 is even");
        let routing = Routing::new(&tree).expect("is small");
        let to = tree.host("host-3-1-2").expect("exists");
        for at in tree.switch_ids() {
            for hop in routing.next_hops(at, to) {
                assert_eq!(tree.link_between(at, hop.switch), Some(hop.link));
                assert_eq!(
                    routing.distance(hop.switch, to) + 1,
                    routing.distance(at, to)
                );
            }
        }
        let group = |name: &str| {
            let switch = tree.switch(name).expect("exists");
            (
                routing.next_hops(switch, to).len(),
                routing.distance(switch, to),
            )
        };
        assert_eq!(group("edge-0-0"), (3, 4));
        assert_eq!(group("agg-0-0"), (3, 3));
        assert_eq!(group("core-0"), (1, 2));
        assert_eq!(group("agg-3-0"), (1, 1));
        assert_eq!(group("edge-3-0"), (3, 2));
        assert_eq!(group("edge-3-1"), (0, 0));
        let edge = tree.switch("edge-3-1").expect("exists");
        assert_eq!(routing.delivery(edge, to), tree.link_between(edge, to));
    }

    /// With k = 4 and 16 hosts, of the 15 others one is on the same edge switch, two in the same
    /// pod and twelve in others.
    #[test]
    fn mean_path_is_that_of_counting() {
        let tree = Topology::fat_tree(4).expect("4 is even");
        let routing = Routing::new(&tree).expect("is small");
        let expected = (1.0 + 2.0 * 3.0 + 12.0 * 5.0) / 15.0;
        assert!((routing.mean_path_switches() - expected).abs() < 1e-12);
    }

    #[test]
    fn weights_shape_the_choice() {
        let ecmp = Ecmp {
            salts: vec![5],
            weights: vec![Some(vec![3, 0, 1])],
        };
        let mut chosen = [0_u32; 4];
        for port in 0..40_000_u16 {
            let key = FlowKeyV4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), port, 80, 6);
            chosen[ecmp.choose(SwitchId(0), &key, 4)] += 1;
        }
        // Weights 3, 0, 1, 3: standard deviation at most 100.
        assert_eq!(chosen[1], 0);
        for (place, weight) in [(0, 3), (2, 1), (3, 3)] {
            let expected = 40_000 * weight / 7;
            assert!(chosen[place].abs_diff(expected) < 500, "{chosen:?}");
        }
    }
}
