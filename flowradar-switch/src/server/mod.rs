//! The P4Runtime service over a switch.
//!
//! All of P4Runtime v1 that concerns a v1model switch: arbitration by role, pipeline configuration
//! (`p4_device_config` is the JSON that `p4c-bm2-ss` writes), every kind of entity, packet I/O, digests,
//! idle timeouts. `docs/switch.md` says what is not supported; that is refused with UNIMPLEMENTED.
//!
//! Everything that waits is bounded: a controller that reads its stream too slowly loses packet-ins,
//! digests and notifications, which is counted ([`ServerCounters`]).

mod arbitration;
mod convert;
mod error;
mod offline;
mod read;
mod run;
mod service;
mod state;
mod write;

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flowradar_p4::proto::p4::v1 as p4;
use flowradar_p4::proto::p4::v1::p4_runtime_server::P4RuntimeServer;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server as GrpcServer, ServerTlsConfig};

pub use self::offline::OfflineServer;
pub use self::run::{LostPort, RunError, RunOptions, RunningSwitch};

use self::service::Service;
use crate::{Switch, Timestamp};

/// How often digests and idle entries are looked at.
const TICK: Duration = Duration::from_millis(10);
/// The largest request: pipeline configurations of large programs.
const REQUEST_MAX_BYTES: usize = 64 << 20;

/// How a switch is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// What controllers call the switch.
    pub device_id: u64,
    /// Messages that wait for a controller to take them; more are dropped and counted.
    pub stream_capacity: usize,
    /// Packet-ins, digests and notifications that wait to be sent; more are dropped and counted.
    pub queue_capacity: usize,
    /// Certificate and key, for TLS.
    pub tls: Option<TlsIdentity>,
}

/// A server's certificate and key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsIdentity {
    /// The chain of certificates, the server's first.
    pub certificates_pem: Vec<u8>,
    /// The private key of the first.
    pub private_key_pem: Vec<u8>,
}

/// What the server did not deliver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerCounters {
    /// Messages for controllers that were dropped: no primary, or it was too slow.
    pub stream_messages_dropped: u64,
}

/// The time since the switch was started; the only clock that its server reads.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    started_unix: Duration,
}

/// A switch that is being served; dropped, it stops.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    service: Service,
    tasks: JoinSet<()>,
}

/// Why a switch cannot be served.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Certificate or key are not usable.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[source] tonic::transport::Error),
    /// The program that is to run from the start is refused.
    #[error("the pipeline is refused: {reason}")]
    Pipeline {
        /// Why.
        reason: String,
    },
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            device_id: 1,
            stream_capacity: 8192,
            queue_capacity: 8192,
            tls: None,
        }
    }
}

impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("TlsIdentity")
            .finish_non_exhaustive()
    }
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
            started_unix: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        }
    }

    /// The time since the start.
    pub fn now(&self) -> Timestamp {
        Timestamp::from(self.started.elapsed())
    }

    fn unix_nanoseconds(&self, at: Timestamp) -> i64 {
        let since_epoch = self.started_unix + Duration::from_nanos(at.nanoseconds());
        i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX)
    }
}

impl Server {
    /// Serves `switch` at `address` (port 0 chooses a free one) until the server is dropped. To be called
    /// on a Tokio runtime, which also lets the switch's time pass.
    ///
    /// # Errors
    ///
    /// If the address cannot be listened on, or TLS cannot be set up.
    pub async fn start(
        switch: Switch,
        clock: Clock,
        address: SocketAddr,
        config: ServerConfig,
    ) -> Result<Self, ServeError> {
        let bind_error = |source| ServeError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind_error)?;
        let address = listener.local_addr().map_err(bind_error)?;
        let mut grpc = GrpcServer::builder();
        if let Some(identity) = &config.tls {
            let identity =
                Identity::from_pem(&identity.certificates_pem, &identity.private_key_pem);
            let tls = ServerTlsConfig::new().identity(identity);
            grpc = grpc.tls_config(tls).map_err(ServeError::Tls)?;
        }
        let capacity = config.queue_capacity;
        let service = Service::new(switch.clone(), clock, config);
        let mut tasks = JoinSet::new();
        spawn_notifications(&mut tasks, &switch, &service, capacity);
        tasks.spawn(async move {
            let mut interval = tokio::time::interval(TICK);
            loop {
                interval.tick().await;
                switch.tick(clock.now());
            }
        });
        let grpc_service = P4RuntimeServer::new(service.clone())
            .max_decoding_message_size(REQUEST_MAX_BYTES)
            .max_encoding_message_size(usize::MAX);
        let router = grpc.add_service(grpc_service);
        let closing = service.clone();
        tasks.spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            let closed = async move { closing.closed().await };
            // What single connections fail with concerns their clients.
            let _ = router.serve_with_incoming_shutdown(incoming, closed).await;
        });
        Ok(Self {
            address,
            service,
            tasks,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs a program from now on, as if a controller had committed it.
    ///
    /// # Errors
    ///
    /// If P4Info or JSON are refused.
    pub fn load(&self, config: p4::ForwardingPipelineConfig) -> Result<(), ServeError> {
        self.service
            .load(config)
            .map_err(|refusal| ServeError::Pipeline {
                reason: refusal.message,
            })
    }

    /// What it did not deliver so far.
    pub fn counters(&self) -> ServerCounters {
        self.service.counters()
    }

    /// Stops, and returns when its address is free again.
    pub async fn stop(mut self) {
        self.service.close();
        self.tasks.shutdown().await;
    }

    /// Waits until the server stops, which it does by itself only if something is broken.
    pub async fn stopped(&mut self) {
        self.tasks.join_next().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.service.close();
    }
}

fn spawn_notifications(
    tasks: &mut JoinSet<()>,
    switch: &Switch,
    service: &Service,
    capacity: usize,
) {
    let mut packet_ins = switch.packet_ins(capacity);
    let packets = service.clone();
    tasks.spawn(async move {
        while let Some(packet) = packet_ins.recv().await {
            packets.packet_in(&packet);
        }
    });
    let mut digests = switch.digests(capacity);
    let lists = service.clone();
    tasks.spawn(async move {
        while let Some(list) = digests.recv().await {
            lists.digest(&list);
        }
    });
    let mut idle_notifications = switch.idle_notifications(capacity);
    let idle = service.clone();
    tasks.spawn(async move {
        while let Some(notification) = idle_notifications.recv().await {
            idle.idle(&notification);
        }
    });
}
