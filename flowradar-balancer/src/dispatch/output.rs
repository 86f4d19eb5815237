//! Sending frames to servers: in VXLAN over UDP, or to a network interface.

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use super::vxlan::{EthernetFrame, VXLAN_HEADER_BYTES, vxlan_header};
use crate::io::sys::{self, SendBatch};

/// Frames that are sent together.
const FRAMES: usize = 256;
/// Bytes that are sent together, about.
const BYTES: usize = 256 << 10;
const SEND_BUFFER_BYTES: usize = 8 << 20;
/// How often a full queue is tried again, and how long in between: a second in all.
const RETRIES: u32 = 20_000;
const RETRY_PAUSE: Duration = Duration::from_micros(50);

/// Sends frames to one server, many with each system call.
pub struct FrameOutput {
    socket: Socket,
    header: Option<[u8; VXLAN_HEADER_BYTES]>,
    /// Runs of datagrams of one length up to this are cut up by the kernel; 0 for frames.
    segment_limit: usize,
    batch: SendBatch,
    bytes: Vec<u8>,
    lengths: Vec<usize>,
    too_long: u64,
}

impl FrameOutput {
    /// Sends VXLAN to an address.
    ///
    /// # Errors
    /// If there is no way to the address.
    pub fn vxlan(address: SocketAddr, vni: u32) -> io::Result<Self> {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        let local: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        socket.bind(&local.into())?;
        socket.connect(&address.into())?;
        let ip_and_udp_bytes = if address.is_ipv6() { 48 } else { 28 };
        let mtu = sys::path_mtu(socket.as_fd(), address.is_ipv6()).unwrap_or(0);
        let segment_limit = mtu.saturating_sub(ip_and_udp_bytes);
        Ok(Self::new(socket, Some(vxlan_header(vni)), segment_limit))
    }

    /// Sends frames to a network interface. Needs the capability `CAP_NET_RAW`.
    ///
    /// # Errors
    /// If there is no such interface, or it may not be opened.
    pub fn interface(name: &str) -> io::Result<Self> {
        let index = interface_index(name)?;
        // Without a protocol nothing is received.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        socket.bind(&link_address(index))?;
        Ok(Self::new(socket, None, 0))
    }

    fn new(socket: Socket, header: Option<[u8; VXLAN_HEADER_BYTES]>, segment_limit: usize) -> Self {
        // The kernel gives what it may; less makes sending wait more often.
        let _ = socket.set_send_buffer_size(SEND_BUFFER_BYTES);
        Self {
            socket,
            header,
            segment_limit,
            batch: SendBatch::new(),
            bytes: Vec::with_capacity(BYTES),
            lengths: Vec::with_capacity(FRAMES),
            too_long: 0,
        }
    }

    /// Takes a frame, and sends what it has if that is much.
    ///
    /// # Errors
    /// As [`FrameOutput::flush`].
    pub fn push(&mut self, frame: &EthernetFrame<'_>) -> io::Result<()> {
        let start = self.bytes.len();
        self.bytes.extend(self.header.iter().flatten());
        frame.append_to(&mut self.bytes);
        self.lengths.push(self.bytes.len() - start);
        if self.lengths.len() >= FRAMES || self.bytes.len() >= BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Frames that were taken but not sent.
    pub fn pending(&self) -> usize {
        self.lengths.len()
    }

    /// Frames that were taken and left out because the interface, or a UDP datagram, holds none so
    /// long: what segmentation offload put together before it was captured.
    pub fn too_long(&self) -> u64 {
        self.too_long
    }

    /// Sends what it has; waits while queues are full, up to a second.
    ///
    /// # Errors
    /// If the server or the interface does not take it. What is then pending stays so, the frame
    /// that was refused first.
    pub fn flush(&mut self) -> io::Result<()> {
        let (mut sent, mut offset) = (0, 0);
        let mut retries = 0;
        let mut outcome = Ok(());
        while sent < self.lengths.len() {
            let lengths = self.lengths[sent..].iter().copied();
            let bytes = &self.bytes[offset..];
            let limit = self.segment_limit;
            match (self.batch).send(self.socket.as_fd(), bytes, lengths, limit) {
                Ok(count) => {
                    let taken = self.lengths.iter().skip(sent).take(count);
                    offset += taken.sum::<usize>();
                    sent += count;
                    retries = 0;
                }
                Err(error) if retries < RETRIES && is_only_full(&error) => {
                    retries += 1;
                    std::thread::sleep(RETRY_PAUSE);
                }
                // The way may have become narrower: then it is the kernel's segments that are too
                // long, and each datagram is fragmented.
                Err(error) if is_too_long(&error) && self.segment_limit > 0 => {
                    self.segment_limit = 0;
                }
                Err(error) if is_too_long(&error) => {
                    self.too_long += 1;
                    offset += self.lengths.get(sent).copied().unwrap_or(0);
                    sent += 1;
                }
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        self.lengths.drain(..sent);
        self.bytes.drain(..offset);
        outcome
    }

    /// Drops what is pending; returns how many frames that were.
    pub fn discard(&mut self) -> usize {
        self.bytes.clear();
        let discarded = self.lengths.len();
        self.lengths.clear();
        discarded
    }
}

fn is_only_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    ) || error.raw_os_error() == Some(libc::ENOBUFS)
}

fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMSGSIZE)
}

pub(super) fn interface_index(name: &str) -> io::Result<i32> {
    let name = CString::new(name)?;
    // SAFETY: the name is a string that ends with a zero byte, and lives as long as the call.
    #[allow(unsafe_code)]
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    match i32::try_from(index) {
        Ok(index) if index > 0 => Ok(index),
        _ => Err(io::Error::last_os_error()),
    }
}

fn link_address(index: i32) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: the storage has room and alignment for every kind of socket address, and all zeros
    // are a valid `sockaddr_ll`.
    #[allow(unsafe_code)]
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = index;
    // SAFETY: the storage holds a `sockaddr_ll`, as its family says, of this length.
    #[allow(unsafe_code)]
    unsafe {
        SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    }
}

impl std::fmt::Debug for FrameOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameOutput")
            .field("socket", &self.socket)
            .field("pending", &self.lengths.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use flowradar_core::packet::LinkType;

    use super::*;

    #[test]
    fn frames_arrive_in_vxlan_whole_and_in_order() {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        receiver
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a timeout can be set");
        let address = receiver.local_addr().expect("it is bound");
        let mut output = FrameOutput::vxlan(address, 7).expect("loopback is there");
        // Runs of one length, which the kernel cuts up, and lengths that are all different.
        let frames: Vec<Vec<u8>> = (0..100_u8)
            .map(|number| {
                let length = if number < 50 {
                    64
                } else {
                    60 + usize::from(number) * 9
                };
                vec![number; length]
            })
            .collect();
        for frame in &frames {
            let frame = EthernetFrame::of(LinkType::Ethernet, frame).expect("Ethernet");
            output.push(&frame).expect("loopback takes it");
        }
        output.flush().expect("loopback takes it");
        assert_eq!(output.pending(), 0);
        let mut buffer = [0; 2000];
        for frame in &frames {
            let length = receiver.recv(&mut buffer).expect("a datagram");
            assert_eq!(&buffer[..8], &vxlan_header(7));
            assert_eq!(&buffer[8..length], &frame[..]);
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_left_out_and_counted() {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        receiver
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a timeout can be set");
        let address = receiver.local_addr().expect("it is bound");
        let mut output = FrameOutput::vxlan(address, 7).expect("loopback is there");
        for (number, length) in [60, 65_507, 61, 65_499].into_iter().enumerate() {
            let frame = vec![number as u8; length];
            let frame = EthernetFrame::of(LinkType::Ethernet, &frame).expect("Ethernet");
            output.push(&frame).expect("loopback takes it");
        }
        output.flush().expect("loopback takes it");
        assert_eq!((output.too_long(), output.pending()), (1, 0));
        let mut buffer = vec![0; 70_000];
        let mut lengths = vec![];
        for _ in 0..3 {
            lengths.push(receiver.recv(&mut buffer).expect("a datagram"));
        }
        assert_eq!(lengths, [68, 69, 65_507]);
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        assert!(FrameOutput::interface("no such interface").is_err());
        assert!(FrameOutput::interface("").is_err());
    }
}
