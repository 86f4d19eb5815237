//! Files that are there as a whole or not at all, and standard output.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::outcome::CommandError;

/// Bytes collected before they are written.
const BUFFER_BYTES: usize = 256 << 10;

/// A file that appears under its name when it is complete.
///
/// Until [`AtomicFile::commit`] its bytes are in a file beside it, which is removed if the file is
/// dropped before.
#[derive(Debug)]
pub(crate) struct AtomicFile {
    path: PathBuf,
    temporary: PathBuf,
    /// None once committed.
    file: Option<BufWriter<File>>,
}

impl AtomicFile {
    /// Begins a file.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let mut name = OsString::from(".");
        name.push(path.file_name().ok_or(io::ErrorKind::InvalidFilename)?);
        name.push(format!(".{}.partial", std::process::id()));
        let temporary = path.with_file_name(name);
        let file = File::create(&temporary)?;
        Ok(Self {
            path: path.to_path_buf(),
            temporary,
            file: Some(BufWriter::with_capacity(BUFFER_BYTES, file)),
        })
    }

    /// Gives the file its name, in place of a file that has it.
    pub(crate) fn commit(mut self) -> io::Result<()> {
        if let Some(mut file) = self.file.take() {
            let written = file
                .flush()
                .and_then(|()| fs::rename(&self.temporary, &self.path));
            if written.is_err() {
                // The first error is the one to tell.
                let _ = fs::remove_file(&self.temporary);
            }
            written?;
        }
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.file {
            Some(file) => file.write(bytes),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Nobody to tell in a drop.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Writes a file as a whole or not at all.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), CommandError> {
    let written = AtomicFile::create(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.commit()
    });
    written.map_err(CommandError::file("write", path))
}

/// Where the rows of a command go.
#[derive(Debug)]
pub(crate) enum Output {
    /// Standard output.
    Standard(BufWriter<io::Stdout>),
    /// A file.
    File(AtomicFile),
    /// Something that cannot be replaced by a file, such as a pipe or `/dev/null`.
    Device(BufWriter<File>),
}

impl Output {
    /// The file of this name, or standard output for none or `-`.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, CommandError> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(Self::Standard(BufWriter::with_capacity(
                BUFFER_BYTES,
                io::stdout(),
            )));
        };
        let is_device = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
        let opened = if is_device {
            fs::OpenOptions::new()
                .write(true)
                .open(path)
                .map(|file| Self::Device(BufWriter::with_capacity(BUFFER_BYTES, file)))
        } else {
            AtomicFile::create(path).map(Self::File)
        };
        opened.map_err(CommandError::file("write", path))
    }

    /// Writes what is left; a file appears under its name.
    pub(crate) fn commit(mut self) -> io::Result<()> {
        self.flush()?;
        match self {
            Self::File(file) => file.commit(),
            Self::Standard(_) | Self::Device(_) => Ok(()),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Standard(out) => out.write(bytes),
            Self::File(out) => out.write(bytes),
            Self::Device(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Standard(out) => out.flush(),
            Self::File(out) => out.flush(),
            Self::Device(out) => out.flush(),
        }
    }
}

/// Prints a value as one JSON document to standard output.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)
        .map_err(io::Error::from)
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush())
        .map_err(CommandError::Output)
}

/// Prints lines of text to standard output.
pub(crate) fn print_text(text: &str) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(CommandError::Output)
}
