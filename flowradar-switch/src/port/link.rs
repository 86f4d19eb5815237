//! Links in memory, between two switches or a switch and a test.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{FrameBatch, PortCounters, PortReceiver, PortSender};

/// One direction of a link: at most `capacity` frames are on it; more are dropped and counted.
///
/// ```
/// use flowradar_switch::port::{PortSender, link};
///
/// let (mut sender, receiver) = link(1);
/// sender.send(b"one");
/// sender.send(b"two");
/// assert_eq!(receiver.try_receive(), Some(b"one".to_vec()));
/// assert_eq!(receiver.try_receive(), None);
/// assert_eq!(sender.counters().statistics().dropped_out, 1);
/// ```
pub fn link(capacity: usize) -> (LinkSender, LinkReceiver) {
    let queue = Arc::new(Queue {
        capacity,
        ..Queue::default()
    });
    let sender = LinkSender {
        queue: Arc::clone(&queue),
        counters: PortCounters::default(),
    };
    (
        sender,
        LinkReceiver {
            queue,
            counters: PortCounters::default(),
        },
    )
}

/// The end of a link that frames go into.
#[derive(Debug)]
pub struct LinkSender {
    queue: Arc<Queue>,
    counters: PortCounters,
}

/// The end of a link that frames come out of.
#[derive(Debug)]
pub struct LinkReceiver {
    queue: Arc<Queue>,
    counters: PortCounters,
}

#[derive(Debug, Default)]
struct Queue {
    capacity: usize,
    state: Mutex<State>,
    has_changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Vec<u8>>,
    is_closed: bool,
}

impl LinkSender {
    /// What was sent and dropped.
    pub fn counters(&self) -> &PortCounters {
        &self.counters
    }
}

impl PortSender for LinkSender {
    fn send(&mut self, frame: &[u8]) {
        let mut state = self.queue.state.lock();
        if state.is_closed || state.frames.len() >= self.queue.capacity {
            self.counters.count_dropped_out();
            return;
        }
        state.frames.push_back(frame.to_vec());
        self.counters.count_out(frame.len());
        drop(state);
        self.queue.has_changed.notify_one();
    }
}

impl Drop for LinkSender {
    fn drop(&mut self) {
        self.queue.state.lock().is_closed = true;
        self.queue.has_changed.notify_all();
    }
}

impl LinkReceiver {
    /// What was received.
    pub fn counters(&self) -> &PortCounters {
        &self.counters
    }

    /// The next frame, if there is one.
    pub fn try_receive(&self) -> Option<Vec<u8>> {
        let frame = self.queue.state.lock().frames.pop_front()?;
        self.counters.count_in(frame.len());
        Some(frame)
    }
}

impl PortReceiver for LinkReceiver {
    fn receive(
        &mut self,
        batch: &mut FrameBatch,
        limit: usize,
        timeout: Duration,
    ) -> io::Result<()> {
        let mut state = self.queue.state.lock();
        if state.frames.is_empty() && !state.is_closed {
            self.queue.has_changed.wait_for(&mut state, timeout);
        }
        if state.frames.is_empty() && state.is_closed {
            return Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the link's other end is gone",
            ));
        }
        for _ in 0..limit {
            let Some(frame) = state.frames.pop_front() else {
                break;
            };
            self.counters.count_in(frame.len());
            batch.push(&frame);
        }
        Ok(())
    }
}

impl Drop for LinkReceiver {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        state.is_closed = true;
        state.frames.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_in_order_until_the_sender_is_gone() {
        let (mut sender, mut receiver) = link(10);
        for frame in [[1], [2], [3]] {
            sender.send(&frame);
        }
        let mut batch = FrameBatch::default();
        receiver
            .receive(&mut batch, 2, Duration::ZERO)
            .expect("the sender is there");
        assert_eq!(batch.frames().collect::<Vec<_>>(), [[1], [2]]);
        drop(sender);
        batch.clear();
        receiver
            .receive(&mut batch, 2, Duration::ZERO)
            .expect("there is a frame left");
        assert_eq!(batch.frames().collect::<Vec<_>>(), [[3]]);
        assert!(receiver.receive(&mut batch, 2, Duration::ZERO).is_err());
        assert_eq!(receiver.counters().statistics().frames_in, 3);
    }

    #[test]
    fn without_a_receiver_everything_is_dropped() {
        let (mut sender, receiver) = link(10);
        drop(receiver);
        sender.send(&[1]);
        let statistics = sender.counters().statistics();
        assert_eq!((statistics.frames_out, statistics.dropped_out), (0, 1));
    }
}
