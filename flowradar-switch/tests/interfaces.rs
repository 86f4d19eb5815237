//! Network interfaces as ports, on a pair of virtual ones. Needs the right to make them.
#![cfg(target_os = "linux")]

use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use flowradar_switch::port::{FrameBatch, PortReceiver, PortSender, open_interface};

/// Two interfaces with a cable between them; gone when dropped.
struct Cable {
    ends: [String; 2],
}

impl Cable {
    fn new() -> Option<Self> {
        let id = std::process::id() % 100_000;
        let ends = [format!("fra{id}"), format!("frb{id}")];
        let ip = |arguments: &[&str]| {
            let status = Command::new("ip").args(arguments).output();
            status.is_ok_and(|output| output.status.success())
        };
        if !ip(&[
            "link", "add", &ends[0], "type", "veth", "peer", "name", &ends[1],
        ]) {
            return None;
        }
        let cable = Self { ends };
        cable
            .ends
            .iter()
            .all(|end| ip(&["link", "set", end, "up"]))
            .then_some(cable)
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["link", "del", &self.ends[0]])
            .output();
    }
}

#[test]
fn frames_cross_a_cable() {
    let Some(cable) = Cable::new() else {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: virtual interfaces cannot be made here (needs ip and CAP_NET_ADMIN)"
        );
        return;
    };
    let (mut sender, _) = open_interface(&cable.ends[0]).expect("the interface is there");
    let (_, mut receiver) = open_interface(&cable.ends[1]).expect("the interface is there");
    // An EtherType for local experiments, to tell the frames from what the system sends by itself.
    let frame = |number: u8, length: usize| {
        let mut frame = vec![0xff; 12];
        frame.extend_from_slice(&[0x88, 0xb5, number]);
        frame.resize(length, number);
        frame
    };
    let sent = [frame(1, 60), frame(2, 1514), frame(3, 100)];
    for frame in &sent {
        sender.send(frame);
    }
    assert_eq!(sender.counters().statistics().frames_out, 3);
    let mut received = Vec::new();
    let mut batch = FrameBatch::default();
    for _ in 0..100 {
        batch.clear();
        receiver
            .receive(&mut batch, 2, Duration::from_millis(100))
            .expect("the interface is still there");
        assert!(batch.len() <= 2);
        let ours = batch
            .frames()
            .filter(|frame| frame.get(12..14) == Some(&[0x88, 0xb5]));
        received.extend(ours.map(<[u8]>::to_vec));
        if received.len() >= sent.len() {
            break;
        }
    }
    assert_eq!(received, sent);
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    let error = open_interface("no-such-port").expect_err("there is no such interface");
    assert!(error.to_string().contains("no-such-port"), "{error}");
}
