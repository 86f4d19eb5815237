//! `encode`: what is written, what is said, what is refused.

use std::fs;
use std::io::Write as _;

use crate::support::{
    Capture, Counts, Flow, Folder, encode, expected_rows, flowradar, flowradar_with_input,
    many_flows,
};

#[test]
fn a_capture_comes_back_with_exact_counts() {
    let (capture, counts) = many_flows(3000);
    for (options, with_bytes) in [
        (&[][..], false),
        (&["--bytes"], true),
        (
            &[
                "--filter",
                "partitioned",
                "--family",
                "crc-add",
                "--hashes",
                "4",
            ],
            false,
        ),
        (
            &[
                "--family", "mix64", "--flows", "10_000", "--bytes", "--seed", "7",
            ],
            true,
        ),
        (&["--memory", "300kB"], false),
    ] {
        let folder = Folder::new();
        let flowsets = encode(&folder, &capture.pcap(), options);
        let decoded = flowradar(["decode", &flowsets, "--format", "csv"]).expect(0);
        let expected = expected_rows(0, "switch-1", &counts, with_bytes);
        assert_eq!(decoded.csv_rows(), expected, "{options:?}");
    }
}

#[test]
fn the_same_input_gives_the_same_flowsets() {
    let (capture, _) = many_flows(500);
    let read = || {
        let folder = Folder::new();
        let flowsets = encode(&folder, &capture.pcap(), &["--bytes"]);
        let read = |name| fs::read(format!("{flowsets}/{name}")).expect("it was written");
        folder
            .names("flowsets")
            .into_iter()
            .map(read)
            .collect::<Vec<_>>()
    };
    assert_eq!(read(), read());
}

#[test]
fn epochs_follow_timestamps_and_late_packets_are_told() {
    const MS: u64 = 1000;
    let (a, b) = (Flow::v4(1), Flow::v4(2));
    let mut capture = Capture::default();
    for (time, flow) in [
        (20 * MS, a),
        (29 * MS + 999, a),
        (30 * MS, a),
        // Epochs 4 to 6 are empty.
        (75 * MS, b),
        // Late: belongs to epoch 3.
        (39 * MS, a),
    ] {
        capture.packet(time, &flow, 10);
    }
    let folder = Folder::new();
    let trace = folder.write("trace.pcap", &capture.pcap());
    let flowsets = folder.path("flowsets");
    let arguments = [
        "encode", &trace, "--out", &flowsets, "--epoch", "10ms", "--switch", "leaf-1", "--json",
    ];
    let summary = flowradar(arguments).expect(0).json();
    assert_eq!(summary["late_packets"], 1);
    assert_eq!(summary["epochs"], 3);
    assert_eq!(summary["empty_epochs_skipped"], 3);
    assert_eq!(
        folder.names("flowsets"),
        [
            "leaf-1-2-v4.flowset",
            "leaf-1-3-v4.flowset",
            "leaf-1-7-v4.flowset"
        ]
    );
    let mut expected = vec![];
    for (epoch, counts) in [
        (2, Counts::from([(a, (2, 0))])),
        (3, Counts::from([(a, (1, 0))])),
        (7, Counts::from([(a, (1, 0)), (b, (1, 0))])),
    ] {
        expected.extend(expected_rows(epoch, "leaf-1", &counts, false));
    }
    let decoded = flowradar(["decode", &flowsets, "--format", "csv"]).expect(0);
    assert_eq!(decoded.csv_rows(), expected);

    let again: Vec<&str> = arguments
        .into_iter()
        .chain(["--empty-epochs", "--overwrite"])
        .collect();
    flowradar(again).expect(0);
    let names: Vec<String> = (2..=7)
        .map(|epoch| format!("leaf-1-{epoch}-v4.flowset"))
        .collect();
    assert_eq!(folder.names("flowsets"), names);
    let decoded = flowradar(["decode", &flowsets, "--format", "csv"]).expect(0);
    assert_eq!(decoded.csv_rows(), expected);
}

#[test]
fn a_huge_gap_writes_no_files() {
    let mut capture = Capture::default();
    capture.packet(0, &Flow::v4(1), 10);
    capture.packet(3_000_000_000_000_000, &Flow::v4(2), 10);
    let folder = Folder::new();
    encode(
        &folder,
        &capture.pcap(),
        &["--epoch", "1us", "--empty-epochs"],
    );
    assert_eq!(folder.names("flowsets").len(), 2);
}

#[test]
fn inputs_are_merged_by_time() {
    let mut captures = [Capture::default(), Capture::default()];
    let mut expected = vec![];
    for epoch in 0..6 {
        let flow = Flow::v4(epoch as u32);
        captures[epoch as usize % 2].packet(epoch * 1_000_000, &flow, 10);
        let counts = Counts::from([(flow, (1, 0))]);
        expected.extend(expected_rows(epoch, "switch-1", &counts, false));
    }
    let folder = Folder::new();
    let first = folder.write("first.pcap", &captures[0].pcap());
    let second = folder.write("second.pcap", &captures[1].pcap());
    let flowsets = folder.path("flowsets");
    let summary = flowradar([
        "encode", &second, &first, "--out", &flowsets, "--epoch", "1s", "--json",
    ])
    .expect(0)
    .json();
    assert_eq!(summary["late_packets"], 0);
    let decoded = flowradar(["decode", &flowsets, "--format", "csv"]).expect(0);
    assert_eq!(decoded.csv_rows(), expected);
}

#[test]
fn standard_input_and_gzip_are_read() {
    let (capture, counts) = many_flows(200);
    let mut compressed = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    compressed
        .write_all(&capture.pcap())
        .expect("memory can be written");
    let compressed = compressed.finish().expect("memory can be written");
    let folder = Folder::new();
    let flowsets = folder.path("flowsets");
    flowradar_with_input(&["encode", "-", "--out", &flowsets], &compressed).expect(0);
    let decoded = flowradar(["decode", &flowsets, "--format", "csv"]).expect(0);
    assert_eq!(
        decoded.csv_rows(),
        expected_rows(0, "switch-1", &counts, false)
    );
}

#[test]
fn truncated_input_is_kept_and_told() {
    let (capture, _) = many_flows(300);
    let whole = capture.pcap();
    let folder = Folder::new();
    let trace = folder.write("cut.pcap", &whole[..whole.len() - 5]);
    let flowsets = folder.path("flowsets");
    let ran = flowradar(["encode", &trace, "--out", &flowsets]).expect(3);
    assert!(ran.stderr.contains("cut.pcap: byte "), "{}", ran.stderr);

    // All packets but the last are there.
    let decoded = flowradar(["decode", &flowsets, "--format", "csv"]).expect(0);
    let packets = |row: &String| {
        let field = row.split(',').nth(7).expect("ten columns");
        field.parse::<u64>().expect("a number")
    };
    let (_, counts) = many_flows(300);
    let all: u64 = counts.values().map(|(packets, _)| packets).sum();
    let kept: u64 = decoded.csv_rows().iter().map(packets).sum();
    assert_eq!(kept, all - 1);

    let summary = flowradar([
        "encode",
        &trace,
        "--out",
        &flowsets,
        "--overwrite",
        "--json",
    ])
    .expect(3)
    .json();
    assert_eq!(summary["complete"], false);
    assert_eq!(summary["packets"], all - 1);
    assert!(summary["inputs"][0]["error"].is_string(), "{summary:#}");
}

#[test]
fn packets_that_cannot_be_counted_are_told() {
    let mut capture = Capture::default();
    capture.packet(0, &Flow::v4(1), 10);
    // ARP: not IP, nothing missing.
    let mut arp = vec![0; 42];
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    capture.frame(1, &arp);
    let folder = Folder::new();
    encode(&folder, &capture.pcap(), &[]);

    // An IPv4 header that is cut off: a packet is missing.
    capture.frame(
        2,
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x08, 0x00, 0x45, 0],
    );
    let trace = folder.write("malformed.pcap", &capture.pcap());
    let other = folder.path("other");
    let summary = flowradar(["encode", &trace, "--out", &other, "--json"])
        .expect(3)
        .json();
    assert_eq!(summary["not_ip_packets"], 1);
    assert_eq!(summary["packets"], 3);
    assert_eq!(summary["ipv4"]["packets"], 1);
    let malformed = summary["malformed_packets"].as_object().expect("an object");
    assert_eq!(
        malformed.values().map(|n| n.as_u64()).collect::<Vec<_>>(),
        [Some(1)]
    );
}

#[test]
fn tuple13_records_are_read() {
    let record = [10, 0, 0, 1, 10, 0, 0, 2, 0xc0, 0x00, 0x01, 0xbb, 6];
    let folder = Folder::new();
    let trace = folder.write("records.dat", &record.repeat(5));
    let flowsets = folder.path("flowsets");
    let tuple13 = [
        "encode",
        &trace,
        "--out",
        &flowsets,
        "--input-format",
        "tuple13",
    ];
    flowradar(tuple13).expect(0);
    let decoded = flowradar(["decode", &flowsets, "--format", "csv"]).expect(0);
    assert_eq!(
        decoded.csv_rows(),
        ["0,switch-1,10.0.0.1,10.0.0.2,49152,443,6,5,,exact"]
    );
    // They have neither time nor length.
    for more in [&["--epoch", "10ms"][..], &["--bytes"]] {
        flowradar(tuple13.iter().chain(more)).expect(2);
    }
    let times: Vec<u8> = [1.0_f64, 1.5, 2.0, 2.5, 3.0]
        .into_iter()
        .flat_map(f64::to_le_bytes)
        .collect();
    let times = folder.write("times.f64", &times);
    let more = ["--timestamps", &times, "--epoch", "1s", "--overwrite"];
    flowradar(tuple13.iter().copied().chain(more)).expect(0);
    let decoded = flowradar(["decode", &flowsets, "--format", "csv"]).expect(0);
    assert_eq!(
        decoded.csv_rows(),
        [
            "1,switch-1,10.0.0.1,10.0.0.2,49152,443,6,2,,exact",
            "2,switch-1,10.0.0.1,10.0.0.2,49152,443,6,2,,exact",
            "3,switch-1,10.0.0.1,10.0.0.2,49152,443,6,1,,exact",
        ]
    );
}

#[test]
fn what_is_there_is_not_mixed_with_what_is_new() {
    let (capture, _) = many_flows(50);
    let folder = Folder::new();
    let flowsets = encode(&folder, &capture.pcap(), &[]);
    let trace = folder.path("trace.pcap");
    let ran = flowradar(["encode", &trace, "--out", &flowsets]).expect(1);
    assert!(ran.stderr.contains("--overwrite"), "{}", ran.stderr);
    // Another switch may stand beside.
    flowradar(["encode", &trace, "--out", &flowsets, "--switch", "other"]).expect(0);
    assert_eq!(folder.names("flowsets").len(), 4);
}

#[test]
fn bad_input_is_an_error() {
    let folder = Folder::new();
    let flowsets = folder.path("flowsets");
    let missing = folder.path("missing.pcap");
    flowradar(["encode", &missing, "--out", &flowsets]).expect(1);
    for (name, bytes) in [("empty.pcap", &b""[..]), ("text.pcap", b"hello, world")] {
        let path = folder.write(name, bytes);
        let ran = flowradar(["encode", &path, "--out", &flowsets]).expect(1);
        assert!(ran.stderr.contains(name), "{}", ran.stderr);
    }
    assert_eq!(folder.names("flowsets"), Vec::<String>::new());
}

#[test]
fn broken_combinations_are_refused() {
    let folder = Folder::new();
    let trace = folder.write("trace.pcap", &many_flows(10).0.pcap());
    let flowsets = folder.path("flowsets");
    let wrong: [&[&str]; 14] = [
        &["--flows", "10", "--memory", "1MB"],
        &["--memory", "1MB", "--cells-per-flow", "2"],
        &["--memory", "1"],
        &["--memory", "lots"],
        &["--epoch", "10"],
        &["--epoch", "0ms"],
        &["--empty-epochs"],
        &["--hashes", "1"],
        &["--hashes", "7"],
        &["--family", "md5"],
        &["--switch", "../etc/passwd"],
        &["--switch", ""],
        &["--timestamps", "x"],
        &["--no-such-option"],
    ];
    for options in wrong {
        let arguments = ["encode", &trace, "--out", &flowsets];
        let ran = flowradar(arguments.iter().chain(options)).expect(2);
        assert!(!ran.stderr.is_empty(), "{options:?}");
    }
    flowradar(["encode", &trace]).expect(2);
    flowradar(["encode", "-", "-", "--out", &flowsets]).expect(2);
}

#[test]
fn more_flows_than_planned_are_told() {
    let (capture, _) = many_flows(1000);
    let folder = Folder::new();
    let trace = folder.write("trace.pcap", &capture.pcap());
    let flowsets = folder.path("flowsets");
    let arguments = ["encode", &trace, "--out", &flowsets, "--flows", "100"];
    let ran = flowradar(arguments).expect(0);
    assert!(
        ran.stderr.contains("more IPv4 flows than"),
        "{}",
        ran.stderr
    );
}
