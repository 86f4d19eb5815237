//! The layout planner: from a number of flows to a layout, and back.

use crate::hash::HashFamilyId;
use crate::layout::{CellWidths, Coupling, FilterLayout, Layout, LayoutError, TableLayout};

/// What a layout is wanted for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlanRequest {
    flows: u64,
}

/// A layout, and what it costs.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// The layout.
    pub layout: Layout,
}

impl PlanRequest {
    /// A layout for this many flows in an epoch.
    pub const fn flows(flows: u64) -> Self {
        Self { flows }
    }

    /// Makes the plan.
    ///
    /// # Errors
    /// If no layout is that large.
    pub fn plan(&self) -> Result<Plan, LayoutError> {
        let subtable = (self.flows as f64 * 1.35 / 3.0) as u32 + 32;
        let table = TableLayout::new(3, subtable, Coupling::Plain, CellWidths::default())?;
        let filter = FilterLayout::blocked((self.flows / 12 + 16) as u32)?;
        Ok(Plan {
            layout: Layout::new(HashFamilyId::Xxh3, 1, table, filter)?,
        })
    }
}
