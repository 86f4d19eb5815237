//! NetDecode: the flows and counters of a whole network in one epoch.

use flowradar_core::decode::{DecodedFlow, Leftover, WrongKeyKind, append_cells};
use flowradar_core::flowset::SwitchName;
use flowradar_core::{CounterStatus, FlowKey, Flowset};
use rayon::prelude::*;

use crate::counter::{
    CounterInputError, CounterOptions, CounterSummary, SwitchSystem, solve_counters,
};
use crate::flow_decode::{SwitchFlows, flow_decode};
use crate::trust::{Solutions, switch_decode};

/// Limits of [`net_decode`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetDecodeOptions {
    /// Limits of CounterDecode.
    pub counters: CounterOptions,
}

/// The flows and counters of all switches that reported.
#[derive(Clone, Debug, PartialEq)]
pub struct NetDecode<K> {
    /// One entry for each flowset, in the order given.
    pub switches: Vec<SwitchDecode<K>>,
    /// Totals and effort.
    pub summary: NetDecodeSummary,
}

/// The flows and counters of one switch.
#[derive(Clone, Debug, PartialEq)]
pub struct SwitchDecode<K> {
    /// The switch.
    pub switch: SwitchName,
    /// Its flows, sorted by key.
    pub flows: Vec<DecodedFlow<K>>,
    /// What its table counts beyond these flows.
    pub leftover: Leftover,
    /// Flows known from elsewhere that its filter knows, where neither table nor equations can tell
    /// whether they were there. Not reported.
    pub unconfirmed_flows: usize,
    /// How many flows it revealed on its own.
    pub flows_found_alone: usize,
    /// Equations that the counters found do not satisfy.
    pub unexplained_cells: usize,
}

/// Totals over all switches, and the effort it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetDecodeSummary {
    /// Different flows in the network.
    pub flows: usize,
    /// Flows at switches: one flow at five switches counts five times.
    pub counters: usize,
    /// Packet counters proved by their switch's own equations.
    pub exact: usize,
    /// Packet counters that satisfy every equation of the network if losses are sparse.
    pub joint: usize,
    /// Packet counters that only have bounds.
    pub unresolved: usize,
    /// Flows that tables count, but nobody could find, over all switches.
    pub flows_left: u64,
    /// Flows at switches that could not be confirmed, over all switches.
    pub unconfirmed_flows: usize,
    /// Rounds of FlowDecode.
    pub flow_rounds: usize,
    /// Whether FlowDecode was stopped before it came to an end.
    pub flow_rounds_exhausted: bool,
    /// Effort of CounterDecode for packets.
    pub packet_counters: CounterSummary,
    /// Effort of CounterDecode for bytes, where bytes are counted.
    pub byte_counters: Option<CounterSummary>,
}

impl<K> NetDecode<K> {
    /// Whether every flow was found and every counter is exact or joint.
    pub fn is_complete(&self) -> bool {
        let summary = &self.summary;
        summary.flows_left == 0
            && summary.unresolved == 0
            && summary.unconfirmed_flows == 0
            && !summary.flow_rounds_exhausted
            && self.switches.iter().all(|switch| {
                switch.leftover.cells == 0
                    && switch
                        .flows
                        .iter()
                        .all(|flow| flow.bytes.is_none_or(|bytes| bytes.status.is_resolved()))
            })
    }
}

/// Why a set of flowsets cannot be decoded together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetDecodeError {
    /// The network is larger than the counter solver can index.
    #[error(transparent)]
    Counters(#[from] CounterInputError),
    /// Two flowsets are of one switch.
    #[error("two flowsets of switch {switch} for epoch {epoch}: keep one of them")]
    DuplicateSwitch {
        /// The switch.
        switch: SwitchName,
        /// The epoch.
        epoch: u64,
    },
    /// Two flowsets are of different epochs.
    #[error("flowsets of epochs {first} and {other}: decode each epoch by itself")]
    Epochs {
        /// Epoch of the first flowset.
        first: u64,
        /// Epoch of another one.
        other: u64,
    },
    /// A flowset has another kind of flow key.
    #[error(transparent)]
    KeyKind(#[from] WrongKeyKind),
}

/// Decodes the flowsets of one epoch, one for each switch that reported.
///
/// FlowDecode, then CounterDecode for packets, and for bytes where all switches count them.
/// Time is dominated by filter look-ups (flows × switches) and, below the memory at which a switch
/// alone can solve its counters, by the joint solve (see [`crate::counter`]).
///
/// ```
/// use flowradar_collector::{NetDecodeOptions, net_decode};
/// use flowradar_core::{Encoder, FlowKeyV4, Flowset, Packet, flowset::Epoch, plan::PlanRequest};
///
/// let layout = PlanRequest::flows(100).plan()?.layout;
/// let key = FlowKeyV4::new([10, 0, 0, 1].into(), [10, 0, 1, 1].into(), 49152, 443, 6);
/// let flowsets = ["leaf-1", "spine-1", "leaf-2"]
///     .iter()
///     .zip(1..)
///     .map(|(name, seed)| {
///         let layout = layout.with_seed(seed);
///         let mut encoder = Encoder::<FlowKeyV4>::new(name.parse()?, layout, Epoch::number(0))?;
///         encoder.packet(&Packet { key, ip_bytes: 1500 });
///         let bytes = encoder.end_epoch(Epoch::number(1))?.to_flowset();
///         Ok(Flowset::new_checked(bytes)?)
///     })
///     .collect::<Result<Vec<_>, Box<dyn std::error::Error>>>()?;
///
/// let decoded = net_decode::<FlowKeyV4, _>(&flowsets, &NetDecodeOptions::default())?;
/// assert!(decoded.is_complete());
/// assert_eq!(decoded.switches[1].flows[0].key, key);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If the flowsets are not of one epoch, one kind of key and different switches.
pub fn net_decode<K: FlowKey, B: AsRef<[u8]> + Sync>(
    flowsets: &[Flowset<B>],
    options: &NetDecodeOptions,
) -> Result<NetDecode<K>, NetDecodeError> {
    check(flowsets)?;
    let flows = flow_decode::<K, B>(flowsets)?;
    let systems: Vec<_> = flowsets
        .par_iter()
        .zip(&flows.switches)
        .map(|(flowset, switch)| packet_system(flowset, switch, &flows.keys))
        .collect();
    let packets = solve_counters(flows.keys.len(), &systems, &options.counters)?;
    let counts_bytes = |flowset: &Flowset<B>| flowset.layout().table().widths().counts_bytes();
    let bytes = if !flowsets.is_empty() && flowsets.iter().all(counts_bytes) {
        let systems: Vec<_> = systems
            .into_par_iter()
            .zip(flowsets)
            .zip(&flows.switches)
            .map(|((packets, flowset), switch)| byte_system(flowset, switch, packets))
            .collect();
        Some(solve_counters(
            flows.keys.len(),
            &systems,
            &options.counters,
        )?)
    } else {
        drop(systems);
        None
    };
    let switches: Vec<_> = flowsets
        .par_iter()
        .zip(&flows.switches)
        .enumerate()
        .map(|(index, (flowset, switch))| {
            let solutions = Solutions {
                packets: &packets.switches[index],
                bytes: bytes.as_ref().map(|bytes| &bytes.switches[index]),
            };
            switch_decode(flowset, switch, &flows.keys, solutions)
        })
        .collect();
    let statuses = Statuses::of(&switches);
    let summary = NetDecodeSummary {
        flows: distinct_flows(flows.keys.len(), &flows.switches),
        counters: switches.iter().map(|switch| switch.flows.len()).sum(),
        exact: statuses.exact,
        joint: statuses.joint,
        unresolved: statuses.unresolved,
        flows_left: switches.iter().map(|switch| switch.leftover.flows).sum(),
        unconfirmed_flows: switches.iter().map(|switch| switch.unconfirmed_flows).sum(),
        flow_rounds: flows.rounds,
        flow_rounds_exhausted: flows.cut_short,
        packet_counters: packets.summary,
        byte_counters: bytes.map(|bytes| bytes.summary),
    };
    Ok(NetDecode { switches, summary })
}

fn check<B: AsRef<[u8]>>(flowsets: &[Flowset<B>]) -> Result<(), NetDecodeError> {
    let mut names = hashbrown::HashSet::new();
    for flowset in flowsets {
        let header = flowset.header();
        let (first, other) = (flowsets[0].header().epoch.number, header.epoch.number);
        if first != other {
            return Err(NetDecodeError::Epochs { first, other });
        }
        if !names.insert(&header.switch) {
            return Err(NetDecodeError::DuplicateSwitch {
                switch: header.switch.clone(),
                epoch: first,
            });
        }
    }
    Ok(())
}

/// The equations of one switch for packets: a column for each flow that is there, then one for each
/// that may have been counted without having been recorded.
fn packet_system<K: FlowKey, B: AsRef<[u8]>>(
    flowset: &Flowset<B>,
    switch: &SwitchFlows<'_, K>,
    keys: &[K],
) -> SwitchSystem {
    let layout = flowset.layout();
    let hashes = layout.table().hashes();
    let hidden = switch.absent.iter().chain(&switch.unconfirmed);
    let flows: Vec<u32> = switch.present.iter().chain(hidden).copied().collect();
    let mut cells = Vec::with_capacity(flows.len() * hashes);
    append_cells(
        layout,
        flows.iter().map(|&flow| &keys[flow as usize]),
        &mut cells,
    );
    let saturated = layout.table().widths().packet_count_saturated();
    let mut least = vec![1; switch.present.len()];
    least.resize(flows.len(), 0);
    SwitchSystem {
        hashes,
        // A saturated count says nothing about what is at most.
        counts: flowset
            .packet_counts()
            .map(|packets| {
                if packets == saturated {
                    u64::MAX
                } else {
                    packets.into()
                }
            })
            .collect(),
        known: flowset
            .packet_counts()
            .enumerate()
            .map(|(cell, packets)| packets != saturated && switch.table.is_known(cell))
            .collect(),
        hints: Vec::new(),
        flows,
        cells,
        least,
    }
}

/// The same equations for bytes.
fn byte_system<K: FlowKey, B: AsRef<[u8]>>(
    flowset: &Flowset<B>,
    switch: &SwitchFlows<'_, K>,
    packets: SwitchSystem,
) -> SwitchSystem {
    let saturated = flowset.layout().table().widths().byte_count_saturated();
    let open = |bytes| if bytes == saturated { u64::MAX } else { bytes };
    let counts = flowset.byte_counts().into_iter().flatten();
    let counts: Vec<u64> = counts.map(open).collect();
    SwitchSystem {
        known: counts
            .iter()
            .enumerate()
            .map(|(cell, &bytes)| bytes != u64::MAX && switch.table.is_known(cell))
            .collect(),
        counts,
        // A packet may have no length: traces without lengths count zero.
        least: vec![0; packets.least.len()],
        ..packets
    }
}

/// How many packet counters have which status.
#[derive(Clone, Copy, Default)]
struct Statuses {
    exact: usize,
    joint: usize,
    unresolved: usize,
}

impl Statuses {
    fn of<K: FlowKey>(switches: &[SwitchDecode<K>]) -> Self {
        let of_switch = |switch: &SwitchDecode<K>| {
            let mut statuses = Self::default();
            for flow in &switch.flows {
                match flow.packets.status {
                    CounterStatus::Exact => statuses.exact += 1,
                    CounterStatus::Joint => statuses.joint += 1,
                    CounterStatus::Unresolved { .. } => statuses.unresolved += 1,
                }
            }
            statuses
        };
        let sum = |one: Self, other: Self| Self {
            exact: one.exact + other.exact,
            joint: one.joint + other.joint,
            unresolved: one.unresolved + other.unresolved,
        };
        let switches = switches.par_iter();
        switches.map(of_switch).reduce(Self::default, sum)
    }
}

/// Flows that are at one switch at least.
fn distinct_flows<K: FlowKey>(keys: usize, switches: &[SwitchFlows<'_, K>]) -> usize {
    // A byte for each, as setting one takes less time than setting a bit.
    let mut present = vec![false; keys];
    for switch in switches {
        for &flow in &switch.present {
            present[flow as usize] = true;
        }
    }
    present.into_iter().filter(|&present| present).count()
}
