//! Counts the runs of a collector, so that numbers given in one run are not given again in another.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::journal::sync_folder;

/// The file that holds the number of the last run.
pub(crate) const FILE: &str = "run";
/// Numbers of events and notices that a run may give. With so many, 9 million runs fit into the numbers
/// that JSON has everywhere (2^53).
pub(crate) const IDS_OF_A_RUN: u64 = 1_000_000_000;

/// Begins a run in a data folder: its number, from 1. Durable before it is returned.
///
/// # Errors
/// If the file cannot be read or written, or holds no number.
pub(crate) fn begin_run(folder: &Path) -> io::Result<u64> {
    let path = folder.join(FILE);
    let last = match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse::<u64>().map_err(|_| {
            let message = "it should hold the number of the collector's last run: write there a number \
                           above all before, such as an event's id divided by 1,000,000,000";
            io::Error::new(io::ErrorKind::InvalidData, message)
        })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let run = last.saturating_add(1);
    // In place, and always of the same length: a full disk does not keep a collector from starting.
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)?;
    writeln!(file, "{run:020}")?;
    file.sync_all()?;
    sync_folder(folder)?;
    Ok(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_counted_and_a_damaged_count_is_told() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let runs = [(); 3].map(|()| begin_run(folder.path()).expect("space"));
        assert_eq!(runs, [1, 2, 3]);
        fs::write(folder.path().join(FILE), "three").expect("space");
        let error = begin_run(folder.path()).expect_err("no number");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
