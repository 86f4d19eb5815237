//! The switch that a trace passes: an encoder for each kind of flow key, and the files it writes.

use std::path::{Path, PathBuf};

use flowradar_core::flowset::{Epoch, SwitchName, Totals};
use flowradar_core::hash::HashFamily;
use flowradar_core::layout::Layout;
use flowradar_core::{Encoder, FlowKey, FlowKeyV4, FlowKeyV6, Packet, with_hash_family};

use super::PlannedFlows;
use crate::flowset_files;
use crate::outcome::CommandError;
use crate::output;
use crate::trace::{TraceKey, TracePacket};

/// Packets that are encoded together.
const BATCH: usize = 512;

/// Encodes packets and writes a flowset for each kind of key at the end of each epoch.
pub(super) struct SwitchEncoder {
    switch: SwitchName,
    folder: PathBuf,
    pub(super) v4: Lane<FlowKeyV4>,
    pub(super) v6: Lane<FlowKeyV6>,
}

/// One kind of flow key.
pub(super) struct Lane<K: FlowKey> {
    layout: Layout,
    planned_flows: u64,
    /// Made when the first packet comes.
    encoder: Option<Box<dyn EpochEncoder<K>>>,
    batch: Vec<Packet<K>>,
    pub(super) counts: LaneCounts,
}

/// What was encoded and written of one kind of flow key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LaneCounts {
    pub(super) packets: u64,
    /// Flows new to the flow filter, summed over epochs.
    pub(super) flows: u64,
    /// Most of them in one epoch.
    pub(super) flows_of_epoch_max: u64,
    /// Epochs with more flows than the table was made for.
    pub(super) epochs_over_plan: u64,
    pub(super) files: u64,
    pub(super) file_bytes: u64,
}

impl SwitchEncoder {
    pub(super) fn new(
        switch: SwitchName,
        folder: &Path,
        planned: PlannedFlows,
        layout_v4: Layout,
        layout_v6: Layout,
    ) -> Self {
        Self {
            switch,
            folder: folder.to_path_buf(),
            v4: Lane::new(layout_v4, planned.v4),
            v6: Lane::new(layout_v6, planned.v6),
        }
    }

    /// Encodes a packet in this epoch, which must be the current one.
    pub(super) fn packet(
        &mut self,
        epoch: Epoch,
        packet: &TracePacket,
    ) -> Result<(), CommandError> {
        let ip_bytes = packet.ip_bytes.unwrap_or(0);
        match packet.key {
            TraceKey::V4(key) => self
                .v4
                .packet(&self.switch, epoch, Packet { key, ip_bytes }),
            TraceKey::V6(key) => self
                .v6
                .packet(&self.switch, epoch, Packet { key, ip_bytes }),
        }
    }

    /// Ends the epoch and writes its flowsets, those without packets only if `keep_empty`.
    pub(super) fn end_epoch(&mut self, next: Epoch, keep_empty: bool) -> Result<(), CommandError> {
        self.v4
            .end_epoch(&self.switch, &self.folder, next, keep_empty)?;
        self.v6
            .end_epoch(&self.switch, &self.folder, next, keep_empty)
    }
}

impl<K: FlowKey> Lane<K> {
    fn new(layout: Layout, planned_flows: u64) -> Self {
        Self {
            layout,
            planned_flows,
            encoder: None,
            batch: Vec::with_capacity(BATCH),
            counts: LaneCounts::default(),
        }
    }

    /// The layout, if there was a packet.
    pub(super) fn layout_used(&self) -> Option<&Layout> {
        self.encoder.as_ref().map(|_| &self.layout)
    }

    fn packet(
        &mut self,
        switch: &SwitchName,
        epoch: Epoch,
        packet: Packet<K>,
    ) -> Result<(), CommandError> {
        if self.encoder.is_none() {
            self.encoder = Some(new_encoder(switch, self.layout, epoch)?);
        }
        self.batch.push(packet);
        if self.batch.len() == BATCH {
            self.flush();
        }
        Ok(())
    }

    fn flush(&mut self) {
        if let Some(encoder) = &mut self.encoder {
            encoder.packets(&self.batch);
        }
        self.batch.clear();
    }

    fn end_epoch(
        &mut self,
        switch: &SwitchName,
        folder: &Path,
        next: Epoch,
        keep_empty: bool,
    ) -> Result<(), CommandError> {
        self.flush();
        let Some(encoder) = &mut self.encoder else {
            return Ok(());
        };
        let epoch = encoder.epoch();
        let totals = encoder.totals();
        let flowset = encoder.end_epoch(next)?;
        self.counts.packets += totals.packets;
        self.counts.flows += totals.new_flows;
        self.counts.flows_of_epoch_max = self.counts.flows_of_epoch_max.max(totals.new_flows);
        self.counts.epochs_over_plan += u64::from(totals.new_flows > self.planned_flows);
        if totals.packets > 0 || keep_empty {
            let name = flowset_files::file_name(switch, epoch.number, K::KIND);
            output::write_file(&folder.join(name), &flowset)?;
            self.counts.files += 1;
            self.counts.file_bytes += flowset.len() as u64;
        }
        Ok(())
    }
}

/// An encoder of some hash family.
trait EpochEncoder<K: FlowKey> {
    fn epoch(&self) -> Epoch;
    fn totals(&self) -> Totals;
    fn packets(&mut self, packets: &[Packet<K>]);
    /// Ends the epoch; returns its flowset.
    fn end_epoch(&mut self, next: Epoch) -> Result<Vec<u8>, CommandError>;
}

impl<K: FlowKey, H: HashFamily> EpochEncoder<K> for Encoder<K, H> {
    fn epoch(&self) -> Epoch {
        Self::epoch(self)
    }

    fn totals(&self) -> Totals {
        Self::totals(self)
    }

    fn packets(&mut self, packets: &[Packet<K>]) {
        Self::packets(self, packets);
    }

    fn end_epoch(&mut self, next: Epoch) -> Result<Vec<u8>, CommandError> {
        let sealed =
            Self::end_epoch(self, next).map_err(|error| CommandError::Failed(error.to_string()))?;
        let flowset = sealed.to_flowset();
        self.release();
        Ok(flowset)
    }
}

fn new_encoder<K: FlowKey>(
    switch: &SwitchName,
    layout: Layout,
    epoch: Epoch,
) -> Result<Box<dyn EpochEncoder<K>>, CommandError> {
    with_hash_family!(layout.family(), H => {
        match Encoder::<K, H>::new(switch.clone(), layout, epoch) {
            Ok(encoder) => Ok(Box::new(encoder)),
            Err(error) => Err(CommandError::Failed(error.to_string())),
        }
    })
}
