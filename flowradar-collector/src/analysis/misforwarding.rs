//! Errors in match-action tables: flows where intended forwarding does not send them (NSDI 2016 §6.1).
//!
//! # Definition
//! Intended forwarding ([`super::Forwarding`]: from a file, or shortest paths) says for each switch and
//! flow the next hops, or that it is delivered or dropped there. A switch on none of the ways from the
//! flow's source along intended next hops, that saw the flow all the same, is an error of a switch
//! joined to it: the one that saw the flow and is missing most packets at its intended next hops.
//!
//! A switch that sends a flow back to the one that it came from, which drops it, is an error too: that
//! one counted it twice, and the flow ends.
//!
//! So is one that misses packets which appear, from nowhere else, at a switch joined to it that is on
//! another of the flow's intended ways.
//!
//! # Evidence
//! One packet of one flow is enough: that a flow was there is proved by the decoder. The event names who
//! sent flows where; the flows show their counters.
//!
//! # Limits
//! - A wrong choice among the members of an ECMP group is none: each of them is intended.
//! - Flows are judged that were seen at a switch of their source; sources that are not in the network's
//!   description, or spoofed, are counted ([`super::AnalysisCounters::flows_entering_elsewhere`]).
//! - Packets that a switch sends back to where they came from go around: they are a loop.
//! - Of several neighbours that could have sent the flow, the likeliest is named.
//! - A switch that drops what it should forward is a blackhole ([`super::anomaly`]).

use std::collections::BTreeMap;

use super::NetworkModel;
use super::event::{EventKind, Severity};
use super::evidence::{FlowsConcerned, Sighted};
use super::network::SwitchIndex;
use super::path::Settled;
use super::way::Way;

/// Finds wrongly forwarded flows in an epoch; those in loops (`explained`) are left out, the others
/// join them.
pub(crate) fn find(
    settled: &Settled,
    model: &NetworkModel,
    explained: &mut [bool],
) -> Vec<Sighted> {
    let mut wrong: BTreeMap<(SwitchIndex, SwitchIndex), FlowsConcerned> = BTreeMap::new();
    for (number, (_, way)) in settled.flows.iter().enumerate() {
        if explained[number] {
            continue;
        }
        if let Some((at, to, packets)) = way.sent_back(model) {
            explained[number] = true;
            wrong.entry((at, to)).or_default().add(number, packets);
        }
        if let Some((at, to, packets)) = sent_elsewhere(way, model) {
            explained[number] = true;
            wrong.entry((at, to)).or_default().add(number, packets);
        }
        explained[number] |= !way.off_way.is_empty();
        for off in &way.off_way {
            let concerned = wrong.entry((off.at, off.to)).or_default();
            concerned.add(number, off.packets.max(1));
        }
    }
    let sighted = |((at, to), concerned): ((SwitchIndex, SwitchIndex), FlowsConcerned)| {
        let kind = EventKind::WrongForwarding {
            at: model.network.switch_name(at).into(),
            to: model.network.switch_name(to).into(),
        };
        Sighted::new(kind, settled.epoch, Severity::Warning).concerning(&concerned, settled, model)
    };
    wrong.into_iter().map(sighted).collect()
}

/// Packets that appear at a switch although none of those that are meant to send them there did, while as
/// many are missing behind a neighbour that is not.
fn sent_elsewhere(way: &Way, model: &NetworkModel) -> Option<(SwitchIndex, SwitchIndex, u64)> {
    let appeared = way.hops.iter().filter(|hop| {
        hop.from.is_none() && hop.surplus > 0 && !hop.unknown_before && !hop.unreported
    });
    appeared
        .filter_map(|hop| Some((hop.to?, hop.surplus)))
        .find_map(|(to, surplus)| {
            way.hops.iter().find_map(|hop| {
                let at = hop.from?;
                let meant = |group| {
                    model
                        .forwarding
                        .group(group)
                        .members
                        .binary_search(&to)
                        .is_ok()
                };
                let sent = hop.missing > 0
                    && !hop.off_way
                    && model.network.joined(at, to)
                    && !hop.group.is_some_and(meant);
                sent.then_some((at, to, surplus.min(hop.missing)))
            })
        })
}
