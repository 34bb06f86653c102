//! Odd and hostile input: accepted where it is good, refused with its reason where it is not.

use std::time::Duration;

use infra_types::{Clock, ErrorKind, Timestamp, Topic};

use super::{Fixture, Log, drain, event, id, patiently, pattern, pending, replayed, start, store};
use crate::{BusError, DeadLetters, Delivery, HandlerError, Mode, Pattern, ReplayFrom, SubscribeOptions};

/// Every printable character.
fn printable() -> String {
    (b'!'..=b'~').map(char::from).collect()
}

/// The longest topics, keys, ids, attributes and names are good.
pub async fn the_longest_of_everything_is_taken(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let topic = format!("{}:{}", "t".repeat(100), "x".repeat(99));
    let all = Pattern::new("?".repeat(200)).expect("a good pattern");
    let group = "g".repeat(64);
    let options = SubscribeOptions::at_least_once(all, group.clone(), log.handler()).with_consumer("c".repeat(64));
    let sub = start(&bus, options).await;
    let mut sent = event(&topic, &"é".repeat(256), "x").with_id(id(&"i".repeat(128))).with_source("s".repeat(512));
    sent.kind = "k".repeat(512);
    sent.content_type = "c".repeat(512);
    // Later versions of the standard may add to its 55 bytes.
    let traceparent = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-";
    sent.traceparent = Some(format!("{traceparent}{}", "x".repeat(512 - traceparent.len())));
    sent.time = Timestamp::from_nanos(i64::MAX);
    store(&bus, sent.clone()).await;
    drain(&sub).await;
    assert_eq!(log.seen.lock()[0].envelope.as_ref(), &sent);
    assert_eq!(pending(&bus, &group).await, Some(0));
    for (what, spoil) in [
        ("key", (|e| e.key.push('x')) as fn(&mut infra_types::Envelope)),
        ("source", |e| e.source.push('x')),
        ("kind", |e| e.kind.push('x')),
        ("content type", |e| e.content_type.push('x')),
        ("traceparent", |e| e.traceparent = e.traceparent.take().map(|t| t + "x")),
    ] {
        let mut bad = sent.clone();
        spoil(&mut bad);
        let at = f.clock().wall();
        let refusals = [
            bus.publish(bad.clone(), Delivery::AtLeastOnce).await,
            bus.publish(bad.clone(), Delivery::AtMostOnce).await,
            bus.publish_at(bad.clone(), at).await,
            bus.publish_batch(vec![bad]).await.remove(0),
        ];
        for refused in refusals {
            assert!(
                matches!(refused, Err(BusError::TooLarge { what: w, max: 512, .. }) if w == what),
                "{what}: {refused:?}"
            );
        }
    }
}

/// Names of groups and consumers may hold every printable character, and no two that differ are mixed up.
pub async fn odd_names_stay_apart(f: impl Fixture) {
    let bus = f.bus();
    let printable = printable();
    let names = [
        &printable[..64],
        &printable[30..],
        "g",
        "G",
        "g:",
        "g:1",
        "{g}",
        "*",
        "%",
        "_",
        "'",
        "\"",
        "\\",
        "g;--",
        "$1",
        "0",
        "None",
    ];
    let mut subs = Vec::new();
    for name in names {
        let log = Log::new();
        let handler = log.answering(|d| if d.attempt == 1 { Err(HandlerError::Poison("no".into())) } else { Ok(()) });
        let options = SubscribeOptions::at_least_once(pattern("t"), name, handler).with_consumer(name);
        subs.push((name, start(&bus, options).await, log));
    }
    store(&bus, event("t", "k", "a")).await;
    for (name, sub, log) in &subs {
        assert_eq!(sub.label(), *name);
        drain(sub).await;
        assert_eq!(log.lines(), ["a#1"], "{name}");
        assert_eq!(bus.dead_letters(name, 0, 10).await.expect("readable")[0].group, *name);
    }
    assert_eq!(bus.purge("*", DeadLetters::All).await.ok(), Some(1));
    assert_eq!(bus.remove_group("%").await.ok(), Some(true));
    for (name, ..) in subs.iter().filter(|(name, ..)| !["*", "%"].contains(name)) {
        assert_eq!(bus.status(name).await.expect("still there").dead_letters, 1, "{name}");
    }
}

/// Keys are bytes to compare and nothing else: whatever they look like, each is a lane of its own.
pub async fn odd_keys_are_lanes_of_their_own(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let handler = log.answering(|d| {
        if d.envelope.data.starts_with(b"0") && d.attempt == 1 { Err(HandlerError::Retry("no".into())) } else { Ok(()) }
    });
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", handler).with_retry(3, super::every(10));
    start(&bus, options.clone()).await.stop().await.expect("it stops");
    let keys =
        ["", " ", "\0", "\0\0", "a", "A", "a ", "é", "e\u{301}", "a\nb", "*", "%", "'", "{}", "NULL", "0", "00", "-0"];
    for n in 0..2 {
        for (k, key) in keys.iter().enumerate() {
            store(&bus, event("t", key, format!("{n}/{k}"))).await;
        }
    }
    let sub = start(&bus, options).await;
    // Each first one fails; a second one that came now would have another lane than its first.
    super::until("each first one failed", || sub.metrics().failed == keys.len() as u64).await;
    assert_eq!(log.len(), keys.len());
    f.advance(Duration::from_secs(10)).await;
    drain(&sub).await;
    let lines = log.lines();
    for (k, key) in keys.iter().enumerate() {
        let of_key: Vec<_> = lines.iter().filter(|l| l.contains(&format!("/{k}#"))).cloned().collect();
        assert_eq!(of_key, [format!("0/{k}#1"), format!("0/{k}#2"), format!("1/{k}#1")], "key {key:?}");
    }
}

/// Only `*`, `?` and `\` mean anything; what means something to a store's own patterns does not.
pub async fn odd_patterns_take_what_they_say(f: impl Fixture) {
    let bus = f.bus();
    let topics = ["t%", "t_", "t.", "tx", "txx", "[tx]", "t", "T", "t:%", "'t'", "t;--", "$1", "(t|x)", "^t$", "t+"];
    let cases: [(&str, &[&str]); 14] = [
        ("t%", &["t%"]),
        ("t_", &["t_"]),
        ("t.", &["t."]),
        ("t?", &["t%", "t_", "t.", "tx", "t+"]),
        ("[tx]", &["[tx]"]),
        ("t", &["t"]),
        ("T*", &["T"]),
        ("\\t\\x", &["tx"]),
        ("\\*", &[]),
        ("*t", &["t"]),
        ("*:*", &["t:%"]),
        ("^t$", &["^t$"]),
        ("'*'", &["'t'"]),
        ("****?***?", &["t%", "t_", "t.", "tx", "txx", "[tx]", "t:%", "'t'", "t;--", "$1", "(t|x)", "^t$", "t+"]),
    ];
    let mut subs = Vec::new();
    for (n, (text, want)) in cases.iter().enumerate() {
        let (live, stored) = (Log::new(), Log::new());
        let tap = start(&bus, SubscribeOptions::at_most_once(pattern(text), live.handler())).await;
        let sub = start(&bus, SubscribeOptions::at_least_once(pattern(text), format!("g{n}"), stored.handler())).await;
        subs.push((text, want, [(tap, live), (sub, stored)]));
    }
    for topic in topics {
        store(&bus, event(topic, "k", topic)).await;
    }
    for (text, want, both) in &subs {
        for (sub, log) in both {
            drain(sub).await;
            assert_eq!(log.data(), **want, "{text}");
        }
        assert_eq!(replayed(&bus, text, ReplayFrom::Earliest).await.0, **want, "{text}");
    }
}

/// A pattern that is made to be slow is not.
pub async fn a_pattern_made_to_be_slow_is_not(f: impl Fixture) {
    let bus = f.bus();
    let (log, live) = (Log::new(), Log::new());
    let slow = pattern(&"*a".repeat(199));
    let sub = start(&bus, SubscribeOptions::at_least_once(slow.clone(), "g", log.handler())).await;
    let tap = start(&bus, SubscribeOptions::at_most_once(slow, live.handler())).await;
    let work = async {
        for n in 0..50 {
            store(&bus, event(&format!("{}b", "a".repeat(199)), "k", n.to_string())).await;
        }
        store(&bus, event(&"a".repeat(200), "k", "fits")).await;
        drain(&sub).await;
        drain(&tap).await;
    };
    patiently("fifty events past a slow pattern", work).await;
    assert_eq!((log.data(), live.data()), (vec!["fits".to_owned()], vec!["fits".to_owned()]));
    assert!(Topic::new("t*").is_err() && Pattern::new("a".repeat(401)).is_err() && Pattern::new("t\\").is_err());
}

/// Each mistake in the options is refused, and a refused subscription leaves no group behind.
pub async fn bad_options_leave_nothing_behind(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let good = || SubscribeOptions::at_least_once(pattern("t"), "g", log.handler());
    let in_group = |name: &str| SubscribeOptions::at_least_once(pattern("t"), name, log.handler());
    let attempts = |n| {
        let mut options = good();
        if let Mode::AtLeastOnce(group) = &mut options.mode {
            group.max_attempts = n;
        }
        options
    };
    let live = |capacity| {
        SubscribeOptions::at_most_once(pattern("t"), log.handler()).with_queue(capacity, crate::Overflow::Block)
    };
    for (options, word) in [
        (good().with_concurrency(0), "concurrency"),
        (good().with_concurrency(64), "concurrency"),
        (good().with_concurrency(u32::MAX), "concurrency"),
        (good().with_timeout(Duration::ZERO), "timeout"),
        (good().with_lease(Duration::from_millis(9)), "lease"),
        (good().with_consumer(""), "consumer"),
        (good().with_consumer("a b"), "consumer"),
        (in_group(""), "group"),
        (in_group(&"g".repeat(65)), "group"),
        (in_group("gé"), "group"),
        (in_group("g\n"), "group"),
        (in_group("g\0"), "group"),
        (attempts(0), "max_attempts"),
        (live(0), "capacity"),
    ] {
        let refused = bus.subscribe(options).await.expect_err(word);
        assert!(matches!(&refused, BusError::Invalid { rule } if rule.contains(word)), "{word}: {refused:?}");
        assert_eq!(refused.kind(), ErrorKind::Invalid);
    }
    assert!(matches!(bus.status("g").await, Err(BusError::NoGroup { .. })));
    let sub = start(&bus, good().with_concurrency(63).with_lease(Duration::from_millis(10))).await;
    store(&bus, event("t", "k", "a")).await;
    log.wait(1).await;
    sub.stop().await.expect("63 lanes end");
}

/// Whichever way an envelope takes, it stays whole: delayed, live, dead, put back to work, replayed.
pub async fn an_envelope_stays_whole_on_every_way(f: impl Fixture) {
    let bus = f.bus();
    let (log, live, again) = (Log::new(), Log::new(), Log::new());
    let handler = log.answering(|_| Err(HandlerError::Poison("no".into())));
    start(&bus, SubscribeOptions::at_least_once(pattern("*"), "g", handler)).await;
    let tap = start(&bus, SubscribeOptions::at_most_once(pattern("live"), live.handler())).await;
    let odd = |topic: &str| {
        let mut sent =
            event(topic, "\u{feff}k\0é🦀\r\n", "").with_source("'; --\\").with_id(id(&format!("{topic}{}", "~!")));
        sent.data = (0..=255u8).rev().cycle().take(70_000).collect::<Vec<_>>().into();
        sent.kind = "a\0b".into();
        sent.content_type = String::new();
        sent.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
        sent.time = Timestamp::from_nanos(1_735_689_600_123_456_789);
        sent.correlation = infra_types::CorrelationId::from_u128(u128::MAX);
        sent
    };
    bus.publish(odd("live"), Delivery::AtMostOnce).await.expect("published");
    drain(&tap).await;
    assert_eq!(live.seen.lock()[0].envelope.as_ref(), &odd("live"));
    bus.publish_at(odd("late"), f.clock().wall().saturating_add(Duration::from_secs(1))).await.expect("kept");
    f.advance(Duration::from_secs(1)).await;
    log.wait(1).await;
    assert!(bus.publish_batch(vec![odd("batch")]).await.remove(0).is_ok());
    log.wait(2).await;
    super::until("both are dead", || bus.metrics().dead_lettered == 2).await;
    let dead: Vec<_> =
        bus.dead_letters("g", 0, 10).await.expect("readable").into_iter().filter_map(|d| d.envelope).collect();
    assert_eq!(dead, [odd("late"), odd("batch")]);
    assert_eq!(bus.redrive("g", DeadLetters::All).await.ok(), Some(2));
    log.wait(4).await;
    patiently("the replay", bus.replay(crate::Replay::new(pattern("*"), ReplayFrom::Earliest, again.handler())))
        .await
        .expect("runs");
    let whole = |log: &Log| log.seen.lock().iter().map(|d| d.envelope.as_ref().clone()).collect::<Vec<_>>();
    assert_eq!(whole(&log), [odd("late"), odd("batch"), odd("late"), odd("batch")]);
    assert_eq!(whole(&again), [odd("late"), odd("batch")]);
}
