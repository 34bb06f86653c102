//! Figures of one account, group, strategy or of the firm: results, drawdown, exposure and how concentrated it is.

use std::collections::BTreeMap;

use infra_types::{AccountId, Currency, Decimal, InstrumentId, Scope};
use serde::{Deserialize, Serialize};

use crate::{account::AccountState, position::Position, strategy::StrategyState};

/// Figures of one scope, in one currency. A share or a quotient whose divisor is zero is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeMetrics {
    /// Of what.
    pub scope: Scope,
    /// What the amounts are in.
    pub currency: Currency,
    /// How many accounts are in the sums.
    pub accounts: usize,
    /// Accounts that belong to it and are not in the sums, for want of a price or a rate: every figure is incomplete then.
    pub unpriced: Vec<AccountId>,
    /// Deposits and P&L; none for strategies, which own nothing.
    pub equity: Option<Decimal>,
    /// Profit and loss of closed trades, before fees.
    pub realised: Decimal,
    /// Profit and loss of what is held, at the middle of the market.
    pub unrealised: Decimal,
    /// Fees that could be converted.
    pub fees: Decimal,
    /// Profit or loss since midnight.
    pub daily_pnl: Decimal,
    /// Distance from the best; of several accounts the sum of their distances, which is the furthest it can be. None where
    /// no best is kept.
    pub drawdown: Option<Decimal>,
    /// The furthest it ever was from its best; of several accounts the sum.
    pub max_drawdown: Option<Decimal>,
    /// Longs and shorts added up, at cost.
    pub gross: Decimal,
    /// Shorts taken off longs, at cost.
    pub net: Decimal,
    /// Account × instrument pairs that are not flat.
    pub open_positions: usize,
    /// Instruments in which something is held.
    pub instruments: usize,
    /// The instrument with the largest gross exposure; the first by name if several have it.
    pub largest: Option<InstrumentId>,
    /// Its part of the gross exposure.
    pub largest_share: Option<Decimal>,
    /// Sum of the squared shares of all instruments (Herfindahl 1950, Hirschman 1945): 1 is all in one, 1/n evenly in n.
    pub herfindahl: Option<Decimal>,
    /// Round trips that ended above zero; none where trips are not kept.
    pub wins: Option<u64>,
    /// Round trips that ended below zero.
    pub losses: Option<u64>,
    /// Share of round trips that won.
    pub win_rate: Option<Decimal>,
    /// What wins brought for each unit that losses cost.
    pub profit_factor: Option<Decimal>,
}

impl ScopeMetrics {
    /// Loss since midnight as a part of the equity at midnight; zero in profit. None without equity above zero.
    #[must_use]
    pub fn daily_loss_part(&self) -> Option<Decimal> {
        let start = self.equity?.saturating_sub(self.daily_pnl);
        part_of((-self.daily_pnl).max(Decimal::ZERO), start)
    }

    /// Drawdown as a part of the best equity. None without equity above zero.
    #[must_use]
    pub fn drawdown_part(&self) -> Option<Decimal> {
        let drawdown = self.drawdown?;
        part_of(drawdown, self.equity?.saturating_add(drawdown))
    }

    /// Gross exposure as a multiple of equity. None without equity above zero.
    #[must_use]
    pub fn leverage(&self) -> Option<Decimal> {
        part_of(self.gross, self.equity?)
    }
}

fn part_of(part: Decimal, whole: Decimal) -> Option<Decimal> {
    if whole <= Decimal::ZERO { None } else { part.checked_div(whole) }
}

/// Collects figures of a scope; saturates rather than wraps.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    accounts: usize,
    unpriced: Vec<AccountId>,
    equity: Option<Decimal>,
    realised: Decimal,
    unrealised: Decimal,
    fees: Decimal,
    daily_pnl: Decimal,
    drawdown: Option<Decimal>,
    max_drawdown: Option<Decimal>,
    net: Decimal,
    open_positions: usize,
    gross_of: BTreeMap<InstrumentId, Decimal>,
    trips: Option<Trips>,
}

#[derive(Debug, Default)]
struct Trips {
    wins: u64,
    losses: u64,
    gross_win: Decimal,
    gross_loss: Decimal,
}

fn add(to: &mut Decimal, amount: Decimal, rate: Decimal) {
    *to = to.saturating_add(amount.saturating_mul(rate));
}

fn add_known(to: &mut Option<Decimal>, amount: Decimal, rate: Decimal) {
    add(to.get_or_insert_default(), amount, rate);
}

impl Sums {
    /// Notes an account that cannot be priced.
    pub(crate) fn without(&mut self, account: &AccountId) {
        if !self.unpriced.contains(account) {
            self.unpriced.push(account.clone());
        }
    }

    /// Adds an account whose currency is worth `rate`.
    pub(crate) fn add_account(&mut self, state: &AccountState, unrealised: Decimal, rate: Decimal) {
        let pnl = state.pnl(unrealised);
        self.accounts += 1;
        add_known(&mut self.equity, state.deposits.saturating_add(pnl), rate);
        self.add_results(state.realised, unrealised, state.fees, pnl.saturating_sub(state.day_start_pnl), rate);
        add_known(&mut self.drawdown, state.drawdown(pnl), rate);
        add_known(&mut self.max_drawdown, state.max_drawdown, rate);
        self.add_trips((state.wins, state.losses), (state.gross_win, state.gross_loss), rate);
    }

    /// Adds a strategy, whose figures are in the firm's currency. It owns no equity.
    pub(crate) fn add_strategy(&mut self, state: &StrategyState, unrealised: Decimal) {
        let (pnl, rate) = (state.pnl(unrealised), Decimal::ONE);
        self.add_results(state.realised, unrealised, state.fees, pnl.saturating_sub(state.day_start_pnl), rate);
        add_known(&mut self.drawdown, state.drawdown(pnl), rate);
        add_known(&mut self.max_drawdown, state.max_drawdown, rate);
        self.add_trips((state.wins, state.losses), (state.gross_win, state.gross_loss), rate);
    }

    fn add_trips(&mut self, (wins, losses): (u64, u64), (gross_win, gross_loss): (Decimal, Decimal), rate: Decimal) {
        let trips = self.trips.get_or_insert_default();
        trips.wins = trips.wins.saturating_add(wins);
        trips.losses = trips.losses.saturating_add(losses);
        add(&mut trips.gross_win, gross_win, rate);
        add(&mut trips.gross_loss, gross_loss, rate);
    }

    fn add_results(
        &mut self,
        realised: Decimal,
        unrealised: Decimal,
        fees: Decimal,
        daily_pnl: Decimal,
        rate: Decimal,
    ) {
        add(&mut self.realised, realised, rate);
        add(&mut self.unrealised, unrealised, rate);
        add(&mut self.fees, fees, rate);
        add(&mut self.daily_pnl, daily_pnl, rate);
    }

    /// Adds a position at cost; a flat one is nothing.
    pub(crate) fn add_position(&mut self, instrument: &InstrumentId, position: &Position, rate: Decimal) {
        if position.is_flat() {
            return;
        }
        self.open_positions += 1;
        add(&mut self.net, position.cost, rate);
        add(self.gross_of.entry(instrument.clone()).or_default(), position.cost.abs(), rate);
    }

    pub(crate) fn finish(self, scope: Scope, currency: Currency) -> ScopeMetrics {
        let gross = self.gross_of.values().fold(Decimal::ZERO, |sum, part| sum.saturating_add(*part));
        let shares = self.gross_of.values().map(|part| part.checked_div(gross)).collect::<Option<Vec<_>>>();
        let shares = shares.filter(|shares| !shares.is_empty());
        let squares = |shares: Vec<Decimal>| shares.iter().map(|share| share.saturating_mul(*share)).sum::<Decimal>();
        // `max_by` keeps the last of equals.
        let largest = self.gross_of.iter().rev().max_by_key(|(_, part)| **part);
        let trips = self.trips.as_ref();
        ScopeMetrics {
            scope,
            currency,
            accounts: self.accounts,
            equity: self.equity.map(|v| v.normalize()),
            realised: self.realised.normalize(),
            unrealised: self.unrealised.normalize(),
            fees: self.fees.normalize(),
            daily_pnl: self.daily_pnl.normalize(),
            drawdown: self.drawdown.map(|v| v.normalize()),
            max_drawdown: self.max_drawdown.map(|v| v.normalize()),
            gross: gross.normalize(),
            net: self.net.normalize(),
            open_positions: self.open_positions,
            instruments: self.gross_of.len(),
            largest: largest.map(|(id, _)| id.clone()),
            largest_share: largest.and_then(|(_, part)| part.checked_div(gross)).map(|v| v.normalize()),
            herfindahl: shares.map(|shares| squares(shares).normalize()),
            wins: trips.map(|t| t.wins),
            losses: trips.map(|t| t.losses),
            win_rate: trips.and_then(|t| {
                Decimal::from(t.wins).checked_div(Decimal::from(t.wins).saturating_add(Decimal::from(t.losses)))
            }),
            profit_factor: trips.and_then(|t| t.gross_win.checked_div(t.gross_loss)),
            unpriced: self.unpriced,
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;

    fn position(cost: i64) -> Position {
        let sign = Decimal::from(cost.signum());
        Position { qty: sign, cost: Decimal::from(cost), ..Position::default() }
    }

    fn metrics(costs: &[(&str, i64)]) -> ScopeMetrics {
        let mut sums = Sums::default();
        for (id, cost) in costs {
            sums.add_position(&id.parse().unwrap(), &position(*cost), Decimal::ONE);
        }
        sums.finish(Scope::Firm, "USD".parse().unwrap())
    }

    #[test]
    fn shares_are_of_gross_and_by_instrument() {
        let m = metrics(&[("v/A", 300), ("v/B", -400), ("v/A", -100), ("v/C", 200), ("v/D", 0)]);
        assert_eq!((m.gross, m.net), (Decimal::from(1_000), Decimal::ZERO));
        assert_eq!((m.open_positions, m.instruments), (4, 3));
        assert_eq!((m.largest, m.largest_share), (Some("v/A".parse().unwrap()), Some(Decimal::new(4, 1))));
        assert_eq!(m.herfindahl, Some(Decimal::new(36, 2)), "0.16 + 0.16 + 0.04");
    }

    #[test]
    fn nothing_held_has_no_concentration_and_nothing_traded_no_rate() {
        let m = metrics(&[]);
        assert_eq!((&m.largest, m.largest_share, m.herfindahl), (&None, None, None));
        assert_eq!((m.equity, m.wins, m.win_rate, m.leverage(), m.drawdown_part()), (None, None, None, None, None));
    }

    #[test]
    fn accounts_of_several_currencies_add_up_at_their_rates() {
        let day = date(2025, 1, 1);
        let mut a = AccountState::new("a".parse().unwrap(), "USD".parse().unwrap(), Decimal::from(1_000), day);
        (a.realised, a.fees, a.high_water_mark) = (Decimal::from(-80), Decimal::from(20), Decimal::from(100));
        (a.wins, a.losses, a.gross_win, a.gross_loss) = (1, 3, Decimal::from(50), Decimal::from(150));
        let mut b = AccountState::new("b".parse().unwrap(), "EUR".parse().unwrap(), Decimal::from(500), day);
        (b.realised, b.wins, b.gross_win) = (Decimal::from(10), 1, Decimal::from(10));
        let mut sums = Sums::default();
        sums.add_account(&a, Decimal::from(-100), Decimal::ONE);
        sums.add_account(&b, Decimal::ZERO, Decimal::TWO);
        sums.without(&"c".parse().unwrap());
        let m = sums.finish(Scope::Group("g".parse().unwrap()), "USD".parse().unwrap());
        assert_eq!((m.accounts, m.unpriced.len()), (2, 1));
        assert_eq!(m.equity, Some(Decimal::from(800 + 1_020)));
        assert_eq!((m.daily_pnl, m.drawdown), (Decimal::from(-180), Some(Decimal::from(300))));
        assert_eq!(m.daily_loss_part(), Some(Decimal::new(9, 2)), "180 of the 2,000 at midnight");
        assert_eq!(m.drawdown_part().unwrap().round_dp(6), Decimal::new(141_509, 6), "300 of 2,120");
        assert_eq!((m.wins, m.losses, m.win_rate), (Some(2), Some(3), Some(Decimal::new(4, 1))));
        assert_eq!(m.profit_factor.unwrap().round_dp(4), Decimal::new(4_667, 4), "70 for 150");
    }

    #[test]
    fn the_largest_figures_saturate() {
        let mut sums = Sums::default();
        let most = Position { qty: Decimal::ONE, cost: Decimal::MAX, ..Position::default() };
        for id in ["v/A", "v/B"] {
            sums.add_position(&id.parse().unwrap(), &most, Decimal::MAX);
        }
        let m = sums.finish(Scope::Firm, "USD".parse().unwrap());
        assert_eq!((m.gross, m.largest_share), (Decimal::MAX, Some(Decimal::ONE)));
    }

    proptest! {
        /// Between 1/n and 1, and never below the square of the largest share.
        #[test]
        fn concentration_keeps_its_bounds(costs in prop::collection::vec(1i64..1_000_000, 1..12)) {
            let ids: Vec<_> = (0..costs.len()).map(|n| format!("v/I{n}")).collect();
            let named: Vec<_> = ids.iter().map(String::as_str).zip(costs.iter().copied()).collect();
            let m = metrics(&named);
            let (h, largest) = (m.herfindahl.unwrap(), m.largest_share.unwrap());
            let even = Decimal::ONE / Decimal::from(costs.len());
            let close = Decimal::new(1, 20);
            prop_assert!(h >= even - close && h <= Decimal::ONE + close);
            prop_assert!(h >= largest * largest - close && largest >= even - close);
        }
    }
}
