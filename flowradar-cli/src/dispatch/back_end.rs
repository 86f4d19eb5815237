//! Where frames go: pcap files, interfaces, analysis servers.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use flowradar_balancer::dispatch::{EthernetFrame, FrameOutput, VNI_MAX, VXLAN_PORT};
use flowradar_core::packet::LinkType;

use crate::outcome::CommandError;

const BUFFER_BYTES: usize = 1 << 20;
/// Times in nanoseconds (draft-ietf-opsawg-pcap §4).
const NANOSECOND_MAGIC: u32 = 0xa1b2_3c4d;
const SNAP_BYTES: u32 = 262_144;

/// A captured frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Captured<'a> {
    pub(crate) timestamp_ns: u64,
    pub(crate) link_type: LinkType,
    pub(crate) bytes: &'a [u8],
    pub(crate) wire_bytes: u32,
}

/// What the command line says of a back end: `NAME=KIND:TARGET`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BackEndArgument {
    pub(crate) name: String,
    pub(crate) target: Target,
}

/// Where a back end's frames go.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Target {
    Pcap(PathBuf),
    Interface(String),
    Vxlan { address: String, vni: u32 },
}

/// An open back end.
#[derive(Debug)]
pub(crate) enum Output {
    Pcap(PcapFiles),
    Network(Box<FrameOutput>),
}

/// Why a frame was not taken.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Not Ethernet, and no IP packet: it cannot be sent over a network.
    NotEthernet,
    /// The back end is gone, or out of order.
    Failed(io::Error),
}

impl FromStr for BackEndArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?}: write NAME=pcap:FILE, NAME=interface:NAME or \
                 NAME=vxlan:HOST[:PORT][,vni=NUMBER]"
            )
        };
        let (name, target) = text.split_once('=').ok_or_else(wrong)?;
        let (kind, target) = target.split_once(':').ok_or_else(wrong)?;
        if name.is_empty() || target.is_empty() {
            return Err(wrong());
        }
        let target = match kind {
            "pcap" => Target::Pcap(target.into()),
            "interface" => Target::Interface(target.into()),
            "vxlan" => {
                let (address, vni) = match target.split_once(",vni=") {
                    None => (target, 1),
                    Some((address, vni)) => (address, vni.parse().map_err(|_| wrong())?),
                };
                if vni > VNI_MAX {
                    return Err(format!("{text:?}: a VNI is at most {VNI_MAX}"));
                }
                let address = address.to_owned();
                Target::Vxlan { address, vni }
            }
            _ => return Err(wrong()),
        };
        Ok(Self {
            name: name.to_owned(),
            target,
        })
    }
}

impl BackEndArgument {
    /// Opens the back end.
    pub(crate) fn open(&self, overwrite: bool) -> Result<Output, CommandError> {
        let failed =
            |error: io::Error| CommandError::Failed(format!("back end {}: {error}", self.name));
        match &self.target {
            Target::Pcap(path) => Ok(Output::Pcap(PcapFiles::new(path.clone(), overwrite)?)),
            Target::Interface(name) => FrameOutput::interface(name)
                .map(|output| Output::Network(Box::new(output)))
                .map_err(failed),
            Target::Vxlan { address, vni } => resolve(address)
                .and_then(|address| FrameOutput::vxlan(address, *vni))
                .map(|output| Output::Network(Box::new(output)))
                .map_err(failed),
        }
    }
}

impl Output {
    /// Takes a frame; it may be sent later.
    pub(crate) fn push(&mut self, frame: &Captured<'_>) -> Result<(), Refused> {
        match self {
            Self::Pcap(files) => files.write(frame).map_err(Refused::Failed),
            Self::Network(output) => {
                let ethernet =
                    EthernetFrame::of(frame.link_type, frame.bytes).ok_or(Refused::NotEthernet)?;
                output.push(&ethernet).map_err(Refused::Failed)
            }
        }
    }

    /// Sends everything that was taken.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Pcap(files) => files.flush(),
            Self::Network(output) => output.flush(),
        }
    }

    /// Gives up what was taken and not sent; how many frames that were.
    pub(crate) fn discard(&mut self) -> u64 {
        match self {
            Self::Pcap(_) => 0,
            Self::Network(output) => output.discard() as u64,
        }
    }

    /// Frames that were taken and left out because they are too long.
    pub(crate) fn too_long(&self) -> u64 {
        match self {
            Self::Pcap(_) => 0,
            Self::Network(output) => output.too_long(),
        }
    }

    /// Whether it may come back after it failed.
    pub(crate) fn may_recover(&self) -> bool {
        matches!(self, Self::Network(_))
    }
}

/// A pcap file for the frames of one link type, and one more for each other.
///
/// A pcap file has one link type, but a pcapng trace may have several: `server-1.pcap` takes the
/// frames of the first, `server-1.linktype-113.pcap` those of LINKTYPE 113.
#[derive(Debug)]
pub(crate) struct PcapFiles {
    path: PathBuf,
    overwrite: bool,
    first: Option<u32>,
    files: BTreeMap<u32, BufWriter<File>>,
}

impl PcapFiles {
    fn new(path: PathBuf, overwrite: bool) -> Result<Self, CommandError> {
        if !overwrite && path.exists() {
            return Err(CommandError::Usage(format!(
                "{} exists: name another, or use --overwrite",
                path.display()
            )));
        }
        let mut files = Self {
            path,
            overwrite,
            first: None,
            files: BTreeMap::new(),
        };
        // To say at once if it cannot be written.
        let path = files.path.clone();
        files
            .open(&path, link_type_number(LinkType::Ethernet))
            .map_err(CommandError::file("write", &path))?;
        Ok(files)
    }

    fn write(&mut self, frame: &Captured<'_>) -> io::Result<()> {
        let link_type = link_type_number(frame.link_type);
        if self.first != Some(link_type) && !self.files.contains_key(&link_type) {
            self.begin(link_type)?;
        }
        self.first.get_or_insert(link_type);
        let file = (self.files.get_mut(&link_type))
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let captured = u32::try_from(frame.bytes.len()).map_err(io::Error::other)?;
        let seconds = (frame.timestamp_ns / 1_000_000_000) as u32;
        let nanoseconds = (frame.timestamp_ns % 1_000_000_000) as u32;
        for word in [
            seconds,
            nanoseconds,
            captured,
            frame.wire_bytes.max(captured),
        ] {
            file.write_all(&word.to_le_bytes())?;
        }
        file.write_all(frame.bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.files.values_mut().try_for_each(BufWriter::flush)
    }

    /// Begins the file of a link type that has none yet.
    fn begin(&mut self, link_type: u32) -> io::Result<()> {
        if self.first.is_none() {
            // The file was opened for Ethernet, and is empty.
            self.files.clear();
            let path = self.path.clone();
            return self.open(&path, link_type);
        }
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        let path = self
            .path
            .with_file_name(format!("{stem}.linktype-{link_type}.pcap"));
        if !self.overwrite && path.exists() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} exists", path.display()),
            ));
        }
        self.open(&path, link_type)
    }

    fn open(&mut self, path: &Path, link_type: u32) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, file);
        for word in [NANOSECOND_MAGIC, 4 << 16 | 2, 0, 0, SNAP_BYTES, link_type] {
            file.write_all(&word.to_le_bytes())?;
        }
        self.files.insert(link_type, file);
        Ok(())
    }
}

/// The LINKTYPE number that a pcap file says a link type with.
fn link_type_number(link_type: LinkType) -> u32 {
    match link_type {
        LinkType::Ethernet => 1,
        LinkType::RawIpv4 => 228,
        LinkType::RawIpv6 => 229,
        LinkType::LinuxSll => 113,
        LinkType::LinuxSll2 => 276,
        LinkType::Loopback => 0,
        _ => 101,
    }
}

fn resolve(address: &str) -> io::Result<SocketAddr> {
    let resolved = match address.parse::<std::net::IpAddr>() {
        Ok(address) => return Ok((address, VXLAN_PORT).into()),
        Err(_)
            if address
                .rsplit_once(':')
                .is_some_and(|(_, port)| port.parse::<u16>().is_ok()) =>
        {
            address.to_socket_addrs()
        }
        Err(_) => (address, VXLAN_PORT).to_socket_addrs(),
    };
    let not_found = || io::Error::new(io::ErrorKind::NotFound, format!("{address}: no address"));
    resolved?.next().ok_or_else(not_found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{InputFormat, TraceReader};

    #[test]
    fn back_ends_are_written_as_they_are_read() {
        let parse = |text: &str| {
            text.parse::<BackEndArgument>()
                .map(|argument| argument.target)
        };
        assert_eq!(
            parse("a=pcap:x/y.pcap"),
            Ok(Target::Pcap("x/y.pcap".into()))
        );
        assert_eq!(
            parse("a=interface:eth0"),
            Ok(Target::Interface("eth0".into()))
        );
        let vxlan = |address: &str, vni| Target::Vxlan {
            address: address.into(),
            vni,
        };
        assert_eq!(parse("a=vxlan:10.0.0.1"), Ok(vxlan("10.0.0.1", 1)));
        assert_eq!(parse("a=vxlan:[::1]:47,vni=9"), Ok(vxlan("[::1]:47", 9)));
        for wrong in [
            "a",
            "a=b",
            "a=pcap:",
            "=pcap:x",
            "a=vxlan:h,vni=x",
            "a=vxlan:h,vni=16777216",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(resolve("10.0.0.1").expect("an address").port(), VXLAN_PORT);
        assert_eq!(resolve("[::1]:47").expect("an address").port(), 47);
    }

    #[test]
    fn each_link_type_has_a_file_and_times_keep_their_nanoseconds() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("one.pcap");
        let mut files = PcapFiles::new(path.clone(), false).expect("it can be written");
        let packet = [
            0x45, 0, 0, 24, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2,
        ];
        let cooked = [&[0; 14][..], &[8, 0], &packet].concat();
        let timestamp_ns = 1_700_000_000_123_456_789;
        for (link_type, bytes) in [
            (LinkType::RawIp, &packet[..]),
            (LinkType::LinuxSll, &cooked),
            (LinkType::RawIp, &packet),
        ] {
            let frame = Captured {
                timestamp_ns,
                link_type,
                bytes,
                wire_bytes: 99,
            };
            files.write(&frame).expect("it can be written");
        }
        files.flush().expect("it can be written");
        for (name, packets) in [("one.pcap", 2), ("one.linktype-113.pcap", 1)] {
            let path = folder.path().join(name);
            let mut reader = TraceReader::open(path, InputFormat::Pcap).expect("a pcap file");
            let read: Vec<_> = (&mut reader).map(|packet| packet.expect("whole")).collect();
            assert_eq!(read.len(), packets, "{name}");
            assert_eq!(read[0].timestamp_ns, Some(timestamp_ns));
        }
        assert!(
            PcapFiles::new(path, false).is_err(),
            "nothing is overwritten"
        );
    }
}
