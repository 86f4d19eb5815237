//! What was sent lately, in case its receiver turns out to be dead.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::policy::BackEndId;
use crate::stream::StreamKey;
use crate::time::Timestamp;

/// A message as it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) at: Timestamp,
    pub(crate) destination: BackEndId,
    pub(crate) stream: StreamKey,
    pub(crate) source: SocketAddr,
    pub(crate) bytes: Box<[u8]>,
}

/// A ring bounded in bytes and time.
#[derive(Debug, Default)]
pub(crate) struct ReplayBuffer {
    sent: VecDeque<Sent>,
    bytes: usize,
}

impl ReplayBuffer {
    /// Keeps a message; returns how many others, not yet too old, had to go.
    pub(crate) fn keep(&mut self, sent: Sent, oldest: Timestamp, limit_bytes: usize) -> u64 {
        self.bytes += sent.bytes.len();
        self.sent.push_back(sent);
        let mut lost = 0;
        while let Some(first) = self.sent.front() {
            let is_old = first.at < oldest;
            if !is_old && self.bytes <= limit_bytes {
                break;
            }
            lost += u64::from(!is_old);
            self.bytes -= first.bytes.len();
            self.sent.pop_front();
        }
        lost
    }

    /// Takes out what was sent to a destination since `oldest`, oldest first.
    pub(crate) fn take(&mut self, destination: BackEndId, oldest: Timestamp) -> Vec<Sent> {
        let mut taken = Vec::new();
        let mut kept = VecDeque::with_capacity(self.sent.len());
        for sent in self.sent.drain(..) {
            if sent.destination == destination {
                self.bytes -= sent.bytes.len();
                if sent.at >= oldest {
                    taken.push(sent);
                }
            } else {
                kept.push_back(sent);
            }
        }
        self.sent = kept;
        taken
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
