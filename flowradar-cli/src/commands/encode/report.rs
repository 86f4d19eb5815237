//! The summary of `encode`.

use std::collections::BTreeMap;
use std::time::Instant;

use flowradar_core::KeyKind;
use serde::Serialize;

use super::stream::InputOutcome;
use super::switch::{LaneCounts, SwitchEncoder};
use super::{EncodeArgs, EpochClock, PlannedFlows};
use crate::text::{counted, grouped, note, short_size};

/// What was read, encoded and written, and what was not.
#[derive(Debug, Serialize)]
pub(super) struct EncodeSummary {
    /// Whether every packet of every input was counted.
    pub(super) complete: bool,
    switch: String,
    folder: String,
    /// Packet records of all inputs.
    packets: u64,
    /// Bytes of the counted packets, from the IP header on.
    ip_bytes: u64,
    ipv4: KeySummary,
    ipv6: KeySummary,
    not_ip_packets: u64,
    unsupported_link_packets: u64,
    /// By reason.
    malformed_packets: BTreeMap<String, u64>,
    /// Where the first of them is, for each input that has some.
    first_malformed: Vec<String>,
    /// Counted, but with ports of 0, because the capture ends before the ports.
    ports_cut_off_packets: u64,
    /// Counted, but with ports of 0, because the IP datagram ends before the ports.
    ports_beyond_datagram_packets: u64,
    /// Counted in a later epoch than they belong to.
    late_packets: u64,
    /// Counted in the epoch of the packet before.
    packets_without_time: u64,
    /// Epochs with packets.
    epochs: u64,
    empty_epochs_skipped: u64,
    inputs: Vec<InputSummary>,
    seconds: f64,
}

/// One kind of flow key.
#[derive(Debug, Serialize)]
struct KeySummary {
    packets: u64,
    /// Flows new to the flow filter, summed over epochs.
    flows: u64,
    flows_of_epoch_max: u64,
    /// Flows of an epoch that the table was made for; none if there was no packet.
    planned_flows: Option<u64>,
    epochs_over_plan: u64,
    /// Memory of one bank on a switch.
    switch_memory_bytes: Option<u64>,
    files: u64,
    file_bytes: u64,
}

#[derive(Debug, Serialize)]
struct InputSummary {
    input: String,
    /// None if it could not be opened.
    format: Option<String>,
    packets: u64,
    /// Why it was not read to its end.
    error: Option<String>,
}

impl EncodeSummary {
    pub(super) fn new(
        args: &EncodeArgs,
        planned: PlannedFlows,
        inputs: &[InputOutcome],
        encoder: &SwitchEncoder,
        clock: &EpochClock,
        start: Instant,
    ) -> Self {
        let sum = |value: fn(&InputOutcome) -> u64| inputs.iter().map(value).sum();
        let mut malformed_packets = BTreeMap::new();
        for (reason, packets) in inputs
            .iter()
            .flat_map(|input| &input.stats.malformed_packets)
        {
            *malformed_packets.entry(reason.to_string()).or_default() += packets;
        }
        let first_malformed = inputs.iter().filter_map(|input| {
            let first = input.stats.first_malformed?;
            Some(format!("{}: {first}", input.name))
        });
        let uncounted: u64 = sum(|input| input.stats.uncounted_packets());
        let memory = |layout: Option<&flowradar_core::layout::Layout>, key| {
            layout.map(|layout| layout.switch_memory_bits(key).div_ceil(8))
        };
        Self {
            complete: uncounted == 0 && inputs.iter().all(|input| input.error.is_none()),
            switch: args.switch.to_string(),
            folder: args.out.display().to_string(),
            packets: sum(|input| input.stats.packets),
            ip_bytes: sum(|input| input.stats.ip_bytes),
            ipv4: KeySummary::new(
                &encoder.v4.counts,
                planned.v4,
                memory(encoder.v4.layout_used(), KeyKind::V4),
            ),
            ipv6: KeySummary::new(
                &encoder.v6.counts,
                planned.v6,
                memory(encoder.v6.layout_used(), KeyKind::V6),
            ),
            not_ip_packets: sum(|input| input.stats.not_ip_packets),
            unsupported_link_packets: sum(|input| input.stats.unsupported_link_packets),
            malformed_packets,
            first_malformed: first_malformed.collect(),
            ports_cut_off_packets: sum(|input| input.stats.ports_cut_off_packets),
            ports_beyond_datagram_packets: sum(|input| input.stats.ports_beyond_datagram_packets),
            late_packets: clock.late_packets,
            packets_without_time: clock.packets_without_time,
            epochs: clock.epochs,
            empty_epochs_skipped: clock.empty_epochs_skipped,
            inputs: inputs.iter().map(InputSummary::new).collect(),
            seconds: start.elapsed().as_secs_f64(),
        }
    }

    pub(super) fn print(&self) {
        for input in &self.inputs {
            if let Some(error) = &input.error {
                note!("error: {error}");
                note!(
                    "  {} before that were encoded",
                    counted(input.packets, "packet")
                );
            }
        }
        let counted_packets = self.ipv4.packets + self.ipv6.packets;
        note!(
            "{} read, {} encoded in {} ({:.2} s)",
            counted(self.packets, "packet"),
            grouped(counted_packets),
            counted(self.epochs, "epoch"),
            self.seconds,
        );
        self.ipv4.print("IPv4", self.epochs);
        self.ipv6.print("IPv6", self.epochs);
        self.print_uncounted();
        self.print_marked();
        if counted_packets == 0 {
            note!("warning: there was no IP packet, so no flowset was written");
        } else {
            note!(
                "{} of the switch {} in {}; next: flowradar decode {}",
                counted(self.ipv4.files + self.ipv6.files, "flowset"),
                self.switch,
                self.folder,
                self.folder,
            );
        }
    }

    /// Packets that are in no flowset.
    fn print_uncounted(&self) {
        if self.not_ip_packets > 0 {
            note!(
                "  {} without IP (such as ARP) passed over",
                counted(self.not_ip_packets, "packet")
            );
        }
        if self.unsupported_link_packets > 0 {
            note!(
                "warning: {} not counted: link type not supported",
                counted(self.unsupported_link_packets, "packet")
            );
        }
        for (reason, &packets) in &self.malformed_packets {
            note!(
                "warning: {} not counted: {reason}",
                counted(packets, "packet")
            );
        }
        for first in &self.first_malformed {
            note!("  the first: {first}");
        }
    }

    /// Packets that are counted, but perhaps not where one would expect them.
    fn print_marked(&self) {
        if self.ports_cut_off_packets > 0 {
            note!(
                "warning: {} counted under ports of 0: the capture ends before the ports; capture \
                 more of each packet (tcpdump -s)",
                counted(self.ports_cut_off_packets, "packet")
            );
        }
        if self.ports_beyond_datagram_packets > 0 {
            note!(
                "warning: {} counted under ports of 0: the IP datagram ends before the ports",
                counted(self.ports_beyond_datagram_packets, "packet")
            );
        }
        if self.late_packets > 0 {
            note!(
                "warning: {} late: counted in the epoch that was current, not in the one before \
                 that they belong to",
                counted(self.late_packets, "packet")
            );
        }
        if self.packets_without_time > 0 {
            note!(
                "warning: {} without a timestamp: counted in the epoch of the packet before",
                counted(self.packets_without_time, "packet")
            );
        }
        if self.empty_epochs_skipped > 0 {
            note!(
                "  {} without packets skipped",
                counted(self.empty_epochs_skipped, "epoch")
            );
        }
    }
}

impl KeySummary {
    fn new(counts: &LaneCounts, planned_flows: u64, switch_memory_bytes: Option<u64>) -> Self {
        Self {
            packets: counts.packets,
            flows: counts.flows,
            flows_of_epoch_max: counts.flows_of_epoch_max,
            planned_flows: switch_memory_bytes.map(|_| planned_flows),
            epochs_over_plan: counts.epochs_over_plan,
            switch_memory_bytes,
            files: counts.files,
            file_bytes: counts.file_bytes,
        }
    }

    fn print(&self, keys: &str, epochs: u64) {
        let (Some(memory), Some(planned)) = (self.switch_memory_bytes, self.planned_flows) else {
            return;
        };
        let most = if epochs > 1 {
            format!(", at most {} in an epoch", grouped(self.flows_of_epoch_max))
        } else {
            String::new()
        };
        note!(
            "  {keys}: {}, {}{most}; tables for {} take {} on a switch; {} of files",
            counted(self.packets, "packet"),
            counted(self.flows, "flow"),
            counted(planned, "flow"),
            short_size(memory),
            short_size(self.file_bytes),
        );
        if self.epochs_over_plan > 0 {
            note!(
                "warning: {} more {keys} flows than the table was made for, and may not decode \
                 completely; encode again with --flows {}",
                if self.epochs_over_plan == 1 {
                    "1 epoch has".into()
                } else {
                    format!("{} have", counted(self.epochs_over_plan, "epoch"))
                },
                self.flows_of_epoch_max,
            );
        }
    }
}

impl InputSummary {
    fn new(input: &InputOutcome) -> Self {
        Self {
            input: input.name.clone(),
            format: input.format.map(|format| format.to_string()),
            packets: input.stats.packets,
            error: input.error.as_ref().map(ToString::to_string),
        }
    }
}
