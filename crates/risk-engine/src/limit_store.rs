//! Limits in the store: every version with who set it, when and why. Whoever decides names the version as a precondition, so that
//! nobody approves under old limits once new ones are stored.

use std::sync::Arc;

use infra_state_store::{Applied, Batch, Delta, Entry, Key, Op, Scan, StoreError, Ttl, Value, Version, When};
use infra_types::{Scope, Timestamp, UserId};
use jiff::tz::TimeZone;
use parking_lot::RwLock;

use crate::{
    config::RiskLimits,
    engine::RiskEngine,
    error::RiskError,
    ledger::{self, Counter, Metric},
    overrides::callers,
    rulebook::RuleBook,
    rules::LimitSet,
};

/// The limits that an engine decides by.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) set: LimitSet,
    pub(crate) zone: TimeZone,
    pub(crate) rules: RuleBook,
    /// What the record in the store must be.
    pub(crate) stored: When,
    /// Why the stored limits cannot be followed: nothing is opened then, and these, the last ones that could, serve exits and fills.
    pub(crate) unreadable: Option<String>,
}

impl Active {
    pub(crate) fn new(set: LimitSet, stored: When) -> Result<Self, RiskError> {
        set.limits.validate().map_err(RiskError::InvalidLimits)?;
        let zone = set.limits.zone().map_err(|mistake| RiskError::InvalidLimits(vec![mistake]))?;
        let rules = RuleBook::of(&set.limits);
        Ok(Self { set, zone, rules, stored, unreadable: None })
    }

    pub(crate) fn limits(&self) -> &RiskLimits {
        &self.set.limits
    }
}

/// The limits of an engine that is given them and has not looked into the store.
pub(crate) fn given(limits: RiskLimits, at: Timestamp) -> Result<RwLock<Arc<Active>>, RiskError> {
    let author = UserId::new("configuration")?;
    let reason = "given when the engine was made".to_owned();
    let set = LimitSet { version: 0, author, at, reason, limits };
    Ok(RwLock::new(Arc::new(Active::new(set, When::Absent)?)))
}

impl RiskEngine {
    pub(crate) fn active(&self) -> Arc<Active> {
        self.limits.read().clone()
    }

    /// The limits that decisions are made by now, as last known; version 0 if they are the ones that the engine was given, since none
    /// are stored. As JSON this is the list of limits that a regulator asks for (SEC 15c3-5(e)).
    #[must_use]
    pub fn limits(&self) -> LimitSet {
        self.active().set.clone()
    }

    /// Stores limits as the next version after `base`, in one batch with the operations that `compose` adds; from then on every engine
    /// on the ledger decides by them, whatever it was given. `base` is the version that the change was thought out on: 0 if none
    /// are stored.
    ///
    /// The counters are kept for every scope always, so a limit that is new counts what is there. An account that changes its group
    /// counts for the new one from its next order and fill on.
    ///
    /// # Errors
    /// `InvalidLimits` with every mistake; `LimitsChanged` if another version than `base` is stored; `Invalid` without a reason, or
    /// if `firm_currency` changes while something is held or works; `Caller`; `Store`.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the batch applied, never half.
    pub async fn set_limits(
        &self,
        base: u64,
        limits: RiskLimits,
        author: UserId,
        reason: &str,
        compose: &(dyn Fn(&LimitSet) -> Vec<Op> + Send + Sync),
    ) -> Result<LimitSet, RiskError> {
        let reason = crate::overrides::reason_of(reason)?;
        limits.validate().map_err(RiskError::InvalidLimits)?;
        self.reload_limits().await?;
        let known = self.active();
        if known.set.version != base {
            return Err(RiskError::LimitsChanged { base, stored: known.set.version });
        }
        let set = LimitSet { version: base + 1, author, at: self.now().wall, reason, limits };
        let value = Value::from(ledger::encode(&set, "the limits")?);
        let (key, history) = (ledger::key(ledger::LIMITS)?, ledger::key(&ledger::limits_at(set.version))?);
        let mut batch = Batch::new(self.namespace.clone());
        batch = batch.set_when(key, value.clone(), Ttl::Never, known.stored);
        batch = batch.set_when(history, value, Ttl::Never, When::Absent);
        let mut own = batch.ops.len();
        if known.set.limits.firm_currency != set.limits.firm_currency {
            // What is counted is in the old currency.
            let empty = Delta { by: 0, min: 0, max: 0 };
            for metric in [Metric::Gross, Metric::Orders] {
                batch = batch.add(ledger::key(&Counter::of(metric, Scope::Firm).name())?, empty);
            }
            own = batch.ops.len();
        }
        batch.extend(compose(&set));
        match self.store.apply(batch).await {
            Ok(applied) => {
                if let Some(Applied::Version(version)) = applied.first() {
                    self.adopt_limits(set.clone(), *version)?;
                }
                Ok(set)
            }
            Err(StoreError::Mismatch { index: 0 | 1, .. }) => {
                self.reload_limits().await?;
                Err(RiskError::LimitsChanged { base, stored: self.active().set.version })
            }
            Err(StoreError::OutOfBounds { index, .. }) if (2..own).contains(&index) => {
                let rule = "cannot change while something is held or works: the counters are in it";
                Err(infra_types::InvalidValue::new("firm_currency", rule).into())
            }
            Err(source) => Err(callers(source, own)),
        }
    }

    /// Looks for limits in the store; whether they were others than known. Engines do so by themselves whenever they come to decide
    /// under old ones.
    ///
    /// # Errors
    /// What the store says; `Corrupt` or `InvalidLimits` if this version of the program cannot read or follow them: nothing is
    /// opened then (`limits_unreadable`), while exits and fills go on.
    ///
    /// # Cancel safety
    /// Reads change nothing in the store.
    pub async fn reload_limits(&self) -> Result<bool, RiskError> {
        let key = ledger::key(ledger::LIMITS)?;
        let before = self.active().stored;
        match self.store.get(&self.namespace, &key).await? {
            Some(entry) => self.take_limits(&key, &entry)?,
            None => self.forget_limits(),
        }
        Ok(self.active().stored != before)
    }

    /// Decides by the stored limits from now on, or, if they cannot be followed, opens nothing.
    ///
    /// # Errors
    /// `Corrupt` or `InvalidLimits`, once nothing is opened any more.
    pub(crate) fn take_limits(&self, key: &Key, entry: &Entry) -> Result<(), RiskError> {
        let corrupt = || RiskError::Corrupt { key: key.name().to_owned(), reason: "has no version".into() };
        let version = entry.version.ok_or_else(corrupt)?;
        let adopted = ledger::decode(key, entry).and_then(|set| self.adopt_limits(set, version));
        if let Err(error) = &adopted {
            let mut limits = self.limits.write();
            if !matches!(limits.stored, When::Version(known) if known > version) {
                let (zone, set) = (limits.zone.clone(), limits.set.clone());
                let rules = RuleBook::of(&set.limits);
                let (stored, unreadable) = (When::Version(version), Some(error.to_string()));
                *limits = Arc::new(Active { set, zone, rules, stored, unreadable });
            }
        }
        adopted
    }

    /// Decides by `set` from now on, unless newer limits are known.
    pub(crate) fn adopt_limits(&self, set: LimitSet, version: Version) -> Result<(), RiskError> {
        let is_news = |known: &Active| !matches!(known.stored, When::Version(known) if known >= version);
        if !is_news(&self.active()) {
            return Ok(());
        }
        let next = Active::new(set, When::Version(version))?;
        let mut limits = self.limits.write();
        if is_news(&limits) {
            *limits = Arc::new(next);
        }
        Ok(())
    }

    /// No limits are stored (any more): the last known ones go on.
    pub(crate) fn forget_limits(&self) {
        let mut limits = self.limits.write();
        if limits.stored != When::Absent {
            let set = LimitSet { version: 0, ..limits.set.clone() };
            // They were valid a moment ago.
            if let Ok(next) = Active::new(set, When::Absent) {
                *limits = Arc::new(next);
            }
        }
    }

    /// The newest stored versions of the limits, at most `max` (1 to 1,000), the newest first.
    ///
    /// # Errors
    /// What the store says; `Corrupt` for a record that is not ours.
    ///
    /// # Cancel safety
    /// Reads change nothing in the store.
    pub async fn limit_history(&self, max: usize) -> Result<Vec<LimitSet>, RiskError> {
        let max = max.clamp(1, 1_000);
        self.reload_limits().await?;
        let newest = self.active().set.version;
        let oldest = newest.saturating_sub(u64::try_from(max).unwrap_or(u64::MAX));
        let after = Some(ledger::limits_at(oldest));
        let scan = Scan { prefix: ledger::LIMITS_HISTORY.to_owned(), after, limit: max };
        let page = self.store.scan(&self.namespace, scan).await?;
        let sets = page.entries.iter().map(|(key, entry)| ledger::decode(key, entry));
        let mut sets = sets.collect::<Result<Vec<LimitSet>, _>>()?;
        sets.reverse();
        Ok(sets)
    }
}
