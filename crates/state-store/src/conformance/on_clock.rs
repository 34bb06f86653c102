//! The fixture of a store that lives in its process and judges expiry by the clock that it is given.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use infra_types::{Clock, ManualClock};

use super::Fixture;
use crate::store::StateStore;

/// A store on a clock that the cases move. Its second handle is the same one, and nothing is left of it when it is dropped: what has a
/// file, a server or a wire needs a [`Fixture`] of its own.
pub struct OnClock {
    clock: ManualClock,
    store: Arc<dyn StateStore>,
}

impl OnClock {
    /// Opens the store.
    pub fn new<S: StateStore + 'static>(open: impl FnOnce(Arc<dyn Clock>) -> S) -> Self {
        let clock = ManualClock::default();
        Self { store: Arc::new(open(Arc::new(clock.clone()))), clock }
    }
}

#[async_trait]
impl Fixture for OnClock {
    fn store(&self) -> Arc<dyn StateStore> {
        self.store.clone()
    }

    fn second(&self) -> Arc<dyn StateStore> {
        self.store.clone()
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }
}

impl fmt::Debug for OnClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnClock").field("store", &self.store).finish_non_exhaustive()
    }
}
