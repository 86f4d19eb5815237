//! By the P4Runtime specification (1.5.0), on both targets.

use std::time::Duration;

use bmv2_tests::targets::{Target, TestResult, on_all_targets};
use flowradar_p4::Bytestring;
use flowradar_p4::entity::{
    ActionCall, ActionProfileGroup, ActionProfileMember, CloneSession, CounterData, CounterEntry,
    DigestConfig, DigestEntry, DirectCounterEntry, DirectMeterEntry, Entity, GroupMember, Match,
    MeterConfig, MeterEntry, MulticastGroup, RegisterEntry, Replica, TableAction, TableEntry,
    ValueSetEntry, WeightedCall,
};
use flowradar_p4::p4info::DataValue;
use flowradar_p4::proto::p4::v1 as p4;
use flowradar_p4::proto::p4::v1::entity::Entity as Message;
use flowradar_p4::proto::p4::v1::update::Type;
use tonic::Code;

use crate::packet::{EGRESS_CLONE, INGRESS_CLONE, LENGTH, Met, NOTHING, Packet, REPLICATION};
use crate::subject::Subject;

const NONE: [(&str, u32); 0] = [];

pub(crate) fn exact(key: u8, value: u8) -> TableEntry {
    TableEntry::new("exact_table")
        .matching("key", Match::exact(key))
        .call("exact_value", [("value", value)])
}

pub(crate) fn prefix(key: u8, address: u32, bits: u32, value: u8) -> TableEntry {
    let entry = TableEntry::new("prefix_table").matching("key", Match::exact(key));
    let entry = match bits {
        0 => entry,
        bits => entry.matching("address", Match::lpm(address, bits)),
    };
    entry.call("prefix_value", [("value", value)])
}

/// A field with an empty mask is left out.
pub(crate) fn mask(bits: (u16, u16), key: (u8, u8), priority: i32, value: u8) -> TableEntry {
    let mut entry = TableEntry::new("mask_table").with_priority(priority);
    if bits.1 != 0 {
        entry = entry.matching("bits", Match::ternary(bits.0, bits.1));
    }
    if key.1 != 0 {
        entry = entry.matching("key", Match::ternary(key.0, key.1));
    }
    entry.call("mask_value", [("value", value)])
}

pub(crate) fn range(low: u16, high: u16, priority: i32, value: u8) -> TableEntry {
    let entry = TableEntry::new("range_table").with_priority(priority);
    let entry = match (low, high) {
        (0, u16::MAX) => entry,
        _ => entry.matching("number", Match::range(low, high)),
    };
    entry.call("range_value", [("value", value)])
}

pub(crate) fn option(option: Option<u8>, key: Option<u8>, priority: i32, value: u8) -> TableEntry {
    let mut entry = TableEntry::new("option_table").with_priority(priority);
    for (name, wanted) in [("option", option), ("key", key)] {
        if let Some(wanted) = wanted {
            entry = entry.matching(name, Match::Optional(Bytestring::from(wanted)));
        }
    }
    entry.call("option_value", [("value", value)])
}

fn member(profile: &str, member: u32, call: ActionCall) -> ActionProfileMember {
    ActionProfileMember {
        profile: profile.into(),
        member,
        call: Some(call),
    }
}

pub(crate) fn profile_member(number: u32, value: u8) -> ActionProfileMember {
    member(
        "profile",
        number,
        ActionCall::new("member_value", [("value", value)]),
    )
}

fn group_call(port: u32, value: u8) -> ActionCall {
    ActionCall::new("group_value", [("port", port), ("value", value.into())])
}

pub(crate) fn choice_member(number: u32, port: u32, value: u8) -> ActionProfileMember {
    member("choice", number, group_call(port, value))
}

pub(crate) fn choice_group(group: u32, members: &[(u32, u32)]) -> ActionProfileGroup {
    let members = members.iter().map(|(member, weight)| GroupMember {
        member: *member,
        weight: *weight,
        watch_port: None,
    });
    ActionProfileGroup {
        profile: "choice".into(),
        group,
        members: members.collect(),
        max_size: 8,
    }
}

pub(crate) fn indirect(table: &str, key: u8, action: TableAction) -> TableEntry {
    TableEntry::new(table)
        .matching("key", Match::exact(key))
        .with_action(action)
}

pub(crate) fn multicast(group: u32, replicas: &[(u32, u32)]) -> MulticastGroup {
    MulticastGroup {
        group,
        replicas: replicas_of(replicas),
        metadata: Vec::new(),
    }
}

pub(crate) fn clones(session: u32, replicas: &[(u32, u32)]) -> CloneSession {
    CloneSession {
        session,
        replicas: replicas_of(replicas),
        class_of_service: 0,
        packet_length_bytes: 0,
    }
}

fn replicas_of(replicas: &[(u32, u32)]) -> Vec<Replica> {
    let replicas = replicas.iter().map(|(port, instance)| Replica {
        port: *port,
        instance: *instance,
    });
    replicas.collect()
}

/// The same entity with the names in full, as switches name things.
fn full(mut entry: TableEntry) -> TableEntry {
    entry.table = format!("I.{}", entry.table);
    if let Some(TableAction::Call(call)) = &mut entry.action
        && call.action != "NoAction"
    {
        call.action = format!("I.{}", call.action);
    }
    entry
}

/// The codes of updates, or of bmv2 where it answers otherwise.
struct Codes<'a> {
    subject: &'a mut Subject,
    wrong: Vec<String>,
}

impl<'a> Codes<'a> {
    fn of(subject: &'a mut Subject) -> Self {
        Self {
            subject,
            wrong: Vec::new(),
        }
    }

    /// `bmv2`: what bmv2 answers, against the specification.
    async fn expect_or(&mut self, what: &str, update: p4::Update, code: Code, bmv2: Code) {
        let expected = match self.subject.target {
            Target::Embedded => code,
            Target::Bmv2 => bmv2,
        };
        let actual = self.subject.write(update).await;
        if actual != expected {
            self.wrong
                .push(format!("{what}: expected {expected:?}, is {actual:?}"));
        }
    }

    fn check(self) {
        let target = self.subject.target;
        assert!(
            self.wrong.is_empty(),
            "{target:?}:\n{}",
            self.wrong.join("\n")
        );
    }
}

/// An update whose table entry was changed into what the specification forbids.
fn spoiled(
    subject: &Subject,
    entry: TableEntry,
    spoil: impl FnOnce(&mut p4::TableEntry),
) -> p4::Update {
    let mut update = subject.update(Type::Insert, entry);
    if let Some(Message::TableEntry(entry)) = update
        .entity
        .as_mut()
        .and_then(|entity| entity.entity.as_mut())
    {
        spoil(entry);
    }
    update
}

fn action_of(entry: &mut p4::TableEntry) -> &mut p4::Action {
    match entry
        .action
        .as_mut()
        .and_then(|action| action.r#type.as_mut())
    {
        Some(p4::table_action::Type::Action(action)) => action,
        other => panic!("no action: {other:?}"),
    }
}

/// Sets the first match field.
fn field(entry: &mut p4::TableEntry, kind: p4::field_match::FieldMatchType) {
    entry.r#match[0].field_match_type = Some(kind);
}

#[test]
fn entries_of_every_match_kind_come_and_go() {
    on_all_targets(async |target| {
        let mut subject = Subject::start(target).await?;
        let s = &mut subject;
        let packet = Packet {
            key: 7,
            address: 0x0a01_0203,
            bits: 0x1234,
            number: 100,
            option: 9,
            ..Packet::default()
        };
        assert_eq!(s.met(&packet).await, (1, NOTHING));

        // Exact.
        assert_eq!(s.insert(exact(7, 11)).await, Code::Ok);
        assert_eq!(s.insert(exact(8, 12)).await, Code::Ok);
        assert_eq!(s.met(&packet).await.1.exact, 11);
        assert_eq!(s.modify(exact(7, 13)).await, Code::Ok);
        assert_eq!(s.met(&packet).await.1.exact, 13);
        assert_eq!(s.delete(exact(7, 0)).await, Code::Ok);
        assert_eq!(s.met(&packet).await.1.exact, 0);

        // The longest prefix, whatever came first; none at all is one, too.
        for (bits, value) in [(16, 16), (8, 8), (32, 32), (24, 24), (0, 1)] {
            let address = 0x0a01_0203 & u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            assert_eq!(s.insert(prefix(7, address, bits, value)).await, Code::Ok);
        }
        for (address, value) in [
            (0x0a01_0203, 32),
            (0x0a01_0204, 24),
            (0x0a01_0304, 16),
            (0x0a02_0304, 8),
            (0x0b02_0304, 1),
        ] {
            let packet = Packet {
                address,
                ..packet.clone()
            };
            assert_eq!(s.met(&packet).await.1.prefix, value, "{address:x}");
        }
        let other_key = Packet {
            key: 6,
            ..packet.clone()
        };
        assert_eq!(s.met(&other_key).await.1.prefix, 0);
        assert_eq!(s.delete(prefix(7, 0x0a01_0203, 32, 0)).await, Code::Ok);
        assert_eq!(s.met(&packet).await.1.prefix, 24);
        assert_eq!(s.modify(prefix(7, 0x0a01_0200, 24, 25)).await, Code::Ok);
        assert_eq!(s.met(&packet).await.1.prefix, 25);

        // The highest priority.
        assert_eq!(
            s.insert(mask((0x1000, 0xf000), (0, 0), 10, 1)).await,
            Code::Ok
        );
        assert_eq!(
            s.insert(mask((0x1200, 0xff00), (0, 0), 5, 2)).await,
            Code::Ok
        );
        assert_eq!(s.insert(mask((0, 0), (7, 0xff), 20, 3)).await, Code::Ok);
        assert_eq!(s.met(&packet).await.1.mask, 3);
        assert_eq!(s.met(&other_key).await.1.mask, 1);
        assert_eq!(
            s.delete(mask((0x1000, 0xf000), (0, 0), 10, 0)).await,
            Code::Ok
        );
        assert_eq!(s.met(&other_key).await.1.mask, 2);
        // The same fields with another priority are another entry.
        assert_eq!(s.insert(mask((0, 0), (7, 0xff), 30, 4)).await, Code::Ok);
        assert_eq!(s.met(&packet).await.1.mask, 4);
        assert_eq!(s.modify(mask((0, 0), (7, 0xff), 20, 5)).await, Code::Ok);
        assert_eq!(s.met(&packet).await.1.mask, 4);
        assert_eq!(s.delete(mask((0, 0), (7, 0xff), 30, 0)).await, Code::Ok);
        assert_eq!(s.met(&packet).await.1.mask, 5);

        // Ranges that overlap, and one that holds everything.
        assert_eq!(s.insert(range(0, u16::MAX, 1, 1)).await, Code::Ok);
        assert_eq!(s.insert(range(100, 200, 3, 2)).await, Code::Ok);
        assert_eq!(s.insert(range(150, 300, 2, 3)).await, Code::Ok);
        for (number, value) in [(99, 1), (100, 2), (200, 2), (201, 3), (300, 3), (301, 1)] {
            let packet = Packet {
                number,
                ..packet.clone()
            };
            assert_eq!(s.met(&packet).await.1.range, value, "{number}");
        }
        assert_eq!(s.delete(range(100, 200, 3, 0)).await, Code::Ok);
        let within = Packet {
            number: 150,
            ..packet.clone()
        };
        assert_eq!(s.met(&within).await.1.range, 3);

        // Optional fields.
        assert_eq!(s.insert(option(Some(9), None, 1, 1)).await, Code::Ok);
        assert_eq!(s.insert(option(Some(9), Some(7), 2, 2)).await, Code::Ok);
        assert_eq!(s.insert(option(None, Some(6), 9, 3)).await, Code::Ok);
        assert_eq!(s.met(&packet).await.1.option, 2);
        assert_eq!(s.met(&other_key).await.1.option, 3);
        assert_eq!(s.delete(option(None, Some(6), 9, 0)).await, Code::Ok);
        assert_eq!(s.met(&other_key).await.1.option, 1);

        let table = s.session.read_table(Some("mask_table")).await?;
        let mut expected = [
            full(mask((0x1200, 0xff00), (0, 0), 5, 2)),
            full(mask((0, 0), (7, 0xff), 20, 5)),
        ];
        expected.sort_by_key(|entry| format!("{entry:?}"));
        let mut table = table;
        table.sort_by_key(|entry| format!("{entry:?}"));
        assert_eq!(table, expected);
        Ok(())
    });
}

#[test]
fn default_entries_change() {
    on_all_targets(async |target| {
        let mut subject = Subject::start(target).await?;
        let s = &mut subject;
        let packet = Packet::default();
        let default = |value: u8| {
            TableEntry::default_of("prefix_table").call("prefix_value", [("value", value)])
        };
        assert_eq!(s.modify(default(9)).await, Code::Ok);
        assert_eq!(s.met(&packet).await.1.prefix, 9);
        let none = TableEntry::default_of("prefix_table").call("NoAction", NONE);
        assert_eq!(s.modify(none).await, Code::Ok);
        assert_eq!(s.met(&packet).await.1.prefix, 0);
        assert_eq!(s.modify(default(8)).await, Code::Ok);
        // An entry goes before it.
        assert_eq!(s.insert(prefix(0, 0, 0, 3)).await, Code::Ok);
        assert_eq!(s.met(&packet).await.1.prefix, 3);
        assert_eq!(s.delete(prefix(0, 0, 0, 3)).await, Code::Ok);
        assert_eq!(s.met(&packet).await.1.prefix, 8);
        // Without an action: what the program says.
        let reset = TableEntry::default_of("prefix_table");
        assert_eq!(s.modify(reset).await, Code::Ok);
        assert_eq!(s.met(&packet).await.1.prefix, 0);
        Ok(())
    });
}

#[test]
fn refused_entries() {
    on_all_targets(async |target| {
        let mut subject = Subject::start(target).await?;
        assert_eq!(subject.insert(exact(1, 1)).await, Code::Ok);
        assert_eq!(
            subject.insert(mask((0, 0), (7, 0xff), 1, 3)).await,
            Code::Ok
        );
        let mut updates = Vec::new();
        let s = &subject;
        let mut push = |what, update, code| updates.push((what, update, code));

        let again = s.update(Type::Insert, exact(1, 2));
        push("the same key", again, Code::AlreadyExists);
        let again = s.update(Type::Insert, mask((0, 0), (7, 0xff), 1, 4));
        push("the same key and priority", again, Code::AlreadyExists);
        push(
            "modify what is not there",
            s.update(Type::Modify, exact(2, 2)),
            Code::NotFound,
        );
        push(
            "delete what is not there",
            s.update(Type::Delete, exact(2, 2)),
            Code::NotFound,
        );
        let other_priority = mask((0, 0), (7, 0xff), 2, 3);
        push(
            "delete with another priority",
            s.update(Type::Delete, other_priority),
            Code::NotFound,
        );
        push(
            "no action",
            spoiled(s, exact(3, 3), |entry| entry.action = None),
            Code::InvalidArgument,
        );
        push(
            "priority 0",
            spoiled(s, mask((1, 1), (0, 0), 1, 1), |entry| entry.priority = 0),
            Code::InvalidArgument,
        );
        push(
            "negative priority",
            spoiled(s, mask((1, 1), (0, 0), 1, 1), |entry| entry.priority = -1),
            Code::InvalidArgument,
        );
        push(
            "a priority in an exact table",
            spoiled(s, exact(3, 3), |entry| entry.priority = 1),
            Code::InvalidArgument,
        );
        push(
            "no such table",
            spoiled(s, exact(3, 3), |entry| entry.table_id ^= 1),
            Code::InvalidArgument,
        );
        push(
            "no such action",
            spoiled(s, exact(3, 3), |entry| action_of(entry).action_id ^= 1),
            Code::InvalidArgument,
        );
        let foreign = s.update(Type::Insert, prefix(3, 0, 0, 3));
        let foreign = match foreign.entity.and_then(|entity| entity.entity) {
            Some(Message::TableEntry(entry)) => entry.action,
            other => panic!("no entry: {other:?}"),
        };
        push(
            "another table's action",
            spoiled(s, exact(3, 3), |entry| entry.action = foreign),
            Code::InvalidArgument,
        );
        push(
            "a number too wide",
            spoiled(s, exact(3, 3), |entry| field(entry, exact_bytes(&[1, 0]))),
            Code::OutOfRange,
        );
        push(
            "an empty number",
            spoiled(s, exact(3, 3), |entry| field(entry, exact_bytes(&[]))),
            Code::OutOfRange,
        );
        push(
            "an argument too wide",
            spoiled(s, exact(3, 3), |entry| {
                action_of(entry).params[0].value = vec![1, 0];
            }),
            Code::OutOfRange,
        );
        push(
            "a missing argument",
            spoiled(s, exact(3, 3), |entry| action_of(entry).params.clear()),
            Code::InvalidArgument,
        );
        push(
            "an argument twice",
            spoiled(s, exact(3, 3), |entry| {
                let first = action_of(entry).params[0].clone();
                action_of(entry).params.push(first);
            }),
            Code::InvalidArgument,
        );
        push(
            "no match field",
            spoiled(s, exact(3, 3), |entry| entry.r#match.clear()),
            Code::InvalidArgument,
        );
        push(
            "a match field twice",
            spoiled(s, exact(3, 3), |entry| {
                let first = entry.r#match[0].clone();
                entry.r#match.push(first);
            }),
            Code::InvalidArgument,
        );
        push(
            "no such match field",
            spoiled(s, exact(3, 3), |entry| entry.r#match[0].field_id = 9),
            Code::InvalidArgument,
        );
        push(
            "a match of another kind",
            spoiled(s, exact(3, 3), |entry| field(entry, range_bytes(1, 2))),
            Code::InvalidArgument,
        );
        push(
            "an address with more than its prefix",
            spoiled(s, prefix(3, 0x0a00_0000, 8, 1), |entry| {
                entry.r#match[1].field_match_type = Some(prefix_bytes(0x0a01_0000, 8));
            }),
            Code::InvalidArgument,
        );
        push(
            "an empty prefix",
            spoiled(s, prefix(3, 0x0a00_0000, 8, 1), |entry| {
                entry.r#match[1].field_match_type = Some(prefix_bytes(0, 0));
            }),
            Code::InvalidArgument,
        );
        push(
            "a prefix longer than the field",
            spoiled(s, prefix(3, 0x0a00_0000, 8, 1), |entry| {
                entry.r#match[1].field_match_type = Some(prefix_bytes(0x0a00_0000, 33));
            }),
            Code::InvalidArgument,
        );
        push(
            "a value with more than its mask",
            spoiled(s, mask((1, 1), (0, 0), 1, 1), |entry| {
                field(entry, mask_bytes(3, 1))
            }),
            Code::InvalidArgument,
        );
        push(
            "an empty mask",
            spoiled(s, mask((1, 1), (0, 0), 1, 1), |entry| {
                field(entry, mask_bytes(0, 0))
            }),
            Code::InvalidArgument,
        );
        push(
            "a range from high to low",
            spoiled(s, range(1, 2, 1, 1), |entry| {
                field(entry, range_bytes(2, 1))
            }),
            Code::InvalidArgument,
        );
        push(
            "a range of everything",
            spoiled(s, range(1, 2, 1, 1), |entry| {
                field(entry, range_bytes(0, u16::MAX))
            }),
            Code::InvalidArgument,
        );
        let default =
            || TableEntry::default_of("prefix_table").call("prefix_value", [("value", 1_u8)]);
        push(
            "insert a default",
            s.update(Type::Insert, default()),
            Code::InvalidArgument,
        );
        push(
            "delete a default",
            s.update(Type::Delete, default()),
            Code::InvalidArgument,
        );
        let constant = TableEntry::default_of("mask_table").call("mask_value", [("value", 1_u8)]);
        push(
            "a constant default",
            s.update(Type::Modify, constant),
            Code::PermissionDenied,
        );
        let constant = TableEntry::new("fixed_table")
            .matching("key", Match::exact(2_u8))
            .call("NoAction", NONE);
        push(
            "a constant table",
            s.update(Type::Insert, constant),
            Code::PermissionDenied,
        );
        let existing = TableEntry::new("fixed_table")
            .matching("key", Match::exact(1_u8))
            .call("NoAction", NONE);
        push(
            "a constant entry",
            s.update(Type::Delete, existing),
            Code::PermissionDenied,
        );
        push(
            "an unknown member",
            {
                let entry = indirect("member_table", 1, TableAction::Member(77));
                s.update(Type::Insert, entry)
            },
            Code::NotFound,
        );
        push(
            "an action where members are",
            {
                let entry = indirect("member_table", 1, TableAction::Member(77));
                spoiled(s, entry, |entry| {
                    let (id, _) = member_action(s);
                    entry.action = Some(p4::TableAction {
                        r#type: Some(p4::table_action::Type::Action(p4::Action {
                            action_id: id,
                            params: vec![p4::action::Param {
                                param_id: 1,
                                value: vec![1],
                            }],
                        })),
                    });
                })
            },
            Code::InvalidArgument,
        );
        push(
            "no type of update",
            {
                let mut update = s.update(Type::Insert, exact(3, 3));
                update.r#type = 0;
                update
            },
            Code::InvalidArgument,
        );
        push(
            "no entity",
            p4::Update {
                r#type: Type::Insert as i32,
                entity: None,
            },
            Code::InvalidArgument,
        );

        let mut codes = Codes::of(&mut subject);
        for (what, update, code) in updates {
            let bmv2 = BMV2_ON_ENTRIES.iter().find(|(other, _)| *other == what);
            codes
                .expect_or(what, update, code, bmv2.map_or(code, |(_, code)| *code))
                .await;
        }
        codes.check();
        // Nothing of it was done, but for what bmv2 accepts.
        if target == Target::Embedded {
            for (table, entries) in [("exact_table", 1), ("prefix_table", 0), ("range_table", 0)] {
                assert_eq!(
                    subject.session.read_table(Some(table)).await?.len(),
                    entries,
                    "{table}"
                );
            }
        }
        Ok(())
    });
}

/// Where bmv2 answers otherwise.
const BMV2_ON_ENTRIES: [(&str, Code); 9] = [
    ("negative priority", Code::Unknown),
    ("a number too wide", Code::InvalidArgument),
    ("an empty number", Code::Ok),
    ("an argument too wide", Code::InvalidArgument),
    ("a range of everything", Code::Ok),
    ("a constant table", Code::Unknown),
    ("a constant entry", Code::NotFound),
    ("an unknown member", Code::InvalidArgument),
    ("no entity", Code::Unknown),
];

fn member_action(subject: &Subject) -> (u32, String) {
    let action = subject.info.actions().by_name("member_value");
    let preamble = &action.expect("the program has it").preamble;
    (preamble.id, preamble.name.clone())
}

fn exact_bytes(bytes: &[u8]) -> p4::field_match::FieldMatchType {
    p4::field_match::FieldMatchType::Exact(p4::field_match::Exact {
        value: bytes.to_vec(),
    })
}

fn prefix_bytes(address: u32, prefix_len: i32) -> p4::field_match::FieldMatchType {
    p4::field_match::FieldMatchType::Lpm(p4::field_match::Lpm {
        value: Bytestring::from(address).into_bytes(),
        prefix_len,
    })
}

fn mask_bytes(value: u8, mask: u8) -> p4::field_match::FieldMatchType {
    p4::field_match::FieldMatchType::Ternary(p4::field_match::Ternary {
        value: vec![value],
        mask: vec![mask],
    })
}

fn range_bytes(low: u16, high: u16) -> p4::field_match::FieldMatchType {
    p4::field_match::FieldMatchType::Range(p4::field_match::Range {
        low: Bytestring::from(low).into_bytes(),
        high: Bytestring::from(high).into_bytes(),
    })
}

#[test]
fn a_table_holds_as_many_entries_as_it_says() {
    on_all_targets(async |target| {
        let mut subject = Subject::start(target).await?;
        for key in 1..=16 {
            assert_eq!(subject.insert(exact(key, key)).await, Code::Ok, "{key}");
        }
        let full = match target {
            Target::Embedded => Code::ResourceExhausted,
            Target::Bmv2 => Code::Unknown,
        };
        assert_eq!(subject.insert(exact(17, 17)).await, full);
        assert_eq!(subject.delete(exact(1, 0)).await, Code::Ok);
        assert_eq!(subject.insert(exact(17, 17)).await, Code::Ok);
        let met = subject
            .met(&Packet {
                key: 17,
                ..Packet::default()
            })
            .await;
        assert_eq!(met.1.exact, 17);
        Ok(())
    });
}

#[test]
fn members_and_groups() {
    on_all_targets(async |target| {
        let mut subject = Subject::start(target).await?;
        let s = &mut subject;
        let packet = Packet {
            key: 7,
            ..Packet::default()
        };
        // A profile of single members.
        assert_eq!(s.insert(profile_member(1, 11)).await, Code::Ok);
        let entry = indirect("member_table", 7, TableAction::Member(1));
        assert_eq!(s.insert(entry.clone()).await, Code::Ok);
        assert_eq!(s.met(&packet).await.1.member, 11);
        assert_eq!(s.modify(profile_member(1, 12)).await, Code::Ok);
        assert_eq!(s.met(&packet).await.1.member, 12);
        assert_eq!(s.insert(profile_member(2, 22)).await, Code::Ok);
        let other = indirect("member_table", 7, TableAction::Member(2));
        assert_eq!(s.modify(other).await, Code::Ok);
        assert_eq!(s.met(&packet).await.1.member, 22);

        // A selector: CRC-16/ARC of flow and address, modulo the members by their weights.
        for number in 1..=3 {
            let member = choice_member(number, number, 30 + number as u8);
            assert_eq!(s.insert(member).await, Code::Ok);
        }
        assert_eq!(
            s.insert(choice_group(5, &[(1, 1), (2, 1), (3, 1)])).await,
            Code::Ok
        );
        let entry = indirect("group_table", 7, TableAction::Group(5));
        assert_eq!(s.insert(entry).await, Code::Ok);
        chosen_by_hash(s, &packet, &[(1, 31), (2, 32), (3, 33)]).await;
        assert_eq!(s.modify(choice_group(5, &[(1, 1), (3, 1)])).await, Code::Ok);
        chosen_by_hash(s, &packet, &[(1, 31), (3, 33)]).await;
        assert_eq!(s.modify(choice_member(3, 4, 44)).await, Code::Ok);
        chosen_by_hash(s, &packet, &[(1, 31), (4, 44)]).await;
        // One member of a selector, without a group.
        let entry = indirect("group_table", 7, TableAction::Member(2));
        assert_eq!(s.modify(entry).await, Code::Ok);
        assert_eq!(
            s.met(&packet).await,
            (
                2,
                Met {
                    member: 22,
                    group: 32,
                    ..NOTHING
                }
            )
        );
        let group = s.read(choice_group(5, &[])).await;
        let expected = choice_group(5, &[(1, 1), (3, 1)]);
        let expected = ActionProfileGroup {
            profile: "I.choice".into(),
            ..expected
        };
        assert_eq!(group, Ok(vec![Entity::ActionProfileGroup(expected)]));
        Ok(())
    });
}

/// Packets of several flows go where the hash says.
async fn chosen_by_hash(subject: &mut Subject, packet: &Packet, members: &[(u16, u8)]) {
    for flow in 0..12 {
        let packet = Packet {
            flow,
            ..packet.clone()
        };
        let input = [&flow.to_be_bytes()[..], &packet.address.to_be_bytes()].concat();
        let hash = usize::from(crc16(&input));
        let (port, group) = members[hash % members.len()];
        let (out, met) = subject.met(&packet).await;
        assert_eq!((out, met.group), (port, group), "flow {flow}");
    }
}

/// CRC-16/ARC by its definition, bit by bit.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |mut remainder: u16, byte| {
        remainder ^= u16::from(*byte);
        for _ in 0..8 {
            remainder = remainder >> 1 ^ if remainder & 1 == 1 { 0xa001 } else { 0 };
        }
        remainder
    })
}

#[test]
fn one_shot_groups() {
    on_all_targets(async |target| {
        let mut subject = Subject::start(target).await?;
        let weighted = |port: u32, value: u8| WeightedCall {
            call: group_call(port, value),
            weight: 1,
            watch_port: None,
        };
        let packet = Packet {
            key: 7,
            ..Packet::default()
        };
        let calls = vec![weighted(2, 20), weighted(3, 30)];
        let entry = indirect("group_table", 7, TableAction::OneShot(calls));
        assert_eq!(subject.insert(entry).await, Code::Ok);
        chosen_by_hash(&mut subject, &packet, &[(2, 20), (3, 30)]).await;
        let entry = indirect(
            "group_table",
            7,
            TableAction::OneShot(vec![weighted(4, 40)]),
        );
        assert_eq!(subject.modify(entry.clone()).await, Code::Ok);
        chosen_by_hash(&mut subject, &packet, &[(4, 40)]).await;
        assert_eq!(subject.delete(entry).await, Code::Ok);
        assert_eq!(subject.met(&packet).await, (1, NOTHING));
        Ok(())
    });
}

#[test]
fn refused_members_and_groups() {
    on_all_targets(async |target| {
        let mut subject = Subject::start(target).await?;
        for number in 1..=3 {
            let member = choice_member(number, number, 30 + number as u8);
            assert_eq!(subject.insert(member).await, Code::Ok);
        }
        assert_eq!(
            subject.insert(choice_group(5, &[(1, 1), (2, 1)])).await,
            Code::Ok
        );
        let entry = indirect("group_table", 7, TableAction::Group(5));
        assert_eq!(subject.insert(entry.clone()).await, Code::Ok);
        let s = &subject;
        let updates = vec![
            (
                "the same member",
                s.update(Type::Insert, choice_member(1, 1, 1)),
                Code::AlreadyExists,
            ),
            (
                "modify no member",
                s.update(Type::Modify, choice_member(9, 1, 1)),
                Code::NotFound,
            ),
            (
                "delete no member",
                s.update(Type::Delete, choice_member(9, 1, 1)),
                Code::NotFound,
            ),
            (
                "the same group",
                s.update(Type::Insert, choice_group(5, &[(1, 1)])),
                Code::AlreadyExists,
            ),
            (
                "modify no group",
                s.update(Type::Modify, choice_group(9, &[(1, 1)])),
                Code::NotFound,
            ),
            (
                "delete no group",
                s.update(Type::Delete, choice_group(9, &[])),
                Code::NotFound,
            ),
            (
                "a group of no member",
                s.update(Type::Insert, choice_group(20, &[(77, 1)])),
                Code::NotFound,
            ),
            (
                "a member twice",
                s.update(Type::Insert, choice_group(21, &[(1, 1), (1, 1)])),
                Code::InvalidArgument,
            ),
            (
                "a weight of zero",
                {
                    let mut update = s.update(Type::Insert, choice_group(22, &[(1, 1)]));
                    if let Some(Message::ActionProfileGroup(group)) = update
                        .entity
                        .as_mut()
                        .and_then(|entity| entity.entity.as_mut())
                    {
                        group.members[0].weight = 0;
                    }
                    update
                },
                Code::InvalidArgument,
            ),
            (
                "a group larger than it says",
                s.update(
                    Type::Insert,
                    ActionProfileGroup {
                        max_size: 1,
                        ..choice_group(23, &[(1, 1), (2, 1)])
                    },
                ),
                Code::ResourceExhausted,
            ),
            (
                "a group larger than the program says",
                s.update(
                    Type::Insert,
                    ActionProfileGroup {
                        max_size: 9,
                        ..choice_group(24, &[(1, 1), (2, 1)])
                    },
                ),
                Code::InvalidArgument,
            ),
            (
                "another size than it was made with",
                s.update(
                    Type::Modify,
                    ActionProfileGroup {
                        max_size: 4,
                        ..choice_group(5, &[(1, 1)])
                    },
                ),
                Code::InvalidArgument,
            ),
            (
                "a group without a selector",
                s.update(
                    Type::Insert,
                    ActionProfileGroup {
                        profile: "profile".into(),
                        ..choice_group(25, &[])
                    },
                ),
                Code::InvalidArgument,
            ),
            (
                "an entry of no group",
                {
                    s.update(
                        Type::Insert,
                        indirect("group_table", 8, TableAction::Group(77)),
                    )
                },
                Code::NotFound,
            ),
            (
                "a member in use",
                s.update(Type::Delete, choice_member(1, 1, 1)),
                Code::FailedPrecondition,
            ),
            (
                "a group in use",
                s.update(Type::Delete, choice_group(5, &[])),
                Code::FailedPrecondition,
            ),
        ];
        let after = vec![
            ("the entry", s.update(Type::Delete, entry), Code::Ok),
            (
                "the group",
                s.update(Type::Delete, choice_group(5, &[])),
                Code::Ok,
            ),
            (
                "the member",
                s.update(Type::Delete, choice_member(1, 1, 1)),
                Code::Ok,
            ),
        ];
        let mut codes = Codes::of(&mut subject);
        for (what, update, code) in updates.into_iter().chain(after) {
            let bmv2 = BMV2_ON_PROFILES.iter().find(|(other, _)| *other == what);
            codes
                .expect_or(what, update, code, bmv2.map_or(code, |(_, code)| *code))
                .await;
        }
        codes.check();
        Ok(())
    });
}

/// Where bmv2 answers otherwise.
const BMV2_ON_PROFILES: [(&str, Code); 4] = [
    ("a group without a selector", Code::Ok),
    ("an entry of no group", Code::InvalidArgument),
    ("a member in use", Code::Unknown),
    ("a group in use", Code::Unknown),
];

#[test]
fn multicast_groups_and_clone_sessions() {
    on_all_targets(async |target| {
        let mut subject = Subject::start(target).await?;
        let s = &mut subject;
        let copy = |packet: &Packet, copy, instance| {
            packet.having_met(Met {
                copy,
                instance,
                ..NOTHING
            })
        };
        let sent = Packet {
            op: 1,
            target: 5,
            ..Packet::default()
        };
        assert_eq!(
            s.send(std::slice::from_ref(&sent), 0).await,
            [],
            "no group yet"
        );
        assert_eq!(
            s.insert(multicast(5, &[(2, 20), (3, 30), (2, 21)])).await,
            Code::Ok
        );
        let expected = [
            (2, copy(&sent, REPLICATION, 20)),
            (2, copy(&sent, REPLICATION, 21)),
            (3, copy(&sent, REPLICATION, 30)),
        ];
        assert_eq!(s.send(std::slice::from_ref(&sent), 3).await, expected);
        assert_eq!(s.modify(multicast(5, &[(4, 1)])).await, Code::Ok);
        let expected = [(4, copy(&sent, REPLICATION, 1))];
        assert_eq!(s.send(std::slice::from_ref(&sent), 1).await, expected);
        assert_eq!(
            s.read(multicast(5, &[])).await,
            Ok(vec![Entity::MulticastGroup(multicast(5, &[(4, 1)]))])
        );
        assert_eq!(s.delete(multicast(5, &[])).await, Code::Ok);
        assert_eq!(s.send(std::slice::from_ref(&sent), 0).await, []);

        // A clone of the packet as it came in: egress alone has written into it.
        for (op, kind) in [(2, INGRESS_CLONE), (5, EGRESS_CLONE)] {
            let sent = Packet {
                op,
                target: 9,
                ..Packet::default()
            };
            let original = (1, copy(&sent, 0, 0));
            assert_eq!(
                s.send(std::slice::from_ref(&sent), 1).await,
                std::slice::from_ref(&original)
            );
            assert_eq!(s.insert(clones(9, &[(2, 7)])).await, Code::Ok);
            let met = Met {
                copy: kind,
                instance: 7,
                ..match op {
                    2 => Met::default(),
                    _ => NOTHING,
                }
            };
            let clone = |port, instance| {
                (
                    port,
                    sent.having_met(Met {
                        instance,
                        ..met.clone()
                    }),
                )
            };
            let expected = [original.clone(), clone(2, 7)];
            assert_eq!(
                s.send(std::slice::from_ref(&sent), 2).await,
                expected,
                "op {op}"
            );
            assert_eq!(s.modify(clones(9, &[(3, 1), (4, 2)])).await, Code::Ok);
            let expected = [original, clone(3, 1), clone(4, 2)];
            assert_eq!(
                s.send(std::slice::from_ref(&sent), 3).await,
                expected,
                "op {op}"
            );
            assert_eq!(s.delete(clones(9, &[])).await, Code::Ok);
        }
        // Dropped packets go nowhere.
        assert_eq!(
            s.send(
                &[Packet {
                    op: 4,
                    ..Packet::default()
                }],
                0
            )
            .await,
            []
        );

        assert_eq!(s.insert(multicast(5, &[(1, 1)])).await, Code::Ok);
        assert_eq!(s.insert(clones(5, &[(1, 1)])).await, Code::Ok);
        let s = &subject;
        let updates = vec![
            (
                "the same group",
                s.update(Type::Insert, multicast(5, &[(1, 1)])),
                Code::AlreadyExists,
            ),
            (
                "modify no group",
                s.update(Type::Modify, multicast(6, &[(1, 1)])),
                Code::NotFound,
            ),
            (
                "delete no group",
                s.update(Type::Delete, multicast(6, &[])),
                Code::NotFound,
            ),
            (
                "group 0",
                s.update(Type::Insert, multicast(0, &[(1, 1)])),
                Code::InvalidArgument,
            ),
            (
                "a replica twice",
                s.update(Type::Insert, multicast(7, &[(1, 1), (1, 1)])),
                Code::InvalidArgument,
            ),
            (
                "the same session",
                s.update(Type::Insert, clones(5, &[(1, 1)])),
                Code::AlreadyExists,
            ),
            (
                "modify no session",
                s.update(Type::Modify, clones(6, &[(1, 1)])),
                Code::NotFound,
            ),
            (
                "delete no session",
                s.update(Type::Delete, clones(6, &[])),
                Code::NotFound,
            ),
            (
                "session 0",
                s.update(Type::Insert, clones(0, &[(1, 1)])),
                Code::InvalidArgument,
            ),
        ];
        let mut codes = Codes::of(&mut subject);
        for (what, update, code) in updates {
            let bmv2 = BMV2_ON_COPIES.iter().find(|(other, _)| *other == what);
            codes
                .expect_or(what, update, code, bmv2.map_or(code, |(_, code)| *code))
                .await;
        }
        codes.check();
        Ok(())
    });
}

/// Where bmv2 answers otherwise.
const BMV2_ON_COPIES: [(&str, Code); 0] = [];

#[test]
fn counters() {
    on_all_targets(async |target| {
        let mut subject = Subject::start(target).await?;
        let s = &mut subject;
        let data = |packets| CounterData {
            packets,
            bytes: packets * LENGTH as u64,
        };
        let cell = |index, data| CounterEntry {
            counter: "I.counts".into(),
            index,
            data,
        };
        let packets: Vec<Packet> = [1, 2, 1, 9]
            .map(|cell| Packet {
                cell,
                ..Packet::default()
            })
            .to_vec();
        assert_eq!(s.send(&packets, 4).await.len(), 4);
        let counted = |index, packets| Entity::Counter(cell(Some(index), Some(data(packets))));
        assert_eq!(
            s.read(cell(None, None)).await,
            Ok(vec![
                counted(0, 0),
                counted(1, 2),
                counted(2, 1),
                counted(3, 0)
            ])
        );
        assert_eq!(s.modify(cell(Some(1), Some(data(7)))).await, Code::Ok);
        assert_eq!(s.send(&packets[..1], 1).await.len(), 1);
        assert_eq!(s.read(cell(Some(1), None)).await, Ok(vec![counted(1, 8)]));

        // Direct.
        let entry = exact(7, 1);
        let direct = |data| DirectCounterEntry {
            table: "I.exact_table".into(),
            key: entry.key.clone(),
            data,
        };
        assert_eq!(s.insert(entry.clone()).await, Code::Ok);
        assert_eq!(
            s.read(direct(None)).await,
            Ok(vec![Entity::DirectCounter(direct(Some(data(0))))])
        );
        let hit = Packet {
            key: 7,
            ..Packet::default()
        };
        s.send(&[hit.clone(), hit.clone(), Packet::default()], 3)
            .await;
        assert_eq!(
            s.read(direct(None)).await,
            Ok(vec![Entity::DirectCounter(direct(Some(data(2))))])
        );
        assert_eq!(s.modify(direct(Some(data(40)))).await, Code::Ok);
        s.send(std::slice::from_ref(&hit), 1).await;
        assert_eq!(
            s.read(direct(None)).await,
            Ok(vec![Entity::DirectCounter(direct(Some(data(41))))])
        );
        // With another action the entry counts on.
        assert_eq!(s.modify(exact(7, 2)).await, Code::Ok);
        assert_eq!(
            s.read(direct(None)).await,
            Ok(vec![Entity::DirectCounter(direct(Some(data(41))))])
        );
        // Gone and back, it begins anew.
        assert_eq!(s.delete(entry.clone()).await, Code::Ok);
        assert_eq!(s.insert(entry.clone()).await, Code::Ok);
        assert_eq!(
            s.read(direct(None)).await,
            Ok(vec![Entity::DirectCounter(direct(Some(data(0))))])
        );

        let s = &subject;
        let updates = vec![
            (
                "all cells",
                s.update(Type::Modify, cell(None, Some(data(0)))),
                Code::Ok,
            ),
            (
                "beyond the end",
                s.update(Type::Modify, cell(Some(4), Some(data(0)))),
                Code::OutOfRange,
            ),
            (
                "a negative index",
                {
                    let mut update = s.update(Type::Modify, cell(Some(1), Some(data(0))));
                    if let Some(Message::CounterEntry(entry)) = update
                        .entity
                        .as_mut()
                        .and_then(|entity| entity.entity.as_mut())
                    {
                        entry.index = Some(p4::Index { index: -1 });
                    }
                    update
                },
                Code::InvalidArgument,
            ),
            (
                "insert a cell",
                s.update(Type::Insert, cell(Some(1), Some(data(0)))),
                Code::InvalidArgument,
            ),
            (
                "delete a cell",
                s.update(Type::Delete, cell(Some(1), Some(data(0)))),
                Code::InvalidArgument,
            ),
            (
                "insert a direct counter",
                s.update(Type::Insert, direct(Some(data(0)))),
                Code::InvalidArgument,
            ),
            (
                "the direct counter of no entry",
                {
                    let missing = DirectCounterEntry {
                        key: exact(9, 0).key,
                        ..direct(Some(data(0)))
                    };
                    s.update(Type::Modify, missing)
                },
                Code::NotFound,
            ),
        ];
        let mut codes = Codes::of(&mut subject);
        for (what, update, code) in updates {
            let bmv2 = BMV2_ON_COUNTERS.iter().find(|(other, _)| *other == what);
            codes
                .expect_or(what, update, code, bmv2.map_or(code, |(_, code)| *code))
                .await;
        }
        codes.check();
        Ok(())
    });
}

/// Where bmv2 answers otherwise.
const BMV2_ON_COUNTERS: [(&str, Code); 4] = [
    ("all cells", Code::Unimplemented),
    ("beyond the end", Code::Unknown),
    ("delete a cell", Code::Ok),
    ("the direct counter of no entry", Code::InvalidArgument),
];

#[test]
fn meters() {
    on_all_targets(async |target| {
        let mut subject = Subject::start(target).await?;
        let s = &mut subject;
        // Rates of zero: only the bursts matter, so that time does not.
        let config = MeterConfig {
            committed_rate: 0,
            committed_burst: 2,
            peak_rate: 0,
            peak_burst: 4,
        };
        let cell = |index, config| MeterEntry {
            meter: "I.rates".into(),
            index,
            config,
        };
        let packet = Packet {
            cell: 2,
            ..Packet::default()
        };
        assert_eq!(s.met(&packet).await.1.color, 0, "not configured: green");
        assert_eq!(s.modify(cell(Some(2), Some(config))).await, Code::Ok);
        for color in [0, 0, 1, 1, 2, 2] {
            assert_eq!(s.met(&packet).await.1.color, color);
        }
        let other = Packet {
            cell: 1,
            ..Packet::default()
        };
        assert_eq!(s.met(&other).await.1.color, 0);
        assert_eq!(
            s.read(cell(Some(2), None)).await,
            Ok(vec![Entity::Meter(cell(Some(2), Some(config)))])
        );
        // Configured again, it begins with full buckets; unset, everything is green.
        assert_eq!(s.modify(cell(Some(2), Some(config))).await, Code::Ok);
        assert_eq!(s.met(&packet).await.1.color, 0);
        assert_eq!(s.modify(cell(Some(2), None)).await, Code::Ok);
        for _ in 0..6 {
            assert_eq!(s.met(&packet).await.1.color, 0);
        }

        // Direct.
        let entry = TableEntry::new("metered_table")
            .matching("cell", Match::exact(3_u8))
            .call("metered", NONE);
        let direct = |config| DirectMeterEntry {
            table: "I.metered_table".into(),
            key: entry.key.clone(),
            config,
        };
        let packet = Packet {
            cell: 3,
            ..Packet::default()
        };
        assert_eq!(s.met(&packet).await.1.entry_color, 3, "no entry");
        assert_eq!(s.insert(entry.clone()).await, Code::Ok);
        assert_eq!(s.met(&packet).await.1.entry_color, 0);
        assert_eq!(s.modify(direct(Some(config))).await, Code::Ok);
        for color in [0, 0, 1, 1, 2, 2] {
            assert_eq!(s.met(&packet).await.1.entry_color, color);
        }
        assert_eq!(
            s.read(direct(None)).await,
            Ok(vec![Entity::DirectMeter(direct(Some(config)))])
        );
        assert_eq!(s.modify(direct(None)).await, Code::Ok);
        assert_eq!(s.met(&packet).await.1.entry_color, 0);
        assert_eq!(s.delete(entry.clone()).await, Code::Ok);
        assert_eq!(s.met(&packet).await.1.entry_color, 3);
        let metered = TableEntry {
            meter: Some(config),
            ..entry.clone()
        };
        assert_eq!(s.insert(metered).await, Code::Ok);
        for color in [0, 0, 1, 1, 2, 2] {
            assert_eq!(s.met(&packet).await.1.entry_color, color);
        }

        let s = &subject;
        let updates = vec![
            (
                "beyond the end",
                s.update(Type::Modify, cell(Some(4), Some(config))),
                Code::OutOfRange,
            ),
            (
                "insert a meter",
                s.update(Type::Insert, cell(Some(1), Some(config))),
                Code::InvalidArgument,
            ),
            (
                "delete a meter",
                s.update(Type::Delete, cell(Some(1), Some(config))),
                Code::InvalidArgument,
            ),
            (
                "a committed rate above the peak",
                s.update(
                    Type::Modify,
                    cell(
                        Some(1),
                        Some(MeterConfig {
                            committed_rate: 2,
                            peak_rate: 1,
                            ..config
                        }),
                    ),
                ),
                Code::InvalidArgument,
            ),
            (
                "the direct meter of no entry",
                {
                    let missing =
                        TableEntry::new("metered_table").matching("cell", Match::exact(9_u8));
                    let missing = DirectMeterEntry {
                        key: missing.key,
                        ..direct(Some(config))
                    };
                    s.update(Type::Modify, missing)
                },
                Code::NotFound,
            ),
        ];
        let mut codes = Codes::of(&mut subject);
        for (what, update, code) in updates {
            let bmv2 = BMV2_ON_METERS.iter().find(|(other, _)| *other == what);
            codes
                .expect_or(what, update, code, bmv2.map_or(code, |(_, code)| *code))
                .await;
        }
        codes.check();
        Ok(())
    });
}

/// Where bmv2 answers otherwise.
const BMV2_ON_METERS: [(&str, Code); 3] = [
    ("beyond the end", Code::Unknown),
    ("a committed rate above the peak", Code::Unknown),
    ("the direct meter of no entry", Code::InvalidArgument),
];

#[test]
fn digests() {
    on_all_targets(async |target| {
        let mut subject = Subject::start(target).await?;
        let s = &mut subject;
        let entry = |config| DigestEntry {
            digest: "seen_t".into(),
            config,
        };
        let config = |max_list_size| DigestConfig {
            max_timeout: Duration::ZERO,
            max_list_size,
            ack_timeout: Duration::from_secs(100),
        };
        let packet = |address| Packet {
            op: 3,
            address,
            number: 0x1234,
            ..Packet::default()
        };
        // Nobody has asked for them.
        s.send(&[packet(1)], 1).await;
        assert!(s.is_silent().await);
        assert_eq!(s.insert(entry(Some(config(1)))).await, Code::Ok);
        s.send(&[packet(1)], 1).await;
        let list = s.digests().await.ok_or("no digest came")?;
        assert_eq!(members(&list), [[vec![1], vec![0x12, 0x34], vec![1]]]);
        // An equal one is suppressed until it is acknowledged; another is not.
        s.send(&[packet(1)], 1).await;
        assert!(s.is_silent().await);
        s.send(&[packet(0x0a00_0000)], 1).await;
        let other = s.digests().await.ok_or("no digest came")?;
        assert_eq!(members(&other)[0][0], [0x0a, 0, 0, 0]);
        s.session.acknowledge(&list).await?;
        // The acknowledgement goes another way than packets.
        tokio::time::sleep(Duration::from_millis(100)).await;
        s.send(&[packet(1)], 1).await;
        let again = s.digests().await.ok_or("no digest came")?;
        assert_eq!(members(&again), members(&list));
        // Lists of two.
        let waiting = DigestConfig {
            max_timeout: Duration::from_secs(100),
            ..config(2)
        };
        assert_eq!(s.modify(entry(Some(waiting))).await, Code::Ok);
        s.send(&[packet(3)], 1).await;
        assert!(s.is_silent().await);
        s.send(&[packet(4)], 1).await;
        let two = s.digests().await.ok_or("no digest came")?;
        assert_eq!([&members(&two)[0][0], &members(&two)[1][0]], [&[3], &[4]]);
        assert_eq!(s.delete(entry(None)).await, Code::Ok);
        s.send(&[packet(2)], 1).await;
        assert!(s.is_silent().await);

        assert_eq!(s.insert(entry(Some(config(1)))).await, Code::Ok);
        let s = &subject;
        let unknown = |update: p4::Update| {
            let mut update = update;
            if let Some(Message::DigestEntry(entry)) = update
                .entity
                .as_mut()
                .and_then(|entity| entity.entity.as_mut())
            {
                entry.digest_id ^= 1;
            }
            update
        };
        let updates = vec![
            (
                "a digest again",
                s.update(Type::Insert, entry(Some(config(1)))),
                Code::AlreadyExists,
            ),
            (
                "no such digest",
                unknown(s.update(Type::Insert, entry(Some(config(1))))),
                Code::InvalidArgument,
            ),
            (
                "delete a digest",
                s.update(Type::Delete, entry(None)),
                Code::Ok,
            ),
            (
                "delete it again",
                s.update(Type::Delete, entry(None)),
                Code::NotFound,
            ),
            (
                "modify no digest",
                s.update(Type::Modify, entry(Some(config(1)))),
                Code::NotFound,
            ),
        ];
        let mut codes = Codes::of(&mut subject);
        for (what, update, code) in updates {
            let bmv2 = BMV2_ON_DIGESTS.iter().find(|(other, _)| *other == what);
            codes
                .expect_or(what, update, code, bmv2.map_or(code, |(_, code)| *code))
                .await;
        }
        codes.check();
        Ok(())
    });
}

/// Where bmv2 answers otherwise.
const BMV2_ON_DIGESTS: [(&str, Code); 1] = [("no such digest", Code::NotFound)];

/// The values of a list's digests, in the shortest form.
fn members(list: &p4::DigestList) -> Vec<Vec<Vec<u8>>> {
    let bits = |data: &p4::P4Data| match &data.data {
        Some(p4::p4_data::Data::Bitstring(bytes)) => {
            Bytestring::from_be_bytes(bytes).as_bytes().to_vec()
        }
        other => panic!("not a number: {other:?}"),
    };
    let digest = |data: &p4::P4Data| match &data.data {
        Some(p4::p4_data::Data::Struct(members)) => members.members.iter().map(bits).collect(),
        other => panic!("not a struct: {other:?}"),
    };
    list.data.iter().map(digest).collect()
}

#[test]
fn registers_and_value_sets() {
    on_all_targets(async |target| -> TestResult {
        let mut subject = Subject::start(target).await?;
        let s = &mut subject;
        let register = |index, data: Option<u32>| RegisterEntry {
            register: "I.numbers".into(),
            index,
            data: data.map(|data| DataValue::Bits(Bytestring::from(data))),
        };
        let kinds: Vec<u8> = vec![4, 5];
        let set = ValueSetEntry {
            value_set: "P.kinds".into(),
            members: kinds
                .iter()
                .map(|kind| vec![("kinds".into(), Match::exact(*kind))])
                .collect(),
        };
        if target == Target::Bmv2 {
            // Neither is there.
            assert_eq!(
                s.read(register(Some(1), None)).await,
                Err(Code::Unimplemented)
            );
            assert_eq!(
                s.modify(register(Some(1), Some(1))).await,
                Code::Unimplemented
            );
            return Ok(());
        }
        let packet = Packet {
            cell: 1,
            address: 0x0a00_0001,
            kind: 4,
            ..Packet::default()
        };
        assert_eq!(s.met(&packet).await.1.entry_color, 3);
        let cell = |index, data| Entity::Register(register(Some(index), Some(data)));
        assert_eq!(
            s.read(register(Some(1), None)).await,
            Ok(vec![cell(1, 0x0a00_0001)])
        );
        assert_eq!(s.modify(register(Some(1), Some(9))).await, Code::Ok);
        assert_eq!(s.read(register(Some(1), None)).await, Ok(vec![cell(1, 9)]));
        let field = s.info.value_sets().iter().next().ok_or("no value set")?;
        let name = field.fields[0].name.clone();
        let set = ValueSetEntry {
            members: kinds
                .iter()
                .map(|kind| vec![(name.clone(), Match::exact(*kind))])
                .collect(),
            ..set
        };
        assert_eq!(s.modify(set).await, Code::Ok);
        assert_eq!(s.met(&packet).await.1.entry_color, 7);
        assert_eq!(s.met(&Packet { kind: 6, ..packet }).await.1.entry_color, 3);
        Ok(())
    });
}
