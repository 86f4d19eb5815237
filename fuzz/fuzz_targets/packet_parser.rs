//! Frames of every link type: a key, something that is not IP, or an error within the frame.
#![no_main]

use flowradar_core::packet::{LinkType, MalformedReason, Parsed, Ports, parse};
use libfuzzer_sys::fuzz_target;

const LINK_TYPES: [LinkType; 7] = [
    LinkType::Ethernet,
    LinkType::RawIp,
    LinkType::RawIpv4,
    LinkType::RawIpv6,
    LinkType::LinuxSll,
    LinkType::LinuxSll2,
    LinkType::Loopback,
];

// Link type, bytes that were not captured, then the frame.
fuzz_target!(|bytes: &[u8]| {
    let [link_type, missing_high, missing_low, frame @ ..] = bytes else {
        return;
    };
    let link_type = LINK_TYPES[*link_type as usize % LINK_TYPES.len()];
    let missing = u32::from(u16::from_be_bytes([*missing_high, *missing_low]));
    let wire_bytes = frame.len() as u32 + missing;
    let parsed = parse(link_type, frame, wire_bytes);
    if let Err(error) = parsed {
        // An IPv6 extension header that is one too many may begin behind the frame, by its
        // predecessor's length at most.
        let beyond = match error.reason {
            MalformedReason::ExtensionHeaderBeyondDatagram
            | MalformedReason::TooManyExtensionHeaders => 256 * 8,
            _ => 0,
        };
        assert!(error.offset <= frame.len() + beyond, "{error}");
    }
    let is_whole = |ports| matches!(ports, Ports::Read | Ports::NotCarried);
    let is_final = match parsed {
        Ok(Parsed::V4(packet)) => is_whole(packet.ports),
        Ok(Parsed::V6(packet)) => is_whole(packet.ports),
        _ => false,
    };
    // A key that was read in full does not depend on what was captured after it.
    if is_final && missing > 0 {
        let mut longer = frame.to_vec();
        longer.push(0xa5);
        assert_eq!(parse(link_type, &longer, wire_bytes), parsed);
    }
});
