//! Ends an epoch of a P4 switch, reads it out and prints its flows.
//!
//! `cargo run -p flowradar-examples --bin read_switch 127.0.0.1:9559`, with a switch that
//! `flowradar switch` or `simple_switch_grpc --cpu-port 510` has started there (docs/p4.md).

use std::sync::Arc;

use flowradar_core::decode::single_decode;
use flowradar_core::{FlowKeyV4, Flowset, KeyKind};
use flowradar_p4::Program;
use flowradar_p4::client::{Session, SessionOptions, SwitchTarget};
use flowradar_p4::drain::{DrainTiming, ReadPlan};
use flowradar_p4::reader::{FlowsetReader, PacketReader};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1);
    let address = address.unwrap_or_else(|| "127.0.0.1:9559".into());
    let target = Arc::new(SwitchTarget::new("s1", address));
    let mut session = Session::connect(target, SessionOptions::default()).await?;
    let program = Program::reference();
    session.ensure_pipeline(&program.pipeline).await?;

    let mut reader = PacketReader::new(program.config, DrainTiming::default());
    let state = reader.state(&mut session).await?;
    let (bank, epoch) = (state.active, state.active_epoch() + 1);
    // Packets count in the other bank from now on, hashed under another seed.
    let state = reader
        .switch_epoch(&mut session, bank.other(), epoch, epoch)
        .await?;
    let (switch, sealed_at) = ("s1".parse()?, reader.now());
    let plan = ReadPlan {
        switch,
        bank,
        start_ns: 0,
        length_ns: 0,
        sealed_at,
    };
    let drained = reader.read(&mut session, &state, plan).await?;
    for flowset in drained
        .flowsets
        .iter()
        .filter(|flowset| flowset.key == KeyKind::V4)
    {
        let flowset = Flowset::new_checked(&flowset.bytes[..])?;
        for flow in single_decode::<FlowKeyV4, _>(&flowset)?.flows {
            println!(
                "{}: {} packets, {}",
                flow.key, flow.packets.value, flow.packets.status
            );
        }
    }
    // Everything is here: only now may the switch forget it.
    reader.clear(&mut session, &state, bank).await?;
    println!(
        "epoch {} is read: {} packets",
        epoch - 1,
        drained.state.v4.packets
    );
    Ok(())
}
