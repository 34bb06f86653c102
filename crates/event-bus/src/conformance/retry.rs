//! Failure: backoff, order, dead letters, hanging.

use std::time::Duration;

use super::{Fixture, Gate, Log, SECOND, drain, event, every, pattern, pending, start, store, until};
use crate::{HandlerError, SubscribeOptions};

fn retry(text: &str) -> Result<(), HandlerError> {
    Err(HandlerError::Retry(text.into()))
}

/// A failed event is not acknowledged: it comes again, not before its time, with the next attempt number.
pub async fn a_failed_event_comes_again_after_its_backoff(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let handler = log.answering(|d| if d.attempt < 3 { retry("not yet") } else { Ok(()) });
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", handler).with_retry(5, every(10));
    let sub = start(&bus, options).await;
    store(&bus, event("t", "k", "a")).await;
    until("the first failure is settled", || sub.metrics().failed == 1).await;
    assert_eq!(pending(&bus, "g").await, Some(1), "it is still there");
    f.advance(SECOND * 9).await;
    // An event of another key passes through; had the retry begun too early it would stand before this.
    store(&bus, event("t", "other", "probe")).await;
    until("the probe failed", || sub.metrics().failed == 2).await;
    assert_eq!(log.lines(), ["a#1", "probe#1"]);
    f.advance(SECOND).await;
    assert_eq!(log.wait(3).await[2], "a#2");
    until("the third failure is settled", || sub.metrics().failed == 3).await;
    f.advance(SECOND * 10).await;
    until("the probe failed again", || sub.metrics().failed >= 4).await;
    f.advance(SECOND * 10).await;
    drain(&sub).await;
    until("both are counted", || sub.metrics().processed >= 2).await;
    assert_eq!(sub.metrics().processed, 2);
    assert_eq!(pending(&bus, "g").await, Some(0));
}

/// While an event waits for its retry, later ones of its key wait behind it, and other keys go on.
pub async fn the_order_of_a_key_survives_retries(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let handler =
        log.answering(|d| if d.envelope.data == "a1".as_bytes() && d.attempt < 3 { retry("no") } else { Ok(()) });
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", handler).with_retry(5, every(10));
    // Stored before anybody consumes, so that one claim gets them all.
    start(&bus, options.clone()).await.stop().await.expect("it stops");
    for (key, data) in [("a", "a1"), ("a", "a2"), ("b", "b1"), ("a", "a3")] {
        store(&bus, event("t", key, data)).await;
    }
    let sub = start(&bus, options).await;
    until("the first failure is settled", || sub.metrics().failed == 1).await;
    store(&bus, event("t", "a", "a4")).await;
    store(&bus, event("t", "b", "b2")).await;
    assert_eq!(log.wait(3).await, ["a1#1", "b1#1", "b2#1"]);
    f.advance(SECOND * 10).await;
    until("the second failure is settled", || sub.metrics().failed == 2).await;
    f.advance(SECOND * 10).await;
    drain(&sub).await;
    let of_a: Vec<_> = log.lines().into_iter().filter(|l| l.starts_with('a')).collect();
    assert_eq!(of_a, ["a1#1", "a1#2", "a1#3", "a2#1", "a3#1", "a4#1"], "later events begin with attempt 1");
}

/// After the last attempt the event is a dead letter, with the last error, and done with for its group.
pub async fn used_up_attempts_make_a_dead_letter_with_its_error(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let handler = log.answering(|d| retry(&format!("venue said no {}", d.attempt)));
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", handler).with_retry(2, every(1));
    let sub = start(&bus, options).await;
    let sent = event("t", "k", "a");
    let seq = store(&bus, sent.clone()).await.seq;
    until("the first failure is settled", || sub.metrics().failed == 1).await;
    assert_eq!(bus.dead_letters("g", 0, 10).await.map(|d| d.len()).ok(), Some(0));
    f.advance(SECOND).await;
    drain(&sub).await;
    let dead = bus.dead_letters("g", 0, 10).await.expect("readable");
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].error, "venue said no 2");
    assert_eq!((dead[0].attempts, Some(dead[0].seq), dead[0].group.as_str()), (2, seq, "g"));
    assert_eq!((dead[0].id.as_str(), dead[0].topic.as_str()), (sent.id.as_str(), "t"));
    assert_eq!(dead[0].envelope.as_ref(), Some(&sent), "the event is kept whole");
    assert_eq!(pending(&bus, "g").await, Some(0));
    assert_eq!(log.lines(), ["a#1", "a#2"]);
}

/// Poison is not tried again, and what waits behind it goes on.
pub async fn poison_is_dead_at_once_and_frees_its_key(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let handler = log.answering(|d| {
        if d.envelope.data == "bad".as_bytes() { Err(HandlerError::Poison("cannot be read".into())) } else { Ok(()) }
    });
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", handler)).await;
    for data in ["bad", "good"] {
        store(&bus, event("t", "k", data)).await;
    }
    drain(&sub).await;
    assert_eq!(log.lines(), ["bad#1", "good#1"]);
    let dead = bus.dead_letters("g", 0, 10).await.expect("readable");
    assert_eq!(dead.iter().map(|d| (d.error.as_str(), d.attempts)).collect::<Vec<_>>(), [("cannot be read", 1)]);
}

/// A panic and a timeout are failures of that delivery: it is tried again, and the subscription lives.
pub async fn panic_and_timeout_fail_that_delivery_only(f: impl Fixture) {
    let bus = f.bus();
    let (gate, log) = (Gate::new(), Log::new());
    let hangs = gate.handler(&log, |d| match d.envelope.data.as_ref() {
        b"panic" => panic!("on purpose"),
        other => other == b"hang",
    });
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", hangs).with_retry(1, every(1));
    let sub = start(&bus, options.with_timeout(SECOND * 5)).await;
    for data in ["panic", "hang", "good"] {
        store(&bus, event("t", data, data)).await;
    }
    gate.wait().await;
    // The time limit is set once the handler waits; a yield lets its task get there.
    for _ in 0..10 {
        f.advance(SECOND).await;
        tokio::task::yield_now().await;
    }
    drain(&sub).await;
    assert_eq!(log.lines(), ["panic#1", "hang#1", "good#1"]);
    let dead = bus.dead_letters("g", 0, 10).await.expect("readable");
    assert!(dead[0].error.contains("panicked: on purpose"), "{:?}", dead[0].error);
    assert!(dead[1].error.contains("longer than 5s"), "{:?}", dead[1].error);
}

/// The newest dead letters are kept, and what had to go is counted.
pub async fn dead_letters_are_bounded_and_counted(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let handler = log.answering(|d| Err(HandlerError::Poison(String::from_utf8_lossy(&d.envelope.data).into_owned())));
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", handler)).await;
    for n in 0..8 {
        store(&bus, event("t", "k", n.to_string())).await;
    }
    drain(&sub).await;
    let errors: Vec<_> = bus.dead_letters("g", 0, 100).await.expect("readable").into_iter().map(|d| d.error).collect();
    assert_eq!(errors, ["3", "4", "5", "6", "7"]);
    assert_eq!(bus.dead_letters("g", 0, 2).await.expect("readable").len(), 2);
    assert_eq!((sub.metrics().dead_lettered, sub.metrics().evicted), (8, 3));
}

/// One handler that never ends: every other subscription, durable or live, goes on.
pub async fn a_hanging_handler_delays_nobody_else(f: impl Fixture) {
    let bus = f.bus();
    let (gate, stuck, log, live) = (Gate::new(), Log::new(), Log::new(), Log::new());
    start(&bus, SubscribeOptions::at_least_once(pattern("*"), "stuck", gate.handler(&stuck, |_| true))).await;
    let hangs = SubscribeOptions::at_most_once(pattern("*"), gate.handler(&stuck, |_| true));
    start(&bus, hangs.with_queue(1, crate::Overflow::DropOldest)).await;
    let a = start(&bus, SubscribeOptions::at_least_once(pattern("*"), "fine", log.handler())).await;
    let b = start(&bus, SubscribeOptions::at_most_once(pattern("*"), live.handler())).await;
    for n in 0..100 {
        store(&bus, event("t", "k", n.to_string())).await;
    }
    drain(&a).await;
    drain(&b).await;
    assert_eq!((log.len(), live.len()), (100, 100));
    assert_eq!(stuck.wait(2).await.len(), 2, "one each");
    assert_eq!(pending(&bus, "stuck").await, Some(100));
}

/// A handler that runs longer than the lease keeps its claim: no other consumer gets the event meanwhile.
pub async fn a_running_handler_keeps_its_lease(f: impl Fixture) {
    let bus = f.bus();
    let (gate, log) = (Gate::new(), Log::new());
    let handler = gate.handler(&log, |d| d.envelope.data == "slow".as_bytes());
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", handler)
        .with_lease(SECOND * 3)
        .with_timeout(Duration::from_secs(3_600));
    let a = start(&bus, options.clone()).await;
    store(&bus, event("t", "k", "slow")).await;
    gate.wait().await;
    let b = start(&bus, options).await;
    for n in 0..10 {
        f.advance(SECOND).await;
        until("the lease is extended", || a.metrics().leases_extended > n).await;
        // What passes through shows that the other consumer looks for work.
        store(&bus, event("t", &format!("k{n}"), n.to_string())).await;
        log.wait(n as usize + 2).await;
    }
    gate.open(1);
    drain(&a).await;
    drain(&b).await;
    assert_eq!(log.lines().iter().filter(|l| l.starts_with("slow")).count(), 1, "{:?}", log.lines());
    assert_eq!(a.metrics().leases_lost + b.metrics().leases_lost, 0);
}
