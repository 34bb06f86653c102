//! What is known of a strategy for good: its own profit and loss, over all accounts it trades in.

use infra_types::{Decimal, StrategyId};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

/// The durable record of a strategy. Every amount is in the firm's currency, converted when each fill came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrategyState {
    /// Which strategy.
    pub id: StrategyId,
    /// Profit and loss of all that was closed, before fees.
    pub realised: Decimal,
    /// Fees that could be converted.
    pub fees: Decimal,
    /// The trading day of the figures, by the configured time zone.
    pub day: Date,
    /// P&L when the day began.
    pub day_start_pnl: Decimal,
    /// P&L (realised − fees + unrealised) when it was last reckoned.
    pub last_pnl: Decimal,
    /// The best P&L ever seen; at least zero.
    #[serde(default)]
    pub high_water_mark: Decimal,
    /// The furthest that P&L ever was below the mark of its time.
    #[serde(default)]
    pub max_drawdown: Decimal,
    /// Round trips of its parts of positions (flat to flat) that ended above zero, net of fees.
    #[serde(default)]
    pub wins: u64,
    /// Round trips that ended below zero, net of fees.
    #[serde(default)]
    pub losses: u64,
    /// Sum of what the wins brought.
    #[serde(default)]
    pub gross_win: Decimal,
    /// Sum of what the losses cost; above zero.
    #[serde(default)]
    pub gross_loss: Decimal,
}

impl StrategyState {
    /// A strategy that never traded.
    #[must_use]
    pub fn new(id: StrategyId, day: Date) -> Self {
        let zero = Decimal::ZERO;
        Self {
            id,
            day,
            realised: zero,
            fees: zero,
            day_start_pnl: zero,
            last_pnl: zero,
            high_water_mark: zero,
            max_drawdown: zero,
            wins: 0,
            losses: 0,
            gross_win: zero,
            gross_loss: zero,
        }
    }

    /// P&L for this unrealised part.
    #[must_use]
    pub fn pnl(&self, unrealised: Decimal) -> Decimal {
        self.realised.saturating_sub(self.fees).saturating_add(unrealised)
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

    /// Takes note of the P&L on `day`, as [`AccountState::observe`](crate::AccountState::observe) does.
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
    pub fn booked(&self, realised: Decimal, fee: Decimal, trip_closed: Option<Decimal>) -> Option<Self> {
        let mut next = self.clone();
        next.realised = next.realised.checked_add(realised)?.normalize();
        next.fees = next.fees.checked_add(fee)?.normalize();
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

    #[test]
    fn a_day_starts_with_what_was_known_before_it() {
        let mut s = StrategyState::new("s".parse().unwrap(), date(2025, 1, 1));
        s.observe(date(2025, 1, 1), Some(Decimal::from(40)));
        s.observe(date(2025, 1, 2), Some(Decimal::from(-10)));
        assert_eq!((s.day_start_pnl, s.daily_loss(s.last_pnl)), (Decimal::from(40), Decimal::from(50)));
        assert_eq!(s.daily_loss(Decimal::from(90)), Decimal::ZERO);
        let s = s.booked(Decimal::from(7), Decimal::ONE, None).unwrap();
        assert_eq!(s.pnl(Decimal::TWO), Decimal::from(8));
    }

    #[test]
    fn trips_and_the_mark_are_kept_and_records_from_before_are_read() {
        let mut s = StrategyState::new("s".parse().unwrap(), date(2025, 1, 1));
        for trip in [30, -10, 0, 10] {
            s = s.booked(Decimal::ZERO, Decimal::ZERO, Some(Decimal::from(trip))).unwrap();
        }
        assert_eq!((s.wins, s.losses, s.gross_win, s.gross_loss), (2, 1, Decimal::from(40), Decimal::from(10)));
        for pnl in [50, 120, 20, 90] {
            s.observe(s.day, Some(Decimal::from(pnl)));
        }
        assert_eq!((s.drawdown(s.last_pnl), s.max_drawdown), (Decimal::from(30), Decimal::from(100)));
        let before = r#"{"id":"s","realised":"1","fees":"0","day":"2025-01-01","day_start_pnl":"0","last_pnl":"1"}"#;
        assert_eq!(serde_json::from_str::<StrategyState>(before).unwrap().wins, 0);
    }
}
