//! How figures went: samples at an interval, in one bounded list for each scope.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use infra_state_store::{Batch, Key, ListRange, Op, StateStore, StateStoreExt, StoreError, Ttl, When};
use infra_types::{InvalidValue, Namespace, Scope, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{error::RiskError, ledger, portfolio::ScopeMetrics};

/// The number of the last interval that was recorded.
const SLOT: &str = "risk/history/slot";

/// Figures of a scope at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistorySample {
    /// When.
    pub at: Timestamp,
    /// What.
    pub metrics: ScopeMetrics,
}

/// Which samples to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HistoryRange {
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before, not at.
    pub until: Option<Timestamp>,
    /// How many at most, the newest of them: 1 to 10,000.
    pub limit: usize,
}

impl Default for HistoryRange {
    /// The newest 1,000.
    fn default() -> Self {
        Self { from: None, until: None, limit: 1_000 }
    }
}

/// The history of one ledger, shared by every process: whoever comes first in an interval records it.
#[derive(Debug)]
pub struct PortfolioHistory {
    store: Arc<dyn StateStore>,
    namespace: Namespace,
    interval: Duration,
    samples_max: u32,
    /// The last slot that is known to be recorded: saves a read.
    known: AtomicI64,
}

fn list_of(scope: &Scope) -> Result<Key, StoreError> {
    Key::list(format!("risk/history/of/{scope}"))
}

impl PortfolioHistory {
    /// The most samples that can be kept of a scope.
    pub const SAMPLES_MAX: u32 = 10_000;

    /// The history of the ledger in `namespace`: one sample an `interval`, the newest `samples_max` of each scope.
    ///
    /// # Errors
    /// `Invalid` unless the interval is a millisecond or longer and `samples_max` is 1 to 10,000.
    pub fn new(
        store: Arc<dyn StateStore>,
        namespace: Namespace,
        interval: Duration,
        samples_max: u32,
    ) -> Result<Self, RiskError> {
        if interval.as_millis() == 0 {
            return Err(InvalidValue::new("history interval", "must be at least a millisecond").into());
        }
        if !(1..=Self::SAMPLES_MAX).contains(&samples_max) {
            return Err(InvalidValue::new("history samples_max", "must be 1 to 10000").into());
        }
        Ok(Self { store, namespace, interval, samples_max, known: AtomicI64::new(i64::MIN) })
    }

    /// Records figures unless the interval of `at` has its samples, and answers whether it did. Intervals lie on a grid from the
    /// epoch on, so call it more often than once an interval; a clock that steps back records nothing until it is where it was.
    ///
    /// More scopes than a batch takes are written in several: should the process die between them, the later ones have no sample
    /// of this interval.
    ///
    /// # Errors
    /// What the store says.
    ///
    /// # Cancel safety
    /// The samples may be stored or not, or those of the first batches.
    pub async fn record(&self, at: Timestamp, metrics: &[ScopeMetrics]) -> Result<bool, RiskError> {
        let slot = at.as_nanos().div_euclid(i64::try_from(self.interval.as_nanos()).unwrap_or(i64::MAX));
        if metrics.is_empty() || slot <= self.known.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let key = ledger::key(SLOT)?;
        let when = match self.store.get_versioned::<i64>(&self.namespace, &key).await? {
            Some((recorded, _)) if recorded >= slot => {
                self.known.fetch_max(recorded, Ordering::Relaxed);
                return Ok(false);
            }
            Some((_, Some(version))) => When::Version(version),
            _ => When::Absent,
        };
        let room = self.store.info().limits.batch_ops_max.saturating_sub(1).max(1);
        let gate = Op::Set { key, value: ledger::encode(&slot, "a slot")?.into(), ttl: Ttl::Never, when };
        let mut gate = Some(gate);
        for chunk in metrics.chunks(room) {
            let mut batch = Batch::new(self.namespace.clone());
            batch.extend(gate.take());
            for of in chunk {
                let value = ledger::encode(&HistorySample { at, metrics: of.clone() }, "a sample")?;
                batch = batch.push(list_of(&of.scope)?, value, self.samples_max);
            }
            match self.store.apply(batch).await {
                Ok(_) => {}
                // Somebody else records this interval.
                Err(StoreError::Mismatch { index: 0, .. }) => return Ok(false),
                Err(other) => return Err(other.into()),
            }
        }
        self.known.fetch_max(slot, Ordering::Relaxed);
        Ok(true)
    }

    /// Samples of a scope, the oldest first.
    ///
    /// # Errors
    /// `Invalid` unless the limit is 1 to 10,000; `Corrupt` for an entry that is no sample; what the store says.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn read(&self, scope: &Scope, range: &HistoryRange) -> Result<Vec<HistorySample>, RiskError> {
        if !(1..=Self::SAMPLES_MAX as usize).contains(&range.limit) {
            return Err(InvalidValue::new("history limit", "must be 1 to 10000").into());
        }
        let list = list_of(scope)?;
        let mut found: Vec<HistorySample> = Vec::new();
        let mut oldest: Option<Timestamp> = None;
        let mut chunk = ListRange::newest(1_000);
        'chunks: loop {
            let page = self.store.list_range(&self.namespace, &list, chunk).await?;
            for bytes in &page.values {
                let sample: HistorySample = serde_json::from_slice(bytes)
                    .map_err(|e| RiskError::Corrupt { key: list.name().to_owned(), reason: e.to_string() })?;
                // A push while we read moves what was read to the next chunk.
                if oldest.is_some_and(|oldest| sample.at >= oldest) {
                    continue;
                }
                oldest = Some(sample.at);
                if range.from.is_some_and(|from| sample.at < from) || found.len() == range.limit {
                    break 'chunks;
                }
                if range.until.is_none_or(|until| sample.at < until) {
                    found.push(sample);
                }
            }
            if page.values.len() < chunk.limit {
                break;
            }
            chunk.skip = chunk.skip.saturating_add(1_000);
        }
        found.reverse();
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
