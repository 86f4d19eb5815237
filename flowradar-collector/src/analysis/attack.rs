//! Attacks, as they show in the numbers of flows: SYN floods, scans, fan-in and fan-out.
//!
//! # Definition
//! A flow key carries no TCP flags. An *attempt* is a flow of at most
//! [`AttackOptions::attempt_packets_max`] packets in an epoch that is no answer (no flow the other way
//! round with the lower port at this one's source). Counted in each epoch, network-wide, each flow once:
//!
//! | event | what is counted | for each |
//! | --- | --- | --- |
//! | SYN flood | TCP attempts | destination address and port |
//! | scan | different destination addresses and ports of attempts | source address |
//! | fan-in | different sources | destination address |
//! | fan-out | different destinations of flows that are no answers | source address |
//!
//! A number is unusual if it is at least [`AttackOptions::flows_min`] and above the median of the same
//! number's last [`AttackOptions::baseline_epochs`] epochs by [`AttackOptions::deviations`] robust
//! deviations (1.4826 times the median absolute deviation, at least the square root of the median, and
//! 1). Addresses and services get a baseline of their own once they come to a quarter of `flows_min`;
//! before, their number is known to have been lower. Nothing is unusual in the first
//! [`AttackOptions::learning_epochs`] epochs. What is unusual does not enter the baseline.
//!
//! The most telling event is given: a SYN flood's destination is not reported as fan-in too, nor a
//! scan's source as fan-out.
//!
//! # Delay
//! An epoch is judged when its records come: an attack that is unusual within its first epoch is known
//! at its end.
//!
//! # Limits
//! - One-packet flows to one service may be a flash crowd whose answers were not seen, or a resolver's
//!   clients. Nor is a flow of one packet in this epoch one that has no packets in others.
//! - An attack that grows slower than the baseline forgets is learned.
//! - What attacks from the first epoch on is taken for usual.
//! - A service that becomes popular at once is reported once.

use std::net::IpAddr;

use hashbrown::{HashMap, HashSet};

use super::AnalysisCounters;
use super::book::Book;
use super::event::{EVIDENCE_FLOWS_MAX, EventKind, FlowEvidence, Severity};
use super::evidence::Sighted;
use super::flows::EpochFlows;
use super::record::FiveTuple;
use super::robust::Baseline;

const TCP: u8 = 6;
/// Part of a source's attempts that must share an address or a port to be called a scan of these: it
/// may have other flows besides.
const SAME_TARGET: f64 = 0.5;

/// Limits of attack detection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttackOptions {
    /// Epochs before anything is called unusual.
    pub learning_epochs: usize,
    /// Epochs that a baseline remembers.
    pub baseline_epochs: usize,
    /// Robust standard deviations (1.4826 times the median absolute deviation) above the median from
    /// which on a number is unusual.
    pub deviations: f64,
    /// No number below this is unusual.
    pub flows_min: u64,
    /// A flow of at most so many packets may be an attempt that nobody answered.
    pub attempt_packets_max: u64,
    /// Addresses and services with a baseline of their own, a fourth of the limit: each is counted in
    /// up to four ways. The largest come first.
    pub baselines_max: usize,
}

impl Default for AttackOptions {
    fn default() -> Self {
        Self {
            learning_epochs: 5,
            baseline_epochs: 32,
            deviations: 8.0,
            flows_min: 30,
            attempt_packets_max: 1,
            baselines_max: 4_096,
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Subject {
    SynFlood(IpAddr, u16),
    Scan(IpAddr),
    FanIn(IpAddr),
    FanOut(IpAddr),
}

/// Watches the numbers of flows.
#[derive(Debug, Default)]
pub(crate) struct Attacks {
    baselines: HashMap<Subject, Baseline>,
    epochs: usize,
}

/// A flow as attack detection sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Contact {
    src: IpAddr,
    dst: IpAddr,
    dst_port: u16,
}

impl Attacks {
    /// Judges an epoch; `packets` gives a flow's packets.
    pub(crate) fn epoch(
        &mut self,
        flows: &EpochFlows<'_>,
        packets: &[u64],
        book: &Book,
        options: &AttackOptions,
        counters: &mut AnalysisCounters,
    ) -> Vec<Sighted> {
        let found = count(flows, packets, options);
        let mut unusual: Vec<(Subject, u64, f64)> = Vec::new();
        if self.epochs >= options.learning_epochs {
            for (&subject, &number) in &found {
                if number >= options.flows_min {
                    let baseline = self.baselines.get(&subject);
                    let limit = baseline.map_or(0.0, |baseline| baseline.limit(options.deviations));
                    if number as f64 > limit {
                        unusual.push((subject, number, limit));
                    }
                }
            }
        }
        unusual.sort_unstable_by_key(|&(subject, ..)| subject);
        self.learn(&found, &unusual, options, counters);
        self.epochs += 1;
        most_telling(&unusual, book)
            .into_iter()
            .map(|(subject, number, limit)| {
                sighted(flows, packets, options, subject, number, limit)
            })
            .collect()
    }

    /// Adds what is usual to the baselines.
    fn learn(
        &mut self,
        found: &HashMap<Subject, u64>,
        unusual: &[(Subject, u64, f64)],
        options: &AttackOptions,
        counters: &mut AnalysisCounters,
    ) {
        let values_max = options.baseline_epochs;
        let unusual: HashSet<Subject> = unusual.iter().map(|&(subject, ..)| subject).collect();
        self.baselines.retain(|subject, baseline| {
            if !unusual.contains(subject) {
                baseline.push(found.get(subject).copied().unwrap_or(0), values_max);
            }
            !baseline.is_zero()
        });
        let mut new: Vec<(u64, Subject)> = found
            .iter()
            .filter(|&(subject, &number)| {
                number >= (options.flows_min / 4).max(1)
                    && !unusual.contains(subject)
                    && !self.baselines.contains_key(subject)
            })
            .map(|(&subject, &number)| (number, subject))
            .collect();
        // The largest first, whatever order the map has.
        new.sort_unstable_by(|a, b| b.cmp(a));
        let most = 4 * options.baselines_max;
        for (number, subject) in new {
            if self.baselines.len() >= most {
                counters.baselines_over_limit += 1;
                continue;
            }
            let mut baseline = Baseline::default();
            baseline.push(number, values_max);
            baseline.fill_with_zeros(self.epochs, values_max);
            self.baselines.insert(subject, baseline);
        }
    }
}

/// The numbers of an epoch.
fn count(
    flows: &EpochFlows<'_>,
    packets: &[u64],
    options: &AttackOptions,
) -> HashMap<Subject, u64> {
    let mut found: HashMap<Subject, u64> = HashMap::new();
    let mut attempts: Vec<Contact> = Vec::new();
    let mut pairs: Vec<(IpAddr, IpAddr, bool)> = Vec::with_capacity(flows.len());
    for ((flow, _), &packets) in flows.iter().zip(packets) {
        let answer = is_answer(flow, flows);
        pairs.push((flow.src, flow.dst, answer));
        if answer || packets > options.attempt_packets_max {
            continue;
        }
        if flow.protocol == TCP {
            *found
                .entry(Subject::SynFlood(flow.dst, flow.dst_port))
                .or_default() += 1;
        }
        attempts.push(Contact::of(flow));
    }
    attempts.sort_unstable();
    attempts.dedup();
    for contact in attempts {
        *found.entry(Subject::Scan(contact.src)).or_default() += 1;
    }
    pairs.sort_unstable();
    pairs.dedup_by_key(|&mut (src, dst, _)| (src, dst));
    for (src, dst, answer) in pairs {
        *found.entry(Subject::FanIn(dst)).or_default() += 1;
        // Sorted: an answer is first only if there was nothing else.
        if !answer {
            *found.entry(Subject::FanOut(src)).or_default() += 1;
        }
    }
    found
}

/// Whether a flow answers another one of the epoch.
fn is_answer(flow: &FiveTuple, flows: &EpochFlows<'_>) -> bool {
    flow.src_port < flow.dst_port
        && flows.contains(&FiveTuple {
            src: flow.dst,
            dst: flow.src,
            src_port: flow.dst_port,
            dst_port: flow.src_port,
            protocol: flow.protocol,
        })
}

/// Leaves out what a more telling event says already, in this epoch or in an open one.
fn most_telling(unusual: &[(Subject, u64, f64)], book: &Book) -> Vec<(Subject, u64, f64)> {
    let flooded: HashSet<IpAddr> = unusual
        .iter()
        .filter_map(|&(subject, ..)| match subject {
            Subject::SynFlood(dst, _) => Some(dst),
            _ => None,
        })
        .collect();
    let scanning: HashSet<IpAddr> = unusual
        .iter()
        .filter_map(|&(subject, ..)| match subject {
            Subject::Scan(src) => Some(src),
            _ => None,
        })
        .collect();
    let said = |subject: &Subject| match *subject {
        Subject::FanIn(dst) => flooded.contains(&dst),
        Subject::FanOut(src) => {
            let scan = EventKind::Scan {
                src,
                dst: None,
                dst_port: None,
            };
            scanning.contains(&src) || book.is_open(&scan)
        }
        Subject::Scan(_) | Subject::SynFlood(..) => false,
    };
    let unusual = unusual.iter().copied();
    unusual.filter(|(subject, ..)| !said(subject)).collect()
}

/// The event, with some of its flows.
fn sighted(
    flows: &EpochFlows<'_>,
    packets: &[u64],
    options: &AttackOptions,
    subject: Subject,
    number: u64,
    limit: f64,
) -> Sighted {
    let concerns = |flow: &FiveTuple, packets: u64| match subject {
        Subject::SynFlood(dst, port) => {
            flow.dst == dst
                && flow.dst_port == port
                && flow.protocol == TCP
                && packets <= options.attempt_packets_max
        }
        Subject::Scan(src) => flow.src == src && packets <= options.attempt_packets_max,
        Subject::FanIn(dst) => flow.dst == dst,
        Subject::FanOut(src) => flow.src == src,
    };
    let concerned: Vec<(&FiveTuple, u64)> = flows
        .iter()
        .zip(packets)
        .map(|((flow, _), &packets)| (flow, packets))
        .filter(|&(flow, packets)| concerns(flow, packets))
        .collect();
    let (kind, severity, measure) = match subject {
        Subject::SynFlood(dst, dst_port) => (
            EventKind::SynFlood { dst, dst_port },
            Severity::Critical,
            "attempts",
        ),
        Subject::Scan(src) => {
            let (dst, dst_port) = common_target(&concerned);
            (
                EventKind::Scan { src, dst, dst_port },
                Severity::Warning,
                "targets",
            )
        }
        Subject::FanIn(dst) => (EventKind::FanIn { dst }, Severity::Info, "sources"),
        Subject::FanOut(src) => (EventKind::FanOut { src }, Severity::Info, "destinations"),
    };
    let mut sighted = Sighted::new(kind, flows.epoch, severity)
        .measure(measure, number as f64)
        .measure("usual_at_most", limit);
    sighted.flows = concerned.len() as u64;
    sighted.packets = concerned.iter().map(|&(_, packets)| packets).sum();
    let mut examples = concerned;
    examples.sort_unstable_by_key(|&(flow, packets)| (std::cmp::Reverse(packets), *flow));
    examples.truncate(EVIDENCE_FLOWS_MAX);
    let example = |(flow, packets): (&FiveTuple, u64)| FlowEvidence {
        flow: *flow,
        epoch: flows.epoch,
        packets,
        hops: Vec::new(),
    };
    sighted.examples = examples.into_iter().map(example).collect();
    sighted
}

/// The address, and the port, that most targets of a scan share.
fn common_target(flows: &[(&FiveTuple, u64)]) -> (Option<IpAddr>, Option<u16>) {
    let mut addresses: HashMap<IpAddr, usize> = HashMap::new();
    let mut ports: HashMap<u16, usize> = HashMap::new();
    for (flow, _) in flows {
        *addresses.entry(flow.dst).or_default() += 1;
        *ports.entry(flow.dst_port).or_default() += 1;
    }
    let most = |count: usize| count as f64 > SAME_TARGET * flows.len() as f64;
    let address = addresses.into_iter().find(|&(_, count)| most(count));
    let port = ports.into_iter().find(|&(_, count)| most(count));
    (
        address.map(|(address, _)| address),
        port.map(|(port, _)| port),
    )
}

impl Contact {
    fn of(flow: &FiveTuple) -> Self {
        Self {
            src: flow.src,
            dst: flow.dst,
            dst_port: flow.dst_port,
        }
    }
}
