//! The rows that travel in a batch and are carried on afterwards: what happened is told if and only if it happened.

use std::collections::BTreeMap;

use infra_state_store::{Key, Op};
use infra_types::{BotId, CorrelationId, Envelope, EventId, Execution, InstrumentId, Symbol, Timestamp, Topic, UserId};
use serde::{Deserialize, Serialize};

/// An audit event on its way to the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    /// Names it for ever: the same id is the same event. Printable ASCII without spaces.
    pub id: String,
    /// Its type, e.g. `ORDER_PLACED`.
    pub kind: String,
    /// When it happened.
    pub at: Timestamp,
    /// The person, if one.
    pub user: Option<UserId>,
    /// Ties it to logs and events.
    pub correlation: Option<CorrelationId>,
    /// Which bot.
    pub source: String,
    /// What it is about.
    pub resource: String,
    /// What was done to it.
    pub action: String,
    /// Which symbol, if one.
    pub symbol: Option<Symbol>,
    /// Everything else; decimals as text.
    pub details: BTreeMap<String, String>,
}

/// The two queues of one bot: what it tells the bus, and what it tells the audit log.
#[derive(Debug, Clone)]
pub struct Outbox {
    bot: BotId,
    events: Key,
    audit: Key,
    events_refused: Key,
    audit_refused: Key,
}

impl Outbox {
    /// The queues of `bot`.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a fixed word and a checked id form a valid key")]
    pub fn of(bot: &BotId) -> Self {
        let key = |what: &str| Key::record(format!("outbox/{what}/{bot}")).expect("a valid key");
        Self {
            bot: bot.clone(),
            events: key("events"),
            audit: key("audit"),
            events_refused: key("events_refused"),
            audit_refused: key("audit_refused"),
        }
    }

    pub(crate) fn events_queue(&self) -> &Key {
        &self.events
    }

    pub(crate) fn refused_queues(&self) -> [&Key; 2] {
        [&self.events_refused, &self.audit_refused]
    }

    pub(crate) fn audit_queue(&self) -> &Key {
        &self.audit
    }

    /// The operation that has `row` appended to the audit log once its batch is in. Of a long id the last 128 bytes count.
    ///
    /// # Panics
    /// If the row's id is empty or not printable ASCII without spaces.
    #[must_use]
    pub fn audit(&self, row: &AuditRow) -> Op {
        enqueue(&self.audit, "audit", &row.id, row)
    }

    /// The operation that has `envelope` published (at least once) once its batch is in.
    #[must_use]
    pub fn event(&self, envelope: &Envelope) -> Op {
        enqueue(&self.events, &envelope.key, envelope.id.as_str(), envelope)
    }

    /// Tells others what happened to an instrument.
    #[expect(clippy::expect_used, reason = "a fixed word and a checked symbol form a valid topic")]
    pub(crate) fn execution(&self, what: &str, instrument: &InstrumentId, execution: &Execution) -> Op {
        let topic = Topic::new(format!("{what}:{}", instrument.symbol)).expect("a valid topic");
        let data = serde_json::to_vec(execution).expect("an execution serialises");
        let id = event_id(&format!("{}.{}.{}.{what}", self.bot, execution.order, execution.id));
        let envelope = Envelope::new(topic, format!("{what}.v1"), execution.at, data)
            .with_id(id)
            .with_key(instrument.to_string())
            .with_source(format!("bot/{}", self.bot));
        self.event(&envelope)
    }
}

#[expect(clippy::expect_used, reason = "ids are made of checked ids, and the row types always serialise")]
fn enqueue(outbox: &Key, order_key: &str, id: &str, row: &impl Serialize) -> Op {
    let payload = serde_json::to_vec(row).expect("a row serialises").into();
    Op::Enqueue { outbox: outbox.clone(), order_key: order_key.to_owned(), id: event_id(id), payload }
}

/// What is too long keeps its end, where the counting part is.
#[expect(clippy::expect_used, reason = "ids are made of checked ids")]
fn event_id(text: &str) -> EventId {
    let end = text.get(text.len().saturating_sub(128)..).unwrap_or(text);
    EventId::new(end).expect("the id of a row must be printable ASCII without spaces")
}
