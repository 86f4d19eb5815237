//! A FlowRadar program: compiled, with the configuration that it was compiled with.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::{ParseHeaderError, ProgramConfig};
use crate::topology::ProgramFiles;
use crate::{P4InfoError, PipelineConfig};

/// A FlowRadar program as it is given to switches.
#[derive(Clone, Debug)]
pub struct Program {
    /// What it was compiled with.
    pub config: ProgramConfig,
    /// What the compiler made of it.
    pub pipeline: PipelineConfig,
}

/// Why a program cannot be used.
#[derive(Debug, Error)]
pub enum ReadProgramError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The generated header cannot be used.
    #[error("{}: {source}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: ParseHeaderError,
    },
    /// The P4Info cannot be used.
    #[error("{}: {source}", path.display())]
    P4Info {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: P4InfoError,
    },
}

impl Program {
    /// The reference switch of this project (`p4src/v1model`): layer 2, IPv4 and IPv6 routing, and
    /// FlowRadar for 10,000 IPv4 and 2,000 IPv6 flows.
    pub fn reference() -> Self {
        let header = include_str!("../../p4src/generated/flowradar_config.p4");
        let json = include_bytes!("../../p4src/v1model/compiled/switch.json");
        let info = include_str!("../../p4src/v1model/compiled/switch.p4info.txtpb");
        Self {
            config: ProgramConfig::from_p4(header).expect("a test reads it"),
            pipeline: PipelineConfig::new(json, info).expect("a test reads it"),
        }
    }

    /// Reads a program that was compiled elsewhere.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or used.
    pub fn read(files: &ProgramFiles) -> Result<Self, ReadProgramError> {
        let text =
            |path: &Path| fs::read_to_string(path).map_err(|source| file_error(path, source));
        let header = text(&files.header)?;
        let config =
            ProgramConfig::from_p4(&header).map_err(|source| ReadProgramError::Header {
                path: files.header.clone(),
                source,
            })?;
        let json = fs::read(&files.json).map_err(|source| file_error(&files.json, source))?;
        let pipeline = PipelineConfig::new(&json, &text(&files.p4info)?);
        let pipeline = pipeline.map_err(|source| ReadProgramError::P4Info {
            path: files.p4info.clone(),
            source,
        })?;
        Ok(Self { config, pipeline })
    }
}

fn file_error(path: &Path, source: io::Error) -> ReadProgramError {
    ReadProgramError::File {
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_program_can_be_read() {
        let program = Program::reference();
        assert_eq!(
            program.config.fingerprint(),
            ProgramConfig::reference().fingerprint()
        );
        assert!(program.pipeline.info().packet_in().is_some());
    }
}
