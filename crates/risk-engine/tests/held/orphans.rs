//! Orders of dead holders are found once and go on counting.

use std::sync::Arc;

use infra_risk_engine::{HeldState, OrphanCause, Outcome, RiskError, RiskEvent, RiskEventKind};
use infra_state_store::{Key, Op};

use crate::support::*;

/// What was told, oldest first.
async fn events(world: &World) -> Vec<RiskEvent> {
    let space = infra_types::Namespace::new("ledger").unwrap();
    let events = infra_risk_engine::RiskEvents::new(world.store.clone(), space).unwrap();
    let filter = infra_risk_engine::RiskEventFilter { limit: 1_000, ..Default::default() };
    let mut page = events.query(&filter).await.unwrap();
    page.events.reverse();
    page.events
}

#[tokio::test]
async fn of_dead_holders_every_order_is_marked_once_and_counts_and_the_living_are_left_alone() {
    let world = World::new();
    let (dead, alive) = (world.joined("dead").await, world.joined("alive").await);
    for n in 0..20 {
        buy(&dead, &format!("d-{n:02}"), "1").await;
        buy(&alive, &format!("l-{n:02}"), "1").await;
    }
    world.pass(TTL / 2);
    alive.renew().await.unwrap();
    assert_eq!(alive.sweep_orphans().await.unwrap(), vec![], "its lease has not run out");
    world.pass(TTL / 2);
    let orphaned = alive.sweep_orphans().await.unwrap();
    assert_eq!(orphaned.len(), 20);
    let at = HeldState::Orphaned { at: infra_types::Clock::wall(&world.clock), why: OrphanCause::HolderGone };
    assert!(orphaned.iter().all(|held| held.holder.as_str() == "dead" && held.state == at));
    assert_eq!(exposure(&alive).await, dec("4000"));
    assert_eq!(alive.sweep_orphans().await.unwrap(), vec![]);
    assert_eq!(alive.orphans().await.unwrap(), orphaned);
    let told = events(&world).await;
    assert_eq!(told.iter().map(|event| event.order.clone().unwrap()).collect::<Vec<_>>(), {
        orphaned.iter().map(|held| held.order.id.clone()).collect::<Vec<_>>()
    });
    assert!(told.iter().all(|event| (event.kind, event.code.as_str()) == (RiskEventKind::Orphaned, "holder_gone")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_several_sweepers_one_marks_each_order_and_its_rows_are_written_once() {
    let world = World::new();
    let dead = world.joined("dead").await;
    for n in 0..90 {
        buy(&dead, &format!("d-{n:02}"), "1").await;
    }
    world.pass(TTL);
    let mut sweepers = Vec::new();
    for n in 0..6 {
        sweepers.push(Arc::new(world.joined(&format!("sweeper-{n}")).await));
    }
    let sweeping = sweepers.iter().cloned().map(|engine| {
        tokio::spawn(async move {
            let row = |held: &infra_risk_engine::HeldOrder| {
                let key = Key::record(format!("row/{}", held.order.id)).unwrap();
                vec![Op::Add { key, delta: infra_state_store::Delta::unbounded(1), ttl: infra_state_store::Ttl::Keep }]
            };
            engine.sweep_orphans_with(&row).await.unwrap().len()
        })
    });
    let mut marked = 0;
    for sweep in sweeping.collect::<Vec<_>>() {
        marked += sweep.await.unwrap();
    }
    assert_eq!((marked, sweepers[0].orphans().await.unwrap().len()), (90, 90));
    let namespace = infra_types::Namespace::new("ledger").unwrap();
    let rows = world.store.scan(&namespace, infra_state_store::Scan::new("row/")).await.unwrap().entries;
    assert_eq!(rows.len(), 90);
    assert!(rows.iter().all(|(_, row)| row.value.as_counter() == Some(1)), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_was_on_its_way_while_its_holder_was_retired_is_refused() {
    let world = World::new();
    let (late, sweeper) = (Arc::new(world.joined("late").await), world.joined("sweeper").await);
    buy(&late, "a", "1").await;
    world.pass(TTL);
    // `compose` runs between the decision and the batch: exactly there the sweeper comes.
    let sweep = |_: &infra_risk_engine::Approval| {
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(sweeper.sweep_orphans())).unwrap();
        vec![]
    };
    let late_order = order("b", infra_types::Side::Buy, "1");
    let error = late.check_and_reserve(late_order, infra_risk_engine::Stance::Open, &sweep).await.unwrap_err();
    assert!(matches!(error, RiskError::HolderLost { .. }), "{error:?}");
    assert_eq!(ids(&sweeper.held_orders(None).await.unwrap()), ["a"]);
}

#[tokio::test]
async fn an_order_whose_outcome_nobody_knows_is_an_orphan_until_it_is_adopted_or_over() {
    let world = World::new();
    let (one, two) = (world.joined("one").await, world.joined("two").await);
    let mut first = buy(&one, "a", "1").await;
    buy(&one, "b", "1").await;
    for _ in 0..2 {
        let unknown = one.mark_unknown(&account(), &id("a")).await.unwrap();
        assert!(matches!(unknown.state, HeldState::Orphaned { why: OrphanCause::OutcomeUnknown, .. }));
    }
    assert_eq!((ids(&two.orphans().await.unwrap()), exposure(&two).await), (vec!["a".to_owned()], dec("200")));
    let taken = two.adopt(&account(), &id("a")).await.unwrap();
    assert_eq!((taken.holder.as_str(), taken.fence, taken.state), ("two", 1, HeldState::Held));
    assert_eq!(two.adopt(&account(), &id("a")).await.unwrap(), taken);
    let told: Vec<_> = events(&world).await.into_iter().map(|event| event.code).collect();
    assert_eq!(told, ["outcome_unknown", "adopted"], "what changes nothing tells nothing");
    for (engine, order) in [(&one, "a"), (&two, "b")] {
        let error = engine.adopt(&account(), &id(order)).await.unwrap_err();
        assert!(matches!(error, RiskError::NotOrphaned { .. }), "{error:?}");
    }
    // The approval's own engine remembers an older record, and settles all the same.
    settle(&one, &mut first, Outcome::End).await.unwrap();
    for error in [two.adopt(&account(), &id("a")).await, two.mark_unknown(&account(), &id("a")).await] {
        assert!(matches!(error, Err(RiskError::NotHeld(_))), "{error:?}");
    }
}

#[tokio::test]
async fn who_lost_its_name_adopts_nothing() {
    let world = World::new();
    let (lost, other) = (world.joined("lost").await, world.joined("other").await);
    buy(&lost, "a", "1").await;
    world.pass(TTL);
    other.sweep_orphans().await.unwrap();
    let error = lost.adopt(&account(), &id("a")).await.unwrap_err();
    assert!(matches!(error, RiskError::HolderLost { .. }), "{error:?}");
    assert!(held(&other, "a").await.unwrap().is_orphaned());
}

#[tokio::test]
async fn adopted_orders_become_orphans_again_when_the_new_holder_dies() {
    let world = World::new();
    let (one, two, three) = (world.joined("one").await, world.joined("two").await, world.joined("three").await);
    buy(&one, "a", "1").await;
    one.leave().await.unwrap();
    two.sweep_orphans().await.unwrap();
    two.adopt(&account(), &id("a")).await.unwrap();
    assert_eq!(three.sweep_orphans().await.unwrap(), vec![]);
    two.leave().await.unwrap();
    assert_eq!(ids(&three.sweep_orphans().await.unwrap()), ["a"]);
}
