//! Requests to the balancer's HTTP interface.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::failed;
use crate::outcome::CommandError;

/// An answer longer than this is not the balancer's.
const ANSWER_BYTES: u64 = 64 << 20;
const TIMEOUT: Duration = Duration::from_secs(5);

/// A balancer's HTTP interface.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    host: String,
    token: Option<String>,
}

impl Client {
    /// For a URL of the form `http://HOST:PORT`.
    pub(crate) fn new(url: &str, token: Option<String>) -> Result<Self, CommandError> {
        let host = url
            .strip_prefix("http://")
            .map(|rest| rest.trim_end_matches('/'));
        let host = host.filter(|host| !host.contains('/') && host.contains(':'));
        let host =
            host.ok_or_else(|| CommandError::Usage(format!("--url {url}: use http://HOST:PORT")))?;
        Ok(Self {
            host: host.to_owned(),
            token,
        })
    }

    /// The body of a good answer.
    pub(crate) fn request(&self, method: &str, path: &str) -> Result<String, CommandError> {
        let unreachable = |error: std::io::Error| {
            failed(format!(
                "no balancer answers at http://{}: {error}; is [api] configured there?",
                self.host
            ))
        };
        let addresses = self.host.to_socket_addrs().map_err(unreachable)?;
        let address = addresses.into_iter().next();
        let address = address.ok_or_else(|| failed(format!("{} has no address", self.host)))?;
        let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(unreachable)?;
        stream
            .set_read_timeout(Some(TIMEOUT))
            .map_err(unreachable)?;
        let token = self.token.as_ref().map_or(String::new(), |token| {
            format!("authorization: Bearer {token}\r\n")
        });
        // HTTP/1.0 without keep-alive: the answer ends with the connection, and comes unchunked.
        let request = format!(
            "{method} {path} HTTP/1.0\r\nhost: {}\r\n{token}content-length: 0\r\n\r\n",
            self.host
        );
        stream.write_all(request.as_bytes()).map_err(unreachable)?;
        let mut answer = Vec::new();
        stream
            .take(ANSWER_BYTES)
            .read_to_end(&mut answer)
            .map_err(unreachable)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split_whitespace().nth(1).unwrap_or("nothing");
        if !status.starts_with('2') {
            return Err(failed(format!(
                "the balancer answers {status}: {}",
                body.trim()
            )));
        }
        Ok(body.to_owned())
    }
}
