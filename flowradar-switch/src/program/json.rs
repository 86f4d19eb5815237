//! The JSON as it is written: the shapes of bmv2's format (its document `JSON_format.md`, version 2).
//!
//! Attributes that nothing here needs (source positions above all) are skipped; attributes that change
//! what a program means are all taken, so that what is not supported can be refused.

use serde::Deserialize;
use serde_json::Value as Json;

use super::LoadError;

/// How deeply brackets may nest: expressions are trees, and everything that walks them recurses.
const MAX_NESTING: usize = 600;

/// How large a JSON may be.
const MAX_BYTES: u64 = 256 << 20;

#[derive(Debug, Deserialize)]
pub(super) struct Document {
    #[serde(rename = "__meta__")]
    pub(super) meta: Option<Meta>,
    pub(super) header_types: Vec<HeaderType>,
    pub(super) headers: Vec<Header>,
    #[serde(default)]
    pub(super) header_stacks: Vec<HeaderStack>,
    #[serde(default)]
    pub(super) header_unions: Vec<HeaderUnion>,
    #[serde(default)]
    pub(super) header_union_stacks: Vec<Named>,
    #[serde(default)]
    pub(super) field_lists: Vec<FieldList>,
    #[serde(default)]
    pub(super) errors: Vec<(String, u64)>,
    pub(super) parsers: Vec<Parser>,
    #[serde(default)]
    pub(super) parse_vsets: Vec<ParseVset>,
    pub(super) deparsers: Vec<Deparser>,
    #[serde(default)]
    pub(super) meter_arrays: Vec<MeterArray>,
    #[serde(default)]
    pub(super) counter_arrays: Vec<CounterArray>,
    #[serde(default)]
    pub(super) register_arrays: Vec<RegisterArray>,
    #[serde(default)]
    pub(super) calculations: Vec<Calculation>,
    #[serde(default)]
    pub(super) learn_lists: Vec<FieldList>,
    #[serde(default)]
    pub(super) actions: Vec<Action>,
    pub(super) pipelines: Vec<Pipeline>,
    #[serde(default)]
    pub(super) checksums: Vec<Checksum>,
    #[serde(default)]
    pub(super) extern_instances: Vec<ExternInstance>,
    #[serde(default)]
    pub(super) field_aliases: Vec<(String, (String, String))>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Meta {
    pub(super) version: (u64, u64),
    pub(super) compiler: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Named {
    pub(super) name: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct HeaderType {
    pub(super) name: String,
    pub(super) fields: Vec<Vec<Json>>,
    #[serde(default)]
    pub(super) length_exp: Option<Json>,
    pub(super) max_length: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Header {
    pub(super) name: String,
    pub(super) id: u64,
    pub(super) header_type: String,
    #[serde(default)]
    pub(super) metadata: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct HeaderStack {
    pub(super) name: String,
    pub(super) header_type: String,
    pub(super) header_ids: Vec<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct HeaderUnion {
    pub(super) name: String,
    pub(super) header_ids: Vec<u64>,
}

/// Field lists and learn lists.
#[derive(Debug, Deserialize)]
pub(super) struct FieldList {
    pub(super) name: String,
    pub(super) id: u64,
    pub(super) elements: Vec<TypedValue>,
}

/// An object with attributes `type` and `value`, and `bitwidth` for constants in calculations.
#[derive(Debug, Deserialize)]
pub(super) struct TypedValue {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) value: Json,
    pub(super) bitwidth: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Parser {
    pub(super) name: String,
    pub(super) init_state: Option<String>,
    pub(super) parse_states: Vec<ParseState>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ParseState {
    pub(super) name: String,
    pub(super) parser_ops: Vec<ParserOp>,
    #[serde(default)]
    pub(super) transition_key: Vec<TypedValue>,
    #[serde(default)]
    pub(super) transitions: Vec<Transition>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ParserOp {
    pub(super) op: String,
    #[serde(default)]
    pub(super) parameters: Vec<Json>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Transition {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) value: Option<String>,
    pub(super) mask: Option<String>,
    pub(super) next_state: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ParseVset {
    pub(super) name: String,
    pub(super) compressed_bitwidth: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Deparser {
    pub(super) name: String,
    pub(super) order: Vec<String>,
    #[serde(default)]
    pub(super) primitives: Vec<Json>,
}

#[derive(Debug, Deserialize)]
pub(super) struct MeterArray {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) rate_count: u64,
    pub(super) size: Option<u64>,
    #[serde(default)]
    pub(super) is_direct: bool,
    pub(super) result_target: Option<(String, String)>,
}

#[derive(Debug, Deserialize)]
pub(super) struct CounterArray {
    pub(super) name: String,
    pub(super) size: Option<u64>,
    #[serde(default)]
    pub(super) is_direct: bool,
    pub(super) binding: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RegisterArray {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) bitwidth: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Calculation {
    pub(super) name: String,
    pub(super) algo: String,
    pub(super) input: Vec<TypedValue>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Action {
    pub(super) name: String,
    pub(super) id: u64,
    pub(super) runtime_data: Vec<RuntimeData>,
    pub(super) primitives: Vec<Primitive>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RuntimeData {
    pub(super) name: String,
    pub(super) bitwidth: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Primitive {
    pub(super) op: String,
    #[serde(default)]
    pub(super) parameters: Vec<TypedValue>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Pipeline {
    pub(super) name: String,
    pub(super) init_table: Option<String>,
    #[serde(default)]
    pub(super) tables: Vec<Table>,
    #[serde(default)]
    pub(super) action_profiles: Vec<ActionProfile>,
    #[serde(default)]
    pub(super) conditionals: Vec<Conditional>,
    #[serde(default)]
    pub(super) action_calls: Vec<ActionCall>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ActionProfile {
    pub(super) name: String,
    pub(super) max_size: u64,
    pub(super) selector: Option<Selector>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Selector {
    pub(super) algo: String,
    pub(super) input: Vec<TypedValue>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) match_type: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) action_profile: Option<String>,
    pub(super) max_size: u64,
    #[serde(default)]
    pub(super) with_counters: bool,
    #[serde(default)]
    pub(super) support_timeout: bool,
    pub(super) key: Vec<Key>,
    pub(super) actions: Vec<String>,
    #[serde(default)]
    pub(super) action_ids: Vec<u64>,
    #[serde(default)]
    pub(super) base_default_next: Option<String>,
    #[serde(default)]
    pub(super) next_tables: serde_json::Map<String, Json>,
    pub(super) direct_meters: Option<String>,
    pub(super) default_entry: Option<DefaultEntry>,
    #[serde(default)]
    pub(super) entries: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Key {
    pub(super) match_type: String,
    pub(super) target: Json,
    pub(super) mask: Option<String>,
    pub(super) name: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct DefaultEntry {
    pub(super) action_id: u64,
    #[serde(default)]
    pub(super) action_const: bool,
    #[serde(default)]
    pub(super) action_data: Vec<String>,
    #[serde(default)]
    pub(super) action_entry_const: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Entry {
    pub(super) match_key: Vec<EntryMatch>,
    pub(super) action_entry: DefaultEntry,
    #[serde(default)]
    pub(super) priority: i64,
}

#[derive(Debug, Deserialize)]
pub(super) struct EntryMatch {
    pub(super) match_type: String,
    #[serde(default)]
    pub(super) key: Json,
    pub(super) prefix_length: Option<u64>,
    pub(super) mask: Option<String>,
    pub(super) start: Option<String>,
    pub(super) end: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Conditional {
    pub(super) name: String,
    pub(super) expression: Json,
    pub(super) true_next: Option<String>,
    pub(super) false_next: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ActionCall {
    pub(super) name: String,
    pub(super) action_id: u64,
    pub(super) next_node: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Checksum {
    pub(super) name: String,
    pub(super) target: (String, String),
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) calculation: Option<String>,
    #[serde(default = "yes")]
    pub(super) update: bool,
    #[serde(default = "yes")]
    pub(super) verify: bool,
    #[serde(default)]
    pub(super) if_cond: Option<Json>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ExternInstance {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
}

impl Document {
    pub(super) fn parse(json: &[u8]) -> Result<Self, LoadError> {
        let size = json.len() as u64;
        if size > MAX_BYTES {
            let place = "the JSON".to_owned();
            return Err(LoadError::TooLarge {
                place,
                what: "bytes",
                size,
                limit: MAX_BYTES,
            });
        }
        let nesting = nesting(json);
        if nesting > MAX_NESTING {
            return Err(LoadError::TooLarge {
                place: "the JSON".to_owned(),
                what: "nested brackets",
                size: nesting as u64,
                limit: MAX_NESTING as u64,
            });
        }
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        deserializer.disable_recursion_limit();
        let to_error = |error: serde_json::Error| LoadError::Json {
            reason: error.to_string(),
        };
        let document = Self::deserialize(&mut deserializer).map_err(to_error)?;
        deserializer.end().map_err(to_error)?;
        Ok(document)
    }
}

fn yes() -> bool {
    true
}

/// The largest number of brackets that are open at once, outside of strings.
fn nesting(json: &[u8]) -> usize {
    let (mut open, mut largest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                open += 1;
                largest = largest.max(open);
            }
            b']' | b'}' if !in_string => open = open.saturating_sub(1),
            _ => {}
        }
    }
    largest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_in_strings_do_not_nest() {
        assert_eq!(nesting(br#"{"a": "[[[\"[", "b": [[], 1]}"#), 3);
    }

    #[test]
    fn deep_nesting_is_refused_before_it_is_parsed() {
        let deep = "[".repeat(1_000_000);
        assert!(matches!(
            Document::parse(deep.as_bytes()),
            Err(LoadError::TooLarge {
                what: "nested brackets",
                size: 1_000_000,
                ..
            })
        ));
    }

    #[test]
    fn errors_say_where() {
        let Err(LoadError::Json { reason }) = Document::parse(b"{\n \"header_types\": 3}") else {
            panic!("a number is not an array of header types");
        };
        assert!(reason.contains("line 2"), "{reason}");
    }
}
