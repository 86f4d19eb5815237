//! The Tofino program compiles. Needs p4c-barefoot, the open back end of p4c.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

#[test]
fn tofino_program_compiles() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new("p4c-barefoot")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .args(["--target", "tofino", "--arch", "tna", "-o"])
        .arg(folder.path())
        .arg("p4src/tofino/switch.p4")
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: p4c-barefoot is not on PATH: {error}"
            );
            return;
        }
    };
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
