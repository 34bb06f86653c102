//! Figures over all accounts.

mod metrics;
mod of_engine;
mod thresholds;

use infra_types::{AccountId, Currency, Decimal};
use serde::{Deserialize, Serialize};

use crate::book::{Book, Now};

pub use metrics::ScopeMetrics;
pub use thresholds::{Raise, Raised, Threshold, ThresholdMetric, raised};

/// Figures of an account that is traded elsewhere, as somebody reports them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountMetrics {
    /// What the amounts are in.
    pub currency: Currency,
    /// Everything it is worth.
    pub equity: Decimal,
    /// Gross value of its positions.
    pub exposure: Decimal,
    /// Profit or loss since midnight.
    pub daily_pnl: Decimal,
    /// How many positions it has.
    pub open_positions: u32,
}

/// Sums over all accounts that can be priced, in one currency.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PortfolioMetrics {
    /// What the amounts are in; none if neither the limits nor an account name a currency.
    pub currency: Option<Currency>,
    /// How many accounts are in the sums.
    pub accounts: usize,
    /// Accounts that are not in the sums for want of a price or a rate.
    pub unpriced: Vec<AccountId>,
    /// Deposits and P&L.
    pub equity: Decimal,
    /// Profit and loss of closed trades, before fees.
    pub realised: Decimal,
    /// Profit and loss of what is held, at the middle of the market.
    pub unrealised: Decimal,
    /// Fees that could be converted.
    pub fees: Decimal,
    /// Profit or loss since midnight.
    pub daily_pnl: Decimal,
    /// Sum of the accounts' distances from their best.
    pub drawdown: Decimal,
    /// Gross value of positions, at cost.
    pub exposure: Decimal,
    /// Positions that are not flat.
    pub open_positions: usize,
    /// Round trips that ended above zero.
    pub wins: u64,
    /// Round trips that ended below zero.
    pub losses: u64,
    /// Share of round trips that won.
    pub win_rate: Option<Decimal>,
    /// What wins brought for each unit that losses cost.
    pub profit_factor: Option<Decimal>,
}

pub(crate) fn reckon(book: &Book, firm: Option<&Currency>, now: Now) -> PortfolioMetrics {
    let own = book.accounts.values().next().map(|a| &a.value.currency);
    let reported = book.reported.values().next().map(|m| &m.currency);
    let Some(currency) = firm.or(own).or(reported) else {
        return PortfolioMetrics::default();
    };
    let mut sum = PortfolioMetrics { currency: Some(currency.clone()), ..PortfolioMetrics::default() };
    let (mut gross_win, mut gross_loss) = (Decimal::ZERO, Decimal::ZERO);
    let add = |to: &mut Decimal, amount: Decimal, rate: Decimal| {
        *to = to.saturating_add(amount.saturating_mul(rate));
    };
    for (id, account) in &book.accounts {
        let a = &account.value;
        let priced = book.unrealised(a, None, now, None).ok().zip(book.rates.get(&a.currency, currency));
        let Some((unrealised, rate)) = priced else {
            sum.unpriced.push(id.clone());
            continue;
        };
        let pnl = a.pnl(unrealised);
        sum.accounts += 1;
        add(&mut sum.equity, a.deposits.saturating_add(pnl), rate);
        add(&mut sum.realised, a.realised, rate);
        add(&mut sum.unrealised, unrealised, rate);
        add(&mut sum.fees, a.fees, rate);
        add(&mut sum.daily_pnl, pnl.saturating_sub(a.day_start_pnl), rate);
        add(&mut sum.drawdown, a.drawdown(pnl), rate);
        add(&mut gross_win, a.gross_win, rate);
        add(&mut gross_loss, a.gross_loss, rate);
        for position in book.positions.get(id).into_iter().flat_map(|of| of.values()).filter(|p| !p.value.is_flat()) {
            add(&mut sum.exposure, position.value.cost.abs(), rate);
            sum.open_positions += 1;
        }
        sum.wins += a.wins;
        sum.losses += a.losses;
    }
    for (id, metrics) in book.reported.iter().filter(|(id, _)| !book.accounts.contains_key(*id)) {
        let Some(rate) = book.rates.get(&metrics.currency, currency) else {
            sum.unpriced.push(id.clone());
            continue;
        };
        sum.accounts += 1;
        add(&mut sum.equity, metrics.equity, rate);
        add(&mut sum.exposure, metrics.exposure, rate);
        add(&mut sum.daily_pnl, metrics.daily_pnl, rate);
        sum.open_positions += metrics.open_positions as usize;
    }
    sum.win_rate = Decimal::from(sum.wins).checked_div(Decimal::from(sum.wins + sum.losses));
    sum.profit_factor = gross_win.checked_div(gross_loss);
    sum
}
