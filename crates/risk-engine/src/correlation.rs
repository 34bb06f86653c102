//! How instruments move together, and what exposure is worth once that is taken into account.
//!
//! Ten longs in ten coins that move as one are one position; a long against a short of the same thing is nearly none. The
//! adjusted exposure is `sqrt(w' C w)` over signed exposures `w` and the correlation `C` of returns (Markowitz 1952, with the
//! exposures themselves in place of exposure × volatility, so that it compares with limits on exposure). It lies between zero and
//! gross exposure. Whatever is not known well enough counts in full: the adjusted exposure then is the sum of absolutes.
//!
//! **Money never passes through a binary float.** Prices and exposures come in and go out as decimals; returns and weights, which are
//! ratios, are `f64`, since they are statistics. Only `+ − × ÷ √` are used, which IEEE 754 defines to the last bit, so that the
//! same prices give the same figures on every machine.

mod estimate;
mod exposure;
mod grid;

use std::time::Duration;

use infra_types::InvalidValue;
use serde::{Deserialize, Serialize};

pub use estimate::{Correlation, NotEnoughData};
pub use exposure::{AdjustedExposure, ExposureBasis, GroupExposure};
pub use grid::CorrelationTracker;

/// How past returns are weighed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weighting {
    /// All returns of the window alike, around their mean.
    Equal,
    /// A return that is one step older weighs `lambda` times as much, around zero (J.P. Morgan/Reuters, *RiskMetrics Technical
    /// Document*, 1996, §5.2: λ = 0.94 for days).
    Ewma {
        /// Above 0, below 1.
        lambda: f64,
    },
}

/// What the sample's correlation is drawn towards: samples find correlations where there are none, and the fewer returns there
/// are for each instrument, the more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShrinkTarget {
    /// No correlation at all (Ledoit and Wolf 2004, *A well-conditioned estimator for large-dimensional covariance matrices*,
    /// Journal of Multivariate Analysis 88; for correlations Schäfer and Strimmer 2005, *A shrinkage approach to large-scale
    /// covariance matrix estimation*, Statistical Applications in Genetics and Molecular Biology 4/32). Beware: it makes a
    /// portfolio of longs look safer.
    Identity,
    /// The mean of all correlations between any two (Ledoit and Wolf 2004, *Honey, I shrunk the sample covariance matrix*, Journal
    /// of Portfolio Management 30/4).
    ConstantCorrelation,
}

/// How far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intensity {
    /// So far: 0 is the sample, 1 the target.
    Fixed(f64),
    /// As far as the papers find best for the sample at hand, on returns that are scaled to a variance of one. With
    /// [`Weighting::Ewma`] the number of returns is the effective one, `1 / Σ weight²`, which the papers do not speak of.
    Estimated,
}

/// Settings of a [`CorrelationTracker`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorrelationConfig {
    /// Length of a step: the last price of each step makes its return.
    pub step: Duration,
    /// How many steps are kept and looked at: 2 to 4,096.
    pub window: usize,
    /// With fewer returns that all instruments in question have, nothing is estimated: at least 2.
    pub samples_min: usize,
    /// How past returns are weighed.
    pub weighting: Weighting,
    /// What the correlation is drawn towards.
    pub target: ShrinkTarget,
    /// How far.
    pub intensity: Intensity,
    /// How many instruments are kept at most; prices of further ones are refused and counted.
    pub instruments_max: usize,
}

impl Default for CorrelationConfig {
    /// Minutes, 240 of them, 60 needed, weighed alike, drawn towards the mean correlation as far as the sample asks for; 200
    /// instruments.
    fn default() -> Self {
        Self {
            step: Duration::from_secs(60),
            window: 240,
            samples_min: 60,
            weighting: Weighting::Equal,
            target: ShrinkTarget::ConstantCorrelation,
            intensity: Intensity::Estimated,
            instruments_max: 200,
        }
    }
}

impl CorrelationConfig {
    /// Finds every mistake.
    ///
    /// # Errors
    /// One line for each.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let rules = [
            (self.step.as_millis() > 0, "step must be at least a millisecond"),
            ((2..=4_096).contains(&self.window), "window must be 2 to 4096 steps"),
            ((2..=self.window).contains(&self.samples_min), "samples_min must be 2 to the window"),
            ((1..=1_000).contains(&self.instruments_max), "instruments_max must be 1 to 1000"),
            (
                !matches!(self.weighting, Weighting::Ewma { lambda } if !(lambda > 0.0 && lambda < 1.0)),
                "lambda must be above 0 and below 1",
            ),
            (
                !matches!(self.intensity, Intensity::Fixed(part) if !(0.0..=1.0).contains(&part)),
                "intensity must be 0 to 1",
            ),
        ];
        let mistakes: Vec<_> = rules.into_iter().filter(|(ok, _)| !ok).map(|(_, rule)| rule.to_owned()).collect();
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    fn checked(self) -> Result<Self, InvalidValue> {
        self.validate().map_err(|mistakes| InvalidValue::new("correlation config", mistakes.join("; ")))?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
