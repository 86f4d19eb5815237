//! The system calls that the standard library and socket2 do not offer: many datagrams at a time,
//! ancillary data, and which socket of a group gets a datagram.
//!
//! The only unsafe code of the crate. Every pointer handed to the kernel points into a vector that
//! the call borrows for as long as it lasts, with the length of that vector.
#![allow(unsafe_code)]

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use libc::{c_int, c_void, iovec, mmsghdr, sockaddr_storage, socklen_t};

/// Datagrams of one call.
pub(crate) const BATCH: usize = 64;
/// A datagram has at most 65,507 bytes; the odd rest keeps the slots from sharing cache sets.
const SLOT_BYTES: usize = (64 << 10) + 2112;
const CONTROL_WORDS: usize = 16;
/// Segments of one segmented send that the kernel takes (UDP_MAX_SEGMENTS of older kernels).
const MAX_SEGMENTS: usize = 64;
const MAX_SEGMENTED_BYTES: usize = 65_000;

/// Buffers for receiving.
pub(crate) struct ReceiveBatch {
    bytes: Vec<u8>,
    names: Vec<sockaddr_storage>,
    control: Vec<[u64; CONTROL_WORDS]>,
    received: Vec<Received>,
}

/// What a slot holds.
#[derive(Clone, Copy, Debug, Default)]
struct Received {
    length: usize,
    /// Size of the datagrams that the kernel put together, if it did.
    segment: Option<usize>,
    source: Option<SocketAddr>,
}

impl ReceiveBatch {
    pub(crate) fn new() -> Self {
        // SAFETY: all-zero bytes are a valid sockaddr_storage, of family AF_UNSPEC.
        let name: sockaddr_storage = unsafe { mem::zeroed() };
        Self {
            bytes: vec![0; BATCH * SLOT_BYTES],
            names: vec![name; BATCH],
            control: vec![[0; CONTROL_WORDS]; BATCH],
            received: Vec::with_capacity(BATCH),
        }
    }

    /// Receives what is there, at most [`BATCH`] datagrams (or trains of them), without waiting.
    /// Returns the kernel's count of datagrams that this socket dropped, if it told.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<Option<u32>> {
        self.received.clear();
        let mut vectors: [MaybeUninit<iovec>; BATCH] = [const { MaybeUninit::uninit() }; BATCH];
        let mut headers: [MaybeUninit<mmsghdr>; BATCH] = [const { MaybeUninit::uninit() }; BATCH];
        for index in 0..BATCH {
            let slot = &mut self.bytes[index * SLOT_BYTES..(index + 1) * SLOT_BYTES];
            vectors[index].write(iovec {
                iov_base: slot.as_mut_ptr().cast(),
                iov_len: SLOT_BYTES,
            });
            // SAFETY: all-zero bytes are a valid mmsghdr: null pointers and zero lengths.
            let mut header: mmsghdr = unsafe { mem::zeroed() };
            header.msg_hdr.msg_name = ptr::from_mut(&mut self.names[index]).cast();
            header.msg_hdr.msg_namelen = size_of::<sockaddr_storage>() as socklen_t;
            header.msg_hdr.msg_iov = vectors[index].as_mut_ptr();
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = self.control[index].as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = size_of::<[u64; CONTROL_WORDS]>() as _;
            headers[index].write(header);
        }
        // SAFETY: BATCH headers are initialised, and all that they point to lives in `self` or in
        // `vectors`, is writable and has the lengths given.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr().cast(),
                BATCH as _,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut dropped = None;
        for (index, header) in headers.iter().enumerate().take(count as usize) {
            // SAFETY: initialised above, and the kernel has filled in the lengths.
            let header = unsafe { header.assume_init_ref() };
            let mut received = Received {
                length: (header.msg_len as usize).min(SLOT_BYTES),
                segment: None,
                source: socket_address(&self.names[index]),
            };
            // SAFETY: the header's control buffer is `self.control[index]`, of which the kernel has
            // written msg_controllen bytes; the CMSG macros stay within.
            unsafe {
                let mut control = libc::CMSG_FIRSTHDR(&header.msg_hdr);
                while let Some(message) = control.as_ref() {
                    let data = libc::CMSG_DATA(control);
                    match (message.cmsg_level, message.cmsg_type) {
                        (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                            dropped = Some(ptr::read_unaligned(data.cast::<u32>()));
                        }
                        (libc::SOL_UDP, libc::UDP_GRO) => {
                            let segment = ptr::read_unaligned(data.cast::<u16>());
                            received.segment = Some(usize::from(segment)).filter(|size| *size > 0);
                        }
                        _ => {}
                    }
                    control = libc::CMSG_NXTHDR(&header.msg_hdr, control);
                }
            }
            self.received.push(received);
        }
        Ok(dropped)
    }

    /// How many datagrams, or trains of them, were received.
    pub(crate) fn len(&self) -> usize {
        self.received.len()
    }

    /// The datagrams received.
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = (&[u8], SocketAddr)> {
        let slots = self.received.iter().enumerate();
        slots.flat_map(|(index, received)| {
            let start = index * SLOT_BYTES;
            let bytes = &self.bytes[start..start + received.length];
            let segment = received.segment.unwrap_or(bytes.len()).max(1);
            // An empty datagram gives nothing: there is nothing to do with it.
            bytes
                .chunks(segment)
                .filter_map(|datagram| Some((datagram, received.source?)))
        })
    }
}

/// Buffers for sending.
pub(crate) struct SendBatch {
    vectors: Vec<iovec>,
    headers: Vec<mmsghdr>,
    control: Vec<[u64; 4]>,
    /// Datagrams in each message.
    datagrams: Vec<usize>,
}

// SAFETY: the pointers in `vectors` and `headers` are only used within `send`, which sets them
// first; between calls they are nothing but numbers.
unsafe impl Send for SendBatch {}

impl SendBatch {
    pub(crate) fn new() -> Self {
        Self {
            vectors: Vec::with_capacity(BATCH),
            headers: Vec::with_capacity(BATCH),
            control: vec![[0; 4]; BATCH],
            datagrams: Vec::with_capacity(BATCH),
        }
    }

    /// Sends datagrams that lie back to back in `bytes`, on a connected socket: as many as one call
    /// takes. Runs of equal length up to `segment_limit` go as one send that the kernel cuts up.
    /// Returns how many datagrams the kernel took, at least one.
    pub(crate) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        bytes: &[u8],
        lengths: impl Iterator<Item = usize>,
        segment_limit: usize,
    ) -> io::Result<usize> {
        self.vectors.clear();
        self.headers.clear();
        self.datagrams.clear();
        let mut offset = 0;
        let mut lengths = lengths.peekable();
        let mut segments = [0_usize; BATCH];
        while self.vectors.len() < BATCH {
            let Some(length) = lengths.next() else {
                break;
            };
            let start = offset;
            offset += length;
            let mut count = 1;
            if length > 0 && length <= segment_limit {
                // The last segment may be shorter, and ends the run.
                while count < MAX_SEGMENTS
                    && let Some(next) = lengths.next_if(|next| {
                        *next > 0
                            && *next <= length
                            && offset + *next - start <= MAX_SEGMENTED_BYTES
                    })
                {
                    offset += next;
                    count += 1;
                    if next < length {
                        break;
                    }
                }
            }
            let Some(run) = bytes.get(start..offset) else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            segments[self.vectors.len()] = if count > 1 { length } else { 0 };
            self.vectors.push(iovec {
                // The kernel only reads from it.
                iov_base: run.as_ptr().cast_mut().cast::<c_void>(),
                iov_len: run.len(),
            });
            self.datagrams.push(count);
        }
        for (index, segment) in segments.iter().enumerate().take(self.vectors.len()) {
            // SAFETY: all-zero bytes are a valid mmsghdr.
            let mut header: mmsghdr = unsafe { mem::zeroed() };
            header.msg_hdr.msg_iov = &raw mut self.vectors[index];
            header.msg_hdr.msg_iovlen = 1;
            if *segment > 0 {
                header.msg_hdr.msg_control = self.control[index].as_mut_ptr().cast();
                // SAFETY: the control buffer has 32 bytes, and CMSG_SPACE of two is 24.
                unsafe {
                    header.msg_hdr.msg_controllen = libc::CMSG_SPACE(2) as _;
                    let control = libc::CMSG_FIRSTHDR(&header.msg_hdr);
                    (*control).cmsg_level = libc::SOL_UDP;
                    (*control).cmsg_type = libc::UDP_SEGMENT;
                    (*control).cmsg_len = libc::CMSG_LEN(2) as _;
                    ptr::write_unaligned(libc::CMSG_DATA(control).cast::<u16>(), *segment as u16);
                }
            }
            self.headers.push(header);
        }
        // SAFETY: the headers point to `vectors`, `control` and `bytes`, which outlive the call.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as _,
                0,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(self.datagrams.iter().take(sent as usize).sum())
    }
}

/// Waits until a socket is readable, or for so long. Which are.
pub(crate) fn wait_readable(
    sockets: &[BorrowedFd<'_>],
    timeout_ms: c_int,
) -> io::Result<Vec<bool>> {
    let mut polled: Vec<libc::pollfd> = sockets
        .iter()
        .map(|socket| libc::pollfd {
            fd: socket.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    // SAFETY: the array has the length given.
    let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as _, timeout_ms) };
    if ready < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(polled.iter().map(|polled| polled.revents != 0).collect())
}

/// Asks for the count of dropped datagrams with each datagram, and for trains of datagrams where the
/// kernel knows them.
pub(crate) fn enable_receive_extras(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1_i32)?;
    // Older kernels know no trains, and need none.
    let _ = set_option(socket, libc::SOL_UDP, libc::UDP_GRO, 1_i32);
    Ok(())
}

/// Sets a receive buffer past the kernel's limit, which root may.
pub(crate) fn force_receive_buffer(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    set_option(
        socket,
        libc::SOL_SOCKET,
        libc::SO_RCVBUFFORCE,
        bytes.min(i32::MAX as usize) as i32,
    )
}

/// The path's MTU as a connected socket knows it.
pub(crate) fn path_mtu(socket: BorrowedFd<'_>, is_v6: bool) -> io::Result<usize> {
    let (level, name) = if is_v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU)
    } else {
        (libc::IPPROTO_IP, libc::IP_MTU)
    };
    let mut value: c_int = 0;
    let mut length = size_of::<c_int>() as socklen_t;
    // SAFETY: value and length are what the option writes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            ptr::from_mut(&mut value).cast(),
            &mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value.max(0) as usize)
}

/// Lets the kernel choose among the sockets of an SO_REUSEPORT group by the source address alone, so
/// that all of an exporter's datagrams reach one socket, whatever port they come from.
pub(crate) fn steer_by_source(
    socket: BorrowedFd<'_>,
    sockets: usize,
    is_v6: bool,
) -> io::Result<()> {
    const LOAD_WORD: u16 = 0x20;
    const COPY_TO_X: u16 = 0x07;
    const XOR_X: u16 = 0xac;
    const MULTIPLY: u16 = 0x24;
    const SHIFT_RIGHT: u16 = 0x74;
    const MODULO: u16 = 0x94;
    const RETURN_A: u16 = 0x16;
    let step = |code: u16, k: u32| libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    };
    let network_header = |offset: u32| (libc::SKF_NET_OFF as u32).wrapping_add(offset);
    let mut program = Vec::new();
    if is_v6 {
        program.push(step(LOAD_WORD, network_header(8)));
        for word in 1..4 {
            program.push(step(COPY_TO_X, 0));
            program.push(step(LOAD_WORD, network_header(8 + 4 * word)));
            program.push(step(XOR_X, 0));
        }
    } else {
        program.push(step(LOAD_WORD, network_header(12)));
    }
    program.push(step(MULTIPLY, 0x9e37_79b1));
    program.push(step(SHIFT_RIGHT, 16));
    program.push(step(MODULO, sockets as u32));
    program.push(step(RETURN_A, 0));
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    set_option(
        socket,
        libc::SOL_SOCKET,
        libc::SO_ATTACH_REUSEPORT_CBPF,
        filter,
    )
}

fn set_option<T>(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: T) -> io::Result<()> {
    // SAFETY: the kernel reads size_of::<T>() bytes from `value`, a plain C value that outlives the
    // call, and whatever that points to.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            ptr::from_ref(&value).cast(),
            size_of::<T>() as socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn socket_address(storage: &sockaddr_storage) -> Option<SocketAddr> {
    match c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: of this family, the storage holds a sockaddr_in, for which it is large and
            // aligned enough.
            let address = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
            Some(SocketAddr::from((ip, u16::from_be(address.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, a sockaddr_in6.
            let address = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
            Some(SocketAddr::from((ip, u16::from_be(address.sin6_port))))
        }
        _ => None,
    }
}
