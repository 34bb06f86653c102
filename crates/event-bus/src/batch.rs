//! Events that are handled together.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use async_trait::async_trait;
use infra_types::Clock;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::{BusError, Delivered, Gap, Handler, HandlerError};

type Ended = Result<(), HandlerError>;

/// Handles several events at once; see [`in_batches`].
#[async_trait]
pub trait BatchHandler: Send + Sync {
    /// Does the work; an answer for each event, in their order. What has no answer counts as failed.
    ///
    /// # Cancel safety
    /// As [`Handler::handle`].
    async fn handle(&self, events: Vec<Delivered>) -> Vec<Result<(), HandlerError>>;

    /// As [`Handler::gap`].
    fn gap(&self, _gap: &Gap) {}

    /// As [`Handler::ended`].
    fn ended(&self, _why: &BusError) {}
}

/// A handler that gathers what a subscription handles at the same time, and hands it on together: as soon as there are `events_max`, and
/// `wait_max` after the first one at the latest.
///
/// What a subscription promises stays as it is. A key's next event begins when its last one has ended, so no two of a key are in one batch, and
/// their order holds; an event that fails is tried again alone or with others, holds up its key, and nobody else. So a batch has at most as many
/// events as are handled at the same time: set [`with_concurrency`](crate::SubscribeOptions::with_concurrency) to `events_max` or more (a durable
/// subscription handles up to 63 keys at a time, and one event of a priority topic; a live one, one of each). The subscription's timeout must have
/// room for the wait and the work; the correlation and the trace that are current are those of the first event.
#[must_use]
pub fn in_batches(
    handler: Arc<dyn BatchHandler>,
    events_max: NonZeroUsize,
    wait_max: Duration,
    clock: Arc<dyn Clock>,
) -> Arc<dyn Handler> {
    Arc::new(Batches { handler, events_max: events_max.get(), wait_max, clock, open: Mutex::default() })
}

struct Member {
    event: Delivered,
    tell: oneshot::Sender<Ended>,
}

#[derive(Default)]
struct Batch {
    members: Mutex<Vec<Member>>,
    full: Notify,
}

struct Batches {
    handler: Arc<dyn BatchHandler>,
    events_max: usize,
    wait_max: Duration,
    clock: Arc<dyn Clock>,
    /// The one that takes more; its first event's call waits and does the work.
    open: Mutex<Option<Arc<Batch>>>,
}

/// Takes nothing more into the batch, also if its first call is dropped.
struct Lead<'a>(&'a Batches, Arc<Batch>);

impl Lead<'_> {
    fn close(&self) -> Vec<Member> {
        let mut open = self.0.open.lock();
        if open.as_ref().is_some_and(|batch| Arc::ptr_eq(batch, &self.1)) {
            *open = None;
        }
        std::mem::take(&mut *self.1.members.lock())
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.close();
    }
}

impl Batches {
    /// Adds an event to the open batch, or opens one; whether it did.
    fn join(&self, member: Member) -> Option<Arc<Batch>> {
        let mut open = self.open.lock();
        let is_new = open.is_none();
        let batch = open.get_or_insert_with(Arc::default).clone();
        let count = {
            let mut members = batch.members.lock();
            members.push(member);
            members.len()
        };
        if count >= self.events_max {
            *open = None;
            batch.full.notify_one();
        }
        is_new.then_some(batch)
    }

    async fn lead(&self, batch: Arc<Batch>) {
        let lead = Lead(self, batch);
        tokio::select! {
            biased;
            () = lead.1.full.notified() => {}
            () = self.clock.sleep(self.wait_max) => {}
        }
        let mut members = lead.close();
        // Its time ran out while it waited: it is not begun.
        members.retain(|member| !member.tell.is_closed());
        let (events, tells): (Vec<_>, Vec<_>) = members.into_iter().map(|member| (member.event, member.tell)).unzip();
        let mut answers = self.handler.handle(events).await.into_iter();
        for tell in tells {
            let missing = || Err(HandlerError::Retry("its batch gave no answer for it".into()));
            // Nobody listens where the time ran out meanwhile.
            let _ = tell.send(answers.next().unwrap_or_else(missing));
        }
    }
}

#[async_trait]
impl Handler for Batches {
    async fn handle(&self, event: Delivered) -> Result<(), HandlerError> {
        let (tell, told) = oneshot::channel();
        if let Some(batch) = self.join(Member { event, tell }) {
            self.lead(batch).await;
        }
        told.await.unwrap_or_else(|_| Err(HandlerError::Retry("its batch was dropped, or panicked".into())))
    }

    fn gap(&self, gap: &Gap) {
        self.handler.gap(gap);
    }

    fn ended(&self, why: &BusError) {
        self.handler.ended(why);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use infra_types::{Backoff, Envelope, Jitter, SystemClock, Topic};

    use super::*;
    use crate::{Delivery, EventBus, MemoryEventBus, Pattern, SubscribeOptions};

    /// What each batch had: key, payload, attempt.
    type Seen = Vec<Vec<(String, u64, u32)>>;

    #[derive(Default)]
    struct Recorder {
        seen: Mutex<Seen>,
    }

    #[async_trait]
    impl BatchHandler for Recorder {
        async fn handle(&self, events: Vec<Delivered>) -> Vec<Ended> {
            let line = |d: &Delivered| {
                let n = String::from_utf8_lossy(&d.envelope.data).parse().unwrap();
                (d.envelope.key.clone(), n, d.attempt)
            };
            let lines: Vec<_> = events.iter().map(line).collect();
            self.seen.lock().push(lines.clone());
            // A panic fails all of its batch; the tenth of each key fails alone.
            assert!(
                !lines.iter().any(|(key, n, attempt)| key == "k0" && *n == 5 && *attempt == 1),
                "as it was told to"
            );
            let fails = |n: u64, attempt| n == 10 && attempt == 1;
            let answer = |(_, n, attempt): (String, u64, u32)| {
                if fails(n, attempt) { Err(HandlerError::Retry("as it was told to".into())) } else { Ok(()) }
            };
            lines.into_iter().map(answer).collect()
        }
    }

    async fn run(events_max: usize, concurrency: u32) -> (Seen, u64) {
        let clock: Arc<dyn Clock> = SystemClock::shared();
        let bus = MemoryEventBus::new(clock.clone());
        let recorder = Arc::new(Recorder::default());
        let max = NonZeroUsize::new(events_max).unwrap();
        let handler = in_batches(recorder.clone(), max, Duration::from_millis(2), clock.clone());
        let wait = Duration::from_millis(1);
        let options = SubscribeOptions::at_least_once(Pattern::new("t").unwrap(), "g", handler)
            .with_concurrency(concurrency)
            .with_retry(5, Backoff::new(wait, wait, 1, Jitter::None).unwrap());
        let sub = bus.subscribe(options).await.unwrap();
        for n in 0..160u64 {
            let event = Envelope::new(Topic::new("t").unwrap(), "n.v1", clock.wall(), (n / 8).to_string());
            bus.publish(event.with_key(format!("k{}", n % 8)), Delivery::AtLeastOnce).await.unwrap();
        }
        tokio::time::timeout(Duration::from_secs(30), sub.drained()).await.unwrap().unwrap();
        let seen = recorder.seen.lock().clone();
        (seen, sub.metrics().processed)
    }

    /// Each key's events in the order of its numbers, none begun before its predecessor succeeded, none of a key twice in a batch.
    fn check(seen: &Seen) {
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        for batch in seen {
            let mut keys: Vec<_> = batch.iter().map(|(key, ..)| key).collect();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), batch.len(), "two of a key in {batch:?}");
            for (key, n, attempt) in batch {
                let before = last.insert(key, *n);
                let is_next = before.map_or(*n == 0, |before| *n == before + 1 || (*n == before && *attempt > 1));
                assert!(is_next, "{key} {n} after {before:?}");
            }
        }
        assert!(last.values().all(|n| *n == 19) && last.len() == 8, "{last:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn events_come_together_and_each_has_its_own_answer() {
        let (seen, processed) = run(4, 31).await;
        check(&seen);
        assert_eq!(processed, 160);
        assert!(seen.iter().all(|batch| (1..=4).contains(&batch.len())));
        assert!(seen.iter().any(|batch| batch.len() == 4), "some are full: {seen:?}");
        let again: Vec<_> = seen.iter().flatten().filter(|(_, n, attempt)| *n == 10 && *attempt == 2).collect();
        assert_eq!(again.len(), 8, "what failed is tried again");
        let more = seen.iter().flatten().filter(|(_, n, attempt)| *attempt > 1 && *n != 10).count();
        assert!((1..=4).contains(&more), "and, beside those of the batch that panicked, nothing else: {more}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_batch_that_does_not_fill_is_handled_after_its_wait() {
        let (seen, processed) = run(64, 1).await;
        check(&seen);
        assert_eq!(processed, 160);
        assert!(seen.iter().all(|batch| batch.len() == 1), "one lane, one event at a time");
    }
}
