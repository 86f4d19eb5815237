//! The paper's experiment (section 4): policies over the same trace, with servers that are token
//! buckets.
//!
//! A server takes a fixed time for each packet, and holds a number of tokens. A packet that comes
//! takes a token, a packet that is done gives it back; a packet that finds none is lost. So the
//! tokens left are the residual capacity `R_i` of equation 1.

use std::collections::HashMap;
use std::time::Duration;

use super::counters::DispatchCounters;
use super::engine::{Dispatcher, DispatcherSettings};
use super::flow_id::FlowId;
use super::packet::Packet;
use crate::policy::{Availability, BackEndId, BackEndSettings};
use crate::time::Timestamp;

/// What a [`Simulation`] is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulationSettings {
    /// The dispatcher, and with it the policy.
    pub dispatcher: DispatcherSettings,
    /// Number of servers, at least one, at most 65,536.
    pub servers: usize,
    /// Tokens of each: packets that it can hold. The paper: 1,000,000.
    pub tokens: u64,
    /// Time that a server takes for a packet. The paper: 50 ms.
    pub service_time: Duration,
    /// What the dispatcher knows of the servers.
    pub knowledge: Knowledge,
    /// Length of the windows of time that results are summed up in.
    pub window: Duration,
}

/// What the dispatcher knows of the servers' loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// Only what it sends them.
    Nothing,
    /// At any time the tokens left, as the paper assumes.
    Exact,
    /// What servers report from time to time, which the paper leaves to future work: the tokens
    /// left and the packets done since the last report. In between the dispatcher subtracts what it
    /// sends, and adds what was done before.
    Reported {
        /// Time between reports.
        every: Duration,
    },
}

/// A run of the experiment: offer packets in the order of time, then [`Simulation::finish`].
#[derive(Debug)]
pub struct Simulation {
    settings: SimulationSettings,
    dispatcher: Dispatcher,
    servers: Vec<Server>,
    start: Timestamp,
    now: Timestamp,
    /// Number of the present window.
    window: u64,
    next_report: Timestamp,
    windows: Vec<Window>,
}

/// The load of the servers in a window of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Since the start of the trace.
    pub start: Duration,
    /// One for each server.
    pub servers: Vec<ServerWindow>,
}

/// The load of one server in a window of time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServerWindow {
    /// Packets that were dispatched to it, lost ones included.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets that found no token.
    pub lost: u64,
    /// Tokens in use at the end: packets that wait or are being served.
    pub waiting: u64,
    /// Part of the window in which it worked.
    pub utilisation: f64,
}

/// The results of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulationResult {
    /// Windows in which anything came, by time.
    pub windows: Vec<Window>,
    /// What the dispatcher counted.
    pub counters: DispatchCounters,
    /// Most packets that waited at any server at any time.
    pub waiting_max: u64,
    /// Time from arrival to the end of service, averaged over packets that were not lost.
    pub delay_mean: Duration,
    /// The longest of these times.
    pub delay_max: Duration,
    /// The average round trip time at the end.
    pub round_trip: Duration,
}

#[derive(Clone, Debug, Default)]
struct Server {
    /// When everything that it holds will be done.
    busy_until: Timestamp,
    /// Time without work so far.
    idle_ns: u64,
    idle_before_window_ns: u64,
    present: ServerWindow,
    waiting_max: u64,
    delay_sum_ns: u128,
    delay_max_ns: u64,
    served: u64,
    report: Report,
}

/// What the dispatcher knows from the last report, and has done since.
#[derive(Clone, Copy, Debug, Default)]
struct Report {
    at: Timestamp,
    tokens: f64,
    done_per_second: f64,
    /// Sent since.
    sent: u64,
    /// Accepted by the server so far, for the next report.
    accepted_before: u64,
    waiting_before: u64,
}

impl Simulation {
    /// Servers that have nothing to do.
    pub fn new(settings: SimulationSettings, start: Timestamp) -> Self {
        let count = settings.servers.clamp(1, 1 << 16);
        let back_ends = (0..count).map(|index| {
            BackEndSettings::new(BackEndId(index as u16), format!("server-{}", index + 1))
        });
        let tokens = settings.tokens as f64;
        let server = Server {
            busy_until: start,
            report: Report {
                at: start,
                tokens,
                ..Report::default()
            },
            ..Server::default()
        };
        let next_report = match settings.knowledge {
            Knowledge::Reported { every } => start + every,
            Knowledge::Nothing | Knowledge::Exact => start,
        };
        Self {
            dispatcher: Dispatcher::new(settings.dispatcher.clone(), back_ends, start),
            servers: vec![server; count],
            start,
            now: start,
            window: 0,
            next_report,
            windows: vec![],
            settings,
        }
    }

    /// A packet comes. `None` if no server is up.
    pub fn offer(&mut self, packet: &Packet, now: Timestamp) -> Option<BackEndId> {
        let now = now.max(self.now);
        let window = self.window_of(now);
        if window != self.window {
            self.close_window();
            self.window = window;
            // Windows in which nothing came were passed over.
            let start = self.start + self.window_start();
            for server in &mut self.servers {
                server.idle_before_window_ns = server.idle_at(start);
            }
        }
        self.now = now;
        self.inform(now);
        let chosen = self.dispatcher.dispatch(packet, now)?;
        let server = self.servers.get_mut(usize::from(chosen.0))?;
        server.take(packet, now, &self.settings);
        Some(chosen)
    }

    /// A server fails or comes back. What a failed one holds, it still does.
    pub fn set_availability(&mut self, id: BackEndId, availability: Availability, now: Timestamp) {
        self.dispatcher.set_availability(id, availability, now);
    }

    /// The trace has ended.
    pub fn finish(mut self) -> SimulationResult {
        self.close_window();
        let served: u64 = self.servers.iter().map(|server| server.served).sum();
        let delay_sum_ns: u128 = self.servers.iter().map(|server| server.delay_sum_ns).sum();
        let delay_mean_ns = delay_sum_ns / u128::from(served.max(1));
        let delay_max_ns = self.servers.iter().map(|server| server.delay_max_ns).max();
        SimulationResult {
            windows: self.windows,
            counters: self.dispatcher.counters(),
            waiting_max: self
                .servers
                .iter()
                .map(|server| server.waiting_max)
                .max()
                .unwrap_or(0),
            delay_mean: Duration::from_nanos(u64::try_from(delay_mean_ns).unwrap_or(u64::MAX)),
            delay_max: Duration::from_nanos(delay_max_ns.unwrap_or(0)),
            round_trip: self.dispatcher.round_trip(),
        }
    }

    /// Tells the dispatcher what it may know.
    fn inform(&mut self, now: Timestamp) {
        match self.settings.knowledge {
            Knowledge::Nothing => {}
            Knowledge::Exact => {
                for (index, server) in self.servers.iter().enumerate() {
                    let waiting = server.waiting(now, self.settings.service_time);
                    let left = self.settings.tokens.saturating_sub(waiting);
                    (self.dispatcher).set_residual(BackEndId(index as u16), Some(left as f64));
                }
            }
            Knowledge::Reported { every } => {
                if self.next_report <= now {
                    for server in &mut self.servers {
                        server.report(now, &self.settings);
                    }
                    self.next_report = now + every;
                }
                for (index, server) in self.servers.iter().enumerate() {
                    let left = server.report.tokens_left(now, self.settings.tokens);
                    (self.dispatcher).set_residual(BackEndId(index as u16), Some(left));
                }
            }
        }
    }

    fn window_of(&self, now: Timestamp) -> u64 {
        let length = self.settings.window.as_nanos().max(1);
        (now.since(self.start).as_nanos() / length) as u64
    }

    /// Where the present window begins, since the start.
    fn window_start(&self) -> Duration {
        let number = u32::try_from(self.window).unwrap_or(u32::MAX);
        self.settings.window.saturating_mul(number)
    }

    fn close_window(&mut self) {
        let start = self.window_start();
        let end = self.start + start + self.settings.window;
        let service_time = self.settings.service_time;
        let length_ns = self.settings.window.as_nanos().max(1) as f64;
        let closed = self.servers.iter_mut().map(|server| {
            let idle_ns = server.idle_at(end);
            let in_window_ns = idle_ns.saturating_sub(server.idle_before_window_ns);
            ServerWindow {
                waiting: server.waiting(end, service_time),
                utilisation: 1.0 - (in_window_ns as f64 / length_ns).min(1.0),
                ..std::mem::take(&mut server.present)
            }
        });
        let servers: Vec<ServerWindow> = closed.collect();
        if servers.iter().any(|server| server.packets > 0) {
            self.windows.push(Window { start, servers });
        }
    }
}

impl Server {
    /// Packets that it holds.
    fn waiting(&self, now: Timestamp, service_time: Duration) -> u64 {
        let work_ns = self.busy_until.since(now).as_nanos();
        work_ns.div_ceil(service_time.as_nanos().max(1)) as u64
    }

    /// All time without work until `end`, which is not before any arrival.
    fn idle_at(&self, end: Timestamp) -> u64 {
        self.idle_ns + end.since(self.busy_until).as_nanos() as u64
    }

    fn take(&mut self, packet: &Packet, now: Timestamp, settings: &SimulationSettings) {
        self.present.packets += 1;
        self.present.bytes += u64::from(packet.ip_bytes);
        self.report.sent += 1;
        let waiting = self.waiting(now, settings.service_time);
        if waiting >= settings.tokens {
            self.present.lost += 1;
            return;
        }
        self.idle_ns += now.since(self.busy_until).as_nanos() as u64;
        self.busy_until = self.busy_until.max(now) + settings.service_time;
        let delay_ns = self.busy_until.since(now).as_nanos() as u64;
        self.delay_sum_ns += u128::from(delay_ns);
        self.delay_max_ns = self.delay_max_ns.max(delay_ns);
        self.waiting_max = self.waiting_max.max(waiting + 1);
        self.served += 1;
    }

    fn report(&mut self, now: Timestamp, settings: &SimulationSettings) {
        let waiting = self.waiting(now, settings.service_time);
        let accepted = self.served - self.report.accepted_before;
        let done = (self.report.waiting_before + accepted).saturating_sub(waiting);
        let seconds = now.seconds_since(self.report.at);
        self.report = Report {
            at: now,
            tokens: settings.tokens.saturating_sub(waiting) as f64,
            done_per_second: if seconds > 0.0 {
                done as f64 / seconds
            } else {
                self.report.done_per_second
            },
            sent: 0,
            accepted_before: self.served,
            waiting_before: waiting,
        };
    }
}

impl Report {
    /// What the dispatcher takes to be left.
    fn tokens_left(&self, now: Timestamp, tokens: u64) -> f64 {
        let done = self.done_per_second * now.seconds_since(self.at);
        (self.tokens - self.sent as f64 + done).min(tokens as f64)
    }
}

impl SimulationResult {
    /// Packets lost.
    pub fn lost(&self) -> u64 {
        let servers = self.windows.iter().flat_map(|window| &window.servers);
        servers.map(|server| server.lost).sum()
    }

    /// How uneven the servers' packets are in windows, see [`imbalance`].
    pub fn packet_imbalance(&self) -> f64 {
        imbalance(&self.windows, |server| server.packets)
    }

    /// How uneven the servers' bytes are in windows, see [`imbalance`].
    pub fn byte_imbalance(&self) -> f64 {
        imbalance(&self.windows, |server| server.bytes)
    }
}

/// The most that a server got over what each would have got on average, summed over windows: 1 if
/// all servers get the same in each window, the number of servers if one gets everything. It is the
/// factor by which servers must be larger than with ideal balance. 1 without load.
pub fn imbalance(windows: &[Window], load: impl Fn(&ServerWindow) -> u64) -> f64 {
    let mut most = 0.0;
    let mut mean = 0.0;
    for window in windows {
        let loads = window.servers.iter().map(&load);
        most += loads.clone().max().unwrap_or(0) as f64;
        mean += loads.sum::<u64>() as f64 / window.servers.len().max(1) as f64;
    }
    if mean > 0.0 { most / mean } else { 1.0 }
}

/// A bound below which no policy that keeps flows together can come in [`imbalance`] of packets,
/// whatever it knows: in each window one server gets the largest flow, or the mean.
pub fn imbalance_bound(packets: &[(Packet, Timestamp)], servers: usize, window: Duration) -> f64 {
    let Some(&(_, start)) = packets.first() else {
        return 1.0;
    };
    let length_ns = window.as_nanos().max(1);
    let (mut bound, mut mean) = (0.0, 0.0);
    let mut flows: HashMap<FlowId, u64> = HashMap::new();
    let mut latest = start;
    let number = |(_, at): &(Packet, Timestamp), latest: &mut Timestamp| {
        *latest = (*latest).max(*at);
        latest.since(start).as_nanos() / length_ns
    };
    let mut rest = packets.iter().peekable();
    while let Some(first) = rest.next() {
        let present = number(first, &mut latest);
        flows.clear();
        flows.insert(first.0.flow, 1);
        let mut count = 1_u64;
        while let Some(packet) = rest.next_if(|packet| number(packet, &mut latest) == present) {
            *flows.entry(packet.0.flow).or_default() += 1;
            count += 1;
        }
        let largest = flows.values().copied().max().unwrap_or(0) as f64;
        let share = count as f64 / servers.max(1) as f64;
        bound += largest.max(share);
        mean += share;
    }
    bound / mean
}

#[cfg(test)]
mod tests {
    use flowradar_core::FlowKeyV4;

    use super::*;
    use crate::policy::Policy;

    fn settings(servers: usize, tokens: u64, service_ms: u64) -> SimulationSettings {
        SimulationSettings {
            dispatcher: DispatcherSettings::new(Policy::RoundRobin),
            servers,
            tokens,
            service_time: Duration::from_millis(service_ms),
            knowledge: Knowledge::Exact,
            window: Duration::from_secs(1),
        }
    }

    fn packet(flow: u16) -> Packet {
        let key = FlowKeyV4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), flow, 53, 17);
        Packet::of_key_v4(&key, 100)
    }

    #[test]
    fn a_token_bucket_by_hand() {
        // One server, two tokens, 400 ms a packet. At 0 ms: three packets, one is lost. At 500 ms
        // one is done and one is left; a packet is taken and done at 1200 ms.
        let mut simulation = Simulation::new(settings(1, 2, 400), Timestamp::ZERO);
        for at_ms in [0, 0, 0, 500, 2500] {
            simulation.offer(&packet(1), Timestamp::from_millis(at_ms));
        }
        let result = simulation.finish();
        assert_eq!(result.windows.len(), 2, "nothing came in the second");
        let first = result.windows[0].servers[0];
        assert_eq!((first.packets, first.bytes, first.lost), (4, 400, 1));
        assert_eq!(first.waiting, 1);
        assert!((first.utilisation - 1.0).abs() < 1e-9);
        let last = result.windows[1].servers[0];
        assert_eq!(result.windows[1].start, Duration::from_secs(2));
        assert!((last.utilisation - 0.4).abs() < 1e-9, "{last:?}");
        assert_eq!((result.lost(), result.waiting_max), (1, 2));
        // Delays: 400, 800, 700, 400 ms.
        assert_eq!(result.delay_mean, Duration::from_millis(575));
        assert_eq!(result.delay_max, Duration::from_millis(800));
    }

    #[test]
    fn imbalance_by_hand() {
        let window = |loads: [u64; 2]| Window {
            start: Duration::ZERO,
            servers: loads
                .map(|packets| ServerWindow {
                    packets,
                    ..ServerWindow::default()
                })
                .into(),
        };
        let of = |windows: &[Window]| imbalance(windows, |server| server.packets);
        assert_eq!(of(&[]), 1.0);
        assert_eq!(of(&[window([5, 5]), window([1, 1])]), 1.0);
        assert_eq!(of(&[window([7, 0])]), 2.0);
        // Even in total, uneven in each window: (6 + 6) / (4 + 4).
        assert_eq!(of(&[window([6, 2]), window([2, 6])]), 1.5);
    }

    #[test]
    fn the_bound_is_the_largest_flow() {
        // Window 1: flow 1 has 4 of 6 packets, two servers: 4 instead of 3. Window 2: 1 of 2.
        let at = Timestamp::from_millis;
        let packets: Vec<_> = [
            (1, 0),
            (1, 1),
            (2, 1),
            (1, 2),
            (3, 3),
            (1, 4),
            (2, 1500),
            (3, 1600),
        ]
        .map(|(flow, ms)| (packet(flow), at(ms)))
        .into();
        let bound = imbalance_bound(&packets, 2, Duration::from_secs(1));
        assert!((bound - 5.0 / 4.0).abs() < 1e-12, "{bound}");
        assert_eq!(imbalance_bound(&[], 2, Duration::from_secs(1)), 1.0);
    }

    /// Reports every millisecond are nearly as good as knowing; what is sent in between counts.
    #[test]
    fn reports_are_continued_until_the_next() {
        let mut reported = settings(2, 100, 10);
        reported.knowledge = Knowledge::Reported {
            every: Duration::from_millis(100),
        };
        reported.dispatcher = DispatcherSettings::new(Policy::LeastLoaded);
        let mut simulation = Simulation::new(reported, Timestamp::ZERO);
        // Flows of one packet, all at once: without counting what was sent, all would go to one.
        for flow in 0..40 {
            simulation.offer(&packet(flow), Timestamp::from_millis(1));
        }
        let result = simulation.finish();
        let packets: Vec<u64> = result.windows[0]
            .servers
            .iter()
            .map(|server| server.packets)
            .collect();
        assert_eq!(packets, [20, 20]);
    }
}
