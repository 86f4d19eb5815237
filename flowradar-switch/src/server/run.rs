//! A whole switch: ports on network interfaces, served by P4Runtime.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use flowradar_p4::proto::p4::v1::ForwardingPipelineConfig;
use thiserror::Error;
use tokio::sync::mpsc;

use super::{Clock, ServeError, Server, ServerConfig};
use crate::port::{PortCounters, PortSender, PortStatistics, serve};
use crate::{Switch, SwitchConfig};

/// What a switch is started with, the way `simple_switch_grpc` is.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Numbers of ports, and the network interfaces that they are.
    pub ports: Vec<(u16, String)>,
    /// Where P4Runtime is served.
    pub grpc: SocketAddr,
    /// The switch itself.
    pub switch: SwitchConfig,
    /// How it is served.
    pub server: ServerConfig,
    /// What it runs until a controller sets another program.
    pub pipeline: Option<ForwardingPipelineConfig>,
}

/// A switch that runs; dropped, it stops.
#[derive(Debug)]
pub struct RunningSwitch {
    switch: Switch,
    server: Server,
    ports: Vec<RunningPort>,
    lost: mpsc::UnboundedReceiver<LostPort>,
    stop: Arc<AtomicBool>,
}

/// Why a switch cannot be started.
#[derive(Debug, Error)]
pub enum RunError {
    /// A port number is used twice, or is the CPU's or the one for drops.
    #[error("port {port}: its number is used already, or is that of the CPU or of drops")]
    PortNumber {
        /// The number.
        port: u16,
    },
    /// An interface cannot be opened.
    #[error("port {port}: {source}; opening interfaces needs CAP_NET_RAW")]
    Port {
        /// The number.
        port: u16,
        /// The system's reason.
        source: io::Error,
    },
    /// The service cannot be started.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// A port whose interface is gone.
#[derive(Debug, Error)]
#[error("port {port}: {source}")]
pub struct LostPort {
    /// The number.
    pub port: u16,
    /// The system's reason.
    pub source: io::Error,
}

#[derive(Debug)]
struct RunningPort {
    number: u16,
    counters: PortCounters,
    thread: Option<JoinHandle<()>>,
}

impl RunningSwitch {
    /// Opens the ports and serves. To be called on a Tokio runtime.
    ///
    /// # Errors
    ///
    /// If a port cannot be opened, the address cannot be listened on, or the program is refused.
    pub async fn start(options: RunOptions) -> Result<Self, RunError> {
        check_numbers(&options)?;
        let clock = Clock::start();
        let switch = Switch::new(options.switch);
        let server = Server::start(switch.clone(), clock, options.grpc, options.server).await?;
        if let Some(pipeline) = options.pipeline {
            server.load(pipeline)?;
        }
        // At most one message a port.
        let (lost_sender, lost) = mpsc::unbounded_channel();
        let mut running = Self {
            switch,
            server,
            ports: Vec::new(),
            lost,
            stop: Arc::default(),
        };
        for (number, interface) in &options.ports {
            running.open(*number, interface, clock, &lost_sender)?;
        }
        Ok(running)
    }

    /// The switch.
    pub fn switch(&self) -> &Switch {
        &self.switch
    }

    /// The service.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// What the ports have counted, by number.
    pub fn port_statistics(&self) -> Vec<(u16, PortStatistics)> {
        let ports = self.ports.iter();
        ports
            .map(|port| (port.number, port.counters.statistics()))
            .collect()
    }

    /// Waits until a port is lost; the others go on. None if there are none that could be.
    pub async fn lost_port(&mut self) -> Option<LostPort> {
        self.lost.recv().await
    }

    #[cfg(target_os = "linux")]
    fn open(
        &mut self,
        number: u16,
        interface: &str,
        clock: Clock,
        lost: &mpsc::UnboundedSender<LostPort>,
    ) -> Result<(), RunError> {
        let opened = crate::port::open_interface(interface);
        let (sender, mut receiver) = opened.map_err(|source| RunError::Port {
            port: number,
            source,
        })?;
        let counters = sender.counters().clone();
        self.attach(number, Box::new(sender));
        let (switch, stop, lost) = (self.switch.clone(), Arc::clone(&self.stop), lost.clone());
        let thread = thread::Builder::new()
            .name(format!("port {number}"))
            .spawn(move || {
                let now = || clock.now();
                if let Err(source) = serve(&switch, number, &mut receiver, &now, &stop) {
                    switch.detach_port(number);
                    // Nobody may be waiting for it.
                    let _ = lost.send(LostPort {
                        port: number,
                        source,
                    });
                }
            });
        let thread = thread.map_err(|source| RunError::Port {
            port: number,
            source,
        })?;
        self.ports.push(RunningPort {
            number,
            counters,
            thread: Some(thread),
        });
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    fn open(
        &mut self,
        number: u16,
        _interface: &str,
        _clock: Clock,
        _lost: &mpsc::UnboundedSender<LostPort>,
    ) -> Result<(), RunError> {
        Err(RunError::Port {
            port: number,
            source: io::Error::new(
                io::ErrorKind::Unsupported,
                "network interfaces are opened on Linux only",
            ),
        })
    }

    fn attach(&self, number: u16, sender: Box<dyn PortSender>) {
        self.switch.attach_port(number, sender);
    }
}

impl Drop for RunningSwitch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for port in &mut self.ports {
            if let Some(thread) = port.thread.take() {
                // A port whose thread panicked is as gone as the others.
                let _ = thread.join();
            }
        }
    }
}

fn check_numbers(options: &RunOptions) -> Result<(), RunError> {
    let reserved = [
        options.switch.cpu_port,
        Some(options.switch.pipeline.drop_port),
    ];
    for (position, (port, _)) in options.ports.iter().enumerate() {
        let mut before = options.ports.iter().take(position);
        if before.any(|(other, _)| other == port) || reserved.contains(&Some(*port)) {
            return Err(RunError::PortNumber { port: *port });
        }
    }
    Ok(())
}
