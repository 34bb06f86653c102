//! A name is one process's at a time, and who lost it approves nothing.

use infra_risk_engine::{HolderState, Outcome, RiskEngine, RiskError};
use infra_state_store::StoreError;
use infra_types::ErrorKind;

use crate::support::*;

async fn assert_lost(engine: &RiskEngine, fence: u64) {
    let error = try_buy(engine, "lost", "1").await.unwrap_err();
    assert!(matches!(error, RiskError::HolderLost { fence: was, .. } if was == fence), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert_eq!(held(engine, "lost").await, None);
}

#[tokio::test]
async fn who_never_joined_approves_nothing() {
    let world = World::new();
    let engine = world.named(config("bot")).await;
    assert_eq!(engine.holder_state(), Some(HolderState::Absent));
    assert_lost(&engine, 0).await;
    assert_eq!(engine.join().await.unwrap(), 1);
    buy(&engine, "a", "1").await;
}

#[tokio::test]
async fn a_name_is_taken_until_it_runs_out_and_then_its_holder_is_out() {
    let world = World::new();
    let (one, two) = (world.joined("bot").await, world.named(config("bot")).await);
    let taken = two.join().await.unwrap_err();
    assert!(matches!(taken, RiskError::Store(StoreError::LeaseHeld { .. })), "{taken:?}");
    world.pass(TTL / 2);
    one.renew().await.unwrap();
    world.pass(TTL / 2);
    assert!(two.join().await.is_err(), "it was renewed");
    world.pass(TTL / 2);
    assert_eq!(two.join().await.unwrap(), 2);
    assert_lost(&one, 1).await;
    assert_eq!(one.holder_state(), Some(HolderState::Lost { fence: 1 }));
    buy(&two, "a", "1").await;
    assert!(one.join().await.is_err(), "the name is the other's now");
}

#[tokio::test]
async fn who_slept_goes_on_if_nobody_swept() {
    let world = World::new();
    let engine = world.joined("bot").await;
    buy(&engine, "a", "1").await;
    world.pass(TTL * 3);
    buy(&engine, "b", "1").await;
    // Joining again is not a new holder either: what it holds stays its own.
    assert_eq!(engine.join().await.unwrap(), 1);
    assert_eq!(engine.sweep_orphans().await.unwrap(), vec![]);
}

#[tokio::test]
async fn who_slept_and_was_swept_approves_nothing_until_it_joins_again() {
    let world = World::new();
    let (sleeper, sweeper) = (world.joined("sleeper").await, world.joined("sweeper").await);
    let mut before = buy(&sleeper, "a", "1").await;
    world.pass(TTL);
    assert_eq!(ids(&sweeper.sweep_orphans().await.unwrap()), ["a"]);
    assert_lost(&sleeper, 1).await;
    assert!(matches!(sleeper.renew().await.unwrap_err(), RiskError::HolderLost { .. }));
    // What the venue says of its order is booked all the same.
    filled(&sleeper, &mut before, &fill("0.5", "100")).await;
    assert!(held(&sleeper, "a").await.unwrap().is_orphaned(), "a report is not a holder");
    world.pass(std::time::Duration::from_millis(1));
    assert!(sleeper.join().await.unwrap() > 1);
    buy(&sleeper, "b", "1").await;
    assert_eq!(ids(&sweeper.orphans().await.unwrap()), ["a"]);
    settle(&sleeper, &mut before, Outcome::End).await.unwrap();
    assert_eq!(sweeper.orphans().await.unwrap(), vec![]);
}

#[tokio::test]
async fn who_leaves_lets_the_next_one_in_at_once() {
    let world = World::new();
    let (one, two) = (world.joined("bot").await, world.named(config("bot")).await);
    buy(&one, "a", "1").await;
    one.leave().await.unwrap();
    assert_lost(&one, 1).await;
    assert_eq!(two.join().await.unwrap(), 2);
    buy(&two, "b", "1").await;
    assert_eq!(ids(&two.sweep_orphans().await.unwrap()), ["a"], "what the one before held is not the next one's");
}
