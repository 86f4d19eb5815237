//! Hashes and flowsets against an implementation of its own, which was written from the documents:
//! `tests/vectors/generate.py`.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use flowradar_core::decode::{Proof, single_decode};
use flowradar_core::flowset::{Epoch, Totals, flowset_bytes};
use flowradar_core::hash::{HashFamily, HashFamilyId, KeyHash, TABLE_LANES};
use flowradar_core::layout::{CellWidths, Coupling, FilterLayout, Layout, TableLayout};
use flowradar_core::{
    Counter, CounterStatus, Encoder, FlowKey, FlowKeyV4, FlowKeyV6, Flowset, KeyKind, Packet,
    with_hash_family,
};
use serde_json::Value;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

#[test]
fn hashes() {
    let vectors = json("hashes.json");
    let vectors = vectors.as_array().expect("an array");
    for vector in vectors {
        let family = HashFamilyId::from_name(text(vector, "family")).expect("a family");
        let (table, filter) = lanes(
            family,
            &bytes_of_hex(text(vector, "key")),
            hexadecimal(text(vector, "seed")),
        );
        assert_eq!(table, lanes_of(text(vector, "table_lanes")), "{vector}");
        assert_eq!(filter, lanes_of(text(vector, "filter_lanes")), "{vector}");
    }
    assert_eq!(vectors.len(), 3 * 10 * 4);
}

/// The vectors that `docs/hash-families.md` shows.
#[test]
fn documented_hashes() {
    let document = include_str!("../../docs/hash-families.md");
    let (_, vectors) = document
        .split_once("```text\n")
        .expect("a block of vectors");
    let (vectors, _) = vectors.split_once("```").expect("its end");
    let lines: Vec<&str> = vectors.lines().collect();
    for vector in lines.chunks_exact(3) {
        let [family, "key", key, "seed", seed] = vector[0].split(' ').collect::<Vec<_>>()[..]
        else {
            panic!("{}", vector[0]);
        };
        let family = HashFamilyId::from_name(family).expect("a family");
        let (table, filter) = lanes(family, &bytes_of_hex(key), hexadecimal(seed));
        assert_eq!(vector[1].strip_prefix("  T ").map(lanes_of), Some(table));
        let shown = vector[2].strip_prefix("  F ").map(lanes_of).expect("lanes");
        assert_eq!(shown, filter[..8], "{}", vector[0]);
    }
    assert_eq!(lines.len(), 3 * 3 * 2 * 2);
}

/// The example of `docs/flowset-format.md`.
#[test]
fn documented_size() {
    let table = TableLayout::new(3, 1250, Coupling::Plain, CellWidths::default()).expect("fits");
    let filter = FilterLayout::partitioned(10, 6000).expect("fits");
    let layout = Layout::new(HashFamilyId::Xxh3, 1, table, filter).expect("ten hashes");
    assert_eq!(
        flowset_bytes("leaf-1".len(), KeyKind::V4, &layout),
        Some(71_400)
    );
}

#[test]
fn flowsets() {
    let manifest = json("flowsets.json");
    let vectors = manifest.as_array().expect("an array");
    for vector in vectors {
        let layout = layout(vector);
        let bytes = file(&format!("{}.flowset", text(vector, "name")));
        let flowset = Flowset::new_checked(&bytes[..])
            .unwrap_or_else(|error| panic!("{}: {error}", text(vector, "name")));
        check_header(vector, &flowset, &layout);
        with_hash_family!(layout.family(), H => match number(vector, "key_kind") {
            4 => check_contents::<FlowKeyV4, H>(vector, &flowset),
            _ => check_contents::<FlowKeyV6, H>(vector, &flowset),
        });
    }
    assert_eq!(vectors.len(), 24);
}

fn check_header(vector: &Value, flowset: &Flowset<&[u8]>, layout: &Layout) {
    let header = flowset.header();
    let name = text(vector, "name");
    assert_eq!(header.switch.as_str(), text(vector, "switch"), "{name}");
    assert_eq!(header.epoch, epoch(vector), "{name}");
    assert_eq!(header.key as u64, number(vector, "key_kind"), "{name}");
    assert_eq!(header.layout, *layout, "{name}");
    let totals = Totals {
        packets: number(vector, "total_packets"),
        bytes: number(vector, "total_bytes"),
        new_flows: number(vector, "total_new_flows"),
    };
    assert_eq!(
        header.totals,
        has_totals(vector).then_some(totals),
        "{name}"
    );
    assert_eq!(
        flowset_bytes(header.switch.as_str().len(), header.key, layout),
        Some(flowset.as_bytes().len()),
        "{name}"
    );
}

fn check_contents<K: FlowKey, H: HashFamily>(vector: &Value, flowset: &Flowset<&[u8]>) {
    let name = text(vector, "name");
    let flows = flows(vector, key::<K>);
    let mut packets = vec![];
    for row in rows(&format!("{name}.packets.csv"), "flow,ip_bytes") {
        let [flow, ip_bytes] = &row[..] else {
            panic!("{name}: {row:?}");
        };
        packets.push(Packet {
            key: flows[flow.parse::<usize>().expect("a row")].key,
            ip_bytes: ip_bytes.parse().expect("a length"),
        });
    }

    let mut encoder = Encoder::<K, H>::new(
        flowset.header().switch.clone(),
        *flowset.layout(),
        epoch(vector),
    )
    .expect("same family");
    encoder.packets(&packets);
    let mut written = encoder
        .end_epoch(Epoch::number(0))
        .expect("the first epoch")
        .to_flowset();
    if !has_totals(vector) {
        remove_totals(&mut written);
    }
    assert!(written == flowset.as_bytes(), "{name}: other bytes");

    let decoded = single_decode::<K, _>(flowset).expect("same kind of key");
    let truth: HashMap<K, &Flow<K>> = flows.iter().map(|flow| (flow.key, flow)).collect();
    for flow in &decoded.flows {
        let truth = truth[&flow.key];
        assert!(truth.found, "{name}: {} cannot be found", flow.key);
        check_counter(flow.packets, truth.packets, name);
        if let Some(bytes) = flow.bytes {
            check_counter(bytes, truth.bytes, name);
        }
        let counts_bytes = number(vector, "byte_count_bits") > 0;
        assert_eq!(flow.bytes.is_some(), counts_bytes, "{name}");
    }
    let found = flows.iter().filter(|flow| flow.found).count();
    assert_eq!(decoded.flows.len(), found, "{name}");
    assert_eq!(
        decoded.is_complete(),
        vector["complete"].as_bool().expect("yes or no"),
        "{name}: {decoded:?}"
    );
    if name == "hidden-flow" {
        assert!(
            matches!(decoded.packets_proof, Proof::HiddenFlows { .. }),
            "{:?}",
            decoded.packets_proof
        );
    }
}

/// What is called exact is right, and all else is within its bounds.
fn check_counter(counter: Counter, truth: u64, name: &str) {
    match counter.status {
        CounterStatus::Unresolved { least, most } => {
            assert!(
                (least..=most).contains(&truth),
                "{name}: {counter:?} {truth}"
            );
        }
        _ => assert_eq!(counter.value, truth, "{name}"),
    }
}

/// Encoders in software always report totals; targets that cannot leave them out.
fn remove_totals(flowset: &mut [u8]) {
    flowset[12] = 0;
    flowset[80..104].fill(0);
    let checked = u16::from_le_bytes([flowset[10], flowset[11]]) as usize - 8;
    let checksum = xxh3_64(&flowset[..checked]);
    flowset[checked..checked + 8].copy_from_slice(&checksum.to_le_bytes());
    let (payload, payload_checksum) = flowset[checked + 8..]
        .split_last_chunk_mut()
        .expect("a flowset ends with a checksum");
    *payload_checksum = xxh3_64_with_seed(payload, checksum).to_le_bytes();
}

/// A row of a `.flows.csv`.
struct Flow<K> {
    key: K,
    packets: u64,
    bytes: u64,
    found: bool,
}

fn flows<K: FlowKey>(vector: &Value, key: impl Fn(&[String]) -> K) -> Vec<Flow<K>> {
    let header = "src,dst,src_port,dst_port,protocol,packets,bytes,found";
    let name = format!("{}.flows.csv", text(vector, "name"));
    let flow = |row: &Vec<String>| Flow {
        key: key(&row[..5]),
        packets: row[5].parse().expect("packets"),
        bytes: row[6].parse().expect("bytes"),
        found: row[7] == "yes",
    };
    rows(&name, header).iter().map(flow).collect()
}

/// A key from five columns, through its bytes, so that one function does for both kinds.
fn key<K: FlowKey>(columns: &[String]) -> K {
    let mut bytes = vec![];
    for address in &columns[..2] {
        match address.parse().expect("an address") {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    for port in &columns[2..4] {
        bytes.extend(port.parse::<u16>().expect("a port").to_be_bytes());
    }
    bytes.push(columns[4].parse().expect("a protocol"));
    K::from_bytes(&bytes)
}

fn layout(vector: &Value) -> Layout {
    let small = |name| u8::try_from(number(vector, name)).expect("a small number");
    let size = |name| u32::try_from(number(vector, name)).expect("a size");
    let widths = CellWidths::new(
        small("flow_count_bits"),
        small("packet_count_bits"),
        small("byte_count_bits"),
    );
    let coupling = match size("window_cells") {
        0 => Coupling::Plain,
        cells => Coupling::Window { cells },
    };
    let table = TableLayout::new(
        small("hashes"),
        size("subtable_cells"),
        coupling,
        widths.expect("widths"),
    );
    let filter = match text(vector, "filter_kind") {
        "partitioned" => FilterLayout::partitioned(small("filter_hashes"), size("filter_size")),
        _ => FilterLayout::blocked(size("filter_size")),
    };
    Layout::new(
        HashFamilyId::from_name(text(vector, "family")).expect("a family"),
        hexadecimal(text(vector, "seed")),
        table.expect("a table"),
        filter.expect("a filter"),
    )
    .expect("a layout")
}

fn epoch(vector: &Value) -> Epoch {
    Epoch {
        number: number(vector, "epoch_number"),
        start_ns: number(vector, "epoch_start_ns"),
        length_ns: number(vector, "epoch_length_ns"),
    }
}

fn has_totals(vector: &Value) -> bool {
    vector["totals"].as_bool().expect("yes or no")
}

/// All table lanes and all filter lanes of a key in network order.
fn lanes(family: HashFamilyId, key: &[u8], seed: u64) -> (Vec<u32>, Vec<u32>) {
    fn read<H: HashFamily>(hash: &H::Hash) -> (Vec<u32>, Vec<u32>) {
        (
            (0..TABLE_LANES).map(|lane| hash.table_lane(lane)).collect(),
            (0..H::FILTER_LANES_MAX)
                .map(|lane| hash.filter_lane(lane))
                .collect(),
        )
    }
    with_hash_family!(family, H => if key.len() == KeyKind::V4.bytes() {
        read::<H>(&H::hash(FlowKeyV4::from_bytes(key).words(), seed))
    } else {
        read::<H>(&H::hash(FlowKeyV6::from_bytes(key).words(), seed))
    })
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(name)
}

fn file(name: &str) -> Vec<u8> {
    fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn rows(name: &str, header: &str) -> Vec<Vec<String>> {
    let content = String::from_utf8(file(name)).expect("text");
    let mut lines = content.lines();
    assert_eq!(lines.next(), Some(header), "{name}");
    lines
        .map(|line| line.split(',').map(String::from).collect())
        .collect()
}

fn text<'v>(vector: &'v Value, name: &str) -> &'v str {
    vector[name].as_str().unwrap_or_else(|| panic!("{name}"))
}

fn number(vector: &Value, name: &str) -> u64 {
    vector[name].as_u64().unwrap_or_else(|| panic!("{name}"))
}

fn hexadecimal(text: &str) -> u64 {
    u64::from_str_radix(text, 16).expect("hexadecimal digits")
}

fn lanes_of(text: &str) -> Vec<u32> {
    text.split(' ')
        .map(|lane| u32::from_str_radix(lane, 16).expect("hexadecimal digits"))
        .collect()
}

fn bytes_of_hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|index| hexadecimal(&text[2 * index..2 * index + 2]) as u8)
        .collect()
}
