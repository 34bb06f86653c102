//! Names of values inside a namespace.

use std::{fmt, sync::Arc};

use crate::error::StoreError;

/// Which promises a key keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyKind {
    /// A plain value with a TTL: the fast path. No version, no scan, no compare; may be evicted where a store is bounded.
    Cache,
    /// Versioned, scannable, never evicted.
    Record,
    /// A lease: written by lease operations only; reads give the holder as bytes and the fence as version.
    Lease,
    /// A list: written by `Push`, read by `list_range`.
    List,
    /// A sliding window: written and read by `Admit`.
    Window,
}

/// A checked key: 1 to 512 bytes of UTF-8 without control characters. Keys of the same name and of different kinds are
/// different keys.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    kind: KeyKind,
    name: Arc<str>,
}

impl Key {
    /// Length of a name, in bytes, at most.
    pub const BYTES_MAX: usize = 512;

    /// A key of `kind`.
    ///
    /// # Errors
    /// `StoreError::InvalidKey` if the name is empty, over 512 bytes, or holds a control character.
    pub fn new(kind: KeyKind, name: impl AsRef<str>) -> Result<Self, StoreError> {
        let name = name.as_ref();
        let rule = if name.is_empty() {
            "must not be empty"
        } else if name.len() > Self::BYTES_MAX {
            "must be at most 512 bytes"
        } else if name.chars().any(char::is_control) {
            "must not hold control characters"
        } else {
            return Ok(Self { kind, name: name.into() });
        };
        Err(StoreError::InvalidKey { rule })
    }

    /// A cache key. See [`Key::new`].
    ///
    /// # Errors
    /// As [`Key::new`].
    pub fn cache(name: impl AsRef<str>) -> Result<Self, StoreError> {
        Self::new(KeyKind::Cache, name)
    }

    /// A record key. See [`Key::new`].
    ///
    /// # Errors
    /// As [`Key::new`].
    pub fn record(name: impl AsRef<str>) -> Result<Self, StoreError> {
        Self::new(KeyKind::Record, name)
    }

    /// A lease's key. See [`Key::new`].
    ///
    /// # Errors
    /// As [`Key::new`].
    pub fn lease(name: impl AsRef<str>) -> Result<Self, StoreError> {
        Self::new(KeyKind::Lease, name)
    }

    /// A list's key. See [`Key::new`].
    ///
    /// # Errors
    /// As [`Key::new`].
    pub fn list(name: impl AsRef<str>) -> Result<Self, StoreError> {
        Self::new(KeyKind::List, name)
    }

    /// A sliding window's key. See [`Key::new`].
    ///
    /// # Errors
    /// As [`Key::new`].
    pub fn window(name: impl AsRef<str>) -> Result<Self, StoreError> {
        Self::new(KeyKind::Window, name)
    }

    /// Which promises it keeps.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its name, to be compared by its address first.
    pub(crate) fn shared_name_ref(&self) -> &Arc<str> {
        &self.name
    }

    /// Its name, to be kept without a copy.
    pub(crate) fn shared_name(&self) -> Arc<str> {
        self.name.clone()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({})", self.kind, self.name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}
