//! Sends the datagrams of a list as exporters would, for trials without privileges.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// What was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Datagrams.
    pub datagrams: u64,
    /// Bytes.
    pub bytes: u64,
    /// The address that stood for each exporter.
    pub exporters: HashMap<IpAddr, IpAddr>,
}

/// Sends datagrams to `to`, so many a second (0 for as fast as it goes).
///
/// Towards a loopback address each exporter gets an address of its own from 127.0.0.0/8, counted from
/// 127.0.1.1: any user may send from these, and exporters stay apart. Elsewhere all come from this
/// host's address.
///
/// # Errors
///
/// Of sockets.
pub fn replay<'a>(
    datagrams: impl Iterator<Item = (SocketAddr, &'a [u8])>,
    to: SocketAddr,
    per_second: u32,
) -> io::Result<Replayed> {
    let mut replayed = Replayed::default();
    let mut sockets: HashMap<SocketAddr, UdpSocket> = HashMap::new();
    let started = Instant::now();
    for (source, bytes) in datagrams {
        let count = replayed.exporters.len() as u32;
        let own_address = *replayed
            .exporters
            .entry(source.ip())
            .or_insert_with(|| match to.ip() {
                IpAddr::V4(address) if address.is_loopback() => {
                    Ipv4Addr::from(0x7f00_0101 + count).into()
                }
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
            });
        let socket = match sockets.entry(source) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let socket = UdpSocket::bind((own_address, 0))?;
                socket.connect(to)?;
                entry.insert(socket)
            }
        };
        match socket.send(bytes) {
            Ok(_) => {
                replayed.datagrams += 1;
                replayed.bytes += bytes.len() as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Err(io::Error::new(
                    error.kind(),
                    format!("nobody listens on {to}"),
                ));
            }
            Err(error) => return Err(error),
        }
        if per_second > 0 {
            let due = Duration::from_secs_f64(replayed.datagrams as f64 / f64::from(per_second));
            if let Some(early) = due.checked_sub(started.elapsed()) {
                std::thread::sleep(early);
            }
        }
    }
    Ok(replayed)
}
