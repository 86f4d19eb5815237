//! Arguments that choose a layout, and the layouts they choose.

use clap::ValueEnum;
use flowradar_core::KeyKind;
use flowradar_core::hash::HashFamilyId;
use flowradar_core::layout::{CellWidths, HASHES_MAX, HASHES_MIN};
use flowradar_core::plan::{CouplingChoice, FilterKind, Plan, PlanError, PlanRequest};

use crate::outcome::CommandError;
use crate::units;

/// How often an epoch may turn out incomplete with the tables that commands choose by themselves.
pub(crate) const FAILURE_PROBABILITY: f64 = 1e-4;

/// Width of FlowCount.
const FLOW_COUNT_BITS: u8 = 8;
/// Width of PacketCount in epochs of a length.
pub(crate) const PACKET_COUNT_BITS: u8 = 24;
/// Width of PacketCount in an epoch without an end, which may hold any number of packets.
pub(crate) const PACKET_COUNT_BITS_UNLIMITED: u8 = 32;
/// Width of ByteCount.
const BYTE_COUNT_BITS: u8 = 48;

/// Arrangement of the flow filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FilterArgument {
    /// Blocks of one cache line: fast in software
    Blocked,
    /// One array for each hash, as P4 switches have: the fewest bits
    Partitioned,
}

/// How the cells of a flow lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CouplingArgument {
    /// Whichever takes fewer cells
    Auto,
    /// Each cell anywhere in its subtable
    Plain,
    /// All cells of a flow in one window: fewer cells for tens of thousands of flows
    Coupled,
}

/// Arguments that shape a layout, whatever its size.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Layout")]
pub(crate) struct LayoutOptions {
    /// Count bytes (from the IP header on) too
    #[arg(long)]
    pub(crate) bytes: bool,

    /// Cells of a flow, that is subtables: k in the paper, 2 to 6 [default: what takes the fewest
    /// cells]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u8).range(HASHES_MIN as i64..=HASHES_MAX as i64))]
    pub(crate) hashes: Option<u8>,

    /// Cells of the counting table for each flow [default: as many as decoding one switch needs]
    #[arg(long, value_name = "X", value_parser = units::parse_ratio)]
    pub(crate) cells_per_flow: Option<f64>,

    /// How the cells of a flow lie in the subtables
    #[arg(long, value_enum, default_value_t = CouplingArgument::Auto)]
    pub(crate) coupling: CouplingArgument,

    /// Hash family: xxh3 (software), mix64 (bmv2 and other targets that multiply) or crc-add
    /// (Tofino)
    #[arg(long, value_name = "FAMILY", value_parser = parse_family, default_value = "xxh3")]
    pub(crate) family: HashFamilyId,
}

impl LayoutOptions {
    /// A request for a plan with this shape; filter and failure probability are the caller's to
    /// choose.
    pub(crate) fn shape(
        &self,
        request: PlanRequest,
        key: KeyKind,
        packet_count_bits: u8,
    ) -> Result<PlanRequest, CommandError> {
        let byte_count_bits = if self.bytes { BYTE_COUNT_BITS } else { 0 };
        let widths = CellWidths::new(FLOW_COUNT_BITS, packet_count_bits, byte_count_bits)
            .map_err(|error| CommandError::Usage(error.to_string()))?;
        let mut request = request
            .key(key)
            .widths(widths)
            .family(self.family)
            .coupling(self.coupling.choice());
        if let Some(hashes) = self.hashes {
            request = request.hashes(hashes);
        }
        if let Some(cells_per_flow) = self.cells_per_flow {
            request = request.cells_per_flow(cells_per_flow);
        }
        Ok(request)
    }
}

/// Makes a plan; what is wrong with it is wrong with the arguments.
pub(crate) fn plan(request: &PlanRequest) -> Result<Plan, CommandError> {
    request.plan().map_err(|error| {
        CommandError::Usage(match error {
            PlanError::Memory { bits, least_bits } => format!(
                "--memory of {} bytes is too little: the smallest layout takes {}",
                bits / 8,
                least_bits.div_ceil(8)
            ),
            other => format!("no such layout: {other}"),
        })
    })
}

impl FilterArgument {
    /// The planner's word for it.
    pub(crate) fn kind(self) -> FilterKind {
        match self {
            Self::Blocked => FilterKind::Blocked,
            Self::Partitioned => FilterKind::Partitioned,
        }
    }
}

impl CouplingArgument {
    fn choice(self) -> CouplingChoice {
        match self {
            Self::Auto => CouplingChoice::Auto,
            Self::Plain => CouplingChoice::Plain,
            Self::Coupled => CouplingChoice::Coupled,
        }
    }
}

/// A hash family by its name.
fn parse_family(name: &str) -> Result<HashFamilyId, String> {
    HashFamilyId::from_name(name).ok_or_else(|| "use xxh3, mix64 or crc-add".into())
}
