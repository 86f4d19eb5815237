//! A program with its state: frames go in, frames and notifications come out.

mod control;

use std::ops::Range;
use std::sync::Arc;

use crate::runtime::{DigestList, IdleNotification};
use crate::{Program, Timestamp};

/// A program with its forwarding state. No clock, no I/O.
///
/// The control plane's operations (tables, action profiles, counters, meters, registers, multicast
/// groups, clone sessions, digests, value sets) are further down among the methods.
#[derive(Debug)]
pub struct Pipeline {
    program: Arc<Program>,
}

/// What a pipeline wants to be sent; reuse one to allocate nothing per packet.
#[derive(Debug, Default)]
pub struct Outputs {
    bytes: Vec<u8>,
    frames: Vec<(u16, Range<usize>)>,
    digests: Vec<DigestList>,
    idle: Vec<IdleNotification>,
}

impl Pipeline {
    /// The program with empty tables but for the entries that are part of it, and zeros everywhere.
    pub fn new(program: Arc<Program>, config: PipelineConfig) -> Self {
        let _ = config;
        Self { program }
    }

    /// The program.
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// Runs a frame that came in on `port` through the program, with all its copies, until nothing of it
    /// is left inside; what is sent is added to `outputs`.
    pub fn process(&mut self, port: u16, frame: &[u8], now: Timestamp, outputs: &mut Outputs) {
        let _ = (port, frame, now, outputs);
        todo!("the engine follows")
    }

    /// Lets time pass: digest lists and idle entries whose time is up are added to `outputs`.
    pub fn tick(&mut self, now: Timestamp, outputs: &mut Outputs) {
        let _ = (now, outputs);
        todo!("the engine follows")
    }
}

/// What a pipeline is told about its switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PipelineConfig {
    /// Packets to this port are dropped: `mark_to_drop` sets `egress_spec` to it. 511 on bmv2.
    pub drop_port: u16,
}

impl Default for PipelineConfig {
    fn default() -> Self {
        Self { drop_port: 511 }
    }
}

impl Outputs {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Frames in the order in which they are sent, each with its port.
    pub fn frames(&self) -> impl Iterator<Item = (u16, &[u8])> {
        self.frames
            .iter()
            .map(|(port, range)| (*port, self.bytes.get(range.clone()).unwrap_or_default()))
    }

    /// Digest lists that are ready; takes them out.
    pub fn take_digests(&mut self) -> impl Iterator<Item = DigestList> {
        self.digests.drain(..)
    }

    /// Entries whose idle timeout passed; takes them out.
    pub fn take_idle_notifications(&mut self) -> impl Iterator<Item = IdleNotification> {
        self.idle.drain(..)
    }

    /// Empties everything, and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.frames.clear();
        self.digests.clear();
        self.idle.clear();
    }
}
