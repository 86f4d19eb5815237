//! The Tofino program: what its compiler makes of it. Needs `p4c-barefoot`, the open back end of p4c.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use flowradar_core::hash::{CrcAdd, HashFamily, KeyHash};
use flowradar_core::{FlowKey, FlowKeyV4};

/// Seed of the program's hash family: SEED_HIGH and SEED_LOW are `mix_seed` of it.
const SEED: u64 = 1;

/// Compiles the program with these options into `folder`. `None`, loudly, without the compiler.
fn compile(folder: &Path, options: &[&str]) -> Option<()> {
    let output = Command::new("p4c-barefoot")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .args(["--target", "tofino", "--arch", "tna", "-g", "-o"])
        .arg(folder)
        .args(options)
        .arg("p4src/tofino/switch.p4")
        .output();
    match output {
        Ok(output) => {
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            Some(())
        }
        Err(error) => {
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: p4c-barefoot is not on PATH: {error}"
            );
            None
        }
    }
}

/// What the compiler's report says of one stage: its number, and its stateful ALUs in use.
fn stages(folder: &Path) -> Vec<(u64, usize)> {
    let report = std::fs::read_to_string(folder.join("pipe/logs/resources.json"))
        .expect("the report on resources");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    let stages = report["resources"]["mau"]["mau_stages"].as_array();
    stages
        .expect("stages")
        .iter()
        .map(|stage| {
            let units = stage["meter_alus"]["meters"].as_array().expect("ALUs");
            (
                stage["stage_number"].as_u64().expect("a number"),
                units.len(),
            )
        })
        .collect()
}

#[test]
fn two_banks_and_one_fit_in_twelve_stages() {
    for (options, banks) in [(&[][..], 2), (&["-D", "BANK_BITS=0"], 1)] {
        let folder = tempfile::tempdir().expect("a folder");
        if compile(folder.path(), options).is_none() {
            return;
        }
        let stages = stages(folder.path());
        assert!(stages.iter().all(|&(stage, _)| stage < 12), "{banks} banks");
        // 8 filter arrays, and 4 for each of 4 subtables.
        let stateful: usize = stages.iter().map(|&(_, units)| units).sum();
        assert_eq!(stateful, 8 + 4 * 4, "{banks} banks");
    }
}

/// One CRC of the assembly: what it is of, by the lowest bit's place in the message.
#[derive(Debug, Default)]
struct Crc {
    init: u32,
    xor: u32,
    message_bits: usize,
    fields: BTreeMap<usize, String>,
}

impl Crc {
    /// By the definition in docs/hash-families.md. `polynomial` without x^32.
    fn checksum(&self, polynomial: u32, values: &BTreeMap<&str, (u64, usize)>) -> u32 {
        let mut message = 0_u128;
        let mut covered_bits = 0;
        for (&place, name) in &self.fields {
            let (value, bits) = values[name.as_str()];
            assert_eq!(place, covered_bits, "a gap before {name}");
            message |= u128::from(value) << place;
            covered_bits += bits;
        }
        assert_eq!(covered_bits, self.message_bits);
        let bytes = message.to_be_bytes();
        let reversed = polynomial.reverse_bits();
        let mut register = self.init;
        for byte in &bytes[bytes.len() - self.message_bits / 8..] {
            register ^= u32::from(*byte);
            for _ in 0..8 {
                register = (register >> 1) ^ if register & 1 == 1 { reversed } else { 0 };
            }
        }
        register ^ self.xor
    }
}

/// The CRCs of the assembly by their polynomials (without x^32). One CRC comes in pieces: of other bits
/// of the result, or of other fields.
fn crcs(assembly: &str) -> BTreeMap<u32, Crc> {
    let number = |text: &str| {
        u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).expect("a number")
    };
    let mut crcs = BTreeMap::<u32, Crc>::new();
    for piece in assembly.split("crc_rev(").skip(1) {
        let (head, rest) = piece.split_once('{').expect("fields");
        let (fields, _) = rest.split_once('}').expect("an end");
        let mut head = head.split(',');
        let mut next = || head.next().expect("a parameter");
        // In Koopman's notation: with x^32, without 1.
        let polynomial = (number(next()) as u32) << 1 | 1;
        let crc = crcs.entry(polynomial).or_default();
        crc.init = number(next()) as u32;
        crc.xor = number(next()) as u32;
        crc.message_bits = next().trim().parse().expect("a length");
        for field in fields.split(',') {
            let (place, name) = field.split_once(':').expect("place: name");
            let place = place.trim().parse().expect("a place");
            crc.fields.insert(place, name.trim().to_owned());
        }
    }
    crcs
}

/// The compiled hashes, computed from the assembly's polynomials, fields and constants, are those of the
/// family that the decoder will use.
#[test]
fn compiled_hashes_are_those_of_the_family() {
    let folder = tempfile::tempdir().expect("a folder");
    if compile(folder.path(), &[]).is_none() {
        return;
    }
    let assembly =
        std::fs::read_to_string(folder.path().join("pipe/switch.bfa")).expect("the assembly");
    let crcs = crcs(&assembly);

    let cell_polynomials = [0x85a3_090b, 0x1319_8a49, 0x0370_7347, 0xa409_382d];
    let filter_polynomials = [
        0x38d0_13df,
        0xbe54_6759,
        0x34e9_0d49,
        0xc0ac_29df,
        0xc97c_511d,
        0x3f84_d5f7,
        0xb547_091f,
        0x9216_d5df,
    ];
    assert_eq!(
        crcs.len(),
        2 + cell_polynomials.len() + filter_polynomials.len()
    );

    for number in 0..100_u32 {
        let (source, destination) = (0x0a00_0000 + number, 0xc0a8_0000 ^ (number << 7));
        let (source_port, destination_port, protocol) = (1024 + number as u16, 443, 6);
        let key = FlowKeyV4::new(
            source.into(),
            destination.into(),
            source_port,
            destination_port,
            protocol,
        );
        let hash = CrcAdd::hash(key.words(), SEED);

        let key_fields = BTreeMap::from([
            ("headers.bridge.source", (u64::from(source), 32)),
            ("headers.bridge.destination", (u64::from(destination), 32)),
            ("headers.bridge.ports.16-31", (u64::from(source_port), 16)),
            (
                "headers.bridge.ports.0-15",
                (u64::from(destination_port), 16),
            ),
            ("headers.bridge.protocol", (u64::from(protocol), 8)),
        ]);
        let a = crcs[&0x04c1_1db7].checksum(0x04c1_1db7, &key_fields);
        let b = crcs[&0x243f_6a95].checksum(0x243f_6a95, &key_fields);
        let c = a.wrapping_add(b);
        let d = b.wrapping_add(c.rotate_left(16));
        let base = BTreeMap::from([
            ("metadata.c", (u64::from(c), 32)),
            ("metadata.d", (u64::from(d), 32)),
        ]);
        let lane = |polynomial: u32| crcs[&polynomial].checksum(polynomial, &base);
        for (subtable, &polynomial) in cell_polynomials.iter().enumerate() {
            assert_eq!(lane(polynomial), hash.table_lane(subtable), "T({subtable})");
        }
        for (array, &polynomial) in filter_polynomials.iter().enumerate() {
            assert_eq!(lane(polynomial), hash.filter_lane(array), "F({array})");
        }
    }
}
