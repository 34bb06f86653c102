//! Priority topics (`BusConfig::priority`, by default those of risk and of the kill switch) overtake everything else.

use std::sync::Arc;

use infra_types::Clock;

use super::{Fixture, Gate, Log, SECOND, crash, drain, event, every, pattern, pending, start, store, until};
use crate::{DeadLetters, Delivered, Delivery, EventBus, HandlerError, Overflow, SubscribeOptions};

fn is_risk(d: &Delivered) -> bool {
    d.envelope.topic.as_str().starts_with("risk:")
}

fn of_risk(log: &Log) -> Vec<String> {
    log.lines().into_iter().filter(|line| line.starts_with('r')).collect()
}

/// Waits until this many events of risk were handled.
async fn risk_seen(log: &Log, n: usize) {
    until("the events of risk are handled", || of_risk(log).len() >= n).await;
}

async fn live(bus: &Arc<dyn EventBus>, topic: &str, data: impl Into<String>) {
    bus.publish(event(topic, "k", data), Delivery::AtMostOnce).await.expect("a live publish succeeds");
}

/// While a handler hangs on an event of the market, events of risk of the same key are handled, in order, one after another.
pub async fn priority_passes_a_hanging_handler(f: impl Fixture) {
    let bus = f.bus();
    let (gate, log) = (Gate::new(), Log::new());
    let handler = gate.handler(&log, |d| d.envelope.topic.as_str() == "prices:x");
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("*"), "g", handler)).await;
    store(&bus, event("prices:x", "k", "m")).await;
    gate.wait().await;
    for n in 0..5 {
        for (topic, data) in [("risk:limit", format!("r{n}")), ("prices:x", format!("m{n}"))] {
            store(&bus, event(topic, "k", data)).await;
        }
    }
    risk_seen(&log, 5).await;
    assert_eq!(log.lines(), ["m#1", "r0#1", "r1#1", "r2#1", "r3#1", "r4#1"]);
    for topic in ["kill:all", "halt:x", "emergency:x:y", "risk:z"] {
        let n = log.len();
        store(&bus, event(topic, topic, "more")).await;
        log.wait(n + 1).await;
    }
    gate.open(100);
    drain(&sub).await;
    assert_eq!(log.len(), 15);
    assert_eq!(pending(&bus, "g").await, Some(0));
}

/// The same on a live subscription, whose queue of market events does not stand in the way either.
pub async fn priority_passes_a_thousand_market_events(f: impl Fixture) {
    let bus = f.bus();
    let (gate, log) = (Gate::new(), Log::new());
    let handler = gate.handler(&log, |d| d.envelope.data == "hold".as_bytes());
    let options = SubscribeOptions::at_most_once(pattern("*"), handler).with_queue(1_000, Overflow::Error);
    let sub = start(&bus, options).await;
    live(&bus, "prices:x", "hold").await;
    gate.wait().await;
    for n in 0..1_000 {
        live(&bus, "prices:x", n.to_string()).await;
    }
    let full = bus.publish(event("prices:x", "k", "more"), Delivery::AtMostOnce).await;
    assert!(full.is_err(), "a thousand wait");
    for n in 0..5 {
        live(&bus, "risk:limit", format!("r{n}")).await;
        risk_seen(&log, n + 1).await;
    }
    assert_eq!(log.lines(), ["hold#1", "r0#1", "r1#1", "r2#1", "r3#1", "r4#1"]);
    gate.open(1);
    drain(&sub).await;
    assert_eq!((log.len(), sub.metrics().dropped), (1_006, 1));
}

/// A backlog that was there before the consumer does not delay events of risk that come last.
pub async fn priority_passes_a_backlog(f: impl Fixture) {
    let bus = f.bus();
    let (gate, log) = (Gate::new(), Log::new());
    let handler = gate.handler(&log, |d| !is_risk(d));
    let options = SubscribeOptions::at_least_once(pattern("*"), "g", handler).with_concurrency(4);
    start(&bus, options.clone()).await.stop().await.expect("it stops");
    let market = (0..190).map(|n| event("prices:x", &format!("k{n}"), "m")).collect();
    assert!(bus.publish_batch(market).await.iter().all(Result::is_ok));
    let risk = (0..5).map(|n| event("risk:limit", &format!("k{n}"), format!("r{n}"))).collect();
    assert!(bus.publish_batch(risk).await.iter().all(Result::is_ok));
    let sub = start(&bus, options).await;
    risk_seen(&log, 5).await;
    assert_eq!(of_risk(&log), ["r0#1", "r1#1", "r2#1", "r3#1", "r4#1"], "one after another, in stored order");
    assert!(log.len() <= 9, "each of four lanes stands at the gate: {:?}", log.lines());
    gate.open(190);
    drain(&sub).await;
    assert_eq!(log.len(), 195);
}

/// Nor the other way round: an event of risk that hangs or waits for its retry holds up nobody without priority.
pub async fn priority_does_not_hold_up_the_rest(f: impl Fixture) {
    let bus = f.bus();
    let (gate, log, queue) = (Gate::new(), Log::new(), Log::new());
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("*"), "g", gate.handler(&log, is_risk))).await;
    let tap = start(&bus, SubscribeOptions::at_most_once(pattern("*"), gate.handler(&queue, is_risk))).await;
    store(&bus, event("risk:limit", "k", "r")).await;
    gate.wait().await;
    gate.wait().await;
    for n in 0..20 {
        store(&bus, event("prices:x", "k", n.to_string())).await;
    }
    for log in [&log, &queue] {
        let lines = log.wait(21).await;
        assert_eq!(lines[1..], (0..20).map(|n| format!("{n}#1")).collect::<Vec<_>>());
    }
    gate.open(2);
    drain(&sub).await;
    drain(&tap).await;
}

/// Within the priority lane the order of a key holds through retries, and other keys go on.
pub async fn the_order_of_a_key_holds_within_priority(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let handler = log.answering(|d| match (d.envelope.data.as_ref(), d.attempt) {
        (b"r-a1", 1 | 2) => Err(HandlerError::Retry("no".into())),
        _ => Ok(()),
    });
    let options =
        SubscribeOptions::at_least_once(pattern("*"), "g", handler).with_retry(5, every(10)).with_concurrency(8);
    start(&bus, options.clone()).await.stop().await.expect("it stops");
    for (key, data) in [("a", "r-a1"), ("a", "r-a2"), ("b", "r-b1"), ("a", "r-a3")] {
        store(&bus, event("risk:limit", key, data)).await;
    }
    store(&bus, event("prices:x", "a", "m")).await;
    let sub = start(&bus, options).await;
    until("it failed", || sub.metrics().failed == 1).await;
    log.wait(3).await;
    store(&bus, event("risk:other", "b", "r-b2")).await;
    store(&bus, event("risk:other", "a", "r-a4")).await;
    log.wait(4).await;
    assert_eq!(of_risk(&log), ["r-a1#1", "r-b1#1", "r-b2#1"]);
    assert!(log.lines().contains(&"m#1".to_owned()), "the same key without priority goes on");
    f.advance(SECOND * 10).await;
    until("it failed again", || sub.metrics().failed == 2).await;
    f.advance(SECOND * 10).await;
    drain(&sub).await;
    assert_eq!(of_risk(&log)[3..], ["r-a1#2", "r-a1#3", "r-a2#1", "r-a3#1", "r-a4#1"]);
}

/// The lane stays with the event when it is delayed, and when it is put back to work.
pub async fn delayed_and_redriven_events_keep_their_priority(f: impl Fixture) {
    let bus = f.bus();
    let (gate, log) = (Gate::new(), Log::new());
    let options = |handler| SubscribeOptions::at_least_once(pattern("*"), "g", handler);
    let handler = log.answering(|_| Err(HandlerError::Poison("bad".into())));
    let sub = start(&bus, options(handler)).await;
    store(&bus, event("risk:limit", "k", "r-dead")).await;
    drain(&sub).await;
    sub.stop().await.expect("it stops");
    let sub = start(&bus, options(gate.handler(&log, |d| !is_risk(d)))).await;
    store(&bus, event("prices:x", "k", "m")).await;
    gate.wait().await;
    store(&bus, event("prices:x", "k", "m")).await;
    assert_eq!(bus.redrive("g", DeadLetters::All).await.ok(), Some(1));
    risk_seen(&log, 2).await;
    let at = f.clock().wall().saturating_add(SECOND);
    bus.publish_at(event("prices:x", "k", "m"), at).await.expect("it is kept");
    bus.publish_at(event("risk:limit", "k", "r-later"), at).await.expect("it is kept");
    f.advance(SECOND).await;
    risk_seen(&log, 3).await;
    assert_eq!(log.lines(), ["r-dead#1", "m#1", "r-dead#1", "r-later#1"]);
    gate.open(3);
    drain(&sub).await;
}

/// Priority is stored with the event: after a crash, with the claims of the dead, it still comes beside the rest.
pub async fn priority_survives_a_crash(mut f: impl Fixture) {
    let (gate, log) = (Gate::new(), Log::new());
    let options = |handler| SubscribeOptions::at_least_once(pattern("*"), "g", handler).with_consumer("bot");
    start(&f.bus(), options(log.handler())).await.stop().await.expect("it stops");
    for (topic, data) in [("prices:x", "m1"), ("prices:x", "m2"), ("risk:limit", "r1"), ("risk:limit", "r2")] {
        store(&f.bus(), event(topic, "k", data)).await;
    }
    if !crash(&mut f, "g").await {
        return;
    }
    let sub = start(&f.bus(), options(gate.handler(&log, |d| !is_risk(d)))).await;
    gate.wait().await;
    risk_seen(&log, 2).await;
    assert_eq!((of_risk(&log), log.len()), (vec!["r1#1".to_owned(), "r2#1".to_owned()], 3));
    gate.open(2);
    drain(&sub).await;
    assert_eq!(log.len(), 4);
}

/// An event whose consumers died with it comes alone, but nothing of risk waits for it.
pub async fn priority_passes_what_comes_alone(mut f: impl Fixture) {
    let (gate, log) = (Gate::new(), Log::new());
    let options = |handler| SubscribeOptions::at_least_once(pattern("*"), "g", handler).with_consumer("bot");
    start(&f.bus(), options(gate.handler(&log, |d| !is_risk(d)))).await;
    store(&f.bus(), event("prices:x", "k", "killer")).await;
    gate.wait().await;
    if !crash(&mut f, "g").await {
        return;
    }
    store(&f.bus(), event("prices:x", "other", "market")).await;
    let sub = start(&f.bus(), options(gate.handler(&log, |d| !is_risk(d)))).await;
    gate.wait().await;
    for n in 0..3 {
        store(&f.bus(), event("risk:limit", "k", format!("r{n}"))).await;
        risk_seen(&log, n + 1).await;
    }
    assert_eq!(log.lines(), ["killer#1", "killer#2", "r0#1", "r1#1", "r2#1"], "and nothing else beside it");
    gate.open(100);
    drain(&sub).await;
    assert_eq!(log.lines()[5..], ["market#1"]);
}
