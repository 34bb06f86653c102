//! How the bots are doing: money, positions, and whatever else has a number.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use infra_types::{AccountId, Clock, Currency, Decimal, Namespace, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    history::{HISTORY_MAX, Keep},
    position::{Position, PositionCache, overflow},
    typed::{Aged, CachePage, Cached, Noted, TypedCache},
};
use crate::{codec::Stored, error::StoreError, store::StateStore};

/// An account's money at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinancialSnapshot {
    /// Whose.
    pub account: AccountId,
    /// What the amounts are in.
    pub currency: Currency,
    /// All of it, open positions included.
    pub equity: Decimal,
    /// Without open positions.
    pub cash: Decimal,
    /// What orders and positions hold back.
    pub margin_used: Decimal,
    /// Won (or lost, below zero) since the day began, in closed positions.
    pub realized_pnl: Decimal,
    /// Won (or lost, below zero) so far in open positions.
    pub unrealized_pnl: Decimal,
    /// As of when.
    pub time: Timestamp,
}

impl Stored for FinancialSnapshot {
    const NAME: &'static str = "financial_snapshot";
    const SCHEMA: u32 = 1;
}

impl Cached for FinancialSnapshot {
    type Id = AccountId;
    const PREFIX: &'static str = "metrics:financial:";
    const TTL: Duration = Duration::from_secs(300);

    fn id(&self) -> String {
        Self::name(&self.account)
    }

    fn name(account: &AccountId) -> String {
        account.to_string()
    }

    fn time(&self) -> Option<Timestamp> {
        Some(self.time)
    }
}

/// One number of a metric that a program made up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metric {
    /// Which metric.
    pub name: String,
    /// The number.
    pub value: Decimal,
    /// As of when.
    pub time: Timestamp,
}

impl Stored for Metric {
    const NAME: &'static str = "metric";
    const SCHEMA: u32 = 1;
}

impl Cached for Metric {
    type Id = str;
    const PREFIX: &'static str = "metrics:custom:";
    const TTL: Duration = Duration::from_secs(3_600);

    fn id(&self) -> String {
        self.name.clone()
    }

    fn name(name: &str) -> String {
        name.to_owned()
    }

    fn time(&self) -> Option<Timestamp> {
        Some(self.time)
    }
}

/// What a metric's recent numbers come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Aggregate {
    /// How many.
    pub count: u32,
    /// Their sum.
    pub sum: Decimal,
    /// Their mean.
    pub mean: Decimal,
    /// The smallest.
    pub min: Decimal,
    /// The largest.
    pub max: Decimal,
    /// The earliest time.
    pub first: Timestamp,
    /// The latest time.
    pub last: Timestamp,
}

/// What an account's open positions in one currency come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct PositionTotals {
    /// How many.
    pub count: u32,
    /// The notional of the long ones.
    pub long: Decimal,
    /// The notional of the short ones, above zero.
    pub short: Decimal,
    /// Won (or lost, below zero) so far.
    pub unrealized: Decimal,
    /// The age of the oldest.
    pub age_max: Duration,
}

impl PositionTotals {
    /// Long + short.
    ///
    /// # Errors
    /// `Invalid` if it is no decimal of 28 digits any more.
    pub fn gross(&self) -> Result<Decimal, StoreError> {
        self.long.checked_add(self.short).ok_or_else(overflow)
    }

    /// Long − short.
    ///
    /// # Errors
    /// As [`gross`](Self::gross).
    pub fn net(&self) -> Result<Decimal, StoreError> {
        self.long.checked_sub(self.short).ok_or_else(overflow)
    }
}

/// Money, open positions and metrics of a program's own, with their ages.
#[derive(Debug, Clone)]
pub struct MetricsCache {
    financial: TypedCache<FinancialSnapshot>,
    positions: PositionCache,
    custom: TypedCache<Metric>,
    keep: Keep,
}

impl MetricsCache {
    /// Numbers that are kept of one metric.
    pub const HISTORY_MAX: u32 = HISTORY_MAX;
    /// How long they stay after the last.
    pub const HISTORY_TTL: Duration = Duration::from_secs(86_400);
    /// Positions of one read while they are added up.
    const PAGE: usize = 200;

    /// A view of `namespace`, with ages by `clock.wall()`.
    #[must_use]
    pub fn new(store: Arc<dyn StateStore>, namespace: Namespace, clock: Arc<dyn Clock>) -> Self {
        Self {
            financial: TypedCache::new(store.clone(), namespace.clone(), clock.clone()),
            positions: TypedCache::new(store.clone(), namespace.clone(), clock.clone()),
            custom: TypedCache::new(store, namespace, clock),
            keep: Keep { max: Self::HISTORY_MAX, ttl: Self::HISTORY_TTL },
        }
    }

    /// Chooses how many numbers of a metric are kept.
    ///
    /// # Panics
    /// If it is 0 or above 1,000.
    #[must_use]
    pub fn with_history_max(mut self, max: u32) -> Self {
        self.keep = self.keep.with_max(max);
        self
    }

    /// The financial snapshots by account: `put`, `get`, `get_many`, `age`, `page`.
    #[must_use]
    pub fn financial(&self) -> &TypedCache<FinancialSnapshot> {
        &self.financial
    }

    /// The positions by account and instrument; the same as a [`PositionCache`] of this namespace.
    #[must_use]
    pub fn positions(&self) -> &PositionCache {
        &self.positions
    }

    /// One page of an account's open positions, by instrument; closed ones are passed over, so that a page may be short.
    ///
    /// # Errors
    /// As [`TypedCache::page`].
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn active_positions(
        &self,
        account: &AccountId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<CachePage<Position>, StoreError> {
        let mut page = self.positions.page(&format!("{account}/"), after, limit).await?;
        page.values.retain(|position| position.value.is_open());
        Ok(page)
    }

    /// What an account's open positions come to, by the currency of their prices. Positions that change meanwhile are
    /// in it as they were before or after.
    ///
    /// # Errors
    /// As [`TypedCache::page`]; `Invalid` for sums beyond 28 digits.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn position_totals(&self, account: &AccountId) -> Result<BTreeMap<Currency, PositionTotals>, StoreError> {
        let mut totals: BTreeMap<Currency, PositionTotals> = BTreeMap::new();
        let mut after = None;
        loop {
            let page = self.active_positions(account, after.as_deref(), Self::PAGE).await?;
            for Aged { value: position, age, .. } in page.values {
                let total = totals.entry(position.currency.clone()).or_default();
                let notional = position.notional()?;
                let side = if notional.is_sign_negative() { &mut total.short } else { &mut total.long };
                *side = side.checked_add(notional.abs()).ok_or_else(overflow)?;
                total.unrealized = total.unrealized.checked_add(position.unrealized()?).ok_or_else(overflow)?;
                total.count += 1;
                total.age_max = total.age_max.max(age);
            }
            match page.next {
                None => return Ok(totals),
                next => after = next,
            }
        }
    }

    /// Notes a metric's number as of now.
    ///
    /// # Errors
    /// As [`TypedCache::put`]. After `Ambiguous`, noting it again may count it twice.
    ///
    /// # Cancel safety
    /// Dropping the future may leave it noted.
    pub async fn record(&self, name: &str, value: Decimal) -> Result<(), StoreError> {
        let time = self.custom.clock.wall();
        let metric = Metric { name: name.to_owned(), value, time };
        let push = TypedCache::remember(name, &metric, self.keep)?;
        // What is of the same time or of a clock that is ahead is replaced: the last one noted is the latest.
        self.custom.put_unless(name, &Noted { time, value: metric }, vec![push], |_| false).await.map(|_| ())
    }

    /// A metric's latest number.
    ///
    /// # Errors
    /// As [`TypedCache::get`].
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn metric(&self, name: &str) -> Result<Option<Aged<Metric>>, StoreError> {
        self.custom.get(name).await
    }

    /// The latest numbers of all metrics whose names start with `start`, by name.
    ///
    /// # Errors
    /// As [`TypedCache::page`].
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn metrics(
        &self,
        start: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<CachePage<Metric>, StoreError> {
        self.custom.page(start, after, limit).await
    }

    /// What a metric's numbers of the last `time` come to, as far as they are kept; none without any.
    ///
    /// # Errors
    /// As [`TypedCache::get`]; `Invalid` for sums beyond 28 digits.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn aggregate(&self, name: &str, time: Duration) -> Result<Option<Aggregate>, StoreError> {
        let from = self.custom.clock.wall().saturating_sub(time);
        let mut numbers = self.custom.past(name, HISTORY_MAX).await?.into_iter().filter(|metric| metric.time >= from);
        let Some(Metric { value, time, .. }) = numbers.next() else { return Ok(None) };
        let one = Aggregate { count: 1, sum: value, mean: value, min: value, max: value, first: time, last: time };
        let mut all = numbers.try_fold(one, |all, metric| {
            let sum = all.sum.checked_add(metric.value).ok_or_else(overflow)?;
            let (min, max) = (all.min.min(metric.value), all.max.max(metric.value));
            let (first, last) = (all.first.min(metric.time), all.last.max(metric.time));
            Ok::<_, StoreError>(Aggregate { count: all.count + 1, sum, min, max, first, last, ..all })
        })?;
        all.mean = all.sum.checked_div(Decimal::from(all.count)).ok_or_else(overflow)?;
        Ok(Some(all))
    }

    /// Forgets a metric; whether there was anything.
    ///
    /// # Errors
    /// As [`StateStore::apply`].
    ///
    /// # Cancel safety
    /// Dropping the future may leave it forgotten.
    pub async fn remove_metric(&self, name: &str) -> Result<bool, StoreError> {
        self.custom.forget(name).await
    }
}
