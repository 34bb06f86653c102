//! Candles by symbol and timeframe.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use infra_types::{Clock, InvalidValue, Namespace, Price, Qty, Symbol, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    history::Keep,
    typed::{Aged, Cached, Noted, TypedCache},
};
use crate::{codec::Stored, error::StoreError, store::StateStore};

/// How long a candle lasts. Prints and parses as `1m`, `4h`, `1d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Timeframe {
    /// `1s`
    Second1,
    /// `1m`
    Minute1,
    /// `3m`
    Minute3,
    /// `5m`
    Minute5,
    /// `15m`
    Minute15,
    /// `30m`
    Minute30,
    /// `1h`
    Hour1,
    /// `4h`
    Hour4,
    /// `12h`
    Hour12,
    /// `1d`, from midnight UTC
    Day1,
    /// `1w`, from midnight UTC of a Monday
    Week1,
}

impl Timeframe {
    /// Every one, the shortest first.
    pub const ALL: [Self; 11] = [
        Self::Second1,
        Self::Minute1,
        Self::Minute3,
        Self::Minute5,
        Self::Minute15,
        Self::Minute30,
        Self::Hour1,
        Self::Hour4,
        Self::Hour12,
        Self::Day1,
        Self::Week1,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Second1 => "1s",
            Self::Minute1 => "1m",
            Self::Minute3 => "3m",
            Self::Minute5 => "5m",
            Self::Minute15 => "15m",
            Self::Minute30 => "30m",
            Self::Hour1 => "1h",
            Self::Hour4 => "4h",
            Self::Hour12 => "12h",
            Self::Day1 => "1d",
            Self::Week1 => "1w",
        }
    }

    /// How long it is.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_secs(match self {
            Self::Second1 => 1,
            Self::Minute1 => 60,
            Self::Minute3 => 180,
            Self::Minute5 => 300,
            Self::Minute15 => 900,
            Self::Minute30 => 1_800,
            Self::Hour1 => 3_600,
            Self::Hour4 => 14_400,
            Self::Hour12 => 43_200,
            Self::Day1 => 86_400,
            Self::Week1 => 604_800,
        })
    }

    /// Whether a candle of this length may open then.
    #[must_use]
    pub fn opens_at(self, time: Timestamp) -> bool {
        // 1970-01-01 was a Thursday; the Monday before it was three days earlier.
        let shift = if self == Self::Week1 { 3 * 86_400 * 1_000_000_000 } else { 0 };
        let length = i128::try_from(self.duration().as_nanos()).unwrap_or(i128::MAX);
        (i128::from(time.as_nanos()) + shift).rem_euclid(length) == 0
    }
}

impl fmt::Display for Timeframe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Timeframe {
    type Err = InvalidValue;
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let found = Self::ALL.into_iter().find(|timeframe| timeframe.as_str() == text);
        found.ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(" ");
            InvalidValue::new("timeframe", format!("must be one of {known}, is {text:?}"))
        })
    }
}

impl TryFrom<String> for Timeframe {
    type Error = InvalidValue;
    fn try_from(text: String) -> Result<Self, InvalidValue> {
        text.parse()
    }
}

impl From<Timeframe> for String {
    fn from(timeframe: Timeframe) -> Self {
        timeframe.as_str().into()
    }
}

/// What a symbol's price did in one timeframe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candle {
    /// Of what.
    pub symbol: Symbol,
    /// How long it lasts.
    pub timeframe: Timeframe,
    /// When it opened: a whole multiple of the timeframe, in UTC.
    pub opened_at: Timestamp,
    /// The first price.
    pub open: Price,
    /// The highest price.
    pub high: Price,
    /// The lowest price.
    pub low: Price,
    /// The last price so far.
    pub close: Price,
    /// What was traded.
    pub volume: Qty,
    /// Whether it will not change any more.
    pub is_closed: bool,
}

impl Stored for Candle {
    const NAME: &'static str = "candle";
    const SCHEMA: u32 = 1;
}

impl Cached for Candle {
    type Id = (Symbol, Timeframe);
    const PREFIX: &'static str = "market:";
    /// Chosen by the candle's own timeframe.
    const TTL: Duration = Duration::from_secs(120);

    fn id(&self) -> String {
        format!("{}:{}", self.symbol, self.timeframe)
    }

    fn name((symbol, timeframe): &Self::Id) -> String {
        format!("{symbol}:{timeframe}")
    }

    fn check(&self) -> Result<(), StoreError> {
        let rule = if self.low > self.open.min(self.close) || self.high < self.open.max(self.close) {
            "a candle's prices must lie between its low and its high"
        } else if !self.timeframe.opens_at(self.opened_at) {
            "a candle must open at a whole multiple of its timeframe"
        } else {
            return Ok(());
        };
        Err(StoreError::Invalid { rule: rule.into() })
    }
}

/// The latest candle of each symbol and timeframe, and a capped history of the closed ones. Use a namespace a venue.
#[derive(Debug, Clone)]
pub struct MarketDataCache {
    latest: TypedCache<Candle>,
    history_max: u32,
}

impl MarketDataCache {
    /// Closed candles of a history, unless chosen otherwise.
    pub const HISTORY_MAX: u32 = 500;

    /// A view of `namespace`, with ages by `clock.wall()`.
    #[must_use]
    pub fn new(store: Arc<dyn StateStore>, namespace: Namespace, clock: Arc<dyn Clock>) -> Self {
        Self { latest: TypedCache::new(store, namespace, clock), history_max: Self::HISTORY_MAX }
    }

    /// Chooses how many closed candles a history keeps.
    ///
    /// # Panics
    /// If it is 0 or above 1,000.
    #[must_use]
    pub fn with_history_max(mut self, max: u32) -> Self {
        self.history_max = Keep { max, ttl: Duration::ZERO }.with_max(max).max;
        self
    }

    /// Writes a candle unless it is older than the one that is there, or that one is this one and closed; whether it did. A closed
    /// candle joins the history, once, in the same step. The candle stays for twice its timeframe from now on.
    ///
    /// # Errors
    /// `Invalid` for prices outside low and high, or an opening time off the grid; else as [`TypedCache::put`]. After
    /// `Ambiguous` it is safe to write it again.
    ///
    /// # Cancel safety
    /// Dropping the future may leave it written.
    pub async fn put(&self, candle: &Candle) -> Result<bool, StoreError> {
        let (name, length) = (candle.id(), candle.timeframe.duration());
        let noted = Noted { time: self.latest.clock.wall(), value: candle.clone() };
        let mut more = Vec::new();
        if candle.is_closed {
            let keep = Keep { max: self.history_max, ttl: length * (self.history_max + 2) };
            more.push(TypedCache::remember(&name, candle, keep)?);
        }
        let forbids = |found: &Noted<Candle>| {
            let found = &found.value;
            found.opened_at > candle.opened_at || (found.opened_at == candle.opened_at && found.is_closed)
        };
        self.latest.clone().with_ttl(length * 2).put_unless(&name, &noted, more, forbids).await
    }

    /// The latest candle; its age is the time since it was written.
    ///
    /// # Errors
    /// As [`TypedCache::get`].
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn latest(&self, symbol: &Symbol, timeframe: Timeframe) -> Result<Option<Aged<Candle>>, StoreError> {
        self.latest.get(&(symbol.clone(), timeframe)).await
    }

    /// The latest candles of many symbols in one consistent snapshot, in their order.
    ///
    /// # Errors
    /// As [`TypedCache::get_many`].
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn latest_many(
        &self,
        symbols: &[&Symbol],
        timeframe: Timeframe,
    ) -> Result<Vec<Option<Aged<Candle>>>, StoreError> {
        let ids: Vec<_> = symbols.iter().map(|symbol| ((*symbol).clone(), timeframe)).collect();
        self.latest.get_many(&ids.iter().collect::<Vec<_>>()).await
    }

    /// The newest closed candles that were written, the newest first; at most 1,000.
    ///
    /// # Errors
    /// As [`StateStore::list_range`], and `WrongCodec`.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn history(&self, symbol: &Symbol, timeframe: Timeframe, limit: u32) -> Result<Vec<Candle>, StoreError> {
        self.latest.past(&Candle::name(&(symbol.clone(), timeframe)), limit).await
    }

    /// Forgets a symbol's candles of one timeframe, the history too; whether there was anything.
    ///
    /// # Errors
    /// As [`StateStore::apply`].
    ///
    /// # Cancel safety
    /// Dropping the future may leave it forgotten.
    pub async fn remove(&self, symbol: &Symbol, timeframe: Timeframe) -> Result<bool, StoreError> {
        self.latest.forget(&Candle::name(&(symbol.clone(), timeframe))).await
    }
}
