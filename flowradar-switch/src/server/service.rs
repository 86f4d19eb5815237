//! The gRPC side: requests in, the state's answers out.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flowradar_p4::packet::ControllerPacket;
use flowradar_p4::proto::google::rpc;
use flowradar_p4::proto::google::rpc::Code;
use flowradar_p4::proto::p4::v1 as p4;
use flowradar_p4::proto::p4::v1::p4_runtime_server::P4Runtime;
use flowradar_p4::proto::p4::v1::stream_error::Details;
use flowradar_p4::proto::p4::v1::stream_message_request::Update as Incoming;
use flowradar_p4::proto::p4::v1::stream_message_response::Update as Outgoing;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::arbitration::{ArbitrationError, Notification, Standing, StreamId};
use super::convert;
use super::error::Refusal;
use super::state::{Config, State, number};
use super::{Clock, ServerConfig, ServerCounters};
use crate::Switch;
use crate::runtime::{DigestList, IdleNotification};
use crate::switch::PacketIn;

/// Answers to a read are cut into messages of about this size, well below the 4 MiB that clients take
/// by default.
const READ_MESSAGE_BYTES: usize = 1 << 20;
/// The version of the specification that the messages are from.
const API_VERSION: &str = "1.5.0";

type Sender = mpsc::Sender<Result<p4::StreamMessageResponse, Status>>;

/// The service; clones share their state.
#[derive(Clone, Debug)]
pub(super) struct Service {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    switch: Switch,
    clock: Clock,
    config: ServerConfig,
    state: Mutex<State>,
    streams: Mutex<BTreeMap<StreamId, Sender>>,
    next_stream: AtomicU64,
    messages_dropped: AtomicU64,
    is_closed: watch::Sender<bool>,
}

/// Leaves the arbitration when the stream has ended, however it did.
struct StreamGuard {
    service: Service,
    stream: StreamId,
}

impl Service {
    pub(super) fn new(switch: Switch, clock: Clock, config: ServerConfig) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State::new(switch.clone(), config.device_id)),
                switch,
                clock,
                config,
                streams: Mutex::default(),
                next_stream: AtomicU64::new(1),
                messages_dropped: AtomicU64::new(0),
                is_closed: watch::Sender::new(false),
            }),
        }
    }

    pub(super) fn load(&self, config: p4::ForwardingPipelineConfig) -> Result<(), Refusal> {
        self.shared.state.lock().load(config)
    }

    pub(super) fn counters(&self) -> ServerCounters {
        ServerCounters {
            stream_messages_dropped: self.shared.messages_dropped.load(Ordering::Relaxed),
        }
    }

    /// Ends all streams, and whatever waits for [`Self::closed`].
    pub(super) fn close(&self) {
        self.shared.is_closed.send_replace(true);
    }

    /// Returns once the service is closed.
    pub(super) async fn closed(&self) {
        let mut is_closed = self.shared.is_closed.subscribe();
        // The sender lives as long as the service.
        let _ = is_closed.wait_for(|is_closed| *is_closed).await;
    }

    /// Sends a frame of the CPU port to the primaries.
    pub(super) fn packet_in(&self, packet: &PacketIn) {
        let (config, primaries) = self.audience();
        let Some(config) = config else {
            return self.count_dropped();
        };
        let packet = match config.info.packet_in() {
            Some(header) => header.unpack(&packet.frame),
            None => Some(ControllerPacket::new(packet.frame.clone())),
        };
        let message = packet.and_then(|packet| config.info.encode_packet_in(&packet).ok());
        match message {
            Some(message) => self.send(&primaries, &Outgoing::Packet(message)),
            None => self.count_dropped(),
        }
    }

    /// Sends a digest list to the primaries.
    pub(super) fn digest(&self, list: &DigestList) {
        let (config, primaries) = self.audience();
        let message = config.and_then(|config| digest_message(&config, list, &self.shared.clock));
        match message {
            Some(message) => self.send(&primaries, &Outgoing::Digest(message)),
            None => self.count_dropped(),
        }
    }

    /// Tells the primaries that an entry was idle.
    pub(super) fn idle(&self, notification: &IdleNotification) {
        let (config, primaries) = self.audience();
        let message =
            config.and_then(|config| idle_message(&config, notification, &self.shared.clock));
        match message {
            Some(message) => self.send(&primaries, &Outgoing::IdleTimeoutNotification(message)),
            None => self.count_dropped(),
        }
    }

    fn audience(&self) -> (Option<Arc<Config>>, Vec<StreamId>) {
        let state = self.shared.state.lock();
        let primaries = state.arbitration.primaries().collect();
        (state.config().map(Arc::clone), primaries)
    }

    fn send(&self, streams: &[StreamId], update: &Outgoing) {
        if streams.is_empty() {
            return self.count_dropped();
        }
        for stream in streams {
            self.offer(*stream, update.clone());
        }
    }

    /// Never waits: what a slow controller does not take is dropped and counted.
    fn offer(&self, stream: StreamId, update: Outgoing) {
        let streams = self.shared.streams.lock();
        let message = p4::StreamMessageResponse {
            update: Some(update),
        };
        let is_sent = streams
            .get(&stream)
            .is_some_and(|sender| sender.try_send(Ok(message)).is_ok());
        if !is_sent {
            self.count_dropped();
        }
    }

    fn count_dropped(&self) {
        self.shared.messages_dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Serves a stream until either side ends it.
    async fn serve_stream(self, mut requests: Streaming<p4::StreamMessageRequest>, sender: Sender) {
        let stream = StreamId(self.shared.next_stream.fetch_add(1, Ordering::Relaxed));
        self.shared.streams.lock().insert(stream, sender.clone());
        let _guard = StreamGuard {
            service: self.clone(),
            stream,
        };
        loop {
            let request = tokio::select! {
                request = requests.next() => request,
                () = sender.closed() => return,
                () = self.closed() => return,
            };
            let Some(Ok(request)) = request else {
                return;
            };
            if let Err(status) = self.handle(stream, request) {
                // The client is gone if this fails: then it need not know.
                let _ = sender.send(Err(status)).await;
                return;
            }
        }
    }

    fn handle(&self, stream: StreamId, request: p4::StreamMessageRequest) -> Result<(), Status> {
        match request.update {
            Some(Incoming::Arbitration(update)) => self.arbitrate(stream, update),
            Some(Incoming::Packet(packet)) => {
                let details = packet.clone();
                if let Err(refusal) = self.packet_out(stream, packet) {
                    let details = Details::PacketOut(p4::PacketOutError {
                        packet_out: Some(details),
                    });
                    self.offer(stream, stream_error(&refusal, details));
                }
                Ok(())
            }
            Some(Incoming::DigestAck(ack)) => {
                if let Err(refusal) = self.acknowledge(stream, &ack) {
                    let details = Details::DigestListAck(p4::DigestListAckError {
                        digest_list_ack: Some(ack),
                    });
                    self.offer(stream, stream_error(&refusal, details));
                }
                Ok(())
            }
            Some(Incoming::Other(other)) => {
                let refusal = Refusal::unimplemented("there are no messages of other kinds");
                let details = Details::Other(p4::StreamOtherError { other: Some(other) });
                self.offer(stream, stream_error(&refusal, details));
                Ok(())
            }
            None => Err(Status::invalid_argument(
                "a stream message of no known kind",
            )),
        }
    }

    fn arbitrate(
        &self,
        stream: StreamId,
        update: p4::MasterArbitrationUpdate,
    ) -> Result<(), Status> {
        let mut state = self.shared.state.lock();
        state.check_device(update.device_id)?;
        let role = update.role.unwrap_or_default();
        if role.config.is_some() {
            return Err(Status::invalid_argument(
                "role configurations are not supported: leave it out for full access",
            ));
        }
        let election_id = update.election_id.as_ref().map(number);
        let told = state.arbitration.update(stream, &role.name, election_id);
        let told = told.map_err(|error| match error {
            ArbitrationError::ElectionIdUsed { .. } => Status::invalid_argument(error.to_string()),
            ArbitrationError::RoleChanged { .. } => Status::failed_precondition(error.to_string()),
            ArbitrationError::TooMany { .. } => Status::resource_exhausted(error.to_string()),
        })?;
        // Still under the lock: what controllers are told must be in the order of what happened.
        self.notify(told);
        Ok(())
    }

    fn notify(&self, notifications: Vec<Notification>) {
        for notification in notifications {
            let stream = notification.stream;
            let update = arbitration_message(self.shared.config.device_id, notification);
            self.offer(stream, Outgoing::Arbitration(update));
        }
    }

    fn packet_out(&self, stream: StreamId, message: p4::PacketOut) -> Result<(), Refusal> {
        let frame = {
            let state = self.shared.state.lock();
            check_stream(&state, stream)?;
            state.packet_out_frame(message)?
        };
        if !self
            .shared
            .switch
            .packet_out(&frame, self.shared.clock.now())
        {
            return Err(Refusal::new(
                Code::FailedPrecondition,
                "the switch has no CPU port",
            ));
        }
        Ok(())
    }

    fn acknowledge(&self, stream: StreamId, ack: &p4::DigestListAck) -> Result<(), Refusal> {
        let state = self.shared.state.lock();
        check_stream(&state, stream)?;
        state.acknowledge(ack)
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let mut state = self.service.shared.state.lock();
        self.service.shared.streams.lock().remove(&self.stream);
        let told = state.arbitration.leave(self.stream);
        self.service.notify(told);
    }
}

#[tonic::async_trait]
impl P4Runtime for Service {
    type ReadStream = Pin<Box<dyn Stream<Item = Result<p4::ReadResponse, Status>> + Send>>;
    type StreamChannelStream = ReceiverStream<Result<p4::StreamMessageResponse, Status>>;

    async fn write(
        &self,
        request: Request<p4::WriteRequest>,
    ) -> Result<Response<p4::WriteResponse>, Status> {
        let now = self.shared.clock.now();
        self.shared.state.lock().write(request.get_ref(), now)?;
        Ok(Response::new(p4::WriteResponse {}))
    }

    async fn read(
        &self,
        request: Request<p4::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let now = self.shared.clock.now();
        let entities = self.shared.state.lock().read(request.get_ref(), now)?;
        let messages = tokio_stream::iter(messages_of(entities)).map(Ok);
        Ok(Response::new(Box::pin(messages)))
    }

    async fn set_forwarding_pipeline_config(
        &self,
        request: Request<p4::SetForwardingPipelineConfigRequest>,
    ) -> Result<Response<p4::SetForwardingPipelineConfigResponse>, Status> {
        let request = request.into_inner();
        self.shared.state.lock().set_pipeline(request)?;
        Ok(Response::new(p4::SetForwardingPipelineConfigResponse {}))
    }

    async fn get_forwarding_pipeline_config(
        &self,
        request: Request<p4::GetForwardingPipelineConfigRequest>,
    ) -> Result<Response<p4::GetForwardingPipelineConfigResponse>, Status> {
        let response = self.shared.state.lock().get_pipeline(request.get_ref())?;
        Ok(Response::new(response))
    }

    async fn stream_channel(
        &self,
        request: Request<Streaming<p4::StreamMessageRequest>>,
    ) -> Result<Response<Self::StreamChannelStream>, Status> {
        let (sender, receiver) = mpsc::channel(self.shared.config.stream_capacity.max(1));
        tokio::spawn(self.clone().serve_stream(request.into_inner(), sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn capabilities(
        &self,
        request: Request<p4::CapabilitiesRequest>,
    ) -> Result<Response<p4::CapabilitiesResponse>, Status> {
        let device_id = request.get_ref().device_id;
        if device_id != 0 {
            self.shared.state.lock().check_device(device_id)?;
        }
        Ok(Response::new(p4::CapabilitiesResponse {
            p4runtime_api_version: API_VERSION.into(),
            experimental: None,
        }))
    }
}

fn check_stream(state: &State, stream: StreamId) -> Result<(), Refusal> {
    if state.arbitration.is_primary(stream) {
        return Ok(());
    }
    Err(Refusal::new(
        Code::PermissionDenied,
        "only a primary may send packets and acknowledge digests",
    ))
}

fn stream_error(refusal: &Refusal, details: Details) -> Outgoing {
    Outgoing::Error(p4::StreamError {
        canonical_code: refusal.code as i32,
        message: refusal.message.clone(),
        details: Some(details),
        ..p4::StreamError::default()
    })
}

fn arbitration_message(device_id: u64, notification: Notification) -> p4::MasterArbitrationUpdate {
    let (code, message) = match notification.standing {
        Standing::Primary => (Code::Ok, "primary"),
        Standing::Backup => (Code::AlreadyExists, "backup: another controller is primary"),
        Standing::BackupWithoutPrimary => (Code::NotFound, "backup: there is no primary"),
    };
    let role = (!notification.role.is_empty()).then(|| p4::Role {
        name: notification.role,
        ..p4::Role::default()
    });
    p4::MasterArbitrationUpdate {
        device_id,
        role,
        election_id: notification.election_id.map(|id| p4::Uint128 {
            high: (id >> 64) as u64,
            low: id as u64,
        }),
        status: Some(rpc::Status {
            code: code as i32,
            message: message.into(),
            details: Vec::new(),
        }),
    }
}

fn digest_message(config: &Config, list: &DigestList, clock: &Clock) -> Option<p4::DigestList> {
    let digest = config.info.digests().by_name(&list.digest).ok()?;
    let convert = |members: &Vec<crate::Value>| {
        let numbers: Vec<_> = members.iter().map(convert::bytestring).collect();
        digest.data_type.message_of_scalars(&numbers).ok()
    };
    Some(p4::DigestList {
        digest_id: digest.preamble.id,
        list_id: list.list_id,
        data: list.digests.iter().map(convert).collect::<Option<_>>()?,
        timestamp: clock.unix_nanoseconds(list.at),
    })
}

fn idle_message(
    config: &Config,
    notification: &IdleNotification,
    clock: &Clock,
) -> Option<p4::IdleTimeoutNotification> {
    let info = &config.info;
    let table = info.tables().by_name(&notification.table).ok()?;
    let entry = &notification.entry;
    let message = info.encode_table_entry(&flowradar_p4::entity::TableEntry {
        key: convert::entity_key(table, &entry.key),
        idle_timeout: entry.idle_timeout,
        metadata: entry.metadata.clone(),
        ..flowradar_p4::entity::TableEntry::new(table.preamble.name.as_str())
    });
    Some(p4::IdleTimeoutNotification {
        table_entry: vec![message.ok()?],
        timestamp: clock.unix_nanoseconds(notification.at),
    })
}

/// Cuts entities into messages; at least one, so that a client sees that nothing is there.
fn messages_of(entities: Vec<p4::Entity>) -> Vec<p4::ReadResponse> {
    let mut messages = vec![p4::ReadResponse::default()];
    let mut length = 0;
    for entity in entities {
        let entity_bytes = entity.encoded_len();
        if length + entity_bytes > READ_MESSAGE_BYTES && length > 0 {
            messages.push(p4::ReadResponse::default());
            length = 0;
        }
        length += entity_bytes;
        if let Some(message) = messages.last_mut() {
            message.entities.push(entity);
        }
    }
    messages
}
