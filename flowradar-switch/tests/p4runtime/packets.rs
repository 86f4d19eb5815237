//! Packets, digests and idle timeouts on the stream.

use std::net::Ipv4Addr;
use std::time::Duration;

use flowradar_p4::Bytestring;
use flowradar_p4::client::{SwitchNotification, Update};
use flowradar_p4::entity::{DigestConfig, DigestEntry, Entity, Match, TableEntry};
use flowradar_p4::p4info::DataValue;
use flowradar_p4::packet::ControllerPacket;
use flowradar_p4::proto::p4::v1::stream_error::Details;
use tonic::Code;

use crate::support::{TestSwitch, ethernet_frame, ipv4_frame, program, run};

#[test]
fn packets_go_out_through_the_port_that_their_header_names() {
    run(async {
        let switch = TestSwitch::start().await;
        let session = switch.primary().await;
        let sent = switch.port(7);
        let frame = ethernet_frame(0x1234);
        let packet = ControllerPacket::new(frame.clone()).with_field("egress_port", 7_u32);
        session.send_packet(&packet).await.expect("a good packet");
        let received = tokio::task::spawn_blocking(move || sent.recv()).await;
        assert_eq!(received.expect("no panic"), Ok(frame));
    });
}

#[test]
fn packets_come_in_with_the_header_that_the_program_gives_them() {
    run(async {
        let switch = TestSwitch::start().await;
        let mut session = switch.primary().await;
        let frame = ethernet_frame(0x88b8);
        switch.receive(300, &frame);
        let packet = session.next_packet().await.expect("a packet");
        assert_eq!(
            packet.field("ingress_port"),
            Some(&Bytestring::from(300_u16))
        );
        assert_eq!(packet.field("reason"), Some(&Bytestring::from(3_u8)));
        assert_eq!(packet.payload, frame);
    });
}

#[test]
fn packets_of_a_backup_are_refused() {
    run(async {
        let switch = TestSwitch::start().await;
        let _primary = switch.primary().await;
        let mut backup = switch.session(0).await;
        backup.set_info(program().info().clone());
        let packet = ControllerPacket::new(ethernet_frame(0x1234));
        backup.send_packet(&packet).await.expect("it can be sent");
        let notification = backup.next_notification().await.expect("the stream lives");
        let SwitchNotification::Error(error) = notification else {
            panic!("{notification:?}");
        };
        assert_eq!(error.canonical_code, Code::PermissionDenied as i32);
        let Some(Details::PacketOut(details)) = error.details else {
            panic!("{:?}", error.details);
        };
        assert_eq!(
            details.packet_out.expect("as it was").payload,
            packet.payload
        );
    });
}

#[test]
fn digests_are_sent_once_until_they_are_acknowledged() {
    run(async {
        let switch = TestSwitch::start().await;
        let mut session = switch.primary().await;
        let digest = DigestEntry {
            digest: "learned_t".into(),
            config: Some(DigestConfig {
                max_timeout: Duration::ZERO,
                max_list_size: 1,
                ack_timeout: Duration::from_secs(3600),
            }),
        };
        session
            .write(&[Update::Insert(Entity::Digest(digest))])
            .await
            .expect("a digest");
        let frame = ethernet_frame(0x88b7);
        switch.receive(4, &frame);
        switch.receive(4, &frame);
        switch.receive(5, &frame);
        let mut lists = Vec::new();
        for expected_port in [4_u16, 5] {
            let SwitchNotification::Digests(list) =
                session.next_notification().await.expect("the stream lives")
            else {
                panic!("not a digest");
            };
            let info = session.info().expect("a pipeline");
            let data_type = &info
                .digests()
                .by_id(list.digest_id)
                .expect("its digest")
                .data_type;
            let values: Vec<DataValue> = list
                .data
                .iter()
                .map(|data| data_type.from_message(data).expect("of the declared type"))
                .collect();
            let address = DataValue::Bits(Bytestring::from([2, 0, 0, 0, 0, 0x55]));
            let port = DataValue::Bits(Bytestring::from(expected_port));
            assert_eq!(values, [DataValue::Members(vec![address, port])]);
            lists.push(list);
        }
        session
            .acknowledge(&lists[0])
            .await
            .expect("the stream lives");
        // The acknowledgement and this request arrive in order only on the stream: ask for an error there.
        session
            .acknowledge(&flowradar_p4::proto::p4::v1::DigestList::default())
            .await
            .expect("the stream lives");
        let notification = session.next_notification().await.expect("the stream lives");
        assert!(
            matches!(notification, SwitchNotification::Error(_)),
            "{notification:?}"
        );
        switch.receive(4, &frame);
        let notification = session.next_notification().await.expect("the stream lives");
        let SwitchNotification::Digests(list) = notification else {
            panic!("{notification:?}");
        };
        assert!(list.list_id > lists[1].list_id);
    });
}

#[test]
fn idle_entries_are_told() {
    run(async {
        let switch = TestSwitch::start().await;
        let mut session = switch.primary().await;
        let mut entry = TableEntry::new("l2_exact")
            .matching("dst", Match::exact(5_u64))
            .call("forward", [("port", 1_u32)]);
        entry.idle_timeout = Some(Duration::from_millis(20));
        entry.metadata = vec![9];
        session
            .write(&[Update::Insert(Entity::Table(entry.clone()))])
            .await
            .expect("an entry");
        let notification = session.next_notification().await.expect("the stream lives");
        let SwitchNotification::Idle(idle) = notification else {
            panic!("{notification:?}");
        };
        let info = session.info().expect("a pipeline");
        let told = info
            .decode_table_entry(&idle.table_entry[0])
            .expect("a good entry");
        assert_eq!(told.key, entry.key);
        assert_eq!(told.metadata, [9]);
        assert_eq!(told.idle_timeout, entry.idle_timeout);
        assert!(
            idle.timestamp > 1_000_000_000_000_000_000,
            "nanoseconds since 1970"
        );
    });
}

#[test]
fn clones_and_multicasts_leave_by_their_ports() {
    run(async {
        use flowradar_p4::entity::{CloneSession, MulticastGroup, Replica};

        let switch = TestSwitch::start().await;
        let session = switch.primary().await;
        let replica = |port| Replica { port, instance: 1 };
        let group = MulticastGroup {
            group: 5,
            replicas: vec![replica(1), replica(2)],
            metadata: Vec::new(),
        };
        let clones = CloneSession {
            session: 7,
            replicas: vec![replica(3)],
            class_of_service: 0,
            packet_length_bytes: 0,
        };
        let flood = TableEntry::default_of("l2_exact").call("flood", [("group", 5_u32)]);
        session
            .write(&[
                Update::Insert(Entity::MulticastGroup(group)),
                Update::Insert(Entity::CloneSession(clones)),
                Update::Modify(Entity::Table(flood)),
            ])
            .await
            .expect("good entities");
        let ports = [switch.port(1), switch.port(2), switch.port(3)];
        switch.receive(9, &ethernet_frame(0x88b6));
        let counts: Vec<usize> = ports.iter().map(|port| port.try_iter().count()).collect();
        assert_eq!(counts, [1, 1, 1]);
        let frame = ipv4_frame(Ipv4Addr::new(1, 1, 1, 1), Ipv4Addr::new(2, 2, 2, 2), 6);
        switch.receive(9, &frame);
        let counts: Vec<usize> = ports.iter().map(|port| port.try_iter().count()).collect();
        assert_eq!(counts, [1, 1, 0]);
    });
}

#[test]
fn a_controller_that_does_not_read_loses_packets_that_are_counted() {
    run(async {
        let switch = TestSwitch::start().await;
        let session = switch.primary().await;
        let capacity = session.options().packet_in_capacity;
        let sent = capacity as u64 + 100;
        let frame = ethernet_frame(0x88b8);
        for _ in 0..sent {
            switch.receive(1, &frame);
            tokio::task::yield_now().await;
        }
        let lost = || {
            let counters = session.counters();
            let dropped = switch.server.counters().stream_messages_dropped
                + switch.switch.counters().packet_ins_dropped;
            (
                counters.packet_ins + dropped,
                counters.packet_ins_dropped + dropped,
            )
        };
        // All have come to an end: taken, or dropped by one side and counted there.
        while lost().0 < sent {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(lost().1 >= 100);
    });
}
