use std::sync::{Arc, Mutex};
use std::time::Duration;

use flowradar_core::Flowset;
use flowradar_core::flowset::Totals;
use proptest::prelude::*;
use prost::Message;
use tonic::{Code, Status};

use super::schema::ProgramTables;
use super::server::{Chip, P4_NAME, SCHEMA, Server, WriteStatus, entries, schema_of, set_index};
use super::*;
use crate::drain::{
    Bank, BankCondition, DrainError, DrainTiming, DrainedFlowset, ReadPlan, SwitchState,
};
use crate::proto::bfrt as proto;
use crate::proto::bfrt::data_field::Value;
use crate::reader::{BfrtReader, FlowsetReader, ReadError};
use crate::tofino::tests::{Truth, count, decoded, frame, packet};
use crate::tofino::{Array, BankRegisters, EntryReason, SumKind, TofinoProgram};

const TIMING: DrainTiming = DrainTiming {
    window: 1,
    retry_after: Duration::from_millis(1),
    tries_max: 1,
    settle: Duration::from_millis(1),
};

fn program() -> TofinoProgram {
    TofinoProgram::new(10, 6, 1).expect("a small layout")
}

/// Few entries in a request, so that there are many.
fn options() -> BfrtOptions {
    BfrtOptions {
        entries_per_request: 300,
        ..BfrtOptions::default()
    }
}

async fn connect(server: &Server) -> BfrtSession {
    try_connect(server, options()).await.expect("a session")
}

async fn try_connect(server: &Server, options: BfrtOptions) -> Result<BfrtSession, BfrtError> {
    let address = server.serve().await;
    let target = BfrtTarget::new("leaf-1", address.to_string());
    BfrtSession::connect(target, program(), options).await
}

fn plan(reader: &BfrtReader, bank: Bank) -> ReadPlan {
    ReadPlan {
        switch: "leaf-1".parse().expect("a name"),
        bank,
        start_ns: 70,
        length_ns: 10,
        sealed_at: reader.now(),
    }
}

/// What was sent through each pipe, by bank.
type SentTruth = Arc<Mutex<[[Truth; 2]; 2]>>;

/// A packet of a flow, through one pipe or the other; every third flow leaves by both.
fn send(chip: &mut Chip, truth: &SentTruth, flow: u32) {
    let frame = frame(flow, (flow % 1400) as u16, 0);
    let mut truth = truth.lock().expect("no test has panicked with it");
    for pipe in 0..2 {
        if flow.is_multiple_of(3) || flow as usize % 2 == pipe {
            chip.packet(pipe, &frame);
            count(&mut truth[chip.active][pipe], &packet(&frame));
        }
    }
}

fn switch_names(flowsets: &[DrainedFlowset]) -> Vec<String> {
    let flowsets = flowsets.iter();
    flowsets
        .map(|flowset| {
            let flowset = Flowset::new_checked(&flowset.bytes[..]).expect("a flowset");
            flowset.header().switch.to_string()
        })
        .collect()
}

/// A switch that has sent some packets in epoch 0, which has ended.
async fn sealed() -> (Server, BfrtSession, BfrtReader, SwitchState, SentTruth) {
    let server = Server::new(&program(), 2);
    let truth = SentTruth::default();
    for flow in 0..50 {
        send(&mut server.lock().chip, &truth, flow);
    }
    let mut session = connect(&server).await;
    let mut reader = BfrtReader::new(program(), TIMING);
    let state = reader.switch_epoch(&mut session, Bank::One, 1, 0).await;
    let state = state.expect("a clean bank");
    (server, session, reader, state, truth)
}

/// Why the sealed bank cannot be read.
async fn read_error(
    session: &mut BfrtSession,
    reader: &mut BfrtReader,
    state: &SwitchState,
) -> BfrtErrorReason {
    let plan = plan(reader, Bank::Zero);
    match reader.read(session, state, plan).await {
        Err(ReadError::Bfrt(error)) => {
            assert_eq!(error.switch, "leaf-1");
            *error.reason
        }
        other => panic!("{other:?} is no error of the session"),
    }
}

#[tokio::test]
async fn epochs_change_under_traffic_and_every_pipe_decodes_to_exact_counts() {
    let server = Server::new(&program(), 2);
    let truth = SentTruth::default();
    let mut session = connect(&server).await;
    assert_eq!(session.pipes(), 2);
    let mut reader = BfrtReader::new(program(), TIMING);
    let mut state = reader.state(&mut session).await.expect("a state");
    assert_eq!(state.active, Bank::Zero);
    assert_eq!(state.bank(Bank::One).condition, BankCondition::Clean);
    // Before every request some more packets are counted in the bank that is active then.
    server.lock().traffic = Some(Box::new({
        let (truth, mut packets) = (Arc::clone(&truth), 0);
        move |chip| {
            packets += 1;
            send(chip, &truth, packets / 90 * 50 + packets % 50);
        }
    }));
    for epoch in 1..4 {
        let ended = state.active;
        let switched = reader.switch_epoch(&mut session, ended.other(), epoch, 0);
        state = switched.await.expect("a clean bank");
        assert_eq!((state.active, state.active_epoch()), (ended.other(), epoch));
        assert_eq!(state.bank(ended).condition, BankCondition::Sealed);

        let plan = plan(&reader, ended);
        let drained = reader.read(&mut session, &state, plan).await.expect("read");
        assert_eq!(drained.rounds, 1);
        assert_eq!(drained.state.epoch, epoch - 1);
        assert_eq!(
            switch_names(&drained.flowsets),
            ["leaf-1:pipe-0", "leaf-1:pipe-1"]
        );
        let sent = std::mem::take(&mut truth.lock().expect("no panic")[ended as usize]);
        let mut totals = Totals::default();
        for (flowset, truth) in drained.flowsets.iter().zip(&sent) {
            assert!(!truth.is_empty());
            assert_eq!(decoded(&flowset.bytes), *truth);
            totals.new_flows += truth.len() as u64;
            totals.packets += truth.values().map(|counts| counts.0).sum::<u64>();
            totals.bytes += truth.values().map(|counts| counts.1).sum::<u64>();
        }
        assert_eq!(drained.state.v4, totals);
        let cleared = reader.clear(&mut session, &state, ended).await;
        state = cleared.expect("a sealed bank");
        assert_eq!(state.bank(ended).condition, BankCondition::Clean);
        assert_eq!(state.bank(ended).v4, Totals::default());
        assert!(state.bank(state.active).v4.packets > 50, "traffic goes on");
    }
    assert!(reader.counters().sent > 50);
}

#[tokio::test]
#[ignore = "reads and writes 4.7 million entries: minutes without optimisation"]
async fn the_program_as_it_is_is_read_and_cleared_whole() {
    let program = TofinoProgram::default();
    let server = Server::new(&program, 2);
    let truth = SentTruth::default();
    for flow in 0..100_000 {
        send(&mut server.lock().chip, &truth, flow);
    }
    let target = BfrtTarget::new("leaf-1", server.serve().await.to_string());
    let session = BfrtSession::connect(target, program, BfrtOptions::default()).await;
    let mut session = session.expect("a session");
    let mut reader = BfrtReader::new(program, TIMING);
    let state = reader.switch_epoch(&mut session, Bank::One, 1, 0).await;
    let state = state.expect("a clean bank");
    let plan = plan(&reader, Bank::Zero);
    let began = reader.now();
    let drained = reader.read(&mut session, &state, plan).await.expect("read");
    let read = reader.now();
    let requests = reader.counters().sent;
    let cleared = reader.clear(&mut session, &state, Bank::Zero).await;
    let state = cleared.expect("a sealed bank");
    let times = (read - began, reader.now() - read);
    println!("read, cleared in {times:?}, {requests} requests to read");
    assert_eq!(state.bank(Bank::Zero).condition, BankCondition::Clean);
    let sent = truth.lock().expect("no panic")[0].clone();
    for (flowset, truth) in drained.flowsets.iter().zip(&sent) {
        assert_eq!(decoded(&flowset.bytes), *truth);
    }
}

#[tokio::test]
async fn an_epoch_without_packets_has_empty_flowsets() {
    let server = Server::new(&program(), 1);
    let mut session = connect(&server).await;
    let mut reader = BfrtReader::new(program(), TIMING).with_epochs(Bank::Zero, 7, 6);
    let state = reader.switch_epoch(&mut session, Bank::One, 8, 0).await;
    let state = state.expect("a clean bank");
    let again = reader.switch_epoch(&mut session, Bank::One, 8, 0).await;
    assert_eq!(again, Ok(state));
    let plan = plan(&reader, Bank::Zero);
    let drained = reader.read(&mut session, &state, plan).await.expect("read");
    assert_eq!(drained.state.epoch, 7);
    assert_eq!(decoded(&drained.flowsets[0].bytes), Truth::new());
    // The other bank must be cleared first, and the active one is neither read nor cleared.
    let condition = |bank, condition, hint| {
        let source = DrainError::Condition {
            bank,
            condition,
            hint,
        };
        Err(ReadError::Drain {
            switch: "leaf-1".into(),
            source,
        })
    };
    assert_eq!(
        reader.switch_epoch(&mut session, Bank::Zero, 9, 0).await,
        condition(
            Bank::Zero,
            BankCondition::Sealed,
            "an epoch begins in a clean bank only: read and clear it first"
        )
    );
    assert_eq!(
        reader.clear(&mut session, &state, Bank::One).await,
        condition(
            Bank::One,
            BankCondition::Active,
            "there is nothing to clear"
        )
    );
}

#[tokio::test]
async fn an_epoch_change_whose_answer_is_lost_is_repeated() {
    let server = Server::new(&program(), 1);
    let mut session = connect(&server).await;
    let mut reader = BfrtReader::new(program(), TIMING);
    server.lock().write_status = Some(|_| Err(Status::unavailable("the answer is lost")));
    let lost = reader.switch_epoch(&mut session, Bank::One, 1, 0).await;
    assert!(lost.expect_err("no answer").is_connection_lost());
    server.lock().write_status = None;
    let state = reader.switch_epoch(&mut session, Bank::One, 1, 0).await;
    let state = state.expect("done before");
    assert_eq!((state.active, state.active_epoch()), (Bank::One, 1));
    assert_eq!(state.bank(Bank::Zero).condition, BankCondition::Sealed);
    // Nor does it matter whether it was heard.
    server.lock().chip.active = 0;
    let state = reader.switch_epoch(&mut session, Bank::One, 1, 0).await;
    assert_eq!(state.expect("done now").active, Bank::One);
}

#[tokio::test]
async fn a_copy_that_is_late_is_read_again() {
    let (server, mut session, mut reader, state, truth) = sealed().await;
    // One round of synchronising: 24 arrays and two counters.
    server.lock().slow_syncs = 26;
    let plan = plan(&reader, Bank::Zero);
    let drained = reader.read(&mut session, &state, plan).await.expect("read");
    assert_eq!(drained.rounds, 2);
    let sent = truth.lock().expect("no panic")[0].clone();
    for (flowset, truth) in drained.flowsets.iter().zip(&sent) {
        assert_eq!(decoded(&flowset.bytes), *truth);
    }
}

#[tokio::test]
async fn a_copy_that_never_comes_is_an_error() {
    let (server, mut session, mut reader, state, _) = sealed().await;
    server.lock().slow_syncs = u32::MAX;
    let packets = state.bank(Bank::Zero).v4.packets;
    assert_eq!(
        read_error(&mut session, &mut reader, &state).await,
        BfrtErrorReason::Registers(RegistersError::Counter {
            kind: SumKind::Packets,
            cells: 0,
            counter: packets
        })
    );
}

#[tokio::test]
async fn a_bank_that_goes_on_counting_is_not_taken() {
    let (server, mut session, mut reader, state, truth) = sealed().await;
    let late = |packets: u32| {
        let (truth, mut left) = (Arc::clone(&truth), packets);
        move |chip: &mut Chip| {
            if left > 0 {
                left -= 1;
                let frame = frame(5, 100, 0);
                chip.late_packet(0, 0, &frame);
                count(&mut truth.lock().expect("no panic")[0][0], &packet(&frame));
            }
        }
    };
    // Some packets that are still on their way: the first round is for nothing.
    server.lock().traffic = Some(Box::new(late(20)));
    let first = reader.read(&mut session, &state, plan(&reader, Bank::Zero));
    let drained = first.await.expect("read");
    assert_eq!(drained.rounds, 2);
    let sent = truth.lock().expect("no panic")[0].clone();
    assert_eq!(decoded(&drained.flowsets[0].bytes), sent[0]);
    server.lock().traffic = Some(Box::new(late(u32::MAX)));
    let second = reader.read(&mut session, &state, plan(&reader, Bank::Zero));
    let error = second.await.expect_err("unsettled");
    let text = error.to_string();
    assert!(
        text.contains("of different moments") || text.contains("was still counting"),
        "{text}"
    );
}

#[tokio::test]
async fn hostile_answers_name_table_and_reason() {
    type Change = Box<dyn FnMut(&mut Vec<proto::ReadResponse>) -> Result<(), Status> + Send>;

    const TABLE: &str = "pipe.Egress.counts_2";

    let (server, mut session, mut reader, state, _) = sealed().await;
    let first = |change: fn(&mut proto::TableEntry)| -> Change {
        Box::new(move |messages| {
            entries(messages).next().into_iter().for_each(change);
            Ok(())
        })
    };
    fn fields(entry: &mut proto::TableEntry) -> &mut Vec<proto::DataField> {
        &mut entry.data.as_mut().expect("data").fields
    }
    let entry_reason = |array, index, reason| {
        AnswerReason::Registers(RegistersError::Entry {
            array,
            index,
            reason,
        })
    };
    let counts = Array::Counts(2);
    let cases: Vec<(Change, AnswerReason)> = vec![
        (
            Box::new(|messages| {
                messages[0].entities.remove(3);
                Ok(())
            }),
            AnswerReason::Missing { index: 3 },
        ),
        (
            Box::new(|messages| {
                messages.clear();
                Ok(())
            }),
            AnswerReason::Missing { index: 0 },
        ),
        (
            Box::new(|messages| {
                let entity = messages[0].entities[3].clone();
                messages[1].entities.push(entity);
                Ok(())
            }),
            entry_reason(counts, 3, EntryReason::Doubled),
        ),
        (
            first(|entry| set_index(entry, &64_u32.to_be_bytes())),
            AnswerReason::NotAsked { index: 64 },
        ),
        (
            first(|entry| set_index(entry, &[255; 4])),
            AnswerReason::NotAsked { index: u32::MAX },
        ),
        (
            first(|entry| set_index(entry, &[0; 5])),
            AnswerReason::NoIndex,
        ),
        (first(|entry| entry.key = None), AnswerReason::NoIndex),
        (
            first(|entry| entry.key.as_mut().expect("a key").fields[0].field_id = 1),
            AnswerReason::NoIndex,
        ),
        (
            first(|entry| entry.table_id = 9),
            AnswerReason::OtherTable { found_id: 9 },
        ),
        (
            Box::new(|messages| {
                messages[0].entities[0].entity = None;
                Ok(())
            }),
            AnswerReason::NoEntry,
        ),
        (
            first(|entry| entry.data = None),
            AnswerReason::Pipes {
                index: 0,
                expected: 2,
                found: 0,
            },
        ),
        (
            first(|entry| {
                fields(entry).pop();
            }),
            AnswerReason::Pipes {
                index: 0,
                expected: 2,
                found: 1,
            },
        ),
        (
            first(|entry| {
                let field = fields(entry)[0].clone();
                fields(entry).extend(vec![field; 9]);
            }),
            AnswerReason::Pipes {
                index: 0,
                expected: 2,
                found: 11,
            },
        ),
        (
            first(|entry| fields(entry)[1].field_id = 77),
            AnswerReason::UnknownField {
                index: 0,
                field_id: 77,
            },
        ),
        (
            first(|entry| fields(entry)[1].value = Some(Value::Stream(vec![0; 3]))),
            AnswerReason::ValueBytes {
                index: 0,
                field_id: 1,
                expected: 4,
                found: 3,
            },
        ),
        (
            first(|entry| fields(entry)[3].value = None),
            AnswerReason::ValueBytes {
                index: 0,
                field_id: 2,
                expected: 4,
                found: 0,
            },
        ),
        (
            Box::new(|messages| {
                messages[1].status.push(proto::Error {
                    canonical_code: 13,
                    message: "x".repeat(10_000),
                });
                Ok(())
            }),
            AnswerReason::Status {
                code: 13,
                message: "x".repeat(200),
            },
        ),
    ];
    for (mut change, reason) in cases {
        server.lock().tamper = Some(Box::new(move |table, messages| {
            if table == TABLE {
                change(messages)?;
            }
            Ok(())
        }));
        let expected = AnswerError {
            table: TABLE.to_owned(),
            reason,
        };
        let error = read_error(&mut session, &mut reader, &state).await;
        assert!(error.to_string().contains(TABLE), "{error}");
        assert_eq!(error, BfrtErrorReason::Answer(expected));
    }
    // A bit of the filter that is none.
    server.lock().tamper = Some(Box::new(|table, messages| {
        if table == "pipe.Egress.filter_5" {
            let entry = entries(messages).next().expect("an entry");
            fields(entry)[1].value = Some(Value::Stream(vec![2]));
        }
        Ok(())
    }));
    let too_wide = EntryReason::TooWide { value: 2, bits: 1 };
    let error = read_error(&mut session, &mut reader, &state).await;
    let expected = AnswerError {
        table: "pipe.Egress.filter_5".into(),
        reason: entry_reason(Array::Filter(5), 0, too_wide),
    };
    assert_eq!(error, BfrtErrorReason::Answer(expected));
    // A message beyond the largest size is not decoded.
    server.lock().tamper = Some(Box::new(|table, messages| {
        if table == TABLE {
            messages[0].entities = vec![proto::Entity::default(); 1 << 20];
        }
        Ok(())
    }));
    let error = read_error(&mut session, &mut reader, &state).await;
    let BfrtErrorReason::Client(ClientErrorReason::Refused { code, .. }) = error else {
        panic!("{error:?} is another error");
    };
    assert_eq!(code, Code::OutOfRange);
    // The switch refuses; then all is well again.
    server.lock().tamper = Some(Box::new(|_, _| Err(Status::unavailable("busy"))));
    let error = read_error(&mut session, &mut reader, &state).await;
    assert!(error.is_connection_lost(), "{error:?}");
    server.lock().tamper = None;
    let plan = plan(&reader, Bank::Zero);
    let drained = reader.read(&mut session, &state, plan).await;
    assert!(drained.is_ok(), "{drained:?}");
}

#[tokio::test]
async fn a_bank_that_was_cleared_in_part_is_cleared_again_but_not_read() {
    let (server, mut session, mut reader, state, _) = sealed().await;
    let statuses: [WriteStatus; 2] = [
        |table| Ok(if table.ends_with("counts_1") { 14 } else { 0 }),
        |table| match table {
            "pipe.Egress.counts_1" => Err(Status::internal("a driver's error")),
            _ => Ok(0),
        },
    ];
    for status in statuses {
        server.lock().write_status = Some(status);
        let error = reader.clear(&mut session, &state, Bank::Zero).await;
        let text = error.expect_err("an error").to_string();
        assert!(
            text.contains("status 14") && text.contains("counts_1")
                || text.contains("a driver's error"),
            "{text}"
        );
        let state = reader.state(&mut session).await.expect("a state");
        assert_eq!(state.bank(Bank::Zero).condition, BankCondition::Clearing);
    }
    server.lock().write_status = None;
    // A reader that knows nothing of it sees that something is wrong.
    let mut reader = BfrtReader::new(program(), TIMING);
    let state = reader.state(&mut session).await.expect("a state");
    assert_eq!(state.bank(Bank::Zero).condition, BankCondition::Sealed);
    let error = read_error(&mut session, &mut reader, &state).await;
    assert!(matches!(error, BfrtErrorReason::Registers(_)), "{error:?}");
    let state = reader.clear(&mut session, &state, Bank::Zero).await;
    let state = state.expect("a sealed bank");
    assert_eq!(state.bank(Bank::Zero).condition, BankCondition::Clean);
    let pipes = &server.lock().chip.pipes;
    for (pipe, array) in pipes
        .iter()
        .flat_map(|pipe| Array::all().map(move |array| (pipe, array)))
    {
        let entries = program().bank_entries(array) as usize;
        let bank = &pipe.array(array)[..entries];
        assert!(bank.iter().all(|entry| *entry == [0; 2]), "{array}");
    }
}

#[tokio::test]
async fn other_programs_are_refused_when_connecting() {
    let reason = async |server: &Server, p4_name: Option<&str>| {
        let address = server.serve().await;
        let target = BfrtTarget {
            p4_name: p4_name.map(str::to_owned),
            ..BfrtTarget::new("leaf-1", address.to_string())
        };
        let session = BfrtSession::connect(target, program(), options()).await;
        *session.expect_err("another program").reason
    };
    let server = Server::new(&program(), 2);
    assert_eq!(
        reason(&server, Some("simple_switch")).await,
        BfrtErrorReason::Program {
            wanted: "simple_switch".into(),
            running: vec![P4_NAME.into()],
        }
    );
    // The program as it is has other sizes than the small one.
    server.lock().schema = SCHEMA.to_owned();
    assert_eq!(
        reason(&server, Some(P4_NAME)).await,
        BfrtErrorReason::Schema(SchemaError::Table {
            table: "pipe.Egress.filter_0".into(),
            reason: SchemaReason::Entries {
                expected: 2048,
                found: 1 << 20,
            }
        })
    );
    server.lock().schema = "{".to_owned();
    let error = reason(&server, None).await;
    assert!(
        matches!(error, BfrtErrorReason::Schema(SchemaError::Json { .. })),
        "{error:?}"
    );
    server.lock().subscription_code = 6;
    assert_eq!(
        reason(&server, None).await,
        BfrtErrorReason::Client(ClientErrorReason::Refused {
            operation: "the subscription",
            code: Code::AlreadyExists,
            message: String::new(),
        })
    );
}

#[tokio::test]
async fn a_chip_with_too_many_pipes_is_refused() {
    let server = Server::new(&program(), 5);
    let error = try_connect(&server, options()).await.expect_err("5 pipes");
    assert_eq!(
        *error.reason,
        BfrtErrorReason::Answer(AnswerError {
            table: "pipe.Egress.counts_3".into(),
            reason: AnswerReason::Pipes {
                index: 0,
                expected: PIPES_MAX,
                found: 5
            }
        })
    );
}

#[tokio::test]
async fn a_server_that_says_nothing_is_not_waited_for() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let address = listener.as_ref().expect("a port").local_addr();
    let target = BfrtTarget::new("leaf-1", address.expect("an address").to_string());
    let limit = Duration::from_millis(200);
    let options = BfrtOptions {
        connect_timeout: limit,
        ..options()
    };
    let error = BfrtSession::connect(target, program(), options).await;
    let error = error.expect_err("nobody");
    assert!(error.reason.is_connection_lost(), "{error}");
}

#[test]
fn the_compilers_schema_of_the_program_is_understood() {
    let tables = ProgramTables::new(SCHEMA.as_bytes(), &TofinoProgram::default());
    let tables = tables.expect("all tables");
    assert_eq!(tables.registers.len(), 24);
    assert_eq!(tables.synchronised().count(), 26);
    assert!(tables.total.bytes_field.is_some());
    assert_eq!(tables.total_new_flows.bytes_field, None);
}

#[test]
fn every_part_of_a_schema_is_needed() {
    let schema = schema_of(&program());
    let cases = [
        ("pipe.Egress.ports_1\"", "x\"", SchemaReason::Missing),
        (
            "\"Egress.ports_1.f1\"",
            "\"x\"",
            SchemaReason::NoField("f1"),
        ),
    ];
    for (from, to, reason) in cases {
        assert!(schema.contains(from), "{from}");
        let changed = schema.replace(from, to);
        assert_eq!(
            ProgramTables::new(changed.as_bytes(), &program()).err(),
            Some(SchemaError::Table {
                table: "pipe.Egress.ports_1".into(),
                reason,
            })
        );
    }
    let all = [
        ("\"Register\"", "\"Meter\""),
        ("\"Sync\"", "\"Swim\""),
        ("\"width\":32", "\"width\":31"),
        ("$COUNTER_SPEC_PKTS", "x"),
        ("$REGISTER_INDEX", "x"),
        ("Ingress.set_bank", "x"),
        ("\"name\":\"bank\"", "\"name\":\"x\""),
    ];
    for (from, to) in all {
        assert!(schema.contains(from), "{from}");
        let changed = schema.replace(from, to);
        let found = ProgramTables::new(changed.as_bytes(), &program());
        assert!(matches!(found, Err(SchemaError::Table { .. })), "{from}");
    }
}

proptest! {
    /// Whatever comes of an answer whose bytes are changed: entries or an error.
    #[test]
    fn no_answer_is_too_strange(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        asked in 0..300_u32,
    ) {
        let tables = ProgramTables::new(schema_of(&program()).as_bytes(), &program());
        let tables = tables.expect("all tables");
        for register in &tables.registers {
            // A zero for one pipe, as it would be written.
            let mut bytes = register.zero(asked).encode_to_vec();
            for (place, value) in &changes {
                let place = place.index(bytes.len());
                bytes[place] = *value;
            }
            let Ok(entity) = proto::Entity::decode(&bytes[..]) else {
                continue;
            };
            let mut pipes = vec![BankRegisters::new(&program())];
            let bank_first = program().bank_entries(register.array);
            let _ = register.count_pipes(entity.clone());
            let _ = tables.total.packets(entity.clone(), asked);
            let _ = tables.epoch.bank(entity.clone());
            let _ = register.take(entity, &(0..u32::MAX), bank_first, &mut pipes);
        }
    }
}

#[test]
fn an_empty_entity_is_no_larger_than_the_options_say() {
    // Two bytes of a message are at least this much memory.
    assert!(
        size_of::<proto::Entity>() / 2 <= 80,
        "{}",
        size_of::<proto::Entity>()
    );
}
