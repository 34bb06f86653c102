//! Bots that are killed, stopped and cut off around a halt: the short form of the example `prove_halt`.
#![cfg(any(feature = "sqlite", feature = "redis"))]

#[path = "../examples/prove_halt/child.rs"]
mod child;
#[path = "../examples/prove_halt/real.rs"]
mod real;

use infra_testkit::{KillableChild, child_argument};

use self::real::Backend;

fn held(backend: Backend, test: &'static str) {
    if let Some(job) = child_argument() {
        child::run(job.to_str().expect("the job is text"));
        return;
    }
    let figures = real::run(backend, 7, 3, &|job| KillableChild::this_test(test, job), |_| {});
    println!("{figures}");
    assert!(figures.holds(), "{figures}");
}

#[cfg(feature = "sqlite")]
#[test]
fn nothing_is_placed_after_a_lease_on_sqlite() {
    held(Backend::Sqlite, "nothing_is_placed_after_a_lease_on_sqlite");
}

#[cfg(feature = "redis")]
#[test]
fn nothing_is_placed_after_a_lease_on_redis() {
    held(Backend::Redis, "nothing_is_placed_after_a_lease_on_redis");
}
