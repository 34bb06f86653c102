//! At least once: groups, order, ids.

use std::{sync::Arc, time::Duration};

use infra_types::{CorrelationId, ErrorKind, ExecutionContext};
use parking_lot::Mutex;

use super::{Fixture, Gate, Log, drain, event, id, pattern, pending, start, store, until};
use crate::{BusError, Delivery, SubscribeOptions, handler_fn};

/// Groups are apart: each gets each event once, in the order it was published.
pub async fn every_group_gets_every_event_once_and_in_order(f: impl Fixture) {
    let bus = f.bus();
    let (a, b) = (Log::new(), Log::new());
    let sub_a = start(&bus, SubscribeOptions::at_least_once(pattern("*"), "a", a.handler())).await;
    let sub_b = start(&bus, SubscribeOptions::at_least_once(pattern("t:*"), "b", b.handler())).await;
    for n in 0..150 {
        store(&bus, event("t:x", &format!("k{}", n % 7), n.to_string())).await;
    }
    drain(&sub_a).await;
    drain(&sub_b).await;
    let want: Vec<_> = (0..150).map(|n| format!("{n}#1")).collect();
    assert_eq!(a.lines(), want);
    assert_eq!(b.lines(), want);
    assert_eq!((pending(&bus, "a").await, pending(&bus, "b").await), (Some(0), Some(0)));
}

/// Two consumers of one group: each event goes to one of them, and the order of a key holds across both.
pub async fn consumers_of_one_group_share_its_events(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", log.handler());
    let (a, b) = (start(&bus, options.clone()).await, start(&bus, options).await);
    for n in 0..150 {
        store(&bus, event("t", &format!("k{}", n % 5), n.to_string())).await;
    }
    drain(&a).await;
    drain(&b).await;
    let seen: Vec<usize> = log.lines().iter().map(|l| l.trim_end_matches("#1").parse().expect("a number")).collect();
    for key in 0..5 {
        let of_key: Vec<_> = seen.iter().copied().filter(|n| n % 5 == key).collect();
        assert_eq!(of_key, (0..150).filter(|n| n % 5 == key).collect::<Vec<_>>(), "order of key {key}");
    }
    // Counted when the answer of the store has come, which may be after the store says that nothing is left.
    until("all are counted", || a.metrics().processed + b.metrics().processed >= 150).await;
    assert_eq!(a.metrics().processed + b.metrics().processed, 150);
}

/// A group exists from its first subscription on, whether or not somebody consumes.
pub async fn a_group_collects_while_nobody_consumes(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", log.handler());
    start(&bus, options.clone()).await.stop().await.expect("it stops");
    for n in 0..3 {
        store(&bus, event("t", "k", n.to_string())).await;
    }
    assert_eq!(pending(&bus, "g").await, Some(3));
    assert_eq!(log.len(), 0);
    drain(&start(&bus, options).await).await;
    assert_eq!(log.lines(), ["0#1", "1#1", "2#1"]);
}

/// `New` begins after its creation, `Earliest` with what is retained, also what other groups still need.
pub async fn a_new_group_begins_where_it_says(f: impl Fixture) {
    let bus = f.bus();
    let (new, old, held) = (Log::new(), Log::new(), Log::new());
    let gate = Gate::new();
    store(&bus, event("t", "k", "unrouted")).await;
    let options = SubscribeOptions::at_least_once(pattern("t"), "held", gate.handler(&held, |_| true));
    start(&bus, options).await;
    store(&bus, event("t", "k", "needed")).await;
    gate.wait().await;
    let a = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "new", new.handler())).await;
    let b = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "old", old.handler()).from_earliest()).await;
    store(&bus, event("t", "k", "after")).await;
    drain(&a).await;
    drain(&b).await;
    gate.open(2);
    assert_eq!(new.lines(), ["after#1"]);
    assert_eq!(old.lines(), ["unrouted#1", "needed#1", "after#1"]);
}

/// The same id again changes nothing: while it waits, after it was handled, within one batch.
pub async fn an_id_published_twice_is_one_event(f: impl Fixture) {
    let bus = f.bus();
    let (gate, log, live) = (Gate::new(), Log::new(), Log::new());
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", gate.handler(&log, |_| true))).await;
    let tap = start(&bus, SubscribeOptions::at_most_once(pattern("t"), live.handler())).await;
    let one = event("t", "k", "one").with_id(id("fixed-1"));
    let first = store(&bus, one.clone()).await;
    assert!(!first.duplicate);
    gate.wait().await;
    let again = store(&bus, one.clone()).await;
    assert!(again.duplicate, "it waits, so it is known");
    assert_eq!(again.seq, first.seq);
    gate.open(10);
    drain(&sub).await;
    assert!(store(&bus, one).await.duplicate, "it was handled, and is known still");
    let two = event("t", "k", "two").with_id(id("fixed-2"));
    let answers = bus.publish_batch(vec![two.clone(), two]).await;
    let duplicates: Vec<_> = answers.into_iter().map(|a| a.expect("stored").duplicate).collect();
    assert_eq!(duplicates, [false, true]);
    drain(&sub).await;
    drain(&tap).await;
    assert_eq!(log.lines(), ["one#1", "two#1"]);
    assert_eq!(live.lines(), log.lines(), "a duplicate reaches nobody");
    assert_eq!(bus.metrics().duplicates, 3);
}

/// A finished event's id is known for as many later events as the limits say, and is then forgotten.
pub async fn an_id_is_recognised_within_its_window(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", log.handler())).await;
    let one = event("t", "k", "one").with_id(id("fixed"));
    store(&bus, one.clone()).await;
    drain(&sub).await;
    let window = bus.info().limits.dedup_window;
    for n in 1..window {
        store(&bus, event("t", "k", n.to_string())).await;
    }
    assert!(store(&bus, one.clone()).await.duplicate);
    drain(&sub).await;
    store(&bus, event("t", "k", "one more")).await;
    assert!(!store(&bus, one).await.duplicate, "nothing is remembered for ever");
}

/// Only ids tell events apart.
pub async fn equal_payloads_are_not_duplicates(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", log.handler())).await;
    store(&bus, event("t", "k", "same")).await;
    store(&bus, event("t", "k", "same")).await;
    drain(&sub).await;
    assert_eq!(log.lines(), ["same#1", "same#1"]);
}

/// A handler runs in the correlation of its event, live and stored.
pub async fn the_correlation_reaches_the_handler(f: impl Fixture) {
    let bus = f.bus();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let handler = {
        let seen = seen.clone();
        handler_fn(move |_| {
            let seen = seen.clone();
            async move {
                seen.lock().push(ExecutionContext::current_correlation().as_u128());
                Ok(())
            }
        })
    };
    let a = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", handler.clone())).await;
    let b = start(&bus, SubscribeOptions::at_most_once(pattern("u"), handler)).await;
    store(&bus, event("t", "k", "x").with_correlation(CorrelationId::from_u128(42))).await;
    drain(&a).await;
    let live = event("u", "k", "x").with_correlation(CorrelationId::from_u128(43));
    bus.publish(live, Delivery::AtMostOnce).await.expect("published");
    drain(&b).await;
    assert_eq!(*seen.lock(), [42, 43]);
}

/// Every attribute and every byte of the payload.
pub async fn an_envelope_arrives_as_it_was_sent(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("*"), "g", log.handler())).await;
    let mut sent = event("t:é".replace('é', "e").as_str(), "key é\0 %_*", "").with_source("bot/1");
    sent.data = (0..=255u8).collect::<Vec<_>>().into();
    sent.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    sent.content_type = "application/octet-stream".into();
    let mut bare = event("t", "", "");
    bare.key = String::new();
    store(&bus, sent.clone()).await;
    store(&bus, bare.clone()).await;
    drain(&sub).await;
    let seen: Vec<_> = log.seen.lock().iter().map(|d| d.envelope.as_ref().clone()).collect();
    assert_eq!(seen, [sent, bare]);
}

/// With `concurrency`, a key that takes its time holds up its own lane only.
pub async fn keys_run_side_by_side_and_each_in_order(f: impl Fixture) {
    let bus = f.bus();
    let (gate, log) = (Gate::new(), Log::new());
    let handler = gate.handler(&log, |d| d.envelope.data == "k0/0".as_bytes());
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", handler).with_concurrency(8);
    let sub = start(&bus, options).await;
    for round in 0..5 {
        for key in 0..20 {
            store(&bus, event("t", &format!("k{key}"), format!("k{key}/{round}"))).await;
        }
    }
    gate.wait().await;
    // At least the keys of the seven other lanes go on; all twenty do once it opens.
    log.wait(30).await;
    assert!(!log.lines().contains(&"k0/1#1".to_owned()), "the held key waits");
    gate.open(1);
    drain(&sub).await;
    let lines = log.lines();
    assert_eq!(lines.len(), 100);
    for key in 0..20 {
        let of_key: Vec<_> = lines.iter().filter(|l| l.starts_with(&format!("k{key}/"))).cloned().collect();
        assert_eq!(of_key, (0..5).map(|r| format!("k{key}/{r}#1")).collect::<Vec<_>>());
    }
}

/// A group that exists keeps the pattern it was created for.
pub async fn a_group_keeps_its_pattern(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    start(&bus, SubscribeOptions::at_least_once(pattern("a:*"), "g", log.handler())).await;
    let other = bus.subscribe(SubscribeOptions::at_least_once(pattern("b:*"), "g", log.handler())).await;
    let refused = other.expect_err("another pattern is refused");
    assert!(matches!(refused, BusError::GroupDiffers { .. }), "{refused:?}");
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    start(&bus, SubscribeOptions::at_least_once(pattern("a:*"), "g", log.handler())).await;
}

/// Removing a group drops its backlog; the name may begin anew.
pub async fn a_removed_group_is_gone(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", log.handler());
    start(&bus, options.clone()).await.stop().await.expect("it stops");
    store(&bus, event("t", "k", "old")).await;
    assert_eq!(bus.remove_group("g").await.ok(), Some(true));
    assert_eq!(bus.remove_group("g").await.ok(), Some(false));
    assert!(matches!(bus.status("g").await, Err(BusError::NoGroup { .. })));
    assert!(matches!(bus.dead_letters("g", 0, 1).await, Err(BusError::NoGroup { .. })));
    let sub = start(&bus, options.from_earliest()).await;
    store(&bus, event("t", "k", "new")).await;
    drain(&sub).await;
    assert_eq!(log.lines(), ["old#1", "new#1"]);
}

/// Publish, wait, look: what a backtest does at each step. The clock stands still meanwhile, or moves between the steps.
pub async fn drained_goes_in_lock_step(f: impl Fixture) {
    let bus = f.bus();
    let (log, live) = (Log::new(), Log::new());
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", log.handler())).await;
    let tap = start(&bus, SubscribeOptions::at_most_once(pattern("t"), live.handler())).await;
    for n in 0..200 {
        store(&bus, event("t", "k", n.to_string())).await;
        drain(&sub).await;
        drain(&tap).await;
        assert_eq!((log.len(), live.len()), (n + 1, n + 1));
        if n % 10 == 0 {
            f.advance(Duration::from_secs(60)).await;
        }
    }
    assert_eq!(sub.metrics().redelivered, 0);
}
