//! The contract of the monitor: names, thresholds, recent samples, clearing, threads.
#![expect(clippy::unwrap_used, reason = "helpers of a test may panic")]

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use infra_latency_monitor::{
    LatencyConfig, LatencyError, LatencyMonitor, MemoryLatencyMonitor, OTHER, Outcome, RecentPolicy,
};
use infra_types::{CorrelationId, ErrorKind, ExecutionContext, ManualClock, Timestamp};

const MS: Duration = Duration::from_millis(1);

fn with(config: LatencyConfig) -> (Arc<dyn LatencyMonitor>, ManualClock) {
    let clock = ManualClock::default();
    (Arc::new(MemoryLatencyMonitor::new(config, Arc::new(clock.clone())).unwrap()), clock)
}

fn max(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

#[test]
fn nothing_is_lost_between_threads_and_readers() {
    let (monitor, _) = with(LatencyConfig::default());
    // More threads than there are numbers, in two generations, so that shared and inherited shards are used too.
    for _ in 0..2 {
        std::thread::scope(|s| {
            for n in 0..80u64 {
                let recorder = monitor.register("s", "o");
                s.spawn(move || (0..1_000).for_each(|i| recorder.record(Duration::from_nanos(n * 1_000 + i))));
            }
            let mut last = 0;
            for _ in 0..50 {
                let Some(summary) = monitor.summary("s", "o") else { continue };
                assert!(summary.count >= last, "counts only grow");
                last = summary.count;
            }
        });
    }
    let latency = monitor.snapshot().get("s", "o").unwrap().latency.clone();
    assert_eq!(latency.count(), 160_000);
    assert_eq!(latency.mean(), Some(Duration::from_nanos(39_999)));
    assert_eq!(latency.max(), Some(Duration::from_nanos(79_999)));
}

#[test]
fn names_beyond_the_cap_share_one_operation() {
    let (monitor, _) = with(LatencyConfig::default().with_operations_max(max(3)));
    for n in 0..10 {
        monitor.register("orders", &format!("order-{n}")).record(MS);
    }
    monitor.register("orders", "order-0").record(MS);
    monitor.register("", &"x".repeat(129)).record(MS);
    let snapshot = monitor.snapshot();
    assert_eq!(snapshot.operations.len(), 4);
    assert_eq!(snapshot.get(OTHER, OTHER).unwrap().latency.count(), 8);
    assert_eq!(snapshot.get("orders", "order-0").unwrap().latency.count(), 2);
    assert_eq!(snapshot.stats.registrations_over_cap, 8);
}

#[test]
fn timers_tell_success_from_failure() {
    let (monitor, clock) = with(LatencyConfig::default());
    let recorder = monitor.register("gate", "approve");
    let work = |early: bool| -> Option<()> {
        let timer = recorder.start();
        clock.advance(5 * MS);
        (!early).then_some(())?;
        assert_eq!(timer.finish(), 5 * MS);
        Some(())
    };
    work(false).unwrap();
    assert_eq!(work(true), None, "an early return leaves the timer to its drop");
    recorder.start().fail();
    recorder.start().discard();
    let summary = monitor.summary("gate", "approve").unwrap();
    assert_eq!((summary.count, summary.failed), (3, 2));
    let figures = summary.figures.unwrap();
    assert_eq!((figures.min, figures.max), (Duration::ZERO, 5 * MS));
}

#[tokio::test]
async fn futures_are_timed_and_a_cancelled_one_failed() {
    let (monitor, clock) = with(LatencyConfig::default());
    let recorder = monitor.register("venue", "place");
    let ok: Result<u8, ()> = recorder
        .time(async {
            clock.advance(MS);
            Ok(1)
        })
        .await;
    assert_eq!(ok, Ok(1));
    assert_eq!(recorder.time(async { Err::<(), _>("refused") }).await, Err("refused"));
    let mut cancelled = Box::pin(recorder.time(std::future::pending::<Result<(), ()>>()));
    tokio::select! { biased; _ = &mut cancelled => unreachable!("it is pending for ever"), () = std::future::ready(()) => {} }
    drop(cancelled);
    let summary = monitor.summary("venue", "place").unwrap();
    assert_eq!((summary.count, summary.failed), (3, 2));
}

#[test]
fn slow_and_failed_samples_are_kept_with_their_story() {
    let (monitor, clock) =
        with(LatencyConfig::default().with_slow_over(10 * MS).with_recent(RecentPolicy::SlowAndFailed, max(3)));
    let recorder = monitor.register("gate", "approve");
    monitor.set_slow_over("gate", "cancel", None);
    monitor.register("gate", "cancel").record(Duration::from_secs(9));
    recorder.record(10 * MS);
    assert_eq!(monitor.recent(9), [], "neither over its threshold nor failed");

    let id = CorrelationId::from_u128(7);
    ExecutionContext::new(id).sync_scope(|| recorder.record(11 * MS));
    recorder.record_for(CorrelationId::from_u128(8), MS, Outcome::Failed);
    let kept = monitor.recent(9);
    assert_eq!(kept.iter().map(|s| (s.slow, s.failed)).collect::<Vec<_>>(), [(false, true), (true, false)]);
    assert_eq!(kept[1].correlation, Some(id));
    assert_eq!(kept[0].correlation, Some(CorrelationId::from_u128(8)));
    assert_eq!((kept[1].took, kept[1].at), (11 * MS, infra_types::Clock::wall(&clock)));

    (0..5).for_each(|_| recorder.record_failed(MS));
    assert_eq!(monitor.recent(99).len(), 3);
    assert_eq!(monitor.snapshot().stats.samples_evicted, 4);
    let summary = monitor.summary("gate", "approve").unwrap();
    assert_eq!((summary.slow, summary.failed), (1, 6));
}

#[test]
fn every_sample_is_kept_on_request() {
    let (monitor, _) = with(LatencyConfig::default().with_recent(RecentPolicy::All, max(10_000)));
    let recorder = monitor.register("s", "o");
    (1..=10_500).for_each(|n| recorder.record(Duration::from_nanos(n)));
    let kept = monitor.recent(usize::MAX);
    assert_eq!(kept.len(), 10_000);
    assert_eq!(kept[0].took, Duration::from_nanos(10_500));
    assert_eq!(kept[9_999].took, Duration::from_nanos(501));
}

#[test]
fn slow_services_are_found_worst_first() {
    let (monitor, _) = with(LatencyConfig::default());
    for (service, took) in [("a", 2), ("b", 30), ("c", 20)] {
        monitor.register(service, "call").record(took * MS);
    }
    let snapshot = monitor.snapshot();
    let found: Vec<_> = snapshot.slower_than(99.0, 5 * MS).into_iter().map(|(key, _)| key.to_string()).collect();
    assert_eq!(found, ["b/call", "c/call"]);
}

#[test]
fn stamps_that_run_backwards_or_were_copied_are_no_latency() {
    let (monitor, _) = with(LatencyConfig::default());
    let recorder = monitor.register("feed", "venue_to_us");
    let at = Timestamp::from_millis;
    assert!(recorder.record_between(at(1_000), at(1_003)));
    assert!(!recorder.record_between(at(1_000), at(999)));
    assert!(!recorder.record_between(at(1_000), at(1_000)));
    let summary = monitor.summary("feed", "venue_to_us").unwrap();
    assert_eq!((summary.count, summary.skipped), (1, 2));
    assert_eq!(summary.figures.unwrap().min, 3 * MS);
}

#[test]
fn clear_starts_again_and_keeps_the_handles() {
    let (monitor, clock) = with(LatencyConfig::default());
    let recorder = monitor.register("s", "o");
    recorder.record_failed(100 * MS);
    let before = monitor.snapshot();
    monitor.clear();
    assert_eq!(monitor.recent(9), []);
    assert_eq!(monitor.summary("s", "o").unwrap().figures, None);
    recorder.record(2 * MS);
    clock.advance(MS);
    let after = monitor.snapshot();
    let summary = after.operations[0].summary();
    assert_eq!((summary.count, summary.failed), (1, 0));
    assert_eq!(summary.figures.unwrap().mean, 2 * MS);
    let (changed, elapsed) = after.since(&before);
    assert_eq!((changed[0].latency.count(), elapsed), (1, MS), "a reading from before the clear is not subtracted");
}

#[test]
fn a_wrong_configuration_names_every_mistake() {
    let config = LatencyConfig::default().with_operations_max(max(70_000)).with_slow_over(Duration::ZERO);
    let error = MemoryLatencyMonitor::new(config, Arc::new(ManualClock::default())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let LatencyError::InvalidConfig { problems } = error else { panic!("{error}") };
    assert_eq!(problems.len(), 2);
}
