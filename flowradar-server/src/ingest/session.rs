//! An agent's stream, message by message. No I/O.

use flowradar_core::Flowset;
use flowradar_core::flowset::{FlowsetError, SwitchName};

use super::PROTOCOL_VERSION;
use super::proto::{AgentMessage, FlowsetChunk, FlowsetStart, Register, Skip, agent_message};
use crate::journal::{Link, SwitchState};

/// Ports of a switch at most.
const LINKS_MAX: usize = 4096;
/// Bytes of an agent's description or reason at most.
const TEXT_BYTES_MAX: usize = 4096;

/// Limits of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Largest flowset.
    pub flowset_bytes_max: u64,
}

/// What an agent says of its switch.
#[derive(Clone, Debug, PartialEq)]
pub struct Registration {
    /// The switch.
    pub switch: SwitchName,
    /// The lowest number in the agent's spool.
    pub first_sequence: u64,
    /// The spool, and what the switch is like.
    pub state: SwitchState,
}

/// What a message amounts to.
#[derive(Debug)]
pub enum SessionOutput {
    /// The first message.
    Registered(Registration),
    /// A flowset is complete and valid.
    Flowset {
        /// Its number.
        sequence: u64,
        /// It.
        flowset: Flowset<Vec<u8>>,
    },
    /// A flowset is complete and cannot be taken.
    Rejected {
        /// Its number.
        sequence: u64,
        /// Why.
        reason: RejectReason,
    },
    /// The agent has lost a flowset.
    Skipped {
        /// Its number.
        sequence: u64,
        /// Why, in the agent's words.
        reason: String,
    },
}

/// Why a flowset is never taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RejectReason {
    /// It is no flowset.
    #[error("{0}")]
    Corrupt(#[from] FlowsetError),
    /// It is of another switch.
    #[error("a flowset of switch {found}, but the agent registered {registered}")]
    Foreign {
        /// Switch in the flowset.
        found: SwitchName,
        /// Switch of the stream.
        registered: SwitchName,
    },
    /// It is too large.
    #[error("{bytes} bytes: {bytes_max} are the most that is taken ([ingest] flowset_bytes_max)")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
}

/// Why a stream is ended. The agent does not keep to the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// A chunk belongs to no flowset, or is more than was said.
    #[error("a chunk of {0} bytes that no flowset begun has room for")]
    Chunk(usize),
    /// A message without contents.
    #[error("an empty message: a newer agent?")]
    Empty,
    /// The first message is another than Register, or a later one is Register.
    #[error("Register must be the first message, and only the first")]
    Register,
    /// A field of Register makes no sense.
    #[error("Register: {0}")]
    RegisterField(String),
    /// Another number than the next.
    #[error("number {found} where {expected} is next")]
    Sequence {
        /// The next number.
        expected: u64,
        /// The number sent.
        found: u64,
    },
    /// A flowset begins before the last one is complete.
    #[error("flowset {0} is not complete, and another message begins")]
    Unfinished(u64),
    /// Another version of the protocol.
    #[error("version {0} of the protocol: this collector speaks version {PROTOCOL_VERSION}")]
    Version(u32),
}

/// An agent's stream.
#[derive(Debug)]
pub struct Session {
    limits: SessionLimits,
    switch: Option<SwitchName>,
    next_sequence: u64,
    partial: Option<Partial>,
}

#[derive(Debug)]
struct Partial {
    sequence: u64,
    bytes: u64,
    /// What came of it; nothing if it is too large to be taken.
    received: Vec<u8>,
    received_bytes: u64,
}

impl Session {
    /// A stream that begins.
    pub fn new(limits: SessionLimits) -> Self {
        Self {
            limits,
            switch: None,
            next_sequence: 0,
            partial: None,
        }
    }

    /// Says which number comes first, after the registration.
    pub fn expect(&mut self, next_sequence: u64) {
        self.next_sequence = next_sequence;
    }

    /// Takes a message.
    ///
    /// Memory grows with what has arrived, not with what is announced.
    ///
    /// # Errors
    /// If it is not what the protocol has at this point.
    pub fn receive(
        &mut self,
        message: AgentMessage,
    ) -> Result<Option<SessionOutput>, SessionError> {
        let message = message.message.ok_or(SessionError::Empty)?;
        let Some(switch) = &self.switch else {
            let agent_message::Message::Register(register) = message else {
                return Err(SessionError::Register);
            };
            let registration = registration(register)?;
            self.switch = Some(registration.switch.clone());
            return Ok(Some(SessionOutput::Registered(registration)));
        };
        match message {
            agent_message::Message::Register(_) => Err(SessionError::Register),
            agent_message::Message::Start(start) => self.start(start),
            agent_message::Message::Chunk(chunk) => {
                let switch = switch.clone();
                self.chunk(&chunk, switch)
            }
            agent_message::Message::Skip(skip) => self.skip(skip).map(Some),
        }
    }

    fn start(&mut self, start: FlowsetStart) -> Result<Option<SessionOutput>, SessionError> {
        self.take_sequence(start.sequence)?;
        self.partial = Some(Partial {
            sequence: start.sequence,
            bytes: start.bytes,
            received: vec![],
            received_bytes: 0,
        });
        if start.bytes > 0 {
            return Ok(None);
        }
        self.partial = None;
        let reason = Flowset::new_checked(&[][..])
            .err()
            .map(RejectReason::Corrupt);
        Ok(reason.map(|reason| SessionOutput::Rejected {
            sequence: start.sequence,
            reason,
        }))
    }

    fn chunk(
        &mut self,
        chunk: &FlowsetChunk,
        switch: SwitchName,
    ) -> Result<Option<SessionOutput>, SessionError> {
        let too_much = SessionError::Chunk(chunk.bytes.len());
        let Some(partial) = &mut self.partial else {
            return Err(too_much);
        };
        partial.received_bytes += chunk.bytes.len() as u64;
        if partial.received_bytes > partial.bytes {
            return Err(too_much);
        }
        let bytes_max = self.limits.flowset_bytes_max;
        if partial.bytes <= bytes_max {
            partial.received.extend_from_slice(&chunk.bytes);
        }
        if partial.received_bytes < partial.bytes {
            return Ok(None);
        }
        let Some(Partial {
            sequence,
            bytes,
            received,
            ..
        }) = self.partial.take()
        else {
            return Ok(None);
        };
        let output = if bytes > bytes_max {
            Err(RejectReason::TooLarge { bytes, bytes_max })
        } else {
            checked(received, switch)
        };
        Ok(Some(match output {
            Ok(flowset) => SessionOutput::Flowset { sequence, flowset },
            Err(reason) => SessionOutput::Rejected { sequence, reason },
        }))
    }

    fn skip(&mut self, skip: Skip) -> Result<SessionOutput, SessionError> {
        self.take_sequence(skip.sequence)?;
        Ok(SessionOutput::Skipped {
            sequence: skip.sequence,
            reason: limited(skip.reason),
        })
    }

    fn take_sequence(&mut self, found: u64) -> Result<(), SessionError> {
        if let Some(partial) = &self.partial {
            return Err(SessionError::Unfinished(partial.sequence));
        }
        let expected = self.next_sequence;
        if found != expected {
            return Err(SessionError::Sequence { expected, found });
        }
        self.next_sequence += 1;
        Ok(())
    }
}

impl RejectReason {
    /// What became of the report, as counted.
    pub(super) fn outcome(&self) -> crate::epoch::Outcome {
        match self {
            Self::Corrupt(_) | Self::TooLarge { .. } => crate::epoch::Outcome::Corrupt,
            Self::Foreign { .. } => crate::epoch::Outcome::Foreign,
        }
    }
}

fn checked(bytes: Vec<u8>, registered: SwitchName) -> Result<Flowset<Vec<u8>>, RejectReason> {
    let flowset = Flowset::new_checked(bytes)?;
    let found = &flowset.header().switch;
    if *found == registered {
        Ok(flowset)
    } else {
        Err(RejectReason::Foreign {
            found: found.clone(),
            registered,
        })
    }
}

fn registration(register: Register) -> Result<Registration, SessionError> {
    if register.version != PROTOCOL_VERSION {
        return Err(SessionError::Version(register.version));
    }
    let field = |message: String| SessionError::RegisterField(message);
    let switch = register
        .switch
        .parse()
        .map_err(|error| field(format!("switch: {error}")))?;
    if register.links.len() > LINKS_MAX {
        let found = register.links.len();
        return Err(field(format!("{found} links: {LINKS_MAX} are the most")));
    }
    if register.first_sequence == 0 {
        return Err(field("numbers begin with 1".into()));
    }
    let links = register.links.into_iter().map(|link| Link {
        port: link.port,
        neighbor: limited(link.neighbor),
        neighbor_port: link.neighbor_port,
    });
    Ok(Registration {
        switch,
        first_sequence: register.first_sequence,
        state: SwitchState {
            spool: register.spool,
            sequence: 0,
            description: limited(register.description),
            links: links.collect(),
        },
    })
}

/// A text from outside, cut to its largest length.
fn limited(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    }
    text
}

#[cfg(test)]
mod tests {
    use flowradar_core::flowset::Epoch;
    use flowradar_core::plan::PlanRequest;
    use flowradar_core::{Encoder, FlowKeyV4};
    use proptest::prelude::*;

    use super::*;

    fn message(message: agent_message::Message) -> AgentMessage {
        AgentMessage {
            message: Some(message),
        }
    }

    fn register(switch: &str) -> AgentMessage {
        message(agent_message::Message::Register(Register {
            version: 1,
            switch: switch.into(),
            spool: 5,
            first_sequence: 3,
            ..Register::default()
        }))
    }

    fn start(sequence: u64, bytes: usize) -> AgentMessage {
        let bytes = bytes as u64;
        message(agent_message::Message::Start(FlowsetStart {
            sequence,
            bytes,
        }))
    }

    fn chunk(bytes: &[u8]) -> AgentMessage {
        message(agent_message::Message::Chunk(FlowsetChunk {
            bytes: bytes.to_vec().into(),
        }))
    }

    fn flowset(switch: &str) -> Vec<u8> {
        let layout = PlanRequest::flows(10).plan().expect("a plan").layout;
        let name = switch.parse().expect("a switch name");
        let mut encoder =
            Encoder::<FlowKeyV4>::new(name, layout, Epoch::number(0)).expect("an encoder");
        let sealed = encoder.end_epoch(Epoch::number(1)).expect("an epoch");
        sealed.to_flowset()
    }

    /// A stream of switch `s`, where number 3 is next.
    fn session() -> Session {
        let mut session = Session::new(SessionLimits {
            flowset_bytes_max: 100_000,
        });
        let output = session.receive(register("s")).expect("a registration");
        assert!(matches!(output, Some(SessionOutput::Registered(_))));
        session.expect(3);
        session
    }

    fn rejected(output: Option<SessionOutput>) -> RejectReason {
        match output {
            Some(SessionOutput::Rejected { reason, .. }) => reason,
            other => panic!("{other:?} instead of a rejection"),
        }
    }

    #[test]
    fn flowsets_come_in_chunks_and_in_order() {
        let mut session = session();
        let bytes = flowset("s");
        assert!(
            session
                .receive(start(3, bytes.len()))
                .expect("in order")
                .is_none()
        );
        let (first, second) = bytes.split_at(100);
        assert!(session.receive(chunk(first)).expect("fits").is_none());
        let output = session.receive(chunk(second)).expect("fits");
        let Some(SessionOutput::Flowset {
            sequence: 3,
            flowset,
        }) = output
        else {
            panic!("{output:?}");
        };
        assert_eq!(flowset.as_bytes(), bytes);
        assert_eq!(
            session.receive(start(5, 1)).err(),
            Some(SessionError::Sequence {
                expected: 4,
                found: 5
            })
        );
    }

    #[test]
    fn what_is_no_flowset_of_the_switch_is_rejected_and_the_stream_goes_on() {
        let mut session = session();
        let foreign = flowset("other");
        let mut damaged = flowset("s");
        let last = damaged.len() - 20;
        damaged[last] ^= 1;
        for (sequence, bytes) in [(3, &foreign), (4, &damaged)] {
            session
                .receive(start(sequence, bytes.len()))
                .expect("in order");
            let reason = rejected(session.receive(chunk(bytes)).expect("fits"));
            assert_eq!(
                matches!(reason, RejectReason::Foreign { .. }),
                sequence == 3
            );
        }
        assert!(matches!(
            rejected(session.receive(start(5, 0)).expect("in order")),
            RejectReason::Corrupt(_)
        ));
        // Too large: passes by without being kept.
        session.receive(start(6, 200_000)).expect("in order");
        session.receive(chunk(&[0; 150_000])).expect("fits");
        assert!(
            session
                .partial
                .as_ref()
                .is_some_and(|partial| partial.received.is_empty())
        );
        assert_eq!(
            rejected(session.receive(chunk(&[0; 50_000])).expect("fits")),
            RejectReason::TooLarge {
                bytes: 200_000,
                bytes_max: 100_000
            }
        );
    }

    #[test]
    fn messages_out_of_place_end_the_stream() {
        let mut unregistered = Session::new(SessionLimits {
            flowset_bytes_max: 10,
        });
        assert_eq!(
            unregistered.receive(start(1, 1)).err(),
            Some(SessionError::Register)
        );
        assert_eq!(
            session().receive(register("s")).err(),
            Some(SessionError::Register)
        );
        assert_eq!(
            session().receive(chunk(&[1])).err(),
            Some(SessionError::Chunk(1))
        );
        let mut begun = session();
        begun.receive(start(3, 2)).expect("in order");
        assert_eq!(
            begun.receive(start(4, 2)).err(),
            Some(SessionError::Unfinished(3))
        );
        assert_eq!(
            begun.receive(chunk(&[1, 2, 3])).err(),
            Some(SessionError::Chunk(3))
        );
        let version = Register {
            version: 2,
            switch: "s".into(),
            ..Register::default()
        };
        let mut session = Session::new(SessionLimits {
            flowset_bytes_max: 10,
        });
        assert_eq!(
            session
                .receive(message(agent_message::Message::Register(version)))
                .err(),
            Some(SessionError::Version(2))
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_messages_or_errors(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut session = session();
            if let Ok(message) = <AgentMessage as prost::Message>::decode(&bytes[..]) {
                _ = session.receive(message);
            }
        }
    }
}
