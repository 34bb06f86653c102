//! Processes that share one limit and are killed: the short form of the example `prove_shared_limit`.
#![cfg(any(feature = "sqlite", feature = "redis", feature = "postgres"))]

#[path = "../examples/prove_shared_limit/mod.rs"]
mod proof;

use std::{sync::Arc, time::Duration};

use infra_testkit::{KillableChild, child_argument};

use self::proof::{Backend, Settings, child, prove, table};

/// Plays a part, or does it all and asserts that every promise held.
fn held(backend: Backend, test: &'static str) {
    if let Some(part) = child_argument() {
        child(part.to_str().expect("the part is text"));
        return;
    }
    let report = prove(&Settings {
        backend,
        bots: 4,
        attempts: 200,
        kills: 2,
        limit: 20_000,
        ttl: Duration::from_secs(1),
        seed: 7,
        spawn: Arc::new(move |part| KillableChild::this_test(test, part)),
    });
    let (holds, table) = (report.holds(), table(&[report]));
    println!("{table}");
    assert!(holds, "{table}");
}

#[cfg(feature = "sqlite")]
#[test]
fn sqlite_keeps_one_limit() {
    held(Backend::Sqlite, "sqlite_keeps_one_limit");
}

#[cfg(feature = "redis")]
#[test]
fn redis_keeps_one_limit() {
    held(Backend::Redis, "redis_keeps_one_limit");
}

#[cfg(feature = "postgres")]
#[test]
fn postgres_keeps_one_limit() {
    held(Backend::Postgres, "postgres_keeps_one_limit");
}
