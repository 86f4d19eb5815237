//! A run: a network, its traffic and its faults.

use std::ops::Range;

use flowradar_core::FlowKeyV4;
use rayon::prelude::*;
use thiserror::Error;

use crate::extra::{ExtraFlows, ExtraFlowsError, PATTERN_FLOWS_MAX, PATTERNS_MAX};
use crate::faults::{FaultError, Faults};
use crate::flow_size::{FlowSizes, HEADER_BYTES, MTU_BYTES_MIN, PacketTrain};
use crate::forwarding::{FlowEpoch, Happening, Network, Packets, Witness};
use crate::observer::PacketObserver;
use crate::random::{Purpose, Seed};
use crate::routing::{Routing, RoutingTooLarge};
use crate::topology::{HostId, LinkDirection, SwitchId, Topology};
use crate::traffic::{
    EPOCHS_MAX, FLOWS_MAX, FlowId, KeyStyle, Spread, Traffic, flow_key, inter_pod_flows,
    inter_pod_route, random_hosts,
};

/// Flows worked out at a time, by several threads: bounds the memory of a run.
const BLOCK_FLOWS: u32 = 1 << 16;
/// Flows that one thread works out at a time.
const PIECE_FLOWS: u32 = 1 << 12;

/// A network with traffic and faults, in which everything that happens follows from the seed.
///
/// Nothing is stored per flow: what a flow does in an epoch is worked out when asked for, so that
/// memory stays bounded whatever the number of flows, and results do not depend on the number of
/// threads.
///
/// # Flows and epochs
/// Traffic is a number of slots, each with one flow in every epoch. At the end of an epoch the flow
/// of a slot goes on with the probability of [`SimulationBuilder::persistence`], else another flow
/// (with another key and other hosts) takes its place. A recording's flows are active in the epochs
/// in which they were recorded.
///
/// With clock skew or packets in flight, packets sent in one epoch may be counted in the one before
/// or after. Traffic of one epoch before and one after the run is then simulated too, so that the
/// first and last epochs are like the others.
///
/// ```
/// use flowradar_core::FlowKeyV4;
/// use flowradar_sim::{PacketObserver, Simulation, SwitchId, Topology};
///
/// struct Packets(u64);
/// impl PacketObserver for Packets {
///     fn packet(&mut self, _: SwitchId, _: u64, _: &FlowKeyV4, _: u32) {
///         self.0 += 1;
///     }
/// }
///
/// let network = Topology::fat_tree(4)?;
/// let simulation = Simulation::builder(network).flows_per_switch(100).seed(7).build()?;
/// let mut seen = Packets(0);
/// simulation.observe(&mut seen);
/// // Without faults, each of five switches on the path sees each packet.
/// assert_eq!(seen.0, 5 * simulation.summary().packets_sent);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Simulation {
    pub(crate) network: Network,
    traffic: Traffic,
    /// Flows of the traffic in an epoch; those of `extra` follow.
    slots: u32,
    extra: Vec<ExtraFlows>,
    epochs: u64,
    persistence: f64,
    sizes: FlowSizes,
    keys: KeyStyle,
    mtu_bytes: u32,
}

/// What a switch saw of a flow in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The epoch by the switch's clock.
    pub epoch: u64,
    /// The switch.
    pub switch: SwitchId,
    /// The flow.
    pub flow: FlowId,
    /// The flow's key.
    pub key: FlowKeyV4,
    /// Packets of `large_bytes` bytes.
    pub large_packets: u64,
    /// Packets of `small_bytes` bytes.
    pub small_packets: u64,
    /// Bytes of a large packet.
    pub large_bytes: u32,
    /// Bytes of a small packet.
    pub small_bytes: u32,
}

impl Observation {
    /// All packets.
    pub fn packets(&self) -> u64 {
        self.large_packets + self.small_packets
    }

    /// Bytes of all packets.
    pub fn bytes(&self) -> u64 {
        self.large_packets * u64::from(self.large_bytes)
            + self.small_packets * u64::from(self.small_bytes)
    }

    /// Tells an observer of it.
    pub fn show(&self, observer: &mut impl PacketObserver) {
        for (packets, bytes) in [
            (self.large_packets, self.large_bytes),
            (self.small_packets, self.small_bytes),
        ] {
            if packets > 0 {
                observer.packets(self.switch, self.epoch, &self.key, bytes, packets);
            }
        }
    }
}

/// What all switches saw of some flows in an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observations {
    all: Vec<Observation>,
    /// Places in `all`, by switch, in order.
    by_switch: Vec<u32>,
    /// Where in `by_switch` a switch's places begin; one more than switches.
    starts: Vec<u32>,
}

impl Observations {
    fn new(all: Vec<Observation>, switches: usize) -> Self {
        // Counting sort.
        let mut starts = vec![0; switches + 1];
        for observation in &all {
            starts[observation.switch.index() + 1] += 1;
        }
        for switch in 0..switches {
            starts[switch + 1] += starts[switch];
        }
        let mut next = starts.clone();
        let mut by_switch = vec![0; all.len()];
        for (place, observation) in all.iter().enumerate() {
            let next = &mut next[observation.switch.index()];
            by_switch[*next as usize] = place as u32;
            *next += 1;
        }
        Self {
            all,
            by_switch,
            starts,
        }
    }

    /// All observations, in the order of flows.
    pub fn all(&self) -> &[Observation] {
        &self.all
    }

    /// Those of one switch, in the order of flows.
    ///
    /// # Panics
    /// If the switch is not in the topology.
    pub fn of(&self, switch: SwitchId) -> impl ExactSizeIterator<Item = &Observation> {
        let places = self.starts[switch.index()]..self.starts[switch.index() + 1];
        self.by_switch[places.start as usize..places.end as usize]
            .iter()
            .map(|&place| &self.all[place as usize])
    }
}

/// Who a flow is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowInfo {
    /// Its key.
    pub key: FlowKeyV4,
    /// Its source.
    pub from: HostId,
    /// Its destination.
    pub to: HostId,
    /// The switches on its path as routed, whatever faults make of it.
    pub path: Vec<SwitchId>,
}

/// Why a simulation was refused.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum SimulationError {
    /// Inter-pod traffic needs pods.
    #[error(
        "inter-pod traffic needs a fat tree; use uniform traffic on other topologies, or give \
         fat_tree_k in the topology's text"
    )]
    NotAFatTree,
    /// There is no traffic.
    #[error("flows_per_switch must be at least 1")]
    NoFlows,
    /// More flows than can be told apart.
    #[error(
        "{flows} flows in each of {epochs} epochs (and one before and after) are more than \
         {FLOWS_MAX}; use fewer flows or epochs"
    )]
    TooManyFlows {
        /// Flows in an epoch.
        flows: u64,
        /// Epochs of the run.
        epochs: u64,
    },
    /// No epochs or too many.
    #[error("{epochs} epochs, must be from 1 to {EPOCHS_MAX}")]
    Epochs {
        /// The number asked for.
        epochs: u64,
    },
    /// Not a fraction.
    #[error("persistence: {value} is not between 0 and 1")]
    Persistence {
        /// The value asked for.
        value: f64,
    },
    /// Packets cannot be that small or large.
    #[error("mtu_bytes: {mtu_bytes} must be from {MTU_BYTES_MIN} to 65535")]
    Mtu {
        /// The value asked for.
        mtu_bytes: u32,
    },
    /// Impossible sizes.
    #[error("flow sizes: {reason}")]
    FlowSizes {
        /// What is wrong.
        reason: &'static str,
    },
    /// Impossible extra flows.
    #[error(transparent)]
    ExtraFlows(#[from] ExtraFlowsError),
    /// Impossible faults.
    #[error("faults: {0}")]
    Faults(#[from] FaultError),
    /// Too large a topology.
    #[error(transparent)]
    Routing(#[from] RoutingTooLarge),
}

/// Settings of a [`Simulation`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens until `build`"]
pub struct SimulationBuilder {
    topology: Topology,
    traffic: Option<Traffic>,
    extra: Vec<ExtraFlows>,
    flows_per_switch: u32,
    epochs: Option<u64>,
    persistence: f64,
    sizes: FlowSizes,
    keys: KeyStyle,
    mtu_bytes: u32,
    faults: Faults,
    seed: u64,
}

impl SimulationBuilder {
    /// The traffic. Default: even inter-pod traffic on a fat tree, uniform traffic elsewhere, with
    /// [`SimulationBuilder::flows_per_switch`].
    pub fn traffic(mut self, traffic: Traffic) -> Self {
        self.traffic = Some(traffic);
        self
    }

    /// Flows at each switch in each epoch, for the default traffic. Default: 10,000.
    pub fn flows_per_switch(mut self, flows_per_switch: u32) -> Self {
        self.flows_per_switch = flows_per_switch;
        self
    }

    /// Epochs of the run. Default: 1, or those of the recording; a recording is cut short or
    /// followed by silence if another number is given.
    pub fn epochs(mut self, epochs: u64) -> Self {
        self.epochs = Some(epochs);
        self
    }

    /// Fraction of flows that go on into the next epoch. Default: 0.5. Not for recordings.
    ///
    /// Time for an epoch grows with the epochs that a flow has lasted by then, except at 1.
    pub fn persistence(mut self, fraction: f64) -> Self {
        self.persistence = fraction;
        self
    }

    /// What a flow sends in an epoch. Default: [`FlowSizes::DEFAULT`]. Not for recordings.
    pub fn flow_sizes(mut self, sizes: FlowSizes) -> Self {
        self.sizes = sizes;
        self
    }

    /// What flow keys look like. Default: [`KeyStyle::RandomPorts`]. Not for recordings.
    pub fn keys(mut self, keys: KeyStyle) -> Self {
        self.keys = keys;
        self
    }

    /// Bytes of the largest IP packet. Default: 1,500. Not for recordings.
    pub fn mtu_bytes(mut self, mtu_bytes: u32) -> Self {
        self.mtu_bytes = mtu_bytes;
        self
    }

    /// Flows of a pattern besides the traffic. Default: none.
    pub fn extra_flows(mut self, extra: Vec<ExtraFlows>) -> Self {
        self.extra = extra;
        self
    }

    /// What goes wrong. Default: nothing.
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// The seed of all random choices. Default: 1.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Checks the settings and works out the routes.
    ///
    /// # Errors
    /// [`SimulationError`], naming the setting.
    pub fn build(self) -> Result<Simulation, SimulationError> {
        let traffic = match self.traffic {
            Some(traffic) => traffic,
            None if self.topology.fat_tree_k().is_some() => Traffic::InterPod {
                flows_per_switch: self.flows_per_switch,
                spread: Spread::Even,
            },
            None => Traffic::Uniform {
                flows_per_switch: self.flows_per_switch,
            },
        };
        if !(0.0..=1.0).contains(&self.persistence) {
            return Err(SimulationError::Persistence {
                value: self.persistence,
            });
        }
        if !(MTU_BYTES_MIN..=65_535).contains(&self.mtu_bytes) {
            return Err(SimulationError::Mtu {
                mtu_bytes: self.mtu_bytes,
            });
        }
        self.sizes
            .check()
            .map_err(|reason| SimulationError::FlowSizes { reason })?;
        self.faults.check(&self.topology)?;
        let epochs = match (self.epochs, &traffic) {
            (Some(epochs), _) => epochs,
            (None, Traffic::Trace(trace)) => trace.epochs(),
            (None, _) => 1,
        };
        if !(1..=EPOCHS_MAX).contains(&epochs) {
            return Err(SimulationError::Epochs { epochs });
        }
        let routing = Routing::new(&self.topology)?;
        let slots = slots(&traffic, &self.topology, &routing)?;
        if self.extra.len() > PATTERNS_MAX {
            let found = self.extra.len();
            return Err(ExtraFlowsError::TooMany { found }.into());
        }
        for (pattern, extra) in self.extra.iter().enumerate() {
            extra.check(pattern, &self.topology)?;
        }
        // A flow is numbered by its first epoch, of which one is before the run, and its slot.
        let extra = self.extra.len() as u64 * u64::from(PATTERN_FLOWS_MAX);
        let flows = slots.saturating_mul(lives(&traffic, epochs));
        if flows.saturating_add(extra) > FLOWS_MAX {
            return Err(SimulationError::TooManyFlows {
                flows: slots,
                epochs,
            });
        }
        Ok(Simulation {
            network: Network::new(Seed(self.seed), self.topology, routing, self.faults),
            traffic,
            slots: slots as u32,
            extra: self.extra,
            epochs,
            persistence: self.persistence,
            sizes: self.sizes,
            keys: self.keys,
            mtu_bytes: self.mtu_bytes,
        })
    }
}

impl Simulation {
    /// Starts settings for a run on a topology.
    pub fn builder(topology: Topology) -> SimulationBuilder {
        SimulationBuilder {
            topology,
            traffic: None,
            extra: Vec::new(),
            flows_per_switch: 10_000,
            epochs: None,
            persistence: 0.5,
            sizes: FlowSizes::DEFAULT,
            keys: KeyStyle::default(),
            mtu_bytes: 1_500,
            faults: Faults::default(),
            seed: 1,
        }
    }

    /// The network.
    pub fn topology(&self) -> &Topology {
        &self.network.topology
    }

    /// The routes.
    pub fn routing(&self) -> &Routing {
        &self.network.routing
    }

    /// What goes wrong.
    pub fn faults(&self) -> &Faults {
        &self.network.faults
    }

    /// Epochs of the run; they are numbered from 0.
    pub fn epochs(&self) -> u64 {
        self.epochs
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.network.seed.0
    }

    /// Flows in each epoch, without extra flows; of a recording, in all epochs.
    pub fn flows_per_epoch(&self) -> u32 {
        self.slots
    }

    /// A switch's clock offset, in epochs; above 0 if its epochs begin early.
    ///
    /// # Panics
    /// If the switch is not in the topology.
    pub fn clock_offset(&self, switch: SwitchId) -> f64 {
        self.network.clock_offsets[switch.index()]
    }

    /// Whether a switch's report of an epoch reaches the collector.
    pub fn reports(&self, switch: SwitchId, epoch: u64) -> bool {
        !self
            .network
            .faults
            .is_silent(self.network.seed, switch, epoch)
    }

    /// A flow of the run, `None` beyond the last. Numbers of flows that are never active, because
    /// the flow before went on in their place, are flows too.
    pub fn flow(&self, flow: FlowId) -> Option<FlowInfo> {
        let extra = self.extra.len() as u64 * u64::from(PATTERN_FLOWS_MAX);
        if u64::from(flow.0) >= u64::from(self.traffic_flows()) + extra {
            return None;
        }
        let flow = self.describe(flow, flow.0 % self.slots, 0, NO_PACKETS);
        Some(FlowInfo {
            key: flow.key,
            from: flow.from,
            to: flow.to,
            path: self.network.intended_path(&flow),
        })
    }

    /// A flow's key.
    ///
    /// # Panics
    /// If the flow is not one of the run.
    pub fn key(&self, flow: FlowId) -> FlowKeyV4 {
        self.describe(flow, flow.0 % self.slots, 0, NO_PACKETS).key
    }

    /// Shows an observer all packets at all switches, epoch by epoch.
    pub fn observe(&self, observer: &mut impl PacketObserver) {
        for epoch in 0..self.epochs {
            self.observe_epoch(epoch, observer);
        }
    }

    /// Shows an observer the packets of one epoch at all switches, flow by flow.
    ///
    /// Switches whose reports are missing see packets too; see [`Simulation::reports`].
    pub fn observe_epoch(&self, epoch: u64, observer: &mut impl PacketObserver) {
        self.for_each_block(epoch, |pieces| {
            for observation in pieces.iter().flat_map(Observations::all) {
                observation.show(observer);
            }
        });
    }

    /// Works out what all switches see in an epoch, on all threads, a bounded number of flows at a
    /// time. `take` is given pieces in the order of flows; within a flow, observations are in the
    /// order of switches.
    pub fn for_each_block(&self, epoch: u64, mut take: impl FnMut(&[Observations])) {
        for block in pieces(self.slots(), BLOCK_FLOWS) {
            let pieces: Vec<Range<u32>> = pieces(block, PIECE_FLOWS).collect();
            let switches = self.topology().switches().len();
            let observed: Vec<Observations> = pieces
                .into_par_iter()
                .map(|piece| {
                    let mut observations = Vec::new();
                    for slot in piece {
                        self.observe_slot(slot, epoch, &mut observations);
                    }
                    Observations::new(observations, switches)
                })
                .collect();
            take(&observed);
        }
    }

    /// The epochs in which packets are sent that may be counted in the run.
    pub(crate) fn sent_epochs(&self) -> Range<i64> {
        let epochs = self.epochs as i64;
        if self.network.faults.displace_packets() {
            -1..epochs + 1
        } else {
            0..epochs
        }
    }

    /// The flow of a slot and what it sends in an epoch.
    pub(crate) fn flow_epoch(&self, slot: u32, sent_epoch: i64) -> Option<FlowEpoch> {
        if let Some(place) = slot.checked_sub(self.slots) {
            let (pattern, place) = (place / PATTERN_FLOWS_MAX, place % PATTERN_FLOWS_MAX);
            let extra = &self.extra[pattern as usize];
            let number = extra.number(self.network.seed, pattern as usize, place, sent_epoch)?;
            let flow = FlowId(self.traffic_flows() + pattern * PATTERN_FLOWS_MAX + number);
            return Some(self.describe(flow, slot, sent_epoch, extra.train()));
        }
        if let Traffic::Trace(trace) = &self.traffic {
            let flow = FlowId(slot);
            let train = trace.sent(flow, u64::try_from(sent_epoch).ok()?)?;
            return Some(self.describe(flow, slot, sent_epoch, train));
        }
        let seed = self.network.seed;
        let goes_on = |epoch: i64| {
            seed.chance(
                self.persistence,
                Purpose::FlowContinues,
                slot.into(),
                epoch as u64,
            )
        };
        // Flows that always go on were there before the run: no need to look at each epoch.
        let mut first_epoch = if self.persistence < 1.0 {
            sent_epoch
        } else {
            -1
        };
        while first_epoch > -1 && goes_on(first_epoch) {
            first_epoch -= 1;
        }
        let life = (first_epoch + 1) as u32;
        let flow = FlowId(life * self.slots + slot);
        let mut stream = seed.stream(Purpose::FlowSize, flow.0.into(), sent_epoch as u64);
        let train = self.sizes.draw(self.mtu_bytes, &mut stream);
        Some(self.describe(flow, slot, sent_epoch, train))
    }

    /// Flows that there may be in an epoch, those of patterns included.
    pub(crate) fn slots(&self) -> Range<u32> {
        0..self.slots + self.extra.len() as u32 * PATTERN_FLOWS_MAX
    }

    /// Flows of the traffic in all epochs together; those of patterns are numbered from here on.
    fn traffic_flows(&self) -> u32 {
        // Checked to be at most 2^30.
        (u64::from(self.slots) * lives(&self.traffic, self.epochs)) as u32
    }

    fn describe(&self, flow: FlowId, slot: u32, sent_epoch: i64, train: PacketTrain) -> FlowEpoch {
        if let Some(number) = flow.0.checked_sub(self.traffic_flows()) {
            return self.describe_extra(flow, number, sent_epoch, train);
        }
        let (seed, topology) = (self.network.seed, &self.network.topology);
        let (from, to, path_number) = match &self.traffic {
            &Traffic::InterPod { spread, .. } => {
                let tree = topology.as_fat_tree();
                let tree = tree.expect("inter-pod traffic was checked to have a fat tree");
                let route = inter_pod_route(seed, tree, slot, flow);
                let path_number = (spread == Spread::Even).then_some(route.path_number);
                (route.from, route.to, path_number)
            }
            Traffic::Uniform { .. } => {
                let (from, to) = random_hosts(seed, topology.hosts().len(), flow);
                (from, to, None)
            }
            Traffic::Trace(trace) => {
                let (from, to) = trace.hosts(seed, topology, flow);
                (from, to, None)
            }
        };
        let key = match &self.traffic {
            Traffic::Trace(trace) => trace.key(flow),
            _ => flow_key(seed, self.keys, topology, flow, (from, to)),
        };
        FlowEpoch {
            flow,
            key,
            from,
            to,
            path_number,
            sent_epoch,
            train,
        }
    }

    fn describe_extra(
        &self,
        flow: FlowId,
        number: u32,
        sent_epoch: i64,
        train: PacketTrain,
    ) -> FlowEpoch {
        let pattern = (number / PATTERN_FLOWS_MAX) as usize;
        let number = number % PATTERN_FLOWS_MAX;
        let (extra, topology) = (&self.extra[pattern], &self.network.topology);
        let hosts = extra.hosts(self.network.seed, pattern, number, topology);
        FlowEpoch {
            flow,
            key: extra.key(pattern, number, topology, hosts),
            from: hosts.0,
            to: hosts.1,
            path_number: None,
            sent_epoch,
            train,
        }
    }

    /// Adds what all switches see of a slot's flows in an epoch.
    fn observe_slot(&self, slot: u32, epoch: u64, observations: &mut Vec<Observation>) {
        let sent = if self.network.faults.displace_packets() {
            epoch as i64 - 1..epoch as i64 + 2
        } else {
            epoch as i64..epoch as i64 + 1
        };
        for sent_epoch in sent {
            let Some(flow) = self.flow_epoch(slot, sent_epoch) else {
                continue;
            };
            let first = observations.len();
            let mut seen = Seen {
                flow: &flow,
                epoch,
                observations,
                first,
            };
            self.network.forward(&flow, &mut seen);
            observations[first..].sort_unstable_by_key(|observation| observation.switch);
        }
    }
}

const NO_PACKETS: PacketTrain = PacketTrain {
    large: 0,
    small: 0,
    large_bytes: HEADER_BYTES,
    small_bytes: HEADER_BYTES,
};

/// Collects a flow's observations of one epoch, one a switch.
struct Seen<'a> {
    flow: &'a FlowEpoch,
    epoch: u64,
    observations: &'a mut Vec<Observation>,
    /// Where those of this flow begin.
    first: usize,
}

impl Witness for Seen<'_> {
    fn counted(&mut self, switch: SwitchId, epoch: i64, packets: Packets) {
        if epoch != self.epoch as i64 {
            return;
        }
        let mut before = self.observations[self.first..].iter_mut();
        if let Some(same) = before.find(|observation| observation.switch == switch) {
            same.large_packets += packets.large;
            same.small_packets += packets.small;
            return;
        }
        self.observations.push(Observation {
            epoch: self.epoch,
            switch,
            flow: self.flow.flow,
            key: self.flow.key,
            large_packets: packets.large,
            small_packets: packets.small,
            large_bytes: self.flow.train.large_bytes,
            small_bytes: self.flow.train.small_bytes,
        });
    }

    fn crossed(&mut self, _link: LinkDirection, _entered: u64, _lost: u64) {}

    fn happened(&mut self, _what: Happening, _packets: u64) {}
}

/// How many flows a slot of the traffic may have had: one a first epoch.
fn lives(traffic: &Traffic, epochs: u64) -> u64 {
    match traffic {
        Traffic::Trace(_) => 1,
        _ => epochs + 2,
    }
}

fn slots(
    traffic: &Traffic,
    topology: &Topology,
    routing: &Routing,
) -> Result<u64, SimulationError> {
    match traffic {
        Traffic::InterPod {
            flows_per_switch: 0,
            ..
        }
        | Traffic::Uniform {
            flows_per_switch: 0,
        } => Err(SimulationError::NoFlows),
        &Traffic::InterPod {
            flows_per_switch, ..
        } => {
            let tree = topology.as_fat_tree().ok_or(SimulationError::NotAFatTree)?;
            Ok(inter_pod_flows(tree, flows_per_switch))
        }
        &Traffic::Uniform { flows_per_switch } => {
            // Each flow is at as many switches as its path has.
            let at_switches = f64::from(flows_per_switch) * topology.switches().len() as f64;
            let flows = libm::round(at_switches / routing.mean_path_switches());
            Ok((flows as u64).max(1))
        }
        Traffic::Trace(trace) => Ok(trace.flows() as u64),
    }
}

/// Cuts a range into pieces of at most `length`.
pub(crate) fn pieces(range: Range<u32>, length: u32) -> impl Iterator<Item = Range<u32>> {
    let end = range.end;
    range
        .step_by(length as usize)
        .map(move |begin| begin..begin.saturating_add(length).min(end))
}
