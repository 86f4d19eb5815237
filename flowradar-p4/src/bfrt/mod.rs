//! A controller's session with a Tofino switch, by BFRT, the gRPC of such switches: as much of it as
//! reading and clearing the program's registers takes.
//!
//! The messages are compiled from a `.proto` of the project's own. Crate `rbfrt` speaks BFRT too, but does not
//! fit here: it unwraps fields of the switch's answers, keeps its message types and stubs private, so that no
//! server can be written to test against, takes only the first message of a streamed answer, and makes maps of
//! vectors of vectors of every register entry, of which a bank has 4.7 million.
//!
//! Memory is bounded: entries are read some thousands at a time, answers have a largest size, and go into
//! [`BankRegisters`](crate::tofino::BankRegisters) as they come. Every entry that was asked for must come once,
//! with as many bytes as the program's schema says, for as many pipes as the chip has; an answer that differs
//! is an error that names table and entry.
//!
//! The service has no TLS: reach it through something that has.

mod answer;
mod schema;
mod session;

use thiserror::Error;

use crate::client::ClientErrorReason;
use crate::tofino::RegistersError;

pub use answer::{AnswerError, AnswerReason};
pub use schema::{SchemaError, SchemaReason};
pub use session::{BfrtOptions, BfrtSession, BfrtTarget};

/// Most pipes that a chip has.
pub const PIPES_MAX: usize = 4;

/// What went wrong, and with which switch.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("switch {switch}: {reason}")]
pub struct BfrtError {
    /// The switch's name.
    pub switch: String,
    /// What went wrong.
    pub reason: Box<BfrtErrorReason>,
}

/// What went wrong with a switch.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum BfrtErrorReason {
    /// The switch's answer is not what was asked for.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// The connection, or a request that was refused.
    #[error(transparent)]
    Client(#[from] ClientErrorReason),
    /// The switch does not run the program.
    #[error("the switch runs {}, not `{wanted}`", list(running))]
    Program {
        /// The program that was asked for; `*`: one, whichever.
        wanted: String,
        /// What it runs.
        running: Vec<String>,
    },
    /// What the registers hold makes no flowset.
    #[error(transparent)]
    Registers(#[from] RegistersError),
    /// The program is not FlowRadar's, or has other sizes.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

impl BfrtErrorReason {
    /// Whether a new session may help.
    pub fn is_connection_lost(&self) -> bool {
        matches!(self, Self::Client(reason) if reason.is_connection_lost())
    }
}

/// What a switch has written, short enough for a message.
fn shortened(text: &str) -> String {
    /// Enough to see what it is.
    const CHARACTERS_MAX: usize = 200;

    text.chars().take(CHARACTERS_MAX).collect()
}

fn list(programs: &[String]) -> String {
    match programs {
        [] => "no program".to_owned(),
        programs => programs
            .iter()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

#[cfg(all(test, feature = "server"))]
mod server;
#[cfg(all(test, feature = "server"))]
mod tests;
