//! What a store cannot do is a closed list, is refused in one way, and is true.

use infra_types::ErrorKind;

use super::{Fixture, tools::*};
use crate::{
    batch::{Applied, Ttl, When},
    capability::Capability,
    changes::ChangePosition,
    error::StoreError,
    store::{Limits, StateStore},
};

/// Every capability is there or refused, with the same typed error; some imply others.
pub async fn what_is_missing_is_refused(f: &dyn Fixture) {
    let store = f.store();
    one(&*store, put(&record("k"), "v")).await;
    let info = store.info();
    for capability in Capability::ALL {
        match info.require(capability) {
            Ok(()) => assert!(info.has(capability), "{capability:?}"),
            Err(e) => {
                assert!(!info.has(capability), "{capability:?}");
                assert_eq!(e.kind(), ErrorKind::Unsupported);
                assert!(e.to_string().contains(capability.as_str()), "{e}");
                assert!(
                    matches!(e, StoreError::Unsupported { backend, what } if backend == info.backend && what == capability.as_str()),
                    "{e:?}"
                );
            }
        }
    }
    let implies = |one: Capability, other: Capability| {
        assert!(!info.has(one) || info.has(other), "{one:?} without {other:?} makes no sense");
    };
    implies(Capability::SurvivePowerCut, Capability::SurviveProcess);
    implies(Capability::ShareBetweenHosts, Capability::ShareBetweenProcesses);
    implies(Capability::ShareBetweenProcesses, Capability::SurviveProcess);
    // A server's clock never stands still.
    assert!(!f.has_exact_clock() || info.has(Capability::UseGivenClock));
}

/// Every handle tells the same, and the sizes are those of every other backend.
pub async fn every_handle_tells_the_same(f: &dyn Fixture) {
    let (store, second) = (f.store(), f.second());
    for handle in [&store, &second] {
        one(&**handle, put(&record("k"), "v")).await;
    }
    assert_eq!(store.info(), second.info());
    assert!(!store.info().backend.is_empty());
    // A layer that adds to every value takes that much off the sizes, and nothing off the counts.
    let (found, usual) = (store.info().limits, Limits::default());
    assert_eq!((found.batch_ops_max, found.get_keys_max), (usual.batch_ops_max, usual.get_keys_max));
    assert!((usual.value_bytes_max - 1_024..=usual.value_bytes_max).contains(&found.value_bytes_max), "{found:?}");
    let ops = found.batch_ops_max;
    assert!(
        (usual.batch_bytes_max - 1_024 * ops..=usual.batch_bytes_max).contains(&found.batch_bytes_max),
        "{found:?}"
    );
}

/// Everything that every kind of key holds is there for a handle that was opened after all others were closed; a store that loses it
/// says so.
pub async fn what_survives_its_process_is_all_there(f: &dyn Fixture) {
    let store = f.store();
    one(&*store, put(&record("warm"), "v")).await;
    let survives = store.info().has(Capability::SurviveProcess);
    let mut all = batch().with(crate::op::Op::KeepChanges { max: 100 });
    all.extend([
        put(&cache("c"), "v"),
        set(&record("r"), "v", Ttl::After(LONG), When::Always),
        acquire("l", "me", LONG),
        push("list", "1", 5, Ttl::Never),
        push("list", "2", 5, Ttl::Never),
        admit("w", 3, hourly(5)),
        enqueue("out", "e"),
        mark("bot", "e", Ttl::Never),
    ]);
    good(store.apply(all).await);
    let end = changes_end(&*store).await;
    let before = everything(&*store, end).await;
    let Some(reopened) = f.reopen().await else {
        assert!(!survives, "a store that survives its process can be opened again: the fixture must say how");
        return;
    };
    assert!(survives, "what can be opened again survives its process, and should say so");
    assert_eq!(everything(&*reopened, end).await, before);
    let e = refused(&*reopened, mark("bot", "e", Ttl::Never)).await;
    assert!(matches!(e, StoreError::AlreadyProcessed { .. }), "{e:?}");
    assert!(matches!(refused(&*reopened, acquire("l", "you", LONG)).await, StoreError::LeaseHeld { .. }));
    // Numbers go on where they were.
    let version = write_record(&*reopened, put(&record("r"), "w")).await;
    let read = changes_after(&*reopened, end).await;
    assert_eq!((told(&read.changes), read.changes[0].version), (vec!["+r".to_owned()], Some(version)));
    assert_eq!(one(&*reopened, push("list", "3", 5, Ttl::Never)).await, Applied::Length(3));
}

async fn everything(store: &dyn StateStore, end: ChangePosition) -> String {
    let keys = [cache("c"), record("r"), lease("l")];
    let entries = good(store.get_many(&home(), &keys).await);
    let (list, used, messages) = (values(store, "list").await, used(store, "w").await, messages(store, "out").await);
    format!("{entries:?} {list:?} {used} {messages:?} {:?}", changes_after(store, end).await)
}

/// A store that other hosts share is reached over a network: its fixture must offer the faults of one, and no other may need to.
pub async fn a_shared_store_offers_its_faults(f: &dyn Fixture) {
    let store = f.store();
    one(&*store, put(&record("k"), "v")).await;
    assert_eq!(f.faults().await.is_some(), store.info().has(Capability::ShareBetweenHosts));
}
