//! `OnRetry::Skip`: later events of a key do not wait for an earlier one's retry.

use std::sync::Arc;

use super::{Fixture, Log, SECOND, crash, drain, event, every, pattern, start, store, until};
use crate::{EventBus, Handler, HandlerError, OnRetry, SubscribeOptions};

/// `a1` works at its third attempt, `never` at none.
fn stubborn(log: &Arc<Log>) -> Arc<dyn Handler> {
    log.answering(|d| match (d.envelope.data.as_ref(), d.attempt) {
        (b"a1" | b"a2", 1 | 2) | (b"never", _) => Err(HandlerError::Retry(format!("no {}", d.attempt))),
        _ => Ok(()),
    })
}

fn skipping(handler: Arc<dyn Handler>) -> SubscribeOptions {
    SubscribeOptions::at_least_once(pattern("t"), "g", handler).with_retry(3, every(10)).on_retry(OnRetry::Skip)
}

async fn store_all(bus: &Arc<dyn EventBus>, payloads: &[&str]) {
    for data in payloads {
        store(bus, event("t", "k", *data)).await;
    }
}

/// The failed one steps aside and comes when its time has come; the others keep their order. Both in one claim and over several.
pub async fn skip_lets_later_events_of_the_key_go_on(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let options = skipping(stubborn(&log));
    start(&bus, options.clone()).await.stop().await.expect("it stops");
    store_all(&bus, &["a1", "b", "c"]).await;
    let sub = start(&bus, options).await;
    assert_eq!(log.wait(3).await, ["a1#1", "b#1", "c#1"]);
    until("the failure is settled", || sub.metrics().failed == 1).await;
    store_all(&bus, &["d", "e"]).await;
    assert_eq!(log.wait(5).await[3..], ["d#1", "e#1"]);
    f.advance(SECOND * 9).await;
    store_all(&bus, &["f"]).await;
    assert_eq!(log.wait(6).await[5], "f#1", "it does not come before its time");
    f.advance(SECOND).await;
    assert_eq!(log.wait(7).await[6], "a1#2");
    until("it failed again", || sub.metrics().failed == 2).await;
    f.advance(SECOND * 10).await;
    drain(&sub).await;
    assert_eq!(log.lines()[7..], ["a1#3"]);
}

/// Several of one key may wait aside at the same time.
pub async fn several_of_a_key_may_step_aside(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let sub = start(&bus, skipping(stubborn(&log))).await;
    store_all(&bus, &["a1"]).await;
    until("the first failed", || sub.metrics().failed == 1).await;
    store_all(&bus, &["a2", "b"]).await;
    until("the second failed", || sub.metrics().failed == 2).await;
    assert_eq!(log.wait(3).await, ["a1#1", "a2#1", "b#1"]);
    f.advance(SECOND * 10).await;
    until("both failed again", || sub.metrics().failed == 4).await;
    f.advance(SECOND * 10).await;
    drain(&sub).await;
    let lines = log.lines();
    assert_eq!((lines.len(), sub.metrics().dead_lettered), (7, 0), "{lines:?}");
    for last in ["a1#3", "a2#3"] {
        assert_eq!(lines.iter().filter(|l| *l == last).count(), 1, "{lines:?}");
    }
}

/// Stepping aside does not save an event from its last attempt.
pub async fn a_skipped_event_dies_after_its_attempts(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let sub = start(&bus, skipping(stubborn(&log))).await;
    store_all(&bus, &["never", "b"]).await;
    for failed in 1..3 {
        until("it failed", || sub.metrics().failed == failed).await;
        f.advance(SECOND * 10).await;
    }
    drain(&sub).await;
    assert_eq!(log.lines().iter().filter(|l| l.starts_with("never")).count(), 3);
    let dead = bus.dead_letters("g", 0, 10).await.expect("readable");
    assert_eq!(dead.iter().map(|d| (d.error.as_str(), d.attempts)).collect::<Vec<_>>(), [("no 3", 3)]);
}

/// That it stepped aside is stored: after a crash it still holds up nobody, and keeps its attempts and its time.
pub async fn a_skipped_event_stays_aside_after_a_crash(mut f: impl Fixture) {
    let log = Log::new();
    let sub = start(&f.bus(), skipping(stubborn(&log))).await;
    store_all(&f.bus(), &["a1"]).await;
    until("the failure is settled", || sub.metrics().failed == 1).await;
    if !crash(&mut f, "g").await {
        return;
    }
    let sub = start(&f.bus(), skipping(stubborn(&log))).await;
    store_all(&f.bus(), &["b"]).await;
    assert_eq!(log.wait(2).await, ["a1#1", "b#1"]);
    f.advance(SECOND * 10).await;
    until("it failed again", || sub.metrics().failed == 1).await;
    f.advance(SECOND * 10).await;
    drain(&sub).await;
    assert_eq!(log.lines(), ["a1#1", "b#1", "a1#2", "a1#3"]);
}
