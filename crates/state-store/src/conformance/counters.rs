//! Counters: exact, bounded, never wrapping.

use super::{Fixture, tools::*};
use crate::{
    batch::{Applied, Delta, Ttl, When},
    error::StoreError,
    ext::StateStoreExt,
    key::Key,
    op::Op,
    store::Value,
};

const MAX: i64 = Value::COUNTER_MAX;

fn add(key: &Key, delta: Delta) -> Op {
    Op::Add { key: key.clone(), delta, ttl: Ttl::Keep }
}

/// The first addition starts from zero.
pub async fn a_missing_counter_is_zero(f: &dyn Fixture) {
    let store = f.store();
    for key in [cache("n"), record("n")] {
        assert_eq!(good(store.increment(&home(), &key, -3).await), -3);
        assert_eq!(good(store.increment(&home(), &key, 5).await), 2);
        assert_eq!(value(&*store, &key).await, Some(Value::Counter(2)));
    }
}

/// An expired counter starts from zero and has no time to live of its own.
pub async fn an_expired_counter_is_zero(f: &dyn Fixture) {
    let store = f.store();
    for key in [cache("n"), record("n")] {
        one(&*store, set(&key, Value::Counter(40), Ttl::After(SOON), When::Always)).await;
        f.advance(SOON).await;
        assert_eq!(one(&*store, add(&key, Delta::at_most(2, 2))).await, Applied::Counter(2));
        assert_eq!(get(&*store, &key).await.and_then(|e| e.expires_at), None);
    }
}

/// At its bound an addition passes, beyond it is refused with the value as it is.
pub async fn bounds_are_inclusive_and_tell_the_current_value(f: &dyn Fixture) {
    let store = f.store();
    for key in [cache("n"), record("n")] {
        assert_eq!(one(&*store, add(&key, Delta { by: 10, min: 10, max: 10 })).await, Applied::Counter(10));
        for delta in [Delta::at_most(1, 10), Delta::at_least(-1, 10), Delta { by: 0, min: 11, max: 12 }] {
            let before = get(&*store, &key).await;
            match refused(&*store, add(&key, delta)).await {
                StoreError::OutOfBounds { index: 0, key: named, current } => {
                    assert_eq!((named, current), (key.clone(), 10));
                }
                other => panic!("expected out of bounds, got {other:?}"),
            }
            assert_eq!(get(&*store, &key).await, before);
        }
    }
    let e = refused(&*store, add(&record("new"), Delta::at_most(1, 0))).await;
    assert!(matches!(e, StoreError::OutOfBounds { current: 0, .. }), "{e:?}");
    assert_eq!(get(&*store, &record("new")).await, None);
}

/// No number of the range is rounded.
pub async fn the_whole_range_is_exact(f: &dyn Fixture) {
    let store = f.store();
    for key in [cache("n"), record("n")] {
        for written in [MAX, MAX - 1, -MAX, -MAX + 1, 0] {
            one(&*store, put(&key, Value::Counter(written))).await;
            assert_eq!(number(&*store, &key).await, Some(written));
        }
        assert_eq!(good(store.increment(&home(), &key, MAX - 1).await), MAX - 1);
        assert_eq!(good(store.increment(&home(), &key, 1).await), MAX);
        assert_eq!(good(store.increment(&home(), &key, -MAX).await), 0);
        assert_eq!(good(store.increment(&home(), &key, -MAX).await), -MAX);
    }
}

/// Beyond ±(2⁵³−1) is refused and nothing changes.
pub async fn overflow_changes_nothing(f: &dyn Fixture) {
    let store = f.store();
    for key in [cache("n"), record("n")] {
        for (at, by) in [(MAX, 1), (-MAX, -1), (1, MAX), (0, MAX + 1), (MAX, i64::MAX), (-MAX, i64::MIN), (5, i64::MIN)]
        {
            one(&*store, put(&key, Value::Counter(at))).await;
            match refused(&*store, add(&key, Delta { by, min: i64::MIN, max: i64::MAX })).await {
                StoreError::Overflow { index: 0, current, .. } => assert_eq!(current, at),
                other => panic!("{at} + {by}: expected an overflow, got {other:?}"),
            }
            assert_eq!(number(&*store, &key).await, Some(at));
        }
    }
}

/// What breaks both is an overflow.
pub async fn overflow_is_judged_before_bounds(f: &dyn Fixture) {
    let store = f.store();
    one(&*store, put(&record("n"), Value::Counter(MAX))).await;
    let e = refused(&*store, add(&record("n"), Delta::at_most(1, 10))).await;
    assert!(matches!(e, StoreError::Overflow { current: MAX, .. }), "{e:?}");
}

/// Setting keeps the range too.
pub async fn a_counter_is_not_set_beyond_its_range(f: &dyn Fixture) {
    let store = f.store();
    for beyond in [MAX + 1, -MAX - 1, i64::MAX, i64::MIN] {
        let e = refused(&*store, put(&record("n"), Value::Counter(beyond))).await;
        assert!(matches!(e, StoreError::Overflow { current: 0, .. }), "{e:?}");
    }
    assert_eq!(get(&*store, &record("n")).await, None);
}

/// Bytes are not parsed as a number, even if they look like one.
pub async fn bytes_are_no_counter(f: &dyn Fixture) {
    let store = f.store();
    for key in [cache("n"), record("n")] {
        one(&*store, put(&key, "12")).await;
        let e = refused(&*store, add(&key, Delta::unbounded(1))).await;
        assert!(matches!(e, StoreError::WrongType { index: 0, .. }), "{e:?}");
        assert_eq!(value(&*store, &key).await, bytes("12"));
    }
}

/// `Keep` keeps the expiry, `After` moves it, `Never` takes it off.
pub async fn an_addition_keeps_or_moves_the_expiry(f: &dyn Fixture) {
    let store = f.store();
    for key in [cache("n"), record("n")] {
        one(&*store, set(&key, Value::Counter(1), Ttl::After(LONG), When::Always)).await;
        let first = get(&*store, &key).await.and_then(|e| e.expires_at);
        assert!(first.is_some());
        f.advance(SOON / 8).await;
        one(&*store, add(&key, Delta::unbounded(1))).await;
        assert_eq!(get(&*store, &key).await.and_then(|e| e.expires_at), first);
        one(&*store, Op::Add { key: key.clone(), delta: Delta::unbounded(1), ttl: Ttl::After(LONG) }).await;
        assert!(get(&*store, &key).await.and_then(|e| e.expires_at) > first);
        one(&*store, Op::Add { key: key.clone(), delta: Delta::unbounded(1), ttl: Ttl::Never }).await;
        assert_eq!(get(&*store, &key).await.map(|e| (e.value, e.expires_at)), Some((Value::Counter(4), None)));
    }
}

/// No addition is lost and no two get the same answer.
pub async fn concurrent_additions_lose_nothing(f: &dyn Fixture) {
    for key in [cache("n"), record("n")] {
        let counter = key.clone();
        let answers = together(f, move |_, store| {
            let key = counter.clone();
            async move {
                let mut seen = Vec::new();
                for _ in 0..20 {
                    seen.push(good(store.increment(&home(), &key, 1).await));
                }
                seen
            }
        })
        .await;
        let mut seen: Vec<i64> = answers.into_iter().flatten().collect();
        seen.sort_unstable();
        assert_eq!(seen, (1..=20 * TASKS as i64).collect::<Vec<_>>());
        assert_eq!(number(&*f.second(), &key).await, Some(20 * TASKS as i64));
    }
}

/// Of many that ask for 7 of 100, exactly 14 are admitted.
pub async fn concurrent_bounded_additions_admit_the_floor(f: &dyn Fixture) {
    let admitted = together(f, |_, store| async move {
        let mut admitted = 0;
        for _ in 0..3 {
            match try_one(&*store, add(&record("n"), Delta::at_most(7, 100))).await {
                Ok(Applied::Counter(_)) => admitted += 1,
                Err(StoreError::OutOfBounds { current: 98, .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        admitted
    })
    .await;
    assert_eq!(admitted.into_iter().sum::<u32>(), 14);
    assert_eq!(number(&*f.store(), &record("n")).await, Some(98));
}
