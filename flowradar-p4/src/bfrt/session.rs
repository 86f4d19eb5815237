//! The session: connection, program, and the operations on a bank.

use std::ops::Range;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use super::answer::check_statuses;
use super::schema::{CounterTable, ProgramTables, RegisterTable};
use super::{AnswerError, AnswerReason, BfrtError, BfrtErrorReason, shortened};
use crate::client::{ClientErrorReason, with_causes};
use crate::drain::Bank;
use crate::proto::bfrt as proto;
use crate::proto::bfrt::bf_runtime_client::BfRuntimeClient;
use crate::proto::bfrt::stream_message_request::Update as RequestUpdate;
use crate::proto::bfrt::stream_message_response::Update as ResponseUpdate;
use crate::proto::bfrt::update::Type;
use crate::tofino::{BankCounters, BankRegisters, TofinoProgram};

/// The largest list of headers that is taken: errors of a batch of entries come in it.
const HEADER_LIST_MAX_BYTES: u32 = 1 << 20;

/// A Tofino switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BfrtTarget {
    /// For messages and flowsets.
    pub name: String,
    /// `host:port`; switches listen at port 50052.
    pub address: String,
    /// The chip's number in the switch.
    pub device_id: u32,
    /// What this controller calls itself; no two may have the same.
    pub client_id: u32,
    /// The program's name. None takes the only one that runs.
    pub p4_name: Option<String>,
}

impl BfrtTarget {
    /// Device 0, and client 0 of the only program.
    pub fn new(name: impl Into<String>, address: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            address: address.into(),
            device_id: 0,
            client_id: 0,
            p4_name: None,
        }
    }
}

/// How a session behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BfrtOptions {
    /// How long connecting, with subscription and schema, may take.
    pub connect_timeout: Duration,
    /// How long an answer to a request may take.
    pub request_timeout: Duration,
    /// Entries that are read or written by one request; at least one.
    pub entries_per_request: u32,
    /// The largest message with entries that is taken. Decoded, it may take some eighty times as much
    /// memory, if it is made for that.
    pub message_max_bytes: usize,
    /// The largest message with the switch's programs that is taken.
    pub programs_max_bytes: usize,
}

impl Default for BfrtOptions {
    /// 10 s to connect and for a request, 2,048 entries in it (some 250 kB for four pipes), 1 MiB for entries
    /// and 64 MiB for programs.
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            entries_per_request: 2048,
            message_max_bytes: 1 << 20,
            programs_max_bytes: 64 << 20,
        }
    }
}

/// A session with a switch that runs FlowRadar's program.
///
/// Dropped, it ends, and another controller may bind to the program.
#[derive(Debug)]
pub struct BfrtSession {
    target: BfrtTarget,
    options: BfrtOptions,
    program: TofinoProgram,
    p4_name: String,
    tables: ProgramTables,
    pipes: usize,
    requests: u64,
    client: BfRuntimeClient<Channel>,
    /// The switch takes the session for ended when either end of its stream is.
    _stream: (
        mpsc::Sender<proto::StreamMessageRequest>,
        Streaming<proto::StreamMessageResponse>,
    ),
}

impl BfrtSession {
    /// Connects, binds to the program and finds its tables.
    ///
    /// # Errors
    /// If nobody answers in time, the switch refuses, or it runs something else than `program`.
    pub async fn connect(
        target: BfrtTarget,
        program: TofinoProgram,
        options: BfrtOptions,
    ) -> Result<Self, BfrtError> {
        let switch = target.name.clone();
        let limit = options.connect_timeout;
        let connecting = Self::connect_unlimited(target, program, options);
        let session = match tokio::time::timeout(limit, connecting).await {
            Ok(session) => session,
            Err(_) => Err(deadline("connecting", limit)),
        };
        session.map_err(|reason| BfrtError {
            switch,
            reason: Box::new(reason),
        })
    }

    async fn connect_unlimited(
        target: BfrtTarget,
        program: TofinoProgram,
        options: BfrtOptions,
    ) -> Result<Self, BfrtErrorReason> {
        let address_error = |error: &dyn std::error::Error| ClientErrorReason::Address {
            reason: format!(
                "`{}` cannot be used: {}",
                target.address,
                with_causes(error)
            ),
        };
        let connect_error = |error: &dyn std::error::Error| ClientErrorReason::Connect {
            address: target.address.clone(),
            reason: with_causes(error),
        };
        let endpoint = Endpoint::from_shared(format!("http://{}", target.address))
            .map_err(|error| address_error(&error))?
            .connect_timeout(options.connect_timeout)
            .http2_max_header_list_size(HEADER_LIST_MAX_BYTES);
        let channel = endpoint.connect().await;
        let channel = channel.map_err(|error| connect_error(&error))?;
        let mut client = BfRuntimeClient::new(channel)
            .max_decoding_message_size(options.message_max_bytes)
            .max_encoding_message_size(options.message_max_bytes);

        // Before the stream is opened: servers may answer its headers only after the first message.
        let (sender, receiver) = mpsc::channel(1);
        let subscription = subscription(&target);
        sender.try_send(subscription).map_err(|_| stream_ended())?;
        let responses = client.stream_channel(ReceiverStream::new(receiver)).await;
        let mut responses = responses
            .map_err(|status| connect_error(&status))?
            .into_inner();
        hear_subscription(&mut responses).await?;

        let (p4_name, schema) = running_program(&client, &target, &options).await?;
        let tables = ProgramTables::new(&schema, &program)?;
        let bind = proto::SetForwardingPipelineConfigRequest {
            device_id: target.device_id,
            client_id: target.client_id,
            action: proto::set_forwarding_pipeline_config_request::Action::Bind.into(),
            config: vec![proto::ForwardingPipelineConfig {
                p4_name: p4_name.clone(),
                bfruntime_info: Vec::new(),
            }],
        };
        let bound = client.set_forwarding_pipeline_config(bind).await;
        bound.map_err(|status| refused("binding to the program", &status))?;

        let mut session = Self {
            target,
            options,
            program,
            p4_name,
            tables,
            pipes: 0,
            requests: 0,
            client,
            _stream: (sender, responses),
        };
        session.pipes = session.count_pipes().await?;
        Ok(session)
    }

    /// The switch.
    pub fn target(&self) -> &BfrtTarget {
        &self.target
    }

    /// Its program.
    pub fn program(&self) -> &TofinoProgram {
        &self.program
    }

    /// Pipes that the program runs in.
    pub fn pipes(&self) -> usize {
        self.pipes
    }

    /// Requests made so far.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// The bank that packets are counted in: the default action of table `epoch`.
    ///
    /// # Errors
    /// If the switch refuses, or does not answer as asked.
    pub async fn active_bank(&mut self) -> Result<Bank, BfrtError> {
        let table = &self.tables.epoch;
        let (name, question) = (table.name.clone(), table.default_entry(None));
        let entries = self.read_few(&name, vec![question], 1).await?;
        let bank = match entries.into_iter().next() {
            Some(entry) => self.tables.epoch.bank(entry),
            None => Err(AnswerReason::Missing { index: 0 }),
        };
        bank.map_err(|reason| self.error(answer_error(&name, reason)))
    }

    /// Lets packets be counted in `bank` from now on. Packets that have passed the table before are still
    /// counted in the other.
    ///
    /// # Errors
    /// If the switch refuses.
    pub async fn set_active_bank(&mut self, bank: Bank) -> Result<(), BfrtError> {
        let table = &self.tables.epoch;
        let (name, entity) = (table.name.clone(), table.default_entry(Some(bank)));
        self.write(&name, vec![entity]).await
    }

    /// What the program's counters say of a bank, for all pipes together, read from the chip.
    ///
    /// # Errors
    /// If the switch refuses, or does not answer as asked.
    pub async fn counters(&mut self, bank: Bank) -> Result<BankCounters, BfrtError> {
        let (total, new) = (
            self.tables.total.clone(),
            self.tables.total_new_flows.clone(),
        );
        Ok(BankCounters {
            packets: self.counter(&total, bank).await?,
            new_flows: self.counter(&new, bank).await?,
        })
    }

    async fn counter(&mut self, counter: &CounterTable, bank: Bank) -> Result<u64, BfrtError> {
        let (name, index) = (&counter.table.name, bank as u32);
        let question = counter.table.entry(index, None, true);
        let entries = self.read_few(name, vec![question], 1).await?;
        let packets = match entries.into_iter().next() {
            Some(entry) => counter.packets(entry, index),
            None => Err(AnswerReason::Missing { index }),
        };
        packets.map_err(|reason| self.error(answer_error(name, reason)))
    }

    /// Has the switch copy registers and counters from the chip to where reads take them from. The protocol
    /// does not say whether the copy is complete when the answer comes: hold what is read to the
    /// [counters](Self::counters), which are read from the chip.
    ///
    /// # Errors
    /// If the switch refuses.
    pub async fn sync(&mut self) -> Result<(), BfrtError> {
        let entities = self.tables.synchronised().map(|table| table.sync());
        let entities = entities.collect();
        self.write("of all registers", entities).await
    }

    /// Reads a bank out of the switch's copy of the registers ([`Self::sync`]): one for each pipe.
    ///
    /// # Errors
    /// If the switch refuses, or entries are missing, doubled or malformed.
    pub async fn read_bank(&mut self, bank: Bank) -> Result<Vec<BankRegisters>, BfrtError> {
        let mut pipes = vec![BankRegisters::new(&self.program); self.pipes];
        for register in self.tables.registers.clone() {
            for indices in self.batches(&register, bank) {
                self.read_entries(&register, bank, &indices, &mut pipes)
                    .await?;
            }
        }
        Ok(pipes)
    }

    async fn read_entries(
        &mut self,
        register: &RegisterTable,
        bank: Bank,
        indices: &Range<u32>,
        pipes: &mut [BankRegisters],
    ) -> Result<(), BfrtError> {
        let bank_first = bank as u32 * self.program.bank_entries(register.array);
        let table = &register.table;
        let questions = indices.clone().map(|index| table.entry(index, None, false));
        let questions = questions.collect();
        self.read(&table.name, questions, |entity| {
            register.take(entity, indices, bank_first, pipes)
        })
        .await?;
        // All of an entry's values come at once, so that what is missing is so in the first pipe.
        let in_bank = indices.start - bank_first..indices.end - bank_first;
        let missing = pipes
            .first()
            .and_then(|pipe| pipe.first_missing(register.array, in_bank));
        match missing {
            None => Ok(()),
            Some(index) => {
                let index = index + bank_first;
                let reason = AnswerReason::Missing { index };
                Err(self.error(answer_error(&table.name, reason)))
            }
        }
    }

    /// Writes zeros to a bank, in all pipes: first the registers, then the counters, so that a bank whose
    /// counters are zero is clean.
    ///
    /// # Errors
    /// If the switch refuses. The bank may be partly cleared then; do it again.
    pub async fn clear_bank(&mut self, bank: Bank) -> Result<(), BfrtError> {
        for register in self.tables.registers.clone() {
            for indices in self.batches(&register, bank) {
                let zeros = indices.map(|index| register.zero(index)).collect();
                self.write(&register.table.name, zeros).await?;
            }
        }
        let counters = [
            self.tables.total_new_flows.clone(),
            self.tables.total.clone(),
        ];
        for counter in counters {
            let zeros = vec![counter.zero(bank as u32)];
            self.write(&counter.table.name, zeros).await?;
        }
        Ok(())
    }

    async fn count_pipes(&mut self) -> Result<usize, BfrtErrorReason> {
        let Some(register) = self.tables.registers.last().cloned() else {
            return Ok(0);
        };
        let name = &register.table.name;
        let question = register.table.entry(0, None, false);
        let entries = self.read_few(name, vec![question], 1).await;
        let entries = entries.map_err(|error| *error.reason)?;
        let pipes = match entries.into_iter().next() {
            Some(entry) => register.count_pipes(entry),
            None => Err(AnswerReason::Missing { index: 0 }),
        };
        Ok(pipes.map_err(|reason| answer_error(name, reason))?)
    }

    /// The indices of a bank, as many at a time as one request takes.
    fn batches(
        &self,
        register: &RegisterTable,
        bank: Bank,
    ) -> impl Iterator<Item = Range<u32>> + use<> {
        let entries = self.program.bank_entries(register.array);
        let (first, end) = (bank as u32 * entries, (bank as u32 + 1) * entries);
        let batch = self.options.entries_per_request.max(1);
        (first..end)
            .step_by(batch as usize)
            .map(move |start| start..start.saturating_add(batch).min(end))
    }

    /// Asks for entries, and keeps the answer, of at most `most` entries.
    async fn read_few(
        &mut self,
        table: &str,
        questions: Vec<proto::Entity>,
        most: usize,
    ) -> Result<Vec<proto::Entity>, BfrtError> {
        let mut entities = Vec::new();
        self.read(table, questions, |entity| {
            if entities.len() == most {
                return Err(AnswerReason::NoEntry);
            }
            entities.push(entity);
            Ok(())
        })
        .await?;
        Ok(entities)
    }

    /// Asks for entries, and hands them over as they come.
    async fn read(
        &mut self,
        table: &str,
        entities: Vec<proto::Entity>,
        mut take: impl FnMut(proto::Entity) -> Result<(), AnswerReason>,
    ) -> Result<(), BfrtError> {
        const OPERATION: &str = "a read of registers";

        self.requests += 1;
        let limit = self.options.request_timeout;
        let request = proto::ReadRequest {
            target: Some(self.all_pipes()),
            client_id: self.target.client_id,
            entities,
            p4_name: self.p4_name.clone(),
        };
        let mut client = self.client.clone();
        let reading = async {
            let answer = client.read(Request::new(request)).await;
            let mut messages = answer
                .map_err(|status| refused(OPERATION, &status))?
                .into_inner();
            while let Some(message) = messages
                .message()
                .await
                .map_err(|status| refused(OPERATION, &status))?
            {
                check_statuses(&message.status).map_err(|reason| answer_error(table, reason))?;
                for entity in message.entities {
                    take(entity).map_err(|reason| answer_error(table, reason))?;
                }
            }
            Ok(())
        };
        let outcome = match tokio::time::timeout(limit, reading).await {
            Ok(outcome) => outcome,
            Err(_) => Err(deadline(OPERATION, limit)),
        };
        outcome.map_err(|reason| self.error(reason))
    }

    async fn write(&mut self, table: &str, entities: Vec<proto::Entity>) -> Result<(), BfrtError> {
        const OPERATION: &str = "a write of registers";

        self.requests += 1;
        let limit = self.options.request_timeout;
        // Registers, counters and default entries are always there: to insert is to overwrite.
        let updates = entities.into_iter().map(|entity| proto::Update {
            r#type: Type::Insert.into(),
            entity: Some(entity),
        });
        let request = proto::WriteRequest {
            target: Some(self.all_pipes()),
            client_id: self.target.client_id,
            updates: updates.collect(),
            atomicity: 0,
            p4_name: self.p4_name.clone(),
        };
        let mut client = self.client.clone();
        let writing = client.write(Request::new(request));
        let outcome: Result<(), BfrtErrorReason> = match tokio::time::timeout(limit, writing).await
        {
            Ok(Ok(answer)) => check_statuses(&answer.into_inner().status)
                .map_err(|reason| answer_error(table, reason).into()),
            Ok(Err(status)) => Err(refused(OPERATION, &status)),
            Err(_) => Err(deadline(OPERATION, limit)),
        };
        outcome.map_err(|reason| self.error(reason))
    }

    fn all_pipes(&self) -> proto::TargetDevice {
        proto::TargetDevice {
            device_id: self.target.device_id,
            pipe_id: 0xffff,
            direction: 0xff,
            prsr_id: 0xff,
        }
    }

    pub(crate) fn error(&self, reason: impl Into<BfrtErrorReason>) -> BfrtError {
        BfrtError {
            switch: self.target.name.clone(),
            reason: Box::new(reason.into()),
        }
    }
}

fn subscription(target: &BfrtTarget) -> proto::StreamMessageRequest {
    proto::StreamMessageRequest {
        client_id: target.client_id,
        update: Some(RequestUpdate::Subscribe(proto::Subscribe {
            is_master: true,
            device_id: target.device_id,
            // Nothing is asked for, so that the stream needs no reader.
            notifications: Some(proto::subscribe::Notifications::default()),
            status: None,
        })),
    }
}

async fn hear_subscription(
    responses: &mut Streaming<proto::StreamMessageResponse>,
) -> Result<(), BfrtErrorReason> {
    const OPERATION: &str = "the subscription";

    loop {
        let message = responses.message().await;
        let message = message.map_err(|status| refused(OPERATION, &status))?;
        let Some(message) = message else {
            return Err(stream_ended());
        };
        // Other messages are notifications that nobody has asked for.
        if let Some(ResponseUpdate::Subscribe(answer)) = message.update {
            let status = answer.status.unwrap_or_default();
            return match Code::from_i32(status.code) {
                Code::Ok => Ok(()),
                code => Err(refused(OPERATION, &Status::new(code, status.message))),
            };
        }
    }
}

/// Name and schema of the program to bind to.
async fn running_program(
    client: &BfRuntimeClient<Channel>,
    target: &BfrtTarget,
    options: &BfrtOptions,
) -> Result<(String, Vec<u8>), BfrtErrorReason> {
    let mut client = client
        .clone()
        .max_decoding_message_size(options.programs_max_bytes);
    let request = proto::GetForwardingPipelineConfigRequest {
        device_id: target.device_id,
        client_id: target.client_id,
    };
    let answer = client.get_forwarding_pipeline_config(request).await;
    let answer = answer.map_err(|status| refused("asking for the program", &status))?;
    let mut programs = answer.into_inner().config;
    let place = match &target.p4_name {
        Some(name) => programs.iter().position(|program| program.p4_name == *name),
        None => (programs.len() == 1).then_some(0),
    };
    match place {
        Some(place) => {
            let program = programs.swap_remove(place);
            Ok((program.p4_name, program.bfruntime_info))
        }
        None => Err(BfrtErrorReason::Program {
            wanted: target.p4_name.clone().unwrap_or_else(|| "*".to_owned()),
            running: programs
                .iter()
                .take(PROGRAMS_SHOWN)
                .map(|program| shortened(&program.p4_name))
                .collect(),
        }),
    }
}

/// Programs that an error names.
const PROGRAMS_SHOWN: usize = 8;

fn answer_error(table: &str, reason: AnswerReason) -> AnswerError {
    AnswerError {
        table: table.to_owned(),
        reason,
    }
}

fn deadline(operation: &'static str, limit: Duration) -> BfrtErrorReason {
    ClientErrorReason::Deadline { operation, limit }.into()
}

fn refused(operation: &'static str, status: &Status) -> BfrtErrorReason {
    ClientErrorReason::Refused {
        operation,
        code: status.code(),
        message: shortened(status.message()),
    }
    .into()
}

fn stream_ended() -> BfrtErrorReason {
    ClientErrorReason::StreamEnded {
        reason: "the switch has closed it".to_owned(),
    }
    .into()
}
