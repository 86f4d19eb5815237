//! Parsers: states to code, transitions to tables of values and masks.

use std::collections::HashMap;

use serde_json::Value as Json;

use super::action::{self, Environment, LogMessage};
use super::assembler::{Assembler, Need, Number, Range};
use super::expression::{Constant, Expression, Scope, pair};
use super::json::{self, Document};
use super::layout::{FieldLayout, Layout};
use super::op::{Label, Op, Slot};
use super::{LoadError, Objects, invalid, too_large, unsupported};

/// The widest key of a transition, in bits.
const MAX_KEY_BITS: u32 = 4096;

/// The state that ends parsing.
pub(crate) const ACCEPT: u16 = u16::MAX;

/// A compiled parser.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    pub(crate) states: Vec<State>,
    /// [`ACCEPT`] if there is nothing to parse.
    pub(crate) first: u16,
}

/// A state: its code ends with `Transition`.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) start: Label,
    /// What transitions are chosen by: slots and their bits, most significant first.
    pub(crate) key: Vec<(Slot, u8)>,
    pub(crate) cases: Cases,
    pub(crate) otherwise: u16,
}

/// The transitions of a state, in their order.
#[derive(Debug)]
pub(crate) enum Cases {
    /// Keys of up to 64 bits: value, mask, next state.
    Narrow(Vec<(u64, u64, u16)>),
    Wide(Vec<Case>),
}

/// A transition.
#[derive(Debug)]
pub(crate) enum Case {
    Set {
        value_set: u16,
        mask: Vec<u64>,
        next: u16,
    },
    Value {
        value: Vec<u64>,
        mask: Vec<u64>,
        next: u16,
    },
}

/// The numbers of P4's core parser errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ParserErrors {
    pub(crate) no_error: u64,
    pub(crate) packet_too_short: u64,
    pub(crate) stack_out_of_bounds: u64,
    pub(crate) header_too_short: u64,
    pub(crate) parser_timeout: u64,
    pub(crate) parser_invalid_argument: u64,
}

/// What the parser's code is compiled with.
pub(super) struct ParserContext<'a> {
    pub(super) layout: &'a Layout,
    pub(super) objects: &'a Objects,
    pub(super) environment: Environment<'a>,
    pub(super) assembler: &'a mut Assembler,
    pub(super) messages: &'a mut Vec<LogMessage>,
}

impl Parser {
    pub(super) fn new(
        document: &Document,
        mut context: ParserContext<'_>,
    ) -> Result<Self, LoadError> {
        let parser = match document.parsers.as_slice() {
            [parser] if parser.name == "parser" => parser,
            _ => {
                return Err(unsupported(
                    "the program",
                    "other than one parser, named parser",
                ));
            }
        };
        let mut numbers = HashMap::new();
        for (number, state) in parser.parse_states.iter().enumerate() {
            let number = u16::try_from(number).ok().filter(|number| *number < ACCEPT);
            let count = parser.parse_states.len() as u64;
            let number = number.ok_or_else(|| too_large("the parser", "states", count, 65_534))?;
            if numbers.insert(state.name.as_str(), number).is_some() {
                return Err(invalid("parser state", &state.name, "is there twice"));
            }
        }
        let number = |name: &Option<String>| match name {
            None => Ok(ACCEPT),
            Some(name) => numbers
                .get(name.as_str())
                .copied()
                .ok_or_else(|| invalid("parser", &parser.name, &format!("has no state {name}"))),
        };
        let first = number(&parser.init_state)?;
        let mut states = Vec::with_capacity(parser.parse_states.len());
        for (index, state) in (0..).zip(&parser.parse_states) {
            states.push(context.state(index, state, &number)?);
        }
        Ok(Self { states, first })
    }
}

impl ParserContext<'_> {
    fn state(
        &mut self,
        index: u16,
        state: &json::ParseState,
        number: &impl Fn(&Option<String>) -> Result<u16, LoadError>,
    ) -> Result<State, LoadError> {
        let place = format!("parser state {}", state.name);
        let scope = Scope {
            layout: self.layout,
            objects: self.objects,
            arguments: &[],
            place: &place,
        };
        let start = self.assembler.here();
        self.assembler.begin_block();
        for op in &state.parser_ops {
            self.op(scope, op)?;
            self.assembler.end_statement();
        }
        let mut key = Vec::new();
        let mut widths = Vec::new();
        for element in &state.transition_key {
            let field = self.key_field(scope, element)?;
            widths.push(field.bits);
            for limb in (0..field.limbs).rev() {
                let bits = (field.bits - u32::from(limb) * 64).min(64) as u8;
                key.push((field.slot + Slot::from(limb), bits));
            }
        }
        let bits: u32 = widths.iter().sum();
        if bits > MAX_KEY_BITS {
            let limit = u64::from(MAX_KEY_BITS);
            return Err(too_large(
                &place,
                "bits of a transition's key",
                bits.into(),
                limit,
            ));
        }
        self.assembler
            .push(&place, Op::Transition { state: index })?;
        self.assembler.end_statement();

        let mut cases = Vec::new();
        let mut otherwise = ACCEPT;
        for transition in &state.transitions {
            let next = number(&transition.next_state)?;
            let value = transition.value.as_deref().unwrap_or_default();
            let kind = transition.kind.as_deref().unwrap_or(match value {
                "default" => "default",
                _ => "hexstr",
            });
            match kind {
                "default" => otherwise = next,
                "hexstr" => {
                    let mask = transition.mask.as_deref();
                    if let Some((value, mask)) = masked(scope, value, mask, &widths)? {
                        cases.push(Case::Value { value, mask, next });
                    }
                }
                "parse_vset" => {
                    let value_set = self.objects.value_set(&place, value)?;
                    if self.objects.value_sets[usize::from(value_set)].bits != bits {
                        return Err(scope.invalid("a value set of another width than the key"));
                    }
                    let ones = vec![
                        0xff;
                        widths.iter().map(|bits| bits.div_ceil(8)).sum::<u32>() as usize
                    ];
                    let mask = match &transition.mask {
                        Some(mask) => packed(&hex_bytes(scope, mask)?, &widths),
                        None => packed(&ones, &widths),
                    };
                    let mask = mask
                        .ok_or_else(|| scope.invalid("a mask of another width"))?
                        .0;
                    cases.push(Case::Set {
                        value_set,
                        mask,
                        next,
                    });
                }
                other => return Err(scope.unsupported(&format!("transition type {other}"))),
            }
        }
        let narrow: Option<Vec<_>> = cases
            .iter()
            .map(|case| match case {
                Case::Value { value, mask, next } => match (value.as_slice(), mask.as_slice()) {
                    ([value], [mask]) => Some((*value, *mask, *next)),
                    _ => None,
                },
                Case::Set { .. } => None,
            })
            .collect();
        let cases = match narrow {
            Some(narrow) if bits <= 64 => Cases::Narrow(narrow),
            _ => Cases::Wide(cases),
        };
        Ok(State {
            start,
            key,
            cases,
            otherwise,
        })
    }

    fn op(&mut self, scope: Scope<'_>, op: &json::ParserOp) -> Result<(), LoadError> {
        let parameter = |index: usize| op.parameters.get(index).unwrap_or(&Json::Null);
        match op.op.as_str() {
            "extract" => {
                let op = match self.extracted(scope, parameter(0))? {
                    Extracted::Header(header) => Op::Extract { header },
                    Extracted::Stack(stack) => Op::ExtractStack { stack },
                };
                if self.is_variable(op) {
                    return Err(scope.unsupported("extract of a variable header without length"));
                }
                self.assembler.push(scope.place, op)
            }
            "extract_VL" => {
                let extracted = self.extracted(scope, parameter(0))?;
                let length = Expression::new(scope, parameter(1))?;
                let bits = self.assembler.index(scope, &scope.number(length)?)?;
                let op = match extracted {
                    Extracted::Header(header) => Op::ExtractVariable { header, bits },
                    Extracted::Stack(stack) => Op::ExtractVariableStack { stack, bits },
                };
                if !self.is_variable(op) {
                    return Err(scope.invalid("extract_VL of a header of fixed length"));
                }
                self.assembler.push(scope.place, op)
            }
            "set" => self.set(scope, parameter(0), parameter(1)),
            "verify" => {
                let condition = scope.boolean(Expression::new(scope, parameter(0))?)?;
                let condition = self.assembler.boolean(scope, &condition)?;
                let error = scope.number(Expression::new(scope, parameter(1))?)?;
                let error = self.assembler.index(scope, &error)?;
                self.assembler
                    .push(scope.place, Op::Verify { condition, error })
            }
            "shift" => {
                let bytes = parameter(0).as_u64();
                let bits = bytes.and_then(|bytes| bytes.checked_mul(8));
                let bits = bits.ok_or_else(|| scope.invalid("a shift that is not a number"))?;
                let bits = self.assembler.constant(scope.place, bits)?;
                self.assembler.push(scope.place, Op::Advance { bits })
            }
            "advance" => {
                let bits = scope.number(Expression::new(scope, parameter(0))?)?;
                let bits = self.assembler.index(scope, &bits)?;
                self.assembler.push(scope.place, Op::Advance { bits })
            }
            "primitive" => {
                let primitive = action::from_json(scope, parameter(0))?;
                // Parsers within parsers begin by removing all headers that they may extract.
                if let Some((header, valid)) = action::removed_header(scope, &primitive)? {
                    return self.assembler.push_removal(scope.place, header, valid);
                }
                let environment = Environment {
                    scope,
                    ..self.environment
                };
                let exits = action::primitives(
                    self.assembler,
                    self.messages,
                    environment,
                    std::slice::from_ref(&primitive),
                )?;
                if exits {
                    return Err(scope.unsupported("exit in a parser"));
                }
                Ok(())
            }
            other => Err(scope.unsupported(&format!("parser operation {other}"))),
        }
    }

    fn set(&mut self, scope: Scope<'_>, to: &Json, value: &Json) -> Result<(), LoadError> {
        let (header, name) = pair(scope, to.get("value").unwrap_or(&Json::Null))?;
        let to = scope.layout.field(scope.place, header, name)?;
        if to.is_variable || name == "$valid$" {
            return Err(scope.unsupported("set of this kind of field"));
        }
        if value.get("type").and_then(Json::as_str) == Some("lookahead") {
            let field = self.lookahead(scope, value.get("value").unwrap_or(&Json::Null))?;
            let range = Range::unsigned(field.bits);
            let number = Number::exact(field.slot, field.limbs, range);
            return self.assembler.store(scope, &to, number);
        }
        let value = Expression::new(scope, value)?;
        self.assembler.assign(scope, &to, &value)
    }

    /// Where an element of a transition's key is.
    fn key_field(
        &mut self,
        scope: Scope<'_>,
        element: &json::TypedValue,
    ) -> Result<FieldLayout, LoadError> {
        match element.kind.as_str() {
            "lookahead" => self.lookahead(scope, &element.value),
            "field" => {
                let (header, field) = pair(scope, &element.value)?;
                let field = scope.layout.field(scope.place, header, field)?;
                if field.is_variable {
                    return Err(scope.unsupported("a field of variable length in a select"));
                }
                Ok(field)
            }
            "stack_field" => {
                let expression = Expression::typed(scope, "stack_field", &element.value)?;
                let Expression::LastField { stack, field } = &expression else {
                    return Err(scope.invalid("a stack_field that is not one"));
                };
                let first = scope.layout.stacks[usize::from(*stack)].headers[0];
                let layout = &scope.layout.headers[usize::from(first)].fields[*field];
                let number = self
                    .assembler
                    .number(scope, &expression, Need::Low(layout.bits))?;
                Ok(FieldLayout {
                    slot: number.slot,
                    is_signed: false,
                    ..layout.clone()
                })
            }
            other => Err(scope.unsupported(&format!("\"{other}\" in a select"))),
        }
    }

    fn lookahead(&mut self, scope: Scope<'_>, json: &Json) -> Result<FieldLayout, LoadError> {
        let number = |index| json.get(index).and_then(Json::as_u64);
        let (Some(bit_offset), Some(bits)) = (number(0), number(1)) else {
            return Err(scope.invalid("a lookahead without offset and width"));
        };
        if bits == 0 || bits > 4096 || bit_offset > 16_384 {
            return Err(scope.unsupported("a lookahead of more than 4096 bits, or that far ahead"));
        }
        let limbs = bits.div_ceil(64) as u8;
        let to = self.assembler.temporary(scope, limbs.into())?;
        let op = Op::Lookahead {
            to,
            bit_offset: bit_offset as u16,
            bits: bits as u16,
        };
        self.assembler.push(scope.place, op)?;
        Ok(FieldLayout {
            name: String::new(),
            bits: bits as u32,
            is_signed: false,
            slot: to,
            limbs,
            is_variable: false,
        })
    }

    fn extracted(&self, scope: Scope<'_>, json: &Json) -> Result<Extracted, LoadError> {
        let name = json.get("value").and_then(Json::as_str).unwrap_or_default();
        match json.get("type").and_then(Json::as_str).unwrap_or_default() {
            "regular" => Ok(Extracted::Header(
                scope.layout.header_index(scope.place, name)?,
            )),
            "stack" => Ok(Extracted::Stack(
                scope.layout.stack_index(scope.place, name)?,
            )),
            other => Err(scope.unsupported(&format!("extract to \"{other}\""))),
        }
    }

    fn is_variable(&self, op: Op) -> bool {
        let header = match op {
            Op::Extract { header } | Op::ExtractVariable { header, .. } => header,
            Op::ExtractStack { stack } | Op::ExtractVariableStack { stack, .. } => {
                self.layout.stacks[usize::from(stack)].headers[0]
            }
            _ => return false,
        };
        self.layout.headers[usize::from(header)].variable.is_some()
    }
}

enum Extracted {
    Header(u16),
    Stack(u16),
}

impl ParserErrors {
    /// The numbers the program gives; those it does not use get unused ones.
    pub(super) fn new(errors: &[(String, u64)]) -> Self {
        let mut unused = errors
            .iter()
            .map(|(_, number)| *number)
            .max()
            .unwrap_or_default();
        let mut number = |name: &str| match errors.iter().find(|(other, _)| other == name) {
            Some((_, number)) => *number,
            None => {
                unused = unused.saturating_add(1);
                unused
            }
        };
        Self {
            no_error: number("NoError"),
            packet_too_short: number("PacketTooShort"),
            stack_out_of_bounds: number("StackOutOfBounds"),
            header_too_short: number("HeaderTooShort"),
            parser_timeout: number("ParserTimeout"),
            parser_invalid_argument: number("ParserInvalidArgument"),
        }
    }
}

/// Value and mask of a transition, without padding.
type MaskedValue = (Vec<u64>, Vec<u64>);

/// Value and mask of a transition; `None` if no key can match.
fn masked(
    scope: Scope<'_>,
    value: &str,
    mask: Option<&str>,
    widths: &[u32],
) -> Result<Option<MaskedValue>, LoadError> {
    let length = widths.iter().map(|bits| bits.div_ceil(8) as usize).sum();
    let mask = match mask {
        Some(mask) => hex_bytes(scope, mask)?,
        None => vec![0xff; length],
    };
    let mut value = hex_bytes(scope, value)?;
    for bytes in [&value, &mask] {
        if bytes.len() > length {
            return Err(scope.invalid("a value or mask that is longer than the key"));
        }
    }
    let pad = |bytes: &[u8]| [vec![0; length - bytes.len()], bytes.to_vec()].concat();
    let mask = pad(&mask);
    value = pad(&value);
    for (byte, mask) in value.iter_mut().zip(&mask) {
        *byte &= mask;
    }
    let wrong = || scope.invalid("a value or mask of another length than the key");
    let (value, value_is_whole) = packed(&value, widths).ok_or_else(wrong)?;
    let (mask, _) = packed(&mask, widths).ok_or_else(wrong)?;
    Ok(value_is_whole.then_some((value, mask)))
}

/// Fields that are padded to whole bytes each, as one number without padding; and whether the padding
/// was zero.
fn packed(bytes: &[u8], widths: &[u32]) -> Option<(Vec<u64>, bool)> {
    let bits: u32 = widths.iter().sum();
    let mut limbs = vec![0_u64; bits.div_ceil(64).max(1) as usize];
    let mut is_whole = true;
    let mut rest = bytes;
    let mut position = bits;
    for width in widths {
        let (field, after) = rest.split_at_checked(width.div_ceil(8) as usize)?;
        rest = after;
        for bit in 0..field.len() as u32 * 8 {
            let byte = field[field.len() - 1 - (bit / 8) as usize];
            if byte >> (bit % 8) & 1 == 0 {
                continue;
            }
            if bit >= *width {
                is_whole = false;
                continue;
            }
            let at = position - width + bit;
            limbs[(at / 64) as usize] |= 1 << (at % 64);
        }
        position -= width;
    }
    rest.is_empty().then_some((limbs, is_whole))
}

fn hex_bytes(scope: Scope<'_>, text: &str) -> Result<Vec<u8>, LoadError> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let wrong = || scope.invalid(&format!("{text} as a hexstr"));
    if Constant::parse(text).is_none() || text.starts_with('-') {
        return Err(wrong());
    }
    let padded = if digits.len().is_multiple_of(2) {
        digits.to_owned()
    } else {
        format!("0{digits}")
    };
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    };
    padded
        .as_bytes()
        .chunks(2)
        .map(byte)
        .collect::<Option<_>>()
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_between_fields_goes() {
        // The document's own example: 12 bits and 2 bits in 3 bytes.
        assert_eq!(
            packed(&[0x0a, 0xba, 0x03], &[12, 2]),
            Some((vec![0xaba << 2 | 3], true))
        );
        assert_eq!(
            packed(&[0x1a, 0xba, 0x03], &[12, 2]),
            Some((vec![0xaba << 2 | 3], false))
        );
        assert_eq!(packed(&[0x0a, 0xba], &[12, 2]), None);
    }
}
