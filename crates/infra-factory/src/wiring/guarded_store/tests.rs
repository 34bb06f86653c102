use std::{sync::Arc, time::Duration};

use infra_state_store::{
    Batch, Delta, Key, MemoryStateStore, StateStore, StateStoreExt, StoreError,
    chaos::{ChaosPlan, ChaosStateStore, Fault},
};
use infra_types::{ErrorKind, ManualClock, Namespace};

use super::GuardedStore;

struct Stand {
    clock: ManualClock,
    chaos: Arc<ChaosStateStore>,
    store: GuardedStore,
}

fn stand() -> Stand {
    planned(ChaosPlan::default())
}

fn planned(plan: ChaosPlan) -> Stand {
    let clock = ManualClock::default();
    let memory = Arc::new(MemoryStateStore::new(Arc::new(clock.clone())));
    let chaos = Arc::new(ChaosStateStore::with_plan(memory, Arc::new(clock.clone()), plan));
    chaos.script_reads_too(true);
    let store = GuardedStore::new("state", chaos.clone(), Arc::new(clock.clone())).unwrap();
    Stand { clock, chaos, store }
}

fn home() -> Namespace {
    Namespace::new("home").unwrap()
}

fn key() -> Key {
    Key::record("n").unwrap()
}

fn add_one() -> Batch {
    Batch::new(home()).add(key(), Delta::unbounded(1))
}

impl Stand {
    /// Lets time pass until the call is over: its pauses are the clock's.
    async fn run<T>(&self, call: impl Future<Output = T>) -> T {
        tokio::pin!(call);
        loop {
            tokio::select! {
                biased;
                done = &mut call => return done,
                () = tokio::task::yield_now() => self.clock.advance(Duration::from_millis(50)),
            }
        }
    }

    async fn count(&self) -> i64 {
        self.chaos.inner().get(&home(), &key()).await.unwrap().map_or(0, |entry| entry.value.as_counter().unwrap())
    }
}

#[tokio::test]
async fn what_surely_was_not_written_is_tried_again() {
    let stand = stand();
    stand.chaos.script([Fault::Unavailable, Fault::Unavailable, Fault::None]);
    stand.run(stand.store.apply(add_one())).await.unwrap();
    assert_eq!(stand.count().await, 1);
    stand.chaos.script([Fault::Unavailable, Fault::LostReply, Fault::None]);
    assert_eq!(stand.run(stand.store.get_counter(&home(), &key())).await.unwrap(), 1);
}

#[tokio::test]
async fn a_lost_reply_to_a_write_is_told_and_never_repeated() {
    for fault in [Fault::LostReply, Fault::LostRequest] {
        let stand = stand();
        stand.chaos.script([fault, Fault::None]);
        let e = stand.run(stand.store.apply(add_one())).await.unwrap_err();
        assert!(matches!(e, StoreError::Ambiguous { .. }), "{e}");
        assert_eq!(stand.count().await, i64::from(fault == Fault::LostReply));
    }
}

#[tokio::test]
async fn a_failure_that_took_long_is_not_repeated() {
    let late = ChaosPlan {
        unavailable_permille: 1_000,
        delay_permille: 1_000,
        delay_max: Duration::from_secs(3_600),
        ..ChaosPlan::default()
    };
    let stand = planned(late);
    stand.run(stand.store.get(&home(), &key())).await.unwrap_err();
    assert_eq!(stand.chaos.counts().calls, 1);
}

#[tokio::test]
async fn a_refusal_is_no_failure() {
    let stand = stand();
    for _ in 0..50 {
        let batch = Batch::new(home()).add(key(), Delta::at_most(1, 0));
        let e = stand.store.apply(batch).await.unwrap_err();
        assert!(matches!(e, StoreError::OutOfBounds { index: 0, .. }), "{e}");
    }
    stand.store.apply(add_one()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_keeps_failing_is_left_alone_and_tried_again() {
    let stand = stand();
    stand.chaos.always(Fault::Unavailable);
    for _ in 0..4 {
        stand.run(stand.store.apply(add_one())).await.unwrap_err();
    }
    let before = stand.chaos.counts();
    let e = stand.store.get(&home(), &key()).await;
    let e = match e {
        Err(e) => e,
        Ok(found) => panic!("refused while it is left alone, gave {found:?}"),
    };
    assert_eq!(e.kind(), ErrorKind::Unavailable);
    assert!(e.to_string().contains("left alone") && e.to_string().contains("does not answer (chaos)"), "{e}");
    assert_eq!(stand.chaos.counts(), before, "reads and writes share the breaker");
    stand.chaos.heal();
    stand.clock.advance(Duration::from_secs(3));
    stand.run(stand.store.apply(add_one())).await.unwrap();
    assert_eq!(stand.count().await, 1);
}

#[tokio::test]
async fn closing_says_nothing_about_the_server() {
    let stand = stand();
    stand.store.close().await.unwrap();
    for _ in 0..50 {
        let e = stand.run(stand.store.apply(add_one())).await.unwrap_err();
        assert!(matches!(e, StoreError::Closed), "{e}");
    }
}
