//! How evenly the members of ECMP groups are loaded, in flows, packets and bytes (NSDI 2016 §6.2).
//!
//! # Definition
//! A flow at a switch that is meant to choose among several next hops is counted for the member that
//! saw it, with what that member counted. The *ratio* of a group is the largest share of a member over
//! the share that its weight gives it: 1 is even, and the number of members is the most.
//!
//! Two things are told apart, for flow counts hide load:
//! - A group is *skewed* if its flows are spread unevenly: χ² of the numbers of flows that began in
//!   the last [`EcmpOptions::window_epochs`] epochs, as normal deviations (Wilson and Hilferty, 1931),
//!   at or above [`EcmpOptions::skew_deviations`]. The hash function, its input or the weights are
//!   wrong, or hashes are polarised: a warning.
//! - A group is *overloaded* if the ratio in packets or bytes over [`EcmpOptions::window_epochs`]
//!   epochs, and in four of five of these epochs, is [`EcmpOptions::overload_ratio`] or more, although
//!   flows are spread evenly: a few large flows met. For information.
//!
//! # Evidence
//! Ratios in flows, packets and bytes, deviations; the series of [`GroupLoad`]s of each epoch.
//!
//! # Limits
//! - Only flows that a member saw are counted; the others are in [`GroupLoad::flows_unassigned`].
//! - Flows that go on over epochs were hashed once, and count once. A slight skew takes some epochs to
//!   show: with two members and a share of one half and d, some 9 / d² flows.
//! - A skew that is the intention must be in the intended forwarding's weights.

use std::collections::VecDeque;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::NetworkModel;
use super::event::{EventKind, Severity};
use super::evidence::Sighted;
use super::flows::Sighting;
use super::intended::{Group, GroupIndex, Intended};
use super::way::Way;

/// Flows of a member that χ² needs to be expected.
const FLOWS_EXPECTED_MIN: f64 = 5.0;
/// Part of a window's epochs in which a group must be overloaded.
const OVERLOADED_EPOCHS: f64 = 0.8;

/// Limits of the ECMP analysis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EcmpOptions {
    /// Standard deviations of the number of flows from what the weights say, from which on a group is
    /// skewed.
    pub skew_deviations: f64,
    /// Load of the most loaded member over its fair share, from which on a group is imbalanced.
    pub overload_ratio: f64,
    /// Epochs over which load is averaged.
    pub window_epochs: usize,
    /// A group with fewer packets in a window is not judged.
    pub packets_min: u64,
}

/// The load of an ECMP group in an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupLoad {
    /// The switch that chooses.
    pub switch: String,
    /// Its next hops.
    pub members: Vec<MemberLoad>,
    /// Largest share over its fair share, in flows; 1 is even. 0 without any.
    pub flow_ratio: f64,
    /// The same in packets.
    pub packet_ratio: f64,
    /// The same in bytes, where all switches count bytes.
    pub byte_ratio: Option<f64>,
    /// Flows of the group that no member is known of.
    pub flows_unassigned: u64,
}

/// The load of a member of an ECMP group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberLoad {
    /// The next hop.
    pub to: String,
    /// How much it is meant to get, relative to the others.
    pub weight: u32,
    /// Flows sent to it.
    pub flows: u64,
    /// Packets sent to it; estimates where counters are unresolved.
    pub packets: u64,
    /// Bytes sent to it; estimates where counters are unresolved.
    pub bytes: u64,
    /// Flows of these whose counters are unresolved.
    pub unresolved: u64,
}

impl Default for EcmpOptions {
    fn default() -> Self {
        Self {
            skew_deviations: 6.0,
            overload_ratio: 1.5,
            window_epochs: 10,
            packets_min: 1_000,
        }
    }
}

/// Watches the groups of a network.
#[derive(Debug, Default)]
pub(crate) struct Ecmp {
    /// This epoch's load.
    loads: HashMap<GroupIndex, Load>,
    /// The load of the last epochs.
    windows: HashMap<GroupIndex, VecDeque<Load>>,
}

/// By member, in the order of the group.
#[derive(Clone, Debug, Default)]
struct Load {
    members: Vec<Counts>,
    unassigned: u64,
    bytes_counted: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    flows: u64,
    /// Flows that were not there before.
    new_flows: u64,
    packets: u64,
    bytes: u64,
    unresolved: u64,
}

impl Ecmp {
    /// Counts a flow for the members that it went over.
    pub(crate) fn add(
        &mut self,
        way: &Way,
        sightings: &[Sighting<'_>],
        is_new: bool,
        model: &NetworkModel,
    ) {
        for stop in &way.stops {
            let Intended::Forward(index) = stop.intended else {
                continue;
            };
            let group = model.forwarding.group(index);
            if group.members.len() < 2 || stop.packets.most == 0 {
                continue;
            }
            let load = self.loads.entry(index).or_insert_with(|| Load {
                members: vec![Counts::default(); group.members.len()],
                unassigned: 0,
                bytes_counted: true,
            });
            let mut took = way.next_of(stop).filter_map(|next| {
                let member = group.members.binary_search(&next.switch).ok()?;
                let sighting = sightings.iter().find(|seen| seen.switch == next.switch)?;
                Some((member, sighting.record))
            });
            // A flow on two ways is not one that was hashed: the switch changed its mind.
            let (Some((member, record)), None) = (took.next(), took.next()) else {
                load.unassigned += 1;
                continue;
            };
            let counts = &mut load.members[member];
            counts.flows += 1;
            counts.new_flows += u64::from(is_new);
            counts.packets += record.packets.value;
            let resolved = record.packets.status.is_resolved();
            let bytes_resolved = record.bytes.is_none_or(|bytes| bytes.status.is_resolved());
            counts.unresolved += u64::from(!(resolved && bytes_resolved));
            match record.bytes {
                Some(bytes) => counts.bytes += bytes.value,
                None => load.bytes_counted = false,
            }
        }
    }

    /// Ends the epoch: the load of all groups, and those that are uneven.
    pub(crate) fn end_epoch(
        &mut self,
        epoch: u64,
        model: &NetworkModel,
        options: &EcmpOptions,
    ) -> (Vec<GroupLoad>, Vec<Sighted>) {
        let mut loads: Vec<(GroupIndex, Load)> = self.loads.drain().collect();
        loads.sort_unstable_by_key(|&(group, _)| group);
        let mut found = Vec::with_capacity(loads.len());
        let mut sighted = Vec::new();
        // Groups that nobody used are not in the window either.
        for (index, load) in loads {
            let group = model.forwarding.group(index);
            let group_load = group_load(group, &load, model);
            let window = self.windows.entry(index).or_default();
            window.push_back(load);
            while window.len() > options.window_epochs {
                window.pop_front();
            }
            sighted.extend(judge(epoch, group, &group_load, window, options));
            found.push(group_load);
        }
        found.sort_by(|a, b| a.switch.cmp(&b.switch));
        (found, sighted)
    }
}

fn judge(
    epoch: u64,
    group: &Group,
    load: &GroupLoad,
    window: &VecDeque<Load>,
    options: &EcmpOptions,
) -> Option<Sighted> {
    let now = window.back()?;
    let flows: u64 = now.members.iter().map(|member| member.flows).sum();
    let deviations = flow_deviations(group, window);
    let skewed = deviations >= options.skew_deviations;
    let (packet_ratio, byte_ratio) = (
        window_ratio(group, window, |member| member.packets),
        window_ratio(group, window, |member| member.bytes),
    );
    let packets: u64 = window
        .iter()
        .flat_map(|load| &load.members)
        .map(|member| member.packets)
        .sum();
    let overloaded_in = |load: &&Load| {
        let ratio = ratio(group, load.members.iter().map(|member| member.packets));
        ratio >= options.overload_ratio
    };
    let overloaded = window.len() >= options.window_epochs
        && packets >= options.packets_min
        && packet_ratio.max(byte_ratio) >= options.overload_ratio
        && window.iter().filter(overloaded_in).count() as f64
            >= OVERLOADED_EPOCHS * window.len() as f64;
    if !skewed && !overloaded {
        return None;
    }
    let kind = EventKind::EcmpImbalance {
        switch: load.switch.clone(),
        members: load
            .members
            .iter()
            .map(|member| member.to.clone())
            .collect(),
    };
    let severity = if skewed {
        Severity::Warning
    } else {
        Severity::Info
    };
    let mut sighted = Sighted::new(kind, epoch, severity)
        .measure("flow_ratio", load.flow_ratio)
        .measure("packet_ratio", load.packet_ratio)
        .measure("window_packet_ratio", packet_ratio)
        .measure("window_byte_ratio", byte_ratio)
        .measure("flow_deviations", deviations);
    sighted.flows = flows;
    sighted.packets = now.members.iter().map(|member| member.packets).sum();
    Some(sighted)
}

/// Standard deviations of the members' numbers of new flows from their shares.
fn flow_deviations(group: &Group, window: &VecDeque<Load>) -> f64 {
    let flows = |member: usize| -> u64 {
        window
            .iter()
            .map(|load| load.members[member].new_flows)
            .sum()
    };
    let flows: Vec<u64> = (0..group.members.len()).map(flows).collect();
    let total: u64 = flows.iter().sum();
    let weights: f64 = group.weights.iter().map(|&weight| f64::from(weight)).sum();
    let (mut squares, mut least, mut members) = (0.0, f64::INFINITY, 0.0);
    for (&flows, &weight) in flows.iter().zip(&group.weights) {
        if weight == 0 {
            continue;
        }
        let expected = total as f64 * f64::from(weight) / weights;
        squares += (flows as f64 - expected).powi(2) / expected;
        least = least.min(expected);
        members += 1.0;
    }
    if members < 2.0 || least < FLOWS_EXPECTED_MIN {
        return 0.0;
    }
    let freedom = members - 1.0;
    let variance = 2.0 / (9.0 * freedom);
    ((squares / freedom).cbrt() - (1.0 - variance)) / variance.sqrt()
}

fn window_ratio(group: &Group, window: &VecDeque<Load>, count: fn(&Counts) -> u64) -> f64 {
    let members = 0..group.members.len();
    let sums = members.map(|member| window.iter().map(|load| count(&load.members[member])).sum());
    ratio(group, sums)
}

/// The largest share over the share that a member's weight gives it; 0 if there is nothing.
fn ratio(group: &Group, counts: impl Iterator<Item = u64>) -> f64 {
    let counts: Vec<u64> = counts.collect();
    let total: u64 = counts.iter().sum();
    let weights: u64 = group.weights.iter().map(|&weight| u64::from(weight)).sum();
    let shares = counts.iter().zip(&group.weights);
    let ratio = |(&count, &weight): (&u64, &u32)| {
        let fair = total as f64 * f64::from(weight) / weights.max(1) as f64;
        if fair > 0.0 { count as f64 / fair } else { 0.0 }
    };
    shares.map(ratio).fold(0.0, f64::max)
}

fn group_load(group: &Group, load: &Load, model: &NetworkModel) -> GroupLoad {
    let members = group.members.iter().zip(&group.weights).zip(&load.members);
    let members: Vec<MemberLoad> = members
        .map(|((&to, &weight), counts)| MemberLoad {
            to: model.network.switch_name(to).into(),
            weight,
            flows: counts.flows,
            packets: counts.packets,
            bytes: counts.bytes,
            unresolved: counts.unresolved,
        })
        .collect();
    GroupLoad {
        switch: model.network.switch_name(group.switch).into(),
        flow_ratio: ratio(group, members.iter().map(|member| member.flows)),
        packet_ratio: ratio(group, members.iter().map(|member| member.packets)),
        byte_ratio: load
            .bytes_counted
            .then(|| ratio(group, members.iter().map(|member| member.bytes))),
        members,
        flows_unassigned: load.unassigned,
    }
}

#[cfg(test)]
mod tests {
    use super::super::network::SwitchIndex;
    use super::*;

    fn group(weights: &[u32]) -> Group {
        Group {
            switch: SwitchIndex(0),
            members: (1..).map(SwitchIndex).take(weights.len()).collect(),
            weights: weights.into(),
        }
    }

    fn load(flows: &[u64]) -> VecDeque<Load> {
        let counts = |&flows: &u64| Counts {
            flows,
            new_flows: flows,
            packets: 10 * flows,
            ..Counts::default()
        };
        let load = Load {
            members: flows.iter().map(counts).collect(),
            ..Load::default()
        };
        [load].into()
    }

    /// 0.05 and 0.001 quantiles of χ² as printed in every table.
    #[test]
    fn deviations_are_those_of_the_chi_square_distribution() {
        // One degree of freedom: 10.828 is exceeded with a probability of 0.001, 3.090 deviations.
        let n: f64 = 100_000.0;
        let off = (10.828 * n / 4.0).sqrt();
        let (a, b) = ((n / 2.0 + off) as u64, (n / 2.0 - off) as u64);
        let deviations = flow_deviations(&group(&[1, 1]), &load(&[a, b]));
        assert!((deviations - 3.09).abs() < 0.1, "{deviations}");
        assert!(flow_deviations(&group(&[1, 1]), &load(&[500, 500])) < 0.0);
        // Weights are no skew.
        assert!(flow_deviations(&group(&[3, 1]), &load(&[750, 250])) < 0.0);
        assert!(flow_deviations(&group(&[1, 1]), &load(&[750, 250])) > 6.0);
        // Too few flows say nothing.
        assert_eq!(flow_deviations(&group(&[1, 1]), &load(&[7, 0])), 0.0);
    }

    #[test]
    fn ratios_count_weights() {
        assert_eq!(ratio(&group(&[1, 1]), [30, 10].into_iter()), 1.5);
        assert_eq!(ratio(&group(&[3, 1]), [30, 10].into_iter()), 1.0);
        assert_eq!(ratio(&group(&[1, 1]), [0, 0].into_iter()), 0.0);
    }
}
