//! Bad input, changing templates, failures: made by hand, against a collector of the tests' own.

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use flowradar_balancer::Timestamp;
use flowradar_balancer::engine::{AssignmentUnit, Engine, EnginePlan};
use flowradar_balancer::policy::{Availability, BackEndId};
use flowradar_balancer::wire::sets::{SetKind, Sets};
use flowradar_balancer::wire::template::{Template, TemplateAction, TemplateRecords};
use flowradar_balancer::wire::{Header, Protocol, WireReason};
use support::{Collector, Counted, Sent, all_captures, plan};

fn source(number: u32) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number)), 4242)
}

/// A NetFlow v9 message of one set.
fn v9(sequence: u32, set_id: u16, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0, 9, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend(sequence.to_be_bytes());
    message.extend([0, 0, 0, 7]);
    message.extend(set_id.to_be_bytes());
    message.extend((4 + body.len() as u16).to_be_bytes());
    message.extend(body);
    message
}

/// A template with these fields of (element, length).
fn template(sequence: u32, id: u16, fields: &[(u16, u16)]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.extend((fields.len() as u16).to_be_bytes());
    for (element, length) in fields {
        body.extend(element.to_be_bytes());
        body.extend(length.to_be_bytes());
    }
    v9(sequence, 0, &body)
}

const FIELDS: [(u16, u16); 3] = [(8, 4), (12, 4), (1, 4)];

/// Two records of [`FIELDS`].
fn data(sequence: u32, flow: u8) -> Vec<u8> {
    let record = |last| [10, 0, 0, flow, 10, 1, 0, last, 0, 0, 0, 100];
    v9(sequence, 256, &[record(1), record(2)].concat())
}

fn ms(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn collectors(sent: &Sent) -> Vec<Collector> {
    let mut collectors: Vec<Collector> = (0..5).map(|_| Collector::default()).collect();
    for (to, source, bytes) in &sent.datagrams {
        collectors[usize::from(to.0)].take(*source, bytes);
    }
    collectors
}

fn records(collectors: &[Collector]) -> usize {
    collectors.iter().map(Collector::record_count).sum()
}

#[test]
fn what_is_broken_is_named_with_its_place() {
    let ipfix =
        |length: u16, rest: &[u8]| [&[0, 10][..], &length.to_be_bytes(), &[0; 12], rest].concat();
    let header_errors = [
        (vec![], 0, WireReason::Truncated),
        (vec![0, 7, 0, 0], 0, WireReason::UnknownVersion),
        (vec![0, 9, 0, 0], 12, WireReason::Truncated),
        (ipfix(15, &[]), 2, WireReason::MessageLength),
        (ipfix(40, &[]), 2, WireReason::MessageLength),
        (
            [vec![0, 5, 0, 2], vec![0; 68]].concat(),
            2,
            WireReason::RecordCount,
        ),
        (
            [vec![0, 0, 0, 5, 0, 0, 0, 3], vec![0; 40]].concat(),
            4,
            WireReason::AddressType,
        ),
    ];
    for (bytes, offset, reason) in header_errors {
        let error = Header::read(&bytes).expect_err("it is broken");
        assert_eq!((error.offset, error.reason), (offset, reason), "{bytes:?}");
    }
    let set_errors = [
        (vec![1, 0, 0, 3], 18, WireReason::SetLength),
        (vec![1, 0, 0, 0], 18, WireReason::SetLength),
        (vec![1, 0, 0, 9, 0], 18, WireReason::SetBeyondMessage),
        (vec![0, 200, 0, 4], 16, WireReason::ReservedSetId),
    ];
    for (sets, offset, reason) in set_errors {
        let message = ipfix(16 + sets.len() as u16, &sets);
        let header = Header::read(&message).expect("a header");
        let all: Vec<_> = Sets::new(&message, &header).collect();
        let error = all
            .last()
            .copied()
            .expect("an error")
            .expect_err("it is broken");
        assert_eq!((error.offset, error.reason), (offset, reason), "{sets:?}");
    }
    let template_errors = [
        (
            SetKind::Templates,
            vec![0, 9, 0, 1, 0, 8, 0, 4],
            WireReason::TemplateId,
        ),
        (
            SetKind::Templates,
            vec![1, 0, 0, 2, 0, 8, 0, 4],
            WireReason::TemplateBeyondSet,
        ),
        (
            SetKind::OptionsTemplates,
            vec![1, 0, 0, 1, 0, 0, 0, 8, 0, 4],
            WireReason::Scope,
        ),
        (
            SetKind::OptionsTemplates,
            vec![1, 0, 0, 1, 0, 2, 0, 8, 0, 4],
            WireReason::Scope,
        ),
    ];
    for (kind, body, reason) in template_errors {
        let mut walked = TemplateRecords::new(Protocol::Ipfix, kind, &body, 20);
        let error = walked.next().expect("an error").expect_err("it is broken");
        assert_eq!(error.reason, reason, "{body:?}");
        assert!(walked.next().is_none());
    }
    // Records without bytes would go on for ever.
    let body = [1, 0, 0, 1, 0, 8, 0, 0];
    let Some(Ok(TemplateAction::Define(record))) =
        TemplateRecords::new(Protocol::Ipfix, SetKind::Templates, &body, 20).next()
    else {
        panic!("a template");
    };
    assert_eq!(
        Template::new(&record).expect_err("it is empty").reason,
        WireReason::EmptyRecord
    );
}

/// Captures cut off at every length and with every byte of their start changed: no panic, and an
/// exporter beside them is served as before.
#[test]
fn damage_is_counted_and_hurts_nobody_else() {
    for (name, datagrams) in all_captures("damage_is_counted_and_hurts_nobody_else") {
        for unit in [
            AssignmentUnit::Stream,
            AssignmentUnit::Message,
            AssignmentUnit::Record,
        ] {
            let mut engine = Engine::new(plan(3, unit), Timestamp::ZERO);
            let mut ignored = Counted::default();
            let mut sent = Sent::default();
            let good = source(99);
            engine.handle(&template(0, 256, &FIELDS), good, Timestamp::ZERO, &mut sent);
            let mut good_messages = 0;
            for (index, (source, bytes)) in datagrams.iter().take(12).enumerate() {
                let mut damaged: Vec<Vec<u8>> = (0..bytes.len())
                    .step_by(3)
                    .map(|length| bytes[..length].to_vec())
                    .collect();
                for place in 0..bytes.len().min(96) {
                    for value in [0, 1, 0x7f, 0xff] {
                        let mut copy = bytes.clone();
                        copy[place] = value;
                        damaged.push(copy);
                    }
                }
                for bytes in damaged {
                    engine.handle(&bytes, *source, ms(index as u64), &mut ignored);
                }
                good_messages += 1;
                engine.handle(&data(good_messages, 1), good, ms(index as u64), &mut sent);
            }
            let counters = engine.counters();
            assert!(counters.bad_headers > 0, "{name}");
            assert_eq!(
                counters.bad_headers + counters.bad_bodies,
                counters.errors.values().sum::<u64>(),
                "{name}"
            );
            let collectors = collectors(&sent);
            assert_eq!(
                records(&collectors),
                2 * good_messages as usize,
                "{name} by {unit:?}"
            );
            assert!(
                collectors
                    .iter()
                    .all(|collector| collector.sequence_failures == 0)
            );
        }
    }
}

/// A million forged sources: memory stays bounded, and who was there before loses nothing.
#[test]
fn a_flood_of_forged_sources_pushes_out_itself() {
    let mut plan = plan(3, AssignmentUnit::Message);
    plan.limits.exporters = 1000;
    plan.limits.streams = 2000;
    plan.limits.state_bytes = 1 << 20;
    plan.waiting.bytes = 1 << 20;
    let mut engine = Engine::new(plan, Timestamp::ZERO);
    let mut sent = Sent::default();
    let mut ignored = Counted::default();
    let good: Vec<SocketAddr> = (0..50).map(source).collect();
    let mut sequence = 0;
    for (index, exporter) in good.iter().enumerate() {
        engine.handle(
            &template(0, 256, &FIELDS),
            *exporter,
            Timestamp::ZERO,
            &mut sent,
        );
        for number in 1..5 {
            engine.handle(
                &data(number, index as u8),
                *exporter,
                Timestamp::ZERO,
                &mut sent,
            );
        }
        sequence = 5;
    }
    let known_to_all = engine.counters().clone();
    let forged_template = template(0, 256, &FIELDS);
    let forged_data = v9(1, 300, &[0; 1000]);
    for number in 0..1_000_000_u32 {
        let forged = source(1_000_000 + number);
        let bytes = if number % 2 == 0 {
            &forged_template
        } else {
            &forged_data
        };
        engine.handle(bytes, forged, ms(u64::from(number) / 1000), &mut ignored);
        if number % 100_000 == 0 {
            for (index, exporter) in good.iter().enumerate() {
                engine.handle(
                    &data(sequence, index as u8),
                    *exporter,
                    ms(u64::from(number) / 1000),
                    &mut sent,
                );
            }
            sequence += 1;
            assert!(engine.memory_bytes() <= 2 << 20);
            let (exporters, streams) = engine.known();
            assert!(exporters <= 1000 && streams <= 2000);
        }
    }
    let collectors = collectors(&sent);
    assert_eq!(records(&collectors), 50 * 2 * (sequence as usize - 1));
    assert_eq!(
        engine.counters().templates_learned,
        known_to_all.templates_learned + 500_000
    );
    assert!(engine.counters().evicted_exporters > 990_000);
    for collector in &collectors {
        assert_eq!(
            (collector.sequence_failures, collector.missing_templates),
            (0, 0)
        );
    }
}

/// Two exporters with one template id and different fields, behind one address of the balancer:
/// their observation domains differ for the collector, and are put back by nobody.
#[test]
fn equal_template_ids_of_two_exporters_do_not_mix() {
    for unit in [
        AssignmentUnit::Stream,
        AssignmentUnit::Message,
        AssignmentUnit::Record,
    ] {
        let mut plan = plan(2, unit);
        plan.keeps_source.clear();
        let mut engine = Engine::new(plan, Timestamp::ZERO);
        let mut sent = Sent::default();
        let other = [(27, 16), (28, 16), (1, 4)];
        engine.handle(&template(0, 256, &FIELDS), source(1), ms(0), &mut sent);
        engine.handle(&template(0, 256, &other), source(2), ms(0), &mut sent);
        for sequence in 1..9 {
            engine.handle(&data(sequence, sequence as u8), source(1), ms(1), &mut sent);
            engine.handle(
                &v9(sequence, 256, &[sequence as u8; 72]),
                source(2),
                ms(1),
                &mut sent,
            );
        }
        // One address for all.
        for (_, source, _) in &mut sent.datagrams {
            *source = "192.0.2.250:1".parse().expect("a socket");
        }
        let collectors = collectors(&sent);
        assert_eq!(records(&collectors), 8 * 2 + 8 * 2, "{unit:?}");
        for collector in &collectors {
            assert_eq!(
                (collector.sequence_failures, collector.missing_templates),
                (0, 0),
                "{unit:?}"
            );
            for (_, _, domain, fields, record) in collector.records.keys() {
                let expected = if record.len() == 12 { 7 } else { *domain };
                assert!(
                    *domain == expected && (record.len() == 36) == (*domain != 7),
                    "{domain} {fields:?}"
                );
            }
        }
    }
}

/// A template changes in mid-stream: what was cut by the old one and what is cut by the new arrive at
/// collectors that know which is which.
#[test]
fn templates_may_change() {
    for unit in [
        AssignmentUnit::Stream,
        AssignmentUnit::Message,
        AssignmentUnit::Record,
    ] {
        let mut engine = Engine::new(plan(3, unit), Timestamp::ZERO);
        let (mut sent, mut direct) = (Sent::default(), Collector::default());
        let mut sequence = 0;
        for round in 0..20_u16 {
            let fields: &[(u16, u16)] = if round % 2 == 0 {
                &FIELDS
            } else {
                &[(8, 4), (12, 4), (2, 4), (7, 2), (11, 2), (4, 1), (5, 3)]
            };
            let mut messages = vec![template(sequence, 256, fields)];
            for number in 0..10_u8 {
                messages.push(v9(sequence + 1 + u32::from(number), 256, &[number; 60]));
            }
            sequence += 11;
            for message in messages {
                direct.take(source(1), &message);
                engine.handle(&message, source(1), ms(u64::from(round)), &mut sent);
            }
        }
        let collectors = collectors(&sent);
        let mut union = std::collections::BTreeMap::new();
        for collector in &collectors {
            assert_eq!(
                (collector.sequence_failures, collector.missing_templates),
                (0, 0),
                "{unit:?}"
            );
            for (record, count) in &collector.records {
                *union.entry(record.clone()).or_default() += count;
            }
        }
        assert!(union == direct.records, "{unit:?}");
    }
}

/// Found by fuzzing: data too short for a record of its template, and behind it in the same message a
/// template under the same id that would find records in it.
#[test]
fn a_template_does_not_cut_data_that_came_before_it() {
    let mut engine = Engine::new(plan(3, AssignmentUnit::Record), ms(0));
    let mut sent = Sent::default();
    let long = [(8, 4), (12, 4), (1, 4), (56, 6), (80, 6)];
    engine.handle(&template(1, 256, &long), source(1), ms(0), &mut sent);
    let mut both = v9(2, 256, &[10, 0, 0, 1, 10, 1, 0, 2, 0, 0, 0, 100]);
    both.extend(&template(2, 256, &FIELDS)[20..]);
    sent.datagrams.clear();
    engine.handle(&both, source(1), ms(1), &mut sent);
    assert_eq!(engine.counters().records, 0);
    let mut collectors = collectors(&sent);
    assert_eq!(records(&collectors), 0, "nobody was sent a record");
    // All know the new template, and what comes now is cut by it.
    sent.datagrams.clear();
    engine.handle(&data(3, 1), source(1), ms(2), &mut sent);
    for (to, source, bytes) in &sent.datagrams {
        collectors[usize::from(to.0)].take(*source, bytes);
    }
    assert_eq!(engine.counters().records, 2);
    assert_eq!(records(&collectors), 2);
}

#[test]
fn data_waits_for_its_template_and_not_for_ever() {
    let mut engine = Engine::new(plan(3, AssignmentUnit::Record), Timestamp::ZERO);
    let mut sent = Sent::default();
    for sequence in 0..5 {
        engine.handle(&data(sequence, 1), source(1), ms(0), &mut sent);
    }
    engine.tick(ms(59_000), &mut sent);
    assert!(sent.datagrams.is_empty());
    engine.handle(&template(5, 256, &FIELDS), source(1), ms(59_500), &mut sent);
    assert_eq!(records(&collectors(&sent)), 10);
    assert_eq!(
        (engine.counters().waited, engine.counters().waited_released),
        (5, 5)
    );
    assert!(engine.memory_bytes() < 1000);
    // One whose template never comes.
    engine.handle(&v9(6, 999, &[0; 40]), source(1), ms(60_000), &mut sent);
    engine.tick(ms(200_000), &mut sent);
    assert_eq!(engine.counters().sent_without_template, 1);
    let missing: usize = collectors(&sent)
        .iter()
        .map(|collector| collector.missing_templates)
        .sum();
    assert_eq!(missing, 1);
}

/// Without replay what a dead collector was sent is gone; with it, it arrives elsewhere, once more.
#[test]
fn replay_sends_again_what_the_dead_was_sent() {
    for unit in [
        AssignmentUnit::Exporter,
        AssignmentUnit::Message,
        AssignmentUnit::Record,
    ] {
        for replay_ms in [0, 1000] {
            let plan = EnginePlan {
                replay: Duration::from_millis(replay_ms),
                ..plan(3, unit)
            };
            let mut engine = Engine::new(plan, Timestamp::ZERO);
            let mut sent = Sent::default();
            for exporter in 0..20 {
                engine.handle(
                    &template(0, 256, &FIELDS),
                    source(exporter),
                    ms(0),
                    &mut sent,
                );
                for sequence in 1..10 {
                    let message = data(sequence, (exporter * 10 + sequence) as u8);
                    engine.handle(
                        &message,
                        source(exporter),
                        ms(u64::from(sequence)),
                        &mut sent,
                    );
                }
            }
            engine.set_availability(BackEndId(1), Availability::Down, ms(500), &mut sent);
            sent.datagrams.retain(|(to, _, _)| *to != BackEndId(1));
            let collectors = collectors(&sent);
            let expected = 20 * 9 * 2;
            if replay_ms == 0 {
                assert!(records(&collectors) < expected, "{unit:?}");
            } else {
                assert_eq!(records(&collectors), expected, "{unit:?}");
            }
            for collector in &collectors {
                assert_eq!(
                    (collector.sequence_failures, collector.missing_templates),
                    (0, 0),
                    "{unit:?}"
                );
            }
        }
    }
}

/// An exporter that never repeats its templates: the balancer does.
#[test]
fn templates_are_repeated_for_exporters_that_do_not() {
    for unit in [AssignmentUnit::Stream, AssignmentUnit::Message] {
        let mut engine = Engine::new(plan(1, unit), Timestamp::ZERO);
        let mut sent = Sent::default();
        engine.handle(&template(0, 256, &FIELDS), source(1), ms(0), &mut sent);
        for sequence in 1..100 {
            engine.handle(
                &data(sequence, 1),
                source(1),
                ms(u64::from(sequence) * 60_000),
                &mut sent,
            );
        }
        // Every ten minutes of the 99.
        assert_eq!(engine.counters().catch_up_messages, 9, "{unit:?}");
        let collectors = collectors(&sent);
        assert_eq!(collectors[0].sequence_failures, 0, "{unit:?}");
        // A collector that has lost its memory gets them at once.
        engine.forget_memory(BackEndId(0));
        engine.handle(&data(100, 1), source(1), ms(100 * 60_000), &mut sent);
        assert_eq!(engine.counters().catch_up_messages, 10, "{unit:?}");
    }
}

#[test]
fn who_is_in_no_group_is_dropped_and_counted() {
    let mut plan = plan(1, AssignmentUnit::Stream);
    plan.routes[0].prefixes = vec!["192.0.2.0/24".parse().expect("a prefix")];
    let mut engine = Engine::new(plan, Timestamp::ZERO);
    let mut sent = Sent::default();
    engine.handle(&template(0, 256, &FIELDS), source(1), ms(0), &mut sent);
    assert!(sent.datagrams.is_empty());
    assert_eq!(engine.counters().unknown_exporters, 1);
    assert_eq!(engine.known(), (0, 0));
}
