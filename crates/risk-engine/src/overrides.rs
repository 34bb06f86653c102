//! One order past named rules: asked for by one person, granted by another, for a short time, used up by the approval that it lets
//! through (RTS 6 art. 15(6)). And a strategy that has acted often enough, enabled again by a named person (art. 15(3)).

use std::{collections::BTreeSet, time::Duration};

use infra_state_store::{Applied, Batch, Delta, Op, StoreError, Ttl, Value, Version, When};
use infra_types::{AccountId, InvalidValue, Order, OrderId, StrategyId, Timestamp, UserId};
use serde::{Deserialize, Serialize};

use crate::{engine::RiskEngine, error::RiskError, ledger, limits};

/// The longest life of an override, from when it was asked for.
pub const OVERRIDE_LIFE_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Rules that one override may name.
const RULES_MAX: usize = 64;

/// Leave for one order to pass named rules. It lets through exactly the order that it was asked for: same account, strategy,
/// instrument, side, quantity, price, kind, time in force and reduce-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// For which order.
    pub order: OrderId,
    /// Of which account.
    pub account: AccountId,
    /// What the order is.
    pub fingerprint: String,
    /// Which rules, by their ids.
    pub rules: BTreeSet<String>,
    /// Who asked.
    pub requested_by: UserId,
    /// Why.
    pub reason: String,
    /// When.
    pub requested_at: Timestamp,
    /// Who granted it: another person; none as long as nobody did.
    pub granted_by: Option<UserId>,
    /// When it is over, used or not.
    pub expires_at: Timestamp,
}

impl Override {
    /// Whether it lets this order through now.
    pub(crate) fn admits(&self, order: &Order, now: Timestamp) -> bool {
        self.granted_by.is_some() && now < self.expires_at && self.fingerprint == limits::fingerprint(order)
    }
}

/// A strategy that a person enabled again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enabled {
    /// Which.
    pub strategy: StrategyId,
    /// Who.
    pub by: UserId,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// How many approvals it had had since the time before.
    pub executions: i64,
}

fn invalid(what: &'static str, rule: impl Into<String>) -> RiskError {
    InvalidValue::new(what, rule.into()).into()
}

pub(crate) fn reason_of(text: &str) -> Result<String, RiskError> {
    let text = text.trim();
    if text.is_empty() || text.len() > 1_024 {
        return Err(invalid("reason", "must say why, in 1 to 1,024 bytes"));
    }
    Ok(text.to_owned())
}

impl RiskEngine {
    /// Asks for leave for one order to pass named rules within `life` (a day at most), in one batch with the operations that `compose`
    /// adds (an audit row). It does nothing until another person [grants](RiskEngine::grant_override) it. What asks again takes
    /// the place of what was asked.
    ///
    /// # Errors
    /// `Invalid` for a rule that is not in the limits, no rule, no reason, or a life beyond a day; `Caller`; `Store`.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the batch applied, never half.
    pub async fn request_override(
        &self,
        order: &Order,
        rules: BTreeSet<String>,
        by: UserId,
        reason: &str,
        life: Duration,
        compose: &(dyn Fn(&Override) -> Vec<Op> + Send + Sync),
    ) -> Result<Override, RiskError> {
        if rules.is_empty() || rules.len() > RULES_MAX {
            return Err(invalid("override", format!("must name 1 to {RULES_MAX} rules")));
        }
        let active = self.active();
        let known: BTreeSet<String> = active.limits().all_rules().into_iter().map(|rule| rule.id).collect();
        if let Some(unknown) = rules.iter().find(|id| !known.contains(*id)) {
            return Err(invalid("override", format!("there is no rule {unknown}")));
        }
        if life.is_zero() || life > OVERRIDE_LIFE_MAX {
            return Err(invalid("override", "must live for more than nothing and at most a day"));
        }
        let now = self.now().wall;
        let asked = Override {
            order: order.id.clone(),
            account: order.account.clone(),
            fingerprint: limits::fingerprint(order),
            rules,
            requested_by: by,
            reason: reason_of(reason)?,
            requested_at: now,
            granted_by: None,
            expires_at: now.saturating_add(life),
        };
        self.write_override(&asked, When::Always, life, compose).await?;
        Ok(asked)
    }

    /// Grants what another person asked for, in one batch with the operations that `compose` adds.
    ///
    /// # Errors
    /// `Invalid` if nothing was asked, it is over, it was granted already, or the same person asked; `Store` with a conflict if it
    /// changed in the meantime; `Caller`.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the batch applied, never half.
    pub async fn grant_override(
        &self,
        account: &AccountId,
        order: &OrderId,
        by: UserId,
        compose: &(dyn Fn(&Override) -> Vec<Op> + Send + Sync),
    ) -> Result<Override, RiskError> {
        let Some((mut asked, version)) = self.stored_override(account, order).await? else {
            return Err(invalid("override", format!("nothing was asked for order {order}, or it is over")));
        };
        let now = self.now().wall;
        if asked.granted_by.is_some() {
            return Err(invalid("override", "is granted already"));
        }
        if asked.requested_by == by {
            return Err(invalid("override", "must be granted by another person than asked for it"));
        }
        if now >= asked.expires_at {
            return Err(invalid("override", "is over: ask again"));
        }
        asked.granted_by = Some(by);
        let left = asked.expires_at.since(now).max(Duration::from_millis(1));
        self.write_override(&asked, When::Version(version), left, compose).await?;
        Ok(asked)
    }

    /// What was asked or granted for an order and is neither used nor over.
    ///
    /// # Errors
    /// What the store says; `Corrupt` for a record that is not ours.
    ///
    /// # Cancel safety
    /// Reads change nothing in the store.
    pub async fn override_of(&self, account: &AccountId, order: &OrderId) -> Result<Option<Override>, RiskError> {
        let found = self.stored_override(account, order).await?;
        Ok(found.map(|(found, _)| found).filter(|found| self.now().wall < found.expires_at))
    }

    async fn write_override(
        &self,
        what: &Override,
        when: When,
        life: Duration,
        compose: &(dyn Fn(&Override) -> Vec<Op> + Send + Sync),
    ) -> Result<(), RiskError> {
        let key = ledger::key(&ledger::granted(&what.account, &what.order))?;
        let value = Value::from(ledger::encode(what, "an override")?);
        // Kept to the millisecond: what is left of less is over.
        let ttl = Ttl::After(life.max(Duration::from_millis(1)));
        let mut batch = Batch::new(self.namespace.clone()).with(Op::Set { key, value, ttl, when });
        batch.extend(compose(what));
        self.store.apply(batch).await.map_err(|source| callers(source, 1))?;
        Ok(())
    }

    async fn stored_override(
        &self,
        account: &AccountId,
        order: &OrderId,
    ) -> Result<Option<(Override, Version)>, RiskError> {
        let key = ledger::key(&ledger::granted(account, order))?;
        let Some(entry) = self.store.get(&self.namespace, &key).await? else { return Ok(None) };
        let corrupt = || RiskError::Corrupt { key: key.name().to_owned(), reason: "a record without a version".into() };
        Ok(Some((ledger::decode(&key, &entry)?, entry.version.ok_or_else(corrupt)?)))
    }

    /// Reads what was granted for an order; whether there is anything.
    pub(crate) async fn read_override(&self, order: &Order) -> Result<bool, RiskError> {
        let found = self.stored_override(&order.account, &order.id).await?;
        let id = (order.account.clone(), order.id.clone());
        let mut book = self.book.lock();
        match found {
            Some((value, version)) => {
                let is_good = value.admits(order, self.now().wall);
                book.overrides.insert(id, crate::book::Versioned { value, version });
                Ok(is_good)
            }
            None => {
                book.overrides.remove(&id);
                Ok(false)
            }
        }
    }

    /// Lets a strategy that reached its number of executions act again: a named person looked. Nothing else resets the number. In
    /// one batch with the operations that `compose` adds; the last one of each strategy is kept.
    ///
    /// # Errors
    /// `Invalid` without a reason; `Contended` if approvals kept coming; `Caller`; `Store`.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the batch applied, never half.
    pub async fn enable_strategy(
        &self,
        strategy: &StrategyId,
        by: UserId,
        reason: &str,
        compose: &(dyn Fn(&Enabled) -> Vec<Op> + Send + Sync),
    ) -> Result<Enabled, RiskError> {
        const TRIES: u32 = 64;
        let reason = reason_of(reason)?;
        let name = ledger::executions(strategy);
        let key = ledger::key(&name)?;
        for _ in 0..TRIES {
            let entry = self.store.get(&self.namespace, &key).await?;
            let executions = entry.and_then(|entry| entry.value.as_counter()).unwrap_or(0);
            let (strategy, by, reason, at) = (strategy.clone(), by.clone(), reason.clone(), self.now().wall);
            let enabled = Enabled { strategy, by, reason, at, executions };
            // Exactly what was read goes: an approval in between is looked at as well.
            let delta = Delta { by: -executions, min: 0, max: 0 };
            let record = ledger::key(&ledger::enabled(&enabled.strategy))?;
            let value = Value::from(ledger::encode(&enabled, "an enabling")?);
            let mut batch = Batch::new(self.namespace.clone()).add(key.clone(), delta);
            batch.extend([Op::Set { key: record, value, ttl: Ttl::Never, when: When::Always }]);
            batch.extend(compose(&enabled));
            match self.store.apply(batch).await {
                Ok(applied) => {
                    if let Some(Applied::Counter(raw)) = applied.first() {
                        self.book.lock().counters.insert(name, *raw);
                    }
                    return Ok(enabled);
                }
                Err(StoreError::OutOfBounds { index: 0, .. }) => {}
                Err(source) => return Err(callers(source, 2)),
            }
        }
        Err(RiskError::Contended { tries: TRIES })
    }

    /// Who enabled a strategy last; none if nobody ever had to.
    ///
    /// # Errors
    /// What the store says; `Corrupt` for a record that is not ours.
    ///
    /// # Cancel safety
    /// Reads change nothing in the store.
    pub async fn enabled(&self, strategy: &StrategyId) -> Result<Option<Enabled>, RiskError> {
        let key = ledger::key(&ledger::enabled(strategy))?;
        let entry = self.store.get(&self.namespace, &key).await?;
        entry.map(|entry| ledger::decode(&key, &entry)).transpose()
    }
}

/// A refusal, told apart by whose operation refused: the first `own` are ours.
pub(crate) fn callers(source: StoreError, own: usize) -> RiskError {
    match source.index() {
        Some(index) if index >= own => RiskError::Caller { index: index - own, source },
        _ => source.into(),
    }
}
