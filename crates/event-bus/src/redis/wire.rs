//! Envelopes and times as arguments and replies.

use std::collections::HashMap;

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

/// Appends an event's fields, in the order in which `append.lua` takes them.
pub(super) fn event(call: &mut Cmd, event: &Envelope) {
    call.arg(event.id.as_str())
        .arg(event.topic.as_str())
        .arg(&event.key)
        .arg(format!("{:08x}", Shards::hash(&event.key)))
        .arg(&event.source)
        .arg(&event.kind)
        .arg(event.time.as_nanos())
        .arg(&event.content_type)
        .arg(event.correlation.to_string())
        // None and empty are not the same.
        .arg(event.traceparent.as_ref().map_or(String::new(), |t| format!("={t}")))
        .arg(event.data.as_ref());
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
        let time = self.number("time").ok_or_else(|| InvalidValue::new("event", "field time is no number"))?;
        Ok(Envelope {
            id: EventId::new(self.text("id")?)?,
            topic: Topic::new(self.text("topic")?)?,
            key: self.text("key")?,
            source: self.text("source")?,
            kind: self.text("kind")?,
            time: Timestamp::from_nanos(time),
            content_type: self.text("type")?,
            correlation: self.text("correlation")?.parse()?,
            traceparent: self.text("trace")?.strip_prefix('=').map(str::to_owned),
            data: self.take("data")?.into(),
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
