//! Parts of the firm that are stopped by themselves.

use std::sync::Arc;

use infra_emergency::{
    EmergencyController, EmergencyError, EmergencyState, OrderScopes, Stance, Transition, TransitionKind,
};
use infra_state_store::{Batch, StateStore};
use infra_types::{ErrorKind, ManualClock, Scope, UserId, Venue};
use parking_lot::Mutex;

use crate::store::{FaultyStore, namespace, outbox, process, record_key, scope};

use EmergencyState::{Alert, Halt, Normal, Shutdown};

fn anna() -> UserId {
    UserId::new("anna").unwrap()
}

fn at(venue: &Venue) -> OrderScopes<'_> {
    OrderScopes { venue: Some(venue), ..OrderScopes::default() }
}

#[tokio::test]
async fn a_stop_covers_its_scope_everywhere_and_nothing_else() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let (a, b) = (process("a", &store, &clock).await, process("b", &store, &clock).await);
    let (v, w): (Venue, Venue) = ("v".parse().unwrap(), "w".parse().unwrap());
    let halted = a.halt_in(&scope("venue:v"), "bob", "it rejects everything").await.unwrap();
    assert_eq!((halted.scope, halted.state, halted.version), (scope("venue:v"), Halt, 1));
    b.refresh().await.unwrap();
    for c in [&a, &b] {
        assert_eq!(
            (c.stance_of(&at(&v)), c.stance_of(&at(&w)), c.stance()),
            (Stance::ReduceOnly, Stance::Open, Stance::Open)
        );
        assert!(c.can_trade() && c.can_trade_in(&at(&w)) && !c.can_trade_in(&at(&v)));
        let stopped = c.assert_can_trade_in(&at(&v)).unwrap_err();
        assert!(stopped.to_string().contains("venue:v") && stopped.to_string().contains("rejects"), "{stopped}");
    }
    // The wider stop and the narrower one stand apart, and the strongest counts.
    let firm = b.shutdown("carl", "fire").await.unwrap();
    assert_eq!((firm.version, b.stance_of(&at(&v))), (2, Stance::Closed));
    a.refresh().await.unwrap();
    a.rearm(&anna(), "no fire", firm.version).await.unwrap();
    assert_eq!((a.stance(), a.stance_of(&at(&v))), (Stance::Open, Stance::ReduceOnly));
    let scopes: Vec<_> = a.snapshots().into_iter().map(|s| (s.scope.to_string(), s.state)).collect();
    assert_eq!(scopes, [("firm".to_owned(), Normal), ("venue:v".to_owned(), Halt)]);
    assert_eq!(outbox(&store).await.len(), 3);
}

#[tokio::test]
async fn a_rearm_names_its_scope_and_touches_no_other() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let (a, b) = (process("a", &store, &clock).await, process("b", &store, &clock).await);
    let v = a.halt_in(&scope("venue:v"), "bob", "one").await.unwrap();
    // Other scopes move: the look at this one is still good.
    b.halt_in(&scope("account:x"), "bob", "two").await.unwrap();
    b.alert("bob", "three").await.unwrap();
    let back = a.rearm_in(&scope("venue:v"), &anna(), "fine", v.version).await.unwrap();
    assert_eq!((back.state, back.scope), (Normal, scope("venue:v")));
    assert_eq!((a.state(), a.snapshot_of(&scope("account:x")).state), (Alert, Halt));

    // Stopped again: the old look undoes nothing, though the state looks the same.
    let again = b.halt_in(&scope("venue:v"), "bob", "four").await.unwrap();
    let moved = a.rearm_in(&scope("venue:v"), &anna(), "fine", v.version).await.unwrap_err();
    assert!(
        matches!(&moved, EmergencyError::Moved { scope: s, expected: 1, found: 5, state: Halt } if *s == scope("venue:v")),
        "{moved}"
    );
    // Nor does the newest version of the record, which is not this scope's.
    b.halt("bob", "five").await.unwrap();
    assert!(a.rearm_in(&scope("venue:v"), &anna(), "fine", 6).await.is_err());
    a.rearm_in(&scope("venue:v"), &anna(), "fine", again.version).await.unwrap();
    assert_eq!(store.state_in(&scope("venue:v")), Normal);
    assert_eq!(a.rearm_in(&scope("group:g"), &anna(), "never stopped", 0).await.unwrap().state, Normal);
}

#[tokio::test]
async fn subscribers_and_the_history_name_the_scope() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let (a, b) = (process("a", &store, &clock).await, process("b", &store, &clock).await);
    let heard: Arc<Mutex<Vec<Transition>>> = Arc::default();
    let log = Arc::clone(&heard);
    b.subscribe(move |t| log.lock().push(t.clone()));
    let v = a.halt_in(&scope("venue:v"), "bob", "one").await.unwrap();
    a.alert_in(&scope("strategy:s"), "bob", "two").await.unwrap();
    b.refresh().await.unwrap();
    a.rearm_in(&scope("venue:v"), &anna(), "fine", v.version).await.unwrap();
    b.refresh().await.unwrap();
    let heard: Vec<_> = heard.lock().iter().map(|t| format!("{} {} {}", t.scope, t.from, t.to)).collect();
    assert_eq!(heard, ["venue:v NORMAL HALT", "strategy:s NORMAL ALERT", "venue:v HALT NORMAL"]);
    let history = b.history(9).await.unwrap();
    let lines: Vec<_> = history.iter().map(|t| format!("{} {} {} {}", t.version, t.scope, t.to, t.by)).collect();
    assert_eq!(lines, ["3 venue:v NORMAL anna", "2 strategy:s ALERT bob", "1 venue:v HALT bob"]);
    assert_eq!(history[0].kind, TransitionKind::Rearmed);
    let status = b.status(2).await;
    assert_eq!((status.scopes.len(), status.history.len(), status.problem), (1, 2, None));
    assert!(status.is_confirmed && status.firm.state == Normal);
}

#[tokio::test]
async fn the_number_of_scopes_is_bounded_and_a_wider_stop_always_fits() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let a = process("a", &store, &clock).await;
    // Names and words at their longest, with what JSON must escape: the record still fits into one value.
    let reason = "\\\"\u{1}\n".repeat(500);
    let name = |n: usize| scope(&format!("instrument:{}/{n:0>64}", "v".repeat(64)));
    a.halt_in(&name(0), &"\"".repeat(99), &reason).await.unwrap();
    // The others by copying: one by one they would take a minute in a debug build.
    let entry = store.get(&namespace(), &record_key()).await.unwrap().unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(entry.value.as_bytes().unwrap()).unwrap();
    let first = json["scopes"][name(0).to_string()].clone();
    for n in 1..999 {
        json["scopes"][name(n).to_string()] = first.clone();
    }
    store.apply(Batch::new(namespace()).set(record_key(), json.to_string())).await.unwrap();
    process("c", &store, &clock).await.halt_in(&name(999), &"\"".repeat(99), &reason).await.unwrap();
    let whole = store.get(&namespace(), &record_key()).await.unwrap().unwrap();
    assert!(whole.value.as_bytes().unwrap().len() > 700_000, "at their longest");
    let full = a.halt_in(&name(1_000), "bob", "one more").await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::LimitExceeded);
    assert!(full.to_string().contains("stop a wider scope"), "{full}");
    assert_eq!(a.snapshot_of(&name(1_000)).state, Halt, "it holds here");
    a.halt_in(&name(3), "bob", "already stopped").await.unwrap();
    a.halt("bob", "so be it").await.unwrap();
    assert_eq!(process("b", &store, &clock).await.snapshots().len(), 1_001);
    // Room is made by a re-arm, which the stop that waits does not hinder; then it is written.
    let seen = a.snapshot_of(&name(7)).version;
    a.rearm_in(&name(7), &anna(), "fine", seen).await.unwrap();
    a.refresh().await.unwrap();
    assert_eq!(process("b", &store, &clock).await.snapshot_of(&name(1_000)).state, Halt);
}

#[tokio::test]
async fn what_the_store_forgot_is_enforced_and_written_back_in_every_scope() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let a = process("a", &store, &clock).await;
    for n in 0..70 {
        a.halt_in(&scope(&format!("account:{n}")), "bob", "one").await.unwrap();
    }
    store.clear(&namespace()).await.unwrap();
    assert!(matches!(a.refresh().await, Err(EmergencyError::WentBack { known: 70, found: 0 })));
    assert_eq!((a.state(), a.snapshot_of(&scope("account:3")).state), (Halt, Halt));
    a.persist_state().await.unwrap();
    let b = process("b", &store, &clock).await;
    assert_eq!((b.state(), b.snapshots().len()), (Halt, 71));
    assert_eq!(b.snapshot_of(&scope("account:69")).by, "bob");

    // A person opens the firm after another loss: the narrower stops are not theirs to lose.
    store.clear(&namespace()).await.unwrap();
    a.refresh().await.unwrap_err();
    let narrow = a.rearm_in(&scope("account:3"), &anna(), "why not", a.snapshot_of(&scope("account:3")).version).await;
    assert!(matches!(narrow, Err(EmergencyError::WentBack { .. })));
    a.rearm(&anna(), "cleared on purpose", a.snapshot().version).await.unwrap();
    assert_eq!((a.state(), a.snapshot_of(&scope("account:3")).state), (Normal, Halt));
    a.refresh().await.unwrap();
    let c = process("c", &store, &clock).await;
    assert_eq!((c.state(), c.snapshots().len()), (Normal, 71));
}

#[tokio::test]
async fn a_damaged_record_keeps_narrower_stops_here_until_it_is_replaced() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let a = process("a", &store, &clock).await;
    a.halt_in(&scope("venue:v"), "bob", "one").await.unwrap();
    store.apply(Batch::new(namespace()).set(record_key(), "torn")).await.unwrap();
    let e = a.halt_in(&scope("venue:w"), "bob", "two").await.unwrap_err();
    assert!(matches!(e, EmergencyError::NotDurable { .. }) && e.kind() == ErrorKind::Corrupt, "{e}");
    assert_eq!(a.state(), Halt, "damage is a halt of the firm");
    a.rearm(&anna(), "inspected", a.snapshot().version).await.unwrap();
    assert_eq!((a.state(), a.snapshot_of(&scope("venue:w")).state), (Normal, Halt));
    a.refresh().await.unwrap();
    let b = process("b", &store, &clock).await;
    assert_eq!([scope("venue:v"), scope("venue:w")].map(|s| b.snapshot_of(&s).state), [Halt; 2]);
}

#[tokio::test]
async fn the_record_of_the_first_release_is_taken_over() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let old = r#"{"schema":1,"state":"SHUTDOWN","version":"4","transitions":4,"reason":"fire","by":"bob",
        "at":"2025-01-01T00:00:00Z","id":"x"}"#;
    store.apply(Batch::new(namespace()).set(record_key(), old)).await.unwrap();
    let a = process("a", &store, &clock).await;
    assert_eq!((a.state(), a.snapshot().version, a.snapshot().by.as_str()), (Shutdown, 4, "bob"));
    a.halt_in(&scope("venue:v"), "bob", "one").await.unwrap();
    a.rearm(&anna(), "no fire", 4).await.unwrap();
    let b = process("b", &store, &clock).await;
    assert_eq!((b.state(), b.snapshot_of(&scope("venue:v")).state), (Normal, Halt));
}

#[tokio::test]
async fn a_process_local_switch_has_scopes_too() {
    let c = EmergencyController::new("bot_001");
    let v: Venue = "v".parse().unwrap();
    assert!(c.can_trade_in(&at(&v)));
    c.shutdown_in(&Scope::Venue(v.clone()), "bob", "gone").await.unwrap();
    assert_eq!((c.stance_of(&at(&v)), c.stance()), (Stance::Closed, Stance::Open));
}
