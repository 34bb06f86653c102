//! Where the figures stand in the store and how they are written.

use infra_state_store::{Entry, Key, StoreError};
use infra_types::{AccountId, BotId, Decimal, InstrumentId, OrderId, Scaled};
use serde::{Serialize, de::DeserializeOwned};

use crate::error::RiskError;

pub(crate) const ACCOUNTS: &str = "risk/account/";
pub(crate) const POSITIONS: &str = "risk/position/";
/// Money at 1e-4, but for [`SLOTS_FIRM`].
pub(crate) const USED: &str = "risk/used/";
/// Quantities at 1e-8.
pub(crate) const REDUCING: &str = "risk/reducing/";
/// How many opening orders work.
pub(crate) const OPENING: &str = "risk/opening/";
/// How many account × instrument pairs are open or being opened.
pub(crate) const SLOTS_FIRM: &str = "risk/used/positions/firm";
/// Approved orders that are not over: `{account}/{order}`.
pub(crate) const HELD: &str = "risk/held/";
/// How many orders of an account are held.
pub(crate) const HELD_COUNTS: &str = "risk/held_count/";
/// Leases of holders' names.
pub(crate) const HOLDERS: &str = "risk/holder/";
pub(crate) const EXPOSURE_FIRM: &str = "risk/used/exposure/firm";

/// Decimal places of quantities in counters.
pub(crate) const QTY_PLACES: u32 = 8;

pub(crate) fn account(account: &AccountId) -> String {
    format!("{ACCOUNTS}{account}")
}

pub(crate) fn positions_of(account: &AccountId) -> String {
    format!("{POSITIONS}{account}/")
}

pub(crate) fn position(account: &AccountId, instrument: &InstrumentId) -> String {
    format!("{POSITIONS}{account}/{instrument}")
}

pub(crate) fn exposure_account(account: &AccountId) -> String {
    format!("{USED}exposure/account/{account}")
}

pub(crate) fn exposure_position(account: &AccountId, instrument: &InstrumentId) -> String {
    format!("{USED}position/{account}/{instrument}")
}

pub(crate) fn reducing(account: &AccountId, instrument: &InstrumentId) -> String {
    format!("{REDUCING}{account}/{instrument}")
}

pub(crate) fn opening(account: &AccountId, instrument: &InstrumentId) -> String {
    format!("{OPENING}{account}/{instrument}")
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

pub(crate) fn key(name: &str) -> Result<Key, StoreError> {
    Key::record(name)
}

/// The account and instrument of a position's key.
pub(crate) fn parse_position(name: &str) -> Option<(AccountId, InstrumentId)> {
    let (account, instrument) = name.strip_prefix(POSITIONS)?.split_once('/')?;
    Some((account.parse().ok()?, instrument.parse().ok()?))
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

fn scale_qty(scaled: Decimal) -> Option<i64> {
    i64::try_from(scaled).ok().filter(|raw| raw.abs() <= Scaled::MAX)
}

/// The figure that a counter stands for.
pub(crate) fn figure(name: &str, raw: i64) -> Decimal {
    if name.starts_with(REDUCING) {
        Decimal::new(raw, QTY_PLACES)
    } else if name.starts_with(OPENING) || name.starts_with(HELD_COUNTS) || name == SLOTS_FIRM {
        Decimal::from(raw)
    } else {
        Decimal::new(raw, Scaled::SCALE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_what_they_are_of() {
        let (a, i) = ("main:1".parse().unwrap(), "binance_spot/BTCUSDT".parse().unwrap());
        assert_eq!(position(&a, &i), "risk/position/main:1/binance_spot/BTCUSDT");
        assert_eq!(parse_position(&position(&a, &i)), Some((a, i)));
        assert_eq!(parse_position("risk/position/x"), None);
        let longest = "x".repeat(64);
        let (a, i) = (longest.parse().unwrap(), format!("{longest}/{longest}").parse().unwrap());
        key(&exposure_position(&a, &i)).unwrap();
    }

    #[test]
    fn quantities_round_against_the_order() {
        let odd = Decimal::new(15, 9);
        assert_eq!((qty_held(odd), qty_there(odd)), (Some(2), Some(1)));
        assert_eq!(qty_held(Decimal::from(90_071_993)), None);
        assert_eq!(qty_held(Decimal::MAX), None);
        assert_eq!(figure(&reducing(&"a".parse().unwrap(), &"v/X".parse().unwrap()), 5), Decimal::new(5, 8));
        assert_eq!(figure(SLOTS_FIRM, 5), Decimal::from(5));
        assert_eq!(figure(EXPOSURE_FIRM, 5), Decimal::new(5, 4));
    }
}
