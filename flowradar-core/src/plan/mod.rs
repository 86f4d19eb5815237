//! The layout planner: from a number of flows to a layout, and from memory to a number of flows.
//!
//! Two things can go wrong with a flowset, and each has its model:
//!
//! - *Peeling gets stuck.* A random table of `k` subtables holds flows up to a threshold load, less
//!   a margin that shrinks with the number of flows, and now and then a few flows share all their
//!   cells. The model and its constants are described in `plan/peeling.rs`; the constants are
//!   measured by `examples/peeling_threshold.rs`.
//! - *The flow filter takes a new flow for a known one.* The expected number of such false positives
//!   while all flows of an epoch are added one by one is computed exactly (`plan/filter.rs`), for
//!   hashes that behave as random.
//!
//! Of all layouts that keep to the wished probabilities the planner takes the one with the fewest
//! bits. Every choice can be made by hand instead.

mod filter;
mod peeling;

use crate::decode::UNDETECTED_HIDDEN_FLOWS_MAX;
use crate::flowset::{SwitchName, flowset_bytes};
use crate::hash::HashFamilyId;
use crate::key::KeyKind;
use crate::layout::{
    CellWidths, Coupling, FilterLayout, HASHES_MAX, HASHES_MIN, Layout, LayoutError, TableLayout,
};

pub use filter::expected_false_positives;
pub use peeling::{COUPLED_FLOWS_MIN, single_decode_failure_probability};

/// Fewest flows that a layout is made for. Tables for fewer would hardly be smaller.
pub const PLANNED_FLOWS_MIN: u64 = 16;

/// Lowest probability of failure that can be wished for.
pub const FAILURE_PROBABILITY_MIN: f64 = 1e-6;

/// Highest probability of failure that can be wished for.
pub const FAILURE_PROBABILITY_MAX: f64 = 0.5;

/// Probability of failure unless another one is wished for.
pub const FAILURE_PROBABILITY_DEFAULT: f64 = 0.01;

/// Cells for each flow with which a network of switches decodes together, by the number of hashes.
///
/// FlowDecode finds every flow of a k = 8 fat tree with inter-pod traffic from 0.58 cells a flow on
/// with three hashes, 0.43 with two and 0.72 with four; the counters need some more equations than
/// that. 0.68 with three hashes is what joint CounterDecode is built for and evaluated with; the
/// others keep the same reserve.
const NETWORK_CELLS_PER_FLOW: [(u8, f64); 3] = [(2, 0.51), (3, 0.68), (4, 0.85)];

/// Where nothing else decides: the fewest memory accesses among the numbers that peel well.
const HASHES_DEFAULT: u8 = 3;

/// What a layout must decode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DecodeGoal {
    /// SingleDecode finds every flow of one switch, up to [`PlanRequest::flows_max`].
    #[default]
    Single,
    /// The switches of a network decode together (FlowDecode and joint CounterDecode), up to
    /// [`PlanRequest::flows_max`], in about half the cells. If `flows_max` is above `flows`,
    /// SingleDecode finds every flow up to `flows` besides.
    Network,
}

/// Arrangement of the flow filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FilterKind {
    /// An array for each hash: what P4 switches have, and the fewest bits.
    #[default]
    Partitioned,
    /// All bits of a flow in one cache line: the fastest in software.
    Blocked,
}

/// Whether cells may be coupled ([`Coupling::Window`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CouplingChoice {
    /// Whatever takes fewer cells. Coupling wins from some ten thousand flows up.
    #[default]
    Auto,
    /// Never.
    Plain,
    /// Always. Needs [`COUPLED_FLOWS_MIN`] flows.
    Coupled,
}

/// Why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The number of cells for each flow is no positive number.
    #[error("{0} cells for each flow: use a number above 0")]
    CellsPerFlow(f64),
    /// The table is coupled, but for too few flows.
    #[error(
        "a coupled table for {0} flows: coupling needs {COUPLED_FLOWS_MIN} flows; use a plain one"
    )]
    CoupledFlows(u64),
    /// The expected number of false positives is no positive number.
    #[error("{0} expected false positives: use a number above 0, such as 0.01")]
    ExpectedFalsePositives(f64),
    /// The probability of failure is out of range.
    #[error(
        "a failure probability of {0}: use {FAILURE_PROBABILITY_MIN} to {FAILURE_PROBABILITY_MAX}"
    )]
    FailureProbability(f64),
    /// The highest number of flows is below the expected one.
    #[error("at most {flows_max} flows, but {flows} are expected: give the higher number as most")]
    FlowsMax {
        /// Expected number of flows.
        flows: u64,
        /// Highest number of flows.
        flows_max: u64,
    },
    /// No layout is that large, or it has sizes that none can have.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The memory holds not even the smallest layout.
    #[error("{bits} bits of memory: the smallest layout takes {least_bits}")]
    Memory {
        /// Memory given.
        bits: u64,
        /// Memory that [`PLANNED_FLOWS_MIN`] flows take.
        least_bits: u64,
    },
    /// Nothing is known of network-wide decoding with this many hashes.
    #[error("network-wide decoding with {0} hashes: use 2 to 4")]
    NetworkHashes(u8),
}

/// What a layout is wanted for. Made by [`PlanRequest::flows`] or [`PlanRequest::for_memory`].
///
/// ```
/// use flowradar_core::plan::{FilterKind, PlanRequest};
///
/// // 100,000 flows, of which SingleDecode finds all in 99 of 100 epochs.
/// let plan = PlanRequest::flows(100_000).plan()?;
/// assert!(plan.switch_memory_bits() < 8 * 2_360_000);
///
/// // The same memory on a server, where a blocked filter is faster: a few flows less.
/// let server = PlanRequest::for_memory(plan.switch_memory_bits())
///     .filter(FilterKind::Blocked)
///     .plan()?;
/// assert!((80_000..100_000).contains(&server.flows));
/// # Ok::<(), flowradar_core::plan::PlanError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct PlanRequest {
    size: Size,
    flows_max: Option<u64>,
    failure_probability: f64,
    expected_false_positives: Option<f64>,
    key: KeyKind,
    family: HashFamilyId,
    filter: FilterKind,
    coupling: CouplingChoice,
    hashes: Option<u8>,
    widths: CellWidths,
    cells_per_flow: Option<f64>,
    goal: DecodeGoal,
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Size {
    Flows(u64),
    MemoryBits(u64),
}

impl PlanRequest {
    /// A layout for this many flows in an epoch.
    pub fn flows(flows: u64) -> Self {
        Self::new(Size::Flows(flows))
    }

    /// A layout for as many flows as fit in this many bits on a switch, filter and table of one bank.
    pub fn for_memory(bits: u64) -> Self {
        Self::new(Size::MemoryBits(bits))
    }

    fn new(size: Size) -> Self {
        Self {
            size,
            flows_max: None,
            failure_probability: FAILURE_PROBABILITY_DEFAULT,
            expected_false_positives: None,
            key: KeyKind::V4,
            family: HashFamilyId::Xxh3,
            filter: FilterKind::Partitioned,
            coupling: CouplingChoice::Auto,
            hashes: None,
            widths: CellWidths::default(),
            cells_per_flow: None,
            goal: DecodeGoal::Single,
            seed: 1,
        }
    }

    /// The highest number of flows that must still decode; by default that of
    /// [`PlanRequest::flows`]. Not used with [`PlanRequest::for_memory`], which finds it.
    pub const fn flows_max(mut self, flows_max: u64) -> Self {
        self.flows_max = Some(flows_max);
        self
    }

    /// How often a flowset with the highest number of flows may turn out incomplete, from
    /// [`FAILURE_PROBABILITY_MIN`] to [`FAILURE_PROBABILITY_MAX`]; 0.01 by default. One half is for
    /// peeling, one half for the filter, unless the filter has a wish of its own
    /// ([`PlanRequest::expected_false_positives`]): then all is for peeling.
    pub const fn failure_probability(mut self, failure_probability: f64) -> Self {
        self.failure_probability = failure_probability;
        self
    }

    /// Flow-filter false positives expected among all flows of an epoch. By default half the
    /// failure probability, so that a flowset is complete with the wished probability. The paper
    /// compares memory at one (NSDI 2016 §3.1): all flows that the table knows are then found, but
    /// about one flow is hidden in other flows' cells, which the decoder notices and says.
    pub const fn expected_false_positives(mut self, expected_false_positives: f64) -> Self {
        self.expected_false_positives = Some(expected_false_positives);
        self
    }

    /// Kind of flow key; IPv4 by default.
    pub const fn key(mut self, key: KeyKind) -> Self {
        self.key = key;
        self
    }

    /// Hash family; [`HashFamilyId::Xxh3`] by default.
    pub const fn family(mut self, family: HashFamilyId) -> Self {
        self.family = family;
        self
    }

    /// Arrangement of the filter; [`FilterKind::Partitioned`] by default.
    pub const fn filter(mut self, filter: FilterKind) -> Self {
        self.filter = filter;
        self
    }

    /// Whether cells may be coupled; [`CouplingChoice::Auto`] by default.
    pub const fn coupling(mut self, coupling: CouplingChoice) -> Self {
        self.coupling = coupling;
        self
    }

    /// Number of subtables, k in the paper, 2 to 6; by default the one with the fewest cells.
    pub const fn hashes(mut self, hashes: u8) -> Self {
        self.hashes = Some(hashes);
        self
    }

    /// Widths of the counters; [`CellWidths::default`] by default.
    pub const fn widths(mut self, widths: CellWidths) -> Self {
        self.widths = widths;
        self
    }

    /// Cells for each of the highest number of flows, instead of what the planner would choose.
    /// [`Plan::failure_probability`] says what it amounts to.
    pub const fn cells_per_flow(mut self, cells_per_flow: f64) -> Self {
        self.cells_per_flow = Some(cells_per_flow);
        self
    }

    /// What must be decoded; [`DecodeGoal::Single`] by default.
    pub const fn goal(mut self, goal: DecodeGoal) -> Self {
        self.goal = goal;
        self
    }

    /// Seed of the hash functions; 1 by default. Switches of a network need different seeds.
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Makes the plan. Some milliseconds, for a given memory some hundred.
    ///
    /// # Errors
    /// If a wish is out of range, or no layout is that large or small.
    pub fn plan(&self) -> Result<Plan, PlanError> {
        self.check()?;
        match self.size {
            Size::Flows(flows) => self.plan_for(flows, self.flows_max.unwrap_or(flows)),
            Size::MemoryBits(bits) => self.plan_in(bits),
        }
    }

    fn check(&self) -> Result<(), PlanError> {
        let range = FAILURE_PROBABILITY_MIN..=FAILURE_PROBABILITY_MAX;
        if !range.contains(&self.failure_probability) {
            return Err(PlanError::FailureProbability(self.failure_probability));
        }
        let positive = |number: f64| number > 0.0 && number.is_finite();
        if let Some(expected) = self.expected_false_positives.filter(|&x| !positive(x)) {
            return Err(PlanError::ExpectedFalsePositives(expected));
        }
        if let Some(cells_per_flow) = self.cells_per_flow.filter(|&x| !positive(x)) {
            return Err(PlanError::CellsPerFlow(cells_per_flow));
        }
        match self.hashes {
            Some(hashes) if !(HASHES_MIN..=HASHES_MAX).contains(&(hashes as usize)) => {
                Err(LayoutError::Hashes(hashes).into())
            }
            _ => Ok(()),
        }
    }

    /// The most flows whose plan fits, by doubling and halving.
    fn plan_in(&self, bits: u64) -> Result<Plan, PlanError> {
        let plan = |flows| self.plan_for(flows, flows);
        let fits = |plan: &Plan| plan.switch_memory_bits() <= bits;
        let first = match self.coupling {
            CouplingChoice::Coupled => COUPLED_FLOWS_MIN,
            _ => PLANNED_FLOWS_MIN,
        };
        let mut best = plan(first)?;
        if !fits(&best) {
            return Err(PlanError::Memory {
                bits,
                least_bits: best.switch_memory_bits(),
            });
        }
        // An error means that no layout is that large: too many flows, like one that does not fit.
        let mut too_many = loop {
            match plan(best.flows * 2) {
                Ok(larger) if fits(&larger) => best = larger,
                _ => break best.flows * 2,
            }
        };
        while too_many - best.flows > 1 {
            let middle = best.flows + (too_many - best.flows) / 2;
            match plan(middle) {
                Ok(larger) if fits(&larger) => best = larger,
                _ => too_many = middle,
            }
        }
        Ok(best)
    }

    fn plan_for(&self, flows: u64, flows_max: u64) -> Result<Plan, PlanError> {
        if flows_max < flows {
            return Err(PlanError::FlowsMax { flows, flows_max });
        }
        // More flows than cells never decode, not even network-wide.
        let sized_for = flows_max.max(PLANNED_FLOWS_MIN);
        if sized_for > 4 * crate::layout::CELLS_MAX {
            return Err(LayoutError::Cells(sized_for).into());
        }
        let table = self.table(flows.max(PLANNED_FLOWS_MIN), sized_for)?;
        let filter = match self.expected_false_positives {
            Some(wished) => filter::smallest(self.filter, self.family, sized_for, wished)?,
            None => self.provable_filter(&table, sized_for)?,
        };
        let layout = Layout::new(self.family, self.seed, table, filter)?;
        Ok(Plan {
            layout,
            key: self.key,
            flows,
            flows_max,
            cells_per_flow: table.cells() as f64 / sized_for as f64,
            expected_false_positives: expected_false_positives(&filter, flows_max),
            failure_probability: single_decode_failure_probability(&table, flows_max),
        })
    }

    fn table(&self, flows: u64, flows_max: u64) -> Result<TableLayout, PlanError> {
        if let Some(cells_per_flow) = self.cells_per_flow {
            let hashes = self.hashes.unwrap_or(HASHES_DEFAULT);
            return self.table_of(hashes, cells_per_flow, flows_max);
        }
        match self.goal {
            DecodeGoal::Single => self.single_decode_table(flows_max),
            DecodeGoal::Network => {
                let hashes = self.hashes.unwrap_or(HASHES_DEFAULT);
                let (_, cells_per_flow) = NETWORK_CELLS_PER_FLOW
                    .into_iter()
                    .find(|&(known, _)| known == hashes)
                    .ok_or(PlanError::NetworkHashes(hashes))?;
                let network = self.table_of(hashes, cells_per_flow, flows_max)?;
                if flows == flows_max {
                    return Ok(network);
                }
                // The same number of hashes: the network's cells are counted with that.
                let request = Self {
                    hashes: Some(hashes),
                    coupling: CouplingChoice::Plain,
                    ..*self
                };
                let single = request.single_decode_table(flows)?;
                Ok(if single.cells() > network.cells() {
                    single
                } else {
                    network
                })
            }
        }
    }

    /// The smallest filter that leaves the other half of the failure probability, and lets counters be
    /// proved: in a small table a hidden flow could share all cells with another
    /// ([`crate::decode::expected_hidden_flows`]), so the filter must hide fewer.
    fn provable_filter(&self, table: &TableLayout, flows: u64) -> Result<FilterLayout, PlanError> {
        let mut wished = self.failure_probability / 2.0;
        loop {
            let filter = filter::smallest(self.filter, self.family, flows, wished)?;
            let next_is_hidden = expected_false_positives(&filter, flows + 1)
                - expected_false_positives(&filter, flows);
            let merged = flows as f64 * next_is_hidden * table.confusable_share(flows as f64);
            // A filter is now and then fuller than expected.
            if merged <= UNDETECTED_HIDDEN_FLOWS_MAX / 8.0 {
                return Ok(filter);
            }
            wished /= 2.0;
        }
    }

    /// The smallest table that peels with the wished probability.
    fn single_decode_table(&self, flows: u64) -> Result<TableLayout, PlanError> {
        if self.coupling == CouplingChoice::Coupled && flows < COUPLED_FLOWS_MIN {
            return Err(PlanError::CoupledFlows(flows));
        }
        let wished = match self.expected_false_positives {
            Some(_) => self.failure_probability,
            None => self.failure_probability / 2.0,
        };
        let (coupled, plain) = match self.coupling {
            CouplingChoice::Auto => (flows >= COUPLED_FLOWS_MIN, true),
            CouplingChoice::Plain => (false, true),
            CouplingChoice::Coupled => (true, false),
        };
        peeling::smallest(self.hashes, plain, coupled, self.widths, flows, wished)
            .map_err(PlanError::Layout)
    }

    /// A table of a given size.
    fn table_of(
        &self,
        hashes: u8,
        cells_per_flow: f64,
        flows: u64,
    ) -> Result<TableLayout, PlanError> {
        let cells = libm::ceil(cells_per_flow * flows as f64 / hashes as f64);
        let subtable_cells = if cells < u32::MAX as f64 {
            cells as u32
        } else {
            return Err(LayoutError::Cells((cells * hashes as f64) as u64).into());
        };
        let coupling = match self.coupling {
            CouplingChoice::Coupled => peeling::best_window(hashes, subtable_cells, flows)
                .ok_or(PlanError::CoupledFlows(flows))?,
            _ => Coupling::Plain,
        };
        Ok(TableLayout::new(
            hashes,
            subtable_cells,
            coupling,
            self.widths,
        )?)
    }
}

/// A layout, and what it costs.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// The layout.
    pub layout: Layout,
    /// The kind of flow key it is meant for.
    pub key: KeyKind,
    /// Expected number of flows in an epoch.
    pub flows: u64,
    /// Highest number of flows in an epoch that must decode.
    pub flows_max: u64,
    /// Cells for each of the highest number of flows.
    pub cells_per_flow: f64,
    /// Flow-filter false positives expected while the highest number of flows is added.
    pub expected_false_positives: f64,
    /// How often SingleDecode fails to find all of the highest number of flows (apart from false
    /// positives), by the model. Near 1 if only the network together can.
    pub failure_probability: f64,
}

impl Plan {
    /// Memory that one bank takes on a switch: filter and table, without padding.
    pub const fn switch_memory_bits(&self) -> u64 {
        self.layout.switch_memory_bits(self.key)
    }

    /// Memory that both banks take on a switch.
    pub const fn switch_memory_bits_two_banks(&self) -> u64 {
        2 * self.switch_memory_bits()
    }

    /// Size of an encoded flowset, for the longest switch name. `None` if this machine cannot hold it.
    pub fn flowset_bytes(&self) -> Option<usize> {
        flowset_bytes(SwitchName::BYTES_MAX, self.key, &self.layout)
    }

    /// Bandwidth that a switch needs to export a flowset in every epoch of `epoch_length_ns`
    /// nanoseconds, in bits per second, without the headers of the transport.
    pub fn export_bits_per_second(&self, epoch_length_ns: u64) -> f64 {
        let bytes = self
            .flowset_bytes()
            .map_or(f64::INFINITY, |bytes| bytes as f64);
        bytes * 8e9 / epoch_length_ns as f64
    }
}
