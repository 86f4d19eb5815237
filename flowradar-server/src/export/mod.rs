//! IPFIX export of decoded flows (RFC 7011): [`ipfix`] makes messages, without I/O; the collector sends them
//! where `[export]` says.

pub mod ipfix;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};

use crate::collector::Shared;
use crate::config::{ExportConfig, ExportProtocol};
use crate::epoch::DecodedEpoch;
use crate::ingest::unix_now_ns;
use crate::stage::{QueueTaker, Taker};
use ipfix::{Exporter, ExporterOptions};

/// How long a TCP connection may take, or stand still.
const TCP_TIMEOUT: Duration = Duration::from_secs(5);

enum Transport {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

/// Exports decoded epochs. What cannot be sent is counted and left out: the store has it.
pub(crate) async fn run(
    config: ExportConfig,
    mut epochs: QueueTaker<Arc<DecodedEpoch>>,
    shared: Shared,
) {
    let mut exporter = Exporter::new(ExporterOptions {
        domain: config.domain,
        exporter: config.exporter,
        message_bytes_max: match config.protocol {
            ExportProtocol::Udp => ipfix::UDP_MESSAGE_BYTES,
            ExportProtocol::Tcp => ipfix::TCP_MESSAGE_BYTES,
        },
    });
    let mut transport = None;
    let mut templates_sent = Instant::now();
    while let Some(epoch) = epochs.take().await {
        // An improved epoch is not exported again: its flows would count twice.
        if epoch.revision > 0 || epoch.too_late {
            shared
                .metrics
                .exported("records_late", epoch.flow_records() as u64);
            continue;
        }
        let now_seconds = (unix_now_ns() / 1_000_000_000) as u32;
        let again = templates_sent.elapsed() >= Duration::from_millis(config.template_ms)
            && config.protocol == ExportProtocol::Udp;
        if transport.is_none() {
            transport = connect(&config).await;
            exporter.begin_session();
            templates_sent = Instant::now();
        } else if again {
            exporter.repeat_templates();
            templates_sent = Instant::now();
        }
        let records = epoch.flow_records() as u64;
        let messages = exporter.messages(&epoch, now_seconds);
        let Some(open) = &mut transport else {
            shared.metrics.exported("records_dropped", records);
            continue;
        };
        let count = messages.len() as u64;
        match send(open, &messages).await {
            Ok(()) => {
                shared.metrics.exported("records", records);
                shared.metrics.exported("messages", count);
            }
            Err(error) => {
                transport = None;
                shared.metrics.exported("records_dropped", records);
                shared
                    .notices
                    .warn("export_failed", format!("to {}: {error}", config.to));
            }
        }
    }
}

async fn connect(config: &ExportConfig) -> Option<Transport> {
    let connected = match config.protocol {
        ExportProtocol::Udp => udp(config.to).await.map(Transport::Udp),
        ExportProtocol::Tcp => tokio::time::timeout(TCP_TIMEOUT, TcpStream::connect(config.to))
            .await
            .unwrap_or_else(|elapsed| Err(elapsed.into()))
            .map(Transport::Tcp),
    };
    connected
        .inspect_err(
            |error| tracing::warn!(to = %config.to, %error, "the IPFIX collector is not reached"),
        )
        .ok()
}

async fn udp(to: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: SocketAddr = if to.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    Ok(socket)
}

async fn send(transport: &mut Transport, messages: &[Vec<u8>]) -> std::io::Result<()> {
    match transport {
        Transport::Udp(socket) => {
            for message in messages {
                socket.send(message).await?;
            }
            Ok(())
        }
        Transport::Tcp(stream) => {
            let write = async {
                for message in messages {
                    stream.write_all(message).await?;
                }
                stream.flush().await
            };
            tokio::time::timeout(TCP_TIMEOUT, write).await?
        }
    }
}
