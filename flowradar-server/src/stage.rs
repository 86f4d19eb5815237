//! The joints between stages.
//!
//! ```text
//! ingest ──Arrived──▶ grouping ──DecodeRequest──▶ decode ──DecodedEpoch──▶ storing, analyses, export
//!                        ▲─────────────── Feedback ──┴──────────────────────────┘
//! ```
//!
//! A stage knows its neighbours only by the messages it takes and gives, and the messages can be
//! serialized: bytes of flowsets stay in the journal and are named by their position. In one process the
//! joints are bounded queues ([`queue`]); a network larger than one machine puts a durable message
//! system behind the same two traits, partitioned by epoch.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

/// What can go from stage to stage.
pub trait Message: Serialize + DeserializeOwned + Send + 'static {}

impl<M: Serialize + DeserializeOwned + Send + 'static> Message for M {}

/// The other end is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the next stage has ended")]
pub struct StageEnded;

/// Gives messages to the next stage.
pub trait Giver<M: Message>: Clone + Send + Sync + 'static {
    /// Gives a message; waits while the next stage has too many.
    fn give(&self, message: M) -> impl Future<Output = Result<(), StageEnded>> + Send;

    /// Gives a message from a thread that may block.
    ///
    /// # Errors
    /// If the next stage has ended.
    fn give_blocking(&self, message: M) -> Result<(), StageEnded>;
}

/// Takes messages from the stage before.
pub trait Taker<M: Message>: Send + 'static {
    /// The next message; none if the stage before has ended.
    fn take(&mut self) -> impl Future<Output = Option<M>> + Send;
}

/// Gives messages to a stage of the same process.
#[derive(Debug)]
pub struct QueueGiver<M> {
    sender: mpsc::Sender<M>,
    depth: QueueDepth,
}

/// Takes messages from a stage of the same process.
#[derive(Debug)]
pub struct QueueTaker<M> {
    receiver: mpsc::Receiver<M>,
    depth: QueueDepth,
}

/// How many messages are in a queue.
#[derive(Clone, Debug, Default)]
pub struct QueueDepth(Arc<AtomicUsize>);

/// A queue between two stages of a process, for so many messages.
///
/// # Panics
/// If `messages_max` is zero.
pub fn queue<M: Message>(messages_max: usize) -> (QueueGiver<M>, QueueTaker<M>) {
    let (sender, receiver) = mpsc::channel(messages_max);
    let depth = QueueDepth::default();
    let giver = QueueGiver {
        sender,
        depth: depth.clone(),
    };
    (giver, QueueTaker { receiver, depth })
}

impl<M> QueueGiver<M> {
    /// A gauge of the queue's length.
    pub fn depth(&self) -> QueueDepth {
        self.depth.clone()
    }
}

impl QueueDepth {
    /// Messages in the queue, or waiting to be put into it.
    pub fn messages(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl<M> Clone for QueueGiver<M> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            depth: self.depth.clone(),
        }
    }
}

impl<M: Message> Giver<M> for QueueGiver<M> {
    async fn give(&self, message: M) -> Result<(), StageEnded> {
        let permit = self.sender.reserve().await.map_err(|_| StageEnded)?;
        self.depth.0.fetch_add(1, Ordering::Relaxed);
        permit.send(message);
        Ok(())
    }

    fn give_blocking(&self, message: M) -> Result<(), StageEnded> {
        self.depth.0.fetch_add(1, Ordering::Relaxed);
        self.sender.blocking_send(message).map_err(|_| StageEnded)
    }
}

impl<M: Message> Taker<M> for QueueTaker<M> {
    async fn take(&mut self) -> Option<M> {
        let message = self.receiver.recv().await;
        if message.is_some() {
            self.depth.0.fetch_sub(1, Ordering::Relaxed);
        }
        message
    }
}
