//! Generates the messages and stubs of P4Runtime and BFRT from `proto/`, without `protoc`.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

const PROTOS: &[&str] = &["p4/v1/p4runtime.proto", "google/rpc/code.proto"];
const BFRT_PROTOS: &[&str] = &["bfrt/bfruntime.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    // Read at run time by the P4Info text format.
    fs::write(out_dir.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(env::var_os("CARGO_FEATURE_CLIENT").is_some())
        .build_server(env::var_os("CARGO_FEATURE_SERVER").is_some())
        .build_transport(false)
        .btree_map(".")
        .compile_fds(descriptors)?;
    if env::var_os("CARGO_FEATURE_BFRT").is_some() {
        // Apart from the others: the P4Info text format has no use for its descriptors.
        tonic_prost_build::configure()
            .build_server(env::var_os("CARGO_FEATURE_SERVER").is_some())
            .build_transport(false)
            .extern_path(".google.rpc", "crate::proto::google::rpc")
            .compile_fds(protox::compile(BFRT_PROTOS, ["proto"])?)?;
    }
    Ok(())
}
