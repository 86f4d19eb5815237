//! Measures how many flows a counting table holds before peeling fails: the constants of
//! [`flowradar_core::plan`] come from here.
//!
//! A table of fixed size fills with random flows until peeling fails for the first time. As a subset
//! of peelable flows is peelable, bisection finds that *critical number of flows*; its distribution
//! over many random tables gives every failure probability at once.
//!
//! ```text
//! cargo run --release -p flowradar-core --example peeling_threshold -- \
//!     [--hashes 3,4] [--windows 0,8,16] [--flows 1000,10000] [--trials 1000] [--seed 1]
//! ```
//!
//! `--windows` are coupling windows as a part of the subtable: 8 means 1/8; 0 means a plain table.
//! Prints CSV: the median critical load (flows per cell), its spread below the median in units of
//! the number of flows to the power -1/2, and the cells per flow that 95 %, 99 % and 99.9 % of the
//! tables needed.

use std::error::Error;
use std::str::FromStr;

use flowradar_core::hash::{HashFamily, Xxh3};
use flowradar_core::layout::{CellWidths, Coupling, TableLayout};

/// From here on the distribution of the critical load hardly changes within a few percent of flows,
/// so that one run serves all failure probabilities.
const LARGE_FLOWS: u32 = 3_000;

/// What to measure.
struct Settings {
    hashes: Vec<u8>,
    /// Window as a part of the subtable; 0 for plain.
    windows: Vec<u32>,
    flows: Vec<u32>,
    trials: u32,
    seed: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let settings = Settings::from_args(std::env::args().skip(1))?;
    println!(
        "hashes,window_part,flows,trials,median_load,spread,cells_per_flow_95,cells_per_flow_99,\
         cells_per_flow_99_9"
    );
    for &hashes in &settings.hashes {
        for &window in &settings.windows {
            for &flows in &settings.flows {
                measure(&settings, hashes, window, flows)?;
            }
        }
    }
    Ok(())
}

/// Prints one row.
fn measure(settings: &Settings, hashes: u8, window: u32, flows: u32) -> Result<(), Box<dyn Error>> {
    // A table in which half of the trials hold `flows` flows.
    let mut critical = vec![];
    let mut cells = flows as f64 * 1.3;
    let mut median = 0;
    for _ in 0..4 {
        let table = table(hashes, window, cells)?;
        critical = critical_flows(&table, settings.trials, settings.seed);
        median = quantile(&critical, 0.5);
        cells = table.cells() as f64;
        if flows.abs_diff(median) as f64 <= (flows as f64 * 0.02).max(1.0) {
            break;
        }
        cells *= flows as f64 / median as f64;
    }
    let median_load = median as f64 / cells;
    // One standard deviation below the median, read where small stopping sets do not yet show.
    let spread =
        (median - quantile(&critical, 0.1)) as f64 / cells / 1.2816 * (flows as f64).sqrt();
    print!(
        "{hashes},{window},{flows},{},{median_load:.5},{spread:.4}",
        settings.trials
    );
    for failures in [0.05, 0.01, 0.001] {
        if failures * (settings.trials as f64) < 5.0 {
            print!(",");
            continue;
        }
        // A table in which this share of the trials fails to hold `flows` flows.
        let mut cells = flows as f64 / (quantile(&critical, failures) as f64 / cells);
        for _ in 0..3 {
            if flows >= LARGE_FLOWS {
                break;
            }
            let table = table(hashes, window, cells)?;
            let holds = quantile(
                &critical_flows(&table, settings.trials, settings.seed),
                failures,
            );
            cells = table.cells() as f64;
            if flows.abs_diff(holds) as f64 <= flows as f64 * 0.002 {
                break;
            }
            cells *= flows as f64 / holds as f64;
        }
        print!(",{:.4}", cells / flows as f64);
    }
    println!();
    Ok(())
}

fn table(hashes: u8, window: u32, cells: f64) -> Result<TableLayout, Box<dyn Error>> {
    let subtable_cells = (cells / hashes as f64).round().max(1.0) as u32;
    let coupling = match window {
        0 => Coupling::Plain,
        part => Coupling::Window {
            cells: subtable_cells.div_ceil(part),
        },
    };
    let widths = CellWidths::default();
    Ok(TableLayout::new(hashes, subtable_cells, coupling, widths)?)
}

/// The number of flows at which each of `trials` tables no longer peels, sorted.
fn critical_flows(table: &TableLayout, trials: u32, seed: u64) -> Vec<u32> {
    let mut peeler = Peeler::default();
    let mut around = None;
    let mut critical: Vec<u32> = (0..trials as u64)
        .map(|trial| {
            // No table holds more flows than cells.
            peeler.fill(table, seed << 32 ^ trial, table.cells() as u32 + 1);
            let critical = peeler.critical_flows(around);
            around = Some(critical);
            critical
        })
        .collect();
    critical.sort_unstable();
    critical
}

fn quantile(sorted: &[u32], share: f64) -> u32 {
    sorted[((sorted.len() as f64 * share) as usize).min(sorted.len() - 1)]
}

/// Peels flows that are only numbers: no keys, no counters.
#[derive(Default)]
struct Peeler {
    hashes: usize,
    cells: usize,
    /// The cells of each flow, `hashes` for each.
    cells_of: Vec<u32>,
    /// Of each cell: how many flows, and their numbers XORed.
    state: Vec<(u32, u32)>,
    pure: Vec<u32>,
}

impl Peeler {
    /// Draws random flows.
    fn fill(&mut self, table: &TableLayout, seed: u64, flows: u32) {
        self.hashes = table.hashes();
        self.cells = table.cells();
        self.cells_of.clear();
        for flow in 0..flows as u64 {
            let cells = table.cells_of_any(&Xxh3::hash(&[flow, 0], seed));
            self.cells_of.extend(&cells[..self.hashes]);
        }
    }

    /// The highest number of flows that peel completely.
    fn critical_flows(&mut self, around: Option<u32>) -> u32 {
        let most = (self.cells_of.len() / self.hashes) as u32;
        // Gallop from the last trial's answer, then bisect.
        let (mut holds, mut fails) = (0, most);
        if let Some(around) = around {
            let mut step = (around / 128).max(1);
            if self.peels(around) {
                holds = around;
                while holds + step < fails && self.peels(holds + step) {
                    holds += step;
                    step *= 2;
                }
                fails = fails.min(holds + step);
            } else {
                fails = around;
                while fails > step && !self.peels(fails - step) {
                    fails -= step;
                    step *= 2;
                }
                holds = fails.saturating_sub(step);
            }
        }
        while fails - holds > 1 + holds / 5000 {
            let middle = holds + (fails - holds) / 2;
            if self.peels(middle) {
                holds = middle;
            } else {
                fails = middle;
            }
        }
        holds
    }

    /// Whether the first `flows` flows peel completely.
    fn peels(&mut self, flows: u32) -> bool {
        self.state.clear();
        self.state.resize(self.cells, (0, 0));
        let used = &self.cells_of[..flows as usize * self.hashes];
        for (flow, cells) in used.chunks_exact(self.hashes).enumerate() {
            for &cell in cells {
                let (count, xor) = &mut self.state[cell as usize];
                *count += 1;
                *xor ^= flow as u32;
            }
        }
        self.pure.clear();
        for (cell, &(count, _)) in self.state.iter().enumerate() {
            if count == 1 {
                self.pure.push(cell as u32);
            }
        }
        let mut left = flows;
        while let Some(cell) = self.pure.pop() {
            let (count, flow) = self.state[cell as usize];
            if count != 1 {
                continue;
            }
            left -= 1;
            let first = flow as usize * self.hashes;
            for &cell in &self.cells_of[first..first + self.hashes] {
                let (count, xor) = &mut self.state[cell as usize];
                *count -= 1;
                *xor ^= flow;
                if *count == 1 {
                    self.pure.push(cell);
                }
            }
        }
        left == 0
    }
}

impl Settings {
    fn from_args(mut args: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut settings = Self {
            hashes: vec![3, 4],
            windows: vec![0, 8, 12, 16, 24, 32, 48],
            flows: vec![30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000],
            trials: 1_000,
            seed: 1,
        };
        while let Some(name) = args.next() {
            let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--hashes" => settings.hashes = list(&value)?,
                "--windows" => settings.windows = list(&value)?,
                "--flows" => settings.flows = list(&value)?,
                "--trials" => settings.trials = value.parse()?,
                "--seed" => settings.seed = value.parse()?,
                _ => return Err(format!("unknown option {name}").into()),
            }
        }
        if settings.trials == 0 || settings.windows.contains(&1) {
            return Err("use one trial at least, and windows of 1/2 of a subtable at most".into());
        }
        Ok(settings)
    }
}

fn list<T: FromStr<Err: Error + 'static>>(text: &str) -> Result<Vec<T>, Box<dyn Error>> {
    text.split(',')
        .map(|item| item.parse().map_err(Into::into))
        .collect()
}
