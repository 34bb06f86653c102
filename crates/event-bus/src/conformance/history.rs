//! What is kept of events that no group needs (any more).

use super::{Fixture, Log, config, crash, drain, event, id, pattern, replayed, start, store};
use crate::{ReplayFrom, SubscribeOptions};

/// Finished events stay for replays and new groups, the newest of them; that older ones go is no loss to count.
pub async fn finished_events_stay_for_a_while(f: impl Fixture) {
    let bus = f.bus();
    let (log, late) = (Log::new(), Log::new());
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", log.handler())).await;
    for n in 0..10 {
        store(&bus, event("t", "k", n.to_string())).await;
    }
    drain(&sub).await;
    let want: Vec<_> = (0..10).map(|n| n.to_string()).collect();
    assert_eq!(replayed(&bus, "t", ReplayFrom::Earliest).await.0, want);
    let earliest = SubscribeOptions::at_least_once(pattern("t"), "late", late.handler()).from_earliest();
    let late_sub = start(&bus, earliest).await;
    drain(&late_sub).await;
    assert_eq!(late.data(), want, "and begins as its first attempt");
    assert_eq!(late.lines()[9], "9#1");
    let kept = config().limits.history_max;
    for n in 10..60 {
        store(&bus, event("t", "k", n.to_string())).await;
        drain(&sub).await;
        drain(&late_sub).await;
    }
    // Each that is stored lets up to two of the oldest go, so that a few without a group bring it to its bound.
    for n in 60..65 {
        store(&bus, event("u", "k", n.to_string())).await;
    }
    let (found, told) = replayed(&bus, "*", ReplayFrom::Earliest).await;
    assert_eq!(found, (65 - kept..65).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(told.has_gap);
    assert_eq!(bus.metrics().evicted, 0, "each of them had been handled");
    assert_eq!((log.len(), late.len()), (60, 60));
}

/// What a group still needs is never part of that bound.
pub async fn events_that_a_group_needs_are_not_trimmed(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", log.handler());
    start(&bus, options.clone()).await.stop().await.expect("it stops");
    let kept = config().limits.history_max;
    for n in 0..3 * kept {
        store(&bus, event("t", "k", n.to_string())).await;
        store(&bus, event("nobody", "k", "x")).await;
    }
    assert_eq!(bus.metrics().evicted, 2 * kept);
    assert_eq!(replayed(&bus, "*", ReplayFrom::Earliest).await.1.handled, 4 * kept);
    drain(&start(&bus, options).await).await;
    assert_eq!(log.lines(), (0..3 * kept).map(|n| format!("{n}#1")).collect::<Vec<_>>());
}

/// A dead letter's event is done with for its group, and kept as any other.
pub async fn a_dead_event_is_replayed_as_well(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let handler = log.answering(|_| Err(crate::HandlerError::Poison("bad".into())));
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", handler)).await;
    store(&bus, event("t", "k", "a")).await;
    drain(&sub).await;
    assert_eq!(replayed(&bus, "t", ReplayFrom::Earliest).await.0, ["a"]);
    assert_eq!(bus.remove_group("g").await.ok(), Some(true));
    assert_eq!(replayed(&bus, "t", ReplayFrom::Earliest).await.0, ["a"], "it does not go with its group");
}

/// The history is in the store: a crash does not shorten it, nor does it forget which places were given.
pub async fn history_survives_a_crash(mut f: impl Fixture) {
    let log = Log::new();
    let sub = start(&f.bus(), SubscribeOptions::at_least_once(pattern("t"), "g", log.handler())).await;
    let mut last = None;
    for n in 0..5 {
        last = store(&f.bus(), event("t", "k", n.to_string()).with_id(id(&format!("e{n}")))).await.seq;
    }
    drain(&sub).await;
    if !crash(&mut f, "g").await {
        return;
    }
    let bus = f.bus();
    assert_eq!(replayed(&bus, "t", ReplayFrom::Earliest).await.0, ["0", "1", "2", "3", "4"]);
    assert_eq!(replayed(&bus, "t", ReplayFrom::Id(id("e3"))).await.0, ["3", "4"]);
    assert!(store(&bus, event("t", "k", "5")).await.seq > last);
}
