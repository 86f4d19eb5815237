//! A spool as the sink of an agent that reads P4 switches.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use flowradar_core::flowset::SwitchName;
use flowradar_p4::agent::{Delivery, FlowsetSink};

use super::spool::{PutError, Spool, SpoolOptions};

/// Puts flowsets into spools, one for each switch, in folders of a folder.
///
/// A flowset is delivered when it is in the spool; [`ship`](super::ship) brings it to the collector.
#[derive(Clone, Debug)]
pub struct SpoolSink {
    spools: HashMap<SwitchName, Spool>,
}

impl SpoolSink {
    /// Opens the spools of these switches.
    ///
    /// # Errors
    /// If a folder cannot be read or written, or another process has it open.
    pub fn open<'a>(
        folder: &Path,
        switches: impl IntoIterator<Item = &'a SwitchName>,
        options: SpoolOptions,
    ) -> io::Result<Self> {
        let spools = switches.into_iter().map(|switch| {
            let spool = Spool::open(spool_folder(folder, switch), options, None)?;
            Ok((switch.clone(), spool))
        });
        Ok(Self {
            spools: spools.collect::<io::Result<_>>()?,
        })
    }

    /// The spools.
    pub fn spools(&self) -> impl Iterator<Item = (&SwitchName, &Spool)> {
        self.spools.iter()
    }
}

/// Where the spool of a switch is.
pub fn spool_folder(folder: &Path, switch: &SwitchName) -> PathBuf {
    folder.join(switch.as_str())
}

impl FlowsetSink for SpoolSink {
    fn deliver(&mut self, delivery: Delivery<'_>) -> io::Result<()> {
        let spool = self.spools.get(delivery.switch).ok_or_else(|| {
            let message = format!("no spool was opened for switch {}", delivery.switch);
            io::Error::new(io::ErrorKind::NotFound, message)
        })?;
        match spool.put(delivery.bytes) {
            Ok(_) => Ok(()),
            Err(PutError::Write(error)) => Err(error),
            Err(full @ PutError::Full { .. }) => {
                Err(io::Error::new(io::ErrorKind::StorageFull, full.to_string()))
            }
        }
    }
}
