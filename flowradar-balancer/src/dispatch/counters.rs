//! What the dispatcher counts.

/// Everything that a dispatcher counts.
///
/// `packets` is the sum of `tracked_packets`, `untracked_packets` and
/// `packets_without_back_end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DispatchCounters {
    /// IP packets offered.
    pub packets: u64,
    /// Their bytes, by their IP headers.
    pub ip_bytes: u64,
    /// Packets dispatched for a flow in the table.
    pub tracked_packets: u64,
    /// Packets dispatched by the hash of their flow, because the table had no room for it. Such
    /// flows stay together as long as no back end fails, comes back or is added.
    pub untracked_packets: u64,
    /// Packets that went nowhere because no back end was up.
    pub packets_without_back_end: u64,
    /// Flows that were put into the table.
    pub flows: u64,
    /// Of these: TCP flows whose first packet was none that begins a connection, so that earlier
    /// packets may have gone elsewhere: before the dispatcher began, or before a long silence.
    pub flows_from_their_middle: u64,
    /// Of these: given to a back end by hash, because the table was full not long ago and their
    /// earlier packets may have been untracked.
    pub flows_placed_by_hash: u64,
    /// Flows forgotten after their timeout.
    pub flows_expired: u64,
    /// TCP connections that ended by FINs or a RST.
    pub connections_closed: u64,
    /// Flows that moved because their back end failed or was taken away.
    pub flows_moved_by_failure: u64,
    /// Packets that went to another back end than the packet of their flow before, although that
    /// back end was up: 0, or there is a mistake in the dispatcher.
    pub affinity_breaks: u64,
    /// Fragments without ports.
    pub later_fragments: u64,
    /// Of these: seen before the first fragment of their datagram, and dispatched by addresses.
    pub fragments_before_their_first: u64,
    /// Datagrams of which such fragments went to another back end than the flow turned out to have.
    pub datagrams_split: u64,
    /// Datagrams forgotten for lack of room while their fragments could still come.
    pub datagrams_evicted: u64,
    /// Packets whose ports were not captured: dispatched by addresses.
    pub packets_with_ports_cut_off: u64,
    /// Round trips measured, from an initiator's last SYN to its first acknowledgement.
    pub round_trips: u64,
}
