//! What the engine holds in memory: the last known records and counters of the ledger, and the market.

use std::{collections::BTreeMap, time::Duration};

use infra_state_store::Version;
use infra_types::{
    AccountId, Currency, Decimal, InstrumentId, InstrumentSpec, Monotonic, OrderId, Scope, StrategyId, Timestamp,
};
use jiff::civil::Date;

use crate::{
    account::AccountState,
    decision::{Check, code},
    limits,
    market::Market,
    marks::{Marked, Marks},
    overrides::Override,
    portfolio::AccountMetrics,
    position::Position,
    rates::Rates,
    strategy::StrategyState,
    working::Working,
};

/// The moment of one decision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) mono: Monotonic,
    pub(crate) wall: Timestamp,
    pub(crate) day: Date,
}

/// A record as it was read or written.
#[derive(Debug, Clone)]
pub(crate) struct Versioned<T> {
    pub(crate) value: T,
    pub(crate) version: Version,
}

/// What a strategy has: its own figures, and its parts of positions by account and instrument.
#[derive(Debug, Default)]
pub(crate) struct StrategyBook {
    pub(crate) state: Option<Versioned<StrategyState>>,
    /// What the store says, as last known.
    pub(crate) stored: Option<Marks>,
    pub(crate) parts: BTreeMap<(AccountId, InstrumentId), Versioned<Position>>,
}

#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) accounts: BTreeMap<AccountId, Versioned<AccountState>>,
    /// What the store says of each account, as last known.
    pub(crate) stored: BTreeMap<AccountId, Marks>,
    /// Accounts that were read with another version while their positions were not read since.
    pub(crate) half_read: BTreeMap<AccountId, Version>,
    pub(crate) positions: BTreeMap<AccountId, BTreeMap<InstrumentId, Versioned<Position>>>,
    pub(crate) strategies: BTreeMap<StrategyId, StrategyBook>,
    pub(crate) counters: BTreeMap<String, i64>,
    pub(crate) working: BTreeMap<InstrumentId, Versioned<Working>>,
    /// What was granted for orders that were just refused; each leaves with its order.
    pub(crate) overrides: BTreeMap<(AccountId, OrderId), Versioned<Override>>,
    pub(crate) specs: BTreeMap<InstrumentId, InstrumentSpec>,
    pub(crate) rates: Rates,
    pub(crate) market: Market,
    pub(crate) reported: BTreeMap<AccountId, AccountMetrics>,
}

impl Book {
    /// Takes a record unless a newer one, or the same one with what was observed since, is there; what was observed on an older
    /// one goes on. Whether it was taken.
    pub(crate) fn offer_account(&mut self, mut value: AccountState, version: Version) -> bool {
        let known = self.accounts.get(&value.id);
        if known.is_some_and(|known| known.version >= version) {
            return false;
        }
        self.stored.insert(value.id.clone(), value.marks());
        if let Some(known) = known {
            value.keep(&known.value);
        }
        self.accounts.insert(value.id.clone(), Versioned { value, version });
        true
    }

    /// Whether something was observed of the account that its stored record does not say.
    pub(crate) fn has_moved(&self, account: &AccountId) -> bool {
        let known = self.accounts.get(account).map(|known| known.value.marks());
        known.is_some_and(|known| self.stored.get(account) != Some(&known))
    }

    /// As [`Book::has_moved`].
    pub(crate) fn has_strategy_moved(&self, strategy: &StrategyId) -> bool {
        let of = self.strategies.get(strategy);
        of.is_some_and(|of| of.state.as_ref().map(|known| known.value.marks()) != of.stored)
    }

    /// The account was read and its positions are not yet: until they are, what it lost or won meanwhile would count twice.
    pub(crate) fn await_positions(&mut self, account: AccountId, version: Version) {
        self.half_read.insert(account, version);
    }

    /// All positions were read after these accounts were.
    pub(crate) fn positions_came(&mut self, of: &BTreeMap<AccountId, Version>) {
        self.half_read.retain(|account, version| of.get(account) != Some(version));
    }

    /// As [`Book::offer_account`].
    pub(crate) fn offer_position(
        &mut self,
        account: &AccountId,
        instrument: &InstrumentId,
        value: Position,
        version: Version,
    ) {
        let of_account = self.positions.entry(account.clone()).or_default();
        match of_account.get(instrument) {
            Some(known) if known.version >= version => {}
            _ => {
                of_account.insert(instrument.clone(), Versioned { value, version });
            }
        }
    }

    /// As [`Book::offer_account`].
    pub(crate) fn offer_strategy(&mut self, mut value: StrategyState, version: Version) {
        let of = self.strategies.entry(value.id.clone()).or_default();
        if of.state.as_ref().is_some_and(|known| known.version >= version) {
            return;
        }
        of.stored = Some(value.marks());
        if let Some(known) = &of.state {
            value.keep(&known.value);
        }
        of.state = Some(Versioned { value, version });
    }

    /// As [`Book::offer_account`].
    pub(crate) fn offer_part(
        &mut self,
        strategy: &StrategyId,
        of: (AccountId, InstrumentId),
        value: Position,
        version: Version,
    ) {
        let parts = &mut self.strategies.entry(strategy.clone()).or_default().parts;
        if parts.get(&of).is_none_or(|known| known.version < version) {
            parts.insert(of, Versioned { value, version });
        }
    }

    /// As [`Book::offer_account`].
    pub(crate) fn offer_working(&mut self, of: &InstrumentId, value: Working, version: Version) {
        if self.working.get(of).is_none_or(|known| known.version < version) {
            self.working.insert(of.clone(), Versioned { value, version });
        }
    }

    pub(crate) fn strategy(&self, strategy: &StrategyId) -> Option<&Versioned<StrategyState>> {
        self.strategies.get(strategy)?.state.as_ref()
    }

    /// The strategy's part of a position.
    pub(crate) fn part(
        &self,
        strategy: &StrategyId,
        account: &AccountId,
        instrument: &InstrumentId,
    ) -> Option<&Versioned<Position>> {
        self.strategies.get(strategy)?.parts.get(&(account.clone(), instrument.clone()))
    }

    /// What the strategy's parts would bring at the middle of the market, in the firm's currency, `instead` taken for the part
    /// that it names. Answers the failed check if one of them cannot be priced.
    pub(crate) fn unrealised_of_strategy(
        &self,
        strategy: &StrategyId,
        instead: Option<(&AccountId, &InstrumentId, &Position)>,
        firm: &Currency,
        now: Now,
        age_max: Option<Duration>,
    ) -> Result<Decimal, Check> {
        let mut sum = Decimal::ZERO;
        let held = self.strategies.get(strategy).into_iter().flat_map(|of| &of.parts);
        let held = held.map(|((account, id), p)| (account, id, &p.value));
        let others = held.filter(|(a, id, _)| instead.is_none_or(|(of, at, _)| (of, at) != (*a, *id)));
        for (account, id, position) in others.chain(instead).filter(|(_, _, p)| !p.is_flat()) {
            let scope = || Scope::Account(account.clone());
            let missing = |code: &'static str, note: &'static str| Check::missing(code, scope(), note);
            let known = self.accounts.get(account);
            let known = known.ok_or_else(|| missing(code::UNKNOWN_ACCOUNT, "a strategy holds something in it"))?;
            let currency = &known.value.currency;
            let price = self.mark(id, currency, now, age_max)?;
            let rate = self.rates.get(currency, firm);
            let rate = rate.ok_or_else(|| missing(code::MISSING_CONVERSION, "held by a strategy"))?;
            let part = position.unrealised(price).and_then(|part| part.checked_mul(rate));
            let next = part.and_then(|part| sum.checked_add(part));
            sum = next.ok_or_else(|| missing(code::OVERFLOW, "unrealised P&L of a strategy"))?;
        }
        Ok(sum)
    }

    /// Takes note of the strategy's P&L as of now.
    pub(crate) fn observe_strategy(&mut self, strategy: &StrategyId, firm: Option<&Currency>, now: Now) {
        let unrealised = firm.and_then(|firm| self.unrealised_of_strategy(strategy, None, firm, now, None).ok());
        let known = self.strategies.get_mut(strategy).and_then(|of| of.state.as_mut());
        if let Some(known) = known {
            let pnl = unrealised.map(|u| known.value.pnl(u));
            known.value.observe(now.day, pnl);
        }
    }

    /// The strategies that hold something of an instrument.
    pub(crate) fn strategies_in(&self, instrument: &InstrumentId) -> Vec<StrategyId> {
        let holds = |of: &StrategyBook| of.parts.iter().any(|((_, id), p)| id == instrument && !p.value.is_flat());
        self.strategies.iter().filter(|(_, of)| holds(of)).map(|(id, _)| id.clone()).collect()
    }

    pub(crate) fn position(&self, account: &AccountId, instrument: &InstrumentId) -> Option<&Versioned<Position>> {
        self.positions.get(account)?.get(instrument)
    }

    /// The last known value of a counter.
    pub(crate) fn counter(&self, name: &str) -> i64 {
        self.counters.get(name).copied().unwrap_or(0)
    }

    /// What the account's positions would bring at the middle of the market, `instead` taken for the position it names.
    /// Answers the failed check if one of them cannot be priced.
    pub(crate) fn unrealised(
        &self,
        account: &AccountState,
        instead: Option<(&InstrumentId, &Position)>,
        now: Now,
        age_max: Option<Duration>,
    ) -> Result<Decimal, Check> {
        let mut sum = Decimal::ZERO;
        let held = self.positions.get(&account.id).into_iter().flatten().map(|(id, p)| (id, &p.value));
        let others = held.filter(|(id, _)| instead.is_none_or(|(of, _)| of != *id));
        for (id, position) in others.chain(instead).filter(|(_, p)| !p.is_flat()) {
            let price = self.mark(id, &account.currency, now, age_max)?;
            let part = position.unrealised(price).and_then(|part| sum.checked_add(part));
            sum =
                part.ok_or_else(|| Check::missing(code::OVERFLOW, Scope::Instrument(id.clone()), "unrealised P&L"))?;
        }
        Ok(sum)
    }

    /// The middle of the market in `currency`.
    fn mark(
        &self,
        id: &InstrumentId,
        currency: &Currency,
        now: Now,
        age_max: Option<Duration>,
    ) -> Result<Decimal, Check> {
        let missing =
            |code: &'static str, note: &'static str| Check::missing(code, Scope::Instrument(id.clone()), note);
        let spec = self.specs.get(id).ok_or_else(|| missing(code::UNKNOWN_INSTRUMENT, "held but not registered"))?;
        let quoted = self.market.quote(id, now.mono);
        let (quote, age) =
            quoted.ok_or_else(|| missing(code::NO_REFERENCE_PRICE, "held, and no quote was taken yet"))?;
        if let Some(max) = age_max.filter(|max| age > *max) {
            let (age, max) = (limits::seconds(age), limits::seconds(max));
            let check = Check::at_most(code::STALE_REFERENCE_PRICE, Scope::Instrument(id.clone()), age, max);
            return Err(check.with_note("held: age of the quote, seconds"));
        }
        let rate = self.rates.get(&spec.quote, currency);
        let rate = rate.ok_or_else(|| missing(code::MISSING_CONVERSION, "held, and its currency has no rate"))?;
        quote.mid().checked_mul(rate).ok_or_else(|| missing(code::OVERFLOW, "the mark"))
    }

    /// Takes note of the account's P&L as of now.
    pub(crate) fn observe(&mut self, account: &AccountId, now: Now) {
        let Some(known) = self.accounts.get(account) else { return };
        let is_whole = !self.half_read.contains_key(account);
        let unrealised = is_whole.then(|| self.unrealised(&known.value, None, now, None).ok()).flatten();
        if let Some(known) = self.accounts.get_mut(account) {
            let pnl = unrealised.map(|u| known.value.pnl(u));
            known.value.observe(now.day, pnl);
        }
    }

    /// The accounts that hold something of an instrument.
    pub(crate) fn holders(&self, instrument: &InstrumentId) -> Vec<AccountId> {
        let holds =
            |of: &BTreeMap<InstrumentId, Versioned<Position>>| of.get(instrument).is_some_and(|p| !p.value.is_flat());
        self.positions.iter().filter(|(_, of)| holds(of)).map(|(account, _)| account.clone()).collect()
    }

    /// Equity of the accounts that count, in the firm's currency, or the check that fails.
    pub(crate) fn equity_of(
        &self,
        counts: impl Fn(&AccountId) -> bool,
        currency: &Currency,
        now: Now,
        age_max: Option<Duration>,
    ) -> Result<Decimal, Check> {
        let mut sum = Decimal::ZERO;
        for (id, account) in self.accounts.iter().filter(|(id, _)| counts(id)) {
            let account = &account.value;
            let missing = |code: &'static str| Check::missing(code, Scope::Account(id.clone()), "equity of the firm");
            let rate = self.rates.get(&account.currency, currency).ok_or_else(|| missing(code::MISSING_CONVERSION))?;
            let equity = account.deposits.saturating_add(account.pnl(self.unrealised(account, None, now, age_max)?));
            let next = equity.checked_mul(rate).and_then(|part| sum.checked_add(part));
            sum = next.ok_or_else(|| missing(code::OVERFLOW))?;
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_an_account_and_its_positions_no_profit_is_taken_note_of() {
        let day = jiff::civil::date(2025, 1, 1);
        let now = Now { mono: Monotonic::from_origin(Duration::ZERO), wall: Timestamp::from_millis(0), day };
        let id: AccountId = "a".parse().unwrap();
        let mut book = Book::default();
        let mut read = AccountState::new(id.clone(), "USD".parse().unwrap(), Decimal::TEN, day);
        read.realised = Decimal::from(50);
        // The position that brought it may still be counted here.
        assert!(book.offer_account(read, Version(2)));
        book.await_positions(id.clone(), Version(2));
        book.observe(&id, now);
        assert_eq!(book.accounts[&id].value.high_water_mark, Decimal::ZERO);
        // Positions that were read after an older version of the account say nothing of this one.
        book.positions_came(&BTreeMap::from([(id.clone(), Version(1))]));
        book.observe(&id, now);
        assert!(!book.has_moved(&id));
        book.positions_came(&BTreeMap::from([(id.clone(), Version(2))]));
        book.observe(&id, now);
        assert_eq!(book.accounts[&id].value.high_water_mark, Decimal::from(50));
        assert!(book.has_moved(&id));
    }
}
