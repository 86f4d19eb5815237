//! A switch of either kind, with its ports.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use flowradar_switch::port::{
    FrameBatch, InterfaceReceiver, InterfaceSender, LinkReceiver, PortReceiver, PortSender, link,
    open_interface,
};
use flowradar_switch::server::{Clock, Server, ServerConfig};
use flowradar_switch::{Switch, SwitchConfig};

use crate::targets::Target;

/// The port that is the controller's, in the reference program.
pub const CPU_PORT: u16 = 510;

/// Frames that wait on a wire in memory; more would be lost, which the tests would see.
const LINK_CAPACITY: usize = 1 << 17;

/// bmv2 loses frames of bursts before it looks at them (its capture ring is small): so many at most are
/// sent, and then there is a pause.
const BMV2_BURST: u32 = 4;
const BMV2_PAUSE: Duration = Duration::from_millis(3);

/// How long bmv2 may take to start.
const BMV2_PATIENCE: Duration = Duration::from_secs(60);

/// A switch without a program, its P4Runtime server, and the far ends of its ports.
#[derive(Debug)]
pub struct TestSwitch {
    kind: Kind,
    address: SocketAddr,
    ports: u16,
}

#[derive(Debug)]
enum Kind {
    Embedded {
        switch: Switch,
        clock: Clock,
        /// None while the switch is stopped.
        server: Option<Server>,
        wires: Vec<LinkReceiver>,
    },
    Bmv2 {
        process: Option<Child>,
        interfaces: Vec<Interface>,
        thrift_port: u16,
        device_id: u64,
        sent_in_burst: u32,
    },
}

/// A pair of interfaces: bmv2 has one end, the test the other.
#[derive(Debug)]
struct Interface {
    switch_end: String,
    sender: InterfaceSender,
    receiver: InterfaceReceiver,
}

impl TestSwitch {
    /// Starts a switch with ports 1 to `ports`.
    ///
    /// # Panics
    /// If it cannot be started.
    pub async fn start(target: Target, ports: u16) -> Self {
        match target {
            Target::Embedded => Self::start_embedded(ports).await,
            Target::Bmv2 => Self::start_bmv2(ports).await,
        }
    }

    /// Where its P4Runtime server is: `host:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// How many ports it has.
    pub fn ports(&self) -> u16 {
        self.ports
    }

    /// Puts a frame on the wire to a port.
    pub fn send(&mut self, port: u16, frame: &[u8]) {
        match &mut self.kind {
            Kind::Embedded { switch, clock, .. } => switch.receive(port, frame, clock.now()),
            Kind::Bmv2 {
                interfaces,
                sent_in_burst,
                ..
            } => {
                *sent_in_burst += 1;
                if sent_in_burst.is_multiple_of(BMV2_BURST) {
                    std::thread::sleep(BMV2_PAUSE);
                }
                interfaces[usize::from(port) - 1].sender.send(frame);
            }
        }
    }

    /// Takes the frames that have come out of the switch, with their ports.
    ///
    /// # Panics
    /// If an interface is gone, or has lost frames before they could be taken.
    pub fn receive(&mut self) -> Vec<(u16, Vec<u8>)> {
        let mut frames = vec![];
        match &mut self.kind {
            Kind::Embedded { wires, .. } => {
                for (port, wire) in (1..).zip(wires) {
                    while let Some(frame) = wire.try_receive() {
                        frames.push((port, frame));
                    }
                }
            }
            Kind::Bmv2 { interfaces, .. } => {
                for (port, interface) in (1..).zip(interfaces) {
                    let mut batch = FrameBatch::default();
                    let received =
                        interface
                            .receiver
                            .receive(&mut batch, 1024, Duration::from_millis(1));
                    received.expect("the test's own interface is there");
                    let statistics = interface.receiver.counters().statistics();
                    assert_eq!(statistics.dropped_in, 0, "the test was too slow");
                    frames.extend(batch.frames().map(|frame| (port, frame.to_vec())));
                }
            }
        }
        frames
    }

    /// Whether what was sent has been dealt with when [`TestSwitch::send`] is back.
    pub fn is_synchronous(&self) -> bool {
        matches!(self.kind, Kind::Embedded { .. })
    }

    /// Stops the switch, with all it holds, and starts it anew at the same address and ports.
    ///
    /// # Panics
    /// If it cannot be started.
    pub async fn restart(&mut self) {
        let address = self.address;
        match &mut self.kind {
            Kind::Embedded {
                switch,
                clock,
                server,
                wires,
            } => {
                *server = None;
                // The server's tasks let go of the address when they run next.
                tokio::task::yield_now().await;
                *switch = new_switch(wires);
                *server = Some(serve(switch, *clock, address).await);
            }
            Kind::Bmv2 { process, .. } => {
                if let Some(mut process) = process.take() {
                    process.kill().expect("the switch can be stopped");
                    process.wait().expect("the switch stops");
                }
                self.launch().await;
            }
        }
    }

    async fn start_embedded(ports: u16) -> Self {
        let mut wires = (0..ports).map(|_| link(1).1).collect::<Vec<_>>();
        let switch = new_switch(&mut wires);
        let clock = Clock::start();
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = serve(&switch, clock, any_port).await;
        Self {
            address: server.address(),
            kind: Kind::Embedded {
                switch,
                clock,
                server: Some(server),
                wires,
            },
            ports,
        }
    }

    async fn start_bmv2(ports: u16) -> Self {
        static SWITCHES: AtomicU32 = AtomicU32::new(0);
        let number = SWITCHES.fetch_add(1, Ordering::Relaxed);
        let interfaces = (1..=ports).map(|port| interface(number, port)).collect();
        let mut switch = Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())),
            kind: Kind::Bmv2 {
                process: None,
                interfaces,
                thrift_port: free_port(),
                device_id: 1,
                sent_in_burst: 0,
            },
            ports,
        };
        switch.launch().await;
        switch
    }

    /// Starts `simple_switch_grpc` and waits until its server listens.
    async fn launch(&mut self) {
        let Kind::Bmv2 {
            process,
            interfaces,
            thrift_port,
            device_id,
            ..
        } = &mut self.kind
        else {
            return;
        };
        let mut command = Command::new("simple_switch_grpc");
        command.args(["--no-p4", "--device-id", &device_id.to_string()]);
        command.args(["--thrift-port", &thrift_port.to_string()]);
        for (port, interface) in (1..).zip(&*interfaces) {
            let port: u16 = port;
            command.args(["-i", &format!("{port}@{}", interface.switch_end)]);
        }
        command.args(["--", "--grpc-server-addr", &self.address.to_string()]);
        command.args(["--cpu-port", &CPU_PORT.to_string()]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        *process = Some(command.spawn().expect("simple_switch_grpc can be started"));
        let deadline = Instant::now() + BMV2_PATIENCE;
        while tokio::net::TcpStream::connect(self.address).await.is_err() {
            assert!(
                Instant::now() < deadline,
                "simple_switch_grpc does not listen"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // What the kernel had to say on interfaces that came up is none of the test's traffic.
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.receive();
    }
}

impl Drop for TestSwitch {
    fn drop(&mut self) {
        if let Kind::Bmv2 {
            process,
            interfaces,
            ..
        } = &mut self.kind
        {
            if let Some(process) = process {
                let _ = process.kill();
                let _ = process.wait();
            }
            for interface in interfaces {
                let _ = ip(&["link", "del", &interface.switch_end]);
            }
        }
    }
}

/// A switch whose ports are new wires.
fn new_switch(wires: &mut [LinkReceiver]) -> Switch {
    let switch = Switch::new(SwitchConfig {
        cpu_port: Some(CPU_PORT),
        ..SwitchConfig::default()
    });
    for (port, wire) in (1..).zip(wires) {
        let (sender, receiver) = link(LINK_CAPACITY);
        switch.attach_port(port, Box::new(sender));
        *wire = receiver;
    }
    switch
}

async fn serve(switch: &Switch, clock: Clock, address: SocketAddr) -> Server {
    let deadline = Instant::now() + BMV2_PATIENCE;
    loop {
        let server = Server::start(switch.clone(), clock, address, ServerConfig::default()).await;
        match server {
            Ok(server) => return server,
            Err(error) => assert!(Instant::now() < deadline, "{address}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn interface(switch: u32, port: u16) -> Interface {
    // At most 15 characters.
    let switch_end = format!("f{}s{switch}p{port}", std::process::id());
    let test_end = format!("{switch_end}t");
    ip(&[
        "link",
        "add",
        &switch_end,
        "type",
        "veth",
        "peer",
        "name",
        &test_end,
    ])
    .expect("interfaces can be made");
    for end in [&switch_end, &test_end] {
        // Neighbour discovery would be traffic that nobody sent.
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6"), "1");
        ip(&["link", "set", end, "mtu", "9000", "up"]).expect("an interface can be set up");
    }
    let (sender, receiver) = open_interface(&test_end).expect("the test's end can be opened");
    Interface {
        switch_end,
        sender,
        receiver,
    }
}

fn ip(arguments: &[&str]) -> io::Result<()> {
    let output = Command::new("ip").args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "ip {}: {reason}",
        arguments.join(" ")
    )))
}

/// A TCP port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
    listener.local_addr().expect("it is bound").port()
}
