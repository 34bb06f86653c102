//! The end: stop, close, and what is left.

use std::time::Duration;

use infra_types::{ErrorKind, HealthStatus};

use super::{Fixture, Gate, Log, config, drain, event, patiently, pattern, pending, start, store};
use crate::{BusError, Delivery, SubscribeOptions};

/// Stopping lets the running handler end; what was claimed behind it is another's at once, as if never claimed.
pub async fn stop_gives_back_what_was_not_begun(f: impl Fixture) {
    let bus = f.bus();
    let (gate, log) = (Gate::new(), Log::new());
    let options = |handler| SubscribeOptions::at_least_once(pattern("t"), "g", handler);
    start(&bus, options(log.handler())).await.stop().await.expect("it stops");
    for n in 0..5 {
        store(&bus, event("t", "k", n.to_string())).await;
    }
    let first = start(&bus, options(gate.handler(&log, |_| true))).await;
    gate.wait().await;
    let stopping = first.stop();
    tokio::pin!(stopping);
    tokio::select! {
        biased;
        ended = &mut stopping => panic!("a handler still runs, stop says {ended:?}"),
        () = std::future::ready(()) => {}
    }
    gate.open(1);
    patiently("the stop", stopping).await.expect("all ended in time");
    assert_eq!(log.lines(), ["0#1"], "nothing begins after the order to stop");
    first.stop().await.expect("a second stop is nothing");
    drain(&start(&bus, options(log.handler())).await).await;
    assert_eq!(log.lines(), (0..5).map(|n| format!("{n}#1")).collect::<Vec<_>>());
}

/// Whoever waits for a subscription to drain learns that it ended.
pub async fn drained_ends_when_the_subscription_does(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    let sub = start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", log.handler())).await;
    sub.stop().await.expect("it stops");
    store(&bus, event("t", "k", "left")).await;
    let drained = patiently("drained", sub.drained()).await;
    assert!(matches!(drained, Err(BusError::Stopped)), "{drained:?}");
}

/// Close waits for handlers that run, and their acknowledgements count.
pub async fn close_lets_running_handlers_end(mut f: impl Fixture) {
    let bus = f.bus();
    let (gate, log, live) = (Gate::new(), Log::new(), Log::new());
    start(&bus, SubscribeOptions::at_least_once(pattern("t"), "g", gate.handler(&log, |_| true))).await;
    start(&bus, SubscribeOptions::at_most_once(pattern("t"), live.handler())).await;
    store(&bus, event("t", "k", "running")).await;
    gate.wait().await;
    let closing = tokio::spawn({
        let bus = bus.clone();
        async move { bus.close().await }
    });
    while !matches!(bus.publish(event("x", "k", ""), Delivery::AtMostOnce).await, Err(BusError::Closed)) {
        tokio::task::yield_now().await;
    }
    assert!(!closing.is_finished(), "a handler still runs");
    gate.open(1);
    patiently("the close", closing).await.expect("no panic").expect("all ended in time");
    assert_eq!((log.len(), live.len()), (1, 1));
    if bus.info().survives_process {
        drop(bus);
        f.reopen().await;
        assert_eq!(pending(&f.bus(), "g").await, Some(0), "the acknowledgement counted");
    }
}

/// Close does not wait for ever, and says what it left.
pub async fn close_reports_what_it_gave_up_on(f: impl Fixture) {
    let bus = f.bus();
    let (gate, log) = (Gate::new(), Log::new());
    let options = SubscribeOptions::at_least_once(pattern("t"), "stuck-group", gate.handler(&log, |_| true));
    // Ten years: the loop below moves the clock as often as it takes, and that must not be what ends the handler.
    start(&bus, options.with_timeout(Duration::from_secs(10 * 365 * 86_400))).await;
    store(&bus, event("t", "k", "stuck")).await;
    gate.wait().await;
    let closing = tokio::spawn({
        let bus = bus.clone();
        async move { bus.close().await }
    });
    while !matches!(bus.publish(event("x", "k", ""), Delivery::AtMostOnce).await, Err(BusError::Closed)) {
        tokio::task::yield_now().await;
    }
    let report = patiently("the close", async {
        while !closing.is_finished() {
            f.advance(config().close_timeout).await;
            tokio::task::yield_now().await;
        }
        closing.await.expect("no panic")
    })
    .await;
    match report {
        Err(BusError::Unfinished { unfinished: 1, subscriptions }) => assert_eq!(subscriptions, "stuck-group"),
        other => panic!("one handling was left, close says {other:?}"),
    }
    bus.close().await.expect("a second close is nothing");
}

/// After close everything is refused with the same reason; closing again does nothing.
pub async fn a_closed_bus_refuses_and_closes_twice(f: impl Fixture) {
    let bus = f.bus();
    let log = Log::new();
    bus.close().await.expect("nothing ran");
    bus.close().await.expect("a second close is nothing");
    for delivery in [Delivery::AtMostOnce, Delivery::AtLeastOnce] {
        let refused = bus.publish(event("t", "k", ""), delivery).await.expect_err("closed");
        assert!(matches!(refused, BusError::Closed) && refused.kind() == ErrorKind::Unavailable, "{refused:?}");
    }
    let answers = bus.publish_batch(vec![event("t", "k", ""), event("t", "k", "")]).await;
    assert!(answers.len() == 2 && answers.iter().all(|a| matches!(a, Err(BusError::Closed))), "{answers:?}");
    let refused = bus.subscribe(SubscribeOptions::at_most_once(pattern("t"), log.handler())).await;
    assert!(matches!(refused, Err(BusError::Closed)));
    assert_eq!(bus.health().await.status, HealthStatus::Down);
}
