//! Carries outbox rows on: reads the oldest, hands them over, forgets them. A crash in between hands them over again, under
//! the same ids, which bus and audit log recognise.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use infra_audit_log::{AuditEvent, AuditKind, AuditLog, Fields};
use infra_event_bus::EventBus;
use infra_state_store::{Batch, Key, Op, OutboxRow, StateStore};
use infra_types::{AuditContext, Clock, Envelope, Namespace};
use tokio::sync::{Mutex, Notify};

use super::outbox::AuditRow;
use crate::error::FactoryError;

/// Rows that are handed over at once.
const ROWS_MAX: usize = 256;
/// How long a row may wait when nobody wakes the relay.
const POLL: Duration = Duration::from_millis(100);

/// Where the rows of a queue go.
#[async_trait]
pub(crate) trait Carrier: Send + Sync {
    /// Takes all of `rows` durably, or answers why not; the same rows may come again.
    async fn carry(&self, rows: &[OutboxRow]) -> Result<(), String>;
}

/// Publishes envelopes.
pub(crate) struct ToBus(pub(crate) Arc<dyn EventBus>);

#[async_trait]
impl Carrier for ToBus {
    async fn carry(&self, rows: &[OutboxRow]) -> Result<(), String> {
        let envelopes: Result<Vec<Envelope>, _> = rows.iter().map(|r| serde_json::from_slice(&r.payload)).collect();
        let answers = self.0.publish_batch(envelopes.map_err(|e| format!("a damaged outbox row: {e}"))?).await;
        answers.into_iter().find_map(Result::err).map_or(Ok(()), |e| Err(e.to_string()))
    }
}

/// Appends audit events.
pub(crate) struct ToAudit(pub(crate) Arc<dyn AuditLog>);

#[async_trait]
impl Carrier for ToAudit {
    async fn carry(&self, rows: &[OutboxRow]) -> Result<(), String> {
        let events: Result<Vec<AuditEvent>, String> = rows.iter().map(audit_event).collect();
        self.0.append_batch(events?).await.map(|_| ()).map_err(|e| e.to_string())
    }
}

fn audit_event(row: &OutboxRow) -> Result<AuditEvent, String> {
    let damaged = |e: &dyn std::fmt::Display| format!("a damaged outbox row: {e}");
    let body: AuditRow = serde_json::from_slice(&row.payload).map_err(|e| damaged(&e))?;
    let kind: AuditKind = body.kind.parse().map_err(|e| damaged(&e))?;
    let mut details = body.details;
    details.insert("source".into(), body.source);
    let details = details.into_iter().fold(Fields::new(), |fields, (name, value)| fields.with(name, value));
    let context = AuditContext { user: body.user, address: None, correlation: body.correlation };
    let mut event = AuditEvent::new(row.id.clone(), kind, body.at, body.resource, body.action)
        .with_context(context)
        .with_details(details);
    if let Some(symbol) = body.symbol {
        event = event.with_symbol(symbol);
    }
    Ok(event)
}

/// One queue's relay.
pub(crate) struct Relay {
    store: Arc<dyn StateStore>,
    namespace: Namespace,
    queue: Key,
    carrier: Box<dyn Carrier>,
    clock: Arc<dyn Clock>,
    /// One pass at a time, so that rows are handed over in order.
    pass: Mutex<()>,
    wake: Notify,
}

impl Relay {
    pub(crate) fn new(
        store: Arc<dyn StateStore>,
        namespace: Namespace,
        queue: Key,
        carrier: Box<dyn Carrier>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self { store, namespace, queue, carrier, clock, pass: Mutex::default(), wake: Notify::new() })
    }

    /// Hands over every row that is in the queue now; how many there were.
    pub(crate) async fn flush(&self) -> Result<u64, FactoryError> {
        let _pass = self.pass.lock().await;
        let mut carried = 0;
        loop {
            let rows = self.store.outbox_read(&self.namespace, &self.queue, None, ROWS_MAX).await?;
            let Some(last) = rows.last() else { return Ok(carried) };
            let failed = |reason| FactoryError::Relay { queue: self.queue.name().to_owned(), reason };
            self.carrier.carry(&rows).await.map_err(failed)?;
            let forget = Op::Acknowledge { outbox: self.queue.clone(), up_to: last.position };
            self.store.apply(Batch::new(self.namespace.clone()).with(forget)).await?;
            carried += rows.len() as u64;
            if rows.len() < ROWS_MAX {
                return Ok(carried);
            }
        }
    }

    /// Says that there is something to carry.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Carries for ever; a failure is logged and tried again.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            if let Err(e) = self.flush().await {
                tracing::warn!(queue = self.queue.name(), error = %e, "the outbox could not be carried on; trying again");
                self.clock.sleep(POLL * 5).await;
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = self.clock.sleep(POLL) => {}
            }
        }
    }
}
