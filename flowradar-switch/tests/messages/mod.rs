//! Good messages for the program of `tests/p4runtime`: what hostile ones are made from.

use std::net::Ipv4Addr;
use std::time::Duration;

use flowradar_p4::entity::{
    ActionCall, ActionProfileGroup, ActionProfileMember, CloneSession, CounterData, CounterEntry,
    DigestConfig, DigestEntry, DirectCounterEntry, DirectMeterEntry, Entity, GroupMember, Match,
    MeterConfig, MeterEntry, MulticastGroup, RegisterEntry, Replica, TableAction, TableEntry,
    ValueSetEntry, WeightedCall,
};
use flowradar_p4::p4info::DataValue;
use flowradar_p4::proto::p4::v1 as p4;
use flowradar_p4::proto::p4::v1::update::Type;
use flowradar_p4::{Bytestring, P4Info};
use flowradar_switch::server::OfflineServer;
use flowradar_switch::{Switch, SwitchConfig, Timestamp};

pub(crate) const JSON: &[u8] = include_bytes!("../p4runtime/entities.json");
pub(crate) const P4INFO: &str = include_str!("../p4runtime/entities.p4info.txtpb");
pub(crate) const DEVICE_ID: u64 = 1;
pub(crate) const CPU_PORT: u16 = 510;

const NONE: [(&str, u32); 0] = [];

/// The program's P4Info.
pub(crate) fn info() -> P4Info {
    P4Info::from_text(P4INFO).expect("the compiler wrote it")
}

/// A switch that runs the program, with one of every entity.
pub(crate) fn server(updates: &[p4::Update]) -> (Switch, OfflineServer) {
    let switch = Switch::new(SwitchConfig {
        cpu_port: Some(CPU_PORT),
        ..SwitchConfig::default()
    });
    let mut server = OfflineServer::new(switch.clone(), DEVICE_ID);
    server
        .set_pipeline(pipeline_request())
        .expect("a good program");
    for update in updates {
        server
            .write(&write_request(vec![update.clone()]), Timestamp::ZERO)
            .expect("a good update");
    }
    (switch, server)
}

/// What lets a switch run the program.
pub(crate) fn pipeline_request() -> p4::SetForwardingPipelineConfigRequest {
    p4::SetForwardingPipelineConfigRequest {
        device_id: DEVICE_ID,
        election_id: Some(OfflineServer::ELECTION_ID),
        action: p4::set_forwarding_pipeline_config_request::Action::VerifyAndCommit as i32,
        config: Some(p4::ForwardingPipelineConfig {
            p4info: Some(info().message().clone()),
            p4_device_config: JSON.to_vec(),
            cookie: None,
        }),
        ..p4::SetForwardingPipelineConfigRequest::default()
    }
}

pub(crate) fn write_request(updates: Vec<p4::Update>) -> p4::WriteRequest {
    p4::WriteRequest {
        device_id: DEVICE_ID,
        election_id: Some(OfflineServer::ELECTION_ID),
        updates,
        ..p4::WriteRequest::default()
    }
}

/// One of every entity, in an order in which they can be written.
pub(crate) fn updates(info: &P4Info) -> Vec<p4::Update> {
    let message = |(update_type, entity): (Type, Entity)| p4::Update {
        r#type: update_type as i32,
        entity: Some(info.encode(&entity).expect("a good entity")),
    };
    entities(info).into_iter().map(message).collect()
}

fn entities(info: &P4Info) -> Vec<(Type, Entity)> {
    let set = info.value_sets().iter().next().expect("there is one");
    let (set, field) = (set.preamble.name.clone(), set.fields[0].name.clone());
    let meter = MeterConfig {
        committed_rate: 1000,
        committed_burst: 100,
        peak_rate: 2000,
        peak_burst: 200,
    };
    let counter = CounterData {
        packets: 5,
        bytes: 500,
    };
    let mut l2 = TableEntry::new("l2_exact")
        .matching("dst", Match::exact([2, 0, 0, 0, 0, 0xdd]))
        .call("forward", [("port", 3_u32)]);
    l2.metadata = vec![1, 2, 3];
    l2.idle_timeout = Some(Duration::from_secs(3600));
    let mut route = TableEntry::new("routes")
        .matching("dst", Match::lpm(Ipv4Addr::new(10, 0, 1, 0), 24))
        .call("drop", NONE);
    route.meter = Some(meter);
    let mut rule = TableEntry::new("acl")
        .matching(
            "src",
            Match::ternary(Ipv4Addr::new(10, 0, 0, 0), 0xffff_ff00_u32),
        )
        .matching("protocol", Match::range(6_u8, 17_u8))
        .matching("port", Match::Optional(Bytestring::from(4_u8)))
        .with_priority(10)
        .call("deny", NONE);
    rule.counter = Some(counter);
    let forward = |port: u32| ActionCall::new("IngressImpl.forward", [("port", port)]);
    let member = |member, port| ActionProfileMember {
        profile: "IngressImpl.ecmp_selector".into(),
        member,
        call: Some(forward(port)),
    };
    let in_group = |member, watch_port| GroupMember {
        member,
        weight: 2,
        watch_port,
    };
    let group = ActionProfileGroup {
        profile: "IngressImpl.ecmp_selector".into(),
        group: 9,
        members: vec![in_group(1, None), in_group(2, Some(3))],
        max_size: 8,
    };
    let balanced = |last, action| {
        TableEntry::new("ecmp")
            .matching("dst", Match::lpm(Ipv4Addr::new(10, 0, 0, last), 32))
            .with_action(action)
    };
    let one_shot = TableAction::OneShot(vec![WeightedCall {
        call: forward(4),
        weight: 3,
        watch_port: Some(4),
    }]);
    let replicas = vec![Replica {
        port: 2,
        instance: 1,
    }];
    vec![
        (Type::Insert, l2.into()),
        (Type::Insert, route.clone().into()),
        (Type::Insert, rule.clone().into()),
        (
            Type::Modify,
            TableEntry::default_of("l2_exact").call("drop", NONE).into(),
        ),
        (Type::Insert, member(1, 1).into()),
        (Type::Insert, member(2, 3).into()),
        (Type::Insert, group.into()),
        (Type::Insert, balanced(1, TableAction::Group(9)).into()),
        (Type::Insert, balanced(2, TableAction::Member(1)).into()),
        (Type::Insert, balanced(3, one_shot).into()),
        (
            Type::Modify,
            CounterEntry {
                counter: "IngressImpl.port_counter".into(),
                index: Some(3),
                data: Some(counter),
            }
            .into(),
        ),
        (
            Type::Modify,
            DirectCounterEntry {
                table: "acl".into(),
                key: rule.key,
                data: Some(counter),
            }
            .into(),
        ),
        (
            Type::Modify,
            MeterEntry {
                meter: "IngressImpl.port_meter".into(),
                index: Some(4),
                config: Some(meter),
            }
            .into(),
        ),
        (
            Type::Modify,
            DirectMeterEntry {
                table: "routes".into(),
                key: route.key,
                config: Some(meter),
            }
            .into(),
        ),
        (
            Type::Modify,
            RegisterEntry {
                register: "IngressImpl.last_source".into(),
                index: Some(3),
                data: Some(DataValue::Bits(Bytestring::from(77_u8))),
            }
            .into(),
        ),
        (
            Type::Insert,
            MulticastGroup {
                group: 5,
                replicas: replicas.clone(),
                metadata: vec![7],
            }
            .into(),
        ),
        (
            Type::Insert,
            CloneSession {
                session: 7,
                replicas,
                class_of_service: 2,
                packet_length_bytes: 64,
            }
            .into(),
        ),
        (
            Type::Modify,
            ValueSetEntry {
                value_set: set,
                members: vec![vec![(field, Match::exact(0x9100_u16))]],
            }
            .into(),
        ),
        (
            Type::Insert,
            DigestEntry {
                digest: "learned_t".into(),
                config: Some(DigestConfig {
                    max_timeout: Duration::from_secs(1),
                    max_list_size: 3,
                    ack_timeout: Duration::from_secs(2),
                }),
            }
            .into(),
        ),
    ]
}

/// Frames that meet much of the program.
pub(crate) fn frames() -> Vec<Vec<u8>> {
    let ethernet = |ether_type: u16| {
        let mut frame = vec![2, 0, 0, 0, 0, 0xdd, 2, 0, 0, 0, 0, 0x55];
        frame.extend(ether_type.to_be_bytes());
        frame
    };
    let ipv4 = |last: u8| {
        let mut frame = ethernet(0x0800);
        frame.extend([
            0x45, 0, 0, 20, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 9, 10, 0, 0, last,
        ]);
        frame
    };
    let packet_out = [&[0, 0x80][..], &ipv4(1)].concat();
    vec![
        ipv4(1),
        ipv4(2),
        ipv4(3),
        ethernet(0x88b6),
        ethernet(0x88b7),
        ethernet(0x88b8),
        packet_out,
        vec![1, 2, 3],
    ]
}
