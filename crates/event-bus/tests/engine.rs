//! What broke the engine once, on the memory bus.
#![expect(clippy::unwrap_used, reason = "the whole file is tests")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use infra_event_bus::{
    BusConfig, BusError, Delivered, Delivery, EventBus, HandlerError, Limits, MemoryEventBus, Overflow, Pattern,
    Replay, ReplayFrom, SubscribeOptions, handler_fn,
};
use infra_types::{Backoff, Envelope, SystemClock, Timestamp, Topic, backoff::Jitter};

fn bus() -> Arc<MemoryEventBus> {
    Arc::new(MemoryEventBus::new(SystemClock::shared()))
}

fn event(key: &str, data: impl Into<String>) -> Envelope {
    Envelope::new(Topic::new("t").unwrap(), "test.v1", Timestamp::EPOCH, data.into()).with_key(key)
}

fn all() -> Pattern {
    Pattern::new("*").unwrap()
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), work).await.expect("it happens soon")
}

/// One thread: whatever spins keeps this test from going on.
#[tokio::test]
async fn a_group_that_is_removed_while_a_retry_waits_leaves_nobody_busy() {
    let bus = bus();
    let wait = Duration::from_millis(5);
    let handler = handler_fn(|_| async { Err(HandlerError::Retry("not yet".into())) });
    let options = SubscribeOptions::at_least_once(all(), "g", handler)
        .with_retry(100, Backoff::new(wait, wait, 1, Jitter::None).unwrap());
    let sub = bus.subscribe(options).await.unwrap();
    bus.publish(event("k", "a"), Delivery::AtLeastOnce).await.unwrap();
    while sub.metrics().failed == 0 {
        tokio::task::yield_now().await;
    }
    assert!(bus.remove_group("g").await.unwrap());
    // Past the moment of the retry, and on.
    soon(tokio::time::sleep(Duration::from_millis(50))).await;
    soon(sub.stop()).await.unwrap();
}

#[tokio::test]
async fn drained_does_not_wait_for_what_its_own_handler_publishes() {
    let bus = bus();
    let (again, count) = (bus.clone(), Arc::new(AtomicU64::new(0)));
    let handler = handler_fn(move |event_: Delivered| {
        let (bus, count) = (again.clone(), count.clone());
        async move {
            let n = count.fetch_add(1, Ordering::Relaxed);
            // For ever: each handling publishes the next event.
            bus.publish(event(&event_.envelope.key, n.to_string()), Delivery::AtLeastOnce).await.unwrap();
            Ok(())
        }
    });
    let sub = bus.subscribe(SubscribeOptions::at_least_once(all(), "g", handler)).await.unwrap();
    bus.publish(event("k", "first"), Delivery::AtLeastOnce).await.unwrap();
    soon(sub.drained()).await.unwrap();
    bus.abandon();
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("dropped in the middle of its work");
        }
    }
}

#[tokio::test]
async fn work_that_panics_when_its_time_is_up_ends_nothing_but_itself() {
    let bus = bus();
    let handler = handler_fn(|event: Delivered| async move {
        if event.envelope.data == "bomb" {
            let _bomb = Bomb;
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    let timeout = Duration::from_millis(20);
    let durable = SubscribeOptions::at_least_once(all(), "g", handler.clone()).with_timeout(timeout);
    let durable = bus.subscribe(durable.with_retry(1, Backoff::default())).await.unwrap();
    let live = bus.subscribe(SubscribeOptions::at_most_once(all(), handler).with_timeout(timeout)).await.unwrap();
    for data in ["bomb", "fine"] {
        bus.publish(event("k", data), Delivery::AtLeastOnce).await.unwrap();
    }
    soon(durable.drained()).await.unwrap();
    soon(live.drained()).await.unwrap();
    for sub in [&durable, &live] {
        let metrics = sub.metrics();
        assert_eq!((metrics.failed, metrics.processed), (1, 1));
    }
    assert_eq!(bus.dead_letters("g", 0, 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_replay_says_when_events_went_before_or_while_it_ran() {
    let limits = Limits { history_max: 200, ..Limits::default() };
    let config = BusConfig { limits, ..BusConfig::default() };
    let bus = Arc::new(MemoryEventBus::with_config(SystemClock::shared(), config));
    for n in 0..200 {
        bus.publish(event("k", n.to_string()), Delivery::AtLeastOnce).await.unwrap();
    }
    let calm = handler_fn(|_| async { Ok(()) });
    let done = bus.replay(Replay::new(all(), ReplayFrom::Last(200), calm.clone())).await.unwrap();
    assert_eq!((done.handled, done.has_gap), (200, false));
    let busy = bus.clone();
    let handler = handler_fn(move |_| {
        let bus = busy.clone();
        async move {
            // Faster than it is read.
            for _ in 0..3 {
                bus.publish(event("k", "more"), Delivery::AtLeastOnce).await.unwrap();
            }
            Ok(())
        }
    });
    let done = bus.replay(Replay::new(all(), ReplayFrom::Last(200), handler)).await.unwrap();
    assert!(done.handled < 200 && done.has_gap, "{done:?}");

    // One that a group still needs stands alone before a hole.
    let limits = Limits { history_max: 10, ..Limits::default() };
    let bus = MemoryEventBus::with_config(SystemClock::shared(), BusConfig { limits, ..BusConfig::default() });
    let waiting = SubscribeOptions::at_least_once(Pattern::new("t").unwrap(), "g", calm.clone());
    bus.subscribe(waiting).await.unwrap().pause();
    bus.publish(event("k", "kept"), Delivery::AtLeastOnce).await.unwrap();
    for n in 0..100 {
        let other = Envelope::new(Topic::new("other").unwrap(), "test.v1", Timestamp::EPOCH, n.to_string());
        bus.publish(other, Delivery::AtLeastOnce).await.unwrap();
    }
    let done = bus.replay(Replay::new(all(), ReplayFrom::Earliest, calm)).await.unwrap();
    assert_eq!((done.handled, done.has_gap), (11, true));
}

#[tokio::test]
async fn a_conflating_queue_is_drained_when_the_latest_is_handled() {
    let bus = bus();
    let handler = handler_fn(|_| async { Ok(()) });
    let options = SubscribeOptions::at_most_once(all(), handler).with_queue(8, Overflow::Conflate);
    let sub = bus.subscribe(options).await.unwrap();
    sub.pause();
    for (key, data) in [("a", "1"), ("b", "1")] {
        bus.publish(event(key, data), Delivery::AtMostOnce).await.unwrap();
    }
    let drained = sub.drained();
    tokio::pin!(drained);
    for _ in 0..4 {
        bus.publish(event("a", "2"), Delivery::AtMostOnce).await.unwrap();
    }
    assert!(futures::poll!(drained.as_mut()).is_pending(), "nothing was handled");
    sub.resume();
    soon(drained).await.unwrap();
    assert_eq!((sub.metrics().processed, sub.metrics().conflated), (2, 4));
}

#[tokio::test]
async fn what_a_paused_live_subscription_dropped_is_reported_by_close() {
    let bus = bus();
    let options = SubscribeOptions::at_most_once(all(), handler_fn(|_| async { Ok(()) }));
    bus.subscribe(options).await.unwrap().pause();
    for n in 0..5 {
        bus.publish(event("k", n.to_string()), Delivery::AtMostOnce).await.unwrap();
    }
    let closed = soon(bus.close()).await;
    assert!(matches!(closed, Err(BusError::Unfinished { unfinished: 5, .. })), "{closed:?}");
    assert!(matches!(bus.status("g").await, Err(BusError::Closed)));
}

#[tokio::test]
async fn a_blocked_subscription_keeps_events_from_no_other() {
    let bus = bus();
    let hangs = handler_fn(|_| std::future::pending());
    let seen = Arc::new(AtomicU64::new(0));
    let count = seen.clone();
    let works = handler_fn(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        async { Ok(()) }
    });
    for handler in [hangs, works] {
        let options = SubscribeOptions::at_most_once(all(), handler).with_queue(1, Overflow::Block);
        bus.subscribe(options).await.unwrap();
    }
    let publisher = tokio::spawn({
        let bus = bus.clone();
        async move {
            for n in 0..4 {
                let _ = bus.publish(event("k", n.to_string()), Delivery::AtMostOnce).await;
            }
        }
    });
    // One is being handled by the hanging one, one waits for it, and the third is handed to the other all the same.
    soon(async {
        while seen.load(Ordering::Relaxed) < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    publisher.abort();
    bus.abandon();
}
