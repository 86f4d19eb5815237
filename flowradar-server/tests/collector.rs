//! A collector and its agents, from flowsets to answers.

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use common::{
    Agents, BEGIN_NS, EPOCH_NS, Network, agent, compare, eventually, fetch, skipped, stored,
};
use flowradar_server::agent::{AgentProgress, Spool, SpoolOptions};
use flowradar_server::config::{ApiConfig, SwitchConfig, TlsConfig};
use flowradar_server::ingest::Secret;
use flowradar_server::{Collector, Config};
use tempfile::TempDir;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// A collector that is quick to store, and to close epochs.
fn config(folder: &Path) -> Config {
    let mut config = Config::ephemeral(folder);
    config.epochs.deadline_ms = 300;
    config.epochs.late_ms = 60_000;
    config.store.flush_ms = 50;
    // The epochs here are years old.
    config.store.keep_hours = 0;
    config
}

fn url(collector: &Collector) -> String {
    format!("http://{}", collector.ingest_address())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flow_of_a_network_is_stored_and_served() {
    let network = Network::new(100, 5);
    let folder = TempDir::new().expect("a folder");
    let spools = TempDir::new().expect("a folder");
    let collector = Collector::start(config(folder.path()))
        .await
        .expect("a collector");
    let agents = Agents::start(spools.path(), &network.switches, &url(&collector));
    let late = network.switches[3].clone();
    for flowsets in &network.epochs {
        for (switch, flowset) in flowsets {
            if *switch != late {
                agents.put(switch, flowset);
            }
        }
    }
    agents.emptied().await;
    let reader = collector.reader();
    let without_late = network.truth_of(|_, switch| switch != late.as_str());
    eventually("all but the late switch's flows are stored", || {
        compare(&stored(&reader), &without_late)
    })
    .await;
    let epochs = fetch(collector.api_address(), "/api/v1/epochs");
    let first = &epochs.as_array().expect("a list")[4];
    assert_eq!(first["epoch"], 0);
    assert_eq!(first["missing"], serde_json::json!([late.as_str()]));
    assert_eq!(first["complete"], false);

    // Its reports come late, and complete the epochs.
    for flowsets in &network.epochs {
        let (switch, flowset) = flowsets
            .iter()
            .find(|(switch, _)| *switch == late)
            .expect("it reports");
        agents.put(switch, flowset);
    }
    eventually("late reports complete what is stored", || {
        compare(&stored(&reader), &network.truth)
    })
    .await;
    let api = collector.api_address();
    let epochs = fetch(api, "/api/v1/epochs?epoch=2");
    assert_eq!(
        (&epochs[0]["complete"], &epochs[0]["missing"]),
        (&true.into(), &serde_json::json!([]))
    );
    assert!(epochs[0]["revision"].as_u64() > Some(0));
    assert_eq!(epochs[0]["time_ns"], BEGIN_NS + 2 * EPOCH_NS);

    api_answers(api, &network);
    agents.stop();
    collector.stop().await;
}

/// Checks what the API says against the truth.
fn api_answers(api: std::net::SocketAddr, network: &Network) {
    let packets: u64 = network.truth.values().map(|(_, packets)| packets).sum();
    let top = fetch(api, "/api/v1/flows/top?group_by=source");
    assert_eq!(top["rows"][0]["packets"], packets);
    assert_eq!(top["rows"][0]["records"], network.truth.len());
    assert_eq!(top["complete"], true);

    let (epoch, switch, src, dst, src_port, dst_port) = network.truth.keys().next().expect("flows");
    let flow = format!("src={src}&dst={dst}&src_port={src_port}&dst_port={dst_port}&protocol=6");
    let hops = fetch(api, &format!("/api/v1/flows/hops?{flow}&epoch={epoch}"));
    let mut found: Vec<(&str, u64)> = hops["rows"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| {
            let switch = row["switch"].as_str().expect("a name");
            (switch, row["packets"].as_u64().expect("a number"))
        })
        .collect();
    found.sort_unstable();
    let expected: Vec<(&str, u64)> = network
        .truth
        .iter()
        .filter(|((e, _, s, d, sp, dp), _)| {
            (e, s, d, sp, dp) == (epoch, src, dst, src_port, dst_port)
        })
        .map(|((_, switch, ..), (_, packets))| (switch.as_str(), *packets))
        .collect();
    assert!(expected.iter().any(|(name, _)| name == switch));
    assert_eq!(found, expected);

    let series = fetch(api, "/api/v1/flows/series?step=10ms&group_by=switch");
    assert_eq!(series["rows"].as_array().map(Vec::len), Some(5 * 20));
    let some = fetch(api, &format!("/api/v1/flows?switch={switch}&limit=3"));
    assert_eq!(
        (some["rows"].as_array().map(Vec::len), &some["complete"]),
        (Some(3), &false.into())
    );
    let status = fetch(api, "/api/v1/status");
    assert_eq!(status["switches"], 20);
    assert_eq!(fetch(api, "/api/v1/switches")[0]["connected"], true);
    let description = fetch(api, "/api/v1/openapi.json");
    assert!(description["paths"]["/api/v1/flows/hops"]["get"].is_object());
    for bad in [
        "/api/v1/flows?from=yesterday",
        "/api/v1/flows?src=10.0.0",
        "/api/v1/flows/top?group_by=colour",
        "/api/v1/flows/hops?src=10.0.0.1",
        "/api/v1/flows/series?step=0s",
        "/api/v1/flows?limit=1&limit=2",
    ] {
        refused(api, bad);
    }
    // No parameter is ignored: the answer would be to another question.
    let paths = description["paths"].as_object().expect("paths");
    let undescribed = ["/metrics", "/api/v1/openapi.json"];
    let described = paths
        .iter()
        .filter(|(_, path)| path["get"].is_object())
        .map(|(path, _)| path.as_str());
    for path in described.chain(undescribed) {
        let error = refused(api, &format!("{path}?colour=red&step=1s&group_by=src"));
        assert!(error.contains("colour"), "{path}: {error}");
    }
    let error = refused(api, "/api/v1/flows?source_port=53");
    assert!(
        error.contains("source_port") && error.contains("src_port"),
        "{error}"
    );
    let metrics = ureq::get(format!("http://{api}/metrics"))
        .call()
        .expect("metrics");
    let metrics = metrics.into_body().read_to_string().expect("text");
    for line in ["flowradar_rows_stored_total", "outcome=\"late\"", "# EOF"] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

/// The error with which a request is refused, as a bad one.
fn refused(api: std::net::SocketAddr, path: &str) -> String {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into();
    let mut answer = agent
        .get(format!("http://{api}{path}"))
        .call()
        .unwrap_or_else(|error| panic!("{path}: {error}"));
    let text = answer.body_mut().read_to_string().expect("text");
    assert_eq!(answer.status(), 400, "{path}: {text}");
    let body: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    body["error"].as_str().expect("an error").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_report_of_the_switch_is_rejected_and_told() {
    let network = Network::new(20, 1);
    let folder = TempDir::new().expect("a folder");
    let spools = TempDir::new().expect("a folder");
    let collector = Collector::start(config(folder.path()))
        .await
        .expect("a collector");
    let live = format!("http://{}/api/v1/events/live", collector.api_address());
    let (told, events) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let answer = ureq::get(live).call().expect("a stream");
        for line in BufReader::new(answer.into_body().into_reader())
            .lines()
            .map_while(Result::ok)
        {
            if let Some(event) = line.strip_prefix("event:") {
                _ = told.send(event.trim().to_owned());
            }
        }
    });
    let (switch, other) = (&network.epochs[0][0], &network.epochs[0][1]);
    let spool = Spool::open(spools.path(), SpoolOptions::default(), None).expect("a spool");
    let mut damaged = switch.1.clone();
    damaged[200] ^= 1;
    for bytes in [&other.1, &damaged, &switch.1] {
        spool.put(bytes).expect("space");
    }
    let channel = Endpoint::from_shared(url(&collector))
        .expect("an address")
        .connect_lazy();
    let (task, mut progress) = agent(channel, &switch.0, None, spool.clone());
    let mut rejected = vec![];
    while spool.holds().0 > 0 || rejected.len() < 2 {
        match progress.recv().await {
            Some(Ok(AgentProgress::Rejected { sequence, reason })) => {
                rejected.push((sequence, reason))
            }
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        rejected
            .iter()
            .map(|(sequence, _)| *sequence)
            .collect::<Vec<_>>(),
        [1, 2]
    );
    assert!(
        rejected[0].1.contains(other.0.as_str()),
        "{}",
        rejected[0].1
    );
    let reader = collector.reader();
    let truth = network.truth_of(|_, name| name == switch.0.as_str());
    eventually("the good one is stored", || {
        compare(&stored(&reader), &truth)
    })
    .await;
    let mut kinds = vec![];
    while kinds.len() < 2 {
        let event = events
            .recv_timeout(Duration::from_secs(60))
            .expect("an event");
        if ["foreign", "corrupt"].contains(&event.as_str()) {
            kinds.push(event);
        }
    }
    assert_eq!(kinds, ["foreign", "corrupt"]);
    task.abort();
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_dropped_are_taken_once() {
    let network = Network::new(20, 3);
    let folder = TempDir::new().expect("a folder");
    let drop = folder.path().join("drop");
    let mut config = config(&folder.path().join("data"));
    config.drop_folder = Some(flowradar_server::config::DropFolderConfig {
        path: drop.clone(),
        poll_ms: 20,
    });
    let collector = Collector::start(config.clone()).await.expect("a collector");
    let mut files = 0;
    for (epoch, flowsets) in network.epochs.iter().enumerate() {
        for (switch, flowset) in flowsets {
            let name = drop.join(format!("{switch}-{epoch}-v4.flowset"));
            std::fs::write(name.with_extension("part"), flowset).expect("space");
            std::fs::rename(name.with_extension("part"), name).expect("a name");
            files += 1;
        }
    }
    std::fs::write(drop.join("noise.flowset"), b"no flowset").expect("space");
    let reader = collector.reader();
    eventually("all are stored", || {
        compare(&stored(&reader), &network.truth)
    })
    .await;
    let count = |part: &str| {
        std::fs::read_dir(drop.join(part))
            .expect("a folder")
            .count()
    };
    eventually("files are put away", || {
        let put_away = (count("taken"), count("rejected"));
        (put_away == (files, 1))
            .then_some(())
            .ok_or_else(|| format!("{put_away:?}"))
    })
    .await;
    collector.stop().await;

    // A process that died after it took files, and before it moved them.
    for entry in std::fs::read_dir(drop.join("taken"))
        .expect("a folder")
        .take(10)
    {
        let path = entry.expect("a file").path();
        std::fs::rename(&path, drop.join(path.file_name().expect("a name"))).expect("a name");
    }
    let collector = Collector::start(config).await.expect("a collector");
    eventually("they are put away again", || {
        (count("taken") == files)
            .then_some(())
            .ok_or_else(|| "not yet".into())
    })
    .await;
    assert!(!collector.metrics().contains("outcome=\"duplicate\""));
    compare(&stored(&collector.reader()), &network.truth).expect("nothing is there twice");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_speak_for_one_switch_and_may_change() {
    let network = Network::new(20, 1);
    let folder = TempDir::new().expect("a folder");
    let spools = TempDir::new().expect("a folder");
    let (mine, other) = (&network.epochs[0][0], &network.epochs[0][1]);
    let mut config = config(folder.path());
    config.ingest.open = false;
    config.ingest.switches = vec![SwitchConfig {
        name: mine.0.clone(),
        token_file: None,
        token: Some(Secret::new("mine")),
        certificate_name: None,
    }];
    config.api = ApiConfig {
        token: Some(Secret::new("admin")),
        ..config.api
    };
    let collector = Collector::start(config.clone()).await.expect("a collector");
    let channel = Endpoint::from_shared(url(&collector))
        .expect("an address")
        .connect_lazy();
    let spool = |name: &str| {
        let spool = Spool::open(spools.path().join(name), SpoolOptions::default(), None);
        spool.expect("a spool")
    };
    for (number, (switch, token)) in [
        (&mine.0, None),
        (&mine.0, Some("wrong")),
        (&other.0, Some("mine")),
        (&other.0, None),
    ]
    .into_iter()
    .enumerate()
    {
        let (_, mut progress) = agent(channel.clone(), switch, token, spool(&number.to_string()));
        let refused = progress
            .recv()
            .await
            .expect("an outcome")
            .expect_err("refused");
        assert!(refused.contains("PermissionDenied"), "{refused}");
    }
    let good = spool("good");
    good.put(&mine.1).expect("space");
    let (task, _progress) = agent(channel.clone(), &mine.0, Some("mine"), good.clone());
    good.emptied().await;
    task.abort();

    // Another token from now on, and a change that needs a restart.
    config.ingest.switches[0].token = Some(Secret::new("new"));
    config.store.flush_ms = 60;
    config.classic.netflow = Some(([127, 0, 0, 1], 0).into());
    assert_eq!(
        collector.reload(config).expect("a good configuration"),
        ["classic"]
    );
    let next = spool("next");
    eventually("the new token is asked for", || {
        let metrics = collector.metrics();
        metrics
            .contains("# EOF")
            .then_some(())
            .ok_or_else(|| "no metrics".into())
    })
    .await;
    let (_task, mut progress) = agent(channel, &mine.0, Some("new"), next.clone());
    let mut told = progress.recv().await.expect("an outcome");
    // The change may take a moment.
    while told.is_err() {
        let again = Endpoint::from_shared(url(&collector))
            .expect("an address")
            .connect_lazy();
        let (_task, mut retry) = agent(again, &mine.0, Some("new"), next.clone());
        told = retry.recv().await.expect("an outcome");
    }
    assert!(matches!(told, Ok(AgentProgress::Registered { .. })));

    let notice = format!("http://{}/api/v1/admin/notice", collector.api_address());
    let post = |token: Option<&str>| {
        let mut request = ureq::post(&notice).header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request.send(r#"{"message": "maintenance begins"}"#)
    };
    for wrong in [None, Some("mine")] {
        assert!(matches!(post(wrong), Err(ureq::Error::StatusCode(401))));
    }
    post(Some("admin")).expect("allowed");
    let events = fetch(collector.api_address(), "/api/v1/events?kind=remark");
    assert_eq!(events[0]["message"], "maintenance begins");
    collector.stop().await;
}

/// A certificate authority, and what it signs.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(vec![]).expect("no names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Self {
            certificate,
            issuer: rcgen::Issuer::new(params, key),
        }
    }

    /// Certificate and key, PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("a DNS name");
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_speak_for_the_switch_of_their_name() {
    let network = Network::new(20, 1);
    let folder = TempDir::new().expect("a folder");
    let spools = TempDir::new().expect("a folder");
    let authority = Authority::new();
    let (certificate, key) = authority.sign("localhost");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("space");
        path
    };
    let mut config = config(&folder.path().join("data"));
    config.ingest.open = true;
    config.ingest.tls = Some(TlsConfig {
        certificate: file("collector.pem", &certificate),
        key: file("collector.key", &key),
        client_ca: Some(file("ca.pem", &authority.certificate.pem())),
    });
    let collector = Collector::start(config).await.expect("a collector");
    let (mine, other) = (&network.epochs[0][0], &network.epochs[0][1]);
    let channel = |identity: Option<(String, String)>| -> Channel {
        let mut tls = ClientTlsConfig::new()
            .domain_name("localhost")
            .ca_certificate(Certificate::from_pem(authority.certificate.pem()));
        if let Some((certificate, key)) = identity {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        Endpoint::from_shared(format!("https://{}", collector.ingest_address()))
            .and_then(|endpoint| endpoint.tls_config(tls))
            .expect("an endpoint")
            .connect_lazy()
    };
    let spool = |name: &str| {
        let spool = Spool::open(spools.path().join(name), SpoolOptions::default(), None);
        spool.expect("a spool")
    };
    let signed = Some(authority.sign(mine.0.as_str()));
    let good = spool("good");
    good.put(&mine.1).expect("space");
    let (_task, _progress) = agent(channel(signed.clone()), &mine.0, None, good.clone());
    good.emptied().await;
    // Its certificate is not another switch's, even though ingest is open.
    let (_task, mut progress) = agent(channel(signed), &other.0, None, spool("foreign"));
    let refused = progress
        .recv()
        .await
        .expect("an outcome")
        .expect_err("refused");
    assert!(refused.contains("PermissionDenied"), "{refused}");
    // Without a certificate, or with one that somebody else signed, there is no connection at all.
    let stranger = Authority::new().sign(mine.0.as_str());
    for identity in [None, Some(stranger)] {
        let (task, mut progress) = agent(channel(identity), &mine.0, None, spool("stranger"));
        let told = progress.recv().await.expect("an outcome");
        assert!(matches!(told, Ok(AgentProgress::Failed { .. })), "{told:?}");
        task.abort();
        _ = task.await;
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ipfix_comes_out_as_nfdump_reads_it() {
    if std::process::Command::new("nfcapd")
        .arg("-V")
        .output()
        .is_err()
    {
        skipped(
            "nfcapd is not installed (Debian package nfdump): IPFIX export is not tried with it",
        );
        return;
    }
    let network = Network::new(30, 2);
    let folder = TempDir::new().expect("a folder");
    let spools = TempDir::new().expect("a folder");
    let captured = TempDir::new().expect("a folder");
    let port = std::net::UdpSocket::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a free port")
        .port();
    let mut nfcapd = std::process::Command::new("nfcapd")
        .args([
            "-b",
            "127.0.0.1",
            "-t",
            "3600",
            "-p",
            &port.to_string(),
            "-w",
        ])
        .arg(captured.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("it is installed");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut config = config(folder.path());
    // On a busy machine too: an epoch that is decoded again is exported again.
    config.epochs.deadline_ms = 10_000;
    let text = format!("to = \"127.0.0.1:{port}\"\nexporter = \"192.0.2.9\"");
    config.export = Some(toml::from_str(&text).expect("an export"));
    let collector = Collector::start(config).await.expect("a collector");
    let agents = Agents::start(spools.path(), &network.switches, &url(&collector));
    for flowsets in &network.epochs {
        for (switch, flowset) in flowsets {
            agents.put(switch, flowset);
        }
        // One epoch after the other, so that none is decoded before all have reported.
        agents.emptied().await;
    }
    let exported = format!(
        "flowradar_exported_total{{kind=\"records\"}} {}",
        network.truth.len()
    );
    eventually("all records are exported", || {
        collector
            .metrics()
            .contains(&exported)
            .then_some(())
            .ok_or_else(|| exported.clone())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    // It writes its file when it is told to end.
    let ended = std::process::Command::new("kill")
        .arg(nfcapd.id().to_string())
        .status();
    assert!(ended.is_ok_and(|status| status.success()));
    nfcapd.wait().expect("it ends");
    let read = std::process::Command::new("nfdump")
        .args(["-q", "-N", "-o", "fmt:%sa,%da,%sp,%dp,%pkt,%byt", "-R"])
        .arg(captured.path())
        .output()
        .expect("it is installed");
    let mut found: Vec<String> = String::from_utf8_lossy(&read.stdout)
        .lines()
        .map(|line| line.split(',').map(str::trim).collect::<Vec<_>>().join(","))
        .filter(|line| !line.is_empty())
        .collect();
    found.sort_unstable();
    let mut expected: Vec<String> = network
        .truth
        .iter()
        .map(|((_, _, src, dst, src_port, dst_port), (_, packets))| {
            format!("{src},{dst},{src_port},{dst_port},{packets},0")
        })
        .collect();
    expected.sort_unstable();
    assert_eq!(
        found.len(),
        expected.len(),
        "{}",
        String::from_utf8_lossy(&read.stderr)
    );
    let differs = found
        .iter()
        .zip(&expected)
        .find(|(found, expected)| found != expected);
    assert_eq!(differs, None);
    agents.stop();
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_astray_does_not_end_the_analyses() {
    let network = Network::new(20, 6);
    let folder = TempDir::new().expect("a folder");
    let spools = TempDir::new().expect("a folder");
    let collector = Collector::start(config(folder.path()))
        .await
        .expect("a collector");
    let agents = Agents::start(spools.path(), &network.switches, &url(&collector));
    let analysed = |epochs: u64| {
        let counters = collector.live().analysis_counters();
        (counters.epochs == epochs)
            .then_some(())
            .ok_or_else(|| format!("{counters:?}"))
    };
    for (epoch, flowsets) in network.epochs.iter().enumerate() {
        for (switch, flowset) in flowsets {
            agents.put(switch, flowset);
        }
        agents.emptied().await;
        eventually("the epoch is analysed", || analysed(epoch as u64 + 1)).await;
        if epoch == 2 {
            let (switch, flowset) = &flowsets[0];
            agents.put(
                switch,
                &common::in_epoch(flowset, 1 << 40, BEGIN_NS + 2 * EPOCH_NS),
            );
            let line = "flowradar_epochs_implausible_total 1";
            eventually("it is seen", || {
                let metrics = collector.metrics();
                metrics.contains(line).then_some(()).ok_or(metrics)
            })
            .await;
        }
    }
    let metrics = collector.metrics();
    let line = "flowradar_analyses_total{kind=\"implausible\"} 1";
    assert!(metrics.contains(line), "{metrics}");
    let notices = collector.notices().after(0);
    let told = |kind: &str| notices.iter().filter(|notice| notice.kind == kind).count();
    assert_eq!((told("implausible"), told("epochs_restarted")), (1, 0));
    let epochs = fetch(
        collector.api_address(),
        &format!("/api/v1/epochs?epoch={}", 1u64 << 40),
    );
    assert_eq!(epochs[0]["implausible"], true);
    assert_eq!(epochs[0]["missing"], serde_json::json!([]));
    agents.stop();
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_events_are_given_once() {
    let folder = TempDir::new().expect("a folder");
    let mut ids = vec![];
    for _ in 0..3 {
        let collector = Collector::start(config(folder.path()))
            .await
            .expect("a collector");
        collector.notices().info("remark", "a remark");
        collector.notices().info("remark", "another");
        let after = ids.last().copied().unwrap_or(0);
        let path = format!("/api/v1/events?after={after}");
        let events = fetch(collector.api_address(), &path);
        let new = events.as_array().expect("a list").iter();
        let new: Vec<u64> = new
            .map(|event| event["id"].as_u64().expect("a number"))
            .collect();
        assert_eq!(new.len(), 2, "{events}");
        ids.extend(new);
        collector.stop().await;
    }
    assert!(
        ids.is_sorted() && ids.windows(2).all(|pair| pair[0] != pair[1]),
        "{ids:?}"
    );
    // What programs that have only doubles can hold.
    assert!(ids.iter().all(|id| *id < 1 << 53));
}
