//! Programs: p4c's JSON for bmv2, checked and compiled.

mod error;

pub use error::LoadError;

/// A checked and compiled program.
///
/// Nothing in a program changes once it is loaded; a [`Pipeline`](crate::Pipeline) adds the state.
#[derive(Debug)]
pub struct Program {}

impl Program {
    /// Checks and compiles the JSON that `p4c-bm2-ss` writes.
    ///
    /// # Errors
    ///
    /// If it is not such a JSON, contradicts itself, exceeds a limit, or needs a construct that is not
    /// supported; `docs/switch.md` lists what is.
    pub fn from_json(_json: &[u8]) -> Result<Self, LoadError> {
        todo!("the loader follows")
    }
}
