//! Ports: where frames come from and go to.
//!
//! Sending never waits: a port that cannot take a frame drops and counts it. Receiving is for a thread
//! of its own per port, see [`serve`].

mod link;
#[cfg(target_os = "linux")]
mod network_interface;
mod pcap;

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

pub use link::{LinkReceiver, LinkSender, link};
#[cfg(target_os = "linux")]
pub use network_interface::{InterfaceReceiver, InterfaceSender, open_interface};
pub use pcap::{PcapError, PcapSender, read_pcap};

use crate::{Switch, Timestamp};

/// How long [`serve`] waits for frames before it looks whether to stop.
const STOP_INTERVAL: Duration = Duration::from_millis(50);

/// How many frames are run under one lock.
const BATCH: usize = 64;

/// The sending side of a port.
pub trait PortSender: fmt::Debug + Send {
    /// Sends a frame, or drops and counts it; never waits.
    fn send(&mut self, frame: &[u8]);
}

/// The receiving side of a port.
pub trait PortReceiver: fmt::Debug + Send {
    /// Waits at most `timeout` for frames, and adds up to `limit` that are there to the batch.
    ///
    /// # Errors
    ///
    /// If the port is gone for good.
    fn receive(
        &mut self,
        batch: &mut FrameBatch,
        limit: usize,
        timeout: Duration,
    ) -> io::Result<()>;
}

/// Frames that came in together; reuse one to allocate nothing per frame.
#[derive(Clone, Debug, Default)]
pub struct FrameBatch {
    bytes: Vec<u8>,
    frames: Vec<Range<usize>>,
}

/// What a port counted. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct PortCounters {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    frames_in: AtomicU64,
    bytes_in: AtomicU64,
    frames_out: AtomicU64,
    bytes_out: AtomicU64,
    dropped_in: AtomicU64,
    dropped_out: AtomicU64,
}

/// What a port counted up to some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStatistics {
    /// Frames that came in.
    pub frames_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Frames that were sent.
    pub frames_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Frames that came in but were lost before they were taken, as far as the port knows.
    pub dropped_in: u64,
    /// Frames that could not be sent.
    pub dropped_out: u64,
}

/// Runs what a port receives through a switch until `stop` is set or the port is gone.
///
/// # Errors
///
/// If the port is gone.
pub fn serve(
    switch: &Switch,
    port: u16,
    receiver: &mut dyn PortReceiver,
    clock: &dyn Fn() -> Timestamp,
    stop: &AtomicBool,
) -> io::Result<()> {
    let mut batch = FrameBatch::default();
    while !stop.load(Ordering::Relaxed) {
        batch.clear();
        receiver.receive(&mut batch, BATCH, STOP_INTERVAL)?;
        if !batch.is_empty() {
            switch.receive_batch(batch.frames().map(|frame| (port, frame)), clock());
        }
    }
    Ok(())
}

impl FrameBatch {
    /// Adds a frame.
    pub fn push(&mut self, frame: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(frame);
        self.frames.push(start..self.bytes.len());
    }

    /// The frames, in the order in which they came in.
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        self.frames
            .iter()
            .map(|range| self.bytes.get(range.clone()).unwrap_or_default())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Empties it, and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.frames.clear();
    }
}

impl PortCounters {
    /// What was counted so far.
    pub fn statistics(&self) -> PortStatistics {
        let counts = &self.counts;
        PortStatistics {
            frames_in: counts.frames_in.load(Ordering::Relaxed),
            bytes_in: counts.bytes_in.load(Ordering::Relaxed),
            frames_out: counts.frames_out.load(Ordering::Relaxed),
            bytes_out: counts.bytes_out.load(Ordering::Relaxed),
            dropped_in: counts.dropped_in.load(Ordering::Relaxed),
            dropped_out: counts.dropped_out.load(Ordering::Relaxed),
        }
    }

    fn count_in(&self, bytes: usize) {
        self.counts.frames_in.fetch_add(1, Ordering::Relaxed);
        self.counts
            .bytes_in
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn count_out(&self, bytes: usize) {
        self.counts.frames_out.fetch_add(1, Ordering::Relaxed);
        self.counts
            .bytes_out
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    #[cfg(target_os = "linux")]
    fn count_dropped_in(&self, frames: u64) {
        self.counts.dropped_in.fetch_add(frames, Ordering::Relaxed);
    }

    fn count_dropped_out(&self) {
        self.counts.dropped_out.fetch_add(1, Ordering::Relaxed);
    }
}
