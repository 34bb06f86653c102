//! Envelopes and times as arguments and replies.

use std::io::Write;

use bytes::Bytes;
use infra_types::{Envelope, EventId, InvalidValue, Timestamp, Topic};
use redis::Value as Reply;

use crate::{
    BusError, DeadLetter,
    broker::{Append, Seq, Shards},
};

/// Events of one entry of the log; `lua/common.lua` knows it too.
pub(super) const ROW_MAX: usize = 64;

/// Microseconds, the scripts' measure: a double holds them exactly. Before 1970 nothing waits.
pub(super) fn floor_us(at: Timestamp) -> i64 {
    at.as_nanos().div_euclid(1_000).max(0)
}

/// Rounded up, for what must not come too early.
pub(super) fn ceil_us(at: Timestamp) -> i64 {
    at.as_nanos().saturating_add(999).div_euclid(1_000).max(0)
}

pub(super) fn from_us(us: i64) -> Timestamp {
    Timestamp::from_nanos(us.saturating_mul(1_000))
}

/// The lane of an event: its kind, 8 digits of its key's hash, and the key.
pub(super) fn lane(event: &Append) -> String {
    let key = &event.envelope.key;
    format!("{}{:08x}{key}", if event.is_priority { 'p' } else { 'n' }, Shards::hash(key))
}

/// What no script looks at, but for its beginning: netstrings (`LENGTH:TEXT,`) of time, id, topic and the other attributes, with the payload behind
/// them. The key is in the lane.
pub(super) fn body(event: &Envelope) -> Vec<u8> {
    let (time, correlation) = (event.time.as_nanos().to_string(), event.correlation.to_string());
    // None and empty are not the same.
    let trace = event.traceparent.as_ref().map_or(String::new(), |t| format!("={t}"));
    let (id, topic) = (event.id.as_str(), event.topic.as_str());
    let attributes = [&time, id, topic, &event.source, &event.kind, &event.content_type, &correlation, &trace];
    let size: usize = attributes.iter().map(|a| a.len() + 5).sum();
    let mut body = Vec::with_capacity(size + event.data.len());
    for attribute in attributes {
        // Writing to memory does not fail.
        let _ = write!(body, "{}:{attribute},", attribute.len());
    }
    body.extend_from_slice(&event.data);
    body
}

/// Takes the first netstring off.
fn attribute<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let colon = rest.iter().position(|b| *b == b':')?;
    let length: usize = std::str::from_utf8(&rest[..colon]).ok()?.parse().ok()?;
    let end = colon.checked_add(1)?.checked_add(length)?;
    if rest.get(end) != Some(&b',') {
        return None;
    }
    let text = std::str::from_utf8(&rest[colon + 1..end]).ok()?;
    *rest = &rest[end + 1..];
    Some(text)
}

/// What is stored of an event.
#[derive(Debug)]
pub(super) struct Stored {
    /// `NUMBERS;LANE`.
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Stored {
    pub(super) fn new(head: Option<Reply>, body: Option<Reply>) -> Result<Self, BusError> {
        Ok(Self { head: bytes(head)?, body: bytes(body)? })
    }

    pub(super) fn from_parts(head: &[u8], body: &[u8]) -> Self {
        Self { head: head.to_vec(), body: body.to_vec() }
    }

    /// What a claim got of an entry of the log: its events with their places.
    pub(super) fn entry(entry: Reply) -> Result<Vec<(Seq, Self)>, BusError> {
        let mut entry = array(Some(entry))?.into_iter();
        let id = text(entry.next())?;
        let (first, more) = id.split_once('-').ok_or_else(unreadable)?;
        let (first, more): (Seq, Seq) =
            (first.parse().map_err(|_| unreadable())?, more.parse().map_err(|_| unreadable())?);
        let mut fields = array(entry.next())?.into_iter();
        let (head, body) = (bytes(fields.next())?, bytes(fields.next())?);
        let meant = match entry.next() {
            low @ Some(_) => (unsigned(low)?, unsigned(entry.next())?),
            None => (first, first.saturating_add(more)),
        };
        Self::row((first, more), &head, &body, meant)
    }

    /// Those of a row's events that are meant: from the first to the last of these places.
    pub(super) fn row(
        (first, more): (Seq, u64),
        head: &[u8],
        body: &[u8],
        (low, high): (Seq, Seq),
    ) -> Result<Vec<(Seq, Self)>, BusError> {
        if more == 0 {
            return Ok(vec![(first, Self::from_parts(head, body))]);
        }
        let semicolon = head.iter().position(|b| *b == b';').ok_or_else(unreadable)?;
        let lanes = unpack(&head[semicolon + 1..]).ok_or_else(unreadable)?;
        let bodies = unpack(body).ok_or_else(unreadable)?;
        let skip = usize::try_from(low.saturating_sub(first)).map_err(|_| unreadable())?;
        let events = (low..=high).zip(lanes.into_iter().zip(bodies).skip(skip));
        Ok(events.map(|(seq, (lane, body))| (seq, Self { head: [b";", lane].concat(), body: body.to_vec() })).collect())
    }

    fn lane(&self) -> Option<&str> {
        let at = self.head.iter().position(|b| *b == b';')?;
        std::str::from_utf8(&self.head[at + 1..]).ok()
    }

    pub(super) fn is_priority(&self) -> bool {
        self.lane().is_some_and(|lane| lane.starts_with('p'))
    }

    /// The id and the topic, as far as they can be read.
    fn names(&self) -> (String, String) {
        let mut rest = self.body.as_slice();
        let mut next = || attribute(&mut rest).map(str::to_owned).unwrap_or_default();
        _ = next();
        (next(), next())
    }

    /// The event, or why it is none of ours.
    pub(super) fn envelope(self) -> Result<Envelope, InvalidValue> {
        if self.head.is_empty() {
            return Err(InvalidValue::new("event", "somebody else removed it from the log (XDEL, XTRIM)"));
        }
        let damaged = || InvalidValue::new("event", "what is stored of it is damaged");
        let key = self.lane().and_then(|lane| lane.get(9..)).ok_or_else(damaged)?.to_owned();
        let whole = Bytes::from(self.body);
        let mut rest = whole.as_ref();
        let mut next = || attribute(&mut rest).ok_or_else(damaged);
        let time = next()?.parse().map_err(|_| damaged())?;
        let (id, topic) = (EventId::new(next()?)?, Topic::new(next()?)?);
        let (source, kind, content_type, correlation, trace) = (next()?, next()?, next()?, next()?, next()?);
        Ok(Envelope {
            id,
            topic,
            key,
            source: source.to_owned(),
            kind: kind.to_owned(),
            time: Timestamp::from_nanos(time),
            content_type: content_type.to_owned(),
            correlation: correlation.parse()?,
            traceparent: trace.strip_prefix('=').map(str::to_owned),
            data: whole.slice(whole.len() - rest.len()..),
        })
    }
}

/// When the event happened, from the beginning of its body.
pub(super) fn time_of(body: &[u8]) -> Option<Timestamp> {
    attribute(&mut &*body)?.parse().ok().map(Timestamp::from_nanos)
}

/// A dead letter as `dead.lua` gives it.
pub(super) fn dead_letter(reply: Reply, group: &str) -> Result<DeadLetter, BusError> {
    let mut parts = array(Some(reply))?.into_iter();
    let (seq, error, attempts) = (unsigned(parts.next())?, bytes(parts.next())?, unsigned(parts.next())?);
    let at = text(parts.next())?.parse().map_err(|_| unreadable())?;
    let stored = Stored::new(parts.next(), parts.next())?;
    let (id, topic) = stored.names();
    Ok(DeadLetter {
        group: group.into(),
        seq,
        id,
        topic,
        envelope: stored.envelope().ok(),
        error: String::from_utf8_lossy(&error).into_owned(),
        attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
        at: Timestamp::from_nanos(at),
    })
}

/// Several texts in one, as the scripts unpack them (MessagePack: an array of strings, each with 32 bits of length).
pub(super) fn pack<T: AsRef<[u8]>>(texts: &[T]) -> Vec<u8> {
    let length = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes();
    let mut packed = Vec::with_capacity(5 + texts.iter().map(|t| t.as_ref().len() + 5).sum::<usize>());
    packed.push(0xdd);
    packed.extend_from_slice(&length(texts.len()));
    for text in texts {
        packed.push(0xdb);
        packed.extend_from_slice(&length(text.as_ref().len()));
        packed.extend_from_slice(text.as_ref());
    }
    packed
}

/// What [`pack`] made, apart again.
fn unpack(packed: &[u8]) -> Option<Vec<&[u8]>> {
    let word = |kind: u8, rest: &mut &[u8]| {
        let (head, behind) = rest.split_first_chunk::<5>()?;
        *rest = behind;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        (head[0] == kind).then_some(usize::try_from(length).ok()?)
    };
    let mut rest = packed;
    let count = word(0xdd, &mut rest)?;
    let mut texts = Vec::with_capacity(count.min(ROW_MAX));
    for _ in 0..count {
        let length = word(0xdb, &mut rest)?;
        let (text, behind) = rest.split_at_checked(length)?;
        texts.push(text);
        rest = behind;
    }
    Some(texts)
}

/// The first of the numbers that a script has packed; 0 if it is none.
pub(super) fn first_number(packed: &[u8]) -> u64 {
    let sized = |bytes: usize| packed.get(1..=bytes).map(|n| n.iter().fold(0, |all, byte| all << 8 | u64::from(*byte)));
    let number = match packed.first() {
        Some(small @ 0..=0x7f) => Some(u64::from(*small)),
        Some(0xcc) => sized(1),
        Some(0xcd) => sized(2),
        Some(0xce) => sized(4),
        Some(0xcf) => sized(8),
        _ => None,
    };
    number.unwrap_or(0)
}

/// A script's answer: its first word, and the rest.
pub(super) fn answer(reply: Reply) -> Result<(String, std::vec::IntoIter<Reply>), BusError> {
    if let Reply::Array(items) = reply {
        let mut items = items.into_iter();
        if let Some(Reply::BulkString(word)) = items.next() {
            return Ok((String::from_utf8_lossy(&word).into_owned(), items));
        }
    }
    Err(unreadable())
}

pub(super) fn unreadable() -> BusError {
    BusError::Ambiguous { reason: "the script gave an answer that is none of ours".into() }
}

pub(super) fn array(reply: Option<Reply>) -> Result<Vec<Reply>, BusError> {
    match reply {
        Some(Reply::Array(items)) => Ok(items),
        _ => Err(unreadable()),
    }
}

pub(super) fn int(reply: Option<Reply>) -> Result<i64, BusError> {
    match reply {
        Some(Reply::Int(n)) => Ok(n),
        _ => Err(unreadable()),
    }
}

pub(super) fn unsigned(reply: Option<Reply>) -> Result<u64, BusError> {
    u64::try_from(int(reply)?).map_err(|_| unreadable())
}

pub(super) fn bytes(reply: Option<Reply>) -> Result<Vec<u8>, BusError> {
    match reply {
        Some(Reply::BulkString(bytes)) => Ok(bytes),
        _ => Err(unreadable()),
    }
}

pub(super) fn text(reply: Option<Reply>) -> Result<String, BusError> {
    String::from_utf8(bytes(reply)?).map_err(|_| unreadable())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_told_and_never_panics() {
        for text in ["", ":", "1", "1:", "1:a", "2:a,", "1:é,", "18446744073709551615:a,", "-1:a,", "1:a;"] {
            assert_eq!(attribute(&mut text.as_bytes()), None, "{text}");
        }
        let mut two = "0:,3:a:b,rest".as_bytes();
        assert_eq!((attribute(&mut two), attribute(&mut two), two), (Some(""), Some("a:b"), &b"rest"[..]));
        for (head, body) in [
            ("", ""),
            (",1,", "x"),
            (";n", "x"),
            (",;n00000000k", "0:,0:,1:1,0:,0:,0:,0:,0:,"),
            (";n0000000é", "1:1,1:i,1:t,"),
        ] {
            let stored = Stored { head: head.into(), body: body.into() };
            _ = (stored.names(), stored.is_priority());
            assert!(stored.envelope().is_err(), "{head} {body}");
        }
        assert_eq!(
            (time_of(b"3:-12,"), time_of(b"1:x,"), time_of(b"")),
            (Some(Timestamp::from_nanos(-12)), None, None)
        );
    }
}
