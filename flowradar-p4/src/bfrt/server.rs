//! A BFRT server of our own to test against, written from the published protocol. Behind it are pipes that are
//! modelled after the program; reads are answered from a copy of their registers, as a driver does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::proto::bfrt as proto;
use crate::proto::bfrt::bf_runtime_server::{BfRuntime, BfRuntimeServer};
use crate::proto::bfrt::data_field::Value;
use crate::proto::bfrt::entity::Entity as EntityKind;
use crate::proto::bfrt::key_field::{Exact, MatchType};
use crate::tofino::model::ModelPipe;
use crate::tofino::{Array, TofinoProgram};

/// What `p4c-barefoot --bf-rt-schema` writes for `p4src/tofino/switch.p4`, without tables that are not used.
pub(super) const SCHEMA: &str = include_str!("switch.bfrt.json");

/// Entries in one message of a streamed answer.
const ENTRIES_PER_MESSAGE: usize = 40;

pub(super) const P4_NAME: &str = "flowradar_tofino";

type Tamper = Box<dyn FnMut(&str, &mut Vec<proto::ReadResponse>) -> Result<(), Status> + Send>;
/// The code that a write of a table is answered with.
pub(super) type WriteStatus = fn(&str) -> Result<i32, Status>;
type Traffic = Box<dyn FnMut(&mut Chip) + Send>;

/// The chip, and the driver's copy of its registers.
pub(super) struct Chip {
    pub(super) pipes: Vec<ModelPipe>,
    copy: Vec<ModelPipe>,
    pub(super) active: usize,
}

/// A switch, and how it misbehaves.
pub(super) struct Switch {
    pub(super) chip: Chip,
    pub(super) schema: String,
    /// Changes answers to reads of registers, whose table it is told.
    pub(super) tamper: Option<Tamper>,
    /// Goes on before every request.
    pub(super) traffic: Option<Traffic>,
    /// Changes the statuses of writes, by the table's name.
    pub(super) write_status: Option<WriteStatus>,
    /// As many copies of a register are still under way when they are said to be done.
    pub(super) slow_syncs: u32,
    pub(super) subscription_code: i32,
    tables: BTreeMap<u32, Arc<ServedTable>>,
    bound: BTreeSet<u32>,
    streams: Vec<mpsc::Sender<Result<proto::StreamMessageResponse, Status>>>,
}

struct ServedTable {
    name: String,
    array: Option<Array>,
    size: u32,
    key: u32,
    fields: Vec<(u32, String)>,
    operations: Vec<String>,
}

/// The server: a handle on the switch.
#[derive(Clone)]
pub(super) struct Server(Arc<Mutex<Switch>>);

impl Chip {
    /// A frame that leaves through a pipe, counted in the active bank.
    pub(super) fn packet(&mut self, pipe: usize, frame: &[u8]) {
        self.late_packet(pipe, self.active, frame);
    }

    /// A frame that has passed table `epoch` before.
    pub(super) fn late_packet(&mut self, pipe: usize, bank: usize, frame: &[u8]) {
        self.pipes[pipe].packet(bank, frame);
    }
}

/// The schema with the sizes of a program.
pub(super) fn schema_of(program: &TofinoProgram) -> String {
    let mut schema: serde_json::Value = serde_json::from_str(SCHEMA).expect("JSON");
    for table in schema["tables"].as_array_mut().expect("tables") {
        let name = table["name"].as_str().expect("a name").to_owned();
        if let Some(array) = array_of(&name) {
            table["size"] = (2 * program.bank_entries(array)).into();
        }
    }
    schema.to_string()
}

fn array_of(table: &str) -> Option<Array> {
    Array::all().find(|array| format!("pipe.Egress.{array}") == table)
}

impl Server {
    pub(super) fn new(program: &TofinoProgram, pipes: usize) -> Self {
        let schema = schema_of(program);
        let pipes = vec![ModelPipe::new(program); pipes];
        let json: serde_json::Value = serde_json::from_str(&schema).expect("JSON");
        let number = |value: &serde_json::Value| value.as_u64().expect("a number") as u32;
        let tables = json["tables"].as_array().expect("tables").iter();
        let tables = tables.map(|table| {
            let name = table["name"].as_str().expect("a name").to_owned();
            let list = |of: &str| table[of].as_array().cloned().unwrap_or_default();
            let fields = list("data");
            let fields = fields.iter().map(|field| &field["singleton"]);
            let served = ServedTable {
                array: array_of(&name),
                size: number(&table["size"]),
                key: list("key").first().map_or(0, |key| number(&key["id"])),
                fields: fields
                    .map(|field| {
                        let name = field["name"].as_str().expect("a name");
                        (number(&field["id"]), name.to_owned())
                    })
                    .collect(),
                operations: list("supported_operations")
                    .iter()
                    .map(|name| name.as_str().expect("a name").to_owned())
                    .collect(),
                name,
            };
            (number(&table["id"]), Arc::new(served))
        });
        let tables = tables.collect();
        Self(Arc::new(Mutex::new(Switch {
            chip: Chip {
                copy: pipes.clone(),
                pipes,
                active: 0,
            },
            schema,
            tamper: None,
            traffic: None,
            write_status: None,
            slow_syncs: 0,
            subscription_code: 0,
            tables,
            bound: BTreeSet::new(),
            streams: Vec::new(),
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Switch> {
        self.0.lock().expect("no test has panicked with the switch")
    }

    /// Serves on a port of its own, for as long as the test runs.
    pub(super) async fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let service = BfRuntimeServer::new(self.clone());
        let serving = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
        tokio::spawn(serving);
        address
    }

    /// The switch, after some more traffic, if the client may ask it.
    fn request(&self, client_id: u32, p4_name: &str) -> Result<MutexGuard<'_, Switch>, Status> {
        let mut switch = self.lock();
        if !switch.bound.contains(&client_id) || p4_name != P4_NAME {
            return Err(Status::permission_denied("not bound"));
        }
        if let Some(mut traffic) = switch.traffic.take() {
            traffic(&mut switch.chip);
            switch.traffic = Some(traffic);
        }
        Ok(switch)
    }
}

impl Switch {
    fn table(&self, id: u32) -> Result<Arc<ServedTable>, Status> {
        let table = self.tables.get(&id).cloned();
        table.ok_or_else(|| Status::not_found(format!("table {id}")))
    }

    fn index(table: &ServedTable, key: Option<&proto::TableKey>) -> Result<u32, Status> {
        let fields = key.map(|key| key.fields.as_slice()).unwrap_or_default();
        let [
            proto::KeyField {
                field_id,
                match_type: Some(MatchType::Exact(exact)),
            },
        ] = fields
        else {
            return Err(Status::invalid_argument("a key of one exact field"));
        };
        let index = <[u8; 4]>::try_from(exact.value.as_slice());
        let index = index.map(u32::from_be_bytes);
        match index {
            Ok(index) if *field_id == table.key && index < table.size => Ok(index),
            _ => Err(Status::invalid_argument("no such entry")),
        }
    }

    fn read(&self, entry: &proto::TableEntry) -> Result<proto::TableEntry, Status> {
        let table = self.table(entry.table_id)?;
        let field = |field_id: u32, bytes: Vec<u8>| proto::DataField {
            field_id,
            value: Some(Value::Stream(bytes)),
        };
        if entry.is_default_entry {
            let action = serde_json::from_str::<serde_json::Value>(&self.schema).expect("JSON");
            let tables = action["tables"].as_array().expect("tables");
            let epoch = tables.iter().find(|table| table["id"] == entry.table_id);
            let action = &epoch.expect("the table")["action_specs"][0]["id"];
            return Ok(proto::TableEntry {
                data: Some(proto::TableData {
                    action_id: action.as_u64().expect("a number") as u32,
                    fields: vec![field(1, vec![self.chip.active as u8])],
                }),
                ..entry.clone()
            });
        }
        let index = Self::index(&table, entry.key.as_ref())?;
        let from_hw = entry
            .table_flags
            .as_ref()
            .is_some_and(|flags| flags.from_hw);
        let pipes = if from_hw {
            &self.chip.pipes
        } else {
            &self.chip.copy
        };
        let mut fields = Vec::new();
        match table.array {
            Some(array) => {
                for (place, bits) in array.widths_bits().iter().enumerate() {
                    for pipe in pipes {
                        let value = pipe.array(array)[index as usize][place];
                        let bytes = value.to_be_bytes()[4 - bits.div_ceil(8) as usize..].to_vec();
                        fields.push(field(table.fields[place].0, bytes));
                    }
                }
            }
            None => {
                let bank = index as usize;
                for (id, name) in &table.fields {
                    let value = pipes.iter().map(|pipe| match name.as_str() {
                        "$COUNTER_SPEC_BYTES" => pipe.total[bank][1],
                        _ if table.name.ends_with("total") => pipe.total[bank][0],
                        _ => pipe.total_new_flows[bank],
                    });
                    fields.push(field(*id, value.sum::<u64>().to_be_bytes().to_vec()));
                }
            }
        }
        Ok(proto::TableEntry {
            data: Some(proto::TableData {
                action_id: 0,
                fields,
            }),
            ..entry.clone()
        })
    }

    fn write(&mut self, entry: &proto::TableEntry) -> Result<i32, Status> {
        let table = self.table(entry.table_id)?;
        let data = entry.data.clone().unwrap_or_default();
        let values = data.fields.iter().map(|field| match &field.value {
            Some(Value::Stream(bytes)) => bytes
                .iter()
                .fold(0, |number, &byte| number << 8 | u64::from(byte)),
            None => panic!("a value of every field"),
        });
        let values: Vec<u64> = values.collect();
        if entry.is_default_entry {
            self.chip.active = values[0] as usize;
            return self
                .write_status
                .map_or(Ok(0), |status| status(&table.name));
        }
        let index = Self::index(&table, entry.key.as_ref())? as usize;
        assert_eq!(values.len(), table.fields.len(), "{}", table.name);
        for pipe in self.chip.pipes.iter_mut().chain(&mut self.chip.copy) {
            match table.array {
                Some(array) => {
                    for (place, value) in values.iter().enumerate() {
                        pipe.array_mut(array)[index][place] = *value as u32;
                    }
                }
                None if table.name.ends_with("total") => pipe.total[index] = [0; 2],
                None => pipe.total_new_flows[index] = 0,
            }
        }
        match self.write_status {
            Some(status) => status(&table.name),
            None => Ok(0),
        }
    }

    fn operate(&mut self, operation: &proto::TableOperation) -> Result<(), Status> {
        let table = self.table(operation.table_id)?;
        if !table.operations.contains(&operation.table_operations_type) {
            return Err(Status::unimplemented("no such operation"));
        }
        if self.slow_syncs > 0 {
            self.slow_syncs -= 1;
            return Ok(());
        }
        if let Some(array) = table.array {
            for (copy, pipe) in self.chip.copy.iter_mut().zip(&self.chip.pipes) {
                copy.array_mut(array).copy_from_slice(pipe.array(array));
            }
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl BfRuntime for Server {
    type ReadStream = tokio_stream::Iter<std::vec::IntoIter<Result<proto::ReadResponse, Status>>>;
    type StreamChannelStream = ReceiverStream<Result<proto::StreamMessageResponse, Status>>;

    async fn read(
        &self,
        request: Request<proto::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let mut switch = self.request(request.client_id, &request.p4_name)?;
        let mut entities = Vec::new();
        let mut name = String::new();
        for entity in &request.entities {
            let Some(EntityKind::TableEntry(entry)) = &entity.entity else {
                return Err(Status::unimplemented("only entries are read"));
            };
            name.clone_from(&switch.table(entry.table_id)?.name);
            entities.push(proto::Entity {
                entity: Some(EntityKind::TableEntry(switch.read(entry)?)),
            });
        }
        let chunks = entities.chunks(ENTRIES_PER_MESSAGE);
        let mut messages: Vec<_> = chunks
            .map(|entities| proto::ReadResponse {
                entities: entities.to_vec(),
                status: Vec::new(),
            })
            .collect();
        if let Some(tamper) = &mut switch.tamper {
            tamper(&name, &mut messages)?;
        }
        let messages: Vec<_> = messages.into_iter().map(Ok).collect();
        Ok(Response::new(tokio_stream::iter(messages)))
    }

    async fn write(
        &self,
        request: Request<proto::WriteRequest>,
    ) -> Result<Response<proto::WriteResponse>, Status> {
        let request = request.into_inner();
        let mut switch = self.request(request.client_id, &request.p4_name)?;
        let mut status = Vec::new();
        for update in request.updates {
            let code = match update.entity.and_then(|entity| entity.entity) {
                Some(EntityKind::TableEntry(entry)) => switch.write(&entry)?,
                Some(EntityKind::TableOperation(operation)) => {
                    switch.operate(&operation)?;
                    0
                }
                None => return Err(Status::invalid_argument("an empty update")),
            };
            status.push(proto::Error {
                canonical_code: code,
                message: String::new(),
            });
        }
        Ok(Response::new(proto::WriteResponse { status }))
    }

    async fn set_forwarding_pipeline_config(
        &self,
        request: Request<proto::SetForwardingPipelineConfigRequest>,
    ) -> Result<Response<proto::SetForwardingPipelineConfigResponse>, Status> {
        let request = request.into_inner();
        match request.config.as_slice() {
            [program] if program.p4_name == P4_NAME => {
                self.lock().bound.insert(request.client_id);
                let response = proto::SetForwardingPipelineConfigResponse {};
                Ok(Response::new(response))
            }
            _ => Err(Status::invalid_argument("no such program")),
        }
    }

    async fn get_forwarding_pipeline_config(
        &self,
        _: Request<proto::GetForwardingPipelineConfigRequest>,
    ) -> Result<Response<proto::GetForwardingPipelineConfigResponse>, Status> {
        let program = proto::ForwardingPipelineConfig {
            p4_name: P4_NAME.to_owned(),
            bfruntime_info: self.lock().schema.clone().into_bytes(),
        };
        Ok(Response::new(proto::GetForwardingPipelineConfigResponse {
            config: vec![program],
        }))
    }

    async fn stream_channel(
        &self,
        request: Request<Streaming<proto::StreamMessageRequest>>,
    ) -> Result<Response<Self::StreamChannelStream>, Status> {
        let message = request.into_inner().message().await?;
        let Some(proto::stream_message_request::Update::Subscribe(subscribe)) =
            message.and_then(|message| message.update)
        else {
            return Err(Status::invalid_argument("subscribe first"));
        };
        let (sender, receiver) = mpsc::channel(4);
        let mut switch = self.lock();
        let status = crate::proto::google::rpc::Status {
            code: switch.subscription_code,
            ..Default::default()
        };
        let answer = proto::StreamMessageResponse {
            update: Some(proto::stream_message_response::Update::Subscribe(
                proto::Subscribe {
                    status: Some(status),
                    ..subscribe
                },
            )),
        };
        sender.try_send(Ok(answer)).expect("room for one");
        switch.streams.push(sender);
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// The entries of all messages, to be tampered with.
pub(super) fn entries(
    messages: &mut [proto::ReadResponse],
) -> impl Iterator<Item = &mut proto::TableEntry> {
    let entities = messages
        .iter_mut()
        .flat_map(|message| &mut message.entities);
    entities.map(|entity| match &mut entity.entity {
        Some(EntityKind::TableEntry(entry)) => entry,
        other => panic!("only entries are read, not {other:?}"),
    })
}

/// An index as a key.
pub(super) fn set_index(entry: &mut proto::TableEntry, index: &[u8]) {
    let key = entry.key.as_mut().expect("a key");
    key.fields[0].match_type = Some(MatchType::Exact(Exact {
        value: index.to_vec(),
    }));
}
