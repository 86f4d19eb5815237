//! Packets and bytes of each flow.

use std::collections::BTreeMap;

use flowradar_core::decode::{SingleDecode, WrongKeyKind, single_decode};
use flowradar_core::flowset::FlowsetError;
use flowradar_core::packet::{LinkType, Parsed, parse};
use flowradar_core::{FlowKey, FlowKeyV4, FlowKeyV6, Flowset, KeyKind};
use flowradar_p4::drain::DrainedBank;
use thiserror::Error;

/// Packets and IP bytes of each flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// IPv4.
    pub v4: BTreeMap<FlowKeyV4, (u64, u64)>,
    /// IPv6.
    pub v6: BTreeMap<FlowKeyV6, (u64, u64)>,
    /// Frames that are not IP.
    pub not_ip: u64,
    /// Malformed frames.
    pub malformed: u64,
}

/// Why a bank does not say what was counted.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum BankError {
    /// There is no table for these keys.
    #[error("the bank has no {0} table")]
    NoTable(KeyKind),
    /// What was read is no flowset.
    #[error("{kind}: {source}")]
    Flowset {
        /// The table.
        kind: KeyKind,
        /// Why not.
        source: FlowsetError,
    },
    /// The flowset is one of other keys.
    #[error("{kind}: {source}")]
    Decode {
        /// The table.
        kind: KeyKind,
        /// Why not.
        source: WrongKeyKind,
    },
    /// Some flows or counters did not come out of it.
    #[error("{kind}: the flowset does not decode completely: {what}")]
    Incomplete {
        /// The table.
        kind: KeyKind,
        /// What is left, and what the proof says.
        what: String,
    },
    /// The program counts no bytes.
    #[error("{0}: the program counts no bytes")]
    NoBytes(KeyKind),
}

impl Counts {
    /// Counts a frame as a switch should.
    pub fn add(&mut self, frame: &[u8]) {
        match parse(LinkType::Ethernet, frame, frame.len() as u32) {
            Ok(Parsed::V4(packet)) => add(&mut self.v4, packet.key, 1, packet.ip_bytes.into()),
            Ok(Parsed::V6(packet)) => add(&mut self.v6, packet.key, 1, packet.ip_bytes.into()),
            Ok(Parsed::NotIp { .. }) => self.not_ip += 1,
            Err(_) => self.malformed += 1,
        }
    }

    /// Adds what a bank holds, by SingleDecode, which must be complete.
    ///
    /// # Errors
    ///
    /// If it is not; nothing is added then.
    pub fn add_bank(&mut self, bank: &DrainedBank) -> Result<(), BankError> {
        let v4 = flows::<FlowKeyV4>(bank)?;
        let v6 = flows::<FlowKeyV6>(bank)?;
        for (key, packets, bytes) in v4 {
            add(&mut self.v4, key, packets, bytes);
        }
        for (key, packets, bytes) in v6 {
            add(&mut self.v6, key, packets, bytes);
        }
        self.not_ip += bank.state.not_ip;
        self.malformed += bank.state.malformed;
        Ok(())
    }

    /// Frames of all kinds.
    pub fn frames(&self) -> u64 {
        let v4: u64 = self.v4.values().map(|counts| counts.0).sum();
        let v6: u64 = self.v6.values().map(|counts| counts.0).sum();
        v4 + v6 + self.not_ip + self.malformed
    }
}

/// The flowset of one kind of key in a bank.
///
/// # Errors
///
/// If there is none, or what was read is none.
pub fn flowset(bank: &DrainedBank, kind: KeyKind) -> Result<Flowset<Vec<u8>>, BankError> {
    let mut flowsets = bank.flowsets.iter();
    let flowset = flowsets.find(|flowset| flowset.key == kind);
    let bytes = flowset.ok_or(BankError::NoTable(kind))?.bytes.clone();
    Flowset::new_checked(bytes).map_err(|source| BankError::Flowset { kind, source })
}

/// SingleDecode of one kind of key in a bank.
///
/// # Errors
///
/// If there is no such flowset, or what was read is none.
pub fn decode<K: FlowKey>(bank: &DrainedBank) -> Result<SingleDecode<K>, BankError> {
    let kind = K::KIND;
    single_decode(&flowset(bank, kind)?).map_err(|source| BankError::Decode { kind, source })
}

fn flows<K: FlowKey>(bank: &DrainedBank) -> Result<Vec<(K, u64, u64)>, BankError> {
    let kind = K::KIND;
    let decoded = decode::<K>(bank)?;
    if !decoded.is_complete() {
        let what = format!("{:?} {:?}", decoded.leftover, decoded.packets_proof);
        return Err(BankError::Incomplete { kind, what });
    }
    let flows = decoded.flows.into_iter().map(|flow| {
        let bytes = flow.bytes.ok_or(BankError::NoBytes(kind))?;
        Ok((flow.key, flow.packets.value, bytes.value))
    });
    flows.collect()
}

fn add<K: Ord>(counts: &mut BTreeMap<K, (u64, u64)>, key: K, packets: u64, bytes: u64) {
    let sums = counts.entry(key).or_default();
    *sums = (sums.0 + packets, sums.1 + bytes);
}
