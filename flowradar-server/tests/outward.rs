//! What a collector sends elsewhere: IPFIX over TCP, and events to a webhook.

mod common;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use common::{Agents, Network, eventually};
use flowradar_server::{Collector, Config};
use tempfile::TempDir;

fn config(folder: &Path) -> Config {
    let mut config = Config::ephemeral(folder);
    config.epochs.deadline_ms = 60_000;
    config.store.flush_ms = 50;
    config.store.keep_hours = 0;
    config
}

/// Switches of the IPFIX records, addresses and ports, and packets.
type Exported = (u32, [u8; 4], [u8; 4], u16, u16, u64);

/// An IPFIX collector of the plainest kind, by RFC 7011 and IANA's list of elements.
#[derive(Default)]
struct IpfixReader {
    /// Elements and lengths by template; options templates are marked.
    templates: HashMap<u16, (bool, Vec<(u16, usize)>)>,
    records: Vec<Exported>,
    /// Names of observation points.
    names: HashMap<u32, String>,
    /// Number of data records, options among them: the next sequence number.
    data_records: u32,
}

fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

impl IpfixReader {
    /// Reads messages until the connection ends, or so many flow records were read.
    fn read(&mut self, stream: &mut TcpStream, records_max: usize) -> usize {
        let mut messages = 0;
        // Sequence numbers begin anew with each session (RFC 7011, 10.1 and 3.1).
        self.data_records = 0;
        self.templates.clear();
        let begin = self.records.len();
        while self.records.len() - begin < records_max {
            let mut header = [0; 16];
            if stream.read_exact(&mut header).is_err() {
                break;
            }
            assert_eq!(header[..2], [0, 10], "the version");
            let length = number(&header[2..4]) as usize;
            let mut body = vec![0; length - 16];
            stream.read_exact(&mut body).expect("a whole message");
            assert_eq!(
                number(&header[8..12]),
                u64::from(self.data_records),
                "the sequence"
            );
            assert_eq!(number(&header[12..16]), 7, "the observation domain");
            self.sets(&body);
            messages += 1;
        }
        messages
    }

    fn sets(&mut self, mut body: &[u8]) {
        while !body.is_empty() {
            let (id, length) = (number(&body[..2]) as u16, number(&body[2..4]) as usize);
            let (set, rest) = body.split_at(length);
            body = rest;
            let set = &set[4..];
            match id {
                2 => self.template(set, false),
                3 => self.template(set, true),
                _ => self.data(id, set),
            }
        }
    }

    fn template(&mut self, mut set: &[u8], options: bool) {
        while set.len() >= 4 {
            let (id, count) = (number(&set[..2]) as u16, number(&set[2..4]) as usize);
            set = &set[if options { 6 } else { 4 }..];
            let mut fields = vec![];
            for _ in 0..count {
                let element = number(&set[..2]) as u16;
                fields.push((element, number(&set[2..4]) as usize));
                assert_eq!(element >> 15, 0, "no elements of an enterprise are used");
                set = &set[4..];
            }
            self.templates.insert(id, (options, fields));
        }
    }

    fn data(&mut self, id: u16, mut set: &[u8]) {
        let (options, fields) = self
            .templates
            .get(&id)
            .expect("its template came before")
            .clone();
        // Padding is shorter than a record; these have more than three bytes.
        while set.len() > 3 {
            let mut values: HashMap<u16, Vec<u8>> = HashMap::new();
            for (element, length) in &fields {
                let mut length = *length;
                if length == 65_535 {
                    length = usize::from(set[0]);
                    assert!(length < 255, "short texts");
                    set = &set[1..];
                }
                values.insert(*element, set[..length].to_vec());
                set = &set[length..];
            }
            self.data_records += 1;
            let of = |element: u16| number(values.get(&element).map_or(&[], Vec::as_slice));
            let point = of(138) as u32;
            if options {
                let text = values.into_iter().find(|(element, _)| *element != 138);
                let text = text.map(|(_, text)| String::from_utf8(text).expect("a name"));
                self.names.insert(
                    point,
                    text.expect("a name").trim_end_matches('\0').to_owned(),
                );
                continue;
            }
            let address = |element: u16| {
                let bytes = values.get(&element).expect("an address");
                <[u8; 4]>::try_from(bytes.as_slice()).expect("IPv4")
            };
            self.records.push((
                point,
                address(8),
                address(12),
                of(7) as u16,
                of(11) as u16,
                of(2),
            ));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ipfix_goes_over_tcp_and_a_broken_connection_is_made_again() {
    let network = Network::new(30, 4);
    let folder = TempDir::new().expect("a folder");
    let spools = TempDir::new().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = listener.local_addr().expect("an address");
    let of_epoch = |epoch: u64| network.truth_of(|of, _| of == epoch).len();
    let expected = [of_epoch(0), of_epoch(3)];
    let (told, sessions) = mpsc::channel();
    let peer = std::thread::spawn(move || {
        let mut reader = IpfixReader::default();
        for records in expected {
            let (mut stream, _) = listener.accept().expect("the collector connects");
            let messages = reader.read(&mut stream, records);
            drop(stream);
            told.send(messages).expect("the test listens");
        }
        reader
    });
    let mut config = config(folder.path());
    let text = format!("to = \"{to}\"\nprotocol = \"tcp\"\ndomain = 7");
    config.export = Some(toml::from_str(&text).expect("an export"));
    let collector = Collector::start(config).await.expect("a collector");
    let url = format!("http://{}", collector.ingest_address());
    let agents = Agents::start(spools.path(), &network.switches, &url);
    let exported = |kind: &str| {
        let metrics = collector.metrics();
        let name = format!("flowradar_exported_total{{kind=\"{kind}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.map_or(0, |count| count.parse::<usize>().expect("a number"))
    };
    let mut sent = 0;
    for (epoch, flowsets) in network.epochs.iter().enumerate() {
        // The last epoch is for the second connection: what comes until the first is known to be broken
        // is lost, and counted.
        if epoch == 3 && exported("records_dropped") == 0 {
            break;
        }
        for (switch, flowset) in flowsets {
            agents.put(switch, flowset);
        }
        agents.emptied().await;
        sent += of_epoch(epoch as u64);
        eventually("the epoch is exported or given up", || {
            let done = exported("records") + exported("records_dropped");
            (done == sent)
                .then_some(())
                .ok_or_else(|| format!("{done} of {sent}"))
        })
        .await;
        if epoch == 0 {
            let messages = sessions.recv_timeout(Duration::from_secs(60));
            assert!(messages.expect("the first session ended") > 0);
        }
    }
    assert!(exported("records_dropped") > 0, "the connection was broken");
    assert!(exported("messages") > 0);
    let kinds: Vec<String> = collector
        .notices()
        .after(0)
        .into_iter()
        .map(|n| n.kind)
        .collect();
    assert!(kinds.contains(&"export_failed".to_owned()), "{kinds:?}");
    sessions
        .recv_timeout(Duration::from_secs(60))
        .expect("the second session ended");
    let reader = peer.join().expect("it reads IPFIX");

    // The first session had epoch 0, record by record.
    let truth = network.truth_of(|epoch, _| epoch == 0);
    let mut found: Vec<_> = reader.records[..expected[0]]
        .iter()
        .map(|(point, src, dst, src_port, dst_port, packets)| {
            let name = reader
                .names
                .get(point)
                .expect("a point with a name")
                .clone();
            let address = |bytes: &[u8; 4]| std::net::Ipv4Addr::from(*bytes).to_string();
            (
                name,
                address(src),
                address(dst),
                *src_port,
                *dst_port,
                *packets,
            )
        })
        .collect();
    found.sort_unstable();
    let mut wanted: Vec<_> = truth
        .into_iter()
        .map(
            |((_, switch, src, dst, src_port, dst_port), (_, packets))| {
                (switch, src, dst, src_port, dst_port, packets)
            },
        )
        .collect();
    wanted.sort_unstable();
    assert_eq!(found, wanted);
    agents.stop();
    collector.stop().await;
}

/// A web server that answers with these statuses, the last one for ever; tells what was posted.
fn web_server(statuses: &'static [u16]) -> (String, mpsc::Receiver<serde_json::Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
    let (told, posts) = mpsc::channel();
    std::thread::spawn(move || {
        let last = statuses.last().copied().unwrap_or(200);
        for status in statuses.iter().copied().chain(std::iter::repeat(last)) {
            let Ok((stream, _)) = listener.accept() else {
                return;
            };
            let mut lines = BufReader::new(stream.try_clone().expect("a second handle"));
            let mut length = 0;
            loop {
                let mut line = String::new();
                lines.read_line(&mut line).expect("a header");
                let line = line.trim().to_ascii_lowercase();
                if let Some(bytes) = line.strip_prefix("content-length:") {
                    length = bytes.trim().parse().expect("a number");
                }
                if line.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            lines.read_exact(&mut body).expect("a body");
            let answer =
                format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            _ = (&stream).write_all(answer.as_bytes());
            if told
                .send(serde_json::from_slice(&body).expect("JSON"))
                .is_err()
            {
                return;
            }
        }
    });
    (url, posts)
}

/// A collector with a webhook, and what it counted of posts.
async fn with_webhook(folder: &Path, url: &str) -> Collector {
    let mut config = config(folder);
    let text = format!("url = \"{url}\"\ntimeout_ms = 300");
    config.webhook = Some(toml::from_str(&text).expect("a webhook"));
    Collector::start(config).await.expect("a collector")
}

fn posts_counted(collector: &Collector, kind: &str) -> u64 {
    let metrics = collector.metrics();
    let name = format!("flowradar_webhook_total{{kind=\"{kind}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.parse().expect("a number"))
}

async fn counted(collector: &Collector, kind: &str, posts: u64) {
    eventually(kind, || {
        let found = posts_counted(collector, kind);
        (found >= posts)
            .then_some(())
            .ok_or_else(|| found.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_fails_is_tried_again() {
    let (url, posts) = web_server(&[500, 503, 204, 404]);
    let folder = TempDir::new().expect("a folder");
    let collector = with_webhook(folder.path(), &url).await;
    collector
        .notices()
        .info("detail", "below the severity that is told");
    collector.notices().warn("trouble", "something is wrong");
    let take = || posts.recv_timeout(Duration::from_secs(60)).expect("a post");
    let attempts = [take(), take(), take()];
    for attempt in &attempts {
        assert_eq!(attempt["kind"], "trouble");
        assert_eq!(attempt["severity"], "warning");
        assert_eq!(attempt["id"], attempts[0]["id"]);
    }
    counted(&collector, "posted", 1).await;

    // One that is never taken is given up after some attempts, and told everywhere else.
    collector.notices().warn("more", "something else is wrong");
    let kinds = [take(), take(), take(), take()].map(|post| post["kind"].clone());
    assert_eq!(kinds, ["more", "more", "more", "more"]);
    counted(&collector, "failed", 1).await;
    assert_eq!(posts_counted(&collector, "posted"), 1);
    let told = collector.notices().after(0);
    let failure = told.iter().find(|notice| notice.kind == "webhook_failed");
    let message = &failure.expect("it is told").message;
    assert!(
        message.contains("404") && !message.contains("hook\""),
        "{message}"
    );
    assert!(
        !message.contains(&url),
        "the URL may be a secret: {message}"
    );
    assert!(
        posts.recv_timeout(Duration::from_millis(500)).is_err(),
        "nothing else is posted"
    );
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_webhook_is_bounded_and_counted() {
    // Connections are taken by the system, and never answered.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", silent.local_addr().expect("an address"));
    let folder = TempDir::new().expect("a folder");
    let collector = with_webhook(folder.path(), &url).await;
    for number in 0..6_000 {
        // Each of another kind: else most would not be told at all.
        collector
            .notices()
            .warn(&format!("kind-{number}"), "one of many");
    }
    counted(&collector, "dropped", 1_000).await;
    counted(&collector, "failed", 1).await;
    collector.stop().await;
}
