//! All switches of a topology file at the same time: deployed, looked at, and drained by agents.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use bmv2_tests::switch::TestSwitch;
use bmv2_tests::targets::on_all_targets;
use flowradar_core::decode::single_decode;
use flowradar_core::{FlowKeyV4, Flowset, KeyKind};
use flowradar_p4::agent::{AgentEventKind, AgentOptions, DirectorySink};
use flowradar_p4::client::{PipelineOutcome, SessionOptions};
use flowradar_p4::drain::DrainTiming;
use flowradar_p4::fleet::Fleet;
use flowradar_p4::topology::Topology;
use flowradar_testbed::WiredSwitch;
use flowradar_testbed::controller::PATIENCE;
use flowradar_testbed::frames::{HOST_MAC, ROUTER_MAC, Tuple4, udp4};

/// Packets and bytes by switch and flow.
type Counts = BTreeMap<(String, FlowKeyV4), (u64, u64)>;

/// Of each switch.
const FLOWS: u16 = 100;
const PACKETS: u16 = 4;

/// A topology file of two switches that forward what is addressed to the router out of port 2.
fn topology(switches: &[TestSwitch]) -> String {
    let mut text = "[epoch]\nlength = \"400ms\"\n".to_owned();
    let mac = ROUTER_MAC.map(|byte| format!("{byte:02x}")).join(":");
    for (number, switch) in (1..).zip(switches) {
        let address = switch.address();
        text.push_str(&format!(
            r#"
            [[switch]]
            name = "s{number}"
            address = "{address}"

            [[switch.entry]]
            table = "SwitchIngress.l2"
            match = {{ "metadata.vlan" = 0, "headers.frame.ethernet.destination" = "{mac}" }}
            action = "SwitchIngress.l2_to_port"
            arguments = {{ port = 2 }}
            "#
        ));
    }
    text
}

#[test]
fn a_fleet_is_deployed_looked_at_and_drained() {
    on_all_targets(async |target| {
        let mut switches = vec![];
        for _ in 0..2 {
            switches.push(TestSwitch::start(target, 2).await?);
        }
        let fleet = Fleet::new(Topology::parse(&topology(&switches), Path::new("."))?)?;
        let options = SessionOptions {
            connect_timeout: PATIENCE,
            request_timeout: PATIENCE,
            ..SessionOptions::default()
        };

        for expected in [PipelineOutcome::Committed, PipelineOutcome::Kept] {
            for (name, deployed) in fleet.deploy(&options, false).await {
                let deployed = deployed?;
                let inserted = usize::from(expected == PipelineOutcome::Committed);
                assert_eq!(deployed.pipeline, expected, "{name}");
                assert_eq!(deployed.tables.inserted, inserted, "{name}");
            }
        }
        let l2 = Some("SwitchIngress.l2".to_owned());
        let tables = fleet.tables(&options, l2).await;
        let names: Vec<_> = tables.iter().map(|(name, _)| name.to_string()).collect();
        assert_eq!(names, ["s1", "s2"]);
        for (name, entries) in tables {
            assert_eq!(entries?.len(), 1, "{name}");
        }
        for (name, state) in fleet.states(&options, DrainTiming::default(), false).await {
            let state = state?;
            assert_eq!(state.bank(state.active).v4.packets, 0, "{name}");
        }

        let folder = tempfile::TempDir::new()?;
        let (events_in, mut events) = tokio::sync::mpsc::channel(64);
        let agent_options = AgentOptions {
            session: options,
            ..AgentOptions::default()
        };
        let sink = |_: &_| DirectorySink::new(folder.path()).expect("the folder is there");
        let agents = fleet.agents(&agent_options, sink, &events_in);
        let mut sent = Counts::new();
        for packet in 0..PACKETS {
            for (number, switch) in switches.iter_mut().enumerate() {
                for flow in 0..FLOWS {
                    let tuple = Tuple4 {
                        src: [10, 0, number as u8, flow as u8].into(),
                        dst: [10, 9, 9, 9].into(),
                        src_port: flow,
                        dst_port: 53,
                    };
                    switch.send(1, &udp4(tuple, &[0; 72]));
                    let name = format!("s{}", number + 1);
                    let key = FlowKeyV4::new(tuple.src, tuple.dst, flow, 53, 17);
                    let counts = sent.entry((name, key)).or_default();
                    *counts = (counts.0 + 1, counts.1 + 100);
                }
            }
            // So that the packets fall into different epochs.
            let pause = if packet + 1 < PACKETS { 300 } else { 0 };
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }

        let all: u64 = sent.values().map(|counts| counts.0).sum();
        let (mut drained, mut epochs) = (0, 0);
        let deadline = Instant::now() + PATIENCE;
        while drained < all {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = tokio::time::timeout(left, events.recv()).await?;
            if let Some(AgentEventKind::EpochDrained(epoch)) = event.map(|event| event.kind) {
                drained += epoch.packets;
                epochs += u64::from(epoch.packets > 0);
            }
        }
        assert!(epochs > 2, "{epochs} epochs with packets at two switches");
        drop(agents);
        assert_eq!(read(folder.path())?, sent);
        let mut delivered = 0;
        for switch in &mut switches {
            switch.receive(&mut |port, frame| {
                let to_router = frame.starts_with(&ROUTER_MAC) && frame[6..12] == HOST_MAC;
                delivered += u64::from(port == 2 && to_router);
            });
        }
        assert_eq!(delivered, all, "the entries forward");
        Ok(())
    });
}

/// Flows in the flowsets of a folder, over all epochs, by switch.
fn read(folder: &Path) -> Result<Counts, Box<dyn std::error::Error>> {
    let mut counted = Counts::new();
    for file in fs::read_dir(folder)? {
        let flowset = Flowset::new_checked(fs::read(file?.path())?)?;
        if flowset.header().key != KeyKind::V4 {
            continue;
        }
        let decoded = single_decode::<FlowKeyV4, _>(&flowset)?;
        assert!(decoded.is_complete(), "{:?}", decoded.leftover);
        for flow in decoded.flows {
            let name = flowset.header().switch.to_string();
            let counts = counted.entry((name, flow.key)).or_default();
            counts.0 += flow.packets.value;
            counts.1 += flow.bytes.map_or(0, |bytes| bytes.value);
        }
    }
    Ok(counted)
}
