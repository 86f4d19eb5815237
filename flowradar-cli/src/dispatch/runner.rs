//! The dispatcher at work: frames from a source to back ends.

use std::net::UdpSocket;
use std::time::Duration;

use flowradar_balancer::Timestamp;
use flowradar_balancer::dispatch::simulate::{ServerWindow, Window};
use flowradar_balancer::dispatch::{DispatchCounters, Dispatcher, DispatcherSettings, Packet};
use flowradar_balancer::policy::{Availability, BackEndId, BackEndSettings};

use super::back_end::{BackEndArgument, Captured, Output, Refused};
use super::source::{Batch, Lost, Source};
use crate::outcome::CommandError;
use crate::text::{counted, note};

/// How long a back end that failed is left alone.
const RECOVERY: Duration = Duration::from_secs(5);
/// Windows of the loads that are kept; from there on two become one.
const WINDOWS_MAX: usize = 100;
const FIRST_WINDOW: Duration = Duration::from_millis(10);
/// Longest line of a load report.
const REPORT_BYTES: usize = 512;
/// Load reports that are read between two batches, at most.
const REPORTS_MAX: usize = 64;

/// A dispatcher with its back ends.
pub(crate) struct Runner {
    dispatcher: Dispatcher,
    back_ends: Vec<BackEnd>,
    reports: Option<UdpSocket>,
    loads: Loads,
    totals: Totals,
    packets: Vec<(Packet, Timestamp)>,
    /// For each frame of a batch: which of `packets` it is.
    places: Vec<Option<usize>>,
    chosen: Vec<Option<BackEndId>>,
    /// The first timestamp, from which the dispatcher's time counts.
    start_ns: Option<u64>,
    now: Timestamp,
}

#[derive(Debug)]
struct BackEnd {
    name: String,
    output: Output,
    down_since: Option<Timestamp>,
    totals: BackEndTotals,
}

/// What went to a back end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct BackEndTotals {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    /// Frames that were on their way to it when it failed.
    pub(crate) lost_frames: u64,
    pub(crate) failures: u64,
}

/// What happened to all frames. `frames` is the sum of all frames of back ends, `lost_frames` of
/// back ends included, `undeliverable` and `too_long`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Totals {
    pub(crate) frames: u64,
    pub(crate) not_ip: u64,
    pub(crate) malformed: u64,
    /// Frames for which no back end was up, or that none could take.
    pub(crate) undeliverable: u64,
    /// Frames that their back end's interface, or a datagram to it, cannot hold.
    pub(crate) too_long: u64,
    pub(crate) load_reports: u64,
    pub(crate) unreadable_load_reports: u64,
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct RunResult {
    pub(crate) totals: Totals,
    pub(crate) lost: Lost,
    pub(crate) counters: DispatchCounters,
    pub(crate) back_ends: Vec<(String, BackEndTotals)>,
    pub(crate) windows: Vec<Window>,
    pub(crate) window: Duration,
    pub(crate) round_trip: Duration,
}

/// Loads in windows whose length doubles when they become too many.
#[derive(Debug)]
struct Loads {
    window: Duration,
    windows: Vec<Vec<ServerWindow>>,
    servers: usize,
}

impl Runner {
    pub(crate) fn new(
        settings: DispatcherSettings,
        arguments: &[BackEndArgument],
        overwrite: bool,
        reports: Option<UdpSocket>,
    ) -> Result<Self, CommandError> {
        let mut back_ends = vec![];
        for argument in arguments {
            back_ends.push(BackEnd {
                name: argument.name.clone(),
                output: argument.open(overwrite)?,
                down_since: None,
                totals: BackEndTotals::default(),
            });
        }
        let servers = arguments.iter().enumerate().map(|(index, argument)| {
            BackEndSettings::new(BackEndId(index as u16), argument.name.as_str())
        });
        Ok(Self {
            dispatcher: Dispatcher::new(settings, servers, Timestamp::ZERO),
            loads: Loads {
                window: FIRST_WINDOW,
                windows: vec![],
                servers: back_ends.len(),
            },
            back_ends,
            reports,
            totals: Totals::default(),
            packets: vec![],
            places: vec![],
            chosen: vec![],
            start_ns: None,
            now: Timestamp::ZERO,
        })
    }

    /// Dispatches everything that the source has.
    pub(crate) fn run(mut self, mut source: Source) -> Result<RunResult, CommandError> {
        let mut batch = Batch::default();
        let mut ended = Ok(());
        loop {
            match source.next(&mut batch) {
                Ok(true) => {}
                Ok(false) => break,
                // What was dispatched before is told all the same.
                Err(error) => {
                    ended = Err(error);
                    break;
                }
            }
            self.take_reports();
            self.dispatch(&batch);
            if source.is_timed() {
                self.flush();
            }
        }
        self.flush();
        for back_end in &mut self.back_ends {
            // They were counted as delivered when they were taken.
            let too_long = back_end.output.too_long();
            back_end.totals.frames = back_end.totals.frames.saturating_sub(too_long);
            self.totals.too_long += too_long;
        }
        let result = RunResult {
            totals: self.totals,
            lost: source.lost(),
            counters: self.dispatcher.counters(),
            round_trip: self.dispatcher.round_trip(),
            window: self.loads.window,
            windows: self.loads.finish(),
            back_ends: self
                .back_ends
                .into_iter()
                .map(|back_end| (back_end.name, back_end.totals))
                .collect(),
        };
        ended.map(|()| result)
    }

    fn dispatch(&mut self, batch: &Batch) {
        self.packets.clear();
        self.places.clear();
        self.chosen.clear();
        for frame in batch.frames() {
            let start_ns = *self.start_ns.get_or_insert(frame.timestamp_ns);
            let now = Timestamp::from_nanos(frame.timestamp_ns.saturating_sub(start_ns));
            self.now = self.now.max(now);
            self.totals.frames += 1;
            let parsed = Packet::of_frame(frame.link_type, frame.bytes, frame.wire_bytes);
            let place = match parsed {
                Ok(Some(packet)) => {
                    self.packets.push((packet, self.now));
                    Some(self.packets.len() - 1)
                }
                Ok(None) => {
                    self.totals.not_ip += 1;
                    None
                }
                Err(_) => {
                    self.totals.malformed += 1;
                    None
                }
            };
            self.places.push(place);
        }
        self.recover();
        self.dispatcher
            .dispatch_batch(&self.packets, &mut self.chosen);
        for (index, frame) in batch.frames().enumerate() {
            let place = self.places.get(index).copied().flatten();
            let (chosen, at) = match place {
                Some(place) => (
                    self.chosen.get(place).copied().flatten(),
                    self.packets.get(place).map_or(self.now, |(_, at)| *at),
                ),
                None => (self.first_up(), self.now),
            };
            self.deliver(&frame, chosen, place, at);
        }
    }

    /// Gives a frame to its back end; to another one if that fails.
    fn deliver(
        &mut self,
        frame: &Captured<'_>,
        chosen: Option<BackEndId>,
        place: Option<usize>,
        at: Timestamp,
    ) {
        let mut chosen = chosen;
        // Each failure takes one back end away.
        for _ in 0..=self.back_ends.len() {
            let Some(id) = chosen else {
                break;
            };
            let Some(back_end) = self.back_ends.get_mut(usize::from(id.0)) else {
                break;
            };
            if back_end.down_since.is_none() {
                match back_end.output.push(frame) {
                    Ok(()) => {
                        back_end.totals.frames += 1;
                        back_end.totals.bytes += u64::from(frame.wire_bytes);
                        self.loads.add(at, id, frame.wire_bytes);
                        return;
                    }
                    Err(Refused::NotEthernet) => break,
                    Err(Refused::Failed(error)) => {
                        // What it took last is the frame at hand: it goes elsewhere.
                        self.fail(id, &error, 1);
                    }
                }
            }
            // The choice was made before the back end failed.
            chosen = match place.and_then(|place| self.packets.get(place)) {
                Some(&(packet, _)) => self.dispatcher.dispatch(&packet, self.now),
                None => self.first_up(),
            };
        }
        self.totals.undeliverable += 1;
    }

    fn fail(&mut self, id: BackEndId, error: &std::io::Error, kept: u64) {
        let now = self.now;
        let Some(back_end) = self.back_ends.get_mut(usize::from(id.0)) else {
            return;
        };
        let lost = back_end.output.discard();
        // What was pushed but never sent was counted as delivered.
        let lost = lost.saturating_sub(kept);
        back_end.totals.frames = back_end.totals.frames.saturating_sub(lost);
        back_end.totals.lost_frames += lost;
        back_end.totals.lost_frames += lost;
        back_end.totals.failures += 1;
        back_end.down_since = Some(now);
        note!(
            "back end {} failed: {error}; its flows go to the others{}",
            back_end.name,
            if lost > 0 {
                format!(", {} on their way to it are lost", counted(lost, "frame"))
            } else {
                String::new()
            }
        );
        self.dispatcher
            .set_availability(id, Availability::Down, now);
    }

    /// Tries back ends again that failed some time ago.
    fn recover(&mut self) {
        let now = self.now;
        for (index, back_end) in self.back_ends.iter_mut().enumerate() {
            let is_over = back_end
                .down_since
                .is_some_and(|since| now.since(since) >= RECOVERY);
            if is_over && back_end.output.may_recover() {
                back_end.down_since = None;
                let id = BackEndId(index as u16);
                self.dispatcher.set_availability(id, Availability::Up, now);
            }
        }
    }

    fn flush(&mut self) {
        for index in 0..self.back_ends.len() {
            let Some(back_end) = self.back_ends.get_mut(index) else {
                continue;
            };
            if back_end.down_since.is_none()
                && let Err(error) = back_end.output.flush()
            {
                self.fail(BackEndId(index as u16), &error, 0);
            }
        }
    }

    /// Frames without a flow go to the first back end that is up.
    fn first_up(&self) -> Option<BackEndId> {
        let up = |back_end: &BackEnd| back_end.down_since.is_none();
        let index = self.back_ends.iter().position(up)?;
        Some(BackEndId(index as u16))
    }

    /// Reads what back ends say of their loads: datagrams of `NAME LOAD`.
    fn take_reports(&mut self) {
        let Some(socket) = &self.reports else {
            return;
        };
        let mut buffer = [0; REPORT_BYTES];
        for _ in 0..REPORTS_MAX {
            let Ok(length) = socket.recv(&mut buffer) else {
                return;
            };
            let names = self.back_ends.iter().map(|back_end| back_end.name.as_str());
            match parse_report(buffer.get(..length).unwrap_or_default(), names) {
                Some((index, load)) => {
                    self.totals.load_reports += 1;
                    let id = BackEndId(index as u16);
                    self.dispatcher.set_reported_load(id, Some(load));
                }
                None => self.totals.unreadable_load_reports += 1,
            }
        }
    }
}

/// `server-1 0.8` or `server-1 80%`.
fn parse_report<'a>(
    bytes: &[u8],
    mut names: impl Iterator<Item = &'a str>,
) -> Option<(usize, f64)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (name, load) = text.trim().rsplit_once(char::is_whitespace)?;
    let load: f64 = match load.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().ok()? / 100.0,
        None => load.parse().ok()?,
    };
    let index = names.position(|known| known == name.trim())?;
    (load.is_finite() && load >= 0.0).then_some((index, load))
}

impl Loads {
    fn add(&mut self, at: Timestamp, id: BackEndId, bytes: u32) {
        let mut index = self.index(at);
        while index >= WINDOWS_MAX {
            self.window *= 2;
            let halves = std::mem::take(&mut self.windows);
            self.windows = halves.chunks(2).map(sum).collect();
            index = self.index(at);
        }
        if self.windows.len() <= index {
            let empty = vec![ServerWindow::default(); self.servers];
            self.windows.resize(index + 1, empty);
        }
        let server = self
            .windows
            .get_mut(index)
            .and_then(|window| window.get_mut(usize::from(id.0)));
        if let Some(server) = server {
            server.packets += 1;
            server.bytes += u64::from(bytes);
        }
    }

    fn index(&self, at: Timestamp) -> usize {
        let number = at.as_nanos() / (self.window.as_nanos().max(1) as u64);
        usize::try_from(number).unwrap_or(usize::MAX)
    }

    fn finish(self) -> Vec<Window> {
        let window = self.window;
        let windows = self.windows.into_iter().enumerate();
        windows
            .map(|(index, servers)| Window {
                start: window * index as u32,
                servers,
            })
            .collect()
    }
}

fn sum(windows: &[Vec<ServerWindow>]) -> Vec<ServerWindow> {
    let mut sum = windows.first().cloned().unwrap_or_default();
    for window in windows.iter().skip(1) {
        for (sum, server) in sum.iter_mut().zip(window) {
            sum.packets += server.packets;
            sum.bytes += server.bytes;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_reports_are_read_or_refused() {
        let names = || ["a", "server two"].into_iter();
        assert_eq!(parse_report(b"a 0.5\n", names()), Some((0, 0.5)));
        assert_eq!(parse_report(b"server two 80%", names()), Some((1, 0.8)));
        for wrong in [&b"b 1"[..], b"a", b"a -1", b"a inf", b"a x", b"\xff 1", b""] {
            assert_eq!(parse_report(wrong, names()), None, "{wrong:?}");
        }
    }

    #[test]
    fn windows_grow_and_lose_nothing() {
        let mut loads = Loads {
            window: FIRST_WINDOW,
            windows: vec![],
            servers: 2,
        };
        for second in 0..1000_u64 {
            let id = BackEndId((second % 2) as u16);
            loads.add(Timestamp::from_millis(second * 1000), id, 100);
        }
        assert_eq!(loads.window, Duration::from_millis(10_240));
        let windows = loads.finish();
        assert!(windows.len() <= WINDOWS_MAX);
        let total = |server: usize| -> (u64, u64) {
            windows.iter().fold((0, 0), |(packets, bytes), window| {
                let server = window.servers[server];
                (packets + server.packets, bytes + server.bytes)
            })
        };
        assert_eq!((total(0), total(1)), ((500, 50_000), (500, 50_000)));
        assert_eq!(windows[1].start, Duration::from_millis(10_240));
    }
}
