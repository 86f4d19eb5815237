//! Analyses: what the flow records of a network say about it (NSDI 2016 §6; the authors' list of
//! applications).
//!
//! An [`Analyzer`] is fed one epoch after the other, as NetDecode (or SingleDecode, or a store) gives
//! them, and answers with [`EpochFindings`]: numbers of the epoch, and [`Event`]s that were opened,
//! went on or were closed. No I/O, no clock, no threads; the same records give the same findings.
//!
//! | module | finds | needs |
//! | --- | --- | --- |
//! | [`loss`] | lost packets of every flow, and a map of the links that lose them, told apart from packets in flight | a [`NetworkModel`] |
//! | [`anomaly`] | transient loops; blackholes | the same |
//! | [`misforwarding`] | flows where intended forwarding does not send them | the same |
//! | [`ecmp`] | uneven load of ECMP groups, in flows, packets and bytes | the same |
//! | [`traffic`] | top flows, prefixes, services; sizes, durations; traffic matrix | nothing |
//! | [`attack`] | SYN floods, scans, fan-in, fan-out | nothing |
//!
//! # Design
//! - *Exact or marked.* A record is exact, joint or unresolved. Conclusions are drawn from
//!   [`Bounds`]: a loss is what is missing at least, whatever the unresolved counters are. A flow
//!   that is not among a switch's records was not there only if that switch's decode was complete
//!   ([`SwitchRecords::has_all`]); otherwise, and where a switch did not report, nothing is concluded
//!   and the comparison is counted as undecided.
//! - *Epochs are settled one epoch late.* A packet on its way when an epoch ends is counted downstream
//!   in the next. So what is missing in an epoch is called lost when the next one has been seen
//!   ([`LossOptions::in_flight_epochs`]; 0 where switches stamp the epoch into packets).
//! - *State is bounded.* Every table has a limit in [`AnalysisOptions`]; what a limit left out is
//!   counted in [`AnalysisCounters`].
//! - *Epochs come in order.* A gap settles what was open as undecided; an epoch that is not above the
//!   last is refused. Whoever waits for late reports does so before.
//!
//! ```
//! use flowradar_collector::analysis::{AnalysisOptions, Analyzer, EpochRecords};
//!
//! let mut analyzer = Analyzer::new(AnalysisOptions::default(), None);
//! for epoch in 0..3 {
//!     let findings = analyzer.epoch(&EpochRecords::new(epoch))?;
//!     assert!(findings.events.is_empty());
//! }
//! # Ok::<(), flowradar_collector::analysis::AnalysisError>(())
//! ```

pub mod anomaly;
pub mod attack;
mod book;
pub mod ecmp;
mod event;
mod evidence;
mod flows;
mod intended;
pub mod loss;
pub mod misforwarding;
mod network;
mod path;
mod record;
mod robust;
pub mod traffic;
mod way;

use serde::{Deserialize, Serialize};

use attack::Attacks;
use book::{Book, BookLimits};
use ecmp::Ecmp;
use flows::{EpochFlows, Sighting};
use path::Paths;
use traffic::TrafficWatch;
use way::Way;

pub use attack::AttackOptions;
pub use ecmp::{EcmpOptions, GroupLoad, MemberLoad};
pub use event::{
    EVIDENCE_FLOWS_MAX, Event, EventChange, EventKind, Evidence, FlowEvidence, HopCounter, Measure,
    Severity,
};
pub use intended::{
    Forwarding, ForwardingError, Group, GroupIndex, Intended, ROUTES_PER_SWITCH_MAX,
    SHORTEST_PATHS_MAX,
};
pub use loss::{FlowLoss, LinkLoss, LossMap, LossOptions, SwitchLoss};
pub use network::{
    HOSTS_MAX, Host, HostIndex, LINKS_MAX, NAME_BYTES_MAX, Network, NetworkError, Node,
    PREFIXES_PER_HOST_MAX, SWITCHES_MAX, SwitchIndex,
};
pub use record::{Bounds, EpochRecords, FiveTuple, FlowRecord, SwitchRecords, SwitchView};
pub use traffic::{
    AddressVolume, FlowVolume, MatrixVolume, PrefixVolume, ServiceVolume, TrafficOptions,
    TrafficSummary, Volume,
};

/// Limits of an [`Analyzer`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AnalysisOptions {
    /// Of the loss analysis, and of those built on it.
    pub loss: LossOptions,
    /// Of the ECMP analysis.
    pub ecmp: EcmpOptions,
    /// Of the traffic analysis.
    pub traffic: TrafficOptions,
    /// Of attack detection.
    pub attack: AttackOptions,
    /// Epochs without evidence after which an event is over.
    pub quiet_epochs: u64,
    /// Epochs after which an event that goes on is told again; at once if it got more severe.
    pub update_epochs: u64,
    /// Events that are open at the same time at most.
    pub open_events_max: usize,
    /// Flow records of an epoch looked at at most.
    pub records_max: usize,
    /// Flows kept from an epoch to the next since packets of them were missing, at most.
    pub pending_flows_max: usize,
}

/// The network and how it is meant to forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkModel {
    network: Network,
    forwarding: Forwarding,
}

/// Analyses one epoch after the other.
#[derive(Debug)]
pub struct Analyzer {
    options: AnalysisOptions,
    model: Option<NetworkModel>,
    counters: AnalysisCounters,
    last_epoch: Option<u64>,
    book: Book,
    traffic: TrafficWatch,
    attacks: Attacks,
    paths: Paths,
    ecmp: Ecmp,
}

/// What an epoch's records say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochFindings {
    /// The epoch.
    pub epoch: u64,
    /// Its traffic.
    pub traffic: TrafficSummary,
    /// The load of its ECMP groups with two members and more; empty without a network.
    pub groups: Vec<GroupLoad>,
    /// The losses of the epoch before, or of this one if [`LossOptions::in_flight_epochs`] is 0;
    /// none without a network, for the first epoch, and after a gap.
    pub losses: Option<LossMap>,
    /// Events that opened, went on or were closed.
    pub events: Vec<EventChange>,
}

/// What an analyzer did, and what it left out. All only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnalysisCounters {
    /// Epochs.
    pub epochs: u64,
    /// Epochs whose predecessor was missing.
    pub gaps: u64,
    /// Flow records.
    pub records: u64,
    /// Flow records beyond [`AnalysisOptions::records_max`], not looked at.
    pub records_over_limit: u64,
    /// Records of switches that are not in the network's description.
    pub records_of_unknown_switches: u64,
    /// Flows, in each epoch, whose destination is not in the network's description: not followed.
    pub flows_not_located: u64,
    /// Flows, in each epoch, that no switch of their source saw: followed from where they are seen.
    pub flows_entering_elsewhere: u64,
    /// Flows, in each epoch, at more switches than are followed (64).
    pub flows_at_too_many_switches: u64,
    /// Flows beyond [`AnalysisOptions::pending_flows_max`]: what they miss is undecided.
    pub pending_over_limit: u64,
    /// Flows beyond [`TrafficOptions::flows_max`]: their sizes and durations are not in histograms.
    pub flows_not_followed: u64,
    /// Addresses and services beyond [`AttackOptions::baselines_max`]: judged by all others' numbers.
    pub baselines_over_limit: u64,
    /// Events opened.
    pub events_opened: u64,
    /// Events closed.
    pub events_closed: u64,
    /// Events beyond [`AnalysisOptions::open_events_max`], not told.
    pub events_over_limit: u64,
}

/// Why an epoch was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnalysisError {
    /// It does not come after the last one.
    #[error("epoch {epoch} comes after epoch {last}: feed epochs in ascending order")]
    OutOfOrder {
        /// The epoch.
        epoch: u64,
        /// The last one taken.
        last: u64,
    },
}

impl Default for AnalysisOptions {
    fn default() -> Self {
        Self {
            loss: LossOptions::default(),
            ecmp: EcmpOptions::default(),
            traffic: TrafficOptions::default(),
            attack: AttackOptions::default(),
            quiet_epochs: 5,
            update_epochs: 100,
            open_events_max: 1_024,
            records_max: 16 << 20,
            pending_flows_max: 1 << 20,
        }
    }
}

impl NetworkModel {
    /// A network that is meant to forward as the tables say.
    pub fn new(network: Network, forwarding: Forwarding) -> Self {
        Self {
            network,
            forwarding,
        }
    }

    /// A network that is meant to forward along shortest paths.
    ///
    /// # Errors
    /// If it is too large for tables of shortest paths.
    pub fn shortest_paths(network: Network) -> Result<Self, ForwardingError> {
        let forwarding = Forwarding::shortest_paths(&network)?;
        Ok(Self::new(network, forwarding))
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Its intended forwarding.
    pub fn forwarding(&self) -> &Forwarding {
        &self.forwarding
    }

    fn names(&self, switches: &[SwitchIndex]) -> Vec<String> {
        let name = |&switch: &SwitchIndex| self.network.switch_name(switch).to_owned();
        switches.iter().map(name).collect()
    }
}

impl Analyzer {
    /// An analyzer that has seen nothing yet. Without a network only traffic and attacks are analysed.
    pub fn new(options: AnalysisOptions, model: Option<NetworkModel>) -> Self {
        Self {
            options,
            model,
            counters: AnalysisCounters::default(),
            last_epoch: None,
            book: Book::default(),
            traffic: TrafficWatch::default(),
            attacks: Attacks::default(),
            paths: Paths::default(),
            ecmp: Ecmp::default(),
        }
    }

    /// Analyses an epoch.
    ///
    /// # Errors
    /// If the epoch does not come after the last one; nothing changes then.
    pub fn epoch(&mut self, records: &EpochRecords) -> Result<EpochFindings, AnalysisError> {
        let switches: Vec<SwitchView<'_>> = records.switches().iter().map(Into::into).collect();
        self.epoch_of(records.epoch, &switches)
    }

    /// The same for records that are kept elsewhere: no switch may be there twice.
    ///
    /// # Errors
    /// If the epoch does not come after the last one; nothing changes then.
    pub fn epoch_of(
        &mut self,
        epoch: u64,
        switches: &[SwitchView<'_>],
    ) -> Result<EpochFindings, AnalysisError> {
        if let Some(last) = self.last_epoch
            && epoch <= last
        {
            return Err(AnalysisError::OutOfOrder { epoch, last });
        }
        self.counters.epochs += 1;
        if self.last_epoch.is_some_and(|last| last + 1 != epoch) {
            self.counters.gaps += 1;
        }
        self.last_epoch = Some(epoch);
        let model = self.model.as_ref();
        let flows = EpochFlows::new(
            epoch,
            switches,
            model.map(NetworkModel::network),
            self.options.records_max,
            &mut self.counters,
        );
        // Every flow has a sighting, so there are as many as flows.
        let of_flows: Vec<&FlowRecord> = flows
            .iter()
            .zip(flows.ends())
            .filter_map(|((_, seen), &ends)| traffic::record_of(seen, ends, model))
            .collect();
        let mut findings = EpochFindings {
            epoch,
            traffic: self.traffic.epoch(
                &flows,
                &of_flows,
                model,
                &self.options.traffic,
                &mut self.counters,
            ),
            ..EpochFindings::default()
        };
        let packets: Vec<u64> = of_flows.iter().map(|record| record.packets.value).collect();
        let mut sighted = self.attacks.epoch(
            &flows,
            &packets,
            &self.book,
            &self.options.attack,
            &mut self.counters,
        );
        sighted.extend(self.follow(&flows, &mut findings));
        let limits = BookLimits {
            quiet_epochs: self.options.quiet_epochs,
            update_epochs: self.options.update_epochs,
            open_events_max: self.options.open_events_max,
        };
        let (changes, counters) = (&mut findings.events, &mut self.counters);
        self.book.enter(epoch, sighted, limits, changes, counters);
        self.book.close_quiet(epoch, limits, changes, counters);
        Ok(findings)
    }

    /// All that follows flows through the network.
    fn follow(
        &mut self,
        flows: &EpochFlows<'_>,
        findings: &mut EpochFindings,
    ) -> Vec<evidence::Sighted> {
        let Some(model) = &self.model else {
            return Vec::new();
        };
        let ecmp = &mut self.ecmp;
        let traffic = &self.traffic;
        let crossed = |flow: &FiveTuple, way: &Way, seen: &[Sighting<'_>]| {
            ecmp.add(way, seen, traffic.began(flow, flows.epoch), model);
        };
        let settled = self
            .paths
            .epoch(flows, model, &self.options, &mut self.counters, crossed);
        let (groups, mut sighted) = ecmp.end_epoch(flows.epoch, model, &self.options.ecmp);
        findings.groups = groups;
        let Some(mut settled) = settled else {
            return sighted;
        };
        let mut explained = vec![false; settled.flows.len()];
        let loops = anomaly::find_loops(&mut settled, model, &mut explained);
        let options = &self.options.loss;
        let wrong = misforwarding::find(&settled, model, &mut explained);
        let (mut losses, mut ends) = loss::find(&mut settled, &explained, model, options);
        let on_links = |switch: SwitchIndex| {
            let name = model.network.switch_name(switch);
            let links = losses.map.links.iter().filter(|link| link.from == name);
            links.map(|link| link.lost).sum()
        };
        let mut ended = anomaly::find_blackholes(&settled, model, &mut ends, on_links);
        for (&(switch, group), ends) in &ends {
            // A link that is known to be lossy explains flows that end before it.
            let lossy = |sighted: &evidence::Sighted| match &sighted.kind {
                EventKind::LinkLoss { from, .. } => from == model.network.switch_name(switch),
                _ => false,
            };
            if !losses.sighted.iter().any(lossy) {
                let behind = loss::sighted_behind(switch, group, ends, &settled, model, options);
                ended.extend(behind);
            }
        }
        losses.sighted.extend(ended);
        losses.sighted.extend(wrong);
        sighted.extend(losses.sighted);
        sighted.extend(loops);
        findings.losses = Some(losses.map);
        sighted
    }

    /// Closes what is open: there are no more epochs. What still waits for the next epoch to be
    /// settled stays undecided.
    pub fn finish(&mut self) -> Vec<EventChange> {
        self.book.close_all(&mut self.counters)
    }

    /// The events that are open, by kind and place.
    pub fn open_events(&self) -> impl Iterator<Item = &Event> {
        self.book.open()
    }

    /// What was done, and what was left out.
    pub fn counters(&self) -> AnalysisCounters {
        self.counters
    }

    /// Its limits.
    pub fn options(&self) -> &AnalysisOptions {
        &self.options
    }

    /// The network, if there is one.
    pub fn model(&self) -> Option<&NetworkModel> {
        self.model.as_ref()
    }
}

/// Reads JSON if the text begins with a brace, else TOML.
fn parse_json_or_toml<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| error.to_string())
    } else {
        toml::from_str(text).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use flowradar_core::Counter;

    use super::*;

    fn records(epoch: u64, flows: u16) -> EpochRecords {
        let mut records = EpochRecords::new(epoch);
        let switch = records.switch("s1".parse().expect("a good name"));
        switch.all_v4 = true;
        switch.flows = (0..flows)
            .map(|src_port| FlowRecord {
                flow: FiveTuple {
                    src: [10, 0, 0, 1].into(),
                    dst: [10, 0, 1, 1].into(),
                    src_port,
                    dst_port: 443,
                    protocol: 6,
                },
                packets: Counter::exact(7),
                bytes: None,
            })
            .collect();
        records
    }

    #[test]
    fn epochs_come_in_order() {
        let mut analyzer = Analyzer::new(AnalysisOptions::default(), None);
        for epoch in [3, 4, 9] {
            assert!(analyzer.epoch(&records(epoch, 1)).is_ok());
        }
        for epoch in [9, 0] {
            let refused = analyzer.epoch(&records(epoch, 1));
            assert_eq!(refused, Err(AnalysisError::OutOfOrder { epoch, last: 9 }));
        }
        let counters = analyzer.counters();
        assert_eq!(
            (counters.epochs, counters.gaps, counters.records),
            (3, 1, 3)
        );
    }

    #[test]
    fn limits_are_kept_and_counted() {
        let options = AnalysisOptions {
            records_max: 50,
            traffic: TrafficOptions {
                flows_max: 20,
                ..TrafficOptions::default()
            },
            ..AnalysisOptions::default()
        };
        let mut analyzer = Analyzer::new(options, None);
        let findings = analyzer.epoch(&records(0, 80)).expect("the first epoch");
        assert_eq!(findings.traffic.total.flows, 50);
        let counters = analyzer.counters();
        assert_eq!((counters.records, counters.records_over_limit), (50, 30));
        assert_eq!(counters.flows_not_followed, 30);
    }

    #[test]
    fn findings_are_read_back_as_they_were() {
        let mut analyzer = Analyzer::new(AnalysisOptions::default(), None);
        let mut findings = analyzer.epoch(&records(0, 3)).expect("the first epoch");
        let kind = EventKind::LinkLoss {
            from: "a".into(),
            to: "b".into(),
        };
        let event = Event {
            id: 1,
            kind,
            severity: Severity::Warning,
            start_epoch: 0,
            detected_epoch: 1,
            last_epoch: 0,
            end_epoch: None,
            evidence: Evidence::default(),
        };
        findings.events = vec![EventChange::Opened(event)];
        let text = serde_json::to_string(&findings).expect("all keys are text");
        assert_eq!(
            serde_json::from_str::<EpochFindings>(&text).expect("the same"),
            findings
        );
        assert!(
            text.contains(r#""kind":"link_loss","from":"a","to":"b""#),
            "{text}"
        );
    }
}
