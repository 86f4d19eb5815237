//! A `flowradar-switch` with a P4Runtime server, on wires in memory.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use flowradar_switch::port::{LinkReceiver, link};
use flowradar_switch::server::{Clock, ServeError, Server, ServerConfig};
use flowradar_switch::{Switch, SwitchConfig};

use crate::{TestbedError, WiredSwitch};

/// The port that is the controller's, in the reference program.
pub const CPU_PORT: u16 = 510;

/// Frames that wait on a wire; more are lost, and counted by its port.
const LINK_CAPACITY: usize = 1 << 17;

/// How long an address may be held by the server before.
const PATIENCE: Duration = Duration::from_secs(60);

/// An embedded switch, served on an address of the loopback, with the far ends of its ports.
#[derive(Debug)]
pub struct EmbeddedSwitch {
    switch: Switch,
    clock: Clock,
    address: SocketAddr,
    /// None while the switch is stopped.
    server: Option<Server>,
    wires: Vec<LinkReceiver>,
}

impl EmbeddedSwitch {
    /// Starts a switch without a program, with ports 1 to `ports`.
    ///
    /// # Errors
    ///
    /// If no address of the loopback can be listened on.
    pub async fn start(ports: u16) -> Result<Self, TestbedError> {
        let (switch, wires) = new_switch(ports);
        let clock = Clock::start();
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = Server::start(switch.clone(), clock, any_port, ServerConfig::default());
        let server = server.await?;
        Ok(Self {
            switch,
            clock,
            address: server.address(),
            server: Some(server),
            wires,
        })
    }

    /// The switch itself.
    pub fn switch(&self) -> &Switch {
        &self.switch
    }
}

impl WiredSwitch for EmbeddedSwitch {
    async fn restart(&mut self) -> Result<(), TestbedError> {
        self.server = None;
        // The server's tasks let go of the address when they run next.
        tokio::task::yield_now().await;
        let (switch, wires) = new_switch(self.ports());
        (self.switch, self.wires) = (switch, wires);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let config = ServerConfig::default();
            let server = Server::start(self.switch.clone(), self.clock, self.address, config);
            match server.await {
                Ok(server) => {
                    self.server = Some(server);
                    return Ok(());
                }
                Err(ServeError::Bind { .. }) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn ports(&self) -> u16 {
        self.wires.len() as u16
    }

    fn send(&mut self, port: u16, frame: &[u8]) {
        self.switch.receive(port, frame, self.clock.now());
    }

    fn receive(&mut self, take: &mut dyn FnMut(u16, Vec<u8>)) {
        for (port, wire) in (1..).zip(&self.wires) {
            while let Some(frame) = wire.try_receive() {
                take(port, frame);
            }
        }
    }

    fn is_synchronous(&self) -> bool {
        true
    }
}

/// A switch, and what its ports lead to.
fn new_switch(ports: u16) -> (Switch, Vec<LinkReceiver>) {
    let switch = Switch::new(SwitchConfig {
        cpu_port: Some(CPU_PORT),
        ..SwitchConfig::default()
    });
    let wires = (1..=ports).map(|port| {
        let (sender, receiver) = link(LINK_CAPACITY);
        switch.attach_port(port, Box::new(sender));
        receiver
    });
    let wires = wires.collect();
    (switch, wires)
}
