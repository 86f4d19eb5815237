//! Follows every flow through the network, epoch after epoch, and hands over what became of its
//! packets once the neighbouring epoch has been seen.

use hashbrown::HashMap;

use super::flows::{EpochFlows, Reports, Sighting};
use super::loss::LossTally;
use super::network::{HostIndex, SwitchIndex};
use super::record::{Bounds, FiveTuple};
use super::way::{Hop, STOPS_MAX, Tracer, Way};
use super::{AnalysisCounters, AnalysisOptions, NetworkModel};

/// So few packets, or such a part of a flow's, may be on their way in every epoch; see [`defer`].
const DEFERRED_PACKETS_MAX: u64 = 4;
const DEFERRED_PART: u64 = 50;
/// Epochs by which a judgement is put off at most.
const DEFERRALS_MAX: u8 = 3;

/// Follows flows.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    tracer: Tracer,
    last: Option<LastEpoch>,
}

/// What is kept of an epoch until the next.
#[derive(Debug)]
struct LastEpoch {
    epoch: u64,
    reports: Reports,
    tally: LossTally,
    /// Flows whose switches did not all count the same.
    pending: HashMap<FiveTuple, Way>,
}

/// An epoch of which is known what became of all packets, as far as it will be.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) epoch: u64,
    pub(crate) tally: LossTally,
    /// Flows that something happened to. What is still missing or too much in their hops stays so.
    pub(crate) flows: Vec<(FiveTuple, Way)>,
}

impl Paths {
    /// Takes an epoch. Gives the one that is settled now: the one before, or this one if packets
    /// are never counted in different epochs.
    pub(crate) fn epoch(
        &mut self,
        flows: &EpochFlows<'_>,
        model: &NetworkModel,
        options: &AnalysisOptions,
        counters: &mut AnalysisCounters,
        mut crossed: impl FnMut(&FiveTuple, &Way, &[Sighting<'_>]),
    ) -> Option<Settled> {
        let in_flight = options.loss.in_flight_epochs > 0;
        let mut last = self
            .last
            .take()
            .filter(|last| in_flight && last.epoch + 1 == flows.epoch);
        let mut this = LastEpoch {
            epoch: flows.epoch,
            reports: flows.reports.clone(),
            tally: LossTally::new(model),
            pending: HashMap::new(),
        };
        let mut settled = Vec::new();
        let mut settled_tally = last.as_mut().map(|last| std::mem::take(&mut last.tally));
        let known = model.network.switches().len();
        for ((flow, sightings), &(src, dst)) in flows.iter().zip(flows.ends()) {
            let Some(dst) = dst else {
                counters.flows_not_located += 1;
                continue;
            };
            if sightings.len() > STOPS_MAX {
                counters.flows_at_too_many_switches += 1;
                continue;
            }
            let before = last.as_mut().and_then(|last| last.pending.remove(flow));
            let seen = sightings
                .iter()
                .filter(|sighting| sighting.switch.index() < known)
                .map(|sighting| (sighting.switch, Bounds::from(sighting.record.packets)));
            let step = Step {
                flow,
                ends: (src, dst),
                model,
                last: last.as_ref(),
                reports: &flows.reports,
                in_flight,
            };
            let gone_by = step.trace(&mut self.tracer, seen, before, &mut settled_tally);
            settled.extend(gone_by.map(|way| (*flow, way)));
            let way = &self.tracer.way;
            if !way.entered {
                counters.flows_entering_elsewhere += 1;
            }
            crossed(flow, way, sightings);
            this.keep(*flow, way, model, options, counters);
        }
        // Flows that nobody saw any more.
        let gone: Vec<(FiveTuple, Way)> = match &mut last {
            Some(last) => last.pending.drain().collect(),
            None => Vec::new(),
        };
        for (flow, before) in gone {
            let (src, dst) = model.network.ends(&flow);
            let Some(dst) = dst else { continue };
            let step = Step {
                flow: &flow,
                ends: (src, dst),
                model,
                last: last.as_ref(),
                reports: &flows.reports,
                in_flight,
            };
            let nothing = std::iter::empty();
            let gone_by = step.trace(&mut self.tracer, nothing, Some(before), &mut settled_tally);
            settled.extend(gone_by.map(|way| (flow, way)));
        }
        if !in_flight {
            // What is missing now is lost.
            return Some(Settled {
                epoch: this.epoch,
                tally: this.tally,
                flows: sorted(this.pending.drain().collect()),
            });
        }
        let epoch = last.as_ref().map(|last| last.epoch);
        self.last = Some(this);
        epoch.zip(settled_tally).map(|(epoch, tally)| Settled {
            epoch,
            tally,
            flows: sorted(settled),
        })
    }
}

/// Maps give their entries in any order; findings must not depend on it.
fn sorted(mut flows: Vec<(FiveTuple, Way)>) -> Vec<(FiveTuple, Way)> {
    flows.sort_unstable_by_key(|&(flow, _)| flow);
    flows
}

/// One flow in one epoch.
struct Step<'a> {
    flow: &'a FiveTuple,
    ends: (Option<HostIndex>, HostIndex),
    model: &'a NetworkModel,
    last: Option<&'a LastEpoch>,
    reports: &'a Reports,
    in_flight: bool,
}

impl Step<'_> {
    /// Works out the flow's way in this epoch, and settles the one before with it.
    fn trace(
        &self,
        tracer: &mut Tracer,
        seen: impl Iterator<Item = (SwitchIndex, Bounds)>,
        before: Option<Way>,
        tally: &mut Option<LossTally>,
    ) -> Option<Way> {
        let kind = self.flow.kind();
        let mut counted: Vec<(SwitchIndex, Bounds)> = seen.collect();
        // Switches that saw the flow just before may have passed on packets counted only now.
        for stop in before.iter().flat_map(|way| &way.stops) {
            if stop.packets.most > 0 && counted.iter().all(|&(switch, _)| switch != stop.switch) {
                let nothing = if self.reports.all(stop.switch, kind) {
                    Bounds::ZERO
                } else {
                    Bounds::UNKNOWN
                };
                counted.push((stop.switch, nothing));
            }
        }
        tracer.trace(
            self.model,
            self.flow,
            self.ends,
            counted.into_iter(),
            self.reports,
        );
        let way = &mut tracer.way;
        let settled = before.map(|mut before| {
            settle(&mut before, way, tally);
            before
        });
        let reported_before = |switch: Option<SwitchIndex>| {
            switch.is_none_or(|switch| self.last.is_some_and(|last| last.reports.all(switch, kind)))
        };
        for hop in &mut way.hops {
            let known = reported_before(hop.from) && reported_before(hop.to);
            hop.unknown_before |= self.in_flight && !known;
            hop.doubtful |= hop.unknown_before || hop.from.is_none();
        }
        if way.off_way.is_empty() {
            cancel_clock_differences(&mut way.hops);
        }
        settled.filter(Way::is_remarkable)
    }
}

/// Takes packets counted an epoch late, or early, out of what is missing, or too many.
fn settle(before: &mut Way, now: &mut Way, tally: &mut Option<LossTally>) {
    let mut undecided = 0;
    let ends = before
        .hops
        .iter()
        .any(|hop| hop.to.is_none() && hop.missing > 0);
    for hop in &mut before.hops {
        for later in &mut now.hops {
            if !hop.shares_an_end(later) {
                continue;
            }
            let late = hop.missing.min(later.surplus);
            hop.missing -= late;
            hop.returned += late;
            later.take_from_after(late);
            let early = hop.surplus.min(later.missing);
            hop.surplus -= early;
            later.take_from_before(early);
        }
        let open = |most: fn(&Hop) -> u64| {
            let hops = now.hops.iter().filter(|later| hop.shares_an_end(later));
            hops.map(most).fold(0, u64::saturating_add)
        };
        let (perhaps_late, perhaps_early) = (open(Hop::surplus_most), open(Hop::missing_most));
        if hop.missing > 0 && perhaps_late > 0 {
            hop.missing = hop.missing.saturating_sub(perhaps_late);
            undecided += 1;
        }
        if hop.surplus > 0 && perhaps_early > 0 {
            hop.surplus = hop.surplus.saturating_sub(perhaps_early);
            undecided += 1;
        }
        // A flow that ends shows what happened to it together with the rest of its way.
        if !ends {
            defer(hop, &mut now.hops);
        }
    }
    if let Some(tally) = tally {
        tally.undecided += undecided;
        tally.packets_in_flight += before.hops.iter().map(|hop| hop.returned).sum::<u64>();
    }
}

/// Where packets are missing again in the next epoch, those of the epoch before may have arrived all
/// the same while others were on their way: the two cancel. The judgement on a few packets waits until
/// nothing is missing. The same holds for packets that are too many since a clock is late.
fn defer(hop: &mut Hop, now: &mut [Hop]) {
    let few = DEFERRED_PACKETS_MAX.max(hop.before.least / DEFERRED_PART);
    if hop.deferrals >= DEFERRALS_MAX || hop.to.is_none() {
        return;
    }
    let Some(later) = now.iter_mut().find(|later| later.to == hop.to) else {
        return;
    };
    if later.missing > 0 && (1..=few).contains(&hop.missing) {
        later.missing += hop.missing;
        later.before = later.before + Bounds::known(hop.missing);
        later.deferrals = hop.deferrals + 1;
        hop.missing = 0;
    } else if later.surplus > 0 && (1..=few).contains(&hop.surplus) {
        later.surplus += hop.surplus;
        later.doubtful |= hop.doubtful;
        later.unknown_before |= hop.unknown_before;
        later.after = later.after + Bounds::known(hop.surplus);
        later.deferrals = hop.deferrals + 1;
        hop.surplus = 0;
    }
}

/// A switch whose clock is early or late counts fewer or more packets than both its neighbours.
fn cancel_clock_differences(hops: &mut [Hop]) {
    for first in 0..hops.len() {
        for second in 0..hops.len() {
            let (into, out) = (hops[first], hops[second]);
            if first == second || into.to.is_none() || into.to != out.from || into.from.is_none() {
                continue;
            }
            let fewer = into.missing.min(out.surplus);
            hops[first].take_from_before(fewer);
            hops[second].take_from_after(fewer);
            // Unless the flow ends right there: then it was sent back.
            let ends = hops
                .iter()
                .any(|hop| hop.to.is_none() && hop.from == out.to);
            let more = if ends {
                0
            } else {
                into.surplus.min(out.missing)
            };
            hops[first].take_from_after(more);
            hops[second].take_from_before(more);
        }
    }
}

impl Hop {
    /// Some of the packets before it do not belong here.
    fn take_from_before(&mut self, packets: u64) {
        self.missing -= self.missing.min(packets);
        self.before = minus(self.before, packets);
    }

    /// Some of the packets behind it do not belong here.
    fn take_from_after(&mut self, packets: u64) {
        self.surplus -= self.surplus.min(packets);
        self.after = minus(self.after, packets);
    }
}

fn minus(bounds: Bounds, packets: u64) -> Bounds {
    Bounds {
        least: bounds.least.saturating_sub(packets),
        most: if bounds.most == u64::MAX {
            u64::MAX
        } else {
            bounds.most.saturating_sub(packets)
        },
    }
}

impl Way {
    /// Whether anything happened to the packets.
    fn is_remarkable(&self) -> bool {
        !self.off_way.is_empty()
            || self
                .hops
                .iter()
                .any(|hop| hop.missing > 0 || hop.surplus > 0)
    }
}

impl LastEpoch {
    /// Counts a flow's way, and keeps it if something is missing.
    fn keep(
        &mut self,
        flow: FiveTuple,
        way: &Way,
        model: &NetworkModel,
        options: &AnalysisOptions,
        counters: &mut AnalysisCounters,
    ) {
        self.tally.add(way, model);
        let open = |hop: &Hop| !hop.is_balanced() && !hop.unreported;
        if way.off_way.is_empty() && !way.hops.iter().any(open) {
            return;
        }
        if self.pending.len() >= options.pending_flows_max {
            counters.pending_over_limit += 1;
            return;
        }
        self.pending.insert(flow, way.clone());
    }
}
