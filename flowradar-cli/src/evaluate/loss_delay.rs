//! How soon a loss is known: FlowRadar beside NetFlow, on the same traffic.

use std::collections::{HashMap, HashSet};

use flowradar_collector::analysis::{
    AnalysisOptions, Analyzer, EpochRecords, FiveTuple, LossOptions, Network, NetworkModel,
};
use flowradar_collector::{NetDecodeOptions, net_decode};
use flowradar_core::flowset::Epoch;
use flowradar_core::layout::Layout;
use flowradar_core::plan::{CouplingChoice, PlanRequest};
use flowradar_core::{Encoder, FlowKeyV4, Flowset};
use flowradar_sim::encode::switch_seed;
use flowradar_sim::{Faults, FlowId, Happening, Node, Simulation, Topology, Truth};

use super::{PAPER_EPOCH_MS, Settings, progress};
use crate::figures::{Axis, BLUE, Figure, GREEN, Line, LineChart, ORANGE, Stroke, VERMILLION};
use crate::layout_options;
use crate::outcome::CommandError;
use crate::result_table::{ResultTable, Value};

const EPOCHS_PER_SECOND: u64 = 100;
/// Before losses are looked at: flows have begun at all times by then.
const WARM_UP_EPOCHS: u64 = 30 * EPOCHS_PER_SECOND;
/// The last flow that lost something has ended by then, or been exported.
const TAIL_EPOCHS: u64 = 61 * EPOCHS_PER_SECOND;
/// Flows last 5 seconds on average.
const PERSISTENCE: f64 = 0.998;
const LOSSY_FLOWS: f64 = 0.02;
/// NetFlow's active timeouts, in seconds.
const ACTIVE_TIMEOUTS_S: [u64; 3] = [1, 15, 60];
/// NetFlow's inactive timeout, in seconds.
const INACTIVE_TIMEOUT_S: u64 = 15;

/// Points of a line of the figure.
const STEPS: usize = 20;

/// How soon losses are known.
pub(super) struct LossDelays {
    pub(super) table: ResultTable,
    pub(super) figure: Figure,
    /// Median delays in words.
    pub(super) summary: String,
}

/// A loss: when, whose, behind which switch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Loss {
    epoch: u64,
    flow: FlowId,
    from: String,
}

/// A flow's first and last epoch.
#[derive(Clone, Copy, Debug)]
struct Life {
    first: u64,
    last: u64,
}

/// The delays of one method, in epochs; none for losses that it did not find.
struct Method {
    name: String,
    delays: Vec<Option<u64>>,
}

/// Measures how soon.
pub(super) fn measure(settings: &Settings) -> Result<LossDelays, CommandError> {
    let (flows_per_switch, window_epochs) = if settings.quick { (20, 60) } else { (60, 300) };
    let failed = |error: &dyn std::error::Error| CommandError::Failed(error.to_string());
    let topology = Topology::fat_tree(4).map_err(|error| failed(&error))?;
    let simulation = Simulation::builder(topology)
        .flows_per_switch(flows_per_switch)
        .epochs(WARM_UP_EPOCHS + window_epochs + TAIL_EPOCHS)
        .persistence(PERSISTENCE)
        .faults(Faults {
            lossy_flows: LOSSY_FLOWS,
            ..Faults::default()
        })
        .seed(settings.seed)
        .build()
        .map_err(|error| failed(&error))?;
    let found = decode_window(&simulation, window_epochs)?;
    let (losses, lives) = really(&simulation, window_epochs);
    // The last epoch of the window waits for the next to be settled.
    let losses: Vec<Loss> = losses
        .into_iter()
        .filter(|loss| loss.epoch + 1 < WARM_UP_EPOCHS + window_epochs)
        .collect();
    let flowradar = Method {
        name: format!("FlowRadar, epochs of {PAPER_EPOCH_MS} ms"),
        delays: losses
            .iter()
            .map(|loss| found.get(loss).map(|known| known + 1 - loss.epoch))
            .collect(),
    };
    let netflow = ACTIVE_TIMEOUTS_S.map(|timeout_s| Method {
        name: format!("NetFlow, active timeout {timeout_s} s"),
        delays: losses
            .iter()
            .map(|loss| Some(exported(lives.get(&loss.flow)?, loss.epoch, timeout_s) - loss.epoch))
            .collect(),
    });
    let methods: Vec<Method> = std::iter::once(flowradar).chain(netflow).collect();
    Ok(LossDelays {
        table: table(&methods),
        figure: figure(&methods),
        summary: methods
            .iter()
            .map(|method| format!("{}: {}", method.name, seconds(method.quantile(0.5))))
            .collect::<Vec<_>>()
            .join("; "),
    })
}

/// When NetFlow's cache exports the record that counts a flow's packets of an epoch: when the flow has
/// been active for the timeout, counted from its first packet or its last export, or when it has been
/// silent for the inactive timeout.
fn exported(life: &Life, epoch: u64, active_timeout_s: u64) -> u64 {
    let active = active_timeout_s * EPOCHS_PER_SECOND;
    let inactive = INACTIVE_TIMEOUT_S.min(active_timeout_s) * EPOCHS_PER_SECOND;
    let begun = life.first + (epoch - life.first) / active * active;
    (begun + active).min(life.last + 1 + inactive)
}

/// The epochs in which losses became known, from encoded and decoded flowsets.
fn decode_window(
    simulation: &Simulation,
    window_epochs: u64,
) -> Result<HashMap<Loss, u64>, CommandError> {
    let topology = simulation.topology();
    let failed = |error: &dyn std::error::Error| CommandError::Failed(error.to_string());
    let network = Network::parse(&topology.to_json()).map_err(|error| failed(&error))?;
    let model = NetworkModel::shortest_paths(network).map_err(|error| failed(&error))?;
    let options = AnalysisOptions {
        loss: LossOptions {
            flows_listed_max: usize::MAX,
            ..LossOptions::default()
        },
        ..AnalysisOptions::default()
    };
    let mut analyzer = Analyzer::new(options, Some(model));
    let flows = f64::from(simulation.flows_per_epoch()) * 5.0 / topology.switches().len() as f64;
    let request = PlanRequest::flows(flows as u64)
        .hashes(3)
        .coupling(CouplingChoice::Plain)
        .cells_per_flow(2.0)
        .expected_false_positives(super::NETWORK_FALSE_POSITIVES);
    let layout = layout_options::plan(&request)?.layout;
    let truth = |epoch| Truth::of_epoch(simulation, epoch);
    let bar = progress("how soon losses are known", window_epochs as usize);
    let mut known = HashMap::new();
    for epoch in WARM_UP_EPOCHS..WARM_UP_EPOCHS + window_epochs {
        let flowsets = encode_epoch(simulation, &layout, epoch)?;
        let decoded = net_decode::<FlowKeyV4, _>(&flowsets, &NetDecodeOptions::default())
            .map_err(|error| failed(&error))?;
        let findings = analyzer
            .epoch(&EpochRecords::of(epoch, &decoded))
            .map_err(|error| failed(&error))?;
        if let Some(losses) = findings.losses {
            let keys: HashMap<FiveTuple, FlowId> = truth(losses.epoch)
                .flows()
                .iter()
                .map(|(key, flow)| (FiveTuple::from(key), *flow))
                .collect();
            for loss in losses.flows {
                let Some(&flow) = keys.get(&loss.flow) else {
                    continue;
                };
                // A judgement may have been put off by some epochs.
                for earlier in losses.epoch.saturating_sub(3)..=losses.epoch {
                    let loss = Loss {
                        epoch: earlier,
                        flow,
                        from: loss.from.clone(),
                    };
                    known.entry(loss).or_insert(epoch);
                }
            }
        }
        bar.set(epoch + 1 - WARM_UP_EPOCHS);
    }
    Ok(known)
}

fn encode_epoch(
    simulation: &Simulation,
    layout: &Layout,
    epoch: u64,
) -> Result<Vec<Flowset<Vec<u8>>>, CommandError> {
    let topology = simulation.topology();
    let failed = |error: &dyn std::error::Error| CommandError::Failed(error.to_string());
    let mut encoders = Vec::new();
    for switch in topology.switch_ids() {
        let name = topology.switches()[switch.index()].clone();
        let layout = layout.with_seed(switch_seed(layout.seed(), switch));
        let encoder = Encoder::<FlowKeyV4>::new(name, layout, Epoch::number(epoch));
        encoders.push(encoder.map_err(|error| failed(&error))?);
    }
    simulation.for_each_block(epoch, |pieces| {
        for observation in pieces.iter().flat_map(|piece| piece.all()) {
            let packets = u32::try_from(observation.packets()).unwrap_or(u32::MAX);
            let encoder = &mut encoders[observation.switch.index()];
            encoder.packets_of_flow(&observation.key, packets, observation.bytes());
        }
    });
    let mut flowsets = Vec::new();
    for mut encoder in encoders {
        let sealed = encoder.end_epoch(Epoch::number(epoch + 1));
        let bytes = sealed.map_err(|error| failed(&error))?.to_flowset();
        flowsets.push(Flowset::new_checked(bytes).map_err(|error| failed(&error))?);
    }
    Ok(flowsets)
}

/// The losses of the window, and from when to when their flows lasted.
fn really(simulation: &Simulation, window_epochs: u64) -> (Vec<Loss>, HashMap<FlowId, Life>) {
    let topology = simulation.topology();
    let window = WARM_UP_EPOCHS..WARM_UP_EPOCHS + window_epochs;
    let mut lives: HashMap<FlowId, Life> = HashMap::new();
    let mut losses: HashSet<Loss> = HashSet::new();
    for epoch in 0..simulation.epochs() {
        let truth = Truth::of_epoch(simulation, epoch);
        for (_, flow) in truth.flows() {
            let life = lives.entry(*flow).or_insert(Life {
                first: epoch,
                last: epoch,
            });
            life.last = epoch;
        }
        if window.contains(&epoch) {
            losses.extend(truth.events().iter().filter_map(|event| {
                let Happening::LostOfFlow { link } = event.what else {
                    return None;
                };
                let (Node::Switch(from), _) = topology.ends(link) else {
                    return None;
                };
                Some(Loss {
                    epoch,
                    flow: event.flow,
                    from: topology.name(from).to_owned(),
                })
            }));
        }
        // Nothing more to learn once the flows that lost something are gone.
        let gone = |loss: &Loss| lives.get(&loss.flow).is_none_or(|life| life.last < epoch);
        if epoch >= window.end && losses.iter().all(gone) {
            break;
        }
    }
    let mut losses: Vec<Loss> = losses.into_iter().collect();
    losses.sort_by(|a, b| (a.epoch, a.flow, &a.from).cmp(&(b.epoch, b.flow, &b.from)));
    (losses, lives)
}

impl Method {
    /// Delays of the losses found, ascending.
    fn known(&self) -> Vec<u64> {
        let mut known: Vec<u64> = self.delays.iter().flatten().copied().collect();
        known.sort_unstable();
        known
    }

    /// After how many epochs this share of all losses is known, if so many ever are.
    fn quantile(&self, share: f64) -> Option<u64> {
        let place = (share * self.delays.len() as f64).ceil() as usize;
        self.known().get(place.saturating_sub(1)).copied()
    }
}

fn table(methods: &[Method]) -> ResultTable {
    let mut table = ResultTable::new(
        "loss_delay",
        "Time from a loss (of one flow on one link in one epoch) to when it is known",
        [
            "method",
            "losses",
            "known",
            "median_delay_ms",
            "p90_delay_ms",
            "most_delay_ms",
        ],
    );
    let ms = |epochs: Option<u64>| match epochs {
        Some(epochs) => Value::Real(epochs as f64 * PAPER_EPOCH_MS, 0),
        None => Value::Missing,
    };
    for method in methods {
        let known = method.known();
        table.push([
            method.name.clone().into(),
            method.delays.len().into(),
            known.len().into(),
            ms(method.quantile(0.5)),
            ms(method.quantile(0.9)),
            ms(known.last().copied()),
        ]);
    }
    table
}

fn figure(methods: &[Method]) -> Figure {
    let lines = methods.iter().zip([BLUE, GREEN, ORANGE, VERMILLION]);
    let line = |(method, colour): (&Method, _)| {
        let points = (0..=STEPS).map_while(|step| {
            let share = step as f64 / STEPS as f64;
            let seconds = method.quantile(share)? as f64 * PAPER_EPOCH_MS / 1000.0;
            Some((seconds, share * 100.0))
        });
        Line {
            label: method.name.clone(),
            colour,
            stroke: Stroke::Solid,
            points: points.collect(),
        }
    };
    let chart = LineChart {
        name: "loss_delay",
        title: "Losses are known at the end of the next epoch, not after a timeout".into(),
        subtitle: "share of losses known after a time".into(),
        x: Axis::logarithmic("seconds after the epoch began", 0.009..100.0, |s| {
            format!("{s}")
        }),
        y: Axis::linear("per cent", [0.0, 25.0, 50.0, 75.0, 100.0], |share| {
            format!("{share:.0}")
        }),
        lines: lines.map(line).collect(),
        marks: vec![],
    };
    chart.draw()
}

fn seconds(epochs: Option<u64>) -> String {
    match epochs {
        Some(epochs) => format!("{:.2} s", epochs as f64 / EPOCHS_PER_SECOND as f64),
        None => "never".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_exported_at_the_first_timeout() {
        let life = Life {
            first: 50,
            last: 449,
        };
        // Active from second 0.5 to 4.5: a record each second.
        assert_eq!(exported(&life, 50, 1), 150);
        assert_eq!(exported(&life, 149, 1), 150);
        assert_eq!(exported(&life, 150, 1), 250);
        // The active timeout passes before the inactive one would.
        assert_eq!(exported(&life, 449, 1), 450);
        // It ends long before; 15 seconds of silence give it away, but for the active timeout.
        assert_eq!(exported(&life, 449, 15), 1_550);
        assert_eq!(exported(&life, 449, 60), 450 + 1_500);
    }
}
