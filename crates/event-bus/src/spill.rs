//! What goes on when the store is lost.

mod drain;
mod frame;
mod log;
mod writer;

use std::{collections::BTreeSet, fmt, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use infra_types::{Backoff, Clock, Envelope, ErrorKind, EventId, Health, Timestamp};
use tokio::{sync::watch, task::JoinHandle};

use self::{
    drain::Drain,
    frame::Frame,
    writer::{NotSpilled, Queued, Writer},
};
use crate::{
    BusConfig, BusError, BusInfo, DeadLetter, DeadLetters, DelayPlace, DelayedEvent, Delivery, EventBus, GroupInfo,
    GroupStatus, Metrics, Pattern, Published, Replay, Replayed, SubscribeOptions, Subscription,
};

/// When a spilled event counts as kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpillSync {
    /// When the disk has it: it survives a power cut. Publishers that wait at the same time share one sync.
    #[default]
    Always,
    /// When the operating system has it: it survives the death of the process.
    Os,
}

/// Where and how much a [`SpillingEventBus`] keeps.
#[derive(Debug, Clone, PartialEq)]
pub struct SpillConfig {
    /// The log, on a local disk. Beside it: `.lock`, `.refused` for events that the store will not have, `.new` for a moment.
    pub path: PathBuf,
    /// Bytes that may wait, about 100 more an event than its payload and attributes. The file is at most twice that and 16 MiB.
    pub bytes_max: u64,
    /// Events that may wait: at most `Limits::dedup_window` of the bus, so that it recognises what it has.
    pub events_max: u64,
    /// When an event counts as kept.
    pub sync: SpillSync,
    /// The wait before the store is tried again.
    pub retry: Backoff,
    /// Which topics are brought to the store first; the same as `BusConfig::priority` of the bus, which it is by default.
    pub priority: Arc<[Pattern]>,
}

impl SpillConfig {
    /// 256 MiB, 100,000 events, `SpillSync::Always`, tries after 100 ms doubling to 10 s.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let (bytes_max, events_max) = (256 << 20, 100_000);
        Self {
            path: path.into(),
            bytes_max,
            events_max,
            sync: SpillSync::default(),
            retry: Backoff::default(),
            priority: BusConfig::default().priority,
        }
    }

    /// Sets how many bytes may wait.
    #[must_use]
    pub fn with_bytes_max(self, bytes_max: u64) -> Self {
        Self { bytes_max, ..self }
    }

    /// Sets how many events may wait.
    #[must_use]
    pub fn with_events_max(self, events_max: u64) -> Self {
        Self { events_max, ..self }
    }

    /// Sets when an event counts as kept.
    #[must_use]
    pub fn with_sync(self, sync: SpillSync) -> Self {
        Self { sync, ..self }
    }

    /// Sets the wait before the store is tried again.
    #[must_use]
    pub fn with_retry(self, retry: Backoff) -> Self {
        Self { retry, ..self }
    }

    /// Sets which topics are brought to the store first.
    #[must_use]
    pub fn with_priority(self, priority: impl Into<Arc<[Pattern]>>) -> Self {
        Self { priority: priority.into(), ..self }
    }

    fn validate(&self, dedup_window: u64) -> Result<(), BusError> {
        let mut wrong = Vec::new();
        if self.path.file_name().is_none() {
            wrong.push(format!("path {:?} must name a file", self.path));
        }
        if self.bytes_max == 0 {
            wrong.push("bytes_max must be at least 1".to_owned());
        }
        if !(1..=dedup_window).contains(&self.events_max) {
            let rule = format!(
                "events_max is {} and must be 1 to {dedup_window}, the bus's dedup_window: beyond, it would not recognise what it has",
                self.events_max
            );
            wrong.push(rule);
        }
        if wrong.is_empty() { Ok(()) } else { Err(BusError::Invalid { rule: wrong.join("; ") }) }
    }
}

/// What a spill log holds, and what went through it since it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpillStatus {
    /// Events that wait for the store.
    pub events: u64,
    /// Their bytes on disk.
    pub bytes: u64,
    /// Events that were written to the log.
    pub spilled: u64,
    /// Events that the store took from the log, those included that it had already.
    pub drained: u64,
    /// Events that the store refused for good: they are in the file `.refused`, each with its reason.
    pub refused: u64,
    /// Events that were to be spilled and could not be: the log was full or could not be written. Their publishers were told.
    pub not_spilled: u64,
    /// What the last try ran into; none after a success.
    pub last_error: Option<String>,
}

/// A bus that goes on taking at-least-once events while its store is lost: they are kept in a log on a local disk, and go to the store
/// when it is back, with the same ids, in order, and before anything that is published later.
///
/// * An event is spilled if publishing it failed with [`ErrorKind::Unavailable`], `Transient` or `Ambiguous`, and answered with
///   `is_spilled` once it is on disk. Other refusals (`TooLarge`, `BacklogFull`, `Closed` …) are the caller's, as without this.
/// * While anything waits in the log, every at-least-once publish of this bus goes behind it, after a restart too. Publishers are
///   ordered as they are on the bus itself: who waits for an answer comes before what he publishes next.
/// * **Priority topics are drained first** ([`SpillConfig::priority`]), in the order in which they were spilled, wherever they stand in the
///   log; also those that are spilled while others drain. So an event of a priority topic passes ordinary ones, of its key as well, as it does on
///   the bus itself; among themselves priority events keep their order, and so do the others, key by key. While one of them cannot be stored,
///   the others wait for it.
/// * The store sees an event twice if its first answer was lost or this process died while it drained, and recognises the id within
///   `Limits::dedup_window`. So it is a duplicate if other processes published more than that in the meantime.
/// * While it drains, `BacklogFull` and whatever else may pass is waited for. `Invalid` and `TooLarge` never pass: the event goes to
///   the file `.refused`, a line of JSON with reason and CloudEvent, and the others go on.
///
/// At-most-once events are not spilled: they are worth nothing later. A spilled event reaches live subscriptions when the store takes it.
/// Call `close` before the log is opened again: dropping the bus lets go of the file only when its tasks have ended.
pub struct SpillingEventBus {
    inner: Arc<dyn EventBus>,
    writer: Writer,
    config: SpillConfig,
    closing: watch::Sender<bool>,
    drain: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for SpillingEventBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpillingEventBus")
            .field("inner", &self.inner)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Drop for SpillingEventBus {
    fn drop(&mut self) {
        self.closing.send_replace(true);
    }
}

impl SpillingEventBus {
    /// Opens (or makes) the log and begins to drain what it holds, as a task of the runtime that it is called on. The waits between tries are
    /// by `clock`.
    ///
    /// # Errors
    /// `Invalid` names every mistake of `config`; `SpillInUse` if another bus or process has the log; `SpillDamaged` if something in it is not
    /// what was written (the file is left as it is); `Backend` if it cannot be opened.
    ///
    /// # Cancel safety
    /// Dropping the future lets go of the file.
    pub async fn open(inner: Arc<dyn EventBus>, config: SpillConfig, clock: Arc<dyn Clock>) -> Result<Self, BusError> {
        let window = inner.info().limits.dedup_window;
        config.validate(window)?;
        let opened = config.clone();
        let opened = tokio::task::spawn_blocking(move || Writer::open(&opened)).await;
        let writer = opened.map_err(|_| BusError::Closed)??;
        let events = writer.with_state(|s| s.events);
        if events > window {
            let path = config.path.display();
            let rule =
                format!("spill log {path} holds {events} events, and dedup_window is {window}: raise it to drain them");
            return Err(BusError::Invalid { rule });
        }
        let (closing, is_closing) = watch::channel(false);
        let retry = config.retry;
        let drain = Drain {
            inner: inner.clone(),
            writer: writer.clone(),
            clock,
            retry,
            closing: is_closing,
            is_empty: events == 0,
            settled: BTreeSet::new(),
            urgent_from: 0,
        };
        let drain = tokio::sync::Mutex::new(Some(tokio::spawn(drain.run())));
        Ok(Self { inner, writer, config, closing, drain })
    }

    /// What waits, and what was counted.
    #[must_use]
    pub fn spill_status(&self) -> SpillStatus {
        self.writer.with_state(|s| SpillStatus {
            events: s.events,
            bytes: s.bytes,
            spilled: s.spilled,
            drained: s.drained,
            refused: s.refused,
            not_spilled: s.not_spilled,
            last_error: s.last_error.as_ref().map(ToString::to_string),
        })
    }

    /// The bus below.
    #[must_use]
    pub fn inner(&self) -> &Arc<dyn EventBus> {
        &self.inner
    }

    fn frame(&self, event: &Envelope, due: Option<Timestamp>) -> Result<Frame, BusError> {
        self.inner.info().limits.check(event)?;
        // What is not due yet is not urgent.
        let is_urgent = due.is_none() && self.config.priority.iter().any(|pattern| pattern.matches(&event.topic));
        let frame = Frame::new(event, due, is_urgent);
        if frame.fits() {
            return Ok(frame);
        }
        Err(BusError::TooLarge { what: "event", found: event.data.len(), max: u32::MAX as usize })
    }

    /// Publishes one event, behind what waits if anything does.
    async fn publish_one(&self, event: Envelope, due: Option<Timestamp>) -> Result<Published, BusError> {
        if self.writer.is_busy()? {
            let frames = vec![self.frame(&event, due)?];
            if let Some(queued) = self.writer.enqueue(frames, true)? {
                return one(settle(queued, &[None]).await);
            }
        }
        let copy = event.clone();
        let answer = match due {
            None => self.inner.publish(copy, Delivery::AtLeastOnce).await,
            Some(due) => self.inner.publish_at(copy, due).await,
        };
        match answer {
            Err(cause) if is_lost(&cause) => one(self.spill(&[(&event, cause)], due).await),
            answer => answer,
        }
    }

    /// Spills events that could not be published for these causes.
    async fn spill(
        &self,
        events: &[(&Envelope, BusError)],
        due: Option<Timestamp>,
    ) -> Vec<Result<Published, BusError>> {
        let frames: Result<Vec<_>, _> = events.iter().map(|(event, _)| self.frame(event, due)).collect();
        let causes: Vec<_> = events.iter().map(|(_, cause)| Some(cause.clone())).collect();
        match frames.and_then(|frames| self.writer.enqueue(frames, false)) {
            Ok(Some(queued)) => settle(queued, &causes).await,
            // Closed in the meantime, or no longer in order: then what the store said is what happened.
            Ok(None) | Err(_) => events.iter().map(|(_, cause)| Err(cause.clone())).collect(),
        }
    }

    /// As `publish_batch`, for events that were checked.
    async fn publish_part(&self, events: &[Envelope]) -> Vec<Result<Published, BusError>> {
        if events.is_empty() {
            return Vec::new();
        }
        let all = |e: BusError| events.iter().map(|_| Err(e.clone())).collect();
        match self.writer.is_busy() {
            Err(e) => return all(e),
            Ok(true) => {
                let frames: Result<Vec<_>, _> = events.iter().map(|event| self.frame(event, None)).collect();
                match frames.and_then(|frames| self.writer.enqueue(frames, true)) {
                    Err(e) => return all(e),
                    Ok(Some(queued)) => return settle(queued, &vec![None; events.len()]).await,
                    Ok(None) => {}
                }
            }
            Ok(false) => {}
        }
        let mut answers = self.inner.publish_batch(events.to_vec()).await;
        answers.resize_with(events.len(), || Err(BusError::Ambiguous { reason: "the store gave no answer".into() }));
        let lost: Vec<_> = answers
            .iter()
            .enumerate()
            .filter_map(|(n, answer)| match answer {
                Err(cause) if is_lost(cause) => Some((n, cause.clone())),
                _ => None,
            })
            .collect();
        if !lost.is_empty() {
            let events: Vec<_> = lost.iter().map(|(n, cause)| (&events[*n], cause.clone())).collect();
            let spilled = self.spill(&events, None).await;
            lost.iter().zip(spilled).for_each(|((n, _), answer)| answers[*n] = answer);
        }
        answers
    }
}

/// Whether an event that could not be published for this reason is spilled.
fn is_lost(e: &BusError) -> bool {
    let kind = matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Transient | ErrorKind::Ambiguous);
    // A bus that was closed, or spilling below that gave up, does not come back.
    kind && !matches!(e, BusError::Closed | BusError::Stopped | BusError::SpillLeft { .. })
}

fn one(mut answers: Vec<Result<Published, BusError>>) -> Result<Published, BusError> {
    answers.pop().unwrap_or(Err(BusError::Closed))
}

/// Waits until the taken events are written; an answer for each, taken or not. `causes` says why each was to be spilled, if not only because
/// others wait.
async fn settle(queued: Queued, causes: &[Option<BusError>]) -> Vec<Result<Published, BusError>> {
    let written = if queued.taken == 0 { Ok(Ok(())) } else { queued.written.await };
    let written =
        written.unwrap_or_else(|_| Err(NotSpilled { reason: "the spill log's thread ended".into(), may_return: true }));
    let answers = causes.iter().enumerate().map(|(n, cause)| {
        let (error, may_return) = match &written {
            _ if n >= queued.taken => (queued.full.clone().unwrap_or(BusError::Closed), false),
            Ok(()) => return Ok(Published { seq: None, duplicate: false, is_spilled: true }),
            Err(e) => {
                let message = e.reason.clone();
                (BusError::Backend { message, kind: ErrorKind::Unavailable }, e.may_return)
            }
        };
        let is_ambiguous = may_return || cause.as_ref().is_some_and(|c| c.kind() == ErrorKind::Ambiguous);
        Err(match (cause, error) {
            (Some(cause), error) if is_ambiguous => BusError::Ambiguous { reason: format!("{cause}; {error}") },
            (None, error) if is_ambiguous => BusError::Ambiguous { reason: error.to_string() },
            (Some(cause), BusError::Backend { message, kind }) => {
                BusError::Backend { message: format!("{cause}; {message}"), kind }
            }
            (_, error) => error,
        })
    });
    answers.collect()
}

#[async_trait]
impl EventBus for SpillingEventBus {
    async fn publish(&self, event: Envelope, delivery: Delivery) -> Result<Published, BusError> {
        match delivery {
            Delivery::AtMostOnce => self.inner.publish(event, delivery).await,
            Delivery::AtLeastOnce => self.publish_one(event, None).await,
        }
    }

    async fn publish_batch(&self, events: Vec<Envelope>) -> Vec<Result<Published, BusError>> {
        let limits = self.inner.info().limits;
        let checked: Vec<_> = events.iter().map(|event| limits.check(event)).collect();
        let good: Vec<_> = events.into_iter().zip(&checked).filter(|(_, c)| c.is_ok()).map(|(e, _)| e).collect();
        let mut stored = self.publish_part(&good).await.into_iter();
        let answers =
            checked.into_iter().map(|check| check.and_then(|()| stored.next().unwrap_or(Err(BusError::Closed))));
        answers.collect()
    }

    async fn publish_at(&self, event: Envelope, at: Timestamp) -> Result<Published, BusError> {
        self.publish_one(event, Some(at)).await
    }

    async fn subscribe(&self, options: SubscribeOptions) -> Result<Subscription, BusError> {
        self.inner.subscribe(options).await
    }

    async fn status(&self, group: &str) -> Result<GroupStatus, BusError> {
        self.inner.status(group).await
    }

    async fn groups(&self, after: &str, limit: usize) -> Result<Vec<GroupInfo>, BusError> {
        self.inner.groups(after, limit).await
    }

    /// Those that wait in the spill log are not among them.
    async fn delayed(&self, after: Option<DelayPlace>, limit: usize) -> Result<Vec<DelayedEvent>, BusError> {
        self.inner.delayed(after, limit).await
    }

    /// One that waits in the spill log is not found, and is delayed when the store has it.
    async fn cancel_delayed(&self, id: &EventId) -> Result<bool, BusError> {
        self.inner.cancel_delayed(id).await
    }

    async fn dead_letters(&self, group: &str, after: u64, limit: usize) -> Result<Vec<DeadLetter>, BusError> {
        self.inner.dead_letters(group, after, limit).await
    }

    async fn redrive(&self, group: &str, which: DeadLetters) -> Result<u64, BusError> {
        self.inner.redrive(group, which).await
    }

    async fn purge(&self, group: &str, which: DeadLetters) -> Result<u64, BusError> {
        self.inner.purge(group, which).await
    }

    async fn replay(&self, replay: Replay) -> Result<Replayed, BusError> {
        self.inner.replay(replay).await
    }

    async fn remove_group(&self, group: &str) -> Result<bool, BusError> {
        self.inner.remove_group(group).await
    }

    /// The counts of the bus below; what was spilled is in [`spill_status`](SpillingEventBus::spill_status).
    fn metrics(&self) -> Metrics {
        self.inner.metrics()
    }

    /// `Degraded` while anything is spilled, also if the bus below is down; `Down` if the log itself is of no use.
    async fn health(&self) -> Health {
        let below = self.inner.health().await;
        let (failure, is_closed) = self.writer.with_state(|s| (s.failure.clone(), s.is_closed));
        let spilled = self.spill_status();
        let health = match failure {
            _ if is_closed => return below,
            Some(failure) => Health::down(failure.to_string()),
            None if spilled.events == 0 => return below,
            None => {
                let why = spilled.last_error.unwrap_or(below.detail);
                let (events, bytes) = (spilled.events, spilled.bytes);
                Health::degraded(format!("{events} events ({bytes} bytes) wait in the spill log for the store: {why}"))
            }
        };
        Health { probe: below.probe, ..health }
    }

    /// As the bus below, but for what a spilled event survives.
    fn info(&self) -> BusInfo {
        let info = self.inner.info();
        BusInfo { survives_power_cut: info.survives_power_cut && self.config.sync == SpillSync::Always, ..info }
    }

    /// Closes the log and the bus below. What the store has not taken by then stays on disk and goes first next time.
    ///
    /// # Errors
    /// `SpillLeft` says what is left; else as the bus below.
    ///
    /// # Cancel safety
    /// As the bus below.
    async fn close(&self) -> Result<(), BusError> {
        self.writer.with_state(|s| s.is_closed = true);
        self.closing.send_replace(true);
        {
            let mut drain = self.drain.lock().await;
            if let Some(task) = drain.as_mut() {
                // A panic of its own is in the log of the runtime already.
                let _ = task.await;
                *drain = None;
            }
        }
        self.writer.close().await;
        let below = self.inner.close().await;
        let (events, bytes) = self.writer.with_state(|s| (s.events, s.bytes));
        if events == 0 {
            return below;
        }
        let unfinished = match below {
            Ok(()) => 0,
            Err(BusError::Unfinished { unfinished, .. }) => unfinished,
            Err(e) => return Err(e),
        };
        Err(BusError::SpillLeft { events, bytes, path: self.config.path.display().to_string(), unfinished })
    }
}
