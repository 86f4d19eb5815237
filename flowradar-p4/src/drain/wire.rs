//! Requests and answers as bytes (`docs/p4-drain-format.md`).

use std::fmt::{self, Display, Formatter};

use flowradar_core::KeyKind;
use flowradar_core::flowset::Totals;

use crate::config::{Fingerprint, ProgramConfig, REPLY_HEADER_BYTES, Section};

/// EtherType of requests and answers: IEEE 802 local experimental 1.
pub const ETHER_TYPE: u16 = 0x88B5;

const MAGIC: u16 = 0x4652;
const VERSION: u8 = 1;
const REPLY_BIT: u8 = 128;

const ETHERNET_BYTES: usize = 14;
const HEADER_BYTES: usize = 40;
const STATE_BYTES: usize = 184;
const BANK_STATE_BYTES: usize = 88;
const BANK_STATES_AT: usize = 8;

/// What a switch can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Operation {
    /// Say what it is and what it has counted.
    Query = 1,
    /// Begin an epoch in the other bank.
    Switch = 2,
    /// Answer with the rows of a chunk.
    Read = 3,
    /// Set the rows of a chunk to zero.
    Clear = 4,
    /// Declare a bank clean.
    Release = 5,
}

impl Operation {
    fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Query,
            2 => Self::Switch,
            3 => Self::Read,
            4 => Self::Clear,
            5 => Self::Release,
            _ => return None,
        })
    }

    /// Whether an answer without refusal carries the state.
    const fn answers_with_state(self) -> bool {
        matches!(self, Self::Query | Self::Switch | Self::Release)
    }
}

impl Display for Operation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Query => "query",
            Self::Switch => "switch",
            Self::Read => "read",
            Self::Clear => "clear",
            Self::Release => "release",
        })
    }
}

/// One of a switch's two banks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Bank {
    /// Bank 0: active when a program has just been loaded.
    Zero = 0,
    /// Bank 1.
    One = 1,
}

impl Bank {
    /// The other bank.
    pub const fn other(self) -> Self {
        match self {
            Self::Zero => Self::One,
            Self::One => Self::Zero,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Zero),
            1 => Some(Self::One),
            _ => None,
        }
    }
}

impl Display for Bank {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        (*self as u8).fmt(f)
    }
}

/// How a request has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Status(pub u8);

impl Status {
    /// Done.
    pub const DONE: Self = Self(0);
    /// The program has another fingerprint.
    pub const OTHER_FINGERPRINT: Self = Self(2);
    /// The bank holds another epoch.
    pub const OTHER_EPOCH: Self = Self(3);
}

impl Display for Status {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let meaning = match self.0 {
            0 => "done",
            1 => "no such operation",
            2 => "the program has another fingerprint",
            3 => "the bank holds another epoch",
            4 => "the bank is active",
            5 => "the bank is not clean",
            6 => "the bank's condition does not allow it",
            7 => "no such bank, table, section or chunk",
            8 => "the epoch is not newer than the active one",
            9 => "the bank does not fit the epoch: packets are stamped with the epoch's lowest bit",
            10 => "the request has no room for the rows",
            number => return write!(f, "status {number}"),
        };
        f.pad(meaning)
    }
}

/// A chunk of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Chunk {
    pub(crate) key: KeyKind,
    pub(crate) section: Section,
    pub(crate) number: u32,
}

impl Chunk {
    /// Every chunk of a program's tables, in order, with the bytes of its rows.
    pub(crate) fn all(program: &ProgramConfig) -> impl Iterator<Item = (Self, usize)> {
        program.tables().flat_map(|table| {
            [Section::Filter, Section::Cells]
                .into_iter()
                .flat_map(move |section| {
                    let bytes = table.chunk_rows(section) as usize * table.row_bytes(section);
                    (0..table.chunks(section)).map(move |number| {
                        let key = table.key();
                        let chunk = Self {
                            key,
                            section,
                            number,
                        };
                        (chunk, bytes)
                    })
                })
        })
    }
}

/// A request to a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub(crate) operation: Operation,
    pub(crate) tag: u32,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) epoch: u64,
    pub(crate) seed: u64,
    pub(crate) bank: Bank,
    /// `read` and `clear` only.
    pub(crate) chunk: Option<Chunk>,
    /// `read` only: bytes of the rows, for which the request brings room.
    pub(crate) room_bytes: usize,
}

impl Request {
    /// A request without epoch, seed and chunk; tag and fingerprint come when it is sent.
    pub(crate) fn new(operation: Operation, bank: Bank) -> Self {
        Self {
            operation,
            tag: 0,
            fingerprint: Fingerprint::default(),
            epoch: 0,
            seed: 0,
            bank,
            chunk: None,
            room_bytes: 0,
        }
    }

    /// The frame, from its Ethernet header on.
    pub fn to_frame(&self) -> Vec<u8> {
        let mut frame = vec![0; ETHERNET_BYTES + HEADER_BYTES + self.room_bytes];
        frame[12..14].copy_from_slice(&ETHER_TYPE.to_be_bytes());
        let header = &mut frame[ETHERNET_BYTES..];
        header[0..2].copy_from_slice(&MAGIC.to_be_bytes());
        header[2] = VERSION;
        header[3] = self.operation as u8;
        header[4..8].copy_from_slice(&self.tag.to_be_bytes());
        header[8..16].copy_from_slice(&self.fingerprint.0.to_be_bytes());
        header[16..24].copy_from_slice(&self.epoch.to_be_bytes());
        header[24..32].copy_from_slice(&self.seed.to_be_bytes());
        header[32] = self.bank as u8;
        if let Some(chunk) = self.chunk {
            header[33] = chunk.key as u8;
            header[34] = chunk.section as u8;
            header[36..40].copy_from_slice(&chunk.number.to_be_bytes());
        }
        frame
    }
}

/// Why a frame is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// A bank other than 0 and 1.
    #[error("there is no bank {0}")]
    Bank(u8),
    /// Another EtherType.
    #[error("EtherType {0:#06x} is not that of answers")]
    EtherType(u16),
    /// Another magic number.
    #[error("magic number {0:#06x}")]
    Magic(u16),
    /// A number that is no operation, or a request.
    #[error("operation {0} is no answer")]
    Operation(u8),
    /// Fewer bytes than it must have.
    #[error("{found} bytes, but the answer needs {needed}")]
    Short {
        /// Bytes needed.
        needed: usize,
        /// Bytes there.
        found: usize,
    },
    /// Another version of the exchange.
    #[error("version {0} of the exchange is not known")]
    Version(u8),
}

/// An answer of a switch, borrowed from its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// The operation that is answered.
    pub operation: Operation,
    /// The tag of the request.
    pub tag: u32,
    /// What the switch runs.
    pub fingerprint: Fingerprint,
    /// Epoch number of the bank.
    pub epoch: u64,
    /// Seed of the bank.
    pub seed: u64,
    /// The bank asked for.
    pub bank: Bank,
    /// How it ended.
    pub status: Status,
    table: u8,
    section: u8,
    chunk: u32,
    body: &'a [u8],
}

impl<'a> Reply<'a> {
    /// Parses the payload of a packet-in.
    ///
    /// # Errors
    /// If it is no answer of this version, or one that lacks its state.
    pub fn parse(frame: &'a [u8]) -> Result<Self, WireError> {
        let short = |needed| WireError::Short {
            needed,
            found: frame.len(),
        };
        let (ethernet, rest) = frame
            .split_first_chunk::<ETHERNET_BYTES>()
            .ok_or_else(|| short(ETHERNET_BYTES))?;
        let ether_type = u16::from_be_bytes([ethernet[12], ethernet[13]]);
        if ether_type != ETHER_TYPE {
            return Err(WireError::EtherType(ether_type));
        }
        let (header, body) = rest
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or_else(|| short(REPLY_HEADER_BYTES))?;
        let magic = u16::from_be_bytes([header[0], header[1]]);
        if magic != MAGIC {
            return Err(WireError::Magic(magic));
        }
        if header[2] != VERSION {
            return Err(WireError::Version(header[2]));
        }
        let operation = header[3]
            .checked_sub(REPLY_BIT)
            .and_then(Operation::from_number)
            .ok_or(WireError::Operation(header[3]))?;
        let bank = Bank::from_number(header[32]).ok_or(WireError::Bank(header[32]))?;
        let status = Status(header[35]);
        if operation.answers_with_state() && status == Status::DONE {
            let state = body
                .first_chunk::<STATE_BYTES>()
                .ok_or_else(|| short(REPLY_HEADER_BYTES + STATE_BYTES))?;
            Bank::from_number(state[0]).ok_or(WireError::Bank(state[0]))?;
        }
        Ok(Self {
            operation,
            tag: be_u32(header, 4),
            fingerprint: Fingerprint(be_u64(header, 8)),
            epoch: be_u64(header, 16),
            seed: be_u64(header, 24),
            bank,
            status,
            table: header[33],
            section: header[34],
            chunk: be_u32(header, 36),
            body,
        })
    }

    /// Whether this answers `request`.
    pub(crate) fn answers(&self, request: &Request) -> bool {
        let (table, section, chunk) = match request.chunk {
            Some(chunk) => (chunk.key as u8, chunk.section as u8, chunk.number),
            None => (0, 0, 0),
        };
        self.tag == request.tag
            && self.operation == request.operation
            && self.bank == request.bank
            && (self.table, self.section, self.chunk) == (table, section, chunk)
    }

    /// What follows the header: rows, or nothing.
    pub(crate) fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The state, where the answer carries it.
    pub fn state(&self) -> Option<SwitchState> {
        if !self.operation.answers_with_state() || self.status != Status::DONE {
            return None;
        }
        let body = self.body.first_chunk::<STATE_BYTES>()?;
        let active = Bank::from_number(body[0])?;
        let bank = |bank: Bank| {
            let at = BANK_STATES_AT + bank as usize * BANK_STATE_BYTES;
            let word = |index: usize| be_u64(body, at + 8 * index);
            BankState {
                condition: if bank == active {
                    BankCondition::Active
                } else {
                    match body[1 + bank as usize] {
                        0 => BankCondition::Clean,
                        1 => BankCondition::Sealed,
                        _ => BankCondition::Clearing,
                    }
                },
                epoch: word(0),
                seed: word(1),
                v4: Totals {
                    packets: word(2),
                    bytes: word(3),
                    new_flows: word(4),
                },
                v6: Totals {
                    packets: word(5),
                    bytes: word(6),
                    new_flows: word(7),
                },
                not_ip: word(8),
                malformed: word(9),
                ports_cut_off: word(10),
            }
        };
        Some(SwitchState {
            fingerprint: self.fingerprint,
            active,
            stamps_epoch: body[3] & 4 != 0,
            banks: [bank(Bank::Zero), bank(Bank::One)],
        })
    }
}

/// What a switch says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchState {
    /// What it runs.
    pub fingerprint: Fingerprint,
    /// The bank that packets are counted in.
    pub active: Bank,
    /// Whether the first switch of a packet stamps the epoch's lowest bit into it.
    pub stamps_epoch: bool,
    banks: [BankState; 2],
}

impl SwitchState {
    /// A state that is not taken from an answer, with bank 0 before bank 1.
    #[cfg(feature = "bfrt")]
    pub(crate) const fn new(
        fingerprint: Fingerprint,
        active: Bank,
        stamps_epoch: bool,
        banks: [BankState; 2],
    ) -> Self {
        Self {
            fingerprint,
            active,
            stamps_epoch,
            banks,
        }
    }

    /// One of the banks.
    pub const fn bank(&self, bank: Bank) -> &BankState {
        match bank {
            Bank::Zero => &self.banks[0],
            Bank::One => &self.banks[1],
        }
    }

    /// The epoch that packets are counted in.
    pub const fn active_epoch(&self) -> u64 {
        self.bank(self.active).epoch
    }

    /// The bank that is not active.
    pub const fn idle(&self) -> Bank {
        self.active.other()
    }
}

/// What a bank is being used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BankCondition {
    /// Packets are counted in it.
    Active,
    /// Empty: may become active.
    Clean,
    /// Some of it has been cleared: not readable any more.
    Clearing,
    /// Its epoch has ended: to be read.
    Sealed,
}

impl Display for BankCondition {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Active => "active",
            Self::Clean => "clean",
            Self::Clearing => "partly cleared",
            Self::Sealed => "sealed",
        })
    }
}

/// What a switch says of a bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BankState {
    /// What it is being used for.
    pub condition: BankCondition,
    /// Its epoch's number; 0 before the first epoch change.
    pub epoch: u64,
    /// The seed that its flows are hashed with.
    pub seed: u64,
    /// What was encoded in the IPv4 table.
    pub v4: Totals,
    /// What was encoded in the IPv6 table.
    pub v6: Totals,
    /// Frames without an IP packet, or of an IP version without a table: encoded nowhere.
    pub not_ip: u64,
    /// Malformed frames: encoded nowhere.
    pub malformed: u64,
    /// Packets that ended before their ports: encoded with ports 0.
    pub ports_cut_off: u64,
}

impl BankState {
    /// What was encoded in the table for keys of this kind.
    pub const fn totals(&self, key: KeyKind) -> &Totals {
        match key {
            KeyKind::V4 => &self.v4,
            KeyKind::V6 => &self.v6,
        }
    }
}

fn be_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(
        *bytes[at..]
            .first_chunk()
            .expect("fields are inside of their header"),
    )
}

fn be_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(
        *bytes[at..]
            .first_chunk()
            .expect("fields are inside of their header"),
    )
}
