//! Clients of other projects drive the switch: p4runtime-shell and finsy, from PyPI.
//!
//! They are looked for in two virtual environments, `shell` and `finsy` (their versions of protobuf do
//! not go together), in the folder that `FLOWRADAR_PYTHON_PEERS` names or in `target/python-peers`.
//! `tests/p4runtime/peers/install` makes them.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::TestSwitch;

#[test]
fn p4runtime_shell_drives_the_switch() {
    drive("shell", "shell_peer.py");
}

#[test]
fn finsy_drives_the_switch() {
    drive("finsy", "finsy_peer.py");
}

/// The project's own protocol files against those of the PyPI package `p4runtime`.
#[test]
fn messages_are_those_of_the_specification() {
    let Some(python) = python("descriptors") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let descriptors = folder.path().join("descriptors.bin");
    std::fs::write(&descriptors, flowradar_p4::proto::DESCRIPTORS).expect("space");
    let status = Command::new(python)
        .arg(script("check_descriptors.py"))
        .arg(descriptors)
        .env("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
        .status()
        .expect("Python runs");
    assert!(
        status.success(),
        "names, numbers or types differ: see above"
    );
}

fn drive(environment: &str, program: &str) {
    let Some(python) = python(environment) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let switch = runtime.block_on(TestSwitch::start());
    let status = Command::new(python)
        .arg(script(program))
        .arg(switch.server.address().to_string())
        .arg(folder().join("..").join("entities.json"))
        .arg(folder().join("..").join("entities.p4info.txtpb"))
        .stdin(Stdio::null())
        .status()
        .expect("Python runs");
    assert!(status.success(), "{program} failed: see above");
}

fn python(environment: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("FLOWRADAR_PYTHON_PEERS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python-peers"),
        PathBuf::from,
    );
    let python = folder.join(environment).join("bin/python");
    if python.exists() {
        return Some(python);
    }
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED: {} is not there; flowradar-switch/tests/p4runtime/peers/install makes it",
        python.display()
    );
    None
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/p4runtime/peers")
}

fn script(name: &str) -> PathBuf {
    folder().join(name)
}
