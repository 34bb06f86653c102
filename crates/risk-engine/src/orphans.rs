//! Orders that nobody looks after: found, listed, taken over.

use std::collections::BTreeMap;

use infra_state_store::{Batch, Key, Op, StoreError, When};
use infra_types::{AccountId, BotId, OrderId};

use crate::{
    engine::RiskEngine,
    error::RiskError,
    held::{HeldOrder, HeldState, OrphanCause, Stored},
    holder::Holder,
    ledger,
    risk_events::RiskEvents,
};

/// How many orders become orphaned in one batch.
const CHUNK: usize = 64;
/// How often a record is read again when somebody else writes it.
const TRIES: u32 = 64;

/// What a caller adds to the batch that makes an order orphaned: rows for an audit trail, an event. At most eight operations.
pub type Compose<'a> = &'a (dyn Fn(&HeldOrder) -> Vec<Op> + Send + Sync);

impl RiskEngine {
    /// Finds the held orders whose holder is gone (its lease ran out, or its name has a new holder) and marks them as orphaned; answers
    /// those that this call marked, each with a [`RiskEvent`](crate::RiskEvent) in the same batch. They go on counting. Of several engines that sweep at once, one marks each order.
    ///
    /// A name whose lease ran out is retired first: whoever had it, should he only have slept, approves nothing more. What a living
    /// holder holds is never touched.
    ///
    /// # Errors
    /// What the store says; `Corrupt` for a record that is not ours. Some orders may be marked; call again.
    ///
    /// # Cancel safety
    /// Some orders may be marked; call again.
    pub async fn sweep_orphans(&self) -> Result<Vec<HeldOrder>, RiskError> {
        self.sweep_orphans_with(&|_| Vec::new()).await
    }

    /// As [`RiskEngine::sweep_orphans`]; what `compose` adds for an order happens if and only if this call marks it.
    ///
    /// # Errors
    /// As [`RiskEngine::sweep_orphans`]; `Caller` if one of the caller's operations refused.
    ///
    /// # Cancel safety
    /// As [`RiskEngine::sweep_orphans`].
    pub async fn sweep_orphans_with(&self, compose: Compose<'_>) -> Result<Vec<HeldOrder>, RiskError> {
        let mut of_holder: BTreeMap<BotId, Vec<Stored>> = BTreeMap::new();
        self.scan_held(ledger::HELD, |held, version| {
            if !held.is_orphaned() {
                of_holder.entry(held.holder.clone()).or_default().push((held, version));
            }
        })
        .await?;
        let mut marked = Vec::new();
        for (name, held) in of_holder {
            let newest = self.newest_fence(&name).await?;
            let gone: Vec<_> = held.into_iter().filter(|(held, _)| held.fence < newest).collect();
            for chunk in gone.chunks(CHUNK) {
                self.mark(chunk.to_vec(), compose, &mut marked).await?;
            }
        }
        Ok(marked)
    }

    /// The fence of the name's living holder; of a name without one, a fence that nobody will ever act under.
    async fn newest_fence(&self, name: &BotId) -> Result<u64, RiskError> {
        let own = self.holder.as_ref().filter(|holder| holder.config.name == *name);
        let key = Key::lease(ledger::holder(name))?;
        for _ in 0..TRIES {
            if let Some(entry) = self.store.get(&self.namespace, &key).await? {
                let fence = entry.version.map_or(0, |version| version.0);
                return Ok(fence);
            }
            // An engine does not take its own name from itself: it prolongs it.
            if let Some(Ok(fence)) = own.map(Holder::fence) {
                match self.renew().await {
                    Ok(()) => return Ok(fence),
                    Err(RiskError::HolderLost { .. }) => {}
                    Err(other) => return Err(other),
                }
            }
            if let Some(fence) = self.retire(name).await? {
                return Ok(fence);
            }
        }
        Err(RiskError::Contended { tries: TRIES })
    }

    /// Marks as many of these as nobody changed since.
    async fn mark(
        &self,
        mut orders: Vec<Stored>,
        compose: Compose<'_>,
        marked: &mut Vec<HeldOrder>,
    ) -> Result<(), RiskError> {
        let now = self.now().wall;
        let state = HeldState::Orphaned { at: now, why: OrphanCause::HolderGone };
        let events = RiskEvents::new(self.store.clone(), self.namespace.clone())?;
        while !orders.is_empty() {
            let next: Vec<_> = orders.iter().map(|(held, _)| HeldOrder { state, ..held.clone() }).collect();
            let mut batch = Batch::new(self.namespace.clone());
            for (held, (_, version)) in next.iter().zip(&orders) {
                batch.ops.push(held.set(When::Version(*version))?);
            }
            for held in &next {
                batch.ops.push(events.op(&held.event(now))?);
            }
            batch.extend(next.iter().flat_map(compose));
            match self.store.apply(batch).await {
                Ok(_) => {
                    marked.extend(next);
                    return Ok(());
                }
                // Settled, adopted or marked in between: not ours.
                Err(StoreError::Mismatch { index, .. }) if index < orders.len() => drop(orders.remove(index)),
                Err(source) => return Err(at_caller(source, 2 * orders.len())),
            }
        }
        Ok(())
    }

    /// Says that nobody knows what became of an order: a reply was lost. It goes on counting and is reconciled like any orphan.
    /// Of an order that is orphaned already nothing changes.
    ///
    /// # Errors
    /// `NotHeld` if it is over; what the store says.
    ///
    /// # Cancel safety
    /// It may be marked or not; call again.
    pub async fn mark_unknown(&self, account: &AccountId, order: &OrderId) -> Result<HeldOrder, RiskError> {
        let state = HeldState::Orphaned { at: self.now().wall, why: OrphanCause::OutcomeUnknown };
        self.rewrite(account, order, &[], |held| {
            Ok(if held.is_orphaned() { None } else { Some(HeldOrder { state, ..held.clone() }) })
        })
        .await
    }

    /// Takes over an orphaned order: from now on this engine's holder looks after it.
    ///
    /// # Errors
    /// `NotHeld` if it is over, `NotOrphaned` if somebody else looks after it; `HolderLost`; `Invalid` for an engine without a
    /// holder; what the store says.
    ///
    /// # Cancel safety
    /// It may be taken over or not; call again.
    pub async fn adopt(&self, account: &AccountId, order: &OrderId) -> Result<HeldOrder, RiskError> {
        let holder = self.holder()?;
        let fence = holder.fence()?;
        let check = [Op::CheckFence { key: holder.lease.clone(), fence }];
        let name = &holder.config.name;
        let adopted = self.rewrite(account, order, &check, |held| {
            if held.is_orphaned() {
                Ok(Some(HeldOrder { state: HeldState::Held, holder: name.clone(), fence, ..held.clone() }))
            } else if held.holder == *name && held.fence == fence {
                Ok(None)
            } else {
                Err(RiskError::NotOrphaned { order: held.order.id.clone(), holder: held.holder.clone() })
            }
        });
        match adopted.await {
            Err(RiskError::Caller { source: StoreError::Fenced { .. }, .. }) => Err(holder.lose(fence)),
            other => other,
        }
    }

    /// Orders that nobody looks after.
    ///
    /// # Errors
    /// What the store says; `Corrupt` for a record that is not ours.
    ///
    /// # Cancel safety
    /// Reads change nothing in the store.
    pub async fn orphans(&self) -> Result<Vec<HeldOrder>, RiskError> {
        let mut found = self.held_orders(None).await?;
        found.retain(HeldOrder::is_orphaned);
        Ok(found)
    }

    /// Replaces a held order by what `change` makes of it, together with `more`; leaves it if that is nothing.
    async fn rewrite(
        &self,
        account: &AccountId,
        order: &OrderId,
        more: &[Op],
        change: impl Fn(&HeldOrder) -> Result<Option<HeldOrder>, RiskError>,
    ) -> Result<HeldOrder, RiskError> {
        for _ in 0..TRIES {
            let stored = self.stored_held(account, order).await?;
            let (held, version) = stored.ok_or_else(|| RiskError::NotHeld(order.clone()))?;
            let Some(next) = change(&held)? else { return Ok(held) };
            let event = RiskEvents::new(self.store.clone(), self.namespace.clone())?.op(&next.event(self.now().wall))?;
            let mut batch = Batch::new(self.namespace.clone()).with(next.set(When::Version(version))?);
            batch.extend(more.iter().cloned().chain([event]));
            match self.store.apply(batch).await {
                Ok(_) => return Ok(next),
                Err(StoreError::Mismatch { index: 0, .. }) => {}
                Err(source) => return Err(at_caller(source, 1)),
            }
        }
        Err(RiskError::Contended { tries: TRIES })
    }
}

/// A refusal of a batch whose first `own` operations are ours.
fn at_caller(source: StoreError, own: usize) -> RiskError {
    match source.index() {
        Some(index) if index >= own => RiskError::Caller { index: index - own, source },
        _ => source.into(),
    }
}
