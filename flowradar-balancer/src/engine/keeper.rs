//! Templates and options that outlive the process.
//!
//! A restarted balancer knows no templates, and exporters repeat theirs after minutes only. So engines
//! lay down what they know in a [`StateKeeper`] when they are asked to, and a new engine takes up what is
//! in it when a stream sends again. Reading and writing files is for others.
//!
//! Saved templates are only right if the exporter is still the same: one that began anew may use the same
//! ids for other things. So they are taken only if its sequence numbers went on.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::Domains;
use super::table::Stream;
use crate::stream::{StateRecord, StreamKey};
use crate::time::Timestamp;
use crate::wire::Header;

/// What is kept of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedStream {
    /// Which stream.
    #[serde(flatten)]
    pub key: StreamKey,
    /// The observation domain that collectors see, if it is not its own.
    pub substitute_domain: Option<u32>,
    /// When it last sent, in seconds since 1970.
    pub last_seen_unix_seconds: u64,
    /// The sequence number that its next message should have.
    pub next_sequence: Option<u32>,
    /// Its templates and options, in an order in which they can be learned.
    pub records: Vec<SavedRecord>,
}

/// A template or an options record; see [`StateRecord`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SavedRecord {
    /// A template.
    Template(#[serde(with = "hexadecimal")] Vec<u8>),
    /// An options template.
    OptionsTemplate(#[serde(with = "hexadecimal")] Vec<u8>),
    /// An options record: the id of its template, and its bytes.
    Options(u16, #[serde(with = "hexadecimal")] Vec<u8>),
}

/// Where engines of one balancer lay down what they know, and find what was known before.
#[derive(Clone, Debug, Default)]
pub struct StateKeeper {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The number of the latest request, and its time in seconds since 1970.
    requests: AtomicU64,
    unix_seconds: AtomicU64,
    /// Whether each tick is to lay down the state, as at the end.
    is_last: AtomicBool,
    engines: AtomicUsize,
    laid_down: Mutex<HashMap<usize, (u64, Vec<SavedStream>)>>,
    remembered: Mutex<HashMap<StreamKey, SavedStream>>,
    /// How many are remembered: most new streams are found without locking that there are none.
    remembered_count: AtomicUsize,
}

/// One engine's part of a keeper.
#[derive(Debug)]
pub(super) struct KeeperPart {
    keeper: StateKeeper,
    engine: usize,
    answered: u64,
}

/// Sequence numbers that are farther ahead are behind.
const HALF_OF_ALL: u32 = 1 << 31;

impl StateKeeper {
    /// Remembers what was saved, but for what is older than `most_age`; keeps the streams' observation
    /// domains for them. How many streams are remembered.
    pub fn remember(
        &self,
        streams: Vec<SavedStream>,
        domains: &Domains,
        now_unix_seconds: u64,
        most_age: Duration,
    ) -> usize {
        let oldest = now_unix_seconds.saturating_sub(most_age.as_secs());
        let mut remembered = lock(&self.shared.remembered);
        for stream in streams {
            if stream.last_seen_unix_seconds >= oldest {
                domains.reserve(&stream.key, stream.substitute_domain);
                remembered.insert(stream.key, stream);
            }
        }
        self.count(&remembered);
        remembered.len()
    }

    /// Forgets what is remembered of streams that did not send for so long.
    pub fn forget(&self, domains: &Domains, now_unix_seconds: u64, most_age: Duration) {
        let oldest = now_unix_seconds.saturating_sub(most_age.as_secs());
        let mut remembered = lock(&self.shared.remembered);
        remembered.retain(|key, stream| {
            let stays = stream.last_seen_unix_seconds >= oldest;
            if !stays {
                domains.leave(key, stream.substitute_domain);
            }
            stays
        });
        self.count(&remembered);
    }

    /// Asks all engines to lay down what they know, at their next tick. With `is_last`, at each from
    /// now on. The number of the request.
    pub fn request(&self, now_unix_seconds: u64, is_last: bool) -> u64 {
        let shared = &self.shared;
        shared
            .unix_seconds
            .store(now_unix_seconds, Ordering::Relaxed);
        shared.is_last.store(is_last, Ordering::Relaxed);
        shared.requests.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Whether all engines have answered a request.
    pub fn is_answered(&self, request: u64) -> bool {
        let laid_down = lock(&self.shared.laid_down);
        let answered = laid_down.values().filter(|(number, _)| *number >= request);
        answered.count() >= self.shared.engines.load(Ordering::Relaxed)
    }

    /// Takes what engines laid down, together with what is still remembered of streams that have not
    /// sent since.
    pub fn take(&self) -> Vec<SavedStream> {
        let mut laid_down = lock(&self.shared.laid_down);
        let taken = if self.shared.is_last.load(Ordering::Relaxed) {
            // Whoever else asked before the end gets the same.
            laid_down.clone()
        } else {
            std::mem::take(&mut *laid_down)
        };
        drop(laid_down);
        let mut streams: Vec<SavedStream> = taken
            .into_values()
            .flat_map(|(_, streams)| streams)
            .collect();
        streams.extend(lock(&self.shared.remembered).values().cloned());
        streams.sort_unstable_by_key(|stream| stream.key);
        streams
    }

    pub(super) fn part(&self) -> KeeperPart {
        KeeperPart {
            engine: self.shared.engines.fetch_add(1, Ordering::Relaxed),
            keeper: self.clone(),
            answered: 0,
        }
    }

    fn count(&self, remembered: &HashMap<StreamKey, SavedStream>) {
        self.shared
            .remembered_count
            .store(remembered.len(), Ordering::Relaxed);
    }
}

impl KeeperPart {
    /// What is remembered of a stream that sends its first message here; it is not remembered any more.
    pub(super) fn recall(&self, key: &StreamKey) -> Option<SavedStream> {
        let shared = &self.keeper.shared;
        if shared.remembered_count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut remembered = lock(&shared.remembered);
        let stream = remembered.remove(key);
        self.keeper.count(&remembered);
        stream
    }

    /// The time of a request that is not answered yet, in seconds since 1970.
    pub(super) fn requested(&self) -> Option<u64> {
        let shared = &self.keeper.shared;
        let is_new = shared.requests.load(Ordering::Acquire) > self.answered
            || shared.is_last.load(Ordering::Relaxed);
        is_new.then(|| shared.unix_seconds.load(Ordering::Relaxed))
    }

    /// Lays down an engine's streams.
    pub(super) fn lay_down(&mut self, streams: Vec<SavedStream>) {
        let shared = &self.keeper.shared;
        self.answered = shared.requests.load(Ordering::Acquire);
        lock(&shared.laid_down).insert(self.engine, (self.answered, streams));
    }
}

impl SavedStream {
    /// What is to be kept of a stream; nothing if it has no templates and its own domain.
    pub(super) fn of(
        stream: &Stream,
        last_seen: Timestamp,
        now: Timestamp,
        now_unix_seconds: u64,
    ) -> Option<Self> {
        let records = stream.cache.records();
        if records.is_empty() && stream.substitute_domain.is_none() {
            return None;
        }
        let silent = now.since(last_seen).as_secs();
        Some(Self {
            key: stream.key,
            substitute_domain: stream.substitute_domain,
            last_seen_unix_seconds: now_unix_seconds.saturating_sub(silent),
            next_sequence: stream.upstream.expected(),
            records: records.into_iter().map(SavedRecord::from).collect(),
        })
    }

    /// Whether a message goes on where the stream was, so that its templates still hold.
    pub(super) fn goes_on_with(&self, header: &Header) -> bool {
        self.next_sequence
            .is_none_or(|next| header.sequence.wrapping_sub(next) < HALF_OF_ALL)
    }
}

impl From<StateRecord<'_>> for SavedRecord {
    fn from(record: StateRecord<'_>) -> Self {
        match record {
            StateRecord::Template { is_options, raw } if is_options => {
                Self::OptionsTemplate(raw.to_vec())
            }
            StateRecord::Template { raw, .. } => Self::Template(raw.to_vec()),
            StateRecord::Options { template_id, raw } => Self::Options(template_id, raw.to_vec()),
        }
    }
}

impl SavedRecord {
    /// The record.
    pub fn as_record(&self) -> StateRecord<'_> {
        match self {
            Self::Template(raw) => StateRecord::Template {
                is_options: false,
                raw,
            },
            Self::OptionsTemplate(raw) => StateRecord::Template {
                is_options: true,
                raw,
            },
            Self::Options(template_id, raw) => StateRecord::Options {
                template_id: *template_id,
                raw,
            },
        }
    }
}

/// Maps and lists are whole after any panic between their calls.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes as text.
mod hexadecimal {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            for digit in [byte >> 4, byte & 15] {
                text.extend(char::from_digit(u32::from(digit), 16));
            }
        }
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let byte = |pair: &[u8]| match pair {
            [high, low] => Some((digit(*high)? << 4 | digit(*low)?) as u8),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        bytes.ok_or_else(|| D::Error::custom("not hexadecimal"))
    }
}
