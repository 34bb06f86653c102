//! The form of an encrypted value: magic and version, length and name of the key, nonce, ciphertext with its tag.

use bytes::Bytes;
use chacha20poly1305::{
    XNonce,
    aead::{Aead, Payload},
};
use infra_types::{ErrorKind, EventId, Namespace};
use rand::{TryRngCore, rngs::OsRng};

use super::keys::{KeyRing, NamedKey};
use crate::{
    error::StoreError,
    key::{Key, KeyKind},
};

/// 0xC1 begins neither UTF-8 (so no JSON, no text) nor MessagePack; then the version.
const MAGIC: [u8; 5] = [0xC1, b'e', b'n', b'c', 1];
const NONCE: usize = 24;
const TAG: usize = 16;

/// What is stored is longer than the value by so much at most.
pub(super) const OVERHEAD_MAX: usize = MAGIC.len() + 1 + KeyRing::ID_BYTES_MAX + NONCE + TAG;

/// Where a value belongs; it opens nowhere else.
pub(super) struct Place<'a> {
    tag: u8,
    namespace: &'a Namespace,
    key: &'a Key,
    message: Option<&'a EventId>,
}

impl<'a> Place<'a> {
    pub(super) fn value(namespace: &'a Namespace, key: &'a Key) -> Self {
        let tag = match key.kind() {
            KeyKind::Cache => b'c',
            KeyKind::Record => b'r',
            KeyKind::List => b'l',
            KeyKind::Lease => b'f',
            KeyKind::Window => b'w',
        };
        Self { tag, namespace, key, message: None }
    }

    pub(super) fn message(namespace: &'a Namespace, outbox: &'a Key, id: &'a EventId) -> Self {
        Self { tag: b'o', namespace, key: outbox, message: Some(id) }
    }

    /// What the tag vouches for beside the value. Every part has its length in front: no two places read alike.
    fn associated(&self, header: &[u8]) -> Vec<u8> {
        let message = self.message.map_or("", EventId::as_str);
        let mut bytes = vec![self.tag];
        for part in [header, self.namespace.as_str().as_bytes(), self.key.name().as_bytes(), message.as_bytes()] {
            bytes.extend((part.len() as u64).to_be_bytes());
            bytes.extend(part);
        }
        bytes
    }

    fn corrupt(&self, why: &str) -> StoreError {
        StoreError::Corrupt { reason: format!("{:?} in {} {why}", self.key, self.namespace) }
    }
}

impl KeyRing {
    pub(super) fn seal(&self, place: &Place<'_>, plain: &[u8]) -> Result<Bytes, StoreError> {
        let NamedKey { id, cipher } = self.active_key();
        let mut nonce = [0; NONCE];
        // The system's own source: a generator in this process could be copied by a fork.
        OsRng.try_fill_bytes(&mut nonce).map_err(|_| StoreError::Backend {
            message: "the system gives no random bytes: nothing can be encrypted".into(),
            kind: ErrorKind::Unavailable,
        })?;
        let mut sealed = Vec::with_capacity(OVERHEAD_MAX + plain.len());
        sealed.extend(MAGIC);
        // Checked to be at most 32 bytes.
        sealed.push(id.len() as u8);
        sealed.extend(id.as_bytes());
        let aad = place.associated(&sealed);
        let ciphertext = cipher.encrypt(XNonce::from_slice(&nonce), Payload { msg: plain, aad: &aad });
        let ciphertext = ciphertext.map_err(|_| StoreError::TooLarge {
            what: "value to encrypt",
            found: plain.len(),
            max: usize::MAX,
        })?;
        sealed.extend(nonce);
        sealed.extend(ciphertext);
        Ok(sealed.into())
    }

    pub(super) fn open(&self, place: &Place<'_>, stored: &Bytes, accepts_plain: bool) -> Result<Bytes, StoreError> {
        let Some(parts) = split(place, stored)? else {
            return if accepts_plain { Ok(stored.clone()) } else { Err(self.wrong(place, "plain bytes".into())) };
        };
        let key =
            self.find(parts.id).ok_or_else(|| self.wrong(place, format!("encrypted under key {:?}", parts.id)))?;
        let payload = Payload { msg: parts.ciphertext, aad: &place.associated(parts.header) };
        let plain = key.cipher.decrypt(XNonce::from_slice(parts.nonce), payload);
        plain.map(Bytes::from).map_err(|_| {
            let id = parts.id;
            place.corrupt(&format!(
                "does not decrypt under key {id:?}: it was changed, moved, or its key has another name"
            ))
        })
    }

    /// Whether the active key encrypted these bytes.
    pub(super) fn is_current(&self, place: &Place<'_>, stored: &[u8]) -> Result<bool, StoreError> {
        Ok(split(place, stored)?.is_some_and(|parts| parts.id == self.active()))
    }

    fn wrong(&self, place: &Place<'_>, found: String) -> StoreError {
        let ids: Vec<String> = self.ids().map(|id| format!("{id:?}")).collect();
        let expected = format!("encrypted under key {}", ids.join(" or "));
        StoreError::WrongCodec { key: place.key.clone(), found, expected }
    }
}

struct Parts<'a> {
    header: &'a [u8],
    id: &'a str,
    nonce: &'a [u8],
    ciphertext: &'a [u8],
}

/// The parts of an encrypted value; none for bytes that are not encrypted.
fn split<'a>(place: &Place<'_>, stored: &'a [u8]) -> Result<Option<Parts<'a>>, StoreError> {
    // The version is the last byte; one that is not known is not plain either.
    if !stored.starts_with(&MAGIC[..4]) {
        return Ok(None);
    }
    let parts = || {
        let rest = stored.strip_prefix(&MAGIC)?;
        let (length, rest) = rest.split_first()?;
        let (id, rest) = rest.split_at_checked(usize::from(*length))?;
        let (nonce, ciphertext) = rest.split_at_checked(NONCE)?;
        let header = &stored[..MAGIC.len() + 1 + id.len()];
        Some(Parts { header, id: std::str::from_utf8(id).ok()?, nonce, ciphertext })
    };
    parts().map(Some).ok_or_else(|| place.corrupt("has a damaged encryption header, or that of a newer version"))
}
