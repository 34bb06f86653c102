//! Brings what waits in the log to the store, oldest first.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
};

use infra_types::{Backoff, Clock, Envelope, ErrorKind, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::{frame::Record, writer::Writer};
use crate::{BusError, EventBus};

/// Events and payload bytes of one call: few enough to be one step on every backend that comes with this crate.
const BATCH_EVENTS: usize = 64;
const BATCH_BYTES: usize = 1 << 20;

pub(super) struct Drain {
    pub(super) inner: Arc<dyn EventBus>,
    pub(super) writer: Writer,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) retry: Backoff,
    pub(super) closing: watch::Receiver<bool>,
    /// Nothing was in the log when it was opened: what comes is there because the store was lost.
    pub(super) is_empty: bool,
    /// Numbers of events that are done with although an older one is not.
    pub(super) settled: BTreeSet<u64>,
    /// Urgent events before this number are done with.
    pub(super) urgent_from: u64,
}

/// What ends a round before its end.
enum Stop {
    /// Try again later.
    Later(BusError),
    /// Never again.
    Ended(BusError),
}

impl From<BusError> for Stop {
    fn from(e: BusError) -> Self {
        match e {
            BusError::Closed | BusError::SpillDamaged { .. } => Self::Ended(e),
            e => Self::Later(e),
        }
    }
}

/// A line of the file of refused events.
#[derive(Serialize)]
struct Line<'a> {
    at: Timestamp,
    reason: String,
    due: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cloudevent: Option<Box<RawValue>>,
    /// If it can be no CloudEvent.
    #[serde(skip_serializing_if = "Option::is_none")]
    envelope: Option<&'a Envelope>,
}

impl Drain {
    /// Until the bus is closed or there is no way on.
    pub(super) async fn run(mut self) {
        let mut failures = 0;
        while !*self.closing.borrow() {
            let round = if std::mem::take(&mut self.is_empty) { Ok(false) } else { self.round().await };
            match round {
                Ok(true) => failures = 0,
                Ok(false) => {
                    let mut closing = self.closing.clone();
                    tokio::select! {
                        () = self.writer.arrived() => {}
                        _ = closing.wait_for(|is| *is) => return,
                    }
                    // It came because the store was lost a moment ago.
                    failures = 1;
                }
                Err(Stop::Later(e)) => {
                    self.writer.with_state(|s| s.last_error = Some(e));
                    failures += 1;
                }
                Err(Stop::Ended(e)) => {
                    return self.writer.with_state(|s| {
                        s.last_error = Some(e.clone());
                        s.failure = Some(e);
                    });
                }
            }
            if failures > 0 {
                let wait = self.clock.sleep(self.retry.delay(failures, random()));
                tokio::select! {
                    () = wait => {}
                    _ = self.closing.wait_for(|is| *is) => return,
                }
            }
        }
    }

    fn has_urgent(&self) -> bool {
        self.writer.with_state(|s| s.urgent_end) > self.urgent_from
    }

    /// Brings over what is urgent, in its own order, wherever it stands.
    async fn bring_urgent(&mut self) -> Result<(), Stop> {
        while self.has_urgent() && !*self.closing.borrow() {
            let records = self.writer.read_urgent(self.urgent_from).await?;
            let Some(last) = records.last() else {
                self.urgent_from = self.writer.with_state(|s| s.urgent_end);
                return Ok(());
            };
            let result = self.bring(&self.batch(&records)).await;
            let first_open = records.iter().find(|record| !self.settled.contains(&record.number));
            self.urgent_from = first_open.map_or(last.number + 1, |record| record.number);
            result?;
        }
        Ok(())
    }

    /// Brings over what is urgent, then the oldest events of the log; whether there were any.
    async fn round(&mut self) -> Result<bool, Stop> {
        self.bring_urgent().await?;
        let records = self.writer.read().await?;
        let (mut rest, mut result) = (&records[..], Ok(()));
        // What became urgent meanwhile goes first.
        while !rest.is_empty() && result.is_ok() && !*self.closing.borrow() && !self.has_urgent() {
            let batch = self.batch(rest);
            result = self.bring(&batch).await;
            let done = rest.iter().take_while(|r| self.settled.remove(&r.number)).count();
            rest = &rest[done..];
        }
        let gone = &records[..records.len() - rest.len()];
        if !gone.is_empty() {
            let bytes = gone.iter().map(|r| r.size).sum();
            // They are in the store. If that cannot be noted, or the process dies first, they are published again after a restart, which the
            // store recognises.
            if let Err(e) = self.writer.drained(gone.len() as u64, bytes).await? {
                let message = format!("how far the spill log is drained cannot be noted: {e}");
                let error = BusError::Backend { message, kind: ErrorKind::Unavailable };
                self.writer.with_state(|s| s.last_error = Some(error));
            }
        }
        result.map(|()| !records.is_empty())
    }

    /// The next events that may go in one call. Where the store refuses one and takes a later one, the order of a key must not suffer: events
    /// of one key go together only if their topic is the same too, and so the groups that may be full are.
    fn batch<'a>(&self, records: &'a [Record]) -> Vec<&'a Record> {
        let mut topics = HashMap::new();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for record in records.iter().filter(|r| !self.settled.contains(&r.number)) {
            bytes += record.event.data.len();
            let topic = topics.entry(&record.event.key).or_insert(&record.event.topic);
            let fits = bytes <= BATCH_BYTES && batch.len() < BATCH_EVENTS && *topic == &record.event.topic;
            if !batch.is_empty() && (!fits || record.due.is_some()) {
                break;
            }
            batch.push(record);
            if record.due.is_some() {
                break;
            }
        }
        batch
    }

    /// Publishes a batch, and settles what is done with.
    async fn bring(&mut self, batch: &[&Record]) -> Result<(), Stop> {
        let answers = match batch {
            // All of it was urgent and is done with.
            [] => return Ok(()),
            [Record { due: Some(due), event, .. }] => vec![self.inner.publish_at(event.clone(), *due).await],
            _ => self.inner.publish_batch(batch.iter().map(|r| r.event.clone()).collect()).await,
        };
        let unanswered = || Err(BusError::Ambiguous { reason: "the store gave no answer".into() });
        let mut stop = None;
        for (record, answer) in batch.iter().zip(answers.into_iter().chain(std::iter::repeat_with(unanswered))) {
            match answer {
                Ok(_) => {
                    self.settled.insert(record.number);
                    self.writer.with_state(|s| {
                        s.drained += 1;
                        s.last_error = None;
                    });
                }
                Err(e @ (BusError::Invalid { .. } | BusError::TooLarge { .. })) => {
                    match self.refuse(record, &e).await {
                        Ok(()) => drop(self.settled.insert(record.number)),
                        Err(e) => drop(stop.get_or_insert(e)),
                    }
                }
                Err(e) => drop(stop.get_or_insert(e)),
            }
        }
        stop.map_or(Ok(()), |e| Err(e.into()))
    }

    /// Puts an event aside that the store will never take, so that the others can go on.
    async fn refuse(&self, record: &Record, why: &BusError) -> Result<(), BusError> {
        let cloudevent = record.event.to_cloudevent().ok().and_then(|text| RawValue::from_string(text).ok());
        let envelope = cloudevent.is_none().then_some(&record.event);
        let line = Line { at: self.clock.wall(), reason: why.to_string(), due: record.due, cloudevent, envelope };
        let failed = |e: String| BusError::Backend {
            message: format!("a refused event cannot be put aside: {e}"),
            kind: ErrorKind::Unavailable,
        };
        let line = serde_json::to_string(&line).map_err(|e| failed(e.to_string()))?;
        self.writer.refuse(line + "\n").await?.map_err(|e| failed(e.to_string()))?;
        self.writer.with_state(|s| s.refused += 1);
        Ok(())
    }
}

/// For the spread of waits: processes that lost one store should not come back in step.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
