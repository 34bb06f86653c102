//! What exposure is worth once it is known what moves with what.

use std::collections::BTreeMap;

use infra_types::{Decimal, InstrumentId};
use serde::{Deserialize, Serialize};

use super::{Correlation, CorrelationTracker};

/// Name of the group of instruments that too little is known of.
const UNKNOWN: &str = "unknown";

/// On what an adjusted exposure stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExposureBasis {
    /// All instruments are in the correlation.
    Correlated,
    /// Some are not and count in full beside it.
    Partly,
    /// None is: the sum of absolutes.
    NotEnoughData,
}

/// Exposure with the movements of instruments together taken into account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdjustedExposure {
    /// The adjusted figure: at most `gross`, rounded up by at most 1e-9 of it.
    pub value: Decimal,
    /// Sum of absolutes.
    pub gross: Decimal,
    /// Sum.
    pub net: Decimal,
    /// On what it stands.
    pub basis: ExposureBasis,
    /// From how many steps; 0 if none is correlated.
    pub samples: usize,
    /// How far the correlation was drawn towards its target; 0 if none is correlated.
    pub shrinkage: f64,
    /// Instruments that count in full, since too little is known of them.
    pub unknown: Vec<InstrumentId>,
}

/// A group's part of the exposure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupExposure {
    /// Its name.
    pub group: String,
    /// Its exposure by itself.
    pub exposure: AdjustedExposure,
    /// Its part of the gross exposure of all groups; none if there is no exposure.
    pub share: Option<Decimal>,
}

impl CorrelationTracker {
    /// The adjusted exposure of signed exposures, all in one currency.
    #[must_use]
    pub fn adjusted(&self, exposures: &BTreeMap<InstrumentId, Decimal>) -> AdjustedExposure {
        let held: BTreeMap<_, _> = exposures.iter().filter(|(_, w)| !w.is_zero()).collect();
        let sum = |f: fn(Decimal) -> Decimal| held.values().fold(Decimal::ZERO, |sum, w| sum.saturating_add(f(**w)));
        let (gross, net) = (sum(|w| w.abs()), sum(|w| w));
        let (correlation, unknown) = self.known(held.keys().map(|id| (*id).clone()).collect());
        let share = |id: &InstrumentId| {
            let part = held.get(id).and_then(|w| w.checked_div(gross));
            part.and_then(|part| f64::try_from(part).ok()).unwrap_or(1.0)
        };
        let correlated = correlation.as_ref().map_or(0.0, |c| c.norm(&c.ids().iter().map(share).collect::<Vec<_>>()));
        let alone: f64 = unknown.iter().map(|id| share(id).abs()).sum();
        let basis = match (correlation.is_some(), unknown.is_empty()) {
            (true, true) => ExposureBasis::Correlated,
            (true, false) => ExposureBasis::Partly,
            (false, _) => ExposureBasis::NotEnoughData,
        };
        // Nothing is known: the sum itself, and no ratio that was rounded.
        let ratio = if basis == ExposureBasis::NotEnoughData { Decimal::ONE } else { round_up(correlated + alone) };
        let (samples, shrinkage) = correlation.map_or((0, 0.0), |c| (c.samples(), c.shrinkage()));
        let value = gross.saturating_mul(ratio).min(gross).normalize();
        AdjustedExposure { value, gross, net, basis, samples, shrinkage, unknown }
    }

    /// The adjusted exposure of each group by itself, in the order of their names. An instrument that is in no group is one.
    #[must_use]
    pub fn group_exposures(
        &self,
        exposures: &BTreeMap<InstrumentId, Decimal>,
        groups: &BTreeMap<InstrumentId, String>,
    ) -> Vec<GroupExposure> {
        let mut members: BTreeMap<String, BTreeMap<InstrumentId, Decimal>> = BTreeMap::new();
        for (id, exposure) in exposures.iter().filter(|(_, w)| !w.is_zero()) {
            let group = groups.get(id).cloned().unwrap_or_else(|| id.to_string());
            members.entry(group).or_default().insert(id.clone(), *exposure);
        }
        let all = exposures.values().fold(Decimal::ZERO, |sum, w| sum.saturating_add(w.abs()));
        let of = |(group, of): (String, BTreeMap<InstrumentId, Decimal>)| {
            let exposure = self.adjusted(&of);
            let share = exposure.gross.checked_div(all);
            GroupExposure { group, exposure, share }
        };
        members.into_iter().map(of).collect()
    }

    /// Groups of instruments that move together, whichever way: any two of correlation `threshold` or beyond (either sign) are in one,
    /// and so is whatever hangs together by such pairs. A group is named after its first member; all that too little is known of
    /// are one group, `unknown`.
    #[must_use]
    pub fn clusters(&self, ids: &[InstrumentId], threshold: f64) -> BTreeMap<InstrumentId, String> {
        let mut sorted = ids.to_vec();
        sorted.sort();
        sorted.dedup();
        let (correlation, unknown) = self.known(sorted);
        let mut groups: BTreeMap<_, _> = unknown.into_iter().map(|id| (id, UNKNOWN.to_owned())).collect();
        let Some(correlation) = correlation else { return groups };
        let n = correlation.ids().len();
        let mut first: Vec<usize> = (0..n).collect();
        for i in 0..n {
            for j in i + 1..n {
                if correlation.at(i, j).abs() >= threshold {
                    let (low, high) = (first[i].min(first[j]), first[i].max(first[j]));
                    first.iter_mut().filter(|of| **of == high).for_each(|of| *of = low);
                }
            }
        }
        let named = correlation.ids().iter().zip(first);
        groups.extend(named.map(|(id, of)| (id.clone(), correlation.ids()[of].to_string())));
        groups
    }

    /// The correlation of as many as possible, and the others: while too few steps are common, the one with the fewest returns
    /// is left out.
    fn known(&self, mut ids: Vec<InstrumentId>) -> (Option<Correlation>, Vec<InstrumentId>) {
        let mut left_out = Vec::new();
        while !ids.is_empty() {
            let lacking = match self.correlation(&ids) {
                Ok(correlation) => {
                    left_out.sort();
                    return (Some(correlation), left_out);
                }
                Err(lacking) => lacking,
            };
            let fewest = || ids.iter().rev().min_by_key(|id| self.returns(id).len()).cloned();
            let out = if lacking.unknown.is_empty() { fewest().into_iter().collect() } else { lacking.unknown };
            ids.retain(|id| !out.contains(id));
            left_out.extend(out);
        }
        left_out.sort();
        (None, left_out)
    }
}

/// A ratio as a decimal, never below it and at most one.
fn round_up(ratio: f64) -> Decimal {
    let scaled = (ratio.clamp(0.0, 1.0) * 1e9).ceil();
    // At most 1e9: whole, and exact in both.
    Decimal::new(scaled as i64, 9)
}
