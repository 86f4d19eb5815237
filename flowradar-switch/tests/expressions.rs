//! Random expressions give what integers without bounds give, cut off where they are stored.

use std::sync::Arc;

use flowradar_switch::{Outputs, Pipeline, PipelineConfig, Program, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Fields with their widths in bits; the last two are signed.
const FIELDS: [(&str, u32); 6] = [
    ("a", 8),
    ("b", 24),
    ("c", 40),
    ("d", 64),
    ("e", 16),
    ("f", 40),
];
const FIRST_SIGNED: usize = 4;

/// Widths of what results are stored in.
const RESULTS: [u32; 5] = [8, 32, 64, 72, 128];

/// A number.
#[derive(Clone, Debug)]
enum Number {
    Binary(&'static str, Box<Self>, Box<Self>),
    Cast(&'static str, Box<Self>, u32),
    Choice(Box<Truth>, Box<Self>, Box<Self>),
    Complement(Box<Self>),
    Constant(i64),
    Field(usize),
    Mask(Box<Self>, u32),
    Shift(&'static str, Box<Self>, u32),
}

/// A Boolean.
#[derive(Clone, Debug)]
enum Truth {
    Binary(&'static str, Box<Self>, Box<Self>),
    Compare(&'static str, Box<Number>, Box<Number>),
    Not(Box<Self>),
}

impl Number {
    /// The value; `None` if it does not fit 128 bits on the way.
    fn value(&self, fields: &[i128]) -> Option<i128> {
        Some(match self {
            Self::Constant(number) => (*number).into(),
            Self::Field(index) => fields[*index],
            Self::Complement(operand) => !operand.value(fields)?,
            Self::Mask(operand, bits) => operand.value(fields)? & ((1 << bits) - 1),
            Self::Shift("<<", operand, amount) => {
                let value = operand.value(fields)?;
                value.checked_mul(1_i128.checked_shl(*amount)?)?
            }
            Self::Shift(_, operand, amount) => operand.value(fields)? >> amount,
            Self::Cast(kind, operand, bits) => {
                let value = operand.value(fields)?;
                let limit = 1_i128 << (bits - 1);
                match *kind {
                    "two_comp_mod" => (value + limit).rem_euclid(limit * 2) - limit,
                    "sat_cast" => value.clamp(-limit, limit - 1),
                    _ => value.clamp(0, limit * 2 - 1),
                }
            }
            Self::Choice(condition, left, right) => {
                // Both are computed here, so both must be within the bounds of this oracle.
                let (left, right) = (left.value(fields)?, right.value(fields)?);
                if condition.value(fields)? {
                    left
                } else {
                    right
                }
            }
            Self::Binary(operator, left, right) => {
                let (left, right) = (left.value(fields)?, right.value(fields)?);
                match *operator {
                    "+" => left.checked_add(right)?,
                    "-" => left.checked_sub(right)?,
                    "*" => left.checked_mul(right)?,
                    "&" => left & right,
                    "|" => left | right,
                    _ => left ^ right,
                }
            }
        })
    }

    fn json(&self) -> Value {
        match self {
            Self::Constant(number) => {
                let sign = if *number < 0 { "-" } else { "" };
                constant(&format!("{sign}0x{:x}", number.unsigned_abs()))
            }
            Self::Field(index) => json!({"type": "field", "value": ["h", FIELDS[*index].0]}),
            Self::Complement(operand) => operation("~", Value::Null, operand.json()),
            Self::Mask(operand, bits) => {
                let mask = constant(&format!("0x{:x}", (1_u128 << bits) - 1));
                operation("&", operand.json(), mask)
            }
            Self::Shift(operator, operand, amount) => {
                operation(operator, operand.json(), constant(&format!("0x{amount:x}")))
            }
            Self::Cast(kind, operand, bits) => {
                operation(kind, operand.json(), constant(&format!("0x{bits:x}")))
            }
            Self::Choice(condition, left, right) => {
                let mut choice = operation("?", left.json(), right.json());
                choice["value"]["cond"] = condition.json();
                choice
            }
            Self::Binary(operator, left, right) => operation(operator, left.json(), right.json()),
        }
    }
}

impl Truth {
    fn value(&self, fields: &[i128]) -> Option<bool> {
        Some(match self {
            Self::Not(operand) => !operand.value(fields)?,
            Self::Binary(operator, left, right) => {
                let (left, right) = (left.value(fields)?, right.value(fields)?);
                if *operator == "and" {
                    left && right
                } else {
                    left || right
                }
            }
            Self::Compare(operator, left, right) => {
                let (left, right) = (left.value(fields)?, right.value(fields)?);
                match *operator {
                    "==" => left == right,
                    "!=" => left != right,
                    "<" => left < right,
                    "<=" => left <= right,
                    ">" => left > right,
                    _ => left >= right,
                }
            }
        })
    }

    fn json(&self) -> Value {
        match self {
            Self::Not(operand) => operation("not", Value::Null, operand.json()),
            Self::Binary(operator, left, right) => operation(operator, left.json(), right.json()),
            Self::Compare(operator, left, right) => operation(operator, left.json(), right.json()),
        }
    }
}

fn constant(hexstr: &str) -> Value {
    json!({"type": "hexstr", "value": hexstr})
}

fn operation(operator: &str, left: Value, right: Value) -> Value {
    json!({"type": "expression", "value": {"op": operator, "left": left, "right": right}})
}

fn number() -> impl Strategy<Value = Number> {
    let leaf = prop_oneof![
        (0..FIELDS.len()).prop_map(Number::Field),
        any::<i64>().prop_map(Number::Constant),
        (-4..300_i64).prop_map(Number::Constant),
    ];
    leaf.prop_recursive(5, 40, 2, |inner| {
        let boxed = inner.prop_map(Box::new);
        let condition = (
            prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]),
            boxed.clone(),
            boxed.clone(),
        )
            .prop_map(|(operator, left, right)| Truth::Compare(operator, left, right));
        prop_oneof![
            4 => (prop::sample::select(vec!["+", "-", "*", "&", "|", "^"]), boxed.clone(), boxed.clone())
                .prop_map(|(operator, left, right)| Number::Binary(operator, left, right)),
            2 => (boxed.clone(), 1..100_u32).prop_map(|(operand, bits)| Number::Mask(operand, bits)),
            2 => (prop::sample::select(vec!["<<", ">>"]), boxed.clone(), 0..90_u32)
                .prop_map(|(operator, operand, amount)| Number::Shift(operator, operand, amount)),
            2 => (prop::sample::select(vec!["two_comp_mod", "sat_cast", "usat_cast"]), boxed.clone(), 1..100_u32)
                .prop_map(|(kind, operand, bits)| Number::Cast(kind, operand, bits)),
            1 => boxed.clone().prop_map(Number::Complement),
            1 => (condition, boxed.clone(), boxed)
                .prop_map(|(condition, left, right)| Number::Choice(Box::new(condition), left, right)),
        ]
    })
}

fn truth() -> impl Strategy<Value = Truth> {
    let operators = prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]);
    let leaf = (
        operators,
        number().prop_map(Box::new),
        number().prop_map(Box::new),
    )
        .prop_map(|(operator, left, right)| Truth::Compare(operator, left, right));
    leaf.prop_recursive(2, 4, 2, |inner| {
        let boxed = inner.prop_map(Box::new);
        prop_oneof![
            boxed.clone().prop_map(Truth::Not),
            (
                prop::sample::select(vec!["and", "or"]),
                boxed.clone(),
                boxed
            )
                .prop_map(|(operator, left, right)| Truth::Binary(operator, left, right)),
        ]
    })
}

/// A program that stores a number in fields of several widths, and Booleans in two ways.
fn program(number: &Number, truth: &Truth) -> Value {
    let result = |bits: u32| format!("r{bits}");
    let mut fields: Vec<Value> = FIELDS
        .iter()
        .enumerate()
        .map(|(index, (name, bits))| json!([name, bits, index >= FIRST_SIGNED]))
        .collect();
    fields.extend(
        RESULTS
            .iter()
            .map(|bits| json!([result(*bits), bits, false])),
    );
    fields.extend([json!(["t", 8, false]), json!(["u", 8, false])]);
    let assign = |field: &str, value: Value| json!({"op": "assign", "parameters": [{"type": "field", "value": ["h", field]}, value]});
    let mut primitives: Vec<Value> = RESULTS
        .iter()
        .map(|bits| assign(&result(*bits), number.json()))
        .collect();
    primitives.push(assign("t", operation("b2d", Value::Null, truth.json())));
    let standard = [
        "ingress_port",
        "packet_length",
        "instance_type",
        "egress_spec",
        "egress_port",
    ];
    let standard: Vec<_> = standard
        .iter()
        .map(|name| json!([name, 32, false]))
        .collect();
    let table = |name: &str, action: u32, next: Option<&str>| {
        json!({
            "name": name, "match_type": "exact", "type": "simple", "max_size": 1, "key": [],
            "actions": [format!("action_{action}")], "action_ids": [action],
            "base_default_next": next, "next_tables": {format!("action_{action}"): next},
            "default_entry": {
                "action_id": action, "action_const": true, "action_data": [],
                "action_entry_const": true,
            },
        })
    };
    json!({
        "header_types": [
            {"name": "standard_metadata", "fields": standard},
            {"name": "h_t", "fields": fields},
        ],
        "headers": [
            {"name": "standard_metadata", "id": 0, "header_type": "standard_metadata", "metadata": true},
            {"name": "h", "id": 1, "header_type": "h_t", "metadata": false},
        ],
        "parsers": [{
            "name": "parser", "init_state": "start",
            "parse_states": [{
                "name": "start",
                "parser_ops": [
                    {"op": "extract", "parameters": [{"type": "regular", "value": "h"}]},
                ],
                "transitions": [{"type": "default", "value": null, "mask": null, "next_state": null}],
            }],
        }],
        "deparsers": [{"name": "deparser", "order": ["h"]}],
        "actions": [
            {"name": "action_0", "id": 0, "runtime_data": [], "primitives": primitives},
            {"name": "action_1", "id": 1, "runtime_data": [], "primitives": [assign("u", constant("0x1"))]},
        ],
        "pipelines": [
            {
                "name": "ingress", "init_table": "first",
                "tables": [table("first", 0, Some("condition")), table("second", 1, None)],
                "conditionals": [{
                    "name": "condition", "expression": truth.json(), "true_next": "second",
                    "false_next": null,
                }],
            },
            {"name": "egress", "init_table": null},
        ],
    })
}

fn bits(value: u128, width: u32) -> String {
    format!("{value:0width$b}", width = width as usize)
}

fn from_bits(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(8)
        .map(|byte| byte.iter().fold(0, |byte, bit| byte << 1 | (bit - b'0')))
        .collect()
}

fn low(value: i128, width: u32) -> u128 {
    value as u128 & (u128::MAX >> (128 - width))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn expressions_are_exact(
        number in number(),
        truth in truth(),
        words in prop::array::uniform6(any::<u64>()),
        small in any::<bool>(),
    ) {
        let raw: Vec<u128> = FIELDS
            .iter()
            .zip(words)
            .map(|((_, bits), word)| low((if small { word % 5 } else { word }).into(), *bits))
            .collect();
        let fields: Vec<i128> = raw
            .iter()
            .zip(FIELDS)
            .enumerate()
            .map(|(index, (raw, (_, bits)))| {
                let is_negative = index >= FIRST_SIGNED && raw >> (bits - 1) == 1;
                *raw as i128 - if is_negative { 1_i128 << bits } else { 0 }
            })
            .collect();
        let (Some(value), Some(holds)) = (number.value(&fields), truth.value(&fields)) else {
            return Err(TestCaseError::reject("beyond 128 bits"));
        };
        let json = program(&number, &truth).to_string();
        let program = Program::from_json(json.as_bytes());
        let program = program.map_err(|error| TestCaseError::fail(error.to_string()))?;
        let mut pipeline = Pipeline::new(Arc::new(program), PipelineConfig::default());
        let operands: String =
            raw.iter().zip(FIELDS).map(|(raw, (_, width))| bits(*raw, width)).collect();
        let results: u32 = RESULTS.iter().sum();
        let input = operands.clone() + &"0".repeat(results as usize + 16);
        let mut outputs = Outputs::new();
        pipeline.process(0, &from_bits(&input), Timestamp::ZERO, &mut outputs);
        let stored: String = RESULTS.iter().map(|width| bits(low(value, *width), *width)).collect();
        let holds = bits(holds.into(), 8);
        let expected = from_bits(&(operands + &stored + &holds + &holds));
        let output: Vec<_> = outputs.frames().map(|(_, frame)| frame.to_vec()).collect();
        prop_assert_eq!(output, [expected]);
    }
}
