//! Against values reckoned by hand, and what must hold of any.

use std::collections::BTreeMap;

use infra_types::{Decimal, InstrumentId, Timestamp};
use proptest::prelude::*;

use super::*;

fn id(name: &str) -> InstrumentId {
    format!("v/{name}").parse().unwrap()
}

fn config(target: ShrinkTarget, intensity: Intensity) -> CorrelationConfig {
    CorrelationConfig {
        step: Duration::from_secs(1),
        window: 50,
        samples_min: 2,
        target,
        intensity,
        ..CorrelationConfig::default()
    }
}

const SAMPLE: (ShrinkTarget, Intensity) = (ShrinkTarget::Identity, Intensity::Fixed(0.0));

/// A tracker that saw prices with these returns, in thousandths, one column an instrument, and a price of the step after them.
fn tracker(config: CorrelationConfig, columns: &[(&str, &[i64])]) -> CorrelationTracker {
    let mut tracker = CorrelationTracker::new(config).unwrap();
    for (name, returns) in columns {
        let mut price = Decimal::ONE_HUNDRED;
        let factors = returns.iter().map(|r| Decimal::ONE + Decimal::new(*r, 3)).chain([Decimal::ONE]);
        assert!(tracker.take(&id(name), price, Timestamp::from_millis(0)));
        for (n, factor) in factors.enumerate() {
            price *= factor;
            assert!(tracker.take(&id(name), price, Timestamp::from_millis((n as i64 + 1) * 1_000)));
        }
    }
    tracker
}

fn exposures(of: &[(&str, i64)]) -> BTreeMap<InstrumentId, Decimal> {
    of.iter().map(|(name, w)| (id(name), Decimal::from(*w))).collect()
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

fn between(tracker: &CorrelationTracker, ids: &[&str], a: &str, b: &str) -> f64 {
    let ids: Vec<_> = ids.iter().map(|name| id(name)).collect();
    tracker.correlation(&ids).unwrap().between(&id(a), &id(b)).unwrap()
}

#[test]
fn the_sample_is_pearsons() {
    // Deviations 1 −1 2 −2 and 1 −1 −2 2: variance 2.5 each, covariance (1 + 1 − 4 − 4) / 4 = −1.5.
    let t = tracker(config(SAMPLE.0, SAMPLE.1), &[("X", &[11, 9, 12, 8]), ("Y", &[-4, -6, -7, -3])]);
    assert!(near(between(&t, &["X", "Y"], "X", "Y"), -0.6));
    assert!(near(between(&t, &["X", "Y"], "X", "X"), 1.0));
}

#[test]
fn ewma_weighs_the_newest_most_and_around_zero() {
    let weighting = Weighting::Ewma { lambda: 0.5 };
    let config = CorrelationConfig { weighting, ..config(SAMPLE.0, SAMPLE.1) };
    // Weights 1/3 and 2/3: variance (4 + 2) / 3 = 2 each, covariance (4 − 2) / 3, so a third.
    let t = tracker(config, &[("X", &[20, 10]), ("Y", &[20, -10])]);
    assert!(near(between(&t, &["X", "Y"], "X", "Y"), 1.0 / 3.0));
}

#[test]
fn shrinking_to_identity_is_the_papers() {
    // r = −0.6; π = mean of (zz − r)² = 1; π / T = 0.25; γ = 0.36.
    let config = config(ShrinkTarget::Identity, Intensity::Estimated);
    let t = tracker(config, &[("X", &[1, -1, 2, -2]), ("Y", &[1, -1, -2, 2])]);
    let c = t.correlation(&[id("X"), id("Y")]).unwrap();
    assert!(near(c.shrinkage(), 0.25 / 0.36), "{}", c.shrinkage());
    assert!(near(c.between(&id("X"), &id("Y")).unwrap(), -0.6 * (1.0 - 0.25 / 0.36)));
}

#[test]
fn shrinking_to_the_mean_correlation_is_the_papers() {
    // X = Y, W apart: r = 1, 0, 0, mean 1/3. All z are ±1, so ρ = 0; π = 0 + 1 + 1; γ = 4/9 + 1/9 + 1/9; δ = 2 / (2/3) / 4.
    let config = config(ShrinkTarget::ConstantCorrelation, Intensity::Estimated);
    let t = tracker(config, &[("X", &[1, 1, -1, -1]), ("Y", &[1, 1, -1, -1]), ("W", &[1, -1, 1, -1])]);
    let ids = [id("W"), id("X"), id("Y")];
    let c = t.correlation(&ids).unwrap();
    assert!(near(c.shrinkage(), 0.75), "{}", c.shrinkage());
    assert!(near(c.between(&id("X"), &id("Y")).unwrap(), 0.5));
    assert!(near(c.between(&id("X"), &id("W")).unwrap(), 0.25));
}

#[test]
fn exposure_of_what_moves_as_one_adds_up_and_of_what_moves_apart_does_not() {
    let columns: &[(&str, &[i64])] = &[("X", &[1, 1, -1, -1]), ("Y", &[1, 1, -1, -1]), ("W", &[1, -1, 1, -1])];
    let t = tracker(config(SAMPLE.0, SAMPLE.1), columns);
    let value = |of: &[(&str, i64)]| t.adjusted(&exposures(of)).value.round_dp(6);
    assert_eq!(value(&[("X", 300), ("Y", 400)]), Decimal::from(700));
    assert_eq!(value(&[("X", 300), ("Y", -300)]), Decimal::ZERO);
    assert_eq!(value(&[("X", 300), ("W", 400)]), Decimal::from(500), "3-4-5");
    let adjusted = t.adjusted(&exposures(&[("X", 300), ("W", -400)]));
    assert_eq!((adjusted.gross, adjusted.net), (Decimal::from(700), Decimal::from(-100)));
    assert_eq!((adjusted.basis, adjusted.samples), (ExposureBasis::Correlated, 4));
}

#[test]
fn what_is_not_known_counts_in_full() {
    let columns: &[(&str, &[i64])] = &[("X", &[1, 1, -1, -1]), ("W", &[1, -1, 1, -1]), ("Still", &[0, 0, 0, 0])];
    let t = tracker(config(SAMPLE.0, SAMPLE.1), columns);
    let adjusted = t.adjusted(&exposures(&[("X", 300), ("W", 400), ("Still", -50), ("Never", 7)]));
    assert_eq!(adjusted.basis, ExposureBasis::Partly);
    assert_eq!(adjusted.unknown, [id("Never"), id("Still")]);
    assert_eq!(adjusted.value.round_dp(5), Decimal::from(557));

    let few = CorrelationConfig { samples_min: 5, ..config(SAMPLE.0, SAMPLE.1) };
    let t = tracker(few, &columns[..2]);
    let adjusted = t.adjusted(&exposures(&[("X", 300), ("W", -400)]));
    assert_eq!(
        (adjusted.basis, adjusted.value, adjusted.samples),
        (ExposureBasis::NotEnoughData, Decimal::from(700), 0)
    );
    let lacking = t.correlation(&[id("X"), id("W")]).unwrap_err();
    assert_eq!((lacking.samples, lacking.needed, lacking.unknown), (4, 5, vec![id("X"), id("W")]));
    assert_eq!(t.adjusted(&BTreeMap::new()).value, Decimal::ZERO);
    let most = t.adjusted(&[(id("X"), Decimal::MAX), (id("W"), Decimal::MIN)].into());
    assert_eq!((most.value, most.gross, most.net), (Decimal::MAX, Decimal::MAX, Decimal::ZERO));
}

#[test]
fn a_step_without_a_price_has_no_return_and_spoils_no_other() {
    let mut t = tracker(config(SAMPLE.0, SAMPLE.1), &[("X", &[1, 1, -1, -1, 2, 1])]);
    for step in [0, 1, 2, 4, 5, 6, 7] {
        t.take(&id("G"), Decimal::from(100 + step * step % 5), Timestamp::from_millis(step * 1_000));
    }
    assert_eq!(t.correlation(&[id("X"), id("G")]).unwrap().samples(), 4, "steps 1, 2, 5, 6: 7 is not over yet");
}

#[test]
fn prices_that_make_no_sense_are_refused_and_memory_is_bounded() {
    let config = CorrelationConfig { instruments_max: 1, window: 5, ..config(SAMPLE.0, SAMPLE.1) };
    let mut t = CorrelationTracker::new(config).unwrap();
    let at = |s: i64| Timestamp::from_millis(s * 1_000);
    assert!(!t.take(&id("X"), Decimal::ZERO, at(1)) && !t.take(&id("X"), -Decimal::ONE, at(1)));
    for s in 0..100 {
        assert!(t.take(&id("X"), Decimal::from(100 + s), at(s)));
    }
    assert!(!t.take(&id("X"), Decimal::ONE, at(50)), "older");
    assert!(!t.take(&id("Y"), Decimal::ONE, at(100)), "one too many");
    assert_eq!((t.refused(), t.returns(&id("X")).len()), (4, 5));
    for bad in [
        CorrelationConfig { window: 1, ..config },
        CorrelationConfig { samples_min: 6, ..config },
        CorrelationConfig { weighting: Weighting::Ewma { lambda: 1.0 }, ..config },
        CorrelationConfig { weighting: Weighting::Ewma { lambda: f64::NAN }, ..config },
        CorrelationConfig { intensity: Intensity::Fixed(1.1), ..config },
        CorrelationConfig { step: Duration::ZERO, ..config },
    ] {
        assert!(CorrelationTracker::new(bad).is_err(), "{bad:?}");
    }
    assert_eq!(CorrelationConfig::default().validate(), Ok(()));
}

#[test]
fn groups_are_given_or_found() {
    let columns: &[(&str, &[i64])] = &[("X", &[1, 1, -1, -1]), ("Y", &[-2, -2, 2, 2]), ("W", &[1, -1, 1, -1])];
    let t = tracker(config(SAMPLE.0, SAMPLE.1), columns);
    let found = t.clusters(&[id("X"), id("Y"), id("W"), id("Never")], 0.8);
    let names: Vec<_> = found.values().map(String::as_str).collect();
    assert_eq!(names, ["unknown", "v/W", "v/X", "v/X"], "W, X and Y move against each other");
    let of = exposures(&[("X", 300), ("Y", 100), ("W", 100), ("Never", -500)]);
    let groups = t.group_exposures(&of, &found);
    let figures: Vec<_> = groups.iter().map(|g| (g.group.as_str(), g.exposure.value.round_dp(5), g.share)).collect();
    assert_eq!(
        figures,
        [
            ("unknown", Decimal::from(500), Some(Decimal::new(5, 1))),
            ("v/W", Decimal::from(100), Some(Decimal::new(1, 1))),
            ("v/X", Decimal::from(200), Some(Decimal::new(4, 1))),
        ]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever the returns and settings: correlations within ±1, a square that is never below zero, and an adjusted
    /// exposure between zero and gross, at least that of the larger of sides when all move as one.
    #[test]
    fn is_positive_semidefinite_and_between_zero_and_gross(
        columns in prop::collection::vec(prop::collection::vec(-200i64..200, 12), 1..7),
        weights in prop::collection::vec(-1_000i64..1_000, 7),
        ewma: bool, identity: bool, fixed in prop::option::of(0u8..=10),
    ) {
        let target = if identity { ShrinkTarget::Identity } else { ShrinkTarget::ConstantCorrelation };
        let intensity = fixed.map_or(Intensity::Estimated, |tenths| Intensity::Fixed(f64::from(tenths) / 10.0));
        let weighting = if ewma { Weighting::Ewma { lambda: 0.9 } } else { Weighting::Equal };
        let config = CorrelationConfig { weighting, ..config(target, intensity) };
        let names: Vec<_> = (0..columns.len()).map(|n| format!("I{n}")).collect();
        let named: Vec<(&str, &[i64])> = names.iter().map(String::as_str).zip(columns.iter().map(Vec::as_slice)).collect();
        let t = tracker(config, &named);
        let ids: Vec<_> = names.iter().map(|name| id(name)).collect();
        if let Ok(c) = t.correlation(&ids) {
            prop_assert!((0.0..=1.0).contains(&c.shrinkage()));
            for (i, a) in ids.iter().enumerate() {
                for (j, b) in ids.iter().enumerate() {
                    let r = c.between(a, b).unwrap();
                    prop_assert!(r.abs() <= 1.0 && (i != j || near(r, 1.0)));
                    prop_assert!(near(r, c.between(b, a).unwrap()));
                }
            }
            let x: Vec<f64> = weights[..ids.len()].iter().map(|w| *w as f64).collect();
            let square: f64 = (0..x.len()).flat_map(|i| (0..x.len()).map(move |j| (i, j))).map(|(i, j)| x[i] * x[j] * c.at(i, j)).sum();
            prop_assert!(square >= -1e-6 * x.iter().map(|w| w * w).sum::<f64>(), "{square}");
        }
        let of: BTreeMap<_, _> = ids.iter().cloned().zip(weights.iter().map(|w| Decimal::from(*w))).collect();
        let adjusted = t.adjusted(&of);
        prop_assert!(adjusted.value >= Decimal::ZERO && adjusted.value <= adjusted.gross);
    }
}
