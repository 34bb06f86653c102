//! Exact amounts. Nothing here ever passes through a binary float.

use std::{fmt, str::FromStr};

use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Deserialize, Serialize};

use crate::error::InvalidValue;

fn parse_exact(what: &'static str, text: &str) -> Result<Decimal, InvalidValue> {
    // `from_str_exact` refuses what it would have to round.
    Decimal::from_str_exact(text).map_err(|e| InvalidValue::new(what, format!("{text:?} is not an exact decimal: {e}")))
}

macro_rules! amount {
    ($(#[doc = $doc:literal])+ $name:ident, $what:literal, $rule:literal, $ok:expr) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "Decimal", into = "Decimal")]
        pub struct $name(Decimal);

        impl $name {
            /// Checks and takes a decimal.
            ///
            /// # Errors
            #[doc = concat!("`InvalidValue`: ", $rule, ".")]
            pub fn new(value: Decimal) -> Result<Self, InvalidValue> {
                let ok: fn(&Decimal) -> bool = $ok;
                if ok(&value) { Ok(Self(value)) } else { Err(InvalidValue::new($what, concat!($rule))) }
            }

            /// The decimal itself.
            #[must_use]
            pub fn get(self) -> Decimal {
                self.0
            }
        }

        impl TryFrom<Decimal> for $name {
            type Error = InvalidValue;
            fn try_from(value: Decimal) -> Result<Self, InvalidValue> {
                Self::new(value)
            }
        }

        impl From<$name> for Decimal {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidValue;
            fn from_str(text: &str) -> Result<Self, InvalidValue> {
                Self::new(parse_exact($what, text)?)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

amount!(
    /// A price per unit, in the instrument's quote currency; above zero.
    Price, "price", "must be above zero", |v| v.is_sign_positive() && !v.is_zero()
);
amount!(
    /// A quantity in the instrument's base units; never negative (the side says the direction).
    Qty, "quantity", "must not be negative", |v| !v.is_sign_negative() || v.is_zero()
);

impl Qty {
    /// No quantity.
    pub const ZERO: Self = Self(Decimal::ZERO);
}

/// A currency code such as `USDT`: 2 to 12 upper-case letters or digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency(std::sync::Arc<str>);

impl Currency {
    /// Checks and takes a code.
    ///
    /// # Errors
    /// `InvalidValue` unless it is 2 to 12 upper-case letters or digits.
    pub fn new(code: impl AsRef<str>) -> Result<Self, InvalidValue> {
        let code = code.as_ref();
        if !(2..=12).contains(&code.len()) || !code.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()) {
            return Err(InvalidValue::new("currency", format!("must match [A-Z0-9]{{2,12}}, is {code:?}")));
        }
        Ok(Self(code.into()))
    }

    /// The code.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Currency {
    type Error = InvalidValue;
    fn try_from(code: String) -> Result<Self, InvalidValue> {
        Self::new(code)
    }
}

impl From<Currency> for String {
    fn from(code: Currency) -> Self {
        code.0.as_ref().into()
    }
}

impl FromStr for Currency {
    type Err = InvalidValue;
    fn from_str(code: &str) -> Result<Self, InvalidValue> {
        Self::new(code)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An amount of one currency. Amounts of different currencies do not add up: convert first, or be refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Money {
    /// How much; may be negative.
    pub amount: Decimal,
    /// Of what.
    pub currency: Currency,
}

impl Money {
    /// An amount of a currency.
    #[must_use]
    pub fn new(amount: Decimal, currency: Currency) -> Self {
        Self { amount, currency }
    }

    /// The sum.
    ///
    /// # Errors
    /// `InvalidValue` if the currencies differ or the sum overflows.
    pub fn checked_add(&self, other: &Self) -> Result<Self, InvalidValue> {
        if self.currency != other.currency {
            let rule = format!("cannot add {} to {}: convert first", other.currency, self.currency);
            return Err(InvalidValue::new("money", rule));
        }
        let amount =
            self.amount.checked_add(other.amount).ok_or_else(|| InvalidValue::new("money", "the sum overflows"))?;
        Ok(Self::new(amount, self.currency.clone()))
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.amount, self.currency)
    }
}

/// A stored counter: an amount at 1e-4, |v| ≤ 2⁵³−1, so that every backend (Lua's doubles too) adds it exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Scaled(i64);

impl Scaled {
    /// Decimal places that a counter keeps.
    pub const SCALE: u32 = 4;
    /// The largest absolute value of a counter, 2⁵³−1.
    pub const MAX: i64 = (1 << 53) - 1;
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Takes a raw counter.
    ///
    /// # Errors
    /// `InvalidValue` beyond ±(2⁵³−1).
    pub fn from_raw(raw: i64) -> Result<Self, InvalidValue> {
        if raw.unsigned_abs() > Self::MAX.unsigned_abs() {
            return Err(InvalidValue::new("scaled amount", "is beyond ±(2^53-1) at 1e-4"));
        }
        Ok(Self(raw))
    }

    fn round(value: Decimal, how: RoundingStrategy) -> Result<Self, InvalidValue> {
        use rust_decimal::prelude::ToPrimitive;
        let too_big = || InvalidValue::new("scaled amount", "is beyond ±(2^53-1) at 1e-4");
        let scaled = value.round_dp_with_strategy(Self::SCALE, how);
        let raw = scaled.checked_mul(Decimal::from(10_000)).and_then(|v| v.to_i64()).ok_or_else(too_big)?;
        Self::from_raw(raw)
    }

    /// Rounds away from zero: what is *used* of a limit is never understated.
    ///
    /// # Errors
    /// `InvalidValue` beyond ±(2⁵³−1).
    pub fn used(value: Decimal) -> Result<Self, InvalidValue> {
        Self::round(value, RoundingStrategy::AwayFromZero)
    }

    /// Rounds toward zero: what is *allowed* is never overstated.
    ///
    /// # Errors
    /// `InvalidValue` beyond ±(2⁵³−1).
    pub fn allowed(value: Decimal) -> Result<Self, InvalidValue> {
        Self::round(value, RoundingStrategy::ToZero)
    }

    /// The raw counter.
    #[must_use]
    pub fn raw(self) -> i64 {
        self.0
    }

    /// Back to a decimal, exactly.
    #[must_use]
    pub fn to_decimal(self) -> Decimal {
        Decimal::new(self.0, Self::SCALE)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prices_and_quantities_refuse_nonsense() {
        for bad in ["0", "-1", "NaN", "1e5x", "", "1,5", "0.12345678901234567890123456789012"] {
            assert!(bad.parse::<Price>().is_err(), "{bad}");
        }
        assert!("-0.1".parse::<Qty>().is_err());
        assert_eq!("0".parse::<Qty>().unwrap(), Qty::ZERO);
        assert_eq!("87232.00000000".parse::<Price>().unwrap().to_string(), "87232.00000000");
    }

    #[test]
    fn currencies_do_not_mix() {
        let usd = Money::new(Decimal::ONE, "USD".parse().unwrap());
        let eur = Money::new(Decimal::ONE, "EUR".parse().unwrap());
        assert!(usd.checked_add(&eur).is_err());
        assert_eq!(usd.checked_add(&usd).unwrap().amount, Decimal::TWO);
    }

    #[test]
    fn counters_stop_at_two_to_the_53() {
        assert!(Scaled::from_raw(Scaled::MAX).is_ok());
        assert!(Scaled::from_raw(Scaled::MAX + 1).is_err());
        assert!(Scaled::from_raw(i64::MIN).is_err());
        assert!(Scaled::used(Decimal::MAX).is_err());
    }

    proptest! {
        #[test]
        fn used_never_understates_and_allowed_never_overstates(raw in -100_000_000_000i64..100_000_000_000, scale in 0u32..9) {
            let value = Decimal::new(raw, scale);
            prop_assert!(Scaled::used(value).unwrap().to_decimal().abs() >= value.abs());
            prop_assert!(Scaled::allowed(value).unwrap().to_decimal().abs() <= value.abs());
        }
    }
}
