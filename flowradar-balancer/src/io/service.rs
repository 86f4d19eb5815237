//! Everything together: starts, runs until told to stop, and ends without losing what it has.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::sync::mpsc;

use super::clock::Clock;
use super::control::{Control, OrderError, WorkerHandle};
use super::http;
use super::probe::probe;
use super::state_file;
use super::status::{SocketStatus, Status};
use super::sys::{enable_receive_extras, force_receive_buffer, steer_by_source};
use super::worker::{GATHER, GATHER_BUFFER_BYTES, Outbox, Worker, WorkerShared};
use crate::config::{Config, ConfigError};
use crate::engine::{Domains, Engine, StateKeeper};

/// Why the balancer did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A socket to receive on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The operating system's words.
        source: io::Error,
    },
    /// A destination.
    #[error("{0}")]
    Destination(String),
    /// The file with the token.
    #[error("cannot read the token from {path}: {reason}", path = path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Threads, signals.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct ServiceOptions {
    /// The configuration.
    pub config: Config,
    /// Its file, for reading it again.
    pub config_path: Option<PathBuf>,
}

/// A balancer whose sockets are open and whose threads run.
pub struct Service {
    control: Arc<Mutex<Control>>,
    api: Option<(TcpListener, Option<String>, bool)>,
    memory: Memory,
    warnings: Vec<String>,
}

/// What outlives a restart.
#[derive(Clone, Debug, Default)]
struct Memory {
    keeper: StateKeeper,
    domains: Domains,
    /// Held while the file is written.
    writing: Arc<Mutex<()>>,
}

/// Exporters in the status, of each worker.
const MOST_EXPORTERS: usize = 1000;
/// How often refusals are looked at.
const WATCH: Duration = Duration::from_millis(50);
/// How long engines have to lay down what they know; they look every tenth of a second.
const LAYING_DOWN: Duration = Duration::from_secs(5);
/// Bytes of the state file for each of `limits.state_bytes`: it is hexadecimal, with names.
const FILE_BYTES_PER_STATE_BYTE: u64 = 4;
/// How long senders have to empty their queues at the end.
const FAREWELL: Duration = Duration::from_secs(5);

impl Service {
    /// Opens sockets and starts threads. Traffic flows from now on; [`Service::run`] watches over
    /// it.
    ///
    /// # Errors
    ///
    /// If the configuration is wrong or a socket cannot be opened.
    pub fn start(options: ServiceOptions) -> Result<Self, ServiceError> {
        let clock = Clock::start();
        let mut control = Control::new(options.config, options.config_path, clock);
        let compiled = control.compile()?;
        let config = control.config.clone();
        let api = match &config.api {
            None => None,
            Some(api) => {
                let token = api.token_file.as_ref().map(read_token).transpose()?;
                let listener =
                    TcpListener::bind(api.listen).map_err(|source| ServiceError::Listen {
                        address: api.listen,
                        source,
                    })?;
                listener.set_nonblocking(true)?;
                Some((listener, token, api.token_for_reading))
            }
        };
        let destinations = control
            .open_destinations(&compiled)
            .map_err(|error| match error {
                OrderError::Config(error) => ServiceError::Config(error),
                other => ServiceError::Destination(other.to_string()),
            })?;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = match config.listen.workers {
            0 => processors.min(4),
            workers => workers,
        };
        let mut warnings = Vec::new();
        let mut sockets_of: Vec<Vec<Socket>> = (0..workers).map(|_| Vec::new()).collect();
        for address in &config.listen.addresses {
            // All sockets of an address are bound before any gets traffic by the steering program.
            let mut actual = *address;
            for (worker, sockets) in sockets_of.iter_mut().enumerate() {
                let listening =
                    listen(actual, config.listen.receive_buffer_bytes).map_err(|source| {
                        ServiceError::Listen {
                            address: *address,
                            source,
                        }
                    })?;
                actual = listening.1;
                control.sockets.push(SocketStatus {
                    address: actual,
                    worker,
                    receive_buffer_bytes: listening.2,
                    kernel_drops: 0,
                });
                sockets.push(listening.0);
            }
            if workers > 1 {
                let first = &sockets_of[0][sockets_of[0].len() - 1];
                steer_by_source(first.as_fd(), workers, address.is_ipv6())?;
            }
        }
        // Kernel drops are listed worker by worker.
        control.sockets.sort_by_key(|socket| socket.worker);
        let granted = control
            .sockets
            .iter()
            .map(|socket| socket.receive_buffer_bytes)
            .min()
            .unwrap_or(0);
        if granted < config.listen.receive_buffer_bytes {
            warnings.push(format!(
                "the kernel grants receive buffers of {granted} bytes instead of {}: raise net.core.rmem_max, or bursts are lost",
                config.listen.receive_buffer_bytes
            ));
        }
        let memory = Memory::default();
        match memory.recall(&config) {
            Ok(None) => {}
            Ok(Some(streams)) => control.event(format!(
                "templates of {streams} streams are remembered from before"
            )),
            Err(error) => warnings.push(format!("templates are not remembered: {error}")),
        }
        for (index, sockets) in sockets_of.into_iter().enumerate() {
            let shared = Arc::new(WorkerShared {
                dropped: sockets.iter().map(|_| AtomicU64::new(0)).collect(),
                ..WorkerShared::default()
            });
            let (commands, receiver) = std::sync::mpsc::channel();
            let mut outbox = Outbox::default();
            outbox.set(&destinations);
            let mut engine =
                Engine::with_domains(compiled.plan.clone(), memory.domains.clone(), clock.now());
            engine.use_keeper(&memory.keeper);
            let worker = Worker {
                sockets,
                engine,
                outbox,
                commands: receiver,
                shared: Arc::clone(&shared),
                clock,
                most_exporters: MOST_EXPORTERS,
                gather: if granted >= GATHER_BUFFER_BYTES {
                    GATHER
                } else {
                    Duration::ZERO
                },
            };
            let thread = std::thread::Builder::new()
                .name(format!("receive {index}"))
                .spawn(move || worker.run())?;
            control.workers.push(WorkerHandle {
                commands,
                shared,
                thread: Some(thread),
            });
        }
        for warning in &warnings {
            control.event(warning.clone());
        }
        Ok(Self {
            control: Arc::new(Mutex::new(control)),
            api,
            memory,
            warnings,
        })
    }

    /// What the user should know, such as buffers smaller than asked for.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Where exports arrive; ports that were left open are filled in.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let mut addresses: Vec<SocketAddr> = self
            .control
            .lock()
            .sockets
            .iter()
            .map(|socket| socket.address)
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// Where the HTTP interface listens.
    pub fn api_address(&self) -> Option<SocketAddr> {
        self.api
            .as_ref()
            .and_then(|(listener, _, _)| listener.local_addr().ok())
    }

    /// Everything there is to see.
    pub fn status(&self) -> Status {
        self.control.lock().status()
    }

    /// Probes collectors, serves HTTP, reads the configuration again on SIGHUP, until `stop` is
    /// there. Then takes in what has arrived, sends what is queued, and returns the last state.
    ///
    /// # Errors
    ///
    /// If signals or the HTTP interface cannot be set up.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<Status, ServiceError> {
        if let Some((listener, token, for_reading)) = self.api.take() {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let router = http::router(Arc::clone(&self.control), token, for_reading);
            tokio::spawn(async move {
                // Ends with the runtime.
                let _ = axum::serve(listener, router).await;
            });
        }
        let (interval, timeout) = {
            let control = self.control.lock();
            (
                control.config.probe_interval(),
                Duration::from_millis(control.config.health.timeout_ms),
            )
        };
        let (results, mut probed) = mpsc::channel(1024);
        let mut hang_up = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
        let mut watch = tokio::time::interval(WATCH);
        let mut probes = tokio::time::interval(interval);
        let mut house = tokio::time::interval(Duration::from_secs(1));
        let mut saved_at = tokio::time::Instant::now();
        for timer in [&mut watch, &mut probes, &mut house] {
            timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        }
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                _ = watch.tick() => self.control.lock().watch_refusals(),
                _ = house.tick() => {
                    self.control.lock().keep_house();
                    let config = self.control.lock().config.clone();
                    let interval = Duration::from_secs(config.streams.state_save_seconds);
                    if config.streams.state_file.is_some() && saved_at.elapsed() >= interval {
                        saved_at = tokio::time::Instant::now();
                        let (memory, control) = (self.memory.clone(), Arc::clone(&self.control));
                        tokio::task::spawn_blocking(move || {
                            let request = memory.keeper.request(unix_seconds(), false);
                            memory.save(&config, request, &control);
                        });
                    }
                }
                _ = probes.tick() => {
                    let due = self.control.lock().probes();
                    for (id, config, address) in due {
                        let results = results.clone();
                        tokio::spawn(async move {
                            if let Some(result) = probe(&config, address, timeout).await {
                                let _ = results.send((id, result)).await;
                            }
                        });
                    }
                }
                Some((id, result)) = probed.recv() => self.control.lock().probed(id, result),
                _ = hang_up.recv() => {
                    let mut control = self.control.lock();
                    if let Err(error) = control.reload() {
                        control.event(format!("configuration not read again: {error}"));
                    }
                }
            }
        }
        let control = Arc::clone(&self.control);
        let memory = self.memory;
        let ended = tokio::task::spawn_blocking(move || {
            // Engines lay down what they know when they have taken in everything.
            let request = memory.keeper.request(unix_seconds(), true);
            let workers = control.lock().stop_workers();
            for thread in workers {
                let _ = thread.join();
            }
            let config = control.lock().config.clone();
            memory.save(&config, request, &control);
            let senders = control.lock().stop_senders();
            let started = std::time::Instant::now();
            // A destination that takes nothing must not hold up the end.
            while started.elapsed() < FAREWELL && senders.iter().any(|thread| !thread.is_finished())
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            control.lock().status()
        });
        ended
            .await
            .map_err(|error| ServiceError::System(io::Error::other(error)))
    }
}

impl Memory {
    /// Remembers what was saved, if anything is to be; of how many streams.
    fn recall(&self, config: &Config) -> Result<Option<usize>, state_file::StateFileError> {
        let Some(path) = &config.streams.state_file else {
            return Ok(None);
        };
        let streams = state_file::read(path, file_limit(config))?;
        let most_age = Duration::from_secs(config.streams.state_most_age_seconds);
        let count = (self.keeper).remember(streams, &self.domains, unix_seconds(), most_age);
        Ok(Some(count))
    }

    /// Waits until the engines have answered, and writes what they say.
    fn save(&self, config: &Config, request: u64, control: &Mutex<Control>) {
        let Some(path) = &config.streams.state_file else {
            return;
        };
        let _writing = self.writing.lock();
        let started = std::time::Instant::now();
        while !self.keeper.is_answered(request) {
            if started.elapsed() >= LAYING_DOWN {
                let text = "templates were not saved: workers do not answer";
                control.lock().event(text);
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let most_age = Duration::from_secs(config.streams.state_most_age_seconds);
        self.keeper.forget(&self.domains, unix_seconds(), most_age);
        if let Err(error) = state_file::write(path, &self.keeper.take(), file_limit(config)) {
            control
                .lock()
                .event(format!("templates were not saved: {error}"));
        }
    }
}

fn file_limit(config: &Config) -> u64 {
    (config.limits.state_bytes as u64).saturating_mul(FILE_BYTES_PER_STATE_BYTE)
}

fn unix_seconds() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.map_or(0, |duration| duration.as_secs())
}

/// A socket of an SO_REUSEPORT group, its address, and the buffer that the kernel granted.
fn listen(address: SocketAddr, buffer_bytes: usize) -> io::Result<(Socket, SocketAddr, usize)> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        // IPv4 has sockets of its own, and its addresses their own form.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(true)?;
    if force_receive_buffer(socket.as_fd(), buffer_bytes).is_err() {
        socket.set_recv_buffer_size(buffer_bytes)?;
    }
    enable_receive_extras(socket.as_fd())?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    // The kernel reports twice what it grants, its own bookkeeping included.
    let granted = socket.recv_buffer_size()? / 2;
    let socket: UdpSocket = socket.into();
    let actual = socket.local_addr()?;
    Ok((socket.into(), actual, granted))
}

fn read_token(path: &PathBuf) -> Result<String, ServiceError> {
    let failed = |reason: String| ServiceError::Token {
        path: path.clone(),
        reason,
    };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let token = text.lines().next().unwrap_or("").trim();
    if token.len() < 16 {
        return Err(failed(
            "the first line must be a token of at least 16 characters".to_owned(),
        ));
    }
    Ok(token.to_owned())
}
