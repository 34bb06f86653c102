//! The rules about what is recorded (S9 to S16) and about configuration (S21).

mod common;

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU32, Ordering},
};

use common::{DOWN, Oops, clock, ms, now};
use infra_resilience::{BreakerBuilder, BreakerEventKind, BreakerState, CircuitBreaker, Verdict};
use infra_types::{ErrorKind, ManualClock};
use parking_lot::Mutex;
use proptest::prelude::*;

fn with(change: impl FnOnce(BreakerBuilder) -> BreakerBuilder) -> (ManualClock, CircuitBreaker) {
    let (manual, shared) = clock();
    let settings = CircuitBreaker::builder("venue").open_for(ms(1_000)).clock(shared);
    (manual, change(settings).build().expect("valid settings"))
}

fn figures(breaker: &CircuitBreaker) -> (u32, u32) {
    let figures = breaker.snapshot();
    (figures.window_calls, figures.window_failures)
}

#[test]
fn s09_success_failure_and_ignore() {
    let (_, breaker) = with(|b| b);
    let call = |result: Result<(), Oops>| now(breaker.call(async move { result })).is_ok();
    assert!(call(Ok(())));
    assert_eq!(figures(&breaker), (1, 0));
    assert!(!call(Err(DOWN)));
    assert_eq!(figures(&breaker), (2, 1));
    // Not matched as a failure: the callee is well enough to refuse.
    assert!(!call(Err(Oops::of(ErrorKind::Invalid))));
    assert_eq!(figures(&breaker), (3, 1));
    assert!(!call(Err(Oops::of(ErrorKind::LimitExceeded))));
    assert_eq!(figures(&breaker), (3, 1));
}

#[test]
fn s09_ignore_wins_and_gives_the_probe_back() {
    let kinds = [ErrorKind::Unavailable];
    let (clock, breaker) = with(|b| b.failure_threshold(1).failure_on(kinds).ignore_on(kinds));
    assert_eq!(breaker.judge(Some(&DOWN)), Verdict::Ignore);
    breaker.try_acquire().unwrap().failure();
    clock.advance(ms(1_000));
    for _ in 0..3 {
        let _ = now(breaker.call(async { Err::<(), _>(DOWN) }));
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
    }
    breaker.try_acquire().unwrap().success();
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn s11_rates_compare_with_at_least_and_are_absent_below_min_calls() {
    let (_, breaker) = with(|b| b.failure_rate_percent(50).window(10).min_calls(4));
    for _ in 0..2 {
        breaker.try_acquire().unwrap().failure();
    }
    breaker.try_acquire().unwrap().success();
    assert_eq!(breaker.state(), BreakerState::Closed, "three calls have no rate");
    breaker.try_acquire().unwrap().success();
    assert_eq!(breaker.state(), BreakerState::Open, "exactly 50 % is enough");
}

#[test]
fn s13_a_failure_arriving_in_open_does_not_extend_it() {
    let (clock, breaker) = with(|b| b.failure_threshold(1));
    let slow = breaker.try_acquire().unwrap();
    breaker.try_acquire().unwrap().failure();
    clock.advance(ms(900));
    slow.failure();
    clock.advance(ms(100));
    assert!(breaker.try_acquire().is_ok());
}

#[test]
fn s14_disabled_and_forced_open_record_nothing() {
    let (clock, breaker) = with(|b| b.failure_threshold(1));
    breaker.disable();
    for _ in 0..10 {
        breaker.try_acquire().unwrap().failure();
    }
    assert_eq!((breaker.state(), figures(&breaker)), (BreakerState::Disabled, (0, 0)));
    let permit = breaker.try_acquire().unwrap();
    breaker.force_open();
    permit.failure();
    clock.advance(ms(1_000_000));
    assert!(breaker.try_acquire().is_err(), "time does not end what an operator forced");
    assert_eq!((breaker.state(), figures(&breaker)), (BreakerState::ForcedOpen, (0, 0)));
    breaker.reset();
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn s14_metrics_only_tells_each_threshold_once_per_episode() {
    let told = Arc::new(AtomicU32::new(0));
    let counter = told.clone();
    let (_, breaker) = with(|b| {
        b.failure_threshold(2).window(4).on_event(move |event| {
            if event.kind == BreakerEventKind::ThresholdReached {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    breaker.metrics_only();
    for _ in 0..2 {
        for _ in 0..8 {
            breaker.try_acquire().unwrap().failure();
        }
        for _ in 0..4 {
            breaker.try_acquire().unwrap().success();
        }
    }
    assert_eq!((told.load(Ordering::Relaxed), breaker.state()), (2, BreakerState::MetricsOnly));
}

#[test]
fn s15_listeners_run_outside_the_lock_in_order_and_may_panic() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let own: Arc<OnceLock<CircuitBreaker>> = Arc::default();
    let (log, inside) = (seen.clone(), own.clone());
    let (_, breaker) = with(|b| {
        b.failure_threshold(1).on_event(|_| panic!("a bad listener")).on_event(move |event| {
            let breaker = inside.get().unwrap();
            if let BreakerEventKind::StateChanged { from: BreakerState::Closed, to: BreakerState::Open } = event.kind {
                // Deadlocks if the lock is held; comes after this event if the order is kept.
                breaker.reset();
            }
            log.lock().push(event.kind);
        })
    });
    own.set(breaker.clone()).unwrap();
    breaker.try_acquire().unwrap().failure();
    let change = |from, to| BreakerEventKind::StateChanged { from, to };
    assert_eq!(
        *seen.lock(),
        [change(BreakerState::Closed, BreakerState::Open), change(BreakerState::Open, BreakerState::Closed)]
    );
    assert_eq!(breaker.snapshot().listener_panics, 2);
    assert_eq!(breaker.state(), BreakerState::Closed);
    breaker.disable();
    assert_eq!(seen.lock().len(), 3, "delivery goes on after a panic");
}

#[test]
fn s16_old_failures_slide_out_of_the_window() {
    let (_, breaker) = with(|b| b.failure_threshold(3).window(5));
    for _ in 0..1_000 {
        // Two in any five: a window that never slides adds them up and opens.
        breaker.try_acquire().unwrap().failure();
        breaker.try_acquire().unwrap().success();
        breaker.try_acquire().unwrap().success();
    }
    assert_eq!((breaker.state(), figures(&breaker).0), (BreakerState::Closed, 5));
}

#[test]
fn s21_every_mistake_is_reported_at_once() {
    let refused = CircuitBreaker::builder("")
        .failure_threshold(0)
        .failure_rate_percent(101)
        .window(10)
        .min_calls(11)
        .open_for(ms(0))
        .half_open_permits(2)
        .half_open_successes(3)
        .build()
        .unwrap_err();
    let about: Vec<_> = refused.problems.iter().map(|p| p.what).collect();
    let expected = [
        "breaker name",
        "failure threshold",
        "failure rate",
        "min calls",
        "open time",
        "half-open successes",
        "half-open wait",
    ];
    assert_eq!((about.as_slice(), refused.kind()), (expected.as_slice(), ErrorKind::Invalid));
    assert!(expected.iter().all(|what| refused.to_string().contains(what)), "{refused}");
    assert!(CircuitBreaker::builder("x").failure_threshold(11).window(10).build().is_err());
    assert!(CircuitBreaker::builder("x").window(1).min_calls(2).failure_rate_percent(1).build().is_err());
    assert!(CircuitBreaker::builder("x").window(65_537).build().is_err());
    assert!(CircuitBreaker::builder("x").half_open_permits(0).build().is_err());
}

#[test]
fn a_new_breaker_opens_at_its_threshold() {
    let breaker = CircuitBreaker::new("venue", 5);
    for _ in 0..4 {
        breaker.try_acquire().unwrap().failure();
    }
    assert_eq!((breaker.name(), breaker.state()), ("venue", BreakerState::Closed));
    breaker.try_acquire().unwrap().failure();
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
#[should_panic(expected = "must be at least 1")]
fn a_threshold_of_zero_is_a_programmer_error() {
    let _ = CircuitBreaker::new("venue", 0);
}

proptest! {
    /// Whatever the order of calls, verdicts and time: never more probes than permits, never a permit while open, and
    /// only a breaker whose probes succeeded closes.
    #[test]
    fn no_schedule_breaks_the_state_machine(steps in prop::collection::vec((0u8..6, 0u64..1_500), 1..300)) {
        let (clock, breaker) = with(|b| b.failure_threshold(3).window(6).half_open_permits(2));
        let mut held: Vec<(u64, infra_resilience::Permit<'_>)> = Vec::new();
        for (step, number) in steps {
            let before = breaker.snapshot();
            match step {
                0 | 1 => if let Ok(permit) = breaker.try_acquire() {
                    let generation = breaker.snapshot().generation;
                    held.push((generation, permit));
                    let state = breaker.state();
                    prop_assert!(matches!(state, BreakerState::Closed | BreakerState::HalfOpen));
                    if state == BreakerState::HalfOpen {
                        prop_assert!(held.iter().filter(|(g, _)| *g == generation).count() <= 2);
                    }
                },
                2 => clock.advance(ms(number)),
                _ if held.is_empty() => {}
                _ => {
                    let (generation, permit) = held.swap_remove(number as usize % held.len());
                    match step {
                        3 => permit.success(),
                        4 => permit.failure(),
                        _ => drop(permit),
                    }
                    let after = breaker.snapshot();
                    if generation != before.generation {
                        prop_assert_eq!(after.generation, before.generation);
                        prop_assert_eq!(after.window_calls, before.window_calls);
                    }
                    if before.state == BreakerState::HalfOpen && after.state == BreakerState::Closed {
                        prop_assert_eq!(step, 3);
                    }
                }
            }
        }
    }
}
