//! Reads, bounded adds and batches, in memory and in a SQLite file.

use std::{collections::BTreeMap, hint::black_box, sync::Arc, time::Duration};

use bytes::Bytes;
use criterion::Criterion;
use dashmap::DashMap;
use infra_backends::{SqliteConfig, Synchronous};
use infra_benches::{criterion, runtime};
use infra_state_store::{
    Batch, Delta, Key, MemoryStateStore, Op, SqliteStateStore, StateStore, StateStoreExt, Ttl, Value,
};
use infra_types::{Namespace, SystemClock};
use parking_lot::Mutex;
use rusqlite::{Connection, params};

/// Keys that are read in turn.
const HOT: usize = 1_024;
const HOUR: Duration = Duration::from_secs(3_600);
const MAX: i64 = Value::COUNTER_MAX;

fn memory() -> Arc<dyn StateStore> {
    Arc::new(MemoryStateStore::new(SystemClock::shared()))
}

fn namespace() -> Namespace {
    Namespace::new("bench").expect("a valid namespace")
}

/// 0, 7, 14, … around the hot set.
fn around() -> impl FnMut() -> usize {
    let mut at = 0;
    move || {
        at = (at + 7) % HOT;
        at
    }
}

/// Once for keys without a time to live, which is all that DashMap has, and once with one, beside moka's.
fn get_cache_key(c: &mut Criterion, ttl: Ttl, name: &str) {
    let (rt, store, ns) = (runtime(), memory(), namespace());
    let names: Vec<String> = (0..HOT).map(|i| format!("price:SYMBOL{i}")).collect();
    let keys: Vec<Key> = names.iter().map(|name| Key::cache(name).expect("a valid key")).collect();
    let value = Bytes::from(vec![7_u8; 64]);
    for key in &keys {
        rt.block_on(store.set(&ns, key, value.clone(), ttl)).expect("stored");
    }
    let mut group = c.benchmark_group(format!("state_store/{name}"));
    let mut next = around();
    group.bench_function("infra", |b| {
        b.to_async(&rt).iter(|| {
            let key = &keys[next()];
            async { store.get(&ns, key).await.expect("read").expect("there") }
        });
    });

    let map: DashMap<String, Bytes> = names.iter().map(|name| (name.clone(), value.clone())).collect();
    let mut next = around();
    group.bench_function("dashmap", |b| b.iter(|| map.get(&names[next()]).expect("there").clone()));

    let cache = moka::sync::Cache::<String, Bytes>::builder().max_capacity(100_000);
    let cache = if ttl == Ttl::Never { cache.build() } else { cache.time_to_live(HOUR).build() };
    for name in &names {
        cache.insert(name.clone(), value.clone());
    }
    let mut next = around();
    group.bench_function("moka", |b| b.iter(|| cache.get(&names[next()]).expect("there")));
    group.finish();
}

fn bounded_add(c: &mut Criterion) {
    let (rt, store, ns) = (runtime(), memory(), namespace());
    let key = Key::record("used").expect("a valid key");
    let mut group = c.benchmark_group("state_store/bounded_add");
    group.bench_function("infra", |b| {
        b.to_async(&rt).iter(|| store.apply(Batch::new(ns.clone()).add(key.clone(), Delta::at_most(1, MAX))));
    });

    let map: DashMap<String, i64> = DashMap::from_iter([("used".to_owned(), 0)]);
    group.bench_function("dashmap", |b| {
        b.iter(|| {
            let mut entry = map.get_mut("used").expect("there");
            let sum = entry.checked_add(black_box(1)).filter(|sum| *sum <= MAX).expect("below the bound");
            *entry = sum;
            sum
        });
    });
    group.finish();
}

fn batch_of_10(c: &mut Criterion) {
    let (rt, store, ns) = (runtime(), memory(), namespace());
    let names: Vec<String> = (0..10).map(|i| format!("order:{i}")).collect();
    let keys: Vec<Key> = names.iter().map(|name| Key::record(name).expect("a valid key")).collect();
    let value = Bytes::from(vec![7_u8; 64]);
    let batch =
        |keys: &[Key]| keys.iter().fold(Batch::new(ns.clone()), |batch, key| batch.set(key.clone(), value.clone()));
    let mut group = c.benchmark_group("state_store/batch_of_10");
    group.bench_function("infra", |b| b.to_async(&rt).iter(|| store.apply(batch(&keys))));
    group.bench_function("floor_one_set", |b| b.to_async(&rt).iter(|| store.apply(batch(&keys[..1]))));

    let map = Mutex::new((0_u64, BTreeMap::<String, (u64, Bytes)>::new()));
    group.bench_function("mutex_btreemap", |b| {
        b.iter(|| {
            let (version, rows) = &mut *map.lock();
            for name in &names {
                *version += 1;
                rows.insert(name.clone(), (*version, value.clone()));
            }
            *version
        });
    });
    group.finish();
}

fn bounded_add_sqlite(c: &mut Criterion, synchronous: Synchronous, level: &str) {
    // In the build directory, because a temporary directory is often no disk at all.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let (rt, ns) = (runtime(), namespace());
    let key = Key::record("used").expect("a valid key");
    let mut group = c.benchmark_group(format!("state_store/bounded_add_sqlite_{level}"));
    group.sample_size(20);

    let config = SqliteConfig::new(dir.path().join("ours.db")).with_synchronous(synchronous);
    let store: Arc<dyn StateStore> = Arc::new(SqliteStateStore::open(config, SystemClock::shared()));
    let add = Op::Add { key, delta: Delta::at_most(1, MAX), ttl: Ttl::Keep };
    group.bench_function("infra", |b| {
        b.to_async(&rt).iter(|| {
            let batch = Batch::new(ns.clone()).with(add.clone());
            async { store.apply(batch).await.expect("added") }
        });
    });
    rt.block_on(store.close()).expect("closed");

    let mut conn = bare(&dir.path().join("bare.db"), level);
    group.bench_function("rusqlite", |b| b.iter(|| bare_add(&mut conn)));
    group.finish();
}

fn bare(path: &std::path::Path, level: &str) -> Connection {
    let conn = Connection::open(path).expect("a database");
    conn.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).expect("WAL");
    conn.pragma_update(None, "synchronous", level).expect("a level");
    conn.execute_batch(
        "CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL, version INTEGER NOT NULL) WITHOUT ROWID;
         INSERT INTO counter VALUES ('used', 0, 0)",
    )
    .expect("a table");
    conn
}

fn bare_add(conn: &mut Connection) -> i64 {
    let sql = "UPDATE counter SET value = value + ?2, version = version + 1
               WHERE name = ?1 AND value + ?2 <= ?3 RETURNING value";
    let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).expect("begun");
    let sum = tx
        .prepare_cached(sql)
        .and_then(|mut add| add.query_row(params!["used", 1, MAX], |row| row.get(0)))
        .expect("below the bound");
    tx.commit().expect("committed");
    sum
}

fn main() {
    let mut c = criterion();
    get_cache_key(&mut c, Ttl::Never, "get_cache_key");
    get_cache_key(&mut c, Ttl::After(HOUR), "get_cache_key_with_ttl");
    bounded_add(&mut c);
    batch_of_10(&mut c);
    bounded_add_sqlite(&mut c, Synchronous::Normal, "normal");
    bounded_add_sqlite(&mut c, Synchronous::Full, "full");
    c.final_summary();
}
