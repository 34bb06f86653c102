//! The rules about permits and half-open (S1 to S8).

mod common;

use std::{
    future::pending,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Barrier},
    time::Duration,
};

use common::{DOWN, Oops, clock, ms, now, poll};
use infra_resilience::{Abandoned, BreakerBuilder, BreakerState, CallError, CircuitBreaker};
use infra_types::{Clock, ManualClock};

fn with(change: impl FnOnce(BreakerBuilder) -> BreakerBuilder) -> (ManualClock, CircuitBreaker) {
    let (manual, shared) = clock();
    let settings = CircuitBreaker::builder("venue").failure_threshold(2).open_for(ms(1_000)).clock(shared);
    (manual, change(settings).build().expect("valid settings"))
}

fn open(breaker: &CircuitBreaker) {
    for _ in 0..2 {
        breaker.try_acquire().expect("it is closed").failure();
    }
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn s01_a_permit_dropped_without_verdict_goes_back_to_its_generation() {
    let (clock, breaker) = with(|b| b.half_open_permits(2));
    let old = breaker.try_acquire().unwrap();
    open(&breaker);
    clock.advance(ms(1_000));
    let (first, second) = (breaker.try_acquire().unwrap(), breaker.try_acquire().unwrap());
    assert!(breaker.try_acquire().is_err());
    drop(old);
    assert!(breaker.try_acquire().is_err(), "a permit of an older generation must not free a probe");
    drop(first);
    let again = breaker.try_acquire().unwrap();
    assert!(breaker.try_acquire().is_err());
    second.success();
    again.success();
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn s02_late_results_change_nothing_and_are_counted() {
    let (clock, breaker) = with(|b| b);
    let late: Vec<_> = (0..10).map(|_| breaker.try_acquire().unwrap()).collect();
    open(&breaker);
    clock.advance(ms(1_000));
    let probe = breaker.try_acquire().unwrap();
    // resilience4j closes a half-open breaker on these.
    for (n, permit) in late.into_iter().enumerate() {
        if n % 2 == 0 { permit.success() } else { permit.failure() }
    }
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert_eq!(breaker.snapshot().late_results, 10);
    probe.success();
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn s03_an_abandoned_call_means_what_the_policy_says() {
    let abandon = |policy: Abandoned, together: usize| {
        let (_, breaker) = with(|b| b.abandoned(policy));
        let mut calls: Vec<_> = (0..together).map(|_| Box::pin(breaker.call(pending::<Result<(), Oops>>()))).collect();
        assert!(calls.iter_mut().all(|call| poll(call).is_pending()));
        drop(calls);
        assert_eq!(breaker.snapshot().abandoned, together as u64);
        breaker.snapshot().window_failures
    };
    assert_eq!(abandon(Abandoned::Ignore, 1), 0);
    assert_eq!(abandon(Abandoned::AsFailure, 1), 1);
    assert_eq!(abandon(Abandoned::AsFailureWhenOnly, 1), 1);
    // Two in flight: the first that goes is a lost race, the last one hung alone.
    assert_eq!(abandon(Abandoned::AsFailureWhenOnly, 2), 1);
}

#[test]
fn s03_dropped_before_the_first_poll_is_no_call() {
    let (_, breaker) = with(|b| b.abandoned(Abandoned::AsFailure));
    drop(breaker.call(async { Ok::<_, Oops>(()) }));
    assert_eq!(breaker.snapshot().abandoned, 0);
}

#[test]
fn s04_a_panic_is_a_failure_and_goes_on_unchanged() {
    let (_, breaker) = with(|b| b);
    let call = || now(breaker.call::<(), Oops>(async { std::panic::panic_any(7_i32) }));
    let payload = catch_unwind(AssertUnwindSafe(call)).unwrap_err();
    assert_eq!(payload.downcast_ref::<i32>(), Some(&7));
    assert_eq!(breaker.snapshot().window_failures, 1);
    let sync = || {
        let _permit = breaker.try_acquire().unwrap();
        panic!("in a sync call");
    };
    assert!(catch_unwind(AssertUnwindSafe(sync)).is_err());
    // The second failure opened it: nothing is poisoned, and no permit is lost.
    assert_eq!(breaker.state(), BreakerState::Open);
    breaker.reset();
    assert_eq!(now(breaker.call(async { Ok::<_, Oops>(3) })), Ok(3));
}

#[test]
fn s04_a_waiting_call_dropped_by_another_panic_is_not_a_failure() {
    let (_, breaker) = with(|b| b);
    let other = || {
        let mut call = Box::pin(breaker.call(pending::<Result<(), Oops>>()));
        assert!(poll(&mut call).is_pending());
        panic!("something else");
    };
    assert!(catch_unwind(AssertUnwindSafe(other)).is_err());
    let figures = breaker.snapshot();
    assert_eq!((figures.window_failures, figures.abandoned), (0, 1));
}

#[test]
fn s05_half_open_waits_as_long_as_it_was_open_and_opens_again() {
    let (clock, breaker) = with(|b| b);
    open(&breaker);
    clock.advance(ms(1_000));
    let stuck = breaker.try_acquire().unwrap();
    clock.advance(ms(999));
    assert_eq!(breaker.try_acquire().unwrap_err().retry_after, Some(ms(1)));
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    clock.advance(ms(1));
    assert_eq!(breaker.try_acquire().unwrap_err().retry_after, Some(ms(1_000)));
    assert_eq!(breaker.state(), BreakerState::Open);
    stuck.success();
    assert_eq!(breaker.state(), BreakerState::Open, "the probe answered too late");
    assert_eq!(breaker.snapshot().late_results, 1);
    clock.advance(ms(1_000));
    breaker.try_acquire().unwrap().success();
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn s05_a_probe_that_answers_after_the_wait_is_late_though_nobody_called() {
    let (clock, breaker) = with(|b| b.half_open_wait_max(ms(50)));
    open(&breaker);
    clock.advance(ms(1_000));
    let probe = breaker.try_acquire().unwrap();
    clock.advance(ms(50));
    probe.success();
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn s05_without_a_probe_out_half_open_goes_on() {
    let (clock, breaker) = with(|b| b.half_open_permits(2));
    open(&breaker);
    clock.advance(ms(1_000));
    breaker.try_acquire().unwrap().success();
    clock.advance(Duration::from_secs(3_600));
    let second = breaker.try_acquire().unwrap();
    clock.advance(ms(999));
    second.success();
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn s06_half_open_decides_when_all_verdicts_are_in() {
    let (clock, breaker) = with(|b| b.half_open_permits(3).half_open_successes(2));
    open(&breaker);
    clock.advance(ms(1_000));
    breaker.try_acquire().unwrap().success();
    breaker.try_acquire().unwrap().success();
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    breaker.try_acquire().unwrap().failure();
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn s06_half_open_opens_early_when_success_is_impossible() {
    let (clock, breaker) = with(|b| b.half_open_permits(5).half_open_successes(4));
    open(&breaker);
    clock.advance(ms(1_000));
    let probes: Vec<_> = (0..5).map(|_| breaker.try_acquire().unwrap()).collect();
    let mut probes = probes.into_iter();
    probes.next().unwrap().failure();
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    probes.next().unwrap().failure();
    assert_eq!(breaker.state(), BreakerState::Open);
    probes.for_each(|probe| probe.success());
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn s07_min_calls_above_the_permits_does_not_keep_half_open_undecided() {
    for (failing, then) in [(true, BreakerState::Open), (false, BreakerState::Closed)] {
        let (clock, breaker) =
            with(|b| b.failure_rate_percent(50).window(100).min_calls(100).half_open_permits(3).half_open_successes(1));
        open(&breaker);
        clock.advance(ms(1_000));
        for _ in 0..3 {
            let probe = breaker.try_acquire().unwrap();
            if failing { probe.failure() } else { probe.success() }
        }
        assert_eq!(breaker.state(), then);
    }
}

#[test]
fn s08_losers_of_the_half_open_race_go_through_the_same_counter() {
    // failsafe and recloser admit everyone here; resilience4j admits seven where two are configured.
    for round in 0..50 {
        let (clock, breaker) = with(|b| b.half_open_permits(2));
        open(&breaker);
        clock.advance(ms(1_000));
        let start = Arc::new(Barrier::new(8));
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    let (breaker, start) = (&breaker, start.clone());
                    scope.spawn(move || {
                        start.wait();
                        let permit = breaker.try_acquire();
                        start.wait();
                        usize::from(permit.is_ok())
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(admitted, 2, "round {round}");
    }
}

#[test]
fn s18_a_step_of_the_wall_clock_changes_nothing() {
    let (clock, breaker) = with(|b| b);
    open(&breaker);
    clock.set_wall(clock.wall().saturating_sub(Duration::from_secs(3_600)));
    clock.advance(ms(999));
    assert!(breaker.try_acquire().is_err());
    clock.advance(ms(1));
    // resilience4j keeps a one-second break open for an hour here.
    breaker.try_acquire().unwrap().success();
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn s19_at_exactly_the_end_of_the_open_time_a_call_passes() {
    let (clock, breaker) = with(|b| b);
    open(&breaker);
    clock.advance(Duration::from_nanos(999_999_999));
    assert!(breaker.try_acquire().is_err());
    clock.advance(Duration::from_nanos(1));
    assert!(breaker.try_acquire().is_ok());
}

#[test]
fn s20_a_rejection_carries_retry_after() {
    let (clock, breaker) = with(|b| b);
    open(&breaker);
    clock.advance(ms(400));
    let refused = now(breaker.call(async { Ok::<_, Oops>(()) })).unwrap_err();
    assert_eq!(refused, CallError::BreakerOpen { name: "venue".into(), retry_after: Some(ms(600)) });
    assert_eq!(refused.to_string(), "circuit breaker \"venue\" refuses calls; try again in 600ms");
    breaker.force_open();
    assert_eq!(breaker.try_acquire().unwrap_err().retry_after, None, "only an operator ends it");
}

#[test]
fn s12_a_rejected_call_is_not_polled_and_not_recorded() {
    let (_, breaker) = with(|b| b);
    open(&breaker);
    let refused = now(breaker.call::<(), Oops>(async { panic!("polled") }));
    assert!(refused.is_err());
    assert_eq!(breaker.snapshot().rejected, 1);
    // An outer breaker around this one learns nothing about the callee.
    let (_, outer) = with(|b| b);
    for _ in 0..5 {
        let _ = now(outer.call(breaker.call(async { Err::<(), _>(DOWN) })));
    }
    assert_eq!((outer.state(), outer.snapshot().window_calls), (BreakerState::Closed, 0));
}
