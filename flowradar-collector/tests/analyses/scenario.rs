//! The network full of troubles: everything planted is found, and nothing else.

use flowradar_collector::analysis::{AnalysisOptions, EventKind, Severity};
use flowradar_sim::{Scenario, Trouble};

use crate::analyse;

#[test]
fn everything_planted_is_found() {
    let scenario = Scenario::troubled_fat_tree(250, 24, 1).expect("the settings are fine");
    let findings = analyse(&scenario.simulation, 1.4, AnalysisOptions::default());
    let topology = scenario.simulation.topology();
    let address = |host: flowradar_sim::HostId| topology.hosts()[host.index()].address;
    let is = |kind: &EventKind, trouble: &Trouble| match (kind, trouble) {
        (EventKind::Blackhole { switch, .. }, Trouble::Blackhole { at })
        | (EventKind::EcmpImbalance { switch, .. }, Trouble::EcmpImbalance { at }) => {
            switch == topology.name(*at)
        }
        (EventKind::LinkLoss { from, to }, Trouble::LossyLink { from: a, to: b, .. }) => {
            (from.as_str(), to.as_str()) == (topology.name(*a), topology.name(*b))
        }
        (EventKind::LossBehind { switch, .. }, Trouble::LossyLink { from, .. }) => {
            switch == topology.name(*from)
        }
        (EventKind::Loop { switches }, Trouble::Loop { switches: planted }) => {
            let mut names: Vec<_> = planted.iter().map(|&at| topology.name(at)).collect();
            names.sort_unstable();
            *switches == names
        }
        (EventKind::Scan { src, dst, .. }, Trouble::Scan { from, to }) => {
            *src == address(*from) && *dst == Some(address(*to).into())
        }
        (EventKind::SynFlood { dst, dst_port }, Trouble::SynFlood { to, dst_port: port }) => {
            *dst == address(*to) && dst_port == port
        }
        (
            EventKind::WrongForwarding { at, to },
            Trouble::WrongForwarding {
                at: from,
                to: wrong,
            },
        ) => (at.as_str(), to.as_str()) == (topology.name(*from), topology.name(*wrong)),
        _ => false,
    };
    let mut text = String::new();
    for planted in &scenario.planted {
        let event = findings
            .events
            .iter()
            .find(|event| is(&event.kind, &planted.trouble));
        text += &match event {
            Some(event) => format!(
                "planted {:?}; known from epoch {}: {}\n",
                planted.epochs, event.detected_epoch, event.kind
            ),
            None => format!(
                "planted {:?}, not found: {:?}\n",
                planted.epochs, planted.trouble
            ),
        };
        assert!(event.is_some(), "{text}{:#?}", findings.events);
    }
    let others = findings.events.iter().filter(|event| {
        event.severity > Severity::Info
            && !scenario
                .planted
                .iter()
                .any(|planted| is(&event.kind, &planted.trouble))
    });
    for other in others {
        text += &format!("not planted: {other}\n");
    }
    insta::assert_snapshot!("troubled_fat_tree", text);
}
