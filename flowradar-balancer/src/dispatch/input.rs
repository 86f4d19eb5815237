//! Frames from a network interface, through a ring that the kernel fills (packet(7), TPACKET_V3).

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flowradar_core::packet::LinkType;
use netring::Capture;
use socket2::SockRef;

use super::output::interface_index;

/// The ring is handed over in blocks: a frame fits into one, whatever segmentation offload made of it.
const BLOCK_BYTES: usize = 1 << 20;
/// A block that is not full is handed over after this.
const BLOCK_TIMEOUT_MS: u32 = 5;
/// Where an Ethernet frame's VLAN tag is.
const TAG_OFFSET: usize = 12;
const TAG_BYTES: u32 = 4;
const VLAN_ETHERTYPE: u16 = 0x8100;

/// Why frames cannot be received, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// There is no such interface, or it was removed.
    #[error("there is no network interface {0}: ip link lists what there is")]
    NoInterface(String),
    /// Packet sockets are for the privileged.
    #[error("capturing from {0} needs the capability CAP_NET_RAW, which root has")]
    NotPermitted(String),
    /// Frames of an interface that is neither like Ethernet nor plain IP.
    #[error(
        "{interface}: its frames are of type {hardware_type} (ARPHRD), which is not supported; Ethernet, loopback and tunnels of plain IP are"
    )]
    LinkType {
        /// The interface.
        interface: String,
        /// Its type as the kernel numbers it.
        hardware_type: u32,
    },
    /// The operating system's words.
    #[error("{interface}: {reason}")]
    System {
        /// The interface.
        interface: String,
        /// What failed.
        reason: String,
    },
}

/// Receives frames from one interface, in promiscuous mode; not those that this machine itself sends
/// there.
pub struct FrameInput {
    interface: String,
    index: i32,
    capture: Capture,
    link_type: LinkType,
    /// The ring is open a moment before it is bound to the interface. What came until now may be
    /// another's; none once that is over.
    began_ns: Option<u64>,
    statistics: InputStatistics,
}

/// What was received, and what was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InputStatistics {
    /// Frames that the kernel put into the ring.
    pub accepted: u64,
    /// Frames that were taken out of it.
    pub taken: u64,
    /// Frames for which there was no room in it.
    pub dropped: u64,
    /// How often the ring was full.
    pub overflows: u64,
    /// Frames that did not fit a block and were cut off.
    pub cut_off: u64,
}

/// A frame in the ring.
#[derive(Clone, Copy, Debug)]
pub struct InputFrame<'a> {
    /// When the kernel received it, since 1970.
    pub timestamp_ns: u64,
    /// Its length on the wire, VLAN tag included.
    pub wire_bytes: u32,
    bytes: &'a [u8],
    /// The kernel takes the outer VLAN tag out of the frame.
    tag: Option<[u8; TAG_BYTES as usize]>,
}

impl InputFrame<'_> {
    /// Appends the frame as it was on the wire.
    pub fn append_to(&self, buffer: &mut Vec<u8>) {
        match (&self.tag, self.bytes.split_at_checked(TAG_OFFSET)) {
            (Some(tag), Some((addresses, rest))) => {
                buffer.extend_from_slice(addresses);
                buffer.extend_from_slice(tag);
                buffer.extend_from_slice(rest);
            }
            _ => buffer.extend_from_slice(self.bytes),
        }
    }
}

impl FrameInput {
    /// Opens an interface with a ring of about so many bytes, which are locked in memory; fewer if
    /// there are not so many.
    ///
    /// # Errors
    ///
    /// See [`InputError`].
    pub fn open(interface: &str, ring_bytes: usize) -> Result<Self, InputError> {
        let missing = || InputError::NoInterface(interface.to_owned());
        let index = interface_index(interface).map_err(|_| missing())?;
        let link_type = link_type(interface)?;
        let capture = Capture::builder()
            .interface(interface)
            .promiscuous(true)
            .ignore_outgoing(true)
            .fill_rxhash(false)
            .block_size(BLOCK_BYTES)
            .block_count((ring_bytes / BLOCK_BYTES).max(2))
            .block_timeout_ms(BLOCK_TIMEOUT_MS)
            .build()
            .map_err(|error| match error {
                netring::Error::PermissionDenied => InputError::NotPermitted(interface.to_owned()),
                netring::Error::InterfaceNotFound(_) => missing(),
                error => InputError::System {
                    interface: interface.to_owned(),
                    reason: with_causes(&error),
                },
            })?;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(Self {
            interface: interface.to_owned(),
            index,
            capture,
            link_type,
            began_ns: Some(since_1970.unwrap_or_default().as_nanos() as u64),
            statistics: InputStatistics::default(),
        })
    }

    /// What its frames begin with.
    pub fn link_type(&self) -> LinkType {
        self.link_type
    }

    /// Size of the ring in bytes.
    pub fn ring_bytes(&self) -> usize {
        self.capture.ring_len()
    }

    /// Calls with each frame of the next block; waits for it for so long. A link that is down may
    /// come up again: that is waited for.
    ///
    /// # Errors
    ///
    /// [`InputError::NoInterface`] if the interface was removed, [`InputError::System`] otherwise.
    pub fn receive(
        &mut self,
        timeout: Duration,
        each: impl FnMut(InputFrame<'_>),
    ) -> Result<(), InputError> {
        if self.take_block(timeout, each)? {
            return Ok(());
        }
        self.look_for_errors()
    }

    /// Whether there was a block.
    fn take_block(
        &mut self,
        timeout: Duration,
        mut each: impl FnMut(InputFrame<'_>),
    ) -> Result<bool, InputError> {
        let block = self.capture.next_batch_blocking(timeout);
        let block = block.map_err(|error| InputError::System {
            interface: self.interface.clone(),
            reason: with_causes(&error),
        })?;
        let Some(block) = block else {
            return Ok(false);
        };
        for packet in block.iter() {
            self.statistics.taken += 1;
            let timestamp = packet.timestamp();
            let timestamp_ns = u64::from(timestamp.sec) * 1_000_000_000 + u64::from(timestamp.nsec);
            if self.began_ns.is_some_and(|began| timestamp_ns < began) {
                continue;
            }
            self.began_ns = None;
            let status = packet.status();
            self.statistics.cut_off += u64::from(packet.len() < packet.original_len());
            let tag = status.vlan_valid.then(|| {
                let protocol = if status.vlan_tpid_valid {
                    packet.vlan_tpid()
                } else {
                    VLAN_ETHERTYPE
                };
                let tag = u32::from(protocol) << 16 | u32::from(packet.vlan_tci());
                tag.to_be_bytes()
            });
            let tag_bytes = if tag.is_some() { TAG_BYTES } else { 0 };
            each(InputFrame {
                timestamp_ns,
                wire_bytes: packet.original_len() as u32 + tag_bytes,
                bytes: packet.data(),
                tag,
            });
        }
        Ok(true)
    }

    /// What was received so far, as the kernel counts it.
    pub fn statistics(&mut self) -> InputStatistics {
        // Asking sets the kernel's counters back. Its `packets` includes what it dropped.
        if let Ok(new) = self.capture.stats() {
            let statistics = &mut self.statistics;
            statistics.accepted += u64::from(new.packets.saturating_sub(new.drops));
            statistics.dropped += u64::from(new.drops);
            statistics.overflows += u64::from(new.freeze_count);
        }
        self.statistics
    }

    /// A pending error would make each wait end at once.
    fn look_for_errors(&self) -> Result<(), InputError> {
        let error = SockRef::from(&self.capture.as_fd()).take_error();
        let Some(error) = error.ok().flatten() else {
            return Ok(());
        };
        if interface_index(&self.interface).ok() != Some(self.index) {
            return Err(InputError::NoInterface(self.interface.clone()));
        }
        match error.raw_os_error() {
            Some(libc::ENETDOWN) => Ok(()),
            _ => Err(InputError::System {
                interface: self.interface.clone(),
                reason: error.to_string(),
            }),
        }
    }
}

impl std::fmt::Debug for FrameInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameInput")
            .field("interface", &self.interface)
            .field("link_type", &self.link_type)
            .field("statistics", &self.statistics)
            .finish_non_exhaustive()
    }
}

/// What an interface's frames begin with.
fn link_type(interface: &str) -> Result<LinkType, InputError> {
    let read = || -> io::Result<u32> {
        let text = std::fs::read_to_string(format!("/sys/class/net/{interface}/type"))?;
        text.trim().parse().map_err(io::Error::other)
    };
    // Without /sys, as in some containers, Ethernet is the best guess.
    let hardware_type = read().unwrap_or_else(|_| u32::from(libc::ARPHRD_ETHER));
    match u16::try_from(hardware_type) {
        Ok(libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK) => Ok(LinkType::Ethernet),
        Ok(libc::ARPHRD_NONE) => Ok(LinkType::RawIp),
        _ => Err(InputError::LinkType {
            interface: interface.to_owned(),
            hardware_type,
        }),
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_the_wire(bytes: &[u8], tag: Option<[u8; 4]>) -> Vec<u8> {
        let frame = InputFrame {
            timestamp_ns: 0,
            wire_bytes: 0,
            bytes,
            tag,
        };
        let mut buffer = vec![];
        frame.append_to(&mut buffer);
        buffer
    }

    #[test]
    fn a_tag_goes_back_behind_the_addresses() {
        let frame: Vec<u8> = (0..20).collect();
        let tagged = on_the_wire(&frame, Some([0x81, 0, 0x20, 5]));
        let expected = [&frame[..12], &[0x81, 0, 0x20, 5], &frame[12..]].concat();
        assert_eq!(tagged, expected);
        assert_eq!(on_the_wire(&frame, None), frame);
        // Too short for addresses: nothing of it is lost.
        assert_eq!(on_the_wire(&frame[..5], Some([1; 4])), &frame[..5]);
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        for name in ["no such interface", "", "nothing0"] {
            assert!(matches!(
                FrameInput::open(name, 1 << 20),
                Err(InputError::NoInterface(missing)) if missing == name
            ));
        }
    }
}
