//! Every kind of entity: written, read back, modified, deleted, refused.

use std::net::Ipv4Addr;
use std::time::Duration;

use flowradar_p4::Bytestring;
use flowradar_p4::client::{ClientError, ClientErrorReason, Session, Update};
use flowradar_p4::entity::{
    ActionCall, ActionProfileGroup, ActionProfileMember, CloneSession, CounterData, CounterEntry,
    DigestConfig, DigestEntry, DirectCounterEntry, DirectMeterEntry, Entity, GroupMember, Match,
    MeterConfig, MeterEntry, MulticastGroup, RegisterEntry, Replica, TableAction, TableEntry,
    ValueSetEntry, WeightedCall,
};
use flowradar_p4::p4info::DataValue;
use flowradar_p4::proto::p4::v1 as p4;
use flowradar_p4::proto::p4::v1::entity::Entity as Message;
use tonic::Code;

use crate::support::{TestSwitch, ipv4_frame, run};

const NONE: [(&str, u32); 0] = [];

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

async fn insert(session: &Session, entity: impl Into<Entity>) {
    let update = Update::Insert(entity.into());
    session.write(&[update]).await.expect("a good entity");
}

async fn modify(session: &Session, entity: impl Into<Entity>) {
    let update = Update::Modify(entity.into());
    session.write(&[update]).await.expect("a good entity");
}

async fn refusal(session: &Session, update: Update) -> Code {
    let error = session
        .write(&[update])
        .await
        .expect_err("it must be refused");
    update_code(&error)
}

fn update_code(error: &ClientError) -> Code {
    match &*error.reason {
        ClientErrorReason::Updates { failures, .. } => failures[0].code,
        reason => panic!("not refused by the switch: {reason}"),
    }
}

/// What the switch has of a kind, by the entity that asks for it.
async fn read(session: &Session, wanted: impl Into<Entity>) -> Vec<Entity> {
    let info = session.info().expect("a pipeline");
    let message = info.encode(&wanted.into()).expect("it names what there is");
    session.read(vec![message]).await.expect("it can be read")
}

async fn read_message(session: &Session, message: Message) -> Vec<Entity> {
    let entity = p4::Entity {
        entity: Some(message),
    };
    session.read(vec![entity]).await.expect("it can be read")
}

fn full(entry: &TableEntry) -> TableEntry {
    let mut named = entry.clone();
    named.table = format!("IngressImpl.{}", entry.table);
    if let Some(TableAction::Call(call)) = &mut named.action
        && call.action != "NoAction"
    {
        call.action = format!("IngressImpl.{}", call.action);
    }
    named
}

#[test]
fn exact_entries() {
    run(async {
        let switch = TestSwitch::start().await;
        let session = switch.primary().await;
        let mut entry = TableEntry::new("l2_exact")
            .matching("dst", Match::exact([2, 0, 0, 0, 0, 1]))
            .call("forward", [("port", 3_u32)]);
        entry.metadata = vec![1, 2, 3];
        entry.idle_timeout = Some(Duration::from_secs(3600));
        insert(&session, entry.clone()).await;
        assert_eq!(
            session.read_table(Some("l2_exact")).await,
            Ok(vec![full(&entry)])
        );

        assert_eq!(
            refusal(&session, Update::Insert(Entity::Table(entry.clone()))).await,
            Code::AlreadyExists
        );
        let other = TableEntry {
            metadata: vec![],
            ..entry.clone()
        };
        let other = other.call("flood", [("group", 5_u32)]);
        modify(&session, other.clone()).await;
        assert_eq!(
            session.read_table(Some("l2_exact")).await,
            Ok(vec![full(&other)])
        );

        // Modifying without action leaves the action.
        let idle = TableEntry {
            action: None,
            idle_timeout: Some(Duration::from_secs(7)),
            ..other.clone()
        };
        modify(&session, idle).await;
        let entries = session.read_table(Some("l2_exact")).await.expect("a table");
        assert_eq!(entries[0].idle_timeout, Some(Duration::from_secs(7)));
        assert_eq!(entries[0].action, full(&other).action);

        // What an entry to be deleted says besides its key does not matter.
        let key_only = TableEntry {
            action: None,
            idle_timeout: None,
            ..other
        };
        let delete = Update::Delete(Entity::Table(key_only.clone()));
        session
            .write(std::slice::from_ref(&delete))
            .await
            .expect("it was there");
        assert_eq!(refusal(&session, delete).await, Code::NotFound);
        assert_eq!(
            refusal(&session, Update::Insert(Entity::Table(key_only.clone()))).await,
            Code::InvalidArgument
        );
        assert_eq!(
            refusal(&session, Update::Modify(Entity::Table(key_only))).await,
            Code::NotFound
        );
    });
}

#[test]
fn prefixes_ternaries_ranges_and_options() {
    run(async {
        let switch = TestSwitch::start().await;
        let session = switch.primary().await;
        let route = |last, prefix| {
            TableEntry::new("routes")
                .matching("dst", Match::lpm(address(last), prefix))
                .call("drop", NONE)
        };
        insert(&session, route(0, 24)).await;
        insert(&session, route(7, 32)).await;
        let default = TableEntry::new("routes").call("drop", NONE);
        insert(&session, default.clone()).await;
        let mut routes = session.read_table(Some("routes")).await.expect("a table");
        routes.sort_by_key(|entry| entry.key.to_string());
        let mut expected = [full(&route(0, 24)), full(&route(7, 32)), full(&default)];
        expected.sort_by_key(|entry| entry.key.to_string());
        assert_eq!(routes, expected);

        let rule = TableEntry::new("acl")
            .matching("src", Match::ternary(address(0), 0xffff_ff00_u32))
            .matching("protocol", Match::range(6_u8, 17_u8))
            .matching("port", Match::Optional(Bytestring::from(4_u8)))
            .with_priority(10)
            .call("deny", NONE);
        let anything = TableEntry::new("acl").with_priority(1).call("permit", NONE);
        insert(&session, rule.clone()).await;
        insert(&session, anything.clone()).await;
        let info = session.info().expect("a pipeline").clone();
        let mut message = info.encode_table_entry(&anything).expect("a good entry");
        message.action = None;
        message.priority = 10;
        let by_priority = read_message(&session, Message::TableEntry(message)).await;
        assert_eq!(by_priority, [Entity::Table(full(&rule))]);

        // Wrong in itself: refused before it is sent, by the checks that the server makes too.
        for wrong in [
            rule.clone().with_priority(0),
            route(7, 24),
            route(0, 0),
            route(0, 33),
            TableEntry::new("acl")
                .matching("protocol", Match::range(9_u8, 3_u8))
                .with_priority(1)
                .call("deny", NONE),
            TableEntry::new("acl")
                .matching("protocol", Match::range(0_u8, 255_u8))
                .with_priority(1)
                .call("deny", NONE),
            TableEntry::new("l2_exact").call("drop", NONE),
            TableEntry::new("routes").call("forward", [("port", 1_u32)]),
        ] {
            let update = Update::Insert(Entity::Table(wrong.clone()));
            let error = session.write(&[update]).await.expect_err("it is wrong");
            assert!(
                matches!(*error.reason, ClientErrorReason::Entity(_)),
                "{wrong:?}: {error}"
            );
        }
    });
}

#[test]
fn default_entries_are_modified_and_reset() {
    run(async {
        let switch = TestSwitch::start().await;
        let session = switch.primary().await;
        let wanted = |action: &str| TableEntry::default_of("l2_exact").call(action, NONE);
        let read_default = || async {
            let message = p4::TableEntry {
                table_id: 33_554_433,
                is_default_action: true,
                ..p4::TableEntry::default()
            };
            read_message(&session, Message::TableEntry(message)).await
        };
        assert_eq!(
            read_default().await,
            [Entity::Table(full(&wanted("NoAction")))]
        );
        modify(&session, wanted("drop")).await;
        assert_eq!(read_default().await, [Entity::Table(full(&wanted("drop")))]);
        modify(&session, TableEntry::default_of("l2_exact")).await;
        assert_eq!(
            read_default().await,
            [Entity::Table(full(&wanted("NoAction")))]
        );
        let update = Update::Insert(Entity::Table(wanted("drop")));
        assert_eq!(refusal(&session, update).await, Code::InvalidArgument);
        let update = Update::Delete(Entity::Table(wanted("drop")));
        assert_eq!(refusal(&session, update).await, Code::InvalidArgument);
        let constant = TableEntry::default_of("acl").call("permit", NONE);
        let update = Update::Modify(Entity::Table(constant));
        assert_eq!(refusal(&session, update).await, Code::PermissionDenied);
    });
}

#[test]
fn constant_tables_are_read_only() {
    run(async {
        let switch = TestSwitch::start().await;
        let session = switch.primary().await;
        let entries = session.read_table(Some("fixed")).await.expect("a table");
        assert_eq!(entries.len(), 3);
        assert!(entries.iter().all(|entry| entry.is_const));
        let entry = TableEntry::new("fixed")
            .matching("type", Match::exact(0x1234_u16))
            .call("learn", NONE);
        let update = Update::Insert(Entity::Table(entry));
        assert_eq!(refusal(&session, update).await, Code::PermissionDenied);
        let existing = TableEntry::new("fixed").matching("type", Match::exact(0x88b7_u16));
        let update = Update::Delete(Entity::Table(existing));
        assert_eq!(refusal(&session, update).await, Code::PermissionDenied);
    });
}

#[test]
fn direct_counters_and_meters() {
    run(async {
        let switch = TestSwitch::start().await;
        let session = switch.primary().await;
        let mut rule = TableEntry::new("acl")
            .matching("src", Match::ternary(address(9), u32::MAX))
            .with_priority(3)
            .call("permit", NONE);
        rule.counter = Some(CounterData {
            packets: 5,
            bytes: 500,
        });
        insert(&session, rule.clone()).await;
        switch.receive(1, &ipv4_frame(address(9), address(1), 6));
        let counter = |data| DirectCounterEntry {
            table: "acl".into(),
            key: rule.key.clone(),
            data,
        };
        let counted = |packets, bytes| {
            Entity::DirectCounter(DirectCounterEntry {
                table: "IngressImpl.acl".into(),
                ..counter(Some(CounterData { packets, bytes }))
            })
        };
        assert_eq!(read(&session, counter(None)).await, [counted(6, 534)]);
        modify(&session, counter(Some(CounterData::default()))).await;
        assert_eq!(read(&session, counter(None)).await, [counted(0, 0)]);
        let entries = session.read_table(Some("acl")).await.expect("a table");
        assert_eq!(entries[0].counter, Some(CounterData::default()));
        let missing = DirectCounterEntry {
            key: rule.clone().with_priority(4).key,
            ..counter(Some(CounterData::default()))
        };
        let update = Update::Modify(Entity::DirectCounter(missing));
        assert_eq!(refusal(&session, update).await, Code::NotFound);
        let update = Update::Insert(Entity::DirectCounter(counter(None)));
        assert_eq!(refusal(&session, update).await, Code::InvalidArgument);

        let config = MeterConfig {
            committed_rate: 1000,
            committed_burst: 100,
            peak_rate: 2000,
            peak_burst: 200,
        };
        let mut route = TableEntry::new("routes")
            .matching("dst", Match::lpm(address(0), 24))
            .call("drop", NONE);
        route.meter = Some(config);
        insert(&session, route.clone()).await;
        assert_eq!(
            session.read_table(Some("routes")).await,
            Ok(vec![full(&route)])
        );
        let meter = |config| DirectMeterEntry {
            table: "IngressImpl.routes".into(),
            key: route.key.clone(),
            config,
        };
        assert_eq!(
            read(&session, meter(None)).await,
            [Entity::DirectMeter(meter(Some(config)))]
        );
        modify(&session, meter(None)).await;
        assert_eq!(
            read(&session, meter(None)).await,
            [Entity::DirectMeter(meter(None))]
        );
        let mut with_counter = route.clone();
        with_counter.counter = Some(CounterData::default());
        let update = Update::Modify(Entity::Table(with_counter));
        assert_eq!(refusal(&session, update).await, Code::InvalidArgument);
    });
}

#[test]
fn action_profiles_members_groups_and_one_shots() {
    run(async {
        let switch = TestSwitch::start().await;
        let session = switch.primary().await;
        let member = |member, port: u32| ActionProfileMember {
            profile: "IngressImpl.ecmp_selector".into(),
            member,
            call: Some(ActionCall::new("IngressImpl.forward", [("port", port)])),
        };
        insert(&session, member(1, 1)).await;
        insert(&session, member(2, 2)).await;
        modify(&session, member(2, 3)).await;
        let group = |members: &[u32]| ActionProfileGroup {
            profile: "IngressImpl.ecmp_selector".into(),
            group: 9,
            members: members
                .iter()
                .map(|member| GroupMember {
                    member: *member,
                    weight: 1,
                    watch_port: None,
                })
                .collect(),
            max_size: 4,
        };
        insert(&session, group(&[1, 2])).await;
        assert_eq!(
            read(&session, group(&[])).await,
            [Entity::ActionProfileGroup(group(&[1, 2]))]
        );
        assert_eq!(
            read(&session, member(2, 0)).await,
            [Entity::ActionProfileMember(member(2, 3))]
        );
        let update = Update::Insert(Entity::ActionProfileGroup(ActionProfileGroup {
            group: 10,
            ..group(&[77])
        }));
        assert_eq!(refusal(&session, update).await, Code::NotFound);

        let entry = TableEntry::new("ecmp")
            .matching("dst", Match::lpm(address(0), 24))
            .with_action(TableAction::Group(9));
        insert(&session, entry.clone()).await;
        assert_eq!(
            session.read_table(Some("ecmp")).await,
            Ok(vec![full(&entry)])
        );
        let update = Update::Delete(Entity::ActionProfileGroup(group(&[])));
        assert_eq!(refusal(&session, update).await, Code::FailedPrecondition);
        let update = Update::Delete(Entity::ActionProfileMember(member(1, 0)));
        assert_eq!(refusal(&session, update).await, Code::FailedPrecondition);
        let update = Update::Insert(Entity::Table(
            TableEntry::new("ecmp")
                .matching("dst", Match::lpm(address(1), 32))
                .with_action(TableAction::Member(99)),
        ));
        assert_eq!(refusal(&session, update).await, Code::NotFound);

        let weighted = |port: u32, weight| WeightedCall {
            call: ActionCall::new("IngressImpl.forward", [("port", port)]),
            weight,
            watch_port: Some(port),
        };
        let one_shot =
            entry.with_action(TableAction::OneShot(vec![weighted(1, 2), weighted(5, 1)]));
        modify(&session, one_shot.clone()).await;
        assert_eq!(
            session.read_table(Some("ecmp")).await,
            Ok(vec![full(&one_shot)])
        );
        let delete = [
            Update::Delete(Entity::ActionProfileGroup(group(&[]))),
            Update::Delete(Entity::ActionProfileMember(member(1, 0))),
            Update::Delete(Entity::ActionProfileMember(member(2, 0))),
        ];
        session
            .write(&delete)
            .await
            .expect("nothing uses them any more");
    });
}

#[test]
fn counters_meters_and_registers() {
    run(async {
        let switch = TestSwitch::start().await;
        let session = switch.primary().await;
        switch.receive(3, &ipv4_frame(address(1), address(2), 6));
        let counters = session
            .read_counter("port_counter")
            .await
            .expect("a counter");
        assert_eq!(counters.len(), 512);
        let expected = CounterData {
            packets: 1,
            bytes: 34,
        };
        assert_eq!(counters[3], (3, expected));
        let counter = |index, data| CounterEntry {
            counter: "IngressImpl.port_counter".into(),
            index,
            data,
        };
        modify(&session, counter(Some(511), Some(expected))).await;
        let read_back = read(&session, counter(Some(511), None)).await;
        assert_eq!(
            read_back,
            [Entity::Counter(counter(Some(511), Some(expected)))]
        );
        modify(&session, counter(None, Some(CounterData::default()))).await;
        let counters = session
            .read_counter("port_counter")
            .await
            .expect("a counter");
        assert!(
            counters
                .iter()
                .all(|(_, data)| *data == CounterData::default())
        );
        let update = Update::Modify(Entity::Counter(counter(Some(512), Some(expected))));
        assert_eq!(refusal(&session, update).await, Code::OutOfRange);

        let meter = |index, config| MeterEntry {
            meter: "IngressImpl.port_meter".into(),
            index,
            config,
        };
        let config = MeterConfig {
            committed_rate: 10,
            committed_burst: 1,
            peak_rate: 20,
            peak_burst: 2,
        };
        modify(&session, meter(Some(4), Some(config))).await;
        let meters = read(&session, meter(None, None)).await;
        assert_eq!(meters.len(), 16);
        assert_eq!(meters[4], Entity::Meter(meter(Some(4), Some(config))));
        assert_eq!(meters[5], Entity::Meter(meter(Some(5), None)));

        let source = Bytestring::from([2, 0, 0, 0, 0, 0x55]);
        let registers = session
            .read_register("last_source")
            .await
            .expect("a register");
        assert_eq!(registers.len(), 32);
        assert_eq!(registers[3], (3, DataValue::Bits(source)));
        let register = |index, value: u64| RegisterEntry {
            register: "IngressImpl.last_source".into(),
            index,
            data: Some(DataValue::Bits(Bytestring::from(value))),
        };
        modify(&session, register(Some(3), 0xffff_ffff_ffff)).await;
        modify(&session, register(Some(31), 1)).await;
        let read_back = read(&session, register(Some(3), 0)).await;
        assert_eq!(
            read_back,
            [Entity::Register(register(Some(3), 0xffff_ffff_ffff))]
        );
        modify(&session, register(None, 8)).await;
        let registers = session
            .read_register("last_source")
            .await
            .expect("a register");
        assert!(
            registers
                .iter()
                .all(|(_, data)| *data == DataValue::Bits(Bytestring::from(8_u8)))
        );
        let update = Update::Modify(Entity::Register(register(Some(32), 1)));
        assert_eq!(refusal(&session, update).await, Code::OutOfRange);
        let update = Update::Insert(Entity::Register(register(Some(1), 1)));
        assert_eq!(refusal(&session, update).await, Code::InvalidArgument);
    });
}

#[test]
fn multicast_groups_and_clone_sessions() {
    run(async {
        let switch = TestSwitch::start().await;
        let session = switch.primary().await;
        let group = |group, ports: &[u32]| MulticastGroup {
            group,
            replicas: ports
                .iter()
                .map(|port| Replica {
                    port: *port,
                    instance: 1,
                })
                .collect(),
            metadata: vec![7],
        };
        insert(&session, group(5, &[1, 2])).await;
        insert(&session, group(6, &[1])).await;
        modify(&session, group(5, &[1, 2, 3])).await;
        let read_back = read(&session, group(5, &[])).await;
        assert_eq!(read_back, [Entity::MulticastGroup(group(5, &[1, 2, 3]))]);
        assert_eq!(read(&session, group(0, &[])).await.len(), 2);
        let update = Update::Insert(Entity::MulticastGroup(group(7, &[1, 1])));
        assert_eq!(refusal(&session, update).await, Code::InvalidArgument);
        let update = Update::Insert(Entity::MulticastGroup(group(0, &[1])));
        assert_eq!(refusal(&session, update).await, Code::InvalidArgument);
        let delete = [Update::Delete(Entity::MulticastGroup(group(5, &[])))];
        session.write(&delete).await.expect("it was there");
        assert_eq!(read(&session, group(0, &[])).await.len(), 1);

        let clones = |session, ports: &[u32]| CloneSession {
            session,
            replicas: group(1, ports).replicas,
            class_of_service: 2,
            packet_length_bytes: 64,
        };
        insert(&session, clones(7, &[4])).await;
        assert_eq!(
            read(&session, clones(0, &[])).await,
            [Entity::CloneSession(clones(7, &[4]))]
        );
        let update = Update::Insert(Entity::CloneSession(clones(7, &[4])));
        assert_eq!(refusal(&session, update).await, Code::AlreadyExists);
        let delete = [Update::Delete(Entity::CloneSession(clones(7, &[])))];
        session.write(&delete).await.expect("it was there");
        assert_eq!(read(&session, clones(0, &[])).await, []);
    });
}

#[test]
fn value_sets_and_digests() {
    run(async {
        let switch = TestSwitch::start().await;
        let session = switch.primary().await;
        let info = session.info().expect("a pipeline").clone();
        let declared = info
            .value_sets()
            .iter()
            .next()
            .expect("the program has one");
        let field = declared.fields[0].name.clone();
        let set = |types: &[u16]| ValueSetEntry {
            value_set: declared.preamble.name.clone(),
            members: types
                .iter()
                .map(|number| vec![(field.clone(), Match::exact(*number))])
                .collect(),
        };
        modify(&session, set(&[0x9100, 0x88a8])).await;
        assert_eq!(
            read(&session, set(&[])).await,
            [Entity::ValueSet(set(&[0x9100, 0x88a8]))]
        );
        let update = Update::Modify(Entity::ValueSet(set(&[1, 1])));
        assert_eq!(refusal(&session, update).await, Code::AlreadyExists);
        let update = Update::Modify(Entity::ValueSet(set(&[1, 2, 3, 4, 5])));
        assert_eq!(refusal(&session, update).await, Code::ResourceExhausted);
        let update = Update::Insert(Entity::ValueSet(set(&[1])));
        assert_eq!(refusal(&session, update).await, Code::InvalidArgument);

        let digest = |max_list_size| DigestEntry {
            digest: "learned_t".into(),
            config: Some(DigestConfig {
                max_timeout: Duration::from_secs(1),
                max_list_size,
                ack_timeout: Duration::from_secs(2),
            }),
        };
        assert_eq!(read(&session, digest(0)).await, []);
        insert(&session, digest(3)).await;
        modify(&session, digest(4)).await;
        assert_eq!(read(&session, digest(0)).await, [Entity::Digest(digest(4))]);
        let delete = Update::Delete(Entity::Digest(digest(0)));
        session
            .write(std::slice::from_ref(&delete))
            .await
            .expect("it was there");
        assert_eq!(refusal(&session, delete).await, Code::NotFound);
    });
}

#[test]
fn of_a_batch_every_failure_is_named_and_the_rest_is_done() {
    run(async {
        let switch = TestSwitch::start().await;
        let session = switch.primary().await;
        let entry = |last: u64| {
            let entry = TableEntry::new("l2_exact").matching("dst", Match::exact(last));
            Update::Insert(Entity::Table(entry.call("drop", NONE)))
        };
        // More than one request, and two that exist already, in different requests.
        let mut updates: Vec<Update> = (1..=60).map(entry).collect();
        updates.insert(30, entry(1));
        updates.push(entry(60));
        let error = session
            .write(&updates)
            .await
            .expect_err("two are there already");
        let ClientErrorReason::Updates { total, failures } = &*error.reason else {
            panic!("{error}");
        };
        assert_eq!(*total, 62);
        let places: Vec<usize> = failures.iter().map(|failure| failure.position).collect();
        assert_eq!(places, [30, 61]);
        assert!(
            failures
                .iter()
                .all(|failure| failure.code == Code::AlreadyExists)
        );
        assert!(
            error
                .to_string()
                .contains("insert entry of l2_exact: dst = 1"),
            "{error}"
        );
        assert_eq!(
            session
                .read_table(Some("l2_exact"))
                .await
                .expect("a table")
                .len(),
            60
        );
        // The table holds 64.
        let more: Vec<Update> = (61..=66).map(entry).collect();
        let error = session.write(&more).await.expect_err("the table is full");
        assert_eq!(update_code(&error), Code::ResourceExhausted);
    });
}

#[test]
fn tables_can_be_read_by_key_and_action() {
    run(async {
        let switch = TestSwitch::start().await;
        let session = switch.primary().await;
        let entry = |last: u64, action: &str| {
            let entry = TableEntry::new("l2_exact").matching("dst", Match::exact(last));
            if action == "drop" {
                entry.call(action, NONE)
            } else {
                entry.call(action, [("port", 1_u32)])
            }
        };
        for (last, action) in [(1, "drop"), (2, "forward"), (3, "drop")] {
            insert(&session, entry(last, action)).await;
        }
        let info = session.info().expect("a pipeline").clone();
        let by_key = TableEntry::new("l2_exact").matching("dst", Match::exact(2_u64));
        let found = read(&session, by_key).await;
        assert_eq!(found, [Entity::Table(full(&entry(2, "forward")))]);
        let message = info
            .encode_table_entry(&entry(1, "drop"))
            .expect("a good entry");
        let by_action = p4::TableEntry {
            r#match: Vec::new(),
            ..message
        };
        assert_eq!(
            read_message(&session, Message::TableEntry(by_action))
                .await
                .len(),
            2
        );
    });
}
