//! TCP and HTTP probes.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::{ProbeConfig, http_target};

/// An answer longer than this is no answer.
const ANSWER_BYTES: usize = 64 << 10;

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ProbeResult {
    pub(crate) is_good: bool,
    /// The collector's own word, as a fraction of its capacity.
    pub(crate) load: Option<f64>,
}

const BAD: ProbeResult = ProbeResult {
    is_good: false,
    load: None,
};

/// Asks a collector; `None` for probes that are not made here.
pub(crate) async fn probe(
    config: &ProbeConfig,
    collector: SocketAddr,
    time: Duration,
) -> Option<ProbeResult> {
    let result = match config {
        ProbeConfig::Icmp | ProbeConfig::None => return None,
        ProbeConfig::Tcp { address } => {
            let connected = timeout(time, TcpStream::connect(address.unwrap_or(collector))).await;
            ProbeResult {
                is_good: matches!(connected, Ok(Ok(_))),
                load: None,
            }
        }
        ProbeConfig::Http { url, load_field } => {
            let answer = timeout(time, get(url, load_field.as_deref())).await;
            answer.ok().flatten().unwrap_or(BAD)
        }
    };
    Some(result)
}

async fn get(url: &str, load_field: Option<&str>) -> Option<ProbeResult> {
    let (address, path) = http_target(url)?;
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .ok()?;
    let request = Request::get(path)
        .header("host", address.to_string())
        .header("connection", "close")
        .body(Empty::<Bytes>::new())
        .ok()?;
    // Ends with the request: the connection is driven here and dropped with this future.
    let answer = async {
        let response = sender.send_request(request).await.ok()?;
        if !response.status().is_success() {
            return Some(BAD);
        }
        let Some(field) = load_field else {
            return Some(ProbeResult {
                is_good: true,
                load: None,
            });
        };
        let body = Limited::new(response.into_body(), ANSWER_BYTES)
            .collect()
            .await
            .ok()?;
        let value: serde_json::Value = serde_json::from_slice(&body.to_bytes()).ok()?;
        Some(ProbeResult {
            is_good: true,
            // A load below nothing would attract everything.
            load: value
                .get(field)
                .and_then(serde_json::Value::as_f64)
                .filter(|load| *load >= 0.0),
        })
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        biased;
        result = &mut answer => result,
        // Once the connection has ended, the answer is there or never comes.
        _ = &mut connection => answer.await,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    const GOOD: ProbeResult = ProbeResult {
        is_good: true,
        load: None,
    };

    fn run(config: &ProbeConfig, collector: SocketAddr, time: Duration) -> Option<ProbeResult> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(probe(config, collector, time))
    }

    /// Asks a server that answers one request with these bytes, and then closes or stays silent.
    fn ask(answer: &[u8], closes: bool, load_field: Option<&str>) -> ProbeResult {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let answer = answer.to_vec();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut request = [0; 1000];
            let length = stream.read(&mut request).expect("a request");
            // The asker may have gone already.
            let _ = stream.write_all(&answer);
            if !closes {
                let _ = stream.read(&mut request);
            }
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let config = ProbeConfig::Http {
            url: format!("http://{address}/health?of=it"),
            load_field: load_field.map(str::to_owned),
        };
        // Silence takes the whole of it.
        let time = Duration::from_millis(if closes { 10_000 } else { 300 });
        let result = run(&config, address, time).expect("HTTP is asked here");
        let request = server.join().expect("it ends");
        assert!(
            request.starts_with("GET /health?of=it HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(
            request.contains(&format!("host: {address}\r\n")),
            "{request}"
        );
        result
    }

    fn answer(status: &str, body: &str) -> Vec<u8> {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
    }

    #[test]
    fn http_is_good_if_it_answers_so() {
        for status in ["200 OK", "204 No Content"] {
            assert_eq!(ask(&answer(status, ""), true, None), GOOD);
        }
        // An answer that is not waited for to its end.
        assert_eq!(ask(&answer("200 OK", "well"), false, None), GOOD);
        for status in ["301 Moved", "404 Not Found", "503 Unavailable"] {
            assert_eq!(
                ask(&answer(status, ""), true, Some("load")),
                BAD,
                "{status}"
            );
        }
        for nonsense in [&b""[..], b"HTTP/1.1 200", b"SSH-2.0-x\r\n", &[0xff; 5000]] {
            assert_eq!(ask(nonsense, true, None), BAD, "{nonsense:?}");
        }
        assert_eq!(ask(b"", false, None), BAD, "silence");
    }

    #[test]
    fn a_load_is_taken_if_it_is_a_number() {
        let ask = |body: &str| ask(&answer("200 OK", body), true, Some("load"));
        let with = |load| ProbeResult {
            is_good: true,
            load,
        };
        assert_eq!(ask(r#"{"load": 0.42, "x": []}"#), with(Some(0.42)));
        assert_eq!(ask(r#"{"load": 2}"#), with(Some(2.0)));
        assert_eq!(ask(r#"{"load": "much"}"#), with(None));
        assert_eq!(ask(r#"{"cpu": 1}"#), with(None));
        assert_eq!(ask("[1]"), with(None));
        // Negative loads would attract everything.
        assert_eq!(ask(r#"{"load": -3}"#), with(None));
        // Told to say its load, it says nothing that can be read.
        assert_eq!(ask("fine"), BAD);
        let long = format!(r#"{{"load": 1, "x": "{}"}}"#, "y".repeat(ANSWER_BYTES));
        assert_eq!(ask(&long), BAD, "without end");
    }

    #[test]
    fn tcp_is_good_if_it_is_accepted() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let open = listener.local_addr().expect("it is bound");
        let time = Duration::from_secs(10);
        let tcp = |address| ProbeConfig::Tcp { address };
        assert_eq!(run(&tcp(None), open, time), Some(GOOD));
        let closed = {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
            listener.local_addr().expect("it is bound")
        };
        assert_eq!(run(&tcp(None), closed, time), Some(BAD));
        assert_eq!(run(&tcp(Some(open)), closed, time), Some(GOOD));
        assert_eq!(run(&tcp(Some(closed)), open, time), Some(BAD));
    }

    #[test]
    fn others_are_not_asked_here() {
        let collector = SocketAddr::from(([127, 0, 0, 1], 9));
        for config in [ProbeConfig::Icmp, ProbeConfig::None] {
            assert_eq!(run(&config, collector, Duration::from_secs(10)), None);
        }
    }
}
