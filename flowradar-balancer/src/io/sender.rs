//! One thread for each destination: nobody waits for another.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::queue::{Batch, Next, SendQueue};
use super::sys::{SendBatch, path_mtu};
use crate::config::{DestinationPlan, ProbeConfig, SourceAddress};
use crate::spoof::{self, SpoofError};

/// A destination's queue and counters, shared by workers, its sender and control.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) plan: DestinationPlan,
    pub(crate) queue: SendQueue,
    pub(crate) counters: SendCounters,
}

/// What a sender counts.
#[derive(Debug, Default)]
pub(crate) struct SendCounters {
    pub(crate) datagrams: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// Refusals by ICMP: nobody listens there.
    pub(crate) refused: AtomicU64,
    /// Datagrams that the kernel did not take for another reason.
    pub(crate) failed: AtomicU64,
    /// Datagrams that could not be sent with the exporter's address and went with the balancer's.
    pub(crate) not_spoofed: AtomicU64,
    /// Sends that were not refused, probes included.
    pub(crate) accepted: AtomicU64,
}

impl Destination {
    pub(crate) fn new(plan: DestinationPlan) -> Arc<Self> {
        Arc::new(Self {
            queue: SendQueue::new(plan.queue_bytes),
            plan,
            counters: SendCounters::default(),
        })
    }
}

/// Sockets of one destination.
pub(crate) struct Sender {
    destination: Arc<Destination>,
    socket: Socket,
    /// For the exporter's source address.
    raw: Option<Socket>,
    segment_limit: usize,
    mtu: usize,
    identification: u32,
    batch: SendBatch,
}

/// An empty datagram asks whether anybody listens.
const PROBE: [u8; 0] = [];
/// A full queue of the network card empties within this.
const BACK_OFF: Duration = Duration::from_millis(1);
const TRIES: u32 = 50;

impl Sender {
    /// Opens the sockets.
    pub(crate) fn open(destination: Arc<Destination>) -> io::Result<Self> {
        let address = destination.plan.address;
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        // Smooths bursts; the kernel gives what it allows.
        let _ = socket.set_send_buffer_size(4 << 20);
        socket.set_write_timeout(Some(Duration::from_millis(200)))?;
        socket.connect(&SockAddr::from(address))?;
        let headers = if address.is_ipv6() { 48 } else { 28 };
        let mtu = path_mtu(socket.as_fd(), address.is_ipv6()).unwrap_or(1280);
        let raw = match destination.plan.source {
            SourceAddress::Balancer => None,
            SourceAddress::Exporter => {
                let raw = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
                raw.set_write_timeout(Some(Duration::from_millis(200)))?;
                Some(raw)
            }
        };
        Ok(Self {
            destination,
            socket,
            raw,
            segment_limit: mtu.saturating_sub(headers),
            // The loopback takes anything, but headers count lengths with 16 bits.
            mtu: mtu.clamp(576, 65_535),
            identification: 0,
            batch: SendBatch::new(),
        })
    }

    /// Sends until the queue is closed and empty.
    pub(crate) fn run(mut self, probe_interval: Duration) {
        let probes = self.destination.plan.probe == ProbeConfig::Icmp;
        loop {
            match self.destination.queue.pop(probe_interval) {
                Next::Batch(batch) => {
                    if self.raw.is_some() {
                        self.send_spoofed(&batch);
                    } else {
                        self.send_batch(&batch);
                    }
                    self.destination.queue.recycle(batch);
                }
                Next::Idle if probes => self.send_probe(),
                Next::Idle => {}
                Next::Closed => return,
            }
        }
    }

    fn send_batch(&mut self, batch: &Batch) {
        let (mut entry, mut offset, mut tries) = (0, 0, 0);
        while entry < batch.entries.len() {
            let lengths = batch.entries[entry..].iter().map(|entry| entry.length);
            let bytes = &batch.bytes[offset..];
            match self
                .batch
                .send(self.socket.as_fd(), bytes, lengths, self.segment_limit)
            {
                Ok(sent) => {
                    let counters = &self.destination.counters;
                    let lengths = batch.entries[entry..].iter().take(sent);
                    let length: usize = lengths.map(|entry| entry.length).sum();
                    counters.datagrams.fetch_add(sent as u64, Relaxed);
                    counters.bytes.fetch_add(length as u64, Relaxed);
                    counters.accepted.fetch_add(1, Relaxed);
                    entry += sent.max(1);
                    offset += length;
                    tries = 0;
                }
                Err(error) => {
                    tries += 1;
                    if !self.survives(&error, tries) {
                        self.destination.counters.failed.fetch_add(1, Relaxed);
                        offset += batch.entries[entry].length;
                        entry += 1;
                        tries = 0;
                    }
                }
            }
        }
    }

    /// Whether the same datagram is worth another try.
    fn survives(&mut self, error: &io::Error, tries: u32) -> bool {
        match error.raw_os_error() {
            // The refusal of an earlier datagram; this one was not sent yet.
            Some(libc::ECONNREFUSED) => {
                self.destination.counters.refused.fetch_add(1, Relaxed);
                tries < 3
            }
            Some(libc::EINTR) => true,
            Some(libc::EAGAIN | libc::ENOBUFS) => {
                std::thread::sleep(BACK_OFF);
                tries < TRIES
            }
            // A path or a card that cannot segment.
            Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::EOPNOTSUPP)
                if self.segment_limit > 0 =>
            {
                self.segment_limit = 0;
                true
            }
            _ => false,
        }
    }

    fn send_probe(&self) {
        let counters = &self.destination.counters;
        match self.socket.send(&PROBE) {
            Ok(_) => counters.accepted.fetch_add(1, Relaxed),
            Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => {
                // That was the answer to the probe before; this one was not sent. Were it not sent
                // again, every second would look accepted, and nobody would ever seem to be gone.
                let _ = self.socket.send(&PROBE);
                counters.refused.fetch_add(1, Relaxed)
            }
            Err(_) => counters.failed.fetch_add(1, Relaxed),
        };
    }

    fn send_spoofed(&mut self, batch: &Batch) {
        let Some(raw) = self.raw.as_ref() else {
            return;
        };
        let counters = &self.destination.counters;
        let address = self.destination.plan.address;
        // Raw IPv6 sockets take no port.
        let to = SockAddr::from(SocketAddr::new(address.ip(), 0));
        let mut offset = 0;
        for entry in &batch.entries {
            let payload = &batch.bytes[offset..offset + entry.length];
            offset += entry.length;
            self.identification = self.identification.wrapping_add(1);
            let mut result = Ok(());
            let made = spoof::packets(
                entry.source,
                address,
                payload,
                self.mtu,
                self.identification,
                |packet| {
                    if result.is_ok() {
                        result = send_patiently(raw, packet, &to);
                    }
                },
            );
            let result = match made {
                Ok(()) => result,
                Err(SpoofError::FamilyMismatch | SpoofError::TooLong) => {
                    counters.not_spoofed.fetch_add(1, Relaxed);
                    self.socket.send(payload).map(|_| ())
                }
            };
            match result {
                Ok(()) => {
                    counters.datagrams.fetch_add(1, Relaxed);
                    counters.bytes.fetch_add(entry.length as u64, Relaxed);
                    counters.accepted.fetch_add(1, Relaxed);
                }
                Err(_) => {
                    counters.failed.fetch_add(1, Relaxed);
                }
            }
        }
    }
}

fn send_patiently(raw: &Socket, packet: &[u8], to: &SockAddr) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match raw.send_to(packet, to) {
            Ok(_) => return Ok(()),
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS))
                    && tries < TRIES =>
            {
                std::thread::sleep(BACK_OFF);
                tries += 1;
            }
            Err(error) => return Err(error),
        }
    }
}
