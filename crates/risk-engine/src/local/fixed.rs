//! Decimals as integers: quantities and prices at 1e-8, their products at 1e-16, money at 1e-4.

use infra_types::{Decimal, Scaled};

/// 1e-8.
const PLACES: u32 = 8;
/// Of a product of two figures at 1e-8.
const PRODUCT_PLACES: u32 = 16;

const POWERS: [i64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];
/// What a unit of 1e-4 is at 1e-16.
const MONEY: u64 = 1_000_000_000_000;
/// Half a unit of 1e-12 at 1e-16: the engine rounds to twelve places before it rounds up.
const HALF: u64 = 5_000;

/// A figure at 1e-8, if it is one exactly.
#[inline]
pub(super) fn exact(value: Decimal) -> Option<i64> {
    let scale = value.scale();
    if scale <= PLACES {
        return i64::try_from(value.mantissa()).ok()?.checked_mul(POWERS[(PLACES - scale) as usize]);
    }
    let value = value.normalize();
    if value.scale() <= PLACES { exact(value) } else { None }
}

/// The smallest figure at 1e-8 that is not below `value`.
pub(super) fn up(value: Decimal) -> Option<i64> {
    exact(value).or_else(|| i64::try_from(value.checked_mul(Decimal::from(100_000_000))?.ceil()).ok())
}

/// The largest figure at 1e-8 that is not above `value`.
pub(super) fn down(value: Decimal) -> Option<i64> {
    exact(value).or_else(|| i64::try_from(value.checked_mul(Decimal::from(100_000_000))?.floor()).ok())
}

/// A figure that is not below zero at 1e-16, rounded up or down.
pub(super) fn product(value: Decimal, is_up: bool) -> Option<u128> {
    let mantissa = u128::try_from(value.mantissa()).ok()?;
    match PRODUCT_PLACES.checked_sub(value.scale()) {
        Some(places) => mantissa.checked_mul(10_u128.pow(places)),
        None => {
            let by = 10_u128.pow(value.scale() - PRODUCT_PLACES);
            Some(if is_up { mantissa.div_ceil(by) } else { mantissa / by })
        }
    }
}

/// Price × quantity at 1e-16. Neither is below zero.
#[inline]
pub(super) fn value(price: i64, qty: i64) -> u128 {
    u128::from(price.unsigned_abs()) * u128::from(qty.unsigned_abs())
}

/// What a value at 1e-16 holds of a money counter, exactly as `Scaled::used(value.round_dp(12))`: to the even neighbour at 1e-12,
/// then up at 1e-4. None beyond 2⁵³−1.
#[inline]
pub(super) fn held(value: u128) -> Option<i64> {
    // 10^12 is 2^12 × 5^12, so that up to 7.5 million the quotient is one of 64 bits.
    let (whole, rest) = match u64::try_from(value >> 12) {
        Ok(shifted) => {
            let whole = shifted / (MONEY >> 12);
            // The remainder is below 2^40: the low 64 bits of the difference are all of it.
            let low = value as u64;
            (whole, low.wrapping_sub(whole.wrapping_mul(MONEY)))
        }
        Err(_) => {
            let money = u128::from(MONEY);
            (u64::try_from(value / money).ok()?, u64::try_from(value % money).ok()?)
        }
    };
    // A rest of exactly half a unit goes to the even neighbour, which is a whole one.
    let raw = i64::try_from(whole.checked_add(u64::from(rest > HALF))?).ok()?;
    (raw <= Scaled::MAX).then_some(raw)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::position;

    #[test]
    fn only_what_fits_is_exact() {
        assert_eq!(exact("87232.01".parse().unwrap()), Some(8_723_201_000_000));
        assert_eq!(exact("1.50000000000".parse().unwrap()), Some(150_000_000));
        let odd = Decimal::new(15, 9);
        assert_eq!((exact(odd), up(odd), down(odd)), (None, Some(2), Some(1)));
        assert_eq!((exact(Decimal::MAX), up(Decimal::MAX), down(Decimal::MAX)), (None, None, None));
        let tiny = Decimal::new(1, 20);
        assert_eq!((product(tiny, true), product(tiny, false)), (Some(1), Some(0)));
        assert_eq!(product(-Decimal::ONE, true), None);
    }

    proptest! {
        /// To the last unit what the shared engine holds.
        #[test]
        fn held_is_what_the_engine_holds(price in 1i64..4_000_000_000_000, qty in 1i64..4_000_000_000_000, cut in 0u32..9) {
            let price = price / POWERS[cut as usize].max(1) + 1;
            let decimal = Decimal::new(price, 8).checked_mul(Decimal::new(qty, 8));
            let by_engine = decimal.map(|v| v.round_dp(position::PLACES)).and_then(|v| Scaled::used(v).ok());
            prop_assert_eq!(held(value(price, qty)), by_engine.map(Scaled::raw));
        }

        /// Around the places where rounding turns.
        #[test]
        fn rounding_turns_where_the_engines_does(whole in 0u64..100_000_000, near in 0u64..10_002, base in 0u64..3) {
            let rest = match base { 0 => near, 1 => MONEY - 1 - near.min(MONEY - 1), _ => MONEY / 2 + near };
            let raw = u128::from(whole) * u128::from(MONEY) + u128::from(rest);
            let decimal = Decimal::from_i128_with_scale(i128::try_from(raw).unwrap(), 16);
            let by_engine = Scaled::used(decimal.round_dp(position::PLACES)).unwrap().raw();
            prop_assert_eq!(held(raw), Some(by_engine));
        }
    }
}
