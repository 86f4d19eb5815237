//! Descriptions of programs (P4Info), as text and as messages: what is taken reads back.

#![no_main]

use flowradar_p4::P4Info;
use flowradar_p4::proto::p4::config::v1 as config;
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|bytes: &[u8]| {
    let from_text = std::str::from_utf8(bytes).ok().map(P4Info::from_text);
    let from_message = config::P4Info::decode(bytes).ok().map(P4Info::from_message);
    for info in [from_text, from_message].into_iter().flatten() {
        match info {
            Ok(info) => {
                let again = P4Info::from_message(info.message().clone());
                let again = again.expect("it was taken before");
                assert_eq!(again.message(), info.message());
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
});
