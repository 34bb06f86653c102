//! Payloads in JSON.

use std::{future::Future, sync::Arc};

use infra_types::{Envelope, Timestamp, Topic};
use serde::{Serialize, de::DeserializeOwned};

use crate::{BusError, Delivered, Delivery, EventBus, Handler, HandlerError, Published, handler_fn};

/// What can be said more shortly.
pub trait EventBusExt: EventBus {
    /// Publishes a value as JSON, in the running task's correlation; the order key is the topic. For any other attribute build the
    /// [`Envelope`] yourself. `kind` names what it is with its version, e.g. `fill.v1`; `time` is when it happened.
    ///
    /// # Errors
    /// `Invalid` for a value that JSON cannot hold; else as [`EventBus::publish`].
    ///
    /// # Cancel safety
    /// As [`EventBus::publish`].
    fn publish_json<T: Serialize + Sync>(
        &self,
        topic: &Topic,
        kind: &str,
        time: Timestamp,
        value: &T,
        delivery: Delivery,
    ) -> impl Future<Output = Result<Published, BusError>> + Send {
        let encoded = serde_json::to_vec(value);
        async move {
            let data = encoded.map_err(|e| BusError::Invalid { rule: format!("the value must fit into JSON: {e}") })?;
            self.publish(Envelope::new(topic.clone(), kind, time, data), delivery).await
        }
    }
}

impl<B: EventBus + ?Sized> EventBusExt for B {}

/// A handler of JSON payloads. What cannot be decoded as `T` is poison: it becomes a dead letter at once, with the reason, since it
/// would fail in the same way each time.
pub fn json_handler<T, F, Fut>(f: F) -> Arc<dyn Handler>
where
    T: DeserializeOwned + Send,
    F: Fn(T, Delivered) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    let f = Arc::new(f);
    handler_fn(move |event: Delivered| {
        let f = f.clone();
        async move {
            let value = serde_json::from_slice(&event.envelope.data).map_err(|e| {
                let (kind, wanted) = (&event.envelope.kind, std::any::type_name::<T>());
                HandlerError::Poison(format!("the payload of kind {kind:?} is no {wanted}: {e}"))
            })?;
            f(value, event).await
        }
    })
}

#[cfg(test)]
mod tests {
    use infra_types::{Clock, ManualClock};
    use parking_lot::Mutex;

    use super::*;
    use crate::{MemoryEventBus, Pattern, SubscribeOptions};

    #[tokio::test]
    async fn values_arrive_and_what_is_none_is_a_dead_letter_at_once() {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
        let bus: Arc<dyn EventBus> = Arc::new(MemoryEventBus::new(clock.clone()));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let handler = json_handler(move |pair: (String, u64), event| {
            log.lock().push((pair, event.attempt));
            async { Ok(()) }
        });
        let options = SubscribeOptions::at_least_once(Pattern::new("t").unwrap(), "g", handler);
        let sub = bus.subscribe(options).await.unwrap();
        let topic = Topic::new("t").unwrap();
        // Above what a double holds exactly.
        let value = ("a".to_owned(), 9_007_199_254_740_993u64);
        bus.publish_json(&topic, "pair.v1", clock.wall(), &value, Delivery::AtLeastOnce).await.unwrap();
        let other = Envelope::new(topic.clone(), "pair.v1", clock.wall(), "{}");
        bus.publish(other, Delivery::AtLeastOnce).await.unwrap();
        sub.drained().await.unwrap();
        assert_eq!(*seen.lock(), [(value, 1)]);
        let dead = bus.dead_letters("g", 0, 9).await.unwrap();
        assert_eq!((dead.len(), dead[0].attempts), (1, 1));
        assert!(dead[0].error.contains("pair.v1") && dead[0].error.contains("invalid type"), "{}", dead[0].error);
        let bad = std::collections::HashMap::from([((1, 2), 3)]);
        let refused = bus.publish_json(&topic, "map.v1", clock.wall(), &bad, Delivery::AtLeastOnce).await;
        assert!(matches!(refused, Err(BusError::Invalid { .. })), "{refused:?}");
    }
}
