//! Expired counts as absent, on every path.

use std::{num::NonZeroU8, time::Duration};

use super::{Fixture, tools::*};
use crate::{
    batch::{Applied, Delta, Ttl, When},
    error::StoreError,
    ext::StateStoreExt,
    op::Op,
    store::StateStore,
    window::WindowLimit,
};

const MS: Duration = Duration::from_millis(1);

/// There until the last moment before, gone when `now >= expires_at`.
pub async fn a_key_ends_at_its_moment(f: &dyn Fixture) {
    let store = f.store();
    let key = record("k");
    one(&*store, set(&key, "v", Ttl::After(SOON), When::Always)).await;
    one(&*store, set(&cache("k"), "v", Ttl::After(SOON), When::Always)).await;
    assert!(get(&*store, &key).await.is_some_and(|e| e.expires_at.is_some()));
    if f.has_exact_clock() {
        f.advance(SOON - MS).await;
        assert_eq!(value(&*store, &key).await, bytes("v"));
        assert_eq!(value(&*store, &cache("k")).await, bytes("v"));
        f.advance(MS).await;
    } else {
        f.advance(SOON).await;
    }
    assert_eq!(get(&*store, &key).await, None);
    assert_eq!(get(&*store, &cache("k")).await, None);
}

/// A set that names no time to live takes the old one off.
pub async fn an_overwrite_clears_the_time_to_live(f: &dyn Fixture) {
    let store = f.store();
    for key in [cache("k"), record("k")] {
        one(&*store, set(&key, "v", Ttl::After(SOON), When::Always)).await;
        one(&*store, put(&key, "w")).await;
        assert_eq!(get(&*store, &key).await.and_then(|e| e.expires_at), None);
        f.advance(SOON).await;
        assert_eq!(value(&*store, &key).await, bytes("w"));
    }
}

/// `Keep` leaves the end where it was; a new key then has none.
pub async fn keep_keeps_the_time_to_live(f: &dyn Fixture) {
    let store = f.store();
    for key in [cache("k"), record("k")] {
        one(&*store, set(&key, "v", Ttl::After(SOON), When::Always)).await;
        let end = get(&*store, &key).await.and_then(|e| e.expires_at);
        one(&*store, set(&key, "w", Ttl::Keep, When::Always)).await;
        assert_eq!(get(&*store, &key).await.map(|e| (e.value, e.expires_at)), bytes("w").map(|v| (v, end)));
        f.advance(SOON).await;
        assert_eq!(get(&*store, &key).await, None);
    }
    one(&*store, set(&record("new"), "v", Ttl::Keep, When::Always)).await;
    assert_eq!(get(&*store, &record("new")).await.map(|e| e.expires_at), Some(None));
}

/// A key that expired is new: its old end is not kept.
pub async fn keep_does_not_bring_an_expired_time_back(f: &dyn Fixture) {
    let store = f.store();
    for key in [cache("k"), record("k")] {
        one(&*store, set(&key, "v", Ttl::After(SOON), When::Always)).await;
        f.advance(SOON).await;
        one(&*store, set(&key, "w", Ttl::Keep, When::Always)).await;
        assert_eq!(get(&*store, &key).await.map(|e| (e.value, e.expires_at)), bytes("w").map(|v| (v, None)));
    }
}

async fn expired(f: &dyn Fixture, store: &dyn StateStore) {
    for key in [cache("k"), record("k")] {
        one(store, set(&key, "v", Ttl::After(SOON), When::Always)).await;
    }
    f.advance(SOON).await;
}

/// Reads and scans do not see it.
pub async fn expired_is_absent_in_reads(f: &dyn Fixture) {
    let store = f.store();
    expired(f, &*store).await;
    assert_eq!(good(store.get_many(&home(), &[cache("k"), record("k")]).await), [None, None]);
    assert_eq!(names(&*store, "k", 10).await, [""; 0]);
    assert!(!good(store.exists(&home(), &record("k")).await));
}

/// Conditions do not see it; set-if-absent takes its place.
pub async fn expired_is_absent_in_conditions(f: &dyn Fixture) {
    let store = f.store();
    expired(f, &*store).await;
    for key in [cache("k"), record("k")] {
        let e = refused(&*store, Op::Check { key: key.clone(), when: When::Exists }).await;
        assert!(matches!(e, StoreError::Mismatch { found: None, .. }), "{e:?}");
        let e = refused(&*store, set(&key, "w", Ttl::Never, When::Exists)).await;
        assert!(matches!(e, StoreError::Mismatch { found: None, .. }), "{e:?}");
        one(&*store, Op::Check { key: key.clone(), when: When::Absent }).await;
        one(&*store, set(&key, "w", Ttl::Never, When::Absent)).await;
        assert_eq!(value(&*store, &key).await, bytes("w"));
    }
}

/// Deleting it says that there was nothing.
pub async fn expired_is_absent_for_deletes(f: &dyn Fixture) {
    let store = f.store();
    expired(f, &*store).await;
    for key in [cache("k"), record("k")] {
        let e = refused(&*store, Op::Delete { key: key.clone(), when: When::Exists }).await;
        assert!(matches!(e, StoreError::Mismatch { found: None, .. }), "{e:?}");
        assert_eq!(one(&*store, Op::Delete { key, when: When::Always }).await, Applied::Existed(false));
    }
}

/// Cleaning up after the old value does not touch the new one.
pub async fn a_key_written_again_outlives_its_old_time(f: &dyn Fixture) {
    let store = f.store();
    for key in [cache("k"), record("k")] {
        one(&*store, set(&key, "old", Ttl::After(SOON), When::Always)).await;
        one(&*store, set(&key, "new", Ttl::After(LONG), When::Always)).await;
    }
    f.advance(SOON).await;
    for n in 0..5 {
        one(&*store, put(&record(&format!("other{n}")), "v")).await;
    }
    assert_eq!(value(&*store, &cache("k")).await, bytes("new"));
    assert_eq!(value(&*store, &record("k")).await, bytes("new"));
}

/// However many expired at once: none is seen again, what lives stays.
pub async fn a_backlog_of_expired_keys_stays_gone(f: &dyn Fixture) {
    let store = f.store();
    let mut crowd = batch();
    crowd.extend((0..350).map(|n| set(&record(&format!("k{n:03}")), "v", Ttl::After(SOON), When::Always)));
    crowd.extend((0..5).map(|n| put(&record(&format!("kept{n}")), "v")));
    good(store.apply(crowd).await);
    f.advance(SOON).await;
    for n in 0..6 {
        one(&*store, put(&record(&format!("later{n}")), "v")).await;
        assert_eq!(names(&*store, "k", 100).await.len(), 5);
    }
    assert_eq!(get(&*store, &record("k349")).await, None);
}

/// The longest duration is for ever, not for a moment.
pub async fn a_very_long_time_does_not_wrap(f: &dyn Fixture) {
    let store = f.store();
    for key in [cache("k"), record("k")] {
        one(&*store, set(&key, "v", Ttl::After(Duration::MAX), When::Always)).await;
        f.advance(SOON / 8).await;
        assert_eq!(value(&*store, &key).await, bytes("v"));
    }
    assert_eq!(fence(&*store, acquire("l", "a", Duration::MAX)).await, 1);
    assert!(matches!(refused(&*store, acquire("l", "b", SOON)).await, StoreError::LeaseHeld { .. }));
}

/// A time to live that a store cannot keep is refused, not rounded to nothing or to for ever.
pub async fn less_than_a_millisecond_is_refused(f: &dyn Fixture) {
    let store = f.store();
    for short in [Duration::ZERO, Duration::from_micros(999)] {
        let ops = [
            set(&cache("k"), "v", Ttl::After(short), When::Always),
            set(&record("k"), "v", Ttl::After(short), When::Always),
            acquire("k", "holder", short),
            mark("in", "e", Ttl::After(short)),
            push("l", "v", 5, Ttl::After(short)),
            Op::Add { key: record("n"), delta: Delta::unbounded(1), ttl: Ttl::After(short) },
        ];
        for op in ops {
            let e = refused(&*store, op).await;
            assert!(matches!(e, StoreError::Invalid { .. }), "{e:?}");
        }
    }
    one(&*store, set(&cache("k"), "v", Ttl::After(MS), When::Always)).await;
}

/// Cache key, record, lease, list, window and mark: each is there, each is gone, and `clear` finds nothing of them.
pub async fn every_kind_ends_in_its_time(f: &dyn Fixture) {
    let store = f.store();
    let limit = WindowLimit { slices: NonZeroU8::MIN.saturating_add(9), ..WindowLimit::new(5, SOON) };
    let mut all = batch();
    all.extend([
        set(&cache("k"), "v", Ttl::After(SOON), When::Always),
        set(&record("k"), "v", Ttl::After(SOON), When::Always),
        acquire("k", "me", SOON),
        push("k", "v", 5, Ttl::After(SOON)),
        mark("k", "e", Ttl::After(SOON)),
        Op::Check { key: list("k"), when: When::Exists },
        admit("k", 5, limit),
        Op::Check { key: window("k"), when: When::Exists },
    ]);
    good(store.apply(all).await);
    f.advance(SOON).await;
    f.advance(SOON / 10).await;
    let second = f.second();
    assert_eq!(good(second.get_many(&home(), &[cache("k"), record("k"), lease("k")]).await), [None, None, None]);
    assert_eq!(values(&*second, "k").await, [""; 0]);
    assert_eq!(used(&*second, "k").await, 0);
    assert_eq!(good(second.clear(&home()).await), 0);
    let mut again = batch();
    again.extend([
        acquire("k", "you", LONG),
        mark("k", "e", Ttl::Never),
        Op::Check { key: list("k"), when: When::Absent },
        Op::Check { key: window("k"), when: When::Absent },
    ]);
    good(second.apply(again).await);
}

/// A value and its time to live are one write: no reader ever meets the one without the other.
pub async fn what_is_written_never_shows_without_its_time(f: &dyn Fixture) {
    let answers = together(f, |task, store| async move {
        for n in 0..20 {
            let key = if n % 2 == 0 { record("k") } else { cache("k") };
            if task < 4 {
                one(&*store, set(&key, "v", Ttl::After(LONG), When::Always)).await;
            } else if task < 6 {
                one(&*store, remove(&key)).await;
            } else if task < 8 {
                one(&*store, Op::Add { key: cache("n"), delta: Delta::unbounded(1), ttl: Ttl::After(LONG) }).await;
            }
            let read = good(store.get_many(&home(), &[key, cache("n")]).await);
            if read.iter().flatten().any(|entry| entry.expires_at.is_none()) {
                return Err(format!("a value without its time to live: {read:?}"));
            }
        }
        Ok(())
    })
    .await;
    assert_eq!(answers, vec![Ok(()); TASKS]);
}
