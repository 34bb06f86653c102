//! What is cut, killed, frozen or lost on the way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use infra_audit_log::{AuditError, AuditLog, PostgresAuditLog};
use infra_testkit::{Cut, Direction, FaultProxy, PostgresServer};
use infra_types::{ErrorKind, HealthStatus};

use crate::tools::{PATIENCE, apart, config, event, open};

/// Settles if the answer was lost, and answers where the event is then.
async fn index_in_the_end(log: &PostgresAuditLog, n: u64) -> u64 {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match log.append(event(n)).await {
            Ok(receipt) => return receipt.index,
            Err(AuditError::Ambiguous { .. } | AuditError::Unsettled) => drop(log.head().await),
            Err(e) => assert!(e.kind().is_retryable() || e.kind() == ErrorKind::Unavailable, "{e}"),
        }
        assert!(tokio::time::Instant::now() < deadline, "the log does not recover");
        tokio::task::yield_now().await;
    }
}

/// The server has the append, the caller does not know.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_is_ambiguous_and_stops_everything_until_the_head_was_read() {
    let config = apart();
    let proxy = FaultProxy::start(PostgresServer::shared().addr()).await;
    let log = open(&config.clone().with_port(proxy.addr().port()));
    log.append_batch((0..3).map(event).collect()).await.unwrap();
    proxy.cut_after(Direction::ToClient, 0, Cut::Reset);
    let lost = log.append(event(3)).await.unwrap_err();
    assert!(matches!(lost, AuditError::Ambiguous { .. }), "{lost}");

    assert!(matches!(log.append(event(4)).await, Err(AuditError::Unsettled)));
    assert!(matches!(log.append_batch(vec![event(0)]).await, Err(AuditError::Unsettled)));
    assert_eq!(log.health().await.status, HealthStatus::Degraded);
    assert_eq!(log.head().await.unwrap().size, 4, "the server had answered");
    assert_eq!(log.append(event(3)).await.unwrap().index, 3);
    assert_eq!(log.append(event(4)).await.unwrap().index, 4);
    assert_eq!(log.health().await.status, HealthStatus::Up);
}

/// What was sent and has not arrived when the head is read never counts.
#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_arrives_after_the_head_was_read_is_void() {
    let config = apart();
    let (server, schema) = (PostgresServer::shared(), &config.schema);
    let proxy = FaultProxy::start(server.addr()).await;
    let log = open(&config.clone().with_port(proxy.addr().port()));
    log.append_batch((0..3).map(event).collect()).await.unwrap();
    proxy.cut_after(Direction::ToServer, 20, Cut::Reset);
    assert!(matches!(log.append(event(3)).await, Err(AuditError::Ambiguous { .. })));
    assert_eq!(log.head().await.unwrap().size, 3);

    // The statement that was lost, as it would arrive now, and as it would have arrived before.
    let late = |turn: u32| {
        server.psql(&format!(
            "BEGIN;
             SELECT (a).stored FROM (SELECT {schema}.audit_append(3, {turn}, frontier, frontier, ARRAY['late'], ARRAY['X'],
                ARRAY[null], ARRAY[null], ARRAY[0::bigint], ARRAY[''::bytea], ARRAY[''::bytea]) a FROM {schema}.audit_head) q;
             ROLLBACK"
        ))
    };
    assert_eq!((late(0).as_str(), late(1).as_str()), ("f", "t"));
    assert_eq!(log.append(event(3)).await.unwrap().index, 3);
}

/// Cut at every few bytes of an append, in both directions, on both ways in: what was answered is there, what was refused is not,
/// and what is unknown is known after asking.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_anywhere_loses_nothing_and_doubles_nothing() {
    let config = apart();
    let proxy = FaultProxy::start(PostgresServer::shared().addr()).await;
    let (log, other) = (open(&config.clone().with_port(proxy.addr().port())), open(&config));
    let mut n = 0;
    let (mut answered, mut refused, mut unknown) = (0, 0, 0);
    for direction in [Direction::ToServer, Direction::ToClient] {
        for bytes in (0..900).step_by(23) {
            // Once as the only one (a statement), once after somebody else (a statement in vain, then a transaction).
            for contended in [false, true] {
                index_in_the_end(&log, n).await;
                index_in_the_end(&log, n + 1).await;
                if contended {
                    other.append(event(n + 2)).await.unwrap();
                }
                let before = other.head().await.unwrap().size;
                proxy.cut_after(direction, bytes, Cut::Reset);
                let answer = log.append(event(n + 3)).await;
                proxy.pass();
                match answer {
                    Ok(receipt) => {
                        assert_eq!(receipt.index, before);
                        answered += 1;
                    }
                    Err(AuditError::Ambiguous { .. }) => {
                        let size = log.head().await.unwrap().size;
                        assert!(size == before || size == before + 1);
                        assert_eq!(log.append(event(n + 3)).await.unwrap().index, before);
                        unknown += 1;
                    }
                    Err(e) => {
                        assert!(e.kind().had_no_effect(), "{e}");
                        assert_eq!(other.head().await.unwrap().size, before, "{e}");
                        refused += 1;
                    }
                }
                n += 10;
            }
        }
    }
    other.checkpoint(None).await.unwrap();
    assert!(answered > 0 && refused > 0 && unknown > 0, "{answered} answered, {refused} refused, {unknown} unknown");
}

/// An append that waits for the lock while its server process is ended: nothing is written, and it says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_terminated_before_it_appends_has_written_nothing() {
    let server = PostgresServer::start();
    let config = config(&server);
    let (log, other) = (Arc::new(open(&config)), open(&config));
    let schema = config.schema.clone();
    log.append(event(0)).await.unwrap();
    for contended in [false, true] {
        log.append(event(1)).await.unwrap();
        if contended {
            other.append(event(2)).await.unwrap();
        }
        let before = log.head().await.unwrap();
        std::thread::scope(|scope| {
            let holder = scope.spawn(|| {
                server.try_psql(&format!(
                    "BEGIN; SELECT FROM {schema}.audit_head FOR UPDATE; SELECT pg_sleep(60); ROLLBACK"
                ))
            });
            let waits = |what: &str| {
                let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE {what}");
                (0..3_000).find(|_| server.psql(&sql) != "0").expect("it must come to wait");
            };
            waits("wait_event = 'PgSleep'");
            let append = tokio::spawn({
                let log = Arc::clone(&log);
                async move { log.append(event(3)).await }
            });
            waits("wait_event_type = 'Lock'");
            server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'");
            let answer = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(append)).unwrap();
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::Transient);
            server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
            assert!(holder.join().unwrap().is_err());
        });
        assert_eq!(log.head().await.unwrap(), before);
    }
    assert_eq!(log.append(event(3)).await.unwrap().index, 3);
}

/// Server processes are ended again and again while two handles append.
#[tokio::test(flavor = "multi_thread")]
async fn terminated_at_any_time_no_acknowledged_event_is_lost() {
    let server = PostgresServer::start();
    let config = config(&server);
    let logs = [(); 2].map(|()| Arc::new(open(&config)));
    // A fast machine is done with a fixed count before anything was ended.
    let enough = Arc::new(AtomicBool::new(false));
    let mut writers: Vec<_> = (0..2u64)
        .map(|writer| {
            let (log, enough) = (Arc::clone(&logs[writer as usize]), Arc::clone(&enough));
            tokio::spawn(async move {
                let mut found = Vec::new();
                for n in 0..10_000 {
                    if n >= 150 && enough.load(Ordering::Relaxed) {
                        break;
                    }
                    let n = writer * 10_000 + n;
                    found.push((index_in_the_end(&log, n).await, n));
                }
                found
            })
        })
        .collect();
    let mut ended = 0;
    while writers.iter().any(|writer| !writer.is_finished()) && ended < 400 {
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'infra'";
        let count: u64 = tokio::task::block_in_place(|| server.psql(sql)).parse().unwrap();
        ended += count;
        enough.store(ended > 10, Ordering::Relaxed);
    }
    enough.store(true, Ordering::Relaxed);
    let mut found = writers.remove(0).await.unwrap();
    found.extend(writers.remove(0).await.unwrap());
    found.sort_unstable();
    assert!(found.iter().map(|(index, _)| *index).eq(0..found.len() as u64), "{found:?}");
    let stored = logs[0].query(infra_audit_log::AuditQuery { limit: 1_000, ..Default::default() }).await.unwrap();
    let written: Vec<_> = found.iter().take(1_000).map(|(_, n)| event(*n)).collect();
    assert!(stored.events.iter().map(|stored| &stored.event).eq(&written));
    logs[1].checkpoint(None).await.unwrap();
    assert!(ended > 10, "only {ended} were ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_killed_comes_back_with_every_event() {
    let mut server = PostgresServer::start();
    let log = open(&config(&server));
    log.append_batch((0..40).map(event).collect()).await.unwrap();
    let head = log.head().await.unwrap();
    tokio::task::block_in_place(|| server.kill());
    // The first one meets a connection that is gone; whatever it says, it cannot have been stored.
    assert!(log.append(event(40)).await.is_err());
    assert!(log.verify(None).await.is_err(), "no verdict is not a good one");
    assert!(log.head().await.is_err());
    assert_ne!(log.health().await.status, HealthStatus::Up);
    tokio::task::block_in_place(|| server.restart());
    assert_eq!(log.head().await.unwrap(), head);
    assert_eq!(log.append(event(39)).await.unwrap().index, 39);
    assert_eq!(log.append(event(40)).await.unwrap().index, 40);
    log.checkpoint(None).await.unwrap();
    assert_eq!(log.health().await.status, HealthStatus::Up);
}

/// A server that does not answer keeps nobody waiting for longer than a few operations' time, and the line does not grow.
#[tokio::test(flavor = "multi_thread")]
async fn behind_a_frozen_server_everybody_is_answered() {
    let mut server = PostgresServer::start();
    let brief = Duration::from_secs(1);
    let config = config(&server);
    let log = Arc::new(open(&config.clone().with_operation_timeout(brief).with_connect_timeout(brief)));
    index_in_the_end(&log, 0).await;
    tokio::task::block_in_place(|| server.stop_process());
    let tasks: Vec<_> = (1..=40)
        .map(|n| {
            let log = Arc::clone(&log);
            let batch = (0..500).map(|k| event(n * 1_000 + k)).collect();
            tokio::spawn(async move { tokio::time::timeout(10 * brief, log.append_batch(batch)).await })
        })
        .collect();
    for task in tasks {
        let refused = task.await.unwrap().expect("it must not take ten times as long").unwrap_err();
        let known = refused.kind().had_no_effect();
        assert!(known || matches!(refused, AuditError::Ambiguous { .. }), "{refused}");
    }
    tokio::task::block_in_place(|| server.continue_process());
    let index = index_in_the_end(&log, 1).await;
    assert_eq!(index % 500, 1, "a batch was torn");
    open(&config).checkpoint(None).await.unwrap();
}
