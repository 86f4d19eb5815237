//! The `flowradar` command: see [`flowradar_cli::run`].

use std::process::ExitCode;

fn main() -> ExitCode {
    flowradar_cli::run(std::env::args_os())
}
