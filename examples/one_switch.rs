//! One switch: encode packets, ship the flowset, decode it. Run with
//! `cargo run --release -p flowradar-examples --bin one_switch`.

use std::error::Error;
use std::time::Duration;

use flowradar_core::decode::single_decode;
use flowradar_core::flowset::Epoch;
use flowradar_core::plan::PlanRequest;
use flowradar_core::{Encoder, FlowKeyV4, Flowset, Packet};

fn main() -> Result<(), Box<dyn Error>> {
    // A layout for 10,000 flows in an epoch, and the switch that has it.
    let plan = PlanRequest::flows(10_000).plan()?;
    let epoch_length = Duration::from_millis(10);
    let mut switch = Encoder::<FlowKeyV4>::new("leaf-1".parse()?, plan.layout, Epoch::number(0))?;

    // Flow number i sends i % 7 + 1 packets of 1,000 bytes.
    let packets: Vec<_> = (0..10_000_u32)
        .flat_map(|flow| {
            let server = [10, 1, 0, (flow % 20) as u8].into();
            let key = FlowKeyV4::new((0x0a00_0000 + flow).into(), server, 40_000, 443, 6);
            let packet = Packet {
                key,
                ip_bytes: 1000,
            };
            std::iter::repeat_n(packet, flow as usize % 7 + 1)
        })
        .collect();
    switch.packets(&packets);

    // The epoch ends: the other bank takes over, this one is read out and then released.
    let report = switch.end_epoch(Epoch::number(1))?.to_flowset();
    switch.release();

    // At the collector. The report explains itself: layout, hash functions, seed, switch, epoch.
    let flowset = Flowset::new_checked(&report[..])?;
    let decoded = single_decode::<FlowKeyV4, _>(&flowset)?;
    let packets_decoded: u64 = decoded.flows.iter().map(|flow| flow.packets.value).sum();
    println!(
        "{} bytes every {} ms hold {} flows and {} packets; complete: {}",
        report.len(),
        epoch_length.as_millis(),
        decoded.flows.len(),
        packets_decoded,
        decoded.is_complete(),
    );
    for flow in decoded.flows.iter().take(3) {
        println!(
            "  {}: {} packets ({})",
            flow.key, flow.packets.value, flow.packets.status
        );
    }
    if packets_decoded != packets.len() as u64 {
        return Err("packets are missing: this does not happen".into());
    }
    Ok(())
}
