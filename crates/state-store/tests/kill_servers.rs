//! Servers and clients that are killed while they write: the short form of the example `prove_state_store`.
#![cfg(any(feature = "sqlite", feature = "redis", feature = "postgres"))]

#[path = "../examples/prove_state_store/mod.rs"]
mod proof;

use std::sync::Arc;

use infra_testkit::{KillableChild, child_argument};

use self::proof::{Backend, Report, Settings, client, prove, table};

/// Plays the client's part (none), or does it all.
fn run(backend: Backend, test: &'static str, forgets: bool) -> Option<Report> {
    if let Some(job) = child_argument() {
        client(job.to_str().expect("the job is text"));
        return None;
    }
    let report = prove(Settings {
        backend,
        // A file without a server is so quick that fewer would be over before the third kill.
        batches: if backend == Backend::Sqlite { 6_000 } else { 2_000 },
        server_kills: 3,
        client_kills: 3,
        cuts: if forgets { 0 } else { 14 },
        seed: 7,
        forgets,
        tells_progress: false,
        stop: Arc::default(),
        spawn: Arc::new(move |job| KillableChild::this_test(test, job)),
    });
    Some(report.expect("nobody stops it"))
}

/// Asserts that every promise held.
fn held(backend: Backend, test: &'static str) {
    let Some(report) = run(backend, test, false) else { return };
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

#[cfg(feature = "redis")]
#[test]
fn a_redis_that_keeps_nothing_is_found_out() {
    if let Some(report) = run(Backend::Redis, "a_redis_that_keeps_nothing_is_found_out", true) {
        assert!(report.verdict.lost > 0 && !report.holds(), "{}", table(&[report]));
    }
}

#[cfg(feature = "postgres")]
#[test]
fn postgres_keeps_every_batch_whole() {
    held(Backend::Postgres, "postgres_keeps_every_batch_whole");
}
