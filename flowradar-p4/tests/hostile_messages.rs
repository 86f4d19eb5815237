//! Whatever a switch says of its program, its entities and its packets is understood or an error.

use flowradar_p4::P4Info;
use flowradar_p4::entity::{
    ActionCall, ActionProfileGroup, CloneSession, CounterData, CounterEntry, DigestConfig,
    DigestEntry, Entity, GroupMember, Match, MeterConfig, MeterEntry, MulticastGroup, Replica,
    TableAction, TableEntry, WeightedCall,
};
use flowradar_p4::proto::p4::config::v1 as config;
use flowradar_p4::proto::p4::v1 as p4;
use proptest::prelude::*;
use prost::Message;

const P4INFO: &str = include_str!("../../flowradar-switch/tests/p4runtime/entities.p4info.txtpb");

/// A change of bytes: where, and what to do there.
type Mutation = (prop::sample::Index, u8, u8);

fn mutate(bytes: &mut Vec<u8>, mutations: &[Mutation]) {
    for (place, kind, value) in mutations {
        if bytes.is_empty() {
            return;
        }
        let place = place.index(bytes.len());
        match kind % 4 {
            0 => bytes[place] = *value,
            1 => bytes[place] ^= 1 << (value % 8),
            2 => bytes.insert(place, *value),
            _ => {
                bytes.remove(place);
            }
        }
    }
}

fn info() -> P4Info {
    P4Info::from_text(P4INFO).expect("the compiler wrote it")
}

/// What a switch may answer a read with.
fn entities() -> Vec<Entity> {
    let mut rule = TableEntry::new("acl")
        .matching("src", Match::ternary(0x0a00_0000_u32, 0xff00_0000_u32))
        .matching("protocol", Match::range(6_u8, 17_u8))
        .with_priority(10)
        .call("deny", [("", 0_u32); 0]);
    rule.counter = Some(CounterData {
        packets: 1,
        bytes: 60,
    });
    let call = || ActionCall::new("IngressImpl.forward", [("port", 1_u32)]);
    let one_shot = TableAction::OneShot(vec![WeightedCall {
        call: call(),
        weight: 2,
        watch_port: Some(1),
    }]);
    let replicas = vec![Replica {
        port: 1,
        instance: 1,
    }];
    vec![
        rule.into(),
        TableEntry::new("ecmp")
            .matching("dst", Match::lpm(0x0a00_0100_u32, 24))
            .with_action(one_shot)
            .into(),
        ActionProfileGroup {
            profile: "IngressImpl.ecmp_selector".into(),
            group: 1,
            members: vec![GroupMember {
                member: 1,
                weight: 1,
                watch_port: Some(3),
            }],
            max_size: 4,
        }
        .into(),
        CounterEntry {
            counter: "IngressImpl.port_counter".into(),
            index: Some(3),
            data: rule_data(),
        }
        .into(),
        MeterEntry {
            meter: "IngressImpl.port_meter".into(),
            index: Some(3),
            config: Some(MeterConfig {
                committed_rate: 1,
                committed_burst: 2,
                peak_rate: 3,
                peak_burst: 4,
            }),
        }
        .into(),
        MulticastGroup {
            group: 1,
            replicas: replicas.clone(),
            metadata: vec![1],
        }
        .into(),
        CloneSession {
            session: 1,
            replicas,
            class_of_service: 1,
            packet_length_bytes: 100,
        }
        .into(),
        DigestEntry {
            digest: "learned_t".into(),
            config: Some(DigestConfig {
                max_timeout: std::time::Duration::from_millis(1),
                max_list_size: 2,
                ack_timeout: std::time::Duration::from_millis(3),
            }),
        }
        .into(),
    ]
}

fn rule_data() -> Option<CounterData> {
    Some(CounterData {
        packets: 7,
        bytes: 700,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_program_s_description(mutations in prop::collection::vec(any::<Mutation>(), 1..12)) {
        let mut bytes = info().message().encode_to_vec();
        mutate(&mut bytes, &mutations);
        let Ok(message) = config::P4Info::decode(bytes.as_slice()) else {
            return Ok(());
        };
        match P4Info::from_message(message.clone()) {
            Ok(info) => {
                prop_assert_eq!(info.message(), &message);
                for entity in entities() {
                    // Of the program that it was, not of what it has become.
                    if let Ok(message) = info.encode(&entity) {
                        prop_assert!(info.decode(&message).is_ok());
                    }
                }
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn entities_of_a_switch(
        which: prop::sample::Index,
        mutations in prop::collection::vec(any::<Mutation>(), 1..6),
    ) {
        let info = info();
        let entities = entities();
        let message = info.encode(which.get(&entities)).expect("a good entity");
        let mut bytes = message.encode_to_vec();
        mutate(&mut bytes, &mutations);
        let Ok(message) = p4::Entity::decode(bytes.as_slice()) else {
            return Ok(());
        };
        match info.decode(&message) {
            // What was understood can be said again, and means the same.
            Ok(entity) => {
                if let Ok(again) = info.encode(&entity) {
                    prop_assert_eq!(info.decode(&again), Ok(entity));
                }
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn packets_of_a_switch(payload: Vec<u8>, ids: Vec<u32>, values: Vec<Vec<u8>>) {
        let metadata = ids.iter().zip(values).map(|(id, value)| p4::PacketMetadata {
            metadata_id: id % 4,
            value,
        });
        let message = p4::PacketIn {
            payload: payload.clone(),
            metadata: metadata.collect(),
        };
        match info().decode_packet_in(message) {
            Ok(packet) => prop_assert_eq!(packet.payload, payload),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
