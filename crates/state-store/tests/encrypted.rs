//! The suite on an encrypted store, and what encryption adds.
#![cfg(feature = "encryption")]
#![expect(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use infra_state_store::{
    Applied, Batch, ChangePosition, Changes, Delta, EncryptedStateStore, Entry, Key, KeyRing, ListPage, ListRange,
    MemoryStateStore, Op, OutboxPosition, OutboxRow, Page, Rotated, Scan, StateStore, StateStoreExt, StoreError,
    StoreInfo, Ttl, Value,
    conformance::{CASES, Case, Fixture},
};
use infra_types::{ErrorKind, EventId, Health, ManualClock, Namespace, Secret};
use parking_lot::Mutex;

const SECRET: &str = "hunter2-hunter2";

struct Encrypted(Arc<dyn StateStore>, ManualClock);

#[async_trait]
impl Fixture for Encrypted {
    fn store(&self) -> Arc<dyn StateStore> {
        Arc::new(encrypted(self.0.clone()))
    }

    fn second(&self) -> Arc<dyn StateStore> {
        Arc::new(encrypted(self.0.clone()))
    }

    async fn advance(&self, by: Duration) {
        self.1.advance(by);
    }
}

async fn fixture() -> Encrypted {
    let clock = ManualClock::default();
    Encrypted(Arc::new(MemoryStateStore::new(Arc::new(clock.clone()))), clock)
}

/// Two cases hold a store to the exact sizes of a bare backend. Sealed values need room: what takes their place is
/// `the_longest_name_of_a_key_still_leaves_the_promised_room`.
const OF_BARE_BACKENDS: [&str; 2] = ["every_handle_tells_the_same", "the_heaviest_batch_is_all_or_nothing"];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_suite_passes() {
    let (bare, cases): (Vec<&Case>, Vec<&Case>) = CASES.iter().partition(|case| OF_BARE_BACKENDS.contains(&case.name));
    assert_eq!(bare.len(), OF_BARE_BACKENDS.len(), "an exception that is none any more");
    let run = |case: Case| tokio::spawn(async move { (case.run)(&fixture().await).await });
    let runs: Vec<_> = cases.into_iter().map(|case| (case.name, run(*case))).collect();
    let mut broken = Vec::new();
    for (name, run) in runs {
        if run.await.is_err() {
            broken.push(name);
        }
    }
    assert!(broken.is_empty(), "{broken:?}");
}

fn key_of(n: u8) -> Secret<[u8; 32]> {
    Secret::new([n; 32])
}

fn ring() -> KeyRing {
    KeyRing::new("2026-01", key_of(1)).unwrap()
}

fn encrypted(inner: Arc<dyn StateStore>) -> EncryptedStateStore {
    EncryptedStateStore::new(inner, ring())
}

fn memory() -> Arc<MemoryStateStore> {
    Arc::new(MemoryStateStore::new(Arc::new(ManualClock::default())))
}

fn home() -> Namespace {
    Namespace::new("home").unwrap()
}

fn record(name: &str) -> Key {
    Key::record(name).unwrap()
}

/// Keeps everything that it is given.
#[derive(Debug)]
struct Spy(MemoryStateStore, Mutex<Vec<Batch>>);

#[async_trait]
impl StateStore for Spy {
    async fn get_many(&self, namespace: &Namespace, keys: &[Key]) -> Result<Vec<Option<Entry>>, StoreError> {
        self.0.get_many(namespace, keys).await
    }
    async fn apply(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        self.1.lock().push(batch.clone());
        self.0.apply(batch).await
    }
    async fn scan(&self, namespace: &Namespace, scan: Scan) -> Result<Page, StoreError> {
        self.0.scan(namespace, scan).await
    }
    async fn list_range(&self, namespace: &Namespace, list: &Key, range: ListRange) -> Result<ListPage, StoreError> {
        self.0.list_range(namespace, list, range).await
    }
    async fn changes_read(
        &self,
        namespace: &Namespace,
        after: Option<ChangePosition>,
        limit: usize,
    ) -> Result<Changes, StoreError> {
        self.0.changes_read(namespace, after, limit).await
    }
    async fn outbox_read(
        &self,
        namespace: &Namespace,
        outbox: &Key,
        after: Option<OutboxPosition>,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        self.0.outbox_read(namespace, outbox, after, limit).await
    }
    async fn clear(&self, namespace: &Namespace) -> Result<u64, StoreError> {
        self.0.clear(namespace).await
    }
    async fn health(&self) -> Health {
        self.0.health().await
    }
    fn info(&self) -> StoreInfo {
        self.0.info()
    }
    async fn close(&self) -> Result<(), StoreError> {
        self.0.close().await
    }
}

fn message(id: &str, payload: &str) -> Op {
    let (id, payload) = (EventId::new(id).unwrap(), payload.to_owned().into());
    Op::Enqueue { outbox: record("out"), order_key: "k".into(), id, payload }
}

fn every_place(value: &str) -> Batch {
    Batch::new(home())
        .set(record("r"), value.to_owned())
        .set(Key::cache("c").unwrap(), value.to_owned())
        .push(Key::list("l").unwrap(), value.to_owned(), 5)
        .with(message("e", value))
}

#[tokio::test]
async fn no_value_reaches_the_inner_store_as_it_is() {
    let spy = Arc::new(Spy(MemoryStateStore::new(Arc::new(ManualClock::default())), Mutex::default()));
    let store = encrypted(spy.clone());
    store.apply(every_place(SECRET)).await.unwrap();
    store.apply(every_place(SECRET)).await.unwrap();
    store.set_json(&home(), &record("j"), &SECRET, Ttl::Never).await.unwrap();
    store.once(&record("bot"), &EventId::new("m").unwrap(), Ttl::Never, every_place(SECRET)).await.unwrap();
    store.rotate(&home(), "r").await.unwrap();

    let batches = spy.1.lock().clone();
    assert_eq!(batches.len(), 4);
    let mut seen = Vec::new();
    for op in batches.iter().flat_map(|batch| &batch.ops) {
        assert!(!format!("{op:?}").contains("hunter2"), "{op:?}");
        match op {
            Op::Set { value: Value::Bytes(bytes), .. } => seen.push(bytes.clone()),
            Op::Push { value, .. } => seen.push(value.clone()),
            Op::Enqueue { payload, .. } => seen.push(payload.clone()),
            _ => {}
        }
    }
    // One value, thirteen times: no two look alike, and no random number comes twice.
    assert_eq!(seen.len(), 13);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 13);

    // And it is all read back.
    let many = store.get_many(&home(), &[record("r"), Key::cache("c").unwrap()]).await.unwrap();
    for entry in many {
        assert_eq!(entry.unwrap().value, Value::from(SECRET));
    }
    assert_eq!(store.list_latest(&home(), &Key::list("l").unwrap(), 9).await.unwrap().values, [SECRET; 3]);
    let rows = store.outbox_read(&home(), &record("out"), None, 9).await.unwrap();
    assert!(rows.len() == 3 && rows.iter().all(|row| row.payload == SECRET));
    assert_eq!(store.scan(&home(), Scan::new("r")).await.unwrap().entries[0].1.value, Value::from(SECRET));
}

async fn stored(inner: &dyn StateStore, key: &Key) -> bytes::Bytes {
    inner.get_bytes(&home(), key).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_value_opens_only_where_it_was_put() {
    let inner = memory();
    let store = encrypted(inner.clone());
    store.apply(every_place(SECRET)).await.unwrap();
    let value = stored(&*inner, &record("r")).await;
    let other = Namespace::new("homes").unwrap();
    let (cache, list) = (Key::cache("r").unwrap(), Key::list("r").unwrap());
    inner.set(&home(), &record("moved"), value.clone(), Ttl::Never).await.unwrap();
    inner.set(&home(), &cache, value.clone(), Ttl::Never).await.unwrap();
    inner.set(&other, &record("r"), value.clone(), Ttl::Never).await.unwrap();
    inner.push(&home(), &list, value.clone(), 1, Ttl::Never).await.unwrap();
    let sealed = inner.outbox_read(&home(), &record("out"), None, 1).await.unwrap().remove(0).payload;
    for (outbox, id) in [("forged", "e"), ("again", "e2")] {
        let (outbox, id) = (record(outbox), EventId::new(id).unwrap());
        let forged = Op::Enqueue { outbox, order_key: "k".into(), id, payload: sealed.clone() };
        inner.apply_one(&home(), forged).await.unwrap();
    }
    // The same outbox, the same payload, another message.
    let id = EventId::new("e2").unwrap();
    let forged = Op::Enqueue { outbox: record("out"), order_key: "k".into(), id, payload: sealed };
    inner.apply_one(&home(), forged).await.unwrap();

    let answers = [
        store.get(&home(), &record("moved")).await.err(),
        store.get_many(&home(), &[cache]).await.err(),
        store.get(&other, &record("r")).await.err(),
        store.scan(&home(), Scan::new("moved")).await.err(),
        store.list_latest(&home(), &list, 1).await.err(),
        store.outbox_read(&home(), &record("forged"), None, 1).await.err(),
        store.outbox_read(&home(), &record("again"), None, 1).await.err(),
        store.outbox_read(&home(), &record("out"), None, 2).await.err(),
    ];
    for answer in answers {
        let e = answer.unwrap();
        assert!(matches!(e, StoreError::Corrupt { .. }), "{e:?}");
        assert!(e.to_string().contains("2026-01"), "{e}");
    }
    assert_eq!(store.get_bytes(&home(), &record("r")).await.unwrap().unwrap(), SECRET);
    assert_eq!(store.outbox_read(&home(), &record("out"), None, 1).await.unwrap()[0].payload, SECRET);
}

#[tokio::test]
async fn no_changed_byte_goes_unnoticed() {
    let inner = memory();
    let store = encrypted(inner.clone());
    store.set(&home(), &record("r"), SECRET, Ttl::Never).await.unwrap();
    let value = stored(&*inner, &record("r")).await;
    for at in 0..value.len() {
        let mut changed = value.to_vec();
        changed[at] ^= 1;
        inner.set(&home(), &record("r"), changed, Ttl::Never).await.unwrap();
        let e = store.get(&home(), &record("r")).await.unwrap_err();
        assert!(matches!(e, StoreError::Corrupt { .. } | StoreError::WrongCodec { .. }), "byte {at}: {e:?}");
        assert!(!format!("{e} {e:?}").contains("hunter2"));
    }
    for length in 0..value.len() {
        inner.set(&home(), &record("r"), value.slice(..length), Ttl::Never).await.unwrap();
        assert!(store.get(&home(), &record("r")).await.is_err(), "cut to {length}");
    }
}

#[tokio::test]
async fn a_missing_key_is_named_and_a_wrong_one_is_found_out() {
    let inner = memory();
    encrypted(inner.clone()).set(&home(), &record("r"), SECRET, Ttl::Never).await.unwrap();
    let without = EncryptedStateStore::new(inner.clone(), KeyRing::new("2027-01", key_of(2)).unwrap());
    let e = without.get(&home(), &record("r")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Invalid);
    let StoreError::WrongCodec { found, expected, .. } = &e else { panic!("{e:?}") };
    assert!(found.contains("2026-01") && expected.contains("2027-01"), "{e}");
    let wrong = EncryptedStateStore::new(inner, KeyRing::new("2026-01", key_of(2)).unwrap());
    assert!(matches!(wrong.get(&home(), &record("r")).await, Err(StoreError::Corrupt { .. })));
}

#[tokio::test]
async fn plain_values_are_refused_unless_a_migration_reads_them() {
    let inner = memory();
    inner.apply(every_place(SECRET).add(record("n"), Delta::unbounded(3))).await.unwrap();
    let store = encrypted(inner.clone());
    let (list, out) = (Key::list("l").unwrap(), record("out"));
    let answers = [
        store.get(&home(), &record("r")).await.err(),
        store.list_latest(&home(), &list, 1).await.err(),
        store.outbox_read(&home(), &out, None, 1).await.err(),
    ];
    for answer in answers {
        let e = answer.unwrap();
        assert!(matches!(e, StoreError::WrongCodec { .. }), "{e:?}");
        assert!(!format!("{e} {e:?}").contains("hunter2"));
    }
    assert_eq!(store.get_counter(&home(), &record("n")).await.unwrap(), 3, "counters are never encrypted");

    let store = store.accept_plain(true);
    assert_eq!(store.get_bytes(&home(), &record("r")).await.unwrap().unwrap(), SECRET);
    assert_eq!(store.list_latest(&home(), &list, 1).await.unwrap().values, [SECRET]);
    assert_eq!(store.outbox_read(&home(), &out, None, 1).await.unwrap()[0].payload, SECRET);
    let rotated = store.rotate(&home(), "r").await.unwrap();
    assert_eq!(rotated, Rotated { seen: 1, rewritten: 1, ..Rotated::default() });
    assert_eq!(encrypted(inner).get_bytes(&home(), &record("r")).await.unwrap().unwrap(), SECRET);
}

#[tokio::test]
async fn rotation_moves_every_record_and_keeps_its_time() {
    let clock = ManualClock::default();
    let inner = Arc::new(MemoryStateStore::new(Arc::new(clock.clone())));
    let before = encrypted(inner.clone());
    for n in 0..100 {
        let ttl = if n % 2 == 0 { Ttl::Never } else { Ttl::After(Duration::from_secs(60)) };
        before.set(&home(), &record(&format!("k{n:03}")), format!("v{n}"), ttl).await.unwrap();
    }
    before.increment(&home(), &record("k-count"), 5).await.unwrap();

    let both = KeyRing::new("2026-02", key_of(2)).unwrap().with_older("2026-01", key_of(1)).unwrap();
    let store = EncryptedStateStore::new(inner.clone(), both);
    store.set(&home(), &record("k000"), "new", Ttl::Never).await.unwrap();
    assert_eq!(store.get_bytes(&home(), &record("k042")).await.unwrap().unwrap(), "v42", "older keys still read");
    let rotated = store.rotate(&home(), "k").await.unwrap();
    assert_eq!(rotated, Rotated { seen: 101, rewritten: 99, ..Rotated::default() });
    let again = store.rotate(&home(), "k").await.unwrap();
    assert_eq!(again, Rotated { seen: 101, ..Rotated::default() });

    let after = EncryptedStateStore::new(inner, KeyRing::new("2026-02", key_of(2)).unwrap());
    assert_eq!(after.get_bytes(&home(), &record("k042")).await.unwrap().unwrap(), "v42");
    assert_eq!(after.get_bytes(&home(), &record("k000")).await.unwrap().unwrap(), "new");
    assert!(before.get(&home(), &record("k042")).await.is_err(), "the older key is no longer of use");
    clock.advance(Duration::from_secs(60));
    assert_eq!(after.scan(&home(), Scan { limit: 1_000, ..Scan::new("k0") }).await.unwrap().entries.len(), 50);
}

#[tokio::test]
async fn rotation_counts_what_is_too_large_and_goes_on() {
    let inner = memory();
    let max = inner.info().limits.value_bytes_max;
    // More than one page, so that it must also come past the end of the first.
    for n in 0..40 {
        inner.set(&home(), &record(&format!("k{n:02}")), SECRET, Ttl::Never).await.unwrap();
    }
    for name in ["k05", "k39"] {
        inner.set(&home(), &record(name), vec![7; max], Ttl::Never).await.unwrap();
    }
    let store = encrypted(inner.clone()).accept_plain(true);
    let longest = store.info().limits.value_bytes_max;
    inner.set(&home(), &record("k10"), vec![7; longest], Ttl::Never).await.unwrap();

    let rotated = store.rotate(&home(), "k").await.unwrap();
    let too_large = Rotated { seen: 40, too_large: 2, first_too_large: Some(record("k05")), ..Rotated::default() };
    assert_eq!(rotated, Rotated { rewritten: 38, ..too_large.clone() });
    assert_eq!(store.rotate(&home(), "k").await.unwrap(), too_large, "they stay as they are");
    assert_eq!(store.get_bytes(&home(), &record("k05")).await.unwrap().unwrap().len(), max);
    assert_eq!(encrypted(inner).get_bytes(&home(), &record("k10")).await.unwrap().unwrap().len(), longest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rotation_beside_writers_loses_no_write() {
    let inner = memory();
    let old = Arc::new(encrypted(inner.clone()));
    for n in 0..64 {
        old.set_json(&home(), &record(&format!("k{n}")), &0_u64, Ttl::Never).await.unwrap();
    }
    let ring = || KeyRing::new("2026-02", key_of(2)).unwrap().with_older("2026-01", key_of(1)).unwrap();
    let store = Arc::new(EncryptedStateStore::new(inner.clone(), ring()));
    let tries = std::num::NonZeroU32::new(1_000).unwrap();
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..64 {
                    let key = record(&format!("k{n}"));
                    store.update(&home(), &key, tries, |n: Option<u64>| n.unwrap_or(0) + 1).await.unwrap();
                }
            })
        })
        .collect();
    let rotated = store.rotate(&home(), "k").await.unwrap();
    assert_eq!(rotated.seen, 64);
    for writer in writers {
        writer.await.unwrap();
    }
    let after = EncryptedStateStore::new(inner, KeyRing::new("2026-02", key_of(2)).unwrap());
    for n in 0..64 {
        assert_eq!(after.get_json::<u64>(&home(), &record(&format!("k{n}"))).await.unwrap(), Some(4));
    }
}

#[test]
fn names_of_keys_keep_their_rule_and_nothing_prints_a_key() {
    for bad in ["", "A", "a b", "a\"b", &"x".repeat(33)] {
        assert!(matches!(KeyRing::new(bad, key_of(1)), Err(StoreError::Invalid { .. })), "{bad:?}");
    }
    assert!(ring().with_older("2026-01", key_of(2)).is_err(), "one name, one key");
    let ring = KeyRing::new(&"x".repeat(32), Secret::new([0xAB; 32])).unwrap().with_older("old", key_of(1)).unwrap();
    assert_eq!((ring.active().len(), ring.ids().nth(1)), (32, Some("old")));
    let text = format!("{:?}", EncryptedStateStore::new(memory(), ring));
    assert!(!text.contains("171") && !text.to_lowercase().contains("ab, ab"), "{text}");
    assert!(text.contains("old"), "{text}");
}

#[tokio::test]
async fn the_longest_name_of_a_key_still_leaves_the_promised_room() {
    let inner = memory();
    let store = EncryptedStateStore::new(inner.clone(), KeyRing::new(&"x".repeat(32), key_of(1)).unwrap());
    let (mine, its) = (store.info().limits, inner.info().limits);
    assert_eq!(its.value_bytes_max - mine.value_bytes_max, 78);
    assert_eq!(its.batch_bytes_max - mine.batch_bytes_max, 78 * its.batch_ops_max);
    assert_eq!((mine.batch_ops_max, mine.get_keys_max), (its.batch_ops_max, its.get_keys_max));
    assert_eq!(store.info(), encrypted(inner.clone()).info(), "whatever the name");
    store.set(&home(), &record("r"), vec![7; mine.value_bytes_max], Ttl::Never).await.unwrap();
    assert_eq!(stored(&*inner, &record("r")).await.len(), its.value_bytes_max);
    let e = store.set(&home(), &record("r"), vec![7; mine.value_bytes_max + 1], Ttl::Never).await.unwrap_err();
    assert!(matches!(e, StoreError::TooLarge { max, .. } if max == mine.value_bytes_max), "{e:?}");
    // A full batch of small values grows most.
    let mut batch = Batch::new(home());
    let each = mine.batch_bytes_max / mine.batch_ops_max;
    batch.extend((0..mine.batch_ops_max).map(|n| message(&format!("e{n}"), &"v".repeat(each))));
    store.apply(batch).await.unwrap();
}
