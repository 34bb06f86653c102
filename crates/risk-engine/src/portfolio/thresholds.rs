//! At which figures somebody must be told or trading must stop: a plain function for whoever raises.

use infra_types::{Decimal, InvalidValue, Scope};
use serde::{Deserialize, Serialize};

use super::metrics::ScopeMetrics;

/// Which figure of [`ScopeMetrics`] is watched. Reaching the threshold is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ThresholdMetric {
    /// Loss since midnight, in the scope's currency.
    DailyLoss,
    /// Loss since midnight as a part of the equity at midnight.
    DailyLossPart,
    /// Distance from the best.
    Drawdown,
    /// Distance from the best as a part of the best equity.
    DrawdownPart,
    /// Gross exposure.
    Gross,
    /// Net exposure, whichever way.
    Net,
    /// Gross exposure as a multiple of equity.
    Leverage,
    /// Part of gross exposure that stands in one instrument.
    LargestShare,
    /// Sum of the squared shares of the instruments.
    Herfindahl,
    /// How many positions are open.
    OpenPositions,
    /// Equity; here *falling* to the threshold is what raises.
    EquityBelow,
}

/// What to raise, ordered by weight. Named after the states of the emergency switch, which the wiring drives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Raise {
    /// Tell somebody; trading goes on.
    Notice,
    /// Nothing that adds risk.
    Alert,
    /// Stop trading; positions may be reduced.
    Halt,
    /// Stop everything but cancels.
    Shutdown,
}

/// One threshold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// Which figure.
    pub metric: ThresholdMetric,
    /// From which value on.
    pub at: Decimal,
    /// What it raises.
    pub raise: Raise,
}

/// A threshold that was reached, or one that nobody can judge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raised {
    /// Of what.
    pub scope: Scope,
    /// Which figure.
    pub metric: ThresholdMetric,
    /// The figure; none if it is not known.
    pub value: Option<Decimal>,
    /// The threshold.
    pub at: Decimal,
    /// What to raise.
    pub raise: Raise,
    /// The threshold was not seen to be reached, but the figure is unknown or incomplete.
    pub is_unknown: bool,
}

impl Threshold {
    /// Refuses a threshold that is always or never reached.
    ///
    /// # Errors
    /// `InvalidValue` for one at or below zero (equity may fall to zero), and for shares above 1.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        use ThresholdMetric::{DailyLossPart, DrawdownPart, EquityBelow, Herfindahl, LargestShare};
        let bad =
            |rule: &str| Err(InvalidValue::new("threshold", format!("{:?}: {rule}, is {}", self.metric, self.at)));
        if self.metric != EquityBelow && self.at <= Decimal::ZERO {
            return bad("must be above zero");
        }
        let is_part = matches!(self.metric, DailyLossPart | DrawdownPart | Herfindahl | LargestShare);
        if is_part && self.at > Decimal::ONE {
            return bad("is a part: at most 1");
        }
        Ok(())
    }
}

fn figure(metrics: &ScopeMetrics, metric: ThresholdMetric) -> Option<Decimal> {
    use ThresholdMetric as M;
    // Nothing held is concentrated nowhere; that is known.
    let of_held = |share: Option<Decimal>| share.or((metrics.open_positions == 0).then_some(Decimal::ZERO));
    match metric {
        M::DailyLoss => Some((-metrics.daily_pnl).max(Decimal::ZERO)),
        M::DailyLossPart => metrics.daily_loss_part(),
        M::Drawdown => metrics.drawdown,
        M::DrawdownPart => metrics.drawdown_part(),
        M::Gross => Some(metrics.gross),
        M::Net => Some(metrics.net.abs()),
        M::Leverage => metrics.leverage(),
        M::LargestShare => of_held(metrics.largest_share),
        M::Herfindahl => of_held(metrics.herfindahl),
        M::OpenPositions => Some(Decimal::from(metrics.open_positions)),
        M::EquityBelow => metrics.equity,
    }
}

/// Every threshold that is reached, in the order given. One that is not seen to be reached while its figure is unknown (no equity
/// above zero, say) or incomplete (an account could not be priced) is raised as well, but as [`Raise::Alert`] at most: nobody should
/// add risk on figures that nobody knows, and nobody should be thrown out of the market by a missing quote.
#[must_use]
pub fn raised(thresholds: &[Threshold], metrics: &ScopeMetrics) -> Vec<Raised> {
    let judge = |threshold: &Threshold| {
        let value = figure(metrics, threshold.metric);
        let reached = value.is_some_and(|value| match threshold.metric {
            ThresholdMetric::EquityBelow => value <= threshold.at,
            _ => value >= threshold.at,
        });
        let is_unknown = !reached && (value.is_none() || !metrics.unpriced.is_empty());
        let raise = if reached { threshold.raise } else { threshold.raise.min(Raise::Alert) };
        let Threshold { metric, at, .. } = *threshold;
        let scope = metrics.scope.clone();
        (reached || is_unknown).then_some(Raised { scope, metric, value, at, raise, is_unknown })
    };
    thresholds.iter().filter_map(judge).collect()
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;
    use crate::{account::AccountState, portfolio::metrics::Sums};

    fn metrics(pnl: i64, unpriced: bool) -> ScopeMetrics {
        let day = date(2025, 1, 1);
        let state = AccountState::new("a".parse().unwrap(), "USD".parse().unwrap(), Decimal::from(1_000), day);
        let mut sums = Sums::default();
        sums.add_account(&state, Decimal::from(pnl), Decimal::ONE);
        if unpriced {
            sums.without(&"b".parse().unwrap());
        }
        sums.finish(Scope::Firm, "USD".parse().unwrap())
    }

    fn at(metric: ThresholdMetric, at: &str, raise: Raise) -> Threshold {
        Threshold { metric, at: at.parse().unwrap(), raise }
    }

    #[test]
    fn reaching_is_enough_and_each_level_raises_its_own() {
        let levels = [
            at(ThresholdMetric::DailyLossPart, "0.03", Raise::Alert),
            at(ThresholdMetric::DailyLossPart, "0.05", Raise::Halt),
            at(ThresholdMetric::DrawdownPart, "0.2", Raise::Shutdown),
            at(ThresholdMetric::EquityBelow, "950", Raise::Notice),
        ];
        let raises = |pnl| raised(&levels, &metrics(pnl, false)).iter().map(|r| r.raise).collect::<Vec<_>>();
        assert_eq!(raises(-29), []);
        assert_eq!(raises(-30), [Raise::Alert]);
        assert_eq!(raises(-50), [Raise::Alert, Raise::Halt, Raise::Notice]);
        assert_eq!(raises(-200).last(), Some(&Raise::Notice));
        assert_eq!(raises(-200).iter().max(), Some(&Raise::Shutdown));
        assert_eq!(raises(500), [], "a profit is no loss");
    }

    #[test]
    fn what_nobody_knows_alerts_and_halts_nobody() {
        let levels =
            [at(ThresholdMetric::DailyLossPart, "0.05", Raise::Halt), at(ThresholdMetric::Gross, "1", Raise::Notice)];
        let incomplete = raised(&levels, &metrics(0, true));
        let found: Vec<_> = incomplete.iter().map(|r| (r.raise, r.is_unknown)).collect();
        assert_eq!(found, [(Raise::Alert, true), (Raise::Notice, true)]);
        let reached = raised(&levels[..1], &metrics(-50, true));
        assert_eq!((reached[0].raise, reached[0].is_unknown), (Raise::Halt, false));
        let broke = raised(&[at(ThresholdMetric::Leverage, "2", Raise::Halt)], &metrics(-1_000, false));
        assert_eq!((broke[0].value, broke[0].raise), (None, Raise::Alert));
        assert_eq!(raised(&[at(ThresholdMetric::LargestShare, "0.5", Raise::Halt)], &metrics(0, false)), []);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(at(ThresholdMetric::DailyLossPart, "1.01", Raise::Halt).validate().is_err());
        assert!(at(ThresholdMetric::Gross, "0", Raise::Halt).validate().is_err());
        assert!(at(ThresholdMetric::EquityBelow, "0", Raise::Halt).validate().is_ok());
        assert!(at(ThresholdMetric::Leverage, "3", Raise::Halt).validate().is_ok());
    }

    proptest! {
        /// A deeper loss never raises less.
        #[test]
        fn a_deeper_loss_never_raises_less(a in 0i64..2_000, b in 0i64..2_000, levels in prop::collection::vec((1i64..100, 0u8..4), 0..6)) {
            let raise = |n: u8| [Raise::Notice, Raise::Alert, Raise::Halt, Raise::Shutdown][n as usize];
            let levels: Vec<_> = levels.iter().map(|(at, n)| Threshold {
                metric: ThresholdMetric::DailyLoss, at: Decimal::from(at * 10), raise: raise(*n),
            }).collect();
            let worst = |loss: i64| raised(&levels, &metrics(-loss, false)).iter().map(|r| r.raise).max();
            prop_assert!(worst(a.min(b)) <= worst(a.max(b)));
        }
    }
}
