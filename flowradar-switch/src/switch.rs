//! A switch that threads share: a pipeline, its ports, packet-ins and notifications.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use tokio::sync::mpsc;

use crate::pipeline::{Outputs, Pipeline, PipelineConfig};
use crate::port::PortSender;
use crate::runtime::{DigestList, IdleNotification};
use crate::{Program, Timestamp};

/// What a switch is made with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwitchConfig {
    /// Frames sent to this port are packet-ins, and packet-outs come in on it.
    pub cpu_port: Option<u16>,
    /// What pipelines are told.
    pub pipeline: PipelineConfig,
}

/// A switch: cheap to clone, all clones are the same switch.
///
/// One lock protects the pipeline; whoever runs packets takes it for a batch at a time, and the control
/// plane for as long as it holds [`Self::pipeline`], which makes its changes atomic to packets.
#[derive(Clone, Debug)]
pub struct Switch {
    shared: Arc<Shared>,
}

/// What a switch did, besides what its program counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwitchCounters {
    /// Frames that came in while no program was loaded.
    pub frames_without_program: u64,
    /// Frames sent to ports that are not there.
    pub frames_to_unknown_ports: u64,
    /// Packet-ins that were dropped since nobody took them quickly enough, or nobody listens.
    pub packet_ins_dropped: u64,
    /// Digest lists that were dropped for the same reasons.
    pub digest_lists_dropped: u64,
    /// Idle notifications that were dropped for the same reasons.
    pub idle_notifications_dropped: u64,
}

/// A frame that the program sent to the CPU port: with the header the program gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketIn {
    /// The frame.
    pub frame: Vec<u8>,
}

#[derive(Debug)]
struct Shared {
    config: SwitchConfig,
    state: Mutex<State>,
    counters: AtomicCounters,
}

#[derive(Debug, Default)]
struct State {
    pipeline: Option<Pipeline>,
    outputs: Outputs,
    ports: Vec<(u16, Box<dyn PortSender>)>,
    packet_ins: Option<mpsc::Sender<PacketIn>>,
    digests: Option<mpsc::Sender<DigestList>>,
    idle_notifications: Option<mpsc::Sender<IdleNotification>>,
}

#[derive(Debug, Default)]
struct AtomicCounters {
    frames_without_program: AtomicU64,
    frames_to_unknown_ports: AtomicU64,
    packet_ins_dropped: AtomicU64,
    digest_lists_dropped: AtomicU64,
    idle_notifications_dropped: AtomicU64,
}

impl Switch {
    /// A switch without program and ports.
    pub fn new(config: SwitchConfig) -> Self {
        Self {
            shared: Arc::new(Shared {
                config,
                state: Mutex::default(),
                counters: AtomicCounters::default(),
            }),
        }
    }

    /// What it was made with.
    pub fn config(&self) -> SwitchConfig {
        self.shared.config
    }

    /// Runs `program` from now on, with empty tables and zeros everywhere.
    pub fn load(&self, program: Arc<Program>) {
        let pipeline = Pipeline::new(program, self.shared.config.pipeline);
        self.shared.state.lock().pipeline = Some(pipeline);
    }

    /// Forgets the program; frames are dropped and counted until another is loaded.
    pub fn unload(&self) {
        self.shared.state.lock().pipeline = None;
    }

    /// The program that runs.
    pub fn program(&self) -> Option<Arc<Program>> {
        let state = self.shared.state.lock();
        state
            .pipeline
            .as_ref()
            .map(|pipeline| Arc::clone(pipeline.program()))
    }

    /// The pipeline, for the control plane; `None` while no program is loaded. Packets wait as long as
    /// the guard is held, so hold it for a batch of operations, not for longer.
    pub fn pipeline(&self) -> Option<MappedMutexGuard<'_, Pipeline>> {
        MutexGuard::try_map(self.shared.state.lock(), |state| state.pipeline.as_mut()).ok()
    }

    /// Frames sent to the CPU port from now on; replaces an earlier receiver.
    pub fn packet_ins(&self, capacity: usize) -> mpsc::Receiver<PacketIn> {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        self.shared.state.lock().packet_ins = Some(sender);
        receiver
    }

    /// Digest lists from now on; replaces an earlier receiver.
    pub fn digests(&self, capacity: usize) -> mpsc::Receiver<DigestList> {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        self.shared.state.lock().digests = Some(sender);
        receiver
    }

    /// Idle notifications from now on; replaces an earlier receiver.
    pub fn idle_notifications(&self, capacity: usize) -> mpsc::Receiver<IdleNotification> {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        self.shared.state.lock().idle_notifications = Some(sender);
        receiver
    }

    /// Gives the switch a port to send on; replaces an earlier one of the same number.
    pub fn attach_port(&self, number: u16, sender: Box<dyn PortSender>) {
        let mut state = self.shared.state.lock();
        state.ports.retain(|(other, _)| *other != number);
        state.ports.push((number, sender));
    }

    /// Takes a port away.
    pub fn detach_port(&self, number: u16) {
        self.shared
            .state
            .lock()
            .ports
            .retain(|(other, _)| *other != number);
    }

    /// Runs a frame that came in on a port.
    pub fn receive(&self, port: u16, frame: &[u8], now: Timestamp) {
        self.receive_batch([(port, frame)], now);
    }

    /// Runs frames that came in together, under one lock.
    pub fn receive_batch<'a>(
        &self,
        frames: impl IntoIterator<Item = (u16, &'a [u8])>,
        now: Timestamp,
    ) {
        let mut guard = self.shared.state.lock();
        let state = &mut *guard;
        for (port, frame) in frames {
            let Some(pipeline) = &mut state.pipeline else {
                add_one(&self.shared.counters.frames_without_program);
                continue;
            };
            pipeline.process(port, frame, now, &mut state.outputs);
            self.shared.dispatch(state);
        }
        MutexGuard::unlock_fair(guard);
    }

    /// Runs a packet-out, header and all, as a frame from the CPU port; `false` if the switch has no CPU
    /// port or no program.
    pub fn packet_out(&self, frame: &[u8], now: Timestamp) -> bool {
        let Some(cpu_port) = self.shared.config.cpu_port else {
            return false;
        };
        if self.shared.state.lock().pipeline.is_none() {
            return false;
        }
        self.receive(cpu_port, frame, now);
        true
    }

    /// Lets time pass: call it every few milliseconds.
    pub fn tick(&self, now: Timestamp) {
        let mut guard = self.shared.state.lock();
        let state = &mut *guard;
        if let Some(pipeline) = &mut state.pipeline {
            pipeline.tick(now, &mut state.outputs);
            self.shared.dispatch(state);
        }
    }

    /// What the switch did so far.
    pub fn counters(&self) -> SwitchCounters {
        let counters = &self.shared.counters;
        SwitchCounters {
            frames_without_program: counters.frames_without_program.load(Ordering::Relaxed),
            frames_to_unknown_ports: counters.frames_to_unknown_ports.load(Ordering::Relaxed),
            packet_ins_dropped: counters.packet_ins_dropped.load(Ordering::Relaxed),
            digest_lists_dropped: counters.digest_lists_dropped.load(Ordering::Relaxed),
            idle_notifications_dropped: counters.idle_notifications_dropped.load(Ordering::Relaxed),
        }
    }
}

impl Shared {
    /// Sends what a pipeline wants to be sent.
    fn dispatch(&self, state: &mut State) {
        for (port, frame) in state.outputs.frames() {
            if self.config.cpu_port == Some(port) {
                let packet_in = || PacketIn {
                    frame: frame.to_vec(),
                };
                offer(
                    state.packet_ins.as_ref(),
                    packet_in,
                    &self.counters.packet_ins_dropped,
                );
            } else if let Some((_, sender)) =
                state.ports.iter_mut().find(|(number, _)| *number == port)
            {
                sender.send(frame);
            } else {
                add_one(&self.counters.frames_to_unknown_ports);
            }
        }
        for list in state.outputs.take_digests() {
            offer(
                state.digests.as_ref(),
                || list,
                &self.counters.digest_lists_dropped,
            );
        }
        for idle in state.outputs.take_idle_notifications() {
            let dropped = &self.counters.idle_notifications_dropped;
            offer(state.idle_notifications.as_ref(), || idle, dropped);
        }
        state.outputs.clear();
    }
}

fn offer<T>(sender: Option<&mpsc::Sender<T>>, message: impl FnOnce() -> T, dropped: &AtomicU64) {
    match sender.map(|sender| sender.try_reserve()) {
        Some(Ok(permit)) => permit.send(message()),
        Some(Err(_)) | None => add_one(dropped),
    }
}

fn add_one(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
