//! Servers and clients that are killed while they write: the short form of the example `prove_state_store`.
#![cfg(any(feature = "sqlite", feature = "redis", feature = "postgres"))]

#[path = "../examples/prove_state_store/mod.rs"]
mod proof;

use std::sync::Arc;

use infra_testkit::{KillableChild, child_argument};

use self::proof::{Backend, Settings, client, prove, table};

/// Plays the client's part, or does it all and asserts that every promise held.
fn held(backend: Backend, test: &'static str) {
    if let Some(job) = child_argument() {
        return client(job.to_str().expect("the job is text"));
    }
    let report = prove(Settings {
        backend,
        // A file without a server is so quick that fewer would be over before the third kill.
        batches: if backend == Backend::Sqlite { 6_000 } else { 2_000 },
        server_kills: 3,
        client_kills: 3,
        cuts: 14,
        seed: 7,
        tells_progress: false,
        stop: Arc::default(),
        spawn: Arc::new(move |job| KillableChild::this_test(test, job)),
    });
    let report = report.expect("nobody stops it");
    let holds = report.holds();
    let table = table(&[report]);
    println!("{table}");
    assert!(holds, "{table}");
}

#[cfg(feature = "sqlite")]
#[test]
fn sqlite_keeps_every_batch_whole() {
    held(Backend::Sqlite, "sqlite_keeps_every_batch_whole");
}

#[cfg(feature = "redis")]
#[test]
fn redis_keeps_every_batch_whole() {
    held(Backend::Redis, "redis_keeps_every_batch_whole");
}

#[cfg(feature = "postgres")]
#[test]
fn postgres_keeps_every_batch_whole() {
    held(Backend::Postgres, "postgres_keeps_every_batch_whole");
}
