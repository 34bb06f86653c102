//! Sizes, at the exact boundary: what fits one backend fits all.

use super::{Fixture, tools::*};
use crate::{
    batch::{Delta, OutboxPosition, Ttl, When},
    error::StoreError,
    key::{Key, KeyKind},
    op::Op,
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
    assert_eq!(names(&*store, &long, 10).await, [long.as_str()]);
    for kind in [KeyKind::Cache, KeyKind::Record, KeyKind::Lease] {
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
