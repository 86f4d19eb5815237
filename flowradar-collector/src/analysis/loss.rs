//! Lost packets of every flow, and a map of the links that lose them (NSDI 2016 §6.2).
//!
//! # Definition
//! A packet is lost between two switches if the first counted it and the second did not. For each
//! flow the switches that saw it are put in the order of its way: from where its source is, along
//! intended forwarding (`way.rs`). What a switch sent is compared with what the next one counted;
//! over several members of an ECMP group that saw the flow it is added up. What is missing is *lost*
//! if it was not counted behind that place in the next epoch either: until then it may have been on
//! its way. Packets that appear in the next epoch are reported as in flight.
//!
//! Where no switch further on saw a flow, its packets were lost *behind* the last one: on the link to
//! its only next hop, or on one of the links to the members of its group.
//!
//! # Evidence
//! Each [`FlowLoss`] has the counters before and behind. A link is an event
//! ([`EventKind::LinkLoss`]) if it lost [`LossOptions::packets_min`] packets and
//! [`LossOptions::rate_min`] of them in an epoch; losses behind a switch are one
//! ([`EventKind::LossBehind`]) where they are no blackhole ([`super::anomaly`]) and none of the
//! switch's links is known to be lossy.
//!
//! # Limits
//! - Losses between a host and its switch, and at the last switch after it counted, leave no trace.
//! - Nothing is said of a flow with packets too many that may have been sent in an epoch of which nothing
//!   is known, such as the one before the first.
//! - Losses are certain as far as counters are: with bounds, it is the least that must be missing. A
//!   missing or incomplete report hides losses next to that switch (they are counted as undecided).
//! - In an epoch in which both packets from the epoch before arrive and others get lost at one place of
//!   one flow, the two cancel: only the difference is seen. Over several epochs the sums are right.
//! - A few packets missing at one place of a flow in several epochs one after the other may each time be
//!   others, on their way: the judgement waits until nothing is missing, up to three epochs, and counts
//!   the losses in that epoch.
//! - Clocks: a switch whose epochs begin early or late counts other packets than both its neighbours;
//!   such differences cancel within a flow. At the first and last switch of a way, and where neighbours'
//!   clocks are off in different directions, they look like losses: clocks must agree within what
//!   packets take, or switches stamp the epoch into packets.
//! - A flow keeps to one way within an epoch, unless it is seen on several.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::NetworkModel;
use super::event::{EventKind, Severity};
use super::evidence::{FlowsConcerned, Sighted};
use super::intended::GroupIndex;
use super::network::SwitchIndex;
use super::path::Settled;
use super::record::FiveTuple;
use super::way::Way;

/// Flow sizes (packets) that are counted apart, for what random loss explains.
pub(crate) const SIZES: usize = 32;

/// Limits of the loss analysis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossOptions {
    /// Epochs after which a packet on its way has been counted further on: 1, so that an epoch is settled
    /// when the next one has been seen; 0 where switches stamp the epoch into packets. More count as 1.
    pub in_flight_epochs: u8,
    /// A link is lossy from so many packets lost in an epoch on.
    pub packets_min: u64,
    /// A link is lossy from this fraction of packets lost in an epoch on.
    pub rate_min: f64,
    /// Lossy flows listed for an epoch at most, those with most packets lost first.
    pub flows_listed_max: usize,
}

/// What was lost in an epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LossMap {
    /// The epoch.
    pub epoch: u64,
    /// Links between switches that packets crossed, in both directions apart; by name.
    pub links: Vec<LinkLoss>,
    /// Losses where the link is not known, as no packet of the flow went further; by name.
    pub behind: Vec<SwitchLoss>,
    /// Lossy flows, the one that lost most first; at most [`LossOptions::flows_listed_max`].
    pub flows: Vec<FlowLoss>,
    /// Lossy flows in all (a flow that lost packets at two places counts twice).
    pub lossy_flows: u64,
    /// Packets lost on links and behind switches.
    pub packets_lost: u64,
    /// Packets that were missing and were counted in the neighbouring epoch.
    pub packets_in_flight: u64,
    /// Comparisons of two switches' counters of a flow.
    pub compared: u64,
    /// Comparisons that were not made, since a counter is not known, or a report is missing or
    /// incomplete.
    pub undecided: u64,
}

/// What a link carried and lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkLoss {
    /// Where packets enter it.
    pub from: String,
    /// Where it leads.
    pub to: String,
    /// Flows that crossed it.
    pub flows: u64,
    /// Their packets before it.
    pub packets: u64,
    /// Packets lost on it at least.
    pub lost: u64,
    /// Flows that lost packets on it.
    pub lossy_flows: u64,
}

/// What got lost somewhere behind a switch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SwitchLoss {
    /// The last switch that counted the packets.
    pub switch: String,
    /// Where intended forwarding sends them.
    pub next: Vec<String>,
    /// Flows that end there.
    pub flows: u64,
    /// Their packets.
    pub lost: u64,
}

/// What a flow lost at a place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowLoss {
    /// The flow.
    pub flow: FiveTuple,
    /// The last switch that counted its packets.
    pub from: String,
    /// The next switch; none if none of the flow's packets went further.
    pub to: Option<String>,
    /// Packets at `from`, at least.
    pub packets: u64,
    /// Packets lost, at least.
    pub lost: u64,
}

impl Default for LossOptions {
    fn default() -> Self {
        Self {
            in_flight_epochs: 1,
            packets_min: 1,
            rate_min: 0.0,
            flows_listed_max: 100,
        }
    }
}

impl LinkLoss {
    /// Fraction of packets lost.
    pub fn rate(&self) -> f64 {
        self.lost as f64 / self.packets.max(1) as f64
    }
}

/// Counts what crossed links, and what was missing behind them.
#[derive(Clone, Debug, Default)]
pub(crate) struct LossTally {
    /// By [`LossTally::link`].
    links: Vec<LinkTally>,
    /// Where in `links` those of a switch begin.
    starts: Vec<u32>,
    /// By switch: flows that it is meant to send on, by packets.
    pub(crate) sizes: Vec<[u32; SIZES]>,
    /// By switch: packets that it is meant to send on.
    pub(crate) sent: Vec<u64>,
    pub(crate) compared: u64,
    pub(crate) undecided: u64,
    pub(crate) packets_in_flight: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct LinkTally {
    flows: u64,
    packets: u64,
    lost: u64,
    lossy_flows: u64,
}

/// What was lost behind a switch, of flows that end there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ends {
    /// Flow's place among those settled, its packets.
    pub(crate) flows: Vec<(usize, u64)>,
}

/// The losses of a settled epoch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Losses {
    pub(crate) map: LossMap,
    pub(crate) sighted: Vec<Sighted>,
}

impl LossTally {
    pub(crate) fn new(model: &NetworkModel) -> Self {
        let network = &model.network;
        let switches = 0..network.switches().len();
        let mut starts = vec![0];
        for switch in switches.clone() {
            let before = starts[switch];
            starts.push(before + network.neighbours(SwitchIndex(switch as u16)).len() as u32);
        }
        Self {
            links: vec![LinkTally::default(); starts[switches.len()] as usize],
            starts,
            sizes: vec![[0; SIZES]; switches.len()],
            sent: vec![0; switches.len()],
            ..Self::default()
        }
    }

    /// Counts a flow's way.
    pub(crate) fn add(&mut self, way: &Way, model: &NetworkModel) {
        for hop in &way.hops {
            if hop.is_balanced() || hop.missing > 0 || hop.surplus > 0 {
                self.compared += 1;
            } else {
                self.undecided += 1;
            }
            let Some(from) = hop.from else { continue };
            if hop.before.least == 0 {
                continue;
            }
            let size = (hop.before.least as usize).min(SIZES - 1);
            self.sizes[from.index()][size] += 1;
            self.sent[from.index()] += hop.before.least;
            if let Some(to) = hop.to
                && let Some(link) = self.link(model, from, to)
            {
                link.flows += 1;
                link.packets += hop.before.least;
            }
        }
    }

    fn link(
        &mut self,
        model: &NetworkModel,
        from: SwitchIndex,
        to: SwitchIndex,
    ) -> Option<&mut LinkTally> {
        let place = model.network.neighbours(from).binary_search(&to).ok()?;
        self.links
            .get_mut(self.starts[from.index()] as usize + place)
    }
}

/// Finds the losses of an epoch. `explained` are the flows whose missing packets have another reason.
///
/// Gives the ends of flows by switch and group besides, for what they say about blackholes.
pub(crate) fn find(
    settled: &mut Settled,
    explained: &[bool],
    model: &NetworkModel,
    options: &LossOptions,
) -> (Losses, BTreeMap<(SwitchIndex, GroupIndex), Ends>) {
    let mut losses = Losses::default();
    let mut ends: BTreeMap<(SwitchIndex, GroupIndex), Ends> = BTreeMap::new();
    let mut concerned: HashMap<(SwitchIndex, SwitchIndex), FlowsConcerned> = HashMap::new();
    let mut listed: Vec<(u64, usize, usize)> = Vec::new();
    let map = &mut losses.map;
    map.epoch = settled.epoch;
    for (number, (_, way)) in settled.flows.iter().enumerate() {
        if explained[number] {
            continue;
        }
        for (place, hop) in way.hops.iter().enumerate() {
            let (Some(from), true) = (hop.from, hop.missing > 0 && !hop.off_way) else {
                continue;
            };
            map.lossy_flows += 1;
            map.packets_lost += hop.missing;
            listed.push((hop.missing, number, place));
            match (hop.to, hop.group) {
                (Some(to), _) => {
                    if let Some(link) = settled.tally.link(model, from, to) {
                        link.lost += hop.missing;
                        link.lossy_flows += 1;
                    }
                    let concerned = concerned.entry((from, to)).or_default();
                    concerned.add(number, hop.missing);
                }
                (None, Some(group)) => {
                    let ends = ends.entry((from, group)).or_default();
                    ends.flows.push((number, hop.missing));
                }
                (None, None) => {}
            }
        }
    }
    map.compared = settled.tally.compared;
    map.undecided = settled.tally.undecided;
    map.packets_in_flight = settled.tally.packets_in_flight;
    list_flows(map, listed, settled, model, options);
    for (&(switch, group), ends) in &ends {
        map.behind.push(SwitchLoss {
            switch: model.network.switch_name(switch).into(),
            next: model.names(&model.forwarding.group(group).members),
            flows: ends.flows.len() as u64,
            lost: ends.flows.iter().map(|&(_, packets)| packets).sum(),
        });
    }
    for from in 0..model.network.switches().len() {
        let from = SwitchIndex(from as u16);
        for &to in model.network.neighbours(from) {
            let Some(&mut tally) = settled.tally.link(model, from, to) else {
                continue;
            };
            if tally.flows == 0 {
                continue;
            }
            let link = LinkLoss {
                from: model.network.switch_name(from).into(),
                to: model.network.switch_name(to).into(),
                flows: tally.flows,
                packets: tally.packets,
                lost: tally.lost,
                lossy_flows: tally.lossy_flows,
            };
            if let Some(concerned) = concerned.remove(&(from, to))
                && link.lost >= options.packets_min
                && link.rate() >= options.rate_min
            {
                losses
                    .sighted
                    .push(sighted(&link, &concerned, settled, model));
            }
            map.links.push(link);
        }
    }
    map.links
        .sort_by(|a, b| (&a.from, &a.to).cmp(&(&b.from, &b.to)));
    map.behind
        .sort_by(|a, b| (&a.switch, &a.next).cmp(&(&b.switch, &b.next)));
    (losses, ends)
}

/// A lossy link.
fn sighted(
    link: &LinkLoss,
    concerned: &FlowsConcerned,
    settled: &Settled,
    model: &NetworkModel,
) -> Sighted {
    let severity = match link.rate() {
        rate if rate >= 0.05 => Severity::Critical,
        rate if rate >= 0.001 => Severity::Warning,
        _ => Severity::Info,
    };
    let kind = EventKind::LinkLoss {
        from: link.from.clone(),
        to: link.to.clone(),
    };
    Sighted::new(kind, settled.epoch, severity)
        .concerning(concerned, settled, model)
        .measure("loss_rate", link.rate())
        .measure("packets_lost", link.lost as f64)
        .measure("packets_sent", link.packets as f64)
}

/// Losses behind a switch that are no blackhole.
pub(crate) fn sighted_behind(
    switch: SwitchIndex,
    group: GroupIndex,
    ends: &Ends,
    settled: &Settled,
    model: &NetworkModel,
    options: &LossOptions,
) -> Option<Sighted> {
    let lost: u64 = ends.flows.iter().map(|&(_, packets)| packets).sum();
    let sent = settled.tally.sent[switch.index()];
    let rate = lost as f64 / sent.max(1) as f64;
    if lost < options.packets_min || rate < options.rate_min {
        return None;
    }
    let members = &model.forwarding.group(group).members;
    let name = model.network.switch_name(switch).to_owned();
    let kind = match &members[..] {
        &[only] => EventKind::LinkLoss {
            from: name,
            to: model.network.switch_name(only).into(),
        },
        _ => EventKind::LossBehind {
            switch: name,
            next: model.names(members),
        },
    };
    let severity = if rate >= 0.001 {
        Severity::Warning
    } else {
        Severity::Info
    };
    let sighted = Sighted::new(kind, settled.epoch, severity)
        .concerning(&FlowsConcerned::of(&ends.flows), settled, model)
        .measure("packets_lost", lost as f64)
        .measure("packets_sent", sent as f64);
    Some(sighted)
}

fn list_flows(
    map: &mut LossMap,
    mut listed: Vec<(u64, usize, usize)>,
    settled: &Settled,
    model: &NetworkModel,
    options: &LossOptions,
) {
    listed.sort_unstable_by_key(|&(lost, flow, hop)| (std::cmp::Reverse(lost), flow, hop));
    for (lost, flow, hop) in listed.into_iter().take(options.flows_listed_max) {
        let (flow, way) = &settled.flows[flow];
        let hop = &way.hops[hop];
        let Some(from) = hop.from else { continue };
        map.flows.push(FlowLoss {
            flow: *flow,
            from: model.network.switch_name(from).into(),
            to: hop.to.map(|to| model.network.switch_name(to).into()),
            packets: hop.before.least,
            lost,
        });
    }
}
