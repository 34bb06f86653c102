//! The store that fails on purpose keeps its word as well.
#![expect(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

use std::{sync::Arc, time::Duration};

use infra_state_store::{
    Batch, Key, MemoryStateStore, StateStore, StateStoreExt, StoreError, Ttl,
    chaos::{ChaosCounts, ChaosPlan, ChaosStateStore, Fault},
    conformance::Fixture,
    state_store_conformance,
};
use infra_types::{ErrorKind, HealthStatus, ManualClock, Namespace};

struct Calm(Arc<ChaosStateStore>, ManualClock);

#[async_trait::async_trait]
impl Fixture for Calm {
    fn store(&self) -> Arc<dyn StateStore> {
        self.0.clone()
    }

    fn second(&self) -> Arc<dyn StateStore> {
        self.0.inner().clone()
    }

    async fn advance(&self, by: Duration) {
        self.1.advance(by);
    }
}

async fn fixture() -> Calm {
    let clock = ManualClock::default();
    Calm(Arc::new(store(&clock, ChaosPlan::default())), clock)
}

// Without a fault it is the store that it decorates.
state_store_conformance!(fixture());

fn store(clock: &ManualClock, plan: ChaosPlan) -> ChaosStateStore {
    let clock = Arc::new(clock.clone());
    ChaosStateStore::with_plan(Arc::new(MemoryStateStore::new(clock.clone())), clock, plan)
}

fn home() -> Namespace {
    Namespace::new("home").unwrap()
}

fn key() -> Key {
    Key::record("n").unwrap()
}

async fn run(seed: u64) -> (Vec<Option<ErrorKind>>, ChaosCounts) {
    let store = store(&ManualClock::default(), ChaosPlan::network(seed, 200));
    let mut kinds = Vec::new();
    for _ in 0..200 {
        kinds.push(store.increment(&home(), &key(), 1).await.err().map(|e| e.kind()));
        kinds.push(store.get(&home(), &key()).await.err().map(|e| e.kind()));
    }
    (kinds, store.counts())
}

#[tokio::test]
async fn a_seed_is_a_story() {
    let (kinds, counts) = run(7).await;
    assert_eq!((kinds.clone(), counts), run(7).await);
    assert_ne!(kinds, run(8).await.0);
    assert_eq!(counts.calls, 400);
    let ambiguous = kinds.iter().filter(|kind| **kind == Some(ErrorKind::Ambiguous)).count() as u64;
    assert_eq!(ambiguous, counts.lost_replies + counts.lost_requests);
    for count in [counts.unavailable, counts.lost_replies, counts.lost_requests] {
        assert!((20..120).contains(&count), "{counts:?}");
    }
}

#[tokio::test]
async fn each_fault_does_what_it_says() {
    let store = store(&ManualClock::default(), ChaosPlan::default());
    let faults = [
        (Fault::None, None, 1),
        (Fault::Unavailable, Some(ErrorKind::Unavailable), 1),
        (Fault::LostRequest, Some(ErrorKind::Ambiguous), 1),
        (Fault::LostReply, Some(ErrorKind::Ambiguous), 2),
    ];
    for (fault, kind, left) in faults {
        store.script([fault]);
        let answer = store.increment(&home(), &key(), 1).await;
        assert_eq!(answer.as_ref().err().map(StoreError::kind), kind, "{fault:?}: {answer:?}");
        assert_eq!(store.get_counter(&home(), &key()).await.unwrap(), left, "{fault:?}");
    }
    store.always(Fault::LostReply);
    assert!(store.clear(&home()).await.is_err());
    assert_eq!(store.get(&home(), &key()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.health().await.status, HealthStatus::Down);
    store.heal();
    assert_eq!(store.get(&home(), &key()).await.unwrap(), None, "it was cleared");
    assert_eq!(store.health().await.status, HealthStatus::Up);
}

#[tokio::test]
async fn reads_take_their_turn_if_asked_to() {
    let store = store(&ManualClock::default(), ChaosPlan::default());
    store.script([Fault::Unavailable]);
    assert!(store.get(&home(), &key()).await.is_ok());
    store.script_reads_too(true);
    assert!(store.get(&home(), &key()).await.is_err());
    assert!(store.get(&home(), &key()).await.is_ok());
}

#[tokio::test]
async fn a_delay_passes_on_the_given_clock() {
    let clock = ManualClock::default();
    let store = Arc::new(store(&clock, ChaosPlan::default()));
    store.script([Fault::Delay(Duration::from_secs(5)), Fault::Hang]);
    let write = |name: &'static str| {
        let store = store.clone();
        tokio::spawn(async move { store.apply(Batch::new(home()).set(Key::record(name).unwrap(), "v")).await })
    };
    let late = write("late");
    while store.counts().delays == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.get(&home(), &Key::record("late").unwrap()).await.unwrap(), None);
    tokio::task::yield_now().await;
    clock.advance(Duration::from_secs(5));
    late.await.unwrap().unwrap();
    assert!(store.exists(&home(), &Key::record("late").unwrap()).await.unwrap());

    let never = write("never");
    while store.counts().hangs == 0 {
        tokio::task::yield_now().await;
    }
    clock.advance(Duration::from_secs(86_400));
    assert!(!never.is_finished());
    never.abort();
    assert!(!store.exists(&home(), &Key::record("never").unwrap()).await.unwrap());
}

#[tokio::test]
async fn delays_by_chance_are_bounded() {
    let clock = ManualClock::default();
    let plan =
        ChaosPlan { seed: 3, delay_permille: 1_000, delay_max: Duration::from_millis(10), ..ChaosPlan::default() };
    let store = Arc::new(store(&clock, plan));
    let writer = store.clone();
    let mut task = tokio::spawn(async move { writer.set(&home(), &key(), "v", Ttl::Never).await });
    let mut waited = Duration::ZERO;
    while !task.is_finished() {
        tokio::task::yield_now().await;
        if store.counts().delays == 1 {
            clock.advance(Duration::from_millis(1));
            waited += Duration::from_millis(1);
        }
        assert!(waited < Duration::from_secs(1));
    }
    (&mut task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_death_at_the_nth_write_ends_everything_until_it_is_healed() {
    for (fault, left) in [(Fault::DieBefore, 2), (Fault::DieAfter, 3)] {
        let store = store(&ManualClock::default(), ChaosPlan::default());
        store.nth_write(3, fault);
        for _ in 0..2 {
            store.increment(&home(), &key(), 1).await.unwrap();
        }
        assert_eq!(store.script_left(), 1);
        let last = store.increment(&home(), &key(), 1).await;
        assert!(matches!(last, Err(StoreError::Ambiguous { .. })), "{last:?}");
        assert_eq!((store.script_left(), store.counts().deaths), (0, 1));
        assert_eq!(store.increment(&home(), &key(), 1).await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(store.get(&home(), &key()).await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(store.inner().get_counter(&home(), &key()).await.unwrap(), left);
        store.heal();
        assert_eq!(store.get_counter(&home(), &key()).await.unwrap(), left);
    }
}

#[tokio::test]
async fn reads_alone_may_fail() {
    let store = store(&ManualClock::default(), ChaosPlan::default());
    store.always_reads(Fault::LostReply);
    store.increment(&home(), &key(), 1).await.unwrap();
    assert_eq!(store.get(&home(), &key()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.health().await.status, HealthStatus::Up);
}

#[tokio::test]
async fn a_store_that_gives_way_lets_others_between_its_steps() {
    let store = Arc::new(store(&ManualClock::default(), ChaosPlan::default()));
    store.give_way(true);
    // Both read before either writes: without a compare one of them would be lost.
    let add = || {
        let store = store.clone();
        tokio::spawn(async move {
            let seen = store.get_json::<u64>(&home(), &key()).await.unwrap().unwrap_or(0);
            store.set_json(&home(), &key(), &(seen + 1), Ttl::Never).await.unwrap();
        })
    };
    let (one, two) = (add(), add());
    one.await.unwrap();
    two.await.unwrap();
    assert_eq!(store.get_json::<u64>(&home(), &key()).await.unwrap(), Some(1));
}
