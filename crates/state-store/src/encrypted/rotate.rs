//! From an older key, or none, to the active one.

use infra_types::Namespace;

use super::{EncryptedStateStore, seal::Place};
use crate::{
    batch::{Batch, Ttl, When},
    error::StoreError,
    key::Key,
    op::Op,
    store::{Scan, Value},
};

/// Records of one page: a page is read into memory, and a value may have a mebibyte.
const PAGE: usize = 32;

/// What a rotation found and did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rotated {
    /// Records that were seen.
    pub seen: u64,
    /// Records that were encrypted anew.
    pub rewritten: u64,
    /// Records that somebody else wrote or deleted meanwhile: whoever writes, writes under the active key.
    pub changed_meanwhile: u64,
    /// Records that have no room for what encryption adds (see [`info`](crate::StateStore::info)): they stay as they are, so write them
    /// smaller. Plain ones at the very limit, mostly.
    pub too_large: u64,
    /// The first of those.
    pub first_too_large: Option<Key>,
}

impl EncryptedStateStore {
    /// Encrypts the records under a prefix anew that are not under the active key (with [`accept_plain`](Self::accept_plain) also those
    /// that are not encrypted), each if nobody else writes it meanwhile; times to live stay, versions move on. Counters, cache
    /// keys, lists and outboxes stay as they are. A record that is too large to be encrypted is counted and passed over.
    ///
    /// # Errors
    /// As [`StateStore::scan`](crate::StateStore::scan) and [`StateStore::apply`](crate::StateStore::apply), `WrongCodec` or `Corrupt` for a record that cannot be read. After any of them, and
    /// after `Ambiguous` too, it is safe to call it again: it goes on where work is left.
    ///
    /// # Cancel safety
    /// Dropping the future leaves a part rewritten; every record can be read.
    pub async fn rotate(&self, namespace: &Namespace, prefix: &str) -> Result<Rotated, StoreError> {
        let mut rotated = Rotated::default();
        let stored_max = self.inner.info().limits.value_bytes_max;
        let mut scan = Scan { limit: PAGE, ..Scan::new(prefix) };
        loop {
            let page = self.inner.scan(namespace, scan.clone()).await?;
            for (key, entry) in page.entries {
                rotated.seen += 1;
                let (Value::Bytes(stored), Some(version)) = (&entry.value, entry.version) else { continue };
                let place = Place::value(namespace, &key);
                if self.keys.is_current(&place, stored)? {
                    continue;
                }
                let sealed = self.keys.seal(&place, &self.open(&place, stored)?)?;
                if sealed.len() > stored_max {
                    rotated.too_large += 1;
                    rotated.first_too_large.get_or_insert(key);
                    continue;
                }
                let op =
                    Op::Set { key: key.clone(), value: sealed.into(), ttl: Ttl::Keep, when: When::Version(version) };
                match self.inner.apply(Batch::new(namespace.clone()).with(op)).await {
                    Ok(_) => rotated.rewritten += 1,
                    Err(StoreError::Mismatch { .. }) => rotated.changed_meanwhile += 1,
                    Err(e) => return Err(e),
                }
            }
            match page.next {
                None => return Ok(rotated),
                next => scan.after = next,
            }
        }
    }
}
