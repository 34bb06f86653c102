//! Counts account × instrument pairs that are open or being opened, exactly, without a lock.
//!
//! A pair takes one slot while its position is not flat or at least one opening order works. The number of working opening
//! orders is a counter; an operation that would change the slot names, as the bounds of its own addition, what it believed
//! of that counter, so that the store refuses it if somebody else was faster.

use infra_state_store::Delta;

/// What to add to the counter of working opening orders and to the slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    /// For the opening counter; none if it neither changes nor matters.
    pub(crate) opening: Option<Delta>,
    /// For the slot counter.
    pub(crate) slots: i64,
}

/// The change when `by` (−1, 0, 1) opening orders come and the position goes from flat or not to flat or not. `known` is
/// the last known value of the opening counter.
pub(crate) fn change(known: i64, by: i64, was_flat: bool, is_flat: bool) -> Change {
    if by == 0 && was_flat == is_flat {
        return Change { opening: None, slots: 0 };
    }
    // An order that goes was counted, whatever we last knew.
    let before = known.max(-by).max(0);
    let after = before + by;
    let slots = i64::from(after > 0 || !is_flat) - i64::from(before > 0 || !was_flat);
    let exactly = |value: i64| Delta { by, min: value, max: value };
    let opening = match by {
        1 if !was_flat => Delta::unbounded(by),
        1 if before == 0 => exactly(1),
        1 => Delta::at_least(by, 2),
        -1 if !is_flat => Delta::unbounded(by),
        _ if after == 0 => exactly(0),
        _ => Delta::at_least(by, 1),
    };
    Change { opening: Some(opening), slots }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever was known: a change that the store takes moves the slot counter to what is true.
        #[test]
        fn slots_are_right_even_when_the_last_knowledge_is_stale(
            steps in prop::collection::vec((-1i64..=1, any::<bool>(), 0i64..4), 1..80),
        ) {
            let (mut opening, mut flat, mut slots) = (0i64, true, 0i64);
            for (by, next_flat, known) in steps {
                if opening + by < 0 || (by == 1 && next_flat != flat) {
                    continue;
                }
                let mut known = known;
                for _ in 0..2 {
                    let change = change(known, by, flat, next_flat);
                    let fits = change.opening.is_none_or(|d| (d.min..=d.max).contains(&(opening + d.by)));
                    if fits {
                        opening += change.opening.map_or(0, |d| d.by);
                        slots += change.slots;
                        flat = next_flat;
                        break;
                    }
                    prop_assert!(known != opening, "true knowledge must pass");
                    known = opening;
                }
                prop_assert_eq!(slots, i64::from(opening > 0 || !flat));
            }
        }
    }
}
