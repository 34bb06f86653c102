//! The suite on a metered store, and what it counts.
#![expect(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

use std::{sync::Arc, time::Duration};

use infra_state_store::{
    Batch, Delta, Key, ListRange, MemoryStateStore, MeteredStateStore, Scan, StateStore, StateStoreExt, Ttl, When,
    chaos::{ChaosStateStore, Fault},
    conformance::Fixture,
    state_store_conformance,
};
use infra_types::{ManualClock, Namespace};

struct Metered(Arc<MeteredStateStore>, Arc<MeteredStateStore>, ManualClock);

#[async_trait::async_trait]
impl Fixture for Metered {
    fn store(&self) -> Arc<dyn StateStore> {
        self.0.clone()
    }

    fn second(&self) -> Arc<dyn StateStore> {
        self.1.clone()
    }

    async fn advance(&self, by: Duration) {
        self.2.advance(by);
    }
}

async fn fixture() -> Metered {
    let clock = ManualClock::default();
    let memory = Arc::new(MemoryStateStore::new(Arc::new(clock.clone())));
    let metered = || Arc::new(MeteredStateStore::new(memory.clone(), Arc::new(clock.clone())));
    Metered(metered(), metered(), clock)
}

state_store_conformance!(fixture());

fn home() -> Namespace {
    Namespace::new("home").unwrap()
}

fn record(name: &str) -> Key {
    Key::record(name).unwrap()
}

#[tokio::test]
async fn calls_operations_bytes_and_errors_are_counted() {
    let fixture = fixture().await;
    let store = fixture.0;
    assert_eq!(store.statistics().call("get").calls, 0);
    let list = Key::list("l").unwrap();
    store.apply(Batch::new(home()).set(record("a"), "12345").push(list.clone(), "678", 9)).await.unwrap();
    store.apply(Batch::new(home()).add(record("n"), Delta::unbounded(1))).await.unwrap();
    store.apply(Batch::new(home()).check(record("a"), When::Absent)).await.unwrap_err();
    store.get(&home(), &record("a")).await.unwrap();
    store.get_many(&home(), &[record("a"), record("n"), record("none")]).await.unwrap();
    store.scan(&home(), Scan::new("a")).await.unwrap();
    store.scan(&home(), Scan::new("")).await.unwrap_err();
    store.list_range(&home(), &list, ListRange::newest(5)).await.unwrap();
    store.changes_read(&home(), None, 5).await.unwrap_err();
    store.outbox_read(&home(), &record("out"), None, 5).await.unwrap();
    store.health().await;
    store.clear(&home()).await.unwrap();

    let told = store.statistics();
    assert_eq!((told.backend, told.bytes_written, told.bytes_read, told.errors()), ("memory", 8, 18, 3));
    let calls: Vec<_> = told.calls.iter().map(|(name, call)| (*name, call.calls)).collect();
    assert_eq!(
        calls,
        [
            ("apply", 3),
            ("changes_read", 1),
            ("clear", 1),
            ("get", 1),
            ("get_many", 1),
            ("health", 1),
            ("list_range", 1),
            ("outbox_read", 1),
            ("scan", 2)
        ]
    );
    assert_eq!(told.ops.into_iter().collect::<Vec<_>>(), [("add", 1), ("check", 1), ("push", 1), ("set", 1)]);
    assert_eq!(told.calls["apply"].errors.clone().into_iter().collect::<Vec<_>>(), [("conflict", 1)]);
    assert_eq!(told.calls["scan"].errors.clone().into_iter().collect::<Vec<_>>(), [("invalid", 1)]);
}

#[tokio::test]
async fn latencies_are_those_of_the_given_clock() {
    let clock = ManualClock::default();
    let shared = Arc::new(clock.clone());
    let chaos = Arc::new(ChaosStateStore::new(Arc::new(MemoryStateStore::new(shared.clone())), shared.clone()));
    let store = Arc::new(MeteredStateStore::new(chaos.clone(), shared));
    for n in 1..=100 {
        chaos.script([Fault::Delay(Duration::from_micros(n))]);
        let writer = store.clone();
        let task = tokio::spawn(async move { writer.set(&home(), &record("k"), "v", Ttl::Never).await });
        while chaos.counts().delays < n {
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
        clock.advance(Duration::from_micros(n));
        task.await.unwrap().unwrap();
    }
    let apply = store.statistics().call("apply");
    assert_eq!((apply.calls, apply.min, apply.max), (100, Duration::from_micros(1), Duration::from_micros(100)));
    assert_eq!(apply.mean, Duration::from_nanos(50_500));
    assert!((Duration::from_micros(50)..Duration::from_micros(63)).contains(&apply.p50), "{apply:?}");
    assert!((Duration::from_micros(99)..=Duration::from_micros(100)).contains(&apply.p99), "{apply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_tasks_are_counted_exactly() {
    let store = fixture().await.0;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..500 {
                    store.increment(&home(), &record("n"), 1).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let told = store.statistics();
    assert_eq!((told.call("apply").calls, told.ops["add"]), (4_000, 4_000));
}

#[tokio::test]
async fn statistics_print_and_serialise() {
    let store = fixture().await.0;
    store.set(&home(), &record("k"), "hunter2", Ttl::Never).await.unwrap();
    store.get(&home(), &record("none")).await.unwrap();
    store.scan(&home(), Scan::new("")).await.unwrap_err();
    let text = store.statistics().to_string();
    for part in ["memory: 7 B written, 0 B read, 1 errors", "scan: 1 calls", "1 invalid", "operations: 1 set"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!format!("{text} {store:?}").contains("hunter2"));
    let json = serde_json::to_value(store.statistics()).unwrap();
    assert_eq!(json["calls"]["scan"]["errors"]["invalid"], 1);
    assert_eq!(json["calls"]["apply"]["max_ns"], 0);
}
