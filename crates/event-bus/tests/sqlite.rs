//! The suite on SQLite files, and what only a file can show.
#![cfg(feature = "sqlite")]

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use infra_backends::{BackendError, Sqlite, SqliteConfig};
use infra_event_bus::{
    Delivery, EventBus, Handler, HandlerError, Pattern, SqliteEventBus, SubscribeOptions,
    conformance::{Fixture, config},
    handler_fn,
};
use infra_types::{Clock, Envelope, ErrorKind, HealthStatus, ManualClock, Timestamp, Topic};
use tokio::sync::watch;

struct File {
    dir: tempfile::TempDir,
    clock: ManualClock,
    bus: Arc<SqliteEventBus>,
}

fn open(dir: &tempfile::TempDir, clock: &ManualClock) -> Arc<SqliteEventBus> {
    let sqlite = Sqlite::new(SqliteConfig::new(dir.path().join("bus.db")));
    Arc::new(SqliteEventBus::with_config(sqlite, Arc::new(clock.clone()), config()))
}

fn file() -> File {
    let dir = tempfile::tempdir().expect("a directory for the file");
    let clock = ManualClock::default();
    let bus = open(&dir, &clock);
    File { dir, clock, bus }
}

#[async_trait]
impl Fixture for File {
    fn bus(&self) -> Arc<dyn EventBus> {
        self.bus.clone()
    }

    async fn other(&self) -> Option<Arc<dyn EventBus>> {
        Some(open(&self.dir, &self.clock))
    }

    async fn reopen(&mut self) {
        self.bus.abandon();
        self.bus = open(&self.dir, &self.clock);
    }

    fn clock(&self) -> ManualClock {
        self.clock.clone()
    }
}

infra_event_bus::event_bus_conformance!(file());

fn at_least_once(handler: Arc<dyn Handler>) -> SubscribeOptions {
    SubscribeOptions::at_least_once(Pattern::new("*").expect("good"), "g", handler)
}

fn event(data: &str) -> Envelope {
    Envelope::new(Topic::new("t").expect("good"), "test.v1", Timestamp::EPOCH, data.to_owned())
}

async fn give<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), work).await.expect("it happens in time")
}

/// Another handle on the file stands for another process: it shares nothing but the file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_consumer_finds_what_another_process_published() {
    let here = file();
    let there = open(&here.dir, &here.clock);
    let (handled, mut count) = watch::channel(0);
    let handler = handler_fn(move |_| {
        handled.send_modify(|n| *n += 1);
        async { Ok(()) }
    });
    let sub = here.bus.subscribe(at_least_once(handler)).await.unwrap();
    sub.drained().await.unwrap();
    for n in 1..=3 {
        there.publish(event("x"), Delivery::AtLeastOnce).await.unwrap();
        // No wake-up crosses the file: the next poll finds it.
        give(async {
            while *count.borrow_and_update() < n {
                here.clock.advance(Duration::from_millis(20));
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    give(sub.drained()).await.unwrap();
    assert_eq!(there.status("g").await.unwrap().pending, 0);
}

/// What cannot be read goes to the dead letters at once, and what stands behind it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_row_becomes_a_dead_letter() {
    let f = file();
    let handler = handler_fn(|_| async { Ok(()) });
    f.bus.subscribe(at_least_once(handler.clone())).await.unwrap().stop().await.unwrap();
    for n in 0..3 {
        f.bus.publish(event(&n.to_string()), Delivery::AtLeastOnce).await.unwrap();
    }
    let tamper = Sqlite::new(SqliteConfig::new(f.dir.path().join("bus.db")));
    let damage = "UPDATE bus_event SET correlation = 'no id' WHERE seq = 1;
                  UPDATE bus_event SET time_ns = 'no time' WHERE seq = 2";
    tamper.write::<_, BackendError, _>(move |conn| Ok(conn.execute_batch(damage)?)).await.unwrap();
    let sub = f.bus.subscribe(at_least_once(handler)).await.unwrap();
    give(sub.drained()).await.unwrap();
    while sub.metrics().processed < 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!((sub.metrics().processed, sub.metrics().dead_lettered), (1, 2));
    let dead = f.bus.dead_letters("g", 0, 10).await.unwrap();
    assert_eq!(dead.len(), 2);
    assert!(dead.iter().all(|d| d.envelope.is_none() && d.error.contains("cannot be read")), "{dead:?}");
}

/// A file of a newer program is refused in words, by every method, and health says so.
#[tokio::test]
async fn a_newer_file_is_refused() {
    let f = file();
    f.bus.publish(event("x"), Delivery::AtLeastOnce).await.unwrap();
    assert!(f.bus.info().survives_power_cut, "the default is synchronous = FULL");
    let tamper = Sqlite::new(SqliteConfig::new(f.dir.path().join("bus.db")));
    let newer = "INSERT INTO infra_schema VALUES ('bus', 99, 0)";
    tamper.write::<_, BackendError, _>(move |conn| Ok(conn.execute_batch(newer)?)).await.unwrap();
    let old = open(&f.dir, &f.clock);
    assert_eq!(old.health().await.status, HealthStatus::NeverConnected);
    let refused = old.publish(event("y"), Delivery::AtLeastOnce).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Permanent);
    assert!(refused.to_string().contains("newer program"), "{refused}");
}

/// After the wall clock stepped back by a day, neither a retry nor a dead consumer's claim waits for a day.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_clock_that_steps_back_prolongs_no_wait() {
    let mut f = file();
    let (fails, hangs) = (event("fails").with_key("a"), event("hangs").with_key("b"));
    let (entered, mut at_gate) = watch::channel(false);
    let handler = handler_fn(move |d| {
        let entered = entered.clone();
        async move {
            if d.envelope.data == "hangs".as_bytes() {
                entered.send_replace(true);
                std::future::pending::<()>().await;
            }
            Err(HandlerError::Retry("later".into()))
        }
    });
    let sub = f.bus.subscribe(at_least_once(handler)).await.unwrap();
    for e in [fails, hangs] {
        f.bus.publish(e, Delivery::AtLeastOnce).await.unwrap();
    }
    give(at_gate.wait_for(|in_it| *in_it)).await.unwrap();
    give(async {
        while sub.metrics().failed == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    f.reopen().await;
    f.clock.set_wall(f.clock.wall().saturating_sub(Duration::from_secs(86_400)));
    let sub = f.bus.subscribe(at_least_once(handler_fn(|_| async { Ok(()) }))).await.unwrap();
    give(sub.drained()).await.unwrap();
    while sub.metrics().processed < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(sub.metrics().processed, 2);
}
