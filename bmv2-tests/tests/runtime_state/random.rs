//! At random, on both targets at once.

use std::error::Error;
use std::io::Write as _;

use bmv2_tests::targets::{Target, run, targets};
use flowradar_p4::entity::{CounterData, CounterEntry, Entity, TableAction, TableEntry};
use flowradar_p4::proto::p4::v1::update::Type;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use tonic::Code;

use crate::expected::{
    choice_group, choice_member, clones, exact, indirect, mask, multicast, option, prefix,
    profile_member, range,
};
use crate::packet::Packet;
use crate::subject::{PORTS, Subject};

/// How many updates; `FLOWRADAR_RUNTIME_STATE_UPDATES` says another number.
const UPDATES: usize = 400;

/// Packets are sent after so many.
const UPDATES_BETWEEN_PACKETS: usize = 10;

/// Packets at once: fewer than bmv2's capture ring holds.
const PACKETS: usize = 6;

/// Where bmv2 refuses with another code, see docs/switch.md.
const BMV2_CODES: [(Code, Code); 4] = [
    // Where an entry is there already, and its member is not.
    (Code::AlreadyExists, Code::InvalidArgument),
    (Code::FailedPrecondition, Code::Unknown),
    (Code::NotFound, Code::InvalidArgument),
    (Code::ResourceExhausted, Code::Unknown),
];

#[test]
fn both_targets_do_the_same() {
    if targets().len() < 2 {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: updates at random: there is nothing to compare with"
        );
        return;
    }
    if let Err(error) = run(compare()) {
        panic!("{error}");
    }
}

async fn compare() -> Result<(), Box<dyn Error>> {
    let updates = std::env::var("FLOWRADAR_RUNTIME_STATE_UPDATES");
    let updates = updates.map_or(Ok(UPDATES), |updates| updates.parse())?;
    let mut embedded = Subject::start(Target::Embedded).await?;
    let mut bmv2 = Subject::start(Target::Bmv2).await?;
    // Refused groups with members that are not there stay on bmv2, so all are there from the start.
    for member in 1..=4 {
        let member = choice_member(member, 1, member as u8);
        assert_eq!(embedded.insert(member.clone()).await, Code::Ok);
        assert_eq!(bmv2.insert(member).await, Code::Ok);
    }
    let mut choice = Choice(Xoshiro256PlusPlus::seed_from_u64(1));
    let (mut refused, mut sent, mut received) = (0, 0, 0);
    for number in 0..updates {
        let entity = choice.entity();
        let update_type = match &entity {
            Entity::Counter(_) => Type::Modify,
            Entity::ActionProfileMember(member) if member.profile == "choice" => Type::Modify,
            Entity::Table(entry) if is_default(entry) => Type::Modify,
            _ => choice.one_of(&[Type::Insert, Type::Insert, Type::Modify, Type::Delete]),
        };
        let update = embedded.update(update_type, entity.clone());
        let ours = embedded.write(update.clone()).await;
        let theirs = bmv2.write(update).await;
        assert!(
            ours == theirs || BMV2_CODES.contains(&(ours, theirs)),
            "update {number}: {update_type:?} {entity}: {ours:?} is {theirs:?} on bmv2"
        );
        refused += usize::from(ours != Code::Ok);
        if number % UPDATES_BETWEEN_PACKETS != 0 {
            continue;
        }
        let packets: Vec<Packet> = (0..PACKETS).map(|_| choice.packet()).collect();
        let ours = embedded.send(&packets, 0).await;
        let theirs = bmv2.send(&packets, ours.len()).await;
        assert_eq!(ours, theirs, "after update {number}");
        sent += packets.len();
        received += ours.len();
    }
    for wanted in [
        "exact_table",
        "prefix_table",
        "mask_table",
        "range_table",
        "option_table",
    ] {
        let ours = sorted(embedded.session.read_table(Some(wanted)).await?);
        let theirs = sorted(bmv2.session.read_table(Some(wanted)).await?);
        assert_eq!(ours, theirs, "{wanted}");
    }
    for wanted in ["member_table", "group_table"] {
        let ours = sorted(embedded.session.read_table(Some(wanted)).await?);
        let theirs = sorted(bmv2.session.read_table(Some(wanted)).await?);
        assert_eq!(ours, theirs, "{wanted}");
    }
    assert_eq!(
        embedded.session.read_counter("counts").await?,
        bmv2.session.read_counter("counts").await?
    );
    eprintln!("{updates} updates ({refused} refused), {sent} packets in, {received} out: equal");
    Ok(())
}

fn is_default(entry: &TableEntry) -> bool {
    entry.key == TableEntry::default_of("").key
}

fn sorted(mut entries: Vec<TableEntry>) -> Vec<TableEntry> {
    entries.sort_by_key(|entry| format!("{:?}", entry.key));
    entries
}

/// Chooses from few of each kind, so that most exist now and then.
struct Choice(Xoshiro256PlusPlus);

impl Choice {
    fn below(&mut self, bound: u32) -> u32 {
        (self.0.next_u64() % u64::from(bound)) as u32
    }

    fn byte(&mut self) -> u8 {
        self.0.next_u64() as u8
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u32) as usize]
    }

    fn entity(&mut self) -> Entity {
        let value = self.byte();
        match self.below(14) {
            0 => exact(self.below(20) as u8, value).into(),
            1 => {
                let bits = self.one_of(&[0, 1, 8, 9, 16, 24, 31, 32]);
                let address = self.address() & u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                prefix(self.below(2) as u8, address, bits, value).into()
            }
            // Entries that match the same have priorities of their own: which goes first otherwise is
            // nobody's promise.
            2 => {
                let number = self.below(12);
                let bits =
                    [(0, 0), (0x1200, 0xff00), (0x1000, 0xf000), (4, 0x0f)][number as usize % 4];
                let key = [(0, 0), (1, 0xff), (2, 3)][number as usize % 3];
                mask(bits, key, 1 + (number as i32 * 5) % 12, value).into()
            }
            3 => {
                let number = self.below(8);
                let low = number as u16 * 40;
                let high = low + 100;
                range(low, high, 1 + (number as i32 * 3) % 8, value).into()
            }
            4 => {
                let number = self.below(9);
                let wanted = |number: u32| (number > 0).then_some(number as u8);
                let (first, second) = (wanted(number % 3), wanted(number / 3));
                option(first, second, 1 + (number as i32 * 4) % 9, value).into()
            }
            5 => profile_member(1 + self.below(4), value).into(),
            6 => choice_member(1 + self.below(4), 1 + self.below(PORTS.into()), value).into(),
            7 => {
                let set = 1 + self.below(15);
                let members: Vec<(u32, u32)> = (0..4)
                    .filter(|bit| set >> bit & 1 == 1)
                    .map(|bit| (bit + 1, 1))
                    .collect();
                choice_group(1 + self.below(2), &members).into()
            }
            8 => {
                let action = TableAction::Member(1 + self.below(5));
                indirect("member_table", self.below(4) as u8, action).into()
            }
            9 => {
                let action = match self.below(2) {
                    0 => TableAction::Member(1 + self.below(4)),
                    _ => TableAction::Group(1 + self.below(2)),
                };
                indirect("group_table", self.below(4) as u8, action).into()
            }
            10 => multicast(1 + self.below(3), &self.replicas()).into(),
            11 => clones(1 + self.below(3), &self.replicas()).into(),
            12 => TableEntry::default_of("range_table")
                .call("range_value", [("value", value)])
                .into(),
            _ => CounterEntry {
                counter: "counts".into(),
                index: Some(self.below(4).into()),
                data: Some(CounterData {
                    packets: value.into(),
                    bytes: u64::from(value) * 100,
                }),
            }
            .into(),
        }
    }

    fn replicas(&mut self) -> Vec<(u32, u32)> {
        let count = 1 + self.below(3);
        (0..count)
            .map(|instance| (1 + self.below(PORTS.into()), instance))
            .collect()
    }

    fn address(&mut self) -> u32 {
        self.one_of(&[
            0x0a00_0000,
            0x0a01_0000,
            0x0a01_0200,
            0x0a01_0203,
            0x8a01_0203,
        ])
    }

    fn packet(&mut self) -> Packet {
        Packet {
            op: self.one_of(&[0, 0, 1, 2, 4, 5]),
            kind: self.byte(),
            target: self.below(4) as u16,
            key: self.below(20) as u8 % 5,
            cell: self.below(4) as u8,
            address: self.address(),
            bits: self.one_of(&[0x1234, 0x1004, 0x1200, 0x0004]),
            number: self.below(400) as u16,
            flow: self.0.next_u64() as u16,
            option: self.below(3) as u8,
            ..Packet::default()
        }
    }
}
