//! Publishing: batches, races, and who may do it.

use std::{collections::BTreeSet, sync::Arc};

use infra_types::{Envelope, ErrorKind};

use super::{Fixture, Gate, Log, config, drain, event, id, patiently, pattern, pending, replayed, start, store, until};
use crate::{BusError, EventBus, ReplayFrom, SubscribeOptions, handler_fn};

fn numbered(topic: &str, key: &str, from: u64, to: u64) -> Vec<Envelope> {
    (from..to).map(|n| event(topic, key, n.to_string())).collect()
}

/// Refusals in the middle of a batch leave the others in their order: too large, known, or for a group that is full.
pub async fn a_batch_with_refusals_keeps_its_order(f: impl Fixture) {
    let bus = f.bus();
    let (log, full) = (Log::new(), Log::new());
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", log.handler())).await;
    let nobody = SubscribeOptions::at_least_once(pattern("full"), "full", full.handler());
    start(&bus, nobody).await.stop().await.expect("it stops");
    let max = config().limits.backlog_max;
    assert!(bus.publish_batch(numbered("full", "k", 0, max - 1)).await.iter().all(Result::is_ok));
    store(&bus, event("t", "k", "known").with_id(id("known"))).await;
    let mut batch = numbered("t", "k", 0, 3);
    batch.push(event("full", "k", "the last that has room"));
    batch.push(event("t", "k", "known").with_id(id("known")));
    batch.push(event("full", "other", "no room"));
    batch.extend(numbered("t", "k", 3, 5));
    batch.push(event("t", &"k".repeat(600), "too large"));
    batch.push(event("full", "another", "no room"));
    batch.extend(numbered("t", "k", 5, 7));
    let answers = bus.publish_batch(batch).await;
    let kinds: String = answers
        .iter()
        .map(|answer| match answer {
            Ok(said) if said.duplicate => 'd',
            Ok(_) => '.',
            Err(BusError::BacklogFull { group, .. }) if group == "full" => 'f',
            Err(BusError::TooLarge { what: "key", .. }) => 'l',
            Err(_) => '?',
        })
        .collect();
    assert_eq!(kinds, "....df..lf..", "{answers:?}");
    drain(&sub).await;
    assert_eq!(log.data(), ["known", "0", "1", "2", "3", "4", "5", "6"]);
    assert_eq!(pending(&bus, "full").await, Some(max));
}

/// After a refused event, later ones of its key in the same batch are refused as well, whatever their topic: nothing overtakes. Other keys go on.
pub async fn a_refused_event_holds_back_its_key(f: impl Fixture) {
    let bus = f.bus();
    let (log, full) = (Log::new(), Log::new());
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", log.handler())).await;
    let nobody = SubscribeOptions::at_least_once(pattern("full"), "full", full.handler());
    start(&bus, nobody.clone()).await.stop().await.expect("it stops");
    let max = config().limits.backlog_max;
    assert!(bus.publish_batch(numbered("full", "k", 0, max)).await.iter().all(Result::is_ok));
    let batch = vec![
        event("t", "k", "before"),
        event("full", "k", "refused"),
        event("t", "other", "of another key"),
        event("t", "k", "behind it"),
        event("t", &"k".repeat(600), "too large"),
        event("full", "k", "of its topic"),
        // With priority it has a lane of its own.
        event("halt:t", "k", "halt"),
        event("t", "other", "the end"),
    ];
    let mut again: Vec<_> = [1, 3, 5].map(|n| batch[n].clone()).into();
    let answers = bus.publish_batch(batch).await;
    let kinds: String = answers
        .iter()
        .map(|answer| match answer {
            Ok(_) => '.',
            Err(BusError::BacklogFull { group, .. }) if group == "full" => 'f',
            Err(BusError::HeldBack { key, group }) if (key.as_str(), group.as_str()) == ("k", "full") => 'h',
            Err(BusError::TooLarge { .. }) => 'l',
            Err(_) => '?',
        })
        .collect();
    assert_eq!(kinds, ".f.hlh..", "{answers:?}");
    assert!(answers[3].as_ref().is_err_and(|e| e.kind() == ErrorKind::LimitExceeded));
    drain(&sub).await;
    assert_eq!(log.data(), ["before", "of another key", "the end"]);
    let serves = start(&bus, nobody).await;
    drain(&serves).await;
    again.push(event("t", "k", "last"));
    let stored = bus.publish_batch(again).await;
    assert!(
        stored.iter().all(|answer| answer.as_ref().is_ok_and(|p| !p.duplicate)),
        "nothing of them was there: {stored:?}"
    );
    drain(&sub).await;
    drain(&serves).await;
    assert_eq!(log.data()[3..], ["behind it", "last"]);
    assert_eq!(full.data()[max as usize..], ["refused", "of its topic"]);
}

/// A batch of none, and one of more than are stored at a time.
pub async fn a_batch_may_have_any_length(f: impl Fixture) {
    let bus = f.bus();
    assert!(bus.publish_batch(vec![]).await.is_empty());
    let (a, b) = (Log::new(), Log::new());
    let sub_a = start(&bus, SubscribeOptions::at_least_once(pattern("a"), "a", a.handler())).await;
    let sub_b = start(&bus, SubscribeOptions::at_least_once(pattern("b"), "b", b.handler())).await;
    sub_a.pause();
    sub_b.pause();
    let batch = (0..300).map(|n| event(if n % 2 == 0 { "a" } else { "b" }, "k", n.to_string())).collect();
    let seqs: Vec<_> = bus.publish_batch(batch).await.into_iter().map(|answer| answer.expect("stored").seq).collect();
    assert!(seqs.len() == 300 && seqs.windows(2).all(|pair| pair[0] < pair[1]), "{seqs:?}");
    for (sub, log, rest) in [(sub_a, a, 0), (sub_b, b, 1)] {
        sub.resume();
        drain(&sub).await;
        assert_eq!(log.data(), (0..300).filter(|n| n % 2 == rest).map(|n| n.to_string()).collect::<Vec<_>>());
    }
}

/// Twenty that publish one id at the same time: one of them published it, and all learn the same place.
pub async fn an_id_is_one_event_in_a_race(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", log.handler())).await;
    for round in 0..5 {
        let same = event("t", "k", round.to_string()).with_id(id(&format!("round-{round}")));
        let racers: Vec<_> = (0..20)
            .map(|_| {
                let (bus, same) = (bus.clone(), same.clone());
                tokio::spawn(async move { store(&bus, same).await })
            })
            .collect();
        let mut answers = Vec::new();
        for racer in racers {
            answers.push(patiently("a publish", racer).await.expect("no panic"));
        }
        assert_eq!(answers.iter().filter(|said| !said.duplicate).count(), 1, "{answers:?}");
        assert_eq!(answers.iter().map(|said| said.seq).collect::<BTreeSet<_>>().len(), 1, "{answers:?}");
    }
    drain(&sub).await;
    assert_eq!(log.lines(), ["0#1", "1#1", "2#1", "3#1", "4#1"]);
}

/// Eight publishers, singly and in batches, beside two consumers: nothing is lost, nothing comes twice, each keeps its order.
pub async fn publishers_race_and_nothing_is_lost(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", log.handler()).with_concurrency(3);
    let subs = [start(&bus, options.clone()).await, start(&bus, options).await];
    let publishers: Vec<_> = (0..8u64)
        .map(|who| {
            let bus = bus.clone();
            tokio::spawn(async move {
                let mut seqs = Vec::new();
                for part in 0..10 {
                    let mut events: Vec<_> = (2 * part..2 * part + 2)
                        .map(|n| event("t", &format!("k{who}"), format!("{who}/{n}")))
                        .collect();
                    if who % 2 == 0 {
                        seqs.extend(bus.publish_batch(events).await.into_iter().map(|said| said.expect("stored").seq));
                    } else {
                        for event in events.drain(..) {
                            seqs.push(store(&bus, event).await.seq);
                        }
                    }
                }
                seqs
            })
        })
        .collect();
    let mut places = BTreeSet::new();
    for publisher in publishers {
        let seqs = patiently("a publisher", publisher).await.expect("no panic");
        assert!(seqs.is_sorted(), "{seqs:?}");
        places.extend(seqs);
    }
    assert_eq!(places.len(), 160, "no place is given twice");
    for sub in &subs {
        drain(sub).await;
    }
    let lines = log.lines();
    assert_eq!(lines.len(), 160);
    for who in 0..8 {
        let of_one: Vec<_> = lines.iter().filter(|l| l.starts_with(&format!("{who}/"))).cloned().collect();
        assert_eq!(of_one, (0..20).map(|n| format!("{who}/{n}#1")).collect::<Vec<_>>());
    }
}

/// A handler may publish, to its own group as well, and its event is stored before its own acknowledgement.
pub async fn a_handler_may_publish(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let handler = {
        let (bus, log): (Arc<dyn EventBus>, _) = (bus.clone(), log.clone());
        handler_fn(move |d| {
            let (bus, log) = (bus.clone(), log.clone());
            async move {
                let n: u64 = String::from_utf8_lossy(&d.envelope.data).parse().expect("a number");
                log.record(d);
                if n < 30 {
                    store(&bus, event("t", "k", (n + 1).to_string())).await;
                }
                Ok(())
            }
        })
    };
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", handler)).await;
    store(&bus, event("t", "k", "0")).await;
    log.wait(31).await;
    drain(&sub).await;
    assert_eq!(log.data(), (0..=30).map(|n| n.to_string()).collect::<Vec<_>>());
}

/// A publish whose caller went away is there or not, never half, and its id may be published again.
pub async fn a_dropped_publish_may_be_repeated(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", log.handler())).await;
    let events: Vec<_> = (0..30).map(|n| event("t", "k", n.to_string()).with_id(id(&format!("e{n}")))).collect();
    for (n, sent) in events.iter().enumerate() {
        let mut dropped = Box::pin(bus.publish(sent.clone(), crate::Delivery::AtLeastOnce));
        for _ in 0..n % 4 {
            if futures::poll!(&mut dropped).is_ready() {
                break;
            }
        }
        drop(dropped);
        store(&bus, sent.clone()).await;
    }
    drain(&sub).await;
    // Whoever went away may be overtaken by its own repetition, so the order is that of the repetitions.
    assert_eq!(log.lines(), (0..30).map(|n| format!("{n}#1")).collect::<Vec<_>>());
    assert_eq!(replayed(&bus, "t", ReplayFrom::Last(10)).await.0, (20..30).map(|n| n.to_string()).collect::<Vec<_>>());
}

/// Dropping the handle of a subscription changes nothing.
pub async fn a_dropped_handle_changes_nothing(f: impl Fixture) {
    let bus = f.bus();
    let (log, live) = (Log::new(), Log::new());
    drop(start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", log.handler())).await);
    drop(start(&bus, SubscribeOptions::at_most_once(pattern("t"), live.handler())).await);
    for n in 0..3 {
        store(&bus, event("t", "k", n.to_string())).await;
    }
    assert_eq!(log.wait(3).await, live.wait(3).await);
}

/// A stopped live subscription gets nothing more, and nobody waits for it.
pub async fn a_stopped_live_subscription_gets_nothing_more(f: impl Fixture) {
    let bus = f.bus();
    let (log, other) = (Log::new(), Log::new());
    let options = |log: &Arc<Log>| {
        SubscribeOptions::at_most_once(pattern("t"), log.handler()).with_queue(1, crate::Overflow::Block)
    };
    let (sub, rest) = (start(&bus, options(&log)).await, start(&bus, options(&other)).await);
    store(&bus, event("t", "k", "0")).await;
    drain(&sub).await;
    sub.stop().await.expect("it stops");
    for n in 1..20 {
        patiently("the publish", store(&bus, event("t", "k", n.to_string()))).await;
    }
    drain(&rest).await;
    assert_eq!((log.len(), other.len(), sub.metrics().published), (1, 20, 1));
}

/// `drained` means what was published before the call: it waits for retries, and not for what comes later.
pub async fn drained_waits_for_what_was_published_before(f: impl Fixture) {
    let bus = f.bus();
    let (gate, log) = (Gate::new(), Log::new());
    let handler = {
        let held = gate.handler(&log, |d| d.envelope.data.starts_with(b"held"));
        handler_fn(move |d| {
            let held = held.clone();
            async move {
                let fails = d.envelope.data == "flaky".as_bytes() && d.attempt == 1;
                held.handle(d).await?;
                if fails { Err(crate::HandlerError::Retry("no".into())) } else { Ok(()) }
            }
        })
    };
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", handler).with_retry(3, super::every(10));
    let sub = start(&bus, options).await;
    store(&bus, event("t", "k", "flaky")).await;
    until("it failed", || sub.metrics().failed == 1).await;
    let mut draining = Box::pin(sub.drained());
    for _ in 0..3 {
        assert!(futures::poll!(&mut draining).is_pending(), "it waits for its retry");
        tokio::task::yield_now().await;
    }
    store(&bus, event("t", "other", "held")).await;
    gate.wait().await;
    gate.open(1);
    f.advance(super::SECOND * 10).await;
    patiently("drained", draining).await.expect("it drains");
    assert_eq!(log.lines(), ["flaky#1", "held#1", "flaky#2"]);
    let live = Log::new();
    let tap = start(&bus, SubscribeOptions::at_most_once(pattern("u"), gate.handler(&live, |_| true))).await;
    store(&bus, event("u", "k", "before")).await;
    let mut draining = Box::pin(tap.drained());
    gate.wait().await;
    assert!(futures::poll!(&mut draining).is_pending(), "it is being handled");
    store(&bus, event("u", "k", "after")).await;
    gate.open(1);
    patiently("drained", draining).await.expect("it drains");
    gate.wait().await;
    assert_eq!(live.lines(), ["before#1", "after#1"], "the later one is at the gate still");
    gate.open(1);
}

/// A group that is removed under its consumer: what runs ends, nothing comes of it, and the name may begin anew.
pub async fn a_group_removed_under_its_consumer_ends_quietly(f: impl Fixture) {
    let bus = f.bus();
    let (gate, log, again) = (Gate::new(), Log::new(), Log::new());
    let handler = gate.handler(&log, |d| d.envelope.data == "held".as_bytes());
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", handler)).await;
    for data in ["held", "behind"] {
        store(&bus, event("t", "k", data)).await;
    }
    gate.wait().await;
    assert_eq!(bus.remove_group("g").await.ok(), Some(true));
    gate.open(1);
    until("what it held is let go", || sub.waiting() == 0).await;
    patiently("the stop", sub.stop()).await.expect("it stops");
    let anew = start(&bus, SubscribeOptions::at_least_once(pattern("t*"), "g", again.handler())).await;
    store(&bus, event("tx", "k", "new")).await;
    drain(&anew).await;
    assert_eq!(again.lines(), ["new#1"], "with another pattern, and nothing of the old one");
    assert!(log.len() <= 2 && log.lines()[0] == "held#1", "{:?}", log.lines());
}
