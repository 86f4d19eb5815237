//! Flowsets whose lengths, padding and checksums are put right first, so that everything behind
//! them is reached: SingleDecode, and peeling after flows were subtracted.
#![no_main]

#[path = "../../flowradar-core/tests/support/hostile.rs"]
mod hostile;

use std::collections::HashSet;

use flowradar_core::decode::{PeelTable, cells_of, single_decode};
use flowradar_core::flowset::FlowsetErrorKind;
use flowradar_core::{FlowKey, FlowKeyV4, FlowKeyV6, Flowset, KeyKind};
use libfuzzer_sys::fuzz_target;

/// Longer flowsets find nothing that shorter ones do not.
const BYTES_MAX: usize = 1 << 16;

// A flowset, then which flows to subtract.
fuzz_target!(|input: &[u8]| {
    let Some((bytes, choice)) = input.split_last_chunk() else {
        return;
    };
    let (mut bytes, choice) = (bytes.to_vec(), u64::from_le_bytes(*choice));
    repair(&mut bytes);
    let Ok(flowset) = Flowset::new_checked(&bytes[..]) else {
        return;
    };
    hostile::check_decode(&flowset);
    match flowset.header().key {
        KeyKind::V4 => check_difference::<FlowKeyV4>(&flowset, choice),
        KeyKind::V6 => check_difference::<FlowKeyV6>(&flowset, choice),
    }
});

/// Subtracts some of the flows that are there, as `choice` says, and perhaps one that is not.
fn check_difference<K: FlowKey>(flowset: &Flowset<&[u8]>, choice: u64) {
    let decoded = single_decode::<K, _>(flowset).expect("the same kind of key");
    let keys: Vec<K> = decoded.flows.iter().map(|flow| flow.key).collect();
    let chosen = |index: usize| choice >> (index % 63) & 1 == 1;
    let (subtracted, left): (Vec<_>, Vec<_>) = (0..keys.len()).partition(|&index| chosen(index));
    let mut table = PeelTable::<K>::new(flowset).expect("the same kind of key");
    let mut taken = vec![];
    table.subtract_seen(&keys, 0, |index| chosen(index as usize), &mut taken);
    assert_eq!(
        taken.len(),
        subtracted.len(),
        "peeled, but not in the filter"
    );
    let foreign = K::from_bytes(&vec![choice as u8; K::KIND.bytes()]);
    let has_foreign = choice >> 63 == 1 && table.may_contain(&foreign);
    if has_foreign {
        table.subtract_seen(&[foreign], 0, |_| true, &mut taken);
    }
    let mut found = vec![];
    table.peel_difference(|flow| found.push(flow));

    let cells = flowset.layout().table().cells();
    assert!(found.len() <= 2 * cells);
    for flow in &found {
        assert!(table.may_contain(&flow.key));
        assert!(cells_of(flowset.layout(), &flow.key).contains(&flow.pivot));
        assert_eq!(flow.packets, None);
    }
    if decoded.is_complete() && !has_foreign {
        let found: HashSet<K> = found.iter().map(|flow| flow.key).collect();
        let left: HashSet<K> = left.into_iter().map(|index| keys[index]).collect();
        assert_eq!(found, left);
        assert!((0..cells).all(|cell| table.is_known(cell)));
    }
}

/// Puts right what follows from other fields: magic, version, lengths, zeros, checksums.
fn repair(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().clamp(120, BYTES_MAX), 0);
    bytes[..10].copy_from_slice(b"\x89FLOWR\r\n\x01\x00");
    bytes[12] &= 1;
    bytes[13..16].fill(0);
    bytes[76..80].fill(0);
    let name_bytes = bytes[104] as usize % 128 + 1;
    bytes[104] = name_bytes as u8;
    bytes[105..112].fill(0);
    if bytes[12] == 0 {
        bytes[80..104].fill(0);
    }
    let header_bytes = (112 + name_bytes).next_multiple_of(8) + 8;
    bytes[10..12].copy_from_slice(&(header_bytes as u16).to_le_bytes());
    bytes.resize(bytes.len().max(header_bytes + 8), 0);
    for byte in &mut bytes[112..112 + name_bytes] {
        *byte = b'a' + *byte % 26;
    }
    bytes[112 + name_bytes..header_bytes].fill(0);
    // The reader knows what it wants: the length first, then zeros and counters one by one.
    for _ in 0..64 {
        hostile::fix_checksums(bytes);
        let Err(error) = Flowset::new_checked(&bytes[..]) else {
            return;
        };
        match error.kind {
            FlowsetErrorKind::Length { needed, .. } if needed <= BYTES_MAX as u64 => {
                bytes[16..24].copy_from_slice(&needed.to_le_bytes());
                bytes.resize(needed as usize, 0);
            }
            FlowsetErrorKind::NotZero if error.offset < bytes.len() => {
                // In the filter's last word a byte or more, in padding one.
                let filter_word = error.offset.is_multiple_of(8) && bytes[error.offset] == 0;
                let end = error.offset + if filter_word { 8 } else { 1 };
                bytes[error.offset..end].fill(0);
            }
            FlowsetErrorKind::Counter { value, bits } => {
                let kept = value & ((1 << bits) - 1);
                let width = bits.div_ceil(8) as usize;
                bytes[error.offset..error.offset + width]
                    .copy_from_slice(&kept.to_le_bytes()[..width]);
            }
            _ => return,
        }
    }
}
