//! Crashes. A bus that does not survive its process says so, and then nothing may be left of it.

use super::{Fixture, Gate, Log, SECOND, crash, drain, event, every, id, pattern, start, store, until};
use crate::{BusError, HandlerError, SubscribeOptions};

/// What was acknowledged to publishers is delivered after a crash.
pub async fn stored_events_survive_a_crash(mut f: impl Fixture) {
    let log = Log::new();
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", log.handler());
    start(&f.bus(), options.clone()).await.stop().await.expect("it stops");
    for n in 0..20 {
        store(&f.bus(), event("t", "k", n.to_string())).await;
    }
    if !crash(&mut f, "g").await {
        return;
    }
    store(&f.bus(), event("t", "k", "20")).await;
    drain(&start(&f.bus(), options).await).await;
    assert_eq!(log.lines(), (0..21).map(|n| format!("{n}#1")).collect::<Vec<_>>());
}

/// Attempts, the time of the next one and the last error are stored, not remembered.
pub async fn attempts_and_errors_survive_a_crash(mut f: impl Fixture) {
    let log = Log::new();
    let handler = log.answering(|d| Err(HandlerError::Retry(format!("no {}", d.attempt))));
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", handler).with_retry(2, every(10));
    let sub = start(&f.bus(), options.clone()).await;
    store(&f.bus(), event("t", "k", "a")).await;
    until("the failure is settled", || sub.metrics().failed == 1).await;
    if !crash(&mut f, "g").await {
        return;
    }
    let sub = start(&f.bus(), options).await;
    store(&f.bus(), event("t", "other", "probe")).await;
    until("the probe failed", || sub.metrics().failed == 1).await;
    assert_eq!(log.lines(), ["a#1", "probe#1"], "the wait goes on after the crash");
    f.advance(SECOND * 10).await;
    drain(&sub).await;
    let dead = f.bus().dead_letters("g", 0, 10).await.expect("readable");
    assert_eq!(dead.iter().map(|d| d.error.as_str()).collect::<Vec<_>>(), ["no 2", "no 2"]);
    assert!(log.lines().contains(&"a#2".to_owned()));
}

/// What a dead consumer had claimed is handled by another once the lease has run out, as the next attempt, in order.
pub async fn claims_of_the_dead_come_back_after_the_lease(mut f: impl Fixture) {
    let (gate, log) = (Gate::new(), Log::new());
    let options = |handler| SubscribeOptions::at_least_once(pattern("t"), "g", handler).with_lease(SECOND * 30);
    start(&f.bus(), options(log.handler())).await.stop().await.expect("it stops");
    for (key, data) in [("k", "1"), ("k", "2"), ("k", "3")] {
        store(&f.bus(), event("t", key, data)).await;
    }
    start(&f.bus(), options(gate.handler(&log, |_| true))).await;
    gate.wait().await;
    if !crash(&mut f, "g").await {
        return;
    }
    let sub = start(&f.bus(), options(log.handler())).await;
    store(&f.bus(), event("t", "other", "probe")).await;
    assert_eq!(log.wait(2).await, ["1#1", "probe#1"], "the lease still runs");
    f.advance(SECOND * 30).await;
    drain(&sub).await;
    assert_eq!(log.lines(), ["1#1", "probe#1", "1#2", "2#2", "3#2"]);
}

/// A new run of the same consumer does not wait for its own old lease.
pub async fn the_same_consumer_name_takes_over_at_once(mut f: impl Fixture) {
    let (gate, log) = (Gate::new(), Log::new());
    let options = |handler| SubscribeOptions::at_least_once(pattern("t"), "g", handler).with_consumer("bot_001");
    start(&f.bus(), options(gate.handler(&log, |_| true))).await;
    store(&f.bus(), event("t", "k", "1")).await;
    gate.wait().await;
    if !crash(&mut f, "g").await {
        return;
    }
    drain(&start(&f.bus(), options(log.handler())).await).await;
    assert_eq!(log.lines(), ["1#1", "1#2"]);
}

/// An event that takes its process down each time becomes a dead letter; its neighbours in the same claims do not.
pub async fn an_event_that_kills_its_consumers_dies_alone(mut f: impl Fixture) {
    let (gate, log) = (Gate::new(), Log::new());
    let options = |handler| {
        SubscribeOptions::at_least_once(pattern("t"), "g", handler).with_consumer("bot").with_retry(1, every(1))
    };
    start(&f.bus(), options(log.handler())).await.stop().await.expect("it stops");
    for (key, data) in [("a", "before"), ("k", "killer"), ("k", "behind"), ("b", "beside")] {
        store(&f.bus(), event("t", key, data)).await;
    }
    for _ in 0..3 {
        start(&f.bus(), options(gate.handler(&log, |d| d.envelope.data == "killer".as_bytes()))).await;
        gate.wait().await;
        if !crash(&mut f, "g").await {
            return;
        }
    }
    let sub = start(&f.bus(), options(log.handler())).await;
    drain(&sub).await;
    let lines = log.lines();
    assert_eq!(lines.iter().filter(|l| l.starts_with("killer")).count(), 3, "{lines:?}");
    for innocent in ["before", "behind", "beside"] {
        assert!(lines.iter().any(|l| l.starts_with(innocent)), "{innocent} was handled: {lines:?}");
    }
    let dead = f.bus().dead_letters("g", 0, 10).await.expect("readable");
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert!(dead[0].error.contains("died") && dead[0].attempts == 3, "{dead:?}");
    assert_eq!(sub.metrics().dead_lettered, 1);
}

/// A publisher that crashed before it knew may publish again.
pub async fn ids_are_recognised_after_a_crash(mut f: impl Fixture) {
    let log = Log::new();
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", log.handler());
    let sub = start(&f.bus(), options.clone()).await;
    let sent = event("t", "k", "once").with_id(id("order-1/filled"));
    store(&f.bus(), sent.clone()).await;
    drain(&sub).await;
    if !crash(&mut f, "g").await {
        return;
    }
    assert!(store(&f.bus(), sent).await.duplicate);
    drain(&start(&f.bus(), options).await).await;
    assert_eq!(log.lines(), ["once#1"]);
}

/// Two runs under one name would take each other's claims: refused where it can be seen.
pub async fn two_consumers_may_not_share_a_name(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", log.handler()).with_consumer("bot");
    let first = start(&bus, options.clone()).await;
    let second = bus.subscribe(options.clone()).await.expect_err("the name is taken");
    assert!(matches!(second, BusError::ConsumerInUse { .. }), "{second:?}");
    first.stop().await.expect("it stops");
    start(&bus, options).await;
}
