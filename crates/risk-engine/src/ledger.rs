//! Where the figures stand in the store and how they are written.

use std::fmt;

use infra_state_store::{Entry, Key, StoreError};
use infra_types::{AccountId, BotId, Decimal, InstrumentId, OrderId, Scaled, Scope, StrategyId};
use serde::{Serialize, de::DeserializeOwned};

use crate::error::RiskError;

pub(crate) const ACCOUNTS: &str = "risk/account/";
pub(crate) const POSITIONS: &str = "risk/position/";
/// Strategies' own figures (`{strategy}`) and their parts of positions (`{strategy}/{account}/{instrument}`).
pub(crate) const STRATEGIES: &str = "risk/strategy/";
/// The limits that are in force; every version of them under `risk/limits/history/`.
pub(crate) const LIMITS: &str = "risk/limits";
pub(crate) const LIMITS_HISTORY: &str = "risk/limits/history/";
/// How many approvals a strategy had since a person enabled it last.
pub(crate) const EXECUTIONS: &str = "risk/executions/";
/// The orders that work in an instrument, where a rule needs to know.
pub(crate) const WORKING: &str = "risk/working/";
/// Approved orders that are not over: `{account}/{order}`.
pub(crate) const HELD: &str = "risk/held/";
/// How many orders of an account are held.
pub(crate) const HELD_COUNTS: &str = "risk/held_count/";
/// Leases of holders' names.
pub(crate) const HOLDERS: &str = "risk/holder/";
/// Counters: `{metric}/{scope}`. All are zero when no order works and nothing is held.
pub(crate) const USED: &str = "risk/used/";

/// Decimal places of quantities in counters.
pub(crate) const QTY_PLACES: u32 = 8;

/// What a counter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// Positions at cost and working opening orders, whatever the side.
    Gross,
    /// Signed cost and working buys.
    NetLong,
    /// Minus signed cost and working sells.
    NetShort,
    /// Signed quantity and working buys.
    Long,
    /// Minus signed quantity and working sells.
    Short,
    /// As `Long`, where the venue trades whole units only.
    LongWhole,
    /// As `Short`, where the venue trades whole units only.
    ShortWhole,
    /// Working opening orders.
    Orders,
    /// Account × instrument pairs that are open or being opened.
    Slots,
    /// Quantity of a position that working exits hold.
    Reducing,
}

impl Metric {
    const ALL: [Self; 10] = [
        Self::Gross,
        Self::NetLong,
        Self::NetShort,
        Self::Long,
        Self::Short,
        Self::LongWhole,
        Self::ShortWhole,
        Self::Orders,
        Self::Slots,
        Self::Reducing,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Gross => "exposure",
            Self::NetLong => "net_long",
            Self::NetShort => "net_short",
            Self::Long => "long",
            Self::Short => "short",
            Self::LongWhole => "long_whole",
            Self::ShortWhole => "short_whole",
            Self::Orders => "orders",
            Self::Slots => "positions",
            Self::Reducing => "reducing",
        }
    }

    /// Decimal places of its counters.
    pub(crate) fn places(self) -> u32 {
        match self {
            Self::Gross | Self::NetLong | Self::NetShort => Scaled::SCALE,
            Self::Long | Self::Short | Self::Reducing => QTY_PLACES,
            Self::LongWhole | Self::ShortWhole | Self::Orders | Self::Slots => 0,
        }
    }
}

/// What a figure is of: a scope, or one account in one instrument.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Scope(Scope),
    Position(AccountId, InstrumentId),
}

impl Place {
    /// What a check names: of a position its instrument.
    pub(crate) fn scope(&self) -> Scope {
        match self {
            Self::Scope(scope) => scope.clone(),
            Self::Position(_, instrument) => Scope::Instrument(instrument.clone()),
        }
    }
}

impl fmt::Display for Place {
    /// As it stands in keys. Ids hold no `/`, so no two places are written alike.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scope(Scope::Firm) => f.write_str("firm"),
            Self::Scope(Scope::Group(id)) => write!(f, "group/{id}"),
            Self::Scope(Scope::Venue(id)) => write!(f, "venue/{id}"),
            Self::Scope(Scope::Account(id)) => write!(f, "account/{id}"),
            Self::Scope(Scope::Strategy(id)) => write!(f, "strategy/{id}"),
            Self::Scope(Scope::Instrument(id)) => write!(f, "instrument/{id}"),
            Self::Position(account, instrument) => write!(f, "position/{account}/{instrument}"),
        }
    }
}

/// One counter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Counter {
    pub(crate) metric: Metric,
    pub(crate) place: Place,
}

impl Counter {
    pub(crate) fn of(metric: Metric, scope: Scope) -> Self {
        Self { metric, place: Place::Scope(scope) }
    }

    pub(crate) fn of_position(metric: Metric, account: &AccountId, instrument: &InstrumentId) -> Self {
        Self { metric, place: Place::Position(account.clone(), instrument.clone()) }
    }

    /// Its key.
    pub(crate) fn name(&self) -> String {
        format!("{USED}{}/{}", self.metric.as_str(), self.place)
    }
}

pub(crate) fn account(account: &AccountId) -> String {
    format!("{ACCOUNTS}{account}")
}

pub(crate) fn positions_of(account: &AccountId) -> String {
    format!("{POSITIONS}{account}/")
}

pub(crate) fn position(account: &AccountId, instrument: &InstrumentId) -> String {
    format!("{POSITIONS}{account}/{instrument}")
}

pub(crate) fn strategy(strategy: &StrategyId) -> String {
    format!("{STRATEGIES}{strategy}")
}

pub(crate) fn parts_of(strategy: &StrategyId) -> String {
    format!("{STRATEGIES}{strategy}/")
}

/// A strategy's part of a position.
pub(crate) fn part(strategy: &StrategyId, account: &AccountId, instrument: &InstrumentId) -> String {
    format!("{STRATEGIES}{strategy}/{account}/{instrument}")
}

pub(crate) fn limits_at(version: u64) -> String {
    format!("{LIMITS_HISTORY}{version:020}")
}

pub(crate) fn executions(strategy: &StrategyId) -> String {
    format!("{EXECUTIONS}{strategy}")
}

/// Who enabled a strategy last.
pub(crate) fn enabled(strategy: &StrategyId) -> String {
    format!("risk/enabled/{strategy}")
}

/// An override.
pub(crate) fn granted(account: &AccountId, order: &OrderId) -> String {
    format!("risk/override/{account}/{order}")
}

pub(crate) fn working(instrument: &InstrumentId) -> String {
    format!("{WORKING}{instrument}")
}

pub(crate) fn held_of(account: &AccountId) -> String {
    format!("{HELD}{account}/")
}

pub(crate) fn held(account: &AccountId, order: &OrderId) -> String {
    format!("{HELD}{account}/{order}")
}

pub(crate) fn held_count(account: &AccountId) -> String {
    format!("{HELD_COUNTS}{account}")
}

pub(crate) fn holder(name: &BotId) -> String {
    format!("{HOLDERS}{name}")
}

pub(crate) fn reducing(account: &AccountId, instrument: &InstrumentId) -> String {
    Counter::of_position(Metric::Reducing, account, instrument).name()
}

pub(crate) fn key(name: &str) -> Result<Key, StoreError> {
    Key::record(name)
}

/// The account and instrument of a position's key.
pub(crate) fn parse_position(name: &str) -> Option<(AccountId, InstrumentId)> {
    let (account, instrument) = name.strip_prefix(POSITIONS)?.split_once('/')?;
    Some((account.parse().ok()?, instrument.parse().ok()?))
}

/// A strategy's key: the strategy, and of a part its account and instrument.
pub(crate) fn parse_strategy(name: &str) -> Option<(StrategyId, Option<(AccountId, InstrumentId)>)> {
    let rest = name.strip_prefix(STRATEGIES)?;
    let Some((strategy, part)) = rest.split_once('/') else { return Some((rest.parse().ok()?, None)) };
    let (account, instrument) = part.split_once('/')?;
    Some((strategy.parse().ok()?, Some((account.parse().ok()?, instrument.parse().ok()?))))
}

pub(crate) fn encode<T: Serialize>(value: &T, what: &'static str) -> Result<Vec<u8>, RiskError> {
    serde_json::to_vec(value).map_err(|_| RiskError::Overflow(what))
}

pub(crate) fn decode<T: DeserializeOwned>(key: &Key, entry: &Entry) -> Result<T, RiskError> {
    let corrupt = |reason: String| RiskError::Corrupt { key: key.name().to_owned(), reason };
    let bytes = entry.value.as_bytes().ok_or_else(|| corrupt("holds a counter, not a record".into()))?;
    serde_json::from_slice(bytes).map_err(|e| corrupt(e.to_string()))
}

/// A quantity as a counter, rounded up: what is held is never understated. None beyond ±(2⁵³−1).
pub(crate) fn qty_held(qty: Decimal) -> Option<i64> {
    scale_qty(qty.checked_mul(Decimal::from(100_000_000))?.ceil())
}

/// A quantity as a counter, rounded down: what is there is never overstated. None beyond ±(2⁵³−1).
pub(crate) fn qty_there(qty: Decimal) -> Option<i64> {
    scale_qty(qty.checked_mul(Decimal::from(100_000_000))?.floor())
}

/// A signed quantity as a counter of `places` places, rounded away from zero. None beyond ±(2⁵³−1).
pub(crate) fn qty_counted(qty: Decimal, places: u32) -> Option<i64> {
    let scaled = qty.abs().checked_mul(Decimal::from(10_i64.pow(places)))?.ceil();
    scale_qty(if qty.is_sign_negative() { -scaled } else { scaled })
}

fn scale_qty(scaled: Decimal) -> Option<i64> {
    i64::try_from(scaled).ok().filter(|raw| raw.abs() <= Scaled::MAX)
}

/// Decimal places of a counter.
pub(crate) fn places(name: &str) -> u32 {
    let metric = name.strip_prefix(USED).and_then(|rest| rest.split('/').next());
    let metric = metric.and_then(|word| Metric::ALL.into_iter().find(|m| m.as_str() == word));
    metric.map_or(0, Metric::places)
}

/// The figure that a counter stands for.
pub(crate) fn figure(name: &str, raw: i64) -> Decimal {
    Decimal::new(raw, places(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_what_they_are_of() {
        let (a, i) = ("main:1".parse().unwrap(), "binance_spot/BTCUSDT".parse().unwrap());
        assert_eq!(position(&a, &i), "risk/position/main:1/binance_spot/BTCUSDT");
        assert_eq!(parse_position(&position(&a, &i)), Some((a.clone(), i.clone())));
        assert_eq!(parse_position("risk/position/x"), None);
        let s: StrategyId = "breakout".parse().unwrap();
        assert_eq!(parse_strategy(&strategy(&s)), Some((s.clone(), None)));
        assert_eq!(parse_strategy(&part(&s, &a, &i)), Some((s.clone(), Some((a, i)))));
        assert_eq!(parse_strategy("risk/strategy/s/x"), None);
        assert_eq!(Counter::of(Metric::Gross, Scope::Strategy(s)).name(), "risk/used/exposure/strategy/breakout");
        let longest = "x".repeat(64);
        let (a, i) = (longest.parse().unwrap(), format!("{longest}/{longest}").parse().unwrap());
        key(&Counter::of_position(Metric::ShortWhole, &a, &i).name()).unwrap();
        key(&part(&longest.parse().unwrap(), &a, &i)).unwrap();
    }

    #[test]
    fn quantities_round_against_the_order() {
        let odd = Decimal::new(15, 9);
        assert_eq!((qty_held(odd), qty_there(odd)), (Some(2), Some(1)));
        assert_eq!(qty_held(Decimal::from(90_071_993)), None);
        assert_eq!(qty_held(Decimal::MAX), None);
        assert_eq!((qty_counted(odd, 8), qty_counted(-odd, 8)), (Some(2), Some(-2)));
        assert_eq!(qty_counted(Decimal::from(9_000_000_000_000_000_i64), 0), Some(9_000_000_000_000_000));
        assert_eq!(qty_counted(Decimal::from(90_071_993), 8), None);
        assert_eq!(figure(&reducing(&"a".parse().unwrap(), &"v/X".parse().unwrap()), 5), Decimal::new(5, 8));
        assert_eq!(figure(&Counter::of(Metric::Slots, Scope::Firm).name(), 5), Decimal::from(5));
        assert_eq!(figure(&Counter::of(Metric::Gross, Scope::Firm).name(), 5), Decimal::new(5, 4));
    }
}
