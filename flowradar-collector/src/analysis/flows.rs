//! The records of an epoch, flow by flow.

use flowradar_core::KeyKind;
use hashbrown::HashMap;

use super::AnalysisCounters;
use super::network::{HostIndex, Network, SwitchIndex};
use super::record::{FiveTuple, FlowRecord, SwitchView};

/// What a switch saw of a flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sighting<'a> {
    /// Beyond the network's switches if it is not one of them.
    pub(crate) switch: SwitchIndex,
    pub(crate) record: &'a FlowRecord,
}

/// The flows of an epoch, each with what all switches saw of it.
#[derive(Debug)]
pub(crate) struct EpochFlows<'a> {
    pub(crate) epoch: u64,
    flows: Vec<FiveTuple>,
    numbers: HashMap<FiveTuple, u32>,
    /// Where in `sightings` those of a flow begin; one more than flows.
    starts: Vec<u32>,
    sightings: Vec<Sighting<'a>>,
    /// By flow: where it comes from, and where it goes.
    ends: Vec<Ends>,
    pub(crate) reports: Reports,
}

/// Hosts at the ends of a flow, as far as they are known.
pub(crate) type Ends = (Option<HostIndex>, Option<HostIndex>);

/// Which switches reported all flows of an epoch, of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reports {
    /// By switch of the network: IPv4, IPv6.
    all: Vec<[bool; 2]>,
}

impl<'a> EpochFlows<'a> {
    pub(crate) fn new(
        epoch: u64,
        switches: &[SwitchView<'a>],
        network: Option<&Network>,
        records_max: usize,
        counters: &mut AnalysisCounters,
    ) -> Self {
        let known = network.map_or(0, |network| network.switches().len());
        let total: usize = switches.iter().map(|switch| switch.flows.len()).sum();
        counters.records += total.min(records_max) as u64;
        counters.records_over_limit += total.saturating_sub(records_max) as u64;
        let mut reports = Reports {
            all: vec![[false; 2]; known],
        };
        // No fewer than the largest switch has.
        let most = switches.iter().map(|switch| switch.flows.len()).max();
        let most = most.unwrap_or_default().min(records_max);
        let mut flows: Vec<FiveTuple> = Vec::with_capacity(most);
        let mut numbers: HashMap<FiveTuple, u32> = HashMap::with_capacity(most);
        let mut counts: Vec<u32> = Vec::new();
        let mut placed: Vec<(u32, Sighting<'a>)> = Vec::with_capacity(total.min(records_max));
        for (position, switch) in switches.iter().enumerate() {
            let of_network = network.and_then(|network| network.switch(switch.switch));
            let number = of_network.unwrap_or_else(|| {
                SwitchIndex(u16::try_from(known + position).unwrap_or(u16::MAX))
            });
            let room = records_max.saturating_sub(placed.len());
            let cut = switch.flows.len() > room;
            if let Some(reported) = reports.all.get_mut(number.index()) {
                *reported = [switch.all_v4 && !cut, switch.all_v6 && !cut];
            } else if network.is_some() {
                counters.records_of_unknown_switches += switch.flows.len() as u64;
            }
            for record in switch.flows.iter().take(room) {
                let flow = *numbers.entry(record.flow).or_insert_with(|| {
                    flows.push(record.flow);
                    counts.push(0);
                    flows.len() as u32 - 1
                });
                counts[flow as usize] += 1;
                let switch = number;
                placed.push((flow, Sighting { switch, record }));
            }
        }
        // Counting sort.
        let mut starts = Vec::with_capacity(flows.len() + 1);
        let mut end = 0;
        starts.push(0);
        for count in counts {
            end += count;
            starts.push(end);
        }
        let mut next = starts.clone();
        let mut sightings: Vec<Sighting<'a>> = placed.iter().map(|&(_, first)| first).collect();
        for &(flow, sighting) in &placed {
            let place = &mut next[flow as usize];
            sightings[*place as usize] = sighting;
            *place += 1;
        }
        let ends = flows.iter().map(|flow| match network {
            Some(network) => network.ends(flow),
            None => (None, None),
        });
        Self {
            epoch,
            ends: ends.collect(),
            flows,
            numbers,
            starts,
            sightings,
            reports,
        }
    }

    /// Different flows.
    pub(crate) fn len(&self) -> usize {
        self.flows.len()
    }

    /// The ends of each flow, in the order of [`EpochFlows::iter`].
    pub(crate) fn ends(&self) -> &[Ends] {
        &self.ends
    }

    /// Each flow with its sightings, in the order of switches as they reported.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&FiveTuple, &[Sighting<'a>])> {
        let sightings = self.starts.windows(2);
        let sightings = sightings.map(|ends| &self.sightings[ends[0] as usize..ends[1] as usize]);
        self.flows.iter().zip(sightings)
    }

    /// Whether any switch saw a flow.
    pub(crate) fn contains(&self, flow: &FiveTuple) -> bool {
        self.numbers.contains_key(flow)
    }
}

impl Reports {
    /// Whether a flow of this kind that a switch did not name was not there.
    pub(crate) fn all(&self, switch: SwitchIndex, kind: KeyKind) -> bool {
        let all = self.all.get(switch.index()).copied().unwrap_or_default();
        match kind {
            KeyKind::V4 => all[0],
            KeyKind::V6 => all[1],
        }
    }
}

#[cfg(test)]
impl Reports {
    /// All of so many switches.
    pub(crate) fn all_of(switches: usize) -> Self {
        Self {
            all: vec![[true; 2]; switches],
        }
    }

    pub(crate) fn set(&mut self, switch: SwitchIndex, all: bool) {
        self.all[switch.index()] = [all; 2];
    }
}
