//! How a command ends: complete, partial, or with an error; and the exit code for it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::text::note;

/// Exit code for errors other than wrong usage.
pub(crate) const EXIT_FAILURE: u8 = 1;
/// Exit code for wrong usage; clap uses the same.
pub(crate) const EXIT_USAGE: u8 = 2;
/// Exit code for a partial result.
pub(crate) const EXIT_PARTIAL: u8 = 3;
/// Exit code if nobody reads the output any more: what a shell shows for SIGPIPE.
pub(crate) const EXIT_BROKEN_PIPE: u8 = 141;

/// Whether a result holds everything that it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Completeness {
    /// Nothing is missing and every counter is known.
    Complete,
    /// Something is missing, and the command has said what.
    Partial,
}

impl Completeness {
    /// Complete if `complete`.
    pub(crate) fn of(complete: bool) -> Self {
        if complete {
            Self::Complete
        } else {
            Self::Partial
        }
    }
}

/// Why a command gave no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// A combination of arguments that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Anything that its own words describe best.
    #[error("{0}")]
    Failed(String),
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried, as in "cannot ... the file".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// Standard output could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
}

impl CommandError {
    /// An error about a file; for `map_err`.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }

    fn is_broken_pipe(&self) -> bool {
        match self {
            Self::File { source, .. } | Self::Output(source) => {
                source.kind() == io::ErrorKind::BrokenPipe
            }
            _ => false,
        }
    }
}

/// Says an error on standard error and chooses the exit code.
pub(crate) fn exit_code(outcome: Result<Completeness, CommandError>) -> ExitCode {
    let code = match outcome {
        Ok(Completeness::Complete) => return ExitCode::SUCCESS,
        Ok(Completeness::Partial) => EXIT_PARTIAL,
        Err(error) if error.is_broken_pipe() => EXIT_BROKEN_PIPE,
        Err(error) => {
            note!("error: {error}");
            match error {
                CommandError::Usage(_) => EXIT_USAGE,
                _ => EXIT_FAILURE,
            }
        }
    };
    ExitCode::from(code)
}
