//! The bus of a preset on real servers: on PostgreSQL too, and through the loss of its server.
#![expect(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

use std::{sync::Arc, time::Duration};

use infra_event_bus::{Delivery, Pattern, SubscribeOptions, handler_fn};
use infra_factory::{
    Infrastructure, Preset,
    config::ConfigBuilder,
    types::{Clock, Envelope, HealthStatus, SystemClock, Topic},
};
use infra_testkit::{PostgresServer, RedisServer, TestDir, unique_name};
use parking_lot::Mutex;

fn staging(dir: &TestDir, name: &str, redis: &RedisServer) -> ConfigBuilder {
    ConfigBuilder::new(Preset::Staging)
        .set("data_dir", dir.path().display().to_string())
        .set("postgres.url", PostgresServer::shared().url())
        .set("postgres.schema", name)
        .set("redis.url", redis.url())
        .set("redis.key_prefix", format!("{name}:"))
}

fn signal(n: usize) -> Envelope {
    Envelope::new(Topic::new("signals:BTC").unwrap(), "signal.v1", SystemClock.wall(), n.to_string())
}

/// Subscribes and gives the payloads as they come.
async fn listen(infra: &Infrastructure) -> Arc<Mutex<Vec<String>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let handler = handler_fn(move |event| {
        log.lock().push(String::from_utf8_lossy(&event.envelope.data).into_owned());
        async { Ok(()) }
    });
    let options = SubscribeOptions::at_least_once(Pattern::new("signals:*").unwrap(), "book", handler);
    infra.events().subscribe(options.with_lease(Duration::from_secs(1))).await.unwrap();
    seen
}

async fn until_seen(seen: &Mutex<Vec<String>>, count: usize) {
    let give_up = SystemClock.now() + Duration::from_secs(60);
    while seen.lock().len() < count {
        assert!(SystemClock.now() < give_up, "saw only {:?}", seen.lock());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_while_the_server_is_lost_arrives_in_order_when_it_is_back() {
    let (dir, name) = (TestDir::new(), unique_name());
    let mut redis = RedisServer::builder().config("appendonly", "yes").config("appendfsync", "always").start();
    let infra = Infrastructure::builder(staging(&dir, &name, &redis).build().unwrap()).build().await.unwrap();
    let seen = listen(&infra).await;
    let before = infra.events().publish(signal(0), Delivery::AtLeastOnce).await.unwrap();
    assert!(!before.is_spilled);
    until_seen(&seen, 1).await;
    redis.kill();
    for n in 1..6 {
        let published = infra.events().publish(signal(n), Delivery::AtLeastOnce).await.unwrap();
        assert!(published.is_spilled, "{n}");
    }
    assert_eq!(infra.events().health().await.status, HealthStatus::Degraded, "it goes on taking events");
    redis.restart();
    until_seen(&seen, 6).await;
    assert_eq!(*seen.lock(), ["0", "1", "2", "3", "4", "5"]);
    assert!(infra.close().await.unfinished.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_may_be_on_postgres() {
    let (dir, name) = (TestDir::new(), unique_name());
    let config = staging(&dir, &name, RedisServer::shared()).set("events.backend", "postgres").build().unwrap();
    let infra = Infrastructure::builder(config).build().await.unwrap();
    assert_eq!(infra.events().info().backend, "postgres");
    let seen = listen(&infra).await;
    for n in 0..3 {
        assert!(!infra.events().publish(signal(n), Delivery::AtLeastOnce).await.unwrap().is_spilled);
    }
    until_seen(&seen, 3).await;
    assert_eq!(*seen.lock(), ["0", "1", "2"]);
    assert!(infra.close().await.unfinished.is_empty());
}
