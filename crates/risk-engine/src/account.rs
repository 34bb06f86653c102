//! What is known of an account for good.

use infra_types::{AccountId, Currency, Decimal};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

/// The durable record of an account. Every amount is in its currency; P&L figures never hold deposits, so that paying
/// in or out neither hides nor makes a loss.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountState {
    /// Which account.
    pub id: AccountId,
    /// What it is kept in.
    pub currency: Currency,
    /// What was paid in, less what was paid out.
    pub deposits: Decimal,
    /// Profit and loss of all closed trades, before fees.
    pub realised: Decimal,
    /// Fees that could be converted to the account's currency.
    pub fees: Decimal,
    /// How many fees could not be converted and stand in no figure.
    pub fees_unconverted: u64,
    /// The trading day of the figures, by the configured time zone.
    pub day: Date,
    /// P&L when the day began.
    pub day_start_pnl: Decimal,
    /// P&L (realised − fees + unrealised) when it was last reckoned.
    pub last_pnl: Decimal,
    /// The best P&L ever seen; at least zero.
    pub high_water_mark: Decimal,
    /// The furthest that P&L ever was below the mark of its time.
    pub max_drawdown: Decimal,
    /// Round trips (flat to flat) that ended above zero, net of fees.
    pub wins: u64,
    /// Round trips that ended below zero, net of fees.
    pub losses: u64,
    /// Sum of what the wins brought.
    pub gross_win: Decimal,
    /// Sum of what the losses cost; above zero.
    pub gross_loss: Decimal,
}

impl AccountState {
    /// A new account on its first day.
    #[must_use]
    pub fn new(id: AccountId, currency: Currency, deposits: Decimal, day: Date) -> Self {
        Self {
            id,
            currency,
            deposits,
            day,
            realised: Decimal::ZERO,
            fees: Decimal::ZERO,
            fees_unconverted: 0,
            day_start_pnl: Decimal::ZERO,
            last_pnl: Decimal::ZERO,
            high_water_mark: Decimal::ZERO,
            max_drawdown: Decimal::ZERO,
            wins: 0,
            losses: 0,
            gross_win: Decimal::ZERO,
            gross_loss: Decimal::ZERO,
        }
    }

    /// P&L for this unrealised part.
    #[must_use]
    pub fn pnl(&self, unrealised: Decimal) -> Decimal {
        self.realised.saturating_sub(self.fees).saturating_add(unrealised)
    }

    /// Deposits and P&L when the day began, as if today's deposits had been there.
    #[must_use]
    pub fn day_start_equity(&self) -> Decimal {
        self.deposits.saturating_add(self.day_start_pnl)
    }

    /// Deposits and the best P&L.
    #[must_use]
    pub fn peak_equity(&self) -> Decimal {
        self.deposits.saturating_add(self.high_water_mark)
    }

    /// What was lost since the day began; zero in profit.
    #[must_use]
    pub fn daily_loss(&self, pnl: Decimal) -> Decimal {
        self.day_start_pnl.saturating_sub(pnl).max(Decimal::ZERO)
    }

    /// How far `pnl` is below the best; zero at the best.
    #[must_use]
    pub fn drawdown(&self, pnl: Decimal) -> Decimal {
        self.high_water_mark.saturating_sub(pnl).max(Decimal::ZERO)
    }

    /// Share of round trips that won; none before the first.
    #[must_use]
    pub fn win_rate(&self) -> Option<Decimal> {
        Decimal::from(self.wins).checked_div(Decimal::from(self.wins + self.losses))
    }

    /// What wins brought for each unit that losses cost; none before the first loss.
    #[must_use]
    pub fn profit_factor(&self) -> Option<Decimal> {
        self.gross_win.checked_div(self.gross_loss)
    }

    /// Takes note of the P&L on `day`. A later day starts with the P&L that was known before it; an earlier one (the
    /// clock stepped back) changes nothing. Without a P&L only the day moves.
    pub fn observe(&mut self, day: Date, pnl: Option<Decimal>) {
        if day > self.day {
            self.day = day;
            self.day_start_pnl = self.last_pnl;
        }
        if let Some(pnl) = pnl {
            self.last_pnl = pnl;
            self.high_water_mark = self.high_water_mark.max(pnl);
            self.max_drawdown = self.max_drawdown.max(self.drawdown(pnl));
        }
    }

    /// Adds a fill's figures; none beyond the largest decimal.
    #[must_use]
    pub fn booked(&self, realised: Decimal, fee: Option<Decimal>, trip_closed: Option<Decimal>) -> Option<Self> {
        let mut next = self.clone();
        next.realised = next.realised.checked_add(realised)?.normalize();
        next.fees = next.fees.checked_add(fee.unwrap_or_default())?.normalize();
        next.fees_unconverted += u64::from(fee.is_none());
        match trip_closed {
            Some(result) if result > Decimal::ZERO => {
                next.wins += 1;
                next.gross_win = next.gross_win.checked_add(result)?.normalize();
            }
            Some(result) if result < Decimal::ZERO => {
                next.losses += 1;
                next.gross_loss = next.gross_loss.checked_sub(result)?.normalize();
            }
            _ => {}
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    fn account() -> AccountState {
        AccountState::new("a".parse().unwrap(), "USD".parse().unwrap(), Decimal::from(1_000), date(2025, 1, 1))
    }

    #[test]
    fn the_mark_only_rises_and_the_drawdown_only_deepens() {
        let mut a = account();
        for pnl in [50, 120, 20, 90] {
            a.observe(a.day, Some(Decimal::from(pnl)));
        }
        assert_eq!((a.high_water_mark, a.max_drawdown), (Decimal::from(120), Decimal::from(100)));
        assert_eq!(a.drawdown(a.last_pnl), Decimal::from(30));
        assert_eq!(a.peak_equity(), Decimal::from(1_120));
    }

    #[test]
    fn a_day_starts_with_what_was_known_before_it() {
        let mut a = account();
        a.observe(date(2025, 1, 1), Some(Decimal::from(40)));
        a.observe(date(2025, 1, 2), Some(Decimal::from(-10)));
        assert_eq!((a.day_start_pnl, a.daily_loss(a.last_pnl)), (Decimal::from(40), Decimal::from(50)));
        a.observe(date(2025, 1, 1), None);
        assert_eq!(a.day, date(2025, 1, 2), "a clock that steps back opens no day again");
        assert_eq!(a.day_start_equity(), Decimal::from(1_040));
    }

    #[test]
    fn round_trips_give_win_rate_and_profit_factor() {
        let mut a = account();
        assert_eq!((a.win_rate(), a.profit_factor()), (None, None));
        for result in [30, -10, 0, 10] {
            a = a.booked(Decimal::ZERO, None, Some(Decimal::from(result))).unwrap();
        }
        assert_eq!((a.wins, a.losses, a.fees_unconverted), (2, 1, 4));
        assert_eq!(a.profit_factor(), Some(Decimal::from(4)));
        assert_eq!(a.win_rate().unwrap().round_dp(3), Decimal::new(667, 3));
    }
}
