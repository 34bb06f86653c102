//! Whoever looks at the counter while everybody adds to it, and at the orders of a process that was just killed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use infra_risk_engine::RiskEngine;
use infra_state_store::{Key, StateStore};
use infra_types::{Clock, Scaled, SystemClock};

use super::world::{COUNTER, namespace};

/// What the observer saw.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) looks: u64,
    pub(crate) over: u64,
    pub(crate) highest: i64,
}

/// Reads the counter, nothing between two looks but the way to the store and back, until told to stop.
pub(crate) async fn counter(store: Arc<dyn StateStore>, limit: i64, stop: Arc<AtomicBool>) -> Seen {
    let (space, key) = (namespace("ledger"), Key::record(COUNTER).expect("a key"));
    let mut seen = Seen::default();
    while !stop.load(Ordering::SeqCst) {
        // A busy file may refuse a look; the next one comes at once.
        if let Ok(entry) = store.get(&space, &key).await {
            let value = entry.and_then(|entry| entry.value.as_counter()).unwrap_or(0);
            let value = value / 10_i64.pow(Scaled::SCALE) + i64::from(value % 10_i64.pow(Scaled::SCALE) > 0);
            seen.looks += 1;
            seen.over += u64::from(value > limit);
            seen.highest = seen.highest.max(value);
        }
        SystemClock.sleep(Duration::from_millis(1)).await;
    }
    seen
}

/// How long it takes from now until no order of that holder is still held, and how many were orphaned.
pub(crate) async fn funeral(engine: Arc<RiskEngine>, name: String, fence: u64) -> (Duration, usize) {
    let begun = SystemClock.now();
    loop {
        if let Ok(held) = engine.held_orders(None).await {
            let of_dead: Vec<_> =
                held.iter().filter(|held| held.holder.as_str() == name && held.fence == fence).collect();
            if of_dead.iter().all(|held| held.is_orphaned()) {
                return (SystemClock.now().since(begun), of_dead.len());
            }
        }
        SystemClock.sleep(Duration::from_millis(10)).await;
    }
}
