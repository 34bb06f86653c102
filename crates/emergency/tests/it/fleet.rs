//! Several processes on one store.

use std::sync::Arc;

use infra_emergency::{EmergencyError, EmergencyState, Transition};
use infra_types::{ManualClock, UserId};
use parking_lot::Mutex;

use crate::store::{FaultyStore, builder, process};

use EmergencyState::{Halt, Normal, Shutdown};

fn anna() -> UserId {
    UserId::new("anna").unwrap()
}

#[tokio::test]
async fn processes_see_each_other_with_the_next_refresh() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let (a, b) = (process("a", &store, &clock).await, process("b", &store, &clock).await);
    let heard: Arc<Mutex<Vec<Transition>>> = Arc::default();
    let log = Arc::clone(&heard);
    b.subscribe(move |t| log.lock().push(t.clone()));

    let halted = a.halt("bob", "loss").await.unwrap();
    assert!(b.can_trade(), "not yet");
    assert_eq!(b.refresh().await.unwrap(), halted);
    b.rearm(&anna(), "fine", halted.version).await.unwrap();
    assert_eq!(a.state(), Halt, "not yet");
    assert_eq!(a.refresh().await.unwrap(), b.snapshot());
    let heard: Vec<_> = heard.lock().iter().map(|t| (t.from, t.to, t.by.clone(), t.version)).collect();
    assert_eq!(heard, [(Normal, Halt, "bob".to_owned(), 1), (Halt, Normal, "anna".to_owned(), 2)]);
}

#[tokio::test]
async fn two_operators_cannot_undo_each_other() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let (a, b) = (process("a", &store, &clock).await, process("b", &store, &clock).await);
    let first = a.halt("bob", "loss").await.unwrap();
    b.refresh().await.unwrap();
    // Both look at the same halt; one re-arms, halts again for another cause, and the other is late.
    a.rearm(&anna(), "fine", first.version).await.unwrap();
    a.halt("bob", "another loss").await.unwrap();
    let late = b.rearm(&UserId::new("berta").unwrap(), "fine", first.version).await.unwrap_err();
    assert!(matches!(late, EmergencyError::Moved { expected: 1, found: 3, state: Halt, .. }), "{late}");
    assert_eq!((store.state(), b.state()), (Halt, Halt));
}

#[tokio::test]
async fn a_restart_is_never_weaker() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    for state in [EmergencyState::Alert, Halt, Shutdown] {
        let a = process("a", &store, &clock).await;
        match state {
            EmergencyState::Alert => a.alert("bob", "x").await,
            Halt => a.halt("bob", "x").await,
            _ => a.shutdown("bob", "x").await,
        }
        .unwrap();
        let before = a.snapshot();
        drop(a);
        let again = builder("a", &store, &clock).build().unwrap();
        assert!(!again.can_trade());
        let heard: Arc<Mutex<Vec<Transition>>> = Arc::default();
        let log = Arc::clone(&heard);
        again.subscribe(move |t| log.lock().push(t.clone()));
        assert_eq!(again.restore_state().await.unwrap(), before);
        assert_eq!(again.stance(), state.stance());
        let heard = heard.lock();
        assert_eq!(
            (heard.len(), heard[0].from, heard[0].to),
            (1, Normal, state),
            "a bot that starts into a stop hears it"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_halts_at_once_are_one_transition() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let mut halts = Vec::new();
    for i in 0..16 {
        let c = process(&format!("bot-{i}"), &store, &clock).await;
        halts.push(tokio::spawn(async move { c.halt("bob", "all at once").await.map(|s| s.state) }));
    }
    for halt in halts {
        assert_eq!(halt.await.unwrap().unwrap(), Halt);
    }
    assert_eq!(store.written().len(), 1);
}
