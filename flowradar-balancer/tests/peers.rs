//! Real collectors and exporters: nfcapd and softflowd, where they are installed.

mod namespaces;
mod peer;
mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;

use flowradar_balancer::config::{Config, PolicyName};
use flowradar_balancer::engine::AssignmentUnit;
use flowradar_balancer::io::Status;
use peer::{
    Balancer, Nfcapd, Stored, config, difference, may_spoof, missing, netflow_captures, send,
    stored_directly, wait_until_idle,
};
use support::{Datagram, Process, skipped, wait_for, with_templates_first};

fn config_for(unit: AssignmentUnit) -> impl Fn(&[&Nfcapd]) -> Config {
    move |collectors| config(collectors, unit)
}

/// What three collectors behind a balancer store, and the balancer's last word.
fn stored_by_three(
    datagrams: &[Datagram],
    config: impl Fn(&[&Nfcapd]) -> Config,
) -> (Stored, Status) {
    let collectors = [Nfcapd::start(), Nfcapd::start(), Nfcapd::start()];
    let balancer = Balancer::start(config(&collectors.each_ref()));
    send(datagrams, balancer.address);
    wait_for("all datagrams are taken in", || {
        balancer.status().counters.datagrams >= datagrams.len() as u64
    });
    let status = balancer.finish();
    let mut union = Stored::default();
    for collector in collectors {
        union.add(collector.finish());
    }
    (union, status)
}

#[test]
fn three_nfcapd_store_what_one_does() {
    let test = "three_nfcapd_store_what_one_does";
    if missing(test, &["nfcapd", "nfdump"]) {
        return;
    }
    let datagrams = netflow_captures(test);
    if datagrams.is_empty() {
        return;
    }
    let reference = stored_directly(&datagrams);
    let patient = stored_directly(&with_templates_first(&datagrams));
    assert!(
        patient.count() > reference.count() && reference.count() > 10_000,
        "{} {}",
        patient.count(),
        reference.count()
    );
    for unit in [
        AssignmentUnit::Exporter,
        AssignmentUnit::Stream,
        AssignmentUnit::Message,
        AssignmentUnit::Record,
    ] {
        let collectors = [Nfcapd::start(), Nfcapd::start(), Nfcapd::start()];
        let balancer = Balancer::start(config(&collectors.each_ref(), unit));
        send(&datagrams, balancer.address);
        wait_for("all datagrams are taken in", || {
            balancer.status().counters.datagrams >= datagrams.len() as u64
        });
        let status = balancer.finish();
        for destination in &status.destinations {
            assert_eq!(
                (
                    destination.refused,
                    destination.failed,
                    destination.queue_dropped_datagrams
                ),
                (0, 0, 0)
            );
            assert!(
                destination.records > 0,
                "{unit:?}: {} got nothing",
                destination.name
            );
        }
        let mut union = Stored::default();
        for collector in collectors {
            let stored = collector.finish();
            if unit.splits_streams() {
                assert_eq!(stored.sequence_errors, 0, "{unit:?}");
            }
            union.add(stored);
        }
        let expected = if unit.splits_streams() {
            &patient
        } else {
            &reference
        };
        assert!(
            union.records == expected.records,
            "{unit:?}: {} records instead of {}; missing {:#?}; too many {:#?}",
            union.count(),
            expected.count(),
            difference(expected, &union),
            difference(&union, expected)
        );
        if !unit.splits_streams() {
            assert_eq!(
                union.sequence_errors, reference.sequence_errors,
                "{unit:?}: gaps stay what they are"
            );
        }
    }
}

/// With the exporters' addresses, nothing at all differs: addresses, domains, numbers.
#[test]
fn spoofed_exports_are_stored_as_if_they_came_from_the_exporters() {
    let test = "spoofed_exports_are_stored_as_if_they_came_from_the_exporters";
    if missing(test, &["nfcapd", "nfdump"]) {
        return;
    }
    if !may_spoof() {
        skipped(test, "raw sockets need CAP_NET_RAW");
        return;
    }
    let datagrams = netflow_captures(test);
    if datagrams.is_empty() {
        return;
    }
    let all = |collector: Nfcapd| {
        collector.wait_until_idle();
        let mut collector = collector;
        collector.terminate();
        let stored = collector.stored_but(&["\"received\"", "\"export_sysid\""]);
        assert!(stored.count() > 10_000, "{}", collector.log());
        stored
    };
    let collector = Nfcapd::start();
    send(&datagrams, collector.address);
    let reference = all(collector);
    let collector = Nfcapd::start();
    let mut config = config(&[&collector], AssignmentUnit::Stream);
    config.collectors[0].source = flowradar_balancer::config::SourceAddress::Exporter;
    let balancer = Balancer::start(config);
    send(&datagrams, balancer.address);
    wait_for("all datagrams are taken in", || {
        balancer.status().counters.datagrams >= datagrams.len() as u64
    });
    let status = balancer.finish();
    assert_eq!(
        (
            status.destinations[0].failed,
            status.destinations[0].not_spoofed
        ),
        (0, 0)
    );
    let stored = all(collector);
    assert!(
        stored.records == reference.records,
        "{:#?}",
        difference(&reference, &stored)
    );
    assert_eq!(stored.sequence_errors, reference.sequence_errors);
}

/// While datagrams flow, one collector dies, one is added and one removed through the HTTP interface.
/// With replay, every record is stored at least once.
#[test]
fn nothing_is_lost_when_a_collector_dies() {
    let test = "nothing_is_lost_when_a_collector_dies";
    if missing(test, &["nfcapd", "nfdump"]) {
        return;
    }
    let datagrams = with_templates_first(&netflow_captures(test));
    if datagrams.is_empty() {
        return;
    }
    let reference = stored_directly(&datagrams);
    for unit in [
        AssignmentUnit::Stream,
        AssignmentUnit::Message,
        AssignmentUnit::Record,
    ] {
        let [removed, mut dies, stays, added] = [(); 4].map(|()| Nfcapd::start());
        let mut config = config(&[&removed, &dies, &stays], unit);
        config.streams.replay_ms = 3000;
        let balancer = Balancer::start(config);
        let quarter = datagrams.len() / 4;
        send(&datagrams[..quarter], balancer.address);
        wait_until_idle(balancer.address, None);
        dies.terminate();
        send(&datagrams[quarter..2 * quarter], balancer.address);
        wait_for("the failure is noticed", || {
            balancer.status().destinations[1].state == "down"
        });
        let body = format!(
            r#"{{"name": "added", "address": "{}", "groups": ["collectors"]}}"#,
            added.address
        );
        let (code, text) = balancer.request("POST", "/api/v1/collectors", &body);
        assert_eq!(code, 204, "{text}");
        send(&datagrams[2 * quarter..3 * quarter], balancer.address);
        let (code, text) = balancer.request("DELETE", "/api/v1/collectors/collector-1", "");
        assert_eq!(code, 204, "{text}");
        send(&datagrams[3 * quarter..], balancer.address);
        wait_for("all datagrams are taken in", || {
            balancer.status().counters.datagrams >= datagrams.len() as u64
        });
        let status = balancer.finish();
        assert!(
            status
                .events
                .iter()
                .any(|event| event.text.contains("is down")),
            "{:?}",
            status.events
        );
        let mut union = dies.stored();
        for collector in [removed, stays, added] {
            let stored = collector.finish();
            if unit.splits_streams() {
                assert_eq!(stored.sequence_errors, 0, "{unit:?}");
            }
            union.add(stored);
        }
        let lost = difference(&reference, &union);
        assert!(lost.is_empty(), "{unit:?}: {lost:#?}");
    }
}

/// One in twenty datagrams is lost on the way to the balancer: collectors see no gaps where streams are
/// split, and exactly the exporter's where they are not.
#[test]
fn what_is_lost_before_the_balancer_is_no_loss_behind_it() {
    let test = "what_is_lost_before_the_balancer_is_no_loss_behind_it";
    if missing(test, &["nfcapd", "nfdump"]) {
        return;
    }
    let all = netflow_captures(test);
    if all.is_empty() {
        return;
    }
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut is_lost = || {
        // Xorshift: the same losses each time.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.is_multiple_of(20)
    };
    let kept: Vec<Datagram> = all.iter().filter(|_| !is_lost()).cloned().collect();
    let lost = all.len() - kept.len();
    assert!((all.len() / 30..all.len() / 14).contains(&lost), "{lost}");
    let datagrams = with_templates_first(&kept);
    let reference = stored_directly(&datagrams);
    assert!(
        reference.sequence_errors > 50,
        "{}",
        reference.sequence_errors
    );
    for unit in [
        AssignmentUnit::Stream,
        AssignmentUnit::Message,
        AssignmentUnit::Record,
    ] {
        let (union, status) = stored_by_three(&datagrams, config_for(unit));
        assert!(
            union.records == reference.records,
            "{unit:?}: missing {:#?}; too many {:#?}",
            difference(&reference, &union),
            difference(&union, &reference)
        );
        let expected = if unit.splits_streams() {
            0
        } else {
            reference.sequence_errors
        };
        assert_eq!(union.sequence_errors, expected, "{unit:?}");
        assert!(status.counters.upstream_lost > 0);
    }
}

/// NetFlow v9: a message of one set.
fn v9(sequence: u32, set: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 9, 0, 1];
    for word in [3_600_000, 1_700_000_000, sequence, 0] {
        bytes.extend(u32::to_be_bytes(word));
    }
    bytes.extend(set.to_be_bytes());
    bytes.extend((4 + body.len() as u16).to_be_bytes());
    bytes.extend(body);
    bytes
}

/// Addresses, ports, protocol, packets, bytes, first and last, in two orders: read with the wrong one,
/// addresses are times and counters are ports.
const ORDERS: [[(u16, u16); 9]; 2] = [
    [
        (8, 4),
        (12, 4),
        (7, 2),
        (11, 2),
        (4, 1),
        (2, 4),
        (1, 4),
        (22, 4),
        (21, 4),
    ],
    [
        (21, 4),
        (22, 4),
        (1, 4),
        (2, 4),
        (4, 1),
        (11, 2),
        (7, 2),
        (12, 4),
        (8, 4),
    ],
];

fn template_of(order: &[(u16, u16); 9]) -> Vec<u8> {
    let mut body = vec![1, 0, 0, 9];
    for (id, length) in order {
        body.extend(id.to_be_bytes());
        body.extend(length.to_be_bytes());
    }
    body
}

fn record_of(order: &[(u16, u16); 9], number: u32) -> Vec<u8> {
    let mut body = Vec::new();
    for (id, length) in order {
        let value = match id {
            8 => 0x0a00_0000 + number,
            12 => 0xc633_6401,
            7 => 1024 + number % 1000,
            11 => 443,
            4 => 6,
            2 => 10 + number % 7,
            1 => 1000 + number,
            _ => 3_500_000 + number,
        };
        body.extend(&value.to_be_bytes()[4 - usize::from(*length)..]);
    }
    // Sets end at words.
    body.resize(body.len().next_multiple_of(4), 0);
    body
}

/// Exporters that use one template id of one domain for different things, and change what it means,
/// behind one address.
#[test]
fn equal_template_ids_that_change_do_not_mix() {
    let test = "equal_template_ids_that_change_do_not_mix";
    if missing(test, &["nfcapd", "nfdump"]) {
        return;
    }
    let mut datagrams: Vec<Datagram> = Vec::new();
    let mut sequences = [100_u32, 90_000];
    for number in 0..1200_u32 {
        for exporter in 0..2_usize {
            let source = SocketAddr::from(([127, 101, 0, 1 + exporter as u8], 2055));
            let mut send = |set, body: &[u8]| {
                datagrams.push((source, v9(sequences[exporter], set, body)));
                sequences[exporter] += 1;
            };
            // Each changes at times of its own.
            let period = 130 + 70 * exporter as u32;
            let order = &ORDERS[((number / period) as usize % 2) ^ exporter];
            if number % period == 0 {
                send(0, &template_of(order));
            }
            send(256, &record_of(order, 2 * number + exporter as u32));
        }
    }
    let reference = stored_directly(&datagrams);
    assert_eq!((reference.count(), reference.sequence_errors), (2400, 0));
    for unit in [
        AssignmentUnit::Exporter,
        AssignmentUnit::Message,
        AssignmentUnit::Record,
    ] {
        let (union, _) = stored_by_three(&datagrams, config_for(unit));
        assert!(
            union.records == reference.records,
            "{unit:?}: {} records; missing {:#?}; too many {:#?}",
            union.count(),
            difference(&reference, &union),
            difference(&union, &reference)
        );
        assert_eq!(union.sequence_errors, 0, "{unit:?}");
    }
}

/// A balancer that is stopped and started again in the middle, with a state file: nothing waits for
/// templates, and everything is stored.
#[test]
fn a_restart_in_the_middle_loses_no_templates() {
    let test = "a_restart_in_the_middle_loses_no_templates";
    if missing(test, &["nfcapd", "nfdump"]) {
        return;
    }
    // One template, at the beginning, of each of twenty exporters.
    let exporters: Vec<SocketAddr> = (1..=20)
        .map(|last| SocketAddr::from(([127, 102, 0, last], 2055)))
        .collect();
    let mut before: Vec<Datagram> = Vec::new();
    let mut after: Vec<Datagram> = Vec::new();
    for (place, exporter) in exporters.iter().enumerate() {
        let order = &ORDERS[place % 2];
        before.push((*exporter, v9(500, 0, &template_of(order))));
        for number in 0..40_u32 {
            let half = if number < 20 { &mut before } else { &mut after };
            let record = record_of(order, place as u32 * 1000 + number);
            half.push((*exporter, v9(501 + number, 256, &record)));
        }
    }
    let whole: Vec<Datagram> = before.iter().chain(&after).cloned().collect();
    let reference = stored_directly(&whole);
    assert_eq!(reference.count(), 800);
    for unit in [AssignmentUnit::Stream, AssignmentUnit::Record] {
        let folder = tempfile::tempdir().expect("a folder");
        let collectors = [Nfcapd::start(), Nfcapd::start(), Nfcapd::start()];
        let mut config = config(&collectors.each_ref(), unit);
        config.streams.state_file = Some(folder.path().join("state"));
        for (datagrams, is_second) in [(&before, false), (&after, true)] {
            let balancer = Balancer::start(config.clone());
            send(datagrams, balancer.address);
            wait_for("all datagrams are taken in", || {
                balancer.status().counters.datagrams >= datagrams.len() as u64
            });
            let status = balancer.finish();
            let restored = if is_second { 20 } else { 0 };
            assert_eq!(status.counters.restored_streams, restored, "{unit:?}");
            assert_eq!(status.counters.waited, 0, "{unit:?}");
        }
        let mut union = Stored::default();
        for collector in collectors {
            union.add(collector.finish());
        }
        assert!(
            union.records == reference.records,
            "{unit:?}: {} records; missing {:#?}",
            union.count(),
            difference(&reference, &union)
        );
    }
}

/// RFC 7011 counts options records in IPFIX sequence numbers, and nfcapd does not: why there is
/// `ipfix_counts_options`. If this fails, nfdump has changed, and so should the documentation.
#[test]
fn nfcapd_leaves_options_out_of_ipfix_sequence_numbers() {
    let test = "nfcapd_leaves_options_out_of_ipfix_sequence_numbers";
    if missing(test, &["nfcapd", "nfdump"]) {
        return;
    }
    let message = |sequence: u32, sets: &[u8]| {
        let mut bytes = vec![0, 10];
        bytes.extend((16 + sets.len() as u16).to_be_bytes());
        for word in [1_700_000_000, sequence, 0] {
            bytes.extend(u32::to_be_bytes(word));
        }
        bytes.extend(sets);
        bytes
    };
    let set = |id: u16, body: &[u8]| {
        let mut bytes = id.to_be_bytes().to_vec();
        bytes.extend((4 + body.len() as u16).to_be_bytes());
        bytes.extend(body);
        bytes
    };
    let template = set(2, &template_of(&ORDERS[0]));
    // Of the observation domain: how many messages it has exported.
    let options_template = set(3, &[1, 1, 0, 2, 0, 1, 0, 149, 0, 4, 0, 41, 0, 8, 0, 0]);
    let options = set(257, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    for counts_options in [false, true] {
        let source = SocketAddr::from(([127, 103, 0, 1], 4739));
        let mut datagrams = vec![
            (source, message(0, &template)),
            (source, message(0, &options_template)),
        ];
        let mut sequence = 0;
        for number in 0..20 {
            datagrams.push((source, message(sequence, &options)));
            sequence += u32::from(counts_options);
            let record = set(256, &record_of(&ORDERS[0], number));
            datagrams.push((source, message(sequence, &record)));
            sequence += 1;
        }
        let stored = stored_directly(&datagrams);
        assert_eq!(stored.count(), 20);
        assert_eq!(
            stored.sequence_errors > 0,
            counts_options,
            "{} errors",
            stored.sequence_errors
        );
    }
}

/// Records that nfacctd (pmacct) has taken in: packets and bytes of each flow.
fn accounted(output: &Path) -> BTreeMap<String, (u64, u64)> {
    let mut flows = BTreeMap::new();
    let Ok(text) = std::fs::read_to_string(output) else {
        return flows;
    };
    for line in text.lines().filter(|line| !line.starts_with("SRC_IP")) {
        let (rest, bytes) = line.rsplit_once(',').expect("fields");
        let (flow, packets) = rest.rsplit_once(',').expect("fields");
        let sums: &mut (u64, u64) = flows.entry(flow.to_owned()).or_default();
        sums.0 += packets.parse::<u64>().expect("a number");
        sums.1 += bytes.parse::<u64>().expect("a number");
    }
    flows
}

/// pmacct as the collector.
struct Nfacctd {
    process: Process,
    folder: tempfile::TempDir,
    address: SocketAddr,
}

impl Nfacctd {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let address = peer::free_port();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let config = format!(
            "nfacctd_ip: {}\nnfacctd_port: {}\nplugins: print[flows]\naggregate[flows]: src_host, dst_host, src_port, dst_port, proto\nprint_output[flows]: csv\nprint_output_file[flows]: {}\nprint_output_file_append: true\nprint_refresh_time: 3600\nplugin_buffer_size: 102400\nplugin_pipe_size: 10240000\nnfacctd_time_new: true\nlogfile: {}\n",
            address.ip(),
            address.port(),
            path("flows.csv"),
            path("log"),
        );
        let file = folder.path().join("nfacctd.conf");
        std::fs::write(&file, config).expect("written");
        let process = Command::new("nfacctd")
            .arg("-f")
            .arg(&file)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("nfacctd starts");
        let log = folder.path().join("log");
        wait_for("nfacctd listens", || {
            std::fs::read_to_string(&log).is_ok_and(|log| log.contains("waiting for"))
        });
        Self {
            process: Process(process),
            folder,
            address,
        }
    }

    fn finish(mut self) -> BTreeMap<String, (u64, u64)> {
        wait_until_idle(self.address, None);
        // Its parts hand on what they have with this.
        namespaces::signal(&self.process.0, "INT");
        self.process.0.wait().expect("it ends");
        let output = self.folder.path().join("flows.csv");
        let mut before = String::new();
        wait_for("its writer has written", || {
            std::thread::sleep(std::time::Duration::from_millis(700));
            let text = std::fs::read_to_string(&output).unwrap_or_default();
            let is_same = !text.is_empty() && text == before;
            before = text;
            is_same
        });
        accounted(&output)
    }
}

#[test]
fn three_nfacctd_account_what_one_does() {
    let test = "three_nfacctd_account_what_one_does";
    if missing(test, &["nfacctd"]) {
        return;
    }
    let mut datagrams: Vec<Datagram> = Vec::new();
    for exporter in 0..3_u8 {
        let source = SocketAddr::from(([127, 104, 0, 1 + exporter], 2055));
        let order = &ORDERS[usize::from(exporter) % 2];
        datagrams.push((source, v9(7, 0, &template_of(order))));
        for number in 0..500 {
            // Flows come again, and again from other exporters.
            let record = record_of(order, number % 170);
            datagrams.push((source, v9(8 + number, 256, &record)));
        }
    }
    let direct = Nfacctd::start();
    send(&datagrams, direct.address);
    let reference = direct.finish();
    assert_eq!(reference.len(), 170);
    let packets: u64 = reference.values().map(|(packets, _)| packets).sum();
    let expected = (0..500_u64)
        .map(|number| 10 + number % 170 % 7)
        .sum::<u64>()
        * 3;
    assert_eq!(packets, expected);
    for unit in [AssignmentUnit::Message, AssignmentUnit::Record] {
        let collectors = [Nfacctd::start(), Nfacctd::start(), Nfacctd::start()];
        let addresses = collectors.each_ref().map(|collector| collector.address);
        let listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
        let config = Config::simple(listen, &addresses, &[], unit, PolicyName::Rendezvous);
        let balancer = Balancer::start(config);
        send(&datagrams, balancer.address);
        wait_for("all datagrams are taken in", || {
            balancer.status().counters.datagrams >= datagrams.len() as u64
        });
        balancer.finish();
        let mut union = BTreeMap::new();
        for collector in collectors {
            for (flow, (packets, bytes)) in collector.finish() {
                let is_alone = !union.contains_key(&flow);
                assert!(is_alone || unit == AssignmentUnit::Message, "{flow}");
                let sums: &mut (u64, u64) = union.entry(flow).or_default();
                sums.0 += packets;
                sums.1 += bytes;
            }
        }
        let wrong = reference
            .iter()
            .find(|(flow, sums)| union.get(*flow) != Some(sums));
        assert_eq!(
            wrong.map(|(flow, sums)| (flow, sums, union.get(flow))),
            None,
            "{unit:?}: flow, what is right, what is there"
        );
        assert_eq!(union.len(), reference.len(), "{unit:?}");
    }
}

/// Flows of a packet trace, exported by softflowd, in each of its formats.
#[test]
fn softflowd_through_the_balancer() {
    let test = "softflowd_through_the_balancer";
    if missing(test, &["nfcapd", "nfdump", "softflowd"]) {
        return;
    }
    let trace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/3_tcp/netflix.pcap");
    if !trace.is_file() {
        skipped(test, "../shared/data/3_tcp is absent");
        return;
    }
    let export = |version: &str, to: SocketAddr| {
        let exported = Command::new("softflowd")
            .args(["-d", "-v", version, "-n", &to.to_string(), "-r"])
            .arg(&trace)
            .output();
        assert!(exported.expect("softflowd runs").status.success());
    };
    for version in ["5", "9", "10"] {
        let collector = Nfcapd::start();
        export(version, collector.address);
        let reference = collector.finish();
        assert!(
            reference.count() > 50,
            "softflowd -v {version}: {} records",
            reference.count()
        );
        let collectors = [Nfcapd::start(), Nfcapd::start(), Nfcapd::start()];
        let balancer = Balancer::start(config(&collectors.each_ref(), AssignmentUnit::Record));
        export(version, balancer.address);
        wait_for("records are taken in", || {
            balancer.status().counters.records >= reference.count() as u64
        });
        balancer.finish();
        let mut union = Stored::default();
        for collector in collectors {
            let stored = collector.finish();
            assert!(stored.count() > 0, "one collector got nothing");
            assert_eq!(stored.sequence_errors, 0, "softflowd -v {version}");
            union.add(stored);
        }
        // Start times are relative to when softflowd began: flows are compared without.
        assert!(
            union.without_times().records == reference.without_times().records,
            "softflowd -v {version}"
        );
    }
}

/// Without any traffic, too: a collector that ends is noticed by the refusal of empty datagrams, and so
/// is one that comes back.
#[test]
fn an_idle_collector_that_ends_is_noticed() {
    let collector = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let address = collector.local_addr().expect("an address");
    let listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
    let config = Config::simple(
        listen,
        &[address],
        &[],
        AssignmentUnit::Stream,
        PolicyName::Rendezvous,
    );
    let balancer = Balancer::start(config);
    let state = || balancer.status().destinations[0].state.clone();
    // Some probes go well.
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert_eq!(state(), "up");
    drop(collector);
    wait_for("its end is noticed", || state() == "down");
    let _collector = UdpSocket::bind(address).expect("the port is free again");
    wait_for("its return is noticed", || state() == "up");
    balancer.finish();
}

/// Metrics are well-formed, and what changes something needs the token.
#[test]
fn the_interface_tells_and_guards() {
    let collector = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let address = collector.local_addr().expect("an address");
    let listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
    let config = Config::simple(
        listen,
        &[address],
        &[],
        AssignmentUnit::Stream,
        PolicyName::LeastLoaded,
    );
    let balancer = Balancer::start(config);
    let (code, text) = balancer.request("GET", "/metrics", "");
    assert_eq!(code, 200);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect("a sample");
        assert!(name.starts_with("flowradar_balancer_"), "{line}");
        value.parse::<f64>().expect("a number");
    }
    assert!(text.contains("flowradar_balancer_kernel_drops_total{"));
    let mut stream = TcpStream::connect(balancer.api).expect("connected");
    stream
        .write_all(b"POST /api/v1/reload HTTP/1.0\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        .expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(
        answer.starts_with("HTTP/1.0 401") || answer.starts_with("HTTP/1.1 401"),
        "{answer}"
    );
    assert_eq!(
        balancer.request("POST", "/api/v1/reload", "").0,
        409,
        "there is no file"
    );
    assert_eq!(
        balancer
            .request("POST", "/api/v1/collectors/nobody/drain", "")
            .0,
        404
    );
    assert_eq!(
        balancer
            .request("POST", "/api/v1/collectors/collector-1/drain", "")
            .0,
        204
    );
    assert_eq!(balancer.status().destinations[0].state, "draining");
    balancer.finish();
}
