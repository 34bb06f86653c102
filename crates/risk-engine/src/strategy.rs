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
}

impl StrategyState {
    /// A strategy that never traded.
    #[must_use]
    pub fn new(id: StrategyId, day: Date) -> Self {
        let zero = Decimal::ZERO;
        Self { id, day, realised: zero, fees: zero, day_start_pnl: zero, last_pnl: zero }
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

    /// Takes note of the P&L on `day`, as [`AccountState::observe`](crate::AccountState::observe) does.
    pub fn observe(&mut self, day: Date, pnl: Option<Decimal>) {
        if day > self.day {
            self.day = day;
            self.day_start_pnl = self.last_pnl;
        }
        if let Some(pnl) = pnl {
            self.last_pnl = pnl;
        }
    }

    /// Adds a fill's figures; none beyond the largest decimal.
    #[must_use]
    pub fn booked(&self, realised: Decimal, fee: Decimal) -> Option<Self> {
        let mut next = self.clone();
        next.realised = next.realised.checked_add(realised)?.normalize();
        next.fees = next.fees.checked_add(fee)?.normalize();
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
        let s = s.booked(Decimal::from(7), Decimal::ONE).unwrap();
        assert_eq!(s.pnl(Decimal::TWO), Decimal::from(8));
    }
}
