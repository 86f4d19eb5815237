//! Where frames come from: traces at a speed of one's choice, or a network interface.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flowradar_core::packet::LinkType;
use flowradar_switch::port::{FrameBatch, InterfaceReceiver, PortReceiver};

use super::back_end::Captured;
use crate::outcome::CommandError;
use crate::text::note;
use crate::trace::{InputFormat, TraceReader};

/// Frames of a batch.
const BATCH: usize = 256;
/// How long an interface is waited for before the rest of the program is looked after.
const WAIT: Duration = Duration::from_millis(20);
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
    latest_ns: u64,
    pub(crate) lost: Lost,
}

/// Frames that a source could not deliver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Of link types that are not known.
    pub(crate) unsupported: u64,
    /// Dropped by the kernel before they were read.
    pub(crate) dropped: u64,
    /// Traces that were cut short or damaged.
    pub(crate) damaged_traces: u64,
}

pub(crate) struct Interface {
    receiver: InterfaceReceiver,
    batch: FrameBatch,
    ends: Option<Instant>,
    stop: Arc<AtomicBool>,
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
        self.bytes.extend_from_slice(frame.bytes);
        self.frames.push(FrameHeader {
            end: self.bytes.len(),
            timestamp_ns: frame.timestamp_ns,
            link_type: frame.link_type,
            wire_bytes: frame.wire_bytes,
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
            latest_ns: 0,
            lost: Lost::default(),
        }))
    }

    /// Opens a network interface.
    pub(crate) fn interface(
        name: &str,
        duration: Option<Duration>,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, CommandError> {
        let (_, receiver) = flowradar_switch::port::open_interface(name).map_err(|error| {
            CommandError::Failed(format!(
                "{error}; capturing needs the capability CAP_NET_RAW, which root has"
            ))
        })?;
        Ok(Self::Interface(Box::new(Interface {
            receiver,
            batch: FrameBatch::default(),
            ends: duration.map(|duration| Instant::now() + duration),
            stop,
        })))
    }

    /// Fills the batch with the next frames; false at the end. The batch may be empty.
    pub(crate) fn next(&mut self, batch: &mut Batch) -> Result<bool, CommandError> {
        batch.clear();
        match self {
            Self::Traces(traces) => traces.next(batch),
            Self::Interface(interface) => interface.next(batch).map_err(|error| {
                CommandError::Failed(format!("the interface cannot be read any more: {error}"))
            }),
        }
    }

    pub(crate) fn lost(&self) -> Lost {
        match self {
            Self::Traces(traces) => traces.lost,
            Self::Interface(interface) => Lost {
                dropped: interface.receiver.counters().statistics().dropped_in,
                ..Lost::default()
            },
        }
    }
}

impl Traces {
    fn next(&mut self, batch: &mut Batch) -> Result<bool, CommandError> {
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
                    batch.push(&Captured {
                        timestamp_ns,
                        link_type,
                        bytes: frame.captured,
                        wire_bytes: frame.wire_bytes,
                    });
                    if let Speed::Times(times) = self.speed {
                        // One at a time: each has its moment.
                        wait_for(&mut self.began, timestamp_ns, times);
                        return Ok(true);
                    }
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

/// Waits until a frame is due.
fn wait_for(began: &mut Option<(Instant, u64)>, timestamp_ns: u64, times: f64) {
    let (start, first_ns) = *began.get_or_insert_with(|| (Instant::now(), timestamp_ns));
    let since_ns = timestamp_ns.saturating_sub(first_ns) as f64 / times;
    let due = start + Duration::from_nanos(since_ns as u64);
    let left = due.saturating_duration_since(Instant::now());
    if left > PATIENCE {
        std::thread::sleep(left);
    }
}

impl Interface {
    fn next(&mut self, batch: &mut Batch) -> io::Result<bool> {
        let has_ended = self.ends.is_some_and(|ends| Instant::now() >= ends);
        if has_ended || self.stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        self.batch.clear();
        self.receiver.receive(&mut self.batch, BATCH, WAIT)?;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let timestamp_ns = since_1970.unwrap_or_default().as_nanos() as u64;
        for bytes in self.batch.frames() {
            batch.push(&Captured {
                timestamp_ns,
                link_type: LinkType::Ethernet,
                bytes,
                wire_bytes: bytes.len() as u32,
            });
        }
        Ok(true)
    }
}
