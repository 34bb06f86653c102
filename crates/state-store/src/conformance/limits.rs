//! Sizes, at the exact boundary: what fits one backend fits all.

use std::{num::NonZeroU8, time::Duration};

use super::{Fixture, tools::*};
use crate::{
    batch::{Applied, Delta, OutboxPosition, Ttl, Version, When},
    changes::ChangePosition,
    error::StoreError,
    key::{Key, KeyKind},
    list::{ListOrder, ListRange},
    op::Op,
    store::{StateStore, Value},
    window::WindowLimit,
};

#[track_caller]
fn too_large(e: &StoreError, size: usize, limit: usize) {
    match e {
        StoreError::TooLarge { found, max, .. } => assert_eq!((*found, *max), (size, limit)),
        other => panic!("expected too large, got {other:?}"),
    }
}

/// The longest key can be written, read, compared and listed; beyond it no key exists.
pub async fn keys_have_1_to_512_bytes(f: &dyn Fixture) {
    let store = f.store();
    let long = format!("{}é", "k".repeat(510));
    for key in [cache(&long), record(&long), record("é"), record(" ")] {
        one(&*store, put(&key, "v")).await;
        assert_eq!(value(&*store, &key).await, bytes("v"));
    }
    one(&*store, acquire(&long, "me", LONG)).await;
    one(&*store, enqueue(&long, "e")).await;
    one(&*store, mark(&long, "e", Ttl::Never)).await;
    one(&*store, push(&long, "v", 5, Ttl::Never)).await;
    one(&*store, admit(&long, 1, hourly(5))).await;
    assert_eq!((values(&*store, &long).await, used(&*store, &long).await), (vec!["v".to_owned()], 1));
    assert_eq!(names(&*store, &long, 10).await, [long.as_str()]);
    for kind in [KeyKind::Cache, KeyKind::Record, KeyKind::Lease, KeyKind::List, KeyKind::Window] {
        for bad in ["", "a\0", "a\n", "\u{7F}", "\u{85}", &format!("{long}k")] {
            let e = Key::new(kind, bad);
            assert!(matches!(e, Err(StoreError::InvalidKey { .. })), "{bad:?}: {e:?}");
        }
    }
}

/// One byte more is refused, and the old value stays.
pub async fn a_value_has_its_exact_limit(f: &dyn Fixture) {
    let store = f.store();
    let max = store.info().limits.value_bytes_max;
    for key in [cache("k"), record("k")] {
        one(&*store, put(&key, vec![7; max])).await;
        assert_eq!(value(&*store, &key).await.and_then(|v| v.as_bytes().map(|b| b.len())), Some(max));
        too_large(&refused(&*store, put(&key, vec![8; max + 1])).await, max + 1, max);
        assert_eq!(value(&*store, &key).await.and_then(|v| v.as_bytes().map(|b| b[0])), Some(7));
    }
    let message =
        |size| Op::Enqueue { outbox: record("out"), order_key: "k".into(), id: id("e"), payload: vec![9; size].into() };
    too_large(&refused(&*store, message(max + 1)).await, max + 1, max);
    one(&*store, message(max)).await;
    assert_eq!(messages(&*store, "out").await.len(), 1);
    let pushed = |size| Op::Push { list: list("l"), value: vec![9; size].into(), cap: 5, ttl: Ttl::Never };
    too_large(&refused(&*store, pushed(max + 1)).await, max + 1, max);
    assert_eq!(one(&*store, pushed(max)).await, Applied::Length(1));
}

/// As many operations as promised, and not one more.
pub async fn a_batch_has_its_exact_count(f: &dyn Fixture) {
    let store = f.store();
    let max = store.info().limits.batch_ops_max;
    let many = |count| {
        let mut many = batch();
        many.extend((0..count).map(|_| Op::Add { key: record("n"), delta: Delta::unbounded(1), ttl: Ttl::Keep }));
        many
    };
    match store.apply(many(max + 1)).await {
        Err(e) => too_large(&e, max + 1, max),
        Ok(_) => panic!("a batch of {} operations must be refused", max + 1),
    }
    assert_eq!(get(&*store, &record("n")).await, None);
    assert_eq!(good(store.apply(many(max)).await).len(), max);
    assert_eq!(number(&*store, &record("n")).await, Some(max as i64));
}

/// All values of a batch together.
pub async fn a_batch_has_its_exact_bytes(f: &dyn Fixture) {
    let store = f.store();
    let limits = store.info().limits;
    let sized = |total: usize| {
        let (full, rest) = (total / limits.value_bytes_max, total % limits.value_bytes_max);
        let sizes = std::iter::repeat_n(limits.value_bytes_max, full).chain([rest]);
        let mut sized = batch();
        sized.extend(sizes.enumerate().map(|(n, size)| put(&record(&format!("k{n}")), vec![1; size])));
        sized
    };
    match store.apply(sized(limits.batch_bytes_max + 1)).await {
        Err(e) => too_large(&e, limits.batch_bytes_max + 1, limits.batch_bytes_max),
        Ok(_) => panic!("a batch of too many bytes must be refused"),
    }
    assert_eq!(names(&*store, "k", 100).await, [""; 0]);
    good(store.apply(sized(limits.batch_bytes_max)).await);
}

/// As many keys as promised, and not one more.
pub async fn a_read_has_its_exact_count(f: &dyn Fixture) {
    let store = f.store();
    let max = store.info().limits.get_keys_max;
    one(&*store, put(&record("k0"), "v")).await;
    let keys: Vec<Key> = (0..=max).map(|n| record(&format!("k{n}"))).collect();
    match store.get_many(&home(), &keys).await {
        Err(e) => too_large(&e, max + 1, max),
        Ok(_) => panic!("a read of {} keys must be refused", max + 1),
    }
    let found = good(store.get_many(&home(), &keys[..max]).await);
    assert_eq!((found.len(), found.iter().flatten().count()), (max, 1));
}

/// Holders and order keys: at most 512 bytes, no control characters; a holder has a name.
pub async fn texts_beside_values_keep_the_rules_of_keys(f: &dyn Fixture) {
    let store = f.store();
    let long = "x".repeat(512);
    let ordered = |key: &str| Op::Enqueue {
        outbox: record("out"),
        order_key: key.into(),
        id: id("e"),
        payload: bytes::Bytes::new(),
    };
    for bad in ["a\0", "a\n", &format!("{long}x")] {
        for op in [ordered(bad), acquire("l", bad, LONG)] {
            let e = refused(&*store, op).await;
            assert!(matches!(e, StoreError::Invalid { .. }), "{e:?}");
        }
    }
    assert!(matches!(refused(&*store, acquire("l", "", LONG)).await, StoreError::Invalid { .. }));
    one(&*store, ordered(&long)).await;
    one(&*store, acquire("l", &long, LONG)).await;
    assert_eq!(value(&*store, &lease("l")).await, bytes(&long));
}

/// Queues last: a cache key, which may be evicted, is no name for one.
pub async fn queues_are_named_by_record_keys(f: &dyn Fixture) {
    let store = f.store();
    for key in [cache("q"), lease("q")] {
        let ops = [
            Op::Enqueue { outbox: key.clone(), order_key: "k".into(), id: id("e"), payload: "v".into() },
            Op::Acknowledge { outbox: key.clone(), up_to: OutboxPosition::default() },
            Op::MarkInbox { consumer: key.clone(), id: id("e"), ttl: Ttl::Never },
        ];
        for op in ops {
            let e = refused(&*store, op).await;
            assert!(matches!(e, StoreError::Invalid { .. }), "{e:?}");
        }
        let e = store.outbox_read(&home(), &key, None, 10).await;
        assert!(matches!(e, Err(StoreError::Invalid { .. })), "{e:?}");
    }
}

/// A mistake anywhere in a batch is found before its first operation.
pub async fn crossed_bounds_are_refused(f: &dyn Fixture) {
    let store = f.store();
    let crossed = Op::Add { key: record("n"), delta: Delta { by: 1, min: 1, max: 0 }, ttl: Ttl::Keep };
    let e = store.apply(batch().check(record("missing"), When::Exists).with(crossed)).await;
    assert!(matches!(e, Err(StoreError::Invalid { .. })), "{e:?}");
}

async fn invalid(store: &dyn StateStore, op: Op) {
    let words = format!("{op:?}");
    let e = refused(store, op).await;
    assert!(matches!(e, StoreError::Invalid { .. }), "{words}: {e:?}");
}

/// Caps, amounts, slices, lengths and numbers of kept changes: the outermost that are taken, and the first that are not.
pub async fn lists_windows_and_changes_have_exact_limits(f: &dyn Fixture) {
    let store = f.store();
    for cap in [0, 10_001, u32::MAX] {
        invalid(&*store, push("l", "v", cap, Ttl::Never)).await;
    }
    for cap in [1, 10_000] {
        assert_eq!(one(&*store, push("l", "v", cap, Ttl::Never)).await, Applied::Length(cap.min(2)));
    }
    let most = Value::COUNTER_MAX;
    for by in [-1, most + 1, i64::MIN, i64::MAX] {
        invalid(&*store, admit("w", by, hourly(5))).await;
    }
    for max in [-1, most + 1, i64::MIN] {
        invalid(&*store, admit("w", 0, hourly(max))).await;
    }
    let (ms, day) = (Duration::from_millis(1), Duration::from_secs(86_400));
    let limit = |slices, length| WindowLimit { max: most, length, slices: NonZeroU8::new(slices).expect("not zero") };
    for (slices, length) in [
        (1, Duration::ZERO),
        (1, Duration::from_micros(999)),
        (60, ms * 59),
        (61, LONG),
        (255, LONG),
        (1, day * 366 + Duration::from_nanos(1)),
        (60, Duration::MAX),
    ] {
        invalid(&*store, admit("w", 1, limit(slices, length))).await;
    }
    assert_eq!(used(&*store, "w").await, 0);
    for (n, (slices, length)) in [(1, ms), (60, ms * 60), (60, day * 366), (1, day * 366)].into_iter().enumerate() {
        assert_eq!(one(&*store, admit(&format!("w{n}"), most, limit(slices, length))).await, Applied::Used(most));
    }
    for max in [100_001, u32::MAX] {
        invalid(&*store, Op::KeepChanges { max }).await;
    }
    let e = store.changes_read(&home(), None, 10).await;
    assert!(matches!(e, Err(StoreError::Invalid { .. })), "{e:?}");
    for max in [1, 100_000, 0] {
        keep_changes(&*store, max).await;
    }
}

/// What is written by one kind of operation is not written by another, on no backend.
pub async fn every_kind_of_key_has_its_operations(f: &dyn Fixture) {
    let store = f.store();
    let kinds = [cache("k"), record("k"), lease("k"), list("k"), window("k")];
    for key in &kinds {
        let kind = key.kind();
        let plain = matches!(kind, KeyKind::Cache | KeyKind::Record);
        let when = When::Version(Version(1));
        let ops = [
            (plain, put(key, "v")),
            (plain, Op::Add { key: key.clone(), delta: Delta::unbounded(0), ttl: Ttl::Keep }),
            (kind != KeyKind::Lease, remove(key)),
            (kind != KeyKind::Lease, Op::Check { key: key.clone(), when: When::Always }),
            (kind == KeyKind::Lease, Op::AcquireLease { key: key.clone(), holder: "me".into(), ttl: LONG }),
            (kind == KeyKind::Lease, Op::RenewLease { key: key.clone(), holder: "me".into(), fence: 1, ttl: LONG }),
            (kind == KeyKind::Lease, Op::CheckFence { key: key.clone(), fence: 1 }),
            (kind == KeyKind::Lease, Op::ReleaseLease { key: key.clone(), fence: 1 }),
            (kind == KeyKind::List, Op::Push { list: key.clone(), value: "v".into(), cap: 5, ttl: Ttl::Never }),
            (kind == KeyKind::Window, Op::Admit { window: key.clone(), by: 1, limit: hourly(5) }),
        ];
        for (fits, op) in ops {
            let words = format!("{op:?}");
            match try_one(&*store, op).await {
                Err(StoreError::Invalid { .. }) => assert!(!fits, "{words} must be taken"),
                // Adding to the bytes that were just set.
                Ok(_) | Err(StoreError::WrongType { .. }) => assert!(fits, "{words} must be refused"),
                Err(e) => panic!("{words}: {e:?}"),
            }
        }
        if kind != KeyKind::Record {
            for op in [Op::Check { key: key.clone(), when }, Op::Delete { key: key.clone(), when }] {
                invalid(&*store, op).await;
            }
        }
        let read = store.get(&home(), key).await;
        let readable = !matches!(kind, KeyKind::List | KeyKind::Window);
        assert_eq!(read.is_ok(), readable, "{key:?}: {read:?}");
        let range = store.list_range(&home(), key, ListRange::newest(1)).await;
        assert_eq!(range.is_ok(), kind == KeyKind::List, "{key:?}: {range:?}");
    }
}

/// 1 to 1,000, for lists and for changes.
pub async fn pages_of_lists_and_changes_have_exact_limits(f: &dyn Fixture) {
    let store = f.store();
    keep_changes(&*store, 2_000).await;
    let start = changes_end(&*store).await;
    let mut many = batch();
    many.extend((0..1_000).map(|n| push("l", &n.to_string(), 10_000, Ttl::Never)));
    good(store.apply(many).await);
    one(&*store, push("l", "last", 10_000, Ttl::Never)).await;
    for chunk in 0..2 {
        let mut many = batch();
        many.extend((0..501).map(|n| put(&record(&format!("k{chunk}-{n}")), "v")));
        good(store.apply(many).await);
    }
    for limit in [0, 1_001, usize::MAX] {
        for order in [ListOrder::NewestFirst, ListOrder::OldestFirst] {
            let e = store.list_range(&home(), &list("l"), ListRange { order, skip: 0, limit }).await;
            assert!(matches!(e, Err(StoreError::Invalid { .. })), "{e:?}");
        }
        for after in [None, Some(start), Some(ChangePosition(0))] {
            let e = store.changes_read(&home(), after, limit).await;
            assert!(matches!(e, Err(StoreError::Invalid { .. })), "{e:?}");
        }
    }
    let page = good(store.list_range(&home(), &list("l"), ListRange::newest(1_000)).await);
    assert_eq!((page.values.len(), page.length), (1_000, 1_001));
    let read = good(store.changes_read(&home(), Some(start), 1_000).await);
    assert_eq!((read.changes.len(), read.gap), (1_000, false));
    assert_eq!(told(&changes_after(&*store, read.next).await.changes), ["+k1-499", "+k1-500"]);
}

/// Not after a refusal that stands before it: whether a batch makes sense does not depend on what is stored.
pub async fn a_mistake_is_found_before_the_first_operation(f: &dyn Fixture) {
    let store = f.store();
    let mistakes = [
        push("l", "v", 0, Ttl::Never),
        push("l", "v", 5, Ttl::After(Duration::ZERO)),
        admit("w", -1, hourly(5)),
        Op::KeepChanges { max: u32::MAX },
        put(&list("l"), "v"),
        Op::Check { key: window("w"), when: When::Version(Version(1)) },
        Op::CheckFence { key: record("k"), fence: 1 },
    ];
    for mistake in mistakes {
        let doomed = batch().set(record("k"), "v").check(record("missing"), When::Exists).with(mistake.clone());
        let e = store.apply(doomed).await;
        assert!(matches!(e, Err(StoreError::Invalid { .. })), "{mistake:?}: {e:?}");
    }
    assert_eq!(get(&*store, &record("k")).await, None);
}
