//! A table's entries, and how they are found.

use std::collections::HashMap;

use hashbrown::HashMap as FastMap;

use super::arrays::Meter;
use crate::program::control::{Key, KeyKind, Table, TableKind};
use crate::program::op::{Label, ones};
use crate::runtime::{CounterData, EntryAction, EntryKey, MatchValue, TableEntry, TableError};
use crate::{Timestamp, Value};

/// The slots of a packet.
pub(super) type Slots = [u64; 1 << 16];

/// How much metadata an entry may have, in bytes.
pub(super) const MAX_METADATA: usize = 4096;

/// The state of one table.
#[derive(Debug)]
pub(super) struct TableState {
    index: Index,
    /// What packets need of an entry.
    pub(super) entries: Vec<Entry>,
    /// What only the control plane needs.
    pub(super) descriptions: Vec<Option<Description>>,
    free: Vec<u32>,
    by_key: HashMap<EntryKey, u32>,
    pub(super) default: Option<(EntryAction, Resolved)>,
    pub(super) default_counter: CounterData,
    /// How many entries ask to be told when they idle.
    pub(super) with_timeout: usize,
}

/// An entry, as packets meet it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) resolved: Resolved,
    pub(super) counter: CounterData,
    pub(super) last_hit: Timestamp,
    pub(super) meter: Option<Box<Meter>>,
}

/// An entry, as the control plane wrote it.
#[derive(Debug)]
pub(super) struct Description {
    pub(super) entry: TableEntry,
    pub(super) is_const: bool,
    pub(super) idle_notified: bool,
}

/// What is done, ready to be done.
#[derive(Clone, Debug, Default)]
pub(super) enum Resolved {
    Action {
        action: u16,
        next: Label,
        arguments: Box<[u64]>,
    },
    Group(u32),
    Member(u32),
    #[default]
    Nothing,
    OneShot(Box<Choice>),
}

/// Actions that a selector chooses from.
#[derive(Clone, Debug, Default)]
pub(super) struct Choice {
    /// Each as often as its weight.
    pub(super) actions: Vec<(Resolved, Option<u16>)>,
    /// Those of the above whose port is up.
    pub(super) active: Vec<u32>,
}

#[derive(Debug)]
enum Index {
    Narrow(FastMap<u64, u32>),
    Wide128(FastMap<u128, u32>),
    Wide(FastMap<Box<[u64]>, u32>),
    /// The longest first.
    Prefixes(Vec<PrefixLevel>),
    Scan(Scan),
}

#[derive(Debug)]
struct PrefixLevel {
    length: u32,
    mask: u128,
    entries: FastMap<u128, u32>,
}

/// Entries in the order in which they are tried.
#[derive(Debug, Default)]
struct Scan {
    entries: Vec<ScanEntry>,
}

#[derive(Debug)]
struct ScanEntry {
    order: i64,
    index: u32,
    /// Value and mask of each limb of the key.
    limbs: Box<[(u64, u64)]>,
    ranges: Box<[FieldRange]>,
}

/// A field's range.
#[derive(Debug)]
struct FieldRange {
    /// The first of its limbs in the key.
    first: usize,
    low: Box<[u64]>,
    high: Box<[u64]>,
}

impl TableState {
    pub(super) fn new(table: &Table) -> Self {
        let bits: u32 = table.keys.iter().map(|key| key.bits).sum();
        let index = match table.kind {
            TableKind::Exact if bits <= 64 => Index::Narrow(FastMap::new()),
            TableKind::Exact if bits <= 128 => Index::Wide128(FastMap::new()),
            TableKind::Exact => Index::Wide(FastMap::new()),
            TableKind::Lpm if bits <= 128 => Index::Prefixes(Vec::new()),
            TableKind::Lpm | TableKind::Prioritized => Index::Scan(Scan::default()),
        };
        Self {
            index,
            entries: Vec::new(),
            descriptions: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            default: None,
            default_counter: CounterData::default(),
            with_timeout: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// The entry that a packet matches.
    #[inline]
    pub(super) fn lookup(&self, table: &Table, slots: &Slots) -> Option<u32> {
        match &self.index {
            Index::Narrow(entries) => entries.get(&narrow_key(&table.keys, slots)).copied(),
            Index::Wide128(entries) => entries.get(&wide_key(&table.keys, slots)).copied(),
            Index::Wide(entries) => {
                let (limbs, count) = gathered(&table.keys, slots);
                entries.get(&limbs[..count]).copied()
            }
            Index::Prefixes(levels) => {
                let key = prefix_key(&table.keys, slots);
                levels
                    .iter()
                    .find_map(|level| level.entries.get(&(key & level.mask)).copied())
            }
            Index::Scan(scan) => {
                let (limbs, count) = gathered(&table.keys, slots);
                scan.find(&limbs[..count])
            }
        }
    }

    pub(super) fn find(&self, key: &EntryKey) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    /// Adds an entry whose key is canonical and not there yet.
    pub(super) fn insert(
        &mut self,
        table: &Table,
        description: Description,
        resolved: Resolved,
        now: Timestamp,
    ) {
        let entry = Entry {
            resolved,
            counter: CounterData::default(),
            last_hit: now,
            meter: None,
        };
        let key = description.entry.key.clone();
        self.with_timeout += usize::from(description.entry.idle_timeout.is_some());
        let index = match self.free.pop() {
            Some(index) => {
                self.entries[index as usize] = entry;
                self.descriptions[index as usize] = Some(description);
                index
            }
            None => {
                self.entries.push(entry);
                self.descriptions.push(Some(description));
                self.entries.len() as u32 - 1
            }
        };
        self.index.insert(table, &key, index);
        self.by_key.insert(key, index);
    }

    /// Removes an entry; yields what it did.
    pub(super) fn remove(&mut self, table: &Table, key: &EntryKey) -> Option<TableEntry> {
        let index = self.by_key.remove(key)?;
        self.index.remove(table, key, index);
        self.free.push(index);
        self.entries[index as usize].resolved = Resolved::Nothing;
        let description = self.descriptions[index as usize].take()?;
        self.with_timeout -= usize::from(description.entry.idle_timeout.is_some());
        Some(description.entry)
    }
}

impl Choice {
    /// The action for a hash.
    pub(super) fn choose(&self, hash: u64) -> Option<&Resolved> {
        let count = self.active.len() as u64;
        let position = *self
            .active
            .get(usize::try_from(hash.checked_rem(count)?).ok()?)?;
        self.actions
            .get(position as usize)
            .map(|(resolved, _)| resolved)
    }

    /// Forgets or remembers actions whose port went down or came up.
    pub(super) fn refresh(&mut self, is_up: impl Fn(u16) -> bool) {
        self.active = (0..)
            .zip(&self.actions)
            .filter(|(_, (_, port))| port.is_none_or(&is_up))
            .map(|(position, _)| position)
            .collect();
    }
}

impl Index {
    fn insert(&mut self, table: &Table, key: &EntryKey, index: u32) {
        match self {
            Self::Narrow(entries) => {
                entries.insert(exact_key(&table.keys, key) as u64, index);
            }
            Self::Wide128(entries) => {
                entries.insert(exact_key(&table.keys, key), index);
            }
            Self::Wide(entries) => {
                entries.insert(exact_limbs(&table.keys, key).into(), index);
            }
            Self::Prefixes(levels) => {
                let (value, length) = prefix(&table.keys, key);
                let position = levels.partition_point(|level| level.length > length);
                if levels
                    .get(position)
                    .is_none_or(|level| level.length != length)
                {
                    let bits = prefix_bits(&table.keys);
                    let mask = prefix_mask(bits, length);
                    levels.insert(
                        position,
                        PrefixLevel {
                            length,
                            mask,
                            entries: FastMap::new(),
                        },
                    );
                }
                levels[position].entries.insert(value, index);
            }
            Self::Scan(scan) => scan.insert(table, key, index),
        }
    }

    fn remove(&mut self, table: &Table, key: &EntryKey, index: u32) {
        match self {
            Self::Narrow(entries) => {
                entries.remove(&(exact_key(&table.keys, key) as u64));
            }
            Self::Wide128(entries) => {
                entries.remove(&exact_key(&table.keys, key));
            }
            Self::Wide(entries) => {
                entries.remove(exact_limbs(&table.keys, key).as_slice());
            }
            Self::Prefixes(levels) => {
                let (value, length) = prefix(&table.keys, key);
                for level in levels.iter_mut().filter(|level| level.length == length) {
                    level.entries.remove(&value);
                }
                levels.retain(|level| !level.entries.is_empty());
            }
            Self::Scan(scan) => scan.entries.retain(|entry| entry.index != index),
        }
    }
}

impl Scan {
    fn find(&self, key: &[u64]) -> Option<u32> {
        let matches = |entry: &&ScanEntry| {
            entry
                .limbs
                .iter()
                .zip(key)
                .all(|((value, mask), limb)| limb & mask == *value)
                && entry.ranges.iter().all(|FieldRange { first, low, high }| {
                    let limbs = key.get(*first..first + low.len()).unwrap_or_default();
                    !is_less(limbs, low) && !is_less(high, limbs)
                })
        };
        self.entries.iter().find(matches).map(|entry| entry.index)
    }

    fn insert(&mut self, table: &Table, key: &EntryKey, index: u32) {
        let mut limbs = Vec::new();
        let mut ranges = Vec::new();
        let mut prefix_length = 0;
        for (field, wanted) in table.keys.iter().zip(&key.matches) {
            let first = limbs.len();
            let count = usize::from(field.limbs);
            let (value, mask) = match wanted {
                MatchValue::Any => (Value::from(0_u64), Value::from(0_u64)),
                MatchValue::Exact(value) => (value.clone(), Value::ones(field.bits)),
                MatchValue::Valid(is_valid) => {
                    (Value::from(u64::from(*is_valid)), Value::from(1_u64))
                }
                MatchValue::Ternary { value, mask } => (value.clone(), mask.clone()),
                MatchValue::Lpm {
                    value,
                    prefix_length: length,
                } => {
                    prefix_length = *length;
                    (value.clone(), prefix_value(field.bits, *length))
                }
                MatchValue::Range { low, high } => {
                    let limbs = |value: &Value| value.to_limbs(count).unwrap_or_default().into();
                    ranges.push(FieldRange {
                        first,
                        low: limbs(low),
                        high: limbs(high),
                    });
                    (Value::from(0_u64), Value::from(0_u64))
                }
            };
            let value = value.to_limbs(count).unwrap_or_default();
            let mask = mask.to_limbs(count).unwrap_or_default();
            let fixed = field.mask.clone().unwrap_or_else(|| vec![u64::MAX; count]);
            for ((value, mask), fixed) in value.into_iter().zip(mask).zip(fixed) {
                limbs.push((value & fixed, mask & fixed));
            }
        }
        let order = match table.kind {
            TableKind::Prioritized => -i64::from(key.priority),
            TableKind::Exact | TableKind::Lpm => -i64::from(prefix_length),
        };
        let position = self.entries.partition_point(|entry| entry.order <= order);
        let entry = ScanEntry {
            order,
            index,
            limbs: limbs.into(),
            ranges: ranges.into(),
        };
        self.entries.insert(position, entry);
    }
}

/// The key in the one form that all ways to write it have, or why it cannot be a key of the table.
pub(super) fn canonical(table: &Table, key: &EntryKey) -> Result<EntryKey, TableError> {
    if key.matches.len() != table.keys.len() {
        return Err(TableError::MatchCount {
            table: table.name.clone(),
            expected: table.keys.len(),
            given: key.matches.len(),
        });
    }
    let matches = table
        .keys
        .iter()
        .zip(&key.matches)
        .map(|(field, value)| {
            canonical_match(field, value).map_err(|what| TableError::Match {
                table: table.name.clone(),
                field: field.name.clone(),
                what,
            })
        })
        .collect::<Result<_, _>>()?;
    let what = match (table.kind, key.priority) {
        (TableKind::Prioritized, 1..) | (TableKind::Exact | TableKind::Lpm, 0) => {
            return Ok(EntryKey {
                matches,
                priority: key.priority,
            });
        }
        (TableKind::Prioritized, _) => {
            "entries of tables with ternary or range fields need a priority of at least 1"
        }
        _ => "entries of tables without ternary and range fields have no priority; leave it zero",
    };
    Err(TableError::Priority {
        table: table.name.clone(),
        what,
    })
}

fn canonical_match(field: &Key, value: &MatchValue) -> Result<MatchValue, &'static str> {
    let fits = |value: &Value| {
        if value.bit_length() > field.bits {
            return Err("a value needs more bits than the field has");
        }
        Ok(value.clone())
    };
    let is_masked = |value: &Value, mask: &Value| {
        let limbs = usize::from(field.limbs);
        let (Some(value), Some(mask)) = (value.to_limbs(limbs), mask.to_limbs(limbs)) else {
            return false;
        };
        value
            .iter()
            .zip(&mask)
            .all(|(value, mask)| value & !mask == 0)
    };
    match (field.kind, value) {
        (KeyKind::Valid, MatchValue::Valid(_)) => Ok(value.clone()),
        (KeyKind::Exact, MatchValue::Exact(value)) => Ok(MatchValue::Exact(fits(value)?)),
        (KeyKind::Lpm | KeyKind::Range | KeyKind::Ternary, MatchValue::Any) => Ok(MatchValue::Any),
        (KeyKind::Lpm, MatchValue::Exact(value)) => Ok(MatchValue::Lpm {
            value: fits(value)?,
            prefix_length: field.bits,
        }),
        (
            KeyKind::Lpm,
            MatchValue::Lpm {
                value,
                prefix_length,
            },
        ) => {
            if *prefix_length > field.bits {
                return Err("the prefix is longer than the field");
            }
            if !is_masked(&fits(value)?, &prefix_value(field.bits, *prefix_length)) {
                return Err("the value has bits beyond the prefix, which must be zero");
            }
            Ok(if *prefix_length == 0 {
                MatchValue::Any
            } else {
                MatchValue::Lpm {
                    value: value.clone(),
                    prefix_length: *prefix_length,
                }
            })
        }
        (KeyKind::Ternary, MatchValue::Exact(value)) => Ok(MatchValue::Ternary {
            value: fits(value)?,
            mask: Value::ones(field.bits),
        }),
        (KeyKind::Ternary, MatchValue::Ternary { value, mask }) => {
            if !is_masked(&fits(value)?, &fits(mask)?) {
                return Err("the value has bits outside of the mask, which must be zero");
            }
            Ok(if mask.is_zero() {
                MatchValue::Any
            } else {
                MatchValue::Ternary {
                    value: value.clone(),
                    mask: mask.clone(),
                }
            })
        }
        (KeyKind::Range, MatchValue::Exact(value)) => {
            let value = fits(value)?;
            Ok(MatchValue::Range {
                low: value.clone(),
                high: value,
            })
        }
        (KeyKind::Range, MatchValue::Range { low, high }) => {
            let (low, high) = (fits(low)?, fits(high)?);
            let limbs = usize::from(field.limbs);
            let (low_limbs, high_limbs) = (low.to_limbs(limbs), high.to_limbs(limbs));
            if is_less(
                &high_limbs.unwrap_or_default(),
                &low_limbs.unwrap_or_default(),
            ) {
                return Err("the range ends before it starts");
            }
            let is_all = low.is_zero() && high == Value::ones(field.bits);
            Ok(if is_all {
                MatchValue::Any
            } else {
                MatchValue::Range { low, high }
            })
        }
        (KeyKind::Exact, _) => Err("this field needs an exact value"),
        (KeyKind::Lpm, _) => Err("this field needs a prefix"),
        (KeyKind::Range, _) => Err("this field needs a range"),
        (KeyKind::Ternary, _) => Err("this field needs a value and a mask"),
        (KeyKind::Valid, _) => Err("this field needs to be valid or not"),
    }
}

/// A limb of a field as it is compared: zero if its header is not valid.
#[inline]
fn limb(key: &Key, limb: usize, slots: &Slots) -> u64 {
    if key
        .valid
        .is_some_and(|valid| slots[usize::from(valid)] == 0)
    {
        return 0;
    }
    let value = slots[(usize::from(key.slot) + limb) & 0xffff];
    match &key.mask {
        Some(mask) => value & mask.get(limb).copied().unwrap_or_default(),
        None => value,
    }
}

/// All fields in 64 bits.
#[inline]
fn narrow_key(keys: &[Key], slots: &Slots) -> u64 {
    match keys {
        [key] => limb(key, 0, slots),
        keys => keys.iter().fold(0, |number, key| {
            number << (key.bits & 63) | limb(key, 0, slots)
        }),
    }
}

/// All fields in 128 bits.
fn wide_key(keys: &[Key], slots: &Slots) -> u128 {
    keys.iter().fold(0, |number, key| push(number, key, slots))
}

/// As [`wide_key`], with the field that has a prefix last.
fn prefix_key(keys: &[Key], slots: &Slots) -> u128 {
    let exact = keys.iter().filter(|key| key.kind != KeyKind::Lpm);
    let prefix = keys.iter().filter(|key| key.kind == KeyKind::Lpm);
    exact
        .chain(prefix)
        .fold(0, |number, key| push(number, key, slots))
}

fn push(number: u128, key: &Key, slots: &Slots) -> u128 {
    let mut value = u128::from(limb(key, 0, slots));
    if key.limbs > 1 {
        value |= u128::from(limb(key, 1, slots)) << 64;
    }
    shifted(number, key.bits) | value
}

fn shifted(number: u128, bits: u32) -> u128 {
    if bits < 128 { number << bits } else { 0 }
}

/// All fields, limb after limb.
fn gathered(keys: &[Key], slots: &Slots) -> ([u64; 128], usize) {
    let mut limbs = [0; 128];
    let mut count = 0;
    for key in keys {
        for index in 0..usize::from(key.limbs) {
            if let Some(to) = limbs.get_mut(count) {
                *to = limb(key, index, slots);
                count += 1;
            }
        }
    }
    (limbs, count)
}

fn exact_key(keys: &[Key], entry: &EntryKey) -> u128 {
    keys.iter()
        .zip(&entry.matches)
        .fold(0, |number, (key, wanted)| {
            shifted(number, key.bits) | wanted_number(key, wanted)
        })
}

fn exact_limbs(keys: &[Key], entry: &EntryKey) -> Vec<u64> {
    let limbs = |(key, wanted): (&Key, &MatchValue)| {
        let count = usize::from(key.limbs);
        let mut limbs = match wanted {
            MatchValue::Exact(value) => value.to_limbs(count).unwrap_or_default(),
            MatchValue::Valid(is_valid) => vec![u64::from(*is_valid)],
            _ => vec![0; count],
        };
        if let Some(mask) = &key.mask {
            for (limb, mask) in limbs.iter_mut().zip(mask) {
                *limb &= mask;
            }
        }
        limbs
    };
    keys.iter().zip(&entry.matches).flat_map(limbs).collect()
}

fn wanted_number(key: &Key, wanted: &MatchValue) -> u128 {
    let number = match wanted {
        MatchValue::Exact(value) | MatchValue::Lpm { value, .. } => {
            value.to_u128().unwrap_or_default()
        }
        MatchValue::Valid(is_valid) => u128::from(*is_valid),
        _ => 0,
    };
    match &key.mask {
        Some(mask) => {
            let high = mask.get(1).copied().unwrap_or_default();
            let low = mask.first().copied().unwrap_or_default();
            number & (u128::from(high) << 64 | u128::from(low))
        }
        None => number,
    }
}

/// Value and prefix length of an entry; other fields stand above the one with the prefix.
fn prefix(keys: &[Key], entry: &EntryKey) -> (u128, u32) {
    let mut number = 0;
    let mut prefix = (0, 0, 0);
    for (key, wanted) in keys.iter().zip(&entry.matches) {
        if key.kind == KeyKind::Lpm {
            let length = match wanted {
                MatchValue::Lpm { prefix_length, .. } => *prefix_length,
                _ => 0,
            };
            prefix = (wanted_number(key, wanted), key.bits, length);
        } else {
            number = shifted(number, key.bits) | wanted_number(key, wanted);
        }
    }
    let (value, bits, length) = prefix;
    (shifted(number, bits) | value, length)
}

fn prefix_bits(keys: &[Key]) -> u32 {
    keys.iter()
        .find(|key| key.kind == KeyKind::Lpm)
        .map_or(0, |key| key.bits)
}

/// All ones above the last `bits - length` bits.
fn prefix_mask(bits: u32, length: u32) -> u128 {
    let wild = bits - length.min(bits);
    if wild >= 128 { 0 } else { u128::MAX << wild }
}

/// The mask of a prefix, as a value of the field.
fn prefix_value(bits: u32, length: u32) -> Value {
    let limbs = bits.div_ceil(64) as usize;
    let mut mask = vec![0; limbs];
    for (position, limb) in (0..).zip(&mut mask) {
        let lowest = position * 64;
        let upper = bits.saturating_sub(lowest).min(64);
        let wild = (bits - length.min(bits)).saturating_sub(lowest).min(64);
        *limb = ones(upper) & !ones(wild);
    }
    Value::from_limbs(&mask)
}

/// Compares numbers of the same length, the least significant limb first.
fn is_less(a: &[u64], b: &[u64]) -> bool {
    a.iter().rev().cmp(b.iter().rev()).is_lt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_of_prefixes() {
        assert_eq!(prefix_value(32, 24), Value::from(0xffff_ff00_u64));
        assert_eq!(prefix_value(32, 0), Value::from(0_u64));
        assert_eq!(prefix_value(9, 9), Value::ones(9));
        assert_eq!(prefix_value(128, 128), Value::ones(128));
        assert_eq!(prefix_value(128, 65), Value::from(u128::MAX << 63));
        assert_eq!(prefix_mask(32, 8), u128::MAX << 24);
        assert_eq!(prefix_mask(128, 0), 0);
    }

    #[test]
    fn numbers_of_several_limbs_compare_by_the_last_first() {
        assert!(is_less(&[9, 1], &[0, 2]));
        assert!(!is_less(&[0, 2], &[9, 1]));
        assert!(!is_less(&[1, 1], &[1, 1]));
    }
}
