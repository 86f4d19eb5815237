//! Packets a second through the reference program: the embedded switch, and bmv2 in the same run; and how
//! long the embedded switch takes to be drained.
//!
//! `cargo bench -p bmv2-tests`. Both get the same entries through P4Runtime, and the same frames: 64 bytes,
//! 8,000 flows in turns. The embedded switch runs on one thread, with ports in memory. bmv2 reads them from
//! a pcap file and writes one (`simple_switch_grpc --use-files`), which is faster than interfaces; it runs
//! ingress, egress and output in threads of its own. How fast is told by the program's own port counter, in
//! ingress: what bmv2 drops between ingress and egress, it need not run, and yet it is counted for it.

use std::error::Error;
use std::hint::black_box;
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flowradar_p4::entity::{
    ActionCall, ActionProfileMember, Entity, Match, TableAction, TableEntry,
};
use flowradar_switch::port::{PcapSender, PortSender as _};
use flowradar_switch::{Outputs, Timestamp};
use flowradar_testbed::embedded::CPU_PORT;
use flowradar_testbed::frames::{Tuple4, ethernet, ipv6, udp, udp4};
use flowradar_testbed::{Controller, EmbeddedSwitch, WiredSwitch as _};

const FLOWS: u32 = 8_000;

/// Packets in one measurement of the embedded switch, and how many measurements.
const EMBEDDED_PACKETS: usize = 500_000;
const EMBEDDED_ROUNDS: usize = 7;

/// Flows in a bank that is drained: as many as the reference program is made for; and how often.
const DRAINED_V4: u32 = 10_000;
const DRAINED_V6: u32 = 2_000;
const DRAINS: usize = 9;

/// Packets in bmv2's file: some seconds' worth.
const BMV2_PACKETS: usize = 400_000;

/// How long bmv2 waits before it reads its file: until then it must have program and entries.
const BMV2_WAIT: Duration = Duration::from_secs(8);
const BMV2_PATIENCE: Duration = Duration::from_secs(120);

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo's own arguments mean nothing here; tests of benches only want to see it start.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let frames: Vec<Vec<u8>> = (0..FLOWS).map(frame).collect();
    let embedded = runtime.block_on(embedded(&frames))?;
    println!(
        "embedded switch: {:.3} Mpps (best of {EMBEDDED_ROUNDS}: {:.3})",
        embedded.median / 1e6,
        embedded.best / 1e6
    );
    let drain = runtime.block_on(drain())?;
    println!(
        "drain of {DRAINED_V4} IPv4 and {DRAINED_V6} IPv6 flows, controller in the same thread: \
         {:.1} ms with clearing (median of {DRAINS}), {:.1} ms without",
        drain.whole.as_secs_f64() * 1e3,
        drain.read.as_secs_f64() * 1e3
    );
    let has_bmv2 = Command::new("simple_switch_grpc")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok();
    if !has_bmv2 {
        let mut stderr = std::io::stderr();
        writeln!(
            stderr,
            "SKIPPED: simple_switch_grpc is not on PATH, nothing to compare with"
        )?;
        return Ok(());
    }
    let bmv2 = runtime.block_on(bmv2(&frames))?;
    println!("bmv2: {:.1} kpps", bmv2 / 1e3);
    println!("ratio: {:.1}", embedded.median / bmv2);
    Ok(())
}

struct Rates {
    median: f64,
    best: f64,
}

async fn embedded(frames: &[Vec<u8>]) -> Result<Rates, Box<dyn Error>> {
    let switch = EmbeddedSwitch::start(2).await?;
    let _controller = Controller::deploy(switch.address(), "s1", &entities()).await?;
    let mut pipeline = switch.switch().pipeline().ok_or("there is no pipeline")?;
    let mut outputs = Outputs::new();
    let mut run = |count: usize| {
        let start = Instant::now();
        for (number, frame) in (0..count).zip(frames.iter().cycle()) {
            let now = Timestamp::from_microseconds(number as u64);
            pipeline.process(1, black_box(frame), now, &mut outputs);
            black_box(outputs.frames().next());
            outputs.clear();
        }
        count as f64 / start.elapsed().as_secs_f64()
    };
    run(frames.len());
    let mut rates: Vec<f64> = (0..EMBEDDED_ROUNDS)
        .map(|_| run(EMBEDDED_PACKETS))
        .collect();
    rates.sort_by(f64::total_cmp);
    let counters = pipeline.counters();
    assert_eq!(
        counters.frames_in, counters.frames_out,
        "every packet is routed"
    );
    Ok(Rates {
        median: rates[EMBEDDED_ROUNDS / 2],
        best: rates[EMBEDDED_ROUNDS - 1],
    })
}

struct DrainTimes {
    /// Ending the epoch, settling, reading.
    read: Duration,
    whole: Duration,
}

/// Through P4Runtime on the loopback address, as the agent does it.
async fn drain() -> Result<DrainTimes, Box<dyn Error>> {
    let mut switch = EmbeddedSwitch::start(2).await?;
    let mut controller = Controller::deploy(switch.address(), "s1", &entities()).await?;
    let mut fill = || {
        (0..DRAINED_V4).for_each(|flow| switch.send(1, &frame(flow)));
        (0..DRAINED_V6).for_each(|flow| switch.send(1, &frame_v6(flow)));
        switch.receive(&mut |_, _| ());
    };
    let mut wholes = Vec::new();
    for _ in 0..DRAINS {
        fill();
        let start = Instant::now();
        let drained = controller.drain().await?;
        wholes.push(start.elapsed());
        assert_eq!(drained.flowsets.len(), 2, "one for each kind of key");
    }
    wholes.sort();
    // Last, since the bank stays as it is.
    fill();
    let start = Instant::now();
    controller.end_epoch_and_read().await?;
    Ok(DrainTimes {
        read: start.elapsed(),
        whole: wholes[DRAINS / 2],
    })
}

async fn bmv2(frames: &[Vec<u8>]) -> Result<f64, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let file = |port: u16, direction: &str| folder.path().join(format!("p{port}_{direction}.pcap"));
    let mut input = PcapSender::create(&file(1, "in"))?;
    for (_, frame) in (0..BMV2_PACKETS).zip(frames.iter().cycle()) {
        input.send(frame);
    }
    drop(input);
    drop(PcapSender::create(&file(2, "in"))?);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let mut command = Command::new("simple_switch_grpc");
    command.args(["--no-p4", "--device-id", "1"]);
    for port in [1, 2] {
        let prefix = folder.path().join(format!("p{port}"));
        command.args(["-i", &format!("{port}@{}", prefix.display())]);
    }
    command.args(["--use-files", &BMV2_WAIT.as_secs().to_string()]);
    command.args(["--thrift-port", &free_port()?.to_string()]);
    command.args(["--", "--grpc-server-addr", &address.to_string()]);
    command.args(["--cpu-port", &CPU_PORT.to_string()]);
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let _running = Running(child);
    let deadline = Instant::now() + BMV2_PATIENCE;
    while tokio::net::TcpStream::connect(address).await.is_err() {
        if Instant::now() > deadline {
            return Err("simple_switch_grpc does not listen".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let controller = Controller::deploy(address, "s2", &entities()).await?;
    // The rate between the first tenth and the last.
    let (low, high) = (BMV2_PACKETS as u64 / 10, BMV2_PACKETS as u64 / 10 * 9);
    let mut first = None;
    while Instant::now() < deadline {
        let counters = controller
            .session
            .read_counter("ingress_port_counter")
            .await?;
        let count = counters.iter().find(|(index, _)| *index == 1);
        let count = count.map_or(0, |(_, data)| data.packets);
        let now = Instant::now();
        match first {
            None if count >= low => first = Some((count, now)),
            Some((before, since)) if count >= high => {
                return Ok((count - before) as f64 / (now - since).as_secs_f64());
            }
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    Err("bmv2 was too slow, or read its file before it had its program".into())
}

/// The next hop of all flows.
fn entities() -> Vec<Entity> {
    let station = TableEntry::new("SwitchIngress.my_station")
        .matching("headers.frame.ethernet.destination", Match::exact(STATION))
        .call("SwitchIngress.route", [("", 0_u32); 0]);
    let hop = ActionCall::new(
        "SwitchIngress.to_next_hop",
        [
            ("port", 2_u64),
            ("source", 0x0200_0000_0002),
            ("destination", 0x0200_0000_0003),
        ],
    );
    let member = ActionProfileMember {
        profile: "SwitchIngress.ipv4_next_hops".into(),
        member: 1,
        call: Some(hop),
    };
    let route = TableEntry::new("SwitchIngress.ipv4_lpm")
        .matching(
            "headers.frame.ipv4.destination",
            Match::lpm(Ipv4Addr::new(10, 0, 0, 0), 8),
        )
        .with_action(TableAction::Member(1));
    vec![station.into(), member.into(), route.into()]
}

const STATION: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A 64-byte UDP packet of a flow.
fn frame(flow: u32) -> Vec<u8> {
    let tuple = Tuple4 {
        src: Ipv4Addr::from(0x0b00_0000 + flow / 16),
        dst: Ipv4Addr::from(0x0a00_0000 + flow % 251),
        src_port: 1024 + flow as u16,
        dst_port: 80,
    };
    let mut frame = udp4(tuple, &[0; 64 - 14 - 20 - 8]);
    frame[..6].copy_from_slice(&STATION);
    assert_eq!(frame.len(), 64);
    frame
}

/// A UDP packet of an IPv6 flow, which the switch counts and then drops.
fn frame_v6(flow: u32) -> Vec<u8> {
    let source = Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(flow));
    let packet = ipv6((source, Ipv6Addr::LOCALHOST), 17, &udp(1024, 80, &[]));
    ethernet(&[], 0x86dd, &packet)
}

/// A TCP port that was free a moment ago.
fn free_port() -> std::io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// Ends a process when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
