//! A point in UTC.

use std::{fmt, str::FromStr, time::Duration};

use crate::error::InvalidValue;

/// Nanoseconds since 1970-01-01 UTC, leap seconds not counted (as in POSIX); spans the years 1677 to 2262.
///
/// Prints and parses as RFC 3339. It is data, not a way to measure: durations come from [`crate::Clock::now`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// From nanoseconds since the epoch.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// From milliseconds since the epoch, saturating.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the epoch.
    #[must_use]
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Milliseconds since the epoch, rounded down.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Later by `by`, saturating at the end of the range.
    #[must_use]
    pub fn saturating_add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// Earlier by `by`, saturating at the start of the range.
    #[must_use]
    pub fn saturating_sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// The time since `earlier`; zero if that is later (clocks step back).
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(i128::from(self.0) - i128::from(earlier.0)).unwrap_or(0))
    }
}

impl FromStr for Timestamp {
    type Err = InvalidValue;
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let bad = |why: String| InvalidValue::new("timestamp", format!("{text:?} is not RFC 3339: {why}"));
        let instant: jiff::Timestamp = text.parse().map_err(|e: jiff::Error| bad(e.to_string()))?;
        i64::try_from(instant.as_nanosecond()).map(Self).map_err(|_| bad("year out of 1677..2262".into()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Every i64 of nanoseconds is in jiff's range (years -9999 to 9999).
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(instant) => fmt::Display::fmt(&instant, f),
            Err(_) => write!(f, "{}ns", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_every_nanosecond_of_the_real_feed() {
        let text = "2025-03-25T23:07:00.773684644Z";
        let at: Timestamp = text.parse().unwrap();
        assert_eq!(at.to_string(), text);
        assert_eq!(serde_json::to_string(&at).unwrap(), format!("\"{text}\""));
        assert_eq!(at.as_millis(), 1_742_944_020_773);
    }

    #[test]
    fn never_negative_and_never_wraps() {
        let late = Timestamp::from_nanos(i64::MAX);
        assert_eq!(Timestamp::EPOCH.since(late), Duration::ZERO);
        assert_eq!(late.saturating_add(Duration::MAX), late);
        assert_eq!(late.since(Timestamp::from_nanos(i64::MIN)), Duration::from_nanos(u64::MAX));
        assert!("2025-03-25 25:00".parse::<Timestamp>().is_err());
    }
}
