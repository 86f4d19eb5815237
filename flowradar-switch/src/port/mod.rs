//! Ports: where frames come from and go to.

use std::fmt;

/// The sending side of a port.
pub trait PortSender: fmt::Debug + Send {
    /// Sends a frame, or drops and counts it; never waits.
    fn send(&mut self, frame: &[u8]);
}
