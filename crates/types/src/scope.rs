//! What a limit or a halt covers.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    error::InvalidValue,
    ids::{AccountId, GroupId, StrategyId, Venue},
    instrument::InstrumentId,
};

/// From the whole firm down to one instrument. Prints as `firm`, `group:g`, `venue:v`, `account:a`, `strategy:s` or
/// `instrument:v/s`, and parses from the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Scope {
    /// Everything.
    Firm,
    /// A group of accounts.
    Group(GroupId),
    /// Everything at one venue.
    Venue(Venue),
    /// One account.
    Account(AccountId),
    /// One strategy.
    Strategy(StrategyId),
    /// One symbol at one venue.
    Instrument(InstrumentId),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Firm => f.write_str("firm"),
            Self::Group(id) => write!(f, "group:{id}"),
            Self::Venue(id) => write!(f, "venue:{id}"),
            Self::Account(id) => write!(f, "account:{id}"),
            Self::Strategy(id) => write!(f, "strategy:{id}"),
            Self::Instrument(id) => write!(f, "instrument:{id}"),
        }
    }
}

impl FromStr for Scope {
    type Err = InvalidValue;
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let (kind, id) = text.split_once(':').unwrap_or((text, ""));
        Ok(match kind {
            "firm" if id.is_empty() => Self::Firm,
            "group" => Self::Group(id.parse()?),
            "venue" => Self::Venue(id.parse()?),
            "account" => Self::Account(id.parse()?),
            "strategy" => Self::Strategy(id.parse()?),
            "instrument" => Self::Instrument(id.parse()?),
            _ => {
                let rule = "must be firm, group:…, venue:…, account:…, strategy:… or instrument:venue/symbol";
                return Err(InvalidValue::new("scope", format!("{rule}, is {text:?}")));
            }
        })
    }
}

impl TryFrom<String> for Scope {
    type Error = InvalidValue;
    fn try_from(text: String) -> Result<Self, InvalidValue> {
        text.parse()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_it_parses() {
        for text in ["firm", "group:g", "venue:v", "account:a:b", "strategy:s", "instrument:binance_spot/BTCUSDT"] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
        for bad in ["", "firm:x", "desk:1", "instrument:BTC", "account:"] {
            assert!(bad.parse::<Scope>().is_err(), "{bad}");
        }
    }
}
