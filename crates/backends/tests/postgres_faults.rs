//! Faults between the client and the server: what is known is said, what is not known is `Ambiguous`, nothing runs twice.
#![cfg(feature = "postgres")]

use std::{net::SocketAddr, sync::atomic::Ordering::Relaxed, time::Duration};

use infra_backends::{BackendError, PgSchema, Postgres, PostgresConfig};
use infra_testkit::{Cut, Direction, FaultProxy, PostgresServer, unique_name};
use infra_types::{Clock, ErrorKind, SystemClock};
use sqlx::Row;

static SCHEMA: PgSchema =
    PgSchema { component: "state", steps: &["CREATE TABLE state_t (k text, at timestamptz DEFAULT now())"] };
const HOUR: Duration = Duration::from_secs(3_600);

fn config(server: &PostgresServer, addr: SocketAddr) -> PostgresConfig {
    PostgresConfig::from_url(&server.url())
        .expect("it works")
        .with_port(addr.port())
        .with_schema(unique_name())
        // A connect takes long where nothing is optimised and the machine is busy.
        .with_connect_timeout(Duration::from_secs(20))
        .with_operation_timeout(Duration::from_secs(20))
        // Idle connections are trusted: the hard case.
        .with_recheck_after(HOUR)
}

async fn open(config: PostgresConfig) -> Postgres {
    let postgres = Postgres::new(config).expect("it works");
    postgres.ready(&SCHEMA).await.expect("it works");
    put(&postgres.with_operation_timeout(Duration::from_secs(20)), "warm").await.expect("it works");
    postgres
}

async fn through_proxy() -> (Postgres, FaultProxy) {
    let server = PostgresServer::shared();
    let proxy = FaultProxy::start(server.addr()).await;
    (open(config(server, proxy.addr())).await, proxy)
}

async fn put(postgres: &Postgres, k: &'static str) -> Result<u64, BackendError> {
    postgres.execute(sqlx::query("INSERT INTO state_t (k) VALUES ($1)").bind(k)).await
}

/// The same connections, less patience.
fn hasty(postgres: &Postgres) -> Postgres {
    postgres.with_operation_timeout(Duration::from_millis(200))
}

async fn count(postgres: &Postgres, k: &'static str) -> i64 {
    let rows = postgres.read(|| sqlx::query("SELECT count(*) FROM state_t WHERE k = $1").bind(k)).await;
    rows.expect("it works")[0].get(0)
}

fn is_ambiguous(answer: &Result<u64, BackendError>) -> bool {
    matches!(answer, Err(BackendError::Ambiguous { .. }))
}

#[tokio::test]
async fn a_lost_reply_is_ambiguous_and_the_write_runs_once() {
    let (postgres, proxy) = through_proxy().await;
    proxy.swallow_next_reply();
    let answer = put(&postgres, "lost").await;
    assert!(is_ambiguous(&answer), "{answer:?}");
    assert_eq!(count(&postgres, "lost").await, 1);
    let statistics = postgres.statistics();
    assert_eq!((statistics.ambiguous, statistics.lost), (1, 1));

    // Cut in the middle of the request: the server never had it whole, but we cannot know.
    proxy.cut_after(Direction::ToServer, 20, Cut::Reset);
    let answer = put(&postgres, "half").await;
    assert!(is_ambiguous(&answer), "{answer:?}");
    assert_eq!(count(&postgres, "half").await, 0);
}

#[tokio::test]
async fn a_deadline_after_sending_is_ambiguous_and_the_connection_goes() {
    let (postgres, proxy) = through_proxy().await;
    for (direction, stored) in [(Direction::ToClient, 1), (Direction::ToServer, 0)] {
        let k = if stored == 1 { "late" } else { "never" };
        proxy.swallow(direction);
        let started = SystemClock.now();
        let answer = put(&hasty(&postgres), k).await;
        let took = SystemClock.now().since(started);
        assert!(is_ambiguous(&answer), "{answer:?}");
        assert!(took < Duration::from_millis(900), "{took:?}");
        // The caller's own future may be dropped just as well.
        proxy.pass();
        assert_eq!(count(&postgres, k).await, stored);
    }
    assert_eq!(postgres.statistics().abandoned, 2);
}

#[tokio::test]
async fn reads_go_on_over_a_fresh_connection() {
    let (postgres, proxy) = through_proxy().await;
    for how in [Cut::Reset, Cut::Fin] {
        proxy.cut_all(how);
        assert_eq!(count(&postgres, "warm").await, 1);
    }
    assert_eq!(postgres.statistics().lost, 2);
    // Silence is an honest error, and transient.
    proxy.swallow(Direction::ToClient);
    let error = hasty(&postgres).read(|| sqlx::query("SELECT 1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error:?}");
}

#[tokio::test]
async fn after_one_loss_the_other_idle_connections_are_asked_first() {
    let (postgres, proxy) = through_proxy().await;
    let slow = || postgres.read(|| sqlx::query("SELECT 1 FROM pg_sleep(0.05)"));
    let all = futures::future::join_all((0..4).map(|_| slow())).await;
    assert!(all.iter().all(Result::is_ok) && postgres.statistics().idle == 4);
    proxy.cut_all(Cut::Reset);
    // The first write meets a dead connection that it had to trust; the others learn from it.
    let answer = put(&postgres, "first").await;
    assert!(is_ambiguous(&answer), "{answer:?}");
    for _ in 0..4 {
        put(&postgres, "next").await.unwrap();
    }
    assert_eq!((count(&postgres, "first").await, count(&postgres, "next").await), (0, 4));
    let statistics = postgres.statistics();
    assert_eq!((statistics.ambiguous, statistics.lost), (1, 4), "{statistics:?}");
}

#[tokio::test]
async fn a_connection_that_was_idle_for_long_is_asked_before_a_write() {
    let server = PostgresServer::shared();
    let proxy = FaultProxy::start(server.addr()).await;
    let settings = config(server, proxy.addr()).with_recheck_after(Duration::ZERO);
    let brief = open(settings.with_operation_timeout(Duration::from_secs(2))).await;
    let postgres = brief.with_operation_timeout(Duration::from_secs(20));
    for how in [Cut::Reset, Cut::Fin] {
        proxy.cut_all(how);
        put(&postgres, "k").await.unwrap();
    }
    // Also when nothing comes back at all.
    proxy.swallow(Direction::ToClient);
    let answer = put(&brief.with_operation_timeout(Duration::from_millis(700)), "k").await;
    assert!(matches!(answer, Err(BackendError::Connect { .. })), "nothing was sent: {answer:?}");
    proxy.pass();
    assert_eq!(count(&postgres, "k").await, 2);
    assert_eq!(postgres.statistics().ambiguous, 0);
}

#[tokio::test]
async fn a_session_ended_by_the_administrator_is_rolled_back_for_certain() {
    let server = PostgresServer::shared();
    let postgres = open(config(server, server.addr())).await;
    let pid = || async { postgres.read(|| sqlx::query("SELECT pg_backend_pid()")).await.unwrap()[0].get::<i32, _>(0) };
    // While it is idle.
    server.psql(&format!("SELECT pg_terminate_backend({}, 5000)", pid().await));
    let answer = put(&postgres, "idle").await;
    assert!(matches!(answer, Err(BackendError::RolledBack)), "{answer:?}");
    // While it works.
    let victim = pid().await;
    let slow = postgres.execute(sqlx::query("INSERT INTO state_t SELECT 'busy' FROM pg_sleep(15)"));
    let end = tokio::task::spawn_blocking(move || {
        let asleep = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {victim} AND wait_event = 'PgSleep'");
        while PostgresServer::shared().psql(&asleep) == "0" {}
        PostgresServer::shared().psql(&format!("SELECT pg_terminate_backend({victim}, 5000)"))
    });
    let (answer, ended) = tokio::join!(slow, end);
    assert!(ended.is_ok() && matches!(answer, Err(BackendError::RolledBack)), "{answer:?}");
    assert_eq!((count(&postgres, "idle").await, count(&postgres, "busy").await), (0, 0));
    assert_eq!(postgres.statistics().ambiguous, 0);
}

#[tokio::test]
async fn only_a_lost_answer_to_commit_makes_a_transaction_ambiguous() {
    let (postgres, proxy) = through_proxy().await;
    let proxy = std::sync::Arc::new(proxy);
    let two = async |cut: fn(&FaultProxy), k: &'static str| {
        let proxy = std::sync::Arc::clone(&proxy);
        postgres
            .transaction(move |tx| {
                Box::pin(async move {
                    let insert = || sqlx::query("INSERT INTO state_t (k) VALUES ($1)").bind(k);
                    tx.execute(insert()).await?;
                    cut(&proxy);
                    if k == "before" { tx.execute(insert()).await } else { Ok(1) }
                })
            })
            .await
    };
    let before = two(|proxy| proxy.cut_all(Cut::Reset), "before").await;
    assert_eq!(before.unwrap_err().kind(), ErrorKind::Transient);
    let commit = two(FaultProxy::swallow_next_reply, "commit").await;
    assert!(is_ambiguous(&commit), "{commit:?}");
    // A dead idle connection is no reason to fail a transaction: nothing but BEGIN was sent.
    proxy.cut_all(Cut::Reset);
    two(|_| {}, "fresh").await.unwrap();
    let counts = (count(&postgres, "before").await, count(&postgres, "commit").await, count(&postgres, "fresh").await);
    assert_eq!(counts, (0, 1, 1));
}

#[tokio::test]
async fn an_abandoned_statement_ends_on_the_server_too() {
    let server = PostgresServer::shared();
    let limit = Duration::from_millis(500);
    let postgres = open(config(server, server.addr()).with_operation_timeout(limit)).await;
    let mark = format!("/* {} */", postgres.config().schema);
    let sql: &'static str = Box::leak(format!("{mark} SELECT 1 FROM pg_sleep(60)").into_boxed_str());
    let dropped = tokio::time::timeout(Duration::from_millis(50), postgres.read(|| sqlx::query(sql))).await;
    assert!(dropped.is_err());
    let runs = format!("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '{mark}%' AND state = 'active'");
    let started = SystemClock.now();
    while server.psql(&runs) != "0" {
        assert!(SystemClock.now().since(started) < Duration::from_secs(5), "it still runs");
    }
    assert_eq!(postgres.statistics().abandoned, 1);
}

#[tokio::test]
async fn a_restart_between_operations() {
    let mut server = PostgresServer::start();
    let mut settings = config(&server, server.addr());
    settings.recheck_after = Duration::ZERO;
    let postgres = open(settings).await;
    for _ in 0..3 {
        server.restart();
        put(&postgres, "k").await.unwrap();
        assert_eq!(postgres.health().await.status, infra_types::HealthStatus::Up);
    }
    server.kill();
    let down = put(&postgres, "down").await.unwrap_err();
    assert!(matches!(down, BackendError::Connect { .. }), "{down:?}");
    server.restart();
    // Everything that was acknowledged is there, nothing else.
    assert_eq!((count(&postgres, "k").await, count(&postgres, "down").await), (3, 0));
    assert_eq!(postgres.statistics().ambiguous, 0);
}

#[tokio::test]
async fn a_server_killed_in_the_middle_of_writes() {
    let mut server = PostgresServer::builder().durable().start();
    let postgres = open(config(&server, server.addr())).await;
    static SEQ: PgSchema = PgSchema { component: "bus", steps: &["CREATE TABLE bus_t (n bigint PRIMARY KEY)"] };
    postgres.ready(&SEQ).await.unwrap();
    let mut acknowledged = Vec::new();
    let mut unknown = Vec::new();
    let total = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    for round in 0..3i64 {
        let writers: Vec<_> = (0..8i64)
            .map(|writer| {
                let (postgres, total) = (postgres.clone(), std::sync::Arc::clone(&total));
                tokio::spawn(async move {
                    let (mut done, mut n) = (Vec::new(), (round * 8 + writer) * 1_000_000);
                    loop {
                        match postgres.execute(sqlx::query("INSERT INTO bus_t VALUES ($1)").bind(n)).await {
                            Ok(_) => {
                                done.push(n);
                                total.fetch_add(1, Relaxed);
                            }
                            Err(error) => break (done, n, error),
                        }
                        n += 1;
                    }
                })
            })
            .collect();
        while total.load(Relaxed) < 40 * (usize::try_from(round).unwrap() + 1) {
            tokio::task::yield_now().await;
        }
        server = tokio::task::spawn_blocking(move || {
            server.kill();
            server.restart();
            server
        })
        .await
        .unwrap();
        for writer in writers {
            let (done, n, error) = writer.await.unwrap();
            acknowledged.extend(done);
            match error.kind() {
                ErrorKind::Ambiguous => unknown.push(n),
                ErrorKind::Unavailable | ErrorKind::Transient => {
                    let there =
                        postgres.read(|| sqlx::query("SELECT 1 FROM bus_t WHERE n = $1").bind(n)).await.unwrap();
                    assert!(there.is_empty(), "{n} was reported as not written: {error:?}");
                }
                _ => panic!("{error:?}"),
            }
        }
    }
    let rows = postgres.read(|| sqlx::query("SELECT n FROM bus_t")).await.unwrap();
    let stored: std::collections::HashSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    assert!(acknowledged.len() >= 120 && !unknown.is_empty(), "{} {}", acknowledged.len(), unknown.len());
    let lost = acknowledged.iter().filter(|n| !stored.contains(n)).count();
    assert_eq!(lost, 0, "of {} acknowledged", acknowledged.len());
    let known: std::collections::HashSet<i64> = acknowledged.iter().chain(&unknown).copied().collect();
    assert!(stored.is_subset(&known), "nothing is there that was reported as not written");
}
