//! What decoding an epoch gives.

use flowradar_collector::analysis::{FlowRecord, SwitchView};
use flowradar_core::CounterStatus;
use serde::{Deserialize, Serialize};

use super::GroupId;

/// How thoroughly an epoch was decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Quality {
    /// All switches together, where one alone did not suffice.
    Network,
    /// Each switch alone, since decoding lagged behind or the report came too late.
    Single,
}

/// A decoded epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecodedEpoch {
    /// The group of reports it was.
    pub group: GroupId,
    /// Counts decodes of the group, from 0: what is decoded later replaces what was before.
    pub revision: u32,
    /// Number of the epoch.
    pub epoch: u64,
    /// When it began, in nanoseconds since 1970; if that is not known, when its first report came.
    pub time_ns: u64,
    /// How long it was, in nanoseconds; 0 if unknown.
    pub length_ns: u64,
    /// How thoroughly it was decoded.
    pub quality: Quality,
    /// Whether its only report came when the epoch was closed.
    pub too_late: bool,
    /// Whether only one switch reported it, and its number is far from those of all others.
    pub implausible: bool,
    /// Whether rows of this epoch may be stored already.
    pub may_be_stored: bool,
    /// Switches that were expected and did not report.
    pub missing: Vec<String>,
    /// The switches that reported.
    pub switches: Vec<SwitchOutcome>,
    /// How long decoding took, in nanoseconds.
    pub decode_ns: u64,
}

/// What was decoded of a switch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SwitchOutcome {
    /// The switch.
    pub switch: String,
    /// Its flows.
    #[serde(with = "wire")]
    pub flows: Vec<FlowRecord>,
    /// Whether all its IPv4 flows are among them; false if it reported none.
    pub all_v4: bool,
    /// The same for IPv6.
    pub all_v6: bool,
    /// Flows that its tables count and nobody could find.
    pub flows_not_found: u64,
    /// Flows known from elsewhere that may have been there.
    pub flows_unconfirmed: u64,
    /// Why some or all of its report could not be decoded.
    pub failure: Option<String>,
}

impl DecodedEpoch {
    /// Flows at switches.
    pub fn flow_records(&self) -> usize {
        self.switches.iter().map(|switch| switch.flows.len()).sum()
    }

    /// Whether every expected switch reported, every flow was found, and every counter is known.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.switches.iter().all(SwitchOutcome::is_complete)
    }

    /// Counters that are exact, joint and unresolved; a record with bytes counts by the weaker of both.
    pub fn statuses(&self) -> [u64; 3] {
        let mut counts = [0; 3];
        for flow in self.switches.iter().flat_map(|switch| &switch.flows) {
            counts[weaker_status(flow)] += 1;
        }
        counts
    }

    /// The records as analyses take them.
    pub fn switch_views(&self) -> Vec<SwitchView<'_>> {
        let views = self.switches.iter().map(|outcome| SwitchView {
            switch: &outcome.switch,
            flows: &outcome.flows,
            all_v4: outcome.all_v4,
            all_v6: outcome.all_v6,
        });
        views.collect()
    }
}

impl SwitchOutcome {
    /// Whether every flow was found and every counter is known.
    pub fn is_complete(&self) -> bool {
        self.failure.is_none()
            && self.flows_not_found == 0
            && self.flows_unconfirmed == 0
            && self.flows.iter().all(|flow| weaker_status(flow) < 2)
    }
}

/// 0 for exact, 1 for joint, 2 for unresolved.
pub(crate) fn weaker_status(flow: &FlowRecord) -> usize {
    let rank = |status: &CounterStatus| match status {
        CounterStatus::Exact => 0,
        CounterStatus::Joint => 1,
        CounterStatus::Unresolved { .. } => 2,
    };
    let bytes = flow.bytes.map_or(0, |bytes| rank(&bytes.status));
    rank(&flow.packets.status).max(bytes)
}

/// Flow records in messages.
mod wire {
    use flowradar_collector::analysis::{FiveTuple, FlowRecord};
    use flowradar_core::{Counter, CounterStatus};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Record(FiveTuple, WireCounter, Option<WireCounter>);

    #[derive(Serialize, Deserialize)]
    struct WireCounter(u64, WireStatus);

    #[derive(Serialize, Deserialize)]
    enum WireStatus {
        Exact,
        Joint,
        Unresolved(u64, u64),
    }

    pub(super) fn serialize<S: Serializer>(
        flows: &[FlowRecord],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(
            flows
                .iter()
                .map(|flow| Record(flow.flow, write(flow.packets), flow.bytes.map(write))),
        )
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<FlowRecord>, D::Error> {
        let records = Vec::<Record>::deserialize(deserializer)?;
        let flow = |Record(flow, packets, bytes)| FlowRecord {
            flow,
            packets: read(packets),
            bytes: bytes.map(read),
        };
        Ok(records.into_iter().map(flow).collect())
    }

    fn write(counter: Counter) -> WireCounter {
        let status = match counter.status {
            CounterStatus::Exact => WireStatus::Exact,
            CounterStatus::Joint => WireStatus::Joint,
            CounterStatus::Unresolved { least, most } => WireStatus::Unresolved(least, most),
        };
        WireCounter(counter.value, status)
    }

    fn read(WireCounter(value, status): WireCounter) -> Counter {
        let status = match status {
            WireStatus::Exact => CounterStatus::Exact,
            WireStatus::Joint => CounterStatus::Joint,
            WireStatus::Unresolved(least, most) => CounterStatus::Unresolved { least, most },
        };
        Counter { value, status }
    }
}

#[cfg(test)]
mod tests {
    use flowradar_collector::analysis::FiveTuple;
    use flowradar_core::Counter;

    use super::*;

    #[test]
    fn a_decoded_epoch_can_go_to_another_machine() {
        let flow = |status| FlowRecord {
            flow: FiveTuple {
                src: [10, 0, 0, 1].into(),
                dst: [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(),
                src_port: 1,
                dst_port: 2,
                protocol: 17,
            },
            packets: Counter { value: 5, status },
            bytes: Some(Counter::exact(7)),
        };
        let unresolved = CounterStatus::Unresolved {
            least: 1,
            most: u64::MAX,
        };
        let statuses = [CounterStatus::Exact, CounterStatus::Joint, unresolved];
        let epoch = DecodedEpoch {
            group: GroupId(1),
            revision: 2,
            epoch: 3,
            time_ns: 4,
            length_ns: 5,
            quality: Quality::Single,
            too_late: true,
            implausible: true,
            may_be_stored: false,
            missing: vec!["leaf-2".into()],
            switches: vec![SwitchOutcome {
                switch: "leaf-1".into(),
                flows: statuses.map(flow).to_vec(),
                all_v4: true,
                all_v6: false,
                flows_not_found: 6,
                flows_unconfirmed: 7,
                failure: Some("damaged".into()),
            }],
            decode_ns: 8,
        };
        assert_eq!(epoch.statuses(), [1, 1, 1]);
        let text = serde_json::to_string(&epoch).expect("it is plain data");
        assert_eq!(
            serde_json::from_str::<DecodedEpoch>(&text).ok(),
            Some(epoch)
        );
    }
}
