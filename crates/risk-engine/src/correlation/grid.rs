//! Prices on a grid of steps, so that returns of different instruments cover the same stretches of time.

use std::collections::{BTreeMap, VecDeque};

use infra_types::{Decimal, InstrumentId, InvalidValue, Timestamp};

use super::CorrelationConfig;

/// The last price of each step, the oldest first; a step without a price is not there.
#[derive(Debug, Default)]
struct Series(VecDeque<(i64, Decimal)>);

/// Keeps the last price of each instrument in each step, in memory that is bounded by window × instruments.
#[derive(Debug)]
pub struct CorrelationTracker {
    pub(super) config: CorrelationConfig,
    series: BTreeMap<InstrumentId, Series>,
    /// The newest step that any price was in: it is not over yet.
    newest: i64,
    refused: u64,
}

impl CorrelationTracker {
    /// A tracker that has seen nothing.
    ///
    /// # Errors
    /// `InvalidValue` with every mistake of the settings.
    pub fn new(config: CorrelationConfig) -> Result<Self, InvalidValue> {
        Ok(Self { config: config.checked()?, series: BTreeMap::new(), newest: i64::MIN, refused: 0 })
    }

    /// Takes the middle of the market. Answers whether it was taken: prices that are not above zero, that are older than the
    /// instrument's last step, or of an instrument too many are refused and counted.
    pub fn take(&mut self, instrument: &InstrumentId, mid: Decimal, at: Timestamp) -> bool {
        let step = self.step_of(at);
        let room = self.series.len() < self.config.instruments_max || self.series.contains_key(instrument);
        if mid <= Decimal::ZERO || !room {
            self.refused = self.refused.saturating_add(1);
            return false;
        }
        let series = &mut self.series.entry(instrument.clone()).or_default().0;
        match series.back_mut() {
            Some((last, price)) if *last == step => *price = mid,
            Some((last, _)) if *last > step => {
                self.refused = self.refused.saturating_add(1);
                return false;
            }
            _ => series.push_back((step, mid)),
        }
        self.newest = self.newest.max(step);
        // One return needs two prices, and the step that is not over yet is one more.
        while series.len() > self.config.window + 2 {
            series.pop_front();
        }
        true
    }

    /// How many prices were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn step_of(&self, at: Timestamp) -> i64 {
        let step = i64::try_from(self.config.step.as_nanos()).unwrap_or(i64::MAX).max(1);
        at.as_nanos().div_euclid(step)
    }

    /// The instrument's returns by step, within the window of steps that are over. A step without a price has none, nor has the
    /// one after it: nothing is carried forward, since a price that stands still would look like one that moves alone.
    pub(super) fn returns(&self, instrument: &InstrumentId) -> BTreeMap<i64, f64> {
        let Some(series) = self.series.get(instrument) else { return BTreeMap::new() };
        let first = self.newest.saturating_sub(i64::try_from(self.config.window).unwrap_or(i64::MAX));
        let pairs = series.0.iter().zip(series.0.iter().skip(1));
        let of_window = pairs.filter(|((a, _), (b, _))| *b == a + 1 && (first..self.newest).contains(b));
        // Simple returns: a logarithm's last digits differ between machines.
        let simple = |from: Decimal, to: Decimal| f64::try_from(to.checked_sub(from)?.checked_div(from)?).ok();
        of_window.filter_map(|((_, from), (step, to))| Some((*step, simple(*from, *to)?))).collect()
    }
}
