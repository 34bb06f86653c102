//! Many callers, handles and pools on one log.

use std::{future::Future, pin::pin, sync::Arc, task::Poll};

use infra_audit_log::{AuditError, AuditLog, AuditQuery, PostgresAuditLog, Receipt, Verdict};
use infra_backends::Postgres;
use infra_testkit::PostgresServer;
use infra_types::{HealthStatus, SystemClock};

use crate::tools::{apart, config, event, open};

/// Two pools that append at once, singly and in batches, with events that both have.
#[tokio::test(flavor = "multi_thread")]
async fn several_handles_append_to_one_chain() {
    let config = apart();
    let logs = [(); 2].map(|()| Arc::new(open(&config)));
    let tasks: Vec<_> = (0..8u64)
        .map(|writer| {
            let log = Arc::clone(&logs[writer as usize % 2]);
            tokio::spawn(async move {
                let mut found = Vec::new();
                for n in 0..20 {
                    // Its own event, and one that all writers append.
                    let events = vec![event(1_000 * (writer + 1) + n), event(n)];
                    found.push(log.append_batch(events).await.unwrap());
                    tokio::task::yield_now().await;
                }
                found
            })
        })
        .collect();
    let mut own: Vec<Receipt> = Vec::new();
    let mut common: Vec<Vec<Receipt>> = Vec::new();
    for task in tasks {
        let found = task.await.unwrap();
        own.extend(found.iter().map(|receipts| receipts[0]));
        common.push(found.iter().map(|receipts| receipts[1]).collect());
    }
    assert!(common.iter().all(|places| *places == common[0]), "an event stands in two places");
    let mut all: Vec<u64> = own.iter().chain(&common[0]).map(|receipt| receipt.index).collect();
    all.sort_unstable();
    assert!(all.iter().copied().eq(0..8 * 20 + 20), "{all:?}");
    for log in &logs {
        assert_eq!(log.checkpoint(None).await.unwrap().size, 180);
    }
}

/// What waits goes together: few commits, one connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_burst_shares_commits_and_a_connection() {
    let config = apart();
    let postgres = Postgres::new(config.clone()).unwrap();
    let log = Arc::new(PostgresAuditLog::new(postgres.clone(), SystemClock::shared()));
    log.append(event(0)).await.unwrap();
    let tasks: Vec<_> = (1..=300)
        .map(|n| {
            let log = Arc::clone(&log);
            tokio::spawn(async move { log.append(event(n)).await.unwrap().index })
        })
        .collect();
    let mut all = vec![0];
    for task in tasks {
        all.push(task.await.unwrap());
    }
    all.sort_unstable();
    assert!(all.iter().copied().eq(0..=300));
    assert_eq!(postgres.statistics().open, 1);
    let commits = format!("SELECT count(DISTINCT xmin::text) FROM {}.audit_event", config.schema);
    let commits: u64 = PostgresServer::shared().psql(&commits).parse().unwrap();
    assert!(commits < 150, "{commits} commits for 301 events");
}

/// One caller's conflict is not its neighbours'.
#[tokio::test]
async fn a_conflict_in_a_group_is_its_own() {
    let log = open(&apart());
    log.append(event(0)).await.unwrap();
    let mut other = event(0);
    other.action = "cancel".into();
    let (good, bad, again) =
        tokio::join!(log.append(event(1)), log.append_batch(vec![event(2), other]), log.append(event(0)));
    assert_eq!((good.unwrap().index, again.unwrap().index), (1, 0));
    assert!(matches!(bad, Err(AuditError::Conflict { index: 0, .. })), "{bad:?}");
    assert_eq!(log.head().await.unwrap().size, 2);
}

/// Who stops waiting leaves nobody in doubt, and the batch whole or absent.
#[tokio::test(flavor = "multi_thread")]
async fn callers_that_stop_waiting_harm_nobody() {
    let log = Arc::new(open(&apart()));
    log.append(event(0)).await.unwrap();
    let mut stopped_waiting = 0;
    for round in 1..=20u64 {
        let batch = |first: u64| (0..3).map(|n| event(round * 1_000 + first + n)).collect::<Vec<_>>();
        let mut dropped = Box::pin(log.append_batch(batch(0)));
        // Polled once, so that it stands in line, and then dropped.
        let polled = std::future::poll_fn(|cx| Poll::Ready(dropped.as_mut().poll(cx).is_pending())).await;
        stopped_waiting += u32::from(polled);
        drop(dropped);
        log.append_batch(batch(100)).await.unwrap();
        let again = log.append_batch(batch(0)).await.unwrap();
        assert!(again.windows(2).all(|pair| pair[0].index + 1 == pair[1].index), "the batch was torn: {again:?}");
    }
    assert_eq!(log.checkpoint(None).await.unwrap().size, 1 + 20 * 6);
    assert!(stopped_waiting > 0, "a busy machine may answer within one poll, but not always");
}

#[tokio::test]
async fn closing_waits_for_whoever_stands_in_line_and_leaves_a_shared_handle_open() {
    let config = apart();
    let postgres = Postgres::new(config.clone()).unwrap();
    let log = PostgresAuditLog::new(postgres.clone(), SystemClock::shared());
    assert_eq!(log.health().await.status, HealthStatus::NeverConnected);
    log.append(event(0)).await.unwrap();
    {
        let mut dropped = pin!(log.append(event(1)));
        let _ = std::future::poll_fn(|cx| Poll::Ready(dropped.as_mut().poll(cx).is_pending())).await;
    }
    log.close().await.unwrap();
    assert!(matches!(log.append(event(2)).await, Err(AuditError::Closed)));
    assert_eq!(log.health().await.status, HealthStatus::Down);
    let other = PostgresAuditLog::new(postgres, SystemClock::shared());
    assert_eq!(other.head().await.unwrap().size, 2, "what stood in line is there");
}

/// Pages end by bytes as well as by rows, and large events go in and come out.
#[tokio::test]
async fn large_events_verify_in_small_pages() {
    let log = open(&apart());
    let large = |n| {
        let mut event = event(n);
        event.action = "x".repeat(60_000);
        event
    };
    log.append_batch((0..90).map(large).collect()).await.unwrap();
    let verdict = log.verify(None).await.unwrap();
    assert!(matches!(verdict, Verdict::Unanchored { head, .. } if head.size == 90), "{verdict:?}");
    let page = log.query(AuditQuery { limit: 90, ..AuditQuery::default() }).await.unwrap();
    assert!(page.events.iter().zip(0..).all(|(stored, n)| stored.event == large(n)));
}

/// `info` and `health` say what the server says, and a log that must be durable refuses a server that is not.
#[tokio::test]
async fn durability_is_what_the_server_says() {
    let quick = open(&apart());
    assert!(!quick.info().survives_power_cut, "nobody was asked yet");
    quick.head().await.unwrap();
    assert!(!quick.info().survives_power_cut);
    assert!(quick.health().await.detail.contains("fsync off"));
    let strict = open(&apart()).require_durable();
    let refused = strict.append(event(0)).await.unwrap_err();
    assert_eq!(refused.kind(), infra_types::ErrorKind::Permanent);
    assert!(refused.to_string().contains("fsync off"), "{refused}");

    let server = PostgresServer::builder().durable().start();
    let log = open(&config(&server)).require_durable();
    log.append(event(0)).await.unwrap();
    assert!(log.info().survives_power_cut);
    let lax = open(&config(&server).with_option("synchronous_commit", "off"));
    lax.append(event(0)).await.unwrap();
    assert!(!lax.info().survives_power_cut);
    assert!(open(&config(&server).with_option("synchronous_commit", "off")).require_durable().head().await.is_err());
}
