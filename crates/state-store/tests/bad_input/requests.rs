//! Bad requests, which are refused alike everywhere.

use std::num::NonZeroU32;

use infra_state_store::{Batch, Key, StateStore, StateStoreExt, StoreError, Stored, StoredExt, Ttl};
use infra_types::HealthStatus;
use serde::{Deserialize, Serialize};

use super::{Kept, Line, SECRET, home, in_time, noise, record};

/// A key that is too long, or of no good form, cannot be made: no store ever sees it.
pub(crate) fn keys(line: &Line) -> StoreError {
    line.fits(Key::cache("a\nb").unwrap_err());
    line.fits(Key::record("").unwrap_err());
    line.fits(Key::record("k".repeat(100_000)).unwrap_err())
}

/// Too large is judged before anything is connected, and by the same limits everywhere.
pub(crate) async fn sizes(line: &Line, store: &dyn StateStore) -> StoreError {
    let limits = store.info().limits;
    let big = noise(limits.value_bytes_max + 1, 1);
    line.refuses(store.apply(Batch::new(home()).set(record("k"), big.clone()))).await;
    line.refuses(store.apply(Batch::new(home()).push(Key::list("l").unwrap(), big, 5))).await;
    let many = (0..=limits.batch_ops_max).fold(Batch::new(home()), |batch, _| batch.set(record("k"), "v"));
    line.refuses(store.apply(many)).await;
    let keys: Vec<Key> = (0..=limits.get_keys_max).map(|n| record(&n.to_string())).collect();
    line.refuses(store.get_many(&home(), &keys)).await;
    let values = limits.batch_bytes_max / limits.value_bytes_max + 1;
    let whole = noise(limits.value_bytes_max, 1);
    let heavy = (0..values).fold(Batch::new(home()), |batch, n| batch.set(record(&n.to_string()), whole.clone()));
    let e = line.refuses(store.apply(heavy)).await;
    assert_eq!(in_time(store.health()).await.status, HealthStatus::NeverConnected, "nothing was asked of a server");
    // The largest that is allowed is taken, whole.
    let mut kept = Kept::default();
    kept.write(store, limits.value_bytes_max).await.unwrap();
    kept.is_all_there(store).await;
    e
}

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    id: String,
}

impl Stored for Order {
    const NAME: &'static str = "order";
    const SCHEMA: u32 = 2;
}

#[derive(Debug, Serialize, Deserialize)]
struct Position {
    id: String,
}

impl Stored for Position {
    const NAME: &'static str = "position";
    const SCHEMA: u32 = 1;
}

/// What another codec, another type or a later program wrote is refused, is never overwritten by an update, and stays.
pub(crate) async fn codecs(line: &Line, store: &dyn StateStore) -> StoreError {
    let key = record("k");
    store.set_stored(&home(), &key, &Order { id: SECRET.into() }, Ttl::Never).await.unwrap();
    let typed = store.get(&home(), &key).await.unwrap().unwrap().value.as_bytes().unwrap().clone();
    for written in [
        typed,
        format!("infra cbor position 1\n{SECRET}").into(),
        format!("infra json position 2\n{{\"id\":\"{SECRET}\"}}").into(),
        format!("{{\"id\":\"{SECRET}\"}}").into(),
    ] {
        store.set(&home(), &key, written.clone(), Ttl::Never).await.unwrap();
        line.refuses(store.get_stored::<Position>(&home(), &key)).await;
        let new = |_: Option<Position>| Position { id: "new".into() };
        line.refuses(store.update_stored(&home(), &key, NonZeroU32::MIN, new)).await;
        assert_eq!(store.get_bytes(&home(), &key).await.unwrap(), Some(written));
    }
    line.refuses(store.get_stored::<Position>(&home(), &key)).await
}
