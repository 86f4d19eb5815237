//! The arrays of one bank and one pipe, and the flowset that they make.

use std::ops::Range;

use flowradar_core::flowset::{
    Epoch, FlowsetHeader, SwitchCell, SwitchName, Totals, WriteFlowsetError, flowset_of_switch,
};
use flowradar_core::{FlowKey, FlowKeyV4, KeyKind};

use super::{Array, FILTER_ARRAYS, SUBTABLES, TofinoProgram};

/// What the arrays of one bank hold in one pipe, while it arrives and when it is whole.
///
/// Takes 2.9 MB for cells, 0.5 MB for the filter and 0.6 MB for what has arrived, with the program's sizes.
#[derive(Clone, Debug)]
pub struct BankRegisters {
    program: TofinoProgram,
    /// One bit for every entry of every array that has arrived, array after array.
    seen: Vec<u64>,
    filter: Vec<u64>,
    addresses: Vec<[u32; 2]>,
    ports: Vec<u32>,
    protocols: Vec<u8>,
    flow_counts: Vec<u8>,
    counts: Vec<[u32; 2]>,
}

/// What one pipe has counted in a bank, summed over the cells of a subtable: every packet is in one cell of
/// each. `None` where all subtables have a cell that is saturated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PipeSums {
    /// Packets.
    pub packets: Option<u64>,
    /// Bytes of these, from the IP header on.
    pub bytes: Option<u64>,
    /// Flows that were new to the filter.
    pub new_flows: Option<u64>,
}

/// The program's counters `total` and `total_new_flows` of one bank, all pipes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BankCounters {
    /// Packets counted.
    pub packets: u64,
    /// New flows counted.
    pub new_flows: u64,
}

/// Why registers make no flowset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistersError {
    /// One entry is not as it must be.
    #[error("entry {index} of `{array}` {reason}")]
    Entry {
        /// The array.
        array: Array,
        /// The entry's index in its bank.
        index: u32,
        /// What is wrong with it.
        reason: EntryReason,
    },
    /// Subtables have counted differently, as no packet lets them: what was read is of different moments.
    #[error("`{array}` has {found} {kind}, another subtable {expected}: read them again")]
    Subtables {
        /// The array that differs.
        array: Array,
        /// What was counted.
        kind: SumKind,
        /// The sum of a subtable before it.
        expected: u64,
        /// Its own sum.
        found: u64,
    },
    /// Cells and counter disagree: the cells that were read are older than the counter, or part of the
    /// bank has been cleared.
    #[error(
        "the cells of all pipes have {cells} {kind}, the counter {counter}: they are of different \
         moments, or have been cleared in part"
    )]
    Counter {
        /// What was counted.
        kind: SumKind,
        /// By the cells.
        cells: u64,
        /// By the counter.
        counter: u64,
    },
    /// The parts are not those of the layout.
    #[error(transparent)]
    Flowset(#[from] WriteFlowsetError),
}

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryReason {
    /// It is not there.
    #[error("has not arrived")]
    Missing,
    /// It has come twice.
    #[error("has arrived twice")]
    Doubled,
    /// There is no such entry.
    #[error("is beyond the {entries} entries of a bank")]
    OutOfRange {
        /// Entries of a bank.
        entries: u32,
    },
    /// It holds more bits than the array has.
    #[error("holds {value}, in {bits} bits")]
    TooWide {
        /// What it holds.
        value: u32,
        /// Bits of the array.
        bits: u32,
    },
    /// It holds one number where the array has a pair, or the other way round.
    #[error("holds {found} numbers, not {expected}")]
    Numbers {
        /// Of the array.
        expected: usize,
        /// Of the entry.
        found: usize,
    },
}

/// Something that is counted in every subtable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SumKind {
    /// Packets.
    Packets,
    /// Bytes from the IP header on.
    Bytes,
    /// New flows.
    NewFlows,
}

impl std::fmt::Display for SumKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Packets => "packets",
            Self::Bytes => "bytes",
            Self::NewFlows => "new flows",
        })
    }
}

impl BankRegisters {
    /// Nothing has arrived yet.
    pub fn new(program: &TofinoProgram) -> Self {
        let layout = program.layout();
        let cells = layout.table().cells();
        let entries: usize = Array::all()
            .map(|array| program.bank_entries(array) as usize)
            .sum();
        Self {
            program: *program,
            seen: vec![0; entries.div_ceil(64)],
            filter: vec![0; layout.filter().words()],
            addresses: vec![[0; 2]; cells],
            ports: vec![0; cells],
            protocols: vec![0; cells],
            flow_counts: vec![0; cells],
            counts: vec![[0; 2]; cells],
        }
    }

    /// Takes an entry: its index in the bank, and the number or pair of numbers that it holds.
    ///
    /// # Errors
    /// If there is no such entry, it has come before, or it holds what the array cannot hold.
    pub fn put(&mut self, array: Array, index: u32, values: &[u32]) -> Result<(), RegistersError> {
        let entry_error = |reason| RegistersError::Entry {
            array,
            index,
            reason,
        };
        let entries = self.program.bank_entries(array);
        let places = place(&self.program, array, index);
        let Some((seen_at, cell)) = places.filter(|_| index < entries) else {
            return Err(entry_error(EntryReason::OutOfRange { entries }));
        };
        let widths = array.widths_bits();
        if values.len() != widths.len() {
            return Err(entry_error(EntryReason::Numbers {
                expected: widths.len(),
                found: values.len(),
            }));
        }
        let too_wide = values.iter().zip(widths).find(|&(&value, &bits)| {
            // A shift by all 32 bits is none.
            value.checked_shr(bits).unwrap_or(0) != 0
        });
        if let Some((&value, &bits)) = too_wide {
            return Err(entry_error(EntryReason::TooWide { value, bits }));
        }
        let mask = 1 << (seen_at % 64);
        let seen = &mut self.seen[seen_at / 64];
        if *seen & mask != 0 {
            return Err(entry_error(EntryReason::Doubled));
        }
        *seen |= mask;
        let (first, second) = (values[0], values.last().copied().unwrap_or_default());
        match array {
            Array::Filter(_) => self.filter[cell / 64] |= u64::from(first) << (cell % 64),
            Array::Addresses(_) => self.addresses[cell] = [first, second],
            Array::Ports(_) => self.ports[cell] = first,
            Array::ProtocolAndFlows(_) => {
                self.protocols[cell] = first as u8;
                self.flow_counts[cell] = second as u8;
            }
            Array::Counts(_) => self.counts[cell] = [first, second],
        }
        Ok(())
    }

    /// The first of these entries that has not arrived.
    pub fn first_missing(&self, array: Array, mut indices: Range<u32>) -> Option<u32> {
        indices.find(|&index| {
            let seen_at = place(&self.program, array, index).map(|(seen_at, _)| seen_at);
            let word = seen_at.and_then(|at| Some(self.seen.get(at / 64)? >> (at % 64)));
            word.is_none_or(|word| word & 1 == 0)
        })
    }

    /// Whether all entries have arrived.
    ///
    /// # Errors
    /// If one has not: the first.
    pub fn check_whole(&self) -> Result<(), RegistersError> {
        for array in Array::all() {
            let indices = 0..self.program.bank_entries(array);
            if let Some(index) = self.first_missing(array, indices) {
                return Err(RegistersError::Entry {
                    array,
                    index,
                    reason: EntryReason::Missing,
                });
            }
        }
        Ok(())
    }

    /// What the pipe has counted, once all has arrived.
    ///
    /// # Errors
    /// If entries are missing, or subtables have counted differently.
    pub fn sums(&self) -> Result<PipeSums, RegistersError> {
        self.check_whole()?;
        let packets = self.counts.iter().map(|counts| counts[0]);
        let bytes = self.counts.iter().map(|counts| counts[1]);
        let flows = self.flow_counts.iter().map(|&count| u32::from(count));
        let widths = self.program.layout().table().widths();
        Ok(PipeSums {
            packets: self.sum(SumKind::Packets, packets, u32::MAX, Array::Counts)?,
            bytes: self.sum(SumKind::Bytes, bytes, u32::MAX, Array::Counts)?,
            new_flows: self.sum(
                SumKind::NewFlows,
                flows,
                widths.flow_count_saturated(),
                Array::ProtocolAndFlows,
            )?,
        })
    }

    /// The sum of every subtable whose cells are not saturated.
    fn sum(
        &self,
        kind: SumKind,
        mut cells: impl Iterator<Item = u32>,
        saturated: u32,
        array: impl Fn(u8) -> Array,
    ) -> Result<Option<u64>, RegistersError> {
        let subtable_cells = self.program.layout().table().subtable_cells() as usize;
        let mut expected = None;
        for subtable in 0..SUBTABLES {
            let (mut sum, mut is_saturated) = (0, false);
            for count in cells.by_ref().take(subtable_cells) {
                sum += u64::from(count);
                is_saturated |= count == saturated;
            }
            if is_saturated {
                continue;
            }
            match expected {
                Some(expected) if expected != sum => {
                    return Err(RegistersError::Subtables {
                        array: array(subtable),
                        kind,
                        expected,
                        found: sum,
                    });
                }
                _ => expected = Some(sum),
            }
        }
        Ok(expected)
    }

    /// The flowset, once all has arrived: of the pipe that is called `switch`
    /// ([`pipe_switch_name`](super::pipe_switch_name)).
    ///
    /// Its totals are the pipe's [sums](Self::sums): the program's counters are those of all pipes, and count
    /// bytes of frames. They are left out if one of them is unknown.
    ///
    /// # Errors
    /// If entries are missing, or subtables have counted differently.
    pub fn to_flowset(&self, switch: &SwitchName, epoch: Epoch) -> Result<Vec<u8>, RegistersError> {
        let sums = self.sums()?;
        let header = FlowsetHeader {
            switch: switch.clone(),
            epoch,
            key: KeyKind::V4,
            layout: *self.program.layout(),
            totals: sums.totals(),
        };
        let cells: Vec<_> = (self.addresses.iter().zip(&self.ports))
            .zip(self.protocols.iter().zip(&self.flow_counts))
            .zip(&self.counts)
            .map(
                |(((&[source, destination], &ports), (&protocol, &flow_count)), counts)| {
                    let [packets, bytes] = *counts;
                    SwitchCell {
                        flow_xor: FlowKeyV4::from_words([
                            u64::from(source) << 32 | u64::from(destination),
                            u64::from(ports) << 8 | u64::from(protocol),
                        ]),
                        flow_count: u32::from(flow_count),
                        packet_count: packets,
                        byte_count: u64::from(bytes),
                    }
                },
            )
            .collect();
        Ok(flowset_of_switch(&header, &self.filter, &cells)?)
    }
}

impl PipeSums {
    /// The totals of a flowset, if all are known.
    pub fn totals(&self) -> Option<Totals> {
        Some(Totals {
            packets: self.packets?,
            bytes: self.bytes?,
            new_flows: self.new_flows?,
        })
    }
}

/// Holds the sums of all pipes to the program's counters, where all of them are known.
///
/// # Errors
/// If they disagree.
pub fn check_counters(pipes: &[PipeSums], counters: &BankCounters) -> Result<(), RegistersError> {
    let sum = |of: fn(&PipeSums) -> Option<u64>| pipes.iter().map(of).sum::<Option<u64>>();
    let kinds = [
        (SumKind::Packets, sum(|pipe| pipe.packets), counters.packets),
        (
            SumKind::NewFlows,
            sum(|pipe| pipe.new_flows),
            counters.new_flows,
        ),
    ];
    for (kind, cells, counter) in kinds {
        if let Some(cells) = cells.filter(|cells| *cells != counter) {
            return Err(RegistersError::Counter {
                kind,
                cells,
                counter,
            });
        }
    }
    Ok(())
}

/// Where an entry is among all entries, and where among those of its kind: a bit of the filter, or a cell.
fn place(program: &TofinoProgram, array: Array, index: u32) -> Option<(usize, usize)> {
    let bits = program.bank_entries(Array::Filter(0)) as usize;
    let cells = program.bank_entries(Array::Counts(0)) as usize;
    let index = index as usize;
    let (number, within) = match array {
        Array::Filter(number) => {
            let at = usize::from(number) * bits + index;
            return (number < FILTER_ARRAYS).then_some((at, at));
        }
        Array::Addresses(number) => (number, 0),
        Array::Ports(number) => (number, 1),
        Array::ProtocolAndFlows(number) => (number, 2),
        Array::Counts(number) => (number, 3),
    };
    let number = usize::from(number);
    let seen_at = usize::from(FILTER_ARRAYS) * bits + (4 * number + within) * cells + index;
    (number < usize::from(SUBTABLES)).then_some((seen_at, number * cells + index))
}
