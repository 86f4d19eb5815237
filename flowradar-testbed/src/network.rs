//! Switches, the wires between them, and the truth.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use flowradar_sim::{HostId, LinkDirection, Node, Routing, SwitchId, Topology};

use crate::controller::Controller;
use crate::embedded::CPU_PORT;
use crate::routes::{port_of, routes};
use crate::{Counts, TestbedError};

/// When nothing has come out of any switch for so long, nothing more will.
const QUIET: Duration = Duration::from_millis(500);

/// Hosts put so many frames on their wires before those in the network are carried on: looking at all
/// interfaces takes a while.
const FRAMES_PER_ROUND: u32 = 32;

/// A switch whose ports, numbered from 1, lead to this process: it is the wires.
pub trait WiredSwitch {
    /// Stops the switch, with all it holds, and starts it anew at the same address and ports.
    fn restart(&mut self) -> impl Future<Output = Result<(), TestbedError>>;

    /// Where its P4Runtime server is.
    fn address(&self) -> SocketAddr;

    /// How many ports it has.
    fn ports(&self) -> u16;

    /// Puts a frame on the wire to a port.
    fn send(&mut self, port: u16, frame: &[u8]);

    /// Takes the frames that have come out of the switch, with their ports.
    fn receive(&mut self, take: &mut dyn FnMut(u16, Vec<u8>));

    /// Whether what was sent has been dealt with when [`WiredSwitch::send`] is back.
    fn is_synchronous(&self) -> bool;
}

/// Decides what wires lose.
pub struct Wires(Box<Loses>);

/// Says whether a wire loses a frame.
type Loses = dyn FnMut(LinkDirection, &[u8]) -> bool;

/// Switches that run the reference program, with routes between all hosts.
#[derive(Debug)]
pub struct Network<S> {
    topology: Topology,
    switches: Vec<S>,
    controllers: Vec<Controller>,
    wires: Wires,
    frames_sent: u32,
    arriving: Vec<(LinkDirection, Vec<u8>)>,
    /// What every switch was given, by switch.
    pub seen: Vec<Counts>,
    /// What every wire has lost.
    pub lost: BTreeMap<LinkDirection, Counts>,
    /// What has reached hosts.
    pub delivered: Counts,
}

impl Wires {
    /// Wires that lose the frames of which `loses` says so.
    pub fn new(loses: impl FnMut(LinkDirection, &[u8]) -> bool + 'static) -> Self {
        Self(Box::new(loses))
    }

    /// Wires that lose nothing.
    pub fn lossless() -> Self {
        Self::new(|_, _| false)
    }
}

impl fmt::Debug for Wires {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Wires").finish_non_exhaustive()
    }
}

impl<S: WiredSwitch> Network<S> {
    /// Starts all switches of a topology, with the program and routes. `start` starts one, without a
    /// program, with so many ports.
    ///
    /// # Errors
    ///
    /// If a switch cannot be started or told what to do.
    pub async fn start(
        topology: Topology,
        wires: Wires,
        mut start: impl AsyncFnMut(u16) -> Result<S, TestbedError>,
    ) -> Result<Self, TestbedError> {
        let routing = Routing::new(&topology)?;
        let (mut switches, mut controllers) = (vec![], vec![]);
        for id in topology.switch_ids() {
            let ports = topology.ports(id).len();
            let most = usize::from(CPU_PORT - 1);
            if ports > most {
                let switch = topology.name(id).to_owned();
                return Err(TestbedError::Ports {
                    switch,
                    ports,
                    most,
                });
            }
            let switch = start(ports as u16).await?;
            let routes = routes(&topology, &routing, id);
            let controller = Controller::deploy(switch.address(), topology.name(id), &routes);
            controllers.push(controller.await?);
            switches.push(switch);
        }
        Ok(Self {
            seen: vec![Counts::default(); switches.len()],
            lost: BTreeMap::new(),
            delivered: Counts::default(),
            topology,
            switches,
            controllers,
            wires,
            frames_sent: 0,
            arriving: vec![],
        })
    }

    /// The network.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The switches, in the order of the topology.
    pub fn switches(&self) -> &[S] {
        &self.switches
    }

    /// The controller of every switch.
    pub fn controllers(&mut self) -> &mut [Controller] {
        &mut self.controllers
    }

    /// A host puts a frame on its wire.
    pub fn send(&mut self, host: HostId, frame: &[u8]) {
        let link = self.topology.ports(host)[0].link;
        self.carry(link, frame);
        self.frames_sent = self.frames_sent.wrapping_add(1);
        if self.frames_sent.is_multiple_of(FRAMES_PER_ROUND) {
            self.forward();
        }
    }

    /// Carries frames until none is left.
    pub fn settle(&mut self) {
        let mut quiet_since = Instant::now();
        loop {
            if self.forward() > 0 {
                quiet_since = Instant::now();
            } else if self.switches.iter().all(S::is_synchronous) || quiet_since.elapsed() > QUIET {
                return;
            }
        }
    }

    /// Carries what has come out of the switches to where the wires lead; how many frames that was.
    fn forward(&mut self) -> usize {
        let mut frames = 0;
        let mut arriving = std::mem::take(&mut self.arriving);
        for number in 0..self.switches.len() {
            let ports = self.topology.ports(SwitchId(number as u16));
            self.switches[number].receive(&mut |port, frame| {
                arriving.push((ports[usize::from(port) - 1].link, frame));
            });
            frames += arriving.len();
            for (link, frame) in arriving.drain(..) {
                self.carry(link, &frame);
            }
        }
        self.arriving = arriving;
        frames
    }

    /// Carries a frame over a wire.
    fn carry(&mut self, link: LinkDirection, frame: &[u8]) {
        if (self.wires.0)(link, frame) {
            self.lost.entry(link).or_default().add(frame);
            return;
        }
        match self.topology.ends(link).1 {
            Node::Host(_) => self.delivered.add(frame),
            Node::Switch(id) => {
                let port = port_of(&self.topology, id, LinkDirection(link.0 ^ 1));
                self.seen[id.index()].add(frame);
                self.switches[id.index()].send(port, frame);
            }
        }
    }
}
