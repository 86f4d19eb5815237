//! Exporters and their streams, within limits.
//!
//! When there is no room, an exporter that has hardly sent anything makes room for the next: a
//! flood of forged source addresses pushes out its own, and exporters that are established stay.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use hashbrown::HashMap;
use slab::Slab;

use super::plan::Limits;
use crate::policy::{BackEndId, Unit, UnitKey};
use crate::stream::{Delivery, SequenceTracker, StateCache, StreamKey};
use crate::time::Timestamp;

/// A router, by its address.
#[derive(Debug)]
pub(crate) struct Exporter {
    pub(crate) address: IpAddr,
    /// Group of routers, as of `plan_version`.
    pub(crate) route: Option<usize>,
    pub(crate) plan_version: u64,
    pub(crate) unit: Unit,
    pub(crate) streams: Vec<usize>,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) records: u64,
    pub(crate) is_established: bool,
    pub(crate) last_seen: Timestamp,
}

impl Exporter {
    pub(crate) fn unit_key(&self) -> UnitKey {
        let bits = match self.address {
            IpAddr::V4(address) => u128::from(u32::from(address)),
            IpAddr::V6(address) => u128::from(address),
        };
        UnitKey::new(self.address, bits as u64 ^ (bits >> 64) as u64)
    }
}

/// A stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) key: StreamKey,
    pub(crate) hash: u64,
    pub(crate) exporter: usize,
    /// See `Domains`.
    pub(crate) substitute_domain: Option<u32>,
    pub(crate) cache: StateCache,
    pub(crate) upstream: SequenceTracker,
    pub(crate) unit: Unit,
    /// Where it goes, if it is not split.
    pub(crate) current: Option<BackEndId>,
    pub(crate) deliveries: Vec<Delivery>,
    pub(crate) waiting: VecDeque<Waiting>,
    pub(crate) waiting_bytes: usize,
    pub(crate) messages: u64,
    pub(crate) records: u64,
    /// Data messages, for copies of one in N.
    pub(crate) data_messages: u64,
}

/// A datagram whose template is not known yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) since: Timestamp,
    pub(crate) source: SocketAddr,
    pub(crate) bytes: Box<[u8]>,
}

impl Stream {
    pub(crate) fn unit_key(&self) -> UnitKey {
        UnitKey::new(self.key.source, self.hash)
    }
}

/// The delivery of a stream to a destination; made if it is the first.
pub(crate) fn delivery_to(
    deliveries: &mut Vec<Delivery>,
    destination: BackEndId,
    now: Timestamp,
) -> &mut Delivery {
    let place = deliveries
        .iter()
        .position(|delivery| delivery.destination == destination);
    let place = place.unwrap_or_else(|| {
        deliveries.push(Delivery::new(destination, now));
        deliveries.len() - 1
    });
    &mut deliveries[place]
}

/// What had to go, for its owner to clear up.
#[derive(Debug, Default)]
pub(crate) struct Removed {
    pub(crate) exporters: Vec<Exporter>,
    pub(crate) streams: Vec<Stream>,
}

/// No room for an exporter or a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

/// Exporters and streams.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) exporters: Slab<Exporter>,
    by_address: HashMap<IpAddr, usize>,
    pub(crate) streams: Slab<Stream>,
    by_key: HashMap<StreamKey, usize>,
    /// Exporters that are not established, oldest first; some may be gone or established since.
    probation: VecDeque<(usize, IpAddr)>,
    /// Exporters not established.
    newcomers: usize,
}

impl Table {
    pub(crate) fn stream_index(&self, key: &StreamKey) -> Option<usize> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn exporter_index(&self, address: IpAddr) -> Option<usize> {
        self.by_address.get(&address).copied()
    }

    /// Makes an exporter known, at the cost of another newcomer if there is no room.
    pub(crate) fn add_exporter(
        &mut self,
        address: IpAddr,
        route: Option<usize>,
        plan_version: u64,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<(usize, Removed), NoRoom> {
        let mut removed = Removed::default();
        if self.exporters.len() >= limits.exporters {
            removed = self.evict_newcomer().ok_or(NoRoom)?;
        }
        let index = self.exporters.insert(Exporter {
            address,
            route,
            plan_version,
            unit: Unit::new(now),
            streams: Vec::new(),
            messages: 0,
            bytes: 0,
            records: 0,
            is_established: false,
            last_seen: now,
        });
        self.by_address.insert(address, index);
        self.newcomers += 1;
        self.probation.push_back((index, address));
        // Entries of exporters that were established or removed since must not pile up.
        if self.probation.len() > 2 * self.newcomers + 64 {
            let exporters = &self.exporters;
            self.probation
                .retain(|(index, address)| is_newcomer(exporters, *index, *address));
        }
        Ok((index, removed))
    }

    /// Makes a stream known, at the cost of a newcomer's if there is no room.
    pub(crate) fn add_stream(
        &mut self,
        key: StreamKey,
        exporter: usize,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<(usize, Removed), NoRoom> {
        let mut removed = Removed::default();
        let owned = self
            .exporters
            .get(exporter)
            .map_or(usize::MAX, |known| known.streams.len());
        if owned >= limits.streams_per_exporter {
            return Err(NoRoom);
        }
        if self.streams.len() >= limits.streams {
            removed = self.evict_newcomer_but(exporter).ok_or(NoRoom)?;
            if self.streams.len() >= limits.streams {
                return Err(NoRoom);
            }
        }
        let index = self.streams.insert(Stream {
            hash: key.hash(),
            key,
            exporter,
            substitute_domain: None,
            cache: StateCache::default(),
            upstream: SequenceTracker::default(),
            unit: Unit::new(now),
            current: None,
            deliveries: Vec::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            messages: 0,
            records: 0,
            data_messages: 0,
        });
        self.by_key.insert(key, index);
        if let Some(exporter) = self.exporters.get_mut(exporter) {
            exporter.streams.push(index);
        }
        Ok((index, removed))
    }

    /// Takes note that an exporter has proved itself.
    pub(crate) fn establish(&mut self, index: usize) {
        if let Some(exporter) = self.exporters.get_mut(index)
            && !exporter.is_established
        {
            exporter.is_established = true;
            self.newcomers -= 1;
        }
    }

    /// Forgets an exporter and its streams.
    pub(crate) fn remove_exporter(&mut self, index: usize) -> Removed {
        let mut removed = Removed::default();
        if let Some(exporter) = self.exporters.try_remove(index) {
            self.by_address.remove(&exporter.address);
            if !exporter.is_established {
                self.newcomers -= 1;
            }
            for stream in &exporter.streams {
                if let Some(stream) = self.streams.try_remove(*stream) {
                    self.by_key.remove(&stream.key);
                    removed.streams.push(stream);
                }
            }
            removed.exporters.push(exporter);
        }
        removed
    }

    fn evict_newcomer(&mut self) -> Option<Removed> {
        self.evict_newcomer_but(usize::MAX)
    }

    fn evict_newcomer_but(&mut self, spared: usize) -> Option<Removed> {
        let mut tries = self.probation.len();
        while tries > 0 {
            tries -= 1;
            let (index, address) = self.probation.pop_front()?;
            if !is_newcomer(&self.exporters, index, address) {
                continue;
            }
            if index == spared {
                self.probation.push_back((index, address));
                continue;
            }
            return Some(self.remove_exporter(index));
        }
        None
    }
}

fn is_newcomer(exporters: &Slab<Exporter>, index: usize, address: IpAddr) -> bool {
    let exporter = exporters.get(index);
    exporter.is_some_and(|exporter| !exporter.is_established && exporter.address == address)
}
