//! Ships a spool over gRPC.

use std::fs;
use std::io;
use std::time::Duration;

use flowradar_core::flowset::SwitchName;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::spool::Spool;
use crate::ingest::proto::collector_client::CollectorClient;
use crate::ingest::proto::{
    AgentMessage, FlowsetChunk, FlowsetStart, Register, Registered, Skip, agent_message,
    collector_message,
};
use crate::ingest::{PROTOCOL_VERSION, Secret};

/// Bytes of a flowset in one message.
const CHUNK_BYTES: usize = 256 << 10;
/// Messages on their way into the stream.
const MESSAGES_MAX: usize = 4;

/// How a spool is shipped.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The switch.
    pub switch: SwitchName,
    /// The switch's token, where the collector wants one.
    pub token: Option<Secret>,
    /// What the switch is like, for people.
    pub description: String,
    /// Where its ports lead.
    pub links: Vec<crate::journal::Link>,
    /// Shortest time until a connection is tried again after one has failed; doubled up to 64 times.
    pub retry: Duration,
}

/// Why a spool is not shipped any further, or not just now.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The collector has other ideas.
    #[error("the collector ended the stream ({:?}): {}", .0.code(), .0.message())]
    Collector(Box<Status>),
    /// The collector was not reached.
    #[error("the collector cannot be reached: {0}")]
    Connect(String),
    /// The stream ended without a word.
    #[error("the collector ended the stream")]
    Ended,
    /// The spool cannot be read or written.
    #[error("the spool: {0}")]
    Spool(#[from] io::Error),
    /// The token cannot stand in a header.
    #[error("the token has characters that cannot be sent: use visible ASCII")]
    Token,
}

/// What an agent has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentProgress {
    /// It registered; the collector has the spool up to this number.
    Registered {
        /// The number.
        durable_sequence: u64,
    },
    /// Flowsets up to this number are durable at the collector.
    Acknowledged {
        /// The number.
        sequence: u64,
    },
    /// The collector does not take a flowset. It counts as acknowledged.
    Rejected {
        /// Its number.
        sequence: u64,
        /// Why.
        reason: String,
    },
    /// The stream broke; another attempt is made.
    Failed {
        /// Why.
        error: String,
        /// When.
        retry_in: Duration,
    },
}

/// Ships a spool, for ever: what is in it, and what is put into it. Connects again when it must.
///
/// # Errors
/// If the collector refuses the switch ([`tonic::Code::PermissionDenied`]), or the spool cannot be read:
/// trying again would not help.
pub async fn ship(
    channel: Channel,
    options: AgentOptions,
    spool: Spool,
    mut progress: impl FnMut(AgentProgress),
) -> Result<(), AgentError> {
    let mut failures = 0u32;
    loop {
        let mut registered = false;
        let outcome = session(&channel, &options, &spool, &mut |event| {
            registered |= matches!(event, AgentProgress::Registered { .. });
            progress(event);
        })
        .await;
        let error = match outcome {
            Ok(never) => match never {},
            Err(error) => error,
        };
        let hopeless = match &error {
            AgentError::Collector(status) => matches!(
                status.code(),
                tonic::Code::PermissionDenied
                    | tonic::Code::Unauthenticated
                    | tonic::Code::InvalidArgument
            ),
            AgentError::Spool(_) | AgentError::Token => true,
            AgentError::Connect(_) | AgentError::Ended => false,
        };
        if hopeless {
            return Err(error);
        }
        failures = if registered { 0 } else { failures + 1 };
        let retry_in = options.retry * (1 << failures.min(6));
        progress(AgentProgress::Failed {
            error: error.to_string(),
            retry_in,
        });
        tokio::time::sleep(retry_in).await;
    }
}

/// One stream, from registration until it breaks.
async fn session(
    channel: &Channel,
    options: &AgentOptions,
    spool: &Spool,
    progress: &mut impl FnMut(AgentProgress),
) -> Result<std::convert::Infallible, AgentError> {
    let (messages, receiver) = mpsc::channel(MESSAGES_MAX);
    let mut request = Request::new(ReceiverStream::new(receiver));
    if let Some(token) = &options.token {
        let value = AsciiMetadataValue::try_from(format!("Bearer {}", token.reveal()))
            .map_err(|_| AgentError::Token)?;
        request.metadata_mut().insert("authorization", value);
    }
    let register = Register {
        version: PROTOCOL_VERSION,
        switch: options.switch.to_string(),
        spool: spool.id(),
        first_sequence: spool.first_sequence(),
        description: options.description.clone(),
        links: links(options),
    };
    send(&messages, agent_message::Message::Register(register)).await?;
    let mut client = CollectorClient::new(channel.clone());
    let mut inbound = client.ship(request).await.map_err(failed)?.into_inner();
    let first = inbound.message().await.map_err(failed)?;
    let Some(collector_message::Message::Registered(registered)) =
        first.and_then(|message| message.message)
    else {
        return Err(AgentError::Ended);
    };
    let durable_sequence = registered.durable_sequence;
    acknowledge(spool, durable_sequence).await?;
    progress(AgentProgress::Registered { durable_sequence });

    let window = tokio::sync::Semaphore::new(registered.window.max(1) as usize);
    let receive = async {
        loop {
            let message = inbound.message().await.map_err(failed)?;
            let message = message
                .and_then(|message| message.message)
                .ok_or(AgentError::Ended)?;
            match message {
                collector_message::Message::Acknowledged(acknowledged) => {
                    let sequence = acknowledged.sequence;
                    acknowledge(spool, sequence).await?;
                    progress(AgentProgress::Acknowledged { sequence });
                }
                collector_message::Message::Rejected(rejected) => {
                    acknowledge(spool, rejected.sequence).await?;
                    progress(AgentProgress::Rejected {
                        sequence: rejected.sequence,
                        reason: rejected.reason,
                    });
                }
                collector_message::Message::Registered(_) => continue,
            }
            window.add_permits(1);
        }
    };
    let send = send_flowsets(spool, &registered, &messages, &window);
    // Whichever ends first has failed.
    tokio::select! {
        received = receive => received,
        sent = send => sent,
    }
}

/// Sends what is in the spool, and what comes.
async fn send_flowsets(
    spool: &Spool,
    registered: &Registered,
    messages: &mpsc::Sender<AgentMessage>,
    window: &tokio::sync::Semaphore,
) -> Result<std::convert::Infallible, AgentError> {
    let mut sent = registered.durable_sequence.max(spool.first_sequence() - 1);
    loop {
        let Some(spooled) = spool.after(sent) else {
            spool.filled().await;
            continue;
        };
        // Numbers are given without gaps: one is there if somebody took a file away.
        for sequence in sent + 1..spooled.sequence {
            permit(window).await?;
            let reason = "its file is gone".to_owned();
            send(
                messages,
                agent_message::Message::Skip(Skip { sequence, reason }),
            )
            .await?;
        }
        permit(window).await?;
        sent = spooled.sequence;
        let path = spooled.path.clone();
        let read = tokio::task::spawn_blocking(move || fs::read(path)).await;
        let bytes = match read.map_err(|_| AgentError::Ended)? {
            Ok(bytes) => bytes,
            Err(error) => {
                let skip = Skip {
                    sequence: sent,
                    reason: error.to_string(),
                };
                send(messages, agent_message::Message::Skip(skip)).await?;
                continue;
            }
        };
        let start = FlowsetStart {
            sequence: sent,
            bytes: bytes.len() as u64,
        };
        send(messages, agent_message::Message::Start(start)).await?;
        let mut bytes = tonic::codegen::Bytes::from(bytes);
        while !bytes.is_empty() {
            let chunk = FlowsetChunk {
                bytes: bytes.split_to(bytes.len().min(CHUNK_BYTES)),
            };
            send(messages, agent_message::Message::Chunk(chunk)).await?;
        }
    }
}

async fn permit(window: &tokio::sync::Semaphore) -> Result<(), AgentError> {
    let permit = window.acquire().await.map_err(|_| AgentError::Ended)?;
    permit.forget();
    Ok(())
}

async fn acknowledge(spool: &Spool, sequence: u64) -> Result<(), AgentError> {
    let spool = spool.clone();
    tokio::task::spawn_blocking(move || spool.acknowledge(sequence))
        .await
        .map_err(|_| AgentError::Ended)??;
    Ok(())
}

async fn send(
    messages: &mpsc::Sender<AgentMessage>,
    message: agent_message::Message,
) -> Result<(), AgentError> {
    let message = AgentMessage {
        message: Some(message),
    };
    messages.send(message).await.map_err(|_| AgentError::Ended)
}

fn links(options: &AgentOptions) -> Vec<crate::ingest::proto::Link> {
    let links = options.links.iter();
    links
        .map(|link| crate::ingest::proto::Link {
            port: link.port,
            neighbor: link.neighbor.clone(),
            neighbor_port: link.neighbor_port,
        })
        .collect()
}

fn failed(status: Status) -> AgentError {
    // What the transport says of a collector that is not there.
    if status.code() == tonic::Code::Unavailable {
        AgentError::Connect(status.message().to_owned())
    } else {
        AgentError::Collector(Box::new(status))
    }
}
