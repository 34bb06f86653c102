//! What one unit of a currency is in another.

use std::collections::BTreeMap;

use infra_types::{Currency, Decimal, InvalidValue};

/// Rates as they were set; nothing is inverted or chained, since both would guess.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    table: BTreeMap<(Currency, Currency), Decimal>,
}

impl Rates {
    pub(crate) fn set(&mut self, from: Currency, to: Currency, rate: Decimal) -> Result<(), InvalidValue> {
        if rate <= Decimal::ZERO {
            return Err(InvalidValue::new("conversion rate", format!("{from} to {to} must be above zero, is {rate}")));
        }
        if from == to && rate != Decimal::ONE {
            return Err(InvalidValue::new("conversion rate", format!("{from} to itself is 1, not {rate}")));
        }
        self.table.insert((from, to), rate);
        Ok(())
    }

    pub(crate) fn get(&self, from: &Currency, to: &Currency) -> Option<Decimal> {
        if from == to {
            return Some(Decimal::ONE);
        }
        self.table.get(&(from.clone(), to.clone())).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_set_is_known() {
        let (usd, eur): (Currency, Currency) = ("USD".parse().unwrap(), "EUR".parse().unwrap());
        let mut rates = Rates::default();
        assert_eq!(rates.get(&usd, &usd), Some(Decimal::ONE));
        rates.set(eur.clone(), usd.clone(), Decimal::new(11, 1)).unwrap();
        assert_eq!(rates.get(&eur, &usd), Some(Decimal::new(11, 1)));
        assert_eq!(rates.get(&usd, &eur), None);
        assert!(rates.set(usd.clone(), eur, Decimal::ZERO).is_err());
        assert!(rates.set(usd.clone(), usd, Decimal::TWO).is_err());
    }
}
