//! A bus that spills, over one that fails where a test says so.
#![expect(clippy::unwrap_used, reason = "the whole file is tests")]

mod spill_tools;

use std::{path::Path, process::Command, sync::Arc, time::Duration};

use futures::{FutureExt, future::join_all};
use infra_event_bus::{
    BusConfig, BusError, Delivery, EventBus, Limits, Pattern, Published, SpillConfig, SpillSync, SpillingEventBus,
    SubscribeOptions, handler_fn,
};
use infra_testkit::{KillableChild, TestDir, say};
use infra_types::{
    Backoff, Clock, CorrelationId, Envelope, ErrorKind, EventId, HealthStatus, Jitter, ManualClock, SystemClock,
    Timestamp, Topic,
};
use parking_lot::Mutex;
use spill_tools::Flaky;

const PATIENCE: Duration = Duration::from_secs(30);
const SPILLED: Published = Published { seq: None, duplicate: false, is_spilled: true };

fn config(path: &Path) -> SpillConfig {
    let retry = Backoff::new(Duration::from_millis(5), Duration::from_millis(20), 2, Jitter::Full).unwrap();
    SpillConfig::new(path).with_sync(SpillSync::Os).with_retry(retry)
}

async fn open(inner: &Arc<Flaky>, config: SpillConfig) -> Result<SpillingEventBus, BusError> {
    SpillingEventBus::open(inner.clone(), config, SystemClock::shared()).await
}

fn event(n: usize) -> Envelope {
    let topic = Topic::new(format!("fills:S{}", n % 3)).unwrap();
    let event = Envelope::new(topic, "fill.v1", Timestamp::EPOCH, n.to_string()).with_key(format!("K{}", n % 7));
    event.with_id(EventId::new(format!("fill-{n}")).unwrap()).with_correlation(CorrelationId::from_u128(n as u128))
}

fn ids(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("fill-{n}")).collect()
}

fn lost(kind: ErrorKind) -> BusError {
    BusError::Backend { message: "connection refused".into(), kind }
}

fn unavailable() -> BusError {
    lost(ErrorKind::Unavailable)
}

async fn until(what: &str, is: impl Fn() -> bool) {
    let give_up = SystemClock.now() + PATIENCE;
    while !is() {
        assert!(SystemClock.now() < give_up, "it never came to this: {what}");
        SystemClock.sleep(Duration::from_millis(1)).await;
    }
}

async fn drained(bus: &SpillingEventBus) {
    until("the log is drained", || bus.spill_status().events == 0).await;
}

async fn publish(bus: &SpillingEventBus, n: usize) -> Result<Published, BusError> {
    bus.publish(event(n), Delivery::AtLeastOnce).await
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

#[tokio::test]
async fn what_may_pass_is_spilled_and_what_is_the_callers_is_told() {
    let dir = TestDir::new();
    for (error, is_spilled) in [
        (lost(ErrorKind::Unavailable), true),
        (lost(ErrorKind::Transient), true),
        (BusError::Ambiguous { reason: "the reply was lost".into() }, true),
        (lost(ErrorKind::Permanent), false),
        (lost(ErrorKind::Corrupt), false),
        (BusError::BacklogFull { group: "book".into(), pending: 9 }, false),
        (BusError::DelayFull { waiting: 9 }, false),
        (BusError::Invalid { rule: "no".into() }, false),
        (BusError::Closed, false),
    ] {
        let inner = Flaky::new(BusConfig::default());
        let bus = open(&inner, config(&dir.file("log"))).await.unwrap();
        inner.down(error.clone());
        let answers = [
            publish(&bus, 0).await,
            bus.publish_batch(vec![event(1)]).await.remove(0),
            bus.publish_at(event(2), Timestamp::EPOCH).await,
        ];
        for answer in answers {
            match answer {
                Ok(answer) => assert!(is_spilled && answer == SPILLED, "{error}: {answer:?}"),
                Err(e) => assert!(!is_spilled && e.to_string() == error.to_string(), "{error}: {e}"),
            }
        }
        assert_eq!(bus.spill_status().spilled, if is_spilled { 3 } else { 0 });
        inner.up();
        drained(&bus).await;
        bus.close().await.unwrap();
        assert_eq!(publish(&bus, 3).await.unwrap_err().to_string(), BusError::Closed.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_never_notices_and_the_order_holds_through_outages() {
    let dir = TestDir::new();
    let inner = Flaky::new(BusConfig::default());
    let bus = Arc::new(open(&inner, config(&dir.file("log"))).await.unwrap());
    const EVENTS: usize = 3_000;
    let publisher = tokio::spawn({
        let bus = bus.clone();
        async move {
            let mut n = 0;
            while n < EVENTS {
                // One by one, in batches, and a pause now and then in which the log may run empty.
                if n % 50 < 40 {
                    publish(&bus, n).await.unwrap();
                    n += 1;
                } else {
                    for answer in bus.publish_batch((n..n + 10).map(event).collect()).await {
                        answer.unwrap();
                    }
                    n += 10;
                    SystemClock.sleep(Duration::from_millis(2)).await;
                }
                // Now and then it does run empty.
                if n % 500 == 0 {
                    drained(&bus).await;
                }
            }
        }
    });
    let mut outages = 0;
    while !publisher.is_finished() {
        inner.down(unavailable());
        SystemClock.sleep(Duration::from_millis(3)).await;
        inner.up();
        SystemClock.sleep(Duration::from_millis(7)).await;
        outages += 1;
    }
    publisher.await.unwrap();
    drained(&bus).await;
    let status = bus.spill_status();
    println!("{outages} outages, {} of {EVENTS} events spilled", status.spilled);
    assert!(status.spilled > 100, "{status:?}");
    assert_eq!((status.drained, status.refused, status.not_spilled), (status.spilled, 0, 0));
    assert_eq!(inner.order(), ids(0..EVENTS));
    assert_eq!(length(&dir.file("log")), 64);
    bus.close().await.unwrap();
}

#[tokio::test]
async fn what_is_left_goes_first_after_a_restart() {
    let dir = TestDir::new();
    let inner = Flaky::new(BusConfig::default());
    let bus = open(&inner, config(&dir.file("log"))).await.unwrap();
    inner.down(unavailable());
    for n in 0..10 {
        assert_eq!(publish(&bus, n).await.unwrap(), SPILLED);
    }
    match bus.close().await.unwrap_err() {
        BusError::SpillLeft { events: 10, bytes, path, unfinished: 0 } => {
            assert_eq!(bytes, length(&dir.file("log")) - 64);
            assert_eq!(path, dir.file("log").display().to_string());
        }
        e => panic!("{e}"),
    }
    // Again is the same, and the file is free for another.
    assert!(matches!(bus.close().await, Err(BusError::SpillLeft { events: 10, .. })));
    let next = Flaky::new(BusConfig::default());
    let bus = open(&next, config(&dir.file("log"))).await.unwrap();
    // Without a moment in which the drain could have run: it goes behind.
    assert_eq!(publish(&bus, 10).await.unwrap(), SPILLED);
    drained(&bus).await;
    assert!(!publish(&bus, 11).await.unwrap().is_spilled);
    assert_eq!(next.order(), ids(0..12));
    bus.close().await.unwrap();
    let bus = open(&next, config(&dir.file("log"))).await.unwrap();
    assert_eq!(bus.spill_status().events, 0);
}

#[tokio::test]
async fn a_full_log_says_so_and_loses_nothing() {
    let dir = TestDir::new();
    let inner = Flaky::new(BusConfig::default());
    let bus = open(&inner, config(&dir.file("events")).with_events_max(5)).await.unwrap();
    inner.down(unavailable());
    let answers = bus.publish_batch((0..4).map(event).collect()).await;
    assert!(answers.into_iter().all(|a| a.unwrap() == SPILLED));
    // One fits, what comes later in the batch may not overtake what does not.
    let answers = bus.publish_batch((4..8).map(event).collect()).await;
    assert_eq!(answers[0].clone().unwrap(), SPILLED);
    for answer in &answers[1..] {
        match answer.clone().unwrap_err() {
            BusError::SpillFull { events: 5, bytes } => assert_eq!(bytes, length(&dir.file("events")) - 64),
            e => panic!("{e}"),
        }
    }
    let full = publish(&bus, 5).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::LimitExceeded);
    assert_eq!(bus.spill_status().not_spilled, 4);
    inner.up();
    drained(&bus).await;
    assert!(!publish(&bus, 5).await.unwrap().is_spilled);
    assert_eq!(inner.order(), ids(0..6));

    let bus = open(&inner, config(&dir.file("bytes")).with_bytes_max(10_000)).await.unwrap();
    inner.down(unavailable());
    let big = |n: usize, bytes: usize| Envelope { data: vec![b'x'; bytes].into(), ..event(n) };
    assert_eq!(bus.publish(big(10, 6_000), Delivery::AtLeastOnce).await.unwrap(), SPILLED);
    let full = bus.publish(big(11, 6_000), Delivery::AtLeastOnce).await.unwrap_err();
    assert!(matches!(full, BusError::SpillFull { events: 1, bytes: 6_000..7_000 }), "{full}");
    assert_eq!(bus.publish(big(11, 3_000), Delivery::AtLeastOnce).await.unwrap(), SPILLED);
    assert!(length(&dir.file("bytes")) < 10_000);
    // It may be in the store already, and cannot be made sure of: that is what the publisher has to know.
    inner.down(BusError::Ambiguous { reason: "the reply was lost".into() });
    let direct = open(&inner, config(&dir.file("small")).with_bytes_max(10)).await.unwrap();
    let unsure = publish(&direct, 12).await.unwrap_err();
    assert!(matches!(unsure, BusError::Ambiguous { .. }) && unsure.to_string().contains("full"), "{unsure}");
    inner.down(unavailable());
    assert!(matches!(publish(&direct, 12).await, Err(BusError::SpillFull { events: 0, bytes: 0 })));
}

#[tokio::test]
async fn what_the_store_will_never_take_is_put_aside_with_its_reason() {
    let dir = TestDir::new();
    let inner = Flaky::new(BusConfig::default());
    let bus = open(&inner, config(&dir.file("log"))).await.unwrap();
    inner.down(unavailable());
    for n in 0..6 {
        publish(&bus, n).await.unwrap();
    }
    // What no CloudEvent can hold is kept in our own words.
    bus.publish(event(6).with_source("not a reference"), Delivery::AtLeastOnce).await.unwrap();
    inner.refuse("fill-2", BusError::TooLarge { what: "data", found: 9, max: 5 }, u32::MAX);
    inner.refuse("fill-6", BusError::Invalid { rule: "never".into() }, u32::MAX);
    inner.up();
    drained(&bus).await;
    let mut want = ids(0..6);
    want.remove(2);
    assert_eq!(inner.order(), want);
    let status = bus.spill_status();
    assert_eq!((status.drained, status.refused, status.last_error), (5, 2, None));
    let text = std::fs::read_to_string(dir.file("log.refused")).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0]["reason"].as_str().unwrap().contains("data is too large: 9 bytes"), "{text}");
    assert_eq!(Envelope::from_cloudevent(lines[0]["cloudevent"].to_string().as_bytes()).unwrap(), event(2));
    assert_eq!(lines[1]["envelope"]["source"], "not a reference");
    bus.close().await.unwrap();
}

#[tokio::test]
async fn a_full_file_of_refused_events_stops_the_drain_and_says_so() {
    let dir = TestDir::new();
    let inner = Flaky::new(BusConfig::default());
    let bus = open(&inner, config(&dir.file("log")).with_bytes_max(1_000)).await.unwrap();
    std::fs::write(dir.file("log.refused"), vec![b'\n'; 900]).unwrap();
    inner.down(unavailable());
    publish(&bus, 0).await.unwrap();
    publish(&bus, 1).await.unwrap();
    inner.refuse("fill-0", BusError::Invalid { rule: "never".into() }, u32::MAX);
    inner.up();
    let says = |word: &'static str| {
        let bus = &bus;
        move || bus.spill_status().last_error.is_some_and(|e| e.contains(word))
    };
    until("the reason is told", says("move the file away")).await;
    let health = bus.health().await;
    assert!(health.status == HealthStatus::Degraded && health.detail.contains("move the file away"), "{health:?}");
    std::fs::remove_file(dir.file("log.refused")).unwrap();
    drained(&bus).await;
    assert_eq!(inner.order(), ids(1..2));
    assert_eq!(bus.spill_status().refused, 1);
}

#[tokio::test]
async fn a_full_group_is_waited_for_and_the_order_of_keys_holds() {
    let dir = TestDir::new();
    let limits = Limits { backlog_max: 100, ..Limits::default() };
    let inner = Flaky::new(BusConfig { limits, ..BusConfig::default() });
    // `narrow` wants some topics and fills up; `all` wants every one and would see a key out of order.
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let seen = Arc::new(Mutex::new(Vec::<usize>::new()));
    let narrow = handler_fn({
        let gate = gate.clone();
        move |_| {
            let gate = gate.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                Ok(())
            }
        }
    });
    let all = handler_fn({
        let seen = seen.clone();
        move |event| {
            seen.lock().push(String::from_utf8_lossy(&event.envelope.data).parse().unwrap());
            async { Ok(()) }
        }
    });
    let pattern = |text: &str| Pattern::new(text).unwrap();
    inner.subscribe(SubscribeOptions::at_least_once(pattern("fills:S0"), "narrow", narrow)).await.unwrap();
    inner.subscribe(SubscribeOptions::at_least_once(pattern("*"), "all", all)).await.unwrap();
    let bus = open(&inner, config(&dir.file("log"))).await.unwrap();
    inner.down(unavailable());
    const EVENTS: usize = 1_000;
    for n in 0..EVENTS {
        publish(&bus, n).await.unwrap();
    }
    inner.up();
    until("the group is full", || bus.spill_status().last_error.is_some_and(|e| e.contains("narrow"))).await;
    assert!(bus.spill_status().events > 0);
    gate.add_permits(EVENTS);
    drained(&bus).await;
    until("everything was handled", || seen.lock().len() == EVENTS).await;
    for key in 0..7 {
        let of_key: Vec<_> = seen.lock().iter().copied().filter(|n| n % 7 == key).collect();
        assert!(of_key.is_sorted(), "key {key}: {of_key:?}");
    }
    assert_eq!(inner.metrics().duplicates, 0, "what the store has is not sent again");
}

/// The same numbers, of a priority topic.
fn halt(n: usize) -> Envelope {
    Envelope { topic: Topic::new("halt:all").unwrap(), ..event(n) }
}

#[tokio::test]
async fn priority_topics_are_drained_first() {
    let dir = TestDir::new();
    let inner = Flaky::new(BusConfig::default());
    inner.down(unavailable());
    let bus = open(&inner, config(&dir.path().join("spill.log"))).await.unwrap();
    // More than is read at a time stands before them.
    for n in 0..1_500 {
        let event = if n % 500 == 499 { halt(n) } else { event(n) };
        assert_eq!(bus.publish(event, Delivery::AtLeastOnce).await.unwrap(), SPILLED);
    }
    bus.close().await.unwrap_err();
    drop(bus);
    // Also after a restart.
    let inner = Flaky::new(BusConfig::default());
    inner.refuse("fill-3", lost(ErrorKind::Transient), 3);
    let bus = open(&inner, config(&dir.path().join("spill.log"))).await.unwrap();
    drained(&bus).await;
    let halts = ["fill-499", "fill-999", "fill-1499"].map(str::to_owned);
    let order = inner.order();
    assert_eq!(order[..3], halts);
    let (rest, all): (Vec<_>, Vec<_>) = (order[3..].to_vec(), ids(0..1_500));
    assert_eq!(rest.len(), 1_497, "each once");
    for key in 0..7 {
        let of = |ids: &[String]| {
            let number = |id: &String| id.strip_prefix("fill-").and_then(|n| n.parse::<usize>().ok());
            ids.iter()
                .filter(|id| number(id).is_some_and(|n| n % 7 == key && n % 500 != 499))
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(of(&rest), of(&all), "the order of key {key}");
    }
    assert_eq!(bus.spill_status().drained, 1_500);
    bus.close().await.unwrap();
}

#[tokio::test]
async fn a_priority_event_passes_what_drains() {
    let dir = TestDir::new();
    let inner = Flaky::new(BusConfig::default());
    inner.down(unavailable());
    let bus = open(&inner, config(&dir.path().join("spill.log"))).await.unwrap();
    for n in 0..200 {
        publish(&bus, n).await.unwrap();
    }
    // The first one holds up the others while the halt comes.
    inner.refuse("fill-0", lost(ErrorKind::Transient), u32::MAX);
    inner.up();
    until("it drains and is held up", || bus.spill_status().last_error.is_some_and(|e| e.contains("refused"))).await;
    assert_eq!(bus.publish(halt(1_000), Delivery::AtLeastOnce).await.unwrap(), SPILLED);
    until("the halt is stored", || inner.order().contains(&"fill-1000".to_owned())).await;
    assert!(bus.spill_status().events > 0 && !inner.order().contains(&"fill-0".to_owned()));
    inner.refuse("fill-0", lost(ErrorKind::Transient), 0);
    drained(&bus).await;
    assert_eq!(inner.order().len(), 201, "each once");
    bus.close().await.unwrap();
}

#[tokio::test]
async fn a_lost_answer_makes_no_second_event() {
    let dir = TestDir::new();
    let inner = Flaky::new(BusConfig::default());
    let bus = open(&inner, config(&dir.file("log"))).await.unwrap();
    // Stored, and nobody knows: first directly, then while it drains.
    inner.lose_answers(1);
    assert_eq!(publish(&bus, 0).await.unwrap(), SPILLED);
    drained(&bus).await;
    inner.down(unavailable());
    for n in 1..10 {
        publish(&bus, n).await.unwrap();
    }
    inner.lose_answers(3);
    inner.up();
    drained(&bus).await;
    assert_eq!(inner.order(), ids(0..10));
    assert!(inner.metrics().duplicates >= 4, "{:?}", inner.metrics());
    assert_eq!(bus.spill_status().drained, 10);
}

#[tokio::test]
async fn a_delayed_event_goes_behind_with_its_time() {
    let dir = TestDir::new();
    let inner = Flaky::new(BusConfig::default());
    let bus = open(&inner, config(&dir.file("log"))).await.unwrap();
    let due = SystemClock.wall().saturating_add(Duration::from_secs(3_600));
    assert!(!bus.publish_at(event(0), due).await.unwrap().is_spilled);
    inner.down(unavailable());
    publish(&bus, 1).await.unwrap();
    assert_eq!(bus.publish_at(event(2), due).await.unwrap(), SPILLED);
    publish(&bus, 3).await.unwrap();
    let left = bus.close().await.unwrap_err();
    assert!(matches!(left, BusError::SpillLeft { events: 3, .. }), "{left}");
    let next = Flaky::new(BusConfig::default());
    let bus = open(&next, config(&dir.file("log"))).await.unwrap();
    assert_eq!(bus.publish_at(event(4), due).await.unwrap(), SPILLED);
    drained(&bus).await;
    assert_eq!(next.order(), ids(1..5));
    assert_eq!(next.due("fill-2"), Some(due));
    assert_eq!((next.due("fill-3"), next.due("fill-4")), (None, Some(due)));
}

#[tokio::test]
async fn batches_keep_an_answer_for_each_event() {
    let dir = TestDir::new();
    let limits = Limits { data_bytes_max: 100, ..Limits::default() };
    let inner = Flaky::new(BusConfig { limits, ..BusConfig::default() });
    let bus = open(&inner, config(&dir.file("log"))).await.unwrap();
    let mixed = |from: usize| -> Vec<_> {
        let big = Envelope { data: vec![0; 101].into(), ..event(from + 300) };
        (from..from + 600).map(|n| if n == from + 300 { big.clone() } else { event(n) }).collect()
    };
    let judge = |answers: Vec<Result<Published, BusError>>, is_spilled: bool| {
        assert_eq!(answers.len(), 600);
        for (n, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(answer) => assert_eq!((answer.is_spilled, n == 300), (is_spilled, false), "{n}"),
                Err(BusError::TooLarge { .. }) => assert_eq!(n, 300),
                Err(e) => panic!("{n}: {e}"),
            }
        }
    };
    judge(bus.publish_batch(mixed(0)).await, false);
    inner.down(unavailable());
    judge(bus.publish_batch(mixed(600)).await, true);
    judge(bus.publish_batch(mixed(1_200)).await, true);
    assert!(bus.publish_batch(Vec::new()).await.is_empty());
    inner.up();
    drained(&bus).await;
    let want: Vec<_> = (0..1_800).filter(|n| n % 600 != 300).map(|n| format!("fill-{n}")).collect();
    assert_eq!(inner.order(), want);
}

#[tokio::test]
async fn live_events_pass_by_and_health_tells() {
    let dir = TestDir::new();
    let inner = Flaky::new(BusConfig::default());
    let bus = open(&inner, config(&dir.file("log"))).await.unwrap();
    assert_eq!(bus.health().await.status, HealthStatus::Up);
    inner.down(unavailable());
    let live = bus.publish(event(0), Delivery::AtMostOnce).await.unwrap_err();
    assert_eq!(live.kind(), ErrorKind::Unavailable);
    assert_eq!((bus.spill_status().spilled, bus.health().await.status), (0, HealthStatus::Up));
    publish(&bus, 1).await.unwrap();
    let health = bus.health().await;
    assert_eq!(health.status, HealthStatus::Degraded);
    assert!(health.detail.contains("1 events") && health.detail.contains("bytes"), "{}", health.detail);
    until("the reason is told", || bus.spill_status().last_error.is_some()).await;
    assert!(bus.health().await.detail.contains("connection refused"));
    inner.up();
    drained(&bus).await;
    assert_eq!((bus.health().await.status, bus.spill_status().last_error), (HealthStatus::Up, None));
}

#[tokio::test]
async fn a_store_that_closes_ends_it_and_keeps_what_waits() {
    let dir = TestDir::new();
    let inner = Flaky::new(BusConfig::default());
    let bus = open(&inner, config(&dir.file("log"))).await.unwrap();
    inner.down(unavailable());
    publish(&bus, 0).await.unwrap();
    inner.down(BusError::Closed);
    let failed = || bus.spill_status().last_error.is_some_and(|e| e.contains("closed"));
    until("the drain has met the closed bus", failed).await;
    assert!(matches!(publish(&bus, 1).await, Err(BusError::Closed)));
    assert_eq!(bus.health().await.status, HealthStatus::Down);
    assert!(matches!(bus.close().await, Err(BusError::SpillLeft { events: 1, .. })));
}

#[tokio::test]
async fn what_is_damaged_on_disk_stops_everything_loudly() {
    let dir = TestDir::new();
    let inner = Flaky::new(BusConfig::default());
    let bus = open(&inner, config(&dir.file("log"))).await.unwrap();
    inner.down(unavailable());
    for n in 0..3 {
        publish(&bus, n).await.unwrap();
    }
    let mut bytes = std::fs::read(dir.file("log")).unwrap();
    bytes[70] ^= 1;
    std::fs::write(dir.file("log"), &bytes).unwrap();
    // The drain reads again before each try.
    until("the damage was met", || bus.spill_status().last_error.is_some_and(|e| e.contains("byte 64"))).await;
    inner.up();
    let refused = publish(&bus, 3).await.unwrap_err();
    assert!(matches!(refused, BusError::SpillDamaged { offset: 64, .. }), "{refused}");
    assert_eq!((refused.kind(), bus.health().await.status), (ErrorKind::Corrupt, HealthStatus::Down));
    assert!(matches!(bus.close().await, Err(BusError::SpillLeft { events: 3, .. })));
    let refused = open(&inner, config(&dir.file("log"))).await.unwrap_err();
    assert!(matches!(refused, BusError::SpillDamaged { offset: 64, intact: 0, .. }), "{refused}");
    assert_eq!(std::fs::read(dir.file("log")).unwrap(), bytes);
}

#[tokio::test]
async fn what_cannot_work_is_refused_at_the_start() {
    let dir = TestDir::new();
    let limits = Limits { dedup_window: 10, ..Limits::default() };
    let inner = Flaky::new(BusConfig { limits, ..BusConfig::default() });
    let refused = open(&inner, config(Path::new("..")).with_bytes_max(0).with_events_max(11)).await.unwrap_err();
    let words = ["path", "bytes_max", "dedup_window"];
    assert!(words.iter().all(|w| refused.to_string().contains(w)), "{refused}");
    assert!(open(&inner, config(&dir.file("none")).with_events_max(0)).await.is_err());
    let missing = open(&inner, config(&dir.file("no/such/folder")).with_events_max(10)).await.unwrap_err();
    assert!(missing.to_string().contains("no/such/folder"), "{missing}");
    // A log that was filled under a wider window.
    let wide = Flaky::new(BusConfig::default());
    let bus = open(&wide, config(&dir.file("log"))).await.unwrap();
    wide.down(unavailable());
    for n in 0..11 {
        publish(&bus, n).await.unwrap();
    }
    let in_use = open(&wide, config(&dir.file("log"))).await.unwrap_err();
    assert!(matches!(in_use, BusError::SpillInUse { .. }), "{in_use}");
    assert_eq!(in_use.kind(), ErrorKind::Conflict);
    bus.close().await.unwrap_err();
    let narrow = open(&inner, config(&dir.file("log")).with_events_max(10)).await.unwrap_err();
    assert!(narrow.to_string().contains("holds 11 events"), "{narrow}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn futures_that_are_dropped_leave_whole_events_in_order() {
    let dir = TestDir::new();
    let inner = Flaky::new(BusConfig::default());
    let bus = open(&inner, config(&dir.file("log")).with_sync(SpillSync::Always)).await.unwrap();
    inner.down(unavailable());
    let mut answered = Vec::new();
    for n in 0..300 {
        let publish = publish(&bus, n);
        if n % 3 == 0 {
            // Polled once, then dropped wherever it is.
            drop(std::pin::pin!(publish).now_or_never());
        } else {
            assert_eq!(publish.await.unwrap(), SPILLED);
            answered.push(n);
        }
    }
    inner.up();
    drained(&bus).await;
    let order: Vec<usize> = inner.order().iter().map(|id| id[5..].parse().unwrap()).collect();
    assert!(order.is_sorted(), "{order:?}");
    assert!(answered.iter().all(|n| order.contains(n)));
    assert_eq!(bus.spill_status().events, 0);
    bus.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishers_that_wait_together_share_a_sync_and_each_keeps_his_order() {
    let dir = TestDir::new();
    let inner = Flaky::new(BusConfig::default());
    let bus = open(&inner, config(&dir.file("log")).with_sync(SpillSync::Always)).await.unwrap();
    inner.down(unavailable());
    let big = |n: usize| Envelope { data: vec![n as u8; 1 << 20].into(), ..event(n) };
    let publishers = (0..10).map(|p| {
        let bus = &bus;
        async move {
            for n in 0..20 {
                let n = p * 100 + n;
                // Each has one of a megabyte in the middle.
                let event = if n % 100 == 10 { big(n) } else { event(n) };
                assert_eq!(bus.publish(event, Delivery::AtLeastOnce).await.unwrap(), SPILLED);
            }
        }
    });
    join_all(publishers).await;
    let status = bus.spill_status();
    assert_eq!(status.events, 200);
    assert!(status.bytes > 10 << 20 && status.bytes == length(&dir.file("log")) - 64, "{status:?}");
    inner.up();
    drained(&bus).await;
    let order: Vec<usize> = inner.order().iter().map(|id| id[5..].parse().unwrap()).collect();
    for p in 0..10 {
        let of_one: Vec<_> = order.iter().copied().filter(|n| n / 100 == p).collect();
        assert_eq!(of_one, (p * 100..p * 100 + 20).collect::<Vec<_>>());
    }
    assert!(inner.data("fill-510").iter().eq(&vec![(510 % 256) as u8; 1 << 20]));
}

/// How much a child may write into one file, in blocks of 512 bytes.
const BLOCKS: u64 = 64;
const FULL: &str = "a_full_disk_is_told_and_the_log_goes_on_when_there_is_room";
const FULL_DIR: &str = "SPILL_TEST_DIR";

/// Publishes until the disk takes no more, waits for room, and goes on.
async fn fill_the_disk(path: &Path) {
    let inner = Flaky::new(BusConfig::default());
    let bus = open(&inner, config(path).with_sync(SpillSync::Always)).await.unwrap();
    inner.down(unavailable());
    let event = |n: usize| Envelope { data: vec![b'x'; 1_000].into(), ..event(n) };
    let mut n = 0;
    let error = loop {
        match bus.publish(event(n), Delivery::AtLeastOnce).await {
            Ok(_) => n += 1,
            Err(e) => break e,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("connection refused") || error.to_string().contains("cannot be written"));
    // Whole events only, and as many as were answered.
    let status = bus.spill_status();
    assert_eq!((status.events, status.bytes), (n as u64, length(path) - 64));
    // A smaller one may still fit: it comes after those that were answered.
    assert!(bus.publish(event(n), Delivery::AtLeastOnce).await.is_err());
    say(format!("full {n}"));
    while bus.publish(event(n), Delivery::AtLeastOnce).await.is_err() {
        SystemClock.sleep(Duration::from_millis(5)).await;
    }
    n += 1;
    for n in n..n + 100 {
        bus.publish(event(n), Delivery::AtLeastOnce).await.unwrap();
    }
    say(format!("done {}", n + 100));
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_the_log_goes_on_when_there_is_room() {
    if let Some(path) = std::env::var_os(FULL_DIR) {
        return fill_the_disk(Path::new(&path)).await;
    }
    let dir = TestDir::new();
    let path = dir.file("log");
    // What is beyond the limit is refused in the middle of a write, as on a full disk.
    let mut command = Command::new("sh");
    command.args(["-c", r#"trap "" XFSZ; ulimit -S -f "$1" || exit 1; shift; exec "$@""#, "sh", &BLOCKS.to_string()]);
    command.arg(std::env::current_exe().unwrap()).args([FULL, "--exact", "--nocapture", "--test-threads=1"]);
    let mut child = KillableChild::spawn({
        command.env(FULL_DIR, &path);
        command
    });
    let said = tokio::task::block_in_place(|| child.wait_for("full ", PATIENCE));
    let fitted: u64 = said["full ".len()..].parse().unwrap();
    assert!(fitted > 20 && fitted * 1_000 < BLOCKS * 512, "{said}");
    let more = Command::new("prlimit").args(["--fsize=unlimited:", "--pid", &child.id().to_string()]).status();
    assert!(more.unwrap().success());
    let said = tokio::task::block_in_place(|| child.wait_for("done ", PATIENCE));
    let events: usize = said["done ".len()..].parse().unwrap();
    child.kill();
    let inner = Flaky::new(BusConfig::default());
    let bus = open(&inner, config(&path)).await.unwrap();
    drained(&bus).await;
    assert_eq!(inner.order(), ids(0..events));
}

#[tokio::test]
async fn a_spilled_event_reaches_its_subscribers_when_it_is_stored() {
    let dir = TestDir::new();
    let inner = Flaky::new(BusConfig::default());
    let bus = open(&inner, config(&dir.file("log"))).await.unwrap();
    let (live, durable) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let collect = |into: &Arc<Mutex<Vec<String>>>| {
        let into = into.clone();
        handler_fn(move |event| {
            into.lock().push(event.envelope.id.to_string());
            async { Ok(()) }
        })
    };
    let all = || Pattern::new("*").unwrap();
    bus.subscribe(SubscribeOptions::at_most_once(all(), collect(&live))).await.unwrap();
    let group = bus.subscribe(SubscribeOptions::at_least_once(all(), "book", collect(&durable))).await.unwrap();
    inner.down(unavailable());
    for n in 0..20 {
        publish(&bus, n).await.unwrap();
    }
    assert!(live.lock().is_empty() && durable.lock().is_empty());
    inner.up();
    drained(&bus).await;
    group.drained().await.unwrap();
    until("the live one has them", || live.lock().len() == 20).await;
    assert_eq!((live.lock().clone(), durable.lock().clone()), (ids(0..20), ids(0..20)));
    assert_eq!(bus.status("book").await.unwrap().pending, 0);
}

#[tokio::test]
async fn the_waits_between_tries_are_by_the_clock_that_was_passed_in() {
    let dir = TestDir::new();
    let inner = Flaky::new(BusConfig::default());
    let clock = ManualClock::default();
    let second = Duration::from_secs(1);
    let retry = Backoff::new(second, second * 4, 2, Jitter::None).unwrap();
    let bus =
        SpillingEventBus::open(inner.clone(), config(&dir.file("log")).with_retry(retry), Arc::new(clock.clone()));
    let bus = bus.await.unwrap();
    inner.down(unavailable());
    publish(&bus, 0).await.unwrap();
    inner.up();
    // The store is back, and the time is not over.
    SystemClock.sleep(Duration::from_millis(50)).await;
    assert_eq!(bus.spill_status().events, 1);
    let began = clock.now();
    while bus.spill_status().events > 0 {
        clock.advance(Duration::from_millis(100));
        SystemClock.sleep(Duration::from_millis(5)).await;
    }
    assert!((second..second * 2).contains(&clock.now().since(began)), "{:?}", clock.now().since(began));
    // Closing does not wait for the clock.
    inner.down(unavailable());
    publish(&bus, 1).await.unwrap();
    assert!(matches!(bus.close().await, Err(BusError::SpillLeft { events: 1, .. })));
}

#[tokio::test]
async fn a_bus_that_is_dropped_lets_go_of_its_log() {
    let dir = TestDir::new();
    let inner = Flaky::new(BusConfig::default());
    let bus = open(&inner, config(&dir.file("log"))).await.unwrap();
    inner.down(unavailable());
    publish(&bus, 0).await.unwrap();
    drop(bus);
    inner.up();
    let give_up = SystemClock.now() + PATIENCE;
    let bus = loop {
        match open(&inner, config(&dir.file("log"))).await {
            Ok(bus) => break bus,
            Err(e) => assert!(matches!(e, BusError::SpillInUse { .. }), "{e}"),
        }
        assert!(SystemClock.now() < give_up, "the log is never free");
        SystemClock.sleep(Duration::from_millis(1)).await;
    };
    publish(&bus, 1).await.unwrap();
    drained(&bus).await;
    assert_eq!(inner.order(), ids(0..2));
}
