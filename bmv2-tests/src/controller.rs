//! A P4Runtime session, and draining.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flowradar_core::decode::{SingleDecode, single_decode};
use flowradar_core::packet::{LinkType, Parsed, parse};
use flowradar_core::{FlowKey, FlowKeyV4, FlowKeyV6, Flowset, KeyKind};
use flowradar_p4::Program;
use flowradar_p4::client::{PipelineOutcome, Session, SessionOptions, SwitchTarget};
use flowradar_p4::drain::{DrainTiming, DrainedBank, ReadPlan};
use flowradar_p4::entity::Entity;
use flowradar_p4::reader::{FlowsetReader, PacketReader};

use crate::switch::TestSwitch;

/// Longer than anything takes, even on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Controls one switch, and drains it by packets.
#[derive(Debug)]
pub struct Controller {
    name: String,
    /// The session.
    pub session: Session,
    reader: PacketReader,
    next_epoch: u64,
}

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

impl Controller {
    /// Connects as primary, loads the reference program and the entities.
    ///
    /// # Panics
    /// If anything fails.
    pub async fn deploy(switch: &TestSwitch, name: &str, entities: &[Entity]) -> Self {
        let mut controller = Self::connect(switch, name, 1).await;
        let program = Program::reference();
        let pipeline = controller.session.ensure_pipeline(&program.pipeline).await;
        assert_eq!(
            pipeline.expect("the program can be loaded"),
            PipelineOutcome::Committed
        );
        let tables = controller.session.reconcile(entities).await;
        tables.expect("the tables can be written");
        controller
    }

    /// Connects with an election id.
    ///
    /// # Panics
    /// If it fails.
    pub async fn connect(switch: &TestSwitch, name: &str, election_id: u128) -> Self {
        let options = SessionOptions {
            election_id,
            connect_timeout: PATIENCE,
            request_timeout: PATIENCE,
            ..SessionOptions::default()
        };
        let target = Arc::new(SwitchTarget::new(name, switch.address()));
        let session = Session::connect(target, options).await;
        let mut session = session.expect("the switch can be connected to");
        let program = Program::reference();
        session.set_info(Arc::clone(program.pipeline.info()));
        Self {
            name: name.into(),
            session,
            reader: PacketReader::new(program.config, timing()),
            next_epoch: 1,
        }
    }

    /// Ends the epoch and reads it out; clears the bank.
    ///
    /// # Panics
    /// If anything fails.
    pub async fn drain(&mut self) -> DrainedBank {
        let drained = self.end_epoch_and_read().await;
        let Self {
            session, reader, ..
        } = self;
        let state = reader.state(session).await.expect("an answer");
        let bank = state.idle();
        reader
            .clear(session, &state, bank)
            .await
            .expect("the bank can be cleared");
        drained
    }

    /// Ends the epoch and reads it out; leaves the bank as it is.
    ///
    /// # Panics
    /// If anything fails.
    pub async fn end_epoch_and_read(&mut self) -> DrainedBank {
        let Self {
            session, reader, ..
        } = self;
        let state = reader.state(session).await.expect("an answer");
        let ended = state.active;
        let epoch = self.next_epoch.max(state.active_epoch() + 1);
        self.next_epoch = epoch + 1;
        let seed = seed(&self.name, epoch);
        let switched = reader
            .switch_epoch(session, ended.other(), epoch, seed)
            .await;
        let state = switched.expect("the epoch can be ended");
        let plan = ReadPlan {
            switch: self.name.parse().expect("names of tests are names"),
            bank: ended,
            start_ns: 0,
            length_ns: 0,
            sealed_at: reader.now(),
        };
        reader
            .read(session, &state, plan)
            .await
            .expect("the bank can be read")
    }
}

impl Counts {
    /// Counts a frame as a switch should.
    pub fn add(&mut self, frame: &[u8]) {
        match parse(LinkType::Ethernet, frame, frame.len() as u32) {
            Ok(Parsed::V4(packet)) => add(&mut self.v4, packet.key, packet.ip_bytes),
            Ok(Parsed::V6(packet)) => add(&mut self.v6, packet.key, packet.ip_bytes),
            Ok(Parsed::NotIp { .. }) => self.not_ip += 1,
            Err(_) => self.malformed += 1,
        }
    }

    /// Adds what a bank holds, which must decode completely.
    ///
    /// # Panics
    /// If it does not.
    pub fn add_bank(&mut self, bank: &DrainedBank) {
        for (key, packets, bytes) in flows::<FlowKeyV4>(bank, KeyKind::V4) {
            let sums = self.v4.entry(key).or_default();
            *sums = (sums.0 + packets, sums.1 + bytes);
        }
        for (key, packets, bytes) in flows::<FlowKeyV6>(bank, KeyKind::V6) {
            let sums = self.v6.entry(key).or_default();
            *sums = (sums.0 + packets, sums.1 + bytes);
        }
        self.not_ip += bank.state.not_ip;
        self.malformed += bank.state.malformed;
    }

    /// Frames of all kinds.
    pub fn frames(&self) -> u64 {
        let v4: u64 = self.v4.values().map(|counts| counts.0).sum();
        let v6: u64 = self.v6.values().map(|counts| counts.0).sum();
        v4 + v6 + self.not_ip + self.malformed
    }
}

/// Patient: machines with many switches are slow.
fn timing() -> DrainTiming {
    DrainTiming {
        retry_after: Duration::from_secs(2),
        ..DrainTiming::default()
    }
}

/// The flowset of one kind of key in a bank.
///
/// # Panics
/// If there is none, or it is none.
pub fn flowset(bank: &DrainedBank, kind: KeyKind) -> Flowset<Vec<u8>> {
    let flowset = bank.flowsets.iter().find(|flowset| flowset.key == kind);
    let bytes = flowset
        .expect("the program has a table for it")
        .bytes
        .clone();
    Flowset::new_checked(bytes).expect("a good flowset")
}

/// SingleDecode of one kind of key in a bank.
///
/// # Panics
/// If there is no such flowset.
pub fn decode<K: FlowKey>(bank: &DrainedBank, kind: KeyKind) -> SingleDecode<K> {
    single_decode(&flowset(bank, kind)).expect("the same kind of key")
}

fn flows<K: FlowKey>(bank: &DrainedBank, kind: KeyKind) -> Vec<(K, u64, u64)> {
    let decoded = decode::<K>(bank, kind);
    assert!(
        decoded.is_complete(),
        "{kind}: {:?} {:?}",
        decoded.leftover,
        decoded.packets_proof
    );
    let flows = decoded.flows.into_iter();
    flows
        .map(|flow| {
            let bytes = flow.bytes.expect("the reference program counts bytes");
            (flow.key, flow.packets.value, bytes.value)
        })
        .collect()
}

fn add<K: Ord>(counts: &mut BTreeMap<K, (u64, u64)>, key: K, ip_bytes: u32) {
    let sums = counts.entry(key).or_default();
    *sums = (sums.0 + 1, sums.1 + u64::from(ip_bytes));
}

/// Different for each switch and epoch.
fn seed(name: &str, epoch: u64) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash ^ epoch
}
