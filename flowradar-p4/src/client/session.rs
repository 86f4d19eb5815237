//! A controller's session with one switch.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::stream::{StreamOutputs, election_message, run};
use super::target::with_causes;
use super::{
    ClientError, ClientErrorReason, SessionCounters, SessionOptions, Standing, SwitchNotification,
    SwitchTarget,
};
use crate::P4Info;
use crate::packet::ControllerPacket;
use crate::proto::p4::v1 as p4;
use crate::proto::p4::v1::p4_runtime_client::P4RuntimeClient;
use crate::proto::p4::v1::stream_message_request::Update;

/// Messages to the switch that wait for the connection; more wait for a place.
const REQUEST_CAPACITY: usize = 1024;

/// A session with a switch: a connection, a stream, and what is known of the switch's program.
///
/// Dropped, it ends, and another controller may become primary.
#[derive(Debug)]
pub struct Session {
    target: Arc<SwitchTarget>,
    options: SessionOptions,
    election_id: Option<u128>,
    client: P4RuntimeClient<Channel>,
    requests: mpsc::Sender<p4::StreamMessageRequest>,
    outputs: StreamOutputs,
    task: JoinHandle<()>,
    info: Option<Arc<P4Info>>,
}

impl Session {
    /// Connects, and asks to be primary. Whether this became so, [`Self::standing`] says.
    ///
    /// # Errors
    ///
    /// If the address cannot be used, nobody answers in time, or the switch refuses arbitration.
    pub async fn connect(
        target: Arc<SwitchTarget>,
        options: SessionOptions,
    ) -> Result<Self, ClientError> {
        let limit = options.connect_timeout;
        let connecting = Self::connect_unlimited(Arc::clone(&target), options);
        let Ok(session) = tokio::time::timeout(limit, connecting).await else {
            let operation = "connecting";
            return Err(target.error(ClientErrorReason::Deadline { operation, limit }));
        };
        session
    }

    async fn connect_unlimited(
        target: Arc<SwitchTarget>,
        options: SessionOptions,
    ) -> Result<Self, ClientError> {
        let connect_error = |error: &dyn std::error::Error| {
            target.error(ClientErrorReason::Connect {
                address: target.address.clone(),
                reason: with_causes(error),
            })
        };
        let channel = target.endpoint(&options)?.connect().await;
        let channel = channel.map_err(|error| connect_error(&error))?;
        let mut client = P4RuntimeClient::new(channel)
            .max_decoding_message_size(options.message_max_bytes)
            .max_encoding_message_size(options.message_max_bytes);
        let (requests, receiver) = mpsc::channel(REQUEST_CAPACITY);
        // Before the stream is opened: some servers answer its headers only after the first message.
        let election_id = (!options.joins_as_backup).then_some(options.election_id);
        let first = arbitration(&target, &options, election_id);
        requests
            .try_send(first)
            .map_err(|_| stream_ended(&target))?;
        let responses = client.stream_channel(ReceiverStream::new(receiver)).await;
        let responses = responses.map_err(|status| connect_error(&status))?;
        let (task, outputs) = run(responses.into_inner(), &options);
        let mut session = Self {
            election_id,
            target,
            options,
            client,
            requests,
            outputs,
            task,
            info: None,
        };
        session.hear_standing().await?;
        Ok(session)
    }

    /// The switch.
    pub fn target(&self) -> &SwitchTarget {
        &self.target
    }

    /// How the session behaves.
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// This controller's election id; none if it joined as a backup.
    pub fn election_id(&self) -> Option<u128> {
        self.election_id
    }

    /// What this controller is to the switch now.
    pub fn standing(&self) -> Standing {
        self.outputs.standing.borrow().clone()
    }

    /// Waits until this controller's standing changes.
    pub async fn standing_changed(&mut self) -> Standing {
        // An error means that the stream's task is gone, which has left its last word.
        let _ = self.outputs.standing.changed().await;
        self.standing()
    }

    /// What the session has lost.
    pub fn counters(&self) -> SessionCounters {
        let counters = &self.outputs.counters;
        SessionCounters {
            packet_ins: counters.packet_ins.load(Ordering::Relaxed),
            packet_ins_dropped: counters.packet_ins_dropped.load(Ordering::Relaxed),
            notifications_dropped: counters.notifications_dropped.load(Ordering::Relaxed),
        }
    }

    /// Fails if this controller is not primary.
    ///
    /// # Errors
    ///
    /// If another controller is primary, or nobody, or the stream has ended.
    pub fn check_primary(&self) -> Result<(), ClientError> {
        let reason = match self.standing() {
            Standing::Primary => return Ok(()),
            Standing::Unknown => ClientErrorReason::NotPrimary {
                own: self.election_id,
                highest: None,
            },
            Standing::Backup { highest, .. } => ClientErrorReason::NotPrimary {
                own: self.election_id,
                highest,
            },
            Standing::Ended { reason } => ClientErrorReason::StreamEnded { reason },
        };
        Err(self.target.error(reason))
    }

    /// Becomes primary in the place of whoever is, with an election id above the highest that the switch
    /// has seen, and not below that of the options.
    ///
    /// # Errors
    ///
    /// If the switch does not agree, or does not answer in time.
    pub async fn take_over(&mut self) -> Result<(), ClientError> {
        /// Others may be taking over as well; one of them ends with the highest.
        const ATTEMPTS: usize = 8;

        for _ in 0..ATTEMPTS {
            let highest = match self.standing() {
                Standing::Primary => return Ok(()),
                Standing::Backup { highest, .. } => highest.unwrap_or(0),
                Standing::Unknown => 0,
                Standing::Ended { .. } => return self.check_primary(),
            };
            let own = self.election_id.unwrap_or(0);
            self.election_id = Some(
                highest
                    .max(own)
                    .saturating_add(1)
                    .max(self.options.election_id),
            );
            let message = arbitration(&self.target, &self.options, self.election_id);
            self.outputs.standing.mark_unchanged();
            self.send(message).await?;
            self.hear_standing().await?;
        }
        self.check_primary()
    }

    /// The switch's program, once it is known.
    ///
    /// # Errors
    ///
    /// If it is not known yet.
    pub fn info(&self) -> Result<&Arc<P4Info>, ClientError> {
        let info = self.info.as_ref();
        info.ok_or_else(|| self.target.error(ClientErrorReason::NoPipeline))
    }

    /// Says what the switch's program is.
    pub fn set_info(&mut self, info: Arc<P4Info>) {
        self.info = Some(info);
    }

    /// Sends a packet to the switch; waits if the connection is slow.
    ///
    /// # Errors
    ///
    /// If the program's header has no such fields, or the stream has ended.
    pub async fn send_packet(&self, packet: &ControllerPacket) -> Result<(), ClientError> {
        let message = self.info()?.encode_packet_out(packet);
        let message = message.map_err(|error| self.target.error(error))?;
        self.send(p4::StreamMessageRequest {
            update: Some(Update::Packet(message)),
        })
        .await
    }

    /// The next packet from the switch; waits for one.
    ///
    /// # Errors
    ///
    /// If its header is not what the program says, or the stream has ended.
    pub async fn next_packet(&mut self) -> Result<ControllerPacket, ClientError> {
        let info = Arc::clone(self.info()?);
        match self.outputs.packet_ins.recv().await {
            Some(message) => info
                .decode_packet_in(message)
                .map_err(|error| self.target.error(error)),
            None => Err(self.ended()),
        }
    }

    /// The next digest, idle timeout or error of the switch; waits for one.
    ///
    /// # Errors
    ///
    /// If the stream has ended.
    pub async fn next_notification(&mut self) -> Result<SwitchNotification, ClientError> {
        let notification = self.outputs.notifications.recv().await;
        notification.ok_or_else(|| self.ended())
    }

    /// Acknowledges digests: what they held may be sent again.
    ///
    /// # Errors
    ///
    /// If the stream has ended.
    pub async fn acknowledge(&self, list: &p4::DigestList) -> Result<(), ClientError> {
        self.send(p4::StreamMessageRequest {
            update: Some(Update::DigestAck(p4::DigestListAck {
                digest_id: list.digest_id,
                list_id: list.list_id,
            })),
        })
        .await
    }

    /// Runs a request, for as long as a request may take.
    pub(super) async fn request<M, R, F>(
        &self,
        operation: &'static str,
        message: M,
        call: impl FnOnce(P4RuntimeClient<Channel>, Request<M>) -> F,
    ) -> Result<Result<R, Status>, ClientError>
    where
        F: Future<Output = Result<R, Status>>,
    {
        let limit = self.options.request_timeout;
        let mut request = Request::new(message);
        request.set_timeout(limit);
        // A little longer than the switch is given, whose own words say more.
        let patience = limit + Duration::from_millis(200);
        let call = call(self.client.clone(), request);
        let answer = tokio::time::timeout(patience, call).await;
        answer.map_err(|_| {
            self.target
                .error(ClientErrorReason::Deadline { operation, limit })
        })
    }

    pub(super) fn error(&self, reason: impl Into<ClientErrorReason>) -> ClientError {
        self.target.error(reason)
    }

    pub(super) fn refused(&self, operation: &'static str, status: &Status) -> ClientError {
        self.target.error(ClientErrorReason::Refused {
            operation,
            code: status.code(),
            message: status.message().to_owned(),
        })
    }

    async fn send(&self, message: p4::StreamMessageRequest) -> Result<(), ClientError> {
        let sent = self.requests.send(message).await;
        sent.map_err(|_| self.ended())
    }

    /// Waits until the switch says what this controller is.
    async fn hear_standing(&mut self) -> Result<(), ClientError> {
        let limit = self.options.connect_timeout;
        let changed = self.outputs.standing.changed();
        if tokio::time::timeout(limit, changed).await.is_err() {
            let operation = "arbitration";
            return Err(self.error(ClientErrorReason::Deadline { operation, limit }));
        }
        match self.standing() {
            Standing::Ended { .. } => Err(self.ended()),
            Standing::Primary | Standing::Backup { .. } | Standing::Unknown => Ok(()),
        }
    }

    fn ended(&self) -> ClientError {
        match self.standing() {
            Standing::Ended { reason } => self.error(ClientErrorReason::StreamEnded { reason }),
            Standing::Unknown | Standing::Primary | Standing::Backup { .. } => {
                stream_ended(&self.target)
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn arbitration(
    target: &SwitchTarget,
    options: &SessionOptions,
    election_id: Option<u128>,
) -> p4::StreamMessageRequest {
    p4::StreamMessageRequest {
        update: Some(Update::Arbitration(p4::MasterArbitrationUpdate {
            device_id: target.device_id,
            role: options.role.as_ref().map(|name| p4::Role {
                name: name.clone(),
                ..p4::Role::default()
            }),
            election_id: election_id.map(election_message),
            status: None,
        })),
    }
}

fn stream_ended(target: &SwitchTarget) -> ClientError {
    target.error(ClientErrorReason::StreamEnded {
        reason: "the connection was lost".into(),
    })
}
