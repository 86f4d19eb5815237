//! What analyses work on: the flow records of an epoch, from NetDecode, SingleDecode or a store.

use std::fmt::{self, Display, Formatter};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use flowradar_core::decode::{DecodedFlow, SingleDecode};
use flowradar_core::flowset::SwitchName;
use flowradar_core::{Counter, CounterStatus, FlowKey, KeyKind};
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::{NetDecode, SwitchDecode};

/// A flow, IPv4 or IPv6: what two packets have in common.
///
/// The ports of protocols without ports are defined by [`flowradar_core::packet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FiveTuple {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

/// As few words as there are: flows are looked up in maps by the million, and the derived hash takes every
/// field, and the addresses' lengths, one by one.
impl Hash for FiveTuple {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let ports = u64::from(self.src_port) << 24
            | u64::from(self.dst_port) << 8
            | u64::from(self.protocol);
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                state.write_u64(u64::from(src.to_bits()) << 32 | u64::from(dst.to_bits()));
            }
            (src, dst) => {
                for address in [src, dst] {
                    match address {
                        IpAddr::V4(address) => state.write_u32(address.to_bits()),
                        IpAddr::V6(address) => state.write_u128(address.to_bits()),
                    }
                }
            }
        }
        state.write_u64(ports);
    }
}

/// What a switch counted of a flow in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRecord {
    /// The flow.
    pub flow: FiveTuple,
    /// Its packets.
    pub packets: Counter,
    /// Its bytes from the IP header on, where the switch counts bytes.
    pub bytes: Option<Counter>,
}

/// What a switch reported of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchRecords {
    /// The switch.
    pub switch: SwitchName,
    /// The flows found, each once.
    pub flows: Vec<FlowRecord>,
    /// Whether all IPv4 flows of the switch are among them; false if it did not report any.
    pub all_v4: bool,
    /// The same for IPv6.
    pub all_v6: bool,
}

/// What a switch reported of an epoch, wherever its records are kept.
#[derive(Clone, Copy, Debug)]
pub struct SwitchView<'a> {
    /// The switch.
    pub switch: &'a str,
    /// The flows found, each once.
    pub flows: &'a [FlowRecord],
    /// Whether all IPv4 flows of the switch are among them; false if it did not report any.
    pub all_v4: bool,
    /// The same for IPv6.
    pub all_v6: bool,
}

/// The flow records of all switches that reported an epoch.
///
/// ```
/// use flowradar_collector::analysis::{EpochRecords, FiveTuple, FlowRecord};
/// use flowradar_core::Counter;
///
/// let flow = FiveTuple {
///     src: [10, 0, 0, 1].into(),
///     dst: [10, 0, 1, 1].into(),
///     src_port: 49152,
///     dst_port: 443,
///     protocol: 6,
/// };
/// let mut records = EpochRecords::new(7);
/// let switch = records.switch("leaf-1".parse()?);
/// switch.all_v4 = true;
/// switch.flows.push(FlowRecord { flow, packets: Counter::exact(3), bytes: None });
/// assert_eq!(records.flow_records(), 1);
/// # Ok::<(), flowradar_core::flowset::SwitchNameError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochRecords {
    /// The epoch's number.
    pub epoch: u64,
    switches: Vec<SwitchRecords>,
    by_name: HashMap<SwitchName, usize>,
}

impl FiveTuple {
    /// Which kind of flowset the flow is in.
    pub fn kind(&self) -> KeyKind {
        match self.src {
            IpAddr::V4(_) => KeyKind::V4,
            IpAddr::V6(_) => KeyKind::V6,
        }
    }
}

impl<K: FlowKey> From<&K> for FiveTuple {
    fn from(key: &K) -> Self {
        Self {
            src: key.src(),
            dst: key.dst(),
            src_port: key.src_port(),
            dst_port: key.dst_port(),
            protocol: key.protocol(),
        }
    }
}

impl Display for FiveTuple {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let src = SocketAddr::new(self.src, self.src_port);
        let dst = SocketAddr::new(self.dst, self.dst_port);
        write!(f, "{src} > {dst} proto {}", self.protocol)
    }
}

impl<K: FlowKey> From<&DecodedFlow<K>> for FlowRecord {
    fn from(flow: &DecodedFlow<K>) -> Self {
        Self {
            flow: FiveTuple::from(&flow.key),
            packets: flow.packets,
            bytes: flow.bytes,
        }
    }
}

impl<'a> From<&'a SwitchRecords> for SwitchView<'a> {
    fn from(records: &'a SwitchRecords) -> Self {
        Self {
            switch: records.switch.as_str(),
            flows: &records.flows,
            all_v4: records.all_v4,
            all_v6: records.all_v6,
        }
    }
}

impl SwitchRecords {
    /// Whether a flow that is not among the records was not there.
    pub fn has_all(&self, kind: KeyKind) -> bool {
        match kind {
            KeyKind::V4 => self.all_v4,
            KeyKind::V6 => self.all_v6,
        }
    }

    fn add<K: FlowKey>(&mut self, flows: &[DecodedFlow<K>], all: bool) {
        self.flows.extend(flows.iter().map(FlowRecord::from));
        match K::KIND {
            KeyKind::V4 => self.all_v4 = all,
            KeyKind::V6 => self.all_v6 = all,
        }
    }
}

impl EpochRecords {
    /// An epoch of which nothing was reported yet.
    pub fn new(epoch: u64) -> Self {
        Self {
            epoch,
            ..Self::default()
        }
    }

    /// An epoch as NetDecode found it.
    pub fn of<K: FlowKey>(epoch: u64, decoded: &NetDecode<K>) -> Self {
        let mut records = Self::new(epoch);
        records.add(decoded);
        records
    }

    /// Adds what NetDecode found: once for each kind of flow key.
    pub fn add<K: FlowKey>(&mut self, decoded: &NetDecode<K>) {
        let all_rounds = !decoded.summary.flow_rounds_exhausted;
        for switch in &decoded.switches {
            let all = all_rounds && found_all(switch);
            self.switch(switch.switch.clone()).add(&switch.flows, all);
        }
    }

    /// Adds what SingleDecode found of one switch.
    pub fn add_single<K: FlowKey>(&mut self, switch: SwitchName, decoded: &SingleDecode<K>) {
        let all = decoded.is_complete();
        self.switch(switch).add(&decoded.flows, all);
    }

    /// The records of a switch, to be filled; without any at first.
    pub fn switch(&mut self, switch: SwitchName) -> &mut SwitchRecords {
        let place = match self.by_name.get(&switch) {
            Some(&place) => place,
            None => {
                self.by_name.insert(switch.clone(), self.switches.len());
                self.switches.push(SwitchRecords {
                    switch,
                    flows: Vec::new(),
                    all_v4: false,
                    all_v6: false,
                });
                self.switches.len() - 1
            }
        };
        &mut self.switches[place]
    }

    /// The switches that reported.
    pub fn switches(&self) -> &[SwitchRecords] {
        &self.switches
    }

    /// Records of all switches: a flow at five switches counts five times.
    pub fn flow_records(&self) -> usize {
        self.switches.iter().map(|switch| switch.flows.len()).sum()
    }
}

/// Whether NetDecode found every flow of a switch, so that one that it did not find was not there.
fn found_all<K>(switch: &SwitchDecode<K>) -> bool {
    switch.leftover.cells == 0 && switch.unconfirmed_flows == 0
}

/// What is known of a counter: the least and the most that it can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// No lower than this.
    pub least: u64,
    /// No higher than this; `u64::MAX` where nothing is known.
    pub most: u64,
}

impl Bounds {
    /// Nothing was counted.
    pub const ZERO: Self = Self { least: 0, most: 0 };
    /// Nothing is known.
    pub const UNKNOWN: Self = Self {
        least: 0,
        most: u64::MAX,
    };

    /// A number that is known.
    pub const fn known(value: u64) -> Self {
        Self {
            least: value,
            most: value,
        }
    }

    /// Whether the number is known.
    pub const fn is_known(&self) -> bool {
        self.least == self.most
    }
}

impl From<Counter> for Bounds {
    fn from(counter: Counter) -> Self {
        match counter.status {
            CounterStatus::Exact | CounterStatus::Joint => Self::known(counter.value),
            CounterStatus::Unresolved { least, most } => Self { least, most },
        }
    }
}

impl std::ops::Add for Bounds {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            least: self.least.saturating_add(other.least),
            most: self.most.saturating_add(other.most),
        }
    }
}

#[cfg(test)]
mod tests {
    use flowradar_core::{FlowKeyV4, FlowKeyV6};

    use super::*;

    #[test]
    fn both_kinds_of_keys_become_tuples() {
        let v4 = FlowKeyV4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 49152, 443, 6);
        let tuple = FiveTuple::from(&v4);
        assert_eq!(tuple.kind(), KeyKind::V4);
        assert_eq!(tuple.to_string(), v4.to_string());
        let v6 = FlowKeyV6::new([1; 16].into(), [2; 16].into(), 1, 2, 17);
        let tuple = FiveTuple::from(&v6);
        assert_eq!(tuple.kind(), KeyKind::V6);
        assert_eq!(tuple.to_string(), v6.to_string());
    }

    #[test]
    fn kinds_of_keys_are_known_apart() {
        let mut records = EpochRecords::new(3);
        let name: SwitchName = "s1".parse().expect("a good name");
        records.switch(name.clone()).add::<FlowKeyV4>(&[], true);
        assert!(records.switches()[0].has_all(KeyKind::V4));
        // No IPv6 flowset: nothing is known of IPv6 flows.
        assert!(!records.switches()[0].has_all(KeyKind::V6));
        records.switch(name).add::<FlowKeyV6>(&[], true);
        assert!(records.switches()[0].has_all(KeyKind::V6));
        assert_eq!(records.switches().len(), 1);
    }

    #[test]
    fn bounds_follow_the_status() {
        assert_eq!(Bounds::from(Counter::exact(7)), Bounds::known(7));
        let open = Counter {
            value: 5,
            status: CounterStatus::Unresolved { least: 1, most: 9 },
        };
        assert_eq!(Bounds::from(open), Bounds { least: 1, most: 9 });
        assert_eq!(
            Bounds::UNKNOWN + Bounds::known(1),
            Bounds {
                least: 1,
                most: u64::MAX
            }
        );
    }
}
