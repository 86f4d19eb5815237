//! Runs the examples as a reader would.

use std::process::Command;

use flowradar_testbed::frames::{Tuple4, udp4};
use flowradar_testbed::{EmbeddedSwitch, WiredSwitch};

/// What a program prints. Fails if it does.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("cargo has built it");
    let printed = String::from_utf8(output.stdout).expect("text");
    assert!(
        output.status.success(),
        "{program}: {printed}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    printed
}

#[test]
fn one_switch_tells_every_flow() {
    let printed = output(env!("CARGO_BIN_EXE_one_switch"), &[]);
    assert!(printed.contains("complete: true"), "{printed}");
}

#[test]
fn lossy_network_ends_well() {
    output(env!("CARGO_BIN_EXE_lossy_network"), &[]);
}

#[test]
fn own_program_shows_who_knocked_in_vain() {
    let printed = output(env!("CARGO_BIN_EXE_own_program"), &[]);
    assert!(
        printed.contains("10.0.0.1:4000 > 10.0.0.2:22 proto 17: 5 packets, exact"),
        "{printed}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_switch_reads_what_came_since_it_was_last_run() {
    let mut switch = EmbeddedSwitch::start(2).await.expect("a switch");
    let address = switch.address().to_string();
    let run = || {
        let address = address.clone();
        tokio::task::spawn_blocking(move || {
            output(env!("CARGO_BIN_EXE_read_switch"), &[address.as_str()])
        })
    };
    // The first time it loads the program.
    let printed = run().await.expect("it ran");
    assert!(printed.contains("is read: 0 packets"), "{printed}");
    let flow = Tuple4 {
        src: [10, 0, 0, 1].into(),
        dst: [10, 0, 0, 2].into(),
        src_port: 4000,
        dst_port: 53,
    };
    for _ in 0..3 {
        switch.send(1, &udp4(flow, b"a question"));
    }
    let printed = run().await.expect("it ran");
    assert!(
        printed.contains("10.0.0.1:4000 > 10.0.0.2:53 proto 17: 3 packets, exact"),
        "{printed}"
    );
}
