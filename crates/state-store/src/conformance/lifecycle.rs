//! Clearing, health, closing.

use infra_types::HealthStatus;

use super::{Fixture, tools::*};
use crate::{
    batch::{Applied, Batch, Ttl, When},
    error::StoreError,
    ext::StateStoreExt,
    list::ListRange,
    store::{Scan, StateStore},
};

async fn furnish(store: &dyn StateStore, namespace: &str) {
    let mut all = Batch::new(ns(namespace));
    all.extend([
        put(&cache("k"), "v"),
        put(&record("k"), "v"),
        acquire("k", "me", LONG),
        enqueue("out", "e"),
        mark("bot", "e", Ttl::Never),
        push("k", "v", 5, Ttl::Never),
        admit("k", 1, hourly(5)),
    ]);
    good(store.apply(all).await);
}

/// Not one whose name begins alike, either.
pub async fn clear_empties_one_namespace_only(f: &dyn Fixture) {
    let store = f.store();
    for name in ["conformance", "conformance.b", "conform"] {
        furnish(&*store, name).await;
    }
    assert_eq!(good(store.clear(&home()).await), 5);
    assert_eq!((values(&*store, "k").await.len(), used(&*store, "k").await), (0, 0));
    for other in ["conformance.b", "conform"] {
        let page = good(store.list_range(&ns(other), &list("k"), ListRange::newest(5)).await);
        let peek = good(store.apply_one(&ns(other), admit("k", 0, hourly(5))).await);
        assert_eq!((page.length, peek), (1, Applied::Used(1)), "{other}");
    }
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
        store.list_range(&home(), &list("l"), ListRange::newest(1)).await.err(),
        store.changes_read(&home(), None, 10).await.err(),
        store.clear(&home()).await.err(),
    ];
    for answer in answers {
        assert!(matches!(answer, Some(StoreError::Closed)), "{answer:?}");
    }
}

/// What others write while a namespace is cleared is there wholly or not at all, and numbers go on.
pub async fn clearing_beside_writers_tears_nothing(f: &dyn Fixture) {
    let answers = together(f, |task, store| async move {
        let mut last = crate::batch::Version(0);
        for n in 0..8 {
            if task < 2 {
                good(store.clear(&home()).await);
                continue;
            }
            let name = format!("k{task}-{n}");
            let written = good(store.apply(batch().set(record(&name), "v").with(enqueue(&name, "e"))).await);
            match written[0] {
                Applied::Version(version) if version > last => last = version,
                ref other => return Err(format!("versions must grow: {other:?} after {last:?}")),
            }
            for row in messages(&*store, &name).await {
                if row.id != id("e") {
                    return Err(format!("a foreign message: {row:?}"));
                }
            }
        }
        Ok(())
    })
    .await;
    assert_eq!(answers, vec![Ok(()); TASKS]);
    good(f.store().clear(&home()).await);
    assert_eq!(names(&*f.store(), "k", 100).await, [""; 0]);
    assert_eq!(good(f.second().clear(&home()).await), 0);
}
