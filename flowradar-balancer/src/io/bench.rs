//! Load for measuring: made exports, a generator, sinks that cost nothing.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::sys::SendBatch;
use crate::wire::Protocol;

/// Records in each made datagram.
pub const RECORDS: u32 = 30;

/// An endless stream of made exports of one exporter: 30 records each, of many flows.
#[derive(Clone, Debug)]
pub struct Exports {
    datagram: Vec<u8>,
    protocol: Protocol,
    sequence: u32,
    flow: u32,
    record_offset: usize,
    record_len: usize,
    sequence_offset: usize,
}

impl Exports {
    /// NetFlow v5, v9 or IPFIX with the fields of v5; other protocols as v9.
    pub fn new(protocol: Protocol) -> Self {
        let (header_len, sequence_offset) = match protocol {
            Protocol::NetflowV5 => (24, 16),
            Protocol::Ipfix => (16, 8),
            _ => (20, 12),
        };
        let mut datagram = vec![0; header_len];
        let (record_offset, record_len) = if protocol == Protocol::NetflowV5 {
            datagram[1] = 5;
            (header_len, 48)
        } else {
            datagram[1] = if protocol == Protocol::Ipfix { 10 } else { 9 };
            datagram.extend([1, 0]);
            // Set of 30 records of 45 bytes, and 2 bytes of padding.
            datagram.extend((4 + 30 * 45 + 2_u16).to_be_bytes());
            (header_len + 4, 45)
        };
        datagram.resize(record_offset + record_len * RECORDS as usize, 0);
        if protocol == Protocol::NetflowV5 {
            datagram[3] = RECORDS as u8;
        } else {
            datagram.extend([0, 0]);
            if protocol == Protocol::Ipfix {
                let length = (datagram.len() as u16).to_be_bytes();
                datagram[2..4].copy_from_slice(&length);
            } else {
                datagram[3] = RECORDS as u8;
            }
        }
        Self {
            datagram,
            protocol,
            sequence: 0,
            flow: 0,
            record_offset,
            record_len,
            sequence_offset,
        }
    }

    /// The template, which comes first; none for v5.
    pub fn template(&self) -> Option<Vec<u8>> {
        let (header_len, set_id) = match self.protocol {
            Protocol::NetflowV5 => return None,
            Protocol::Ipfix => (16, 2_u8),
            _ => (20, 0),
        };
        // Addresses, ports, protocol, TCP flags, TOS, interfaces, packets, bytes, times, AS numbers: 45
        // bytes.
        let fields: [(u16, u16); 14] = [
            (8, 4),
            (12, 4),
            (7, 2),
            (11, 2),
            (4, 1),
            (6, 1),
            (5, 1),
            (10, 2),
            (14, 2),
            (2, 8),
            (1, 8),
            (22, 4),
            (21, 4),
            (16, 2),
        ];
        let mut message = self.datagram[..header_len].to_vec();
        message.extend([0, set_id]);
        message.extend((8 + 4 * fields.len() as u16).to_be_bytes());
        message.extend([1, 0]);
        message.extend((fields.len() as u16).to_be_bytes());
        for (id, length) in fields {
            message.extend(id.to_be_bytes());
            message.extend(length.to_be_bytes());
        }
        if self.protocol == Protocol::Ipfix {
            let length = (message.len() as u16).to_be_bytes();
            message[2..4].copy_from_slice(&length);
        } else {
            message[3] = 1;
        }
        Some(message)
    }

    /// The next datagram.
    pub fn next_datagram(&mut self) -> &[u8] {
        let (source_place, ports_place) = if self.protocol == Protocol::NetflowV5 {
            (0, 32)
        } else {
            (0, 8)
        };
        for record in self.datagram[self.record_offset..].chunks_exact_mut(self.record_len) {
            self.flow = self.flow.wrapping_add(1);
            let mixed = self.flow.wrapping_mul(0x9e37_79b1);
            record[source_place..source_place + 4]
                .copy_from_slice(&(0x0a00_0000 | mixed >> 8).to_be_bytes());
            record[ports_place..ports_place + 2].copy_from_slice(&(mixed as u16).to_be_bytes());
        }
        self.sequence = self.sequence.wrapping_add(match self.protocol {
            Protocol::NetflowV5 | Protocol::Ipfix => RECORDS,
            _ => 1,
        });
        let place = self.sequence_offset;
        self.datagram[place..place + 4].copy_from_slice(&self.sequence.to_be_bytes());
        &self.datagram
    }
}

/// Sends made exports of so many exporters to a loopback address at a steady rate.
///
/// # Errors
///
/// Of sockets.
pub fn generate(
    to: SocketAddr,
    protocol: Protocol,
    exporters: u32,
    datagrams_per_second: u32,
    time: Duration,
) -> io::Result<u64> {
    let mut sources = Vec::new();
    for number in 0..exporters {
        let socket = UdpSocket::bind((Ipv4Addr::from(0x7f00_0101 + number), 0))?;
        socket.connect(to)?;
        let exports = Exports::new(protocol);
        if let Some(template) = exports.template() {
            socket.send(&template)?;
        }
        sources.push((Socket::from(socket), exports));
    }
    let mut batch = SendBatch::new();
    let mut bytes = Vec::new();
    let mut lengths = Vec::new();
    let started = Instant::now();
    let mut sent = 0_u64;
    let mut turn = 0;
    while started.elapsed() < time {
        let due = (started.elapsed().as_secs_f64() * f64::from(datagrams_per_second)) as u64;
        let count = due.saturating_sub(sent).min(32);
        if count == 0 {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        }
        bytes.clear();
        lengths.clear();
        turn = (turn + 1) % sources.len();
        let (socket, exports) = &mut sources[turn];
        for _ in 0..count {
            let datagram = exports.next_datagram();
            bytes.extend_from_slice(datagram);
            lengths.push(datagram.len());
        }
        // Not as trains: routers send datagrams one by one.
        sent += batch.send(socket.as_fd(), &bytes, lengths.iter().copied(), 0)? as u64;
    }
    Ok(sent)
}

/// A socket that nobody reads: the kernel counts what arrives, and no processor time goes into a
/// receiver.
#[derive(Debug)]
pub struct Sink {
    socket: UdpSocket,
}

impl Sink {
    /// On a port of the kernel's choice.
    ///
    /// # Errors
    ///
    /// Of the socket.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::from(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
        socket.set_recv_buffer_size(2048)?;
        Ok(Self {
            socket: socket.into(),
        })
    }

    /// Where it is.
    ///
    /// # Errors
    ///
    /// Of the socket.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Datagrams that the kernel has thrown away for it: all but the first few.
    ///
    /// # Errors
    ///
    /// If `/proc/net/udp` cannot be read.
    pub fn arrived(&self) -> io::Result<u64> {
        socket_drops(self.address()?)
    }
}

/// The kernel's count of datagrams dropped at the sockets bound to an IPv4 address.
///
/// # Errors
///
/// If `/proc/net/udp` cannot be read.
pub fn socket_drops(address: SocketAddr) -> io::Result<u64> {
    let SocketAddr::V4(address) = address else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    // Addresses are written as numbers of the machine's byte order.
    let wanted = format!(
        "{:08X}:{:04X}",
        u32::from_ne_bytes(address.ip().octets()),
        address.port()
    );
    let table = fs::read_to_string("/proc/net/udp")?;
    let rows = table
        .lines()
        .filter(|line| line.split_whitespace().nth(1) == Some(wanted.as_str()));
    let drops = rows.filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok());
    Ok(drops.sum())
}

/// Processor time, user and system, of processes, as far as they live.
pub fn processor_time(processes: &[u32]) -> Duration {
    // The kernel counts in hundredths of a second for user space, whatever its own ticks are.
    let ticks = processes.iter().filter_map(|process| {
        let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name is in parentheses and may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let user: u64 = fields.get(11)?.parse().ok()?;
        let system: u64 = fields.get(12)?.parse().ok()?;
        Some(user + system)
    });
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

/// A process and all that it started.
pub fn family(process: u32) -> Vec<u32> {
    let mut family = vec![process];
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let process: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
            let parent = text
                .rsplit_once(')')?
                .1
                .split_whitespace()
                .nth(1)?
                .parse()
                .ok()?;
            Some((process, parent))
        })
        .collect();
    let mut next = 0;
    while next < family.len() {
        let parent = family[next];
        family.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(process, _)| *process),
        );
        next += 1;
    }
    family
}
