//! Outputs that are slow, stuck or gone.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use infra_logging::{LogBuilder, LogConfig, LogFormat};
use infra_types::{HealthStatus, ManualClock};
use tracing::{dispatcher::with_default, error, info};

use crate::support::{Screen, flush};

fn small(error_wait_max: Duration) -> LogConfig {
    LogConfig { queue_bytes_max: 64 * 1024, error_wait_max, ..LogConfig::default().with_format(LogFormat::Json) }
}

#[test]
fn drops_are_counted_and_announced_and_errors_wait_for_room() {
    let screen = Screen::held();
    let clock = ManualClock::default();
    let builder = LogBuilder::new(small(Duration::from_secs(60))).with_clock(Arc::new(clock.clone()));
    let (dispatch, guard) = builder.with_console(screen.clone()).build().unwrap();
    let log = guard.handle();
    with_default(&dispatch, || {
        info!(n = 0, "first");
        screen.await_writer();
        (1..5_000).for_each(|n| info!(n, "flood"));
    });
    let dropped = log.stats().dropped;
    assert!(dropped > 0);
    std::thread::scope(|s| {
        let errors = s.spawn(|| with_default(&dispatch, || (0..1_000).for_each(|n| error!(n, "must not be lost"))));
        assert!(!errors.is_finished());
        screen.let_go();
    });
    flush(&guard);
    let lines = screen.lines();
    let of = |level: &str| lines.iter().filter(|l| l["level"] == level).count() as u64;
    assert_eq!(of("ERROR"), 1_000);
    assert_eq!(of("INFO"), 5_000 - dropped);
    let announced: u64 = lines.iter().filter_map(|l| l["fields"]["dropped"].as_u64()).sum();
    assert_eq!(announced, dropped);
    let stats = log.stats();
    assert_eq!((stats.dropped, stats.errors_dropped, stats.lost), (dropped, 0, 0));
    assert_eq!(log.health().status, HealthStatus::Degraded);
    clock.advance(Duration::from_secs(61));
    assert_eq!(log.health().status, HealthStatus::Up);
}

#[test]
fn a_stuck_output_stops_nobody() {
    let screen = Screen::held();
    let (dispatch, guard) =
        LogBuilder::new(small(Duration::from_millis(1))).with_console(screen.clone()).build().unwrap();
    with_default(&dispatch, || {
        info!("first");
        screen.await_writer();
        (0..5_000).for_each(|n| error!(n, "nobody takes this"));
    });
    let stats = guard.handle().stats();
    assert!(stats.errors_dropped > 0);
    assert_eq!(stats.errors_dropped, stats.dropped);
    screen.let_go();
    flush(&guard);
    let announced: u64 = screen.lines().iter().filter_map(|l| l["fields"]["dropped"].as_u64()).sum();
    assert_eq!(announced, stats.dropped);
}

struct Breakable(Screen, Arc<AtomicBool>);

impl io::Write for Breakable {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.1.load(Ordering::SeqCst) { Err(io::ErrorKind::BrokenPipe.into()) } else { self.0.write(bytes) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_broken_output_is_reported_and_heals() {
    let (screen, broken) = (Screen::default(), Arc::new(AtomicBool::new(true)));
    let console = Breakable(screen.clone(), broken.clone());
    let (dispatch, guard) = LogBuilder::new(small(Duration::ZERO)).with_console(console).build().unwrap();
    let log = guard.handle();
    let say = |text: &str| {
        with_default(&dispatch, || info!("{text}"));
        flush(&guard);
    };
    say("lost");
    assert_eq!((log.stats().lost, log.health().status), (1, HealthStatus::Down));
    broken.store(false, Ordering::SeqCst);
    say("seen");
    let lines = screen.lines();
    assert_eq!((&lines[0]["message"], &lines[1]["fields"]["lost"]), (&"seen".into(), &1.into()));
    assert_eq!(log.health().status, HealthStatus::Degraded, "the loss shows for a minute");
}

#[test]
fn what_is_logged_after_the_guard_is_counted() {
    let screen = Screen::default();
    let (dispatch, guard) = LogBuilder::new(small(Duration::ZERO)).with_console(screen.clone()).build().unwrap();
    let log = guard.handle();
    with_default(&dispatch, || (0..100).for_each(|n| info!(n, "before")));
    drop(guard);
    with_default(&dispatch, || error!("after"));
    assert_eq!(screen.lines().len(), 100);
    assert_eq!((log.stats().written, log.stats().errors_dropped), (100, 1));
}

#[test]
fn an_idle_log_wakes_up() {
    let screen = Screen::default();
    let (dispatch, guard) = LogBuilder::new(small(Duration::ZERO)).with_console(screen.clone()).build().unwrap();
    for n in 0..3 {
        with_default(&dispatch, || info!(n, "now and then"));
        flush(&guard);
        assert_eq!(screen.lines().len(), n + 1);
    }
}
