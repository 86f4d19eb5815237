//! What is known of a flow's life: the state of its connection, and how long it may be silent.

use std::time::Duration;

use super::flow_id::Direction;
use super::packet::TcpFlags;

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMPV6: u8 = 58;

/// After how long a silence a flow is forgotten. A packet that comes later begins a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP, before the handshake is complete. Short, so that floods of SYNs do not fill the table.
    pub tcp_opening: Duration,
    /// TCP, established or seen from its middle on.
    pub tcp_established: Duration,
    /// TCP, after a FIN in one direction.
    pub tcp_closing: Duration,
    /// TCP, after FINs in both directions or a RST: for what is retransmitted.
    pub tcp_closed: Duration,
    /// UDP.
    pub udp: Duration,
    /// ICMP and ICMPv6.
    pub icmp: Duration,
    /// Any other protocol.
    pub other: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_opening: Duration::from_secs(20),
            tcp_established: Duration::from_secs(600),
            tcp_closing: Duration::from_secs(120),
            tcp_closed: Duration::from_secs(10),
            udp: Duration::from_secs(60),
            icmp: Duration::from_secs(30),
            other: Duration::from_secs(60),
        }
    }
}

impl Timeouts {
    /// The longest of them.
    pub fn longest(&self) -> Duration {
        self.tcp_opening
            .max(self.tcp_established)
            .max(self.tcp_closing)
            .max(self.tcp_closed)
            .max(self.udp)
            .max(self.icmp)
            .max(self.other)
    }
}

/// The state of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowState {
    /// TCP: a SYN was seen, the acknowledgement of its sender was not.
    Opening {
        /// Which way the SYN went: the initiator's.
        initiator: Direction,
    },
    /// TCP: established, or seen from its middle on.
    Established,
    /// TCP: a FIN was seen.
    Closing {
        /// Which way the FIN went.
        finished: Direction,
    },
    /// TCP: FINs in both directions, or a RST.
    Closed,
    /// A protocol without connections.
    Stateless,
}

/// What a packet tells about its flow besides the new state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowEvent {
    /// Nothing.
    None,
    /// The initiator sent a SYN, the first or again: its round trip begins.
    RoundTripBegins,
    /// The initiator sent its first acknowledgement: its round trip ends.
    RoundTripEnds,
    /// The connection is over.
    Closed,
    /// A new connection between the same ports, after the old one was over.
    Reopened,
}

impl FlowState {
    /// The state of a flow after its first packet, and whether that is how flows begin: a TCP flow
    /// that begins otherwise has earlier packets that were not seen, or were forgotten.
    pub fn first(protocol: u8, direction: Direction, flags: Option<TcpFlags>) -> (Self, bool) {
        if protocol != PROTOCOL_TCP {
            return (Self::Stateless, true);
        }
        match flags {
            Some(flags) if flags.rst() => (Self::Closed, false),
            Some(flags) if flags.syn() && flags.ack() => {
                let initiator = direction.reversed();
                (Self::Opening { initiator }, true)
            }
            Some(flags) if flags.syn() => {
                let initiator = direction;
                (Self::Opening { initiator }, true)
            }
            Some(flags) if flags.fin() => {
                let finished = direction;
                (Self::Closing { finished }, false)
            }
            _ => (Self::Established, false),
        }
    }

    /// The state after a packet, and what the packet means. Sequence numbers are not looked at.
    pub fn after(self, direction: Direction, flags: TcpFlags) -> (Self, FlowEvent) {
        if self == Self::Stateless {
            return (self, FlowEvent::None);
        }
        if flags.rst() {
            let event = if self == Self::Closed {
                FlowEvent::None
            } else {
                FlowEvent::Closed
            };
            return (Self::Closed, event);
        }
        if flags.syn() {
            return match self {
                Self::Closed if !flags.ack() => {
                    let initiator = direction;
                    (Self::Opening { initiator }, FlowEvent::Reopened)
                }
                Self::Opening { initiator } if !flags.ack() && initiator == direction => {
                    (self, FlowEvent::RoundTripBegins)
                }
                _ => (self, FlowEvent::None),
            };
        }
        // An acknowledgement may carry a FIN.
        let (state, event) = match self {
            Self::Opening { initiator } if initiator == direction && flags.ack() => {
                (Self::Established, FlowEvent::RoundTripEnds)
            }
            // The acknowledgement was lost, or takes another way.
            Self::Opening { initiator } if initiator != direction && !flags.fin() => {
                (self, FlowEvent::None)
            }
            Self::Opening { .. } => (Self::Established, FlowEvent::None),
            other => (other, FlowEvent::None),
        };
        if !flags.fin() {
            return (state, event);
        }
        match state {
            Self::Closing { finished } if finished != direction => {
                (Self::Closed, FlowEvent::Closed)
            }
            Self::Closing { .. } | Self::Closed => (state, event),
            _ => {
                let finished = direction;
                (Self::Closing { finished }, event)
            }
        }
    }

    /// How long a flow in this state may be silent.
    pub fn timeout(self, protocol: u8, timeouts: &Timeouts) -> Duration {
        match self {
            Self::Opening { .. } => timeouts.tcp_opening,
            Self::Established => timeouts.tcp_established,
            Self::Closing { .. } => timeouts.tcp_closing,
            Self::Closed => timeouts.tcp_closed,
            Self::Stateless => match protocol {
                PROTOCOL_UDP => timeouts.udp,
                PROTOCOL_ICMP | PROTOCOL_ICMPV6 => timeouts.icmp,
                _ => timeouts.other,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    const FIN: u8 = 0x01;
    const RST: u8 = 0x04;
    const THERE: Direction = Direction::Ascending;
    const BACK: Direction = Direction::Descending;

    /// States and events of a connection's packets, from its first.
    fn run(packets: &[(Direction, u8)]) -> Vec<(FlowState, FlowEvent)> {
        let (&(direction, bits), rest) = packets.split_first().expect("a packet");
        let flags = TcpFlags::from_bits(bits);
        let (mut state, _) = FlowState::first(PROTOCOL_TCP, direction, Some(flags));
        let mut seen = vec![(state, FlowEvent::None)];
        for &(direction, bits) in rest {
            let (next, event) = state.after(direction, TcpFlags::from_bits(bits));
            state = next;
            seen.push((state, event));
        }
        seen
    }

    #[test]
    fn a_connection_from_handshake_to_the_last_fin() {
        let opening = FlowState::Opening { initiator: THERE };
        assert_eq!(
            run(&[
                (THERE, SYN),
                (THERE, SYN),
                (BACK, SYN | ACK),
                (THERE, ACK),
                (BACK, ACK),
                (BACK, FIN | ACK),
                (THERE, ACK),
                (BACK, FIN | ACK),
                (THERE, FIN | ACK),
                (BACK, ACK),
                (BACK, SYN),
            ]),
            [
                (opening, FlowEvent::None),
                (opening, FlowEvent::RoundTripBegins),
                (opening, FlowEvent::None),
                (FlowState::Established, FlowEvent::RoundTripEnds),
                (FlowState::Established, FlowEvent::None),
                (FlowState::Closing { finished: BACK }, FlowEvent::None),
                (FlowState::Closing { finished: BACK }, FlowEvent::None),
                (FlowState::Closing { finished: BACK }, FlowEvent::None),
                (FlowState::Closed, FlowEvent::Closed),
                (FlowState::Closed, FlowEvent::None),
                (FlowState::Opening { initiator: BACK }, FlowEvent::Reopened),
            ]
        );
    }

    #[test]
    fn one_direction_alone_is_enough_for_the_round_trip() {
        // The paper's caller-to-callee flow: the answer takes another link.
        let seen = run(&[(THERE, SYN), (THERE, ACK)]);
        assert_eq!(seen[1], (FlowState::Established, FlowEvent::RoundTripEnds));
    }

    #[test]
    fn a_reset_ends_everything_once() {
        let seen = run(&[(THERE, SYN), (BACK, RST | ACK), (BACK, RST)]);
        assert_eq!(seen[1], (FlowState::Closed, FlowEvent::Closed));
        assert_eq!(seen[2], (FlowState::Closed, FlowEvent::None));
    }

    #[test]
    fn what_begins_in_the_middle_is_known_as_such() {
        let first = |bits| FlowState::first(PROTOCOL_TCP, THERE, Some(TcpFlags::from_bits(bits)));
        assert_eq!(first(ACK), (FlowState::Established, false));
        assert_eq!(first(RST), (FlowState::Closed, false));
        assert_eq!(
            first(SYN | ACK),
            (FlowState::Opening { initiator: BACK }, true)
        );
        assert_eq!(
            FlowState::first(PROTOCOL_UDP, THERE, None),
            (FlowState::Stateless, true)
        );
    }
}
