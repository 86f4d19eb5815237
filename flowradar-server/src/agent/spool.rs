//! Flowsets on disk, numbered, until they are acknowledged.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::journal::sync_folder;

/// Whether flowsets in a spool survive a loss of power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpoolSync {
    /// Each is forced to disk before it is said to be in the spool.
    #[default]
    EachFlowset,
    /// They survive the process, but not the machine: for flowsets that can be had again.
    Never,
}

/// Limits of a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolOptions {
    /// All flowsets together are not larger than this.
    pub bytes_max: u64,
    /// Whether flowsets survive a loss of power.
    pub sync: SpoolSync,
}

impl Default for SpoolOptions {
    fn default() -> Self {
        Self {
            bytes_max: 1 << 30,
            sync: SpoolSync::EachFlowset,
        }
    }
}

/// Why a flowset was not put into a spool.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The spool is full.
    #[error(
        "the spool is full ({bytes_max} bytes): the collector is away or slow. Try again when it has taken some"
    )]
    Full {
        /// Its largest size.
        bytes_max: u64,
    },
    /// The operating system refused.
    #[error("cannot write the spool: {0}")]
    Write(#[from] io::Error),
}

/// Why a file was not moved into a spool.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The spool is full.
    #[error("the spool is full")]
    Full,
    /// The operating system refused.
    #[error("cannot move {} into the spool: {source}", path.display())]
    Move {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
}

/// A flowset in a spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spooled {
    /// Its number.
    pub sequence: u64,
    /// Its file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

/// A switch's spool. Clones share it.
#[derive(Clone, Debug)]
pub struct Spool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    options: SpoolOptions,
    id: u64,
    state: Mutex<State>,
    /// Something was put in.
    filled: Notify,
    /// Something was taken out.
    emptied: Notify,
    /// Where files go when they are acknowledged, if they were moved in.
    shipped: Option<PathBuf>,
    _lock: File,
}

#[derive(Debug)]
struct State {
    files: BTreeMap<u64, Spooled>,
    next_sequence: u64,
    bytes: u64,
}

impl Spool {
    /// Opens the spool in a folder, which is made if it is not there. If `shipped` is given, files are
    /// moved there when they are acknowledged; otherwise they are deleted.
    ///
    /// # Errors
    /// If the folder cannot be read or written, or another process has the spool open.
    pub fn open(
        folder: impl Into<PathBuf>,
        options: SpoolOptions,
        shipped: Option<PathBuf>,
    ) -> io::Result<Self> {
        let folder = folder.into();
        fs::create_dir_all(&folder)?;
        if let Some(shipped) = &shipped {
            fs::create_dir_all(shipped)?;
        }
        let lock = File::create(folder.join("lock"))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!("{} is in use by another agent", folder.display()),
            ),
            fs::TryLockError::Error(error) => error,
        })?;
        let mut files = BTreeMap::new();
        let mut bytes = 0;
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "part") {
                // Never said to be in the spool.
                fs::remove_file(&path)?;
            } else if let Some(sequence) = sequence_of(&path) {
                let spooled = Spooled {
                    sequence,
                    bytes: fs::metadata(&path)?.len(),
                    path,
                };
                bytes += spooled.bytes;
                files.insert(sequence, spooled);
            }
        }
        let id = spool_id(&folder, files.is_empty())?;
        let next_sequence = files.last_key_value().map_or(1, |(last, _)| last + 1);
        Ok(Self {
            inner: Arc::new(Inner {
                folder,
                options,
                id,
                state: Mutex::new(State {
                    files,
                    next_sequence,
                    bytes,
                }),
                filled: Notify::new(),
                emptied: Notify::new(),
                shipped,
                _lock: lock,
            }),
        })
    }

    /// The number that tells this spool from others.
    pub fn id(&self) -> u64 {
        self.inner.id
    }

    /// Puts a flowset in; returns its number when it is safe.
    ///
    /// # Errors
    /// If the spool is full or cannot be written: the flowset is not in it then.
    pub fn put(&self, flowset: &[u8]) -> Result<u64, PutError> {
        let mut state = self.state();
        let bytes = flowset.len() as u64;
        if state.bytes + bytes > self.inner.options.bytes_max {
            return Err(PutError::Full {
                bytes_max: self.inner.options.bytes_max,
            });
        }
        let sequence = state.next_sequence;
        let path = self.inner.folder.join(format!("{sequence:020}.flowset"));
        let unfinished = path.with_extension("part");
        let mut file = File::create(&unfinished)?;
        file.write_all(flowset)?;
        let sync = self.inner.options.sync == SpoolSync::EachFlowset;
        if sync {
            file.sync_all()?;
        }
        fs::rename(&unfinished, &path)?;
        if sync {
            sync_folder(&self.inner.folder)?;
        }
        state.add(Spooled {
            sequence,
            path,
            bytes,
        });
        drop(state);
        self.inner.filled.notify_one();
        Ok(sequence)
    }

    /// Moves a file into the spool, in one step, from the same file system.
    ///
    /// # Errors
    /// If the spool is full or the file cannot be moved: it stays where it is.
    pub fn adopt(&self, path: &Path) -> Result<u64, AdoptError> {
        let failed = |source| AdoptError::Move {
            path: path.to_path_buf(),
            source,
        };
        let mut state = self.state();
        let bytes = fs::metadata(path).map_err(failed)?.len();
        // One file at least fits into an empty spool.
        if !state.files.is_empty() && state.bytes + bytes > self.inner.options.bytes_max {
            return Err(AdoptError::Full);
        }
        let sequence = state.next_sequence;
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.unwrap_or("unnamed.flowset");
        let to = self.inner.folder.join(format!("{sequence:020}~{name}"));
        fs::rename(path, &to).map_err(failed)?;
        if self.inner.options.sync == SpoolSync::EachFlowset {
            sync_folder(&self.inner.folder).map_err(failed)?;
        }
        state.add(Spooled {
            sequence,
            path: to,
            bytes,
        });
        drop(state);
        self.inner.filled.notify_one();
        Ok(sequence)
    }

    /// The first flowset after this number.
    pub fn after(&self, sequence: u64) -> Option<Spooled> {
        let state = self.state();
        let mut files = state.files.range(sequence.saturating_add(1)..);
        files.next().map(|(_, spooled)| spooled.clone())
    }

    /// The lowest number in the spool, or the next one to be given if it is empty.
    pub fn first_sequence(&self) -> u64 {
        let state = self.state();
        let first = state.files.first_key_value().map(|(first, _)| *first);
        first.unwrap_or(state.next_sequence)
    }

    /// Takes flowsets out, up to this number: they are safe elsewhere.
    ///
    /// # Errors
    /// If a file cannot be deleted or moved.
    pub fn acknowledge(&self, sequence: u64) -> io::Result<()> {
        let mut state = self.state();
        while let Some(entry) = state.files.first_entry()
            && *entry.key() <= sequence
        {
            self.put_away(entry.get())?;
            let bytes = entry.remove().bytes;
            state.bytes -= bytes;
        }
        // Numbers that the collector has are not given again.
        state.next_sequence = state.next_sequence.max(sequence.saturating_add(1));
        drop(state);
        self.inner.emptied.notify_waiters();
        Ok(())
    }

    /// Flowsets in the spool, and their bytes.
    pub fn holds(&self) -> (usize, u64) {
        let state = self.state();
        (state.files.len(), state.bytes)
    }

    /// Waits until something was put in since it was last waited for.
    pub async fn filled(&self) {
        self.inner.filled.notified().await;
    }

    /// Waits until the spool is empty.
    pub async fn emptied(&self) {
        loop {
            let emptied = self.inner.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.holds().0 == 0 {
                return;
            }
            emptied.await;
        }
    }

    fn put_away(&self, spooled: &Spooled) -> io::Result<()> {
        let name = spooled.path.file_name().and_then(|name| name.to_str());
        let original = name.and_then(|name| name.split_once('~'));
        let done = match (&self.inner.shipped, original) {
            (Some(shipped), Some((_, name))) => fs::rename(&spooled.path, shipped.join(name)),
            _ => fs::remove_file(&spooled.path),
        };
        match done {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, spooled: Spooled) {
        self.next_sequence = spooled.sequence + 1;
        self.bytes += spooled.bytes;
        self.files.insert(spooled.sequence, spooled);
    }
}

/// The number of a file in a spool: 20 digits, then `.flowset` or `~` and its former name.
fn sequence_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let (digits, rest) = name.split_at_checked(20)?;
    let known = rest == ".flowset" || rest.starts_with('~');
    (known && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok())
        .flatten()
}

/// Reads the spool's own number. An empty spool gets a new one, since its numbers begin anew.
fn spool_id(folder: &Path, empty: bool) -> io::Result<u64> {
    let path = folder.join("id");
    if !empty
        && let Ok(text) = fs::read_to_string(&path)
        && let Ok(id) = u64::from_str_radix(text.trim(), 16)
    {
        return Ok(id);
    }
    // The standard library's hasher is seeded by the operating system.
    let id = RandomState::new().hash_one(std::process::id()).max(1);
    let unfinished = path.with_extension("part");
    let mut file = File::create(&unfinished)?;
    writeln!(file, "{id:016x}")?;
    file.sync_all()?;
    fs::rename(&unfinished, &path)?;
    sync_folder(folder)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &Path, bytes_max: u64) -> Spool {
        let options = SpoolOptions {
            bytes_max,
            sync: SpoolSync::Never,
        };
        Spool::open(folder, options, Some(folder.join("shipped"))).expect("a spool")
    }

    #[test]
    fn numbers_go_on_until_the_spool_was_empty() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let spool = open(folder.path(), 100);
        let id = spool.id();
        for sequence in 1..=3 {
            assert_eq!(spool.put(b"flowset").expect("space"), sequence);
        }
        spool.acknowledge(1).expect("a folder");
        drop(spool);
        let spool = open(folder.path(), 100);
        assert_eq!((spool.id(), spool.first_sequence()), (id, 2));
        assert_eq!(spool.put(b"flowset").expect("space"), 4);
        assert_eq!(spool.after(2).map(|spooled| spooled.sequence), Some(3));
        spool.acknowledge(4).expect("a folder");
        assert_eq!((spool.holds(), spool.first_sequence()), ((0, 0), 5));
        drop(spool);
        // Numbers that were given before are given again, and must not be taken for the same.
        let spool = open(folder.path(), 100);
        assert_ne!(spool.id(), id);
        assert_eq!(spool.put(b"flowset").expect("space"), 1);
    }

    #[test]
    fn a_full_spool_takes_no_more() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let spool = open(folder.path(), 10);
        spool.put(b"1234567").expect("space");
        assert!(matches!(
            spool.put(b"1234"),
            Err(PutError::Full { bytes_max: 10 })
        ));
        spool.acknowledge(1).expect("a folder");
        assert_eq!(spool.put(b"1234").expect("space"), 2);
    }

    #[test]
    fn files_are_moved_in_and_out() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let file = folder.path().join("s1-7-v4.flowset");
        fs::write(&file, b"flowset").expect("space");
        let spool = open(&folder.path().join("spool"), 3);
        // Larger than the spool: it would never fit otherwise.
        assert_eq!(spool.adopt(&file).expect("the same file system"), 1);
        assert!(!file.exists());
        fs::write(&file, b"another").expect("space");
        assert!(matches!(spool.adopt(&file), Err(AdoptError::Full)));
        drop(spool);
        let spool = open(&folder.path().join("spool"), 3);
        let spooled = spool.after(0).expect("it is there again");
        assert_eq!(fs::read(&spooled.path).expect("a file"), b"flowset");
        spool.acknowledge(1).expect("a folder");
        let shipped = folder.path().join("spool/shipped/s1-7-v4.flowset");
        assert_eq!(fs::read(shipped).expect("a file"), b"flowset");
    }
}
