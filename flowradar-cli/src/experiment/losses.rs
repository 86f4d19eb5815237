//! Losses, read off the decoded counters: where one switch of a flow's path counted more packets
//! than the next.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use flowradar_collector::NetDecode;
use flowradar_core::{Counter, FlowKeyV4};
use flowradar_sim::{Node, SwitchId, Topology, Truth};
use serde::Serialize;

/// A link between switches, in one direction.
pub(crate) type Link = (SwitchId, SwitchId);

/// Packets of a flow that got lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) key: FlowKeyV4,
    /// The last switch that counted them.
    pub(crate) from: SwitchId,
    /// The next switch, if it counted any packet of the flow; else the flow ended behind `from`.
    pub(crate) to: Option<SwitchId>,
    pub(crate) packets: u64,
}

/// The losses of an epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Losses {
    pub(crate) losses: Vec<Loss>,
    /// Places where a switch counted more than the one before: packets that were in flight when the
    /// epoch began.
    pub(crate) gains: u64,
    /// Pairs of switches not compared, because a counter is unresolved.
    pub(crate) undecided: u64,
}

/// The counters of a flow at the switches of its path, in order.
pub(crate) type Hops = Vec<(SwitchId, Counter)>;

/// Puts the counters of each flow in the order of its path: from the source's switch on, each the
/// neighbour of the one before. Only the topology must be known, no routes.
///
/// Flows whose path cannot be followed (switches that did not report, loops) are left out.
pub(crate) fn paths(
    topology: &Topology,
    switches: &[SwitchId],
    decoded: &NetDecode<FlowKeyV4>,
) -> BTreeMap<FlowKeyV4, Hops> {
    let mut seen: HashMap<FlowKeyV4, Hops> = HashMap::new();
    for (&switch, decoded) in switches.iter().zip(&decoded.switches) {
        for flow in &decoded.flows {
            seen.entry(flow.key)
                .or_default()
                .push((switch, flow.packets));
        }
    }
    let access = access_switches(topology);
    let in_order = |(key, hops): (FlowKeyV4, Hops)| {
        let first = access.get(&key.src_v4())?;
        Some((key, order(topology, *first, hops)?))
    };
    seen.into_iter().filter_map(in_order).collect()
}

/// Compares the counters of neighbours.
pub(crate) fn find(topology: &Topology, paths: &BTreeMap<FlowKeyV4, Hops>) -> Losses {
    let access = access_switches(topology);
    let mut found = Losses::default();
    for (key, hops) in paths {
        for pair in hops.windows(2) {
            let [(from, before), (to, after)] = [pair[0], pair[1]];
            if !before.status.is_resolved() || !after.status.is_resolved() {
                found.undecided += 1;
            } else if before.value > after.value {
                found.losses.push(Loss {
                    key: *key,
                    from,
                    to: Some(to),
                    packets: before.value - after.value,
                });
            } else if before.value < after.value {
                found.gains += 1;
            }
        }
        let arrived = access.get(&key.dst_v4());
        if let Some(&(last, packets)) = hops.last()
            && arrived.is_some_and(|&arrived| arrived != last)
        {
            if packets.status.is_resolved() {
                found.losses.push(Loss {
                    key: *key,
                    from: last,
                    to: None,
                    packets: packets.value,
                });
            } else {
                found.undecided += 1;
            }
        }
    }
    found
}

/// Losses found, compared with those that there were: one for each flow and link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct LossScore {
    /// Losses that there were.
    pub(crate) losses: u64,
    /// Found with their link and number of packets.
    pub(crate) on_the_link: u64,
    /// Found with the switch behind which the whole rest of the flow was lost, and the number of
    /// packets.
    pub(crate) behind_the_switch: u64,
    /// Found at the right place with another number of packets.
    pub(crate) other_number: u64,
    /// Said to be where there was none.
    pub(crate) false_alarms: u64,
}

impl LossScore {
    /// Compares with what was simulated.
    pub(crate) fn of(found: &Losses, topology: &Topology, truth: &Truth, epoch: u64) -> Self {
        let mut really: HashMap<(FlowKeyV4, Link), u64> = HashMap::new();
        let keys: HashMap<_, _> = truth
            .flows()
            .iter()
            .map(|&(key, flow)| (flow, key))
            .collect();
        for event in truth.events() {
            use flowradar_sim::Happening::{LostOfFlow, LostOnLink};
            let (LostOfFlow { link } | LostOnLink { link }) = event.what else {
                continue;
            };
            if event.sent_epoch == epoch as i64
                && let (Node::Switch(from), Node::Switch(to)) = topology.ends(link)
                && let Some(&key) = keys.get(&event.flow)
            {
                *really.entry((key, (from, to))).or_default() += event.packets;
            }
        }
        Self::against(found, &really)
    }

    /// Compares with the packets that each link has lost of each flow.
    pub(crate) fn against(found: &Losses, really: &HashMap<(FlowKeyV4, Link), u64>) -> Self {
        let mut score = Self {
            losses: really.len() as u64,
            ..Self::default()
        };
        let mut behind: HashMap<(FlowKeyV4, SwitchId), (Link, u64)> = HashMap::new();
        for (&(key, link), &packets) in really {
            behind.insert((key, link.0), (link, packets));
        }
        for loss in &found.losses {
            let packets = match loss.to {
                Some(to) => really.get(&(loss.key, (loss.from, to))).copied(),
                None => behind
                    .get(&(loss.key, loss.from))
                    .map(|&(_, packets)| packets),
            };
            match packets {
                None => score.false_alarms += 1,
                Some(packets) if packets != loss.packets => score.other_number += 1,
                Some(_) if loss.to.is_some() => score.on_the_link += 1,
                Some(_) => score.behind_the_switch += 1,
            }
        }
        score
    }

    /// Losses found at the right place.
    pub(crate) fn found(&self) -> u64 {
        self.on_the_link + self.behind_the_switch + self.other_number
    }

    /// Whether all losses were found as they were, and no others.
    pub(crate) fn is_right(&self) -> bool {
        self.on_the_link + self.behind_the_switch == self.losses && self.false_alarms == 0
    }

    /// Adds another epoch's.
    pub(crate) fn add(&mut self, other: Self) {
        self.losses += other.losses;
        self.on_the_link += other.on_the_link;
        self.behind_the_switch += other.behind_the_switch;
        self.other_number += other.other_number;
        self.false_alarms += other.false_alarms;
    }
}

/// Packets lost on each link; those that were lost behind a switch, on a link not known, by switch.
pub(crate) fn by_link(losses: &Losses) -> (BTreeMap<Link, u64>, u64) {
    let mut links = BTreeMap::new();
    let mut behind_switches = 0;
    for loss in &losses.losses {
        match loss.to {
            Some(to) => *links.entry((loss.from, to)).or_default() += loss.packets,
            None => behind_switches += loss.packets,
        }
    }
    (links, behind_switches)
}

/// The switch that each host is at.
fn access_switches(topology: &Topology) -> HashMap<Ipv4Addr, SwitchId> {
    let mut access = HashMap::new();
    for &[a, b] in topology.links() {
        if let (Node::Host(host), Node::Switch(switch)) | (Node::Switch(switch), Node::Host(host)) =
            (a, b)
        {
            access.insert(topology.hosts()[host.index()].address, switch);
        }
    }
    access
}

fn order(topology: &Topology, first: SwitchId, mut hops: Hops) -> Option<Hops> {
    let mut ordered = Vec::with_capacity(hops.len());
    let place = hops.iter().position(|&(switch, _)| switch == first)?;
    ordered.push(hops.swap_remove(place));
    while !hops.is_empty() {
        let &(last, _) = ordered.last().expect("the first switch is there");
        let place = hops
            .iter()
            .position(|&(switch, _)| topology.link_between(last, switch).is_some())?;
        ordered.push(hops.swap_remove(place));
    }
    Some(ordered)
}
