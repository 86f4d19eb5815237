//! One switch: what goes in comes out of the flowset, on every target.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use bmv2_tests::switch::TestSwitch;
use bmv2_tests::targets::on_all_targets;
use flowradar_core::decode::Proof;
use flowradar_core::{FlowKeyV4, FlowKeyV6, KeyKind};
use flowradar_p4::Program;
use flowradar_p4::drain::{BankReader, DrainTiming, ReadPlan, Step, Task};
use flowradar_p4::packet::ControllerPacket;
use flowradar_p4::reader::FlowsetReader;
use flowradar_switch::port::read_pcap;
use flowradar_testbed::counts::{decode, flowset};
use flowradar_testbed::frames::{Tuple4, ethernet, ipv4, ipv6, udp, udp4};
use flowradar_testbed::{Controller, Counts, WiredSwitch};

/// Flow `number` of many.
fn tuple(number: u32) -> Tuple4 {
    Tuple4 {
        src: Ipv4Addr::from(0x0a00_0000 + number),
        dst: Ipv4Addr::new(10, 200, 0, 1),
        src_port: 1000 + (number % 50_000) as u16,
        dst_port: 53,
    }
}

/// Puts frames on the wires in turn, and counts them.
fn send(switch: &mut TestSwitch, frames: &[Vec<u8>], sent: &mut Counts) {
    for (number, frame) in frames.iter().enumerate() {
        let port = 1 + (number % usize::from(switch.ports())) as u16;
        sent.add(frame);
        switch.send(port, frame);
    }
}

/// Waits until the switch has counted as many frames as were sent; slower targets take a while.
async fn arrived(controller: &mut Controller, reader: &mut impl FlowsetReader, frames: u64) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let state = reader
            .state(&mut controller.session)
            .await
            .expect("an answer");
        let bank = state.bank(state.active);
        let counted = bank.v4.packets + bank.v6.packets + bank.not_ip + bank.malformed;
        if counted >= frames {
            assert_eq!(counted, frames);
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{counted} of {frames} frames have arrived: the wire has lost some"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn reader() -> flowradar_p4::reader::PacketReader {
    flowradar_p4::reader::PacketReader::new(Program::reference().config, DrainTiming::default())
}

#[test]
fn a_real_trace() {
    let path = "../../shared/data/3_tcp/WebattackXSS.pcap";
    let trace = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let Ok(records) = read_pcap(&trace) else {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: a real trace: {} is not there",
            trace.display()
        );
        return;
    };
    let frames: Vec<_> = records
        .map(|record| record.expect("a good record").1)
        // What a snap length cut off was on no wire like this.
        .filter(|frame| frame.len() <= 1514)
        .take(3_000)
        .collect();
    assert!(
        frames.len() > 100,
        "{}: {} frames",
        trace.display(),
        frames.len()
    );
    on_all_targets(async |target| {
        let mut switch = TestSwitch::start(target, 2).await?;
        let mut controller = Controller::deploy(switch.address(), "s1", &[]).await?;
        let mut sent = Counts::default();
        send(&mut switch, &frames, &mut sent);
        arrived(&mut controller, &mut reader(), sent.frames()).await;
        let mut counted = Counts::default();
        counted.add_bank(&controller.drain().await?)?;
        assert_eq!(counted, sent);
        Ok(())
    });
}

/// Of everything that the parser must tell apart: which key it gets, and whether it is counted at all.
#[test]
fn every_kind_of_packet() {
    let (a4, b4) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 2));
    let a6: Ipv6Addr = "2001:db8::1".parse().expect("an address");
    let b6: Ipv6Addr = "2001:db8:1::2".parse().expect("an address");
    let datagram = udp(4000, 53, b"payload");
    let tcp = [&4001_u16.to_be_bytes()[..], &80_u16.to_be_bytes(), &[0; 16]].concat();
    let v4 = |packet: &[u8]| ethernet(&[], 0x0800, packet);
    let v6 = |packet: &[u8]| ethernet(&[], 0x86dd, packet);
    let fragment_header =
        |offset: u16, next: u8| [&[next, 0][..], &offset.to_be_bytes(), &[0, 0, 0, 7]].concat();
    let frames = vec![
        v4(&ipv4((a4, b4), 17, 0x4000, &datagram)),
        v4(&ipv4((a4, b4), 6, 0, &tcp)),
        // ICMP echo; destination unreachable.
        v4(&ipv4((a4, b4), 1, 0, &[8, 0, 0, 0, 0, 1, 0, 2])),
        v4(&ipv4((a4, b4), 1, 0, &[3, 1, 0, 0, 0, 0, 0, 0])),
        // First, later and last fragment.
        v4(&ipv4((a4, b4), 17, 0x2000, &datagram)),
        v4(&ipv4((a4, b4), 17, 0x2001, &datagram)),
        v4(&ipv4((a4, b4), 17, 0x0002, &datagram)),
        // No ports: GRE, IGMP.
        v4(&ipv4((a4, b4), 47, 0, &[0; 12])),
        v4(&ipv4((a4, b4), 2, 0, &[0; 8])),
        // VLAN, QinQ.
        ethernet(&[(0x8100, 7)], 0x0800, &ipv4((a4, b4), 17, 0, &datagram)),
        ethernet(
            &[(0x88a8, 7), (0x8100, 9)],
            0x86dd,
            &ipv6((a6, b6), 17, &datagram),
        ),
        // IPv6: UDP, TCP, ICMPv6, behind hop-by-hop options, in fragments.
        v6(&ipv6((a6, b6), 17, &datagram)),
        v6(&ipv6((a6, b6), 6, &tcp)),
        v6(&ipv6((a6, b6), 58, &[128, 0, 0, 0, 0, 0, 0, 0])),
        v6(&ipv6(
            (a6, b6),
            0,
            &[&[17, 0, 1, 4, 0, 0, 0, 0][..], &datagram].concat(),
        )),
        v6(&ipv6(
            (a6, b6),
            44,
            &[fragment_header(1, 17), datagram.clone()].concat(),
        )),
        v6(&ipv6(
            (a6, b6),
            44,
            &[fragment_header(8, 17), datagram.clone()].concat(),
        )),
        // Not IP: ARP, LLDP, drain requests that come in through a port.
        ethernet(&[], 0x0806, &[0; 28]),
        ethernet(&[], 0x88cc, &[0; 40]),
        ethernet(&[], 0x88b5, b"FR\x01\x01 a request from outside"),
        // Malformed: IP version, header length.
        v4(&[&[0x65][..], &ipv4((a4, b4), 17, 0, &datagram)[1..]].concat()),
        v4(&[&[0x44][..], &ipv4((a4, b4), 17, 0, &datagram)[1..]].concat()),
    ];
    on_all_targets(async |target| {
        let mut switch = TestSwitch::start(target, 3).await?;
        let mut controller = Controller::deploy(switch.address(), "s1", &[]).await?;
        let mut sent = Counts::default();
        for _ in 0..3 {
            send(&mut switch, &frames, &mut sent);
        }
        assert!(sent.v4.len() >= 7 && sent.v6.len() >= 4, "{sent:?}");
        assert_eq!((sent.not_ip, sent.malformed), (9, 6));
        arrived(&mut controller, &mut reader(), sent.frames()).await;
        let bank = controller.drain().await?;
        let mut counted = Counts::default();
        counted.add_bank(&bank)?;
        assert_eq!(counted, sent);
        assert_eq!(decode::<FlowKeyV6>(&bank)?.flows.len(), sent.v6.len());
        Ok(())
    });
}

/// Epochs end while packets come in: each is in one epoch, none is lost, none is counted twice.
#[test]
fn epochs_end_under_traffic() {
    on_all_targets(async |target| {
        let mut switch = TestSwitch::start(target, 2).await?;
        let mut controller = Controller::deploy(switch.address(), "s1", &[]).await?;
        let (mut sent, mut counted) = (Counts::default(), Counts::default());
        let mut epochs = vec![];
        for round in 0..5_u32 {
            let frames: Vec<_> = (0..300)
                .map(|number| udp4(tuple(round * 100 + number), b"x"))
                .collect();
            send(&mut switch, &frames, &mut sent);
            // At once: on bmv2 frames are still on their way.
            let bank = controller.drain().await?;
            epochs.push(bank.state.epoch);
            counted.add_bank(&bank)?;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        counted.add_bank(&controller.drain().await?)?;
        counted.add_bank(&controller.drain().await?)?;
        assert_eq!(counted, sent);
        assert!(epochs.is_sorted());
        Ok(())
    });
}

/// Three times as many flows as the program was made for: what is missing is said.
#[test]
fn too_many_flows() {
    const FLOWS: u32 = 30_000;
    on_all_targets(async |target| {
        let mut switch = TestSwitch::start(target, 2).await?;
        let mut controller = Controller::deploy(switch.address(), "s1", &[]).await?;
        let mut sent = Counts::default();
        let frames: Vec<_> = (0..FLOWS).map(|number| udp4(tuple(number), b"")).collect();
        send(&mut switch, &frames, &mut sent);
        arrived(&mut controller, &mut reader(), sent.frames()).await;
        let bank = controller.drain().await?;
        let decoded = decode::<FlowKeyV4>(&bank)?;
        assert!(!decoded.is_complete());
        assert!(decoded.leftover.flows > 0);
        assert_ne!(decoded.packets_proof, Proof::Proved);
        for flow in &decoded.flows {
            assert!(
                sent.v4.contains_key(&flow.key),
                "{} was never sent",
                flow.key
            );
            assert!(!flow.packets.is_exact());
        }
        let totals = flowset(&bank, KeyKind::V4)?
            .header()
            .totals
            .expect("switches report totals");
        assert_eq!(totals.packets, u64::from(FLOWS));
        // The next epoch is as good as new.
        let mut sent = Counts::default();
        send(&mut switch, &frames[..500], &mut sent);
        arrived(&mut controller, &mut reader(), 500).await;
        let mut counted = Counts::default();
        counted.add_bank(&controller.drain().await?)?;
        assert_eq!(counted, sent);
        Ok(())
    });
}

/// A fifth of all answers gets lost, another fifth comes twice: the flowset is the same.
#[test]
fn lost_and_doubled_answers() {
    on_all_targets(async |target| {
        let mut switch = TestSwitch::start(target, 1).await?;
        let mut controller = Controller::deploy(switch.address(), "s1", &[]).await?;
        let mut sent = Counts::default();
        let frames: Vec<_> = (0..2_000)
            .map(|number| udp4(tuple(number % 700), b"abc"))
            .collect();
        send(&mut switch, &frames, &mut sent);
        let mut reader = reader();
        arrived(&mut controller, &mut reader, sent.frames()).await;
        // Sealed and read once without loss, and left in the switch.
        let whole = controller.end_epoch_and_read().await?;

        let state = reader
            .state(&mut controller.session)
            .await
            .expect("an answer");
        let plan = ReadPlan {
            switch: "s1".parse().expect("a name"),
            bank: state.idle(),
            start_ns: 0,
            length_ns: 0,
            sealed_at: Duration::ZERO,
        };
        let timing = DrainTiming {
            retry_after: Duration::from_millis(150),
            ..DrainTiming::default()
        };
        let config = Program::reference().config;
        let mut task = BankReader::new(&config, timing, &state, plan).expect("a sealed bank");
        let (started, mut answers) = (Instant::now(), 0_u32);
        let again = loop {
            match task.poll(started.elapsed()).expect("the drain goes on") {
                Step::Send(frame) => {
                    let packet = ControllerPacket::new(frame);
                    controller
                        .session
                        .send_packet(&packet)
                        .await
                        .expect("a packet-out");
                }
                Step::Wait(until) => {
                    let patience = until.saturating_sub(started.elapsed());
                    let next = controller.session.next_packet();
                    if let Ok(answer) = tokio::time::timeout(patience, next).await {
                        let answer = answer.expect("a packet-in").payload;
                        answers += 1;
                        for _ in 0..[1, 0, 1, 2, 1][answers as usize % 5] {
                            task.handle(&answer).expect("a good answer");
                        }
                    }
                }
                Step::Done => break task.output().expect("a task that is done has its output"),
            }
        };
        assert!(answers > 20, "{answers}");
        assert_eq!(again.flowsets, whole.flowsets);
        let mut counted = Counts::default();
        counted.add_bank(&again)?;
        assert_eq!(counted, sent);
        Ok(())
    });
}

/// Keys with structure (one source that scans, neighbouring addresses and ports) decode like others.
#[test]
fn one_scanner() {
    const FLOWS: u32 = 9_000;
    on_all_targets(async |target| {
        let mut switch = TestSwitch::start(target, 2).await?;
        let mut controller = Controller::deploy(switch.address(), "s1", &[]).await?;
        let mut sent = Counts::default();
        let frames: Vec<_> = (0..FLOWS)
            .map(|number| {
                let tuple = Tuple4 {
                    src: Ipv4Addr::new(10, 0, 0, 1),
                    dst: Ipv4Addr::from(0x0a64_0000 + number / 3),
                    src_port: 4096,
                    dst_port: 22 + (number % 3) as u16,
                };
                udp4(tuple, b"")
            })
            .collect();
        send(&mut switch, &frames, &mut sent);
        arrived(&mut controller, &mut reader(), sent.frames()).await;
        let decoded = decode::<FlowKeyV4>(&controller.drain().await?)?;
        let flows: BTreeMap<_, _> = decoded
            .flows
            .iter()
            .map(|flow| (flow.key, flow.packets.value))
            .collect();
        assert_eq!(flows.len(), FLOWS as usize);
        assert!(decoded.is_complete(), "{:?}", decoded.packets_proof);
        assert!(flows.keys().eq(sent.v4.keys()));
        Ok(())
    });
}
