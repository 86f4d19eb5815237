//! A served switch with the test program, and frames for it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use flowradar_p4::PipelineConfig;
use flowradar_p4::client::{PipelineAction, Session, SessionOptions, Standing, SwitchTarget};
use flowradar_switch::port::PortSender;
use flowradar_switch::server::{Clock, Server, ServerConfig};
use flowradar_switch::{Switch, SwitchConfig};

/// Longer than anything takes, even on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const CPU_PORT: u16 = 510;

const JSON: &[u8] = include_bytes!("entities.json");
const P4INFO: &str = include_str!("entities.p4info.txtpb");

/// A switch that is served on a free port of the loopback address.
pub(crate) struct TestSwitch {
    pub(crate) switch: Switch,
    pub(crate) server: Server,
    pub(crate) clock: Clock,
}

/// What a port sent.
#[derive(Debug)]
struct PortChannel(Sender<Vec<u8>>);

impl PortSender for PortChannel {
    fn send(&mut self, frame: &[u8]) {
        // The test may be over.
        let _ = self.0.send(frame.to_vec());
    }
}

impl TestSwitch {
    pub(crate) async fn start() -> Self {
        Self::start_at(
            "127.0.0.1:0".parse().expect("an address"),
            ServerConfig::default(),
        )
        .await
    }

    pub(crate) async fn start_at(address: SocketAddr, config: ServerConfig) -> Self {
        let switch = Switch::new(SwitchConfig {
            cpu_port: Some(CPU_PORT),
            ..SwitchConfig::default()
        });
        let clock = Clock::start();
        let server = Server::start(switch.clone(), clock, address, config).await;
        Self {
            switch,
            server: server.expect("the loopback address can be listened on"),
            clock,
        }
    }

    pub(crate) fn target(&self) -> Arc<SwitchTarget> {
        Arc::new(SwitchTarget::new("s1", self.server.address().to_string()))
    }

    /// What a port sends from now on.
    pub(crate) fn port(&self, number: u16) -> Receiver<Vec<u8>> {
        let (sender, receiver) = channel();
        self.switch
            .attach_port(number, Box::new(PortChannel(sender)));
        receiver
    }

    /// A frame comes in.
    pub(crate) fn receive(&self, port: u16, frame: &[u8]) {
        self.switch.receive(port, frame, self.clock.now());
    }

    /// A primary's session, with the test program running.
    pub(crate) async fn primary(&self) -> Session {
        let mut session = self.session(1).await;
        assert_eq!(session.standing(), Standing::Primary);
        let pipeline = program();
        let action = PipelineAction::VerifyAndCommit;
        session
            .set_pipeline(action, &pipeline)
            .await
            .expect("a good program");
        session
    }

    pub(crate) async fn session(&self, election_id: u128) -> Session {
        let options = SessionOptions {
            election_id,
            ..options()
        };
        Session::connect(self.target(), options)
            .await
            .expect("the server listens")
    }
}

/// Never in a hurry: tests are not about time.
pub(crate) fn options() -> SessionOptions {
    SessionOptions {
        connect_timeout: PATIENCE,
        request_timeout: PATIENCE,
        ..SessionOptions::default()
    }
}

pub(crate) fn program() -> PipelineConfig {
    PipelineConfig::new(JSON, P4INFO).expect("the compiler wrote it")
}

/// Runs a test on one thread, as long as patience lasts.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let outcome = runtime.block_on(async { tokio::time::timeout(PATIENCE * 2, test).await });
    outcome.expect("the test ends");
}

/// An IPv4 packet without payload.
pub(crate) fn ipv4_frame(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8) -> Vec<u8> {
    let mut frame = ethernet_frame(0x0800);
    frame.extend([0x45, 0, 0, 20, 0, 0, 0, 0, 64, protocol, 0, 0]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    frame
}

/// An Ethernet header.
pub(crate) fn ethernet_frame(ether_type: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 0xdd, 2, 0, 0, 0, 0, 0x55];
    frame.extend(ether_type.to_be_bytes());
    frame
}
