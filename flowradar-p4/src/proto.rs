//! Messages and stubs of P4Runtime v1 and of BFRT, generated from `proto/`.
//!
//! The files are the project's own; names, numbers and types are those of the specifications, so that
//! any peer understands them.

#![allow(
    missing_docs,
    reason = "generated; the specification documents the fields"
)]
#![allow(unreachable_pub, reason = "generated")]
#![allow(clippy::all, reason = "generated")]

/// Types shared by gRPC services.
pub mod google {
    /// Status and error codes.
    pub mod rpc {
        tonic::include_proto!("google.rpc");
    }
}

/// P4Runtime and P4Info.
pub mod p4 {
    /// What a controller may know of a P4 program.
    pub mod config {
        /// P4Info.
        pub mod v1 {
            tonic::include_proto!("p4.config.v1");
        }
    }

    /// The P4Runtime service and its entities.
    pub mod v1 {
        tonic::include_proto!("p4.v1");
    }
}

/// The part of BFRT, the service of Tofino switches, that reads and clears registers.
#[cfg(feature = "bfrt")]
pub mod bfrt {
    tonic::include_proto!("bfrt_proto");
}

/// The descriptors of P4Runtime's messages, as a serialised `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
