//! What a program has besides headers and code: registers, counters, meters, calculations, field lists,
//! digests and value sets.

use super::expression::Constant;
use super::json::{self, Document, TypedValue};
use super::layout::{BitGroups, FieldLayout, Layout};
use super::op::Slot;
use super::{LoadError, invalid, too_large, unsupported};

/// How many 64-bit words all registers may have together.
const MAX_REGISTER_WORDS: u64 = 1 << 28;

/// How many cells all counters may have together, and all meters.
const MAX_CELLS: u64 = 1 << 24;

/// How long the fields of a calculation may be, in bytes.
const MAX_INPUT_BYTES: u64 = 16_384;

/// Named objects, by their index.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(crate) registers: Vec<Register>,
    pub(crate) counters: Vec<Counter>,
    pub(crate) meters: Vec<Meter>,
    pub(crate) calculations: Vec<Calculation>,
    pub(crate) field_lists: Vec<FieldList>,
    pub(crate) digests: Vec<FieldList>,
    pub(crate) value_sets: Vec<ValueSet>,
}

/// A register array.
#[derive(Debug)]
pub(crate) struct Register {
    pub(crate) name: String,
    pub(crate) size: usize,
    pub(crate) bits: u32,
}

/// An indirect counter array.
#[derive(Debug)]
pub(crate) struct Counter {
    pub(crate) name: String,
    pub(crate) size: usize,
}

/// A meter array.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) name: String,
    /// Zero if it is direct: each entry of its table has one then.
    pub(crate) size: usize,
    pub(crate) counts_bytes: bool,
    pub(crate) is_direct: bool,
    /// Where a direct meter's color goes.
    pub(crate) target: Option<FieldLayout>,
}

/// A hash over fields.
#[derive(Debug)]
pub(crate) struct Calculation {
    pub(crate) name: String,
    pub(crate) algorithm: HashAlgorithm,
    pub(crate) input: Vec<Input>,
    pub(crate) with_payload: bool,
}

/// A part of what a hash is over. Parts of headers that are not valid are left out.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    Bits {
        slot: Slot,
        bits: u8,
        valid: Slot,
    },
    Constant {
        value: u64,
        bits: u8,
    },
    Header {
        header: u16,
    },
    /// Fields of one header that follow each other, whole bytes together.
    Run {
        groups: BitGroups,
        valid: Slot,
    },
    Variable {
        header: u16,
    },
}

/// The hash algorithms of bmv2 that work without configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HashAlgorithm {
    Crc16,
    Crc16Ccitt,
    Crc32,
    Crc64Custom,
    Crc8Custom,
    Checksum16,
    Identity,
    RoundRobin,
    Toeplitz,
    Xor16,
    Xor32,
    Xxh64,
}

/// Fields that are kept or sent together.
#[derive(Debug)]
pub(crate) struct FieldList {
    pub(crate) name: String,
    pub(crate) id: u64,
    pub(crate) fields: Vec<ListElement>,
}

/// One element of a field list.
#[derive(Clone, Debug)]
pub(crate) enum ListElement {
    Constant { limbs: Vec<u64> },
    Field(FieldLayout),
}

/// A parser value set.
#[derive(Debug)]
pub(crate) struct ValueSet {
    pub(crate) name: String,
    pub(crate) bits: u32,
}

impl Objects {
    pub(super) fn new(document: &Document, layout: &Layout) -> Result<Self, LoadError> {
        if let Some(instance) = document.extern_instances.first() {
            let place = format!("extern instance {}", instance.name);
            return Err(unsupported(
                &place,
                &format!("extern type {}", instance.kind),
            ));
        }
        let mut objects = Self::default();
        objects.add_arrays(document, layout)?;
        for calculation in &document.calculations {
            objects
                .calculations
                .push(Calculation::new(calculation, layout)?);
        }
        for list in &document.field_lists {
            objects
                .field_lists
                .push(FieldList::new("field list", list, layout)?);
        }
        for list in &document.learn_lists {
            objects
                .digests
                .push(FieldList::new("learn list", list, layout)?);
        }
        for set in &document.parse_vsets {
            let place = format!("parser value set {}", set.name);
            if set.compressed_bitwidth > 4096 {
                return Err(too_large(&place, "bits", set.compressed_bitwidth, 4096));
            }
            let bits = set.compressed_bitwidth as u32;
            objects.value_sets.push(ValueSet {
                name: set.name.clone(),
                bits,
            });
        }
        Ok(objects)
    }

    pub(super) fn register(&self, place: &str, name: &str) -> Result<u16, LoadError> {
        find(
            place,
            "register",
            name,
            self.registers.iter().map(|register| &register.name),
        )
    }

    pub(super) fn counter(&self, place: &str, name: &str) -> Result<u16, LoadError> {
        find(
            place,
            "counter",
            name,
            self.counters.iter().map(|counter| &counter.name),
        )
    }

    pub(super) fn meter(&self, place: &str, name: &str) -> Result<u16, LoadError> {
        find(
            place,
            "meter",
            name,
            self.meters.iter().map(|meter| &meter.name),
        )
    }

    pub(super) fn calculation(&self, place: &str, name: &str) -> Result<u16, LoadError> {
        let names = self
            .calculations
            .iter()
            .map(|calculation| &calculation.name);
        find(place, "calculation", name, names)
    }

    pub(super) fn value_set(&self, place: &str, name: &str) -> Result<u16, LoadError> {
        find(
            place,
            "parser value set",
            name,
            self.value_sets.iter().map(|set| &set.name),
        )
    }

    /// Adds a calculation that has no name in the program: a selector's.
    pub(super) fn add_selector(
        &mut self,
        profile: &str,
        selector: &json::Selector,
        layout: &Layout,
    ) -> Result<u16, LoadError> {
        let place = format!("selector of action profile {profile}");
        let calculation = Calculation {
            name: place.clone(),
            algorithm: HashAlgorithm::new(&place, &selector.algo)?,
            input: inputs(&place, &selector.input, layout)?.0,
            with_payload: false,
        };
        let index = index(&place, "calculations", self.calculations.len())?;
        self.calculations.push(calculation);
        Ok(index)
    }

    fn add_arrays(&mut self, document: &Document, layout: &Layout) -> Result<(), LoadError> {
        let mut cells = 0;
        for register in &document.register_arrays {
            let place = format!("register {}", register.name);
            if register.bitwidth == 0 || register.bitwidth > 4096 {
                return Err(too_large(&place, "bits", register.bitwidth, 4096));
            }
            let limbs = register.bitwidth.div_ceil(64);
            let words = register.size.saturating_mul(limbs);
            cells = count_cells(&place, cells, words, MAX_REGISTER_WORDS)?;
            self.registers.push(Register {
                name: register.name.clone(),
                size: register.size as usize,
                bits: register.bitwidth as u32,
            });
        }
        cells = 0;
        for counter in document
            .counter_arrays
            .iter()
            .filter(|counter| !counter.is_direct)
        {
            let place = format!("counter {}", counter.name);
            let Some(size) = counter.size else {
                return Err(invalid("counter", &counter.name, "has no size"));
            };
            cells = count_cells(&place, cells, size, MAX_CELLS)?;
            self.counters.push(Counter {
                name: counter.name.clone(),
                size: size as usize,
            });
        }
        cells = 0;
        for meter in &document.meter_arrays {
            let place = format!("meter {}", meter.name);
            if meter.rate_count != 2 {
                return Err(unsupported(&place, "a meter with other than two rates"));
            }
            let counts_bytes = match meter.kind.as_str() {
                "bytes" => true,
                "packets" => false,
                other => return Err(unsupported(&place, &format!("a meter of {other}"))),
            };
            let size = if meter.is_direct {
                0
            } else {
                meter.size.unwrap_or_default()
            };
            cells = count_cells(&place, cells, size, MAX_CELLS)?;
            let target = match (&meter.result_target, meter.is_direct) {
                (Some((header, field)), true) => {
                    let field = layout.field(&place, header, field)?;
                    if field.limbs != 1 || field.is_variable {
                        return Err(unsupported(&place, "a color wider than 64 bits"));
                    }
                    Some(field)
                }
                (None, true) => return Err(invalid("meter", &meter.name, "has no result_target")),
                (_, false) => None,
            };
            self.meters.push(Meter {
                name: meter.name.clone(),
                size: size as usize,
                counts_bytes,
                is_direct: meter.is_direct,
                target,
            });
        }
        for (what, count) in [
            ("registers", self.registers.len()),
            ("counters", self.counters.len()),
            ("meters", self.meters.len()),
            ("calculations", document.calculations.len()),
            ("parser value sets", document.parse_vsets.len()),
        ] {
            index("the program", what, count)?;
        }
        Ok(())
    }
}

impl Calculation {
    fn new(calculation: &json::Calculation, layout: &Layout) -> Result<Self, LoadError> {
        let place = format!("calculation {}", calculation.name);
        let (input, with_payload) = inputs(&place, &calculation.input, layout)?;
        let algorithm = HashAlgorithm::new(&place, &calculation.algo)?;
        Ok(Self {
            name: calculation.name.clone(),
            algorithm,
            input,
            with_payload,
        })
    }
}

impl HashAlgorithm {
    fn new(place: &str, name: &str) -> Result<Self, LoadError> {
        Ok(match name {
            "crc16" | "crc16_custom" => Self::Crc16,
            "crcCCITT" => Self::Crc16Ccitt,
            "crc32" | "crc32_custom" => Self::Crc32,
            "crc64_custom" => Self::Crc64Custom,
            "crc8_custom" => Self::Crc8Custom,
            "csum16" | "cksum16" => Self::Checksum16,
            "identity" => Self::Identity,
            "round_robin" => Self::RoundRobin,
            "toeplitz" => Self::Toeplitz,
            "xor16" => Self::Xor16,
            "xor32" => Self::Xor32,
            "xxh64" => Self::Xxh64,
            other => return Err(unsupported(place, &format!("hash algorithm {other}"))),
        })
    }
}

impl FieldList {
    fn new(kind: &str, list: &json::FieldList, layout: &Layout) -> Result<Self, LoadError> {
        let place = format!("{kind} {}", list.name);
        let element = |element: &TypedValue| match element.kind.as_str() {
            "field" => {
                let (header, field) = names(&place, element)?;
                let field = layout.field(&place, header, field)?;
                if field.is_variable {
                    return Err(unsupported(&place, "a field of variable length in a list"));
                }
                Ok(ListElement::Field(field))
            }
            "hexstr" => {
                let constant = constant(&place, element)?;
                let limbs = constant.bits().div_ceil(64).max(1);
                Ok(ListElement::Constant {
                    limbs: constant.to_limbs(limbs as usize),
                })
            }
            other => Err(unsupported(&place, &format!("\"{other}\" in a list"))),
        };
        let fields = list
            .elements
            .iter()
            .map(element)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            name: list.name.clone(),
            id: list.id,
            fields,
        })
    }
}

/// The input of a hash: its parts, and whether the payload follows.
fn inputs(
    place: &str,
    elements: &[TypedValue],
    layout: &Layout,
) -> Result<(Vec<Input>, bool), LoadError> {
    let mut input = Vec::new();
    let mut with_payload = false;
    let mut bits_so_far = 0;
    for element in elements {
        match element.kind.as_str() {
            "field" => {
                let (header, name) = names(place, element)?;
                let index = layout.header_index(place, header)?;
                let header = layout.header(place, header)?;
                let field = layout.field(place, &header.name, name)?;
                if field.is_variable {
                    input.push(Input::Variable { header: index });
                    continue;
                }
                bits_so_far += u64::from(field.bits);
                for limb in (0..field.limbs).rev() {
                    let slot = field.slot + Slot::from(limb);
                    let bits = (field.bits - u32::from(limb) * 64).min(64) as u8;
                    input.push(Input::Bits {
                        slot,
                        bits,
                        valid: header.valid,
                    });
                }
            }
            "hexstr" => {
                let constant = constant(place, element)?;
                let bits = element.bitwidth.unwrap_or_default();
                if bits == 0 || bits > 4096 {
                    return Err(unsupported(place, "a constant without a bitwidth"));
                }
                bits_so_far += bits;
                let limbs = constant.to_limbs(bits.div_ceil(64) as usize);
                for (limb, value) in limbs.iter().enumerate().rev() {
                    let bits = (bits - limb as u64 * 64).min(64) as u8;
                    let value = value & super::op::ones(bits.into());
                    input.push(Input::Constant { value, bits });
                }
            }
            "header" => {
                let name = element.value.as_str().unwrap_or_default();
                let header = layout.header_index(place, name)?;
                if layout.headers[usize::from(header)].is_metadata {
                    return Err(unsupported(place, "a whole metadata instance as input"));
                }
                input.push(Input::Header { header });
            }
            "payload" => with_payload = true,
            other => return Err(unsupported(place, &format!("\"{other}\" as input"))),
        }
    }
    if bits_so_far > MAX_INPUT_BYTES * 8 {
        return Err(too_large(
            place,
            "bits of input",
            bits_so_far,
            MAX_INPUT_BYTES * 8,
        ));
    }
    Ok((with_runs(input), with_payload))
}

/// Puts together fields of one header that follow each other, if they are whole bytes.
fn with_runs(input: Vec<Input>) -> Vec<Input> {
    let mut runs = Vec::new();
    let mut parts: Vec<(Slot, u8)> = Vec::new();
    let mut of_header = None;
    for next in input.into_iter().map(Some).chain([None]) {
        if let Some(Input::Bits { slot, bits, valid }) = &next
            && of_header.is_none_or(|header| header == *valid)
        {
            of_header = Some(*valid);
            parts.push((*slot, *bits));
            continue;
        }
        if let Some(valid) = of_header.take() {
            let bits: u32 = parts.iter().map(|(_, bits)| u32::from(*bits)).sum();
            if bits.is_multiple_of(8) {
                let groups = BitGroups::of_parts(parts.drain(..), 0);
                runs.push(Input::Run { groups, valid });
            } else {
                runs.extend(
                    parts
                        .drain(..)
                        .map(|(slot, bits)| Input::Bits { slot, bits, valid }),
                );
            }
        }
        match next {
            Some(Input::Bits { slot, bits, valid }) => {
                of_header = Some(valid);
                parts.push((slot, bits));
            }
            Some(other) => runs.push(other),
            None => {}
        }
    }
    runs
}

fn names<'a>(place: &str, element: &'a TypedValue) -> Result<(&'a str, &'a str), LoadError> {
    let name = |index| element.value.get(index).and_then(serde_json::Value::as_str);
    name(0).zip(name(1)).ok_or_else(|| LoadError::Invalid {
        place: place.to_owned(),
        reason: "a field reference is not two names".to_owned(),
    })
}

fn constant(place: &str, element: &TypedValue) -> Result<Constant, LoadError> {
    element
        .value
        .as_str()
        .and_then(Constant::parse)
        .ok_or_else(|| LoadError::Invalid {
            place: place.to_owned(),
            reason: "a constant is not a hexstr".to_owned(),
        })
}

fn count_cells(place: &str, before: u64, size: u64, limit: u64) -> Result<u64, LoadError> {
    let cells = before.saturating_add(size);
    if cells > limit {
        return Err(too_large(
            place,
            "cells, with the arrays before it",
            cells,
            limit,
        ));
    }
    Ok(cells)
}

fn find<'a>(
    place: &str,
    what: &str,
    name: &str,
    mut names: impl Iterator<Item = &'a String>,
) -> Result<u16, LoadError> {
    let position = names.position(|other| other == name);
    position
        .and_then(|position| u16::try_from(position).ok())
        .ok_or_else(|| LoadError::Invalid {
            place: place.to_owned(),
            reason: format!("there is no {what} {name}"),
        })
}

/// The index of the next object, if there may be one more.
pub(super) fn index(place: &str, what: &'static str, count: usize) -> Result<u16, LoadError> {
    let limit = u16::MAX - 1;
    match u16::try_from(count) {
        Ok(index) if index <= limit => Ok(index),
        _ => Err(too_large(place, what, count as u64, u64::from(limit))),
    }
}
