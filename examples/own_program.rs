//! FlowRadar inside a program of one's own: `own_program/gate.p4`, a gate that lets only named services
//! through. Runs it on an embedded switch, opens it for DNS, sends traffic, and shows from the flowset who
//! knocked in vain.
//!
//! `cargo run -p flowradar-examples --bin own_program`. On a switch of your own: docs/p4.md.

use std::path::Path;
use std::sync::Arc;

use flowradar_core::FlowKeyV4;
use flowradar_p4::Program;
use flowradar_p4::client::{Session, SessionOptions, SwitchTarget};
use flowradar_p4::drain::{DrainTiming, ReadPlan};
use flowradar_p4::entity::{Entity, Match, TableEntry};
use flowradar_p4::reader::{FlowsetReader, PacketReader};
use flowradar_p4::topology::ProgramFiles;
use flowradar_testbed::counts::decode;
use flowradar_testbed::frames::{Tuple4, udp4};
use flowradar_testbed::{EmbeddedSwitch, WiredSwitch};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // What `flowradar p4 config` wrote, and what `p4c-bm2-ss` made of gate.p4 with it.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("own_program");
    let program = Program::read(&ProgramFiles {
        json: folder.join("compiled/gate.json"),
        p4info: folder.join("compiled/gate.p4info.txtpb"),
        header: folder.join("flowradar_config.p4"),
    })?;

    let mut switch = EmbeddedSwitch::start(2).await?;
    let target = Arc::new(SwitchTarget::new("gate", switch.address().to_string()));
    let mut session = Session::connect(target, SessionOptions::default()).await?;
    session.ensure_pipeline(&program.pipeline).await?;
    let dns = TableEntry::new("GateIngress.services")
        .matching("headers.ipv4.protocol", Match::exact(17_u8))
        .matching("headers.ports.destination", Match::exact(53_u16))
        .call("GateIngress.pass", [("", 0_u8); 0]);
    session.reconcile(&[Entity::Table(dns)]).await?;

    for packet in 0..20 {
        let service = if packet % 4 == 0 { 22 } else { 53 };
        let flow = Tuple4 {
            src: [10, 0, 0, 1].into(),
            dst: [10, 0, 0, 2].into(),
            src_port: 4000,
            dst_port: service,
        };
        switch.send(1, &udp4(flow, b"a question"));
    }
    let mut passed = 0;
    switch.receive(&mut |_, _| passed += 1);

    let mut reader = PacketReader::new(program.config, DrainTiming::default());
    let state = reader.state(&mut session).await?;
    let (bank, epoch) = (state.active, state.active_epoch() + 1);
    let other = bank.other();
    let state = reader.switch_epoch(&mut session, other, epoch, epoch);
    let state = state.await?;
    let plan = ReadPlan {
        switch: "gate".parse()?,
        bank,
        start_ns: 0,
        length_ns: 0,
        sealed_at: reader.now(),
    };
    let drained = reader.read(&mut session, &state, plan).await?;
    reader.clear(&mut session, &state, bank).await?;

    println!("{passed} packets went through the gate; the switch has seen:");
    let decoded = decode::<FlowKeyV4>(&drained)?;
    for flow in &decoded.flows {
        let (packets, status) = (flow.packets.value, flow.packets.status);
        println!("{}: {packets} packets, {status}", flow.key);
    }
    let packets: u64 = decoded.flows.iter().map(|flow| flow.packets.value).sum();
    assert_eq!(
        (passed, packets),
        (15, 20),
        "the gate lets DNS through, and all is counted"
    );
    Ok(())
}
