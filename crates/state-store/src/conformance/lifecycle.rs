//! Clearing, health, closing.

use infra_types::HealthStatus;

use super::{Fixture, tools::*};
use crate::{
    batch::{Ttl, When},
    error::StoreError,
    ext::StateStoreExt,
    store::{Scan, StateStore},
};

async fn furnish(store: &dyn StateStore, namespace: &str) {
    let mut all = crate::batch::Batch::new(ns(namespace));
    all.extend([
        put(&cache("k"), "v"),
        put(&record("k"), "v"),
        acquire("k", "me", LONG),
        enqueue("out", "e"),
        mark("bot", "e", Ttl::Never),
    ]);
    good(store.apply(all).await);
}

/// Not one whose name begins alike, either.
pub async fn clear_empties_one_namespace_only(f: &dyn Fixture) {
    let store = f.store();
    for name in ["conformance", "conformance.b", "conform"] {
        furnish(&*store, name).await;
    }
    assert_eq!(good(store.clear(&home()).await), 3);
    for key in [cache("k"), record("k"), lease("k")] {
        assert_eq!(get(&*f.second(), &key).await, None);
        for other in ["conformance.b", "conform"] {
            assert!(good(store.exists(&ns(other), &key).await), "{other} {key:?}");
        }
    }
    assert_eq!(names(&*store, "k", 10).await, [""; 0]);
    assert_eq!(messages(&*store, "out").await, []);
    assert_eq!(good(store.outbox_read(&ns("conform"), &record("out"), None, 10).await).len(), 1);
    one(&*store, mark("bot", "e", Ttl::Never)).await;
    let marked = store.apply_one(&ns("conform"), mark("bot", "e", Ttl::Never)).await;
    assert!(matches!(marked, Err(StoreError::AlreadyProcessed { .. })), "{marked:?}");
    assert_eq!(good(store.clear(&ns("never")).await), 0);
}

/// What had expired was not there to be removed.
pub async fn clear_counts_live_keys_only(f: &dyn Fixture) {
    let store = f.store();
    one(&*store, put(&record("k"), "v")).await;
    one(&*store, set(&record("short"), "v", Ttl::After(SOON), When::Always)).await;
    one(&*store, acquire("l", "me", SOON)).await;
    f.advance(SOON).await;
    assert_eq!(good(store.clear(&home()).await), 1);
    assert_eq!(good(store.clear(&home()).await), 0);
}

/// Everything goes, however much it is.
pub async fn clear_takes_more_than_one_chunk(f: &dyn Fixture) {
    let store = f.store();
    for chunk in 0..3 {
        let mut many = batch();
        many.extend((0..400).map(|n| put(&record(&format!("k{chunk}-{n}")), "v")));
        many.extend((0..400).map(|n| enqueue("out", &format!("e{chunk}-{n}"))));
        good(store.apply(many).await);
    }
    assert_eq!(good(store.clear(&home()).await), 1_200);
    assert_eq!(names(&*store, "k", 1_000).await, [""; 0]);
    assert_eq!(messages(&*store, "out").await, []);
}

/// Up once it was used, down once it was closed; never an error.
pub async fn health_follows_use_and_close(f: &dyn Fixture) {
    let store = f.store();
    assert_ne!(store.health().await.status, HealthStatus::Down);
    one(&*store, put(&cache("k"), "v")).await;
    let health = store.health().await;
    assert_eq!(health.status, HealthStatus::Up, "{health:?}");
    assert_eq!(value(&*store, &cache("k")).await, bytes("v"));
    good(store.close().await);
    assert_eq!(store.health().await.status, HealthStatus::Down);
}

/// Closing twice is fine; everything else answers `Closed`.
pub async fn closing_refuses_what_comes_after(f: &dyn Fixture) {
    let store = f.store();
    one(&*store, put(&record("k"), "v")).await;
    good(store.close().await);
    good(store.close().await);
    let answers = [
        store.get(&home(), &record("k")).await.err(),
        store.get_many(&home(), &[record("k")]).await.err(),
        store.apply(batch().set(record("k"), "w")).await.err(),
        store.scan(&home(), Scan::new("k")).await.err(),
        store.outbox_read(&home(), &record("out"), None, 10).await.err(),
        store.clear(&home()).await.err(),
    ];
    for answer in answers {
        assert!(matches!(answer, Some(StoreError::Closed)), "{answer:?}");
    }
}
