//! What a thread has recorded once, it records again without allocating.

use std::time::Duration;

use infra_latency_monitor::{LatencyConfig, LatencyMonitor, MemoryLatencyMonitor, OrderStages, Stage};
use infra_types::{CorrelationId, SystemClock};

#[test]
fn nothing_is_allocated_after_warm_up() {
    let config = LatencyConfig::default().with_slow_over(Duration::from_secs(60));
    let monitor = MemoryLatencyMonitor::new(config, SystemClock::shared()).unwrap();
    let recorder = monitor.register("s", "o");
    recorder.warm_up();
    let stages = OrderStages::register(&monitor, "orders", SystemClock::shared());
    let trace = || {
        let mut trace = stages.tick(CorrelationId::from_u128(1));
        Stage::ALL[1..].iter().for_each(|stage| drop(trace.mark(*stage)));
        drop(trace);
    };
    trace();
    let used = allocation_counter::measure(|| {
        for n in 0..10_000 {
            // All magnitudes, so that no bucket comes late; slow and failed ones too, outside a task.
            let took = Duration::from_nanos(1 << (n % 50));
            recorder.clone().record(took);
            recorder.record_failed(took);
            recorder.record_with_expected_interval(took, Duration::from_millis(1));
            recorder.start().finish();
            trace();
        }
    });
    assert_eq!(used.count_total, 0, "{used:?}");
}
