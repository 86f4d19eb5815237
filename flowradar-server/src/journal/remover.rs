//! The thread that removes segments: freeing a large file takes the system some ten milliseconds, for which
//! no report should wait.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use super::segment::SegmentNumber;

/// Removes segments, in the order they are given.
#[derive(Debug)]
pub(super) struct Remover {
    segments: Option<Sender<(SegmentNumber, u64)>>,
    thread: Option<JoinHandle<()>>,
    stuck: Arc<Stuck>,
}

/// Segments that could not be removed: they are tried again with the next.
#[derive(Debug, Default)]
struct Stuck {
    segments: AtomicU64,
    bytes: AtomicU64,
}

impl Remover {
    pub(super) fn start(folder: PathBuf) -> io::Result<Self> {
        let stuck = Arc::new(Stuck::default());
        let (segments, received) = channel();
        let thread = {
            let stuck = Arc::clone(&stuck);
            thread::Builder::new()
                .name("journal-remove".into())
                .spawn(move || run(&folder, &received, &stuck))?
        };
        Ok(Self {
            segments: Some(segments),
            thread: Some(thread),
            stuck,
        })
    }

    /// Removes a segment of so many bytes, soon.
    pub(super) fn remove(&self, segment: SegmentNumber, bytes: u64) {
        if let Some(segments) = &self.segments {
            // The thread ends only when this is dropped.
            _ = segments.send((segment, bytes));
        }
    }

    /// Segments that could not be removed, and their bytes.
    pub(super) fn stuck(&self) -> (u64, u64) {
        (
            self.stuck.segments.load(Ordering::Relaxed),
            self.stuck.bytes.load(Ordering::Relaxed),
        )
    }
}

/// All that was given is tried before.
impl Drop for Remover {
    fn drop(&mut self) {
        drop(self.segments.take());
        if let Some(thread) = self.thread.take() {
            // It can only have panicked, and said so.
            _ = thread.join();
        }
    }
}

fn run(folder: &Path, received: &Receiver<(SegmentNumber, u64)>, stuck: &Stuck) {
    let mut waiting: VecDeque<(SegmentNumber, u64)> = VecDeque::new();
    while let Ok(next) = received.recv() {
        waiting.push_back(next);
        while let Some(&(segment, _)) = waiting.front() {
            match fs::remove_file(segment.path(folder)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(segment = segment.0, %error, "a journal segment cannot be removed");
                    break;
                }
                _ => {}
            }
            waiting.pop_front();
        }
        let bytes = waiting.iter().map(|(_, bytes)| bytes).sum();
        stuck
            .segments
            .store(waiting.len() as u64, Ordering::Relaxed);
        stuck.bytes.store(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn what_cannot_be_removed_is_counted_and_tried_again() {
        let folder = TempDir::new().expect("a folder");
        let path = |number| SegmentNumber(number).path(folder.path());
        // A folder is no file: it cannot be removed like one.
        fs::create_dir(path(1)).expect("a folder");
        fs::write(path(2), b"2").expect("a file");
        let remover = Remover::start(folder.path().to_path_buf()).expect("a thread");
        remover.remove(SegmentNumber(1), 10);
        remover.remove(SegmentNumber(2), 20);
        while remover.stuck() != (2, 30) {
            thread::yield_now();
        }
        assert!(path(2).exists(), "none is removed before those before it");
        fs::remove_dir(path(1)).expect("it is there");
        fs::write(path(3), b"3").expect("a file");
        remover.remove(SegmentNumber(3), 30);
        let stuck = Arc::clone(&remover.stuck);
        drop(remover);
        assert_eq!(stuck.bytes.load(Ordering::Relaxed), 0);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }
}
