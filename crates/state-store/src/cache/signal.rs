//! What the strategies said last.

use std::{sync::Arc, time::Duration};

use infra_types::{Clock, Decimal, Namespace, Price, StrategyId, Symbol, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    history::{HISTORY_MAX, Keep},
    typed::{Aged, CachePage, Cached, Noted, TypedCache},
};
use crate::{codec::Stored, error::StoreError, ext::StateStoreExt, store::StateStore};

/// What a signal says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalAction {
    /// Buy.
    Buy,
    /// Sell.
    Sell,
    /// Do nothing.
    Hold,
}

/// What a strategy thinks of a symbol at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// Of what.
    pub symbol: Symbol,
    /// Who says it.
    pub strategy: StrategyId,
    /// What it says.
    pub action: SignalAction,
    /// How sure it is: 0 to 1.
    pub confidence: Decimal,
    /// The price it was reckoned at, if at one.
    pub price: Option<Price>,
    /// When it was reckoned.
    pub time: Timestamp,
}

impl Stored for Signal {
    const NAME: &'static str = "signal";
    const SCHEMA: u32 = 1;
}

impl Cached for Signal {
    type Id = Symbol;
    const PREFIX: &'static str = "signal:";
    const TTL: Duration = Duration::from_secs(86_400);

    fn id(&self) -> String {
        Self::name(&self.symbol)
    }

    fn name(symbol: &Symbol) -> String {
        symbol.to_string()
    }

    fn time(&self) -> Option<Timestamp> {
        Some(self.time)
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.confidence < Decimal::ZERO || self.confidence > Decimal::ONE {
            return Err(StoreError::Invalid { rule: "a signal's confidence must be 0 to 1".into() });
        }
        Ok(())
    }
}

/// What the history of a symbol comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct SignalStatistics {
    /// Signals in the history.
    pub count: u32,
    /// Of these, to buy.
    pub buys: u32,
    /// Of these, to sell.
    pub sells: u32,
    /// Of these, to do nothing.
    pub holds: u32,
    /// The mean confidence; none without signals.
    pub mean_confidence: Option<Decimal>,
    /// The earliest and the latest time.
    pub span: Option<(Timestamp, Timestamp)>,
}

/// The latest signal of each symbol, and a capped history of it.
#[derive(Debug, Clone)]
pub struct SignalCache {
    latest: TypedCache<Signal>,
    keep: Keep,
}

impl SignalCache {
    /// Signals of a symbol's history, unless chosen otherwise.
    pub const HISTORY_MAX: u32 = 100;
    /// How long a history stays after its last signal.
    pub const HISTORY_TTL: Duration = Duration::from_secs(7 * 86_400);

    /// A view of `namespace`, with ages by `clock.wall()`.
    #[must_use]
    pub fn new(store: Arc<dyn StateStore>, namespace: Namespace, clock: Arc<dyn Clock>) -> Self {
        let keep = Keep { max: Self::HISTORY_MAX, ttl: Self::HISTORY_TTL };
        Self { latest: TypedCache::new(store, namespace, clock), keep }
    }

    /// Chooses how many signals a history keeps.
    ///
    /// # Panics
    /// If it is 0 or above 1,000.
    #[must_use]
    pub fn with_history_max(mut self, max: u32) -> Self {
        self.keep = self.keep.with_max(max);
        self
    }

    /// Chooses how long the latest signal stays.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.latest = self.latest.with_ttl(ttl);
        self
    }

    /// Adds a signal to its symbol's history and makes it the latest unless a later one is known; whether it is the latest now.
    /// Both happen or neither does.
    ///
    /// # Errors
    /// `Invalid` for a confidence outside 0 to 1; else as [`TypedCache::put`]. After `Ambiguous`, writing it again may put it into the
    /// history twice; where that matters, write under [`StateStoreExt::once`].
    ///
    /// # Cancel safety
    /// Dropping the future may leave it written.
    pub async fn put(&self, signal: &Signal) -> Result<bool, StoreError> {
        let (name, time) = (signal.id(), signal.time);
        let push = TypedCache::remember(&name, signal, self.keep)?;
        let noted = Noted { time, value: signal.clone() };
        if self.latest.put_unless(&name, &noted, vec![push.clone()], |found| found.time > time).await? {
            return Ok(true);
        }
        self.latest.store.apply_one(&self.latest.namespace, push).await.map(|_| false)
    }

    /// The latest signal of a symbol.
    ///
    /// # Errors
    /// As [`TypedCache::get`].
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn latest(&self, symbol: &Symbol) -> Result<Option<Aged<Signal>>, StoreError> {
        self.latest.get(symbol).await
    }

    /// The latest signals of many symbols in one consistent snapshot, in their order.
    ///
    /// # Errors
    /// As [`TypedCache::get_many`].
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn latest_many(&self, symbols: &[&Symbol]) -> Result<Vec<Option<Aged<Signal>>>, StoreError> {
        self.latest.get_many(symbols).await
    }

    /// The latest signals of all symbols, by symbol.
    ///
    /// # Errors
    /// As [`TypedCache::page`].
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn latest_page(&self, after: Option<&str>, limit: usize) -> Result<CachePage<Signal>, StoreError> {
        self.latest.page("", after, limit).await
    }

    /// The newest signals of a symbol as they came, the newest first; at most 1,000.
    ///
    /// # Errors
    /// As [`StateStore::list_range`], and `WrongCodec`.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn history(&self, symbol: &Symbol, limit: u32) -> Result<Vec<Signal>, StoreError> {
        self.latest.past(&Signal::name(symbol), limit).await
    }

    /// The signals of a symbol's history from `from` on and before `to`, by their time.
    ///
    /// # Errors
    /// As [`history`](Self::history).
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn between(&self, symbol: &Symbol, from: Timestamp, to: Timestamp) -> Result<Vec<Signal>, StoreError> {
        let mut signals = self.history(symbol, HISTORY_MAX).await?;
        signals.retain(|signal| (from..to).contains(&signal.time));
        // As they came, where times are equal.
        signals.reverse();
        signals.sort_by_key(|signal| signal.time);
        Ok(signals)
    }

    /// What a symbol's history comes to.
    ///
    /// # Errors
    /// As [`history`](Self::history).
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn statistics(&self, symbol: &Symbol) -> Result<SignalStatistics, StoreError> {
        let mut told = SignalStatistics::default();
        let mut sum = Decimal::ZERO;
        for signal in self.history(symbol, HISTORY_MAX).await? {
            told.count += 1;
            match signal.action {
                SignalAction::Buy => told.buys += 1,
                SignalAction::Sell => told.sells += 1,
                SignalAction::Hold => told.holds += 1,
            }
            // At most 1,000 of at most 1.
            sum += signal.confidence;
            let (first, last) = told.span.unwrap_or((signal.time, signal.time));
            told.span = Some((first.min(signal.time), last.max(signal.time)));
        }
        told.mean_confidence = sum.checked_div(Decimal::from(told.count));
        Ok(told)
    }

    /// Forgets a symbol, its history too; whether there was anything.
    ///
    /// # Errors
    /// As [`StateStore::apply`].
    ///
    /// # Cancel safety
    /// Dropping the future may leave it forgotten.
    pub async fn remove(&self, symbol: &Symbol) -> Result<bool, StoreError> {
        self.latest.forget(&Signal::name(symbol)).await
    }
}
