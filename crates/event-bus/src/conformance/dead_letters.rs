//! Dead letters: looked through, put back to work, removed.

use std::sync::Arc;

use infra_types::{ErrorKind, EventId};

use super::{
    Fixture, Log, SECOND, config, crash, drain, event, every, id, patiently, pattern, pending, replayed, start, store,
    until,
};
use crate::{BusError, DeadLetters, EventBus, Handler, HandlerError, ReplayFrom, SubscribeOptions, Subscription};

fn is_bad(data: &[u8]) -> bool {
    data.starts_with(b"bad")
}

/// Calls everything bad that says so, until it has seen it once.
fn picky(log: &Arc<Log>) -> Arc<dyn Handler> {
    let known = parking_lot::Mutex::new(std::collections::HashSet::<EventId>::new());
    log.answering(move |d| {
        let is_first = known.lock().insert(d.envelope.id.clone());
        if is_first && is_bad(&d.envelope.data) { Err(HandlerError::Poison("bad".into())) } else { Ok(()) }
    })
}

/// A group with these events, each of which is a dead letter if its payload begins with `bad`.
async fn with_events(bus: &Arc<dyn EventBus>, log: &Arc<Log>, payloads: &[&str]) -> Subscription {
    let sub = start(bus, SubscribeOptions::at_least_once(pattern("t"), "g", picky(log))).await;
    for data in payloads {
        store(bus, event("t", "k", *data)).await;
    }
    drain(&sub).await;
    sub
}

async fn letters(bus: &Arc<dyn EventBus>) -> Vec<u64> {
    bus.dead_letters("g", 0, 100).await.expect("readable").into_iter().map(|letter| letter.seq).collect()
}

async fn status_of_dead(bus: &Arc<dyn EventBus>) -> u64 {
    bus.status("g").await.expect("there is a group").dead_letters
}

/// Only the group that gave up on an event gets it again: the same event, as its first attempt.
pub async fn redriven_events_come_to_their_group_only(f: impl Fixture) {
    let bus = f.bus();
    let (a, b, live) = (Log::new(), Log::new(), Log::new());
    let other = start(&bus, SubscribeOptions::at_least_once(pattern("*"), "b", b.handler())).await;
    let tap = start(&bus, SubscribeOptions::at_most_once(pattern("*"), live.handler())).await;
    let sub = with_events(&bus, &a, &["bad", "good"]).await;
    assert_eq!(a.lines(), ["bad#1", "good#1"]);
    assert_eq!(bus.redrive("g", DeadLetters::All).await.ok(), Some(1));
    drain(&sub).await;
    assert_eq!(a.lines(), ["bad#1", "good#1", "bad#1"]);
    let of_a: Vec<_> = a.seen.lock().iter().map(|d| (d.envelope.clone(), d.is_replay)).collect();
    assert_eq!(of_a[0], of_a[2], "the same envelope to the byte, and no replay");
    store(&bus, event("t", "k", "probe")).await;
    for sub in [&other, &tap, &sub] {
        drain(sub).await;
    }
    assert_eq!((b.data(), live.data()), (vec!["bad".into(), "good".into(), "probe".into()], b.data()));
    assert_eq!((status_of_dead(&bus).await, letters(&bus).await), (0, vec![]));
    assert_eq!(bus.metrics().published, 3, "nobody published it again");
}

/// They stand behind everything that waits, in stored order, in whatever order they are named.
pub async fn redriven_events_go_behind_what_waits_in_stored_order(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let sub = with_events(&bus, &log, &["bad1", "bad2", "bad3"]).await;
    sub.stop().await.expect("it stops");
    store(&bus, event("t", "k", "waits")).await;
    let seqs = letters(&bus).await;
    let named = DeadLetters::At(vec![seqs[2], seqs[0], seqs[2]]);
    assert_eq!(bus.redrive("g", named).await.ok(), Some(2));
    assert_eq!(letters(&bus).await, [seqs[1]]);
    assert_eq!(pending(&bus, "g").await, Some(3));
    store(&bus, event("t", "k", "after")).await;
    let again = Log::new();
    drain(&start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", again.handler())).await).await;
    assert_eq!(again.lines(), ["waits#1", "bad1#1", "bad3#1", "after#1"]);
}

/// Asking again is harmless, and so is asking for what is not there.
pub async fn redriving_twice_is_redriving_once(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let sub = with_events(&bus, &log, &["good", "bad"]).await;
    let seqs = letters(&bus).await;
    let counts = |which| {
        let bus = bus.clone();
        async move { bus.redrive("g", which).await.expect("there is a group") }
    };
    for nothing in [vec![], vec![0], vec![seqs[0] - 1, seqs[0] + 1], vec![u64::MAX, u64::MAX - 1, 1 << 63]] {
        assert_eq!(counts(DeadLetters::At(nothing)).await, 0);
    }
    assert_eq!(counts(DeadLetters::At(seqs.clone())).await, 1);
    for which in [DeadLetters::At(seqs), DeadLetters::All, DeadLetters::All] {
        assert_eq!(counts(which).await, 0);
    }
    drain(&sub).await;
    assert_eq!(log.lines(), ["good#1", "bad#1", "bad#1"]);
}

/// Without the group there is nothing to look at, to redrive or to purge, and the answer says so.
pub async fn an_unknown_group_has_no_dead_letters(f: impl Fixture) {
    let bus = f.bus();
    let which = [DeadLetters::All, DeadLetters::At(vec![]), DeadLetters::At(vec![1])];
    let mut refusals = vec![
        bus.status("nobody").await.expect_err("no group"),
        bus.dead_letters("nobody", 0, 1).await.expect_err("no group"),
    ];
    for which in which {
        refusals.push(bus.redrive("nobody", which.clone()).await.expect_err("no group"));
        refusals.push(bus.purge("nobody", which).await.expect_err("no group"));
    }
    for refused in refusals {
        assert!(matches!(&refused, BusError::NoGroup { group } if group == "nobody"), "{refused:?}");
        assert_eq!(refused.kind(), ErrorKind::Invalid);
    }
}

/// All means all that are there when it begins: it ends although each dies again at once.
pub async fn redriving_all_ends_while_they_die_again(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let handler = log.answering(|_| Err(HandlerError::Poison("bad".into())));
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", handler).with_concurrency(4);
    let sub = start(&bus, options).await;
    let max = config().limits.dead_letters_max;
    for n in 0..max {
        store(&bus, event("t", &format!("k{n}"), n.to_string())).await;
    }
    drain(&sub).await;
    for round in 1..=3 {
        let work = bus.redrive("g", DeadLetters::All);
        assert_eq!(patiently("the redrive", work).await.ok(), Some(max), "round {round}");
        drain(&sub).await;
        assert_eq!(log.len() as u64, max * (round + 1));
    }
    assert_eq!((status_of_dead(&bus).await, sub.metrics().evicted), (max, 0));
}

/// One that dies again is a new dead letter with a later place and a count of its own.
pub async fn a_redriven_event_has_all_its_attempts_again(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let handler = log.answering(|d| Err(HandlerError::Retry(format!("no {}", d.attempt))));
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", handler).with_retry(2, every(1));
    let sub = start(&bus, options).await;
    let sent = event("t", "k", "a").with_id(id("fixed"));
    let first = store(&bus, sent.clone()).await;
    until("it failed once", || sub.metrics().failed == 1).await;
    f.advance(SECOND).await;
    drain(&sub).await;
    assert_eq!(bus.redrive("g", DeadLetters::All).await.ok(), Some(1));
    assert!(store(&bus, sent.clone()).await.duplicate, "its id is known while it works");
    until("it failed again", || sub.metrics().failed == 3).await;
    f.advance(SECOND).await;
    drain(&sub).await;
    assert_eq!(log.lines(), ["a#1", "a#2", "a#1", "a#2"]);
    let dead = bus.dead_letters("g", 0, 10).await.expect("readable");
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert!(Some(dead[0].seq) > first.seq, "a place is never given twice");
    assert_eq!((dead[0].error.as_str(), dead[0].attempts), ("no 2", 2));
    assert_eq!(dead[0].envelope.as_ref(), Some(&sent));
    assert!(store(&bus, sent).await.duplicate);
}

/// The backlog has its limit here as well: all of them or none.
pub async fn a_redrive_into_a_full_backlog_is_refused(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    with_events(&bus, &log, &["bad1", "bad2", "bad3"]).await.stop().await.expect("it stops");
    let seqs = letters(&bus).await;
    let max = config().limits.backlog_max;
    let events = (0..max - 2).map(|n| event("t", "k", n.to_string())).collect();
    assert!(bus.publish_batch(events).await.iter().all(Result::is_ok));
    for which in [DeadLetters::All, DeadLetters::At(seqs.clone())] {
        let refused = bus.redrive("g", which).await.expect_err("no room for three");
        assert!(matches!(&refused, BusError::BacklogFull { group, .. } if group == "g"), "{refused:?}");
    }
    assert_eq!((letters(&bus).await, pending(&bus, "g").await), (seqs.clone(), Some(max - 2)));
    assert_eq!(bus.redrive("g", DeadLetters::At(seqs[..2].to_vec())).await.ok(), Some(2));
    assert_eq!((letters(&bus).await, pending(&bus, "g").await), (vec![seqs[2]], Some(max)));
}

/// What was put back to work is work as any other: a crash does not lose it.
pub async fn redriven_events_survive_a_crash(mut f: impl Fixture) {
    let log = Log::new();
    with_events(&f.bus(), &log, &["bad1", "bad2"]).await.stop().await.expect("it stops");
    let seqs = letters(&f.bus()).await;
    assert_eq!(f.bus().redrive("g", DeadLetters::At(vec![seqs[1]])).await.ok(), Some(1));
    if !crash(&mut f, "g").await {
        return;
    }
    assert_eq!((letters(&f.bus()).await, pending(&f.bus(), "g").await), (vec![seqs[0]], Some(1)));
    drain(&start(&f.bus(), SubscribeOptions::at_least_once(pattern("t"), "g", log.handler())).await).await;
    assert_eq!(log.lines(), ["bad1#1", "bad2#1", "bad2#1"]);
}

/// A copy that was put back to work is nobody else's: new groups and replays see the event once.
pub async fn a_redriven_event_is_kept_once(f: impl Fixture) {
    let bus = f.bus();
    let (log, late) = (Log::new(), Log::new());
    with_events(&bus, &log, &["bad", "good"]).await.stop().await.expect("it stops");
    assert_eq!(bus.redrive("g", DeadLetters::All).await.ok(), Some(1));
    let look = async || replayed(&bus, "*", ReplayFrom::Earliest).await.0;
    assert_eq!(look().await, ["bad", "good"]);
    let begun = SubscribeOptions::at_least_once(pattern("*"), "late", late.handler()).from_earliest();
    drain(&start(&bus, begun).await).await;
    assert_eq!(late.lines(), ["bad#1", "good#1"]);
    drain(&start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", log.handler())).await).await;
    assert_eq!(look().await, ["bad", "good"]);
}

/// Purged is gone for good, and nothing else is touched.
pub async fn purged_dead_letters_are_gone(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let sub = with_events(&bus, &log, &["bad1", "bad2", "bad3", "good"]).await;
    let seqs = letters(&bus).await;
    let some = DeadLetters::At(vec![seqs[1], seqs[1], 0, u64::MAX]);
    assert_eq!(bus.purge("g", some.clone()).await.ok(), Some(1));
    assert_eq!(bus.purge("g", some.clone()).await.ok(), Some(0));
    assert_eq!(bus.redrive("g", some).await.ok(), Some(0), "what was purged cannot be redriven");
    assert_eq!((letters(&bus).await, status_of_dead(&bus).await), (vec![seqs[0], seqs[2]], 2));
    assert_eq!(bus.purge("g", DeadLetters::All).await.ok(), Some(2));
    assert_eq!(bus.purge("g", DeadLetters::All).await.ok(), Some(0));
    assert_eq!((letters(&bus).await, status_of_dead(&bus).await), (vec![], 0));
    store(&bus, event("t", "k", "probe")).await;
    drain(&sub).await;
    assert_eq!(log.lines(), ["bad1#1", "bad2#1", "bad3#1", "good#1", "probe#1"]);
}

/// Page by page each is seen once; a page of none and a place beyond all are no mistakes.
pub async fn dead_letters_come_page_by_page(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    with_events(&bus, &log, &["bad1", "good", "bad2", "bad3", "bad4", "bad5"]).await;
    let all = bus.dead_letters("g", 0, usize::MAX).await.expect("readable");
    assert_eq!(all.len(), 5);
    let mut paged = Vec::new();
    loop {
        let after = paged.last().map_or(0, |letter: &crate::DeadLetter| letter.seq);
        let page = bus.dead_letters("g", after, 2).await.expect("readable");
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 2);
        paged.extend(page);
        assert!(paged.len() <= all.len(), "{paged:?}");
    }
    assert_eq!(paged, all);
    for (after, limit) in [(0, 0), (u64::MAX, 10), (u64::MAX - 1, 10), (1 << 63, 10), (all[4].seq, usize::MAX)] {
        assert_eq!(bus.dead_letters("g", after, limit).await.expect("readable"), [], "after {after}, limit {limit}");
    }
}

/// An error that goes on and on is stored by its beginning, and cut between two characters.
pub async fn a_long_error_is_stored_by_its_beginning(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let text = format!("no\0 '\"\\ {}", "é€🦀".repeat(50_000));
    let handler = {
        let text = text.clone();
        log.answering(move |_| Err(HandlerError::Poison(text.clone())))
    };
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", handler)).await;
    store(&bus, event("t", "k", "a")).await;
    drain(&sub).await;
    let dead = bus.dead_letters("g", 0, 10).await.expect("readable");
    let error = &dead[0].error;
    // PostgreSQL's text holds no NUL; what stands in its place is the backend's choice.
    assert!((900..=1_030).contains(&error.len()), "{} bytes", error.len());
    assert!(error.starts_with("no") && error.contains(" '\"\\ é€🦀é€🦀"), "{error}");
}
