//! Ledger and venue: what is missing is settled, what differs is told, nothing is made up and nothing is traded.

use std::future::Future;

use infra_types::{AccountId, Decimal};

use crate::{
    engine::RiskEngine,
    error::RiskError,
    held::HeldOrder,
    reservation::Outcome,
    truth::{Difference, Reconciled, Settles, VenueBalance, VenueOrder, VenueTruth, cash, may_settle},
};

/// Why a reconciliation that asks the venue itself failed.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError<E> {
    /// The venue did not say; nothing was settled.
    #[error("the venue did not say: {0}")]
    Venue(E),
    /// The ledger refused.
    #[error(transparent)]
    Risk(#[from] RiskError),
}

impl RiskEngine {
    /// Compares what the venue says of an account with the ledger. Fills that the ledger lacks are settled, orders that are over
    /// end, by client order id and exactly as the venue tells them, for the orders that `settles` names; whatever else
    /// differs is told. A second call with the same truth changes nothing.
    ///
    /// Orders that were approved after `truth.asked_at` are left alone. While somebody trades, a position or a balance may differ for a
    /// moment: what still differs when asked again is real.
    ///
    /// # Errors
    /// `UnknownAccount`; what settling says (a rate or an instrument that is missing); what the store says. What was settled before
    /// stays so; call again.
    ///
    /// # Cancel safety
    /// Some orders may be settled, each fill wholly; call again.
    pub async fn reconcile(
        &self,
        account: &AccountId,
        truth: &VenueTruth,
        settles: Settles,
    ) -> Result<Reconciled, RiskError> {
        let mut result = Reconciled::default();
        let held = self.held_orders(Some(account)).await?;
        for (id, order) in truth.orders.iter().filter(|(_, order)| order.is_open) {
            if !held.iter().any(|held| held.order.id == *id) {
                let (order, instrument, filled) = (id.clone(), order.instrument.clone(), order.filled);
                result.differences.insert(Difference::UnknownToUs { order, instrument, filled });
            }
        }
        for held in held.into_iter().filter(|held| held.since < truth.asked_at) {
            let id = held.order.id.clone();
            match self.reconcile_one(held, truth, settles, &mut result).await {
                Err(RiskError::ReservationMoved { .. }) => result.moved.push(id),
                other => other?,
            }
        }
        self.compare(account, truth, &mut result).await?;
        Ok(result)
    }

    /// As [`RiskEngine::reconcile`], asking the venue itself: sweeps for orphans, gives `ask` the account's held orders, so that it
    /// can ask about each by client order id, and reconciles what it answers. For starts, and again and again.
    ///
    /// # Errors
    /// `Venue` if `ask` fails; as [`RiskEngine::reconcile`].
    ///
    /// # Cancel safety
    /// As [`RiskEngine::reconcile`].
    pub async fn reconcile_asking<A, F, E>(
        &self,
        account: &AccountId,
        settles: Settles,
        ask: A,
    ) -> Result<Reconciled, ReconcileError<E>>
    where
        A: FnOnce(Vec<HeldOrder>) -> F,
        F: Future<Output = Result<VenueTruth, E>>,
    {
        self.sweep_orphans().await?;
        let held = self.held_orders(Some(account)).await?;
        let truth = ask(held).await.map_err(ReconcileError::Venue)?;
        Ok(self.reconcile(account, &truth, settles).await?)
    }

    async fn reconcile_one(
        &self,
        held: HeldOrder,
        truth: &VenueTruth,
        settles: Settles,
        result: &mut Reconciled,
    ) -> Result<(), RiskError> {
        let is_own = self.holder.as_ref().is_some_and(|holder| {
            holder.config.name == held.holder && holder.fence().is_ok_and(|fence| fence == held.fence)
        });
        let ours = may_settle(settles, held.state, is_own);
        let id = held.order.id.clone();
        let Some(order) = truth.orders.get(&id) else {
            if ours && truth.never_had.contains(&id) && held.filled.is_zero() {
                return self.end(held, result).await;
            }
            result.differences.insert(Difference::UnknownToVenue { order: id.clone() });
            if ours {
                result.kept.push(id);
            }
            return Ok(());
        };
        if order.instrument != held.order.instrument {
            let (ledger, venue) = (held.order.instrument.clone(), order.instrument.clone());
            result.differences.insert(Difference::AnotherInstrument { order: id.clone(), ledger, venue });
            result.kept.extend(ours.then_some(id));
            return Ok(());
        }
        if !ours {
            tell(&held, order, result);
            return Ok(());
        }
        let held = match self.settle_missing(held, order, result).await? {
            Some(held) => held,
            None => return Ok(()),
        };
        match held.filled.cmp(&order.filled) {
            std::cmp::Ordering::Equal if !order.is_open => self.end(held, result).await,
            _ => {
                tell(&held, order, result);
                result.kept.push(id);
                Ok(())
            }
        }
    }

    /// Settles the fills that the ledger lacks; answers the order as it is then, none if it is over.
    async fn settle_missing(
        &self,
        mut held: HeldOrder,
        order: &VenueOrder,
        result: &mut Reconciled,
    ) -> Result<Option<HeldOrder>, RiskError> {
        let prefix = order.prefix(held.filled).ok_or(RiskError::Overflow("the venue's fills"))?;
        if (prefix.qty, prefix.value) != (held.filled, held.filled_value) {
            // With no fills told, the sums alone are compared.
            if !order.fills.is_empty() {
                let (ledger, venue) = ((held.filled, held.filled_value), (prefix.qty, prefix.value));
                result.differences.insert(Difference::FillsDiffer { order: held.order.id.clone(), ledger, venue });
            }
            return Ok(Some(held));
        }
        for currency in prefix.fees.keys().chain(held.fees.keys()) {
            let of = |fees: &std::collections::BTreeMap<_, Decimal>| fees.get(currency).copied().unwrap_or_default();
            let (ledger, venue, order) = (of(&held.fees), of(&prefix.fees), held.order.id.clone());
            if ledger != venue {
                result.differences.insert(Difference::Fee { order, currency: currency.clone(), ledger, venue });
            }
        }
        for (at, fill) in order.fills.iter().enumerate().skip(prefix.count) {
            // Nothing can follow the last fill of an order that is over, if all of them were told.
            let told = held.filled.checked_add(fill.qty.get()) == Some(order.filled);
            let is_last = !order.is_open && at + 1 == order.fills.len() && told;
            let outcome = Outcome::Fill { fill, is_last };
            // What fills beyond the order's quantity is booked too, though nothing is held for it any more.
            let settled = self.settle(&held.order, &held.reservation, outcome, &|_| Vec::new()).await?;
            held = held.after(&settled, outcome)?;
            result.settled.push((held.order.id.clone(), fill.clone(), settled));
        }
        if held.reservation.is_closed() {
            result.ended.push(held.order.id);
            return Ok(None);
        }
        Ok(Some(held))
    }

    async fn end(&self, held: HeldOrder, result: &mut Reconciled) -> Result<(), RiskError> {
        self.settle(&held.order, &held.reservation, Outcome::End, &|_| Vec::new()).await?;
        result.ended.push(held.order.id);
        Ok(())
    }

    /// Positions and money.
    async fn compare(&self, account: &AccountId, truth: &VenueTruth, result: &mut Reconciled) -> Result<(), RiskError> {
        self.refresh(account, None).await?;
        let state = self.account(account).ok_or_else(|| RiskError::UnknownAccount(account.clone()))?;
        for (instrument, venue) in &truth.positions {
            let ledger = self.position(account, instrument).map_or(Decimal::ZERO, |position| position.qty);
            if ledger != *venue {
                result.differences.insert(Difference::Position {
                    instrument: instrument.clone(),
                    ledger,
                    venue: *venue,
                });
            }
        }
        let wallet = state.deposits.saturating_add(state.pnl(Decimal::ZERO));
        let positions: Vec<_> =
            self.positions().into_iter().filter(|(of, ..)| of == account).map(|(_, _, p)| p).collect();
        let (ledger, venue) = match truth.balance {
            None => return Ok(()),
            Some(VenueBalance::Wallet(venue)) => (wallet, venue),
            Some(VenueBalance::Cash(venue)) => (cash(wallet, &positions), venue),
        };
        if ledger != venue {
            result.differences.insert(Difference::Balance { currency: state.currency, ledger, venue });
        }
        Ok(())
    }
}

/// What differs of an order that is not settled here.
fn tell(held: &HeldOrder, order: &VenueOrder, result: &mut Reconciled) {
    let (id, ledger, venue) = (|| held.order.id.clone(), held.filled, order.filled);
    match ledger.cmp(&venue) {
        std::cmp::Ordering::Less => {
            result.differences.insert(Difference::FilledMore { order: id(), ledger, venue });
        }
        std::cmp::Ordering::Greater => {
            result.differences.insert(Difference::FilledLess { order: id(), ledger, venue });
        }
        std::cmp::Ordering::Equal => {}
    }
    if !order.is_open && !held.is_orphaned() {
        result.differences.insert(Difference::NotEnded { order: id(), holder: held.holder.clone() });
    }
}
