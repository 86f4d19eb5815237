//! An agent's messages: any bytes, one message after the other, each after its length (two bytes).

#![no_main]

use flowradar_server::ingest::proto::AgentMessage;
use flowradar_server::ingest::{Session, SessionLimits, SessionOutput};
use libfuzzer_sys::fuzz_target;
use prost::Message;

const FLOWSET_BYTES_MAX: u64 = 1 << 16;

fuzz_target!(|bytes: &[u8]| {
    let mut session = Session::new(SessionLimits {
        flowset_bytes_max: FLOWSET_BYTES_MAX,
    });
    let mut rest = bytes;
    let mut next = 1;
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes(*length)).min(after.len());
        let (message, after) = after.split_at(length);
        rest = after;
        let Ok(message) = AgentMessage::decode(message) else {
            continue;
        };
        match session.receive(message) {
            Ok(Some(SessionOutput::Registered(_))) => session.expect(next),
            Ok(Some(SessionOutput::Flowset { sequence, flowset })) => {
                assert_eq!(sequence, next);
                assert!(flowset.as_bytes().len() as u64 <= FLOWSET_BYTES_MAX);
                next += 1;
            }
            Ok(Some(
                SessionOutput::Rejected { sequence, .. } | SessionOutput::Skipped { sequence, .. },
            )) => {
                assert_eq!(sequence, next);
                next += 1;
            }
            Ok(None) => {}
            // The stream is ended.
            Err(_) => return,
        }
    }
});
