//! A session's stream: arbitration, packets, digests, notifications.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, watch};
use tonic::{Code, Streaming};

use super::SessionOptions;
use crate::proto::p4::v1 as p4;
use crate::proto::p4::v1::stream_message_response::Update;

/// What a controller is to a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The switch has not said yet.
    Unknown,
    /// It may write.
    Primary,
    /// It may only read.
    Backup {
        /// Whether there is a primary at all.
        has_primary: bool,
        /// The highest election id that the switch has seen.
        highest: Option<u128>,
    },
    /// The stream has ended.
    Ended {
        /// The switch's reason, if it gave one.
        reason: String,
    },
}

/// What did not reach the program that uses a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounters {
    /// Packets that came in.
    pub packet_ins: u64,
    /// Packets that were dropped since they were not taken quickly enough.
    pub packet_ins_dropped: u64,
    /// Digests, idle timeouts and errors that were dropped for the same reason.
    pub notifications_dropped: u64,
}

/// What a switch says on its own.
#[derive(Clone, Debug, PartialEq)]
pub enum SwitchNotification {
    /// Digests.
    Digests(p4::DigestList),
    /// Entries that nothing matched for long.
    Idle(p4::IdleTimeoutNotification),
    /// A packet or acknowledgement was refused.
    Error(p4::StreamError),
}

#[derive(Debug, Default)]
pub(super) struct AtomicCounters {
    pub(super) packet_ins: AtomicU64,
    pub(super) packet_ins_dropped: AtomicU64,
    pub(super) notifications_dropped: AtomicU64,
}

/// What the stream's task gives to the session.
#[derive(Debug)]
pub(super) struct StreamOutputs {
    pub(super) standing: watch::Receiver<Standing>,
    pub(super) packet_ins: mpsc::Receiver<p4::PacketIn>,
    pub(super) notifications: mpsc::Receiver<SwitchNotification>,
    pub(super) counters: Arc<AtomicCounters>,
}

struct StreamInputs {
    standing: watch::Sender<Standing>,
    packet_ins: mpsc::Sender<p4::PacketIn>,
    notifications: mpsc::Sender<SwitchNotification>,
    counters: Arc<AtomicCounters>,
}

/// Takes in what a switch sends, never waiting for whoever uses it: what finds its queue full is
/// dropped and counted, so that arbitration is always heard.
pub(super) fn run(
    mut responses: Streaming<p4::StreamMessageResponse>,
    options: &SessionOptions,
) -> (tokio::task::JoinHandle<()>, StreamOutputs) {
    let (standing_sender, standing) = watch::channel(Standing::Unknown);
    let (packet_sender, packet_ins) = mpsc::channel(options.packet_in_capacity.max(1));
    let (notification_sender, notifications) = mpsc::channel(options.notification_capacity.max(1));
    let counters = Arc::new(AtomicCounters::default());
    let inputs = StreamInputs {
        standing: standing_sender,
        packet_ins: packet_sender,
        notifications: notification_sender,
        counters: Arc::clone(&counters),
    };
    let task = tokio::spawn(async move {
        let reason = loop {
            match responses.message().await {
                Ok(Some(message)) => inputs.take(message),
                Ok(None) => break "the switch has closed it".to_owned(),
                Err(status) => break format!("{:?}: {}", status.code(), status.message()),
            }
        };
        inputs.standing.send_replace(Standing::Ended { reason });
    });
    let outputs = StreamOutputs {
        standing,
        packet_ins,
        notifications,
        counters,
    };
    (task, outputs)
}

impl StreamInputs {
    fn take(&self, message: p4::StreamMessageResponse) {
        match message.update {
            Some(Update::Arbitration(update)) => {
                self.standing.send_replace(standing(&update));
            }
            Some(Update::Packet(packet)) => {
                self.counters.packet_ins.fetch_add(1, Ordering::Relaxed);
                if self.packet_ins.try_send(packet).is_err() {
                    self.counters
                        .packet_ins_dropped
                        .fetch_add(1, Ordering::Relaxed);
                }
            }
            Some(Update::Digest(list)) => self.notify(SwitchNotification::Digests(list)),
            Some(Update::IdleTimeoutNotification(idle)) => {
                self.notify(SwitchNotification::Idle(idle));
            }
            Some(Update::Error(error)) => self.notify(SwitchNotification::Error(error)),
            // Of extensions that nobody here has asked for.
            Some(Update::Other(_)) | None => {}
        }
    }

    fn notify(&self, notification: SwitchNotification) {
        if self.notifications.try_send(notification).is_err() {
            self.counters
                .notifications_dropped
                .fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn standing(update: &p4::MasterArbitrationUpdate) -> Standing {
    let code = update.status.as_ref().map_or(0, |status| status.code);
    match Code::from_i32(code) {
        Code::Ok => Standing::Primary,
        code => Standing::Backup {
            has_primary: code == Code::AlreadyExists,
            highest: update.election_id.as_ref().map(election_id),
        },
    }
}

pub(super) fn election_id(id: &p4::Uint128) -> u128 {
    u128::from(id.high) << 64 | u128::from(id.low)
}

pub(super) fn election_message(id: u128) -> p4::Uint128 {
    p4::Uint128 {
        high: (id >> 64) as u64,
        low: id as u64,
    }
}
