//! What is bounded, refused and counted.

use std::time::Duration;

use infra_types::ErrorKind;

use super::{Fixture, Log, config, drain, event, every, pattern, start, store};
use crate::{BusError, Delivery, HandlerError, Mode, SubscribeOptions};

/// One bad event does not spoil its batch; the answers stand in the order of the events.
pub async fn a_batch_answers_for_each_event(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", log.handler())).await;
    let mut events: Vec<_> = (0..5).map(|n| event("t", "k", n.to_string())).collect();
    events[2].data = vec![0; config().limits.data_bytes_max + 1].into();
    let answers = bus.publish_batch(events).await;
    assert!(matches!(answers[2], Err(BusError::TooLarge { what: "data", .. })), "{:?}", answers[2]);
    let seqs: Vec<_> = answers.into_iter().flatten().map(|a| a.seq.expect("stored")).collect();
    assert!(seqs.len() == 4 && seqs.is_sorted(), "{seqs:?}");
    drain(&sub).await;
    assert_eq!(log.lines(), ["0#1", "1#1", "3#1", "4#1"]);
}

/// 1 MiB passes, a byte more does not, whatever the class; attributes have their limit too.
pub async fn a_payload_over_the_limit_is_refused(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", log.handler())).await;
    let max = bus.info().limits.data_bytes_max;
    assert_eq!(max, 1 << 20);
    let mut big = event("t", "k", "");
    big.data = vec![7; max].into();
    store(&bus, big.clone()).await;
    big.data = vec![7; max + 1].into();
    for delivery in [Delivery::AtMostOnce, Delivery::AtLeastOnce] {
        let refused = bus.publish(big.clone(), delivery).await.expect_err("too large");
        assert_eq!(refused.kind(), ErrorKind::Invalid);
    }
    let key = bus.publish(event("t", &"k".repeat(513), ""), Delivery::AtLeastOnce).await;
    assert!(matches!(key, Err(BusError::TooLarge { what: "key", .. })), "{key:?}");
    drain(&sub).await;
    assert_eq!(log.len(), 1);
}

/// A group that nobody serves stops its publishers in the end; nothing that was accepted is lost.
pub async fn a_full_backlog_refuses_and_keeps_what_it_has(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", log.handler());
    start(&bus, options.clone()).await.stop().await.expect("it stops");
    let max = config().limits.backlog_max;
    let events = (0..max + 5).map(|n| event("t", "k", n.to_string())).collect();
    let answers = bus.publish_batch(events).await;
    let refused: Vec<_> = answers.into_iter().skip(max as usize).collect();
    assert_eq!(refused.len(), 5);
    for answer in refused {
        let error = answer.expect_err("the backlog is full");
        assert!(matches!(error, BusError::BacklogFull { .. }) && error.kind() == ErrorKind::LimitExceeded, "{error:?}");
    }
    store(&bus, event("other", "k", "other groups are not concerned")).await;
    drain(&start(&bus, options).await).await;
    assert_eq!(log.lines(), (0..max).map(|n| format!("{n}#1")).collect::<Vec<_>>());
    store(&bus, event("t", "k", "again")).await;
}

/// Events that no group wants are kept up to a number, the newest of them.
pub async fn events_without_a_group_are_bounded_and_counted(f: impl Fixture) {
    let bus = f.bus();
    let max = config().limits.history_max;
    for n in 0..max + 7 {
        store(&bus, event("t", "k", n.to_string())).await;
    }
    assert_eq!(bus.metrics().evicted, 7);
    let log = Log::new();
    drain(&start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", log.handler()).from_earliest()).await).await;
    assert_eq!(log.lines(), (7..max + 7).map(|n| format!("{n}#1")).collect::<Vec<_>>());
}

/// A refusal of options names every mistake at once.
pub async fn nonsense_is_refused_with_every_mistake(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let mut options = SubscribeOptions::at_least_once(pattern("t"), "bad name", log.handler())
        .with_timeout(Duration::ZERO)
        .with_lease(Duration::ZERO)
        .with_concurrency(0);
    if let Mode::AtLeastOnce(group) = &mut options.mode {
        group.max_attempts = 0;
    }
    let refused = bus.subscribe(options).await.expect_err("nonsense");
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    let text = refused.to_string();
    for word in ["bad name", "timeout", "lease", "max_attempts", "concurrency"] {
        assert!(text.contains(word), "{word} is missing in {text}");
    }
}

/// Published, processed, failed, redelivered, dead, and how long it took.
pub async fn metrics_tell_what_happened(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let handler = log.answering(|d| match (d.envelope.data.as_ref(), d.attempt) {
        (b"poison", _) => Err(HandlerError::Poison("bad".into())),
        (b"flaky", 1) => Err(HandlerError::Retry("not yet".into())),
        _ => Ok(()),
    });
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", handler).with_retry(3, every(1));
    let sub = start(&bus, options).await;
    assert_eq!(bus.metrics().mean_handling_time(), None);
    for data in ["good", "poison", "flaky"] {
        store(&bus, event("t", data, data)).await;
    }
    super::until("both failures are settled", || sub.metrics().failed == 2).await;
    f.advance(Duration::from_secs(1)).await;
    drain(&sub).await;
    super::until("both are counted", || sub.metrics().processed.min(bus.metrics().processed) >= 2).await;
    for m in [sub.metrics(), bus.metrics()] {
        assert_eq!((m.published, m.processed, m.failed, m.redelivered, m.dead_lettered), (3, 2, 2, 1, 1), "{m:?}");
        assert_eq!((m.dropped, m.evicted, m.leases_lost, m.store_errors), (0, 0, 0, 0), "{m:?}");
        assert!(m.mean_handling_time().is_some());
    }
    assert_eq!(bus.health().await.status, infra_types::HealthStatus::Up);
}

/// Percentiles of how long handlings took: zero before the first, in order after, and each handling counts, also one that fails.
pub async fn handling_times_are_told_by_percentile(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let handler = log.answering(|d| if d.envelope.data == "7".as_bytes() { panic!("on purpose") } else { Ok(()) });
    let options = SubscribeOptions::at_least_once(pattern("t"), "g", handler.clone()).with_retry(1, every(1));
    let sub = start(&bus, options).await;
    let tap = start(&bus, SubscribeOptions::at_most_once(pattern("t"), handler)).await;
    for told in [sub.metrics(), tap.metrics(), bus.metrics()] {
        assert_eq!((told.handling, told.handling_time), (crate::HandlingTimes::default(), Duration::ZERO));
    }
    for n in 0..100 {
        store(&bus, event("t", "k", n.to_string())).await;
    }
    drain(&sub).await;
    drain(&tap).await;
    for of in [&sub, &tap] {
        super::until("all are counted", || of.metrics().processed + of.metrics().failed == 100).await;
        let told = of.metrics();
        let times = told.handling;
        assert!(Duration::ZERO < times.p50 && times.p50 <= times.p95 && times.p95 <= times.p99, "{times:?}");
        assert!(times.p99 <= times.p999 && times.p999 <= times.max && times.max <= told.handling_time, "{times:?}");
        assert!(told.mean_handling_time().is_some_and(|mean| mean <= times.max), "{told:?}");
    }
    // Those of the bus are of all its subscriptions.
    let longest = sub.metrics().handling.max.max(tap.metrics().handling.max);
    assert_eq!(bus.metrics().handling.max, longest);
    assert_eq!(bus.metrics().handling_time, sub.metrics().handling_time + tap.metrics().handling_time);
}
