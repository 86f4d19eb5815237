//! The fuzz targets' checks, on captures whose bytes are changed at random: what a fuzzer would do, for
//! a few seconds, where none is installed. `FLOWRADAR_MUTATIONS` sets how many.

#[allow(unreachable_pub)]
#[path = "../../fuzz/fuzz_targets/balancer/mod.rs"]
mod balancer;
mod support;

use support::all_captures;

#[test]
fn mutated_captures_keep_the_promises() {
    let rounds = std::env::var("FLOWRADAR_MUTATIONS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(40_u64);
    let mut state = 0x5eed_u64;
    let mut random = move |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize) % below.max(1)
    };
    let starts: [&[u8]; 4] = [&[0, 5], &[0, 9], &[0, 10], &[0, 0, 0, 5]];
    for (_, datagrams) in all_captures("mutated_captures_keep_the_promises") {
        for round in 0..rounds {
            let mut input = Vec::new();
            let first = random(datagrams.len());
            let mut protocol = starts[1];
            for (_, bytes) in datagrams.iter().skip(first).take(12) {
                let mut bytes = bytes[..bytes.len().min(2047)].to_vec();
                protocol = starts
                    .iter()
                    .find(|start| bytes.starts_with(start))
                    .copied()
                    .unwrap_or(protocol);
                // The first round goes through unharmed.
                for _ in 0..(round.min(6) as usize) {
                    let place = random(bytes.len());
                    bytes[place] = [0, 1, 4, 0x7f, 0x80, 0xff, random(256) as u8][random(7)];
                }
                input.extend((bytes.len() as u16).to_be_bytes());
                input.extend(bytes);
            }
            balancer::run(&input, protocol);
        }
    }
}
