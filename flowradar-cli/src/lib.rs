//! What the `flowradar` command is made of.
//!
//! [`run`] is the whole command: it parses arguments, runs one of the modules of `commands`, and
//! turns the outcome into an exit code. [`trace`] reads packet traces and can be used on its own.

pub mod trace;

mod analyze;
mod balance;
mod bench;
mod commands;
mod demo;
mod dispatch;
mod evaluate;
mod experiment;
mod figures;
mod flowset_files;
mod layout_options;
mod outcome;
mod output;
mod page;
mod progress;
mod result_table;
mod rows;
mod text;
mod units;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::commands::Cli;

/// Runs the command with these arguments, the first of which is the program's name.
///
/// Results go to standard output or to files, everything else to standard error. The exit code is
/// 0 if the result is complete, 3 if it is partial, 2 for wrong usage, 1 for other errors, and 141
/// if the reader of standard output went away (what a shell shows for a program ended by SIGPIPE).
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Cli::try_parse_from(arguments) {
        Ok(cli) => outcome::exit_code(commands::run(cli)),
        Err(error) => {
            // Help and version come as "errors" too, with the code 0. If nobody reads the text,
            // there is nobody to tell.
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(outcome::EXIT_USAGE))
        }
    }
}
