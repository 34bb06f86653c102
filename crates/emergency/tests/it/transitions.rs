//! What each call does to the state, and who hears of it.

use std::sync::Arc;

use infra_emergency::{EmergencyController, EmergencyError, EmergencyState, LimitVerdict, Stance, Transition};
use infra_types::{Decimal, ErrorKind, ManualClock, Scope, UserId};
use parking_lot::Mutex;

use crate::store::{FaultyStore, builder, outbox, process};

use EmergencyState::{Alert, Halt, Normal, Shutdown};

fn anna() -> UserId {
    UserId::new("anna").unwrap()
}

async fn raise(c: &EmergencyController, to: EmergencyState) -> infra_emergency::Snapshot {
    match to {
        Normal => c.refresh().await,
        Alert => c.alert("bob", "slow venue").await,
        Halt => c.halt("bob", "slow venue").await,
        Shutdown => c.shutdown("bob", "slow venue").await,
    }
    .unwrap()
}

#[tokio::test]
async fn every_pair_of_states_only_rises_and_every_state_can_be_rearmed() {
    for first in [Normal, Alert, Halt, Shutdown] {
        for second in [Normal, Alert, Halt, Shutdown] {
            let clock = ManualClock::default();
            let store = FaultyStore::new(&clock);
            let c = process("a", &store, &clock).await;
            let before = raise(&c, first).await;
            let after = raise(&c, second).await;
            assert_eq!(after.state, first.max(second), "{first} then {second}");
            assert_eq!(c.state(), after.state);
            assert_eq!(c.stance(), after.state.stance());
            assert_eq!(c.can_trade(), after.state == Normal);
            assert_eq!(c.assert_can_trade().is_ok(), after.state == Normal);
            assert!(after.is_durable);
            // Already there or beyond: nothing is written.
            assert_eq!(after.version, before.version + u64::from(second > first));
            assert_eq!(after.transitions, after.version);

            let back = c.rearm(&anna(), "venue is back", after.version).await.unwrap();
            assert_eq!((back.state, c.stance()), (Normal, Stance::Open));
            assert_eq!(back.version, after.version + u64::from(after.state > Normal));
        }
    }
}

#[test]
fn states_are_ordered_and_spelled_as_operators_know_them() {
    assert!(Normal < Alert && Alert < Halt && Halt < Shutdown);
    for (state, text) in [(Normal, "NORMAL"), (Alert, "ALERT"), (Halt, "HALT"), (Shutdown, "SHUTDOWN")] {
        assert_eq!(state.to_string(), text);
        assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{text}\""));
    }
    assert_eq!([Alert, Halt].map(EmergencyState::stance), [Stance::ReduceOnly; 2], "exits always work");
    assert_eq!(Shutdown.stance(), Stance::Closed);
}

#[tokio::test]
async fn a_rearm_needs_a_reason_and_the_version_that_was_looked_at() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let c = process("a", &store, &clock).await;
    let seen = c.halt("bob", "loss").await.unwrap();
    let worse = c.shutdown("carl", "much loss").await.unwrap();

    let no_reason = c.rearm(&anna(), " ", worse.version).await.unwrap_err();
    assert_eq!(no_reason.kind(), ErrorKind::Invalid);
    let moved = c.rearm(&anna(), "it is fine", seen.version).await.unwrap_err();
    assert!(matches!(moved, EmergencyError::Moved { expected: 1, found: 2, state: Shutdown, .. }), "{moved}");
    assert_eq!(moved.kind(), ErrorKind::Conflict);
    assert_eq!((c.state(), store.written().len()), (Shutdown, 2));

    let back = c.rearm(&anna(), "it is fine", worse.version).await.unwrap();
    assert_eq!((back.by.as_str(), back.reason.as_str(), back.state), ("anna", "it is fine", Normal));
}

#[tokio::test]
async fn a_limit_is_breached_when_it_is_reached_and_never_rearms() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let c = process("bot_001", &store, &clock).await;
    let (limit, d) = (Decimal::from(5_000), Decimal::from);

    let within = c.check_risk_limit("daily_loss", d(4_999), limit, true).await.unwrap();
    assert_eq!(within, LimitVerdict::Within { headroom: d(1) });
    let told = c.check_risk_limit("daily_loss", d(5_000), limit, false).await.unwrap();
    assert_eq!(told, LimitVerdict::Breached { excess: d(0), halted: false });
    assert!(c.can_trade() && store.written().is_empty());

    let halted = c.check_risk_limit("daily_loss", d(5_200), limit, true).await.unwrap();
    assert_eq!(halted, LimitVerdict::Breached { excess: d(200), halted: true });
    let snapshot = c.snapshot();
    assert_eq!((snapshot.state, snapshot.by.as_str()), (Halt, "bot_001"));
    for word in ["daily_loss", "5200", "5000"] {
        assert!(snapshot.reason.contains(word), "{}", snapshot.reason);
    }
    assert!(!c.check_risk_limit("daily_loss", d(0), limit, true).await.unwrap().is_breached());
    assert_eq!(c.state(), Halt);
}

#[tokio::test]
async fn a_halt_is_never_refused_for_its_words() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let c = process("a", &store, &clock).await;
    let halted = c.halt("", "").await.unwrap();
    assert_eq!((halted.by.as_str(), halted.reason.as_str()), ("unknown", "no reason given"));
    let long = "é".repeat(2_000_000);
    let shut = c.shutdown("bob", &long).await.unwrap();
    assert!(shut.reason.len() <= 1_024 && long.starts_with(&shut.reason));
}

#[tokio::test]
async fn subscribers_hear_every_change_in_order_and_a_panic_harms_nobody() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let c = builder("a", &store, &clock).build().unwrap();
    let heard: Arc<Mutex<Vec<Transition>>> = Arc::default();
    c.subscribe(|_| panic!("broken on purpose"));
    let log = Arc::clone(&heard);
    let id = c.subscribe(move |t| log.lock().push(t.clone()));

    c.refresh().await.unwrap();
    assert!(heard.lock().is_empty(), "starting into NORMAL is no news");
    c.alert("bob", "slow").await.unwrap();
    c.alert("bob", "slow").await.unwrap();
    let halted = c.halt("bob", "slower").await.unwrap();
    c.rearm(&anna(), "fine", halted.version).await.unwrap();
    let steps: Vec<_> = heard.lock().iter().map(|t| (t.from, t.to, t.by.clone())).collect();
    let expected =
        [(Normal, Alert, "bob"), (Alert, Halt, "bob"), (Halt, Normal, "anna")].map(|(f, t, b)| (f, t, b.to_owned()));
    assert_eq!(steps, expected);
    assert!(heard.lock().iter().all(|t| t.scope == Scope::Firm));
    assert_eq!((c.handler_panics(), c.notifications_dropped()), (3, 0));

    assert!(c.unsubscribe(id) && !c.unsubscribe(id));
    c.halt("bob", "again").await.unwrap();
    assert_eq!(heard.lock().len(), 3);
}

#[tokio::test]
async fn a_handler_may_ask_the_switch_and_hears_its_own_doing_later() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let c = Arc::new(process("a", &store, &clock).await);
    let heard: Arc<Mutex<Vec<(EmergencyState, EmergencyState)>>> = Arc::default();
    let (log, weak) = (Arc::clone(&heard), Arc::downgrade(&c));
    c.subscribe(move |t| {
        let c = weak.upgrade().unwrap();
        if t.to == Alert {
            // Held from its first poll on, also when the future is dropped.
            let mut halt = Box::pin(async move { c.halt("handler", "alert is enough").await });
            let _ = halt.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
        }
        log.lock().push((t.from, t.to));
    });
    c.alert("bob", "slow").await.unwrap();
    assert_eq!(*heard.lock(), [(Normal, Alert), (Alert, Halt)]);
    assert_eq!(c.refresh().await.unwrap().state, Halt);
}

#[tokio::test]
async fn rows_of_a_transition_stand_beside_it() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let c = process("a", &store, &clock).await;
    c.alert("bob", "slow").await.unwrap();
    c.alert("bob", "slow").await.unwrap();
    let halted = c.halt("bob", "slower").await.unwrap();
    c.rearm(&anna(), "fine", halted.version).await.unwrap();
    assert_eq!(outbox(&store).await, ["1:NORMAL:ALERT:bob", "2:ALERT:HALT:bob", "3:HALT:NORMAL:anna"]);
}

#[tokio::test]
async fn the_switch_of_one_process_works_from_the_start() {
    let c = EmergencyController::new("bot_001");
    assert!(c.can_trade() && c.assert_can_trade().is_ok());
    let halted = c.halt("bob", "test").await.unwrap();
    assert!(matches!(c.assert_can_trade(), Err(EmergencyError::Stopped { state: Halt, .. })));
    c.persist_state().await.unwrap();
    assert_eq!(c.restore_state().await.unwrap().state, Halt);
    c.rearm(&anna(), "test is over", halted.version).await.unwrap();
    assert_eq!(c.stance(), Stance::Open);

    assert_eq!(EmergencyController::try_new("no spaces").unwrap_err().kind(), ErrorKind::Invalid);
    assert!(std::panic::catch_unwind(|| EmergencyController::new("")).is_err());
}

#[test]
fn a_poll_interval_must_fit_into_the_lease() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    for (lease_ms, poll_ms) in [(2_000, 0), (250, 250), (100, 250)] {
        let ms = std::time::Duration::from_millis;
        let built = builder("a", &store, &clock).lease(ms(lease_ms)).poll_interval(ms(poll_ms)).build();
        assert_eq!(built.unwrap_err().kind(), ErrorKind::Invalid);
    }
}
