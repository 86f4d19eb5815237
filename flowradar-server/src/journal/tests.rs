use flowradar_core::KeyKind;
use flowradar_core::flowset::{Epoch, SwitchName};
use proptest::prelude::*;
use tempfile::TempDir;

use super::frame::framed_bytes;
use super::*;

fn switch(name: &str) -> SwitchName {
    name.parse().expect("a switch name")
}

fn report(sequence: u64, flowset: &[u8]) -> Vec<u8> {
    Record::Report(Report {
        switch: switch("leaf-1"),
        epoch: Epoch::number(sequence),
        key: KeyKind::V4,
        source: ReportSource::Agent { spool: 7, sequence },
        received_ns: 1_700_000_000_000_000_000,
        flowset,
    })
    .write()
}

/// Opens a journal and collects the sequences of its reports.
fn open(folder: &TempDir, options: JournalOptions) -> (Journal, State, Recovery, Vec<u64>) {
    let mut sequences = vec![];
    let (journal, state, recovery) = Journal::open(folder.path(), options, |_, record| {
        if let Record::Report(report) = record
            && let ReportSource::Agent { sequence, .. } = report.source
        {
            sequences.push(sequence);
        }
    })
    .expect("a journal");
    (journal, state, recovery, sequences)
}

fn newest_segment(folder: &TempDir) -> PathBuf {
    let last = segment::list(folder.path())
        .expect("segments")
        .pop()
        .expect("one at least");
    last.path(folder.path())
}

#[test]
fn what_is_confirmed_is_there_again() {
    let folder = TempDir::new().expect("a folder");
    let options = JournalOptions {
        segment_bytes: 2_000,
        ..JournalOptions::default()
    };
    let mut positions = vec![];
    {
        let (journal, ..) = open(&folder, options);
        for sequence in 1..=100 {
            let record = report(sequence, &[sequence as u8; 100]);
            positions.push(journal.append_blocking(record).expect("space"));
        }
        let read = journal
            .read(
                positions[41],
                |record| matches!(record, Record::Report(report) if report.flowset == [42; 100]),
            )
            .expect("it is there");
        assert!(read);
        assert!(journal.gauges().segments.load(Ordering::Relaxed) > 5);
    }
    let (journal, state, recovery, sequences) = open(&folder, options);
    assert_eq!(sequences, (1..=100).collect::<Vec<_>>());
    assert_eq!(state.durable_sequence(&switch("leaf-1"), 7), 100);
    assert_eq!(state.durable_sequence(&switch("leaf-1"), 8), 0);
    assert_eq!((recovery.torn_bytes, recovery.damaged_bytes), (0, 0));

    // What is removed is gone; the numbers are not.
    journal.remove_before(positions[99].segment);
    drop(journal);
    let (_, state, _, sequences) = open(&folder, options);
    assert!(sequences.len() < 40 && sequences.last() == Some(&100));
    assert_eq!(state.durable_sequence(&switch("leaf-1"), 7), 100);
}

#[test]
fn a_journal_is_opened_once() {
    let folder = TempDir::new().expect("a folder");
    let (_journal, ..) = open(&folder, JournalOptions::default());
    let again = Journal::open(folder.path(), JournalOptions::default(), |_, _| {});
    assert!(matches!(again, Err(OpenJournalError::InUse(_))));
}

#[test]
fn a_torn_end_is_cut_off_wherever_it_is_torn() {
    let folder = TempDir::new().expect("a folder");
    {
        let (journal, ..) = open(&folder, JournalOptions::default());
        for sequence in 1..=3 {
            journal
                .append_blocking(report(sequence, b"flowset"))
                .expect("space");
        }
    }
    let whole = fs::read(newest_segment(&folder)).expect("a segment");
    let last = framed_bytes(report(3, b"flowset").len());
    for cut in 1..=last {
        let copy = TempDir::new().expect("a folder");
        let path = copy.path().join("00000000000000000001.journal");
        fs::write(&path, &whole[..whole.len() - cut]).expect("space");
        let (journal, state, recovery, sequences) = open(&copy, JournalOptions::default());
        // The padding behind a record is no part of it.
        let padding = framed_bytes(report(3, b"flowset").len())
            - FRAME_HEADER_BYTES
            - report(3, b"flowset").len();
        let expected: &[u64] = if cut <= padding { &[1, 2, 3] } else { &[1, 2] };
        assert_eq!(sequences, expected, "{cut} bytes cut");
        assert_eq!(recovery.damaged_stretches, 0);
        let next = state.durable_sequence(&switch("leaf-1"), 7) + 1;
        journal
            .append_blocking(report(next, b"flowset"))
            .expect("space");
        drop(journal);
        let (.., recovery, sequences) = open(&copy, JournalOptions::default());
        assert_eq!(sequences, (1..=next).collect::<Vec<_>>());
        assert_eq!((recovery.torn_bytes, recovery.damaged_bytes), (0, 0));
    }
}

#[test]
fn damage_is_skipped_and_said() {
    let folder = TempDir::new().expect("a folder");
    let mut second = None;
    {
        let (journal, ..) = open(&folder, JournalOptions::default());
        for sequence in 1..=3 {
            let position = journal
                .append_blocking(report(sequence, b"flowset"))
                .expect("space");
            if sequence == 2 {
                second = Some(position);
            }
        }
    }
    let second = second.expect("appended");
    let path = newest_segment(&folder);
    let mut bytes = fs::read(&path).expect("a segment");
    bytes[second.offset as usize + FRAME_HEADER_BYTES + 20] ^= 1;
    fs::write(&path, bytes).expect("space");
    let (journal, _, recovery, sequences) = open(&folder, JournalOptions::default());
    assert_eq!(sequences, [1, 3]);
    assert_eq!(recovery.damaged_stretches, 1);
    assert_eq!(
        recovery.damaged_bytes,
        framed_bytes(second.bytes as usize) as u64
    );
    assert!(matches!(
        journal.read(second, |_| ()),
        Err(ReadRecordError::Frame {
            source: FrameError::Payload,
            ..
        })
    ));
}

#[test]
fn a_full_journal_refuses_until_something_is_removed() {
    let folder = TempDir::new().expect("a folder");
    let options = JournalOptions {
        segment_bytes: 1_000,
        bytes_max: 3_000,
    };
    let (journal, ..) = open(&folder, options);
    let mut last = None;
    let mut positions = vec![];
    let mut sequence = 0;
    let refused = loop {
        match journal.append_blocking(report(sequence + 1, &[0; 200])) {
            Ok(position) => {
                sequence += 1;
                last = Some(position);
                positions.push(position);
            }
            Err(error) => break error,
        }
    };
    assert_eq!(refused, AppendError::Full { bytes_max: 3_000 });
    assert!((5..15).contains(&sequence), "{sequence}");
    assert_eq!(journal.gauges().refused.load(Ordering::Relaxed), 1);
    // Grouping has not heard of all reports: they may still be needed.
    let last = last.expect("appended");
    journal.remove_before(last.segment);
    assert!(
        journal
            .append_blocking(report(sequence + 1, &[0; 200]))
            .is_err()
    );
    for position in positions {
        journal.handed_over(position);
    }
    journal.remove_before(last.segment);
    journal
        .append_blocking(report(sequence + 1, &[0; 200]))
        .expect("space again");
    drop(journal);
    let (_, state, ..) = open(&folder, options);
    assert_eq!(
        state.durable_sequence(&switch("leaf-1"), 7),
        sequence + 1,
        "what was refused took no number"
    );
}

#[test]
fn registrations_and_files_are_remembered() {
    let folder = TempDir::new().expect("a folder");
    let registration = SwitchState {
        spool: 7,
        sequence: 0,
        description: "a switch".into(),
        links: vec![Link {
            port: 1,
            neighbor: "spine-1".into(),
            neighbor_port: 3,
        }],
    };
    {
        let (journal, ..) = open(&folder, JournalOptions::default());
        journal.append_blocking(report(5, b"a")).expect("space");
        let register = Record::Registered {
            switch: switch("leaf-1"),
            registration: registration.clone(),
        };
        journal.append_blocking(register.write()).expect("space");
        let dropped = Record::NotTaken {
            switch: switch("leaf-2"),
            source: ReportSource::File {
                name: "a.flowset".into(),
                digest: 9,
            },
            reason: "damaged".into(),
        };
        journal.append_blocking(dropped.write()).expect("space");
    }
    let (_, state, ..) = open(&folder, JournalOptions::default());
    let expected = SwitchState {
        sequence: 5,
        ..registration
    };
    assert_eq!(state.switches().get(&switch("leaf-1")), Some(&expected));
    assert!(state.file_taken("a.flowset", 9) && !state.file_taken("a.flowset", 8));
    assert_eq!(
        Ok(Record::State(state.clone())),
        Record::read(&Record::State(state).write())
    );
}

proptest! {
    #[test]
    fn frames_survive_any_damage_elsewhere(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..12),
        damage in any::<(prop::sample::Index, u8)>(),
        segment in any::<u64>(),
    ) {
        let mut bytes = vec![];
        for payload in &payloads {
            let offset = bytes.len() as u64;
            write_frame(&mut bytes, payload, segment, offset);
        }
        let clean: Vec<Vec<u8>> = Frames::new(&bytes, segment).map(|frame| frame.payload.to_vec()).collect();
        prop_assert_eq!(&clean, &payloads);
        prop_assert!(segment == 1 || Frames::new(&bytes, 1).next().is_none());

        let (place, flip) = (damage.0.index(bytes.len()), damage.1);
        bytes[place] ^= flip;
        let found: Vec<Vec<u8>> = Frames::new(&bytes, segment).map(|frame| frame.payload.to_vec()).collect();
        // All but the one that was hit, if any was.
        prop_assert!(found.len() + 1 >= payloads.len());
        let mut expected = payloads.iter();
        for payload in &found {
            prop_assert!(expected.any(|other| other == payload));
        }
    }

    #[test]
    fn any_bytes_are_a_record_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(record) = Record::read(&bytes) {
            let written = record.write();
            prop_assert_eq!(Record::read(&written), Ok(record));
        }
    }
}
