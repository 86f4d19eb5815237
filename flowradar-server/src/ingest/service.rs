//! The gRPC service, and what it shares with the drop folder: from checked flowsets to the journal and
//! on to grouping.

use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use flowradar_core::Flowset;
use flowradar_core::flowset::SwitchName;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use xxhash_rust::xxh3::xxh3_64;

use super::identity::{Credentials, Identities, Secret};
use super::proto::collector_server::Collector;
use super::proto::{
    Acknowledged, AgentMessage, CollectorMessage, Registered, Rejected, collector_message,
};
use super::session::{Registration, Session, SessionLimits, SessionOutput};
use super::switches::{Hold, Switches};
use super::unix_now_ns;
use crate::epoch::{Arrived, GroupingInput, Outcome, Presence};
use crate::journal::{AppendError, Journal, Position, Record, Report, ReportSource};
use crate::metrics::Metrics;
use crate::notice::Notices;
use crate::stage::{Giver, QueueGiver};

/// How long a new stream may take to register.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often an append that was refused is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Limits of ingest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IngestOptions {
    /// Largest flowset.
    pub flowset_bytes_max: u64,
    /// Flowsets of a switch that may be on their way unacknowledged.
    pub window: u32,
    /// Bytes of flowsets a second and switch, beyond which its stream is read more slowly; 0: no limit.
    pub switch_bytes_per_second_max: u64,
    /// How long a stream waits while the journal cannot take its flowset, before it is refused.
    pub stall: Duration,
}

/// Takes reports into the journal, and on to grouping.
#[derive(Clone, Debug)]
pub struct Ingest {
    journal: Journal,
    switches: Switches,
    identities: Arc<RwLock<Arc<Identities>>>,
    grouping: QueueGiver<GroupingInput>,
    options: IngestOptions,
    metrics: Arc<Metrics>,
    notices: Notices,
}

type Answers = mpsc::Sender<Result<CollectorMessage, Status>>;

impl Ingest {
    /// Ingest into a journal, for the switches known from it.
    pub fn new(
        journal: Journal,
        switches: Switches,
        identities: Identities,
        grouping: QueueGiver<GroupingInput>,
        options: IngestOptions,
        metrics: Arc<Metrics>,
        notices: Notices,
    ) -> Self {
        Self {
            journal,
            switches,
            identities: Arc::new(RwLock::new(Arc::new(identities))),
            grouping,
            options,
            metrics,
            notices,
        }
    }

    /// Takes other identities for streams that begin from now on.
    pub fn set_identities(&self, identities: Identities) {
        *self
            .identities
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(identities);
    }

    /// Where it tells what happens.
    pub fn notices(&self) -> &Notices {
        &self.notices
    }

    /// The switches.
    pub fn switches(&self) -> &Switches {
        &self.switches
    }

    /// Makes a flowset durable, and tells grouping.
    ///
    /// # Errors
    /// If the journal refuses it: nothing has happened then.
    pub async fn take(
        &self,
        flowset: &Flowset<Vec<u8>>,
        source: ReportSource,
    ) -> Result<(), AppendError> {
        let header = flowset.header();
        let received_ns = unix_now_ns();
        let report = Report {
            switch: header.switch.clone(),
            epoch: header.epoch,
            key: header.key,
            source,
            received_ns,
            flowset: flowset.as_bytes(),
        };
        let position = self.append(&Record::Report(report)).await?;
        let arrived = Arrived {
            position,
            switch: header.switch.to_string(),
            epoch: header.epoch.number,
            start_ns: header.epoch.start_ns,
            length_ns: header.epoch.length_ns,
            key: header.key as u8,
            digest: xxh3_64(flowset.as_bytes()),
            received_ns,
            replayed: false,
        };
        self.metrics
            .ingested(&header.switch, flowset.as_bytes().len() as u64);
        // If grouping has ended, so does the process; the journal has the report.
        _ = self.grouping.give(GroupingInput::Arrived(arrived)).await;
        Ok(())
    }

    /// Notes durably that a number or file was used for nothing.
    ///
    /// # Errors
    /// If the journal refuses it.
    pub async fn not_taken(
        &self,
        switch: &SwitchName,
        epoch: Option<u64>,
        source: ReportSource,
        outcome: Outcome,
        reason: String,
    ) -> Result<(), AppendError> {
        let record = Record::NotTaken {
            switch: switch.clone(),
            source,
            reason: reason.clone(),
        };
        self.append(&record).await?;
        self.metrics.outcome(switch.as_str(), outcome);
        self.notices
            .report(outcome, switch.as_str(), epoch, &reason);
        Ok(())
    }

    async fn append(&self, record: &Record<'_>) -> Result<Position, AppendError> {
        // While many others wait, a thread is held to wait; for fsync never.
        let result = match self.journal.try_append(record.write()) {
            Ok(result) => result,
            Err(record) => {
                let journal = self.journal.clone();
                tokio::task::spawn_blocking(move || journal.append(record))
                    .await
                    .map_err(|_| AppendError::Closed)?
            }
        };
        result.await.unwrap_or(Err(AppendError::Closed))
    }

    /// Tries to append until it is done, or the stall time is over, or somebody else wants the switch.
    async fn persist<F>(&self, hold: &Hold, attempt: impl Fn() -> F) -> Result<(), Status>
    where
        F: Future<Output = Result<(), AppendError>>,
    {
        let begin = Instant::now();
        loop {
            let error = match attempt().await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            self.metrics.stalled();
            if begin.elapsed() >= self.options.stall {
                self.notices.refusing(&error.to_string());
                return Err(Status::resource_exhausted(format!(
                    "{error}; the flowset was not taken, send it again later"
                )));
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY_PAUSE) => {}
                () = hold.replaced() => return Err(replaced()),
            }
        }
    }

    /// A stream from its beginning to its end.
    async fn serve(
        self,
        credentials: Credentials,
        mut inbound: Streaming<AgentMessage>,
        answers: Answers,
    ) {
        let ended = self.session(&credentials, &mut inbound, &answers).await;
        if let Err(status) = ended {
            self.metrics.stream_failed();
            tracing::info!(code = ?status.code(), message = status.message(), "an agent's stream was ended");
            _ = answers.send(Err(status)).await;
        }
    }

    async fn session(
        &self,
        credentials: &Credentials,
        inbound: &mut Streaming<AgentMessage>,
        answers: &Answers,
    ) -> Result<(), Status> {
        let mut session = Session::new(SessionLimits {
            flowset_bytes_max: self.options.flowset_bytes_max,
        });
        let first = tokio::time::timeout(REGISTER_TIMEOUT, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no registration came"))??;
        let Some(first) = first else {
            return Ok(());
        };
        let output = session.receive(first).map_err(misbehaved)?;
        let Some(SessionOutput::Registered(registration)) = output else {
            return Err(Status::invalid_argument("no registration"));
        };
        let switch = registration.switch.clone();
        let identities = Arc::clone(
            &self
                .identities
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        );
        identities
            .check(&switch, credentials)
            .map_err(|error| Status::permission_denied(error.to_string()))?;
        let mut hold = self
            .switches
            .hold(&switch)
            .await
            .map_err(|error| Status::resource_exhausted(error.to_string()))?;
        let next = self.register(&mut hold, &registration).await?;
        session.expect(next);
        let registered = Registered {
            durable_sequence: next - 1,
            flowset_bytes_max: self.options.flowset_bytes_max,
            window: self.options.window,
        };
        self.presence(&switch, true).await;
        let served = async {
            answer(answers, collector_message::Message::Registered(registered)).await?;
            self.flowsets(&switch, session, &mut hold, inbound, answers)
                .await
        };
        let ended = served.await;
        drop(hold);
        self.presence(&switch, false).await;
        ended
    }

    /// Registers durably; returns the number that comes next.
    async fn register(&self, hold: &mut Hold, registration: &Registration) -> Result<u64, Status> {
        let record = Record::Registered {
            switch: registration.switch.clone(),
            registration: registration.state.clone(),
        };
        self.persist(hold, || async { self.append(&record).await.map(|_| ()) })
            .await?;
        if hold.progress.spool != registration.state.spool {
            hold.progress.spool = registration.state.spool;
            hold.progress.sequence = 0;
        }
        // What an agent deleted was acknowledged, by a collector whose journal is lost, perhaps.
        let known = hold.progress.sequence;
        if registration.first_sequence > known + 1 {
            self.notices.gap(
                registration.switch.as_str(),
                known + 1,
                registration.first_sequence - 1,
            );
            hold.progress.sequence = registration.first_sequence - 1;
        }
        hold.connected(&registration.state.description, &registration.state.links);
        Ok(hold.progress.sequence + 1)
    }

    async fn flowsets(
        &self,
        switch: &SwitchName,
        mut session: Session,
        hold: &mut Hold,
        inbound: &mut Streaming<AgentMessage>,
        answers: &Answers,
    ) -> Result<(), Status> {
        let mut pace = Pace::new(self.options.switch_bytes_per_second_max);
        loop {
            let message = tokio::select! {
                message = inbound.message() => message?,
                () = hold.replaced() => return Err(replaced()),
            };
            let Some(message) = message else {
                return Ok(());
            };
            let source = |sequence| ReportSource::Agent {
                spool: hold.progress.spool,
                sequence,
            };
            let (sequence, reply) = match session.receive(message).map_err(misbehaved)? {
                None => continue,
                Some(SessionOutput::Registered(_)) => {
                    return Err(Status::invalid_argument("registered twice"));
                }
                Some(SessionOutput::Flowset { sequence, flowset }) => {
                    let bytes = flowset.as_bytes().len() as u64;
                    let epoch = flowset.header().epoch.number;
                    self.persist(hold, || self.take(&flowset, source(sequence)))
                        .await?;
                    hold.note_report(epoch, bytes, unix_now_ns());
                    let pause = pace.pause(Instant::now(), bytes);
                    if !pause.is_zero() {
                        self.metrics.stalled();
                        tokio::time::sleep(pause).await;
                    }
                    let acknowledged = Acknowledged { sequence };
                    (
                        sequence,
                        collector_message::Message::Acknowledged(acknowledged),
                    )
                }
                Some(SessionOutput::Rejected { sequence, reason }) => {
                    let text = reason.to_string();
                    self.persist(hold, || {
                        self.not_taken(
                            switch,
                            None,
                            source(sequence),
                            reason.outcome(),
                            text.clone(),
                        )
                    })
                    .await?;
                    hold.note_rejected();
                    let rejected = Rejected {
                        sequence,
                        reason: text,
                    };
                    (sequence, collector_message::Message::Rejected(rejected))
                }
                Some(SessionOutput::Skipped { sequence, reason }) => {
                    let text = format!("lost by the agent: {reason}");
                    self.persist(hold, || {
                        self.not_taken(
                            switch,
                            None,
                            source(sequence),
                            Outcome::Corrupt,
                            text.clone(),
                        )
                    })
                    .await?;
                    hold.note_rejected();
                    let acknowledged = Acknowledged { sequence };
                    (
                        sequence,
                        collector_message::Message::Acknowledged(acknowledged),
                    )
                }
            };
            hold.progress.sequence = sequence;
            answer(answers, reply).await?;
        }
    }

    async fn presence(&self, switch: &SwitchName, present: bool) {
        let presence = Presence {
            switch: switch.to_string(),
            present,
        };
        _ = self.grouping.give(GroupingInput::Presence(presence)).await;
    }
}

#[tonic::async_trait]
impl Collector for Ingest {
    type ShipStream = Pin<Box<dyn Stream<Item = Result<CollectorMessage, Status>> + Send>>;

    async fn ship(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::ShipStream>, Status> {
        let credentials = credentials(&request);
        let (answers, receiver) = mpsc::channel(self.options.window.max(1) as usize);
        // Not tied to the request: what is on its way into the journal is always handed on to grouping.
        tokio::spawn(
            self.clone()
                .serve(credentials, request.into_inner(), answers),
        );
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

fn credentials<T>(request: &Request<T>) -> Credentials {
    let certificates = request.peer_certs();
    let certificate_names = certificates
        .as_deref()
        .and_then(|certificates| certificates.first())
        .and_then(|certificate| webpki::EndEntityCert::try_from(certificate).ok())
        .map(|certificate| certificate.valid_dns_names().map(str::to_owned).collect())
        .unwrap_or_default();
    let token = request
        .metadata()
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .map(Secret::new);
    Credentials {
        certificate_names,
        token,
    }
}

async fn answer(answers: &Answers, message: collector_message::Message) -> Result<(), Status> {
    let message = CollectorMessage {
        message: Some(message),
    };
    answers
        .send(Ok(message))
        .await
        .map_err(|_| Status::cancelled("the agent is gone"))
}

fn misbehaved(error: super::SessionError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn replaced() -> Status {
    Status::aborted("another stream for this switch has come")
}

/// Slows a stream down to a rate, after a burst of one second.
#[derive(Clone, Copy, Debug)]
struct Pace {
    bytes_per_second: u64,
    allowance: f64,
    last: Option<Instant>,
}

impl Pace {
    fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second,
            allowance: bytes_per_second as f64,
            last: None,
        }
    }

    /// How long to wait after so many bytes.
    fn pause(&mut self, now: Instant, bytes: u64) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let rate = self.bytes_per_second as f64;
        let passed = self.last.map_or(0.0, |last| (now - last).as_secs_f64());
        self.last = Some(now);
        self.allowance = (self.allowance + passed * rate).min(rate) - bytes as f64;
        if self.allowance >= 0.0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(-self.allowance / rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_slowed_down_to_their_rate() {
        let begin = Instant::now();
        let mut now = begin;
        let mut pace = Pace::new(1_000);
        for _ in 0..100 {
            now += pace.pause(now, 500);
        }
        // 50,000 bytes, of which the first 1,000 are free.
        let seconds = (now - begin).as_secs_f64();
        assert!((48.0..50.0).contains(&seconds), "{seconds}");
        assert_eq!(Pace::new(0).pause(now, u64::MAX), Duration::ZERO);
    }
}
