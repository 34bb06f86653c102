//! The rules about retry (S22 to S31).

mod common;

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    time::Duration,
};

use common::{DOWN, Oops, clock, drive, ms, now, poll};
use infra_resilience::{
    AtMostOnce, CallError, CircuitBreaker, Decision, Idempotent, Keyed, Outcome, Policy, PolicyBuilder, PolicyError,
    RandomSource, ReadOnly, Retry, RetryBudget, SeededRandom, StopReason,
};
use infra_types::{Backoff, Clock, ErrorKind, Jitter, ManualClock};
use proptest::prelude::*;

fn fixed(delay: Duration) -> Backoff {
    Backoff::new(delay, delay, 1, Jitter::None).expect("valid delays")
}

fn with(change: impl FnOnce(PolicyBuilder) -> PolicyBuilder) -> (ManualClock, Policy) {
    let (manual, shared) = clock();
    (manual, change(Policy::builder("venue").clock(shared)).build().expect("valid settings"))
}

/// Calls something that fails with each of `errors` in turn, then succeeds; gives the result and the calls made.
fn fails(clock: &ManualClock, policy: &Policy, errors: &[Oops]) -> (Result<u32, PolicyError<Oops>>, u32) {
    let made = Cell::new(0);
    let result = drive(
        clock,
        policy.call(Idempotent, |_| {
            let error = errors.get(made.get() as usize).copied();
            made.set(made.get() + 1);
            async move { error.map_or(Ok(7), Err) }
        }),
    );
    (result, made.get())
}

#[test]
fn s22_max_attempts_counts_the_first_call_and_zero_is_refused() {
    let (clock, policy) = with(|p| p.retry(Retry::attempts(3).backoff(fixed(ms(1)))));
    assert_eq!(fails(&clock, &policy, &[DOWN, DOWN]), (Ok(7), 3));
    let (result, made) = fails(&clock, &policy, &[DOWN; 9]);
    let error = result.unwrap_err();
    assert_eq!((made, error.attempts, error.stopped), (3, 3, StopReason::AttemptsExhausted));
    let (clock, once) = with(|p| p.retry(Retry::attempts(1)));
    assert_eq!(fails(&clock, &once, &[DOWN; 9]).1, 1);
    let refused = Policy::builder("").deadline(ms(0)).retry(Retry::attempts(0)).build().unwrap_err();
    assert_eq!(
        refused.problems.iter().map(|p| p.what).collect::<Vec<_>>(),
        ["policy name", "deadline", "max attempts"]
    );
}

fn decide(retry: &Retry, attempt: u32, error: Oops, remaining: Option<Duration>, random: u64) -> Decision {
    retry.decide(attempt, &CallError::Inner(error), remaining, random)
}

proptest! {
    #[test]
    fn s23_the_cap_comes_first_then_jitter_inside_the_cap(attempt in 1u32.., random: u64, jitter in 0usize..3) {
        let jitter = [Jitter::None, Jitter::Full, Jitter::Equal][jitter];
        // backon waits 19.999 s here; tower truncates the jitter away at 1 s.
        let backoff = Backoff::new(ms(1_000), ms(10_000), 2, jitter).unwrap();
        let retry = Retry::attempts(u32::MAX).backoff(backoff);
        match decide(&retry, attempt.min(u32::MAX - 1), DOWN, None, random) {
            Decision::After(delay) => prop_assert!(delay <= ms(10_000)),
            stop => prop_assert!(false, "{stop:?}"),
        }
    }
}

#[test]
fn s24_at_the_cap_the_spread_stays() {
    let random = SeededRandom::new(1);
    let retry = Retry::attempts(u32::MAX).backoff(Backoff::new(ms(1_000), ms(1_000), 2, Jitter::Full).unwrap());
    let mut delays: Vec<_> = (0..1_000)
        .map(|_| decide(&retry, 50, DOWN, None, random.next_u64()))
        .map(|d| if let Decision::After(delay) = d { delay } else { panic!("{d:?}") })
        .collect();
    delays.sort_unstable();
    assert!(delays[100] < ms(200) && delays[900] > ms(800), "{:?} {:?}", delays[100], delays[900]);
    delays.dedup();
    assert!(delays.len() > 900, "jitter finer than a millisecond survives");
}

#[test]
fn s25_saturates_at_the_largest_attempt() {
    let backoff = Backoff::new(ms(1), Duration::MAX, u32::MAX, Jitter::None).unwrap();
    let retry = Retry::attempts(u32::MAX).backoff(backoff).retry_after_max(Duration::MAX);
    assert_eq!(decide(&retry, u32::MAX - 1, DOWN, None, u64::MAX), Decision::After(Duration::MAX));
    assert_eq!(decide(&retry, u32::MAX, DOWN, None, 0), Decision::Stop(StopReason::AttemptsExhausted));
}

#[test]
fn s26_retry_after_is_a_floor() {
    let limited = Oops::of(ErrorKind::LimitExceeded);
    let retry = Retry::attempts(9).backoff(fixed(ms(100))).retry_after_max(ms(5_000));
    let ask = |hint, remaining| decide(&retry, 1, limited.after(hint), remaining, 0);
    assert_eq!(ask(ms(3_000), None), Decision::After(ms(3_000)));
    assert_eq!(ask(ms(20), None), Decision::After(ms(100)), "a short hint does not shorten the backoff");
    assert_eq!(ask(ms(3_000), Some(ms(3_000))), Decision::Stop(StopReason::Deadline));
    assert_eq!(ask(ms(5_001), None), Decision::Stop(StopReason::RetryAfterTooLong));
    let without = decide(&retry, 1, limited, None, 0);
    assert_eq!(without, Decision::Stop(StopReason::NotRetryable));
    let banned = Oops::of(ErrorKind::Permanent).after(ms(1));
    assert_eq!(decide(&retry, 1, banned, None, 0), Decision::Stop(StopReason::NotRetryable));
}

#[test]
fn s26_a_hint_past_the_deadline_fails_now_with_the_hint() {
    let (clock, policy) = with(|p| p.deadline(ms(1_000)).retry(Retry::attempts(3).backoff(fixed(ms(1)))));
    let start = clock.now();
    let (result, made) = fails(&clock, &policy, &[DOWN.after(ms(4_000)); 3]);
    let error = result.unwrap_err();
    assert_eq!((made, error.stopped, error.retry_after()), (1, StopReason::Deadline, Some(ms(4_000))));
    assert_eq!(clock.now(), start, "no time was slept away");
}

#[test]
fn s27_never_sleeps_past_the_deadline() {
    // 0, 400, 800 ms; the next would be at 1,200 ms.
    let (clock, policy) = with(|p| p.deadline(ms(1_200)).retry(Retry::attempts(9).backoff(fixed(ms(400)))));
    let start = clock.now();
    let (result, made) = fails(&clock, &policy, &[DOWN; 9]);
    let error = result.unwrap_err();
    assert_eq!((made, error.error, error.stopped), (3, CallError::Inner(DOWN), StopReason::Deadline));
    assert_eq!(clock.now().since(start), ms(800), "the last error comes at once");
}

#[test]
fn s27_a_late_wake_up_starts_no_attempt_after_the_deadline() {
    let (clock, policy) = with(|p| p.deadline(ms(1_000)).retry(Retry::attempts(9).backoff(fixed(ms(400)))));
    let made = Cell::new(0);
    let mut call = Box::pin(policy.call(ReadOnly, |_| {
        made.set(made.get() + 1);
        async { Err::<(), _>(DOWN) }
    }));
    assert!(poll(&mut call).is_pending());
    clock.advance(ms(1_000));
    assert!(matches!(poll(&mut call), std::task::Poll::Ready(Err(e)) if e.stopped == StopReason::Deadline));
    assert_eq!(made.get(), 1);
}

#[test]
fn s28_the_budget_is_asked_before_the_sleep() {
    let budget = Arc::new(RetryBudget::new(10, 2));
    let retry = Retry::attempts(9).backoff(fixed(ms(100))).budget(budget.clone());
    let (clock, policy) = with(|p| p.retry(retry));
    let start = clock.now();
    let (result, made) = fails(&clock, &policy, &[DOWN; 9]);
    let error = result.unwrap_err();
    assert_eq!((made, error.stopped, error.error), (3, StopReason::BudgetEmpty, CallError::Inner(DOWN)));
    assert_eq!(clock.now().since(start), ms(200), "no sleep for the retry that was refused");
    assert_eq!(error_text(&policy, &clock), "oops Unavailable (attempts: 1; retry budget empty)");
    // Ten percent: nine more calls pay for one retry (two calls have paid in while the reserve was full or spent).
    for _ in 0..9 {
        assert!(fails(&clock, &policy, &[]).0.is_ok());
    }
    assert_eq!(budget.retries_left(), 1);
    assert_eq!(fails(&clock, &policy, &[DOWN]), (Ok(7), 2));
}

fn error_text(policy: &Policy, clock: &ManualClock) -> String {
    fails(clock, policy, &[DOWN; 9]).0.expect_err("it always fails").to_string()
}

#[test]
fn s28_a_retry_that_is_refused_for_another_reason_costs_no_budget() {
    let budget = Arc::new(RetryBudget::new(0, 1));
    let retry = Retry::attempts(2).backoff(fixed(ms(100))).budget(budget.clone());
    for (attempt, error, remaining) in [
        (2, DOWN, None),
        (1, DOWN, Some(ms(100))),
        (1, Oops::of(ErrorKind::Invalid), None),
        (1, DOWN.after(ms(99_999)), None),
    ] {
        assert!(matches!(decide(&retry, attempt, error, remaining, 0), Decision::Stop(_)));
    }
    assert_eq!(budget.retries_left(), 1);
}

#[test]
fn s29_cancelled_before_the_start_or_during_a_delay() {
    let (clock, policy) = with(|p| p.retry(Retry::attempts(9).backoff(fixed(ms(100)))));
    let made = Cell::new(0);
    let call = || {
        policy.call(ReadOnly, |_| {
            made.set(made.get() + 1);
            async { Err::<(), _>(DOWN) }
        })
    };
    drop(call());
    assert_eq!(made.get(), 0);
    let mut waiting = Box::pin(call());
    assert!(poll(&mut waiting).is_pending());
    drop(waiting);
    clock.advance(ms(10_000));
    assert_eq!(made.get(), 1);
}

#[test]
fn s30_an_open_breaker_is_retried_only_if_its_hint_fits_the_deadline() {
    let policy = |deadline| {
        let (manual, shared) = clock();
        let breaker = CircuitBreaker::builder("venue").failure_threshold(1).open_for(ms(500)).clock(shared.clone());
        let breaker = breaker.build().unwrap();
        breaker.try_acquire().unwrap().failure();
        let retry = Retry::attempts(2).backoff(fixed(ms(1)));
        let built = Policy::builder("venue").clock(shared).deadline(deadline).retry(retry).breaker(breaker).build();
        (manual, built.unwrap())
    };
    let (clock, fits) = policy(ms(501));
    assert_eq!(fails(&clock, &fits, &[]), (Ok(7), 1));
    let (clock, too_short) = policy(ms(500));
    let (result, made) = fails(&clock, &too_short, &[]);
    let error = result.unwrap_err();
    assert_eq!((made, error.attempts, error.stopped, error.outcome), (0, 1, StopReason::Deadline, Outcome::NotSent));
    assert_eq!(error.retry_after(), Some(ms(500)));
    too_short.breaker().unwrap().force_open();
    let forced = fails(&clock, &too_short, &[]).0.unwrap_err();
    assert_eq!(forced.stopped, StopReason::NotRetryable);
}

#[test]
fn s31_an_at_most_once_call_is_made_once() {
    let (_, policy) = with(|p| p.retry(Retry::attempts(9).backoff(fixed(ms(1)))));
    let made = RefCell::new(Vec::new());
    let error = now(policy.call_once(AtMostOnce, |attempt| {
        made.borrow_mut().push(attempt.number);
        async { Err::<(), _>(DOWN) }
    }))
    .unwrap_err();
    assert_eq!((made.into_inner(), error.stopped), (vec![1], StopReason::SingleAttempt));
}

#[test]
fn an_unknown_attempt_stays_unknown_unless_the_venue_shows_that_it_was_applied() {
    let (clock, policy) = with(|p| p.retry(Retry::attempts(2).backoff(fixed(ms(1)))));
    let last = |second: Oops| {
        let errors = [Oops::of(ErrorKind::Ambiguous), second];
        let error = fails(&clock, &policy, &errors).0.unwrap_err();
        (error.attempts, error.outcome, error.kind())
    };
    let rejected = Oops::of(ErrorKind::Invalid);
    assert_eq!(last(rejected), (2, Outcome::Unknown, ErrorKind::Ambiguous));
    assert_eq!(last(DOWN), (2, Outcome::Unknown, ErrorKind::Ambiguous));
    assert_eq!(last(rejected.with(Outcome::Applied)).1, Outcome::Applied);
}

#[test]
fn a_keyed_call_of_a_cautious_policy_stops_at_an_unknown_outcome() {
    let (clock, policy) = with(|p| p.retry(Retry::attempts(5).backoff(fixed(ms(1))).stop_on_unknown()));
    let made = Cell::new(0);
    let call = policy.call(Keyed("bot-1-7".to_owned()), |_| {
        made.set(made.get() + 1);
        let first = made.get() == 1;
        async move { Err::<(), _>(if first { DOWN } else { Oops::of(ErrorKind::Ambiguous) }) }
    });
    let error = drive(&clock, call).unwrap_err();
    assert_eq!((made.get(), error.stopped, error.outcome), (2, StopReason::UnknownOutcome, Outcome::Unknown));
}

#[test]
fn retry_is_selective_by_error() {
    let (clock, policy) = with(|p| p.retry(Retry::attempts(3).backoff(fixed(ms(1))).retry_on([ErrorKind::Conflict])));
    assert_eq!(fails(&clock, &policy, &[Oops::of(ErrorKind::Conflict)]), (Ok(7), 2));
    let (result, made) = fails(&clock, &policy, &[DOWN]);
    assert_eq!((result.unwrap_err().stopped, made), (StopReason::NotRetryable, 1));
}
