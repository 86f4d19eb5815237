//! The agent and the readers against the real P4 program on an embedded switch.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use flowradar_core::decode::single_decode;
use flowradar_core::flowset::SwitchName;
use flowradar_core::{FlowKeyV4, Flowset, KeyKind};
use flowradar_p4::Program;
use flowradar_p4::agent::{
    AgentEvent, AgentEventKind, AgentOptions, DirectorySink, EpochDrained, ReaderKind, SwitchAgent,
};
use flowradar_p4::client::{BackoffPolicy, PipelineOutcome, SessionOptions, SwitchTarget};
use flowradar_p4::epoch::EpochClock;
use flowradar_switch::server::{Clock, Server, ServerConfig};
use flowradar_switch::{Switch, SwitchConfig};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Longer than anything takes, even on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);
/// Short, so that several pass within a test.
const EPOCH: Duration = Duration::from_millis(400);

struct ServedSwitch {
    switch: Switch,
    clock: Clock,
    server: Server,
}

struct RunningAgent {
    task: JoinHandle<()>,
    events: mpsc::Receiver<AgentEvent>,
}

/// Packets of each flow.
type Counts = BTreeMap<FlowKeyV4, u64>;

impl ServedSwitch {
    async fn start(address: SocketAddr) -> Self {
        let switch = Switch::new(SwitchConfig {
            cpu_port: Some(510),
            ..SwitchConfig::default()
        });
        let clock = Clock::start();
        let server = Server::start(switch.clone(), clock, address, ServerConfig::default());
        Self {
            switch,
            clock,
            server: server
                .await
                .expect("the loopback address can be listened on"),
        }
    }

    /// Sends `packets` packets of each of `flows` flows, and adds them to what is expected.
    async fn send(&self, flows: u16, packets: u64, expected: &mut Counts) {
        for _ in 0..packets {
            for flow in 0..flows {
                self.switch.receive(1, &udp_frame(flow), self.clock.now());
            }
            // The agent and the server run on the same thread.
            tokio::task::yield_now().await;
        }
        for flow in 0..flows {
            *expected.entry(flow_key(flow)).or_default() += packets;
        }
    }
}

impl RunningAgent {
    fn start(address: SocketAddr, folder: &Path, reader: ReaderKind) -> Self {
        let (sender, events) = mpsc::channel(1024);
        let name: SwitchName = "s1".parse().expect("a name");
        let program = Program::reference();
        let options = AgentOptions {
            session: SessionOptions {
                connect_timeout: PATIENCE,
                request_timeout: PATIENCE,
                ..SessionOptions::default()
            },
            takes_over: true,
            backoff: BackoffPolicy {
                first: Duration::from_millis(20),
                longest: Duration::from_millis(200),
            },
            reader,
            ..AgentOptions::default()
        };
        let agent = SwitchAgent::new(
            name.clone(),
            SwitchTarget::new(name.as_str(), address.to_string()),
            program.config,
            program.pipeline,
            Vec::new(),
            EpochClock::new(EPOCH).expect("long enough"),
            options,
            DirectorySink::new(folder).expect("a folder"),
            sender,
        );
        Self {
            task: tokio::spawn(async move {
                let _ = agent.run().await;
            }),
            events,
        }
    }

    async fn next(&mut self) -> AgentEventKind {
        self.events.recv().await.expect("the agent goes on").kind
    }

    async fn deployed(&mut self) -> PipelineOutcome {
        loop {
            if let AgentEventKind::Deployed { pipeline, .. } = self.next().await {
                return pipeline;
            }
        }
    }

    /// Waits until so many packets have been drained.
    async fn drained(&mut self, packets: u64) -> Vec<EpochDrained> {
        let mut epochs: Vec<EpochDrained> = Vec::new();
        while epochs.iter().map(|epoch| epoch.packets).sum::<u64>() < packets {
            if let AgentEventKind::EpochDrained(epoch) = self.next().await {
                epochs.push(epoch);
            }
        }
        epochs
    }

    fn stop(self) {
        self.task.abort();
    }
}

fn flow_key(flow: u16) -> FlowKeyV4 {
    FlowKeyV4::new(
        Ipv4Addr::new(10, 0, (flow >> 8) as u8, flow as u8),
        Ipv4Addr::new(10, 1, 0, 1),
        1000 + flow,
        53,
        17,
    )
}

fn udp_frame(flow: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend([10, 0, (flow >> 8) as u8, flow as u8, 10, 1, 0, 1]);
    frame.extend((1000 + flow).to_be_bytes());
    frame.extend([0, 53, 0, 8, 0, 0]);
    frame
}

/// What all flowsets in a folder say together; each must be complete.
fn decode(folder: &Path) -> Counts {
    let mut counts = Counts::new();
    for file in fs::read_dir(folder).expect("a folder") {
        let bytes = fs::read(file.expect("a file").path()).expect("it can be read");
        let flowset = Flowset::new_checked(bytes).expect("a good flowset");
        if flowset.header().key != KeyKind::V4 {
            assert_eq!(
                flowset.header().totals.map(|totals| totals.packets),
                Some(0)
            );
            continue;
        }
        let decoded = single_decode::<FlowKeyV4, _>(&flowset).expect("IPv4");
        assert!(decoded.is_complete(), "{:?}", flowset.header());
        for flow in decoded.flows {
            *counts.entry(flow.key).or_default() += flow.packets.value;
        }
    }
    counts
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let outcome = runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await });
    outcome.expect("the test ends");
}

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

#[test]
fn every_packet_is_in_one_epoch_whichever_way_it_is_read() {
    for reader in [ReaderKind::Packets, ReaderKind::Registers] {
        run(async {
            let folder = tempfile::tempdir().expect("a folder");
            let served = ServedSwitch::start(any_port()).await;
            let address = served.server.address();
            let mut agent = RunningAgent::start(address, folder.path(), reader);
            assert_eq!(agent.deployed().await, PipelineOutcome::Committed);
            let mut expected = Counts::new();
            served.send(500, 3, &mut expected).await;
            let mut epochs = agent.drained(1).await;
            served.send(700, 2, &mut expected).await;
            let already: u64 = epochs.iter().map(|epoch| epoch.packets).sum();
            epochs.extend(agent.drained(500 * 3 + 700 * 2 - already).await);
            agent.stop();
            assert_eq!(decode(folder.path()), expected);
            // Numbers only grow, and say how many epochs each holds.
            for pair in epochs.windows(2) {
                assert!(pair[0].epoch < pair[1].epoch);
                if pair[0].epoch > 0 {
                    assert_eq!(pair[0].epoch + pair[0].merged, pair[1].epoch);
                }
            }
        });
    }
}

#[test]
fn a_switch_that_restarts_gets_its_program_again() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        let served = ServedSwitch::start(any_port()).await;
        let address = served.server.address();
        let mut agent = RunningAgent::start(address, folder.path(), ReaderKind::Packets);
        assert_eq!(agent.deployed().await, PipelineOutcome::Committed);
        let mut expected = Counts::new();
        served.send(300, 1, &mut expected).await;
        agent.drained(300).await;
        served.server.stop().await;
        let served = ServedSwitch::start(address).await;
        assert_eq!(agent.deployed().await, PipelineOutcome::Committed);
        served.send(400, 2, &mut expected).await;
        agent.drained(800).await;
        agent.stop();
        assert_eq!(decode(folder.path()), expected);
    });
}

#[test]
fn a_controller_that_restarts_goes_on_where_the_last_one_was() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        let served = ServedSwitch::start(any_port()).await;
        let address = served.server.address();
        let mut expected = Counts::new();
        let mut agent = RunningAgent::start(address, folder.path(), ReaderKind::Packets);
        assert_eq!(agent.deployed().await, PipelineOutcome::Committed);
        served.send(200, 1, &mut expected).await;
        // Wherever it is: between epochs, or within a drain.
        agent.stop();
        served.send(200, 1, &mut expected).await;
        let mut agent = RunningAgent::start(address, folder.path(), ReaderKind::Packets);
        assert_eq!(agent.deployed().await, PipelineOutcome::Kept);
        served.send(200, 1, &mut expected).await;
        while decode(folder.path()) != expected {
            assert!(matches!(
                agent.next().await,
                AgentEventKind::EpochDrained(_)
                    | AgentEventKind::BankLeft { .. }
                    | AgentEventKind::BankCleared { .. }
            ));
        }
        agent.stop();
    });
}

#[test]
fn a_second_controller_takes_the_switch_over() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        let served = ServedSwitch::start(any_port()).await;
        let address = served.server.address();
        let mut expected = Counts::new();
        let mut first = RunningAgent::start(address, folder.path(), ReaderKind::Packets);
        first.deployed().await;
        served.send(100, 1, &mut expected).await;
        first.drained(100).await;
        let mut second = RunningAgent::start(address, folder.path(), ReaderKind::Packets);
        assert_eq!(second.deployed().await, PipelineOutcome::Kept);
        first.stop();
        served.send(150, 1, &mut expected).await;
        while decode(folder.path()) != expected {
            second.next().await;
        }
        second.stop();
    });
}
