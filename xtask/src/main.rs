//! Chores of this repository: `cargo xtask help`.

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::p4;

/// Chores of this repository.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Compile the P4 programs whose compiled form is in the repository (needs p4c-bm2-ss on PATH).
    P4 {
        /// Only say whether the compiled forms are those of the sources; needs no compiler.
        #[arg(long)]
        check: bool,
        /// Compile programs whose sources have not changed, too.
        #[arg(long, conflicts_with = "check")]
        all: bool,
    },
}

fn main() -> ExitCode {
    let Chore::P4 { check, all } = Arguments::parse().chore;
    // Cargo runs chores where they are called from; the manifest's place is known.
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this package is in a folder of the repository");
    let outcome = if check {
        p4::check(repository)
    } else {
        p4::compile(repository, all)
    };
    match outcome {
        Ok(programs) => {
            for program in programs {
                println!("{program}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
