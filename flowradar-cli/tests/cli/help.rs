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
        "collect",
        "agent",
        "top",
        "query",
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
fn commands_are_listed_as_a_newcomer_needs_them() {
    let overview = flowradar(["--help"]).expect(0).stdout;
    let commands = overview
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next());
    let first: Vec<&str> = commands.take(4).collect();
    assert_eq!(first, ["demo", "encode", "decode", "net-decode"]);
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
