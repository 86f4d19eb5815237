//! The list of a store's files. What is not on it is not in the store.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::journal::sync_folder;

const VERSION: u32 = 1;

/// The files of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    version: u32,
    /// Number of the next file.
    pub(super) next_file: u64,
    /// The files, by path.
    pub(super) files: Vec<StoredFile>,
}

/// A file of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Its path from the store's folder.
    pub path: String,
    /// Its rows.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// The earliest time in it, in nanoseconds since 1970.
    pub time_min_ns: i64,
    /// The latest.
    pub time_max_ns: i64,
}

/// Why a list of files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It could not be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is no JSON, or not a list of files.
    #[error("not a list of files: {0}")]
    Syntax(#[from] serde_json::Error),
    /// A path leads out of the store.
    #[error("{0:?} is no path within the store")]
    Path(String),
    /// A version that this version does not read.
    #[error("version {0}: this reads version {VERSION}")]
    Version(u32),
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            version: VERSION,
            next_file: 1,
            files: vec![],
        }
    }
}

impl Manifest {
    /// File name of the list.
    pub const NAME: &str = "manifest.json";

    /// Reads a store's list of files; an empty one if there is none.
    ///
    /// # Errors
    /// If it is there and cannot be used.
    pub fn read(folder: &Path) -> Result<Self, ManifestError> {
        match fs::read(folder.join(Self::NAME)) {
            Ok(bytes) => Self::parse(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a list of files.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_slice(bytes)?;
        if manifest.version != VERSION {
            return Err(ManifestError::Version(manifest.version));
        }
        for file in &manifest.files {
            let within = Path::new(&file.path)
                .components()
                .all(|part| matches!(part, std::path::Component::Normal(_)));
            if !within || file.path.is_empty() {
                return Err(ManifestError::Path(file.path.clone()));
            }
        }
        Ok(manifest)
    }

    /// The files.
    pub fn files(&self) -> &[StoredFile] {
        &self.files
    }

    /// Replaces the list, in one step.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let path = folder.join(Self::NAME);
        let unfinished = path.with_extension("part");
        let written = File::create(&unfinished).and_then(|mut file| {
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()
        });
        if let Err(error) = written {
            _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        fs::rename(&unfinished, &path)?;
        sync_folder(folder)
    }
}
