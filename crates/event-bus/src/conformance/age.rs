//! Events that are too old, and clocks that step back.

use std::{sync::Arc, time::Duration};

use infra_types::{Clock, Envelope};

use super::{Fixture, Gate, Log, SECOND, crash, drain, event, every, pattern, start, store, until};
use crate::{Delivery, EventBus, HandlerError, SubscribeOptions};

const HOUR: Duration = Duration::from_secs(3_600);

/// An event that happens now.
fn fresh(f: &impl Fixture, data: &str) -> Envelope {
    let mut event = event("t", "k", data);
    event.time = f.clock().wall();
    event
}

/// A group passes over what has become too old, without a failure or a dead letter, and counts it.
pub async fn a_group_passes_over_events_that_are_too_old(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", log.handler()).with_max_age(SECOND * 10);
    start(&bus, options.clone()).await.stop().await.expect("it stops");
    for data in ["old", "just in time"] {
        store(&bus, fresh(&f, data)).await;
        f.advance(Duration::from_millis(1)).await;
    }
    store(&bus, event("t", "k", "of the last century")).await;
    f.advance(SECOND * 10 - Duration::from_millis(1)).await;
    store(&bus, fresh(&f, "new")).await;
    let sub = start(&bus, options).await;
    drain(&sub).await;
    assert_eq!(log.lines(), ["just in time#1", "new#1"]);
    until("all are counted", || sub.metrics().processed >= 2).await;
    let status = bus.status("g").await.expect("there is a group");
    assert_eq!((status.pending, status.dead_letters), (0, 0));
    for told in [sub.metrics(), bus.metrics()] {
        assert_eq!((told.expired, told.failed, told.dead_lettered), (2, 0, 0), "{told:?}");
    }
}

/// A live subscription does the same with what waited too long in its queue.
pub async fn a_live_subscription_passes_over_events_that_are_too_old(f: impl Fixture) {
    let bus = f.bus();
    let (gate, log) = (Gate::new(), Log::new());
    let handler = gate.handler(&log, |d| d.envelope.data == "held".as_bytes());
    let sub = start(&bus, SubscribeOptions::at_most_once(pattern("t"), handler).with_max_age(SECOND * 10)).await;
    bus.publish(fresh(&f, "held"), Delivery::AtMostOnce).await.expect("published");
    gate.wait().await;
    bus.publish(fresh(&f, "old"), Delivery::AtMostOnce).await.expect("published");
    f.advance(SECOND * 11).await;
    bus.publish(fresh(&f, "new"), Delivery::AtMostOnce).await.expect("published");
    gate.open(1);
    drain(&sub).await;
    assert_eq!(log.lines(), ["held#1", "new#1"]);
    assert_eq!((sub.metrics().expired, bus.metrics().expired, sub.metrics().failed), (1, 1, 0));
}

/// What failed and is too old when its next attempt is due is not tried again, and frees its key.
pub async fn an_event_may_become_too_old_for_its_retry(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let handler = log
        .answering(|d| if d.envelope.data == "a".as_bytes() { Err(HandlerError::Retry("no".into())) } else { Ok(()) });
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", handler).with_retry(5, every(10));
    let sub = start(&bus, options.with_max_age(SECOND * 15)).await;
    store(&bus, fresh(&f, "a")).await;
    until("it failed", || sub.metrics().failed == 1).await;
    f.advance(SECOND * 10).await;
    until("it failed again", || sub.metrics().failed == 2).await;
    store(&bus, fresh(&f, "b")).await;
    f.advance(SECOND * 10).await;
    drain(&sub).await;
    assert_eq!(log.lines(), ["a#1", "a#2", "b#1"]);
    assert_eq!((sub.metrics().expired, bus.dead_letters("g", 0, 10).await.expect("readable").len()), (1, 0));
}

/// A wall clock that steps back makes events of the future, which are not old.
pub async fn a_clock_that_steps_back_makes_nothing_old(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", log.handler()).with_max_age(SECOND);
    start(&bus, options.clone()).await.stop().await.expect("it stops");
    store(&bus, fresh(&f, "of the future")).await;
    f.step_back(HOUR).await;
    let sub = start(&bus, options).await;
    drain(&sub).await;
    assert_eq!((log.lines(), sub.metrics().expired), (vec!["of the future#1".to_owned()], 0));
    let status = bus.status("g").await.expect("there is a group");
    assert_eq!(status.age(f.clock().wall()), Duration::ZERO);
}

/// A retry waits for its backoff and not for an hour more because the wall clock stepped back by one.
pub async fn a_retry_does_not_wait_for_a_clock_that_stepped_back(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let handler = log.answering(|d| if d.attempt == 1 { Err(HandlerError::Retry("no".into())) } else { Ok(()) });
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", handler).with_retry(5, every(10));
    let sub = start(&bus, options).await;
    store(&bus, fresh(&f, "a")).await;
    until("it failed", || sub.metrics().failed == 1).await;
    f.step_back(HOUR).await;
    f.advance(SECOND * 10).await;
    drain(&sub).await;
    assert_eq!(log.lines(), ["a#1", "a#2"]);
}

/// Neither does the claim of a dead consumer hold an hour longer.
pub async fn a_lease_does_not_outlive_a_clock_that_stepped_back(mut f: impl Fixture) {
    let (gate, log) = (Gate::new(), Log::new());
    let options = |handler| SubscribeOptions::at_least_once(pattern("t"), "g", handler).with_lease(SECOND * 30);
    start(&f.bus(), options(gate.handler(&log, |_| true))).await;
    store(&f.bus(), event("t", "k", "a")).await;
    gate.wait().await;
    if !crash(&mut f, "g").await {
        return;
    }
    f.step_back(HOUR).await;
    f.advance(SECOND * 30).await;
    let sub = start(&f.bus(), options(log.handler())).await;
    drain(&sub).await;
    assert_eq!(log.lines(), ["a#1", "a#2"]);
}

/// How far a group is behind, how old that makes it, and what it gave up on; what is being handled counts.
pub async fn the_status_of_a_group_tells_how_far_it_is(f: impl Fixture) {
    let bus = f.bus();
    let (gate, log) = (Gate::new(), Log::new());
    let handler = {
        let bad = log.answering(|_| Err(HandlerError::Poison("bad".into())));
        let held = gate.handler(&log, |d| d.envelope.data == "held".as_bytes());
        crate::handler_fn(move |d| {
            let (bad, held) = (bad.clone(), held.clone());
            async move { if d.envelope.data == "bad".as_bytes() { bad.handle(d).await } else { held.handle(d).await } }
        })
    };
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", handler)).await;
    let status = async |bus: &Arc<dyn EventBus>| bus.status("g").await.expect("there is a group");
    let told = status(&bus).await;
    assert_eq!(
        (told.pending, told.oldest, told.dead_letters, told.age(f.clock().wall())),
        (0, None, 0, Duration::ZERO)
    );
    for data in ["bad", "held"] {
        store(&bus, fresh(&f, data)).await;
    }
    let began = f.clock().wall();
    gate.wait().await;
    super::until("the bad one is settled", || sub.metrics().dead_lettered == 1).await;
    f.advance(SECOND * 7).await;
    store(&bus, fresh(&f, "waits")).await;
    let told = status(&bus).await;
    assert_eq!((told.pending, told.oldest, told.dead_letters), (2, Some(began), 1));
    assert_eq!(told.age(f.clock().wall()), SECOND * 7);
    gate.open(1);
    drain(&sub).await;
    let told = status(&bus).await;
    assert_eq!((told.pending, told.oldest, told.dead_letters), (0, None, 1));
}

/// All groups are listed by name, page by page, with what each of them stands at and who works for it.
pub async fn groups_are_listed_page_by_page(f: impl Fixture) {
    let bus = f.bus();
    assert_eq!(bus.groups("", 10).await.expect("readable"), []);
    let log = Log::new();
    for (group, topics) in [("g_b", "t"), ("g:c", "u*"), ("g-a", "t"), ("z", "v")] {
        let options =
            SubscribeOptions::at_least_once(pattern(topics), group, log.handler()).with_consumer(format!("of-{group}"));
        start(&bus, options).await.stop().await.expect("it stops");
    }
    start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g_b", log.handler()).with_consumer("another"))
        .await
        .stop()
        .await
        .expect("it stops");
    for (topic, count) in [("t", 3), ("ux", 1)] {
        for n in 0..count {
            store(&bus, event(topic, "k", n.to_string())).await;
        }
    }
    assert!(bus.remove_group("z").await.expect("removed"));
    let all = bus.groups("", 10).await.expect("readable");
    let told: Vec<_> = all.iter().map(|g| (g.name.as_str(), g.pattern.as_str(), g.status.pending)).collect();
    assert_eq!(told, [("g-a", "t", 3), ("g:c", "u*", 1), ("g_b", "t", 3)], "in the order of their bytes");
    assert_eq!(all[2].consumers, ["another", "of-g_b"]);
    assert_eq!(bus.status("g_b").await.expect("known"), all[2].status);
    let mut after = String::new();
    for one in &all {
        assert_eq!(bus.groups(&after, 1).await.expect("readable"), std::slice::from_ref(one));
        after.clone_from(&one.name);
    }
    assert_eq!(bus.groups(&after, 10).await.expect("readable"), []);
}
