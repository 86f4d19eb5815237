//! Ports on network interfaces: Linux packet sockets (packet(7)).
#![allow(
    unsafe_code,
    reason = "addresses and options of packet sockets have no safe interface"
)]

use std::fs;
use std::io::{self, Read};
use std::mem::{MaybeUninit, size_of};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use super::{FrameBatch, PortCounters, PortReceiver, PortSender};
use crate::pipeline::MAX_FRAME_BYTES;

/// The kernel's buffer for a port: enough for a burst of some 10,000 small frames.
const RECEIVE_BUFFER_BYTES: usize = 16 << 20;

/// Sends frames to a network interface.
#[derive(Debug)]
pub struct InterfaceSender {
    socket: Arc<Socket>,
    counters: PortCounters,
}

/// Receives frames from a network interface, whatever their destination; not those that this machine
/// itself sends there.
#[derive(Debug)]
pub struct InterfaceReceiver {
    socket: Arc<Socket>,
    counters: PortCounters,
    buffer: Vec<u8>,
}

/// Opens a network interface for raw frames, in promiscuous mode. Needs the capability `CAP_NET_RAW`.
///
/// # Errors
///
/// If there is no such interface, or it may not be opened.
pub fn open_interface(name: &str) -> io::Result<(InterfaceSender, InterfaceReceiver)> {
    let explain =
        |error: io::Error| io::Error::new(error.kind(), format!("interface {name}: {error}"));
    let index = interface_index(name).map_err(explain)?;
    // In network byte order, as the kernel wants it.
    let protocol = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
    // The protocol comes with the address: until then nothing is received, from any interface.
    let socket = Socket::new(Domain::PACKET, Type::RAW, None).map_err(explain)?;
    // The kernel gives what it may; less loses more in bursts, which is counted.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    ignore_outgoing(&socket).map_err(explain)?;
    let address = link_address(index, i32::from(protocol) as u16);
    socket.bind(&address).map_err(explain)?;
    be_promiscuous(&socket, index).map_err(explain)?;
    let socket = Arc::new(socket);
    let counters = PortCounters::default();
    let sender = InterfaceSender {
        socket: Arc::clone(&socket),
        counters: counters.clone(),
    };
    let buffer = vec![0; MAX_FRAME_BYTES];
    Ok((
        sender,
        InterfaceReceiver {
            socket,
            counters,
            buffer,
        },
    ))
}

impl InterfaceSender {
    /// What went in and out of the interface.
    pub fn counters(&self) -> &PortCounters {
        &self.counters
    }
}

impl PortSender for InterfaceSender {
    fn send(&mut self, frame: &[u8]) {
        match self.socket.send_with_flags(frame, libc::MSG_DONTWAIT) {
            Ok(_) => self.counters.count_out(frame.len()),
            Err(_) => self.counters.count_dropped_out(),
        }
    }
}

impl InterfaceReceiver {
    /// What went in and out of the interface.
    pub fn counters(&self) -> &PortCounters {
        &self.counters
    }
}

impl PortReceiver for InterfaceReceiver {
    fn receive(
        &mut self,
        batch: &mut FrameBatch,
        limit: usize,
        timeout: Duration,
    ) -> io::Result<()> {
        self.socket.set_nonblocking(false)?;
        // Zero would be for ever.
        self.socket
            .set_read_timeout(Some(timeout.max(Duration::from_millis(1))))?;
        for received in 0..limit {
            match (&*self.socket).read(&mut self.buffer) {
                Ok(length) => {
                    let frame = self.buffer.get(..length).unwrap_or_default();
                    self.counters.count_in(length);
                    batch.push(frame);
                }
                Err(error) if is_only_empty(&error) => break,
                Err(error) => return Err(error),
            }
            if received == 0 {
                self.socket.set_nonblocking(true)?;
            }
        }
        self.counters
            .count_dropped_in(dropped_since_last_call(&self.socket));
        Ok(())
    }
}

fn is_only_empty(error: &io::Error) -> bool {
    // A link that goes down may come up again.
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::TimedOut
            | io::ErrorKind::Interrupted
            | io::ErrorKind::NetworkDown
    )
}

fn interface_index(name: &str) -> io::Result<i32> {
    if name.is_empty() || name.contains('/') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not the name of an interface",
        ));
    }
    let text = fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))?;
    text.trim()
        .parse()
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

fn link_address(index: i32, protocol: u16) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: the storage has room and alignment for every kind of socket address, and all zeros are a
    // valid `sockaddr_ll`.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = index;
    // SAFETY: the storage holds a `sockaddr_ll`, as its family says, of this length.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

/// What this machine sends is not what came in.
fn ignore_outgoing(socket: &Socket) -> io::Result<()> {
    set_option(socket, libc::PACKET_IGNORE_OUTGOING, &1_i32)
}

fn be_promiscuous(socket: &Socket, index: i32) -> io::Result<()> {
    let membership = libc::packet_mreq {
        mr_ifindex: index,
        mr_type: libc::PACKET_MR_PROMISC as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set_option(socket, libc::PACKET_ADD_MEMBERSHIP, &membership)
}

fn set_option<T>(socket: &Socket, option: i32, value: &T) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as `socket` lives; the kernel reads `size_of::<T>()` bytes
    // from the pointer, which is to a live `T`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Frames that the kernel had no room for; asking sets its counter back.
fn dropped_since_last_call(socket: &Socket) -> u64 {
    let mut statistics = MaybeUninit::<libc::tpacket_stats>::zeroed();
    let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: the descriptor is open as long as `socket` lives; the kernel writes at most `length` bytes
    // to the pointer, which is to that many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            statistics.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return 0;
    }
    // SAFETY: all zeros are a valid value, and so is what the kernel writes.
    unsafe { statistics.assume_init() }.tp_drops.into()
}
