//! Updates of a controller: good ones with bytes changed, and any bytes, one after the other; between them
//! packets.
//!
//! A step is a byte that chooses a good update (the highest: any bytes, after their length), how often it is
//! changed, and for each change two bytes of place, one of value.

#![no_main]

#[path = "../../flowradar-switch/tests/messages/mod.rs"]
mod messages;

use std::sync::OnceLock;

use flowradar_p4::proto::p4::v1 as p4;
use flowradar_switch::Timestamp;
use libfuzzer_sys::fuzz_target;
use messages::{DEVICE_ID, frames, info, server, updates, write_request};
use prost::Message;

const ANY_BYTES: u8 = 0xff;
const STEPS_MAX: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    static UPDATES: OnceLock<Vec<p4::Update>> = OnceLock::new();
    let updates = UPDATES.get_or_init(|| updates(&info()));
    let (switch, mut server) = server(updates);
    let mut rest = bytes;
    for step in 0..STEPS_MAX {
        let Some(update) = next_update(&mut rest, updates) else {
            break;
        };
        let now = Timestamp::from_microseconds(step as u64);
        let entity = update.entity.clone();
        if let Err(status) = server.write(&write_request(vec![update]), now) {
            assert!(!status.message().is_empty());
        }
        let read = p4::ReadRequest {
            device_id: DEVICE_ID,
            entities: entity.into_iter().collect(),
            ..p4::ReadRequest::default()
        };
        if let Err(status) = server.read(&read, now) {
            assert!(!status.message().is_empty());
        }
        let frames = frames();
        if let Some(frame) = frames.get(step % frames.len()) {
            switch.receive(1 + step as u16, frame, now);
        }
    }
});

fn next_update(rest: &mut &[u8], updates: &[p4::Update]) -> Option<p4::Update> {
    let choice = *rest.split_off_first()?;
    let length = usize::from(*rest.split_off_first()?);
    if choice == ANY_BYTES {
        let bytes = rest.split_off(..length.min(rest.len()))?;
        return p4::Update::decode(bytes).ok();
    }
    let update = updates.get(usize::from(choice) % updates.len())?;
    let mut encoded = update.encode_to_vec();
    for _ in 0..length % 8 {
        let change = rest.split_off(..3)?;
        let [high, low, value] = change.try_into().ok()?;
        let place = usize::from(u16::from_be_bytes([high, low])) % encoded.len();
        encoded[place] = value;
    }
    // What does not decode any more is done as it was.
    p4::Update::decode(encoded.as_slice())
        .ok()
        .or_else(|| Some(update.clone()))
}
