//! Values that carry their schema.
#![expect(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

use std::{num::NonZeroU32, sync::Arc};

use infra_state_store::{
    Batch, Key, ListRange, MemoryStateStore, Scan, StateStore, StateStoreExt, StoreError, Stored, StoredExt, Ttl, When,
    encode_stored,
};
use infra_types::{ErrorKind, ManualClock, Namespace};
use serde::{Deserialize, Serialize};

/// What a program of two years ago wrote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct OldOrder {
    id: String,
    lots: u32,
}

impl Stored for OldOrder {
    const NAME: &'static str = "order";
    const SCHEMA: u32 = 1;
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    id: String,
    units: u64,
}

impl Stored for Order {
    const NAME: &'static str = "order";
    const SCHEMA: u32 = 3;

    fn upgrade(from: u32, old: serde_json::Value) -> Option<Self> {
        let old: OldOrder = (from == 1).then(|| serde_json::from_value(old).ok()).flatten()?;
        Some(Self { id: old.id, units: u64::from(old.lots) * 100 })
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct MiddleOrder {
    id: String,
}

impl Stored for MiddleOrder {
    const NAME: &'static str = "order";
    const SCHEMA: u32 = 2;
}

/// Other fields under the same name and number: somebody forgot to count up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct ForgotOrder {
    key: String,
}

impl Stored for ForgotOrder {
    const NAME: &'static str = "order";
    const SCHEMA: u32 = 3;
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Token(String);

impl Stored for Token {
    const NAME: &'static str = "token";
    const SCHEMA: u32 = 3;
}

fn home() -> Namespace {
    Namespace::new("home").unwrap()
}

fn record(name: &str) -> Key {
    Key::record(name).unwrap()
}

fn store() -> MemoryStateStore {
    MemoryStateStore::new(Arc::new(ManualClock::default()))
}

fn order(units: u64) -> Order {
    Order { id: "o1".into(), units }
}

#[tokio::test]
async fn the_header_stands_in_front() {
    let (store, key) = (store(), record("o"));
    store.set_stored(&home(), &key, &order(5), Ttl::Never).await.unwrap();
    let bytes = store.get_bytes(&home(), &key).await.unwrap().unwrap();
    assert_eq!(bytes, "infra json order 3\n{\"id\":\"o1\",\"units\":5}");
    assert_eq!(store.get_stored(&home(), &key).await.unwrap(), Some(order(5)));
    assert_eq!(store.get_stored::<Order>(&home(), &record("none")).await.unwrap(), None);
}

#[tokio::test]
async fn an_older_schema_is_upgraded_and_a_newer_one_refused() {
    let (store, key) = (store(), record("o"));
    store.set_stored(&home(), &key, &OldOrder { id: "o1".into(), lots: 2 }, Ttl::Never).await.unwrap();
    let read = store.get_stored_entry::<Order>(&home(), &key).await.unwrap().unwrap();
    assert_eq!(read.value, order(200));
    // Reading changed nothing; writing does.
    assert!(store.get_stored::<OldOrder>(&home(), &key).await.unwrap().is_some());
    let add = |o: Option<Order>| o.map_or(order(1), |o| Order { units: o.units + 1, ..o });
    assert_eq!(store.update_stored(&home(), &key, NonZeroU32::MIN, add).await.unwrap(), order(201));
    let newer = store.get_stored::<OldOrder>(&home(), &key).await.unwrap_err();
    let StoreError::WrongCodec { key: at, found, expected } = &newer else { panic!("{newer:?}") };
    assert_eq!((at, found.as_str(), expected.as_str()), (&key, "json order 3", "json order 1"));
    assert_eq!(newer.kind(), ErrorKind::Invalid);

    // Between them is one that nobody upgrades.
    store.set_stored(&home(), &key, &MiddleOrder { id: "o1".into() }, Ttl::Never).await.unwrap();
    assert!(matches!(store.get_stored::<Order>(&home(), &key).await, Err(StoreError::WrongCodec { .. })));
}

#[tokio::test]
async fn what_is_something_else_is_refused_and_never_repeated() {
    const SECRET: &str = "hunter2";
    let (store, key) = (store(), record("o"));
    let cases = [
        encode_stored(&Token(SECRET.into())).unwrap(),
        encode_stored(&ForgotOrder { key: SECRET.into() }).unwrap(),
        format!("\"{SECRET}\"").into(),
        format!("infra json order 3\n{{\"id\":7,\"x\":\"{SECRET}\"}}").into(),
        format!("infra cbor order 3\n{SECRET}").into(),
        format!("infra json order 3 {SECRET}\n{{}}").into(),
        format!("infra json ORDER{SECRET} 3\n{{}}").into(),
        format!("infra json order -{SECRET}\n{{}}").into(),
        SECRET.into(),
        "".into(),
    ];
    for bytes in cases {
        store.set(&home(), &key, bytes.clone(), Ttl::Never).await.unwrap();
        let e = store.get_stored::<Order>(&home(), &key).await.unwrap_err();
        assert!(matches!(e, StoreError::WrongCodec { .. }), "{bytes:?}: {e:?}");
        assert!(!format!("{e} {e:?}").contains(SECRET), "{e:?}");
        let update = store.update_stored(&home(), &key, NonZeroU32::MIN, |_: Option<Order>| order(0)).await;
        assert!(matches!(update, Err(StoreError::WrongCodec { .. })));
        assert_eq!(store.get_bytes(&home(), &key).await.unwrap(), Some(bytes), "a refusal changes nothing");
    }
    let counter = record("n");
    store.increment(&home(), &counter, 1).await.unwrap();
    assert!(matches!(store.get_stored::<Order>(&home(), &counter).await, Err(StoreError::WrongType { .. })));
}

#[tokio::test]
async fn typed_values_go_into_batches_lists_scans_and_reads_of_many() {
    let store = store();
    let list = Key::list("l").unwrap();
    let mut batch = Batch::new(home());
    for n in 0..3 {
        let value = encode_stored(&order(n)).unwrap();
        batch = batch.set(record(&format!("o/{n}")), value.clone()).push(list.clone(), value, 2);
    }
    store.apply(batch).await.unwrap();

    let page = store.scan_stored::<Order>(&home(), Scan { limit: 2, ..Scan::new("o/") }).await.unwrap();
    let units: Vec<_> = page.entries.iter().map(|(key, entry)| (key.name(), entry.value.units)).collect();
    assert_eq!((units, page.next.as_deref()), (vec![("o/0", 0), ("o/1", 1)], Some("o/1")));
    let (newest, length) = store.list_stored::<Order>(&home(), &list, ListRange::newest(10)).await.unwrap();
    assert_eq!((newest, length), (vec![order(2), order(1)], 2));
    let many = store.get_many_stored::<Order>(&home(), &[record("o/2"), record("no"), record("o/0")]).await.unwrap();
    assert_eq!(many, [Some(order(2)), None, Some(order(0))]);

    let version = page.entries[0].1.version.unwrap();
    let written = store.set_stored_when(&home(), &record("o/0"), &order(9), Ttl::Never, When::Version(version)).await;
    assert!(written.unwrap().unwrap() > version);
    let stale = store.set_stored_when(&home(), &record("o/0"), &order(9), Ttl::Never, When::Version(version)).await;
    assert!(matches!(stale, Err(StoreError::Mismatch { .. })));

    store.set_stored(&home(), &record("o/1"), &Token("t".into()), Ttl::Never).await.unwrap();
    assert!(matches!(store.scan_stored::<Order>(&home(), Scan::new("o/")).await, Err(StoreError::WrongCodec { .. })));
}

/// Two writers of two program versions, many times at once: nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_typed_updates_lose_nothing() {
    let store = store();
    let tries = NonZeroU32::new(10_000).unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..25 {
                    let add = |o: Option<Order>| order(o.map_or(0, |o| o.units) + 1);
                    store.update_stored(&home(), &record("o"), tries, add).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(store.get_stored(&home(), &record("o")).await.unwrap(), Some(order(200)));
}
