//! Compare-and-swap that never creates, never revives, and never mistakes a new record for an old one.

use std::num::NonZeroU32;

use super::{Fixture, tools::*};
use crate::{
    batch::{Ttl, Version, When},
    error::StoreError,
    ext::StateStoreExt,
    key::Key,
    op::Op,
};

fn swap(key: &Key, value: &str, version: Version) -> Op {
    set(key, value.to_owned(), Ttl::Never, When::Version(version))
}

#[track_caller]
fn mismatch(e: &StoreError, found: Option<Version>) {
    match e {
        StoreError::Mismatch { found: at, .. } => assert_eq!(*at, found),
        other => panic!("expected a mismatch, got {other:?}"),
    }
}

/// Every write of a namespace gives a greater version, counters included.
pub async fn versions_grow(f: &dyn Fixture) {
    let (store, second) = (f.store(), f.second());
    let mut last = Version(0);
    for n in 0..10 {
        let writer = if n % 2 == 0 { &store } else { &second };
        let version = write_record(&**writer, put(&record(&format!("k{}", n % 3)), "v")).await;
        assert!(version > last, "{version:?} after {last:?}");
        last = version;
        good(writer.increment(&home(), &record("n"), 1).await);
        let counted = get(&**writer, &record("n")).await.and_then(|e| e.version);
        assert!(counted > Some(last), "{counted:?} after {last:?}");
        last = counted.unwrap_or(last);
    }
}

/// The version that was read must still be there.
pub async fn a_stale_version_is_refused(f: &dyn Fixture) {
    let store = f.store();
    let key = record("k");
    let first = write_record(&*store, put(&key, "1")).await;
    let second = write_record(&*store, swap(&key, "2", first)).await;
    mismatch(&refused(&*store, swap(&key, "3", first)).await, Some(second));
    mismatch(&refused(&*store, swap(&key, "3", Version(second.0 + 1))).await, Some(second));
    assert_eq!(value(&*store, &key).await, bytes("2"));
    write_record(&*store, swap(&key, "3", second)).await;
}

/// A missing record is a mismatch.
pub async fn comparing_never_creates(f: &dyn Fixture) {
    let store = f.store();
    let version = write_record(&*store, put(&record("other"), "v")).await;
    for version in [version, Version(0), Version(1), Version(u64::MAX)] {
        mismatch(&refused(&*store, swap(&record("k"), "v", version)).await, None);
    }
    assert_eq!(get(&*store, &record("k")).await, None);
}

/// An expired record is a mismatch.
pub async fn comparing_never_revives_the_expired(f: &dyn Fixture) {
    let store = f.store();
    let version = write_record(&*store, set(&record("k"), "v", Ttl::After(SOON), When::Always)).await;
    f.advance(SOON).await;
    mismatch(&refused(&*store, swap(&record("k"), "w", version)).await, None);
    let delete = Op::Delete { key: record("k"), when: When::Version(version) };
    mismatch(&refused(&*store, delete).await, None);
    assert_eq!(get(&*store, &record("k")).await, None);
}

/// Deleted and created again is another record, even with the same bytes.
pub async fn versions_never_return_after_delete(f: &dyn Fixture) {
    let store = f.store();
    let key = record("k");
    let old = write_record(&*store, put(&key, "a")).await;
    good(store.delete(&home(), &key).await);
    let new = write_record(&*store, put(&key, "a")).await;
    assert!(new > old);
    mismatch(&refused(&*store, swap(&key, "b", old)).await, Some(new));
}

/// Expired, cleaned up and created again is another record.
pub async fn versions_never_return_after_expiry(f: &dyn Fixture) {
    let store = f.store();
    let key = record("k");
    let old = write_record(&*store, set(&key, "a", Ttl::After(SOON), When::Always)).await;
    f.advance(SOON).await;
    // Gives the store occasion to remove the row.
    one(&*store, put(&cache("other"), "v")).await;
    let new = write_record(&*store, put(&key, "a")).await;
    assert!(new > old);
    mismatch(&refused(&*store, swap(&key, "b", old)).await, Some(new));
}

/// A cleared namespace does not begin anew.
pub async fn versions_never_return_after_clear(f: &dyn Fixture) {
    let store = f.store();
    let key = record("k");
    let old = write_record(&*store, put(&key, "a")).await;
    good(store.clear(&home()).await);
    let new = write_record(&*f.second(), put(&key, "a")).await;
    assert!(new > old);
    mismatch(&refused(&*store, swap(&key, "b", old)).await, Some(new));
}

/// Only the record that was read is deleted.
pub async fn a_delete_can_compare(f: &dyn Fixture) {
    let store = f.store();
    let key = record("k");
    let old = write_record(&*store, put(&key, "1")).await;
    let new = write_record(&*store, put(&key, "2")).await;
    mismatch(&refused(&*store, Op::Delete { key: key.clone(), when: When::Version(old) }).await, Some(new));
    assert_eq!(value(&*store, &key).await, bytes("2"));
    one(&*store, Op::Check { key: key.clone(), when: When::Version(new) }).await;
    one(&*store, Op::Delete { key: key.clone(), when: When::Version(new) }).await;
    assert_eq!(get(&*store, &key).await, None);
}

/// A check of one record guards the writes of others.
pub async fn one_stale_version_refuses_the_whole_batch(f: &dyn Fixture) {
    let store = f.store();
    let old = write_record(&*store, put(&record("limit"), "1")).await;
    let new = write_record(&*store, put(&record("limit"), "2")).await;
    let guarded = |version| batch().set(record("order"), "v").check(record("limit"), When::Version(version));
    match store.apply(guarded(old)).await {
        Err(e @ StoreError::Mismatch { index: 1, .. }) => mismatch(&e, Some(new)),
        other => panic!("expected a mismatch, got {other:?}"),
    }
    assert_eq!(get(&*store, &record("order")).await, None);
    good(store.apply(guarded(new)).await);
}

/// A cache key has no version to compare: that is a mistake of the caller, found before anything happens.
pub async fn cache_keys_cannot_be_compared(f: &dyn Fixture) {
    let store = f.store();
    one(&*store, put(&cache("k"), "v")).await;
    let when = When::Version(Version(1));
    let ops = [
        set(&cache("k"), "w", Ttl::Never, when),
        Op::Delete { key: cache("k"), when },
        Op::Check { key: cache("k"), when },
    ];
    for op in ops {
        let e = refused(&*store, op).await;
        assert!(matches!(e, StoreError::Invalid { .. }), "{e:?}");
    }
    assert_eq!(value(&*store, &cache("k")).await, bytes("v"));
}

/// Set-if-absent has one winner.
pub async fn one_of_many_creators_wins(f: &dyn Fixture) {
    for key in [cache("k"), record("k")] {
        let wanted = key.clone();
        let won = together(f, move |task, store| {
            let key = wanted.clone();
            async move { good(store.set_if_absent(&home(), &key, format!("{task}"), Ttl::Never).await) }
        })
        .await;
        let winners: Vec<usize> = (0..TASKS).filter(|task| won[*task]).collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(value(&*f.store(), &key).await, bytes(&winners[0].to_string()));
    }
}

/// The read-change-write loop loses no change.
pub async fn concurrent_updates_lose_nothing(f: &dyn Fixture) {
    let attempts = NonZeroU32::new(1_000).expect("not zero");
    together(f, |task, store| async move {
        for _ in 0..3 {
            let change = |list: Option<Vec<usize>>| {
                let mut list = list.unwrap_or_default();
                list.push(task);
                list
            };
            good(store.update(&home(), &record("list"), attempts, change).await);
        }
    })
    .await;
    let mut list: Vec<usize> = good(f.store().get_json(&home(), &record("list")).await).unwrap_or_default();
    list.sort_unstable();
    assert_eq!(list, (0..TASKS).flat_map(|task| [task; 3]).collect::<Vec<_>>());
    let e = f.store().update(&home(), &cache("list"), attempts, |n: Option<u8>| n.unwrap_or(1)).await;
    assert!(matches!(e, Err(StoreError::Invalid { .. })), "{e:?}");
}
