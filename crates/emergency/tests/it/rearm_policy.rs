//! Who may re-arm, when, and how many it takes.

use std::time::Duration;

use infra_emergency::{EmergencyController, EmergencyError, EmergencyState, RearmPolicy, Stop, TransitionKind};
use infra_state_store::{Batch, StateStore};
use infra_types::{ErrorKind, ManualClock, Scope, UserId};

use crate::store::{Fault, FaultyStore, builder, namespace, outbox, process, record_key, scope};

use EmergencyState::{Halt, Normal, Shutdown};

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

async fn with(policy: RearmPolicy, store: &FaultyStore, clock: &ManualClock) -> EmergencyController {
    let c = builder("a", store, clock).rearm_policy(policy).build().unwrap();
    c.refresh().await.unwrap();
    c
}

#[tokio::test]
async fn only_who_is_entitled_to_a_scope_rearms_it() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let policy = RearmPolicy::new().entitle(user("anna")).entitle_in(user("bert"), [scope("venue:v")]);
    let c = with(policy, &store, &clock).await;
    let firm = c.halt("bob", "one").await.unwrap();
    let venue = c.halt_in(&scope("venue:v"), "bob", "two").await.unwrap();
    for (who, of, version) in [("bert", Scope::Firm, firm.version), ("carl", scope("venue:v"), venue.version)] {
        let e = c.rearm_in(&of, &user(who), "fine", version).await.unwrap_err();
        assert!(matches!(e, EmergencyError::NotEntitled { .. }) && e.kind() == ErrorKind::Permanent, "{e}");
        assert!(matches!(
            c.request_rearm(&of, &user(who), "fine", version).await,
            Err(EmergencyError::NotEntitled { .. })
        ));
    }
    assert_eq!(store.written().len(), 2);
    c.rearm_in(&scope("venue:v"), &user("bert"), "fine", venue.version).await.unwrap();
    c.rearm(&user("anna"), "fine", firm.version).await.unwrap();
    assert_eq!(c.state(), Normal);
}

#[tokio::test]
async fn it_takes_two_different_persons_within_the_time() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let policy = RearmPolicy::new().two_person(Duration::from_secs(600));
    let c = with(policy.clone(), &store, &clock).await;
    let halted = c.halt("bob", "loss").await.unwrap();
    assert!(matches!(c.rearm(&user("anna"), "fine", 1).await, Err(EmergencyError::SecondPersonNeeded)));
    let empty = c.request_rearm(&Scope::Firm, &user("anna"), " ", 1).await.unwrap_err();
    assert_eq!(empty.kind(), ErrorKind::Invalid);
    assert!(matches!(c.request_rearm(&Scope::Firm, &user("anna"), "fine", 0).await, Err(EmergencyError::Moved { .. })));
    let request = c.request_rearm(&Scope::Firm, &user("anna"), "a booking error", halted.version).await.unwrap();
    assert_eq!(c.state(), Halt, "asked for is not done");

    // Durable, and seen by the process of the second person.
    let other = builder("b", &store, &clock).rearm_policy(policy).build().unwrap();
    assert_eq!(other.refresh().await.unwrap().request.as_ref(), Some(&request));
    let same = other.confirm_rearm(&Scope::Firm, &user("anna"), &request.id).await.unwrap_err();
    assert!(matches!(same, EmergencyError::SamePerson { .. }), "{same}");
    let back = other.confirm_rearm(&Scope::Firm, &user("bert"), &request.id).await.unwrap();
    assert_eq!((back.state, back.by.as_str(), back.reason.as_str()), (Normal, "anna", "a booking error"));
    let newest = &other.history(9).await.unwrap()[0];
    assert_eq!((newest.kind, newest.confirmed_by.as_ref()), (TransitionKind::Rearmed, Some(&user("bert"))));
    assert_eq!(outbox(&store).await, ["1:NORMAL:HALT:bob", "2:HALT:HALT:anna", "3:HALT:NORMAL:anna"]);

    // Too late.
    let halted = c.halt("bob", "again").await.unwrap();
    let request = c.request_rearm(&Scope::Firm, &user("anna"), "fine", halted.version).await.unwrap();
    clock.advance(Duration::from_secs(600));
    let late = other.confirm_rearm(&Scope::Firm, &user("bert"), &request.id).await.unwrap_err();
    assert!(matches!(late, EmergencyError::NoRequest { .. }) && late.kind() == ErrorKind::Conflict, "{late}");
    assert_eq!(store.state(), Halt);
}

#[tokio::test]
async fn every_stop_of_the_scope_makes_a_request_void_and_no_other_does() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let policy = RearmPolicy::new().two_person(Duration::from_secs(600));
    let c = with(policy, &store, &clock).await;
    let other = process("b", &store, &clock).await;
    let (v, anna, bert) = (scope("venue:v"), user("anna"), user("bert"));
    let halted = c.halt_in(&v, "bob", "one").await.unwrap();

    let request = c.request_rearm(&v, &anna, "fine", halted.version).await.unwrap();
    // A stop that changes nothing else, and a weaker one, have news that nobody looked at.
    for stop in [Stop::halt("carl", "two"), Stop::alert("carl", "three")] {
        let stopped = other.stop(stop.in_scope(v.clone())).await.unwrap();
        assert_eq!((stopped.state, stopped.request), (Halt, None));
        let void = c.confirm_rearm(&v, &bert, &request.id).await.unwrap_err();
        assert!(matches!(void, EmergencyError::NoRequest { .. }), "{void}");
        let seen = c.snapshot_of(&v).version;
        c.request_rearm(&v, &anna, "fine", seen).await.unwrap();
    }
    // One that this process could not write yet counts as well.
    let request = c.request_rearm(&v, &anna, "fine", c.snapshot_of(&v).version).await.unwrap();
    store.fail_next([Fault::Down]);
    c.halt_in(&v, "carl", "four").await.unwrap_err();
    assert!(matches!(c.confirm_rearm(&v, &bert, &request.id).await, Err(EmergencyError::NoRequest { .. })));
    assert_eq!(store.state_in(&v), Halt);
    // So does one that a refresh meets in the store.
    let request = c.request_rearm(&v, &anna, "fine", c.snapshot_of(&v).version).await.unwrap();
    store.fail_next([Fault::Down]);
    other.halt_in(&v, "carl", "five").await.unwrap_err();
    other.refresh().await.unwrap();
    assert!(matches!(c.confirm_rearm(&v, &bert, &request.id).await, Err(EmergencyError::NoRequest { .. })));
    // Another scope's does not.
    let request = c.request_rearm(&v, &anna, "fine", c.snapshot_of(&v).version).await.unwrap();
    other.halt("carl", "six").await.unwrap();
    other.halt_in(&scope("venue:w"), "carl", "seven").await.unwrap();
    assert_eq!(c.confirm_rearm(&v, &bert, &request.id).await.unwrap().state, Normal);
}

#[tokio::test]
async fn what_a_program_halted_stays_for_the_cool_down_whoever_asks() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let policy = RearmPolicy::new().cool_down(Duration::from_secs(60));
    let c = with(policy, &store, &clock).await;
    let halted = c.stop(Stop::halt("risk", "loss").automatic()).await.unwrap();
    assert!(halted.is_automatic);
    // Also where the process that re-arms has no such rule.
    let other = process("b", &store, &clock).await;
    let early = other.rearm(&user("anna"), "fine", halted.version).await.unwrap_err();
    assert!(
        matches!(&early, EmergencyError::CoolingDown { until, .. } if Some(*until) == halted.rearm_from),
        "{early}"
    );
    assert_eq!(early.kind(), ErrorKind::Unavailable);
    clock.advance(Duration::from_secs(60));
    other.rearm(&user("anna"), "fine", halted.version).await.unwrap();

    // A stronger stop by a person does not cut it short.
    let halted = c.stop(Stop::halt("risk", "loss").automatic()).await.unwrap();
    let stronger = c.stop(Stop::shutdown("bob", "all of it")).await.unwrap();
    assert_eq!(stronger.rearm_from, halted.rearm_from);
    let early = other.rearm(&user("anna"), "fine", stronger.version).await.unwrap_err();
    assert!(matches!(early, EmergencyError::CoolingDown { .. }), "{early}");
    clock.advance(Duration::from_secs(60));
    other.rearm(&user("anna"), "fine", stronger.version).await.unwrap();

    // A person's halt may be re-armed at once; so may an ALERT of a program.
    for stop in [Stop::halt("bob", "hm"), Stop::alert("risk", "hm").automatic()] {
        let stopped = c.stop(stop).await.unwrap();
        c.rearm(&user("anna"), "fine", stopped.version).await.unwrap();
    }
}

#[tokio::test]
async fn without_a_sound_record_two_persons_go_through_shutdown() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let policy = RearmPolicy::new().two_person(Duration::from_secs(600));
    let c = with(policy, &store, &clock).await;
    store.apply(Batch::new(namespace()).set(record_key(), "torn")).await.unwrap();
    c.refresh().await.unwrap_err();
    let e = c.request_rearm(&Scope::Firm, &user("anna"), "fine", c.snapshot().version).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Invalid);
    let shut = c.shutdown("bob", "the record is torn").await.unwrap();
    assert_eq!(shut.state, Shutdown);
    let request = c.request_rearm(&Scope::Firm, &user("anna"), "repaired", shut.version).await.unwrap();
    c.confirm_rearm(&Scope::Firm, &user("bert"), &request.id).await.unwrap();
    assert_eq!(store.state(), Normal);
}
