//! Which switch, and how to talk to it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::{ClientError, ClientErrorReason};
use crate::topology::SwitchSpec;

/// The largest list of headers that is taken: errors of a batch of updates come in it.
const HEADER_LIST_MAX_BYTES: u32 = 1 << 20;

/// A switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchTarget {
    /// For messages and flowsets.
    pub name: String,
    /// `host:port`.
    pub address: String,
    /// What the switch calls itself.
    pub device_id: u64,
    /// How to trust it; none talks in the clear.
    pub tls: Option<TlsOptions>,
}

/// How a switch is trusted, and how it trusts us.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Who may have signed the switch's certificate, PEM.
    pub ca_certificate_pem: Vec<u8>,
    /// The name in the switch's certificate, if it is not that of the address.
    pub server_name: Option<String>,
    /// Our own certificate and key, PEM, if the switch wants to see one.
    pub client_identity_pem: Option<(Vec<u8>, Vec<u8>)>,
}

/// How a session behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// The controller with the highest one is primary; no two live controllers may have the same.
    pub election_id: u128,
    /// Asks for nothing at first: whoever is primary stays so, until
    /// [`Session::take_over`](super::Session::take_over).
    pub joins_as_backup: bool,
    /// What part of the switch is controlled; none is all of it.
    pub role: Option<String>,
    /// How long connecting, with arbitration, may take.
    pub connect_timeout: Duration,
    /// How long an answer to a request may take.
    pub request_timeout: Duration,
    /// Packets that wait to be taken; more are dropped and counted.
    pub packet_in_capacity: usize,
    /// Digests, notifications and errors that wait to be taken; more are dropped and counted.
    pub notification_capacity: usize,
    /// The largest message that is taken: wildcard reads of large counters come in one on some targets.
    pub message_max_bytes: usize,
    /// Updates that are sent in one request.
    pub batch_max_updates: usize,
}

impl SwitchTarget {
    /// A switch that is device 1, in the clear.
    pub fn new(name: impl Into<String>, address: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            address: address.into(),
            device_id: 1,
            tls: None,
        }
    }

    /// The switch that a topology file describes; reads the files that its TLS needs.
    ///
    /// # Errors
    ///
    /// If one of them cannot be read.
    pub fn from_spec(spec: &SwitchSpec) -> io::Result<Self> {
        let read = |path: &Path| {
            fs::read(path).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("cannot read {}: {error}", path.display()),
                )
            })
        };
        let tls = match &spec.tls {
            Some(files) => Some(TlsOptions {
                ca_certificate_pem: read(&files.ca)?,
                server_name: files.server_name.clone(),
                client_identity_pem: match (&files.certificate, &files.key) {
                    (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
                    _ => None,
                },
            }),
            None => None,
        };
        Ok(Self {
            name: spec.name.to_string(),
            address: spec.address.clone(),
            device_id: spec.device_id,
            tls,
        })
    }

    pub(super) fn error(&self, reason: impl Into<ClientErrorReason>) -> ClientError {
        ClientError {
            switch: self.name.clone(),
            reason: Box::new(reason.into()),
        }
    }

    pub(super) fn endpoint(&self, options: &SessionOptions) -> Result<Endpoint, ClientError> {
        let address_error = |error: &dyn std::error::Error| {
            self.error(ClientErrorReason::Address {
                reason: format!("`{}` cannot be used: {}", self.address, with_causes(error)),
            })
        };
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{}", self.address))
            .map_err(|error| address_error(&error))?
            .connect_timeout(options.connect_timeout)
            .http2_keep_alive_interval(options.request_timeout)
            .keep_alive_timeout(options.request_timeout)
            .keep_alive_while_idle(true)
            .http2_max_header_list_size(HEADER_LIST_MAX_BYTES);
        if let Some(tls) = &self.tls {
            let certificate = Certificate::from_pem(&tls.ca_certificate_pem);
            let mut config = ClientTlsConfig::new().ca_certificate(certificate);
            if let Some(name) = &tls.server_name {
                config = config.domain_name(name);
            }
            if let Some((certificate, key)) = &tls.client_identity_pem {
                config = config.identity(Identity::from_pem(certificate, key));
            }
            let with_tls = endpoint.tls_config(config);
            endpoint = with_tls.map_err(|error| address_error(&error))?;
        }
        Ok(endpoint)
    }
}

impl std::fmt::Debug for TlsOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = &self.server_name;
        let mut shown = formatter.debug_struct("TlsOptions");
        shown.field("server_name", name).finish_non_exhaustive()
    }
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            election_id: 1,
            joins_as_backup: false,
            role: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            packet_in_capacity: 8192,
            notification_capacity: 1024,
            message_max_bytes: 256 << 20,
            batch_max_updates: 128,
        }
    }
}

/// An error's words with those of what caused it: tonic keeps the interesting ones there.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}
