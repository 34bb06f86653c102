//! The effect of an event on the store, and the mark that it was processed, travel in one batch.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use infra_event_bus::{Delivered, Handler, HandlerError};
use infra_state_store::{Batch, Key, Once, StateStore, StateStoreExt, StoreError, Ttl};
use infra_types::ErrorKind;

/// How often an effect is computed anew because somebody else changed what it was computed from, before the event waits for its retry.
const ROUNDS: usize = 8;

/// Makes at-least-once events have their effect once: the batch that an event leads to is applied together with the mark that this consumer
/// processed it. An event that comes again, after a crash, a lost reply or a redrive, finds the mark and changes nothing.
///
/// Only what is in the batch happens once. An effect outside of the store (an order, a message to a person) needs an id that its receiver
/// recognises.
#[derive(Clone)]
pub struct Inbox {
    store: Arc<dyn StateStore>,
    consumer: Key,
    remember: Duration,
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("consumer", &self.consumer)
            .field("remember", &self.remember)
            .finish_non_exhaustive()
    }
}

impl Inbox {
    /// The inbox that the record key `consumer` names, in the namespace of each batch. An id is remembered for `remember`, which must be longer
    /// than an event can take to come again: dead letters that are redriven after a week need more than a week.
    #[must_use]
    pub fn new(store: Arc<dyn StateStore>, consumer: Key, remember: Duration) -> Self {
        Self { store, consumer, remember }
    }

    /// A handler that applies the batch that `effect` answers. `effect` may read the store and name what it read as preconditions: if that was
    /// changed meanwhile, it is asked again. It must not do anything itself, since it may be called for an event that was processed before.
    #[must_use]
    pub fn handler<F, Fut>(self, effect: F) -> Arc<dyn Handler>
    where
        F: Fn(Delivered) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Batch, HandlerError>> + Send + 'static,
    {
        Arc::new(Effects { inbox: self, effect })
    }
}

struct Effects<F> {
    inbox: Inbox,
    effect: F,
}

#[async_trait]
impl<F, Fut> Handler for Effects<F>
where
    F: Fn(Delivered) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Batch, HandlerError>> + Send,
{
    async fn handle(&self, event: Delivered) -> Result<(), HandlerError> {
        let Inbox { store, consumer, remember } = &self.inbox;
        let mut refused = None;
        for _ in 0..ROUNDS {
            let batch = (self.effect)(event.clone()).await?;
            match store.once(consumer, &event.envelope.id, Ttl::After(*remember), batch).await {
                Ok(Once::Done(_) | Once::Already) => return Ok(()),
                Err(e @ StoreError::Mismatch { .. }) => refused = Some(e),
                Err(e) => return Err(told(&e)),
            }
        }
        Err(HandlerError::Retry(refused.map_or_else(String::new, |e| e.to_string())))
    }
}

/// What will be refused each time is poison. After a lost reply the event comes again, and finds its mark or does its work.
fn told(error: &StoreError) -> HandlerError {
    match error.kind() {
        ErrorKind::Invalid | ErrorKind::Permanent | ErrorKind::Unsupported => HandlerError::Poison(error.to_string()),
        _ => HandlerError::Retry(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use infra_event_bus::{DeadLetters, Delivery, EventBus, MemoryEventBus, Pattern, SubscribeOptions};
    use infra_state_store::{Delta, MemoryStateStore};
    use infra_types::{Clock, Envelope, ManualClock, Namespace, Topic};

    use super::*;

    fn add(home: &Namespace, n: i64) -> Batch {
        Batch::new(home.clone()).add(Key::record("sum").unwrap(), Delta::unbounded(n))
    }

    #[tokio::test]
    async fn an_event_that_comes_again_has_no_second_effect() {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
        let store: Arc<dyn StateStore> = Arc::new(MemoryStateStore::new(clock.clone()));
        let bus = MemoryEventBus::new(clock.clone());
        let home = Namespace::new("book").unwrap();
        let inbox = Inbox::new(store.clone(), Key::record("inbox/book").unwrap(), Duration::from_secs(60));
        let place = home.clone();
        let handler = inbox.handler(move |event| {
            let batch = add(&place, 5);
            async move { if event.envelope.data == "bad" { Err(HandlerError::Poison("bad".into())) } else { Ok(batch) } }
        });
        // The first answer is lost after the effect: the event comes again.
        let failing = infra_event_bus::handler_fn(move |event: Delivered| {
            let handler = handler.clone();
            async move {
                let first = event.attempt == 1;
                handler.handle(event).await?;
                if first { Err(HandlerError::Poison("killed after the effect".into())) } else { Ok(()) }
            }
        });
        let options = SubscribeOptions::at_least_once(Pattern::new("fills").unwrap(), "book", failing);
        let sub = bus.subscribe(options).await.unwrap();
        for data in ["good", "bad"] {
            let event = Envelope::new(Topic::new("fills").unwrap(), "fill.v1", clock.wall(), data);
            bus.publish(event, Delivery::AtLeastOnce).await.unwrap();
        }
        sub.drained().await.unwrap();
        assert_eq!(bus.redrive("book", DeadLetters::All).await.unwrap(), 2);
        sub.drained().await.unwrap();
        assert_eq!(sub.metrics().processed + sub.metrics().failed, 4);
        let sum = store.get_counter(&home, &Key::record("sum").unwrap()).await.unwrap();
        assert_eq!(sum, 5, "one effect for the good one, none for the bad one");
    }

    #[test]
    fn only_what_may_work_later_is_tried_again() {
        let lost = StoreError::Ambiguous { reason: "cut".into() };
        assert!(matches!(told(&lost), HandlerError::Retry(_)));
        let wrong = StoreError::Invalid { rule: "no".into() };
        assert!(matches!(told(&wrong), HandlerError::Poison(_)));
    }
}
