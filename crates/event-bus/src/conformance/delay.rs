//! Events that are published for later.

use infra_types::{Clock, ErrorKind, Timestamp};

use super::{
    Fixture, Gate, Log, SECOND, config, crash, drain, event, id, pattern, pending, replayed, start, store, until,
};
use crate::{
    BusError, Published, ReplayFrom, SubscribeOptions,
    broker::{DUE_MAX, REST},
};

const NOT_YET: Published = Published { seq: None, duplicate: false, is_spilled: false };

/// Before its time a delayed event is in no group, no history and no live queue; then it is published as any other, but not live.
pub async fn a_delayed_event_is_seen_by_nobody_before_its_time(f: impl Fixture) {
    let bus = f.bus();
    let (log, live, late) = (Log::new(), Log::new(), Log::new());
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", log.handler())).await;
    let tap = start(&bus, SubscribeOptions::at_most_once(pattern("t"), live.handler())).await;
    let at = f.clock().wall().saturating_add(SECOND * 10);
    let said = bus.publish_at(event("t", "k", "later"), at).await.expect("it is kept");
    assert_eq!(said, NOT_YET);
    assert_eq!(pending(&bus, "g").await, Some(0));
    assert_eq!(replayed(&bus, "*", ReplayFrom::Earliest).await.0, Vec::<String>::new());
    f.advance(SECOND * 9).await;
    store(&bus, event("t", "k", "probe")).await;
    drain(&sub).await;
    let begun = SubscribeOptions::at_least_once(pattern("t"), "late", late.handler()).from_earliest();
    drain(&start(&bus, begun).await).await;
    assert_eq!((log.lines(), late.lines()), (vec!["probe#1".to_owned()], vec!["probe#1".to_owned()]));
    f.advance(SECOND).await;
    assert_eq!(log.wait(2).await, ["probe#1", "later#1"], "also of a key that has moved on");
    assert_eq!(late.wait(2).await, log.lines(), "a group that began in between gets it as well");
    drain(&sub).await;
    drain(&tap).await;
    assert_eq!(live.lines(), ["probe#1"]);
    assert_eq!(replayed(&bus, "*", ReplayFrom::Earliest).await.0, ["probe", "later"]);
    assert_eq!((bus.metrics().published, bus.metrics().redelivered), (2, 0));
}

/// Those that are due together come in the order of their times, those of one time in the order of their delay.
pub async fn delayed_events_come_in_the_order_of_their_times(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", log.handler())).await;
    let now = f.clock().wall();
    for (seconds, data) in [(3, "e"), (1, "a"), (2, "b"), (3, "f"), (2, "c"), (2, "d")] {
        let at = now.saturating_add(SECOND * seconds);
        bus.publish_at(event("t", "k", data), at).await.expect("it is kept");
    }
    f.advance(SECOND * 60).await;
    assert_eq!(log.wait(6).await, ["a#1", "b#1", "c#1", "d#1", "e#1", "f#1"]);
}

/// A time that is over delays nothing, however long ago it was.
pub async fn a_time_that_is_over_delays_nothing(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", log.handler())).await;
    let now = f.clock().wall();
    for at in [now, now.saturating_sub(SECOND), Timestamp::EPOCH] {
        let n = log.len();
        bus.publish_at(event("t", "k", n.to_string()), at).await.expect("it is kept");
        log.wait(n + 1).await;
    }
    assert_eq!(log.lines(), ["0#1", "1#1", "2#1"]);
}

/// The time is the wall clock's: where that steps back, the event waits on.
pub async fn a_delay_goes_by_the_wall_clock(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", log.handler())).await;
    let at = f.clock().wall().saturating_add(SECOND * 10);
    bus.publish_at(event("t", "k", "later"), at).await.expect("it is kept");
    f.advance(SECOND * 5).await;
    f.step_back(SECOND * 5).await;
    f.advance(SECOND * 5).await;
    store(&bus, event("t", "k", "probe")).await;
    drain(&sub).await;
    assert_eq!(log.lines(), ["probe#1"]);
    f.advance(SECOND * 5).await;
    assert_eq!(log.wait(2).await[1], "later#1");
}

/// It waits in the store, not in the process.
pub async fn delayed_events_survive_a_crash(mut f: impl Fixture) {
    let log = Log::new();
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", log.handler());
    start(&f.bus(), options.clone()).await;
    let now = f.clock().wall();
    for (seconds, data) in [(20, "b"), (10, "a")] {
        let delayed = event("t", "k", data).with_id(id(data));
        f.bus().publish_at(delayed, now.saturating_add(SECOND * seconds)).await.expect("it is kept");
    }
    if !crash(&mut f, "g").await {
        return;
    }
    let again = event("t", "k", "a").with_id(id("a"));
    assert!(f.bus().publish_at(again, now).await.expect("answered").duplicate, "its id is known after the crash");
    let sub = start(&f.bus(), options).await;
    store(&f.bus(), event("t", "k", "probe")).await;
    drain(&sub).await;
    assert_eq!(log.lines(), ["probe#1"]);
    f.advance(SECOND * 10).await;
    log.wait(2).await;
    f.advance(SECOND * 10).await;
    assert_eq!(log.wait(3).await, ["probe#1", "a#1", "b#1"]);
}

/// One id is one event in whatever way it is published, before its time and after.
pub async fn the_id_of_a_delayed_event_is_known(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", log.handler())).await;
    let at = f.clock().wall().saturating_add(SECOND * 10);
    let one = event("t", "k", "one").with_id(id("fixed-1"));
    assert!(!bus.publish_at(one.clone(), at).await.expect("it is kept").duplicate);
    let delayed = bus.publish_at(one.clone(), f.clock().wall()).await.expect("answered");
    let stored = store(&bus, one.clone()).await;
    let in_batch = bus.publish_batch(vec![one.clone()]).await.pop().expect("an answer").expect("answered");
    for said in [delayed, stored, in_batch] {
        assert_eq!(said, Published { duplicate: true, ..NOT_YET }, "it has no place yet, and keeps its time");
    }
    f.advance(SECOND * 10).await;
    log.wait(1).await;
    drain(&sub).await;
    let stored = store(&bus, one.clone()).await;
    assert!(stored.duplicate && stored.seq.is_some(), "{stored:?}");
    assert_eq!(bus.publish_at(one, at).await.expect("answered"), stored);
    let two = event("t", "k", "two").with_id(id("fixed-2"));
    let first = store(&bus, two.clone()).await;
    let again = bus.publish_at(two, at.saturating_add(SECOND)).await.expect("answered");
    assert_eq!((again.duplicate, again.seq), (true, first.seq), "what is stored is not delayed any more");
    f.advance(SECOND * 10).await;
    store(&bus, event("t", "k", "probe")).await;
    drain(&sub).await;
    assert_eq!(log.lines(), ["one#1", "two#1", "probe#1"]);
    assert_eq!(bus.metrics().duplicates, 6);
}

/// So many may wait for their time and no more; the refused one changes nothing, and there is room again when their time has come.
pub async fn delayed_events_are_bounded(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", log.handler())).await;
    let at = f.clock().wall().saturating_add(SECOND * 10);
    let max = config().limits.delayed_max;
    for n in 0..max {
        bus.publish_at(event("t", "k", n.to_string()), at).await.expect("there is room");
    }
    let more = event("t", "k", max.to_string());
    let refused = bus.publish_at(more.clone(), at).await.expect_err("there is no room");
    assert!(matches!(refused, BusError::DelayFull { waiting } if waiting == max), "{refused:?}");
    assert_eq!(refused.kind(), ErrorKind::LimitExceeded);
    f.advance(SECOND * 10).await;
    // More than one claim looks at: nobody waits for a further reason to look.
    log.wait(max as usize).await;
    assert!(!bus.publish_at(more, at).await.expect("there is room").duplicate, "a refused event is not known");
    let lines = log.wait(max as usize + 1).await;
    assert_eq!(lines, (0..=max).map(|n| format!("{n}#1")).collect::<Vec<_>>());
}

/// A group that is full when the time comes gets the event when it has room.
pub async fn a_delayed_event_waits_while_its_group_is_full(f: impl Fixture) {
    let bus = f.bus();
    let (log, other) = (Log::new(), Log::new());
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", log.handler());
    start(&bus, options.clone()).await.stop().await.expect("it stops");
    let looks = start(&bus, SubscribeOptions::at_least_once(pattern("u"), "other", other.handler())).await;
    let max = config().limits.backlog_max;
    let events = (0..max).map(|n| event("t", "k", n.to_string())).collect();
    assert!(bus.publish_batch(events).await.iter().all(Result::is_ok));
    bus.publish_at(event("t", "k", max.to_string()), f.clock().wall()).await.expect("it is kept");
    store(&bus, event("u", "k", "probe")).await;
    drain(&looks).await;
    assert_eq!(pending(&bus, "g").await, Some(max), "the limit holds");
    let sub = start(&bus, options).await;
    drain(&sub).await;
    // It is not looked at before the rest is over.
    f.advance(REST).await;
    let lines = log.wait(max as usize + 1).await;
    assert_eq!(lines, (0..=max).map(|n| format!("{n}#1")).collect::<Vec<_>>());
}

/// Delayed events of a full group, be they more than one claim looks at, hold up none of another group; and none of their own passes them.
pub async fn a_full_group_holds_up_no_delays_of_others(f: impl Fixture) {
    let bus = f.bus();
    let (log, other) = (Log::new(), Log::new());
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", log.handler());
    start(&bus, options.clone()).await.stop().await.expect("it stops");
    let max = config().limits.backlog_max;
    let events = (0..max).map(|n| event("t", "k", n.to_string())).collect();
    assert!(bus.publish_batch(events).await.iter().all(Result::is_ok));
    let (now, late) = (f.clock().wall(), max + DUE_MAX as u64 + 10);
    for n in max..late {
        bus.publish_at(event("t", "k", n.to_string()), now).await.expect("it is kept");
    }
    bus.publish_at(event("u", "k", "free"), now).await.expect("it is kept");
    start(&bus, SubscribeOptions::at_least_once(pattern("u"), "other", other.handler())).await;
    assert_eq!(other.wait(1).await, ["free#1"]);
    assert_eq!(pending(&bus, "g").await, Some(max), "the limit holds");
    // There is room now, but the first of them were looked at before.
    let sub = start(&bus, options).await;
    drain(&sub).await;
    bus.publish_at(event("t", "k", late.to_string()), now).await.expect("it is kept");
    bus.publish_at(event("u", "k", "again"), now).await.expect("it is kept");
    assert_eq!(other.wait(2).await[1], "again#1");
    drain(&sub).await;
    f.advance(REST).await;
    let lines = log.wait(late as usize + 1).await;
    assert_eq!(lines, (0..=late).map(|n| format!("{n}#1")).collect::<Vec<_>>());
}

/// The delays of a paused or stopped group's events are no reason to lose them.
pub async fn a_delayed_event_reaches_a_group_that_nobody_serves(f: impl Fixture) {
    let bus = f.bus();
    let (log, other) = (Log::new(), Log::new());
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", log.handler());
    start(&bus, options.clone()).await.stop().await.expect("it stops");
    let looks = start(&bus, SubscribeOptions::at_least_once(pattern("u"), "other", other.handler())).await;
    let at = f.clock().wall().saturating_add(SECOND);
    bus.publish_at(event("t", "k", "later"), at).await.expect("it is kept");
    f.advance(SECOND).await;
    // Any group's claim lays it out.
    store(&bus, event("u", "k", "probe")).await;
    drain(&looks).await;
    let sub = start(&bus, options).await;
    log.wait(1).await;
    drain(&sub).await;
    assert_eq!(log.lines(), ["later#1"]);
}

/// A consumer that holds back while it works learns of what became due meanwhile.
pub async fn a_delay_that_ends_during_a_handling_is_not_missed(f: impl Fixture) {
    let bus = f.bus();
    let (gate, log) = (Gate::new(), Log::new());
    let handler = gate.handler(&log, |d| d.envelope.data == "held".as_bytes());
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", handler)).await;
    store(&bus, event("t", "k", "held")).await;
    gate.wait().await;
    let at = f.clock().wall().saturating_add(SECOND);
    bus.publish_at(event("t", "k", "later"), at).await.expect("it is kept");
    f.advance(SECOND * 2).await;
    gate.open(1);
    assert_eq!(log.wait(2).await, ["held#1", "later#1"]);
    until("both are counted", || sub.metrics().processed == 2).await;
}

/// What is delayed can be seen page by page, and taken back while it is; then its id is free again.
pub async fn delayed_events_are_listed_and_taken_back(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", log.handler())).await;
    let now = f.clock().wall();
    for (seconds, data) in [(30, "d"), (10, "a"), (20, "b"), (20, "c")] {
        let delayed = event("t", &format!("key {data}"), data).with_id(id(data));
        bus.publish_at(delayed, now.saturating_add(SECOND * seconds)).await.expect("it is kept");
    }
    let all = bus.delayed(None, 10).await.expect("readable");
    assert_eq!(all.iter().map(|e| e.id.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    assert_eq!(
        (all[1].topic.as_str(), all[1].key.as_str(), all[1].place.until),
        ("t", "key b", now.saturating_add(SECOND * 20))
    );
    let mut after = None;
    for one in &all {
        let page = bus.delayed(after, 1).await.expect("readable");
        assert_eq!(page, std::slice::from_ref(one));
        after = Some(one.place);
    }
    assert_eq!(bus.delayed(after, 10).await.expect("readable"), []);
    assert_eq!(bus.delayed(None, 0).await.expect("readable"), []);
    for (name, was_delayed) in [("b", true), ("b", false), ("unknown", false)] {
        assert_eq!(bus.cancel_delayed(&id(name)).await.expect("answered"), was_delayed, "{name}");
    }
    // A place of one that is gone is still a place.
    let page = bus.delayed(Some(all[1].place), 1).await.expect("readable");
    assert_eq!(page, std::slice::from_ref(&all[2]));
    let again = event("t", "key b", "again").with_id(id("b"));
    assert!(!store(&bus, again).await.duplicate, "its id is free again");
    f.advance(SECOND * 60).await;
    log.wait(4).await;
    drain(&sub).await;
    assert_eq!(log.lines(), ["again#1", "a#1", "c#1", "d#1"]);
    assert!(!bus.cancel_delayed(&id("a")).await.expect("answered"), "what is published is not taken back");
    let max = config().limits.delayed_max;
    let at = f.clock().wall().saturating_add(SECOND);
    for n in 0..max {
        bus.publish_at(event("t", "k", n.to_string()).with_id(id(&format!("n{n}"))), at).await.expect("there is room");
    }
    assert!(bus.cancel_delayed(&id("n7")).await.expect("answered"));
    bus.publish_at(event("t", "k", "more"), at).await.expect("one that was taken back leaves room");
    assert!(bus.publish_at(event("t", "k", "too many"), at).await.is_err());
}
