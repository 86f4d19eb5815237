//! Whatever a controller sends is done or refused with a reason, and the switch goes on.

mod messages;

use std::sync::OnceLock;

use flowradar_p4::P4Info;
use flowradar_p4::proto::DESCRIPTORS;
use flowradar_p4::proto::google::rpc;
use flowradar_p4::proto::p4::v1 as p4;
use flowradar_switch::server::OfflineServer;
use flowradar_switch::{Switch, Timestamp};
use messages::{DEVICE_ID, frames, info, pipeline_request, server, updates, write_request};
use proptest::prelude::*;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use tonic::{Code, Status};

/// How deep messages are made; deeper than any that P4Runtime needs.
const DEPTH_MAX: u32 = 7;

/// A change of bytes: where, and what to do there.
type Mutation = (prop::sample::Index, u8, u8);

fn program() -> &'static (P4Info, Vec<p4::Update>) {
    static PROGRAM: OnceLock<(P4Info, Vec<p4::Update>)> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let info = info();
        let updates = updates(&info);
        (info, updates)
    })
}

/// Replaces, inserts, removes and repeats bytes.
fn mutate(bytes: &mut Vec<u8>, mutations: &[Mutation]) {
    for (place, kind, value) in mutations {
        if bytes.is_empty() {
            return;
        }
        let place = place.index(bytes.len());
        match kind % 5 {
            0 => bytes[place] = *value,
            1 => bytes[place] ^= 1 << (value % 8),
            2 => bytes.insert(place, *value),
            3 => {
                bytes.remove(place);
            }
            _ => {
                let end = bytes.len().min(place + usize::from(value % 16));
                bytes.extend_from_within(place..end);
            }
        }
    }
}

/// A refusal must say why, and for each update of a batch, whether it was done.
fn check_refusal(status: &Status, updates: usize) {
    assert_ne!(status.code(), Code::Ok);
    assert_ne!(status.code(), Code::Internal, "{status:?}");
    assert!(!status.message().is_empty(), "{status:?}");
    if status.details().is_empty() {
        return;
    }
    let details = rpc::Status::decode(status.details()).expect("the details are a status");
    assert_eq!(details.details.len(), updates);
    for error in &details.details {
        let error = p4::Error::decode(error.value.as_slice()).expect("an error an update");
        let is_done = error.canonical_code == 0;
        assert_ne!(
            error.canonical_code,
            rpc::Code::Internal as i32,
            "{error:?}"
        );
        // Messages are left out of long lists of errors.
        assert!(
            is_done || updates > 8 || !error.message.is_empty(),
            "{error:?}"
        );
    }
}

fn try_write(server: &mut OfflineServer, request: &p4::WriteRequest) {
    if let Err(status) = server.write(request, Timestamp::ZERO) {
        check_refusal(&status, request.updates.len());
    }
}

/// Packets still pass, and everything can be read.
fn check_alive(switch: &Switch, server: &OfflineServer) {
    for (number, frame) in (1..).zip(frames()) {
        let port = if number == 7 {
            messages::CPU_PORT
        } else {
            number
        };
        switch.receive(port, &frame, Timestamp::from_microseconds(1));
    }
    let counters = switch.pipeline().expect("there is one").counters();
    assert!(counters.frames_in >= frames().len() as u64);
    let kinds = program()
        .1
        .iter()
        .filter_map(|update| update.entity.clone());
    let request = p4::ReadRequest {
        device_id: DEVICE_ID,
        entities: kinds.collect(),
        ..p4::ReadRequest::default()
    };
    if let Err(status) = server.read(&request, Timestamp::ZERO) {
        check_refusal(&status, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn good_writes_with_bytes_changed(
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), prop::collection::vec(any::<Mutation>(), 1..6)),
            1..8,
        ),
    ) {
        let updates = &program().1;
        let (switch, mut server) = server(updates);
        for (update, mutations) in &changes {
            let mut bytes = update.get(updates).encode_to_vec();
            mutate(&mut bytes, mutations);
            if let Ok(update) = p4::Update::decode(bytes.as_slice()) {
                // As another update, too.
                for update_type in [update.r#type, 1, 2, 3] {
                    let update = p4::Update { r#type: update_type, ..update.clone() };
                    try_write(&mut server, &write_request(vec![update]));
                }
            }
        }
        check_alive(&switch, &server);
    }

    #[test]
    fn requests_with_bytes_changed(mutations in prop::collection::vec(any::<Mutation>(), 1..8)) {
        let updates = &program().1;
        let (switch, mut server) = server(&[]);
        let mut bytes = write_request(updates.clone()).encode_to_vec();
        mutate(&mut bytes, &mutations);
        if let Ok(request) = p4::WriteRequest::decode(bytes.as_slice()) {
            try_write(&mut server, &request);
        }
        let read = p4::ReadRequest {
            device_id: DEVICE_ID,
            entities: updates.iter().filter_map(|update| update.entity.clone()).collect(),
            ..p4::ReadRequest::default()
        };
        let mut bytes = read.encode_to_vec();
        mutate(&mut bytes, &mutations);
        if let Ok(request) = p4::ReadRequest::decode(bytes.as_slice())
            && let Err(status) = server.read(&request, Timestamp::ZERO)
        {
            check_refusal(&status, 0);
        }
        check_alive(&switch, &server);
    }

    #[test]
    fn messages_that_are_well_formed_and_wild(seed: u64) {
        let mut wild = Wild(Xoshiro256PlusPlus::seed_from_u64(seed));
        let (switch, mut server) = server(&program().1);
        for _ in 0..20 {
            let update: p4::Update = wild.message("p4.v1.Update");
            try_write(&mut server, &write_request(vec![update]));
            let entity: p4::Entity = wild.message("p4.v1.Entity");
            let read = p4::ReadRequest {
                device_id: DEVICE_ID,
                entities: vec![entity],
                ..p4::ReadRequest::default()
            };
            if let Err(status) = server.read(&read, Timestamp::ZERO) {
                check_refusal(&status, 0);
            }
            let packet: p4::PacketOut = wild.message("p4.v1.PacketOut");
            if let Err(status) = server.packet_out(packet, Timestamp::ZERO) {
                check_refusal(&status, 0);
            }
            let ack: p4::DigestListAck = wild.message("p4.v1.DigestListAck");
            if let Err(status) = server.acknowledge(&ack) {
                check_refusal(&status, 0);
            }
        }
        check_alive(&switch, &server);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn programs_with_bytes_changed(mutations in prop::collection::vec(any::<Mutation>(), 1..20)) {
        let (switch, mut server) = server(&program().1);
        let mut request = pipeline_request();
        let config = request.config.as_mut().expect("it has one");
        let mut info = config.p4info.take().expect("it has one").encode_to_vec();
        mutate(&mut info, &mutations);
        config.p4info = flowradar_p4::proto::p4::config::v1::P4Info::decode(info.as_slice()).ok();
        if let Err(status) = server.set_pipeline(request) {
            check_refusal(&status, 0);
            // The old one still runs, with its entries.
            let again = server.write(&write_request(vec![program().1[0].clone()]), Timestamp::ZERO);
            prop_assert!(again.is_err(), "the entry is there");
        }
        check_alive(&switch, &server);
    }
}

/// Makes messages of every type with values that are rarely meant.
struct Wild(Xoshiro256PlusPlus);

impl Wild {
    fn message<M: Message + Default>(&mut self, name: &str) -> M {
        static POOL: OnceLock<DescriptorPool> = OnceLock::new();
        let pool = POOL.get_or_init(|| {
            DescriptorPool::decode(DESCRIPTORS).expect("the build wrote the descriptors")
        });
        let descriptor = pool.get_message_by_name(name).expect("it is P4Runtime's");
        let message = self.dynamic(&descriptor, 0);
        M::decode(message.encode_to_vec().as_slice()).expect("it is well formed")
    }

    fn dynamic(&mut self, descriptor: &MessageDescriptor, depth: u32) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        // Of a oneof, the last that is set stays.
        for field in descriptor.fields() {
            let is_one_of = field.containing_oneof().is_some();
            let is_set = if is_one_of {
                self.below(3) == 0
            } else {
                self.below(5) > 0
            };
            if depth >= DEPTH_MAX || !is_set {
                continue;
            }
            let value = self.field(&field, depth);
            message.set_field(&field, value);
        }
        message
    }

    fn field(&mut self, field: &FieldDescriptor, depth: u32) -> Value {
        if field.is_map() {
            return Value::Map([(MapKey::String(String::new()), Value::U32(0))].into());
        }
        if !field.is_list() {
            return self.value(field, depth);
        }
        let count = self.below(4);
        Value::List((0..count).map(|_| self.value(field, depth)).collect())
    }

    fn value(&mut self, field: &FieldDescriptor, depth: u32) -> Value {
        let number = self.number();
        match field.kind() {
            Kind::Bool => Value::Bool(number & 1 == 1),
            Kind::Bytes => Value::Bytes(self.bytes().into()),
            Kind::Double => Value::F64(f64::from_bits(number)),
            Kind::Enum(kind) => {
                let values: Vec<i32> = kind.values().map(|value| value.number()).collect();
                let any = number as usize % (values.len() + 1);
                Value::EnumNumber(values.get(any).copied().unwrap_or(number as i32))
            }
            Kind::Fixed32 => Value::U32(number as u32),
            Kind::Fixed64 => Value::U64(number),
            Kind::Float => Value::F32(f32::from_bits(number as u32)),
            Kind::Int32 | Kind::Sfixed32 | Kind::Sint32 => Value::I32(number as i32),
            Kind::Int64 | Kind::Sfixed64 | Kind::Sint64 => Value::I64(number as i64),
            Kind::Message(message) => Value::Message(self.dynamic(&message, depth + 1)),
            Kind::String => Value::String(String::from_utf8_lossy(&self.bytes()).into_owned()),
            // Ids above all: of something, mostly.
            Kind::Uint32 => Value::U32(match self.below(3) {
                0 => number as u32,
                _ => self.id(),
            }),
            Kind::Uint64 => Value::U64(number),
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0.next_u64() % bound
    }

    fn number(&mut self) -> u64 {
        let numbers = [
            0,
            1,
            1,
            2,
            3,
            9,
            32,
            33,
            511,
            512,
            1 << 15,
            1 << 16,
            1 << 31,
            1 << 63,
        ];
        match self.below(10) {
            0 => self.0.next_u64(),
            1 => u64::MAX,
            2 => i64::MAX as u64,
            3 => u64::from(u32::MAX),
            _ => numbers[self.below(numbers.len() as u64) as usize],
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = [0, 1, 1, 2, 4, 6, 7, 17, 300][self.below(9) as usize];
        let mut bytes = vec![0; length];
        if self.below(3) > 0 {
            self.0.fill_bytes(&mut bytes);
        }
        bytes
    }

    /// The id of some object of the program, or of a field or parameter.
    fn id(&mut self) -> u32 {
        let message = program().0.message();
        let preambles = [
            message
                .tables
                .iter()
                .filter_map(|object| object.preamble.as_ref())
                .collect::<Vec<_>>(),
            message
                .actions
                .iter()
                .filter_map(|object| object.preamble.as_ref())
                .collect(),
            message
                .action_profiles
                .iter()
                .filter_map(|object| object.preamble.as_ref())
                .collect(),
            message
                .counters
                .iter()
                .filter_map(|object| object.preamble.as_ref())
                .collect(),
            message
                .meters
                .iter()
                .filter_map(|object| object.preamble.as_ref())
                .collect(),
            message
                .registers
                .iter()
                .filter_map(|object| object.preamble.as_ref())
                .collect(),
            message
                .digests
                .iter()
                .filter_map(|object| object.preamble.as_ref())
                .collect(),
            message
                .value_sets
                .iter()
                .filter_map(|object| object.preamble.as_ref())
                .collect(),
        ];
        let ids: Vec<u32> = preambles
            .iter()
            .flatten()
            .map(|preamble| preamble.id)
            .collect();
        match self.below(3) {
            0 => self.below(5) as u32,
            _ => ids[self.below(ids.len() as u64) as usize],
        }
    }
}
