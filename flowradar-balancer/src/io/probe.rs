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
            load: value.get(field).and_then(serde_json::Value::as_f64),
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
