//! The typed caches on memory and SQLite, and over a restart of SQLite.
#![expect(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

#[path = "cache/market.rs"]
mod market;
#[path = "cache/metrics.rs"]
mod metrics;
#[path = "cache/sessions.rs"]
mod sessions;
#[path = "cache/signals.rs"]
mod signals;

use std::{future::Future, sync::Arc, time::Duration};

use infra_state_store::{MemoryStateStore, StateStore};
use infra_types::{AccountId, Clock, Currency, Decimal, ManualClock, Namespace, Price, Symbol, Timestamp};

/// A store, its clock, and where to find it again.
pub(crate) struct World {
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) clock: ManualClock,
    #[cfg(feature = "sqlite")]
    dir: Option<infra_testkit::TestDir>,
}

impl World {
    pub(crate) fn memory() -> Self {
        let clock = ManualClock::default();
        Self {
            store: Arc::new(MemoryStateStore::new(Arc::new(clock.clone()))),
            clock,
            #[cfg(feature = "sqlite")]
            dir: None,
        }
    }

    #[cfg(feature = "sqlite")]
    pub(crate) fn sqlite() -> Self {
        let (dir, clock) = (infra_testkit::TestDir::new(), ManualClock::default());
        Self { store: open(&dir, &clock), clock, dir: Some(dir) }
    }

    /// Another process on the same data; on memory, the same.
    pub(crate) async fn restart(&mut self) {
        #[cfg(feature = "sqlite")]
        if let Some(dir) = &self.dir {
            self.store.close().await.unwrap();
            self.store = open(dir, &self.clock);
        }
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.clock.clone())
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.wall()
    }

    pub(crate) fn pass(&self, secs: u64) {
        self.clock.advance(Duration::from_secs(secs));
    }
}

#[cfg(feature = "sqlite")]
fn open(dir: &infra_testkit::TestDir, clock: &ManualClock) -> Arc<dyn StateStore> {
    use infra_backends::{SqliteConfig, Synchronous};
    let config = SqliteConfig::new(dir.file("cache.db")).with_synchronous(Synchronous::Normal);
    Arc::new(infra_state_store::SqliteStateStore::open(config, Arc::new(clock.clone())))
}

/// Runs a case on every store that this build has.
pub(crate) async fn everywhere<F: Future<Output = ()>>(case: impl Fn(World) -> F) {
    case(World::memory()).await;
    #[cfg(feature = "sqlite")]
    case(World::sqlite()).await;
}

pub(crate) fn home() -> Namespace {
    Namespace::new("bot").unwrap()
}

pub(crate) fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

pub(crate) fn price(text: &str) -> Price {
    text.parse().unwrap()
}

pub(crate) fn symbol(text: &str) -> Symbol {
    Symbol::new(text).unwrap()
}

pub(crate) fn account(text: &str) -> AccountId {
    AccountId::new(text).unwrap()
}

pub(crate) fn currency(text: &str) -> Currency {
    Currency::new(text).unwrap()
}
