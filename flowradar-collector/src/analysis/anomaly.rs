//! Transient loops, and blackholes (NSDI 2016 §6.1).
//!
//! # Loops
//! A packet that goes around is counted at each switch of the cycle once a turn: a switch counts more
//! packets of a flow than all that sent it some, which nothing else explains (packets from the epoch
//! before and clock differences have been taken out before; see [`super::loss`]). The cycle is that
//! switch with
//! - switches off every intended way to which it sent packets, and
//! - the switches after it that also counted more than what came in, and
//! - members of its ECMP group at which the flow ends while it also goes on over another.
//!
//! A flow that is seen at two members of one group, and ends at one of them, is taken for a loop
//! between that one and the sender, since within an epoch a flow has one way.
//!
//! A loop also explains flows that end at its switches, and losses between them, in the same epoch: those
//! of flows that began inside it.
//!
//! *Evidence*: flows with their counters; packets too many (4 in an epoch, and 2 of one flow, at least).
//! *Limits*: A loop that contains the first
//! switch of a way raises all its counters, and is seen only where it leaves the way. A loop of one turn
//! whose packets expire leaves the counters of a late clock. A single-turn loop on the way is not told
//! apart from packets counted twice for another reason.
//!
//! # Blackholes
//! A switch that drops all packets of a flow: the flow ends at it, or, if it drops before it counts,
//! at the switch before. Random loss ends small flows too. So flows of at least three packets must end
//! at a switch in an epoch, more of them than its rate of loss among other flows explains (fourfold,
//! and at least two; one will do if it had eight packets).
//!
//! *Evidence*: the flows that ended. The event names the switch where they end, and where they are meant
//! to go next if that is the same group for all: the fault is at the switch, at one of these before
//! they count, or on the link. *Limits*: a switch that drops before it counts, where flows come in from
//! hosts, leaves no trace; nor does one that drops after it counted flows that it delivers itself.

use std::collections::{BTreeMap, BTreeSet};

use super::NetworkModel;
use super::event::{EventKind, Severity};
use super::evidence::{FlowsConcerned, Sighted};
use super::intended::{GroupIndex, Intended};
use super::loss::{Ends, SIZES};
use super::network::SwitchIndex;
use super::path::Settled;
use super::way::{Hop, Stop, Way};

/// Fewer packets too many in an epoch may be ones that were on their way for longer.
const LOOP_PACKETS_MIN: u64 = 4;
/// Smaller flows end by random loss.
const ENDED_PACKETS_MIN: u64 = 3;
/// A flow of so many packets does not end by chance.
const ENDED_PACKETS_LARGE: u64 = 8;
/// Flows of [`ENDED_PACKETS_MIN`] that end for each that random loss explains.
const ENDED_OVER_EXPECTED: f64 = 4.0;

/// Finds the loops of an epoch. Marks the flows in them as explained.
pub(crate) fn find_loops(
    settled: &mut Settled,
    model: &NetworkModel,
    explained: &mut [bool],
) -> Vec<Sighted> {
    let mut loops: BTreeMap<BTreeSet<SwitchIndex>, FlowsConcerned> = BTreeMap::new();
    for (number, (_, way)) in settled.flows.iter().enumerate() {
        if way
            .hops
            .iter()
            .any(|hop| hop.surplus > 0 && hop.unknown_before)
        {
            // They may have gone around, or come late: nothing is said.
            explained[number] = true;
            settled.tally.undecided += 1;
            continue;
        }
        if way.sent_back(model).is_some() {
            continue;
        }
        if let Some((cycle, packets)) = loop_of(way, model) {
            explained[number] = true;
            loops.entry(cycle).or_default().add(number, packets);
        }
    }
    loops.retain(|_, flows| flows.packets() >= LOOP_PACKETS_MIN && flows.largest() > 1);
    explain_by_loops(settled, loops.keys(), explained);
    let settled = &*settled;
    let sighted = |(cycle, concerned): (BTreeSet<SwitchIndex>, FlowsConcerned)| {
        let switches: Vec<SwitchIndex> = cycle.into_iter().collect();
        let mut switches = model.names(&switches);
        switches.sort();
        Sighted::new(
            EventKind::Loop { switches },
            settled.epoch,
            Severity::Critical,
        )
        .concerning(&concerned, settled, model)
    };
    loops.into_iter().map(sighted).collect()
}

/// Flows that begin in a loop have all their counters raised, and others were counted more often there
/// than sent: what is missing behind is none of its switches' fault. Nor is a flow wrongly forwarded whose counters are too uncertain to show that it went
/// around.
fn explain_by_loops<'a>(
    settled: &Settled,
    cycles: impl Iterator<Item = &'a BTreeSet<SwitchIndex>> + Clone,
    explained: &mut [bool],
) {
    for (explained, (_, way)) in explained.iter_mut().zip(&settled.flows) {
        let in_loop = |cycle: &BTreeSet<SwitchIndex>| {
            let first = || way.stops.iter().filter(|stop| stop.before() == 0);
            let begins = first().any(|stop| cycle.contains(&stop.switch));
            let sent = first()
                .map(|stop| stop.packets.most)
                .max()
                .unwrap_or(u64::MAX);
            let mut of_cycle = way.stops.iter().filter(|stop| cycle.contains(&stop.switch));
            let more_than_sent = of_cycle.any(|stop| stop.packets.least > sent);
            let missing =
                |hop: &Hop| hop.missing > 0 && hop.from.is_some_and(|from| cycle.contains(&from));
            let mut off_way = way.off_way.iter();
            ((begins || more_than_sent) && way.hops.iter().any(missing))
                || off_way.any(|off| cycle.contains(&off.at) && cycle.contains(&off.to))
        };
        *explained |= cycles.clone().any(in_loop);
    }
}

/// The cycle that a flow went around, and the packets counted too often.
fn loop_of(way: &Way, model: &NetworkModel) -> Option<(BTreeSet<SwitchIndex>, u64)> {
    let surplus = way
        .hops
        .iter()
        .filter(|hop| hop.unexplained_surplus() > 0)
        .max_by_key(|hop| hop.surplus);
    if let Some(hop) = surplus
        && let Some(entry) = way.entry_of_surplus(hop)
    {
        let mut cycle = BTreeSet::from([entry.switch]);
        let off = way.off_way.iter().filter(|off| off.at == entry.switch);
        cycle.extend(off.map(|off| off.to));
        cycle.extend(way.split_ends(entry).map(|stop| stop.switch));
        if cycle.len() == 1 {
            cycle.extend(way.excess_after(entry, hop, model));
        }
        return Some((cycle, hop.surplus));
    }
    way.stops.iter().find_map(|stop| {
        let end = way.split_ends(stop).next()?;
        let lost = way
            .hops
            .iter()
            .find(|hop| hop.from == Some(end.switch) && hop.missing > 0)?;
        Some((BTreeSet::from([stop.switch, end.switch]), lost.missing))
    })
}

impl Way {
    /// The switch that counted too much. If there are several after the one before, it is that whose
    /// counter is least like what was sent.
    fn entry_of_surplus(&self, hop: &Hop) -> Option<&Stop> {
        let sender = hop.from.and_then(|from| self.stop(from));
        let receivers = sender.into_iter().flat_map(|sender| self.next_of(sender));
        receivers
            .max_by_key(|stop| stop.packets.least.abs_diff(hop.before.least))
            .or_else(|| self.stop(hop.to?))
    }

    /// The switch after the entry that sent packets back to it, which were dropped there: the flow ends
    /// at it.
    pub(crate) fn sent_back(
        &self,
        model: &NetworkModel,
    ) -> Option<(SwitchIndex, SwitchIndex, u64)> {
        let into = self.hops.iter().find(|hop| hop.unexplained_surplus() > 0)?;
        let entry = into.to?;
        let end = self.hops.iter().find(|hop| {
            hop.to.is_none()
                && hop.missing > 0
                && hop
                    .from
                    .is_some_and(|from| model.network.joined(from, entry))
        })?;
        let sender = self.stop(end.from?)?;
        // Had they gone around, the sender would have counted more than what came in, too.
        let once = sender.packets.least <= into.before.most;
        once.then_some((sender.switch, entry, into.surplus.min(end.missing)))
    }

    /// The switches after the entry of a loop that also counted more than what came in, as far as they
    /// lead back to it.
    fn excess_after(&self, entry: &Stop, into: &Hop, model: &NetworkModel) -> Vec<SwitchIndex> {
        let mut cycle: Vec<SwitchIndex> = Vec::new();
        let mut leads_back = 0;
        let mut last = entry;
        let more = |next: &&Stop| next.packets.least > into.before.most;
        loop {
            let next = self
                .next_of(last)
                .filter(more)
                .max_by_key(|next| next.packets.least);
            let Some(next) = next.filter(|next| !cycle.contains(&next.switch)) else {
                break;
            };
            cycle.push(next.switch);
            if model.network.joined(next.switch, entry.switch) {
                leads_back = cycle.len();
            }
            last = next;
        }
        cycle.truncate(leads_back);
        cycle
    }

    /// Where the flow ends although the same switch sends it on over another member of its group.
    fn split_ends<'a>(&'a self, stop: &'a Stop) -> impl Iterator<Item = &'a Stop> {
        let ends = |next: &&Stop| {
            matches!(next.intended, Intended::Forward(_))
                && self.next_of(next).next().is_none()
                && !next.off_way
                && next.packets.least > 0
        };
        let goes_on = self
            .next_of(stop)
            .any(|next| next.packets.least > 0 && !ends(&next));
        self.next_of(stop).filter(move |next| goes_on && ends(next))
    }
}

/// Finds the blackholes of an epoch among the places where flows end, and takes these places out.
pub(crate) fn find_blackholes(
    settled: &Settled,
    model: &NetworkModel,
    ends: &mut BTreeMap<(SwitchIndex, GroupIndex), Ends>,
    links_lost: impl Fn(SwitchIndex) -> u64,
) -> Vec<Sighted> {
    let mut sighted = Vec::new();
    let switches: BTreeSet<SwitchIndex> = ends.keys().map(|&(switch, _)| switch).collect();
    for switch in switches {
        let of_switch = || ends.iter().filter(|((at, _), _)| *at == switch);
        let ended = of_switch().flat_map(|(_, ends)| &ends.flows);
        let mut concerned = FlowsConcerned::default();
        let (mut large, mut some) = (0, 0_u64);
        for &(flow, packets) in ended {
            concerned.add(flow, packets);
            some += u64::from(packets >= ENDED_PACKETS_MIN);
            large += u64::from(packets >= ENDED_PACKETS_LARGE);
        }
        let expected = ends_expected(settled, switch, links_lost(switch));
        let needed = if large > 0 { 1.0 } else { 2.0 };
        if (some as f64) < needed + ENDED_OVER_EXPECTED * expected {
            continue;
        }
        let groups: BTreeSet<GroupIndex> = of_switch().map(|(&(_, group), _)| group).collect();
        let next = match groups.first() {
            Some(&group) if groups.len() == 1 => {
                model.names(&model.forwarding.group(group).members)
            }
            _ => Vec::new(),
        };
        ends.retain(|&(at, _), _| at != switch);
        let kind = EventKind::Blackhole {
            switch: model.network.switch_name(switch).into(),
            next,
        };
        sighted.push(
            Sighted::new(kind, settled.epoch, Severity::Critical)
                .concerning(&concerned, settled, model)
                .measure("flows_of_three_packets_ended", some as f64)
                .measure("flows_ended_expected_by_loss", expected),
        );
    }
    sighted
}

/// How many flows of some packets random loss behind a switch would end, given what other flows lost.
fn ends_expected(settled: &Settled, switch: SwitchIndex, lost: u64) -> f64 {
    let tally = &settled.tally;
    let rate = lost as f64 / tally.sent[switch.index()].max(1) as f64;
    let sizes = &tally.sizes[switch.index()];
    (ENDED_PACKETS_MIN as usize..SIZES)
        .map(|packets| f64::from(sizes[packets]) * rate.powi(packets as i32))
        .sum()
}
