//! The handle of a running subscription.

use std::{fmt, sync::Arc};

use crate::{
    BusError, Metrics,
    engine::{core::Core, sub::Sub},
};

/// A running subscription; clones are the same one. Dropping it changes nothing: it runs until `stop` or the bus's `close`.
#[derive(Clone)]
pub struct Subscription {
    core: Arc<Core>,
    sub: Arc<Sub>,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("label", &self.sub.label).field("pattern", &self.sub.pattern).finish()
    }
}

impl Subscription {
    pub(crate) fn new(core: Arc<Core>, sub: Arc<Sub>) -> Self {
        Self { core, sub }
    }

    /// Its group's name, or the pattern of a live subscription.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.sub.label
    }

    /// Waits until everything that was published before the call, and that this subscription takes, is done with: handled (or
    /// dropped by its policy) on a live subscription, acknowledged or a dead letter in the group of a durable one. Events that
    /// wait for a retry are not done. On memory it costs about as much as a few task switches, so that a backtest may
    /// call it after every event. Called from the subscription's own handler it would wait for itself for ever.
    ///
    /// # Errors
    /// `Stopped` if the subscription ends first, `Displaced` if it does so by itself; `NoGroup`, `Backend`.
    ///
    /// # Cancel safety
    /// Dropping the future stops the waiting and nothing else.
    pub async fn drained(&self) -> Result<(), BusError> {
        self.sub.drained(&self.core).await
    }

    /// Begins no further handling until `resume`: what runs goes on to its end, what was claimed and not begun is given back. A durable group
    /// goes on collecting; a live queue fills, and then does what its policy says: with `Block` **its publishers wait, those of stored events
    /// too**. In this process only. `drained` waits for `resume`; stopped while it is paused, a live subscription drops what waits.
    pub fn pause(&self) {
        self.sub.set_paused(true);
    }

    /// Goes on after `pause`.
    pub fn resume(&self) {
        self.sub.set_paused(false);
    }

    /// Whether it is paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        *self.sub.paused.borrow()
    }

    /// How many events it has in this process that are not done with: in the queue of a live subscription, claimed by a durable one. What
    /// waits in a group altogether is in [`EventBus::status`](crate::EventBus::status).
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.sub.waiting()
    }

    /// Why it ended by itself, if it did: `Displaced` if another process runs a consumer of its name since. What its handler does at that
    /// moment goes on to its end, and counts unless the other has begun the same event (then `Metrics::leases_lost`).
    #[must_use]
    pub fn failure(&self) -> Option<BusError> {
        self.sub.failure()
    }

    /// Takes in nothing more, lets what runs end within `BusConfig::close_timeout`, gives back what was claimed and not begun.
    /// A durable group stays and goes on collecting. Idempotent.
    ///
    /// # Errors
    /// `Unfinished` says how many handlings were given up on, or how many waiting events a paused live subscription dropped.
    ///
    /// # Cancel safety
    /// Dropping the future leaves it stopping on its own.
    pub async fn stop(&self) -> Result<(), BusError> {
        let deadline = self.core.clock.now() + self.core.config.close_timeout;
        let unfinished = self.sub.stop_by(&self.core, deadline).await;
        self.core.forget(self.sub.id);
        if unfinished == 0 {
            return Ok(());
        }
        Err(BusError::Unfinished { unfinished, subscriptions: self.sub.label.clone() })
    }

    /// What was counted for this subscription in this process.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.sub.counters.read()
    }
}
