//! What cannot be confirmed does not trade.

use std::time::Duration;

use infra_emergency::{EmergencyError, EmergencyState, Stance};
use infra_state_store::{Batch, Delta, StateStore};
use infra_types::{Clock, ErrorKind, ManualClock, UserId};

use crate::store::{Fault, FaultyStore, builder, namespace, outbox, process, record_key};

use EmergencyState::{Alert, Halt, Normal, Shutdown};

const LEASE: Duration = Duration::from_secs(2);

fn anna() -> UserId {
    UserId::new("anna").unwrap()
}

#[tokio::test]
async fn nothing_is_open_before_the_first_refresh() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let c = builder("a", &store, &clock).build().unwrap();
    assert!(!c.can_trade());
    assert_eq!((c.state(), c.stance()), (Halt, Stance::ReduceOnly));
    assert!(matches!(c.assert_can_trade(), Err(EmergencyError::Unconfirmed)));
    store.fail(Fault::Down);
    assert_eq!(c.restore_state().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(!c.can_trade());
    store.heal();
    let fresh = c.refresh().await.unwrap();
    assert_eq!((fresh.state, fresh.version, c.stance()), (Normal, 0, Stance::Open));
}

#[tokio::test]
async fn the_lease_runs_from_before_the_read_and_closes_all_but_exits() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let c = builder("a", &store, &clock).build().unwrap();
    store.give_way(true);
    let asked = clock.now();
    let (read, ()) = tokio::join!(c.refresh(), async { clock.advance(Duration::from_millis(500)) });
    read.unwrap();
    assert_eq!(c.valid_until(), asked + LEASE);

    clock.advance(Duration::from_millis(1_499));
    assert_eq!(c.stance(), Stance::Open);
    clock.advance(Duration::from_millis(1));
    assert_eq!(c.stance(), Stance::ReduceOnly);
    assert!(matches!(c.assert_can_trade(), Err(EmergencyError::Unconfirmed)));
    c.refresh().await.unwrap();
    assert_eq!(c.stance(), Stance::Open);
    // The wall clock has no say.
    clock.set_wall(infra_types::Timestamp::EPOCH);
    assert_eq!(c.stance(), Stance::Open);
}

#[tokio::test]
async fn a_failing_store_closes_within_the_lease_and_shutdown_stays_closed() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let (c, shut) = (process("a", &store, &clock).await, process("b", &store, &clock).await);
    let confirmed = clock.now();
    store.fail(Fault::Down);
    for _ in 0..20 {
        assert!(c.refresh().await.is_err());
        let is_open = c.stance() == Stance::Open;
        assert_eq!(is_open, clock.now() < confirmed + LEASE);
        clock.advance(Duration::from_millis(250));
    }
    assert_eq!(c.refreshes_failed(), 20);
    store.heal();
    shut.shutdown("bob", "over").await.unwrap();
    clock.advance(LEASE * 2);
    assert_eq!(shut.stance(), Stance::Closed, "an expired lease opens nothing");
}

#[tokio::test]
async fn a_halt_holds_here_before_the_store_answers_and_when_it_never_does() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let c = process("a", &store, &clock).await;
    store.fail(Fault::Hang);
    let mut halt = Box::pin(c.halt("bob", "now"));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(halt.as_mut().poll(&mut cx).is_pending());
    assert_eq!(c.stance(), Stance::ReduceOnly);
    assert!(!c.can_trade() && !c.snapshot().is_durable);
    drop(halt);
    assert_eq!(c.state(), Halt);

    store.heal();
    let flushed = c.refresh().await.unwrap();
    assert_eq!((flushed.state, flushed.by.as_str(), flushed.is_durable), (Halt, "bob", true));
    assert_eq!(outbox(&store).await, ["1:NORMAL:HALT:bob"]);
}

#[tokio::test]
async fn a_halt_that_was_not_written_says_so_stays_and_is_written_later() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let (a, b) = (process("a", &store, &clock).await, process("b", &store, &clock).await);
    store.fail_next([Fault::None, Fault::Down]);
    let e = a.halt("bob", "now").await.unwrap_err();
    assert!(matches!(e, EmergencyError::NotDurable { state: Halt, .. }));
    assert!(e.to_string().contains("other processes may not know"), "{e}");
    assert_eq!(e.kind(), ErrorKind::Unavailable);
    assert_eq!(a.state(), Halt);
    assert_eq!(b.refresh().await.unwrap().state, Normal);
    assert!(outbox(&store).await.is_empty(), "no row without its transition");

    // A re-arm of what the person saw (nothing) meets the stop, which is newer.
    let moved = a.rearm(&anna(), "all is well", 0).await.unwrap_err();
    assert!(matches!(moved, EmergencyError::Moved { expected: 0, found: 1, state: Halt, .. }), "{moved}");
    assert_eq!(b.refresh().await.unwrap().state, Halt);
    a.rearm(&anna(), "all is well", 1).await.unwrap();
    assert_eq!(b.refresh().await.unwrap().state, Normal);
    assert!(a.can_trade() && b.can_trade());
}

#[tokio::test]
async fn an_unwritten_halt_that_others_made_durable_does_not_come_back_after_their_rearm() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let (a, b) = (process("a", &store, &clock).await, process("b", &store, &clock).await);
    store.fail_next([Fault::Down]);
    a.halt("bob", "now").await.unwrap_err();
    let halted = b.halt("carl", "same here").await.unwrap();
    assert_eq!(a.refresh().await.unwrap().by, "carl");
    b.rearm(&anna(), "all is well", halted.version).await.unwrap();
    assert_eq!(a.refresh().await.unwrap().state, Normal);
    assert_eq!(store.written().len(), 2);
}

#[tokio::test]
async fn a_lost_reply_is_read_after_and_nothing_is_written_twice() {
    for fault in [Fault::LostReply, Fault::LostRequest] {
        let clock = ManualClock::default();
        let store = FaultyStore::new(&clock);
        let c = process("a", &store, &clock).await;
        store.fail_next([Fault::None, fault]);
        assert_eq!(c.halt("bob", "now").await.unwrap().version, 1);
        store.fail_next([Fault::None, fault]);
        let back = c.rearm(&anna(), "fine", 1).await.unwrap();
        assert_eq!((back.state, back.version), (Normal, 2));
        assert_eq!(outbox(&store).await, ["1:NORMAL:HALT:bob", "2:HALT:NORMAL:anna"], "{fault:?}");
    }
}

#[tokio::test]
async fn a_reply_that_stays_lost_is_ambiguous_and_never_open() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let c = process("a", &store, &clock).await;
    let halted = c.halt("bob", "now").await.unwrap();
    store.fail_next([Fault::None, Fault::LostReply, Fault::Down]);
    let e = c.rearm(&anna(), "fine", halted.version).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Ambiguous);
    assert_eq!(c.state(), Halt, "open only when it is known");
    assert_eq!(c.refresh().await.unwrap().state, Normal);

    store.fail_next([Fault::None, Fault::LostReply, Fault::Down]);
    assert_eq!(c.halt("bob", "again").await.unwrap_err().kind(), ErrorKind::Ambiguous);
    assert_eq!(c.state(), Halt);
}

#[tokio::test]
async fn a_damaged_record_is_a_halt_until_a_person_replaces_it() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let a = process("a", &store, &clock).await;
    a.alert("bob", "slow").await.unwrap();
    store.apply(Batch::new(namespace()).set(record_key(), "{\"schema\":1,\"sta")).await.unwrap();

    let until = a.valid_until();
    clock.advance(Duration::from_millis(100));
    let e = a.refresh().await.unwrap_err();
    assert!(matches!(e, EmergencyError::Damaged { .. }) && e.to_string().contains("emergency/firm"), "{e}");
    assert_eq!(e.kind(), ErrorKind::Corrupt);
    assert_eq!((a.state(), a.valid_until()), (Halt, until), "the lease is not extended");
    let b = builder("b", &store, &clock).build().unwrap();
    b.refresh().await.unwrap_err();
    assert!(matches!(b.assert_can_trade(), Err(EmergencyError::Stopped { state: Halt, .. })));
    // It may have been SHUTDOWN: nothing weaker is written over it.
    assert_eq!(b.halt("bob", "more").await.unwrap_err().kind(), ErrorKind::Corrupt);

    let seen = b.snapshot().version;
    let moved = b.rearm(&anna(), "inspected", seen - 1).await.unwrap_err();
    assert!(matches!(moved, EmergencyError::Moved { state: Halt, .. }));
    b.rearm(&anna(), "inspected", seen).await.unwrap();
    assert_eq!(a.refresh().await.unwrap().state, Normal);
    assert_eq!(b.refresh().await.unwrap(), a.snapshot());
}

#[tokio::test]
async fn shutdown_replaces_a_damaged_record_and_a_counter_is_damage_too() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let a = process("a", &store, &clock).await;
    store.apply(Batch::new(namespace()).add(record_key(), Delta::unbounded(3))).await.unwrap();
    assert!(matches!(a.refresh().await, Err(EmergencyError::Damaged { .. })));
    assert_eq!(a.shutdown("bob", "over").await.unwrap().state, Shutdown);
    assert_eq!(process("b", &store, &clock).await.state(), Shutdown);
}

#[tokio::test]
async fn a_record_of_a_newer_program_is_a_halt_that_nobody_here_overwrites() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let a = process("a", &store, &clock).await;
    store.apply(Batch::new(namespace()).set(record_key(), "{\"schema\":3,\"scopes\":{}}")).await.unwrap();
    let e = a.refresh().await.unwrap_err();
    assert!(e.to_string().contains("upgrade"), "{e}");
    assert_eq!(a.rearm(&anna(), "why not", a.snapshot().version).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(a.shutdown("bob", "over").await.is_err());
    assert_eq!(a.state(), Shutdown, "here it holds");
}

#[tokio::test]
async fn a_store_that_forgot_is_a_halt_and_persisting_repairs_it() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let a = process("a", &store, &clock).await;
    a.shutdown("bob", "over").await.unwrap();
    store.clear(&namespace()).await.unwrap();
    let e = a.refresh().await.unwrap_err();
    assert!(matches!(e, EmergencyError::WentBack { known: 1, found: 0 }), "{e}");
    assert_eq!(a.state(), Shutdown);
    let kept = a.persist_state().await.unwrap();
    assert_eq!((kept.state, kept.version, kept.is_durable), (Shutdown, 2, true));
    assert_eq!(process("b", &store, &clock).await.state(), Shutdown);

    // Below what was lost nothing is written, whatever is asked for.
    store.clear(&namespace()).await.unwrap();
    assert_eq!(a.alert("bob", "hm").await.unwrap().state, Shutdown);
    // A person who looked may open it.
    store.clear(&namespace()).await.unwrap();
    a.refresh().await.unwrap_err();
    a.rearm(&anna(), "the namespace was cleared on purpose", a.snapshot().version).await.unwrap();
    assert_eq!(process("c", &store, &clock).await.state(), Normal);
    assert!(a.refresh().await.is_ok());
}

#[tokio::test]
async fn a_refused_companion_row_keeps_the_transition_out_but_the_halt_in() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let c = builder("a", &store, &clock)
        .companion_ops(std::sync::Arc::new(|_| {
            vec![infra_state_store::Op::Check {
                key: infra_state_store::Key::record("never-there").unwrap(),
                when: infra_state_store::When::Exists,
            }]
        }))
        .build()
        .unwrap();
    c.refresh().await.unwrap();
    assert!(matches!(c.alert("bob", "now").await, Err(EmergencyError::NotDurable { state: Alert, .. })));
    assert_eq!((c.state(), store.state()), (Alert, Normal));
}
