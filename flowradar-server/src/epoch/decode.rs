//! Decodes one epoch: each switch alone first, all together where that does not suffice.

use flowradar_collector::analysis::FlowRecord;
use flowradar_collector::{NetDecodeOptions, net_decode};
use flowradar_core::decode::{SingleDecode, single_decode};
use flowradar_core::{FlowKey, FlowKeyV4, FlowKeyV6, Flowset, KeyKind};
use rayon::prelude::*;

use super::{DecodeRequest, DecodedEpoch, Quality, SwitchOutcome};

/// A flowset of an epoch, or why it could not be had.
#[derive(Debug)]
pub struct Fetched {
    /// The switch.
    pub switch: String,
    /// The flowset's bytes.
    pub flowset: Result<Vec<u8>, String>,
}

/// Decodes the flowsets of a request.
///
/// If every switch's table decodes completely on its own, that is the result, and every counter is
/// exact: NetDecode could add nothing. Otherwise NetDecode takes them all, unless only
/// [`Quality::Single`] is asked for. What cannot be decoded is said in its switch's `failure`.
///
/// Work is spread over rayon's current thread pool.
pub fn decode(request: &DecodeRequest, fetched: Vec<Fetched>) -> DecodedEpoch {
    let start = std::time::Instant::now();
    let mut switches: Vec<SwitchOutcome> = vec![];
    let (mut v4, mut v6) = (vec![], vec![]);
    for Fetched { switch, flowset } in fetched {
        let checked = flowset.and_then(|bytes| {
            Flowset::new_checked(bytes).map_err(|error| format!("the flowset is damaged: {error}"))
        });
        match checked {
            Ok(flowset) if flowset.header().key == KeyKind::V4 => v4.push(flowset),
            Ok(flowset) => v6.push(flowset),
            Err(reason) => outcome_of(&mut switches, &switch).failure = Some(reason),
        }
    }
    let mut quality = request.quality;
    decode_kind::<FlowKeyV4>(&v4, &mut quality, &mut switches);
    decode_kind::<FlowKeyV6>(&v6, &mut quality, &mut switches);
    switches.sort_by(|a, b| a.switch.cmp(&b.switch));
    DecodedEpoch {
        group: request.group,
        revision: request.revision,
        epoch: request.epoch,
        time_ns: request.time_ns,
        length_ns: request.length_ns,
        quality,
        too_late: request.too_late,
        implausible: request.implausible,
        may_be_stored: request.may_be_stored,
        missing: request.missing.clone(),
        switches,
        decode_ns: u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX),
    }
}

fn decode_kind<K: FlowKey>(
    flowsets: &[Flowset<Vec<u8>>],
    quality: &mut Quality,
    switches: &mut Vec<SwitchOutcome>,
) {
    let singles: Vec<SingleDecode<K>> = flowsets
        .par_iter()
        .map(|flowset| {
            single_decode(flowset).expect("flowsets were sorted by their kind of key above")
        })
        .collect();
    let complete = singles.iter().all(SingleDecode::is_complete);
    if !complete && *quality == Quality::Network {
        match net_decode::<K, _>(flowsets, &NetDecodeOptions::default()) {
            Ok(decoded) => {
                let all_rounds = !decoded.summary.flow_rounds_exhausted;
                for switch in decoded.switches {
                    let all =
                        all_rounds && switch.leftover.cells == 0 && switch.unconfirmed_flows == 0;
                    let found = Found {
                        switch: switch.switch.as_str(),
                        flows: switch.flows.iter().map(FlowRecord::from).collect(),
                        all,
                        not_found: switch.leftover.flows,
                        unconfirmed: switch.unconfirmed_flows as u64,
                    };
                    found.put::<K>(switches);
                }
                return;
            }
            Err(error) => {
                *quality = Quality::Single;
                for flowset in flowsets {
                    let name = flowset.header().switch.as_str();
                    outcome_of(switches, name).failure =
                        Some(format!("not decoded with the others: {error}"));
                }
            }
        }
    }
    for (flowset, single) in flowsets.iter().zip(singles) {
        let found = Found {
            switch: flowset.header().switch.as_str(),
            all: single.is_complete(),
            not_found: single.leftover.flows,
            unconfirmed: 0,
            flows: single.flows.iter().map(FlowRecord::from).collect(),
        };
        found.put::<K>(switches);
    }
}

/// What was found at a switch for one kind of key.
struct Found<'a> {
    switch: &'a str,
    flows: Vec<FlowRecord>,
    all: bool,
    not_found: u64,
    unconfirmed: u64,
}

impl Found<'_> {
    fn put<K: FlowKey>(self, switches: &mut Vec<SwitchOutcome>) {
        let outcome = outcome_of(switches, self.switch);
        if outcome.flows.is_empty() {
            outcome.flows = self.flows;
        } else {
            outcome.flows.extend(self.flows);
        }
        match K::KIND {
            KeyKind::V4 => outcome.all_v4 = self.all,
            KeyKind::V6 => outcome.all_v6 = self.all,
        }
        outcome.flows_not_found += self.not_found;
        outcome.flows_unconfirmed += self.unconfirmed;
        // Cells without any flow to be found: the table and its totals disagree.
        if !self.all && self.not_found == 0 && self.unconfirmed == 0 && outcome.failure.is_none() {
            let known = outcome
                .flows
                .iter()
                .all(|flow| super::decoded::weaker_status(flow) < 2);
            if known {
                outcome.failure =
                    Some("the report's totals and its table do not agree".to_string());
            }
        }
    }
}

fn outcome_of<'a>(switches: &'a mut Vec<SwitchOutcome>, name: &str) -> &'a mut SwitchOutcome {
    let place = switches.iter().position(|outcome| outcome.switch == name);
    let place = place.unwrap_or_else(|| {
        switches.push(SwitchOutcome {
            switch: name.to_owned(),
            flows: vec![],
            all_v4: false,
            all_v6: false,
            flows_not_found: 0,
            flows_unconfirmed: 0,
            failure: None,
        });
        switches.len() - 1
    });
    &mut switches[place]
}
