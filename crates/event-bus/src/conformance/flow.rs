//! How a subscription slows down: pause, conflation, and what waits meanwhile.

use std::sync::Arc;

use super::{Fixture, Gate, Log, drain, event, patiently, pattern, pending, start, store, until};
use crate::{BusError, Delivery, EventBus, Overflow, SubscribeOptions};

async fn send(bus: &Arc<dyn EventBus>, topic: &str, key: &str, data: &str) {
    let sent = bus.publish(event(topic, key, data), Delivery::AtMostOnce);
    patiently("a live publish", sent).await.expect("a live publish succeeds");
}

/// Behind a held handler only the latest of each key waits, in the place of the one that it follows.
pub async fn conflation_keeps_the_latest_of_each_key_in_order(f: impl Fixture) {
    let bus = f.bus();
    let (gate, log) = (Gate::new(), Log::new());
    let handler = gate.handler(&log, |d| d.envelope.data.starts_with(b"hold"));
    let options = SubscribeOptions::at_most_once(pattern("*"), handler).with_queue(10, Overflow::Conflate);
    let sub = start(&bus, options).await;
    for round in 0..2 {
        send(&bus, "p", "a", "hold").await;
        gate.wait().await;
        for (topic, key, data) in [
            ("p", "a", "a1"),
            ("p", "b", "b1"),
            ("p", "a", "a2"),
            ("q", "a", "other topic"),
            ("p", "c", "c1"),
            ("p", "a", "a3"),
            ("p", "b", "b2"),
        ] {
            send(&bus, topic, key, data).await;
        }
        assert_eq!(sub.waiting(), 4);
        gate.open(1);
        drain(&sub).await;
        assert_eq!(log.data()[5 * round..], ["hold", "a3", "b2", "other topic", "c1"], "round {round}");
    }
    let told = sub.metrics();
    assert_eq!((told.conflated, told.dropped, told.published, told.processed), (6, 0, 16, 10));
    assert_eq!(bus.metrics().conflated, 6);
    assert_eq!(sub.waiting(), 0);
}

/// The bound is on the keys that wait: beyond it the oldest makes room, is counted as dropped, and may come anew.
pub async fn conflation_is_bounded_by_its_keys(f: impl Fixture) {
    let bus = f.bus();
    let (gate, log) = (Gate::new(), Log::new());
    let handler = gate.handler(&log, |d| d.envelope.data == "hold".as_bytes());
    let options = SubscribeOptions::at_most_once(pattern("p"), handler).with_queue(3, Overflow::Conflate);
    let sub = start(&bus, options).await;
    send(&bus, "p", "x", "hold").await;
    gate.wait().await;
    for (key, data) in
        [("a", "a1"), ("b", "b1"), ("c", "c1"), ("c", "c2"), ("d", "d1"), ("b", "b2"), ("a", "a2"), ("d", "d2")]
    {
        send(&bus, "p", key, data).await;
    }
    // d1 let a1 go, a2 let b2 go.
    gate.open(1);
    drain(&sub).await;
    assert_eq!(log.data(), ["hold", "c2", "d2", "a2"]);
    assert_eq!((sub.metrics().conflated, sub.metrics().dropped, sub.metrics().processed), (3, 2, 4));
}

/// A subscriber that keeps up sees every event: what is being handled is not replaced any more.
pub async fn conflation_loses_nothing_for_who_keeps_up(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let options = SubscribeOptions::at_most_once(pattern("p"), log.handler()).with_queue(1, Overflow::Conflate);
    let sub = start(&bus, options).await;
    for n in 0..50 {
        send(&bus, "p", "a", &n.to_string()).await;
        drain(&sub).await;
    }
    assert_eq!(log.data(), (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!((sub.metrics().conflated, sub.metrics().dropped), (0, 0));
}

/// What a paused consumer had claimed and not begun is another's, as the attempt that it was.
pub async fn a_paused_consumer_gives_back_what_it_did_not_begin(f: impl Fixture) {
    let bus = f.bus();
    let (gate, held, log) = (Gate::new(), Log::new(), Log::new());
    let options = |handler| SubscribeOptions::at_least_once(pattern("t"), "g", handler);
    start(&bus, options(log.handler())).await.stop().await.expect("it stops");
    for n in 0..5 {
        store(&bus, event("t", &format!("k{n}"), n.to_string())).await;
    }
    let first = start(&bus, options(gate.handler(&held, |_| true))).await;
    gate.wait().await;
    assert_eq!(first.waiting(), 5);
    first.pause();
    assert!(first.is_paused());
    gate.open(1);
    until("what runs has ended and the rest is given back", || first.waiting() == 0).await;
    until("the end is counted", || first.metrics().processed == 1).await;
    assert_eq!(pending(&bus, "g").await, Some(4));
    let second = start(&bus, options(log.handler())).await;
    drain(&second).await;
    assert_eq!(
        (held.lines(), log.lines()),
        (vec!["0#1".into()], vec!["1#1".into(), "2#1".into(), "3#1".into(), "4#1".into()])
    );
    assert_eq!(first.metrics().redelivered + second.metrics().redelivered, 0, "nothing was begun twice");
}

/// A paused group collects; resumed it goes on in order, as if nothing had been. Pausing twice is pausing once.
pub async fn a_paused_group_collects_and_goes_on(f: impl Fixture) {
    let bus = f.bus();
    let (log, probe) = (Log::new(), Log::new());
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", log.handler())).await;
    let other = start(&bus, SubscribeOptions::at_least_once(pattern("*"), "other", probe.handler())).await;
    assert!(!sub.is_paused());
    for round in 0..3 {
        sub.pause();
        sub.pause();
        for n in 0..4 {
            store(&bus, event("t", "k", format!("{round}/{n}"))).await;
        }
        drain(&other).await;
        assert_eq!((log.len(), pending(&bus, "g").await), (4 * round, Some(4)));
        sub.resume();
        drain(&sub).await;
        assert!(!sub.is_paused());
    }
    assert_eq!(log.lines(), probe.lines());
    assert_eq!(log.len(), 12);
}

/// A paused live queue fills and then does what its policy says; what waits is handled when it is resumed.
pub async fn a_paused_live_queue_does_what_its_policy_says(f: impl Fixture) {
    let bus = f.bus();
    for (overflow, want, dropped, conflated) in [
        (Overflow::DropOldest, ["3", "4", "5"], 3, 0),
        (Overflow::DropNewest, ["0", "1", "2"], 3, 0),
        (Overflow::Error, ["0", "1", "2"], 3, 0),
        (Overflow::Conflate, ["3", "4", "5"], 0, 3),
    ] {
        let log = Log::new();
        let sub =
            start(&bus, SubscribeOptions::at_most_once(pattern("p"), log.handler()).with_queue(3, overflow)).await;
        // It waits for its first event when the pause comes.
        store(&bus, event("p", "k", "before")).await;
        drain(&sub).await;
        sub.pause();
        for n in 0..6 {
            let sent = bus.publish(event("p", &format!("k{}", n % 3), n.to_string()), Delivery::AtMostOnce).await;
            let refused = matches!(sent, Err(BusError::SubscriberFull { .. }));
            assert_eq!(refused, overflow == Overflow::Error && n >= 3, "{overflow:?}: {sent:?}");
        }
        assert_eq!((sub.waiting(), log.data()), (3, vec!["before".to_owned()]), "{overflow:?}");
        sub.resume();
        drain(&sub).await;
        assert_eq!(log.data()[1..], want, "{overflow:?}");
        assert_eq!(
            (sub.metrics().dropped, sub.metrics().conflated, sub.waiting()),
            (dropped, conflated, 0),
            "{overflow:?}"
        );
        sub.stop().await.expect("it stops");
    }
}

/// Stopping a paused subscription ends, begins nothing, keeps what is stored and counts what is not.
pub async fn a_paused_subscription_stops(f: impl Fixture) {
    let bus = f.bus();
    let (log, live) = (Log::new(), Log::new());
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", log.handler())).await;
    let tap = start(&bus, SubscribeOptions::at_most_once(pattern("t"), live.handler())).await;
    sub.pause();
    tap.pause();
    for n in 0..3 {
        store(&bus, event("t", "k", n.to_string())).await;
    }
    patiently("the stop", sub.stop()).await.expect("nothing ran, and the group keeps what waits");
    let stopped = patiently("the stop", tap.stop()).await;
    assert!(matches!(stopped, Err(BusError::Unfinished { unfinished: 3, .. })), "what is dropped is told: {stopped:?}");
    let drained = patiently("drained", sub.drained()).await;
    assert!(matches!(drained, Err(BusError::Stopped)), "{drained:?}");
    assert_eq!((log.len(), live.len(), tap.metrics().dropped, tap.waiting()), (0, 0, 3, 0));
    assert_eq!(pending(&bus, "g").await, Some(3));
    patiently("the close", bus.close()).await.expect("nothing ran");
}

/// What waits here is told: claimed by a durable subscription, queued by a live one, without what another consumer has.
pub async fn what_waits_here_is_told(f: impl Fixture) {
    let bus = f.bus();
    let (gate, log, live) = (Gate::new(), Log::new(), Log::new());
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", gate.handler(&log, |_| true))).await;
    let tap = start(&bus, SubscribeOptions::at_most_once(pattern("t"), gate.handler(&live, |_| true))).await;
    assert_eq!((sub.waiting(), tap.waiting()), (0, 0));
    store(&bus, event("t", "k", "0")).await;
    gate.wait().await;
    gate.wait().await;
    for n in 1..4 {
        store(&bus, event("t", "k", n.to_string())).await;
    }
    assert_eq!((sub.waiting(), tap.waiting()), (1, 3), "a busy lane claims nothing more, a queue fills");
    gate.open(100);
    drain(&sub).await;
    drain(&tap).await;
    until("all is settled", || sub.waiting() + tap.waiting() == 0).await;
    assert_eq!(log.lines(), live.lines());
}

/// A publisher that waits for a full queue is let go when the subscription, or the bus, ends.
pub async fn a_blocked_publisher_is_let_go(f: impl Fixture) {
    let bus = f.bus();
    for ends_with_the_bus in [false, true] {
        let (gate, log) = (Gate::new(), Log::new());
        let handler = gate.handler(&log, |_| true);
        let sub =
            start(&bus, SubscribeOptions::at_most_once(pattern("p"), handler).with_queue(1, Overflow::Block)).await;
        send(&bus, "p", "k", "0").await;
        gate.wait().await;
        send(&bus, "p", "k", "1").await;
        let mut blocked: Vec<_> = (0..3).map(|_| Box::pin(send(&bus, "p", "k", "more"))).collect();
        for publisher in &mut blocked {
            assert!(futures::poll!(publisher).is_pending(), "the queue is full");
        }
        gate.open(10);
        let ending = async { if ends_with_the_bus { bus.close().await } else { sub.stop().await } };
        // A publish that nobody hears any more is no failure: it is counted.
        let (ended, _) = patiently("the end", futures::future::join(ending, futures::future::join_all(blocked))).await;
        ended.expect("all ended in time");
        let told = sub.metrics();
        assert_eq!(told.processed + told.dropped, 5, "each was handled or is counted: {told:?}");
    }
}
