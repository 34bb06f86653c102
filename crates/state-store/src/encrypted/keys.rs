//! The keys, by the names that stand in front of what they encrypted.

use std::fmt;

use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use infra_types::Secret;

use crate::error::StoreError;

pub(super) struct NamedKey {
    pub(super) id: String,
    /// Wiped from memory when dropped.
    pub(super) cipher: XChaCha20Poly1305,
}

/// The key that encrypts, and those that still decrypt.
///
/// To rotate a key that several processes share: (1) every process gets the new key [`with_older`](Self::with_older); (2) every
/// process gets it as the active one and the former as older; (3) [`rotate`](crate::EncryptedStateStore::rotate); (4) the former key
/// goes once nothing under it is left: cache keys, lists and outboxes are not rewritten, they run out.
pub struct KeyRing {
    active: NamedKey,
    older: Vec<NamedKey>,
}

impl KeyRing {
    /// Length of a key's name, in bytes, at most.
    pub const ID_BYTES_MAX: usize = 32;

    /// A ring of one key, which encrypts. The name (`[a-z0-9_.-]{1,32}`, such as `2026-01`) is not secret and never changes its key.
    /// The key is 32 bytes of a random source, not a password.
    ///
    /// # Errors
    /// `Invalid` for a name against the rule.
    pub fn new(id: &str, key: Secret<[u8; 32]>) -> Result<Self, StoreError> {
        Ok(Self { active: named(id, &key)?, older: Vec::new() })
    }

    /// Adds a key that only decrypts.
    ///
    /// # Errors
    /// `Invalid` for a name against the rule, or one that is in the ring.
    pub fn with_older(mut self, id: &str, key: Secret<[u8; 32]>) -> Result<Self, StoreError> {
        if self.find(id).is_some() {
            return Err(StoreError::Invalid { rule: format!("there are two keys called {id:?}: name them apart") });
        }
        self.older.push(named(id, &key)?);
        Ok(self)
    }

    /// The name of the key that encrypts.
    #[must_use]
    pub fn active(&self) -> &str {
        &self.active.id
    }

    /// The names of all keys, the active one first.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.all().map(|key| key.id.as_str())
    }

    pub(super) fn active_key(&self) -> &NamedKey {
        &self.active
    }

    pub(super) fn find(&self, id: &str) -> Option<&NamedKey> {
        self.all().find(|key| key.id == id)
    }

    fn all(&self) -> impl Iterator<Item = &NamedKey> {
        std::iter::once(&self.active).chain(&self.older)
    }
}

fn named(id: &str, key: &Secret<[u8; 32]>) -> Result<NamedKey, StoreError> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-');
    if id.is_empty() || id.len() > KeyRing::ID_BYTES_MAX || !id.bytes().all(fits) {
        return Err(StoreError::Invalid { rule: "an encryption key's name must match [a-z0-9_.-]{1,32}".into() });
    }
    Ok(NamedKey { id: id.to_owned(), cipher: XChaCha20Poly1305::new(key.expose().into()) })
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}
