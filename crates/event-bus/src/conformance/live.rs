//! At most once: to live subscriptions, now.

use std::sync::Arc;

use super::{Fixture, Gate, Log, drain, event, pattern, start, store, until};
use crate::{BusError, Delivery, EventBus, HandlerError, Overflow, SubscribeOptions};

async fn send(bus: &Arc<dyn EventBus>, topic: &str, data: &str) {
    bus.publish(event(topic, "k", data), Delivery::AtMostOnce).await.expect("a live publish succeeds");
}

/// Each live subscription whose pattern takes the topic gets the event, in order; the others do not.
pub async fn live_events_reach_every_subscription_that_wants_them(f: impl Fixture) {
    let bus = f.bus();
    let (all, btc, eth) = (Log::new(), Log::new(), Log::new());
    let mut subs = Vec::new();
    for (text, log) in [("*", &all), ("prices:BTC", &btc), ("prices:ETH", &eth)] {
        subs.push(start(&bus, SubscribeOptions::at_most_once(pattern(text), log.handler())).await);
    }
    for n in 0..50 {
        send(&bus, "prices:BTC", &format!("b{n}")).await;
    }
    for sub in &subs {
        drain(sub).await;
    }
    let want: Vec<_> = (0..50).map(|n| format!("b{n}#1")).collect();
    assert_eq!(all.lines(), want);
    assert_eq!(btc.lines(), want);
    assert_eq!(eth.lines(), Vec::<String>::new());
}

/// `*` takes any run, `:` included, live and stored; the handler sees the topic, not the pattern.
pub async fn a_star_crosses_colons_and_topics_stay_real(f: impl Fixture) {
    let bus = f.bus();
    let (live, stored) = (Log::new(), Log::new());
    let a = start(&bus, SubscribeOptions::at_most_once(pattern("prices:*"), live.handler())).await;
    let b = start(&bus, SubscribeOptions::at_least_once(pattern("p?ices:*T*"), "g", stored.handler())).await;
    for topic in ["prices:BTC", "prices:spot:binance:BTC", "orders:BTC"] {
        store(&bus, event(topic, "k", topic)).await;
    }
    drain(&a).await;
    drain(&b).await;
    assert_eq!(live.lines(), ["prices:BTC#1", "prices:spot:binance:BTC#1"]);
    assert_eq!(stored.lines(), live.lines());
    assert!(stored.seen.lock().iter().all(|d| d.envelope.topic.as_str().as_bytes() == d.envelope.data));
    assert!(stored.seen.lock().iter().all(|d| !d.is_replay));
}

/// A live subscription sees both classes; a group sees only what was stored for it.
pub async fn stored_events_reach_live_subscriptions_and_live_ones_are_not_stored(f: impl Fixture) {
    let bus = f.bus();
    let (live, group) = (Log::new(), Log::new());
    let a = start(&bus, SubscribeOptions::at_most_once(pattern("*"), live.handler())).await;
    let b = start(&bus, SubscribeOptions::at_least_once(pattern("*"), "g", group.handler())).await;
    send(&bus, "t", "live").await;
    assert!(store(&bus, event("t", "k", "stored")).await.seq.is_some());
    drain(&a).await;
    drain(&b).await;
    assert_eq!(live.lines(), ["live#1", "stored#1"]);
    assert_eq!(group.lines(), ["stored#1"]);
}

/// Fills a queue of 3 behind a held handler with 6 events, and answers what was handled in the end.
async fn overflow(f: &impl Fixture, policy: Overflow) -> (Vec<String>, u64, u64) {
    let bus = f.bus();
    let (gate, log) = (Gate::new(), Log::new());
    let handler = gate.handler(&log, |d| d.envelope.data == "0".as_bytes());
    let sub = start(&bus, SubscribeOptions::at_most_once(pattern("t"), handler).with_queue(3, policy)).await;
    send(&bus, "t", "0").await;
    gate.wait().await;
    for n in 1..=6 {
        send(&bus, "t", &n.to_string()).await;
    }
    gate.open(1);
    drain(&sub).await;
    (log.lines(), sub.metrics().dropped, bus.metrics().dropped)
}

/// A full queue lets the oldest go.
pub async fn drop_oldest_keeps_the_newest_and_counts(f: impl Fixture) {
    let (lines, dropped, of_bus) = overflow(&f, Overflow::DropOldest).await;
    assert_eq!(lines, ["0#1", "4#1", "5#1", "6#1"]);
    assert_eq!((dropped, of_bus), (3, 3));
}

/// A full queue refuses the newest.
pub async fn drop_newest_keeps_the_oldest_and_counts(f: impl Fixture) {
    let (lines, dropped, of_bus) = overflow(&f, Overflow::DropNewest).await;
    assert_eq!(lines, ["0#1", "1#1", "2#1", "3#1"]);
    assert_eq!((dropped, of_bus), (3, 3));
}

/// With policy `Error` the publisher learns of a full queue, and everybody else got the event. A stored event is not called
/// failed for it.
pub async fn error_tells_the_publisher_and_serves_the_others(f: impl Fixture) {
    let bus = f.bus();
    let (gate, slow, quick) = (Gate::new(), Log::new(), Log::new());
    let options = SubscribeOptions::at_most_once(pattern("t*"), gate.handler(&slow, |_| true));
    let a = start(&bus, options.with_queue(1, Overflow::Error)).await;
    let b = start(&bus, SubscribeOptions::at_most_once(pattern("t"), quick.handler())).await;
    send(&bus, "t", "1").await;
    gate.wait().await;
    send(&bus, "t", "2").await;
    let refused = bus.publish(event("t", "k", "3"), Delivery::AtMostOnce).await;
    assert!(
        matches!(&refused, Err(BusError::SubscriberFull { subscription }) if subscription == "t*"),
        "the publisher must learn of it, got {refused:?}"
    );
    store(&bus, event("t", "k", "4")).await;
    gate.open(2);
    drain(&a).await;
    drain(&b).await;
    assert_eq!(slow.lines(), ["1#1", "2#1"]);
    assert_eq!(quick.lines(), ["1#1", "2#1", "3#1", "4#1"]);
    assert_eq!(a.metrics().dropped, 2);
}

/// With policy `Block` the publisher waits and nothing is lost.
pub async fn block_loses_nothing(f: impl Fixture) {
    let bus = f.bus();
    let (gate, log) = (Gate::new(), Log::new());
    let handler = gate.handler(&log, |d| d.envelope.data == "0".as_bytes());
    let sub = start(&bus, SubscribeOptions::at_most_once(pattern("t"), handler).with_queue(2, Overflow::Block)).await;
    let publisher = tokio::spawn({
        let bus = bus.clone();
        async move {
            for n in 0..100 {
                send(&bus, "t", &n.to_string()).await;
            }
        }
    });
    gate.wait().await;
    // One at the gate, two in the queue: the fourth publish waits.
    until("the queue is full", || sub.metrics().published == 3).await;
    assert!(!publisher.is_finished());
    gate.open(1);
    publisher.await.expect("the publisher ends");
    drain(&sub).await;
    assert_eq!(log.lines(), (0..100).map(|n| format!("{n}#1")).collect::<Vec<_>>());
    assert_eq!(sub.metrics().dropped, 0);
}

/// Errors and panics are counted; a live event is not tried again, and the next one is handled.
pub async fn a_live_handler_that_fails_is_counted_and_goes_on(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let handler = log.answering(|d| match d.envelope.data.as_ref() {
        b"error" => Err(HandlerError::Retry("no".into())),
        b"panic" => panic!("on purpose"),
        _ => Ok(()),
    });
    let sub = start(&bus, SubscribeOptions::at_most_once(pattern("t"), handler)).await;
    for data in ["error", "panic", "good"] {
        send(&bus, "t", data).await;
    }
    drain(&sub).await;
    assert_eq!(log.lines(), ["error#1", "panic#1", "good#1"]);
    assert_eq!((sub.metrics().processed, sub.metrics().failed), (1, 2));
}
