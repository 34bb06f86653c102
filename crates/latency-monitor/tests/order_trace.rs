//! An order's way from the tick to the trade.
#![expect(clippy::unwrap_used, reason = "helpers of a test may panic")]

use std::{sync::Arc, time::Duration};

use infra_latency_monitor::{
    LatencyConfig, LatencyError, LatencyMonitor, MemoryLatencyMonitor, OrderStages, RecentPolicy, Stage,
};
use infra_types::{Clock, CorrelationId, ManualClock};

fn setup() -> (MemoryLatencyMonitor, OrderStages, ManualClock) {
    let clock = ManualClock::default();
    let config = LatencyConfig::default().with_recent(RecentPolicy::All, 100.try_into().unwrap());
    let monitor = MemoryLatencyMonitor::new(config, Arc::new(clock.clone())).unwrap();
    let stages = OrderStages::register(&monitor, "orders", Arc::new(clock.clone()));
    (monitor, stages, clock)
}

fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

#[test]
fn every_stage_and_the_total_are_recorded_under_one_id() {
    let (monitor, stages, clock) = setup();
    let id = CorrelationId::from_u128(42);
    let mut trace = stages.tick(id);
    for (n, stage) in Stage::ALL.into_iter().enumerate().skip(1) {
        clock.advance(us(n as u64));
        assert_eq!(trace.mark(stage), Ok(us(n as u64)));
    }
    let report = trace.finish();
    assert_eq!(report.total, us(1 + 2 + 3 + 4 + 5));
    assert_eq!(report.total, report.stages().map(|(_, took)| took).sum());
    let mean = |operation| monitor.summary("orders", operation).unwrap().figures.unwrap().mean;
    assert_eq!((mean("signal"), mean("filled")), (us(1), us(5)));
    assert_eq!((mean("tick_to_trade"), mean("total")), (us(6), us(15)));
    let samples = monitor.recent(99);
    assert_eq!(samples.len(), 7);
    assert!(samples.iter().all(|s| s.correlation == Some(id) && !s.failed));
}

#[test]
fn stages_only_go_forward() {
    let (monitor, stages, clock) = setup();
    let start = clock.now();
    let mut trace = stages.begin_at(CorrelationId::from_u128(1), Stage::Signal, start);
    clock.advance(us(5));
    trace.mark(Stage::Sent).unwrap();
    let refused = Err(LatencyError::StageOutOfOrder { stage: Stage::Approved, last: Stage::Sent });
    assert_eq!(trace.mark(Stage::Approved), refused);
    assert!(trace.mark(Stage::Sent).is_err());
    let back = trace.mark_at(Stage::Filled, start);
    assert_eq!(back, Err(LatencyError::ClockWentBack { stage: Stage::Filled, by: us(5) }));
    assert_eq!(trace.finish().stages().collect::<Vec<_>>(), [(Stage::Sent, us(5))]);
    assert_eq!(monitor.summary("orders", "filled").unwrap().count, 0);
    assert_eq!(monitor.summary("orders", "tick_to_trade").unwrap().count, 0, "it did not start with a tick");
}

#[test]
fn a_trace_that_ends_early_failed() {
    let (monitor, stages, clock) = setup();
    let mut trace = stages.tick(CorrelationId::from_u128(1));
    clock.advance(us(3));
    trace.mark(Stage::Signal).unwrap();
    drop(trace);
    assert_eq!(stages.tick(CorrelationId::from_u128(2)).fail().stages().count(), 0);
    let total = monitor.summary("orders", "total").unwrap();
    assert_eq!((total.count, total.failed), (2, 2));
}
