//! Writing and reading single keys.

use super::{Fixture, tools::*};
use crate::{
    batch::{Applied, Ttl, When},
    error::StoreError,
    ext::StateStoreExt,
    op::Op,
    store::Value,
};

/// A key that was never written is absent, in a namespace that was never written too.
pub async fn an_absent_key_reads_as_none(f: &dyn Fixture) {
    let store = f.store();
    for key in [cache("a"), record("a"), lease("a")] {
        assert_eq!(get(&*store, &key).await, None);
    }
}

/// Every byte comes back, none at all too.
pub async fn a_value_is_read_back_byte_for_byte(f: &dyn Fixture) {
    let store = f.store();
    let every: Vec<u8> = (0..=255).chain([0, 0, 255]).collect();
    for key in [cache("k"), record("k")] {
        for written in [every.clone(), Vec::new(), b"{}".to_vec()] {
            one(&*store, put(&key, written.clone())).await;
            assert_eq!(value(&*store, &key).await, Some(Value::from(written)));
        }
    }
}

/// The last write counts, whatever was there before.
pub async fn an_overwrite_replaces_value_and_type(f: &dyn Fixture) {
    let store = f.store();
    for key in [cache("k"), record("k")] {
        one(&*store, put(&key, "text")).await;
        one(&*store, put(&key, Value::Counter(-7))).await;
        assert_eq!(value(&*store, &key).await, Some(Value::Counter(-7)));
        one(&*store, put(&key, "again")).await;
        assert_eq!(value(&*store, &key).await, bytes("again"));
    }
}

/// A cache key, a record key and a lease key may have one name.
pub async fn the_kinds_of_one_name_are_three_keys(f: &dyn Fixture) {
    let store = f.store();
    one(&*store, put(&cache("k"), "cache")).await;
    one(&*store, put(&record("k"), "record")).await;
    one(&*store, acquire("k", "holder", LONG)).await;
    assert_eq!(value(&*store, &cache("k")).await, bytes("cache"));
    assert_eq!(value(&*store, &record("k")).await, bytes("record"));
    assert_eq!(value(&*store, &lease("k")).await, bytes("holder"));
    assert!(good(store.delete(&home(), &cache("k")).await));
    assert_eq!(value(&*store, &record("k")).await, bytes("record"));
}

/// What one namespace holds, another does not.
pub async fn namespaces_do_not_mix(f: &dyn Fixture) {
    let store = f.store();
    good(store.set(&ns("a"), &record("k"), "of a", Ttl::Never).await);
    good(store.set(&ns("a.b"), &record("k"), "of a.b", Ttl::Never).await);
    assert_eq!(good(store.get(&ns("a"), &record("k")).await).map(|e| e.value), bytes("of a"));
    assert!(good(store.delete(&ns("a.b"), &record("k")).await));
    assert!(good(store.exists(&ns("a"), &record("k")).await));
    assert!(!good(store.exists(&ns("b"), &record("k")).await));
}

/// Answers stand where their keys stand; a key may be asked for twice.
pub async fn a_read_answers_in_the_order_of_its_keys(f: &dyn Fixture) {
    let store = f.store();
    one(&*store, put(&record("b"), "B")).await;
    one(&*store, put(&cache("a"), "A")).await;
    let keys = [record("b"), record("missing"), cache("a"), record("b")];
    let found = good(store.get_many(&home(), &keys).await);
    let found: Vec<_> = found.into_iter().map(|entry| entry.map(|e| e.value)).collect();
    assert_eq!(found, [bytes("B"), None, bytes("A"), bytes("B")]);
    assert_eq!(good(store.get_many(&home(), &[]).await), []);
}

/// A record's write gives the version that a read shows; a cache key has none.
pub async fn records_have_versions_and_cache_keys_have_none(f: &dyn Fixture) {
    let store = f.store();
    let version = write_record(&*store, put(&record("k"), "v")).await;
    assert_eq!(get(&*store, &record("k")).await.and_then(|e| e.version), Some(version));
    assert_eq!(one(&*store, put(&cache("k"), "v")).await, Applied::Done);
    assert_eq!(get(&*store, &cache("k")).await.map(|e| e.version), Some(None));
}

/// Deleting twice is fine.
pub async fn a_delete_says_whether_the_key_was_there(f: &dyn Fixture) {
    let store = f.store();
    for key in [cache("k"), record("k")] {
        let delete = Op::Delete { key: key.clone(), when: When::Always };
        one(&*store, put(&key, "v")).await;
        assert_eq!(one(&*store, delete.clone()).await, Applied::Existed(true));
        assert_eq!(get(&*store, &key).await, None);
        assert_eq!(one(&*store, delete).await, Applied::Existed(false));
    }
}

/// Set-if-absent writes once.
pub async fn absent_refuses_what_is_there(f: &dyn Fixture) {
    let store = f.store();
    for key in [cache("k"), record("k")] {
        assert!(good(store.set_if_absent(&home(), &key, "first", Ttl::Never).await));
        assert!(!good(store.set_if_absent(&home(), &key, "second", Ttl::Never).await));
        assert_eq!(value(&*store, &key).await, bytes("first"));
        let version = get(&*store, &key).await.and_then(|e| e.version);
        match refused(&*store, set(&key, "third", Ttl::Never, When::Absent)).await {
            StoreError::Mismatch { index: 0, key: named, found } => assert_eq!((named, found), (key, version)),
            other => panic!("expected a mismatch, got {other:?}"),
        }
    }
}

/// A condition on presence never creates.
pub async fn exists_refuses_what_is_not_there(f: &dyn Fixture) {
    let store = f.store();
    for key in [cache("k"), record("k")] {
        for op in [
            set(&key, "v", Ttl::Never, When::Exists),
            Op::Delete { key: key.clone(), when: When::Exists },
            Op::Check { key: key.clone(), when: When::Exists },
        ] {
            let e = refused(&*store, op).await;
            assert!(matches!(e, StoreError::Mismatch { found: None, .. }), "{e:?}");
        }
        assert_eq!(get(&*store, &key).await, None);
        one(&*store, put(&key, "v")).await;
        one(&*store, set(&key, "w", Ttl::Never, When::Exists)).await;
        assert_eq!(value(&*store, &key).await, bytes("w"));
    }
}

/// A check leaves value, version and expiry as they are.
pub async fn a_check_changes_nothing(f: &dyn Fixture) {
    let store = f.store();
    let key = record("k");
    one(&*store, set(&key, "v", Ttl::After(LONG), When::Always)).await;
    let before = get(&*store, &key).await;
    assert_eq!(one(&*store, Op::Check { key: key.clone(), when: When::Exists }).await, Applied::Done);
    refused(&*store, Op::Check { key: key.clone(), when: When::Absent }).await;
    assert_eq!(get(&*store, &key).await, before);
}

/// Once a write was answered, every handle reads it.
pub async fn every_handle_sees_what_was_answered(f: &dyn Fixture) {
    let (store, second) = (f.store(), f.second());
    for n in 0..50 {
        let (writer, reader) = if n % 2 == 0 { (&store, &second) } else { (&second, &store) };
        one(&**writer, put(&record("k"), Value::Counter(n))).await;
        assert_eq!(number(&**reader, &record("k")).await, Some(n));
    }
}

/// JSON sugar gives back what it took, and says when a value is of another type.
pub async fn typed_values_come_back(f: &dyn Fixture) {
    let store = f.store();
    let price = ("BTCUSDT".to_owned(), 9_007_199_254_740_993_i64, vec![true, false]);
    let version = good(store.set_json(&home(), &record("k"), &price, Ttl::Never).await);
    let read: Option<((String, i64, Vec<bool>), _)> = good(store.get_versioned(&home(), &record("k")).await);
    assert_eq!(read, Some((price, version)));
    let other = store.get_json::<u8>(&home(), &record("k")).await;
    assert!(matches!(other, Err(StoreError::WrongType { .. })), "{other:?}");
    one(&*store, put(&record("n"), Value::Counter(1))).await;
    let counter = store.get_json::<u8>(&home(), &record("n")).await;
    assert!(matches!(counter, Err(StoreError::WrongType { .. })), "{counter:?}");
    assert_eq!(good(store.get_json::<u8>(&home(), &record("missing")).await), None);
}
