//! The layers together: their order, time limits, unknown outcomes, presets.

mod common;

use std::{cell::Cell, future::pending, sync::Arc, time::Duration};

use common::{DOWN, Oops, clock, drive, drive_by, ms, now};
use infra_resilience::{
    Abandoned, BreakerState, CallError, CircuitBreaker, Idempotent, Outcome, Policy, PolicyBuilder, ReadOnly, Retry,
    StopReason, Submission, presets, with_timeout,
};
use infra_types::{Backoff, Clock, ErrorKind, Jitter, ManualClock, OrderId};

fn with(change: impl FnOnce(PolicyBuilder) -> PolicyBuilder) -> (ManualClock, Policy) {
    let (manual, shared) = clock();
    (manual, change(Policy::builder("venue").clock(shared)).build().expect("valid settings"))
}

fn retry(attempts: u32, delay: Duration) -> Retry {
    Retry::attempts(attempts).backoff(Backoff::new(delay, delay, 1, Jitter::None).expect("valid delays"))
}

async fn hangs() -> Result<(), Oops> {
    pending().await
}

async fn takes(clock: &dyn Clock, time: Duration) -> Result<u32, Oops> {
    clock.sleep(time).await;
    Ok(7)
}

#[test]
fn an_attempt_ends_at_its_timeout_by_the_injected_clock() {
    let clock = ManualClock::default();
    let start = clock.now();
    let ended = drive(&clock, with_timeout(&clock, ms(250), hangs()));
    assert_eq!((ended, clock.now().since(start)), (Err(CallError::Timeout { after: ms(250) }), ms(250)));
    assert_eq!(drive(&clock, with_timeout(&clock, ms(250), takes(&clock, ms(249)))), Ok(7));
    assert_eq!(drive(&clock, with_timeout(&clock, ms(250), takes(&clock, ms(250)))), Ok(7), "a ready result wins");
}

#[test]
fn s12_a_timeout_inside_is_a_failure_and_the_callers_cancellation_is_not() {
    let breaker = CircuitBreaker::builder("venue").failure_threshold(1);
    let (clock, policy) = with(|p| p.own_breaker(breaker).attempt_timeout(ms(100)).deadline(ms(150)));
    let mut call = Box::pin(policy.call(ReadOnly, |_| hangs()));
    assert!(common::poll(&mut call).is_pending());
    drop(call);
    assert_eq!(policy.breaker().unwrap().state(), BreakerState::Closed);
    let error = drive(&clock, policy.call(ReadOnly, |_| hangs())).unwrap_err();
    assert_eq!((error.error.clone(), error.kind()), (CallError::Timeout { after: ms(100) }, ErrorKind::Ambiguous));
    assert_eq!(policy.breaker().unwrap().state(), BreakerState::Open);
}

#[test]
fn the_callers_deadline_is_not_the_callees_failure() {
    let breaker = |policy| CircuitBreaker::builder("venue").failure_threshold(1).abandoned(policy);
    for (policy, state) in [(Abandoned::Ignore, BreakerState::Closed), (Abandoned::AsFailure, BreakerState::Open)] {
        let (clock, policy) = with(|p| p.own_breaker(breaker(policy)).deadline(ms(80)));
        let error = drive(&clock, policy.call(ReadOnly, |_| hangs())).unwrap_err();
        assert_eq!(error.error, CallError::DeadlineExceeded { after: ms(80) });
        assert_eq!((error.outcome, policy.breaker().unwrap().state()), (Outcome::Unknown, state));
    }
}

#[test]
fn an_attempt_that_had_all_its_time_is_the_callees_failure_even_at_the_deadline() {
    let breaker = CircuitBreaker::builder("venue").failure_threshold(1);
    let (clock, policy) = with(|p| p.own_breaker(breaker).attempt_timeout(ms(80)).deadline(ms(80)));
    let error = drive(&clock, policy.call(ReadOnly, |_| hangs())).unwrap_err();
    assert_eq!(error.error, CallError::Timeout { after: ms(80) });
    assert_eq!(policy.breaker().unwrap().state(), BreakerState::Open);
}

#[test]
fn every_attempt_passes_the_breaker_and_has_a_timeout_of_its_own() {
    let breaker = CircuitBreaker::builder("venue").failure_threshold(2);
    let (clock, policy) =
        with(|p| p.own_breaker(breaker).attempt_timeout(ms(100)).deadline(ms(10_000)).retry(retry(5, ms(50))));
    let start = clock.now();
    let polled = Cell::new(0);
    let error = drive(
        &clock,
        policy.call(Idempotent, |attempt| {
            polled.set(attempt.number);
            hangs()
        }),
    )
    .unwrap_err();
    // Two timeouts open the breaker for 30 s; its hint does not fit the deadline.
    assert!(matches!(&error.error, CallError::BreakerOpen { name, .. } if &**name == "venue"));
    assert_eq!((polled.get(), error.attempts, error.stopped), (2, 3, StopReason::Deadline));
    assert_eq!(clock.now().since(start), ms(300));
    assert_eq!(error.outcome, Outcome::Unknown, "the refused third attempt says nothing about the first two");
}

#[test]
fn an_attempt_knows_when_it_will_be_dropped() {
    let (clock, policy) = with(|p| p.attempt_timeout(ms(100)).deadline(ms(130)).retry(retry(2, ms(60))));
    let start = clock.now();
    let ends = std::cell::RefCell::new(Vec::new());
    let _ = drive(
        &clock,
        policy.call(ReadOnly, |attempt| {
            ends.borrow_mut().push(attempt.give_up_at.unwrap().since(start));
            async { Err::<(), _>(DOWN) }
        }),
    );
    assert_eq!(ends.into_inner(), [ms(100), ms(130)], "the deadline is nearer the second time");
}

#[test]
fn a_lost_answer_leaves_an_order_unknown_until_the_venue_shows_it() {
    let (manual, shared) = clock();
    let orders = presets::order_entry("venue.orders").clock(shared).build().unwrap();
    let id: OrderId = "bot-1-000001".parse().unwrap();
    let sent = Cell::new(0);
    let lost = || {
        drive(
            &manual,
            orders.submit(&id, |_| {
                sent.set(sent.get() + 1);
                async { pending::<Result<&str, Oops>>().await }
            }),
        )
    };
    let unknown = lost();
    assert_eq!((sent.get(), unknown.outcome()), (1, Outcome::Unknown));
    // Not there yet, or the query failed: it may still arrive.
    let unknown = now(unknown.reconcile(|_| async { Ok::<_, Oops>(None) }));
    let unknown = now(unknown.reconcile(|_| async { Err::<Option<&str>, _>(DOWN) }));
    assert!(unknown.outcome().may_be_live());
    let asked = Cell::new(None);
    let found = now(unknown.reconcile(|id| {
        asked.set(Some(id));
        async { Ok::<_, Oops>(Some("filled")) }
    }));
    assert!(matches!(found, Submission::Applied("filled")));
    assert_eq!(asked.into_inner(), Some(id));
}

#[test]
fn submissions_tell_apart_what_was_not_sent_and_what_was_refused() {
    let (_, shared) = clock();
    let orders = presets::order_entry("venue.orders").clock(shared).build().unwrap();
    let id: OrderId = "bot-1-000002".parse().unwrap();
    let submit = |error: Oops| now(orders.submit(&id, |_| async move { Err::<(), _>(error) })).outcome();
    assert_eq!(submit(DOWN), Outcome::NotSent);
    assert_eq!(submit(Oops::of(ErrorKind::Invalid)), Outcome::Rejected);
    assert_eq!(submit(Oops::of(ErrorKind::Ambiguous)), Outcome::Unknown);
    // "Duplicate id": the order is there, the query will show it.
    assert_eq!(submit(Oops::of(ErrorKind::Conflict).with(Outcome::Applied)), Outcome::Unknown);
    orders.breaker().unwrap().force_open();
    let refused = now(orders.submit(&id, |_| async { Ok::<_, Oops>(()) }));
    assert!(matches!(refused, Submission::NotSent(CallError::BreakerOpen { retry_after: None, .. })));
}

#[test]
fn every_preset_builds_and_keeps_its_table() {
    type Preset = fn(&str) -> PolicyBuilder;
    let table: [(Preset, u32, bool); 5] = [
        (presets::market_data, 3, true),
        (presets::account_read, 3, true),
        (presets::order_entry, 2, true),
        (presets::order_cancel, 5, false),
        (presets::database, 3, true),
    ];
    for (preset, attempts, has_breaker) in table {
        let (manual, shared) = clock();
        let policy = preset("venue").clock(shared).random(Arc::new(|| u64::MAX)).build().unwrap();
        assert_eq!(policy.breaker().is_some(), has_breaker);
        let error = drive(&manual, policy.call(Idempotent, |_| async { Err::<(), _>(DOWN) })).unwrap_err();
        assert_eq!((error.attempts, error.stopped), (attempts, StopReason::AttemptsExhausted), "{policy:?}");
    }
}

#[test]
fn a_websocket_comes_back_after_a_long_outage() {
    let (manual, shared) = clock();
    let policy =
        presets::websocket_reconnect("venue.stream").clock(shared).random(Arc::new(|| u64::MAX)).build().unwrap();
    let start = manual.now();
    let tries = Cell::new(0);
    let connect = policy.call(ReadOnly, |attempt| {
        tries.set(attempt.number);
        async move { if attempt.number < 20 { Err(DOWN) } else { Ok("connected") } }
    });
    assert_eq!(drive_by(ms(50), &manual, connect), Ok("connected"));
    let took = manual.now().since(start);
    // 0.25 + 0.5 + ... + 16 s, then 12 times 30 s.
    assert!(took > Duration::from_secs(385) && took < Duration::from_secs(395), "{took:?}");
}

#[test]
fn mistakes_of_every_layer_are_reported_together() {
    let refused = Policy::builder("venue")
        .deadline(ms(10))
        .attempt_timeout(ms(20))
        .retry(Retry::attempts(0))
        .own_breaker(CircuitBreaker::builder("venue").failure_threshold(0))
        .build()
        .unwrap_err();
    let about: Vec<_> = refused.problems.iter().map(|p| p.what).collect();
    assert_eq!(about, ["attempt timeout", "max attempts", "failure threshold"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_can_be_shared_and_spawned() {
    let policy = presets::account_read("venue").build().unwrap();
    let tasks: Vec<_> = (0..20_u32)
        .map(|n| {
            let policy = policy.clone();
            tokio::spawn(async move { policy.call(ReadOnly, |_| async move { Ok::<_, Oops>(n) }).await })
        })
        .collect();
    for (n, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.await.unwrap(), Ok(n as u32));
    }
}
