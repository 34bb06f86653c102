//! A Redis that sentinels watch: the suite where nothing fails, and what happens when the primary dies.
#![cfg(feature = "redis")]

mod redis_tools;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use infra_backends::{RedisConfig, RedisTopology};
use infra_state_store::{
    Applied, Batch, Capability, Delta, Key, RedisStateStore, StateStore, StateStoreExt, StoreError, Value,
    conformance::CASES,
};
use infra_testkit::RedisSentinel;
use infra_types::{ErrorKind, HealthStatus, Namespace};

use self::redis_tools::{Servers, open};

fn config(sentinels: &[SocketAddr], service: &str) -> RedisConfig {
    let sentinels = sentinels.iter().map(|at| (at.ip().to_string(), at.port())).collect();
    RedisConfig::new(RedisTopology::sentinel(sentinels, service))
        .with_connect_timeout(Duration::from_secs(2))
        .with_operation_timeout(Duration::from_secs(2))
}

fn home() -> Namespace {
    Namespace::new("home").expect("a valid namespace")
}

fn count() -> Key {
    Key::record("count").expect("a valid key")
}

/// Cases that need a wire to fail: sentinels name the servers themselves, so no proxy is between; a plain server stands for them.
const ON_A_PLAIN_SERVER: [&str; 10] = [
    "a_lost_reply_is_ambiguous",
    "a_lost_request_stores_no_half",
    "a_lost_read_is_no_doubt",
    "cuts_leave_every_batch_whole",
    "an_outage_is_told_in_bounded_time",
    "silence_after_a_request_is_ambiguous",
    "a_slow_wire_changes_no_answer",
    "a_watch_outlives_its_connections",
    "a_killed_server_keeps_what_it_promised",
    "a_shared_store_offers_its_faults",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_suite_where_nothing_fails() {
    let set = tokio::task::block_in_place(RedisSentinel::start);
    let (sentinels, service) = (set.sentinels(), set.service());
    for name in ON_A_PLAIN_SERVER {
        assert!(CASES.iter().any(|case| case.name == name), "no case is called {name}");
    }
    let here: Vec<_> = CASES.iter().filter(|case| !ON_A_PLAIN_SERVER.contains(&case.name)).collect();
    // Two at a time, as a test runner would on two cores: many at once make each other late.
    let workers: Vec<_> = here
        .chunks(here.len().div_ceil(2))
        .map(|cases| {
            let (cases, config) = (cases.to_vec(), config(&sentinels, service));
            tokio::spawn(async move {
                let mut failed = Vec::new();
                for case in cases {
                    let fixture = Servers::new(config.clone(), || Box::pin(std::future::pending()));
                    if tokio::spawn(async move { (case.run)(&fixture).await }).await.is_err() {
                        failed.push(case.name);
                    }
                }
                failed
            })
        })
        .collect();
    let mut failed = Vec::new();
    for worker in workers {
        failed.extend(worker.await.expect("a worker must not panic"));
    }
    assert_eq!(failed, Vec::<&str>::new());
}

/// Counts until it was refused or could not know, then asks who is right.
async fn count_on(store: &RedisStateStore, sure: &mut i64, unsure: &mut i64) -> StoreError {
    loop {
        match store.apply(Batch::new(home()).add(count(), Delta::unbounded(1))).await {
            Ok(applied) => {
                assert!(matches!(applied[..], [Applied::Counter(_)]));
                *sure += 1;
            }
            Err(e) => {
                *unsure += i64::from(e.kind() == ErrorKind::Ambiguous);
                return e;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn another_primary_is_found_and_a_durable_store_waits_for_somebody_to_look() {
    let mut set = tokio::task::block_in_place(RedisSentinel::start);
    let config = config(&set.sentinels(), set.service());
    let (store, durable): (Arc<RedisStateStore>, RedisStateStore) =
        (open(&config), Arc::into_inner(open(&config)).expect("nobody else has it").durable());
    let (mut sure, mut unsure) = (0, 0);
    for _ in 0..20 {
        store.increment(&home(), &count(), 1).await.unwrap();
        sure += 1;
    }
    assert_eq!(durable.get(&home(), &count()).await.unwrap().map(|e| e.value), Some(Value::Counter(20)));
    assert!(!store.info().has(Capability::SurvivePowerCut), "a replica may lack what was answered");
    // Let the replicas have it, so that this test is about the client.
    let primary = set.master().expect("a primary");
    let _ = set.servers()[primary].cli(&["WAIT", "2", "5000"]);
    let old = set.kill_master();
    let e = count_on(&store, &mut sure, &mut unsure).await;
    assert!(matches!(e.kind(), ErrorKind::Ambiguous | ErrorKind::Unavailable | ErrorKind::Transient), "{e:?}");
    let new = tokio::task::block_in_place(|| set.wait_for_new_master(old));
    assert_ne!(new, old);
    let back = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            match store.increment(&home(), &count(), 1).await {
                Ok(found) => break found,
                Err(e) => {
                    unsure += i64::from(e.kind() == ErrorKind::Ambiguous);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    });
    let found = back.await.expect("the same handle finds the new primary");
    sure += 1;
    assert!((sure..=sure + unsure).contains(&found), "{found}: {sure} sure, {unsure} unsure");
    assert_eq!(store.health().await.status, HealthStatus::Up);

    let refused = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            match durable.get(&home(), &count()).await {
                Err(e) if e.to_string().contains("took over") => break e,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Ok(found) => panic!("nobody has looked yet: {found:?}"),
            }
        }
    });
    assert_eq!(refused.await.expect("it finds out").kind(), ErrorKind::Unavailable);
    durable.acknowledge_failover();
    assert_eq!(durable.get(&home(), &count()).await.unwrap().map(|e| e.value), Some(Value::Counter(found)));
}
