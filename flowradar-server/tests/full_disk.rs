//! A disk that fills up: a small file system in memory. Needs root.

mod common;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{Agents, Network, compare, eventually, skipped, stored};
use flowradar_server::{Collector, Config};
use tempfile::TempDir;

/// A file system of a size, unmounted when it is dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(bytes: u64) -> Option<Self> {
        let folder = TempDir::new().expect("a folder");
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={bytes}"),
                "flowradar-test",
            ])
            .arg(folder.path())
            .output();
        mounted
            .is_ok_and(|mounted| mounted.status.success())
            .then_some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_makes_agents_wait_and_loses_nothing() {
    let Some(disk) = SmallDisk::new(24 << 20) else {
        skipped("no file system can be mounted (not root?): a full disk is not tried");
        return;
    };
    let network = Network::new(60, 30);
    let spools = TempDir::new().expect("a folder");
    // Somebody else takes all but a little.
    let filler = disk.path().join("filler");
    std::fs::write(&filler, vec![1; 23 << 20]).expect("space");
    let mut config = Config::ephemeral(disk.path().join("data"));
    config.epochs.deadline_ms = 100;
    config.epochs.late_ms = 500;
    config.store.flush_ms = 50;
    // The epochs here are years old.
    config.store.keep_hours = 0;
    config.journal.segment_bytes = 1 << 18;
    config.ingest.stall_ms = 200;
    let collector = Collector::start(config.clone()).await.expect("a collector");
    let url = format!("http://{}", collector.ingest_address());
    let agents = Agents::start(spools.path(), &network.switches, &url);
    for flowsets in &network.epochs {
        for (switch, flowset) in flowsets {
            agents.put(switch, flowset);
        }
    }
    eventually("the disk is full, and that is said", || {
        let notices = collector.notices().after(0);
        let said = notices.iter().any(|notice| notice.kind == "refusing");
        said.then_some(())
            .ok_or_else(|| format!("{} notices", notices.len()))
    })
    .await;
    let waiting: usize = agents.spools.values().map(|spool| spool.holds().0).sum();
    assert!(waiting > 0, "flowsets that were refused wait in the spools");

    // There is room again: all is taken, and stored once.
    std::fs::remove_file(&filler).expect("it is there");
    tokio::time::timeout(Duration::from_secs(120), agents.emptied())
        .await
        .expect("agents get rid of everything");
    let reader = collector.reader();
    eventually("all is stored once", || {
        compare(&stored(&reader), &network.truth)
    })
    .await;
    agents.stop();
    collector.stop().await;
    let again = Collector::start(config).await.expect("a collector");
    compare(&stored(&again.reader()), &network.truth).expect("the same after a restart");
    again.stop().await;
}
