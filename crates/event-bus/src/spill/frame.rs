//! One event as bytes on disk.
//!
//! A frame is a head of 24 bytes (mark, length of the body, number, checksum of the body, checksum of the head) and a body. All numbers
//! are little-endian; checksums are CRC-32. Numbers count up by one, also across the emptying of the file, so that what is older
//! than it seems is recognised.

use bytes::{Buf, BufMut, Bytes};
use infra_types::{CorrelationId, Envelope, EventId, Timestamp, Topic};

/// Bytes of a head.
pub(super) const HEAD: usize = 24;
const MARK: [u8; 4] = *b"EVNT";

const HAS_DUE: u8 = 1;
const HAS_TRACEPARENT: u8 = 2;
const IS_URGENT: u8 = 4;

/// An event that waits in the log.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    pub(super) number: u64,
    /// Bytes of its frame.
    pub(super) size: u64,
    /// When it may be seen first; none: at once.
    pub(super) due: Option<Timestamp>,
    pub(super) event: Envelope,
}

/// A frame that has no number yet.
#[derive(Debug)]
pub(super) struct Frame(Vec<u8>);

impl Frame {
    /// An urgent one goes to the store before the others.
    pub(super) fn new(event: &Envelope, due: Option<Timestamp>, is_urgent: bool) -> Self {
        let texts =
            [event.id.as_str(), event.topic.as_str(), &event.key, &event.source, &event.kind, &event.content_type];
        let texts = || texts.into_iter().chain(event.traceparent.as_deref());
        let size = HEAD + 33 + texts().map(|t| t.len() + 4).sum::<usize>() + event.data.len();
        let mut out = Vec::with_capacity(size);
        out.resize(HEAD, 0);
        let due_flag = if due.is_some() { HAS_DUE } else { 0 };
        let trace_flag = if event.traceparent.is_some() { HAS_TRACEPARENT } else { 0 };
        out.put_u8(due_flag | trace_flag | if is_urgent { IS_URGENT } else { 0 });
        if let Some(due) = due {
            out.put_i64_le(due.as_nanos());
        }
        out.put_i64_le(event.time.as_nanos());
        out.put_u128_le(event.correlation.as_u128());
        for text in texts() {
            // Attributes are bounded by the bus's limits, far below 4 GiB.
            out.put_u32_le(text.len() as u32);
            out.put_slice(text.as_bytes());
        }
        out.put_slice(&event.data);
        Self(out)
    }

    pub(super) fn is_urgent(&self) -> bool {
        is_urgent(&self.0[HEAD..])
    }

    /// Whether its length can be said in the head.
    pub(super) fn fits(&self) -> bool {
        u32::try_from(self.0.len()).is_ok()
    }

    pub(super) fn size(&self) -> u64 {
        self.0.len() as u64
    }

    /// Gives it its number; what is to be written.
    pub(super) fn numbered(&mut self, number: u64) -> &[u8] {
        let body = &self.0[HEAD..];
        let (length, checksum) = (body.len() as u32, crc32fast::hash(body));
        let mut head = &mut self.0[..HEAD];
        head.put_slice(&MARK);
        head.put_u32_le(length);
        head.put_u64_le(number);
        head.put_u32_le(checksum);
        let checksum = crc32fast::hash(&self.0[..HEAD - 4]);
        self.0[HEAD - 4..HEAD].copy_from_slice(&checksum.to_le_bytes());
        &self.0
    }
}

/// Whether this is the body of an urgent one.
pub(super) fn is_urgent(body: &[u8]) -> bool {
    body.first().is_some_and(|flags| flags & IS_URGENT != 0)
}

/// What a head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: u32,
    pub(super) number: u64,
    checksum: u32,
}

impl Head {
    /// None unless it is whole.
    pub(super) fn read(bytes: &[u8; HEAD]) -> Option<Self> {
        let mut rest = &bytes[..];
        let mut mark = [0; 4];
        rest.copy_to_slice(&mut mark);
        let head = Self { length: rest.get_u32_le(), number: rest.get_u64_le(), checksum: rest.get_u32_le() };
        (mark == MARK && rest.get_u32_le() == crc32fast::hash(&bytes[..HEAD - 4])).then_some(head)
    }

    /// Bytes of the whole frame.
    pub(super) fn size(&self) -> u64 {
        HEAD as u64 + u64::from(self.length)
    }

    /// Whether this is the body that belongs to it.
    pub(super) fn matches(&self, body: &[u8]) -> bool {
        body.len() as u64 == u64::from(self.length) && crc32fast::hash(body) == self.checksum
    }

    /// The event in a body that matches; why not, if it is none.
    pub(super) fn record(&self, mut body: Bytes) -> Result<Record, String> {
        let cut = |_| "an event ends too early".to_owned();
        let flags = body.try_get_u8().map_err(cut)?;
        let due = if flags & HAS_DUE == 0 { None } else { Some(body.try_get_i64_le().map_err(cut)?) };
        let time = Timestamp::from_nanos(body.try_get_i64_le().map_err(cut)?);
        let correlation = CorrelationId::from_u128(body.try_get_u128_le().map_err(cut)?);
        let mut text = || {
            let length = body.try_get_u32_le().map_err(cut)? as usize;
            if body.len() < length {
                return Err("an attribute is longer than its event".to_owned());
            }
            String::from_utf8(body.split_to(length).into()).map_err(|e| e.to_string())
        };
        let id = EventId::new(text()?).map_err(|e| e.to_string())?;
        let topic = Topic::new(text()?).map_err(|e| e.to_string())?;
        let (key, source, kind, content_type) = (text()?, text()?, text()?, text()?);
        let traceparent = if flags & HAS_TRACEPARENT == 0 { None } else { Some(text()?) };
        let event = Envelope { id, topic, key, source, kind, time, content_type, correlation, traceparent, data: body };
        Ok(Record { number: self.number, size: self.size(), due: due.map(Timestamp::from_nanos), event })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Option<Record> {
        let head = Head::read(bytes[..HEAD].try_into().unwrap())?;
        head.matches(&bytes[HEAD..]).then(|| head.record(Bytes::copy_from_slice(&bytes[HEAD..])).unwrap())
    }

    proptest! {
        #[test]
        fn every_event_comes_back_and_no_flipped_bit_goes_unseen(
            id in "[!-~]{1,128}", topic in "[a-z:]{1,60}", key: String, source: String, kind: String, content_type: String,
            nanos: i64, correlation: u128, traceparent in proptest::option::of(".{0,60}"), due in proptest::option::of(any::<i64>()),
            data in proptest::collection::vec(any::<u8>(), 0..200), number: u64, is_urgent: bool, at: prop::sample::Index, bit in 0u8..8,
        ) {
            let event = Envelope {
                id: EventId::new(id).unwrap(),
                topic: Topic::new(topic).unwrap(),
                key, source, kind,
                time: Timestamp::from_nanos(nanos),
                content_type,
                correlation: CorrelationId::from_u128(correlation),
                traceparent,
                data: data.into(),
            };
            let due = due.map(Timestamp::from_nanos);
            let mut frame = Frame::new(&event, due, is_urgent);
            let size = frame.size();
            prop_assert_eq!(frame.is_urgent(), is_urgent);
            let mut bytes = frame.numbered(number).to_vec();
            prop_assert_eq!(read(&bytes), Some(Record { number, size, due, event }));
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(read(&bytes), None);
        }
    }
}
