//! The suite on SQLite, and what only a file has.
#![cfg(feature = "sqlite")]

use std::{sync::Arc, time::Duration};

use infra_backends::{Schema, Sqlite, SqliteConfig, Synchronous};
use infra_state_store::{
    Applied, ChangePosition, Key, Op, SqliteStateStore, StateStore, StateStoreExt, StoreError, Ttl,
    conformance::Fixture, create_state_store, state_store_conformance,
};
use infra_testkit::TestDir;
use infra_types::{EventId, HealthStatus, ManualClock, Namespace};

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

/// The first released step, as it is in files that exist; it never changes.
const FIRST_STEP: &str = "
        CREATE TABLE state_namespace (ns TEXT PRIMARY KEY, last_number INTEGER NOT NULL) STRICT, WITHOUT ROWID;
        CREATE TABLE state_entry (
            id INTEGER PRIMARY KEY, ns TEXT NOT NULL, kind INTEGER NOT NULL, name TEXT NOT NULL,
            bytes BLOB, counter INTEGER, version INTEGER NOT NULL, expires_ms INTEGER,
            UNIQUE (ns, kind, name), CHECK ((bytes IS NULL) <> (counter IS NULL))) STRICT;
        CREATE INDEX state_entry_expiry ON state_entry (expires_ms) WHERE expires_ms IS NOT NULL;
        -- A row stays for ever: its fence must never start anew.
        CREATE TABLE state_lease (
            ns TEXT NOT NULL, name TEXT NOT NULL, fence INTEGER NOT NULL, holder TEXT, expires_ms INTEGER NOT NULL,
            PRIMARY KEY (ns, name)) STRICT, WITHOUT ROWID;
        CREATE TABLE state_outbox (
            id INTEGER PRIMARY KEY, ns TEXT NOT NULL, name TEXT NOT NULL, number INTEGER NOT NULL,
            order_key TEXT NOT NULL, event_id TEXT NOT NULL, payload BLOB NOT NULL,
            UNIQUE (ns, name, number)) STRICT;
        CREATE TABLE state_inbox (
            ns TEXT NOT NULL, consumer TEXT NOT NULL, event_id TEXT NOT NULL, expires_ms INTEGER,
            PRIMARY KEY (ns, consumer, event_id)) STRICT, WITHOUT ROWID;
        CREATE INDEX state_inbox_expiry ON state_inbox (expires_ms) WHERE expires_ms IS NOT NULL;
        CREATE TABLE state_probe (id INTEGER PRIMARY KEY CHECK (id = 1), at_ms INTEGER NOT NULL) STRICT;
    ";

/// What a program of the first schema left behind.
const OLD_ROWS: &str = "
    INSERT INTO state_namespace VALUES ('home', 7);
    INSERT INTO state_entry (ns, kind, name, bytes, counter, version, expires_ms) VALUES
        ('home', 1, 'k', CAST('old' AS BLOB), NULL, 5, NULL), ('home', 1, 'n', NULL, 41, 6, NULL);
    INSERT INTO state_lease VALUES ('home', 'l', 3, NULL, 0);
    INSERT INTO state_outbox (ns, name, number, order_key, event_id, payload) VALUES
        ('home', 'out', 7, 'order', 'e1', CAST('load' AS BLOB));
    INSERT INTO state_inbox VALUES ('home', 'bot', 'e0', NULL);
";

static FIRST: Schema = Schema { component: "state", steps: &[FIRST_STEP] };

async fn run(handle: &Sqlite, sql: &'static str) {
    let done =
        handle.write::<_, StoreError, _>(move |conn| Ok(conn.execute_batch(sql).map_err(|e| e.to_string()))).await;
    assert_eq!(done.expect("the file must take it"), Ok(()));
}

#[tokio::test]
async fn data_of_an_older_program_is_read_and_numbered_on() {
    let dir = TestDir::new();
    let old = Sqlite::new(config(&dir));
    old.ready(&FIRST).await.unwrap();
    run(&old, OLD_ROWS).await;
    old.close().await;

    let store = SqliteStateStore::open(config(&dir), Arc::new(ManualClock::default()));
    let found = store.get(&home(), &key()).await.unwrap().unwrap();
    assert_eq!((found.value, found.version.map(|v| v.0)), ("old".into(), Some(5)));
    assert_eq!(store.increment(&home(), &Key::record("n").unwrap(), 1).await.unwrap(), 42);
    assert_eq!(store.outbox_read(&home(), &Key::record("out").unwrap(), None, 10).await.unwrap().len(), 1);
    let grant = store.acquire_lease(&home(), &Key::lease("l").unwrap(), "me", Duration::from_secs(1)).await.unwrap();
    assert_eq!(grant.fence, 4);
    let consumer = Key::record("bot").unwrap();
    let again = Op::MarkInbox { consumer, id: EventId::new("e0").unwrap(), ttl: Ttl::Never };
    assert!(matches!(store.apply_one(&home(), again).await, Err(StoreError::AlreadyProcessed { .. })));
    // What the older program did not know works on its file; what it wrote is a gap to whoever follows.
    store.apply_one(&home(), Op::KeepChanges { max: 10 }).await.unwrap();
    assert!(store.changes_read(&home(), Some(ChangePosition(1)), 10).await.unwrap().gap);
    let push = Op::Push { list: Key::list("l").unwrap(), value: "v".into(), cap: 5, ttl: Ttl::Never };
    assert_eq!(store.apply_one(&home(), push).await.unwrap(), Applied::Length(1));
    assert!(store.set(&home(), &key(), "new", Ttl::Never).await.unwrap().is_some_and(|version| version.0 > 8));
    store.close().await.unwrap();

    // The other way round: the older program does not touch what it does not know.
    let old = Sqlite::new(config(&dir));
    let e = old.ready(&FIRST).await.unwrap_err();
    assert!(matches!(e, infra_backends::BackendError::NewerSchema { .. }), "{e}");
}

#[tokio::test]
async fn data_of_a_newer_program_is_refused_and_left_alone() {
    let dir = TestDir::new();
    let store = SqliteStateStore::open(config(&dir), Arc::new(ManualClock::default()));
    store.set(&home(), &key(), "v", Ttl::Never).await.unwrap();
    store.close().await.unwrap();
    let newer = Sqlite::new(config(&dir));
    run(&newer, "INSERT INTO infra_schema (component, version, fingerprint) VALUES ('state', 1000, 1)").await;
    newer.close().await;
    let store = SqliteStateStore::open(config(&dir), Arc::new(ManualClock::default()));
    for e in [store.get(&home(), &key()).await.err(), store.set(&home(), &key(), "w", Ttl::Never).await.err()] {
        let e = e.expect("a newer file is refused");
        assert!(matches!(e, StoreError::Backend { .. }), "{e:?}");
        assert!(e.to_string().contains("newer"), "{e}");
        assert_eq!(e.kind(), infra_types::ErrorKind::Permanent, "{e}");
    }
    assert_eq!(store.health().await.status, HealthStatus::Down);
}
