//! Templates and options over a restart: what one engine lays down, the next takes up.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use flowradar_balancer::Timestamp;
use flowradar_balancer::engine::{
    AssignmentUnit, Domains, Engine, EnginePlan, SavedRecord, SavedStream, StateKeeper,
};
use support::{Collector, Datagram, Sent, all_captures, plan, with_templates_first};

const NOW_UNIX_SECONDS: u64 = 1_700_000_000;
const HOUR: Duration = Duration::from_secs(3600);

fn engine(plan: EnginePlan, keeper: &StateKeeper, domains: &Domains) -> Engine {
    let mut engine = Engine::with_domains(plan, domains.clone(), Timestamp::ZERO);
    engine.use_keeper(keeper);
    engine
}

/// Asks an engine for what it knows.
fn saved(engine: &mut Engine, keeper: &StateKeeper) -> Vec<SavedStream> {
    let request = keeper.request(NOW_UNIX_SECONDS, false);
    assert!(!keeper.is_answered(request));
    engine.tick(Timestamp::from_millis(1000), &mut Sent::default());
    assert!(keeper.is_answered(request));
    keeper.take()
}

fn remembering(streams: Vec<SavedStream>) -> (StateKeeper, Domains) {
    let (keeper, domains) = (StateKeeper::default(), Domains::default());
    keeper.remember(streams, &domains, NOW_UNIX_SECONDS, HOUR);
    (keeper, domains)
}

fn handle(engine: &mut Engine, datagrams: &[Datagram]) -> Sent {
    let mut sent = Sent::default();
    for (source, bytes) in datagrams {
        engine.handle(bytes, *source, Timestamp::from_millis(500), &mut sent);
    }
    sent
}

/// IPFIX: one template (256: source address and packets), or a data set of it.
fn message(sequence: u32, domain: u32, set: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 10];
    bytes.extend((16 + set.len() as u16).to_be_bytes());
    bytes.extend(1_700_000_000_u32.to_be_bytes());
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(domain.to_be_bytes());
    bytes.extend(set);
    bytes
}

const TEMPLATE: [u8; 12] = [1, 0, 0, 2, 0, 8, 0, 4, 0, 2, 0, 4];

fn template(sequence: u32, domain: u32) -> Vec<u8> {
    message(sequence, domain, &[&[0, 2, 0, 16], &TEMPLATE[..]].concat())
}

fn data(sequence: u32, domain: u32) -> Vec<u8> {
    message(sequence, domain, &[1, 0, 0, 12, 10, 0, 0, 1, 0, 0, 0, 9])
}

fn exporter(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 4739))
}

/// Real exports, interrupted in the middle: collectors that see only what comes after can decode all of
/// it, whatever the unit.
#[test]
fn a_restarted_balancer_needs_no_new_templates() {
    let captures = all_captures("a_restarted_balancer_needs_no_new_templates");
    let (all, mut checked) = (captures.len(), 0);
    for (name, datagrams) in captures {
        let datagrams = with_templates_first(&datagrams);
        let (before, after) = datagrams.split_at(datagrams.len() / 2);
        let mut reference = Collector::default();
        for (source, bytes) in before {
            reference.take(*source, bytes);
        }
        let (missing, known) = (reference.missing_templates, reference.records.clone());
        for (source, bytes) in after {
            reference.take(*source, bytes);
        }
        if reference.missing_templates > missing {
            // This capture's exporter sends data whose templates never come.
            continue;
        }
        for (record, count) in known {
            let left = reference.records.get_mut(&record).expect("it stays");
            *left -= count;
        }
        reference.records.retain(|_, count| *count > 0);
        for unit in [
            AssignmentUnit::Stream,
            AssignmentUnit::Message,
            AssignmentUnit::Record,
        ] {
            let (keeper, domains) = (StateKeeper::default(), Domains::default());
            let mut first = engine(plan(2, unit), &keeper, &domains);
            handle(&mut first, before);
            let streams = saved(&mut first, &keeper);
            let (keeper, domains) = remembering(streams);
            let mut second = engine(plan(2, unit), &keeper, &domains);
            let sent = handle(&mut second, after);
            if second.counters().outdated_saved_streams > 0 {
                // Put together from several captures: sequence numbers go backwards.
                continue;
            }
            checked += 1;
            assert_eq!(second.counters().waited, 0, "{name} {unit:?}");
            let mut union = std::collections::BTreeMap::new();
            for id in 0..2 {
                let mut collector = Collector::default();
                for (to, source, bytes) in &sent.datagrams {
                    if to.0 == id {
                        collector.take(*source, bytes);
                    }
                }
                assert_eq!(collector.missing_templates, 0, "{name} {unit:?}");
                for (record, count) in collector.records {
                    *union.entry(record).or_insert(0) += count;
                }
            }
            assert!(union == reference.records, "{name} {unit:?}");
        }
    }
    assert!(
        checked >= 2 * all,
        "{checked} of {all} captures by three units"
    );
}

#[test]
fn an_exporter_that_began_anew_is_not_read_with_old_templates() {
    let (keeper, domains) = (StateKeeper::default(), Domains::default());
    let mut first = engine(plan(2, AssignmentUnit::Record), &keeper, &domains);
    handle(
        &mut first,
        &[
            (exporter(1), template(5000, 0)),
            (exporter(1), data(5000, 0)),
        ],
    );
    let streams = saved(&mut first, &keeper);
    assert_eq!(streams.len(), 1);
    assert_eq!(streams[0].next_sequence, Some(5001));
    assert_eq!(
        streams[0].records,
        [SavedRecord::Template(TEMPLATE.to_vec())]
    );
    for (sequence, is_taken) in [(5001, true), (6000, true), (3, false)] {
        let (keeper, domains) = remembering(streams.clone());
        let mut second = engine(plan(2, AssignmentUnit::Record), &keeper, &domains);
        handle(&mut second, &[(exporter(1), data(sequence, 0))]);
        let counters = second.counters();
        assert_eq!(counters.restored_streams, u64::from(is_taken), "{sequence}");
        assert_eq!(counters.outdated_saved_streams, u64::from(!is_taken));
        assert_eq!(counters.waited, u64::from(!is_taken));
        assert_eq!(counters.records, u64::from(is_taken));
    }
}

/// Exporters behind one address keep the domains that collectors know them by, whoever comes first.
#[test]
fn substitute_domains_stay_what_they_were() {
    let plan = || EnginePlan {
        keeps_source: vec![],
        ..plan(1, AssignmentUnit::Stream)
    };
    let domains_seen = |sent: &Sent| -> Vec<(SocketAddr, u32)> {
        let datagrams = sent.datagrams.iter();
        let mut seen: Vec<_> = datagrams
            .map(|(_, source, bytes)| {
                let domain = bytes[12..16].try_into().expect("four bytes");
                (*source, u32::from_be_bytes(domain))
            })
            .collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    };
    let (keeper, domains) = (StateKeeper::default(), Domains::default());
    let mut first = engine(plan(), &keeper, &domains);
    let exporters: Vec<SocketAddr> = (1..=5).map(exporter).collect();
    let begin: Vec<Datagram> = exporters
        .iter()
        .map(|exporter| (*exporter, template(10, 7)))
        .collect();
    let before = domains_seen(&handle(&mut first, &begin));
    assert_eq!(before.len(), 5);
    assert_eq!(before[0], (exporter(1), 7), "the first keeps its own");
    let (keeper, domains) = remembering(saved(&mut first, &keeper));
    let mut second = engine(plan(), &keeper, &domains);
    let again: Vec<Datagram> = exporters
        .iter()
        .rev()
        // One that was not there before wants the same domain.
        .chain([&exporter(9)])
        .map(|exporter| (*exporter, data(10, 7)))
        .collect();
    let mut after = domains_seen(&handle(&mut second, &again));
    let newcomer = after.pop().expect("it is the last");
    assert_eq!(after, before);
    assert!(before.iter().all(|(_, domain)| *domain != newcomer.1));
}

#[test]
fn what_is_too_old_is_forgotten_and_what_is_silent_is_kept() {
    let (keeper, domains) = (StateKeeper::default(), Domains::default());
    let mut first = engine(plan(1, AssignmentUnit::Record), &keeper, &domains);
    handle(
        &mut first,
        &[
            (exporter(1), template(10, 0)),
            (exporter(2), template(10, 0)),
        ],
    );
    let streams = saved(&mut first, &keeper);
    let (keeper, domains) = (StateKeeper::default(), Domains::default());
    let later = NOW_UNIX_SECONDS + 3601;
    assert_eq!(keeper.remember(streams.clone(), &domains, later, HOUR), 0);
    // A second restart before a stream has sent again loses nothing.
    let (keeper, domains) = remembering(streams.clone());
    let mut second = engine(plan(1, AssignmentUnit::Record), &keeper, &domains);
    handle(&mut second, &[(exporter(2), data(10, 0))]);
    let again = saved(&mut second, &keeper);
    assert_eq!(again.len(), 2);
    assert_eq!(again[0], streams[0]);
    assert_eq!(again[1].records, streams[1].records);
    keeper.forget(&domains, later, HOUR);
    assert_eq!(saved(&mut second, &keeper).len(), 1);
}

/// The file is an outside thing: what is in it is checked as if it came in messages.
#[test]
fn what_is_no_template_is_refused_and_counted() {
    let (keeper, domains) = (StateKeeper::default(), Domains::default());
    let mut first = engine(plan(1, AssignmentUnit::Record), &keeper, &domains);
    handle(&mut first, &[(exporter(1), template(10, 0))]);
    let mut streams = saved(&mut first, &keeper);
    let good = streams[0].records[0].clone();
    streams[0].records = vec![
        SavedRecord::Template(vec![]),
        SavedRecord::Template(vec![1, 0, 0, 9, 0, 8, 0, 4]),
        // Records of no bytes.
        SavedRecord::Template(vec![1, 1, 0, 1, 0, 8, 0, 0]),
        // A withdrawal, and two templates in one.
        SavedRecord::Template(vec![1, 0, 0, 0]),
        SavedRecord::Template([TEMPLATE, TEMPLATE].concat()),
        SavedRecord::OptionsTemplate(TEMPLATE.to_vec()),
        SavedRecord::Options(256, vec![1; 8]),
        good,
        // The template is not one of options.
        SavedRecord::Options(256, vec![1; 8]),
    ];
    let (keeper, domains) = remembering(streams);
    let mut second = engine(plan(1, AssignmentUnit::Record), &keeper, &domains);
    handle(&mut second, &[(exporter(1), data(10, 0))]);
    assert_eq!(second.counters().state_refused, 8);
    assert_eq!(second.counters().records, 1);
}
