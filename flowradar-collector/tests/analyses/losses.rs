//! Losses of flows, with all that makes them look otherwise.

use std::collections::{HashMap, HashSet};

use flowradar_collector::analysis::{AnalysisOptions, FiveTuple, LossOptions};
use flowradar_sim::{ClockSkew, Faults, Happening, InFlight, LossyLink, Node, Simulation, Truth};

use crate::score::{Score, Table};
use crate::{Findings, analyse, fat_tree};

const EPOCHS: u64 = 8;

struct Case {
    name: &'static str,
    faults: Faults,
    cells_per_flow: f64,
    persistence: f64,
    /// Losses said to be where there are none, at most.
    wrong_most: u64,
}

fn cases() -> Vec<Case> {
    let lossy = Faults {
        lossy_flows: 0.02,
        ..Faults::default()
    };
    let in_flight = InFlight {
        flows: 0.05,
        packets_max: 3,
    };
    let case = |name, faults, cells_per_flow, persistence| Case {
        name,
        faults,
        cells_per_flow,
        persistence,
        wrong_most: 8,
    };
    let skewed = Faults {
        clock_skew: ClockSkew::Random { offset_max: 0.02 },
        ..lossy.clone()
    };
    vec![
        case("2 % lossy flows", lossy.clone(), 1.4, 0.5),
        case("the same in half the memory", lossy.clone(), 0.75, 0.5),
        case(
            "no losses, 5 % of flows with packets in flight",
            Faults {
                in_flight,
                ..Faults::default()
            },
            1.4,
            0.5,
        ),
        case(
            "2 % lossy, 5 % with packets in flight, new flows each epoch",
            Faults {
                in_flight,
                ..lossy.clone()
            },
            1.4,
            0.0,
        ),
        case(
            "2 % lossy, 5 % with packets in flight, half go on",
            Faults {
                in_flight,
                ..lossy.clone()
            },
            1.4,
            0.5,
        ),
        case(
            "2 % lossy, 5 % of reports missing",
            Faults {
                silent_fraction: 0.05,
                ..lossy
            },
            1.4,
            0.5,
        ),
        Case {
            wrong_most: u64::MAX,
            ..case("2 % lossy, clocks within 2 % of an epoch", skewed, 1.4, 0.0)
        },
    ]
}

fn run(case: &Case) -> (Simulation, Findings) {
    let simulation = Simulation::builder(fat_tree(4))
        .flows_per_switch(250)
        .epochs(EPOCHS)
        .persistence(case.persistence)
        .faults(case.faults.clone())
        .seed(11)
        .build()
        .expect("the settings are fine");
    let options = AnalysisOptions {
        loss: LossOptions {
            flows_listed_max: usize::MAX,
            ..LossOptions::default()
        },
        ..AnalysisOptions::default()
    };
    let findings = analyse(&simulation, case.cells_per_flow, options);
    (simulation, findings)
}

/// A loss: which flow, behind which switch, in which epoch.
type Place = (FiveTuple, String, u64);

fn really_lost(simulation: &Simulation) -> HashMap<Place, (String, u64)> {
    let topology = simulation.topology();
    let mut lost: HashMap<Place, (String, u64)> = HashMap::new();
    for event in Truth::of(simulation).events() {
        let (Happening::LostOfFlow { link } | Happening::LostOnLink { link }) = event.what else {
            continue;
        };
        let (Node::Switch(from), Node::Switch(to)) = topology.ends(link) else {
            continue;
        };
        let Ok(epoch) = u64::try_from(event.sent_epoch) else {
            continue;
        };
        let flow = FiveTuple::from(&simulation.key(event.flow));
        let place = (flow, topology.name(from).to_owned(), epoch);
        let entry = lost
            .entry(place)
            .or_insert_with(|| (topology.name(to).to_owned(), 0));
        entry.1 += event.packets;
    }
    lost
}

/// Of the epochs that could be settled.
fn score(simulation: &Simulation, findings: &Findings) -> Score {
    let lost = really_lost(simulation);
    let settled: HashSet<u64> = findings
        .epochs
        .iter()
        .filter_map(|findings| Some(findings.losses.as_ref()?.epoch))
        .collect();
    let mut score = Score {
        there: lost
            .keys()
            .filter(|(_, _, epoch)| settled.contains(epoch))
            .count() as u64,
        ..Score::default()
    };
    let mut found: HashSet<Place> = HashSet::new();
    for map in findings
        .epochs
        .iter()
        .filter_map(|findings| findings.losses.as_ref())
    {
        assert_eq!(map.flows.len() as u64, map.lossy_flows, "all are listed");
        for loss in &map.flows {
            score.said += 1;
            // Packets that were in flight are counted an epoch later than they were sent, and the
            // judgement may be put off.
            let place = (map.epoch.saturating_sub(3)..=map.epoch)
                .rev()
                .map(|epoch| (loss.flow, loss.from.clone(), epoch))
                .find(|place| {
                    lost.get(place).is_some_and(|(to, packets)| {
                        loss.to.as_ref().is_none_or(|said| said == to) && loss.lost <= *packets
                    })
                });
            if let Some(place) = place {
                score.right += 1;
                if settled.contains(&place.2) && found.insert(place) {
                    score.found += 1;
                }
            }
        }
    }
    score
}

#[test]
fn losses_are_found_and_told_from_packets_in_flight() {
    let mut table = Table::default();
    for case in cases() {
        let (simulation, findings) = run(&case);
        let score = score(&simulation, &findings);
        assert!(
            score.said - score.right <= case.wrong_most,
            "{}: {score:?}",
            case.name
        );
        table.push(case.name, score);
    }
    insta::assert_snapshot!("losses_of_flows", table.text());
}

/// Which links lose packets, and how many, within what random loss makes of it.
#[test]
fn lossy_links_are_events() {
    let topology = fat_tree(4);
    let link = |from: &str, to: &str, fraction| LossyLink {
        from: topology.switch(from).expect("a fat tree has it").into(),
        to: topology.switch(to).expect("a fat tree has it").into(),
        fraction,
    };
    let mut table = Table::default();
    for fraction in [0.001, 0.005, 0.02, 0.1] {
        let links = [
            link("agg-0-0", "core-1", fraction),
            link("core-2", "agg-1-1", fraction),
            link("edge-3-0", "agg-3-1", fraction),
        ];
        let simulation = Simulation::builder(topology.clone())
            .flows_per_switch(250)
            .epochs(EPOCHS)
            .faults(Faults {
                lossy_links: links.into(),
                in_flight: InFlight {
                    flows: 0.02,
                    packets_max: 2,
                },
                ..Faults::default()
            })
            .seed(5)
            .build()
            .expect("the settings are fine");
        let findings = analyse(&simulation, 1.4, AnalysisOptions::default());
        let first_loss = |planted: &LossyLink| {
            let lost = Truth::of(&simulation);
            let link = topology
                .link_between(planted.from, planted.to)
                .expect("joined");
            let mut events = lost.events().iter();
            let first = events.find(|event| {
                event.what == Happening::LostOnLink { link } && event.sent_epoch >= 0
            });
            first.map(|event| event.sent_epoch as u64)
        };
        let name_of = |planted: &LossyLink| {
            let name = |node| topology.name(node).to_owned();
            (name(planted.from), name(planted.to))
        };
        let mut score = Score::default();
        for planted in &links {
            let Some(onset) = first_loss(planted) else {
                continue;
            };
            score.there += 1;
            let events = findings.events.iter();
            let mut of_link = events.filter(|event| {
                is_of_link(&event.kind, &name_of(planted)) && event.last_epoch >= onset
            });
            if let Some(event) = of_link.next() {
                score.found += 1;
                score
                    .delays
                    .push(event.detected_epoch.saturating_sub(onset));
            }
        }
        for event in &findings.events {
            score.said += 1;
            let right = links
                .iter()
                .any(|planted| is_of_link(&event.kind, &name_of(planted)));
            score.right += u64::from(right);
        }
        table.push(format!("{} % loss on three links", fraction * 100.0), score);
    }
    insta::assert_snapshot!("lossy_links", table.text());
}

/// Whether an event blames a link, or what is behind the switch before it.
fn is_of_link(
    kind: &flowradar_collector::analysis::EventKind,
    (from, to): &(String, String),
) -> bool {
    use flowradar_collector::analysis::EventKind;
    match kind {
        EventKind::LinkLoss { from: a, to: b } => a == from && b == to,
        EventKind::LossBehind { switch, next } => switch == from && next.contains(to),
        _ => false,
    }
}
