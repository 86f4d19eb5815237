//! Whatever a JSON says, it is loaded or refused; whatever is loaded takes any packet.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use flowradar_switch::{LoadError, Outputs, Pipeline, PipelineConfig, Program, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The JSON of all test programs.
fn documents() -> &'static [Value] {
    static DOCUMENTS: OnceLock<Vec<Value>> = OnceLock::new();
    DOCUMENTS.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/compiled");
        let files = std::fs::read_dir(folder).expect("the compiled programs are there");
        let mut paths: Vec<_> = files
            .map(|file| file.expect("it is a file").path())
            .collect();
        paths.retain(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        });
        paths.sort();
        let read = |path: &std::path::PathBuf| {
            let json = std::fs::read(path).expect("the compiled program is there");
            without_positions(serde_json::from_slice(&json).expect("p4c writes JSON"))
        };
        paths.iter().map(read).collect()
    })
}

/// Source positions mean nothing to the loader; without them mutations meet what does.
fn without_positions(value: Value) -> Value {
    match value {
        Value::Array(values) => values.into_iter().map(without_positions).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(name, _)| name != "source_info")
            .map(|(name, value)| (name, without_positions(value)))
            .collect(),
        other => other,
    }
}

/// All values within a value, in some fixed order.
fn nodes<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    found.push(value);
    match value {
        Value::Array(values) => values.iter().for_each(|value| nodes(value, found)),
        Value::Object(fields) => fields.values().for_each(|value| nodes(value, found)),
        _ => {}
    }
}

/// Replaces the value with this number in the order of [`nodes`].
fn replace(value: &mut Value, left: &mut usize, replacement: &Value) {
    if *left == 0 {
        *left = usize::MAX;
        *value = replacement.clone();
        return;
    }
    *left -= 1;
    match value {
        Value::Array(values) => {
            values
                .iter_mut()
                .for_each(|value| replace(value, left, replacement));
        }
        Value::Object(fields) => {
            fields
                .values_mut()
                .for_each(|value| replace(value, left, replacement));
        }
        _ => {}
    }
}

/// Values that are at home nowhere.
fn stranger(number: usize) -> Value {
    let strangers = [
        json!(null),
        json!(0),
        json!(1),
        json!(-1),
        json!(7),
        json!(64),
        json!(65),
        json!(4097),
        json!(65_535),
        json!(u32::MAX),
        json!(u64::MAX),
        json!(1.5),
        json!(true),
        json!(""),
        json!("*"),
        json!("0x0"),
        json!("-0xffffffffffffffffff"),
        json!("0xffffffffffffffffffffffffffffffffffffffffffff"),
        json!("$valid$"),
        json!([]),
        json!({}),
        json!({"type": "hexstr", "value": "0xff"}),
        json!({"type": "field", "value": ["h", "$valid$"]}),
    ];
    strangers[number % strangers.len()].clone()
}

fn try_out(json: &[u8], frames: &[Vec<u8>]) -> Result<(), LoadError> {
    let program = Arc::new(Program::from_json(json)?);
    let mut pipeline = Pipeline::new(program, PipelineConfig::default());
    let mut outputs = Outputs::new();
    for (number, frame) in (0..).zip(frames) {
        let now = Timestamp::from_microseconds(number);
        pipeline.process(number as u16, frame, now, &mut outputs);
        pipeline.tick(now, &mut outputs);
        outputs.clear();
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn mutated_programs(
        document: prop::sample::Index,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<bool>()), 1..4),
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 3),
    ) {
        let mut json = documents()[document.index(documents().len())].clone();
        for (place, source, is_stranger) in changes {
            let mut found = Vec::new();
            nodes(&json, &mut found);
            let replacement = if is_stranger {
                stranger(source.index(1000))
            } else {
                found[source.index(found.len())].clone()
            };
            let mut place = place.index(found.len());
            replace(&mut json, &mut place, &replacement);
        }
        // Refused or run, but nothing else.
        let _ = try_out(json.to_string().as_bytes(), &frames);
    }

    #[test]
    fn damaged_bytes(
        document: prop::sample::Index,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        length: prop::sample::Index,
    ) {
        let json = documents()[document.index(documents().len())].to_string();
        let mut bytes = json.into_bytes();
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let _ = try_out(&bytes, &[]);
        prop_assert!(try_out(&bytes[..length.index(bytes.len())], &[]).is_err());
    }
}

#[test]
fn what_is_not_supported_is_named() {
    let index = |name: &str| {
        let has = |document: &&Value| {
            let mut found = Vec::new();
            nodes(document, &mut found);
            found.iter().any(|node| node.as_str() == Some(name))
        };
        documents().iter().find(has).expect("a program has it")
    };
    for (before, after, named) in [
        ("crc16", "crc99", "hash algorithm crc99"),
        ("register_read", "register_peek", "primitive register_peek"),
        ("lpm", "fuzzy", "fuzzy"),
        (
            "two_comp_mod",
            "three_comp_mod",
            "operator \"three_comp_mod\"",
        ),
        (
            "extract_VL",
            "extract_more",
            "parser operation extract_more",
        ),
        ("csum16", "csum17", "hash algorithm csum17"),
    ] {
        let text = index(before)
            .to_string()
            .replace(&format!("\"{before}\""), &format!("\"{after}\""));
        let Err(error) = Program::from_json(text.as_bytes()) else {
            panic!("{after} is accepted");
        };
        assert!(matches!(error, LoadError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[test]
fn pipelines_that_come_back_are_refused() {
    let mut document = documents()
        .iter()
        .find(|document| {
            document["program"]
                .as_str()
                .is_some_and(|name| name.contains("action_run"))
        })
        .expect("the program is there")
        .clone();
    let table = document["pipelines"][0]["tables"][0]["name"].clone();
    for next in document["pipelines"][0]["tables"]
        .as_array_mut()
        .expect("ingress has tables")
        .iter_mut()
        .filter_map(|table| table["next_tables"].as_object_mut())
        .flat_map(serde_json::Map::values_mut)
        .filter(|next| next.is_null())
    {
        *next = table.clone();
    }
    let refused = Program::from_json(document.to_string().as_bytes()).map(|_| ());
    let Err(LoadError::Invalid { reason, .. }) = &refused else {
        panic!("{refused:?}")
    };
    assert!(reason.contains("comes back"), "{reason}");
}
