//! Loops, blackholes and wrong forwarding at random places.

use std::collections::HashSet;

use flowradar_collector::analysis::{AnalysisOptions, Event, EventKind};
use flowradar_sim::{
    Fault, FaultKind, Faults, Happening, InFlight, Simulation, SwitchId, Topology, Truth,
};

use crate::score::{Score, Table};
use crate::{analyse, fat_tree};

const NETWORKS: u64 = 24;
const ONSET: u64 = 2;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Blackhole,
    Loop,
    WrongForwarding,
}

/// A fault that packets met.
struct Met {
    kind: Kind,
    /// The first epoch in which it did something.
    onset: u64,
    /// Switches that it is at.
    switches: Vec<String>,
    /// Whether it leaves a trace in counters; the modules' docs list when it does not.
    visible: bool,
}

fn build(faults: Vec<Fault>, seed: u64) -> Simulation {
    Simulation::builder(fat_tree(4))
        .flows_per_switch(150)
        .epochs(6)
        .faults(Faults {
            planted: faults,
            in_flight: InFlight {
                flows: 0.02,
                packets_max: 2,
            },
            link_loss: 0.0002,
            ..Faults::default()
        })
        .seed(seed)
        .build()
        .expect("the settings are fine")
}

fn met(simulation: &Simulation) -> Vec<Met> {
    let (topology, truth) = (simulation.topology(), Truth::of(simulation));
    let planted = simulation.faults().planted.iter().enumerate();
    planted
        .filter_map(|(number, fault)| {
            let concerns = |what: Happening| match (&fault.kind, what) {
                (FaultKind::Blackhole { at, .. }, Happening::Blackholed { at: place, .. }) => {
                    *at == place
                }
                (FaultKind::Loop { .. }, Happening::Looped { fault, .. }) => fault == number as u32,
                (
                    FaultKind::WrongForwarding { at, to, .. },
                    Happening::Misforwarded {
                        at: from,
                        to: wrong,
                    },
                ) => (*at, *to) == (from, wrong),
                _ => false,
            };
            let events: Vec<_> = truth
                .events()
                .iter()
                .filter(|event| concerns(event.what))
                .collect();
            // Settled are all epochs but the last.
            let epochs = ONSET..simulation.epochs() - 1;
            let visible = events
                .iter()
                .filter(|event| epochs.contains(&(event.sent_epoch as u64)))
                .any(|event| is_visible(simulation, fault, event.flow));
            let onset = events
                .iter()
                .find(|event| event.sent_epoch >= ONSET as i64)?
                .sent_epoch;
            let name = |switch: &SwitchId| topology.name(*switch).to_owned();
            let (kind, switches) = match &fault.kind {
                FaultKind::Blackhole { at, .. } => (Kind::Blackhole, vec![name(at)]),
                FaultKind::Loop { cycle, .. } => (Kind::Loop, cycle.iter().map(name).collect()),
                FaultKind::WrongForwarding { at, to, .. } => {
                    (Kind::WrongForwarding, vec![name(at), name(to)])
                }
            };
            Some(Met {
                kind,
                onset: onset as u64,
                switches,
                visible,
            })
        })
        .collect()
}

/// Whether what a fault did to a flow can be told from something else by counters.
fn is_visible(simulation: &Simulation, fault: &Fault, flow: flowradar_sim::FlowId) -> bool {
    let info = simulation.flow(flow).expect("a flow of the run");
    let routing = simulation.routing();
    let (first, last) = (info.path[0], info.path[info.path.len() - 1]);
    match &fault.kind {
        // Nobody counted them, or they were counted where they were going.
        FaultKind::Blackhole { at, counted: false } => *at != first,
        FaultKind::Blackhole { at, counted: true } => *at != last,
        FaultKind::Loop { cycle, .. } => !cycle.contains(&first),
        // A member of the group, or on another intended way.
        FaultKind::WrongForwarding { at, to, .. } => {
            let mut ways = vec![first];
            let mut next = 0;
            while let Some(&switch) = ways.get(next) {
                next += 1;
                for hop in routing.next_hops(switch, info.to) {
                    if !ways.contains(&hop.switch) {
                        ways.push(hop.switch);
                    }
                }
            }
            ways.contains(at) && !ways.contains(to)
        }
    }
}

fn kind_of(event: &Event) -> Option<Kind> {
    match event.kind {
        EventKind::Blackhole { .. } => Some(Kind::Blackhole),
        EventKind::Loop { .. } => Some(Kind::Loop),
        EventKind::WrongForwarding { .. } => Some(Kind::WrongForwarding),
        _ => None,
    }
}

/// Whether an event says what a fault is, or does: packets that are sent back go around, and those that
/// a wrong switch drops end there.
fn names(event: &Event, fault: &Met) -> bool {
    let wrong = fault.kind == Kind::WrongForwarding;
    match &event.kind {
        EventKind::Blackhole { switch, next } if fault.kind == Kind::Blackhole => {
            fault.switches[0] == *switch || next.contains(&fault.switches[0])
        }
        EventKind::Blackhole { switch, .. } => wrong && fault.switches.contains(switch),
        EventKind::Loop { switches } if fault.kind == Kind::Loop || wrong => {
            let of_loop: HashSet<&String> = fault.switches.iter().collect();
            switches.iter().all(|switch| of_loop.contains(switch))
        }
        EventKind::WrongForwarding { at, to } => {
            wrong && fault.switches == [at.clone(), to.clone()]
        }
        _ => false,
    }
}

fn planted(topology: &Topology, seed: u64) -> Vec<Fault> {
    let faults = Fault::random(topology, 3, 0.15, seed);
    faults
        .into_iter()
        .map(|fault| Fault {
            epochs: Some(ONSET..=u64::MAX >> 1),
            ..fault
        })
        .collect()
}

#[test]
fn faults_are_found_where_they_are() {
    let topology = fat_tree(4);
    let kinds = [Kind::Blackhole, Kind::Loop, Kind::WrongForwarding];
    let mut visible = [Score::default(), Score::default(), Score::default()];
    let mut all = visible.clone();
    for seed in 0..NETWORKS {
        let simulation = build(planted(&topology, seed), seed);
        let met = met(&simulation);
        let findings = analyse(&simulation, 1.4, AnalysisOptions::default());
        for (place, &kind) in kinds.iter().enumerate() {
            let events: Vec<&Event> = findings
                .events
                .iter()
                .filter(|event| kind_of(event) == Some(kind))
                .collect();
            let mut score = Score {
                said: events.len() as u64,
                ..Score::default()
            };
            for event in &events {
                let right = met.iter().any(|fault| names(event, fault));
                score.right += u64::from(right);
            }
            all[place].add(&score);
            visible[place].add(&score);
            for fault in met.iter().filter(|fault| fault.kind == kind) {
                let event = findings.events.iter().find(|event| names(event, fault));
                let mut score = Score {
                    there: 1,
                    found: u64::from(event.is_some()),
                    ..Score::default()
                };
                score
                    .delays
                    .extend(event.map(|event| event.detected_epoch.saturating_sub(fault.onset)));
                all[place].add(&score);
                if fault.visible {
                    visible[place].add(&score);
                }
            }
        }
    }
    let mut table = Table::default();
    for (name, place) in [("blackholes", 0), ("loops", 1), ("wrong forwarding", 2)] {
        table.push(format!("{name}, all"), all[place].clone());
        table.push(format!("{name} that leave a trace"), visible[place].clone());
    }
    insta::assert_snapshot!("faults", table.text());
}
