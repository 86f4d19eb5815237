//! Where frames come from: traces at a speed of one's choice, or a network interface.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flowradar_balancer::dispatch::{FrameInput, InputError};
use flowradar_core::packet::LinkType;

use super::back_end::Captured;
use crate::outcome::CommandError;
use crate::text::{grouped, note};
use crate::trace::{InputFormat, TraceReader};

/// Frames of a batch.
const BATCH: usize = 256;
/// How long an interface is waited for before the rest of the program is looked after.
const WAIT: Duration = Duration::from_millis(20);
/// How long frames that had arrived when the capture ended are waited for.
const FAREWELL: Duration = Duration::from_secs(1);
/// Frames that are due sooner are not waited for: sleeping is no more exact.
const PATIENCE: Duration = Duration::from_micros(100);

/// How fast traces are replayed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Speed {
    /// As fast as possible.
    Max,
    /// So many times as fast as they were captured.
    Times(f64),
}

/// Frames that belong together, with their bytes back to back.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    frames: Vec<FrameHeader>,
}

#[derive(Clone, Copy, Debug)]
struct FrameHeader {
    end: usize,
    timestamp_ns: u64,
    link_type: LinkType,
    wire_bytes: u32,
}

/// A source of frames.
pub(crate) enum Source {
    Traces(Box<Traces>),
    Interface(Box<Interface>),
}

/// Traces, one after the other.
pub(crate) struct Traces {
    paths: std::vec::IntoIter<PathBuf>,
    reader: Option<TraceReader>,
    speed: Speed,
    /// When the first frame of the present trace was replayed, and its time.
    began: Option<(Instant, u64)>,
    /// A frame that was read and is not due yet.
    held: Batch,
    latest_ns: u64,
    pub(crate) lost: Lost,
}

/// Frames that a source could not deliver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Of link types that are not known.
    pub(crate) unsupported: u64,
    /// Dropped by the kernel: the ring was full.
    pub(crate) dropped: u64,
    /// Left in the ring when the capture ended.
    pub(crate) unread: u64,
    /// Captured in part: longer than a block of the ring.
    pub(crate) cut_off: u64,
    /// Traces that were cut short or damaged.
    pub(crate) damaged_traces: u64,
}

pub(crate) struct Interface {
    input: FrameInput,
    ends: Option<Instant>,
    stop: Arc<AtomicBool>,
    /// Once it is over: how many frames had arrived by then, and how long they are waited for.
    over: Option<(u64, Instant)>,
    lost: Lost,
}

impl Batch {
    pub(crate) fn frames(&self) -> impl Iterator<Item = Captured<'_>> {
        let mut start = 0;
        self.frames.iter().map(move |header| {
            let bytes = self.bytes.get(start..header.end).unwrap_or_default();
            start = header.end;
            Captured {
                timestamp_ns: header.timestamp_ns,
                link_type: header.link_type,
                bytes,
                wire_bytes: header.wire_bytes,
            }
        })
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.frames.clear();
    }

    fn push(&mut self, frame: &Captured<'_>) {
        self.push_with(
            frame.timestamp_ns,
            frame.link_type,
            frame.wire_bytes,
            |bytes| bytes.extend_from_slice(frame.bytes),
        );
    }

    fn push_with(
        &mut self,
        timestamp_ns: u64,
        link_type: LinkType,
        wire_bytes: u32,
        append: impl FnOnce(&mut Vec<u8>),
    ) {
        append(&mut self.bytes);
        self.frames.push(FrameHeader {
            end: self.bytes.len(),
            timestamp_ns,
            link_type,
            wire_bytes,
        });
    }
}

impl Source {
    pub(crate) fn traces(paths: Vec<PathBuf>, speed: Speed) -> Self {
        Self::Traces(Box::new(Traces {
            paths: paths.into_iter(),
            reader: None,
            speed,
            began: None,
            held: Batch::default(),
            latest_ns: 0,
            lost: Lost::default(),
        }))
    }

    /// Opens a network interface, with a ring of so many bytes.
    pub(crate) fn interface(
        name: &str,
        ring_bytes: usize,
        duration: Option<Duration>,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, CommandError> {
        let input = FrameInput::open(name, ring_bytes).map_err(failed)?;
        if input.ring_bytes() < ring_bytes {
            note!(
                "There is memory for a ring of {} bytes only: bursts may be lost.",
                grouped(input.ring_bytes() as u64)
            );
        }
        Ok(Self::Interface(Box::new(Interface {
            input,
            ends: duration.map(|duration| Instant::now() + duration),
            stop,
            over: None,
            lost: Lost::default(),
        })))
    }

    /// Fills the batch with the next frames; false at the end. The batch may be empty.
    pub(crate) fn next(&mut self, batch: &mut Batch) -> Result<bool, CommandError> {
        batch.clear();
        match self {
            Self::Traces(traces) => traces.next(batch),
            Self::Interface(interface) => interface.next(batch),
        }
    }

    /// Whether frames have their moment, so that none may wait for others.
    pub(crate) fn is_timed(&self) -> bool {
        match self {
            Self::Traces(traces) => traces.speed != Speed::Max,
            Self::Interface(_) => true,
        }
    }

    pub(crate) fn lost(&self) -> Lost {
        match self {
            Self::Traces(traces) => traces.lost,
            Self::Interface(interface) => interface.lost,
        }
    }
}

impl Traces {
    fn next(&mut self, batch: &mut Batch) -> Result<bool, CommandError> {
        if let Some(frame) = self.held.frames().next() {
            std::thread::sleep(time_left(&mut self.began, self.speed, frame.timestamp_ns));
            batch.push(&frame);
        }
        self.held.clear();
        while batch.frames.len() < BATCH {
            let Some(reader) = &mut self.reader else {
                let Some(path) = self.paths.next() else {
                    return Ok(!batch.frames.is_empty());
                };
                let opened = TraceReader::open(&path, InputFormat::Auto);
                self.reader =
                    Some(opened.map_err(|error| CommandError::Failed(error.to_string()))?);
                self.began = None;
                continue;
            };
            match reader.next_frame() {
                Ok(Some(frame)) => {
                    let Some(link_type) = frame.link_type else {
                        self.lost.unsupported += 1;
                        continue;
                    };
                    // A frame without a time comes with the one before.
                    let timestamp_ns = frame.timestamp_ns.unwrap_or(self.latest_ns);
                    self.latest_ns = timestamp_ns;
                    let frame = Captured {
                        timestamp_ns,
                        link_type,
                        bytes: frame.captured,
                        wire_bytes: frame.wire_bytes,
                    };
                    let left = time_left(&mut self.began, self.speed, timestamp_ns);
                    if left > PATIENCE && !batch.frames.is_empty() {
                        self.held.push(&frame);
                        return Ok(true);
                    }
                    if left > PATIENCE {
                        std::thread::sleep(left);
                    }
                    batch.push(&frame);
                }
                Ok(None) => self.reader = None,
                Err(error) => {
                    note!("{error}\nThe frames before were dispatched.");
                    self.lost.damaged_traces += 1;
                    self.reader = None;
                }
            }
        }
        Ok(true)
    }
}

/// How long it is until a frame is due.
fn time_left(began: &mut Option<(Instant, u64)>, speed: Speed, timestamp_ns: u64) -> Duration {
    let Speed::Times(times) = speed else {
        return Duration::ZERO;
    };
    let now = Instant::now();
    let (start, first_ns) = *began.get_or_insert((now, timestamp_ns));
    let since_ns = timestamp_ns.saturating_sub(first_ns) as f64 / times;
    let due = start + Duration::from_nanos(since_ns as u64);
    due.saturating_duration_since(now)
}

impl Interface {
    fn next(&mut self, batch: &mut Batch) -> Result<bool, CommandError> {
        let now = Instant::now();
        let has_ended = self.ends.is_some_and(|ends| now >= ends);
        if self.over.is_none() && (has_ended || self.stop.load(Ordering::Relaxed)) {
            self.over = Some((self.input.statistics().accepted, now + FAREWELL));
        }
        if let Some((arrived, until)) = self.over {
            let statistics = self.input.statistics();
            let unread = arrived.saturating_sub(statistics.taken);
            if unread == 0 || now >= until {
                self.lost = Lost {
                    dropped: statistics.dropped,
                    unread,
                    cut_off: statistics.cut_off,
                    ..Lost::default()
                };
                return Ok(false);
            }
        }
        let link_type = self.input.link_type();
        let received = self.input.receive(WAIT, |frame| {
            batch.push_with(frame.timestamp_ns, link_type, frame.wire_bytes, |bytes| {
                frame.append_to(bytes);
            });
        });
        received.map_err(failed)?;
        Ok(true)
    }
}

fn failed(error: InputError) -> CommandError {
    CommandError::Failed(error.to_string())
}
