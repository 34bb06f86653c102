//! The tasks beside a bot.

use std::sync::{Arc, Mutex};

use infra_risk_engine::{GuardEvent, HolderState, RiskEngine, Settles, VenueTruth};
use infra_types::Clock;

use crate::support::*;

type Told = Arc<Mutex<Vec<String>>>;

fn guarded(world: &World, engine: &Arc<RiskEngine>) -> (infra_risk_engine::Guard, Told) {
    let told = Told::default();
    let heard = told.clone();
    let guard = engine.guard(Arc::new(world.clock.clone()), move |event| {
        let text = match event {
            GuardEvent::Orphaned(orders) => format!("orphaned {}", ids(&orders).join(" ")),
            GuardEvent::Lost(_) => "lost".to_owned(),
            other => format!("{other:?}"),
        };
        heard.lock().unwrap().push(text);
    });
    (guard.unwrap(), told)
}

/// Lets tasks that wait for nothing but the clock come to rest after each step of it.
async fn pass(world: &World, steps: u32) {
    for _ in 0..steps {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        world.pass(TTL / 10);
    }
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_guarded_name_lives_and_a_dead_one_is_noticed_within_lease_and_sweep() {
    let world = World::new();
    let (dead, alive) = (world.joined("dead").await, Arc::new(world.joined("alive").await));
    buy(&dead, "d", "1").await;
    buy(&alive, "l", "1").await;
    let (_guard, told) = guarded(&world, &alive);
    pass(&world, 9).await;
    assert_eq!(*told.lock().unwrap(), Vec::<String>::new());
    // The lease of ten steps, the sweep of two.
    pass(&world, 3).await;
    assert_eq!(*told.lock().unwrap(), ["orphaned d"]);
    pass(&world, 30).await;
    assert_eq!(alive.holder_state(), Some(HolderState::Holding { fence: 1 }));
    assert_eq!(told.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_lost_name_is_told_once_and_again_after_it_was_joined_and_lost_again() {
    let world = World::new();
    let (one, other) = (Arc::new(world.joined("one").await), world.joined("other").await);
    buy(&one, "a", "1").await;
    let (guard, told) = guarded(&world, &one);
    for fence in [2, 4] {
        pass(&world, 2).await;
        // Everything stands still for longer than the lease, but for the sweeper.
        world.clock.advance(TTL * 2);
        other.sweep_orphans().await.unwrap();
        pass(&world, 4).await;
        assert!(matches!(one.holder_state(), Some(HolderState::Lost { .. })));
        assert!(one.join().await.unwrap() > fence - 1);
        buy(&one, &format!("b-{fence}"), "1").await;
    }
    assert_eq!(*told.lock().unwrap(), ["lost", "lost"]);
    drop(guard);
    pass(&world, 30).await;
    assert_eq!(ids(&other.sweep_orphans().await.unwrap()), ["b-4"], "without a guard the name runs out");
}

#[tokio::test]
async fn a_difference_is_told_as_lasting_when_it_was_seen_twice() {
    let world = World::new();
    let engine = Arc::new(world.joined("bot").await);
    let told: Arc<Mutex<Vec<(usize, usize)>>> = Arc::default();
    let (heard, clock) = (told.clone(), world.clock.clone());
    let ask = move |_: Vec<infra_risk_engine::HeldOrder>| {
        let mut truth = VenueTruth::asked_at(clock.wall());
        truth.positions.insert(btc(), dec("1"));
        async move { Ok::<_, String>(truth) }
    };
    let tell = move |looked: Result<(&infra_risk_engine::Reconciled, _), _>| {
        let (now, still): (_, std::collections::BTreeSet<infra_risk_engine::Difference>) = looked.unwrap();
        heard.lock().unwrap().push((now.differences.len(), still.len()));
    };
    let clock = Arc::new(world.clock.clone());
    let _guard = engine.reconcile_every(clock, TTL / 10, account(), Settles::Orphans, ask, tell);
    pass(&world, 2).await;
    assert_eq!(*told.lock().unwrap(), [(1, 0), (1, 1), (1, 1)]);
}
