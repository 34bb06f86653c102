//! Names and texts: how state and details are recorded.

use std::collections::BTreeMap;

use infra_types::Decimal;

/// A value as text. There is no way from `f64`, on purpose: binary fractions are not what was meant, and their text
/// differs between writers.
///
/// ```compile_fail
/// let _ = infra_audit_log::Fields::new().with("price", 0.1_f64);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldValue(pub(crate) String);

macro_rules! from_text {
    ($($source:ty),+) => {
        $(impl From<$source> for FieldValue {
            fn from(value: $source) -> Self {
                Self(value.to_string())
            }
        })+
    };
}
from_text!(&str, Decimal, bool, u32, u64, i32, i64);

impl From<String> for FieldValue {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// An ordered map from name to text, e.g. `qty` → `0.10`. What a text means (a decimal, a JSON document) is the writer's
/// business; it is stored and hashed as it was given and never parsed and written again.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Fields(pub(crate) BTreeMap<String, String>);

impl Fields {
    /// No fields.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces one.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<FieldValue>) -> Self {
        self.0.insert(name.into(), value.into().0);
        self
    }

    /// The text of one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All, in the byte order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
