//! Templates and the last options data of a stream, with versions, within limits.

use hashbrown::HashMap;

use crate::wire::build::MessageBuilder;
use crate::wire::sets::SetKind;
use crate::wire::template::{Template, TemplateAction, TemplateRecord, TemplateRecords};
use crate::wire::{Header, Protocol, WireError};

/// Limits for one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateLimits {
    /// Templates of all kinds.
    pub templates: usize,
    /// Options records.
    pub options_records: usize,
}

/// Memory that the states of all streams may take together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateBudget {
    limit_bytes: usize,
    used_bytes: usize,
}

impl StateBudget {
    /// Nothing used yet.
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            used_bytes: 0,
        }
    }

    /// Bytes in use.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes
    }

    /// The limit.
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// Changes the limit; what is there stays.
    pub fn set_limit(&mut self, limit_bytes: usize) {
        self.limit_bytes = limit_bytes;
    }

    fn take(&mut self, bytes: usize) -> bool {
        let fits = self.used_bytes + bytes <= self.limit_bytes;
        if fits {
            self.used_bytes += bytes;
        }
        fits
    }

    fn give_back(&mut self, bytes: usize) {
        self.used_bytes = self.used_bytes.saturating_sub(bytes);
    }
}

/// What a record of a template or of options data did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// Not known before.
    New,
    /// Different from what was known.
    Changed,
    /// Known.
    Same,
    /// There was no room for it: it is passed on, but not kept.
    Refused,
    /// Not a valid template.
    Invalid(WireError),
}

/// A template or an options record as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StateRecord<'a> {
    /// A template record with its header.
    Template {
        /// Whether its data are options.
        is_options: bool,
        /// The record.
        raw: &'a [u8],
    },
    /// An options data record.
    Options {
        /// The id of its template.
        template_id: u16,
        /// The record.
        raw: &'a [u8],
    },
}

/// A stream's templates and options.
///
/// Each change gets the next version, so that what a collector lacks is what is newer than the
/// version it was sent.
#[derive(Debug, Default)]
pub struct StateCache {
    templates: HashMap<u16, Versioned<Template>>,
    options: HashMap<OptionsKey, Versioned<Box<[u8]>>>,
    version: u64,
}

/// Template and what identifies the record among those of the template.
type OptionsKey = (u16, Box<[u8]>);

#[derive(Debug)]
struct Versioned<T> {
    version: u64,
    value: T,
}

/// A message that brings a collector up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatchUpMessage {
    /// The message, whose sequence number is still to be set.
    pub bytes: Vec<u8>,
    /// How far sequence numbers advance with it.
    pub units: u32,
}

/// Map entries cost more than their values.
const ENTRY_OVERHEAD_BYTES: usize = 64;

impl StateCache {
    /// Version of the last change; 0 for none.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The template of a data set.
    pub fn template(&self, id: u16) -> Option<&Template> {
        self.templates.get(&id).map(|template| &template.value)
    }

    /// Templates of all kinds.
    pub fn templates(&self) -> usize {
        self.templates.len()
    }

    /// Options records.
    pub fn options_records(&self) -> usize {
        self.options.len()
    }

    /// Takes a template record. A changed template makes the options records of its id obsolete.
    pub fn learn_template(
        &mut self,
        record: &TemplateRecord<'_>,
        limits: StateLimits,
        budget: &mut StateBudget,
    ) -> Learned {
        let known = self.templates.get(&record.id);
        if known.is_some_and(|known| {
            known.value.is_options == record.is_options && *known.value.raw == *record.raw
        }) {
            return Learned::Same;
        }
        let template = match Template::new(record) {
            Ok(template) => template,
            Err(error) => return Learned::Invalid(error),
        };
        let learned = if known.is_some() {
            Learned::Changed
        } else {
            Learned::New
        };
        // What was known is wrong in any case.
        self.withdraw(record.id, budget);
        let bytes = template.memory_bytes() + ENTRY_OVERHEAD_BYTES;
        if self.templates.len() >= limits.templates || !budget.take(bytes) {
            return Learned::Refused;
        }
        self.version += 1;
        let entry = Versioned {
            version: self.version,
            value: template,
        };
        self.templates.insert(record.id, entry);
        learned
    }

    /// Forgets a template and its options data. Whether it was known.
    pub fn withdraw(&mut self, id: u16, budget: &mut StateBudget) -> bool {
        let Some(template) = self.templates.remove(&id) else {
            return false;
        };
        budget.give_back(template.value.memory_bytes() + ENTRY_OVERHEAD_BYTES);
        if template.value.is_options {
            self.options.retain(|key, record| {
                let stays = key.0 != id;
                if !stays {
                    budget.give_back(options_bytes(&key.1, &record.value));
                }
                stays
            });
        }
        true
    }

    /// Forgets all templates, or all options templates.
    pub fn withdraw_all(&mut self, is_options: bool, budget: &mut StateBudget) {
        let matching = self
            .templates
            .values()
            .filter(|template| template.value.is_options == is_options);
        let ids: Vec<u16> = matching.map(|template| template.value.id).collect();
        for id in ids {
            self.withdraw(id, budget);
        }
    }

    /// Takes an options data record of a known options template.
    pub fn learn_options(
        &mut self,
        template_id: u16,
        record: &[u8],
        limits: StateLimits,
        budget: &mut StateBudget,
    ) -> Learned {
        let Some(template) = self.template(template_id) else {
            return Learned::Refused;
        };
        let key = (template_id, template.options_key(record).into_boxed_slice());
        let next_version = self.version + 1;
        if let Some(known) = self.options.get_mut(&key) {
            if *known.value == *record {
                return Learned::Same;
            }
            // Records of one key have about one size; the budget keeps the difference.
            budget.give_back(known.value.len());
            if !budget.take(record.len()) {
                budget.take(known.value.len());
                return Learned::Refused;
            }
            known.value = record.into();
            known.version = next_version;
            self.version = next_version;
            return Learned::Changed;
        }
        let full = self.options.len() >= limits.options_records;
        if full || !budget.take(options_bytes(&key.1, record)) {
            return Learned::Refused;
        }
        self.version = next_version;
        let entry = Versioned {
            version: next_version,
            value: record.into(),
        };
        self.options.insert(key, entry);
        Learned::New
    }

    /// Everything that is kept, in an order in which it can be learned again.
    pub fn records(&self) -> Vec<StateRecord<'_>> {
        let templates = self.templates.values().map(|entry| {
            let record = StateRecord::Template {
                is_options: entry.value.is_options,
                raw: &entry.value.raw,
            };
            (entry.version, record)
        });
        let options = self.options.iter().map(|((template_id, _), entry)| {
            let record = StateRecord::Options {
                template_id: *template_id,
                raw: &entry.value,
            };
            (entry.version, record)
        });
        let mut records: Vec<_> = templates.chain(options).collect();
        records.sort_unstable();
        records.into_iter().map(|(_, record)| record).collect()
    }

    /// Learns a record of [`StateCache::records`], which may come from outside: it is checked as if it
    /// came in a message. Whether it is kept.
    pub fn restore(
        &mut self,
        protocol: Protocol,
        record: StateRecord<'_>,
        limits: StateLimits,
        budget: &mut StateBudget,
    ) -> bool {
        let learned = match record {
            StateRecord::Template { is_options, raw } => {
                let kind = if is_options {
                    SetKind::OptionsTemplates
                } else {
                    SetKind::Templates
                };
                match TemplateRecords::new(protocol, kind, raw, 0).next() {
                    Some(Ok(TemplateAction::Define(record))) if record.raw == raw => {
                        self.learn_template(&record, limits, budget)
                    }
                    _ => Learned::Refused,
                }
            }
            StateRecord::Options { template_id, raw } => {
                let template = self.template(template_id);
                let is_one = template.is_some_and(|template| {
                    template.is_options && template.records(raw, 0).next() == Some(Ok(raw))
                });
                if is_one {
                    self.learn_options(template_id, raw, limits, budget)
                } else {
                    Learned::Refused
                }
            }
        };
        matches!(learned, Learned::New | Learned::Changed | Learned::Same)
    }

    /// Gives back all memory.
    pub fn clear(&mut self, budget: &mut StateBudget) {
        self.withdraw_all(true, budget);
        self.withdraw_all(false, budget);
    }

    /// Messages with all that is newer than `since`, up to `until`: templates first, oldest first,
    /// then options data, which count for IPFIX
    /// sequence numbers or not. Their headers are like that of the given message.
    pub fn catch_up(
        &self,
        since: u64,
        until: u64,
        like: &[u8],
        header: &Header,
        message_bytes: usize,
        counts_options: bool,
    ) -> Vec<CatchUpMessage> {
        let wanted = |version: u64| version > since && version <= until;
        let (template_set, options_set) = match header.protocol {
            Protocol::Ipfix => (2, 3),
            _ => (0, 1),
        };
        let mut templates: Vec<_> = self
            .templates
            .values()
            .filter(|entry| wanted(entry.version))
            .collect();
        templates.sort_unstable_by_key(|entry| entry.version);
        let mut options: Vec<_> = self
            .options
            .iter()
            .filter(|(_, entry)| wanted(entry.version))
            .collect();
        options.sort_unstable_by_key(|((id, _), entry)| (*id, entry.version));

        let templates = templates.into_iter().map(|entry| {
            let set = if entry.value.is_options {
                options_set
            } else {
                template_set
            };
            (set, &*entry.value.raw, false, 4)
        });
        let options = options.into_iter().map(|((id, _), entry)| {
            let shortest = self.template(*id).map_or(1, Template::shortest_record);
            (*id, &*entry.value, counts_options, shortest)
        });

        let mut messages = Vec::new();
        let mut builder = MessageBuilder::default();
        builder.begin(like, header);
        for (set, record, is_data, shortest) in templates.chain(options) {
            let would_be = builder.len() + record.len() + crate::wire::sets::SET_HEADER_LEN;
            if !builder.is_empty() && would_be > message_bytes {
                messages.push(finished(&mut builder));
                builder.begin(like, header);
            }
            builder.push_record(set, record, is_data, shortest);
        }
        if !builder.is_empty() {
            messages.push(finished(&mut builder));
        }
        messages
    }
}

fn finished(builder: &mut MessageBuilder) -> CatchUpMessage {
    let units = builder.units();
    CatchUpMessage {
        bytes: builder.finish(0).to_vec(),
        units,
    }
}

fn options_bytes(key: &[u8], record: &[u8]) -> usize {
    key.len() + record.len() + ENTRY_OVERHEAD_BYTES
}
