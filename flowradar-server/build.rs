//! Generates the messages and stubs of the ingest protocol from `proto/`, without `protoc`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(["flowradar/collector/v1/collector.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".flowradar.collector.v1.FlowsetChunk.bytes")
        .compile_fds(descriptors)?;
    Ok(())
}
