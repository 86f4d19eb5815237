use std::collections::HashMap as Map;

use proptest::prelude::*;

use super::*;
use crate::journal::Position;

const OPTIONS: GrouperOptions = GrouperOptions {
    deadline: Duration::from_millis(100),
    late: Duration::from_secs(5),
    expected: Duration::from_secs(1),
    groups_max: 100,
    decodes_max: 2,
    waiting_max: 4,
    overload: Overload::SingleDecode,
    apart_max: 50,
};

const SECOND_NS: u64 = 1_000_000_000;
/// When epoch 0 began; epochs are a second long.
const BEGIN_NS: u64 = 1_700_000_000 * SECOND_NS;

fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

/// The report of a switch and epoch, in a segment of its own for every ten epochs.
fn arrived(switch: &str, epoch: u64) -> Arrived {
    Arrived {
        position: Position {
            segment: 1 + epoch / 10,
            offset: epoch,
            bytes: 10,
        },
        switch: switch.into(),
        epoch,
        start_ns: BEGIN_NS + epoch * SECOND_NS,
        length_ns: SECOND_NS,
        key: 4,
        digest: epoch,
        received_ns: BEGIN_NS + (epoch + 1) * SECOND_NS,
        replayed: false,
    }
}

/// A grouper, and what it had to say.
struct Bench {
    grouper: Grouper,
    decodes: Vec<DecodeRequest>,
    outcomes: Vec<(String, u64, Outcome)>,
    missing: Vec<(u64, Vec<String>)>,
    removed_before: u64,
    closed_early: Vec<u64>,
    implausible: Vec<(u64, String)>,
    /// Segment and offset of reports of epochs that are over.
    closed: Vec<(u64, u64)>,
}

impl Bench {
    fn new(options: GrouperOptions) -> Self {
        Self {
            grouper: Grouper::new(options),
            decodes: vec![],
            outcomes: vec![],
            missing: vec![],
            removed_before: 0,
            closed_early: vec![],
            implausible: vec![],
            closed: vec![],
        }
    }

    /// A grouper that knows two switches, `a` and `b`.
    fn with_switches() -> Self {
        let mut bench = Self::new(OPTIONS);
        for switch in ["a", "b"] {
            bench.presence(0, switch, true);
        }
        bench
    }

    fn presence(&mut self, now: u64, switch: &str, present: bool) {
        let presence = Presence {
            switch: switch.into(),
            present,
        };
        self.grouper
            .input(ms(now), GroupingInput::Presence(presence));
        self.listen();
    }

    fn report(&mut self, now: u64, arrived: Arrived) -> Outcome {
        self.grouper.input(ms(now), GroupingInput::Arrived(arrived));
        self.listen();
        self.outcomes.last().expect("every report has an outcome").2
    }

    fn tick(&mut self, now: u64) {
        self.grouper.tick(ms(now));
        self.listen();
    }

    /// Decodes and stores all that was asked for.
    fn finish(&mut self, now: u64) -> Vec<DecodeRequest> {
        let mut done = vec![];
        while !self.decodes.is_empty() {
            for request in std::mem::take(&mut self.decodes) {
                let (group, revision) = (request.group, request.revision);
                done.push(request);
                self.grouper.feedback(ms(now), Feedback::Decoded(group));
                self.grouper
                    .feedback(ms(now), Feedback::Stored { group, revision });
                self.listen();
            }
        }
        done
    }

    fn listen(&mut self) {
        while let Some(action) = self.grouper.poll_action() {
            match action {
                Action::Decode(request) => self.decodes.push(request),
                Action::Outcome {
                    switch,
                    epoch,
                    outcome,
                } => self.outcomes.push((switch, epoch, outcome)),
                Action::Missing { epoch, switches } => self.missing.push((epoch, switches)),
                Action::Closed(closed) => self.closed.extend(closed.reports),
                Action::Implausible { epoch, switch } => self.implausible.push((epoch, switch)),
                Action::ClosedEarly { epoch } => self.closed_early.push(epoch),
                Action::RemoveJournalBefore(segment) => {
                    assert!(segment > self.removed_before);
                    self.removed_before = segment;
                }
            }
        }
    }
}

fn switches(request: &DecodeRequest) -> Vec<&str> {
    let reports = request.reports.iter();
    reports.map(|report| report.switch.as_str()).collect()
}

#[test]
fn an_epoch_is_decoded_when_all_have_reported() {
    let mut bench = Bench::with_switches();
    assert_eq!(bench.report(10, arrived("a", 0)), Outcome::OnTime);
    assert!(bench.decodes.is_empty());
    assert_eq!(bench.report(20, arrived("b", 0)), Outcome::OnTime);
    let done = bench.finish(30);
    assert_eq!(done.len(), 1);
    assert_eq!(switches(&done[0]), ["a", "b"]);
    assert_eq!(done[0].quality, Quality::Network);
    assert_eq!(done[0].time_ns, BEGIN_NS);
    assert!(done[0].missing.is_empty() && !done[0].may_be_stored);
    assert!(bench.missing.is_empty());
}

#[test]
fn at_the_deadline_it_is_decoded_without_the_missing() {
    let mut bench = Bench::with_switches();
    bench.report(10, arrived("a", 0));
    bench.tick(109);
    assert!(bench.decodes.is_empty());
    assert_eq!(bench.grouper.next_timeout(), Some(ms(110)));
    bench.tick(110);
    assert_eq!(bench.missing, [(0, vec!["b".to_owned()])]);
    let done = bench.finish(120);
    assert_eq!(switches(&done[0]), ["a"]);
    assert_eq!(done[0].missing, ["b"]);

    // A late report improves it.
    assert_eq!(bench.report(1_000, arrived("b", 0)), Outcome::Late);
    bench.tick(1_200);
    let again = bench.finish(1_210);
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].group, again[0].revision), (done[0].group, 1));
    assert_eq!(switches(&again[0]), ["a", "b"]);
    assert!(again[0].missing.is_empty() && again[0].may_be_stored);

    // After the last call it is too late; the report is decoded alone.
    bench.tick(5_120);
    assert_eq!(bench.grouper.status().open, 0);
    assert_eq!(bench.report(5_200, arrived("c", 0)), Outcome::TooLate);
    let alone = bench.finish(5_210);
    assert_eq!(switches(&alone[0]), ["c"]);
    assert_eq!(
        (alone[0].quality, alone[0].too_late),
        (Quality::Single, true)
    );
    assert!(alone[0].missing.is_empty());
}

#[test]
fn a_switch_that_goes_is_not_waited_for() {
    let mut bench = Bench::with_switches();
    bench.report(10, arrived("a", 0));
    bench.presence(20, "b", false);
    assert_eq!(bench.finish(30).len(), 1);
    assert!(bench.missing.is_empty());
}

#[test]
fn the_same_twice_and_others_instead_are_told_apart() {
    let mut bench = Bench::with_switches();
    bench.report(10, arrived("a", 0));
    assert_eq!(bench.report(11, arrived("a", 0)), Outcome::Duplicate);
    let other = Arrived {
        digest: 99,
        ..arrived("a", 0)
    };
    assert_eq!(bench.report(12, other), Outcome::Conflict);
    let v6 = Arrived {
        key: 6,
        digest: 7,
        ..arrived("a", 0)
    };
    assert_eq!(bench.report(13, v6), Outcome::OnTime);
    bench.report(14, arrived("b", 0));
    assert_eq!(switches(&bench.finish(20)[0]), ["a", "a", "b"]);
    assert_eq!(bench.report(15, arrived("a", 0)), Outcome::Duplicate);
}

#[test]
fn epochs_are_decoded_in_order() {
    let mut bench = Bench::with_switches();
    bench.report(10, arrived("a", 0));
    bench.report(11, arrived("a", 1));
    bench.report(12, arrived("b", 1));
    // Epoch 1 is complete and waits for epoch 0, no longer than its deadline.
    assert!(bench.decodes.is_empty());
    bench.tick(110);
    let epochs: Vec<u64> = bench.finish(120).iter().map(|done| done.epoch).collect();
    assert_eq!(epochs, [0, 1]);
}

#[test]
fn a_network_that_begins_anew_is_not_mixed_with_itself() {
    let mut bench = Bench::with_switches();
    bench.report(10, arrived("a", 0));
    bench.report(10, arrived("b", 0));
    let before = bench.finish(20);
    // Epoch 0 again, an hour later.
    let again = |switch| Arrived {
        start_ns: BEGIN_NS + 3_600 * SECOND_NS,
        ..arrived(switch, 0)
    };
    assert_eq!(bench.report(30, again("a")), Outcome::OnTime);
    assert_eq!(bench.report(30, again("b")), Outcome::OnTime);
    let after = bench.finish(40);
    assert_ne!(before[0].group, after[0].group);
    assert_eq!(after[0].time_ns, BEGIN_NS + 3_600 * SECOND_NS);
    // A switch whose clock is a little off is not another network.
    let off = Arrived {
        start_ns: BEGIN_NS + SECOND_NS / 2,
        ..arrived("c", 0)
    };
    assert_eq!(bench.report(50, off), Outcome::Late);
}

#[test]
fn when_decoding_lags_behind_the_oldest_are_decoded_quickly() {
    for overload in [Overload::SingleDecode, Overload::Spool] {
        let mut bench = Bench::new(GrouperOptions {
            overload,
            decodes_max: 1,
            waiting_max: 2,
            ..OPTIONS
        });
        bench.presence(0, "a", true);
        for epoch in 0..6 {
            bench.report(10, arrived("a", epoch));
        }
        assert_eq!(bench.decodes.len(), 1);
        assert_eq!(bench.grouper.status().waiting, 5);
        let done = bench.finish(20);
        let single = |request: &DecodeRequest| request.quality == Quality::Single;
        let quick: Vec<u64> = done.iter().filter(|r| single(r)).map(|r| r.epoch).collect();
        match overload {
            // Two are waiting when epoch 3 begins, and that many may.
            Overload::SingleDecode => assert_eq!(quick, [1, 2, 3]),
            Overload::Spool => assert!(quick.is_empty()),
        }
        assert_eq!(done.len(), 6);
    }
}

#[test]
fn the_journal_is_let_go_when_epochs_are_closed_and_stored() {
    let mut bench = Bench::new(GrouperOptions {
        expected: Duration::from_secs(600),
        ..OPTIONS
    });
    for switch in ["a", "b"] {
        bench.presence(0, switch, true);
    }
    for epoch in 0..20 {
        for switch in ["a", "b"] {
            bench.report(10, arrived(switch, epoch));
        }
        bench.finish(10);
    }
    bench.tick(5_009);
    assert_eq!(bench.removed_before, 0);
    bench.tick(5_010);
    // Epochs 0 to 9 are in segment 1, the others in segment 2, which is the newest.
    assert_eq!(bench.removed_before, 2);

    // What is decoded and not stored is needed.
    bench.report(6_000, arrived("a", 30));
    bench.report(6_000, arrived("b", 30));
    bench.report(6_000, arrived("a", 40));
    bench.report(6_000, arrived("b", 40));
    let requests = std::mem::take(&mut bench.decodes);
    for request in &requests {
        bench
            .grouper
            .feedback(ms(6_010), Feedback::Decoded(request.group));
    }
    let stored = |request: &DecodeRequest| Feedback::Stored {
        group: request.group,
        revision: request.revision,
    };
    bench.grouper.feedback(ms(6_020), stored(&requests[1]));
    bench.tick(60_000);
    // Epoch 30 is in segment 4.
    assert_eq!(bench.removed_before, 4);
    bench.grouper.feedback(ms(60_010), stored(&requests[0]));
    bench.listen();
    assert_eq!(bench.removed_before, 5);
}

#[test]
fn too_many_epochs_close_the_oldest() {
    let mut bench = Bench::new(GrouperOptions {
        groups_max: 3,
        ..OPTIONS
    });
    bench.presence(0, "a", true);
    for epoch in 0..6 {
        bench.report(10, arrived("a", epoch));
        bench.finish(10);
    }
    assert_eq!(bench.closed_early, [0, 1, 2]);
    assert_eq!(bench.grouper.status().open, 3);
}

/// Epochs 0 to 2 of three switches are decoded, and `c` claims to be in another epoch.
fn astray(epoch: u64) -> (Bench, Arrived) {
    let mut bench = Bench::with_switches();
    bench.presence(0, "c", true);
    for number in 0..3 {
        for switch in ["a", "b", "c"] {
            bench.report(10, arrived(switch, number));
        }
        assert_eq!(bench.finish(10).len(), 1);
    }
    let claim = Arrived {
        position: Position {
            segment: 1,
            offset: 99,
            bytes: 10,
        },
        ..arrived("c", epoch)
    };
    bench.report(20, claim.clone());
    (bench, claim)
}

#[test]
fn an_epoch_far_from_all_others_is_decoded_by_itself() {
    for epoch in [1_000_000, u64::MAX / SECOND_NS / 4] {
        let (mut bench, _) = astray(epoch);
        // The others go on, without it.
        for switch in ["a", "b"] {
            bench.report(30, arrived(switch, 3));
        }
        assert!(bench.decodes.is_empty() && bench.implausible.is_empty());
        bench.tick(130);
        assert_eq!(bench.implausible, [(epoch, "c".to_owned())]);
        assert_eq!(bench.missing, [(3, vec!["c".to_owned()])]);
        let done = bench.finish(140);
        let shown: Vec<_> = done
            .iter()
            .map(|done| (done.epoch, done.implausible, done.missing.len()))
            .collect();
        assert_eq!(shown, [(epoch, true, 0), (3, false, 1)]);
        // It is not the time from which on others are too late.
        bench.tick(6_000);
        assert_eq!(bench.grouper.status().open, 0);
        for switch in ["a", "b"] {
            assert_ne!(bench.report(6_010, arrived(switch, 4)), Outcome::TooLate);
        }
    }
}

#[test]
fn a_switch_that_begins_anew_holds_up_nobody() {
    let mut bench = Bench::with_switches();
    for number in 1_000..1_003 {
        for switch in ["a", "b"] {
            bench.report(10, arrived(switch, number));
        }
        bench.finish(10);
    }
    bench.report(20, arrived("b", 0));
    // The next epoch does not wait for epoch 0.
    for switch in ["a", "b"] {
        bench.report(30, arrived(switch, 1_003));
    }
    let done = bench.finish(30);
    assert_eq!((done.len(), done[0].epoch), (1, 1_003));
    bench.tick(120);
    assert_eq!(bench.implausible, [(0, "b".to_owned())]);
}

#[test]
fn a_second_switch_makes_an_epoch_plausible() {
    // The whole network begins anew, or jumps.
    let (mut bench, claim) = astray(500);
    bench.report(30, arrived("a", 500));
    bench.report(40, arrived("b", 500));
    let done = bench.finish(50);
    assert_eq!(switches(&done[0]), ["a", "b", "c"]);
    assert!(!done[0].implausible && done[0].missing.is_empty());
    for switch in ["a", "b", "c"] {
        bench.report(60, arrived(switch, 501));
    }
    assert!(!bench.finish(60)[0].implausible);
    assert!(bench.implausible.is_empty());

    // Even when the first one's report was decoded by itself.
    let (mut bench, _) = astray(500);
    bench.tick(130);
    assert!(bench.finish(130)[0].implausible);
    assert_eq!(bench.report(140, arrived("a", 500)), Outcome::Late);
    bench.tick(400);
    let again = bench.finish(400);
    assert_eq!(switches(&again[0]), ["a", "c"]);
    assert!(!again[0].implausible);
    assert_eq!(claim.epoch, again[0].epoch);
}

#[test]
fn nothing_is_implausible_without_others_or_a_limit() {
    let mut bench = Bench::new(OPTIONS);
    bench.presence(0, "a", true);
    for epoch in [0, 1, 1_000_000] {
        bench.report(10, arrived("a", epoch));
        assert!(!bench.finish(10)[0].implausible);
    }
    // The other switch has been silent for too long.
    let mut bench = Bench::with_switches();
    for switch in ["a", "b"] {
        bench.report(10, arrived(switch, 0));
    }
    bench.finish(10);
    bench.report(2_000, arrived("a", 1_000_000));
    bench.tick(3_000);
    assert!(!bench.finish(3_000)[0].implausible);

    let mut bench = Bench::new(GrouperOptions {
        apart_max: 0,
        ..OPTIONS
    });
    for (switch, epoch) in [("a", 0), ("b", 0), ("a", 1_000_000)] {
        bench.report(10, arrived(switch, epoch));
    }
    bench.tick(200);
    assert!(bench.implausible.is_empty());
}

/// What a random network does.
#[derive(Clone, Debug)]
enum Step {
    Report { switch: u8, epoch: u8, bytes: u8 },
    Time { ms: u16 },
    Work,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..4u8, 0..8u8, 0..2u8).prop_map(|(switch, epoch, bytes)| Step::Report { switch, epoch, bytes }),
        2 => (0..400u16).prop_map(|ms| Step::Time { ms }),
        1 => Just(Step::Work),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #[test]
    fn every_report_is_decoded_once_at_least_and_the_last_decode_has_them_all(steps in steps()) {
        let mut bench = Bench::new(OPTIONS);
        let mut now = 0;
        let mut taken: Map<(String, u64), u64> = Map::new();
        let mut done: Vec<DecodeRequest> = vec![];
        for step in steps {
            match step {
                Step::Report { switch, epoch, bytes } => {
                    let switch = format!("s{switch}");
                    let report = Arrived { digest: bytes.into(), ..arrived(&switch, epoch.into()) };
                    let outcome = bench.report(now, report);
                    let before = taken.get(&(switch.clone(), epoch.into())).copied();
                    match (outcome, before) {
                        (Outcome::OnTime | Outcome::Late, None) => {
                            taken.insert((switch, epoch.into()), bytes.into());
                        }
                        (Outcome::Duplicate, Some(old)) => prop_assert_eq!(old, u64::from(bytes)),
                        (Outcome::Conflict, Some(old)) => prop_assert_ne!(old, u64::from(bytes)),
                        // Within the time that this lasts no epoch is closed.
                        (outcome, before) => prop_assert!(now > 4_000, "{outcome:?} {before:?}"),
                    }
                }
                Step::Time { ms } => {
                    now += u64::from(ms) / 10;
                    bench.tick(now);
                }
                Step::Work => done.extend(bench.finish(now)),
            }
            prop_assert!(bench.grouper.status().decoding <= 2);
        }
        // All deadlines pass, but no epoch is closed.
        for _ in 0..4 {
            now += 250;
            bench.tick(now);
            done.extend(bench.finish(now));
        }
        for epoch in 0..8 {
            let last = done.iter().filter(|request| request.epoch == epoch).max_by_key(|request| request.revision);
            let decoded: Vec<&str> = last.map(switches).unwrap_or_default();
            let mut expected: Vec<&str> = taken.keys().filter(|(_, of)| *of == epoch).map(|(switch, _)| switch.as_str()).collect();
            expected.sort_unstable();
            prop_assert_eq!(decoded, expected);
        }
        let status = bench.grouper.status();
        prop_assert_eq!((status.gathering, status.waiting, status.decoding), (0, 0, 0));
        // When all is stored and over, nothing is kept.
        bench.tick(now + 10_000);
        prop_assert_eq!(bench.grouper.status().open, 0);
        prop_assert!(bench.grouper.needed.is_empty());
        prop_assert_eq!(bench.closed.len(), bench.outcomes.len());
    }
}
