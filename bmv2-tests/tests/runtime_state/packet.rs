//! Packets of `state.p4`.

/// Where a packet says what it is to meet, and what it met.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Packet {
    pub(crate) op: u8,
    pub(crate) kind: u8,
    pub(crate) target: u16,
    pub(crate) key: u8,
    pub(crate) cell: u8,
    pub(crate) address: u32,
    pub(crate) bits: u16,
    pub(crate) number: u16,
    pub(crate) flow: u16,
    pub(crate) option: u8,
    pub(crate) met: Met,
}

/// What a packet met; zeros when it comes in.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Met {
    pub(crate) exact: u8,
    pub(crate) prefix: u8,
    pub(crate) mask: u8,
    pub(crate) range: u8,
    pub(crate) option: u8,
    pub(crate) member: u8,
    pub(crate) group: u8,
    pub(crate) color: u8,
    /// 3 if no entry asked its meter; 4 more if the value set has the packet's kind.
    pub(crate) entry_color: u8,
    /// `instance_type`: a packet or which kind of copy.
    pub(crate) copy: u8,
    pub(crate) instance: u16,
}

/// Multicast replicas, as `standard_metadata.instance_type` has them.
pub(crate) const REPLICATION: u8 = 5;
pub(crate) const INGRESS_CLONE: u8 = 1;
pub(crate) const EGRESS_CLONE: u8 = 2;

/// What nobody takes for anything else on a wire: local addresses, EtherType for experiments.
const START: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb6];

/// Bytes of a packet.
pub(crate) const LENGTH: usize = START.len() + 17 + 12;

impl Packet {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = START.to_vec();
        bytes.extend([self.op, self.kind]);
        bytes.extend(self.target.to_be_bytes());
        bytes.extend([self.key, self.cell]);
        bytes.extend(self.address.to_be_bytes());
        bytes.extend(self.bits.to_be_bytes());
        bytes.extend(self.number.to_be_bytes());
        bytes.extend(self.flow.to_be_bytes());
        bytes.push(self.option);
        let met = &self.met;
        bytes.extend([met.exact, met.prefix, met.mask, met.range, met.option]);
        bytes.extend([met.member, met.group, met.color, met.entry_color, met.copy]);
        bytes.extend(met.instance.to_be_bytes());
        bytes
    }

    /// What is not a packet of the program fails the test.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), LENGTH, "{bytes:x?}");
        assert!(bytes.starts_with(&START), "{bytes:x?}");
        let at = |offset: usize| bytes[START.len() + offset];
        let two = |offset: usize| u16::from_be_bytes([at(offset), at(offset + 1)]);
        Self {
            op: at(0),
            kind: at(1),
            target: two(2),
            key: at(4),
            cell: at(5),
            address: u32::from(two(6)) << 16 | u32::from(two(8)),
            bits: two(10),
            number: two(12),
            flow: two(14),
            option: at(16),
            met: Met {
                exact: at(17),
                prefix: at(18),
                mask: at(19),
                range: at(20),
                option: at(21),
                member: at(22),
                group: at(23),
                color: at(24),
                entry_color: at(25),
                copy: at(26),
                instance: two(27),
            },
        }
    }

    /// The packet with another record of what it met.
    pub(crate) fn having_met(&self, met: Met) -> Self {
        Self {
            met,
            ..self.clone()
        }
    }
}

/// What a packet meets in a switch without entries.
pub(crate) const NOTHING: Met = Met {
    exact: 0,
    prefix: 0,
    mask: 0,
    range: 0,
    option: 0,
    member: 0,
    group: 0,
    color: 0,
    entry_color: 3,
    copy: 0,
    instance: 0,
};
