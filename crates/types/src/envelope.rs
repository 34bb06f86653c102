//! An event on its way.

use std::{fmt, str::FromStr, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    context::{CorrelationId, ExecutionContext},
    error::InvalidValue,
    timestamp::Timestamp,
    traceparent::TraceParent,
};

/// Names one event for ever: publishing the same id twice is publishing once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventId(Arc<str>);

impl EventId {
    /// Takes an id that the cause of the event determines, so that a repeated publish is recognised.
    ///
    /// # Errors
    /// `InvalidValue` unless it is 1 to 128 bytes of printable ASCII.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidValue> {
        let text = text.as_ref();
        if text.is_empty() || text.len() > 128 || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(InvalidValue::new("event id", "must be 1 to 128 bytes of printable ASCII"));
        }
        Ok(Self(text.into()))
    }

    /// A new UUIDv7.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7().to_string().into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for EventId {
    type Error = InvalidValue;
    fn try_from(text: String) -> Result<Self, InvalidValue> {
        Self::new(text)
    }
}

impl From<EventId> for String {
    fn from(id: EventId) -> Self {
        id.0.as_ref().into()
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Where an event goes: segments divided by `:`, e.g. `prices:BTCUSDT`; 1 to 200 bytes of printable ASCII, no wildcard.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Topic(Arc<str>);

impl Topic {
    /// Checks and takes a topic.
    ///
    /// # Errors
    /// `InvalidValue` if it is empty, over 200 bytes, not printable ASCII, or holds `*`, `?` or `\`.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidValue> {
        let text = text.as_ref();
        if text.is_empty() || text.len() > 200 {
            return Err(InvalidValue::new("topic", format!("must be 1 to 200 bytes, is {}", text.len())));
        }
        match text.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '*' | '?' | '\\')) {
            Some(c) => Err(InvalidValue::new("topic", format!("may not hold {c:?}: wildcards belong in a pattern"))),
            None => Ok(Self(text.into())),
        }
    }

    /// The topic as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Topic {
    type Error = InvalidValue;
    fn try_from(text: String) -> Result<Self, InvalidValue> {
        Self::new(text)
    }
}

impl From<Topic> for String {
    fn from(topic: Topic) -> Self {
        topic.0.as_ref().into()
    }
}

impl FromStr for Topic {
    type Err = InvalidValue;
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Self::new(text)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// An event with the attributes of CloudEvents 1.0 (`id source type time subject datacontenttype data`) and of W3C Trace
/// Context (`traceparent`). `topic` and `key` route it; `correlation` ties it to logs and audit rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// CloudEvents `id`.
    pub id: EventId,
    /// Where it goes.
    pub topic: Topic,
    /// What keeps its order: events of equal key are handled in the order they were published (CloudEvents `subject`).
    pub key: String,
    /// Who sent it, e.g. `bot/bot_001` (CloudEvents `source`).
    pub source: String,
    /// What it is, e.g. `fill.v1` (CloudEvents `type`).
    pub kind: String,
    /// When it happened (CloudEvents `time`).
    pub time: Timestamp,
    /// The media type of `data` (CloudEvents `datacontenttype`).
    pub content_type: String,
    /// Ties it to its cause.
    pub correlation: CorrelationId,
    /// W3C `traceparent`, if the sender traces.
    pub traceparent: Option<String>,
    /// The payload, untouched.
    pub data: Bytes,
}

impl Envelope {
    /// An event with a new id, in the running task's correlation and trace. `data` is `application/json`.
    ///
    /// The order key is the topic; change any field before you publish.
    #[must_use]
    pub fn new(topic: Topic, kind: impl Into<String>, time: Timestamp, data: impl Into<Bytes>) -> Self {
        Self {
            id: EventId::generate(),
            key: topic.as_str().to_owned(),
            topic,
            source: String::new(),
            kind: kind.into(),
            time,
            content_type: "application/json".into(),
            correlation: ExecutionContext::current_correlation(),
            traceparent: ExecutionContext::current_traceparent().map(|t| t.to_string()),
            data: data.into(),
        }
    }

    /// Sets the id.
    #[must_use]
    pub fn with_id(mut self, id: EventId) -> Self {
        self.id = id;
        self
    }

    /// Sets the order key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = key.into();
        self
    }

    /// Sets the sender.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<String>) -> Self {
        self.source = source.into();
        self
    }

    /// Sets the correlation id.
    #[must_use]
    pub fn with_correlation(mut self, correlation: CorrelationId) -> Self {
        self.correlation = correlation;
        self
    }

    /// Sets the trace that the event belongs to.
    #[must_use]
    pub fn with_traceparent(mut self, traceparent: TraceParent) -> Self {
        self.traceparent = Some(traceparent.to_string());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_hold_no_wildcards() {
        for bad in ["", "prices:*", "a?b", "a\\b", "a b", "a\u{7f}", &"x".repeat(201)] {
            assert!(Topic::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Topic::new("prices:BTCUSDT").unwrap().as_str(), "prices:BTCUSDT");
    }

    #[test]
    fn an_envelope_survives_its_own_json() {
        let topic = Topic::new("fills:BTCUSDT").unwrap();
        let e = Envelope::new(topic, "fill.v1", Timestamp::from_millis(5), vec![0u8, 255, 10]).with_key("BTCUSDT");
        let text = serde_json::to_string(&e).unwrap();
        assert_eq!(serde_json::from_str::<Envelope>(&text).unwrap(), e);
    }
}
