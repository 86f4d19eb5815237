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
use tokio::sync::{Semaphore, mpsc};

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
}

/// Takes messages from the stage before.
pub trait Taker<M: Message>: Send + 'static {
    /// The next message; none if the stage before has ended.
    fn take(&mut self) -> impl Future<Output = Option<M>> + Send;
}

/// Gives messages to a stage of the same process.
#[derive(Debug)]
pub struct QueueGiver<M> {
    sender: mpsc::Sender<(M, u32)>,
    depth: QueueDepth,
    weight: Weight<M>,
}

/// Takes messages from a stage of the same process.
#[derive(Debug)]
pub struct QueueTaker<M> {
    receiver: mpsc::Receiver<(M, u32)>,
    depth: QueueDepth,
    room: Arc<Semaphore>,
}

/// What messages weigh, and how much room there is for them.
#[derive(Debug)]
struct Weight<M> {
    of: fn(&M) -> usize,
    max: u32,
    room: Arc<Semaphore>,
}

/// How many messages are in a queue.
#[derive(Clone, Debug, Default)]
pub struct QueueDepth(Arc<AtomicUsize>);

/// A queue between two stages of a process, for so many messages.
///
/// # Panics
/// If `messages_max` is zero.
pub fn queue<M: Message>(messages_max: usize) -> (QueueGiver<M>, QueueTaker<M>) {
    weighted_queue(messages_max, u32::MAX >> 1, |_| 0)
}

/// A queue between two stages of a process, for so many messages that do not weigh more than `weight_max`
/// together; a heavier one is taken when nothing else is in the queue.
///
/// For messages of very different sizes: a few large ones take as much memory as many small ones, and of the
/// small ones many may come while the next stage is busy with something else.
///
/// # Panics
/// If `messages_max` is zero.
pub fn weighted_queue<M: Message>(
    messages_max: usize,
    weight_max: u32,
    weight_of: fn(&M) -> usize,
) -> (QueueGiver<M>, QueueTaker<M>) {
    let (sender, receiver) = mpsc::channel(messages_max);
    let depth = QueueDepth::default();
    let room = Arc::new(Semaphore::new(weight_max as usize));
    let giver = QueueGiver {
        sender,
        depth: depth.clone(),
        weight: Weight {
            of: weight_of,
            max: weight_max,
            room: Arc::clone(&room),
        },
    };
    let taker = QueueTaker {
        receiver,
        depth,
        room,
    };
    (giver, taker)
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
            weight: Weight {
                of: self.weight.of,
                max: self.weight.max,
                room: Arc::clone(&self.weight.room),
            },
        }
    }
}

impl<M: Message> Giver<M> for QueueGiver<M> {
    async fn give(&self, message: M) -> Result<(), StageEnded> {
        let weight = u32::try_from((self.weight.of)(&message)).unwrap_or(u32::MAX);
        let weight = weight.min(self.weight.max);
        let room = self.weight.room.acquire_many(weight).await;
        let permit = self.sender.reserve().await.map_err(|_| StageEnded)?;
        // The taker gives it back.
        room.map_err(|_| StageEnded)?.forget();
        self.depth.0.fetch_add(1, Ordering::Relaxed);
        permit.send((message, weight));
        Ok(())
    }
}

impl<M> Drop for QueueTaker<M> {
    fn drop(&mut self) {
        // Whoever waits for room waits in vain.
        self.room.close();
    }
}

impl<M: Message> Taker<M> for QueueTaker<M> {
    async fn take(&mut self) -> Option<M> {
        let (message, weight) = self.receiver.recv().await?;
        self.depth.0.fetch_sub(1, Ordering::Relaxed);
        self.room.add_permits(weight as usize);
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Gives messages, of which each weighs what it is, until the next one would have to wait.
    async fn fill(giver: &QueueGiver<u64>, messages: &[u64]) -> usize {
        for (place, message) in messages.iter().enumerate() {
            let given = tokio::time::timeout(Duration::ZERO, giver.give(*message)).await;
            if given.is_err() {
                return place;
            }
        }
        messages.len()
    }

    #[tokio::test]
    async fn queues_are_bounded_by_number_and_by_weight() {
        let weight_of = |message: &u64| *message as usize;
        let (giver, mut taker) = weighted_queue(4, 10, weight_of);
        assert_eq!(fill(&giver, &[1, 1, 1, 1, 1]).await, 4);
        for _ in 0..4 {
            taker.take().await;
        }
        assert_eq!(fill(&giver, &[4, 4, 4]).await, 2);
        assert_eq!(giver.depth().messages(), 2);
        assert_eq!(taker.take().await, Some(4));
        assert_eq!(fill(&giver, &[6, 1]).await, 1);
        for _ in 0..2 {
            taker.take().await;
        }
        // One that is too heavy comes through alone.
        assert_eq!(fill(&giver, &[1_000, 1]).await, 1);
        assert_eq!(taker.take().await, Some(1_000));
        assert_eq!(fill(&giver, &[10]).await, 1);
        let waiting = giver.clone();
        let waiting = tokio::spawn(async move { waiting.give(1).await });
        tokio::task::yield_now().await;
        drop(taker);
        assert_eq!(waiting.await.expect("it does not panic"), Err(StageEnded));
    }
}
