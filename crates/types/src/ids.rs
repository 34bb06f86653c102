//! Names that were checked once, where they came in.
//!
//! Every id is 1 to 64 bytes of printable ASCII without spaces, so that it can stand in a key, a topic, a log line and a
//! URL of any backend. Ids are cheap to clone.

use std::{fmt, str::FromStr, sync::Arc};

use crate::error::InvalidValue;

fn check(what: &'static str, text: &str) -> Result<(), InvalidValue> {
    if text.is_empty() || text.len() > 64 {
        return Err(InvalidValue::new(what, format!("must be 1 to 64 bytes, is {}", text.len())));
    }
    // Wildcards and the escape would change the meaning of a pattern that the id becomes part of.
    match text.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '*' | '?' | '\\' | '/')) {
        Some(c) => Err(InvalidValue::new(what, format!("may not hold {c:?}: printable ASCII but * ? \\ /"))),
        None => Ok(()),
    }
}

macro_rules! id {
    ($(#[doc = $doc:literal])+ $name:ident, $what:literal) => {
        $(#[doc = $doc])+
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes a name.
            ///
            /// # Errors
            /// `InvalidValue` unless it is 1 to 64 bytes of printable ASCII without `* ? \ /`.
            pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidValue> {
                check($what, text.as_ref())?;
                Ok(Self(text.as_ref().into()))
            }

            /// The name as it was given.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidValue;
            fn from_str(text: &str) -> Result<Self, InvalidValue> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// One bot: the holder of leases, the owner of a cursor.
    BotId, "bot id"
);
id!(
    /// A trading account at a venue.
    AccountId, "account id"
);
id!(
    /// The algorithm that decided an order (attribution is required by RTS 6 art. 12(3)).
    StrategyId, "strategy id"
);
id!(
    /// A group of accounts that share limits.
    GroupId, "group id"
);
id!(
    /// A person, for everything that only a named person may do.
    UserId, "user id"
);
id!(
    /// The traded thing's name at its venue, e.g. `BTCUSDT`.
    Symbol, "symbol"
);
id!(
    /// An exchange or market, e.g. `binance_spot`.
    Venue, "venue"
);
id!(
    /// The *client* order id: chosen by us, durable before the order leaves, unique per account for ever.
    OrderId, "order id"
);
id!(
    /// The venue's id of one execution report; the same id is the same report.
    ExecutionId, "execution id"
);

/// A part of a store that is read, written, scanned and cleared as one: `[a-z0-9_.-]{1,64}`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// `InvalidValue` unless it matches `[a-z0-9_.-]{1,64}`.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidValue> {
        let text = text.as_ref();
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-');
        if text.is_empty() || text.len() > 64 || !text.bytes().all(fits) {
            return Err(InvalidValue::new("namespace", format!("must match [a-z0-9_.-]{{1,64}}, is {text:?}")));
        }
        Ok(Self(text.into()))
    }

    /// The name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Namespace {
    type Err = InvalidValue;
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Self::new(text)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Namespace({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_what_would_change_a_key_or_pattern() {
        for bad in ["", " ", "a b", "a*", "a?", "a\\", "a/b", "é", "a\n", &"x".repeat(65)] {
            assert!(Symbol::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Symbol::new("BTCUSDT").unwrap().as_str(), "BTCUSDT");
    }

    #[test]
    fn namespaces_are_lower_case() {
        assert!(Namespace::new("Ledger").is_err());
        assert!(Namespace::new("").is_err());
        assert!(Namespace::new("ledger.v1-a_b").is_ok());
    }

    #[test]
    fn serde_checks_too() {
        assert!(serde_json::from_str::<OrderId>("\"a b\"").is_err());
        let id: OrderId = serde_json::from_str("\"bot-1\"").unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"bot-1\"");
    }
}
