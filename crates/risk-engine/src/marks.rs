//! What is observed of a P&L between fills, and what of it survives a record that another process wrote.

use infra_types::Decimal;
use jiff::civil::Date;

use crate::{account::AccountState, strategy::StrategyState};

/// The figures of a record that quotes move, not only fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) day: Date,
    pub(crate) day_start_pnl: Decimal,
    pub(crate) last_pnl: Decimal,
    pub(crate) high_water_mark: Decimal,
    pub(crate) max_drawdown: Decimal,
}

impl Marks {
    /// These, of a newer record, with what was `observed` here and not written yet: a best and a worst that were seen stay seen. Of
    /// the same day the record's beginning stands, so that all processes reckon from one; a day that the record has not reached yet
    /// begins with what was known here before it.
    fn with(self, observed: Self) -> Self {
        let later = if observed.day > self.day { observed } else { self };
        Self {
            day: later.day,
            day_start_pnl: later.day_start_pnl,
            last_pnl: self.last_pnl,
            high_water_mark: self.high_water_mark.max(observed.high_water_mark),
            max_drawdown: self.max_drawdown.max(observed.max_drawdown),
        }
    }
}

/// A record with such figures.
pub(crate) trait Marked {
    fn marks(&self) -> Marks;

    fn set_marks(&mut self, marks: Marks);

    /// Keeps what was observed on an older version of the record.
    fn keep(&mut self, observed: &Self) {
        self.set_marks(self.marks().with(observed.marks()));
    }
}

macro_rules! marked {
    ($record:ty) => {
        impl Marked for $record {
            fn marks(&self) -> Marks {
                Marks {
                    day: self.day,
                    day_start_pnl: self.day_start_pnl,
                    last_pnl: self.last_pnl,
                    high_water_mark: self.high_water_mark,
                    max_drawdown: self.max_drawdown,
                }
            }

            fn set_marks(&mut self, marks: Marks) {
                let Marks { day, day_start_pnl, last_pnl, high_water_mark, max_drawdown } = marks;
                (self.day, self.day_start_pnl, self.last_pnl) = (day, day_start_pnl, last_pnl);
                (self.high_water_mark, self.max_drawdown) = (high_water_mark, max_drawdown);
            }
        }
    };
}

marked!(AccountState);
marked!(StrategyState);

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    fn marks(day: i8, figures: [i64; 4]) -> Marks {
        let [day_start_pnl, last_pnl, high_water_mark, max_drawdown] = figures.map(Decimal::from);
        Marks { day: date(2025, 1, day), day_start_pnl, last_pnl, high_water_mark, max_drawdown }
    }

    #[test]
    fn the_best_and_the_worst_stay_and_the_later_day_wins() {
        let newer = marks(2, [10, 20, 50, 5]);
        assert_eq!(newer.with(marks(2, [99, 98, 40, 7])), marks(2, [10, 20, 50, 7]), "the same day");
        assert_eq!(newer.with(marks(3, [99, 98, 70, 4])), marks(3, [99, 20, 70, 5]), "a day that began here only");
        assert_eq!(newer.with(marks(1, [99, 98, 70, 4])), marks(2, [10, 20, 70, 5]), "a day that is over");
    }
}
