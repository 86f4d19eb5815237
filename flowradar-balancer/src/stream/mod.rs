//! What is known of a stream of exports: its templates and options, its sequence numbers, and how
//! far each collector has been told of them.

mod delivery;
mod key;
mod sequence;
mod state;

pub use delivery::Delivery;
pub use key::{StreamKey, StreamKeyPolicy};
pub use sequence::{SequenceEvent, SequenceTracker};
pub use state::{CatchUpMessage, Learned, StateBudget, StateCache, StateLimits, StateRecord};
