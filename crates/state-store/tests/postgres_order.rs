//! Batches of one namespace happen one by one, whoever sends them, and what an open transaction holds back is never passed by.
#![cfg(feature = "postgres")]

mod postgres_tools;

use std::{sync::Arc, time::Duration};

use infra_backends::PostgresConfig;
use infra_state_store::{
    Batch, ChangePosition, Delta, Key, Op, OutboxRow, PostgresStateStore, StateStore, StateStoreExt, StoreError, Ttl,
    Version, When,
};
use infra_testkit::PostgresServer;
use infra_types::{ErrorKind, EventId, Namespace};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use self::postgres_tools::open;

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

fn enqueue(id: &str) -> Batch {
    let id = EventId::new(id).expect("a valid id");
    Batch::new(home()).with(Op::Enqueue { outbox: record("out"), order_key: "o".into(), id, payload: "p".into() })
}

async fn waiting(store: &PostgresStateStore) -> Vec<OutboxRow> {
    store.outbox_read(&home(), &record("out"), None, 100).await.expect("a read")
}

fn ids(rows: &[OutboxRow]) -> Vec<&str> {
    rows.iter().map(|row| row.id.as_str()).collect()
}

/// A session of somebody who is slow between the statement and the commit.
async fn raw(config: &PostgresConfig) -> PgConnection {
    let mut conn = PgConnection::connect(&PostgresServer::shared().url()).await.expect("the server is there");
    run(&mut conn, &format!("SET search_path = {}, pg_temp", config.schema)).await;
    conn
}

async fn run(conn: &mut PgConnection, sql: &str) {
    conn.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.expect("SQL of the test");
}

/// One operation on key `name` as the functions take it.
fn call(op: u8, name: &str, id: &str) -> String {
    format!(
        "SELECT * FROM state_apply('home', '{{{op}}}', '{{1}}', '{{{name}}}', '{{o}}', '{{{id}}}', '{{\\\\x70}}', \
         '{{}}', '{{}}', '{{}}', '{{}}', '{{}}')"
    )
}

/// How many sessions wait for this one. Not from pg_stat_activity, which stands still in a transaction.
async fn waiters(conn: &mut PgConnection) -> i64 {
    let sql = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))";
    sqlx::query_scalar(sql).fetch_one(conn).await.expect("a number")
}

async fn until_somebody_waits(conn: &mut PgConnection) {
    let seen = async {
        while waiters(conn).await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), seen).await.expect("the other batch waits for this one");
}

#[tokio::test]
async fn a_late_committer_is_never_passed() {
    let config = apart();
    let store = open(&config);
    store.apply(enqueue("first")).await.unwrap();
    store.apply(Batch::new(home()).with(Op::KeepChanges { max: 100 })).await.unwrap();
    let before = store.changes_read(&home(), None, 1).await.unwrap().next;

    // It has taken the next number of the outbox and of the changes, and does not commit.
    let mut late = raw(&config).await;
    run(&mut late, "BEGIN").await;
    run(&mut late, &call(12, "out", "late")).await;
    run(&mut late, &call(1, "k", "")).await;

    let (other, quick) = (open(&config), open(&config));
    let next = tokio::spawn(async move { other.apply(enqueue("next").set(record("k2"), "v")).await });
    until_somebody_waits(&mut late).await;
    assert_eq!(ids(&waiting(&quick).await), ["first"], "readers wait for nobody and see what is committed");
    assert!(quick.changes_read(&home(), Some(before), 10).await.unwrap().changes.is_empty());
    assert!(!next.is_finished(), "the next batch has its turn when the late one is over");
    // Another namespace has its own turn.
    let elsewhere = Namespace::new("elsewhere").unwrap();
    quick.set(&elsewhere, &record("k"), "v", Ttl::Never).await.unwrap();

    run(&mut late, "COMMIT").await;
    next.await.unwrap().unwrap();
    let rows = waiting(&quick).await;
    assert_eq!(ids(&rows), ["first", "late", "next"]);
    assert!(rows.iter().all(|row| row.position.transaction == 0));
    let changes = quick.changes_read(&home(), Some(before), 10).await.unwrap().changes;
    assert_eq!(changes.iter().map(|change| change.key.name()).collect::<Vec<_>>(), ["k", "k2"]);
    assert!(changes[0].position < changes[1].position);
}

#[tokio::test]
async fn a_batch_that_waited_judges_by_what_was_committed_meanwhile() {
    let config = apart();
    let store = open(&config);
    let Some(old) = store.set(&home(), &record("k"), "v", Ttl::Never).await.unwrap() else {
        panic!("a record has a version");
    };
    let mut late = raw(&config).await;
    run(&mut late, "BEGIN").await;
    run(&mut late, &call(1, "k", "")).await;
    let (one, two) = (open(&config), open(&config));
    let compare = Batch::new(home()).set_when(record("k"), "w", Ttl::Never, When::Version(old));
    let compare = tokio::spawn(async move { one.apply(compare).await });
    until_somebody_waits(&mut late).await;
    let add = tokio::spawn(async move { two.apply(Batch::new(home()).add(record("n"), Delta::unbounded(1))).await });
    run(&mut late, "COMMIT").await;
    let refused = compare.await.unwrap().expect_err("the version has moved on");
    assert!(
        matches!(refused, StoreError::Mismatch { index: 0, found: Some(Version(found)), .. } if found > old.0),
        "{refused:?}"
    );
    add.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_batch_that_rolls_back_gives_its_number_to_the_next() {
    let config = apart();
    let store = open(&config);
    store.apply(enqueue("first")).await.unwrap();
    let mut late = raw(&config).await;
    run(&mut late, "BEGIN").await;
    run(&mut late, &call(12, "out", "never")).await;
    let other = open(&config);
    let next = tokio::spawn(async move { other.apply(enqueue("next")).await });
    until_somebody_waits(&mut late).await;
    run(&mut late, "ROLLBACK").await;
    next.await.unwrap().unwrap();
    let rows = waiting(&store).await;
    assert_eq!(ids(&rows), ["first", "next"]);
    assert_eq!(rows[1].position.sequence, rows[0].position.sequence + 1, "numbers come without a gap");
}

#[tokio::test]
async fn a_namespace_that_is_held_for_too_long_refuses_and_writes_nothing() {
    let config = apart();
    let patient = open(&config);
    patient.set(&home(), &record("k"), "v", Ttl::Never).await.unwrap();
    let mut late = raw(&config).await;
    run(&mut late, "BEGIN; SELECT * FROM state_namespace WHERE name = 'home' FOR NO KEY UPDATE").await;
    let hasty = open(&config.clone().with_operation_timeout(Duration::from_secs(3)));
    let refused = hasty.apply(enqueue("x")).await.expect_err("the namespace is held");
    assert!(matches!(refused, StoreError::Backend { kind: ErrorKind::Transient, .. }), "{refused:?}");
    assert!(hasty.exists(&home(), &record("k")).await.unwrap(), "reads wait for nobody");
    run(&mut late, "ROLLBACK").await;
    hasty.apply(enqueue("y")).await.unwrap();
    assert_eq!(ids(&waiting(&patient).await), ["y"]);
}

/// Many namespaces, many keys in any order, from many connections: whoever locks one namespace first cannot deadlock.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn crossing_batches_never_deadlock() {
    let config = apart();
    let stores: Vec<Arc<PostgresStateStore>> = (0..4).map(|_| open(&config)).collect();
    let tasks = (0..16usize).map(|task| {
        let store = stores[task % stores.len()].clone();
        tokio::spawn(async move {
            for round in 0..12 {
                let mut batch = Batch::new(Namespace::new(format!("n{}", (task + round) % 3)).unwrap());
                for step in 0..6 {
                    let name = format!("k{}", if task % 2 == 0 { step } else { 5 - step });
                    batch = batch.set(record(&name), "v").set(Key::cache(&name).unwrap(), "v");
                }
                store.apply(batch.add(record("n"), Delta::unbounded(1))).await.expect("nobody is refused");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let mut sum = 0;
    for n in 0..3 {
        let ns = Namespace::new(format!("n{n}")).unwrap();
        sum += stores[0].get(&ns, &record("n")).await.unwrap().and_then(|e| e.value.as_counter()).unwrap_or(0);
    }
    assert_eq!(sum, 16 * 12);
}

/// Connections die in the middle of batches, again and again: each batch is whole or absent, and told as what it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_killed_backend_leaves_no_half() {
    const WIDTH: usize = 10;
    let config = apart();
    let store = open(&config);
    let columns: Vec<Key> = (0..WIDTH).map(|column| record(&format!("c{column}"))).collect();
    store.get_many(&home(), &columns).await.unwrap();
    let killer = tokio::spawn({
        let (mut conn, schema) = (raw(&config).await, config.schema.clone());
        async move {
            // By what they run: the schema is this test's own, and so is its table of namespaces. The server itself may be cleaning that up.
            let sql = format!(
                "SELECT count(pg_terminate_backend(a.pid)) FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid
                 WHERE l.relation = '{schema}.state_namespace'::regclass AND a.pid <> pg_backend_pid()
                 AND a.usename = current_user"
            );
            let mut killed = 0i64;
            for _ in 0..150 {
                let query = sqlx::query_scalar::<_, i64>(AssertSqlSafe(sql.clone()));
                killed += query.fetch_one(&mut conn).await.expect("a role may end its own sessions");
                tokio::time::sleep(Duration::from_millis(4)).await;
            }
            killed
        }
    });
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (store, columns) = (store.clone(), columns.clone());
            tokio::spawn(async move {
                let (mut sure, mut unsure) = (0, 0);
                for _ in 0..100 {
                    let adds =
                        columns.iter().fold(Batch::new(home()), |b, key| b.add(key.clone(), Delta::unbounded(1)));
                    match store.apply(adds).await {
                        Ok(_) => sure += 1,
                        Err(StoreError::Ambiguous { .. }) => unsure += 1,
                        Err(StoreError::Backend { kind, .. }) => assert_ne!(kind, ErrorKind::Permanent),
                        Err(other) => panic!("{other:?}"),
                    }
                }
                (sure, unsure)
            })
        })
        .collect();
    let (mut sure, mut unsure) = (0, 0);
    for writer in writers {
        let told = writer.await.unwrap();
        sure += told.0;
        unsure += told.1;
    }
    let killed = killer.await.unwrap();
    assert!(killed > 0, "nobody was killed");
    let fresh = open(&config);
    let counts: Vec<i64> = fresh
        .get_many(&home(), &columns)
        .await
        .unwrap()
        .into_iter()
        .map(|entry| entry.and_then(|e| e.value.as_counter()).unwrap_or(0))
        .collect();
    assert!(counts.windows(2).all(|pair| pair[0] == pair[1]), "a torn batch: {counts:?}");
    assert!((sure..=sure + unsure).contains(&counts[0]), "{} stored, {sure} sure, {unsure} unsure", counts[0]);
}

#[tokio::test]
async fn a_session_with_another_isolation_is_refused() {
    let config = apart();
    let store = open(&config);
    store.set(&home(), &record("k"), "v", Ttl::Never).await.unwrap();
    let mut conn = raw(&config).await;
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        run(&mut conn, &format!("BEGIN ISOLATION LEVEL {level}")).await;
        let e = conn.execute(sqlx::raw_sql(AssertSqlSafe(call(1, "k", "")))).await.expect_err("refused");
        assert!(e.to_string().contains("read committed"), "{e}");
        run(&mut conn, "ROLLBACK").await;
    }
    let end = store.changes_read(&home(), Some(ChangePosition(0)), 1).await;
    assert!(matches!(end, Err(StoreError::Invalid { .. })), "nothing was changed: {end:?}");
}
