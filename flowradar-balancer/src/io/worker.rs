//! Receives, decides, hands over.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use parking_lot::Mutex;
use socket2::Socket;

use super::clock::Clock;
use super::queue::Batch;
use super::sender::Destination;
use super::sys::{BATCH, ReceiveBatch, wait_readable};
use crate::engine::{Engine, EnginePlan, EngineSnapshot, Outgoing, Output};
use crate::policy::{Availability, BackEndId};
use crate::time::Timestamp;

/// What control tells a worker.
#[derive(Debug)]
pub(crate) enum Command {
    /// Goes over to another plan with these destinations.
    Plan(Box<EnginePlan>, Vec<Arc<Destination>>),
    Availability(BackEndId, Availability),
    ForgetMemory(BackEndId),
    ReportedLoad(BackEndId, Option<f64>),
    ExternalLoads(Vec<(BackEndId, f64)>),
    /// Takes what is in the socket buffers, and ends.
    Stop,
}

/// What a worker tells of itself.
#[derive(Debug, Default)]
pub(crate) struct WorkerShared {
    pub(crate) snapshot: Mutex<EngineSnapshot>,
    pub(crate) loads: Mutex<Vec<(BackEndId, f64)>>,
    /// By socket: what the kernel dropped because its buffer was full.
    pub(crate) dropped: Vec<AtomicU64>,
}

/// A worker's sockets and engine.
pub(crate) struct Worker {
    pub(crate) sockets: Vec<Socket>,
    pub(crate) engine: Engine,
    pub(crate) outbox: Outbox,
    pub(crate) commands: Receiver<Command>,
    pub(crate) shared: Arc<WorkerShared>,
    pub(crate) clock: Clock,
    pub(crate) most_exporters: usize,
    /// How long to let datagrams gather before they are taken: waking threads costs more than
    /// relaying. Zero where the receive buffers are too small for it.
    pub(crate) gather: Duration,
}

/// Longer trains of datagrams and fewer threads woken; flow exports are minutes old anyway.
pub(crate) const GATHER: Duration = Duration::from_millis(5);
/// What a receive buffer must have for that: a hundred thousand full datagrams a second fill a third.
pub(crate) const GATHER_BUFFER_BYTES: usize = 4 << 20;

const TICK_NANOS: u64 = 100_000_000;
const PUBLISH_NANOS: u64 = 500_000_000;
const POLL_MS: i32 = 20;
/// Batches that one socket may have before the others and the clock get their turn.
const BATCHES_IN_A_ROW: usize = 8;

/// A batch under construction for each destination.
#[derive(Default)]
pub(crate) struct Outbox {
    slots: Vec<Option<(Arc<Destination>, Batch)>>,
}

impl Outbox {
    pub(crate) fn set(&mut self, destinations: &[Arc<Destination>]) {
        self.flush();
        self.slots.clear();
        for destination in destinations {
            let place = usize::from(destination.plan.id.0);
            if self.slots.len() <= place {
                self.slots.resize_with(place + 1, || None);
            }
            self.slots[place] = Some((Arc::clone(destination), Batch::default()));
        }
    }

    fn flush(&mut self) {
        for (destination, batch) in self.slots.iter_mut().flatten() {
            destination.queue.push(batch);
        }
    }
}

impl Output for Outbox {
    fn send(&mut self, destination: BackEndId, message: Outgoing<'_>) {
        if let Some(Some((_, batch))) = self.slots.get_mut(usize::from(destination.0)) {
            batch.push(message);
        }
    }
}

impl Worker {
    /// Works until told to stop.
    pub(crate) fn run(mut self) {
        let mut received = ReceiveBatch::new();
        let mut last_tick = Timestamp::ZERO;
        let mut last_published = Timestamp::ZERO;
        let mut is_stopping = false;
        loop {
            is_stopping |= self.obey();
            let any = self.receive(&mut received, if is_stopping { 0 } else { POLL_MS });
            let now = self.clock.now();
            if now.since(last_tick).as_nanos() as u64 >= TICK_NANOS {
                last_tick = now;
                self.engine.tick(now, &mut self.outbox);
                self.outbox.flush();
            }
            if now.since(last_published).as_nanos() as u64 >= PUBLISH_NANOS || is_stopping {
                last_published = now;
                *self.shared.snapshot.lock() = self.engine.snapshot(self.most_exporters, now);
                *self.shared.loads.lock() = self.engine.loads();
            }
            if is_stopping && !any {
                // What still waits goes now or never.
                let later = now + self.engine.plan().waiting.at_most;
                self.engine.tick(later, &mut self.outbox);
                self.outbox.flush();
                *self.shared.snapshot.lock() = self.engine.snapshot(self.most_exporters, now);
                return;
            }
        }
    }

    /// Does what control says. Whether it says to stop.
    fn obey(&mut self) -> bool {
        loop {
            let now = self.clock.now();
            match self.commands.try_recv() {
                Ok(Command::Plan(plan, destinations)) => {
                    self.outbox.set(&destinations);
                    self.engine.set_plan(*plan, now);
                }
                Ok(Command::Availability(id, availability)) => {
                    self.engine
                        .set_availability(id, availability, now, &mut self.outbox);
                    self.outbox.flush();
                }
                Ok(Command::ForgetMemory(id)) => self.engine.forget_memory(id),
                Ok(Command::ReportedLoad(id, load)) => self.engine.set_reported_load(id, load),
                Ok(Command::ExternalLoads(loads)) => {
                    for (id, load) in loads {
                        self.engine.set_external_load(id, load);
                    }
                }
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return true,
                Err(TryRecvError::Empty) => return false,
            }
        }
    }

    /// Takes in what is there. Whether there was anything.
    fn receive(&mut self, received: &mut ReceiveBatch, timeout_ms: i32) -> bool {
        let sockets: Vec<_> = self.sockets.iter().map(Socket::as_fd).collect();
        let Ok(readable) = wait_readable(&sockets, timeout_ms) else {
            return false;
        };
        if timeout_ms > 0 && readable.contains(&true) && !self.gather.is_zero() {
            std::thread::sleep(self.gather);
        }
        let mut any = false;
        for (index, is_readable) in readable.into_iter().enumerate() {
            if !is_readable {
                continue;
            }
            for _ in 0..BATCHES_IN_A_ROW {
                match received.receive(self.sockets[index].as_fd()) {
                    Ok(dropped) => {
                        if let (Some(dropped), Some(total)) =
                            (dropped, self.shared.dropped.get(index))
                        {
                            total.store(u64::from(dropped), Relaxed);
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // ICMP errors of nobody's datagrams and the like: the next call goes on.
                    Err(_) => break,
                }
                let now = self.clock.now();
                for (datagram, source) in received.datagrams() {
                    self.engine.handle(datagram, source, now, &mut self.outbox);
                }
                any |= received.len() > 0;
                self.outbox.flush();
                if received.len() < BATCH {
                    break;
                }
            }
        }
        any
    }
}
