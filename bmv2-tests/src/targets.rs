//! Which targets to run on.

use std::env;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Once, OnceLock};

/// The environment variable that says which.
pub const VARIABLE: &str = "FLOWRADAR_TARGET";

/// What a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// `flowradar-switch`, in this process.
    Embedded,
    /// `simple_switch_grpc`, in a process of its own.
    Bmv2,
}

/// The targets to run on, by `FLOWRADAR_TARGET` and by what this machine has.
///
/// # Panics
/// If the variable has another value, or bmv2 was asked for and cannot run.
pub fn targets() -> Vec<Target> {
    static SAID: Once = Once::new();
    let wanted = env::var(VARIABLE).unwrap_or_else(|_| "both".into());
    // Looked for once: tests of one process would meet on the same interface.
    static OBSTACLE: OnceLock<Option<String>> = OnceLock::new();
    let obstacle = || OBSTACLE.get_or_init(bmv2_obstacle).as_ref();
    match wanted.as_str() {
        "embedded" => vec![Target::Embedded],
        "bmv2" => {
            if let Some(obstacle) = obstacle() {
                panic!("{VARIABLE}=bmv2, but {obstacle}");
            }
            vec![Target::Bmv2]
        }
        "both" => match obstacle() {
            None => vec![Target::Embedded, Target::Bmv2],
            Some(obstacle) => {
                SAID.call_once(|| {
                    // Not by a macro of the test harness, which would hide it.
                    let _ = writeln!(
                        std::io::stderr(),
                        "SKIPPED: every test of this file on bmv2: {obstacle}"
                    );
                });
                vec![Target::Embedded]
            }
        },
        other => panic!("{VARIABLE}={other}: use embedded, bmv2 or both"),
    }
}

/// What tests may fail with, besides panics.
pub type TestResult = Result<(), Box<dyn std::error::Error>>;

/// Runs a test on all targets, one after the other, each within its own runtime.
///
/// # Panics
/// If the test fails on one of them.
pub fn on_all_targets<T: Future<Output = TestResult>>(mut test: impl FnMut(Target) -> T) {
    for target in targets() {
        eprintln!("target: {target:?}");
        if let Err(error) = run(test(target)) {
            panic!("{target:?}: {error}");
        }
    }
}

/// Runs a test that ends, in a runtime of one thread.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made");
    runtime.block_on(test)
}

/// Why bmv2 cannot run here.
fn bmv2_obstacle() -> Option<String> {
    let runs = |program: &str, arguments: &[&str]| {
        Command::new(program)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    if !runs("simple_switch_grpc", &["--version"]) {
        return Some("simple_switch_grpc is not on PATH (see docs/p4.md)".into());
    }
    let name = format!("fr{}x", std::process::id());
    let added = runs(
        "ip",
        &[
            "link",
            "add",
            &name,
            "type",
            "veth",
            "peer",
            "name",
            &format!("{name}y"),
        ],
    );
    if !added {
        return Some("network interfaces cannot be made: that needs `ip` and root".into());
    }
    runs("ip", &["link", "del", &name]);
    None
}
