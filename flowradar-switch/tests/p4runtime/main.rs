//! The P4Runtime service, driven by the project's own client over real connections.

mod arbitration;
mod entities;
mod packets;
mod peers;
mod pipeline;
mod support;
