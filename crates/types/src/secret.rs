//! Values that must not print.

use std::fmt;

use serde::{Deserialize, Deserializer};

/// Holds a secret. `Debug` and `Display` print `***`; it does not serialise; only `expose` gives it out, so that every use
/// can be found.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a secret.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The secret itself. Do not log it.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<T> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Secret<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        T::deserialize(d).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_prints() {
        #[derive(Debug)]
        struct Holder {
            #[expect(dead_code, reason = "read by Debug only")]
            key: Secret<String>,
        }
        let key = Secret::new("hunter2".to_owned());
        assert_eq!(key.expose(), "hunter2");
        let text = format!("{key:?} {key} {:?} {:#?}", Holder { key: key.clone() }, Some(&key));
        assert!(!text.contains("hunter2"), "{text}");
    }
}
