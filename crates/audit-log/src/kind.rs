//! What sort of thing happened.

use std::{fmt, str::FromStr};

use infra_types::InvalidValue;

/// A kind of one's own: `[A-Z][A-Z0-9_]{0,63}`, and none of the built-in names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CustomKind(String);

impl CustomKind {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// What sort of thing happened. In the stored bytes it is its name, so a kind that a newer version adds reads as
        /// [`AuditKind::Custom`] in an older one.
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum AuditKind {
            $($(#[doc = $doc])+ $variant,)+
            /// One's own kind, from [`AuditKind::custom`].
            Custom(CustomKind),
        }

        impl AuditKind {
            /// Every built-in kind.
            pub const BUILT_IN: &'static [Self] = &[$(Self::$variant,)+];

            /// The name, e.g. `ORDER_PLACED`.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $name,)+
                    Self::Custom(custom) => custom.as_str(),
                }
            }
        }

        impl FromStr for AuditKind {
            type Err = InvalidValue;

            /// The kind of that name, built-in or custom.
            fn from_str(name: &str) -> Result<Self, InvalidValue> {
                match name {
                    $($name => Ok(Self::$variant),)+
                    _ => check(name).map(|()| Self::Custom(CustomKind(name.into()))),
                }
            }
        }
    };
}

kinds! {
    /// A strategy produced a signal.
    SignalGenerated = "SIGNAL_GENERATED",
    /// A signal was acted upon.
    SignalExecuted = "SIGNAL_EXECUTED",
    /// An order was sent.
    OrderPlaced = "ORDER_PLACED",
    /// An order was filled, wholly or in part.
    OrderFilled = "ORDER_FILLED",
    /// An order was cancelled.
    OrderCancelled = "ORDER_CANCELLED",
    /// An order was refused, by us or by the venue.
    OrderRejected = "ORDER_REJECTED",
    /// A position came to be.
    PositionOpened = "POSITION_OPENED",
    /// A position ended.
    PositionClosed = "POSITION_CLOSED",
    /// A limit was reached or passed.
    RiskAlert = "RISK_ALERT",
    /// A limit was set.
    RiskLimitChanged = "RISK_LIMIT_CHANGED",
    /// Trading was halted.
    TradingHalted = "TRADING_HALTED",
    /// Trading was allowed again.
    TradingResumed = "TRADING_RESUMED",
    /// A setting was changed.
    ConfigChanged = "CONFIG_CHANGED",
    /// Start, stop, connection lost and the like.
    SystemEvent = "SYSTEM_EVENT",
    /// A person came in.
    UserLogin = "USER_LOGIN",
    /// A person left.
    UserLogout = "USER_LOGOUT",
    /// Somebody could not prove who they are.
    LoginFailed = "LOGIN_FAILED",
}

fn check(name: &str) -> Result<(), InvalidValue> {
    let rest_fits = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    let fits = name.len() <= 64 && name.starts_with(|c: char| c.is_ascii_uppercase()) && name.bytes().all(rest_fits);
    if fits {
        Ok(())
    } else {
        Err(InvalidValue::new("audit kind", format!("must match [A-Z][A-Z0-9_]{{0,63}}, is {name:?}")))
    }
}

impl AuditKind {
    /// A kind of one's own.
    ///
    /// # Errors
    /// `InvalidValue` unless the name matches `[A-Z][A-Z0-9_]{0,63}` and is no built-in one.
    pub fn custom(name: &str) -> Result<Self, InvalidValue> {
        match name.parse()? {
            custom @ Self::Custom(_) => Ok(custom),
            built_in => Err(InvalidValue::new("audit kind", format!("{built_in} is built in: use its variant"))),
        }
    }
}

impl fmt::Display for AuditKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl serde::Serialize for AuditKind {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for AuditKind {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_kinds_are_one_to_one() {
        for kind in AuditKind::BUILT_IN {
            assert_eq!(kind.as_str().parse::<AuditKind>().unwrap(), *kind);
            assert!(AuditKind::custom(kind.as_str()).is_err(), "{kind} must not exist twice");
        }
        assert_eq!(AuditKind::custom("REBALANCED_2").unwrap().to_string(), "REBALANCED_2");
        for bad in ["", "lower", "_A", "1A", "A B", "Ä", &"A".repeat(65)] {
            assert!(bad.parse::<AuditKind>().is_err(), "{bad:?}");
        }
    }
}
