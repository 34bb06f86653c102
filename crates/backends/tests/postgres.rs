//! What a PostgreSQL handle promises, on a real server.
#![cfg(feature = "postgres")]

use std::{num::NonZeroU32, time::Duration};

use infra_backends::{BackendError, PgSchema, Postgres, PostgresConfig};
use infra_testkit::{Direction, FaultProxy, PostgresServer, unique_name};
use infra_types::{Clock, ErrorKind, HealthStatus, SystemClock};
use sqlx::Row;

static SCHEMA: PgSchema = PgSchema {
    component: "state",
    steps: &["CREATE TABLE state_t (k text PRIMARY KEY, n bigint NOT NULL DEFAULT 0);
              CREATE FUNCTION state_refuse(code text) RETURNS void LANGUAGE plpgsql AS $$
              BEGIN
                  INSERT INTO state_t VALUES ('refused');
                  RAISE EXCEPTION 'not so' USING ERRCODE = code, DETAIL = '{\"have\": 3}';
              END $$"],
};

fn config() -> PostgresConfig {
    PostgresConfig::from_url(&PostgresServer::shared().url())
        .expect("it works")
        .with_schema(unique_name())
        // A connect takes long where nothing is optimised and the machine is busy.
        .with_connect_timeout(Duration::from_secs(20))
        .with_operation_timeout(Duration::from_secs(20))
}

async fn open(config: PostgresConfig) -> Postgres {
    let postgres = Postgres::new(config).expect("it works");
    postgres.ready(&SCHEMA).await.expect("it works");
    // The first connect may take its time on a busy machine; what is measured comes later.
    postgres.with_operation_timeout(Duration::from_secs(20)).probe().await.expect("it works");
    postgres
}

async fn put(postgres: &Postgres, k: &str) -> Result<u64, BackendError> {
    postgres.execute(sqlx::query("INSERT INTO state_t (k) VALUES ($1)").bind(k.to_owned())).await
}

async fn count(postgres: &Postgres) -> i64 {
    postgres.read(|| sqlx::query("SELECT count(*) FROM state_t")).await.expect("it works")[0].get(0)
}

async fn text(postgres: &Postgres, sql: &'static str) -> String {
    postgres.read(|| sqlx::query(sql)).await.expect("it works")[0].get(0)
}

#[tokio::test]
async fn a_handle_does_nothing_until_it_is_used() {
    let postgres = Postgres::new(config()).unwrap();
    assert_eq!(postgres.health().await.status, HealthStatus::NeverConnected);
    assert_eq!(postgres.statistics().connects, 0);
    let took = postgres.probe().await.unwrap();
    assert!(took > Duration::ZERO);
    let health = postgres.health().await;
    assert_eq!(health.status, HealthStatus::Up);
    assert!(health.probe.is_some());
    let statistics = postgres.statistics();
    assert_eq!((statistics.connects, statistics.open, statistics.idle, statistics.max), (1, 1, 1, 10));
}

#[tokio::test]
async fn statements_answer_rows_and_counts() {
    let postgres = open(config()).await;
    assert_eq!(put(&postgres, "a").await.unwrap(), 1);
    let rows = postgres
        .write(sqlx::query("INSERT INTO state_t VALUES ($1, $2), ('c', 3) RETURNING n").bind("b").bind(2i64))
        .await
        .unwrap();
    assert_eq!(rows.iter().map(|row| row.get::<i64, _>(0)).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(count(&postgres).await, 3);
    // One connection did it all: a steady caller opens no more.
    assert_eq!(postgres.statistics().open, 1);
}

#[tokio::test]
async fn every_connection_has_the_settings_that_bound_it() {
    let config = config().with_operation_timeout(Duration::from_secs(1)).with_option("synchronous_commit", "off");
    let schema = config.schema.clone();
    let postgres = open(config.with_option("statement_timeout", "0")).await;
    assert_eq!(text(&postgres, "SHOW application_name").await, "infra");
    assert_eq!(text(&postgres, "SHOW statement_timeout").await, "900ms");
    assert_eq!(text(&postgres, "SHOW lock_timeout").await, "800ms");
    assert_eq!(text(&postgres, "SHOW idle_in_transaction_session_timeout").await, "2s");
    assert_eq!(text(&postgres, "SHOW search_path").await, format!("{schema},pg_temp"));
    assert_eq!(text(&postgres, "SHOW default_transaction_isolation").await, "read committed");
    let server = postgres.server().await.unwrap();
    assert!(server.version >= 150_000 && !server.in_recovery && !server.read_only, "{server:?}");
    assert_eq!((server.synchronous_commit.as_str(), server.fsync, server.is_durable()), ("off", false, false));
}

#[tokio::test]
async fn a_function_refuses_in_its_own_words_and_nothing_is_written() {
    let postgres = open(config()).await;
    match postgres.write(sqlx::query("SELECT state_refuse($1)").bind("IN007")).await {
        Err(BackendError::Refused { code, message, detail }) => {
            assert_eq!((code.as_str(), message.as_str(), detail.as_str()), ("IN007", "not so", "{\"have\": 3}"));
        }
        other => panic!("{other:?}"),
    }
    let other = postgres.write(sqlx::query("SELECT state_refuse($1)").bind("P0001")).await.unwrap_err();
    assert!(matches!(&other, BackendError::Other { reason } if reason.contains("P0001")), "{other:?}");
    assert_eq!(count(&postgres).await, 0);
    // A refusal is an answer: the connection goes on.
    assert_eq!((postgres.statistics().open, postgres.statistics().lost), (1, 0));
}

#[tokio::test]
async fn server_errors_are_classified_by_what_to_do() {
    let postgres = open(config().with_operation_timeout(Duration::from_secs(1))).await;
    let postgres = postgres.with_operation_timeout(Duration::from_secs(20));
    for (code, kind, shown) in [
        ("40001", ErrorKind::Transient, "RolledBack"),
        ("40P01", ErrorKind::Transient, "RolledBack"),
        ("40003", ErrorKind::Ambiguous, "Ambiguous"),
        ("55P03", ErrorKind::Transient, "Busy"),
        ("57014", ErrorKind::Transient, "Busy"),
        ("53300", ErrorKind::Transient, "Busy"),
        ("53100", ErrorKind::Unavailable, "Full"),
        ("53200", ErrorKind::Unavailable, "Unavailable"),
        ("58030", ErrorKind::Unavailable, "Unavailable"),
        ("25006", ErrorKind::Unavailable, "ReadOnly"),
        ("42501", ErrorKind::Permanent, "Denied"),
        ("XX001", ErrorKind::Corrupt, "Corrupt"),
        ("23505", ErrorKind::Permanent, "Other"),
        // A function may claim these; as ERROR they are rolled back all the same.
        ("57P01", ErrorKind::Permanent, "Other"),
        ("08006", ErrorKind::Permanent, "Other"),
    ] {
        let error = postgres.write(sqlx::query("SELECT state_refuse($1)").bind(code)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{code}: {error:?}");
        assert!(format!("{error:?}").starts_with(shown), "{code}: {error:?}");
    }
    assert_eq!(count(&postgres).await, 0);
    // The real ones: a statement that takes too long, an unknown table.
    let slow = postgres.write(sqlx::query("INSERT INTO state_t SELECT 'slow' FROM pg_sleep(5)")).await.unwrap_err();
    assert!(matches!(slow, BackendError::Busy), "the server's own limit comes before ours: {slow:?}");
    let unknown = postgres.read(|| sqlx::query("SELECT * FROM nothing_here")).await.unwrap_err();
    assert!(matches!(&unknown, BackendError::Other { reason } if reason.contains("42P01")), "{unknown:?}");
    assert_eq!(count(&postgres).await, 0);
    assert_eq!(postgres.statistics().ambiguous, 1);
}

#[tokio::test]
async fn a_transaction_is_there_wholly_or_not_at_all() {
    let postgres = open(config()).await;
    let answer = postgres
        .transaction(|tx| {
            Box::pin(async move {
                tx.execute(sqlx::query("INSERT INTO state_t VALUES ('a')")).await?;
                let rows = tx.rows(sqlx::query("SELECT count(*) FROM state_t")).await?;
                Ok::<i64, BackendError>(rows[0].get(0))
            })
        })
        .await
        .unwrap();
    assert_eq!((answer, count(&postgres).await), (1, 1));

    let refused = postgres
        .transaction(|tx| {
            Box::pin(async move {
                tx.execute(sqlx::query("INSERT INTO state_t VALUES ('b')")).await?;
                Err::<(), _>(BackendError::Busy)
            })
        })
        .await;
    assert!(matches!(refused, Err(BackendError::Busy)));

    // PostgreSQL answers COMMIT of a failed transaction with success and rolls back: not here.
    let swallowed = postgres
        .transaction(|tx| {
            Box::pin(async move {
                tx.execute(sqlx::query("INSERT INTO state_t VALUES ('c')")).await?;
                let _ = tx.execute(sqlx::query("INSERT INTO state_t VALUES ('a')")).await;
                assert!(tx.execute(sqlx::query("INSERT INTO state_t VALUES ('d')")).await.is_err());
                Ok::<(), BackendError>(())
            })
        })
        .await;
    assert!(matches!(swallowed, Err(BackendError::RolledBack)), "{swallowed:?}");

    let read_only =
        postgres.snapshot(|tx| Box::pin(async move { tx.execute(sqlx::query("DELETE FROM state_t")).await })).await;
    assert!(matches!(read_only, Err(BackendError::ReadOnly)), "{read_only:?}");

    postgres.probe().await.unwrap();
    let late = postgres
        .with_operation_timeout(Duration::from_millis(500))
        .transaction(|tx| {
            Box::pin(async move {
                tx.execute(sqlx::query("INSERT INTO state_t VALUES ('e')")).await?;
                std::future::pending::<Result<(), BackendError>>().await
            })
        })
        .await
        .unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Transient, "COMMIT was not sent: {late:?}");
    assert_eq!(count(&postgres).await, 1);
    assert_eq!(postgres.statistics().ambiguous, 0);
}

#[tokio::test]
async fn an_error_after_the_last_row_is_an_error() {
    static DEFERRED: PgSchema = PgSchema {
        component: "bus",
        steps: &["CREATE TABLE bus_t (n bigint REFERENCES state_t2 DEFERRABLE INITIALLY DEFERRED)"],
    };
    static PARENT: PgSchema = PgSchema { component: "audit", steps: &["CREATE TABLE state_t2 (n bigint PRIMARY KEY)"] };
    let postgres = open(config()).await;
    postgres.ready(&PARENT).await.unwrap();
    postgres.ready(&DEFERRED).await.unwrap();
    // The row is answered first, then the commit fails.
    let error = postgres.write(sqlx::query("INSERT INTO bus_t VALUES (1) RETURNING n")).await.unwrap_err();
    assert!(matches!(&error, BackendError::Other { reason } if reason.contains("23503")), "{error:?}");
    let rows: i64 = postgres.read(|| sqlx::query("SELECT count(*) FROM bus_t")).await.unwrap()[0].get(0);
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn a_lock_held_by_another_is_busy() {
    let postgres = open(config().with_operation_timeout(Duration::from_millis(1_500))).await;
    let postgres = postgres.with_operation_timeout(Duration::from_secs(20));
    // Two connections, so that nobody has to wait for one below.
    let slow = || postgres.read(|| sqlx::query("SELECT 1 FROM pg_sleep(0.1)"));
    while postgres.statistics().open < 2 {
        let (one, two) = tokio::join!(slow(), slow());
        one.and(two).unwrap();
    }
    put(&postgres, "a").await.unwrap();
    let held = postgres
        .transaction(|tx| {
            let other = postgres.clone();
            Box::pin(async move {
                tx.execute(sqlx::query("UPDATE state_t SET n = 1")).await?;
                let error = other.execute(sqlx::query("UPDATE state_t SET n = 2")).await.unwrap_err();
                assert!(matches!(error, BackendError::Busy), "{error:?}");
                Ok::<(), BackendError>(())
            })
        })
        .await;
    assert!(held.is_ok(), "{held:?}");
    assert_eq!(postgres.read(|| sqlx::query("SELECT n FROM state_t")).await.unwrap()[0].get::<i64, _>(0), 1);
}

#[tokio::test]
async fn a_deadlock_rolls_back_one_of_the_two() {
    let postgres = open(config().with_operation_timeout(Duration::from_secs(20))).await;
    put(&postgres, "a").await.unwrap();
    put(&postgres, "b").await.unwrap();
    let met = tokio::sync::Barrier::new(2);
    let met = std::sync::Arc::new(met);
    let crossed = |first: &'static str, second: &'static str| {
        let met = std::sync::Arc::clone(&met);
        postgres.transaction(move |tx| {
            Box::pin(async move {
                let update = |k| sqlx::query("UPDATE state_t SET n = n + 1 WHERE k = $1").bind(k);
                tx.execute(update(first)).await?;
                met.wait().await;
                tx.execute(update(second)).await?;
                Ok::<(), BackendError>(())
            })
        })
    };
    let answers: [_; 2] = tokio::join!(crossed("a", "b"), crossed("b", "a")).into();
    assert_eq!(answers.iter().filter(|a| matches!(a, Err(BackendError::RolledBack))).count(), 1, "{answers:?}");
    let sum = postgres.read(|| sqlx::query("SELECT sum(n)::bigint FROM state_t")).await.unwrap()[0].get::<i64, _>(0);
    assert_eq!(sum, 2);
}

#[tokio::test]
async fn waiting_for_a_connection_is_part_of_the_deadline() {
    let config = config().with_pool_max(NonZeroU32::MIN).with_operation_timeout(Duration::from_millis(400));
    let postgres = open(config).await;
    let holder = postgres.clone();
    let patient = holder.with_operation_timeout(Duration::from_secs(10));
    let (held, holds) = tokio::sync::oneshot::channel();
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let task = tokio::spawn(async move {
        patient
            .snapshot(|tx| {
                Box::pin(async move {
                    tx.rows(sqlx::query("SELECT 1")).await?;
                    held.send(()).unwrap();
                    gone.await.unwrap();
                    Ok::<(), BackendError>(())
                })
            })
            .await
    });
    holds.await.unwrap();
    let error = put(&postgres, "a").await.unwrap_err();
    assert!(matches!(error, BackendError::Busy), "nothing was sent: {error:?}");
    assert_eq!(postgres.statistics().wait_timeouts, 1);
    go.send(()).unwrap();
    task.await.unwrap().unwrap();
    put(&postgres, "a").await.unwrap();
    assert_eq!((count(&postgres).await, postgres.statistics().open), (1, 1));
}

#[tokio::test]
async fn a_dropped_future_never_leaves_its_reply_to_the_next_caller() {
    let postgres = open(config().with_pool_max(NonZeroU32::MIN)).await;
    for n in 0..20i64 {
        let slow = postgres.read(|| sqlx::query("SELECT -1::bigint FROM pg_sleep(0.02)"));
        // Dropped between sending and answering, each time a little later.
        let _ = tokio::time::timeout(Duration::from_micros(500 * u64::try_from(n).unwrap()), slow).await;
        let rows = postgres.read(|| sqlx::query("SELECT $1::bigint").bind(n)).await.unwrap();
        assert_eq!((rows.len(), rows[0].get::<i64, _>(0)), (1, n));
    }
    let statistics = postgres.statistics();
    assert!(statistics.abandoned > 0 && statistics.open == 1, "{statistics:?}");
}

#[tokio::test]
async fn a_steady_write_is_one_round_trip() {
    let proxy = FaultProxy::start(PostgresServer::shared().addr()).await;
    let postgres = open(config().with_port(proxy.addr().port())).await;
    for k in ["a", "b"] {
        put(&postgres, k).await.unwrap();
    }
    postgres.write(sqlx::query("UPDATE state_t SET n = n + 1 WHERE k = $1").bind("a")).await.unwrap();
    let delay = Duration::from_millis(40);
    proxy.delay(Direction::ToClient, delay);
    // The best of some: the machine may be busy with other things.
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let started = SystemClock.now();
        postgres.write(sqlx::query("UPDATE state_t SET n = n + 1 WHERE k = $1").bind("a")).await.unwrap();
        best = best.min(SystemClock.now().since(started));
    }
    assert!((delay..2 * delay).contains(&best), "{best:?}");
}

#[tokio::test]
async fn close_drains_and_is_final() {
    let postgres = open(config()).await;
    let other = postgres.clone();
    let running = tokio::spawn(async move {
        other.execute(sqlx::query("INSERT INTO state_t SELECT 'late' FROM pg_sleep(0.1)")).await
    });
    while postgres.statistics().idle > 0 {
        tokio::task::yield_now().await;
    }
    postgres.close().await;
    postgres.close().await;
    assert_eq!(running.await.unwrap().unwrap(), 1);
    assert_eq!(postgres.statistics().open, 0);
    assert!(matches!(postgres.probe().await, Err(BackendError::Closed)));
    assert!(matches!(postgres.ready(&SCHEMA).await, Err(BackendError::Closed)));
    assert!(matches!(postgres.server().await, Err(BackendError::Closed)));
    assert!(matches!(put(&postgres, "x").await, Err(BackendError::Closed)));
}
