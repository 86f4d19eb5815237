//! Why bytes are not what they claim to be.

/// A message that does not follow its format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at byte {offset} of the message")]
pub struct WireError {
    /// Place in the datagram.
    pub offset: usize,
    /// What is wrong there.
    pub reason: WireReason,
}

impl WireError {
    pub(crate) fn new(offset: usize, reason: WireReason) -> Self {
        Self { offset, reason }
    }
}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum WireReason {
    /// The datagram ends before the field does.
    #[error("datagram ends within a field")]
    Truncated,
    /// Not NetFlow v5, v9, IPFIX or sFlow v5.
    #[error("unknown version")]
    UnknownVersion,
    /// IPFIX: the length in the header is not that of a message in this datagram.
    #[error("message length does not fit the datagram")]
    MessageLength,
    /// NetFlow v5: more records announced than there are, or none.
    #[error("record count does not fit the datagram")]
    RecordCount,
    /// A set shorter than its own header, which would never end.
    #[error("set length below 4")]
    SetLength,
    /// A set longer than its message.
    #[error("set longer than the message")]
    SetBeyondMessage,
    /// A set id that no version defines.
    #[error("reserved set id")]
    ReservedSetId,
    /// A template with an id below 256.
    #[error("template id below 256")]
    TemplateId,
    /// A template record that its set cuts off.
    #[error("template record longer than its set")]
    TemplateBeyondSet,
    /// A template without fields, where that is not a withdrawal.
    #[error("template without fields")]
    NoFields,
    /// An options template whose scope is longer than all its fields.
    #[error("scope of an options template does not fit its fields")]
    Scope,
    /// A template whose records would have no bytes, without end.
    #[error("template of records without bytes")]
    EmptyRecord,
    /// A variable-length field that goes beyond its set.
    #[error("record longer than its set")]
    RecordBeyondSet,
    /// sFlow: an agent address that is neither IPv4 nor IPv6.
    #[error("unknown address type")]
    AddressType,
    /// sFlow: a sample longer than its datagram.
    #[error("sample longer than the datagram")]
    SampleBeyondDatagram,
}
