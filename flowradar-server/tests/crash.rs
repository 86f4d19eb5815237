//! Kills processes at random points, and compares what is left with the truth.
//!
//! Quick by default. For hundreds of kills:
//!
//! ```sh
//! FLOWRADAR_KILLS=500 cargo test -p flowradar-server --test crash -- --nocapture
//! ```

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use common::{Agents, Network, compare, eventually, stored};
use flowradar_core::KeyKind;
use flowradar_core::flowset::{Epoch, SwitchName};
use flowradar_server::journal::{Journal, JournalOptions, Record, Report, ReportSource};
use flowradar_server::store::{FlowStore, ParquetStore};
use flowradar_server::{Collector, Config};
use tempfile::TempDir;

const FOLDER: &str = "FLOWRADAR_CRASH_FOLDER";
const PORT: &str = "FLOWRADAR_CRASH_PORT";

fn kills(default: u32) -> u32 {
    let kills = std::env::var("FLOWRADAR_KILLS").ok();
    kills
        .and_then(|kills| kills.parse().ok())
        .unwrap_or(default)
}

/// Random enough to kill by: a linear congruential generator.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// Runs one of the tests below that are children.
fn child(test: &str, folder: &Path, port: u16) -> (Child, BufReader<ChildStdout>) {
    let this = std::env::current_exe().expect("a test is a program");
    let mut child = Command::new(this)
        .args([
            "--exact",
            test,
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(FOLDER, folder)
        .env(PORT, port.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let stdout = child.stdout.take().expect("piped above");
    (child, BufReader::new(stdout))
}

fn folder_of_child() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

fn name() -> SwitchName {
    "leaf-1".parse().expect("a switch name")
}

const SMALL: JournalOptions = JournalOptions {
    segment_bytes: 100_000,
    bytes_max: 100_000_000,
};

/// Appends reports, and says on standard output what was confirmed.
#[test]
#[ignore = "a child of journal_survives_kills"]
fn journal_child() {
    let Some(folder) = folder_of_child() else {
        return;
    };
    let (journal, state, _) = Journal::open(&folder, SMALL, |_, _| {}).expect("a journal");
    let mut sequence = state.durable_sequence(&name(), 1);
    let mut dice = Dice(sequence);
    let mut out = std::io::stdout().lock();
    loop {
        // Several at once, so that they are written together.
        let mut waiting = vec![];
        for _ in 0..=dice.roll(5) {
            sequence += 1;
            let flowset = vec![sequence as u8; dice.roll(5_000) as usize];
            let record = Record::Report(Report {
                switch: name(),
                epoch: Epoch::number(sequence),
                key: KeyKind::V4,
                source: ReportSource::Agent { spool: 1, sequence },
                received_ns: 1,
                flowset: &flowset,
            });
            waiting.push((sequence, journal.append(record.write())));
        }
        for (sequence, confirmed) in waiting {
            let position = confirmed
                .blocking_recv()
                .expect("the journal is open")
                .expect("there is space");
            writeln!(out, "confirmed {sequence}").expect("the parent listens");
            journal.handed_over(position);
            if dice.roll(100) == 0 {
                journal.remove_before(position.segment);
            }
        }
    }
}

#[test]
fn journal_survives_kills() {
    let folder = TempDir::new().expect("a folder");
    let mut dice = Dice(1);
    let mut confirmed = 0;
    let kills = kills(20);
    let (mut records, mut torn) = (0, 0);
    for kill in 0..kills {
        let (mut child, stdout) = child("journal_child", folder.path(), 0);
        let process = child.id();
        let mut lines = stdout.lines().map_while(Result::ok);
        let first = lines.find(|line| line.contains("confirmed"));
        assert!(first.is_some(), "the child confirms nothing");
        let patience = Duration::from_micros(dice.roll(20_000));
        let killer = std::thread::spawn(move || {
            std::thread::sleep(patience);
            let killed = Command::new("kill")
                .args(["-9", &process.to_string()])
                .status();
            assert!(killed.expect("kill is there").success());
        });
        for line in first.into_iter().chain(lines) {
            let number = line
                .rsplit_once("confirmed ")
                .map(|(_, number)| number.parse());
            if let Some(Ok(number)) = number {
                confirmed = number;
            }
        }
        killer.join().expect("it killed");
        child.wait().expect("it is dead");

        let mut sequences: Vec<u64> = vec![];
        let opened = Journal::open(folder.path(), SMALL, |_, record| {
            if let Record::Report(report) = record
                && let ReportSource::Agent { sequence, .. } = report.source
            {
                assert!(report.flowset.iter().all(|byte| *byte == sequence as u8));
                sequences.push(sequence);
            }
        });
        let (_, state, recovery) = opened.expect("a journal");
        assert_eq!(recovery.damaged_stretches, 0, "kill {kill}");
        torn += u64::from(recovery.torn_bytes > 0);
        let durable = state.durable_sequence(&name(), 1);
        assert!(
            durable >= confirmed,
            "kill {kill}: {confirmed} was confirmed, {durable} is durable"
        );
        // At most one batch was written and not confirmed any more.
        assert!(durable <= confirmed + 12, "kill {kill}");
        let expected: Vec<u64> = (sequences.first().copied().unwrap_or(1)..=durable).collect();
        assert_eq!(sequences, expected, "kill {kill}: without gap or duplicate");
        records = durable;
    }
    _ = writeln!(
        std::io::stderr(),
        "journal: {kills} kills, {records} records, all confirmed ones there once; {torn} torn ends cut off"
    );
}

fn config(folder: &Path, port: u16) -> Config {
    let mut config = Config::ephemeral(folder);
    config.ingest.listen.set_port(port);
    config.epochs.deadline_ms = 50;
    config.epochs.late_ms = 300;
    config.store.flush_ms = 40;
    config.store.maintain_ms = 100;
    // The epochs here are years old.
    config.store.keep_hours = 0;
    config.journal.segment_bytes = 1 << 18;
    config
}

/// A collector.
#[test]
#[ignore = "a child of collector_survives_kills"]
fn collector_child() {
    let Some(folder) = folder_of_child() else {
        return;
    };
    let port = std::env::var(PORT).expect("set by the parent");
    let port = port.parse().expect("a port");
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let collector = Collector::start(config(&folder, port)).await;
        let _collector = collector.expect("a collector");
        println!("ready");
        std::future::pending::<()>().await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn collector_survives_kills() {
    let network = Network::new(40, 60);
    let folder = TempDir::new().expect("a folder");
    let spools = TempDir::new().expect("a folder");
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port();
    let to = format!("http://127.0.0.1:{port}");
    let agents = Agents::start(spools.path(), &network.switches, &to);
    let mut dice = Dice(2);
    let kills = kills(6);
    let mut epochs = network.epochs.iter();
    for kill in 0..kills {
        let (mut child, stdout) = child("collector_child", folder.path(), port);
        let mut lines = stdout.lines();
        let ready = lines.any(|line| line.is_ok_and(|line| line.contains("ready")));
        assert!(ready, "the collector starts, kill {kill}");
        // The epochs that are due until this kill, one after the other.
        let share = network.epochs.len().div_ceil(kills as usize);
        for flowsets in epochs.by_ref().take(share) {
            for (switch, flowset) in flowsets {
                agents.put(switch, flowset);
            }
            tokio::time::sleep(Duration::from_millis(dice.roll(20))).await;
        }
        tokio::time::sleep(Duration::from_millis(dice.roll(150))).await;
        child.kill().expect("SIGKILL");
        child.wait().expect("it is dead");
    }
    // Now it may go on to the end.
    let (mut child, stdout) = child("collector_child", folder.path(), port);
    let _lines = stdout.lines();
    agents.emptied().await;
    let all = || {
        // A look at the files of a running collector: it may remove one just now.
        let copy = TempDir::new().map_err(|error| error.to_string())?;
        let copied = Command::new("cp")
            .arg("-r")
            .arg(folder.path().join("flows"))
            .arg(copy.path())
            .status();
        if !copied.is_ok_and(|status| status.success()) {
            return Err("a file went while it was copied".to_owned());
        }
        let store =
            ParquetStore::open(copy.path().join("flows")).map_err(|error| error.to_string())?;
        if store
            .reader()
            .scan(
                flowradar_server::store::TimeRange::ALL,
                &["time"],
                &mut |_| std::ops::ControlFlow::Continue(()),
            )
            .is_ok_and(|scanned| scanned.unreadable_files > 0)
        {
            return Err("a file went while it was copied".to_owned());
        }
        compare(&stored(&store.reader()), &network.truth)
    };
    eventually("every acknowledged flow is stored once", all).await;
    child.kill().expect("SIGKILL");
    child.wait().expect("it is dead");
    agents.stop();
    _ = writeln!(
        std::io::stderr(),
        "collector: {kills} kills, {} flow records, each stored once",
        network.truth.len()
    );
}
