//! Small programs that cover the supported constructs, each with packets and what must come out.
//!
//! The expectations are written by hand, or computed with the integers of Rust; nothing is copied from
//! what the switch says.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flowradar_switch::pipeline::PipelineCounters;
use flowradar_switch::runtime::{
    ActionCall, CloneSession, CounterData, DigestConfig, EntryAction, EntryKey, EntryRef, Group,
    GroupMember, MatchValue, MeterConfig, MeterRate, OneShotAction, ProfileError, Replica,
    TableEntry, TableError,
};
use flowradar_switch::{Outputs, Pipeline, PipelineConfig, Program, Timestamp, Value};
use proptest::prelude::*;

/// A program's pipeline.
fn pipeline(name: &str) -> Pipeline {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/compiled");
    let path = folder.join(format!("{name}.json"));
    let json = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let program = Program::from_json(&json).unwrap_or_else(|error| panic!("{name}: {error}"));
    Pipeline::new(Arc::new(program), PipelineConfig::default())
}

/// What comes out for one frame on port 5.
fn run(pipeline: &mut Pipeline, frame: &[u8]) -> Vec<(u16, Vec<u8>)> {
    run_at(pipeline, 5, frame, Timestamp::ZERO)
}

fn run_at(pipeline: &mut Pipeline, port: u16, frame: &[u8], now: Timestamp) -> Vec<(u16, Vec<u8>)> {
    let mut outputs = Outputs::new();
    pipeline.process(port, frame, now, &mut outputs);
    outputs
        .frames()
        .map(|(port, frame)| (port, frame.to_vec()))
        .collect()
}

/// What comes out, if it is one frame.
fn run_one(pipeline: &mut Pipeline, frame: &[u8]) -> (u16, Vec<u8>) {
    let mut frames = run(pipeline, frame);
    assert_eq!(frames.len(), 1, "one frame must come out");
    frames.remove(0)
}

fn call(action: &str, arguments: &[u64]) -> ActionCall {
    ActionCall {
        action: action.to_owned(),
        arguments: arguments
            .iter()
            .map(|argument| Value::from(*argument))
            .collect(),
    }
}

fn entry(matches: Vec<MatchValue>, action: EntryAction) -> TableEntry {
    TableEntry {
        key: EntryKey {
            matches,
            priority: 0,
        },
        action,
        idle_timeout: None,
        metadata: Vec::new(),
    }
}

fn exact(number: u64) -> MatchValue {
    MatchValue::Exact(Value::from(number))
}

/// Bytes of numbers, each with its width in bytes.
fn bytes(fields: &[(u128, usize)]) -> Vec<u8> {
    fields
        .iter()
        .flat_map(|(number, width)| number.to_be_bytes()[16 - width..].to_vec())
        .collect()
}

proptest! {
    #[test]
    fn arithmetic(a: u8, b: u8, c: u16, d: u32, e: u64) {
        let mut pipeline = pipeline("arithmetic");
        let input = bytes(&[
            (a.into(), 1), (b.into(), 1), (c.into(), 2), (d.into(), 4), (e.into(), 8), (0, 46),
        ].map(|(number, width)| (number, width.min(16))));
        // 46 bytes of results follow the 16 bytes of operands.
        let mut frame = input[..16].to_vec();
        frame.extend_from_slice(&[0xee; 46]);
        let (port, output) = run_one(&mut pipeline, &frame);
        prop_assert_eq!(port, 1);
        let logic = u8::from(a > 10 && b > 10) | u8::from(a > 10 || b > 10) << 1 | u8::from(a < 10) << 2;
        let bits = u8::from(a < b) << 7 | u8::from(a <= b) << 6 | u8::from(a == b) << 5
            | u8::from(a != b) << 4 | logic;
        let expected = bytes(&[
            (a.into(), 1), (b.into(), 1), ((c & 0xff0f | u16::from(a & 15) << 4).into(), 2),
            (d.into(), 4), (e.into(), 8),
            (a.wrapping_add(b).into(), 1), (a.wrapping_sub(b).into(), 1),
            (u128::from(a) * u128::from(b), 2), ((!a).into(), 1),
            ((a & b).into(), 1), ((a | b).into(), 1), ((a ^ b).into(), 1),
            ((a << 3).into(), 1), ((a >> 3).into(), 1),
            (d.checked_shl(b.into()).unwrap_or(0).into(), 4),
            (e.wrapping_add(e).into(), 8), (e.wrapping_mul(d.into()).into(), 8),
            (a.saturating_add(b).into(), 1), (a.saturating_sub(b).into(), 1),
            (u128::from(b) << 8 | u128::from(a), 2), ((c >> 4 & 0xff).into(), 1),
            (a.max(b).into(), 1), (a.wrapping_neg().into(), 1), (bits.into(), 1),
        ]);
        let rest = &frame[expected.len()..];
        prop_assert_eq!(output, [expected.as_slice(), rest].concat());
    }

    #[test]
    fn wide(a: u128, b: u128, c in 0..1_u128 << 104) {
        let mut pipeline = pipeline("wide");
        let mut frame = bytes(&[(a, 16), (b, 16), (c, 13)]);
        frame.extend_from_slice(&[0; 16 * 5 + 13 + 8 + 32 + 3 + 16 + 1]);
        let (_, output) = run_one(&mut pipeline, &frame);
        let mask_104 = (1_u128 << 104) - 1;
        let flags = u8::from(a < b) | u8::from(a == b) << 1 | u8::from(a.wrapping_sub(b) > a) << 2;
        let expected = bytes(&[
            (a, 16), (b, 16), (c, 13),
            (a.wrapping_add(b), 16), (a.wrapping_sub(b), 16), (a ^ b, 16), (a << 68, 16),
            (a >> (b & 0x7f), 16),
            (c.wrapping_add(a) & mask_104, 13), (a >> 64, 8), (b, 16), (a, 16), (c >> 80, 3),
            (a.wrapping_mul(b), 16), (flags.into(), 1),
        ]);
        prop_assert_eq!(output, expected);
    }

    #[test]
    fn signed(a: i8, b: i8) {
        let mut pipeline = pipeline("signed");
        let mut frame = vec![a as u8, b as u8];
        frame.extend_from_slice(&[0; 27]);
        let (_, output) = run_one(&mut pipeline, &frame);
        let flags = u8::from(a < b) | u8::from(a < 0) << 1 | u8::from(a >= b) << 2;
        let product = i16::from(a) * i16::from(b);
        let mut expected = vec![
            a as u8, b as u8, a.wrapping_add(b) as u8, a.wrapping_sub(b) as u8, (a >> 2) as u8,
            (a << 1) as u8,
        ];
        expected.extend_from_slice(&i16::from(a).to_be_bytes());
        expected.extend_from_slice(&product.to_be_bytes());
        expected.extend_from_slice(&[a.saturating_add(b) as u8, a.saturating_sub(b) as u8, flags]);
        expected.extend_from_slice(&(i128::from(a) - i128::from(b)).to_be_bytes());
        prop_assert_eq!(output, expected);
    }

    #[test]
    fn checksums(mut header: [u8; 20], payload in prop::collection::vec(any::<u8>(), 0..40), is_right: bool) {
        let mut pipeline = pipeline("checksum");
        header[9] = 17;
        header[10] = 0;
        header[11] = 0;
        let sum = internet_checksum(&[&header]);
        header[10..12].copy_from_slice(&(if is_right { sum } else { sum ^ 1 }).to_be_bytes());
        let udp_length = (8 + payload.len()) as u16;
        let mut udp = [0x12, 0x34, 0x00, 0x35, 0, 0, 0, 0];
        udp[4..6].copy_from_slice(&udp_length.to_be_bytes());
        let frame = [header.as_slice(), &udp, &payload].concat();
        let (port, output) = run_one(&mut pipeline, &frame);
        prop_assert_eq!(port, if is_right { 1 } else { 2 });
        header[8] = header[8].wrapping_sub(1);
        header[10] = 0;
        header[11] = 0;
        let sum = internet_checksum(&[&header]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        // RFC 768: pseudo header, UDP header, data.
        let pseudo = [&header[12..20], &[0, 17], &udp_length.to_be_bytes()].concat();
        let sum = internet_checksum(&[&pseudo, &udp, &payload]);
        udp[6..8].copy_from_slice(&sum.to_be_bytes());
        prop_assert_eq!(output, [header.as_slice(), &udp, &payload].concat());
    }

    #[test]
    fn anything_may_come_in(name in prop::sample::select(ALL.as_slice()), frame: Vec<u8>, port: u16) {
        let mut pipeline = pipeline(name);
        run_at(&mut pipeline, port, &frame, Timestamp::ZERO);
        prop_assert_eq!(pipeline.counters().frames_in, 1);
    }
}

/// All programs.
const ALL: [&str; 21] = [
    "action_run",
    "arithmetic",
    "checksum",
    "copies",
    "counters",
    "digest",
    "hash",
    "metadata",
    "registers",
    "select",
    "selector",
    "signed",
    "stack",
    "state",
    "structure",
    "tables",
    "union",
    "validity",
    "value_set",
    "varbit",
    "wide",
];

/// RFC 1071 over parts, each of which is filled up to 16 bits.
fn internet_checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| {
        part.chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

#[test]
fn every_program_is_tried() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs");
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .expect("the folder of programs is there")
        .filter_map(|file| file.ok()?.file_name().into_string().ok())
        .filter_map(|file| file.strip_suffix(".p4").map(str::to_owned))
        .collect();
    names.sort();
    assert_eq!(names, ALL);
}

#[test]
fn parser_select() {
    let mut pipeline = pipeline("select");
    let mut check = |input: &[u8], port: u16, code: u32, after: &[u8]| {
        let expected = [&code.to_be_bytes(), after].concat();
        assert_eq!(run(&mut pipeline, input), [(port, expected)], "{input:x?}");
    };
    // A masked value, an exact one, neither.
    check(&[0x41, 0x23, 7, 9], 2, 0, &[0x41, 0x23, 8, 9]);
    check(&[0x42, 0x00, 7, 9], 3, 0, &[0x42, 0x00, 7, 9]);
    check(&[0x42, 0x01, 7, 9], 1, 0, &[0x42, 0x01, 7, 9]);
    // Looking ahead; one byte is skipped, and so is not sent.
    check(
        &[0x50, 0x00, 0xaa, 0xbb, 1],
        2,
        0xaa,
        &[0x50, 0x00, 0xbc, 1],
    );
    check(
        &[0x50, 0x00, 0xaa, 0xbc, 1],
        1,
        0xaa,
        &[0x50, 0x00, 0xaa, 0xbc, 1],
    );
    // A range.
    check(&[0x60, 0x03, 7], 2, 0, &[0x60, 0x03, 8]);
    check(&[0x60, 0x04, 7], 1, 0, &[0x60, 0x04, 7]);
    // Errors: a failed verify, and too short in two places.
    check(&[0x70, 0x01, 7], 1, 0xdead_0002, &[0x70, 0x01, 7]);
    check(&[0x70, 0x00, 7], 1, 0, &[0x70, 0x00, 7]);
    check(&[0x41, 0x23], 1, 0xdead_0001, &[0x41, 0x23]);
    check(&[0x41], 1, 0xdead_0001, &[0x41]);
    assert_eq!(pipeline.counters().parser_errors, 3);
}

#[test]
fn header_stacks() {
    let mut pipeline = pipeline("stack");
    let label = |value: u8, bottom: u8| value << 1 | bottom;
    let (a, b, c) = (label(10, 0), label(20, 0), label(30, 1));
    assert_eq!(
        run(&mut pipeline, &[0, 0, 0, 0, a, b, c, 99]),
        [(1, vec![0, 0, 0, 0, a, b, c, 99])]
    );
    // A fourth label has no room: the parser stops, what was not parsed is payload.
    assert_eq!(
        run(&mut pipeline, &[0, 0, 0, 0, a, b, a, c, 99]),
        [(2, vec![0, 0, 0, 0, a, b, a, c, 99])]
    );
    // Pushing moves all up; the last falls off.
    let pushed = label(0x55, 0);
    assert_eq!(
        run(&mut pipeline, &[1, 0, 0, 0, a, c]),
        [(1, vec![1, 0, 0, 0, pushed, a, c])]
    );
    assert_eq!(
        run(&mut pipeline, &[1, 0, 0, 0, a, b, c]),
        [(1, vec![1, 0, 0, 0, pushed, a, b])]
    );
    assert_eq!(
        run(&mut pipeline, &[2, 0, 0, 0, a, b, c]),
        [(1, vec![2, 0, 0, 0, b, c])]
    );
    // By an index that is computed.
    assert_eq!(
        run(&mut pipeline, &[3, 1, 0, 0, a, b, c]),
        [(1, vec![3, 1, 20, 0, a, label(1, 0), c])]
    );
    // Beyond the end: reads zero, writes nothing, is counted.
    assert_eq!(
        run(&mut pipeline, &[3, 3, 9, 0, a, b, c]),
        [(1, vec![3, 3, 0, 0, a, b, c])]
    );
    assert!(pipeline.counters().stacks_out_of_range > 0);
}

#[test]
fn parsers_and_controls_within_others() {
    let mut pipeline = pipeline("structure");
    let item = |more: u8, value: u8| more << 7 | value;
    let mut check = |input: &[u8], expected: &[u8]| {
        assert_eq!(
            run(&mut pipeline, input),
            [(1, expected.to_vec())],
            "{input:x?}"
        );
    };
    // Mode, value, sum, last item, number of items. The last item gets 6 more if egress's table does not
    // match.
    // Plain: the sum of the items, the third counting ten times, plus one.
    let (a, b, c) = (item(1, 3), item(1, 4), item(0, 5));
    check(
        &[1, 9, 0, 0, 0, a, b, c, 0xee],
        &[1, 9, 3 + 4 + 50 + 1, 5 + 6, 3, a, b, c, 0xee],
    );
    check(&[1, 9, 0, 0, 0, c], &[1, 9, 5 + 1, 5 + 6, 1, c]);
    // Four items fit, and the fourth weighs nothing.
    let more = item(1, 5);
    check(
        &[1, 9, 0, 0, 0, a, b, more, item(0, 100)],
        &[1, 9, 58, 106, 4, a, b, more, item(0, 100)],
    );
    // Value and sum are swapped, three times.
    check(&[2, 9, 0, 0, 0, a, c], &[2, 3 + 5, 9, 5 + 6, 2, a, c]);
    // Two values of the enumeration with one block; arguments that go in and out.
    check(&[3, 9, 0, 0, 0, a], &[3, 4, 0xff, 6, 0, a]);
    check(&[4, 8, 0, 0, 0, a], &[4, 4, 0, 6, 0, a]);
    // Neither of the choices, and a value that the enumeration does not have.
    check(&[77, 8, 0, 0, 0], &[77, 8, 0xee, 6, 0]);
    // The table in egress matches.
    check(&[9, 8, 0, 0, 0], &[9, 108, 0xee, 0, 0]);
}

#[test]
fn fields_of_variable_length() {
    let mut pipeline = pipeline("varbit");
    for length in 0..=8_u8 {
        let options: Vec<u8> = (1..=length).collect();
        let header = [&[length], options.as_slice(), &[0xab, 0xff]].concat();
        let copy = [&[length], options.as_slice(), &[0xac, 0x00]].concat();
        let expected = [header.as_slice(), &copy, &[0x77]].concat();
        assert_eq!(
            run(&mut pipeline, &[header.as_slice(), &[0x77]].concat()),
            [(1, expected)]
        );
    }
    let too_long = [9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0];
    assert_eq!(run(&mut pipeline, &too_long), [(2, too_long.to_vec())]);
    let too_short = [3, 1, 2, 3, 0];
    assert_eq!(run(&mut pipeline, &too_short), [(3, too_short.to_vec())]);
}

#[test]
fn tables_of_every_kind() {
    let mut pipeline = pipeline("tables");
    let frame = |key: u8, address: u32, bits: u16, number: u16, optional: u8, wide: &[u8; 20]| {
        let mut frame = bytes(&[
            (key.into(), 1),
            (address.into(), 4),
            (bits.into(), 2),
            (number.into(), 2),
            (optional.into(), 1),
            (0, 1),
        ]);
        frame.extend_from_slice(wide);
        frame
    };
    let zeros = [0; 20];
    let mut port = |frame: Vec<u8>| run_one(&mut pipeline, &frame).0;
    assert_eq!(port(frame(0, 0, 0, 0, 0, &zeros)), 0);
    assert_eq!(port(frame(7, 0, 0, 0, 0, &zeros)), 1);
    // The longest prefix.
    assert_eq!(port(frame(0, 0x0a02_0304, 0, 0, 0, &zeros)), 2);
    assert_eq!(port(frame(0, 0x0a01_0304, 0, 0, 0, &zeros)), 4);
    assert_eq!(port(frame(0, 0x0a01_0203, 0, 0, 0, &zeros)), 6);
    assert_eq!(port(frame(0, 0x0b01_0203, 0, 0, 0, &zeros)), 0);
    // The first that matches.
    assert_eq!(port(frame(9, 0, 0xf1ff, 0, 0, &zeros)), 8);
    assert_eq!(port(frame(8, 0, 0xf1ff, 0, 0, &zeros)), 16);
    assert_eq!(port(frame(9, 0, 0xf2ff, 0, 0, &zeros)), 24);
    // Ranges, which overlap.
    for (number, expected) in [
        (99, 0),
        (100, 32),
        (200, 32),
        (201, 64),
        (300, 64),
        (301, 0),
    ] {
        assert_eq!(
            port(frame(0, 0, 0, number, 0, &zeros)),
            expected,
            "{number}"
        );
    }
    // Optional fields.
    assert_eq!(port(frame(7, 0, 0, 0, 1, &zeros)), 1 + 128);
    assert_eq!(port(frame(6, 0, 0, 0, 1, &zeros)), 256);
    // A key of more than two words.
    let mut wide = [0; 20];
    for (position, byte) in wide.iter_mut().enumerate() {
        *byte = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef][position % 8];
    }
    assert_eq!(
        run_one(&mut pipeline, &frame(0, 0, 0, 0, 0, &wide)).1[10],
        1
    );
    wide[19] ^= 1;
    assert_eq!(
        run_one(&mut pipeline, &frame(0, 0, 0, 0, 0, &wide)).1[10],
        0
    );
}

#[test]
fn constant_tables_stay_as_they_are() {
    let mut pipeline = pipeline("tables");
    let new = entry(vec![exact(1)], EntryAction::Call(call("NoAction", &[])));
    let refused = pipeline.insert_entry("I.by_exact", new.clone(), Timestamp::ZERO);
    assert!(
        matches!(refused, Err(TableError::Constant { .. })),
        "{refused:?}"
    );
    let refused = pipeline.delete_entry("I.by_exact", &new.key);
    assert!(
        matches!(refused, Err(TableError::Constant { .. })),
        "{refused:?}"
    );
    let refused = pipeline.set_default_entry("I.by_exact", new.action);
    assert!(
        matches!(refused, Err(TableError::Constant { .. })),
        "{refused:?}"
    );
    let entries = pipeline.entries("I.by_mask").expect("the table is there");
    assert!(entries.iter().all(|entry| entry.is_const));
    assert_eq!(entries.len(), 3);
}

#[test]
fn what_follows_a_table() {
    let mut pipeline = pipeline("action_run");
    let mut check = |key, expected| {
        assert_eq!(run(&mut pipeline, &[key, 0x10]), [expected], "key {key}");
    };
    check(1, (2, vec![1, (1 + 1) | 0x80]));
    check(2, (2, vec![2, (0x20 + 2) | 0x40]));
    // Exit: nothing of ingress follows.
    check(3, (1, vec![3, 9]));
    check(4, (2, vec![4, (0x10 + 3) | 0x40]));
    check(5, (1, vec![5, (0x10 + 3) | 0x80]));
}

#[test]
fn hashes() {
    let mut pipeline = pipeline("hash");
    // "123456789" is the input for which every CRC's check value is published.
    let mut frame = b"123456789".to_vec();
    frame.extend_from_slice(&[0; 30]);
    let (_, output) = run_one(&mut pipeline, &frame);
    let crc32 = 0xcbf4_3926_u32;
    let csum = internet_checksum(&[b"123456789"]);
    let xor = 0x3132 ^ 0x3334 ^ 0x3536 ^ 0x3738 ^ 0x3900_u16;
    // Three bits 100, sixteen bits of "56", five of zeros.
    let odd = 0b1000_0110_1010_0110_1100_0000_u32;
    let odd = crc32_by_definition(&odd.to_be_bytes()[1..]);
    let expected = bytes(&[
        (crc32.into(), 4),
        (0xbb3d, 2),
        (csum.into(), 2),
        (xor.into(), 2),
        (0x35_3637_3839, 8),
        (u128::from(crc32 % 97 + 1000), 4),
        (odd.into(), 4),
    ]);
    assert_eq!(&output[9..9 + expected.len()], expected);
}

/// ISO 3309's CRC, bit by bit.
fn crc32_by_definition(bytes: &[u8]) -> u32 {
    let remainder = bytes.iter().fold(u32::MAX, |mut remainder, byte| {
        remainder ^= u32::from(*byte);
        for _ in 0..8 {
            remainder = remainder >> 1 ^ if remainder & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
        remainder
    });
    !remainder
}

#[test]
fn registers() {
    let mut pipeline = pipeline("registers");
    let frame = |op: u8, index: u32, value: u32, wide: u128| {
        bytes(&[
            (op.into(), 1),
            (index.into(), 4),
            (value.into(), 4),
            (wide, 13),
            (0, 1),
        ])
    };
    let result = |pipeline: &mut Pipeline, op, index, value, wide| {
        run_one(pipeline, &frame(op, index, value, wide)).1
    };
    assert_eq!(
        result(&mut pipeline, 1, 2, 0xf_fff0, 0),
        frame(1, 2, 0xf_fff0, 0)
    );
    // Twenty bits, not more.
    assert_eq!(result(&mut pipeline, 1, 2, 0x20, 0), frame(1, 2, 0x10, 0));
    assert_eq!(result(&mut pipeline, 1, 3, 7, 0), frame(1, 3, 7, 0));
    let values = pipeline
        .read_registers("I.numbers", 0..4)
        .expect("there are four cells");
    assert_eq!(values, [0_u64, 0, 0x10, 7].map(Value::from));
    // Beyond the end: what is read stays zero, nothing is written, both are counted.
    assert_eq!(result(&mut pipeline, 1, 4, 5, 0), frame(1, 4, 5, 0));
    assert_eq!(
        result(&mut pipeline, 1, u32::MAX, 5, 0),
        frame(1, u32::MAX, 5, 0)
    );
    assert_eq!(pipeline.counters().registers_out_of_range, 4);

    let key = 0xff_eedd_ccbb_aa99_8877_6655_4433_u128;
    assert_eq!(result(&mut pipeline, 2, 1, 0, key), frame(2, 1, 0, key));
    assert_eq!(result(&mut pipeline, 2, 1, 0, 3), frame(2, 1, 0, key ^ 3));
    let wide = Value::from(0xff_u64);
    pipeline
        .write_register("I.wides", 1, &wide)
        .expect("the cell is there");
    assert_eq!(result(&mut pipeline, 2, 1, 0, 1), frame(2, 1, 0, 0xfe));

    for expected in [0, 1, 0] {
        let output = result(&mut pipeline, 3, 7, 0, 0);
        assert_eq!(output.last(), Some(&expected));
    }
    let too_wide = Value::from(2_u64);
    assert!(pipeline.write_register("I.flags", 0, &too_wide).is_err());
    pipeline
        .fill_register("I.flags", &Value::from(1_u64))
        .expect("one bit fits");
    assert_eq!(result(&mut pipeline, 3, 0, 0, 0).last(), Some(&1));
}

#[test]
fn counters_and_meters() {
    let mut pipeline = pipeline("counters");
    let at = Timestamp::from_microseconds;
    let rate = |per_second, burst| MeterRate { per_second, burst };
    let color = |pipeline: &mut Pipeline, key, now| {
        let frames = run_at(pipeline, 0, &[key, 0, 1, 2, 3], now);
        let color = frames.first().map(|(_, frame)| frame[1]);
        color.map(|color| (color >> 4, color & 15))
    };
    // Neither entry nor configured meter: the direct one is not asked, the other says green.
    assert_eq!(color(&mut pipeline, 1, at(0)), Some((3, 0)));
    // Beyond the end: nothing is assigned, and what a P4 `out` argument holds then is not defined.
    assert_eq!(
        color(&mut pipeline, 9, at(0)).map(|(direct, _)| direct),
        Some(3)
    );
    let key = EntryKey {
        matches: vec![exact(1)],
        priority: 0,
    };
    let hit = entry(key.matches.clone(), EntryAction::Call(call("I.hit", &[])));
    let hit = TableEntry {
        idle_timeout: Some(Duration::from_secs(2)),
        ..hit
    };
    pipeline
        .insert_entry("I.t", hit.clone(), at(0))
        .expect("the entry fits");
    // Five bytes a packet: committed for one packet, peak for two.
    let config = MeterConfig {
        committed: rate(5.0, 5),
        peak: rate(10.0, 10),
    };
    pipeline
        .write_direct_meter("I.t", EntryRef::Key(&key), Some(config), at(0))
        .expect("the table has direct meters");
    let config = MeterConfig {
        committed: rate(0.0, 2),
        peak: rate(0.0, 4),
    };
    pipeline
        .write_meter("I.by_rate", 1, Some(config), at(0))
        .expect("the meter has four cells");
    assert_eq!(color(&mut pipeline, 1, at(1)), Some((0, 0)));
    assert_eq!(color(&mut pipeline, 1, at(2)), Some((1, 0)));
    assert_eq!(color(&mut pipeline, 1, at(3)), Some((2, 1)));
    assert_eq!(color(&mut pipeline, 1, at(1_000_000)), Some((0, 1)));
    assert_eq!(color(&mut pipeline, 1, at(1_000_001)), Some((1, 2)));

    let counted = |packets| CounterData {
        packets,
        bytes: packets * 5,
    };
    assert_eq!(pipeline.read_counter("I.by_index", 1), Ok(counted(6)));
    assert_eq!(pipeline.read_counter("I.by_index", 0), Ok(counted(0)));
    assert_eq!(pipeline.counters().counters_out_of_range, 1);
    assert_eq!(pipeline.counters().meters_out_of_range, 1);
    let state = pipeline.entry("I.t", &key).expect("the entry is there");
    assert_eq!(
        (state.counter, state.last_hit),
        (Some(counted(5)), at(1_000_001))
    );
    let (_, missed) = pipeline.default_entry("I.t").expect("the table is there");
    assert_eq!(missed, Some(counted(2)));

    // Idle for two seconds: told once, and again only after a packet.
    let mut idle = |now| {
        let mut outputs = Outputs::new();
        pipeline.tick(now, &mut outputs);
        outputs
            .take_idle_notifications()
            .map(|idle| idle.entry)
            .collect::<Vec<_>>()
    };
    assert_eq!(idle(at(3_000_000)), []);
    assert_eq!(idle(at(3_000_001)), [hit]);
    assert_eq!(idle(at(4_000_000)), []);
}

/// A frame of `copies.p4`.
fn copies_frame(op: u8, count: u8, session: u16, after: (u16, u8, u8, u16)) -> Vec<u8> {
    let (instance, kind, kept, length) = after;
    bytes(&[
        (op.into(), 1),
        (count.into(), 1),
        (session.into(), 2),
        (instance.into(), 2),
        (kind.into(), 1),
        (kept.into(), 1),
        (length.into(), 2),
        (0xbeef, 2),
    ])
}

#[test]
fn clones_multicast_and_passes() {
    let mut pipeline = pipeline("copies");
    let input = |op, session| copies_frame(op, 0, session, (0, 0, 0, 0));
    let replica = |port, instance| Replica { port, instance };
    let session = |packet_length_bytes, replicas: &[Replica]| CloneSession {
        replicas: replicas.to_vec(),
        class_of_service: 0,
        packet_length_bytes,
    };
    pipeline
        .insert_clone_session(3, session(0, &[replica(8, 0)]))
        .expect("the session is new");
    pipeline
        .insert_clone_session(4, session(3, &[replica(8, 0)]))
        .expect("the session is new");
    pipeline
        .insert_multicast_group(7, vec![replica(2, 20), replica(3, 30), replica(2, 21)])
        .expect("the group is new");

    // Ingress clone: as it came in, with the list's field; the original goes on.
    let clone = copies_frame(1, 0, 3, (0, 1, 7, 12));
    let original = copies_frame(1, 1, 3, (0, 0, 7, 12));
    assert_eq!(
        run(&mut pipeline, &input(1, 3)),
        [(8, clone), (1, original)]
    );
    // Cut to three bytes; to no session.
    let frames = run(&mut pipeline, &input(1, 4));
    assert_eq!(frames[0], (8, vec![1, 0, 0]));
    assert_eq!(run(&mut pipeline, &input(1, 9)).len(), 1);
    assert_eq!(pipeline.counters().clones_without_session, 1);

    // Resubmit: the packet as it came in, and the kept field, seen in the second pass.
    let resubmitted = copies_frame(2, 1, 0, (0, 0, 8, 12));
    assert_eq!(run(&mut pipeline, &input(2, 0)), [(1, resubmitted)]);

    let copy = |port, instance| (port, copies_frame(3, 1, 7, (instance, 5, 0, 12)));
    assert_eq!(
        run(&mut pipeline, &input(3, 7)),
        [copy(2, 20), copy(3, 30), copy(2, 21)]
    );
    assert_eq!(run(&mut pipeline, &input(3, 8)), []);
    assert_eq!(pipeline.counters().multicast_without_group, 1);

    // Drop in ingress, in egress, and after a multicast group was chosen.
    for op in [4, 8, 9] {
        assert_eq!(run(&mut pipeline, &input(op, 7)), [], "op {op}");
    }
    assert_eq!(pipeline.counters().dropped, 3);

    assert_eq!(run(&mut pipeline, &input(5, 5)), [(1, vec![5, 1, 0, 5, 0])]);

    // Recirculate: what egress leaves comes in again, twice, with the kept field.
    let recirculated = copies_frame(6, 3, 0, (0, 0, 2, 12));
    assert_eq!(run(&mut pipeline, &input(6, 0)), [(1, recirculated)]);

    // Egress clone: as egress leaves it, with the kept field in a second egress.
    let original = copies_frame(7, 1, 3, (0, 0, 0, 12));
    let clone = copies_frame(7, 1, 3, (0, 2, 11, 12));
    let mut frames = run(&mut pipeline, &input(7, 3));
    frames.sort();
    assert_eq!(frames, [(1, original), (8, clone)]);
}

#[test]
fn digests() {
    let mut pipeline = pipeline("digest");
    let frame = bytes(&[(0x0200_0000_0001, 6), (0x1234, 13), (1, 1)]);
    let digests = |pipeline: &mut Pipeline| {
        let mut outputs = Outputs::new();
        pipeline.process(9, &frame, Timestamp::ZERO, &mut outputs);
        assert_eq!(outputs.frames().count(), 1);
        outputs.take_digests().collect::<Vec<_>>()
    };
    assert_eq!(digests(&mut pipeline), []);
    assert_eq!(pipeline.counters().digests_dropped, 1);
    let name = pipeline
        .program()
        .digests()
        .next()
        .expect("there is one digest")
        .to_owned();
    let config = DigestConfig {
        max_timeout: Duration::ZERO,
        max_list_size: 1,
        ack_timeout: Duration::from_secs(10),
    };
    pipeline
        .insert_digest(&name, config)
        .expect("the digest is not configured");
    let lists = digests(&mut pipeline);
    let members = vec![
        Value::from(0x0200_0000_0001_u64),
        Value::from(0x1234_u64),
        Value::from(9_u64),
    ];
    assert_eq!(lists.len(), 1);
    assert_eq!(lists[0].digests, [members]);
    assert_eq!(digests(&mut pipeline), []);
    assert_eq!(pipeline.counters().digests_suppressed, 1);
    pipeline
        .acknowledge_digest(&name, lists[0].list_id)
        .expect("the digest is there");
    assert_eq!(digests(&mut pipeline).len(), 1);
}

#[test]
fn validity() {
    let mut pipeline = pipeline("validity");
    let mut check = |input: &[u8], expected: &[u8]| {
        assert_eq!(
            run(&mut pipeline, input),
            [(1, expected.to_vec())],
            "{input:x?}"
        );
    };
    // Fields of headers that are not there match as zero. Headers are equal (flag 2) if both are not
    // valid, or both are and all fields are equal (P4-16 1.2.5, section 8.19).
    check(&[0, 0, 3, 4], &[0, 1 | 2, 3, 4]);
    check(&[9, 0, 3, 4], &[9, 1 | 4, 3, 4]);
    check(&[9, 0, 0, 4], &[9, 4, 0, 4]);
    // A copy that is changed, removal, a new header (all zero), an equal copy.
    check(&[1, 0, 5, 6, 7], &[1, 4, 5, 6, 6, 6, 7]);
    check(&[2, 0, 5, 6, 7], &[2, 2, 7]);
    check(&[3, 0, 5, 6, 7], &[3, 4, 5, 6, 0, 0, 7]);
    check(&[4, 0, 5, 6, 7], &[4, 2 | 4, 5, 6, 5, 6, 7]);
}

#[test]
fn header_unions() {
    let mut pipeline = pipeline("union");
    assert_eq!(run(&mut pipeline, &[1, 7, 9]), [(2, vec![1, 0, 7, 9])]);
    assert_eq!(run(&mut pipeline, &[2, 7, 9]), [(1, vec![2, 7, 9])]);
    assert_eq!(run(&mut pipeline, &[3, 7, 9]), [(1, vec![3, 7, 9])]);
}

#[test]
fn value_sets() {
    let mut pipeline = pipeline("value_set");
    let name = "P.kinds";
    assert_eq!(run_one(&mut pipeline, &[0x12, 0x30, 1]).0, 1);
    pipeline
        .set_value_set(name, vec![Value::from(0x123_u64), Value::from(1_u64)])
        .expect("two members fit");
    assert_eq!(run_one(&mut pipeline, &[0x12, 0x30, 1]).0, 2);
    // An earlier case comes first.
    assert_eq!(run_one(&mut pipeline, &[0x00, 0x10, 1]).0, 1);
    assert!(
        pipeline
            .set_value_set(name, vec![Value::from(0x1000_u64)])
            .is_err()
    );
    let members: Vec<_> = pipeline
        .value_set(name)
        .expect("the set is there")
        .cloned()
        .collect();
    assert_eq!(members.len(), 2);
}

#[test]
fn standard_metadata() {
    let mut pipeline = pipeline("metadata");
    let mut frame = vec![0; 38];
    frame.extend_from_slice(b"payload");
    let frames = run_at(
        &mut pipeline,
        6,
        &frame,
        Timestamp::from_microseconds(1_000_007),
    );
    let (port, output) = &frames[0];
    assert_eq!(*port, 3);
    let time = 1_000_007;
    let mut expected = bytes(&[
        (6, 2),
        (3, 2),
        (45, 4),
        (time, 8),
        (time, 8),
        (time, 4),
        (0, 4),
        (0, 4),
    ]);
    let random = output[36];
    assert!((10..=12).contains(&random));
    // Four bytes were added.
    expected.extend_from_slice(&[random, 49, 0xca, 0xfe, 0xba, 0xbe]);
    expected.extend_from_slice(b"payload");
    assert_eq!(*output, expected);
    assert_eq!(
        pipeline.take_log().collect::<Vec<_>>(),
        ["port 6 length 45"]
    );
    frame[37] = 0xff;
    assert_eq!(run(&mut pipeline, &frame), []);
    assert_eq!(pipeline.counters().assertions_failed, 1);
}

#[test]
fn profiles_and_selectors() {
    let mut pipeline = pipeline("selector");
    let forward = |port: u64| call("I.forward", &[port, port + 100]);
    for member in 1..=3_u32 {
        pipeline
            .insert_member("I.balance", member, forward(member.into()))
            .expect("the member is new");
    }
    let member = |member, weight, watch_port| GroupMember {
        member,
        weight,
        watch_port,
    };
    let group = |members: &[GroupMember]| Group {
        members: members.to_vec(),
        max_size: 0,
    };
    let members = [
        member(1, 1, None),
        member(2, 2, None),
        member(3, 1, Some(3)),
    ];
    pipeline
        .insert_group("I.balance", 1, group(&members))
        .expect("the group is new");
    pipeline
        .insert_entry(
            "I.by_group",
            entry(vec![exact(80)], EntryAction::Group(1)),
            Timestamp::ZERO,
        )
        .expect("the entry is new");
    let frame = |source: u32, destination: u32| {
        bytes(&[(source.into(), 4), (destination.into(), 4), (0, 1)])
    };
    // CRC-16/ARC of the selector's fields, over the members as often as their weight.
    let crc16 = |bytes: &[u8]| {
        bytes.iter().fold(0_u16, |mut remainder, byte| {
            remainder ^= u16::from(*byte);
            for _ in 0..8 {
                remainder = remainder >> 1 ^ if remainder & 1 == 1 { 0xa001 } else { 0 };
            }
            remainder
        })
    };
    for source in 0..200 {
        let hash = usize::from(crc16(&frame(source, 80)[..8]));
        let port = [1, 2, 2, 3][hash % 4];
        let (out, output) = run_one(&mut pipeline, &frame(source, 80));
        assert_eq!((out, output[8]), (port, port as u8 + 100));
    }
    // A member whose port is down is not chosen.
    pipeline.set_port_up(3, false);
    for source in 0..200 {
        let hash = usize::from(crc16(&frame(source, 80)[..8]));
        assert_eq!(
            run_one(&mut pipeline, &frame(source, 80)).0,
            [1, 2, 2][hash % 3]
        );
    }
    pipeline.set_port_up(3, true);
    let one_shot = |port: u64, weight| OneShotAction {
        call: forward(port),
        weight,
        watch_port: None,
    };
    let action = EntryAction::OneShot(vec![one_shot(10, 3), one_shot(11, 1)]);
    pipeline
        .insert_entry(
            "I.by_group",
            entry(vec![exact(81)], action),
            Timestamp::ZERO,
        )
        .expect("the entry is new");
    for source in 0..200 {
        let hash = usize::from(crc16(&frame(source, 81)[..8]));
        assert_eq!(
            run_one(&mut pipeline, &frame(source, 81)).0,
            [10, 10, 10, 11][hash % 4]
        );
    }

    // What is in use stays.
    let refused = pipeline.delete_group("I.balance", 1);
    assert!(
        matches!(refused, Err(ProfileError::InUse { what: "group", .. })),
        "{refused:?}"
    );
    let refused = pipeline.delete_member("I.balance", 2);
    assert!(
        matches!(refused, Err(ProfileError::InUse { what: "member", .. })),
        "{refused:?}"
    );
    let key = EntryKey {
        matches: vec![exact(80)],
        priority: 0,
    };
    pipeline
        .delete_entry("I.by_group", &key)
        .expect("the entry is there");
    pipeline
        .delete_group("I.balance", 1)
        .expect("nothing uses it any more");
    pipeline
        .delete_member("I.balance", 2)
        .expect("nothing uses it any more");

    // Members without groups; nothing is done by default.
    assert_eq!(run_one(&mut pipeline, &frame(0x0a00_0001, 7)).0, 1);
    pipeline
        .insert_member("I.fixed", 9, forward(40))
        .expect("the member is new");
    let prefix = MatchValue::Lpm {
        value: Value::from(0x0a00_0000_u64),
        prefix_length: 8,
    };
    pipeline
        .insert_entry(
            "I.by_member",
            entry(vec![prefix], EntryAction::Member(9)),
            Timestamp::ZERO,
        )
        .expect("the entry is new");
    assert_eq!(run_one(&mut pipeline, &frame(0x0a00_0001, 7)).0, 40);
    pipeline
        .modify_member("I.fixed", 9, forward(41))
        .expect("the member is there");
    assert_eq!(run_one(&mut pipeline, &frame(0x0a00_0001, 7)).0, 41);
    let refused = pipeline.insert_group("I.fixed", 1, group(&[]));
    assert!(
        matches!(refused, Err(ProfileError::NoSelector { .. })),
        "{refused:?}"
    );
}

#[test]
fn entries_are_checked_and_told_apart() {
    let mut pipeline = pipeline("counters");
    let now = Timestamp::ZERO;
    let hit = || EntryAction::Call(call("I.hit", &[]));
    assert_eq!(
        pipeline.insert_entry("I.t", entry(vec![exact(1)], hit()), now),
        Ok(())
    );
    let table = || "I.t".to_owned();
    let cases = [
        (
            entry(vec![exact(1)], hit()),
            TableError::EntryExists { table: table() },
        ),
        (
            entry(vec![], hit()),
            TableError::MatchCount {
                table: table(),
                expected: 1,
                given: 0,
            },
        ),
        (
            entry(vec![exact(2)], EntryAction::Call(call("I.none", &[]))),
            TableError::ActionUnknown {
                table: table(),
                action: "I.none".to_owned(),
            },
        ),
        (
            entry(vec![exact(2)], EntryAction::Call(call("I.hit", &[1]))),
            TableError::ArgumentCount {
                table: table(),
                action: "I.hit".to_owned(),
                expected: 0,
                given: 1,
            },
        ),
        (
            entry(vec![exact(0x100)], hit()),
            TableError::Match {
                table: table(),
                field: "hdr.h.key".to_owned(),
                what: "a value needs more bits than the field has",
            },
        ),
        (
            entry(vec![exact(2)], EntryAction::Member(1)),
            TableError::Implementation {
                table: table(),
                what: "it has no action profile; give an action",
            },
        ),
    ];
    for (entry, error) in cases {
        assert_eq!(pipeline.insert_entry("I.t", entry, now), Err(error));
    }
    for key in 2..=255 {
        pipeline
            .insert_entry("I.t", entry(vec![exact(key)], hit()), now)
            .expect("there is room");
    }
    assert_eq!(
        pipeline.entries("I.t").map(|entries| entries.len()),
        Ok(255)
    );
    for key in 1..=255 {
        let key = EntryKey {
            matches: vec![exact(key)],
            priority: 0,
        };
        pipeline
            .delete_entry("I.t", &key)
            .expect("the entry is there");
    }
    assert_eq!(pipeline.entries("I.t"), Ok(Vec::new()));
    assert_eq!(run_one(&mut pipeline, &[1, 0]).1[1] >> 4, 3);
}

#[test]
fn counters_start_at_zero() {
    assert_eq!(pipeline("tables").counters(), PipelineCounters::default());
}
