//! Groups of accounts, and cancels as messages.

use std::time::Duration;

use infra_factory::{
    gate::GateError,
    risk_engine::{Coverage, Limit, Mode, Rule, code},
    types::Scope,
};

use crate::common::{Venue, World, limits, patient_gate};

async fn grouped() -> World {
    let mut limits = limits();
    limits.groups = [("main".parse().unwrap(), "desk".parse().unwrap())].into();
    World::with(limits, patient_gate()).await
}

#[tokio::test]
async fn a_stop_of_a_group_covers_the_accounts_in_it_and_no_other() {
    let (world, venue) = (grouped().await, Venue::default());
    let sim = "sim".parse().unwrap();
    let (desk, other): (Scope, Scope) = ("group:desk".parse().unwrap(), "group:other".parse().unwrap());
    let before = world.buy("o-1", "1").await.unwrap();
    let resting = world.buy("o-2", "1").await.unwrap();
    world.gate.place(resting, &venue).await.unwrap();
    world.emergency.halt_in(&other, "anna", "not ours").await.unwrap();
    let _ = world.buy("o-3", "1").await.unwrap();
    assert_eq!(world.gate.withdraw(&other, &sim, &venue).await.unwrap(), Default::default());
    assert!(venue.cancels().is_empty(), "another group's halt takes nothing back");

    world.emergency.halt_in(&desk, "anna", "ours").await.unwrap();
    assert_eq!(world.buy("o-4", "1").await.unwrap_err().code(), code::NOT_REDUCING_IN_HALT);
    let e = world.gate.place(before, &venue).await.unwrap_err();
    assert!(matches!(&e, GateError::Halted { state, .. } if state == "HALT"), "{e}");
    world.gate.withdraw(&desk, &sim, &venue).await.unwrap();
    assert!(venue.cancels().contains(&"o-2".parse().unwrap()));
}

#[tokio::test]
async fn cancels_count_as_messages_and_always_go() {
    let mut limits = limits();
    let limit = Limit::MessageRate { max: 4, window: Duration::from_secs(3_600) };
    limits.rules.push(Rule {
        id: "rate".into(),
        covers: Coverage::One(Scope::Firm),
        limit,
        warn_at: None,
        mode: Mode::Enforce,
    });
    let (world, venue) = (World::with(limits, patient_gate()).await, Venue::default());
    let approved = world.buy("o-1", "1").await.unwrap();
    world.gate.place(approved, &venue).await.unwrap();
    let id = "o-1".parse().unwrap();
    // One order and five cancels: more than may be sent, and each goes.
    for _ in 0..4 {
        world.gate.cancel(&id, &venue).await.unwrap();
    }
    assert_eq!(world.gate.cancel_all(&venue).await.unwrap(), (1, 0));
    assert_eq!(venue.cancels().len(), 5);
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    let e = world.buy("o-2", "1").await.unwrap_err();
    assert_eq!(e.code(), code::MESSAGE_RATE, "{e}");
    assert_eq!(world.gate.messages_uncounted(), 0);
    // Without a ledger it goes uncounted.
    world.store.cut(true);
    world.gate.cancel(&id, &venue).await.unwrap();
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!((venue.cancels().len(), world.gate.messages_uncounted()), (6, 1));
}
