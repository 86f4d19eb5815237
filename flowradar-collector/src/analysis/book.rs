//! The book of events: which are open, and what changes.

use std::collections::BTreeMap;

use super::AnalysisCounters;
use super::event::{EVIDENCE_FLOWS_MAX, Event, EventChange, EventKind, Evidence};
use super::evidence::Sighted;

/// Open events.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// By what makes two events one.
    open: BTreeMap<EventKind, Open>,
    next_id: u64,
}

#[derive(Debug)]
struct Open {
    event: Event,
    told_epoch: u64,
    /// Packets of the epoch whose measures are shown.
    worst_packets: u64,
}

/// Limits of the book.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BookLimits {
    pub(crate) quiet_epochs: u64,
    pub(crate) update_epochs: u64,
    pub(crate) open_events_max: usize,
}

impl Book {
    /// Enters what was sighted; `now` is the epoch whose records showed it.
    pub(crate) fn enter(
        &mut self,
        now: u64,
        sighted: Vec<Sighted>,
        limits: BookLimits,
        changes: &mut Vec<EventChange>,
        counters: &mut AnalysisCounters,
    ) {
        for sighted in sighted {
            let key = identity(&sighted.kind);
            if let Some(open) = self.open.get_mut(&key) {
                let more_severe = open.add(sighted);
                if more_severe || now >= open.told_epoch.saturating_add(limits.update_epochs) {
                    open.told_epoch = now;
                    changes.push(EventChange::Updated(open.event.clone()));
                }
                continue;
            }
            if self.open.len() >= limits.open_events_max {
                counters.events_over_limit += 1;
                continue;
            }
            let open = Open::new(self.next_id, now, sighted);
            self.next_id += 1;
            counters.events_opened += 1;
            changes.push(EventChange::Opened(open.event.clone()));
            self.open.insert(key, open);
        }
    }

    /// Closes events without evidence for a while.
    pub(crate) fn close_quiet(
        &mut self,
        now: u64,
        limits: BookLimits,
        changes: &mut Vec<EventChange>,
        counters: &mut AnalysisCounters,
    ) {
        let quiet = |open: &Open| now.saturating_sub(open.event.last_epoch) > limits.quiet_epochs;
        let over = self.open.extract_if(.., |_, open| quiet(open));
        for (_, open) in over {
            counters.events_closed += 1;
            changes.push(EventChange::Closed(open.over()));
        }
    }

    /// Closes all events.
    pub(crate) fn close_all(&mut self, counters: &mut AnalysisCounters) -> Vec<EventChange> {
        let open = std::mem::take(&mut self.open).into_values();
        let closed: Vec<EventChange> = open.map(|open| EventChange::Closed(open.over())).collect();
        counters.events_closed += closed.len() as u64;
        closed
    }

    /// The open events, by kind and place.
    pub(crate) fn open(&self) -> impl Iterator<Item = &Event> {
        self.open.values().map(|open| &open.event)
    }

    /// Whether an event of this kind and place is open.
    pub(crate) fn is_open(&self, kind: &EventKind) -> bool {
        self.open.contains_key(&identity(kind))
    }
}

/// What makes two events one: details that an epoch may add or take away are left out.
fn identity(kind: &EventKind) -> EventKind {
    match kind {
        EventKind::Blackhole { switch, .. } => EventKind::Blackhole {
            switch: switch.clone(),
            next: Vec::new(),
        },
        EventKind::Scan { src, .. } => EventKind::Scan {
            src: *src,
            dst: None,
            dst_port: None,
        },
        kind => kind.clone(),
    }
}

impl Open {
    fn new(id: u64, now: u64, sighted: Sighted) -> Self {
        Self {
            told_epoch: now,
            worst_packets: sighted.packets,
            event: Event {
                id,
                kind: sighted.kind,
                severity: sighted.severity,
                start_epoch: sighted.epoch,
                detected_epoch: now,
                last_epoch: sighted.epoch,
                end_epoch: None,
                evidence: Evidence {
                    epochs: 1,
                    flows: sighted.flows,
                    packets: sighted.packets,
                    measures: sighted.measures,
                    examples: sighted.examples,
                },
            },
        }
    }

    /// Adds another epoch; whether it is more severe than those before.
    fn add(&mut self, sighted: Sighted) -> bool {
        let event = &mut self.event;
        let evidence = &mut event.evidence;
        if sighted.epoch > event.last_epoch {
            evidence.epochs += 1;
        }
        event.last_epoch = event.last_epoch.max(sighted.epoch);
        event.start_epoch = event.start_epoch.min(sighted.epoch);
        evidence.flows = evidence.flows.saturating_add(sighted.flows);
        evidence.packets = evidence.packets.saturating_add(sighted.packets);
        evidence.examples.extend(sighted.examples);
        evidence
            .examples
            .sort_by_key(|example| std::cmp::Reverse(example.packets));
        evidence.examples.truncate(EVIDENCE_FLOWS_MAX);
        if sighted.packets > self.worst_packets {
            self.worst_packets = sighted.packets;
            evidence.measures = sighted.measures;
        }
        match (&mut event.kind, sighted.kind) {
            (EventKind::Blackhole { next, .. }, EventKind::Blackhole { next: also, .. })
                if *next != also =>
            {
                // Flows of several groups end here: it is the switch itself.
                next.clear();
            }
            (
                EventKind::Scan { dst, dst_port, .. },
                EventKind::Scan {
                    dst: also_dst,
                    dst_port: also_port,
                    ..
                },
            ) => {
                *dst = dst.filter(|dst| Some(*dst) == also_dst);
                *dst_port = dst_port.filter(|port| Some(*port) == also_port);
            }
            _ => {}
        }
        let more_severe = sighted.severity > event.severity;
        event.severity = event.severity.max(sighted.severity);
        more_severe
    }

    fn over(self) -> Event {
        let mut event = self.event;
        event.end_epoch = Some(event.last_epoch);
        event
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::Severity;
    use super::*;

    const LIMITS: BookLimits = BookLimits {
        quiet_epochs: 2,
        update_epochs: 10,
        open_events_max: 2,
    };

    fn sighted(switch: &str, next: &[&str], epoch: u64, severity: Severity) -> Sighted {
        let kind = EventKind::Blackhole {
            switch: switch.into(),
            next: next.iter().map(|&next| next.into()).collect(),
        };
        let mut sighted = Sighted::new(kind, epoch, severity);
        sighted.packets = 5;
        sighted
    }

    #[test]
    fn an_event_opens_goes_on_and_closes() {
        let mut book = Book::default();
        let mut counters = AnalysisCounters::default();
        let mut changes = Vec::new();
        for epoch in 0..16 {
            let severity = if epoch == 3 {
                Severity::Critical
            } else {
                Severity::Warning
            };
            let seen = match epoch {
                0..12 => vec![sighted("s1", &["s2"], epoch, severity)],
                _ => vec![],
            };
            book.enter(epoch + 1, seen, LIMITS, &mut changes, &mut counters);
            book.close_quiet(epoch + 1, LIMITS, &mut changes, &mut counters);
        }
        let told: Vec<_> = changes
            .iter()
            .map(|change| match change {
                EventChange::Opened(event) => ("opened", event.last_epoch),
                EventChange::Updated(event) => ("updated", event.last_epoch),
                EventChange::Closed(event) => ("closed", event.last_epoch),
            })
            .collect();
        assert_eq!(told, [("opened", 0), ("updated", 3), ("closed", 11)]);
        let event = changes[2].event();
        assert_eq!(event.end_epoch, Some(11));
        assert_eq!(event.severity, Severity::Critical);
        assert_eq!((event.evidence.epochs, event.evidence.packets), (12, 60));
        assert_eq!(event.delay_epochs(), 1);
    }

    #[test]
    fn a_blackhole_of_several_groups_is_at_the_switch() {
        let mut book = Book::default();
        let mut counters = AnalysisCounters::default();
        let mut changes = Vec::new();
        for next in ["s2", "s3"] {
            let seen = vec![sighted("s1", &[next], 0, Severity::Critical)];
            book.enter(0, seen, LIMITS, &mut changes, &mut counters);
        }
        let open: Vec<_> = book.open().collect();
        assert_eq!(open.len(), 1);
        assert_eq!(open[0].kind.to_string(), "flows end at s1");
    }

    #[test]
    fn what_is_over_the_limit_is_counted() {
        let mut book = Book::default();
        let mut counters = AnalysisCounters::default();
        let mut changes = Vec::new();
        let seen = ["a", "b", "c"].map(|switch| sighted(switch, &[], 0, Severity::Info));
        book.enter(0, seen.into(), LIMITS, &mut changes, &mut counters);
        assert_eq!((changes.len(), counters.events_over_limit), (2, 1));
        assert_eq!(book.close_all(&mut counters).len(), 2);
        assert_eq!((counters.events_opened, counters.events_closed), (2, 2));
    }
}
