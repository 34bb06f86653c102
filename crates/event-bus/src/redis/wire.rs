//! Envelopes and times as arguments and replies.

use std::{collections::HashMap, io::Write};

use bytes::Bytes;
use infra_types::{Envelope, EventId, InvalidValue, Timestamp, Topic};
use redis::{Cmd, Value as Reply};

use crate::{BusError, DeadLetter, broker::Shards};

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

/// Appends an event's fields, in the order in which `append.lua` takes them. Few, because each costs time in the script: what no
/// script looks at is one, `rest`, of netstrings (`LENGTH:TEXT,`) with the payload behind them.
pub(super) fn event(call: &mut Cmd, event: &Envelope) {
    let (time, correlation) = (event.time.as_nanos().to_string(), event.correlation.to_string());
    // None and empty are not the same.
    let trace = event.traceparent.as_ref().map_or(String::new(), |t| format!("={t}"));
    let attributes = [&event.source, &event.kind, &time, &event.content_type, &correlation, &trace];
    let size: usize = attributes.iter().map(|a| a.len() + 5).sum();
    let mut rest = Vec::with_capacity(size + event.data.len());
    for attribute in attributes {
        // Writing to memory does not fail.
        let _ = write!(rest, "{}:{attribute},", attribute.len());
    }
    rest.extend_from_slice(&event.data);
    let lane = format!("{:08x}{}", Shards::hash(&event.key), event.key);
    call.arg(event.id.as_str()).arg(event.topic.as_str()).arg(lane).arg(rest);
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

/// The fields of an entry of a stream.
pub(super) struct Fields(HashMap<Vec<u8>, Vec<u8>>);

impl Fields {
    pub(super) fn new(reply: Reply) -> Self {
        let mut fields = HashMap::new();
        if let Reply::Array(items) = reply {
            let mut items = items.into_iter();
            while let (Some(Reply::BulkString(name)), Some(Reply::BulkString(value))) = (items.next(), items.next()) {
                fields.insert(name, value);
            }
        }
        Self(fields)
    }

    /// A field as text; what is no text shows as such.
    fn lossy(&self, name: &str) -> String {
        self.0.get(name.as_bytes()).map(|v| String::from_utf8_lossy(v).into_owned()).unwrap_or_default()
    }

    fn take(&mut self, name: &'static str) -> Result<Vec<u8>, InvalidValue> {
        self.0.remove(name.as_bytes()).ok_or_else(|| InvalidValue::new("event", format!("has no field {name}")))
    }

    fn text(&mut self, name: &'static str) -> Result<String, InvalidValue> {
        let bytes = self.take(name)?;
        String::from_utf8(bytes).map_err(|_| InvalidValue::new("event", format!("field {name} is no text")))
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.lossy(name).parse().ok()
    }

    /// The event, or why it is none of ours.
    pub(super) fn envelope(mut self) -> Result<Envelope, InvalidValue> {
        if self.0.is_empty() {
            return Err(InvalidValue::new("event", "somebody else removed it from the log (XDEL, XTRIM)"));
        }
        let whole = Bytes::from(self.take("rest")?);
        let mut rest = whole.as_ref();
        let damaged = || InvalidValue::new("event", "field rest is damaged");
        let mut next = || attribute(&mut rest).ok_or_else(damaged);
        let (source, kind, time) = (next()?, next()?, next()?.parse().map_err(|_| damaged())?);
        let (content_type, correlation, trace) = (next()?, next()?, next()?);
        Ok(Envelope {
            id: EventId::new(self.text("id")?)?,
            topic: Topic::new(self.text("topic")?)?,
            key: self.text("lane")?.get(8..).ok_or_else(damaged)?.to_owned(),
            source: source.to_owned(),
            kind: kind.to_owned(),
            time: Timestamp::from_nanos(time),
            content_type: content_type.to_owned(),
            correlation: correlation.parse()?,
            traceparent: trace.strip_prefix('=').map(str::to_owned),
            data: whole.slice(whole.len() - rest.len()..),
        })
    }

    pub(super) fn dead_letter(self, group: &str) -> Option<DeadLetter> {
        Some(DeadLetter {
            group: group.into(),
            seq: self.number("seq")?,
            id: self.lossy("id"),
            topic: self.lossy("topic"),
            error: self.lossy("error"),
            attempts: self.number("attempts")?,
            at: Timestamp::from_nanos(self.number("at")?),
            envelope: self.envelope().ok(),
        })
    }
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

pub(super) fn text(reply: Option<Reply>) -> Result<String, BusError> {
    match reply {
        Some(Reply::BulkString(bytes)) => String::from_utf8(bytes).map_err(|_| unreadable()),
        _ => Err(unreadable()),
    }
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
        let fields = |names: &[(&str, &str)]| {
            Fields(names.iter().map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())).collect())
        };
        for bad in [
            &[][..],
            &[("rest", "x")],
            &[("id", "a"), ("topic", "t"), ("lane", "short"), ("rest", "0:,0:,1:1,0:,0:,0:,")],
        ] {
            assert!(fields(bad).envelope().is_err(), "{bad:?}");
        }
    }
}
