//! From returns to a correlation that is positive semidefinite whatever came in.

use std::collections::BTreeMap;

use infra_types::InstrumentId;

use super::{CorrelationConfig, CorrelationTracker, Intensity, ShrinkTarget, Weighting};

/// Correlations of instruments, all estimated from the same steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Correlation {
    ids: Vec<InstrumentId>,
    /// Row by row.
    values: Vec<f64>,
    samples: usize,
    shrinkage: f64,
}

/// Too little is known to say how instruments move together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{samples} returns that all instruments have, {needed} are needed: wait, or leave out {unknown:?}")]
pub struct NotEnoughData {
    /// How many steps there are in which all of them have a return.
    pub samples: usize,
    /// How many are needed.
    pub needed: usize,
    /// Those that have too few returns of their own, or never moved.
    pub unknown: Vec<InstrumentId>,
}

impl Correlation {
    /// The instruments, in the order of rows and columns.
    #[must_use]
    pub fn ids(&self) -> &[InstrumentId] {
        &self.ids
    }

    /// The correlation of two of them, −1 to 1; none for one that is not in it.
    #[must_use]
    pub fn between(&self, a: &InstrumentId, b: &InstrumentId) -> Option<f64> {
        let at = |id| self.ids.iter().position(|of| of == id);
        Some(self.at(at(a)?, at(b)?))
    }

    pub(super) fn at(&self, row: usize, column: usize) -> f64 {
        self.values[row * self.ids.len() + column]
    }

    /// From how many steps.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// How far it was drawn towards the target: 0 is the sample, 1 the target.
    #[must_use]
    pub fn shrinkage(&self) -> f64 {
        self.shrinkage
    }

    /// `sqrt(x' C x)` for one weight an instrument, in their order.
    pub(super) fn norm(&self, weights: &[f64]) -> f64 {
        let row = |i: usize| weights.iter().enumerate().map(|(j, w)| self.at(i, j) * w).sum::<f64>();
        let square = weights.iter().enumerate().map(|(i, w)| w * row(i)).sum::<f64>();
        square.max(0.0).sqrt()
    }
}

impl CorrelationTracker {
    /// How `ids` move together, from the steps in which all of them have a return.
    ///
    /// # Errors
    /// [`NotEnoughData`], with those that are to blame on their own.
    pub fn correlation(&self, ids: &[InstrumentId]) -> Result<Correlation, NotEnoughData> {
        let needed = self.config.samples_min;
        let returns: Vec<_> = ids.iter().map(|id| self.returns(id)).collect();
        let too_few = ids.iter().zip(&returns).filter(|(_, of)| of.len() < needed);
        let unknown: Vec<_> = too_few.map(|(id, _)| id.clone()).collect();
        let rows = common(&returns);
        if !unknown.is_empty() || rows.len() < needed {
            return Err(NotEnoughData { samples: rows.len(), needed, unknown });
        }
        estimate(ids, &rows, &self.config)
    }
}

/// The steps that all have, with a return of each.
fn common(returns: &[BTreeMap<i64, f64>]) -> Vec<(i64, Vec<f64>)> {
    let Some(first) = returns.first() else { return Vec::new() };
    let row = |step: &i64| returns.iter().map(|of| of.get(step).copied()).collect::<Option<Vec<_>>>();
    first.keys().filter_map(|step| Some((*step, row(step)?))).collect()
}

/// Weights of the rows, summing to one.
fn weights(rows: &[(i64, Vec<f64>)], weighting: Weighting) -> Vec<f64> {
    let raw: Vec<f64> = match weighting {
        Weighting::Equal => vec![1.0; rows.len()],
        Weighting::Ewma { lambda } => {
            let (mut weight, mut newer) = (1.0, rows.last().map_or(0, |(step, _)| *step));
            let mut weighed = Vec::with_capacity(rows.len());
            for (step, _) in rows.iter().rev() {
                // Multiplied step by step: `powf` differs between machines. At most as many steps as the window has.
                (*step..newer).for_each(|_| weight *= lambda);
                newer = *step;
                weighed.push(weight);
            }
            weighed.reverse();
            weighed
        }
    };
    let sum: f64 = raw.iter().sum();
    raw.into_iter().map(|weight| weight / sum).collect()
}

/// Mean of `f` over the rows.
fn mean(weights: &[f64], rows: &[Vec<f64>], f: impl Fn(&[f64]) -> f64) -> f64 {
    weights.iter().zip(rows).map(|(weight, row)| weight * f(row)).sum()
}

fn estimate(
    ids: &[InstrumentId],
    rows: &[(i64, Vec<f64>)],
    config: &CorrelationConfig,
) -> Result<Correlation, NotEnoughData> {
    let (n, p) = (ids.len(), weights(rows, config.weighting));
    let mut rows: Vec<Vec<f64>> = rows.iter().map(|(_, row)| row.clone()).collect();
    let mut unknown = Vec::new();
    for i in 0..n {
        let center = if config.weighting == Weighting::Equal { mean(&p, &rows, |row| row[i]) } else { 0.0 };
        let deviation = mean(&p, &rows, |row| (row[i] - center) * (row[i] - center)).sqrt();
        // What never moved moves with nothing and with everything; rounding must not make a movement of it.
        if !deviation.is_finite() || deviation <= 1e-12 {
            unknown.push(ids[i].clone());
            continue;
        }
        rows.iter_mut().for_each(|row| row[i] = (row[i] - center) / deviation);
    }
    if !unknown.is_empty() {
        return Err(NotEnoughData { samples: rows.len(), needed: config.samples_min, unknown });
    }
    let mut sample = vec![1.0; n * n];
    for (i, j) in pairs(n) {
        let r = mean(&p, &rows, |z| z[i] * z[j]).clamp(-1.0, 1.0);
        (sample[i * n + j], sample[j * n + i]) = (r, r);
    }
    let target = match config.target {
        ShrinkTarget::Identity => 0.0,
        ShrinkTarget::ConstantCorrelation if n > 1 => {
            pairs(n).map(|(i, j)| sample[i * n + j]).sum::<f64>() / pairs(n).count() as f64
        }
        ShrinkTarget::ConstantCorrelation => 0.0,
    };
    let shrinkage = match config.intensity {
        Intensity::Fixed(part) => part,
        Intensity::Estimated => intensity(&p, &rows, &sample, target),
    };
    for (i, j) in pairs(n) {
        let drawn = (1.0 - shrinkage) * sample[i * n + j] + shrinkage * target;
        (sample[i * n + j], sample[j * n + i]) = (drawn, drawn);
    }
    Ok(Correlation { ids: ids.to_vec(), values: sample, samples: rows.len(), shrinkage })
}

fn pairs(n: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).flat_map(move |i| (i + 1..n).map(move |j| (i, j)))
}

/// The intensity that makes the expected squared error smallest: `(π − ρ) / γ / T`, within 0 and 1, over pairs (what stands on the
/// diagonal is 1 in sample and target). π: how much the sample's correlations vary; ρ: how much the target varies with them, which is
/// nothing for a target of zero; γ: how far sample and target are apart. Ledoit and Wolf 2004 (JPM 30/4), appendices A and B, for
/// variances of one.
fn intensity(p: &[f64], rows: &[Vec<f64>], sample: &[f64], target: f64) -> f64 {
    let n = rows.first().map_or(0, Vec::len);
    let (mut pi, mut rho, mut gamma) = (0.0, 0.0, 0.0);
    for (i, j) in pairs(n) {
        let r = sample[i * n + j];
        pi += mean(p, rows, |z| (z[i] * z[j] - r) * (z[i] * z[j] - r));
        let theta = |k: usize| mean(p, rows, |z| (z[k] * z[k] - 1.0) * (z[i] * z[j] - r));
        rho += target / 2.0 * (theta(i) + theta(j));
        gamma += (r - target) * (r - target);
    }
    let returns = 1.0 / p.iter().map(|weight| weight * weight).sum::<f64>();
    if gamma > 0.0 { ((pi - rho) / gamma / returns).clamp(0.0, 1.0) } else { 0.0 }
}
