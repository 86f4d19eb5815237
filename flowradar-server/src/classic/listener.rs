//! Receives datagrams.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::{ClassicRecord, Decoded, NetflowDecoder, decode_sflow};
use crate::collector::{Shared, ToClassic};
use crate::config::ClassicConfig;
use crate::ingest::unix_now_ns;
use crate::stage::Giver;

/// Receive buffer asked for. The system may grant less (`net.core.rmem_max`), and that is told.
const RECEIVE_BUFFER_BYTES: usize = 16 << 20;
/// Largest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// Records given on together at most.
const BATCH_RECORDS: usize = 16_384;
/// Longest wait until they are.
const BATCH_TIME: Duration = Duration::from_millis(500);

/// What a socket receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// NetFlow, NetStream and IPFIX.
    Netflow,
    /// sFlow.
    Sflow,
}

/// Addresses that are listened on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// For NetFlow, NetStream and IPFIX.
    pub netflow: Option<SocketAddr>,
    /// For sFlow.
    pub sflow: Option<SocketAddr>,
}

/// Sockets that are bound.
#[derive(Debug)]
pub(crate) struct Bound(Vec<(Kind, UdpSocket)>);

/// Binds the sockets that the configuration names.
pub(crate) fn bind(config: &ClassicConfig) -> Result<Bound, (&'static str, SocketAddr, io::Error)> {
    let wanted = [
        ("classic.netflow", Kind::Netflow, config.netflow),
        ("classic.sflow", Kind::Sflow, config.sflow),
    ];
    let mut sockets = vec![];
    for (name, kind, address) in wanted {
        if let Some(address) = address {
            let socket = open(address).map_err(|error| (name, address, error))?;
            sockets.push((kind, socket));
        }
    }
    Ok(Bound(sockets))
}

impl Bound {
    pub(crate) fn addresses(&self) -> Addresses {
        let address = |kind| {
            let mut sockets = self.0.iter();
            let socket = sockets.find(|(other, _)| *other == kind);
            socket.and_then(|(_, socket)| socket.local_addr().ok())
        };
        Addresses {
            netflow: address(Kind::Netflow),
            sflow: address(Kind::Sflow),
        }
    }

    pub(crate) fn into_listeners(self) -> impl Iterator<Item = (Kind, UdpSocket)> {
        self.0.into_iter()
    }
}

/// Receives, decodes, and gives records on to storing. What storing cannot take is dropped and counted.
pub(crate) async fn listen((kind, socket): (Kind, UdpSocket), to_store: ToClassic, shared: Shared) {
    let mut netflow = NetflowDecoder::default();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let mut batch: Vec<ClassicRecord> = vec![];
    let mut interval = tokio::time::interval(BATCH_TIME);
    loop {
        let mut due = false;
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                let Ok((length, from)) = received else {
                    shared.metrics.classic("receive_errors", 1);
                    continue;
                };
                let datagram = &buffer[..length];
                let now_ns = unix_now_ns();
                let decoded = match kind {
                    Kind::Netflow => netflow.decode(from, datagram, now_ns),
                    Kind::Sflow => decode_sflow(datagram, now_ns),
                };
                count(&shared, &decoded);
                batch.extend(decoded.records);
            }
            _ = interval.tick() => due = true,
        }
        if batch.len() >= BATCH_RECORDS || (due && !batch.is_empty()) {
            let records = std::mem::take(&mut batch);
            let give = tokio::time::timeout(BATCH_TIME, to_store.give(records));
            if give.await.is_err() {
                shared.metrics.classic("batches_dropped", 1);
            }
        }
    }
}

fn count(shared: &Shared, decoded: &Decoded) {
    let counts = [
        ("datagrams", 1),
        ("records", decoded.records.len() as u64),
        ("other_records", decoded.other_records),
        ("sets_without_template", decoded.without_template),
        ("malformed_datagrams", decoded.malformed.into()),
    ];
    for (kind, count) in counts {
        shared.metrics.classic(kind, count);
    }
}

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    let granted = socket.recv_buffer_size()?;
    if granted < RECEIVE_BUFFER_BYTES {
        tracing::warn!(
            %address,
            granted,
            wanted = RECEIVE_BUFFER_BYTES,
            "the receive buffer is smaller than wanted: raise net.core.rmem_max, or bursts are lost"
        );
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}
