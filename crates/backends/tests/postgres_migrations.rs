//! Migrations run once, wholly or not at all, also when many processes start at the same time.
#![cfg(feature = "postgres")]

use std::time::Duration;

use infra_backends::{BackendError, PgSchema, Postgres, PostgresConfig};
use infra_testkit::{KillableChild, PostgresServer, child_argument, say, unique_name};
use sqlx::Row;

const ONE: &str = "CREATE TABLE state_t (n bigint NOT NULL);
    CREATE FUNCTION state_sum() RETURNS numeric LANGUAGE plpgsql AS $$
    BEGIN RETURN (SELECT coalesce(sum(n), 0) FROM state_t); END $$";
const TWO: &str = "ALTER TABLE state_t ADD m bigint; INSERT INTO state_t VALUES (7)";
static V1: PgSchema = PgSchema { component: "state", steps: &[ONE] };
static V2: PgSchema = PgSchema { component: "state", steps: &[ONE, TWO] };
static EDITED: PgSchema = PgSchema { component: "state", steps: &["CREATE TABLE state_t (n text)"] };
static BROKEN: PgSchema = PgSchema {
    component: "state",
    steps: &[ONE, "INSERT INTO state_t VALUES (1); CREATE TABLE half (x int); SELECT 1/0"],
};
static SLOW: PgSchema =
    PgSchema { component: "state", steps: &["CREATE TABLE state_t (n bigint)", "SELECT pg_sleep(0.6)", "SELECT 1"] };

fn config(schema: &str) -> PostgresConfig {
    PostgresConfig::from_url(&PostgresServer::shared().url())
        .expect("it works")
        .with_schema(schema)
        // A connect takes long where nothing is optimised and the machine is busy.
        .with_connect_timeout(Duration::from_secs(20))
        .with_operation_timeout(Duration::from_secs(20))
}

fn handle(schema: &str) -> Postgres {
    Postgres::new(config(schema)).expect("it works")
}

async fn rows(postgres: &Postgres) -> i64 {
    postgres.read(|| sqlx::query("SELECT count(*) FROM state_t")).await.expect("it works")[0].get(0)
}

fn versions(schema: &str) -> String {
    PostgresServer::shared()
        .psql(&format!("SELECT string_agg(version::text, ',' ORDER BY version) FROM {schema}.infra_schema"))
}

/// Advisory locks that outlived their transaction.
fn advisory_locks() -> String {
    PostgresServer::shared().psql(
        "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
         WHERE l.locktype = 'advisory' AND a.state = 'idle'",
    )
}

#[tokio::test]
async fn steps_run_once_and_newer_or_edited_ones_are_refused() {
    let schema = unique_name();
    let old = handle(&schema);
    for _ in 0..3 {
        old.ready(&V1).await.unwrap();
    }
    let new = handle(&schema);
    new.ready(&V2).await.unwrap();
    assert_eq!((rows(&new).await, versions(&schema).as_str()), (1, "1,2"));
    // The old handle was ready before; an old program that starts now is not.
    old.ready(&V1).await.unwrap();
    let error = handle(&schema).ready(&V1).await.unwrap_err();
    assert!(matches!(error, BackendError::NewerSchema { component: "state", found: 2, known: 1 }), "{error:?}");
    let other = unique_name();
    handle(&other).ready(&V1).await.unwrap();
    let error = handle(&other).ready(&EDITED).await.unwrap_err();
    assert!(matches!(error, BackendError::ChangedMigration { component: "state", version: 1 }), "{error:?}");
    assert_eq!(versions(&other), "1");
}

#[tokio::test]
async fn functions_find_their_tables_whatever_the_path_of_the_session() {
    let schema = unique_name();
    handle(&schema).ready(&V2).await.unwrap();
    let sum = PostgresServer::shared().psql(&format!("SET search_path = pg_catalog; SELECT {schema}.state_sum()"));
    assert_eq!(sum, "7");
}

#[tokio::test]
async fn a_failed_migration_is_undone_and_leaves_no_lock_behind() {
    let schema = unique_name();
    let broken = handle(&schema);
    for _ in 0..2 {
        let error = broken.ready(&BROKEN).await.unwrap_err();
        match &error {
            BackendError::Migration { component: "state", version: 2, reason } => {
                assert!(reason.contains("22012"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
    // Step 1 stays, step 2 left nothing; the handle that failed is still there with its connections.
    assert_eq!((rows(&broken).await, versions(&schema).as_str()), (0, "1"));
    assert_eq!(advisory_locks(), "0");
    let next = tokio::time::timeout(Duration::from_secs(20), async { handle(&schema).ready(&V2).await });
    next.await.expect("the next process must not hang").unwrap();
    assert_eq!(versions(&schema), "1,2");
}

#[tokio::test]
async fn a_migration_may_take_longer_than_an_operation() {
    let schema = unique_name();
    let quick = || Postgres::new(config(&schema).with_operation_timeout(Duration::from_millis(300))).unwrap();
    // One runs the slow step, the other waits for it.
    let (one, two) = (quick(), quick());
    let (first, second) = tokio::join!(one.ready(&SLOW), two.ready(&SLOW));
    first.unwrap();
    second.unwrap();
    static STUCK: PgSchema = PgSchema { component: "state", steps: &["SELECT pg_sleep(60)"] };
    let mut patience = Duration::from_millis(300);
    let impatient = loop {
        let impatient = Postgres::new(config(&unique_name()).with_migration_timeout(patience)).unwrap();
        match impatient.ready(&STUCK).await {
            Err(BackendError::Busy) => break impatient,
            // The time was over before the connection stood.
            Err(BackendError::Connect { .. }) => patience *= 4,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(impatient.statistics().open, 0);
}

#[test]
fn processes_that_start_at_once_migrate_once() {
    if let Some(schema) = child_argument() {
        let schema = schema.into_string().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answers = runtime.block_on(async {
            // Several handles a process: each is like a process to the server.
            let handles: Vec<Postgres> = (0..4).map(|_| handle(&schema)).collect();
            futures::future::join_all(handles.iter().map(|h| h.ready(&V2))).await
        });
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        say("ready");
        return;
    }
    let schema = unique_name();
    // The server is started before the children look for it.
    assert_eq!(PostgresServer::shared().psql("SELECT 1"), "1");
    let mut children: Vec<KillableChild> =
        (0..3).map(|_| KillableChild::this_test("processes_that_start_at_once_migrate_once", &schema)).collect();
    for child in &mut children {
        child.wait_for("ready", Duration::from_secs(60));
    }
    let count = PostgresServer::shared().psql(&format!("SELECT count(*) FROM {schema}.state_t"));
    assert_eq!((count.as_str(), versions(&schema).as_str()), ("1", "1,2"));
}

#[test]
fn a_process_killed_in_a_migration_holds_nobody_up() {
    static STUCK: PgSchema =
        PgSchema { component: "state", steps: &[ONE, "INSERT INTO state_t VALUES (1); SELECT pg_sleep(600)"] };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if let Some(schema) = child_argument() {
        let schema = schema.into_string().unwrap();
        runtime.block_on(async {
            handle(&schema).ready(&V1).await.unwrap();
            say("half");
            // A minute is longer than this process lives.
            let _ = handle(&schema).ready(&STUCK).await;
        });
        return;
    }
    let server = PostgresServer::shared();
    let schema = unique_name();
    let mut child = KillableChild::this_test("a_process_killed_in_a_migration_holds_nobody_up", &schema);
    child.wait_for("half", Duration::from_secs(60));
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%pg_sleep(600)%'";
    while server.psql(asleep) == "0" {
        std::thread::yield_now();
    }
    child.kill();
    // The server notices a dead client when it next writes to it; here the operator ends the session, as it would in time.
    server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()");
    runtime.block_on(async { handle(&schema).ready(&V2).await }).unwrap();
    assert_eq!(versions(&schema), "1,2");
}

#[tokio::test]
async fn a_user_who_may_not_create_can_use_what_is_there() {
    let server = PostgresServer::shared();
    let (schema, user) = (unique_name(), unique_name());
    handle(&schema).ready(&V1).await.unwrap();
    server.psql(&format!(
        "CREATE ROLE {user} LOGIN PASSWORD 'pw'; GRANT CONNECT ON DATABASE {db} TO {user};
         GRANT USAGE ON SCHEMA {schema} TO {user}; GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {user}",
        db = server.user()
    ));
    let mut config = config(&schema).with_password("pw".to_owned());
    config.user = user;
    let limited = Postgres::new(config.clone()).unwrap();
    limited.ready(&V1).await.unwrap();
    assert_eq!(rows(&limited).await, 0);
    let error = limited.write(sqlx::query("INSERT INTO state_t VALUES (1)")).await.unwrap_err();
    assert!(matches!(error, BackendError::Denied { .. }), "{error:?}");
    let error = Postgres::new(config.with_schema(unique_name())).unwrap().ready(&V1).await.unwrap_err();
    assert!(matches!(error, BackendError::Denied { .. }), "{error:?}");
}
