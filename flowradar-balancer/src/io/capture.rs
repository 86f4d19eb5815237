//! Export datagrams from capture files (pcap, pcapng) and IPFIX files.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use etherparse::{NetSlice, SlicedPacket};
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

use crate::wire::Header;

/// Why a capture cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Opening or reading.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// Not a capture, or damaged.
    #[error("{path}: {reason}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Datagrams of a capture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    /// Exports with their exporters, in order.
    pub exports: Vec<(SocketAddr, Vec<u8>)>,
    /// Packets that are no exports: other protocols, damaged, of unknown link types.
    pub others: u64,
}

/// Packets under reassembly.
const MOST_FRAGMENTED: usize = 64;

impl Capture {
    /// Reads a file: pcap or pcapng, or IPFIX messages back to back.
    ///
    /// # Errors
    ///
    /// See [`CaptureError`].
    pub fn read(path: &Path) -> Result<Self, CaptureError> {
        let failed = |source| CaptureError::Read {
            path: path.to_path_buf(),
            source,
        };
        let mut start = [0; 2];
        let mut file = File::open(path).map_err(failed)?;
        io::Read::read_exact(&mut file, &mut start).map_err(failed)?;
        if start == [0, 10] {
            return Self::read_ipfix(path, &std::fs::read(path).map_err(failed)?);
        }
        let file = File::open(path).map_err(failed)?;
        let format = |reason: String| CaptureError::Format {
            path: path.to_path_buf(),
            reason,
        };
        let mut reader = create_reader(1 << 20, file)
            .map_err(|_| format("neither pcap, pcapng nor IPFIX".to_owned()))?;
        let mut capture = Self::default();
        let mut fragments = HashMap::new();
        let mut links = Vec::new();
        loop {
            match reader.next() {
                Ok((used, block)) => {
                    match &block {
                        PcapBlockOwned::LegacyHeader(header) => links = vec![header.network],
                        PcapBlockOwned::Legacy(packet) => {
                            capture.take(links.first().copied(), packet.data, &mut fragments);
                        }
                        PcapBlockOwned::NG(Block::SectionHeader(_)) => links.clear(),
                        PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                            links.push(interface.linktype);
                        }
                        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                            let length = (packet.caplen as usize).min(packet.data.len());
                            let link = links.get(packet.if_id as usize).copied();
                            capture.take(link, &packet.data[..length], &mut fragments);
                        }
                        PcapBlockOwned::NG(_) => {}
                    }
                    reader.consume(used);
                }
                Err(PcapError::Eof) => return Ok(capture),
                Err(PcapError::Incomplete(_)) => {
                    reader
                        .refill()
                        .map_err(|error| format(format!("{error:?}")))?;
                }
                Err(error) => return Err(format(format!("{error:?}"))),
            }
        }
    }

    fn read_ipfix(path: &Path, bytes: &[u8]) -> Result<Self, CaptureError> {
        let mut capture = Self::default();
        let source = SocketAddr::from(([192, 0, 2, 1], 4739));
        let mut rest = bytes;
        while !rest.is_empty() {
            let header = Header::read(rest).map_err(|error| CaptureError::Format {
                path: path.to_path_buf(),
                reason: format!("message at byte {}: {error}", bytes.len() - rest.len()),
            })?;
            let (message, after) = rest.split_at(header.end.min(rest.len()));
            capture.exports.push((source, message.to_vec()));
            rest = after;
        }
        Ok(capture)
    }

    fn take(
        &mut self,
        link: Option<Linktype>,
        frame: &[u8],
        fragments: &mut HashMap<(IpAddr, u16), Vec<u8>>,
    ) {
        match export(link, frame, fragments) {
            Some(Some(found)) => self.exports.push(found),
            // A fragment that others follow.
            Some(None) => {}
            None => self.others += 1,
        }
    }
}

/// The export in a frame; `Some(None)` for a first or middle fragment.
fn export(
    link: Option<Linktype>,
    frame: &[u8],
    fragments: &mut HashMap<(IpAddr, u16), Vec<u8>>,
) -> Option<Option<(SocketAddr, Vec<u8>)>> {
    let sliced = match link? {
        Linktype::ETHERNET => SlicedPacket::from_ethernet(frame),
        Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 => SlicedPacket::from_ip(frame),
        Linktype::NULL => SlicedPacket::from_ip(frame.get(4..)?),
        Linktype::LINUX_SLL => SlicedPacket::from_ip(frame.get(16..)?),
        _ => return None,
    };
    let sliced = sliced.ok()?;
    let (source, payload, fragment) = match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let is_fragment = header.more_fragments() || header.fragments_offset().value() > 0;
            let fragment = is_fragment.then(|| (header.identification(), header.more_fragments()));
            let payload = ip.payload();
            (payload.ip_number.0 == 17).then_some((
                IpAddr::V4(header.source_addr()),
                payload.payload,
                fragment,
            ))?
        }
        Some(NetSlice::Ipv6(ip)) => {
            let payload = ip.payload();
            (payload.ip_number.0 == 17).then_some((
                IpAddr::V6(ip.header().source_addr()),
                payload.payload,
                None,
            ))?
        }
        _ => return None,
    };
    let udp = match fragment {
        None => payload.to_vec(),
        Some((id, more)) => {
            if fragments.len() >= MOST_FRAGMENTED {
                fragments.clear();
            }
            // Captures of exports hold fragments in order; what is not is no valid export.
            let whole = fragments.entry((source, id)).or_default();
            whole.extend_from_slice(payload);
            if more {
                return Some(None);
            }
            fragments.remove(&(source, id))?
        }
    };
    let port = u16::from_be_bytes(*udp.first_chunk()?);
    let datagram = udp.get(8..)?.to_vec();
    Header::read(&datagram).ok()?;
    Some(Some((SocketAddr::new(source, port), datagram)))
}
