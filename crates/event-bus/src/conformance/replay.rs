//! Replay: kept events handled once more.

use std::{sync::Arc, time::Duration};

use infra_types::{Clock, ErrorKind, ManualClock, Timestamp};
use parking_lot::Mutex;

use super::{Fixture, Gate, Log, config, drain, event, id, patiently, pattern, pending, replayed, start, store};
use crate::{BusError, Delivery, EventBus, HandlerError, Replay, ReplayFrom, Replayed, SubscribeOptions, handler_fn};

/// An event of a topic and key, whose payload is its id, that happened `millis` after the epoch.
async fn put(bus: &Arc<dyn EventBus>, topic: &str, key: &str, name: &str, millis: i64) {
    let mut sent = event(topic, key, name).with_id(id(name));
    sent.time = Timestamp::from_millis(millis);
    store(bus, sent).await;
}

fn said(handled: u64, has_gap: bool) -> Replayed {
    Replayed { handled, has_gap, ..Replayed::default() }
}

/// What was finished, what waits and what nobody wanted is replayed in stored order and marked as such; no group notices.
pub async fn a_replay_acknowledges_nothing(f: impl Fixture) {
    let bus = f.bus();
    let (done, waits, live, log) = (Log::new(), Log::new(), Log::new(), Log::new());
    let finished = start(&bus, SubscribeOptions::at_least_once(pattern("a"), "done", done.handler())).await;
    let held = SubscribeOptions::at_least_once(pattern("b"), "waits", waits.handler());
    start(&bus, held.clone()).await.stop().await.expect("it stops");
    let tap = start(&bus, SubscribeOptions::at_most_once(pattern("*"), live.handler())).await;
    for (n, topic) in ["a", "b", "c", "a", "b", "c"].into_iter().enumerate() {
        put(&bus, topic, "k", &n.to_string(), 1).await;
    }
    bus.publish(event("a", "k", "live"), Delivery::AtMostOnce).await.expect("published");
    drain(&finished).await;
    let work = bus.replay(Replay::new(pattern("*"), ReplayFrom::Earliest, log.handler()));
    assert_eq!(patiently("the replay", work).await.ok(), Some(said(6, false)));
    assert_eq!(log.lines(), ["0#1", "1#1", "2#1", "3#1", "4#1", "5#1"]);
    assert!(log.seen.lock().iter().all(|d| d.is_replay));
    assert_eq!(replayed(&bus, "?", ReplayFrom::Earliest).await, (log.data(), said(6, false)), "it can be repeated");
    assert_eq!(replayed(&bus, "c", ReplayFrom::Earliest).await.0, ["2", "5"]);
    assert_eq!(replayed(&bus, "nothing", ReplayFrom::Earliest).await, (vec![], said(0, false)));
    assert_eq!((pending(&bus, "done").await, pending(&bus, "waits").await), (Some(0), Some(2)));
    assert_eq!((bus.metrics().replayed, bus.metrics().published), (14, 7));
    let sub = start(&bus, held).await;
    drain(&sub).await;
    drain(&tap).await;
    assert_eq!(
        (done.lines(), waits.lines(), live.len()),
        (vec!["0#1".into(), "3#1".into()], vec!["1#1".into(), "4#1".into()], 7)
    );
    assert!(waits.seen.lock().iter().chain(live.seen.lock().iter()).all(|d| !d.is_replay));
}

/// A handler that fails, panics or hangs is counted, and the next event is handled.
pub async fn a_replay_goes_on_after_failures(f: impl Fixture) {
    let bus = f.bus();
    let (gate, log) = (Gate::new(), Log::new());
    for data in ["retry", "poison", "panic", "hang", "good"] {
        store(&bus, event("t", "k", data)).await;
    }
    let handler = {
        let (gate, log) = (gate.clone(), log.clone());
        handler_fn(move |d| {
            let (gate, log) = (gate.clone(), log.clone());
            async move {
                log.record(d.clone());
                match d.envelope.data.as_ref() {
                    b"retry" => Err(HandlerError::Retry("no".into())),
                    b"poison" => Err(HandlerError::Poison("never".into())),
                    b"panic" => panic!("on purpose"),
                    b"hang" => {
                        gate.entered.add_permits(1);
                        std::future::pending().await
                    }
                    _ => Ok(()),
                }
            }
        })
    };
    let replay = Replay::new(pattern("t"), ReplayFrom::Earliest, handler).with_timeout(Duration::from_secs(5));
    let work = tokio::spawn({
        let bus = bus.clone();
        async move { bus.replay(replay).await }
    });
    gate.wait().await;
    let said = patiently("the replay", async {
        while !work.is_finished() {
            f.advance(Duration::from_secs(1)).await;
            tokio::task::yield_now().await;
        }
        work.await.expect("no panic")
    })
    .await;
    let want = Replayed { handled: 1, failed: 4, ..Replayed::default() };
    assert_eq!(said.ok(), Some(want));
    assert_eq!(log.lines(), ["retry#1", "poison#1", "panic#1", "hang#1", "good#1"], "none is tried again");
}

/// From an event on, by its id; where that is not kept the replay is refused and handles nothing.
pub async fn a_replay_begins_with_an_event(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    for n in 0..config().limits.history_max + 5 {
        put(&bus, if n % 2 == 0 { "even" } else { "odd" }, "k", &format!("e{n}"), 1).await;
    }
    let from = |name: &str| ReplayFrom::Id(id(name));
    assert_eq!(
        replayed(&bus, "*", from("e22")).await,
        (vec!["e22".into(), "e23".into(), "e24".into()], said(3, false))
    );
    assert_eq!(replayed(&bus, "odd", from("e22")).await.0, ["e23"], "it need not be one that the pattern takes");
    assert_eq!(replayed(&bus, "*", from("e5")).await.1, said(20, false), "the oldest that is kept");
    assert_eq!(replayed(&bus, "*", from("e24")).await.0, ["e24"]);
    for gone in ["e4", "e0", "never-published"] {
        let refused = bus.replay(Replay::new(pattern("*"), from(gone), log.handler())).await.expect_err("it is gone");
        assert!(matches!(&refused, BusError::Gone { id } if id == gone), "{refused:?}");
        assert_eq!(refused.kind(), ErrorKind::Invalid);
    }
    assert_eq!(log.len(), 0);
}

/// From the first event that is not older on: all that were stored behind it come, whatever their time.
pub async fn a_replay_begins_at_a_time(f: impl Fixture) {
    let bus = f.bus();
    for (name, millis) in [("a", 10), ("b", 30), ("c", 20), ("d", 40)] {
        put(&bus, "t", "k", name, millis).await;
    }
    for (millis, want) in [
        (0, vec!["a", "b", "c", "d"]),
        (10, vec!["a", "b", "c", "d"]),
        (11, vec!["b", "c", "d"]),
        (31, vec!["d"]),
        (41, vec![]),
    ] {
        let (found, told) = replayed(&bus, "t", ReplayFrom::Time(Timestamp::from_millis(millis))).await;
        assert_eq!((found, told.has_gap), (want.into_iter().map(String::from).collect(), false), "from {millis}");
    }
}

/// The last so many of those that the pattern takes.
pub async fn a_replay_of_the_last_few(f: impl Fixture) {
    let bus = f.bus();
    for n in 0..10 {
        put(&bus, if n % 3 == 0 { "third" } else { "other" }, "k", &n.to_string(), 1).await;
    }
    for (topics, last, want) in [
        ("third", 2, vec!["6", "9"]),
        ("*", 3, vec!["7", "8", "9"]),
        ("third", 4, vec!["0", "3", "6", "9"]),
        ("third", usize::MAX, vec!["0", "3", "6", "9"]),
        ("*", 0, vec![]),
        ("none", 5, vec![]),
    ] {
        let found = replayed(&bus, topics, ReplayFrom::Last(last)).await;
        assert_eq!(
            found,
            (want.iter().map(|w| (*w).to_owned()).collect(), said(want.len() as u64, false)),
            "{last} of {topics}"
        );
    }
}

/// The latest of each topic and key, in stored order.
pub async fn a_replay_of_the_latest_of_each_key(f: impl Fixture) {
    let bus = f.bus();
    for (name, topic, key) in
        [("1", "p", "BTC"), ("2", "q", "BTC"), ("3", "p", "ETH"), ("4", "p", "BTC"), ("5", "x", "BTC"), ("6", "p", "")]
    {
        put(&bus, topic, key, name, 1).await;
    }
    let (found, told) = replayed(&bus, "?", ReplayFrom::LastPerKey).await;
    assert_eq!((found, told), (vec!["2".into(), "3".into(), "4".into(), "5".into(), "6".into()], said(5, false)));
    assert_eq!(replayed(&bus, "p", ReplayFrom::LastPerKey).await.0, ["3", "4", "6"]);
}

/// Where older events are gone, the replay that might have wanted them says so; the one that got all it asked for does not.
pub async fn a_replay_tells_that_older_events_are_gone(f: impl Fixture) {
    let bus = f.bus();
    let kept = config().limits.history_max;
    for n in 0..kept {
        put(&bus, "t", "k", &format!("e{n}"), i64::try_from(n).unwrap_or(0)).await;
    }
    assert_eq!(replayed(&bus, "t", ReplayFrom::Earliest).await.1, said(kept, false), "all are there");
    for n in kept..kept + 3 {
        put(&bus, "t", "k", &format!("e{n}"), i64::try_from(n).unwrap_or(0)).await;
    }
    let at = |n: i64| ReplayFrom::Time(Timestamp::from_millis(n));
    for (from, handled, has_gap) in [
        (ReplayFrom::Earliest, kept, true),
        (ReplayFrom::LastPerKey, 1, true),
        (ReplayFrom::Last(20), 20, false),
        (ReplayFrom::Last(21), 20, true),
        (ReplayFrom::Id(id("e3")), kept, false),
        (at(0), kept, true),
        (at(4), 19, false),
    ] {
        assert_eq!(replayed(&bus, "t", from.clone()).await.1, said(handled, has_gap), "{from:?}");
    }
}

/// Over several pages, beside work that goes on: each event once, in order, and the same at each replay.
pub async fn a_replay_twice_is_the_same(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let held = SubscribeOptions::at_least_once(pattern("t"), "held", log.handler());
    start(&bus, held).await.stop().await.expect("it stops");
    // What a group needs is kept beyond the bound of the history.
    let events = (0..150).map(|n| event("t", &format!("k{}", n % 7), n.to_string())).collect();
    assert!(bus.publish_batch(events).await.iter().all(Result::is_ok));
    let want: Vec<_> = (0..150).map(|n: u32| n.to_string()).collect();
    let first = replayed(&bus, "t", ReplayFrom::Earliest).await;
    assert_eq!(first, (want, said(150, false)));
    assert_eq!(replayed(&bus, "t", ReplayFrom::Earliest).await, first);
    assert_eq!(replayed(&bus, "t", ReplayFrom::Last(100)).await.0, first.0[50..]);
    let (a, b) = tokio::join!(replayed(&bus, "t", ReplayFrom::Earliest), replayed(&bus, "t", ReplayFrom::LastPerKey));
    assert_eq!((a, b.0), (first.clone(), first.0[143..].to_vec()), "two at a time are not in each other's way");
}

/// Beside publishers that race, a replay shows a beginning of the order that there is in the end: no place comes in later behind its back.
pub async fn a_replay_beside_publishers_skips_nothing(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let held = SubscribeOptions::at_least_once(pattern("t"), "held", log.handler());
    start(&bus, held).await.stop().await.expect("it stops");
    let publishers: Vec<_> = (0..6)
        .map(|who| {
            let bus = bus.clone();
            tokio::spawn(async move {
                for n in 0..15 {
                    let events = vec![event("t", "k", format!("{who}/{n}a")), event("t", "k", format!("{who}/{n}b"))];
                    assert!(bus.publish_batch(events).await.iter().all(Result::is_ok));
                }
            })
        })
        .collect();
    let mut seen = Vec::new();
    while publishers.iter().any(|publisher| !publisher.is_finished()) {
        seen.push(replayed(&bus, "t", ReplayFrom::Earliest).await.0);
        tokio::task::yield_now().await;
    }
    for publisher in publishers {
        patiently("a publisher", publisher).await.expect("no panic");
    }
    let all = replayed(&bus, "t", ReplayFrom::Earliest).await.0;
    assert_eq!(all.len(), 180);
    for found in seen {
        assert_eq!(found, all[..found.len()]);
    }
}

/// It ends with the newest event of its call, although each handling publishes a further one.
pub async fn a_replay_ends_with_the_newest_of_its_call(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    // More than a page, kept by a group that nobody serves.
    let held = SubscribeOptions::at_least_once(pattern("t"), "held", log.handler());
    start(&bus, held).await.stop().await.expect("it stops");
    let events = (0..70).map(|n| event("t", "k", n.to_string())).collect();
    assert!(bus.publish_batch(events).await.iter().all(Result::is_ok));
    let handler = {
        let (bus, log) = (bus.clone(), log.clone());
        handler_fn(move |d| {
            let (bus, log) = (bus.clone(), log.clone());
            async move {
                log.record(d);
                store(&bus, event("t", "k", "more")).await;
                Ok(())
            }
        })
    };
    let work = bus.replay(Replay::new(pattern("t"), ReplayFrom::Earliest, handler));
    assert_eq!(patiently("the replay", work).await.ok(), Some(said(70, false)));
    assert_eq!(log.data(), (0..70).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(replayed(&bus, "t", ReplayFrom::Earliest).await.1.handled, 140);
}

/// The clock of a replay stands at the time of each event when it is handled, and never goes back.
pub async fn a_replay_moves_its_clock(f: impl Fixture) {
    let bus = f.bus();
    for (name, millis) in [("a", 1_000), ("b", 5_000), ("c", 3_000), ("d", 9_000)] {
        put(&bus, "t", "k", name, millis).await;
    }
    let clock = ManualClock::starting_at(Timestamp::from_millis(2_000));
    let times = Arc::new(Mutex::new(Vec::new()));
    let handler = {
        let (clock, times) = (clock.clone(), times.clone());
        handler_fn(move |_| {
            times.lock().push(clock.wall().as_millis());
            async { Ok(()) }
        })
    };
    let before = f.clock().wall();
    let replay = Replay::new(pattern("t"), ReplayFrom::Earliest, handler).on_clock(clock);
    patiently("the replay", bus.replay(replay)).await.expect("it runs");
    assert_eq!(*times.lock(), [2_000, 5_000, 5_000, 9_000]);
    assert_eq!(f.clock().wall(), before, "the clock of the bus is another");
}

/// Dropping a replay ends it; whoever comes next sees a bus as it was.
pub async fn a_dropped_replay_leaves_nothing(f: impl Fixture) {
    let bus = f.bus();
    let (gate, held, log) = (Gate::new(), Log::new(), Log::new());
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", log.handler())).await;
    for n in 0..3 {
        store(&bus, event("t", "k", n.to_string())).await;
    }
    drain(&sub).await;
    let stuck = Replay::new(pattern("t"), ReplayFrom::Earliest, gate.handler(&held, |_| true));
    let work = tokio::spawn({
        let bus = bus.clone();
        async move { bus.replay(stuck).await }
    });
    gate.wait().await;
    work.abort();
    assert!(patiently("the end", work).await.is_err_and(|e| e.is_cancelled()));
    gate.open(3);
    assert_eq!(replayed(&bus, "t", ReplayFrom::Earliest).await.0, ["0", "1", "2"]);
    store(&bus, event("t", "k", "3")).await;
    drain(&sub).await;
    assert_eq!((log.lines(), held.len()), (vec!["0#1".into(), "1#1".into(), "2#1".into(), "3#1".into()], 1));
}

/// An empty bus, no time for a handling, and a closed bus.
pub async fn a_replay_of_nothing(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let all = [ReplayFrom::Earliest, ReplayFrom::Time(Timestamp::EPOCH), ReplayFrom::Last(3), ReplayFrom::LastPerKey];
    for from in all {
        assert_eq!(replayed(&bus, "*", from).await, (vec![], Replayed::default()));
    }
    let no_time = Replay::new(pattern("*"), ReplayFrom::Earliest, log.handler()).with_timeout(Duration::ZERO);
    let refused = bus.replay(no_time).await.expect_err("no time");
    assert!(refused.kind() == ErrorKind::Invalid && refused.to_string().contains("timeout"), "{refused}");
    bus.close().await.expect("nothing ran");
    let closed = bus.replay(Replay::new(pattern("*"), ReplayFrom::Earliest, log.handler())).await;
    assert!(matches!(closed, Err(BusError::Closed)), "{closed:?}");
}
