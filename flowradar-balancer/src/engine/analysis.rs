//! What a message holds, and what is learnt from it.

use super::counters::Counters;
use crate::stream::{Learned, StateBudget, StateCache, StateLimits};
use crate::wire::sets::{Set, SetKind, Sets};
use crate::wire::sflow::Samples;
use crate::wire::template::{TemplateAction, TemplateRecords};
use crate::wire::{Header, Protocol, WireError};

/// What a message holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Flow records, or flow and counter samples.
    pub(crate) records: u32,
    pub(crate) options_records: u32,
    /// Data sets whose template is not known.
    pub(crate) unknown_sets: u32,
    /// Template and options template records, withdrawals among them.
    pub(crate) templates: u32,
    /// Whether templates are new or different, so that what waits may go on.
    pub(crate) learned: bool,
    /// Whether there was a data set, even one without a whole record.
    pub(crate) has_data_sets: bool,
    /// Templates changed behind data of the same message that they would cut differently.
    pub(crate) redefined_after_use: bool,
    pub(crate) error: Option<WireError>,
}

impl Summary {
    /// How far sequence numbers advance; none if that is not known.
    pub(crate) fn units(&self, protocol: Protocol) -> Option<u32> {
        match protocol {
            Protocol::NetflowV9 | Protocol::Sflow => Some(1),
            Protocol::NetflowV5 => Some(self.records),
            Protocol::Ipfix if self.unknown_sets > 0 || self.error.is_some() => None,
            Protocol::Ipfix => Some(self.records + self.options_records),
        }
    }

    /// How far the numbers advance that a collector sees.
    pub(crate) fn units_sent(&self, protocol: Protocol, counts_options: bool) -> u32 {
        match protocol {
            Protocol::NetflowV9 | Protocol::Sflow => 1,
            Protocol::Ipfix if counts_options => self.records + self.options_records,
            Protocol::NetflowV5 | Protocol::Ipfix => self.records,
        }
    }

    /// Whether there is anything that all collectors of the stream must know.
    pub(crate) fn has_state(&self) -> bool {
        self.templates > 0 || self.options_records > 0
    }

    /// Whether there is anything that one collector must have.
    pub(crate) fn has_data(&self) -> bool {
        self.records > 0 || self.unknown_sets > 0
    }
}

/// Reads a message once, and keeps its templates and options.
pub(crate) fn analyse(
    datagram: &[u8],
    header: &Header,
    cache: &mut StateCache,
    limits: StateLimits,
    budget: &mut StateBudget,
    counters: &mut Counters,
) -> Summary {
    let mut summary = Summary::default();
    match header.protocol {
        Protocol::NetflowV5 => summary.records = header.count,
        Protocol::Sflow => {
            for sample in Samples::new(datagram, header) {
                match sample {
                    Ok(_) => summary.records += 1,
                    Err(error) => summary.error = Some(error),
                }
            }
        }
        Protocol::NetflowV9 | Protocol::Ipfix => {
            for set in Sets::new(datagram, header) {
                let set = match set {
                    Ok(set) => set,
                    Err(error) => {
                        summary.error = Some(error);
                        break;
                    }
                };
                let analysed = match set.kind {
                    SetKind::Data(id) => {
                        data_set(&set, id, cache, limits, budget, counters, &mut summary)
                    }
                    SetKind::Templates | SetKind::OptionsTemplates => {
                        templates(&set, header, cache, limits, budget, counters, &mut summary)
                    }
                };
                if let Err(error) = analysed {
                    summary.error = Some(error);
                }
            }
        }
    }
    summary
}

fn templates(
    set: &Set<'_>,
    header: &Header,
    cache: &mut StateCache,
    limits: StateLimits,
    budget: &mut StateBudget,
    counters: &mut Counters,
    summary: &mut Summary,
) -> Result<(), WireError> {
    for record in TemplateRecords::new(header.protocol, set.kind, set.body, set.body_offset) {
        summary.templates += 1;
        match record? {
            TemplateAction::Define(record) => match cache.learn_template(&record, limits, budget) {
                Learned::Same => {}
                Learned::New | Learned::Changed => {
                    counters.templates_learned += 1;
                    summary.learned = true;
                    summary.redefined_after_use |= summary.has_data_sets;
                }
                Learned::Refused => {
                    counters.state_refused += 1;
                    // What was known under its id is gone.
                    summary.redefined_after_use |= summary.has_data_sets;
                }
                Learned::Invalid(error) => {
                    return Err(WireError {
                        offset: set.body_offset,
                        ..error
                    });
                }
            },
            TemplateAction::Withdraw(id) => {
                counters.templates_withdrawn += 1;
                summary.redefined_after_use |= summary.has_data_sets;
                cache.withdraw(id, budget);
            }
            TemplateAction::WithdrawAll => {
                counters.templates_withdrawn += 1;
                summary.redefined_after_use |= summary.has_data_sets;
                cache.withdraw_all(set.kind == SetKind::OptionsTemplates, budget);
            }
        }
    }
    Ok(())
}

fn data_set(
    set: &Set<'_>,
    id: u16,
    cache: &mut StateCache,
    limits: StateLimits,
    budget: &mut StateBudget,
    counters: &mut Counters,
    summary: &mut Summary,
) -> Result<(), WireError> {
    summary.has_data_sets = true;
    let Some(template) = cache.template(id) else {
        summary.unknown_sets += 1;
        return Ok(());
    };
    if !template.is_options {
        let (count, error) = template.count(set.body, set.body_offset);
        summary.records += count;
        return error.map_or(Ok(()), Err);
    }
    // Learning changes the cache that the template is in; options data is rare and small.
    let template = template.clone();
    for record in template.records(set.body, set.body_offset) {
        let record = record?;
        summary.options_records += 1;
        if cache.learn_options(id, record, limits, budget) == Learned::Refused {
            counters.state_refused += 1;
        }
    }
    Ok(())
}
