//! The P4 sources compile for layouts other than that of the reference program. Needs p4c-bm2-ss.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use flowradar_core::hash::HashFamilyId;
use flowradar_core::layout::{CellWidths, Coupling, FilterLayout, Layout, TableLayout};
use flowradar_p4::config::ProgramConfig;
use xtask::p4::{P4Error, run_compiler};

fn layout(
    hashes: u8,
    coupling: Coupling,
    byte_count_bits: u8,
    filter: Result<FilterLayout, flowradar_core::layout::LayoutError>,
) -> Option<Layout> {
    let widths = CellWidths::new(8, 24, byte_count_bits).expect("widths");
    let table = TableLayout::new(hashes, 1501, coupling, widths).expect("a table");
    let filter = filter.expect("a filter");
    Some(Layout::new(HashFamilyId::Mix64, 99, table, filter).expect("a layout"))
}

/// Compiles the reference switch with this configuration.
fn compiles(name: &str, program: &ProgramConfig) {
    let folder = tempfile::tempdir().expect("a folder");
    let header = folder.path().join("flowradar_config.p4");
    fs::write(header, program.to_p4()).expect("a header");
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let [json, p4info] =
        ["switch.json", "switch.p4info.txtpb"].map(|file| folder.path().join(file));
    let source = "p4src/v1model/switch.p4";
    match run_compiler(&repository, folder.path(), source, &json, &p4info) {
        Ok(()) => {}
        Err(P4Error::Compiler(error)) => {
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: {name}: p4c-bm2-ss is not on PATH: {error}"
            );
            return;
        }
        Err(error) => panic!("{name}: {error}"),
    }
    let json = fs::read_to_string(&json).expect("the output");
    for (key, table) in [
        ("v4", program.table(flowradar_core::KeyKind::V4)),
        ("v6", program.table(flowradar_core::KeyKind::V6)),
    ] {
        let register = format!("\"SwitchIngress.flowradar.{key}_total_packets\"");
        assert_eq!(json.contains(&register), table.is_some(), "{name}: {key}");
    }
}

#[test]
fn coupled_and_partitioned() {
    let window = Coupling::Window { cells: 800 };
    let program = ProgramConfig::new(
        layout(5, window, 40, FilterLayout::partitioned(13, 3001)),
        layout(4, Coupling::Plain, 0, FilterLayout::partitioned(24, 640)),
    );
    compiles("coupled, partitioned", &program.expect("a program"));
}

#[test]
fn ipv4_only_and_stamped() {
    let program = ProgramConfig::new(
        layout(2, Coupling::Plain, 0, FilterLayout::partitioned(1, 300_000)),
        None,
    );
    let program = program.expect("a program").with_epoch_stamp(true);
    compiles("IPv4 only, stamped", &program);
}

#[test]
fn ipv6_only_with_six_hashes() {
    let window = Coupling::Window { cells: 100 };
    let program = ProgramConfig::new(None, layout(6, window, 16, FilterLayout::blocked(64)));
    compiles("IPv6 only", &program.expect("a program"));
}
