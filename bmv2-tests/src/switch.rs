//! A switch of either kind, with its ports.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use flowradar_switch::port::{
    FrameBatch, InterfaceReceiver, InterfaceSender, PortReceiver, PortSender, open_interface,
};
use flowradar_testbed::embedded::CPU_PORT;
use flowradar_testbed::{EmbeddedSwitch, TestbedError, WiredSwitch};

use crate::targets::Target;

/// bmv2 loses frames of bursts before it looks at them (its capture ring is small): so many at most are
/// sent, and then there is a pause.
const BURST: u32 = 4;
const PAUSE: Duration = Duration::from_millis(3);

/// How long bmv2 may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// A switch of one kind or the other.
#[derive(Debug)]
pub enum TestSwitch {
    /// In this process.
    Embedded(EmbeddedSwitch),
    /// In a process of its own.
    Bmv2(Bmv2Switch),
}

/// `simple_switch_grpc`, with interfaces whose other ends are here.
#[derive(Debug)]
pub struct Bmv2Switch {
    address: SocketAddr,
    thrift_port: u16,
    process: Option<Child>,
    interfaces: Vec<Interface>,
    sent_in_burst: u32,
}

/// A pair of interfaces: bmv2 has one end, the test the other.
#[derive(Debug)]
struct Interface {
    switch_end: String,
    sender: InterfaceSender,
    receiver: InterfaceReceiver,
}

impl TestSwitch {
    /// Starts a switch without a program, with ports 1 to `ports`.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub async fn start(target: Target, ports: u16) -> Result<Self, TestbedError> {
        Ok(match target {
            Target::Embedded => Self::Embedded(EmbeddedSwitch::start(ports).await?),
            Target::Bmv2 => Self::Bmv2(Bmv2Switch::start(ports).await?),
        })
    }
}

impl WiredSwitch for TestSwitch {
    async fn restart(&mut self) -> Result<(), TestbedError> {
        match self {
            Self::Embedded(switch) => switch.restart().await,
            Self::Bmv2(switch) => switch.restart().await,
        }
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Embedded(switch) => switch.address(),
            Self::Bmv2(switch) => switch.address(),
        }
    }

    fn ports(&self) -> u16 {
        match self {
            Self::Embedded(switch) => switch.ports(),
            Self::Bmv2(switch) => switch.ports(),
        }
    }

    fn send(&mut self, port: u16, frame: &[u8]) {
        match self {
            Self::Embedded(switch) => switch.send(port, frame),
            Self::Bmv2(switch) => switch.send(port, frame),
        }
    }

    fn receive(&mut self, take: &mut dyn FnMut(u16, Vec<u8>)) {
        match self {
            Self::Embedded(switch) => switch.receive(take),
            Self::Bmv2(switch) => switch.receive(take),
        }
    }

    fn is_synchronous(&self) -> bool {
        matches!(self, Self::Embedded(_))
    }
}

impl WiredSwitch for Bmv2Switch {
    async fn restart(&mut self) -> Result<(), TestbedError> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(self.launch().await?)
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn ports(&self) -> u16 {
        self.interfaces.len() as u16
    }

    fn send(&mut self, port: u16, frame: &[u8]) {
        self.sent_in_burst = self.sent_in_burst.wrapping_add(1);
        if self.sent_in_burst.is_multiple_of(BURST) {
            std::thread::sleep(PAUSE);
        }
        self.interfaces[usize::from(port) - 1].sender.send(frame);
    }

    /// # Panics
    /// If an interface is gone, or has lost frames before they could be taken.
    fn receive(&mut self, take: &mut dyn FnMut(u16, Vec<u8>)) {
        for (port, interface) in (1..).zip(&mut self.interfaces) {
            let mut batch = FrameBatch::default();
            let receiver = &mut interface.receiver;
            let received = receiver.receive(&mut batch, 1024, Duration::from_millis(1));
            received.expect("the test's own interface is there");
            let statistics = receiver.counters().statistics();
            assert_eq!(statistics.dropped_in, 0, "the test was too slow");
            for frame in batch.frames() {
                take(port, frame.to_vec());
            }
        }
    }

    fn is_synchronous(&self) -> bool {
        false
    }
}

impl Bmv2Switch {
    /// Starts a switch without a program, with ports 1 to `ports`.
    ///
    /// # Errors
    ///
    /// If it cannot be started, or interfaces cannot be made.
    pub async fn start(ports: u16) -> Result<Self, TestbedError> {
        static SWITCHES: AtomicU32 = AtomicU32::new(0);
        let number = SWITCHES.fetch_add(1, Ordering::Relaxed);
        let interfaces = (1..=ports).map(|port| interface(number, port));
        let mut switch = Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)),
            thrift_port: free_port()?,
            process: None,
            interfaces: interfaces.collect::<Result<_, _>>()?,
            sent_in_burst: 0,
        };
        switch.launch().await?;
        Ok(switch)
    }

    /// Starts `simple_switch_grpc` and waits until its server listens.
    async fn launch(&mut self) -> io::Result<()> {
        let mut command = Command::new("simple_switch_grpc");
        command.args(["--no-p4", "--device-id", "1"]);
        command.args(["--thrift-port", &self.thrift_port.to_string()]);
        for (port, interface) in (1..).zip(&self.interfaces) {
            let port: u16 = port;
            command.args(["-i", &format!("{port}@{}", interface.switch_end)]);
        }
        command.args(["--", "--grpc-server-addr", &self.address.to_string()]);
        command.args(["--cpu-port", &CPU_PORT.to_string()]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn()?);
        let deadline = Instant::now() + PATIENCE;
        while tokio::net::TcpStream::connect(self.address).await.is_err() {
            if Instant::now() > deadline {
                return Err(io::Error::other("simple_switch_grpc does not listen"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // What the kernel had to say on interfaces that came up is none of the test's traffic.
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.receive(&mut |_, _| ());
        Ok(())
    }
}

impl Drop for Bmv2Switch {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
        for interface in &self.interfaces {
            let _ = ip(&["link", "del", &interface.switch_end]);
        }
    }
}

fn interface(switch: u32, port: u16) -> io::Result<Interface> {
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
    ])?;
    for end in [&switch_end, &test_end] {
        // Neighbour discovery would be traffic that nobody sent.
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6"), "1");
        ip(&["link", "set", end, "mtu", "9000", "up"])?;
    }
    let (sender, receiver) = open_interface(&test_end).map_err(io::Error::other)?;
    Ok(Interface {
        switch_end,
        sender,
        receiver,
    })
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
fn free_port() -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}
