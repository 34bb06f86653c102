//! What an account has, as its venue last said.

use std::time::Duration;

use infra_types::{AccountId, Currency, Decimal, InstrumentId, Price, Timestamp};
use serde::{Deserialize, Serialize};

use super::typed::{Cached, TypedCache};
use crate::{codec::Stored, error::StoreError};

/// Positions by account and instrument; list those of an account with the page of `ACCOUNT/`.
pub type PositionCache = TypedCache<Position>;

/// Balances by account and currency; list those of an account with the page of `ACCOUNT/`.
pub type BalanceCache = TypedCache<Balance>;

/// An account's position in one linear instrument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Whose.
    pub account: AccountId,
    /// In what.
    pub instrument: InstrumentId,
    /// How much: long above zero, short below, closed at zero.
    pub qty: Decimal,
    /// At which price it was entered on average.
    pub entry_price: Price,
    /// At which price it is valued.
    pub mark_price: Price,
    /// What the prices are in.
    pub currency: Currency,
    /// As of when.
    pub time: Timestamp,
}

impl Position {
    /// Whether there is any.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.qty.is_zero()
    }

    /// Quantity × mark price, with the quantity's sign.
    ///
    /// # Errors
    /// `Invalid` if it is no decimal of 28 digits any more.
    pub fn notional(&self) -> Result<Decimal, StoreError> {
        self.qty.checked_mul(self.mark_price.get()).ok_or_else(overflow)
    }

    /// Quantity × (mark price − entry price).
    ///
    /// # Errors
    /// As [`notional`](Self::notional).
    pub fn unrealized(&self) -> Result<Decimal, StoreError> {
        let moved = self.mark_price.get().checked_sub(self.entry_price.get());
        moved.and_then(|moved| self.qty.checked_mul(moved)).ok_or_else(overflow)
    }
}

pub(super) fn overflow() -> StoreError {
    StoreError::Invalid { rule: "the amounts are too large for a decimal of 28 digits".into() }
}

impl Stored for Position {
    const NAME: &'static str = "position";
    const SCHEMA: u32 = 1;
}

impl Cached for Position {
    type Id = (AccountId, InstrumentId);
    const PREFIX: &'static str = "position:";
    const TTL: Duration = Duration::from_secs(300);

    fn id(&self) -> String {
        format!("{}/{}", self.account, self.instrument)
    }

    fn name((account, instrument): &Self::Id) -> String {
        format!("{account}/{instrument}")
    }

    fn time(&self) -> Option<Timestamp> {
        Some(self.time)
    }
}

/// What an account holds of one currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// Whose.
    pub account: AccountId,
    /// Of what.
    pub currency: Currency,
    /// All of it; below zero where it is owed.
    pub total: Decimal,
    /// What no order holds back.
    pub available: Decimal,
    /// As of when.
    pub time: Timestamp,
}

impl Stored for Balance {
    const NAME: &'static str = "balance";
    const SCHEMA: u32 = 1;
}

impl Cached for Balance {
    type Id = (AccountId, Currency);
    const PREFIX: &'static str = "balance:";
    const TTL: Duration = Duration::from_secs(60);

    fn id(&self) -> String {
        format!("{}/{}", self.account, self.currency)
    }

    fn name((account, currency): &Self::Id) -> String {
        format!("{account}/{currency}")
    }

    fn time(&self) -> Option<Timestamp> {
        Some(self.time)
    }
}
