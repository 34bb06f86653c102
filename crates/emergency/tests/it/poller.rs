//! The background refresh, on a clock that the test owns.

use std::{sync::Arc, time::Duration};

use infra_emergency::{EmergencyState, Stance};
use infra_types::ManualClock;

use crate::store::{Fault, FaultyStore, builder, process};

async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn it_sees_a_halt_within_the_interval_and_fails_closed_within_the_lease() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let c = Arc::new(builder("a", &store, &clock).build().unwrap());
    let other = process("b", &store, &clock).await;
    let guard = c.spawn_poller();
    settle().await;
    assert_eq!(c.stance(), Stance::Open);

    // Longer than the lease, with the poller at work.
    for _ in 0..12 {
        clock.advance(Duration::from_millis(250));
        settle().await;
        assert_eq!(c.stance(), Stance::Open);
    }
    store.fail(Fault::Down);
    for _ in 0..7 {
        clock.advance(Duration::from_millis(250));
        settle().await;
        assert_eq!(c.stance(), Stance::Open);
    }
    clock.advance(Duration::from_millis(250));
    assert_eq!(c.stance(), Stance::ReduceOnly);
    settle().await;
    assert_eq!(c.refreshes_failed(), 8);

    store.heal();
    other.halt("bob", "loss").await.unwrap();
    clock.advance(Duration::from_millis(250));
    settle().await;
    assert_eq!(c.state(), EmergencyState::Halt);
    drop(guard);
}

#[tokio::test]
async fn it_ends_with_its_guard_or_with_the_last_handle() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let c = Arc::new(process("a", &store, &clock).await);
    drop(c.spawn_poller());
    settle().await;
    let until = c.valid_until();
    clock.advance(Duration::from_millis(250));
    settle().await;
    assert_eq!(c.valid_until(), until);

    let _guard = c.spawn_poller();
    settle().await;
    let weak = Arc::downgrade(&c);
    drop(c);
    assert!(weak.upgrade().is_none(), "a sleeping poller keeps nothing alive");
}
