//! Which reports belong together, and when they are decoded. No clock, no I/O: `now` comes in, as the
//! time since some beginning, and [`Action`]s go out.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use crate::journal::{Closed, Position};

use super::{
    Arrived, DecodeRequest, Feedback, GroupId, GroupingInput, Outcome, Presence, Quality,
    ReportPlace,
};

/// Start times of the same epoch differ by no more than its length, or this if it is shorter.
const START_TOLERANCE_NS_MIN: u64 = 1_000_000_000;

/// What is done when decoding lags behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overload {
    /// The oldest epochs are decoded switch by switch, which is quick.
    #[default]
    SingleDecode,
    /// Epochs wait in the journal, until that is full and agents have to wait.
    Spool,
}

/// Limits of a [`Grouper`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrouperOptions {
    /// An epoch is decoded so long after its first report, whoever is missing.
    pub deadline: Duration,
    /// So long after its first decode, late reports are still decoded with their epoch.
    pub late: Duration,
    /// A switch that reported within this time is expected to report every epoch.
    pub expected: Duration,
    /// Epochs known at the same time at most: beyond, the oldest decoded one is closed early.
    pub groups_max: usize,
    /// Epochs being decoded at the same time at most.
    pub decodes_max: usize,
    /// Epochs waiting to be decoded at most before decoding counts as lagging behind.
    pub waiting_max: usize,
    /// What is done then.
    pub overload: Overload,
    /// An epoch that only one switch reports, and whose number is further than this from those of all
    /// others, is implausible; 0: none is.
    pub apart_max: u64,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// An epoch is to be decoded.
    Decode(DecodeRequest),
    /// What became of a report.
    Outcome {
        /// The switch.
        switch: String,
        /// Its epoch.
        epoch: u64,
        /// What became of it.
        outcome: Outcome,
    },
    /// Switches did not report an epoch in time.
    Missing {
        /// The epoch.
        epoch: u64,
        /// The switches.
        switches: Vec<String>,
    },
    /// An epoch is decoded that only one switch reported, and whose number is far from those of all others.
    Implausible {
        /// The epoch.
        epoch: u64,
        /// The switch.
        switch: String,
    },
    /// An epoch is closed before its time, since too many are known: its late reports will be too late.
    ClosedEarly {
        /// The epoch.
        epoch: u64,
    },
    /// An epoch is over: to be noted in the journal, before what follows.
    Closed(Closed),
    /// No report in segments of the journal before this one is needed any more.
    RemoveJournalBefore(u64),
}

/// What a grouper holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GrouperStatus {
    /// Epochs waiting for reports.
    pub gathering: usize,
    /// Epochs waiting to be decoded.
    pub waiting: usize,
    /// Epochs being decoded.
    pub decoding: usize,
    /// Epochs decoded, and open for late reports or not stored yet.
    pub open: usize,
    /// Switches that are expected to report.
    pub switches_expected: usize,
}

/// Groups reports by epoch.
#[derive(Clone, Debug)]
pub struct Grouper {
    options: GrouperOptions,
    groups: BTreeMap<GroupId, Group>,
    by_epoch: HashMap<u64, Vec<GroupId>>,
    /// Not yet handed to decoding for the first time, by number of the epoch.
    undecoded: BTreeSet<(u64, GroupId)>,
    /// Ready to be decoded, in order.
    waiting: VecDeque<GroupId>,
    timers: BTreeSet<(Duration, GroupId)>,
    decoding: usize,
    /// Groups in [`Phase::Decoded`]: there may be a thousand, and every report asks how many.
    decoded: usize,
    next_group: u64,
    switches: HashMap<String, SwitchPresence>,
    /// The latest epoch that was closed: number, and when it began.
    closed: Option<(u64, u64)>,
    /// Reports that are still needed, by segment of the journal.
    needed: BTreeMap<u64, usize>,
    newest_segment: u64,
    removed_before: u64,
    actions: VecDeque<Action>,
}

#[derive(Clone, Debug)]
struct Group {
    epoch: u64,
    /// 0 if unknown.
    start_ns: u64,
    time_ns: u64,
    length_ns: u64,
    /// By switch and kind of key.
    reports: BTreeMap<(String, u8), Held>,
    /// Of reports that are of no use, since there were others: where they are.
    others: Vec<Position>,
    phase: Phase,
    /// Reports came that the last decode did not have.
    improved: bool,
    too_late: bool,
    /// Only one switch reported it, and its number is far from those of all others: it waits for another
    /// that confirms it, and no epoch waits for it.
    implausible: bool,
    replayed: bool,
    /// The next decode's number.
    revision: u32,
    stored: Option<u32>,
    close_at: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    position: Position,
    digest: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Gathering {
        deadline: Duration,
    },
    /// Complete or past its deadline, but an earlier epoch is not.
    Ready,
    Waiting,
    Decoding,
    Decoded,
}

#[derive(Clone, Copy, Debug, Default)]
struct SwitchPresence {
    present: bool,
    /// When it last reported IPv4 and IPv6.
    last: [Option<Duration>; 2],
    /// The epoch that it reported last, of those that are plausible.
    epoch: Option<u64>,
}

impl Grouper {
    /// A grouper that knows nothing yet.
    pub fn new(options: GrouperOptions) -> Self {
        Self {
            options,
            groups: BTreeMap::new(),
            by_epoch: HashMap::new(),
            undecoded: BTreeSet::new(),
            waiting: VecDeque::new(),
            timers: BTreeSet::new(),
            decoding: 0,
            decoded: 0,
            next_group: 1,
            switches: HashMap::new(),
            closed: None,
            needed: BTreeMap::new(),
            newest_segment: 0,
            removed_before: 0,
            actions: VecDeque::new(),
        }
    }

    /// Says which epoch an earlier run closed last: its number, and when it began.
    pub fn set_closed(&mut self, closed: Option<(u64, u64)>) {
        self.closed = closed;
    }

    /// Takes other limits from now on.
    pub fn set_options(&mut self, options: GrouperOptions) {
        self.options = options;
    }

    /// Takes what ingest gives.
    pub fn input(&mut self, now: Duration, input: GroupingInput) {
        match input {
            GroupingInput::Arrived(arrived) => self.arrived(now, arrived),
            GroupingInput::Presence(Presence { switch, present }) => {
                self.switches.entry(switch).or_default().present = present;
                self.forget_switches(now);
                if !present {
                    self.check_gathering(now);
                }
            }
        }
        self.dispatch();
    }

    /// Takes what later stages say.
    pub fn feedback(&mut self, now: Duration, feedback: Feedback) {
        match feedback {
            Feedback::Decoded(id) => {
                self.decoding = self.decoding.saturating_sub(1);
                if let Some(group) = self.groups.get_mut(&id) {
                    self.decoded += usize::from(group.phase != Phase::Decoded);
                    group.phase = Phase::Decoded;
                    let close_at = *group.close_at.get_or_insert(if group.too_late {
                        now
                    } else {
                        now + self.options.late
                    });
                    self.timers.insert((close_at, id));
                    if group.improved {
                        // What came meanwhile is not in this decode.
                        self.timers.insert((now, id));
                    }
                    self.close_if_done(now, id);
                }
            }
            Feedback::Stored {
                group: id,
                revision,
            } => {
                if let Some(group) = self.groups.get_mut(&id) {
                    group.stored = group.stored.max(Some(revision));
                    self.close_if_done(now, id);
                }
            }
        }
        self.limit_groups();
        self.dispatch();
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Duration) {
        while let Some(&(at, id)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            let Some(group) = self.groups.get_mut(&id) else {
                continue;
            };
            match group.phase {
                Phase::Gathering { deadline } if deadline <= now => self.ready(now, id),
                Phase::Decoded if group.improved => {
                    group.phase = Phase::Waiting;
                    self.decoded -= 1;
                    self.waiting.push_back(id);
                }
                Phase::Decoded => self.close_if_done(now, id),
                _ => {}
            }
        }
        self.dispatch();
    }

    /// When [`Grouper::tick`] is to be called next, at the latest.
    pub fn next_timeout(&self) -> Option<Duration> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The next thing to be done.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What it holds.
    pub fn status(&self) -> GrouperStatus {
        GrouperStatus {
            gathering: self.undecoded.len().saturating_sub(self.waiting.len()),
            waiting: self.waiting.len(),
            decoding: self.decoding,
            open: self.decoded,
            switches_expected: self.switches.len(),
        }
    }

    fn arrived(&mut self, now: Duration, arrived: Arrived) {
        self.newest_segment = self.newest_segment.max(arrived.position.segment);
        let kind = usize::from(arrived.key == 6);
        self.switches
            .entry(arrived.switch.clone())
            .or_default()
            .last[kind] = Some(now);
        let id = match self.group_of(&arrived) {
            Some(id) => id,
            None => self.begin_group(now, &arrived),
        };
        let improve_at = now + self.options.deadline.min(Duration::from_millis(200));
        let group = self
            .groups
            .get_mut(&id)
            .expect("it was found or made just now");
        let report = (arrived.switch.clone(), arrived.key);
        *self.needed.entry(arrived.position.segment).or_default() += 1;
        let outcome = match group.reports.get(&report) {
            Some(held) => {
                group.others.push(arrived.position);
                if held.digest == arrived.digest {
                    Outcome::Duplicate
                } else {
                    Outcome::Conflict
                }
            }
            None => {
                let held = Held {
                    position: arrived.position,
                    digest: arrived.digest,
                };
                group.reports.insert(report, held);
                match group.phase {
                    _ if group.too_late => Outcome::TooLate,
                    Phase::Gathering { .. } | Phase::Ready => Outcome::OnTime,
                    Phase::Waiting if group.revision == 0 => Outcome::OnTime,
                    Phase::Waiting => Outcome::Late,
                    Phase::Decoding | Phase::Decoded => {
                        group.improved = true;
                        self.timers.insert((improve_at, id));
                        Outcome::Late
                    }
                }
            }
        };
        self.note_epoch(id, &arrived.switch);
        self.actions.push_back(Action::Outcome {
            switch: arrived.switch,
            epoch: arrived.epoch,
            outcome,
        });
        self.check_complete(now, id);
    }

    /// Takes note that a switch is in an epoch. A second one makes it plausible.
    fn note_epoch(&mut self, id: GroupId, switch: &str) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        if group.implausible {
            if group.only_switch().is_some() {
                return;
            }
            group.implausible = false;
            if matches!(group.phase, Phase::Gathering { .. }) {
                self.undecoded.insert((group.epoch, id));
            }
            for (name, _) in group.reports.keys() {
                if let Some(first) = self.switches.get_mut(name) {
                    first.epoch = Some(group.epoch);
                }
            }
        }
        if let Some(switch) = self.switches.get_mut(switch) {
            switch.epoch = Some(group.epoch);
        }
    }

    /// Whether an epoch of a switch is far from those of all others that reported lately.
    fn is_far(&self, now: Duration, name: &str, epoch: u64) -> bool {
        let others = self.switches.iter().filter(|(other, switch)| {
            let mut reports = switch.last.iter().flatten();
            *other != name && reports.any(|last| self.options.expects(now, *last))
        });
        let epochs = others.filter_map(|(_, switch)| switch.epoch);
        let range = epochs.fold(None, |range: Option<(u64, u64)>, epoch| {
            let (min, max) = range.unwrap_or((epoch, epoch));
            Some((min.min(epoch), max.max(epoch)))
        });
        let apart = self.options.apart_max;
        apart > 0
            && range.is_some_and(|(min, max)| {
                epoch > max.saturating_add(apart) || epoch.saturating_add(apart) < min
            })
    }

    /// The group that a report belongs to, if there is one.
    fn group_of(&self, arrived: &Arrived) -> Option<GroupId> {
        let ids = self.by_epoch.get(&arrived.epoch)?;
        ids.iter().rev().copied().find(|id| {
            self.groups.get(id).is_some_and(|group| {
                group.start_ns == 0
                    || arrived.start_ns == 0
                    || group.start_ns.abs_diff(arrived.start_ns)
                        <= start_tolerance_ns(group.length_ns)
            })
        })
    }

    fn begin_group(&mut self, now: Duration, arrived: &Arrived) -> GroupId {
        let id = GroupId(self.next_group);
        self.next_group += 1;
        let known = arrived.start_ns != 0;
        let too_late = known
            && self.closed.is_some_and(|(number, start_ns)| {
                arrived.epoch <= number && arrived.start_ns <= start_ns
            });
        let implausible = !too_late && self.is_far(now, &arrived.switch, arrived.epoch);
        let deadline = if too_late {
            now
        } else {
            now + self.options.deadline
        };
        let group = Group {
            epoch: arrived.epoch,
            start_ns: arrived.start_ns,
            time_ns: if known {
                arrived.start_ns
            } else {
                arrived.received_ns
            },
            length_ns: arrived.length_ns,
            reports: BTreeMap::new(),
            others: vec![],
            phase: Phase::Gathering { deadline },
            improved: false,
            too_late,
            implausible,
            replayed: arrived.replayed,
            revision: 0,
            stored: None,
            close_at: None,
        };
        self.groups.insert(id, group);
        self.by_epoch.entry(arrived.epoch).or_default().push(id);
        if !implausible {
            self.undecoded.insert((arrived.epoch, id));
        }
        self.timers.insert((deadline, id));
        self.limit_groups();
        id
    }

    /// A group whose expected switches have all reported is ready.
    fn check_complete(&mut self, now: Duration, id: GroupId) {
        let Some(group) = self.groups.get(&id) else {
            return;
        };
        let gathering = matches!(group.phase, Phase::Gathering { .. });
        if gathering && (group.too_late || self.missing(now, group).next().is_none()) {
            self.ready(now, id);
        }
    }

    /// Somebody less is expected: groups that waited for no one else are ready.
    fn check_gathering(&mut self, now: Duration) {
        let ids: Vec<GroupId> = self.undecoded.iter().map(|(_, id)| *id).collect();
        for id in ids {
            self.check_complete(now, id);
        }
    }

    /// Switches that are expected in a group and did not report.
    fn missing<'a>(
        &'a self,
        now: Duration,
        group: &'a Group,
    ) -> impl Iterator<Item = &'a String> + 'a {
        let expected =
            move |last: Option<Duration>| last.is_some_and(|last| self.options.expects(now, last));
        self.switches.iter().filter_map(move |(name, switch)| {
            let has = |key: u8| group.reports.contains_key(&(name.clone(), key));
            let never = switch.last == [None, None];
            let lacks_v4 = (expected(switch.last[0]) || (switch.present && never)) && !has(4);
            let lacks_v6 = expected(switch.last[1]) && !has(6);
            (lacks_v4 || lacks_v6).then_some(name)
        })
    }

    fn ready(&mut self, now: Duration, id: GroupId) {
        let Some(group) = self.groups.get(&id) else {
            return;
        };
        let epoch = group.epoch;
        // What was not known when its report came may be now.
        let alone = group.only_switch().filter(|_| !group.too_late);
        let alone = alone.filter(|switch| self.is_far(now, switch, epoch));
        let alone = alone.map(str::to_owned);
        let implausible = alone.is_some();
        let mut missing: Vec<String> = vec![];
        if !group.too_late && !implausible {
            missing.extend(self.missing(now, group).cloned());
        }
        if let Some(switch) = alone {
            self.actions
                .push_back(Action::Implausible { epoch, switch });
        }
        if !missing.is_empty() {
            missing.sort_unstable();
            self.actions.push_back(Action::Missing {
                epoch,
                switches: missing,
            });
        }
        if let Some(group) = self.groups.get_mut(&id) {
            group.implausible = implausible;
            if implausible {
                group.phase = Phase::Waiting;
                self.waiting.push_back(id);
                self.undecoded.remove(&(epoch, id));
            } else {
                group.phase = Phase::Ready;
                self.undecoded.insert((epoch, id));
            }
        }
        // In order of the epochs: those before have deadlines, too.
        while let Some(&(epoch, first)) = self.undecoded.first() {
            match self.groups.get_mut(&first) {
                Some(group) if group.phase == Phase::Ready => {
                    group.phase = Phase::Waiting;
                    self.waiting.push_back(first);
                    self.undecoded.remove(&(epoch, first));
                }
                Some(_) => break,
                None => {
                    self.undecoded.remove(&(epoch, first));
                }
            }
        }
    }

    /// Hands epochs over to decoding while it takes them.
    fn dispatch(&mut self) {
        while self.decoding < self.options.decodes_max
            && let Some(id) = self.waiting.pop_front()
        {
            let behind = self.waiting.len() >= self.options.waiting_max
                && self.options.overload == Overload::SingleDecode;
            let now_missing = self.groups.get(&id).map(|group| {
                let last = self.switches.values().flat_map(|switch| switch.last);
                let now = last.flatten().max().unwrap_or_default();
                let mut missing: Vec<String> = self.missing(now, group).cloned().collect();
                missing.sort_unstable();
                missing
            });
            let Some(group) = self.groups.get_mut(&id) else {
                continue;
            };
            let reports = group
                .reports
                .iter()
                .map(|((switch, key), held)| ReportPlace {
                    switch: switch.clone(),
                    key: *key,
                    position: held.position,
                });
            let request = DecodeRequest {
                group: id,
                revision: group.revision,
                epoch: group.epoch,
                time_ns: group.time_ns,
                length_ns: group.length_ns,
                quality: if behind || group.too_late {
                    Quality::Single
                } else {
                    Quality::Network
                },
                too_late: group.too_late,
                implausible: group.implausible,
                may_be_stored: group.replayed || group.revision > 0,
                reports: reports.collect(),
                missing: if group.too_late || group.implausible {
                    vec![]
                } else {
                    now_missing.unwrap_or_default()
                },
            };
            group.phase = Phase::Decoding;
            group.improved = false;
            group.revision += 1;
            self.decoding += 1;
            self.actions.push_back(Action::Decode(request));
        }
    }

    /// Closes a group if it is decoded, stored, and no late report is waited for.
    fn close_if_done(&mut self, now: Duration, id: GroupId) {
        let Some(group) = self.groups.get(&id) else {
            return;
        };
        let stored = group.stored.is_some() && group.stored == group.revision.checked_sub(1);
        let over = group.close_at.is_some_and(|at| at <= now);
        if group.phase == Phase::Decoded && !group.improved && stored && over {
            self.close(id);
        }
    }

    fn close(&mut self, id: GroupId) {
        let Some(group) = self.groups.remove(&id) else {
            return;
        };
        self.decoded -= usize::from(group.phase == Phase::Decoded);
        self.undecoded.remove(&(group.epoch, id));
        if let Some(ids) = self.by_epoch.get_mut(&group.epoch) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_epoch.remove(&group.epoch);
            }
        }
        // An implausible time would make all that comes after it too late.
        let start_ns = if group.implausible { 0 } else { group.start_ns };
        if start_ns != 0 && !group.too_late {
            let closed = (group.epoch, group.start_ns);
            let later = self
                .closed
                .is_none_or(|(_, start_ns)| start_ns < group.start_ns);
            if later {
                self.closed = Some(closed);
            }
        }
        let held = group.reports.values().map(|held| held.position);
        let positions: Vec<Position> = held.chain(group.others).collect();
        for position in &positions {
            let segment = position.segment;
            if let Some(reports) = self.needed.get_mut(&segment) {
                *reports -= 1;
                if *reports == 0 {
                    self.needed.remove(&segment);
                }
            }
        }
        let reports = positions.iter();
        self.actions.push_back(Action::Closed(Closed {
            epoch: group.epoch,
            start_ns,
            reports: reports
                .map(|position| (position.segment, position.offset))
                .collect(),
        }));
        let first_needed = self.needed.first_key_value().map(|(segment, _)| *segment);
        let before = first_needed.unwrap_or(self.newest_segment);
        if before > self.removed_before {
            self.removed_before = before;
            self.actions.push_back(Action::RemoveJournalBefore(before));
        }
    }

    /// Closes the oldest stored groups while there are too many.
    fn limit_groups(&mut self) {
        while self.groups.len() > self.options.groups_max {
            let done = |(_, group): &(&GroupId, &Group)| {
                group.phase == Phase::Decoded
                    && group.stored == group.revision.checked_sub(1)
                    && group.stored.is_some()
            };
            let Some((&id, group)) = self.groups.iter().find(done) else {
                return;
            };
            self.actions
                .push_back(Action::ClosedEarly { epoch: group.epoch });
            self.close(id);
        }
    }

    /// Forgets switches that are gone and expected no more.
    fn forget_switches(&mut self, now: Duration) {
        let options = self.options;
        self.switches.retain(|_, switch| {
            let mut reports = switch.last.iter().flatten();
            switch.present || reports.any(|last| options.expects(now, *last))
        });
    }
}

impl Group {
    /// The switch, if only one has reported.
    fn only_switch(&self) -> Option<&str> {
        let mut names = self.reports.keys().map(|(name, _)| name.as_str());
        let first = names.next()?;
        names.all(|name| name == first).then_some(first)
    }
}

impl GrouperOptions {
    /// Whether a switch that reported then is expected to report now.
    fn expects(&self, now: Duration, last: Duration) -> bool {
        now.saturating_sub(last) <= self.expected
    }
}

fn start_tolerance_ns(length_ns: u64) -> u64 {
    length_ns.max(START_TOLERANCE_NS_MIN)
}

#[cfg(test)]
#[path = "grouper_tests.rs"]
mod tests;
