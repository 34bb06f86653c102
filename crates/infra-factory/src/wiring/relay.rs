//! Carries outbox rows on: reads the oldest, hands them over, forgets them. A crash in between hands them over again, under
//! the same ids, which bus and audit log recognise.
//!
//! A row that is refused for a while (a group of the bus is full) moves to a second queue, so that it does not hold up rows of other keys. Each time
//! those that wait there go first, in the same call as new ones, and the bus lets none overtake an earlier one of its key.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use infra_audit_log::{AuditEvent, AuditKind, AuditLog, Fields};
use infra_event_bus::{BusError, EventBus};
use infra_state_store::{Batch, Key, Op, OutboxRow, StateStore};
use infra_types::{AuditContext, Clock, Envelope, ErrorKind, Namespace};
use tokio::sync::{Mutex, Notify};

use super::outbox::AuditRow;
use crate::error::FactoryError;

/// Rows that are handed over at once.
const ROWS_MAX: usize = 256;
/// Rows that may be held back, and bytes of what is handed over at once: both fit into one batch of the store, which takes each row that is held back
/// out of one queue and into the other.
const HELD_MAX: usize = 256;
const BYTES_MAX: usize = 4 << 20;
/// How long a row may wait when nobody wakes the relay.
const POLL: Duration = Duration::from_millis(100);

/// A row that can never be carried, by its place among the rows.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) index: usize,
    pub(crate) reason: String,
}

/// What became of rows, but for those that were taken.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    /// They can never be taken.
    pub(crate) refused: Vec<Refused>,
    /// They may be taken later, the others meanwhile: nothing behind them that has to keep their order was taken.
    pub(crate) later: Vec<Refused>,
}

/// Where the rows of a queue go.
#[async_trait]
pub(crate) trait Carrier: Send + Sync {
    /// Takes `rows` durably, but for those that it names, or answers why not now; the same rows may come again.
    async fn carry(&self, rows: &[OutboxRow]) -> Result<Carried, String>;
}

/// Whether trying again can never help.
fn is_final(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Invalid | ErrorKind::Conflict)
}

/// Publishes envelopes.
pub(crate) struct ToBus(pub(crate) Arc<dyn EventBus>);

#[async_trait]
impl Carrier for ToBus {
    async fn carry(&self, rows: &[OutboxRow]) -> Result<Carried, String> {
        let (mut refused, mut later) = (Vec::new(), Vec::new());
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
                Err(e @ (BusError::BacklogFull { .. } | BusError::HeldBack { .. })) => {
                    later.push(Refused { index, reason: e.to_string() });
                }
                Err(e) => return Err(e.to_string()),
            }
        }
        Ok(Carried { refused, later })
    }
}

/// Appends audit events.
pub(crate) struct ToAudit(pub(crate) Arc<dyn AuditLog>);

#[async_trait]
impl Carrier for ToAudit {
    async fn carry(&self, rows: &[OutboxRow]) -> Result<Carried, String> {
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
        Ok(Carried { refused, later: Vec::new() })
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

/// Rows that are handed over together.
struct Part {
    /// First those that were held back.
    rows: Vec<OutboxRow>,
    held: usize,
    /// There are no more.
    is_end: bool,
}

/// One queue's relay.
pub(crate) struct Relay {
    store: Arc<dyn StateStore>,
    namespace: Namespace,
    queue: Key,
    /// What can never be carried on is put aside here, so that it does not hold up the rest.
    refused: Key,
    /// What has to wait although others go on, at most [`HELD_MAX`].
    held: Key,
    /// How many rows were ever held back.
    held_back: AtomicU64,
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
        #[expect(clippy::expect_used, reason = "a queue's name is far from the longest that a key may have")]
        let held = Key::record(format!("{}/held", queue.name())).expect("a valid key");
        let (pass, wake, held_back) = (Mutex::default(), Notify::new(), AtomicU64::new(0));
        Arc::new(Self { store, namespace, queue, refused, held, held_back, carrier, clock, pass, wake })
    }

    /// Hands over every row that is in the queue now; how many there were. `Relay` also if only some have to wait.
    pub(crate) async fn flush(&self) -> Result<u64, FactoryError> {
        let (carried, waits) = self.hand_over().await?;
        match waits {
            None => Ok(carried),
            Some(reason) => Err(self.failed(reason)),
        }
    }

    fn failed(&self, reason: String) -> FactoryError {
        FactoryError::Relay { queue: self.queue.name().to_owned(), reason }
    }

    /// How many rows were taken, and why some have to wait, if so.
    async fn hand_over(&self) -> Result<(u64, Option<String>), FactoryError> {
        let _pass = self.pass.lock().await;
        let mut carried = 0;
        loop {
            let part = self.part().await?;
            if part.rows.is_empty() {
                return Ok((carried, None));
            }
            let answer = self.carrier.carry(&part.rows).await.map_err(|reason| self.failed(reason))?;
            carried += (part.rows.len() - answer.later.len()) as u64;
            let waits = answer.later.first().map(|first| first.reason.clone());
            let is_end = part.is_end || answer.later.len() >= HELD_MAX;
            self.note(part, answer).await?;
            if is_end {
                return Ok((carried, waits));
            }
        }
    }

    /// What is handed over next: what is held back, and new rows as far as they could be held back as well.
    async fn part(&self) -> Result<Part, FactoryError> {
        let mut rows = self.store.outbox_read(&self.namespace, &self.held, None, HELD_MAX).await?;
        let held = rows.len();
        let mut bytes: usize = rows.iter().map(|row| row.payload.len()).sum();
        let room = (HELD_MAX - held).min(ROWS_MAX);
        if room == 0 {
            return Ok(Part { rows, held, is_end: true });
        }
        let new = self.store.outbox_read(&self.namespace, &self.queue, None, room).await?;
        let read = new.len();
        for row in new {
            bytes += row.payload.len();
            if bytes > BYTES_MAX && !rows.is_empty() {
                break;
            }
            rows.push(row);
        }
        // With nothing but what is held back another look at the same would change nothing.
        let is_end = rows.len() == held || (rows.len() - held == read && read < room);
        Ok(Part { rows, held, is_end })
    }

    /// Takes the rows out of their queues, or into those where they wait or are put aside.
    async fn note(&self, part: Part, answer: Carried) -> Result<(), FactoryError> {
        let mut batch = Batch::new(self.namespace.clone());
        let row = |refused: &Refused| part.rows.get(refused.index).cloned();
        for refused in &answer.refused {
            let Some(OutboxRow { order_key, id, payload, .. }) = row(refused) else { continue };
            let reason = &refused.reason;
            tracing::error!(queue = self.queue.name(), %id, reason, "a row can never be carried on and is put aside");
            batch = batch.with(Op::Enqueue { outbox: self.refused.clone(), order_key, id, payload });
        }
        // Those that were held back stay as they are, if none of them went.
        let still = answer.later.iter().filter(|later| later.index < part.held).count();
        let is_anew = still < part.held;
        if let Some(last) = part.held.checked_sub(1).and_then(|last| part.rows.get(last)).filter(|_| is_anew) {
            batch = batch.with(Op::Acknowledge { outbox: self.held.clone(), up_to: last.position });
        }
        for later in answer.later.iter().filter(|later| is_anew || later.index >= part.held) {
            let Some(OutboxRow { order_key, id, payload, .. }) = row(later) else { continue };
            if later.index >= part.held {
                let reason = &later.reason;
                self.held_back.fetch_add(1, Relaxed);
                let ever = self.held_back();
                tracing::warn!(queue = self.queue.name(), %id, reason, ever, "a row has to wait; others go on");
            }
            batch = batch.with(Op::Enqueue { outbox: self.held.clone(), order_key, id, payload });
        }
        if let Some(last) = part.rows.last().filter(|_| part.rows.len() > part.held) {
            batch = batch.with(Op::Acknowledge { outbox: self.queue.clone(), up_to: last.position });
        }
        if !batch.ops.is_empty() {
            self.store.apply(batch).await?;
        }
        Ok(())
    }

    /// How many rows had to wait although others went on, since this began.
    pub(crate) fn held_back(&self) -> u64 {
        self.held_back.load(Relaxed)
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
            // What has to wait was told when it began to, and holds up nothing else.
            if let Err(e) = self.hand_over().await {
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
