//! Every approved order stands in the store until it is over, with who holds it: what may still be live still counts, also when the
//! process that sent it is gone.

use std::collections::BTreeMap;

use infra_state_store::{Applied, Delta, Entry, Key, Op, Scan, StoreError, Ttl, Value, Version, When};
use infra_types::{AccountId, BotId, Currency, Decimal, Order, OrderId, Scope, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{
    decision::{Check, code},
    engine::RiskEngine,
    error::RiskError,
    holder::Holder,
    ledger,
    plan::{Ops, Role},
    reservation::{Approval, Effect, Outcome, Reservation, Settled},
    risk_events::{RiskEvent, RiskEventKind},
};

/// An approved order that is not over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldOrder {
    /// The order as it was approved.
    pub order: Order,
    /// What it holds of the limits now.
    pub reservation: Reservation,
    /// Who approved or adopted it.
    pub holder: BotId,
    /// Under which fence of that name.
    #[serde(with = "fence_as_text")]
    pub fence: u64,
    /// Whether somebody looks after it.
    pub state: HeldState,
    /// When it was approved, by the clock of the engine that did.
    pub since: Timestamp,
    /// How much of it was settled as filled.
    pub filled: Decimal,
    /// Σ price × quantity of that, in the quote currency.
    pub filled_value: Decimal,
    /// The fees of that, as the venue took them.
    pub fees: BTreeMap<Currency, Decimal>,
}

/// Whether somebody looks after a held order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum HeldState {
    /// Its holder does.
    Held,
    /// Nobody does: it counts until it is reconciled with the venue or adopted.
    Orphaned {
        /// Since when, by the clock of the engine that said so.
        at: Timestamp,
        /// Why.
        why: OrphanCause,
    },
}

/// Why nobody looks after an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrphanCause {
    /// The lease of its holder ran out, or the name is somebody else's now.
    HolderGone,
    /// Its holder does not know what became of it.
    OutcomeUnknown,
}

impl HeldOrder {
    /// Whether nobody looks after it.
    #[must_use]
    pub fn is_orphaned(&self) -> bool {
        matches!(self.state, HeldState::Orphaned { .. })
    }

    /// What there is to tell of an order that became orphaned, or was taken over.
    #[must_use]
    pub fn event(&self, at: Timestamp) -> RiskEvent {
        let (kind, code) = match self.state {
            HeldState::Held => (RiskEventKind::Adopted, "adopted"),
            HeldState::Orphaned { why: OrphanCause::HolderGone, .. } => (RiskEventKind::Orphaned, "holder_gone"),
            HeldState::Orphaned { why: OrphanCause::OutcomeUnknown, .. } => {
                (RiskEventKind::Orphaned, "outcome_unknown")
            }
        };
        let scope = Scope::Account(self.order.account.clone());
        let note = format!("held by {} since {}, {} filled", self.holder, self.since, self.filled);
        let event = RiskEvent::new(at, kind, scope, code).about(&self.order).with_note(note);
        RiskEvent { value: Some(self.reservation.held()), ..event }
    }

    pub(crate) fn key(&self) -> Result<Key, StoreError> {
        ledger::key(&ledger::held(&self.order.account, &self.order.id))
    }

    /// Writes it over what `version` says.
    pub(crate) fn set(&self, when: When) -> Result<Op, RiskError> {
        let value = Value::from(ledger::encode(self, "the held order's record")?);
        Ok(Op::Set { key: self.key()?, value, ttl: Ttl::Never, when })
    }

    /// After what `settled` did.
    pub(crate) fn after(&self, settled: &Settled, outcome: Outcome<'_>) -> Result<Self, RiskError> {
        let mut next = Self { reservation: settled.reservation.clone(), ..self.clone() };
        if let Outcome::Fill { fill, .. } = outcome {
            let sum = |known: Decimal, more: Option<Decimal>| more.and_then(|more| known.checked_add(more));
            let overflow = || RiskError::Overflow("what filled of an order");
            next.filled = sum(self.filled, Some(fill.qty.get())).ok_or_else(overflow)?;
            let value = fill.price.get().checked_mul(fill.qty.get());
            next.filled_value = sum(self.filled_value, value).ok_or_else(overflow)?;
            let fee = next.fees.entry(fill.fee.currency.clone()).or_default();
            *fee = sum(*fee, Some(fill.fee.amount)).ok_or_else(overflow)?;
        }
        Ok(next)
    }
}

/// A held order as it was read or written.
pub(crate) type Stored = (HeldOrder, Version);

/// What this engine last saw of its own held orders, to save a read. What it does not know it reads.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<BTreeMap<Key, Stored>>);

/// Orders that are remembered; a read more for each one beyond that.
const KNOWN_MAX: usize = 16_384;

impl Known {
    fn get(&self, key: &Key) -> Option<Stored> {
        self.0.lock().get(key).cloned()
    }

    pub(crate) fn put(&self, key: Key, stored: Stored) {
        let mut known = self.0.lock();
        if known.len() >= KNOWN_MAX && !known.contains_key(&key) {
            known.pop_first();
        }
        known.insert(key, stored);
    }

    pub(crate) fn forget(&self, key: &Key) {
        self.0.lock().remove(key);
    }
}

impl RiskEngine {
    /// The held order, if it is not over. After an `Ambiguous` approval this says whether it happened.
    ///
    /// # Errors
    /// What the store says; `Corrupt` for a record that is not ours.
    ///
    /// # Cancel safety
    /// Reads change nothing in the store.
    pub async fn held_order(&self, account: &AccountId, order: &OrderId) -> Result<Option<HeldOrder>, RiskError> {
        Ok(self.stored_held(account, order).await?.map(|(held, _)| held))
    }

    /// All orders of an account (of all accounts) that are approved and not over, whoever holds them. At most `held_max` opening
    /// ones an account.
    ///
    /// # Errors
    /// What the store says; `Corrupt` for a record that is not ours.
    ///
    /// # Cancel safety
    /// Reads change nothing in the store.
    pub async fn held_orders(&self, account: Option<&AccountId>) -> Result<Vec<HeldOrder>, RiskError> {
        let mut found = Vec::new();
        let prefix = account.map_or_else(|| ledger::HELD.to_owned(), ledger::held_of);
        self.scan_held(&prefix, |held, _| found.push(held)).await?;
        Ok(found)
    }

    pub(crate) async fn scan_held(
        &self,
        prefix: &str,
        mut each: impl FnMut(HeldOrder, Version),
    ) -> Result<(), RiskError> {
        let mut scan = Scan { limit: 1_000, ..Scan::new(prefix) };
        loop {
            let page = self.store.scan(&self.namespace, scan.clone()).await?;
            for (key, entry) in &page.entries {
                let (held, version) = decode(key, entry)?;
                each(held, version);
            }
            match page.next {
                Some(after) => scan.after = Some(after),
                None => return Ok(()),
            }
        }
    }

    pub(crate) async fn stored_held(&self, account: &AccountId, order: &OrderId) -> Result<Option<Stored>, RiskError> {
        let key = ledger::key(&ledger::held(account, order))?;
        let entry = self.store.get(&self.namespace, &key).await?;
        entry.map(|entry| decode(&key, &entry)).transpose()
    }

    /// Adds to a batch that approves what makes the order a held one.
    pub(crate) fn hold(&self, approval: &mut Approval, ops: &mut Ops) -> Result<(), RiskError> {
        let Some(holder) = &self.holder else { return Ok(()) };
        let fence = holder.fence()?;
        approval.reservation.recorded = true;
        let held = HeldOrder {
            order: approval.order.clone(),
            reservation: approval.reservation.clone(),
            holder: holder.config.name.clone(),
            fence,
            state: HeldState::Held,
            since: self.now().wall,
            filled: Decimal::ZERO,
            filled_value: Decimal::ZERO,
            fees: BTreeMap::new(),
        };
        ops.0.push((Op::CheckFence { key: holder.lease.clone(), fence }, Role::Fence(fence)));
        ops.0.push((held.set(When::Absent)?, Role::HeldNew(Box::new(held))));
        self.count_held(holder, approval, ops)
    }

    /// Counts it; the limit is for what opens, since an exit must work.
    fn count_held(&self, holder: &Holder, approval: &mut Approval, ops: &mut Ops) -> Result<(), RiskError> {
        let name = ledger::held_count(&approval.order.account);
        if approval.reservation.effect == Effect::Reduce {
            return Ok(ops.add(name, Delta::unbounded(1), None)?);
        }
        let used = self.book.lock().counter(&name);
        let (value, max) = (Decimal::from(used.saturating_add(1)), Decimal::from(holder.config.held_max));
        let scope = Scope::Account(approval.order.account.clone());
        let checks = &mut approval.decision.checks;
        // Passed until the store says otherwise.
        checks.push(Check::new(code::HELD_ORDERS, scope, value, max, true));
        Ok(ops.add(name, Delta::at_most(1, i64::from(holder.config.held_max)), Some(checks.len() - 1))?)
    }

    /// The record that stands for a reservation; none if there is none to change. With `known`, what was seen last is enough.
    pub(crate) async fn held_for(&self, reservation: &Reservation, known: bool) -> Result<Option<Stored>, RiskError> {
        if !reservation.recorded || reservation.is_closed() {
            return Ok(None);
        }
        let key = ledger::key(&ledger::held(&reservation.account, &reservation.order))?;
        let remembered = self.holder.as_ref().filter(|_| known).and_then(|holder| holder.known.get(&key));
        if let Some(stored) = remembered.filter(|(held, _)| held.reservation == *reservation) {
            return Ok(Some(stored));
        }
        let stored = self.stored_held(&reservation.account, &reservation.order).await?;
        match stored {
            Some((held, version)) if held.reservation == *reservation => Ok(Some((held, version))),
            other => {
                let now = other.map(|(held, _)| Box::new(held.reservation));
                Err(RiskError::ReservationMoved { order: reservation.order.clone(), now })
            }
        }
    }

    /// Adds to a batch that settles what it makes of the held order.
    pub(crate) fn hold_on(
        &self,
        stored: Option<&Stored>,
        settled: &Settled,
        outcome: Outcome<'_>,
        ops: &mut Ops,
    ) -> Result<(), RiskError> {
        let Some((held, version)) = stored else { return Ok(()) };
        let when = When::Version(*version);
        if settled.reservation.is_closed() {
            let key = held.key()?;
            ops.0.push((Op::Delete { key: key.clone(), when }, Role::HeldEnd(key)));
            return Ok(ops.add(ledger::held_count(&held.order.account), Delta::unbounded(-1), None)?);
        }
        let next = held.after(settled, outcome)?;
        ops.0.push((next.set(when)?, Role::HeldNext(Box::new(next))));
        Ok(())
    }

    /// Why an operation of [`RiskEngine::hold`] was refused, if it was one.
    pub(crate) fn hold_refused(&self, role: &Role, source: &StoreError) -> Option<RiskError> {
        match (role, source) {
            (Role::Fence(fence), StoreError::Fenced { .. }) => Some(self.holder.as_ref()?.lose(*fence)),
            (Role::HeldNew(held), StoreError::Mismatch { .. }) => Some(RiskError::AlreadyHeld(held.order.id.clone())),
            _ => None,
        }
    }

    /// Remembers what a batch made of held orders.
    pub(crate) fn learn_held(&self, ops: &Ops, applied: &[Applied]) {
        let Some(holder) = &self.holder else { return };
        for ((_, role), done) in ops.0.iter().zip(applied) {
            match (role, done) {
                (Role::HeldNew(held) | Role::HeldNext(held), Applied::Version(version)) => {
                    if let Ok(key) = held.key() {
                        holder.known.put(key, ((**held).clone(), *version));
                    }
                }
                (Role::HeldEnd(key), _) => holder.known.forget(key),
                _ => {}
            }
        }
    }
}

pub(crate) fn decode(key: &Key, entry: &Entry) -> Result<Stored, RiskError> {
    let corrupt = || RiskError::Corrupt { key: key.name().to_owned(), reason: "a record without a version".into() };
    let version = entry.version.ok_or_else(corrupt)?;
    Ok((ledger::decode(key, entry)?, version))
}

/// Fences travel as text: not every reader of JSON has whole numbers beyond 2⁵³.
mod fence_as_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(fence: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(fence)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        text.parse().map_err(D::Error::custom)
    }
}
