//! What only PostgreSQL has: plans, a schema that others see, a log, and what the server's settings are worth.
#![cfg(feature = "postgres")]

mod postgres_tools;

use std::time::Duration;

use infra_backends::PostgresConfig;
use infra_state_store::{Batch, Delta, Key, Op, StateStore, StateStoreExt, StoreError, Ttl, When, create_state_store};
use infra_testkit::{PostgresServer, unique_name};
use infra_types::{ErrorKind, HealthStatus, Namespace, SystemClock};

use self::postgres_tools::{config, open};

/// A schema of the shared server that no other test has.
fn apart() -> PostgresConfig {
    postgres_tools::apart(&PostgresServer::shared().url())
}

fn home() -> Namespace {
    Namespace::new("home").expect("a valid namespace")
}

fn record(name: &str) -> Key {
    Key::record(name).expect("a valid key")
}

fn psql(config: &PostgresConfig, sql: &str) -> String {
    tokio::task::block_in_place(|| {
        PostgresServer::shared().psql(&format!("SET search_path = {}, pg_temp; {sql}", config.schema))
    })
}

/// Every statement of a read keeps to its index when its tables are large, whatever the arguments are.
#[tokio::test(flavor = "multi_thread")]
async fn reads_use_their_index() {
    let config = apart();
    let store = open(&config);
    store.set(&home(), &record("k"), "v", Ttl::Never).await.unwrap();
    let fill = "INSERT INTO state_entry (ns, kind, name, version, bytes)
                    SELECT 1, 1, 'k' || n, n, 'v' FROM generate_series(1, 20000) n;
                INSERT INTO state_outbox SELECT 1, 'out', n, 'o', 'e', 'p' FROM generate_series(1, 20000) n;
                INSERT INTO state_change SELECT 1, n, 'k', n FROM generate_series(1, 20000) n;
                ANALYZE; SET plan_cache_mode = force_generic_plan;";
    let plan = |sql: &str, types: &str, arguments: &str, wanted: &[&str]| {
        let explain = format!("{fill} PREPARE p ({types}) AS {sql}; EXPLAIN EXECUTE p ({arguments});");
        // Filled for this plan only.
        let plan = psql(&config, &format!("BEGIN; {explain} ROLLBACK"));
        assert!(wanted.iter().all(|part| plan.contains(part)), "{wanted:?} is not in\n{plan}");
        for table in ["state_entry", "state_outbox", "state_change"] {
            assert!(!plan.contains(&format!("Seq Scan on {table}")), "{plan}");
        }
    };
    let text = "text, text, text, bigint";
    plan(
        include_str!("../src/postgres/scan.sql"),
        text,
        "'home', 'k5', 'k6', 11",
        &["Index Scan using state_entry_pkey", "name >= $2", "name < $3"],
    );
    plan(
        include_str!("../src/postgres/get.sql"),
        "text, smallint[], text[], bigint[]",
        "'home', '{1,1}', '{k1,k2}', '{0,1}'",
        &["Index Scan using state_entry_pkey"],
    );
    plan(
        include_str!("../src/postgres/get_mixed.sql"),
        "text, smallint[], text[], bigint[], text[], bigint[]",
        "'home', '{1,1}', '{k1,k2}', '{0,1}', '{}', '{}'",
        &["Index Scan using state_entry_pkey"],
    );
    plan(include_str!("../src/postgres/get_one.sql"), "text, smallint, text", "'home', 1, 'k1'", &["name = $3"]);
    plan(
        include_str!("../src/postgres/outbox.sql"),
        "text, text, bigint, bigint",
        "'home', 'out', 10, 10",
        &["Index Scan using state_outbox_pkey", "number > $3"],
    );
    plan(
        include_str!("../src/postgres/changes.sql"),
        "text, bigint, bigint",
        "'home', 10, 10",
        &["state_change_pkey", "number > $2"],
    );
}

/// Expired rows are absent at once; their room comes back a hundred a write, and a row that somebody holds is passed over.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_sweeps_a_hundred_and_waits_for_none() {
    let config = apart();
    let store = open(&config);
    store.set(&home(), &record("k"), "v", Ttl::Never).await.unwrap();
    psql(
        &config,
        "INSERT INTO state_entry (ns, kind, name, version, bytes, expires_ms, doomed)
             SELECT 1, 0, 'old' || n, 0, 'v', 1000, state_doom(1000) FROM generate_series(1, 250) n;
         INSERT INTO state_inbox (ns, consumer, event_id, expires_ms, doomed)
             SELECT 1, 'c', 'e' || n, 1000, state_doom(1000) FROM generate_series(1, 150) n;
         INSERT INTO state_list (ns, name, oldest, newest, expires_ms, doomed) VALUES (1, 'l', 1, 130, 1000, state_doom(1000));
         UPDATE state_namespace SET next_doomed = state_doom(1000);
         INSERT INTO state_list_value SELECT l.id, n, 'v' FROM state_list l, generate_series(1, 130) n",
    );
    let left = || {
        psql(
            &config,
            "SELECT (SELECT count(*) FROM state_entry WHERE expires_ms = 1000), (SELECT count(*) FROM state_inbox),
                    (SELECT count(*) FROM state_list_value), (SELECT count(*) FROM state_list)",
        )
    };
    assert_eq!(left(), "250|150|130|1");
    for after in ["150|50|30|1", "50|0|0|0"] {
        store.set(&home(), &record("k"), "v", Ttl::Never).await.unwrap();
        assert_eq!(left(), after);
    }
    let mut holder = sqlx::postgres::PgConnectOptions::new()
        .host("127.0.0.1")
        .port(PostgresServer::shared().port())
        .username(PostgresServer::shared().user())
        .password(PostgresServer::shared().password())
        .database(PostgresServer::shared().user());
    holder = holder.options([("search_path", config.schema.as_str())]);
    let mut holder = <sqlx::PgConnection as sqlx::Connection>::connect_with(&holder).await.unwrap();
    let hold = "BEGIN; SELECT * FROM state_entry WHERE expires_ms = 1000 ORDER BY name LIMIT 3 FOR UPDATE";
    sqlx::Executor::execute(&mut holder, sqlx::raw_sql(hold)).await.unwrap();
    store.set(&home(), &record("k"), "v", Ttl::Never).await.unwrap();
    assert_eq!(left(), "3|0|0|0");
}

/// A refusal is an answer: the server's log stays as it was, also if writes had to be taken back.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_leaves_no_line_in_the_log() {
    let server = tokio::task::block_in_place(PostgresServer::start);
    let store = open(&config(&server.url()));
    store.set(&home(), &record("k"), "v", Ttl::Never).await.unwrap();
    let log = || std::fs::read_to_string(server.dir().join("server.log")).unwrap();
    let before = log();
    let check = |batch: Batch| batch.check(record("missing"), When::Exists);
    let early = store.apply(check(Batch::new(home()))).await.unwrap_err();
    let late = store.apply(check(Batch::new(home()).set(record("k"), "w"))).await.unwrap_err();
    assert!(matches!((&early, &late), (StoreError::Mismatch { index: 0, .. }, StoreError::Mismatch { index: 1, .. })));
    assert_eq!(store.get(&home(), &record("k")).await.unwrap().map(|e| e.value), Some("v".into()));
    let log = log();
    assert_eq!(log.strip_prefix(&before).map(|new| new.contains("ERROR")), Some(false), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn durability_is_told_as_the_server_keeps_it() {
    // The shared server leaves syncing to the system.
    let store = open(&apart());
    store.get(&home(), &record("k")).await.unwrap();
    assert!(!store.info().survives_power_cut);
    let server = tokio::task::block_in_place(|| PostgresServer::builder().durable().start());
    let durable = open(&config(&server.url()));
    assert!(!durable.info().survives_power_cut, "not known before the first use");
    durable.get(&home(), &record("k")).await.unwrap();
    assert!(durable.info().survives_power_cut);
    let hasty = open(&config(&server.url()).with_option("synchronous_commit", "off"));
    hasty.get(&home(), &record("k")).await.unwrap();
    assert!(!hasty.info().survives_power_cut);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_program_leaves_a_newer_schema_alone() {
    let config = apart();
    let running = open(&config);
    running.set(&home(), &record("k"), "v", Ttl::Never).await.unwrap();
    psql(&config, "INSERT INTO infra_schema (component, version, digest) VALUES ('state', 99, 0)");
    let older = open(&config);
    let refused = older.set(&home(), &record("k"), "w", Ttl::Never).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Backend { kind: ErrorKind::Permanent, message } if message.contains("99")));
    assert_eq!(older.health().await.status, HealthStatus::Down);
    assert_eq!(running.get(&home(), &record("k")).await.unwrap().map(|e| e.value), Some("v".into()));

    psql(
        &config,
        "DELETE FROM infra_schema WHERE version = 99; UPDATE infra_schema SET digest = 1 WHERE component = 'state'",
    );
    let other = open(&config).get(&home(), &record("k")).await.unwrap_err();
    assert!(matches!(&other, StoreError::Backend { kind: ErrorKind::Permanent, .. }), "{other:?}");
}

/// Whoever calls the functions from a session with another path, or with tables of the same names in front, reaches the right ones.
#[tokio::test(flavor = "multi_thread")]
async fn the_functions_do_not_trust_the_path_of_their_caller() {
    let config = apart();
    let store = open(&config);
    store.set(&home(), &record("k"), "v", Ttl::Never).await.unwrap();
    let add = format!(
        "SELECT {}.state_apply('home', '{{4}}', '{{1}}', '{{n}}', '{{}}', '{{}}', '{{}}', '{{1}}', '{{-9}}', '{{9}}', '{{}}', '{{}}')",
        config.schema
    );
    tokio::task::block_in_place(|| {
        PostgresServer::shared().psql(&format!(
            "SET search_path = pg_catalog; {add};
             CREATE TEMPORARY TABLE state_entry (LIKE {0}.state_entry INCLUDING ALL);
             CREATE TEMPORARY TABLE state_namespace (LIKE {0}.state_namespace INCLUDING ALL);
             SET search_path = pg_temp, pg_catalog; {add}",
            config.schema
        ))
    });
    assert_eq!(store.get(&home(), &record("n")).await.unwrap().and_then(|e| e.value.as_counter()), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_may_be_the_first() {
    let config = apart();
    let first = (0..8).map(|_| {
        let store = open(&config);
        tokio::spawn(async move { store.apply(Batch::new(home()).add(record("n"), Delta::unbounded(1))).await })
    });
    for task in first.collect::<Vec<_>>() {
        task.await.unwrap().unwrap();
    }
    let n = open(&config).get(&home(), &record("n")).await.unwrap();
    assert_eq!(n.and_then(|e| e.value.as_counter()), Some(8));
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_data_is_corrupt_and_not_guessed_at() {
    let config = apart();
    let store = open(&config);
    store.set(&home(), &record("k"), "v", Ttl::Never).await.unwrap();
    psql(&config, "UPDATE state_entry SET version = -1");
    assert!(matches!(store.get(&home(), &record("k")).await, Err(StoreError::Corrupt { .. })));
    assert!(matches!(store.scan(&home(), infra_state_store::Scan::new("k")).await, Err(StoreError::Corrupt { .. })));
    let compared = store.apply(Batch::new(home()).check(record("k"), When::Absent)).await;
    assert!(matches!(compared, Err(StoreError::Corrupt { .. })), "{compared:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_only_reads_is_told_as_such() {
    let server = tokio::task::block_in_place(|| PostgresServer::builder().read_only().start());
    let store = open(&config(&server.url()));
    let refused = store.set(&home(), &record("k"), "v", Ttl::Never).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Backend { kind: ErrorKind::Unavailable, .. }), "{refused:?}");
    assert!(refused.to_string().contains("read-only"), "{refused}");
    assert_eq!(store.health().await.status, HealthStatus::Down);

    let sql = |sql: &str| tokio::task::block_in_place(|| server.psql(sql));
    sql("ALTER SYSTEM SET default_transaction_read_only = off");
    sql("SELECT pg_reload_conf()");
    let works = async {
        while store.set(&home(), &record("k"), "v", Ttl::Never).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), works).await.expect("the same handle works when the server does");
    assert_eq!(store.health().await.status, HealthStatus::Up);

    sql("ALTER SYSTEM SET default_transaction_read_only = on");
    sql("SELECT pg_reload_conf()");
    let refused = async {
        loop {
            if let Err(e) = store.set(&home(), &record("k"), "w", Ttl::Never).await {
                break e;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(20), refused).await.expect("the setting is taken over");
    assert!(matches!(&refused, StoreError::Backend { kind: ErrorKind::Unavailable, .. }), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_way_to_the_server_is_said_without_the_password() {
    const SECRET: &str = "hunter2-never-print";
    let server = PostgresServer::shared();
    let wrong_password = config(&server.url_with_password(SECRET));
    let no_tls = config(&format!("{}?sslmode=verify-full", server.url()));
    let secured = PostgresServer::shared_tls();
    let ca = secured.certificates().other_ca_file();
    let wrong_ca = config(&format!("{}?sslmode=verify-full&sslrootcert={}", secured.bare_url(), ca.display()));
    for (wrong, word) in [(wrong_password, "password"), (no_tls, "TLS"), (wrong_ca, "certificate")] {
        let store = open(&wrong.with_schema(unique_name()));
        assert_eq!(store.health().await.status, HealthStatus::NeverConnected);
        let e = store.get(&home(), &record("k")).await.unwrap_err();
        assert!(matches!(&e, StoreError::Backend { kind: ErrorKind::Permanent, .. }), "{e:?}");
        assert!(e.to_string().contains(word) && !format!("{e:?} {store:?}").contains(SECRET), "{e}");
        let health = store.health().await;
        assert_eq!((health.status, health.detail.contains(SECRET)), (HealthStatus::Down, false));
    }
    let nobody =
        create_state_store(&format!("postgres://u:{SECRET}@127.0.0.1:{}/d", infra_testkit::free_port())).unwrap();
    let e = nobody.get(&home(), &record("k")).await.unwrap_err();
    assert!(matches!(&e, StoreError::Backend { kind: ErrorKind::Unavailable, .. }) && !e.to_string().contains(SECRET));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_handle_stays_open_when_a_store_is_closed() {
    let handle = infra_backends::Postgres::new(apart()).unwrap();
    let new = || infra_state_store::PostgresStateStore::new(handle.clone(), SystemClock::shared());
    let (one, two) = (new(), new());
    one.set(&home(), &record("k"), "v", Ttl::Never).await.unwrap();
    one.close().await.unwrap();
    assert!(matches!(one.get(&home(), &record("k")).await, Err(StoreError::Closed)));
    assert_eq!(one.health().await.status, HealthStatus::Down);
    assert!(two.exists(&home(), &record("k")).await.unwrap());
}

/// The set-based path of many sets gives what the loop gives: versions in the order of the batch, changes, times to live.
#[tokio::test(flavor = "multi_thread")]
async fn many_sets_are_like_sets_one_by_one() {
    let store = open(&apart());
    store.apply(Batch::new(home()).with(Op::KeepChanges { max: 6 })).await.unwrap();
    let names: Vec<String> = (0..8).map(|n| format!("k{}", (n * 5) % 8)).collect();
    let many = |ttl: Ttl| {
        names.iter().fold(Batch::new(home()), |b, name| b.set_when(record(name), name.clone(), ttl, When::Always))
    };
    let start = store.changes_read(&home(), None, 1).await.unwrap().next;
    let first = store.apply(many(Ttl::After(Duration::from_secs(60)))).await.unwrap();
    let versions: Vec<_> = first.iter().map(|applied| format!("{applied:?}")).collect();
    assert_eq!(versions, (start.0 + 1..start.0 + 9).map(|n| format!("Version(Version({n}))")).collect::<Vec<_>>());
    let page = store.scan(&home(), infra_state_store::Scan::new("k")).await.unwrap();
    for (key, entry) in &page.entries {
        let place = names.iter().position(|name| name == key.name()).unwrap();
        assert_eq!(entry.version.map(|v| v.0), Some(start.0 + 1 + place as u64));
        assert!(entry.expires_at.is_some() && entry.value == key.name().to_owned().into());
    }
    assert!(store.changes_read(&home(), Some(start), 10).await.unwrap().gap, "two of eight were trimmed");
    let kept = store.changes_read(&home(), Some(infra_state_store::ChangePosition(start.0 + 2)), 10).await.unwrap();
    let told: Vec<_> = kept.changes.iter().map(|c| c.key.name().to_owned()).collect();
    assert_eq!((told, kept.gap), (names[2..].to_vec(), false));
    assert!(kept.changes.iter().all(|change| change.expires_at.is_some()));
    store.apply(many(Ttl::Never)).await.unwrap();
    let again = store.get(&home(), &record("k0")).await.unwrap().unwrap();
    assert_eq!((again.expires_at, again.version.map(|v| v.0)), (None, Some(start.0 + 9)));
    let counters = ["a", "b", "c", "d"]
        .iter()
        .fold(Batch::new(home()), |b, name| b.set(Key::cache(name).unwrap(), infra_state_store::Value::Counter(7)));
    store.apply(counters).await.unwrap();
    assert_eq!(
        store.get(&home(), &Key::cache("d").unwrap()).await.unwrap().and_then(|e| e.value.as_counter()),
        Some(7)
    );
}
