//! A program as it is given to a switch.

use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use crate::proto::p4::v1 as p4;
use crate::{P4Info, P4InfoError};

/// A compiled program: what the target runs, what controllers know of it, and a number that
/// tells it from all others.
#[derive(Clone, Debug)]
pub struct PipelineConfig {
    info: Arc<P4Info>,
    device_config: Arc<[u8]>,
    cookie: u64,
}

impl PipelineConfig {
    /// From the compiler's files: for bmv2, its JSON and the P4Info in text format.
    ///
    /// # Errors
    ///
    /// If the P4Info cannot be used. The JSON is the switch's to judge.
    pub fn new(device_config: &[u8], info_text: &str) -> Result<Self, P4InfoError> {
        let info = P4Info::from_text(info_text)?;
        let mut hash = Xxh3::new();
        hash.update(&(device_config.len() as u64).to_le_bytes());
        hash.update(device_config);
        hash.update(info_text.as_bytes());
        Ok(Self {
            info: Arc::new(info),
            device_config: device_config.into(),
            cookie: hash.digest(),
        })
    }

    /// What controllers know of the program.
    pub fn info(&self) -> &Arc<P4Info> {
        &self.info
    }

    /// The program, as the compiler wrote it for the device.
    pub fn device_config(&self) -> &[u8] {
        &self.device_config
    }

    /// XXH3 of the compiler's files: a switch that returns it runs this very program.
    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    /// As it is sent.
    pub fn message(&self) -> p4::ForwardingPipelineConfig {
        p4::ForwardingPipelineConfig {
            p4info: Some(self.info.message().clone()),
            p4_device_config: self.device_config.to_vec(),
            cookie: Some(p4::forwarding_pipeline_config::Cookie {
                cookie: self.cookie,
            }),
        }
    }
}
