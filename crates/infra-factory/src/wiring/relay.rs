//! Carries outbox rows on: reads the oldest, hands them over, forgets them. A crash in between hands them over again, under
//! the same ids, which bus and audit log recognise.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use infra_audit_log::{AuditEvent, AuditKind, AuditLog, Fields};
use infra_event_bus::EventBus;
use infra_state_store::{Batch, Key, Op, OutboxRow, StateStore};
use infra_types::{AuditContext, Clock, Envelope, ErrorKind, Namespace};
use tokio::sync::{Mutex, Notify};

use super::outbox::AuditRow;
use crate::error::FactoryError;

/// Rows that are handed over at once.
const ROWS_MAX: usize = 256;
/// How long a row may wait when nobody wakes the relay.
const POLL: Duration = Duration::from_millis(100);

/// A row that can never be carried, by its place among the rows.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) index: usize,
    pub(crate) reason: String,
}

/// Where the rows of a queue go.
#[async_trait]
pub(crate) trait Carrier: Send + Sync {
    /// Takes `rows` durably, but for those that can never be taken, or answers why not now; the same rows may come again.
    async fn carry(&self, rows: &[OutboxRow]) -> Result<Vec<Refused>, String>;
}

/// Whether trying again can never help.
fn is_final(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Invalid | ErrorKind::Conflict)
}

/// Publishes envelopes.
pub(crate) struct ToBus(pub(crate) Arc<dyn EventBus>);

#[async_trait]
impl Carrier for ToBus {
    async fn carry(&self, rows: &[OutboxRow]) -> Result<Vec<Refused>, String> {
        let mut refused = Vec::new();
        let (mut envelopes, mut places) = (Vec::new(), Vec::new());
        for (index, row) in rows.iter().enumerate() {
            match serde_json::from_slice::<Envelope>(&row.payload) {
                Ok(envelope) => {
                    envelopes.push(envelope);
                    places.push(index);
                }
                Err(e) => refused.push(Refused { index, reason: format!("a damaged row: {e}") }),
            }
        }
        for (answer, index) in self.0.publish_batch(envelopes).await.into_iter().zip(places) {
            match answer {
                Ok(_) => {}
                Err(e) if is_final(e.kind()) => refused.push(Refused { index, reason: e.to_string() }),
                Err(e) => return Err(e.to_string()),
            }
        }
        Ok(refused)
    }
}

/// Appends audit events.
pub(crate) struct ToAudit(pub(crate) Arc<dyn AuditLog>);

#[async_trait]
impl Carrier for ToAudit {
    async fn carry(&self, rows: &[OutboxRow]) -> Result<Vec<Refused>, String> {
        let mut refused = Vec::new();
        let mut events = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            match audit_event(row) {
                Ok(event) => events.push((index, event)),
                Err(reason) => refused.push(Refused { index, reason }),
            }
        }
        match self.0.append_batch(events.iter().map(|(_, event)| event.clone()).collect()).await {
            Ok(_) => {}
            // One of them spoils the batch: one by one the others pass.
            Err(e) if is_final(e.kind()) => {
                for (index, event) in events {
                    match self.0.append(event).await {
                        Ok(_) => {}
                        Err(e) if is_final(e.kind()) => refused.push(Refused { index, reason: e.to_string() }),
                        Err(e) => return Err(e.to_string()),
                    }
                }
            }
            Err(e) => return Err(e.to_string()),
        }
        Ok(refused)
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
    /// What can never be carried on is put aside here, so that it does not hold up the rest.
    refused: Key,
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
        refused: Key,
        carrier: Box<dyn Carrier>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self { store, namespace, queue, refused, carrier, clock, pass: Mutex::default(), wake: Notify::new() })
    }

    /// Hands over every row that is in the queue now; how many there were.
    pub(crate) async fn flush(&self) -> Result<u64, FactoryError> {
        let _pass = self.pass.lock().await;
        let mut carried = 0;
        loop {
            let rows = self.store.outbox_read(&self.namespace, &self.queue, None, ROWS_MAX).await?;
            let Some(last) = rows.last() else { return Ok(carried) };
            let failed = |reason| FactoryError::Relay { queue: self.queue.name().to_owned(), reason };
            let refused = self.carrier.carry(&rows).await.map_err(failed)?;
            let mut batch = Batch::new(self.namespace.clone());
            for Refused { index, reason } in &refused {
                let Some(OutboxRow { order_key, id, payload, .. }) = rows.get(*index).cloned() else { continue };
                tracing::error!(queue = self.queue.name(), %id, reason, "a row can never be carried on and is put aside");
                batch = batch.with(Op::Enqueue { outbox: self.refused.clone(), order_key, id, payload });
            }
            let forget = Op::Acknowledge { outbox: self.queue.clone(), up_to: last.position };
            self.store.apply(batch.with(forget)).await?;
            carried += rows.len() as u64;
            if rows.len() < ROWS_MAX {
                return Ok(carried);
            }
        }
    }

    /// The oldest rows that were put aside because they can never be carried on.
    pub(crate) async fn refused(&self) -> Result<Vec<OutboxRow>, FactoryError> {
        Ok(self.store.outbox_read(&self.namespace, &self.refused, None, ROWS_MAX).await?)
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

#[cfg(test)]
mod tests;
