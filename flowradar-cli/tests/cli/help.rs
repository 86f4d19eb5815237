//! Help that a newcomer can follow.

use crate::support::flowradar;

#[test]
fn every_command_has_help_with_examples() {
    let overview = flowradar(["--help"]).expect(0).stdout;
    assert!(overview.contains("Exit codes"), "{overview}");
    for command in [
        "encode",
        "decode",
        "net-decode",
        "simulate",
        "info",
        "plan",
        "demo",
        "bench",
        "evaluate",
        "p4",
        "switch",
    ] {
        assert!(overview.contains(command), "{command}: {overview}");
        let help = flowradar([command, "--help"]).expect(0).stdout;
        assert!(help.contains("Examples:"), "{command}: {help}");
        assert!(
            help.contains(&format!("flowradar {command}")),
            "{command}: {help}"
        );
        assert!(
            flowradar([command, "-h"])
                .expect(0)
                .stdout
                .contains("Usage:")
        );
    }
    for network in ["fat-tree", "topology"] {
        let help = flowradar(["simulate", network, "--help"]).expect(0).stdout;
        assert!(help.contains("--flows-per-switch"), "{help}");
    }
}

#[test]
fn no_command_is_wrong_usage() {
    let ran = flowradar([""; 0]).expect(2);
    assert!(ran.stderr.contains("Usage:"), "{}", ran.stderr);
    flowradar(["no-such-command"]).expect(2);
}

#[test]
fn the_version_is_known() {
    let ran = flowradar(["--version"]).expect(0);
    assert_eq!(
        ran.stdout,
        concat!("flowradar ", env!("CARGO_PKG_VERSION"), "\n")
    );
}
