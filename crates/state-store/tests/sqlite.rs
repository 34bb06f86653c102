//! The suite on SQLite, and what only a file has.
#![cfg(feature = "sqlite")]

use std::{sync::Arc, time::Duration};

use infra_backends::{Sqlite, SqliteConfig, Synchronous};
use infra_state_store::{
    Key, SqliteStateStore, StateStore, StateStoreExt, StoreError, Ttl, conformance::Fixture, create_state_store,
    state_store_conformance,
};
use infra_testkit::TestDir;
use infra_types::{HealthStatus, ManualClock, Namespace};

struct File {
    clock: ManualClock,
    store: Arc<dyn StateStore>,
    second: Arc<dyn StateStore>,
    dir: TestDir,
}

#[async_trait::async_trait]
impl Fixture for File {
    fn store(&self) -> Arc<dyn StateStore> {
        self.store.clone()
    }

    fn second(&self) -> Arc<dyn StateStore> {
        self.second.clone()
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    async fn reopen(&self) -> Option<Arc<dyn StateStore>> {
        for handle in [&self.store, &self.second] {
            handle.close().await.expect("an idle store closes");
        }
        Some(Arc::new(SqliteStateStore::open(config(&self.dir), Arc::new(self.clock.clone()))))
    }
}

fn config(dir: &TestDir) -> SqliteConfig {
    SqliteConfig::new(dir.file("state.db")).with_synchronous(Synchronous::Normal)
}

/// Two handles on one file share nothing but the file, as two processes would.
async fn fixture() -> File {
    let (dir, clock) = (TestDir::new(), ManualClock::default());
    let open = || Arc::new(SqliteStateStore::open(config(&dir), Arc::new(clock.clone())));
    File { store: open(), second: open(), clock, dir }
}

state_store_conformance!(fixture());

fn home() -> Namespace {
    Namespace::new("home").expect("a valid namespace")
}

fn key() -> Key {
    Key::record("k").expect("a valid key")
}

#[tokio::test]
async fn nothing_is_opened_before_the_first_use() {
    let dir = TestDir::new();
    let path = dir.file("state.db");
    let store = create_state_store(&format!("sqlite:{}", path.display())).unwrap();
    assert_eq!(store.health().await.status, HealthStatus::NeverConnected);
    assert!(!path.exists());
    assert_eq!(store.get(&home(), &key()).await.unwrap(), None);
    assert!(path.exists());
    let health = store.health().await;
    assert_eq!((health.status, health.probe.is_some()), (HealthStatus::Up, true), "{health:?}");
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_down_and_may_come_back() {
    let dir = TestDir::new();
    let path = dir.file("missing").join("state.db");
    let store = create_state_store(&format!("sqlite:{}", path.display())).unwrap();
    assert!(matches!(store.get(&home(), &key()).await, Err(StoreError::Backend { .. })));
    assert_eq!(store.health().await.status, HealthStatus::Down);
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    assert_eq!(store.health().await.status, HealthStatus::Up);
}

#[tokio::test]
async fn a_closed_store_leaves_a_shared_handle_open() {
    let dir = TestDir::new();
    let handle = Sqlite::new(SqliteConfig::new(dir.file("state.db")));
    let clock = Arc::new(ManualClock::default());
    let (one, two) = (SqliteStateStore::new(handle.clone(), clock.clone()), SqliteStateStore::new(handle, clock));
    assert!(!one.info().survives_power_cut, "not known before the first use");
    one.set(&home(), &key(), "v", Ttl::Never).await.unwrap();
    assert!(one.info().survives_power_cut);
    one.close().await.unwrap();
    assert!(matches!(one.get(&home(), &key()).await, Err(StoreError::Closed)));
    assert!(two.exists(&home(), &key()).await.unwrap());
}

#[tokio::test]
async fn what_was_written_is_there_after_reopening() {
    let dir = TestDir::new();
    let clock = Arc::new(ManualClock::default());
    let first = SqliteStateStore::open(config(&dir), clock.clone());
    let before = first.set(&home(), &key(), "v", Ttl::Never).await.unwrap();
    let lease = Key::lease("l").unwrap();
    let grant = first.acquire_lease(&home(), &lease, "me", Duration::from_secs(1)).await.unwrap();
    first.close().await.unwrap();

    clock.advance(Duration::from_secs(1));
    let again = SqliteStateStore::open(config(&dir), clock);
    assert_eq!(again.get(&home(), &key()).await.unwrap().and_then(|e| e.version), before);
    assert!(again.set(&home(), &key(), "w", Ttl::Never).await.unwrap() > before);
    let next = again.acquire_lease(&home(), &lease, "me", Duration::from_secs(1)).await.unwrap();
    assert!(next.fence > grant.fence);
}

#[tokio::test]
async fn foreign_data_is_corrupt_and_not_guessed_at() {
    let dir = TestDir::new();
    let handle = Sqlite::new(config(&dir));
    let store = SqliteStateStore::new(handle.clone(), Arc::new(ManualClock::default()));
    store.set(&home(), &key(), "v", Ttl::Never).await.unwrap();
    let spoil = |sql: &'static str| {
        let handle = handle.clone();
        async move {
            let done = handle.write::<_, StoreError, _>(move |conn| Ok(conn.execute_batch(sql).is_ok())).await;
            assert!(done.is_ok_and(|done| done));
        }
    };
    spoil("UPDATE state_entry SET version = -1").await;
    assert!(matches!(store.get(&home(), &key()).await, Err(StoreError::Corrupt { .. })));
    assert!(matches!(store.delete(&home(), &key()).await, Err(StoreError::Corrupt { .. })));
}
