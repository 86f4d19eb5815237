//! One bounded queue for each destination: batches of datagrams, from workers to a sender.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::engine::Outgoing;

/// Datagrams back to back. Its memory is used again and again.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) entries: Vec<Entry>,
}

/// A datagram of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) length: usize,
    pub(crate) records: u32,
    pub(crate) source: SocketAddr,
}

impl Batch {
    pub(crate) fn push(&mut self, message: Outgoing<'_>) {
        message.append_to(&mut self.bytes);
        self.entries.push(Entry {
            length: message.bytes.len(),
            records: message.records,
            source: message.source,
        });
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }
}

/// Batches that were sent and keep their memory for the next.
const FREE_BATCHES: usize = 8;

/// A queue that holds so many bytes and drops what is more, batch by batch.
#[derive(Debug)]
pub(crate) struct SendQueue {
    state: Mutex<State>,
    wake: Condvar,
    limit_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Batch>,
    free: Vec<Batch>,
    bytes: usize,
    is_closed: bool,
    dropped_datagrams: u64,
    dropped_records: u64,
}

/// What there is to do for a sender.
pub(crate) enum Next {
    /// Datagrams.
    Batch(Batch),
    /// Nothing came in time.
    Idle,
    /// Nothing will come any more.
    Closed,
}

impl SendQueue {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self {
            state: Mutex::new(State::default()),
            wake: Condvar::new(),
            limit_bytes,
        }
    }

    /// Takes the datagrams of a batch, which is empty afterwards.
    pub(crate) fn push(&self, batch: &mut Batch) {
        if batch.entries.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        if state.is_closed || state.bytes + batch.bytes.len() > self.limit_bytes {
            state.dropped_datagrams += batch.entries.len() as u64;
            state.dropped_records += batch
                .entries
                .iter()
                .map(|entry| u64::from(entry.records))
                .sum::<u64>();
            drop(state);
            batch.clear();
            return;
        }
        state.bytes += batch.bytes.len();
        let empty = state.free.pop().unwrap_or_default();
        state.ready.push_back(std::mem::replace(batch, empty));
        drop(state);
        self.wake.notify_one();
    }

    /// The next batch, after waiting for it so long.
    pub(crate) fn pop(&self, timeout: Duration) -> Next {
        let mut state = self.state.lock();
        if state.ready.is_empty() && !state.is_closed {
            self.wake.wait_for(&mut state, timeout);
        }
        match state.ready.pop_front() {
            Some(batch) => {
                state.bytes -= batch.bytes.len();
                Next::Batch(batch)
            }
            None if state.is_closed => Next::Closed,
            None => Next::Idle,
        }
    }

    /// Gives a batch's memory back.
    pub(crate) fn recycle(&self, mut batch: Batch) {
        batch.clear();
        let mut state = self.state.lock();
        if state.free.len() < FREE_BATCHES {
            state.free.push(batch);
        }
    }

    /// Nothing more is taken; what is there goes out.
    pub(crate) fn close(&self) {
        self.state.lock().is_closed = true;
        self.wake.notify_all();
    }

    /// Bytes in the queue.
    pub(crate) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    pub(crate) fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// Datagrams and records that found no room.
    pub(crate) fn dropped(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.dropped_datagrams, state.dropped_records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(length: usize) -> Batch {
        let mut batch = Batch::default();
        batch.push(Outgoing {
            bytes: &vec![7; length],
            sequence: Some((0, 0x0102_0304)),
            domain: None,
            source: "192.0.2.1:1".parse().expect("a socket"),
            records: 3,
        });
        batch
    }

    #[test]
    fn what_is_too_much_is_dropped_and_counted() {
        let queue = SendQueue::new(25);
        queue.push(&mut batch(10));
        queue.push(&mut batch(10));
        queue.push(&mut batch(10));
        assert_eq!(queue.dropped(), (1, 3));
        assert_eq!(queue.bytes(), 20);
        let Next::Batch(first) = queue.pop(Duration::ZERO) else {
            panic!("there are two");
        };
        assert_eq!(&first.bytes[..6], &[1, 2, 3, 4, 7, 7]);
        queue.recycle(first);
        queue.close();
        assert!(matches!(queue.pop(Duration::ZERO), Next::Batch(_)));
        assert!(matches!(queue.pop(Duration::ZERO), Next::Closed));
        queue.push(&mut batch(1));
        assert_eq!(queue.dropped(), (2, 6));
    }
}
