//! The suite on memory, and what only memory has.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use infra_state_store::{Key, MemoryStateStore, StateStoreExt, Ttl, conformance::OnClock, state_store_conformance};
use infra_types::{ManualClock, Namespace};

async fn fixture() -> OnClock {
    OnClock::new(MemoryStateStore::new)
}

state_store_conformance!(fixture());

#[tokio::test]
async fn the_oldest_cache_keys_go_first_and_are_counted() {
    let clock = Arc::new(ManualClock::default());
    let store = MemoryStateStore::with_cache_entries_max(clock, NonZeroUsize::new(3).unwrap());
    let home = Namespace::new("home").unwrap();
    for n in 0..5 {
        let ttl = if n == 0 { Ttl::After(Duration::from_secs(1)) } else { Ttl::Never };
        store.set(&home, &Key::cache(format!("k{n}")).unwrap(), "v", ttl).await.unwrap();
        store.set(&home, &Key::record(format!("k{n}")).unwrap(), "v", Ttl::Never).await.unwrap();
        // Written again: young again.
        store.set(&home, &Key::cache("k1").unwrap(), "v", Ttl::Never).await.unwrap();
    }
    let mut left = Vec::new();
    for n in 0..5 {
        assert!(store.exists(&home, &Key::record(format!("k{n}")).unwrap()).await.unwrap(), "records stay");
        if store.exists(&home, &Key::cache(format!("k{n}")).unwrap()).await.unwrap() {
            left.push(n);
        }
    }
    assert_eq!(left, [1, 3, 4]);
    assert_eq!(store.cache_evictions(), 2);
}

#[test]
fn debug_shows_no_value() {
    let store = MemoryStateStore::new(Arc::new(ManualClock::default()));
    assert_eq!(format!("{store:?}"), "MemoryStateStore { namespaces: 0, .. }");
}
