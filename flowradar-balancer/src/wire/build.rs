//! Messages made of parts of others.

use super::{Header, Protocol};

/// Builds a message behind the header of another, so that export time, uptime, domain and sampling
/// stay the exporter's. Its buffer is used again and again.
#[derive(Clone, Debug, Default)]
pub struct MessageBuilder {
    bytes: Vec<u8>,
    protocol: Option<Protocol>,
    sequence_offset: usize,
    /// Where the open set begins, its id, and the shortest record that it could hold.
    open_set: Option<(usize, u16, usize)>,
    /// Records of all kinds, or samples.
    count: u32,
    /// Padding that may still be added: a message made of parts of another must not outgrow UDP.
    padding_left: usize,
    /// What the sequence number of the next message counts on by.
    units: u32,
}

/// Messages are not padded beyond this.
const LONGEST_PADDED: usize = 65_000;

impl MessageBuilder {
    /// Begins a message like the one that this header was read from.
    pub fn begin(&mut self, like: &[u8], header: &Header) {
        self.bytes.clear();
        self.bytes
            .extend_from_slice(like.get(..header.body_offset).unwrap_or(like));
        self.protocol = Some(header.protocol);
        self.sequence_offset = header.sequence_offset;
        self.open_set = None;
        self.padding_left = LONGEST_PADDED.saturating_sub(like.len());
        self.count = 0;
        self.units = 0;
    }

    /// Whether nothing was put behind the header.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// How far the sequence numbers advance with this message.
    pub fn units(&self) -> u32 {
        match self.protocol {
            Some(Protocol::NetflowV9 | Protocol::Sflow) => 1,
            _ => self.units,
        }
    }

    /// Appends a whole set with so many records of which so many are data.
    pub fn push_set(&mut self, raw: &[u8], records: u32, data_records: u32) {
        self.close_set();
        self.bytes.extend_from_slice(raw);
        self.count += records;
        self.units += data_records;
    }

    /// Appends a record of a template or data set with this id; opens and closes sets as needed.
    /// `shortest` is the least length that records of this set can have.
    pub fn push_record(&mut self, set_id: u16, record: &[u8], is_data: bool, shortest: usize) {
        if self.open_set.is_none_or(|(_, id, _)| id != set_id) {
            self.close_set();
            self.open_set = Some((self.bytes.len(), set_id, shortest));
            self.bytes.extend_from_slice(&set_id.to_be_bytes());
            self.bytes.extend_from_slice(&[0, 0]);
        }
        self.bytes.extend_from_slice(record);
        self.count += 1;
        self.units += u32::from(is_data);
    }

    /// Appends a NetFlow v5 record or an sFlow sample.
    pub fn push_plain(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.count += 1;
        self.units += 1;
    }

    /// Ends the message with this sequence number.
    pub fn finish(&mut self, sequence: u32) -> &[u8] {
        self.close_set();
        let low = (self.count as u16).to_be_bytes();
        match self.protocol {
            Some(Protocol::NetflowV5 | Protocol::NetflowV9) => self.patch(2, &low),
            Some(Protocol::Ipfix) => {
                let length = (self.bytes.len() as u16).to_be_bytes();
                self.patch(2, &length);
            }
            Some(Protocol::Sflow) => {
                let count = self.count.to_be_bytes();
                self.patch(self.sequence_offset + 8, &count);
            }
            None => {}
        }
        self.patch(self.sequence_offset, &sequence.to_be_bytes());
        &self.bytes
    }

    /// Pads the open set to a multiple of four, unless padding could be taken for a record, and
    /// writes its length. RFC 3954 asks for it, and nfcapd loses records without.
    fn close_set(&mut self) {
        let Some((start, _, shortest)) = self.open_set.take() else {
            return;
        };
        let unpadded = self.bytes.len() - start;
        let padding = unpadded.next_multiple_of(4) - unpadded;
        if padding < shortest && padding <= self.padding_left {
            self.padding_left -= padding;
            self.bytes.resize(self.bytes.len() + padding, 0);
        }
        // A message is made of parts of one datagram, whose length fits 16 bits.
        let length = (self.bytes.len() - start) as u16;
        self.patch(start + 2, &length.to_be_bytes());
    }

    fn patch(&mut self, offset: usize, value: &[u8]) {
        if let Some(place) = self.bytes.get_mut(offset..offset + value.len()) {
            place.copy_from_slice(value);
        }
    }
}
