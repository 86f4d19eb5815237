//! Many requests under way at a time, each sent until it is answered.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::wire::{Reply, Request, Status};
use super::{DrainError, DrainTiming, Step};
use crate::config::Fingerprint;

/// What has gone over the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExchangeCounters {
    /// Frames sent, with those sent again.
    pub sent: u64,
    /// Frames sent again because no answer had come.
    pub sent_again: u64,
    /// Answers taken.
    pub answers: u64,
    /// Answers to nothing that is open: doubled, late, or of another task.
    pub ignored: u64,
    /// Frames that are no answers, or lack some of their bytes.
    pub malformed: u64,
}

/// Requests of one task to one bank. Holds as many as the task has chunks.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    timing: DrainTiming,
    fingerprint: Fingerprint,
    next_tag: u32,
    waiting: VecDeque<Request>,
    open: BTreeMap<u32, Open>,
    counters: ExchangeCounters,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    request: Request,
    sent_at: Duration,
    tries: u32,
}

impl Exchange {
    pub(super) fn new(fingerprint: Fingerprint, timing: DrainTiming) -> Self {
        Self {
            timing,
            fingerprint,
            next_tag: 0,
            waiting: VecDeque::new(),
            open: BTreeMap::new(),
            counters: ExchangeCounters::default(),
        }
    }

    pub(super) fn counters(&self) -> ExchangeCounters {
        self.counters
    }

    /// Asks for something, when its turn comes. Tag and fingerprint are filled in here.
    pub(super) fn ask(&mut self, request: Request) {
        let tag = self.next_tag;
        self.next_tag = tag.wrapping_add(1);
        self.waiting.push_back(Request {
            tag,
            fingerprint: self.fingerprint,
            ..request
        });
    }

    /// Whether everything has been answered.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.open.is_empty()
    }

    /// What to do next, while not everything has been answered.
    pub(super) fn poll(&mut self, now: Duration) -> Result<Step, DrainError> {
        let oldest = self
            .open
            .values_mut()
            .min_by_key(|open| open.sent_at)
            .map(|open| (open.sent_at + self.timing.retry_after, open));
        if let Some((due, open)) = oldest
            && due <= now
        {
            if open.tries >= self.timing.tries_max.max(1) {
                return Err(DrainError::NoAnswer {
                    operation: open.request.operation,
                    tries: open.tries,
                    malformed: self.counters.malformed,
                });
            }
            open.tries += 1;
            open.sent_at = now;
            self.counters.sent += 1;
            self.counters.sent_again += 1;
            return Ok(Step::Send(open.request.to_frame()));
        }
        if self.open.len() < self.timing.window.max(1)
            && let Some(request) = self.waiting.pop_front()
        {
            let open = Open {
                request,
                sent_at: now,
                tries: 1,
            };
            self.open.insert(request.tag, open);
            self.counters.sent += 1;
            return Ok(Step::Send(request.to_frame()));
        }
        let until = self
            .open
            .values()
            .map(|open| open.sent_at + self.timing.retry_after)
            .min();
        Ok(Step::Wait(until.unwrap_or(now)))
    }

    /// The request that a frame answers, and the answer, if it is whole. A request is answered once.
    pub(super) fn take<'a>(
        &mut self,
        frame: &'a [u8],
    ) -> Result<Option<(Request, Reply<'a>)>, DrainError> {
        let Ok(reply) = Reply::parse(frame) else {
            self.counters.malformed += 1;
            return Ok(None);
        };
        let Some(request) = self
            .open
            .get(&reply.tag)
            .map(|open| open.request)
            .filter(|request| reply.answers(request))
        else {
            self.counters.ignored += 1;
            return Ok(None);
        };
        if reply.status == Status::DONE && reply.body().len() < request.room_bytes {
            self.counters.malformed += 1;
            return Ok(None);
        }
        self.open.remove(&reply.tag);
        self.counters.answers += 1;
        if reply.fingerprint != self.fingerprint {
            return Err(DrainError::OtherProgram {
                expected: self.fingerprint,
                found: reply.fingerprint,
            });
        }
        match reply.status {
            Status::DONE => Ok(Some((request, reply))),
            Status::OTHER_EPOCH => Err(DrainError::OtherEpoch {
                bank: request.bank,
                expected: request.epoch,
                found: reply.epoch,
            }),
            status => Err(DrainError::Refused {
                operation: request.operation,
                bank: request.bank,
                epoch: reply.epoch,
                status,
            }),
        }
    }
}
