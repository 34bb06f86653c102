//! What runs beside a bot: its name is prolonged, and the orders of dead holders are found.

use std::{
    collections::BTreeSet,
    future::Future,
    sync::{Arc, Weak},
    time::Duration,
};

use infra_types::{AccountId, Clock};
use tokio::task::JoinHandle;

use crate::{
    engine::RiskEngine,
    error::RiskError,
    held::HeldOrder,
    holder::HolderConfig,
    reconcile::ReconcileError,
    truth::{Difference, Reconciled, Settles, VenueTruth},
};

/// What a guard has to tell.
#[derive(Debug)]
#[non_exhaustive]
pub enum GuardEvent {
    /// These orders have no holder any more; this guard's engine marked them.
    Orphaned(Vec<HeldOrder>),
    /// The engine lost its name: it approves nothing until it joins again.
    Lost(RiskError),
    /// The store refused or failed; it is tried again. The name runs out if that goes on.
    Failed(RiskError),
}

/// Who is told.
type Tell = Arc<dyn Fn(GuardEvent) + Send + Sync>;

/// Ends its tasks when dropped. Without a guard the name runs out, and whoever sweeps next orphans what the engine holds.
#[derive(Debug)]
#[must_use = "dropping it ends the guard"]
pub struct Guard(Vec<JoinHandle<()>>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl RiskEngine {
    /// Prolongs the name and sweeps for orphans, each in a task of its own at the interval of the configuration, until the guard or
    /// the engine is dropped. `clock` is the one that the lease runs by: the machine's, also where decisions follow another.
    ///
    /// # Errors
    /// `Invalid` for an engine without a holder.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn guard(
        self: &Arc<Self>,
        clock: Arc<dyn Clock>,
        tell: impl Fn(GuardEvent) + Send + Sync + 'static,
    ) -> Result<Guard, RiskError> {
        let HolderConfig { renew_interval, sweep_interval, .. } = self.holder()?.config;
        let tell: Tell = Arc::new(tell);
        let renewing = renew(Arc::downgrade(self), clock.clone(), renew_interval, tell.clone());
        let sweeping = sweep(Arc::downgrade(self), clock, sweep_interval, tell);
        Ok(Guard(vec![tokio::spawn(renewing), tokio::spawn(sweeping)]))
    }

    /// Reconciles an account at once, and again after each `interval`, until the guard or the engine is dropped. `ask` asks the
    /// venue, see [`RiskEngine::reconcile_asking`]; `tell` gets each result, and the differences that the look before saw too.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn reconcile_every<A, F, E>(
        self: &Arc<Self>,
        clock: Arc<dyn Clock>,
        interval: Duration,
        account: AccountId,
        settles: Settles,
        ask: A,
        tell: impl Fn(Result<(&Reconciled, BTreeSet<Difference>), ReconcileError<E>>) + Send + Sync + 'static,
    ) -> Guard
    where
        A: Fn(Vec<HeldOrder>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<VenueTruth, E>> + Send,
        E: Send + 'static,
    {
        let engine = Arc::downgrade(self);
        Guard(vec![tokio::spawn(async move {
            let mut earlier = Reconciled::default();
            while let Some(strong) = engine.upgrade() {
                let looked = strong.reconcile_asking(&account, settles, &ask).await;
                drop(strong);
                match looked {
                    Ok(now) => {
                        tell(Ok((&now, now.still(&earlier))));
                        earlier = now;
                    }
                    Err(error) => tell(Err(error)),
                }
                clock.sleep(interval).await;
            }
        })])
    }
}

async fn renew(engine: Weak<RiskEngine>, clock: Arc<dyn Clock>, interval: Duration, tell: Tell) {
    let mut was_lost = false;
    // Not held while it sleeps, so that the last user's drop ends the guard too.
    while let Some(strong) = engine.upgrade() {
        let begun = clock.now();
        let renewed = strong.renew().await;
        drop(strong);
        let is_lost = matches!(renewed, Err(RiskError::HolderLost { .. }));
        match renewed {
            Err(lost @ RiskError::HolderLost { .. }) if !was_lost => tell(GuardEvent::Lost(lost)),
            Ok(()) | Err(RiskError::HolderLost { .. }) => {}
            Err(failed) => tell(GuardEvent::Failed(failed)),
        }
        was_lost = is_lost;
        clock.sleep_until(begun + interval).await;
    }
}

async fn sweep(engine: Weak<RiskEngine>, clock: Arc<dyn Clock>, interval: Duration, tell: Tell) {
    while let Some(strong) = engine.upgrade() {
        let swept = strong.sweep_orphans().await;
        drop(strong);
        match swept {
            Ok(orphaned) if orphaned.is_empty() => {}
            Ok(orphaned) => tell(GuardEvent::Orphaned(orphaned)),
            Err(failed) => tell(GuardEvent::Failed(failed)),
        }
        clock.sleep(interval).await;
    }
}
